"""The inclusion list: what a validator wants in the next new block, so that no leader keeps a transaction out (4.10).

Each validator has a list of its own, which nobody else needs to believe: the oldest transactions that could have run
in each of the last n blocks. It signs nothing for a new block that leaves one of them out, so a leader that f + 1
honest validators catch at that loses its view. The list needs no message, because what waits is gossiped again and
again (4.1.2): whoever leads has had it.
"""

from watt_chain.pbft.config import GOSSIP_REPEAT_MS, INCLUSION_AGE_MS, INCLUSION_COUNT
from watt_chain.pbft.desk import Desk
from watt_chain.pbft.round import Proposal
from watt_chain.pool import Pool
from watt_chain.transaction import DecodedTransaction, decode_transaction


def wanted(pool: Pool, desk: Desk) -> list[DecodedTransaction]:
    """Our inclusion list (4.10.1), oldest first."""
    before_ms = desk.now_ms - INCLUSION_AGE_MS
    return pool.overdue(desk.app.next_nonce, desk.n, before_ms, INCLUSION_COUNT, desk.config.vouch)


def is_lacking(proposal: Proposal, view: int, pool: Pool, desk: Desk) -> bool:
    """Whether the block proposed in `view` is one that we do not support for what it leaves out (4.10.2).

    The first time that is held against its leader.
    """
    if proposal.header.view != view or view > desk.f:  # a quorum has supported it, or we have objected long enough
        return False
    if not proposal.lacks:
        tx = _left_out(proposal, pool, desk)
        if tx is not None:
            proposal.lacks = tx.txid
            desk.blame("left-out", proposal.header.proposer)
    return bool(proposal.lacks)


def _left_out(proposal: Proposal, pool: Pool, desk: Desk) -> DecodedTransaction | None:
    """The first of our list that a complete new block lacks without an excuse (4.10.3); None: it lacks nothing."""
    missing = [tx for tx in wanted(pool, desk) if tx.digest not in proposal.places]
    if not missing:
        return None
    txs = [decode_transaction(raw) for raw in proposal.block().transactions]
    turns = {(tx.signer, tx.nonce): None for tx in txs}
    old = [tx for tx in txs if pool.is_older(tx.digest, desk.now_ms - GOSSIP_REPEAT_MS)]
    room = desk.config.bytes_max - sum(len(tx.raw) for tx in old)
    for tx in missing:
        is_full = len(old) >= desk.config.transactions_max or len(tx.raw) > room
        if not is_full and (tx.signer, tx.nonce) not in turns:
            return tx
    return None
