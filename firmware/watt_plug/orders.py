"""Switch commands from the network: cheap checks first, then two signatures, verified in slices (DEVICE.md V5.1).

A verification takes about half a second on an ESP32. `step` does a sixteenth of one and returns, so the loop measures
and feeds its watchdog in between. One command is under way at a time; what else comes is refused as busy and counted,
so a flood costs a decode each and no more.
"""

import hashlib

from watt_wire import command as commands
from watt_wire import p256
from watt_wire.errors import DecodeError
from watt_wire.fields import ID_SIZE, SIGNATURE_SIZE

SLICE = 16
"Doublings per step: about 60 ms on an ESP32 (`make cost`); its UART keeps the frames of half a second."
REASONS_MAX = 40
"Different reasons that are counted: there are fewer; a mistake must not fill memory."


class Orders:
    """The way in for commands of one plug.

    network   32 bytes
    parties   (party number, public key): whose two signatures count; two of one party are one voice
    """

    def __init__(self, network: bytes, plug_id: bytes, parties: "list[tuple[int, bytes]]") -> None:
        self._network = network
        self._plug_id = plug_id
        self._parties = {}
        for party, public in parties:
            self._parties[hashlib.sha256(public).digest()[:ID_SIZE]] = (party, public)
        self._work: list[p256.Verification] = []
        self._order: "commands.Command | None" = None
        self.refused: dict[str, int] = {}
        "Commands refused, by reason."
        self.taken = 0

    @property
    def busy(self) -> bool:
        return self._order is not None

    @property
    def total(self) -> int:
        """Number of commands refused."""
        return sum(self.refused.values())

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        if reason in self.refused or len(self.refused) < REASONS_MAX:
            self.refused[reason] = self.refused.get(reason, 0) + 1

    def offer(self, frame: bytes, last_counter: int, now_s: int, clock_good: bool) -> None:
        """Take a frame from the network; what is wrong with it at first sight is refused at once."""
        reason = self._look(frame, last_counter, now_s, clock_good)
        if reason:
            self.refuse(reason)

    def step(self) -> "commands.Command | None":
        """Verify a slice; return the command once both its signatures are good."""
        if not self._work:
            return None
        first = self._work[0]
        if not first.step(SLICE):
            return None
        if not first.good:
            self.refuse("command-signature")
            self._work = []
            self._order = None
            return None
        self._work.pop(0)
        if self._work:
            return None
        order = self._order
        self._order = None
        self.taken += 1
        return order

    def _look(self, frame: bytes, last_counter: int, now_s: int, clock_good: bool) -> str:
        try:
            order = commands.decode(frame)
        except DecodeError as error:
            return error.reason
        reason = commands.refusal(order, self._network, self._plug_id, last_counter, now_s)
        if reason == "command-network" or reason == "command-plug" or reason == "command-replayed":
            return reason
        pair = self._parties.get(order.signer_a), self._parties.get(order.signer_b)
        if pair[0] is None or pair[1] is None or pair[0][0] == pair[1][0]:
            return "command-party"
        if not clock_good and order.action != commands.RELEASE:
            return "command-clock"
        if reason and clock_good:
            # Without a clock nobody can tell whether a release is fresh; giving the relay back does no harm (W6.6).
            return reason
        if self._order is not None:
            return "command-busy"
        first, second = frame[commands.BODY_SIZE : -SIGNATURE_SIZE], frame[-SIGNATURE_SIZE:]
        if not p256.is_low_s(first) or not p256.is_low_s(second):
            return "command-signature"
        message = commands.signing_message(frame[: commands.BODY_SIZE])
        self._work = [
            p256.Verification(pair[0][1], message, first),
            p256.Verification(pair[1][1], message, second),
        ]
        self._order = order
        return ""
