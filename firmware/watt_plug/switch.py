"""The plug's switch as the application sees it: orders, interlock, and the file that remembers both.

The file is one line of JSON and a check sum, replaced as a whole. A damaged one locks commands out for good (V5.6): a
counter that is guessed would let an old command in.
"""

import hashlib
import json

from watt_wire import record

from watt_plug.interlock import Interlock, Rules, State
from watt_plug.orders import Orders
from watt_plug.storage import Storage

FILE = "interlock"
CHECK_SIZE = 16


class Switch:
    """A relay under the interlock. The owner asks `relay` and moves the pin after `save`.

    network   32 bytes; parties   (party, public key) of who may sign commands; none: every command is refused
    below     below(n) -> random integer in 0..n-1
    """

    def __init__(
        self, network: bytes, parties: "list[tuple[int, bytes]]", rules: Rules, below: object, essential: bool = False
    ) -> None:
        self._network = network
        self._parties = parties
        self._rules = rules
        self._below = below
        self._essential = essential
        self._storage: "Storage | None" = None
        self.orders = Orders(network, bytes(8), [])
        self.lock = Interlock(rules, State(), below)

    def load(self, storage: Storage, plug_id: bytes) -> bool:
        """Read the file and make both parts; return False when it is damaged."""
        self._storage = storage
        state = State()
        good = True
        data = storage.read(FILE)
        if data is not None:
            try:
                check, text = data[:CHECK_SIZE], data[CHECK_SIZE:]
                if hashlib.sha256(text).digest()[:CHECK_SIZE] != check:
                    raise ValueError("check sum")
                state.decode(json.loads(text))
            except ValueError:
                good = False
                state = State()
                state.lock()
        if self._essential:
            state.essential = True
        self.orders = Orders(self._network, plug_id, self._parties)
        self.lock = Interlock(self._rules, state, self._below)
        return good

    def save(self) -> None:
        """Write what changed; before the relay moves and before anything is said about it."""
        if self.lock.dirty and self._storage is not None:
            text = json.dumps(self.lock.saved.encode()).encode()
            self._storage.write(FILE, hashlib.sha256(text).digest()[:CHECK_SIZE] + text)
            self.lock.dirty = False

    @property
    def record_relay(self) -> int:
        """The relay's state as a record names it."""
        return record.RELAY_ON if self.lock.relay else record.RELAY_OFF
