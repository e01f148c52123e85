"""A bad leader that keeps one user's transactions out of every block it proposes (CONSENSUS.md 4.10)."""

from typing import TYPE_CHECKING

from watt_chain import codec
from watt_chain.block import Header
from watt_chain.codec import DecodeError
from watt_chain.pbft.messages import Commit, Prepare, PrePrepare
from watt_chain.transaction import decode_transaction

from watt_sim.liar import Liar, place_of
from watt_sim.plain import hash_of

if TYPE_CHECKING:
    from watt_sim.world import World


class Censor(Liar):
    """Proposes everything but what its victim wants, and nothing when nothing else waits."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._victim = self.chance.choice(world.users).public
        self._other: dict[tuple[int, int], tuple[bytes, list[bytes]] | None] = {}
        "(height, view) -> header and digests of what is proposed instead; None: nothing is."

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        if not isinstance(message, PrePrepare | Prepare | Commit):
            return [frame]
        place = (message.height, message.view)
        if isinstance(message, PrePrepare) and place not in self._other:
            self._censor(message)
        if place not in self._other:
            return [frame]
        other = self._other[place]
        if other is None:
            return []
        header, digests = other
        if isinstance(message, PrePrepare):
            return [self.seal(PrePrepare(*place_of(message), header, digests))]
        return [self.seal(type(message)(*place_of(message), hash_of(self.world.id, header)))]

    def _censor(self, message: PrePrepare) -> None:
        """Choose what to propose instead of a new block with the victim's transactions in it."""
        replica = self.station.replica
        try:
            header = codec.decode(message.header, Header)
        except DecodeError:  # another strategy of ours has been at it
            return
        if replica is None or header.view != message.view:
            return
        bodies = {digest: replica.pool.find(digest) for digest in message.digests}
        kept = [d for d, tx in bodies.items() if tx is None or decode_transaction(tx).signer != self._victim]
        if len(kept) == len(message.digests):
            return
        fewer = self.build(header, kept, 0) if kept else None
        self._other[(message.height, message.view)] = None if fewer is None else (fewer, kept)
        self.world.watch.count("censored")
