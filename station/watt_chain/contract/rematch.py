"""The second round of a matching (U25): what refusals and silence set free is matched once more, inside its area.

From `rematch_s` before the confirmations end, the aggregator may reopen an area's event: pairs that not both sides have
confirmed are dropped, credit is not touched (A17), and what the book's rows have left is the rest book.  Who refused
its result, or was asked and did not answer, has no row in it; nor has who trades with another area, for what comes of
that is decided elsewhere.  Its budget (8) is what the dropped pairs would have cost, so no master need look at it: the
area's stations check the second matching like any other, against its certificate.  The first that holds stands; its
pairs are numbered behind the first ones.

Nothing depends on it: an event that is not reopened, or gets no second matching, goes on with what it has.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from watt_chain.contract import cross_area, orders
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.bidding import most_wh
from watt_chain.contract.contest import FAMILIES
from watt_chain.contract.event import EventSpec, State
from watt_chain.contract.market import Bid, Book, Offer, dearest_charge_u
from watt_chain.contract.objects import Account, AreaEvent, Sealed, book_key, event_key, pair_key
from watt_chain.contract.orders import PairState, PairStep, bond_u
from watt_chain.contract.rematch_kinds import Rematch, Reopen
from watt_chain.contract.rules import RuleSet

Row = TypeVar("Row", Offer, Bid)


class Rebook(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """rebook/<n>: the second round of an area's event; its book is empty where there is none."""

    book: Book
    offer_rows: list[int]
    "Of each offer, its row in book/<n>."
    bid_rows: list[int]
    budget_u: int
    over: bool
    "A second matching was taken, or none can be."


def rebook_key(event: int) -> bytes:
    """rebook/<n>: Rebook (area)."""
    return b"rebook/%d" % event


def opens_s(spec: EventSpec, rules: RuleSet) -> int | None:
    """From when on an event may be reopened; None where the rules have no second round."""
    return spec.confirm_close_s - rules.rematch_s if rules.rematch_s else None


def ends_s(spec: EventSpec, rules: RuleSet) -> int:
    """Until when a second matching is taken: half of the round is for the confirmations."""
    return spec.confirm_close_s - (rules.rematch_s + 1) // 2


def begin(session: Session, event: AreaEvent, rules: RuleSet) -> None:
    """The slice has arrived. So late that less than `rematch_s` was left to confirm it, there is one round only."""
    first_s = opens_s(event.spec, rules)
    if first_s is not None and session.context.time_s + rules.rematch_s > first_s:
        nothing = Book(event.event, session.context.chain, [], [])
        session.put(rebook_key(event.event), Rebook(nothing, [], [], 0, True))


def reopen(session: Session, signer: Account, fields: Reopen) -> None:
    """The first round ends: unconfirmed pairs are dropped, the rest book is written."""
    event = session.event_in(fields.event, State.MATCHED)
    rules = session.rules(event.rules_version)
    first_s = opens_s(event.spec, rules)
    if first_s is None:
        refuse("rule-off")
    refuse_if(session.get(rebook_key(event.event), Rebook) is not None, "done")
    refuse_if(session.context.time_s < first_s, "early")
    refuse_if(session.context.time_s >= ends_s(event.spec, rules), "late")
    for pair in orders.pairs_of(session, event.event, event.pairs):
        if pair.state not in (PairState.CONFIRMED, PairState.DROPPED):
            orders.release(session, pair, PairStep.LAPSED)
    session.put(rebook_key(event.event), rest_book(session, event, rules))


def rest_book(session: Session, event: AreaEvent, rules: RuleSet) -> Rebook:
    """What the book's rows have left, of households that want to go on, and what the dropped pairs would have cost."""
    book = session.need(book_key(event.event), Book)
    sold: dict[int, list[int]] = {}
    bought: dict[int, list[int]] = {}
    asked: set[bytes] = set()  # both for membership only: never iterated
    across = {trade.user for trade in cross_area.trades_of(session, event.event)}
    budget_u = 0
    for pair in orders.pairs_of(session, event.event, event.pairs):
        asked |= {pair.seller, pair.buyer}
        if pair.state == PairState.CONFIRMED:
            _add(sold, pair.offer, pair.slot_wh)
            _add(bought, pair.bid, pair.slot_wh)
        else:
            alphas = book.offers[pair.offer].alpha_u_per_wh or event.spec.alpha_u_per_wh
            budget_u += pair.charge_u + sum(alpha * wh for alpha, wh in zip(alphas, pair.slot_wh, strict=True))
    offers: list[Offer] = []
    bids: list[Bid] = []
    offer_rows: list[int] = []
    bid_rows: list[int] = []
    for offer in book.offers:
        left = _left(offer, sold)
        if left is not None and left.user not in across and _goes_on(session, event, left, rules, asked):
            offers.append(replace(left, index=len(offers)))
            offer_rows.append(offer.index)
    for bid in book.bids:
        rest = _left(bid, bought)
        if rest is not None and rest.user not in across and _goes_on(session, event, rest, rules, asked):
            free_u = session.account(bid.user).free_u - bond_u(rules, most_wh(rest))
            limit_u = min(free_u, rules.escrow_cap_u) if rules.escrow_cap_u else free_u
            bids.append(replace(rest, index=len(bids), limit_u=limit_u))
            bid_rows.append(bid.index)
    rest_of = Book(event.event, session.context.chain, offers, bids, book.seed)
    return Rebook(rest_of, offer_rows, bid_rows, budget_u, not (offers and bids and budget_u))


def _add(sums: dict[int, list[int]], row: int, slot_wh: list[int]) -> None:
    sums[row] = [one + wh for one, wh in zip(sums.get(row, [0] * len(slot_wh)), slot_wh, strict=True)]


def _left(row: Row, used: Mapping[int, list[int]]) -> Row | None:
    """A row less what it has sold or bought; None when nothing is left."""
    taken = used.get(row.index, [0] * len(row.slot_wh))
    slot_wh = [wh - one for wh, one in zip(row.slot_wh, taken, strict=True)]
    total_wh = row.total_wh - sum(taken) if row.total_wh else 0
    if not any(slot_wh) or (row.total_wh and total_wh <= 0):
        return None
    return replace(row, slot_wh=slot_wh, total_wh=total_wh)


def _goes_on(session: Session, event: AreaEvent, row: Offer | Bid, rules: RuleSet, asked: set[bytes]) -> bool:
    """Whether a household has taken its result, or had none to take, and can pay for one contract more."""
    sealed = session.sealed(event.event, row.user)
    assert isinstance(sealed, Sealed), "every row of a book was sealed"
    if sealed.choice != "accept" and (sealed.choice == "refuse" or row.user in asked):
        return False
    account, charge_u = session.account(row.user), dearest_charge_u(event.spec, rules)
    needs_u = charge_u // 2 if isinstance(row, Offer) else row.price_u_per_wh + (charge_u + 1) // 2
    return not account.suspended and account.free_u - bond_u(rules, most_wh(row)) >= needs_u


def terms_of(event: AreaEvent, rebook: Rebook, rules: RuleSet) -> tuple[EventSpec, RuleSet]:
    """The signal and the rules under which the rest book is matched: its own budget, and no pair of two areas."""
    return replace(event.spec, budget_u=rebook.budget_u), replace(rules, crossings=0, budget_ppm=0)


def rematch(session: Session, signer: Account, fields: Rematch) -> None:
    """Take the second matching when its certificate holds, and make its pairs."""
    event = session.event_in(fields.event, State.MATCHED)
    rebook = session.get(rebook_key(event.event), Rebook)
    if rebook is None or rebook.over:
        refuse("no-round")
    rules = session.rules(event.rules_version)
    refuse_if(session.context.time_s >= ends_s(event.spec, rules), "late")
    solution, (spec, inside) = fields.solution, terms_of(event, rebook, rules)
    refuse_if(solution.event != event.event, "solution-event")
    reason = session.market.check(solution, [rebook.book], spec, inside)
    refuse_if(reason != "", reason if reason.startswith(FAMILIES) else "solution-" + reason)
    part, count = solution.slices[0], event.pairs
    terms = session.market.slice_terms(rebook.book, part, spec, inside)
    for assignment, agreed in zip(part.assignments, terms, strict=True):
        pair = orders.make_pair(event, rebook.book, count + 1, assignment, agreed)
        refuse_if(pair is None, "solution-terms")
        assert pair is not None
        rows = {"offer": rebook.offer_rows[pair.offer], "bid": rebook.bid_rows[pair.bid]}
        count += 1
        session.put(pair_key(event.event, count), replace(pair, **rows))
    session.put(event_key(event.event), replace(event, pairs=count))
    session.put(rebook_key(event.event), replace(rebook, over=True))
