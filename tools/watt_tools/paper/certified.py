"""Ours: overlap-assisted certified receipts, on the product's own tables (`watt_chain.cross.tables`).

    Lock in the buyer's area -> Locked -> every seller's area accepts or rejects -> the main chain records one outcome,
    once the lock and every acceptance are anchored -> Outcome -> all areas

The sellers have consented before (their offers stand), so all that a client signs is the lock. With several sellers
the pairs of buyer and seller stand or fall together. Messages come from certified blocks only, in sequence per pair
of chains, and are carried by whoever likes to; so a carrier can delay and nothing else. Metering, payment and
deadlines of the product's contract are not part of the experiment; what the tables call effects is done on its
accounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Header, OutMessage, block_hash
from watt_chain.codec import U63, DecodeError, Hash32, Structure
from watt_chain.cross.tables import BEACON, BUYER, SELLER, Beacon, Buyer, Effect, Seller, Trigger
from watt_chain.light import ProofError
from watt_wire import merkle

from watt_tools.paper.book import LOCAL, Book, Call, Refused, need_buyer, said, trade_key
from watt_tools.paper.objects import AnchorCall, Bundle, InboxCall, KillCall, Trade, TradeCall, trade_id

MAIN: Final = 0


class Life(Structure, frozen=True):
    """A trade on an area's chain: the buyer's side in its area, the seller's in the others."""

    trade: Trade
    state: str


class Cursor(Structure, frozen=True):
    """Last message taken from another chain."""

    sequence: U63


class Anchored(Structure, frozen=True):
    """Last block of an area on the main chain, and the last of its messages."""

    height: U63
    block_hash: Hash32
    sequence: U63


class Verdict(Structure, frozen=True):
    """A trade on the main chain: one life for each seller, in the order of the trade's parts."""

    trade: Trade
    states: list[str]


class Leaving(Structure, frozen=True):
    """Value that trades may take out of an area."""

    money_u: U63


def cursor_key(source: int) -> bytes:
    """Key of the cursor of a source chain."""
    return b"cursor/%d" % source


def over_key(id32: bytes) -> bytes:
    """Written when the outcome of a trade came before the trade: its message number. Nothing can begin any more."""
    return b"over/" + id32.hex().encode()


# Areas ------------------------------------------------------------------------------------------------------------


def lock(book: Book, signer: bytes, call: TradeCall) -> None:
    """The buyer's money is set aside, and every seller's area told."""
    trade, id32 = call.trade, trade_id(call.trade)
    need_buyer(signer, trade)
    sellers = [part.chain for part in trade.parts]
    if book.context.chain != trade.chain or trade.chain in sellers or not sellers:
        raise Refused("area")
    known = book.get(trade_key(id32), Life)
    over = book.state.get(over_key(id32)) is not None
    _move(book, trade, Buyer(known.state) if known else Buyer.REFUSED if over else Buyer.NONE, Trigger.LOCK)


def inbox(book: Book, signer: bytes, call: InboxCall) -> None:
    """Take consecutive messages of another chain; one that no longer fits is taken without effect."""
    source = call.bundle.chain
    key = cursor_key(source)
    before = book.get(key, Cursor)
    sequence = 0 if before is None else before.sequence
    for message in book.open(call.bundle):
        if message.target_chain != book.context.chain or message.sequence != sequence + 1:
            raise Refused("sequence")
        sequence += 1
        if message.kind == "Locked" and source != MAIN:
            _take_locked(book, source, message)
        elif message.kind == "Outcome" and source == MAIN:
            _take_outcome(book, message)
        else:
            raise Refused("message")
    book.put(key, Cursor(sequence))


def _take_locked(book: Book, source: int, message: OutMessage) -> None:
    """The buyer's money is locked: accept if the offer still stands, and say so either way."""
    trade = said(message).content
    if trade is None or trade.chain != source or not book.parts_here(trade, book.context.chain):
        raise Refused("message")
    id32 = trade_id(trade)
    if book.get(trade_key(id32), Life) is not None or book.state.get(over_key(id32)) is not None:
        return
    mark = book.state.savepoint()
    try:
        if book.context.height > trade.seller_height:
            raise Refused("late")
        book.set_aside(trade, book.context.chain)
        _move(book, trade, Seller.OFFERED, Trigger.LOCKED)
    except Refused:
        book.state.rollback(mark)
        _move(book, trade, Seller.NONE, Trigger.LAPSE)


def _take_outcome(book: Book, message: OutMessage) -> None:
    """The main chain's word, which is the last one."""
    body = said(message)
    life = book.get(trade_key(body.trade), Life)
    trigger = Trigger.ANCHORED_END if body.end else Trigger.ANCHORED_ACCEPT
    if life is None:  # Buyer.REFUSED, Seller.REJECTED: it came before the trade did
        book.put(over_key(body.trade), Cursor(message.sequence))
    elif book.context.chain == life.trade.chain:
        if trigger in BUYER[Buyer(life.state)]:
            _move(book, life.trade, Buyer(life.state), trigger)
    elif trigger in SELLER[Seller(life.state)]:
        _move(book, life.trade, Seller(life.state), trigger)


def _move(book: Book, trade: Trade, state: Buyer | Seller, trigger: Trigger) -> None:
    """A step of a table, and its effects. Refuses "decided"."""
    row = BUYER[state] if isinstance(state, Buyer) else SELLER[state]
    step = row.get(trigger)
    if step is None:
        raise Refused("decided")
    chain = book.context.chain
    for effect in step[1]:
        match effect:
            case Effect.ESCROW:
                book.set_aside(trade, chain)
            case Effect.REFUND | Effect.RELEASE:
                book.undo(trade, chain)
            case Effect.SEND_LOCKED:
                for target in dict.fromkeys(part.chain for part in trade.parts):
                    book.say(
                        target, "Locked", trade, with_content=True
                    )  # the main chain reads it in the anchored block
            case Effect.SEND_ACCEPT:
                book.say(MAIN, "Accept", trade, with_content=True)
            case Effect.SEND_REJECT:
                book.say(MAIN, "Reject", trade, with_content=True)
            case _:
                raise AssertionError(effect)
    if step[0] in (Buyer.BOUND, Seller.EFFECTIVE):
        book.close(trade, chain)
    book.put(trade_key(trade_id(trade)), Life(trade, step[0]))


AREA: Final[dict[str, Call]] = {**LOCAL, "Lock": (TradeCall, lock), "Inbox": (InboxCall, inbox)}


# Main chain -------------------------------------------------------------------------------------------------------


def anchor(book: Book, signer: bytes, call: AnchorCall) -> None:
    """The next block of an area, and what it says to the main chain. (The node has re-executed the block before.)"""
    header = _decode_header(call.header)
    chain, network = header.chain, book.context.network
    last = book.get(b"anchor/%d" % chain, Anchored) or Anchored(0, network, 0)
    if header.height != last.height + 1:
        raise Refused("stale" if header.height <= last.height else "height")
    if header.previous != last.block_hash:
        raise Refused("previous")
    try:
        book.proofs.check_header(chain, call.header, call.certificate)
    except ProofError as error:
        raise Refused(error.reason) from None
    if merkle.root([merkle.leaf_hash(message) for message in call.messages]) != header.outbox_root:
        raise Refused("outbox")
    sequence = last.sequence
    for encoded in call.messages:
        try:
            message = codec.decode(encoded, OutMessage)
        except DecodeError:
            raise Refused("message") from None
        if message.source_chain != chain:
            raise Refused("sequence")
        if message.target_chain == MAIN:
            if message.sequence != sequence + 1:
                raise Refused("sequence")
            sequence += 1
            _report(book, chain, message)
        elif message.kind == "Locked":
            _report(book, chain, message)
    book.put(b"anchor/%d" % chain, Anchored(header.height, block_hash(network, call.header), sequence))


def _decode_header(data: bytes) -> Header:
    try:
        return codec.decode(data, Header, HEADER_SIZE_MAX)
    except DecodeError:
        raise Refused("proof") from None


def _report(book: Book, chain: int, message: OutMessage) -> None:
    """An area's word about a trade; what comes after the outcome is without effect."""
    if message.kind == "Committed":
        return  # a trade inside the area
    trade = said(message).content
    if trade is None or chain not in trade.chains:
        raise Refused("message")
    verdict = _verdict(book, trade)
    seller = message.target_chain if message.kind == "Locked" else chain
    places = [at for at, part in enumerate(trade.parts) if part.chain == seller]
    if message.kind == "Locked" and chain == trade.chain:
        verdict = _note(book, verdict, places, Trigger.LOCKED, Beacon.ACCEPTED)
    elif message.kind == "Accept" and chain != trade.chain:
        verdict = _note(book, verdict, places, Trigger.ACCEPT, Beacon.LOCKED)
    elif message.kind == "Reject" and chain != trade.chain:
        _end(book, verdict, Trigger.REJECT, places)
        return
    else:
        raise Refused("message")
    if all(state == Beacon.READY for state in verdict.states):
        _advance(book, verdict, range(len(trade.parts)), Trigger.ALL_READY)


def _verdict(book: Book, trade: Trade) -> Verdict:
    found = book.get(trade_key(trade_id(trade)), Verdict)
    return found or Verdict(trade, [Beacon.NONE] * len(trade.parts))


def _note(book: Book, verdict: Verdict, places: list[int], trigger: Trigger, other: Beacon) -> Verdict:
    """One of the two halves of these pairs; the later one of a pair among several joins it to the others."""
    for at in places:
        joins = len(verdict.states) > 1 and verdict.states[at] == other
        verdict = _advance(book, verdict, [at], Trigger.JOIN if joins else trigger)
    return verdict


def _end(book: Book, verdict: Verdict, trigger: Trigger, places: list[int]) -> None:
    """A pair ends, and with it those that stand or fall with it."""
    before = verdict.states
    verdict = _advance(book, verdict, places, trigger)
    if verdict.states != before:
        _advance(book, verdict, [at for at in range(len(before)) if at not in places], Trigger.KILL)


def kill(book: Book, signer: bytes, call: KillCall) -> None:
    """The main chain's deadline is over and nothing was recorded."""
    if book.context.height < call.trade.main_height:
        raise Refused("early")
    verdict = _verdict(book, call.trade)
    if Trigger.KILL not in BEACON[Beacon(verdict.states[0])]:
        raise Refused("decided")
    _advance(book, verdict, range(len(verdict.states)), Trigger.KILL)


def _advance(book: Book, verdict: Verdict, places: Iterable[int], trigger: Trigger) -> Verdict:
    """Move these pairs by the table; whoever takes part is told an outcome once."""
    trade, states = verdict.trade, list(verdict.states)
    tell: dict[int, bool] = {}
    for at in places:
        step = BEACON[Beacon(states[at])].get(trigger)
        if step is None:
            continue
        states[at] = step[0]
        for effect in step[1]:
            if effect is Effect.RESERVE or effect is Effect.UNRESERVE:
                _reserve(book, trade.chain, trade.parts[at].price_u * (1 if effect is Effect.RESERVE else -1))
            else:
                assert effect is Effect.SEND_OUTCOME, effect
                tell[trade.chain] = tell[trade.parts[at].chain] = step[0] is not Beacon.ACCEPT
    for chain, end in tell.items():
        book.say(chain, "Outcome", trade, end=end)
    verdict = Verdict(trade, states)
    book.put(trade_key(trade_id(trade)), verdict)
    return verdict


def _reserve(book: Book, chain: int, money_u: int) -> None:
    """Value that a trade takes out of its buyer's area, or leaves there after all."""
    key = b"leaving/%d" % chain
    before = book.get(key, Leaving) or Leaving(0)
    book.put(key, Leaving(before.money_u + money_u))


BEACON_CALLS: Final[dict[str, Call]] = {"Anchor": (AnchorCall, anchor), "Kill": (KillCall, kill)}


def bundle_order(bundle: Bundle) -> int:
    """Sequence number of a bundle's first message, as it claims; for those who put bundles in order."""
    return codec.decode(bundle.entries[0].message, OutMessage).sequence if bundle.entries else 0
