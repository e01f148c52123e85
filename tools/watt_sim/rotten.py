"""The liar of state transfer (CONSENSUS.md 4.6.4 to 4.6.8): it offers states that are none and serves rotten parts."""

from typing import TYPE_CHECKING

from msgspec.structs import replace
from watt_chain import codec
from watt_chain.codec import DecodeError
from watt_chain.pbft.messages import Message, StateOffer, StatePart, StateRequest, Status, SyncRequest, open_frame
from watt_chain.snapshot import FrozenState, Manifest, StateRange
from watt_wire import merkle

from watt_sim.fakes import CHAIN
from watt_sim.liar import Extra, Liar

if TYPE_CHECKING:
    from watt_sim.station import Station
    from watt_sim.world import World


class Rotten(Liar):
    """Answers every question for blocks or states before honest code does, with one thing wrong, or not at all."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._offered: dict[int, tuple[FrozenState, bool]] = {}
        "Node -> (state it was offered last, whether only its head is a lie and the parts are to fit)."

    def receive(self, sender: int, frame: bytes) -> Extra:
        try:
            message = open_frame(frame, CHAIN)[1]
        except DecodeError:
            return []
        state = self._state()
        if state is None or not isinstance(message, SyncRequest | StateRequest) or self.chance.chance(200_000):
            return []
        if isinstance(message, SyncRequest):
            return self._offer(sender, state)
        state, is_whole = self._offered.get(sender, (state, False))
        part = state.range(message.slot)
        if part is None:
            return []
        sent = part if is_whole else self._range(part)
        return [(sender, self.seal(StatePart(CHAIN, self.index & 0xFFFF, message.height, sent)))]

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        state = self._state()
        is_behind = isinstance(message, Status) and state is not None and message.height < state.height
        if state is None or not is_behind or not self.chance.chance(200_000):
            return []
        return self._offer(station.node, state)  # without being asked

    def _offer(self, to: int, state: FrozenState) -> Extra:
        manifest = self._manifest(state)
        is_whole = manifest.header != state.header or manifest.certificate != state.certificate
        self._offered[to] = state, is_whole
        return [(to, self.seal(StateOffer(CHAIN, self.index & 0xFFFF, state.height + 64, manifest)))]

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        kept_back = isinstance(message, StateOffer | StatePart) and (
            peer in self._offered or self.chance.chance(500_000)
        )
        return [] if kept_back else [frame]

    def _state(self) -> FrozenState | None:
        ledger = self.station.ledger
        return ledger.frozen[-1] if ledger is not None and ledger.frozen else None

    def _manifest(self, state: FrozenState) -> Manifest:
        """What the state consists of, or something like it."""
        true = state.manifest()
        roots = list(true.chunk_roots)
        match self.chance.below(9):
            case 0:
                return replace(true, size=true.size + 1)
            case 1 if len(roots) > 1:
                return replace(true, chunk_roots=roots[::-1])
            case 2 if len(roots) == 2:  # a list with the right root whose one member is no chunk
                top = merkle.node_hash(roots[0], roots[1])
                return replace(true, size=true.size % 256 or 256, chunk_roots=[top])
            case 3 | 6 | 7:  # a header that nobody signed
                header = codec.decode(true.header, list)
                header[2] += 64
                return replace(true, header=codec.encode(header))
            case 4 if true.changes:
                return replace(true, changes=true.changes[:-1])
            case 5:
                return replace(true, certificate=codec.encode([0, []]))
        return true  # and then serves rotten parts

    def _range(self, part: StateRange) -> StateRange:
        """A range with a value, a key, an order or a path that is not the state's."""
        entries = list(part.entries)
        at = self.chance.below(len(entries))
        key, value = entries[at]
        match self.chance.below(5):
            case 0:
                entries[at] = key, value + b"\x00"
            case 1:
                entries[at] = key + b"0", value
            case 2:
                entries = entries[::-1]
            case 3:
                return replace(part, path=[*part.path, bytes(32)])
            case 4:
                entries = entries[:-1]
        return replace(part, entries=entries)
