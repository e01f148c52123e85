"""What the tests of the desk share: a plug that signs events, offices that sign commands, a desk without a broker."""

from __future__ import annotations

import hashlib
from pathlib import Path

from watt_chain import crypto
from watt_gateway.commands import CommandRelay, Offices
from watt_gateway.desk import PlugDesk
from watt_gateway.lines import Lines
from watt_gateway.plugbook import PlugBook
from watt_gateway.registry import PlugEntry
from watt_gateway.store import Store
from watt_node.log import Log
from watt_wire import command, statement

NETWORK = bytes(range(32))
NOW_S = 1_772_442_000
NAME = "home-1"


def key_of(number: int) -> crypto.PrivateKey:
    return crypto.PrivateKey.from_bytes((30_000 + number).to_bytes(32, "big"))


HOUSEHOLD, PLUG, STRANGER = key_of(1), key_of(2), key_of(3)
GRID, AGGREGATOR, REGULATOR = key_of(4), key_of(5), key_of(6)
PLUG_ID = crypto.id8(PLUG.public)
OFFICES = Offices([(1, GRID.public), (2, AGGREGATOR.public), (3, REGULATOR.public)])


def event(
    number: int, kind: int, first: int = 0, last: int = 0, plug: bytes = PLUG_ID, key: crypto.PrivateKey = PLUG
) -> bytes:
    numbers = {"boot_id": 1, "number": number, "kind": kind, "time_s": NOW_S, "time_quality": ord("S"), "checkpoint": 1}
    numbers |= {"import_mwh": 5, "first": first, "last": last}
    body = statement.EVENT.encode(statement.Statement(numbers, {"plug_id": plug}))
    return statement.EVENT.seal(body, key.sign(statement.EVENT.message(body)))


def body_hash(frame: bytes) -> bytes:
    return hashlib.sha256(statement.EVENT.body_of(frame)).digest()


def order(
    counter: int,
    action: int = command.OFF,
    keys: tuple[crypto.PrivateKey, crypto.PrivateKey] = (GRID, AGGREGATOR),
    plug: bytes = PLUG_ID,
    network: bytes = NETWORK,
    at_s: int = NOW_S,
) -> bytes:
    first, second = sorted(keys, key=lambda key: crypto.id8(key.public))
    hold_s = 0 if action == command.RELEASE else 900
    ids = crypto.id8(first.public), crypto.id8(second.public)
    said = command.Command(1, network, plug, counter, action, at_s, at_s + 900, hold_s, 0, bytes(32), *ids)
    body = command.encode(said)
    message = command.signing_message(body)
    return command.seal(body, first.sign(message), second.sign(message))


class Fixture:
    """A desk whose messages are kept, on a real store. `now_s` is the protocol's time."""

    def __init__(self, folder: Path, essential: bool = False) -> None:
        self.now_s = NOW_S
        self.quality = "S"
        self.sent: list[tuple[str, bytes]] = []
        self.outcomes: list[str] = []
        self.store = Store(folder / "gateway.sqlite")
        self.book = PlugBook(self.store)
        self.plugs = {PLUG_ID: PlugEntry(PLUG_ID.hex(), PLUG.public.hex(), "kettle", 2000, 0)}
        self.tray = folder / "tray"
        self.relay = CommandRelay(
            NETWORK, OFFICES, self.plugs, {PLUG_ID} if essential else set(), self.book, lambda: self.now_s
        )
        lines = Lines(Log("test", "error"))
        ends = (self._publish, lambda plug: (self.now_s * 1000, self.quality), self.tray, lines, lambda: self.now_s)
        self.desk = PlugDesk(NAME, HOUSEHOLD, self.plugs, self.book, self.relay, *ends)
        self.desk.on_command = lambda done: self.outcomes.append(done.state)

    def _publish(self, topic: str, payload: bytes) -> bool:
        self.sent.append((topic.rpartition("/")[2], payload))
        return True

    def take(self, level: str, payload: bytes, plug: bytes = PLUG_ID) -> None:
        self.desk.take(f"wp/1/home/{NAME}/plug/{plug.hex()}/{level}", payload)

    def take_sent(self) -> list[tuple[str, bytes]]:
        sent, self.sent = self.sent, []
        return sent
