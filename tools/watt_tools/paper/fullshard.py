"""Full sharding, the baseline: client-driven two-phase commit, one consensus per area and phase.

    Prepare   set this area's share aside, or say that it cannot be             -> Prepared | Refused
    Commit    with the proof that all other areas are prepared                  -> Committed
    Abort     with the proof that one of them refused
    Conclude  Prepare and Commit in one, in the last area of those that are asked in a row

The client carries the proofs, as in OmniLedger's Atomix. Areas one after the other or all at once is the client's
choice (`actors.py`); the contract is the same. A client that stops between the phases leaves money set aside for
ever: that is the protocol's known weakness, and the experiment does not hide it.

`Step` is no two-phase commit and not atomic: one consensus per area, each with effect at once, the next area
following on the proof of the one before. It is here because the paper's figures look like it
(station/EXPERIMENTS.md).
"""

from __future__ import annotations

from typing import Final

from watt_chain.codec import Structure

from watt_tools.paper.book import LOCAL, OPEN, Book, Call, Refused, need_buyer, said, trade_key
from watt_tools.paper.objects import Bundle, ProvenCall, StepCall, Trade, TradeCall, trade_id


class Share(Structure, frozen=True):
    """A trade as one area knows it."""

    trade: Trade
    state: str
    "PREPARED, REFUSED, COMMITTED, ABORTED."


def prepare(book: Book, signer: bytes, call: TradeCall) -> None:
    """First phase. A refusal is an answer that can be proven, so it is a message and no reason in a receipt."""
    trade = call.trade
    need_buyer(signer, trade)
    key = trade_key(trade_id(trade))
    if book.get(key, Share) is not None:
        raise Refused("stage")
    if book.context.chain not in trade.chains:
        raise Refused("area")
    mark = book.state.savepoint()
    try:
        book.set_aside(trade, book.context.chain)
    except Refused:
        book.state.rollback(mark)
        book.put(key, Share(trade, "REFUSED"))
        book.say(OPEN, "Refused", trade)
        return
    book.put(key, Share(trade, "PREPARED"))
    book.say(OPEN, "Prepared", trade)


def commit(book: Book, signer: bytes, call: ProvenCall) -> None:
    """Second phase: everybody else is prepared."""
    key = trade_key(call.trade)
    share = _prepared(book, key)
    chain = book.context.chain
    others = [other for other in dict.fromkeys(share.trade.chains) if other != chain]
    if [bundle.chain for bundle in call.proofs] != others:
        raise Refused("proofs")
    for bundle in call.proofs:
        _need(book, bundle, "Prepared", call.trade)
    book.close(share.trade, chain)
    book.put(key, Share(share.trade, "COMMITTED"))
    book.say(OPEN, "Committed", share.trade)


def conclude(book: Book, signer: bytes, call: StepCall) -> None:
    """Both phases of the last area at once, on the proof that all others are prepared: it decides."""
    prepare(book, signer, TradeCall(call.trade))
    id32 = trade_id(call.trade)
    share = book.get(trade_key(id32), Share)
    if share is not None and share.state == "PREPARED":
        commit(book, signer, ProvenCall(id32, call.proofs))


def abort(book: Book, signer: bytes, call: ProvenCall) -> None:
    """Second phase: somebody refused."""
    key = trade_key(call.trade)
    share = _prepared(book, key)
    if len(call.proofs) != 1 or call.proofs[0].chain not in share.trade.chains:
        raise Refused("proofs")
    _need(book, call.proofs[0], "Refused", call.trade)
    book.undo(share.trade, book.context.chain)
    book.put(key, Share(share.trade, "ABORTED"))


def step(book: Book, signer: bytes, call: StepCall) -> None:
    """One area after the other, each with effect at once."""
    trade, chain = call.trade, book.context.chain
    need_buyer(signer, trade)
    key = trade_key(trade_id(trade))
    if book.get(key, Share) is not None or chain not in trade.chains:
        raise Refused("stage")
    at = trade.chains.index(chain)
    if [bundle.chain for bundle in call.proofs] != trade.chains[max(0, at - 1) : at]:
        raise Refused("proofs")
    for bundle in call.proofs:
        _need(book, bundle, "Committed", trade_id(trade))
    book.set_aside(trade, chain)
    book.close(trade, chain)
    book.put(key, Share(trade, "COMMITTED"))
    book.say(OPEN, "Committed", trade)


def _prepared(book: Book, key: bytes) -> Share:
    share = book.get(key, Share)
    if share is None or share.state != "PREPARED":
        raise Refused("stage")
    return share


def _need(book: Book, bundle: Bundle, kind: str, id32: bytes) -> None:
    """Refuses unless the bundle's only message is of this kind and about this trade."""
    found = book.open(bundle)
    if [(one.kind, said(one).trade) for one in found] != [(kind, id32)]:
        raise Refused("proof")


FULL: Final[dict[str, Call]] = {
    **LOCAL,
    "Prepare": (TradeCall, prepare),
    "Commit": (ProvenCall, commit),
    "Abort": (ProvenCall, abort),
    "Conclude": (StepCall, conclude),
    "Step": (StepCall, step),
}
