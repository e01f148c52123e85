"""A bad validator's strategy in general: it runs the honest code, and changes, adds or keeps back what that sends.

Liars see every frame the moment it is sent, before anybody receives it (a rushing adversary), know the keys of their
own validators only, and one user's key. They may be combined.
"""

from typing import TYPE_CHECKING, Any

from msgspec import msgpack
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Certificate, CertifiedBlock, Header
from watt_chain.codec import DecodeError
from watt_chain.pbft.messages import Frame, Message, open_frame, signed_bytes

from watt_sim.drbg import Drbg
from watt_sim.fakes import CHAIN

if TYPE_CHECKING:
    from watt_chain.pbft.config import Signer

    from watt_sim.station import Station
    from watt_sim.world import World

Extra = list[tuple[int, bytes]]
"""Frames to send besides: (receiver, frame)."""


class Liar:
    """A bad validator's strategy; the methods of this class are those of an honest one."""

    def __init__(self, world: "World", node: int) -> None:
        self.world = world
        self.node = node
        self.others = [peer for peer in range(world.nodes) if peer != node]
        "Numbers of the other nodes."
        self.chance = Drbg("liar", type(self).__name__, world.config.seed, node)
        self._seat = (-1, 0, world.config.n, world.keys[node])
        "(height of the head, our index, validators, our key) when last looked at."

    @property
    def station(self) -> "Station":
        """Our own station, which runs honest code."""
        return self.world.stations[self.node]

    def _seated(self) -> tuple[int, int, int, "Signer"]:
        ledger = self.station.ledger
        if ledger is not None and ledger.head.height != self._seat[0]:
            keys = [key for key in self.station.keys if key.public in ledger.publics]
            key = keys[0] if keys else self.station.keys[-1]
            index = ledger.publics.index(key.public) if keys else -1
            self._seat = (ledger.head.height, index, len(ledger.publics), key)
        return self._seat

    @property
    def index(self) -> int:
        """Our place on the list of the height in flight; -1 when we are not on it."""
        return self._seated()[1]

    @property
    def n(self) -> int:
        """Validators of that height."""
        return self._seated()[2]

    @property
    def key(self) -> "Signer":
        """What we sign with there."""
        return self._seated()[3]

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        """What leaves instead of `frame`."""
        return [frame]

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        """Something was sent by somebody, now."""
        return []

    def receive(self, sender: int, frame: bytes) -> Extra:
        """A frame arrived here."""
        return []

    def seal(self, message: Message) -> bytes:
        """A frame with our signature, whoever it claims to be from."""
        body = codec.encode(message)
        return codec.encode(Frame(body, self.key.sign(signed_bytes(self.world.id, message, body))))

    def open(self, frame: bytes) -> Message | None:
        """The content of one of our frames; None when another liar made it unreadable."""
        try:
            return open_frame(frame, CHAIN)[1]
        except DecodeError:
            return None

    def leads(self, height: int, view: int) -> bool:
        """Whether we lead that view."""
        return self.index >= 0 and self.leader(height, view) == self.index

    def leader(self, height: int, view: int) -> int:
        """Index of who leads a view; -1 for another height than ours, whose order nobody knows yet."""
        ledger = self.station.ledger
        if ledger is None or ledger.head.height + 1 != height:
            return -1
        return ledger.schedule.leader(height, view)

    def everybody(self, frame: bytes) -> Extra:
        """To all others."""
        return [(peer, frame) for peer in self.others]

    def build(self, header: Header, digests: list[bytes], later_s: int, proposer: int = -1) -> bytes | None:
        """Another valid header over the same transactions, if we have them all and are at that height."""
        station = self.station
        if station.replica is None or station.ledger is None or station.ledger.head.height + 1 != header.height:
            return None
        txs = [tx for digest in digests if (tx := station.replica.pool.find(digest)) is not None]
        if len(txs) < header.tx_count:
            return None
        leader = self.index if proposer < 0 else proposer
        return station.ledger.build(header.view, leader, header.time_s + later_s, txs).header


def place_of(message: Any) -> tuple[int, int, int, int]:
    """chain, sender, height, view: how every message of the agreement begins."""
    return message.chain, message.sender, message.height, message.view


def replaced(header: Header, **fields: Any) -> Header:
    """The header with some fields changed."""
    return Header(**{name: fields.get(name, getattr(header, name)) for name in Header.__struct_fields__})


def sender_of(frame: bytes) -> int:
    """The index that a frame names as its sender's."""
    sender: int = msgpack.decode(msgpack.decode(frame)[0])[2]
    return sender


def certify(header: bytes, transactions: list[bytes], certificate: Certificate) -> bytes:
    """A certified block of these parts."""
    block = codec.encode(blocks.Block(header, transactions))
    return codec.encode(CertifiedBlock(block, codec.encode(certificate)))
