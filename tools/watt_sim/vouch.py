"""The liar of assigned verification (CONSENSUS.md 4.9): it vouches for signatures that do not hold."""

from typing import TYPE_CHECKING

from watt_chain import codec
from watt_chain.pbft.attest import assigned_to
from watt_chain.pbft.messages import Attest, Gossip, Message
from watt_chain.transaction import decode_transaction
from watt_wire import merkle

from watt_sim.fakes import CHAIN
from watt_sim.liar import Extra, Liar

if TYPE_CHECKING:
    from watt_sim.station import Station
    from watt_sim.world import World

FORGERIES = 8
"""Transactions that a liar makes up in a run."""
SALTS = 64
"""Tries for one that is the liar's to check: each of them is with a chance of (f + 1) / n."""


class Vouch(Liar):
    """Attests signatures that do not hold, of transactions that it makes up and gives to everybody."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._left = FORGERIES

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        mine = self.station
        if mine.ledger is None or not self._left or not self.chance.chance(50_000):
            return []
        self._left -= 1
        user = self.world.users[self.chance.below(len(self.world.users))].public
        nonce = max(mine.ledger.next_nonce(user), 1)
        for salt in range(SALTS):  # until it is ours to check
            tx = codec.encode([codec.encode(["Add", CHAIN, nonce, [salt]]), user, bytes(64)])
            digest = merkle.leaf_hash(tx)
            if self.index in assigned_to(digest, self.n, (self.n - 1) // 3):
                break
        if mine.replica is not None:  # and its own copy believes it: it proposes and votes for it
            mine.ledger.verified.add(digest)
            mine.replica.pool.add(decode_transaction(tx), mine.clock(self.world.now_ms), nonce)
        height = mine.ledger.head.height
        gossip, lie = Gossip(CHAIN, self.index, height, [tx]), Attest(CHAIN, self.index, height, [digest])
        told = [self.seal(one) for one in ((gossip, lie) if self.chance.chance(500_000) else (lie, gossip))]
        return [one for frame in told for one in self.everybody(frame)]
