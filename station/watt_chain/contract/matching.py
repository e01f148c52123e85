"""Stage 3, transaction matching: the area's slice of MaxUsersProfit(), Confirmtransaction(), Confirm(), abort.

A slice arrives by the inbox.  It is checked again with the area's own book; a bad slice aborts the event here and
everything goes back.  Each side confirms each of its pairs for itself (E19, J14); what both have not confirmed at the
deadline is dropped; before it there may be a second round (rematch.py, U25).
"""

from msgspec.structs import replace

from watt_chain.contract import cross_area, orders, rematch
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.event import State, Trigger
from watt_chain.contract.kinds import AreaMatch, Confirm, Confirmtransaction, Matched, MatchRefused
from watt_chain.contract.market import Book
from watt_chain.contract.objects import (
    MAIN_CHAIN,
    Account,
    AreaEvent,
    Pair,
    book_key,
    event_key,
    pair_key,
    sealed_key,
)
from watt_chain.contract.orders import PairState, PairStep


def take_slice(session: Session, message: AreaMatch) -> None:
    """Check the area's slice, make its pairs and its halves of trades across areas, tell the main chain.

    A slice that comes too late changes nothing.
    """
    event = session.event(message.event)
    if event.state is not State.QUALIFIED:
        return
    rules = session.rules(event.rules_version)
    book = session.need(book_key(event.event), Book)
    part = message.part
    reason = "slice-chain" if part.chain != session.context.chain else ""
    reason = reason or session.market.check_slice(book, part, message.rho_scaled, event.spec, rules, message.border)
    pairs: list[Pair] = []
    terms = [] if reason else session.market.slice_terms(book, part, event.spec, rules)
    for number, (assignment, agreed) in enumerate(zip(part.assignments, terms, strict=False), start=1):
        pair = orders.make_pair(event, book, number, assignment, agreed)
        if pair is None:
            break
        pairs.append(pair)
    legs = [] if message.border is None else message.border.legs
    network, chain = session.context.network, session.context.chain
    trades = [] if reason else cross_area.trades_from(event, book, legs, network, chain)
    if reason or trades is None or len(pairs) != len(part.assignments):
        abort(session, event, Trigger.SLICE_REFUSED, reason or "slice-terms")
        return
    for pair in pairs:
        session.put(pair_key(event.event, pair.number), pair)
    cross_area.open_trades(session, trades)
    session.put(event_key(event.event), replace(event, rho_scaled=message.rho_scaled, pairs=len(pairs)))
    session.advance(session.event(event.event), Trigger.SLICE)
    rematch.begin(session, event, rules)
    session.emit(MAIN_CHAIN, "Matched", Matched(event.event, len(pairs)))


def choose(session: Session, signer: Account, fields: Confirmtransaction) -> None:
    """Confirmtransaction(): the user takes or refuses its matching result; a refusal drops all its pairs."""
    event = session.event_in(fields.event, State.MATCHED)
    sealed = session.sealed(event.event, signer.id)
    pairs = orders.pairs_of(session, event.event, event.pairs)
    mine = [pair for pair in pairs if signer.id in (pair.seller, pair.buyer)]
    across = any(trade.user == signer.id for trade in cross_area.trades_of(session, event.event))
    if sealed is None or not (mine or across):
        refuse("not-matched")
    refuse_if(sealed.choice != "open", "decided")
    choice = "accept" if fields.accept else "refuse"
    session.put(sealed_key(event.event, signer.id), replace(sealed, choice=choice))
    if not fields.accept:
        for pair in mine:
            if pair.state != PairState.DROPPED:
                orders.release(session, pair, PairStep.REFUSED)
        cross_area.decline_all(session, event, signer.id)


def confirm(session: Session, signer: Account, fields: Confirm) -> None:
    """Confirm(): one side of one pair. Accepting locks that side's escrow and bond; refusing drops the pair."""
    event = session.event_in(fields.event, State.MATCHED)
    pair = session.get(pair_key(event.event, fields.pair), Pair)
    if pair is None:
        refuse("unknown-pair")
    refuse_if(signer.id not in (pair.seller, pair.buyer), "not-yours")
    sealed = session.sealed(event.event, signer.id)
    refuse_if(sealed is None or sealed.choice != "accept", "no-choice")
    confirmed = PairState.BUYER_CONFIRMED if signer.id == pair.buyer else PairState.SELLER_CONFIRMED
    refuse_if(pair.state in (confirmed, PairState.CONFIRMED), "decided")
    if not fields.accept:
        orders.release(session, pair, PairStep.REFUSED)
        return
    refuse_if(signer.suspended, "suspended")
    orders.accept(session, pair, signer.id, session.rules(event.rules_version))


def close_confirmations(session: Session, event: AreaEvent) -> AreaEvent:
    """At the deadline: pairs that not both sides have confirmed are dropped; credit is not touched (A17)."""
    for pair in orders.pairs_of(session, event.event, event.pairs):
        if pair.state not in (PairState.CONFIRMED, PairState.DROPPED):
            orders.release(session, pair, PairStep.LAPSED)
    cross_area.lapse(session, event)
    return session.advance(event, Trigger.CONFIRM_DUE)


def abort(session: Session, event: AreaEvent, trigger: Trigger, reason: str) -> AreaEvent:
    """End an event without effect: deposits, escrows and bonds go back; the main chain is told why."""
    for sealed in session.all_sealed(event.event):
        session.move(sealed.user, free_u=sealed.deposit_u, bond_u=-sealed.deposit_u)
        session.put(sealed_key(event.event, sealed.user), replace(sealed, deposit_u=0))
    for pair in orders.pairs_of(session, event.event, event.pairs):
        if pair.state == PairState.CONFIRMED:
            orders.release(session, pair, PairStep.RETURNED)
        elif pair.state != PairState.DROPPED:
            orders.release(session, pair, PairStep.LAPSED)
    session.put(event_key(event.event), replace(event, reason=reason))
    session.emit(MAIN_CHAIN, "MatchRefused", MatchRefused(event.event, reason))
    aborted = session.advance(session.event(event.event), trigger)
    cross_area.abandon(session, aborted)
    return aborted
