"""Why an entry was not matched, and at what price it would have been: each answer by clearing the book again.

Nothing here is estimated: a price that is named was tried, and so was the next worse one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace
from watt_chain.contract.market import Bid, Book, Offer, PairTerms, Solution
from watt_market.engine import Market

from watt_tools.market_book import Instance

ROWS_MAX: Final = 400
"Beyond, clearing a book two dozen times takes minutes; the entry is then explained without a price."


@dataclass(frozen=True)
class Trade:
    """One pair of the entry that is explained."""

    partner: str
    slot_wh: list[int]
    price_u_per_wh: list[int]
    charge_u: int


@dataclass(frozen=True)
class Explanation:
    """What is to be said about one entry."""

    entry: str
    side: str
    price_u_per_wh: int
    wanted_wh: int
    trades: list[Trade]
    reason: str
    "Why it trades nothing, or less than it wanted; empty when all of it is matched."
    matched_at_u_per_wh: int | None
    "The price nearest to its own at which some of it is matched; None when there is none or it was not looked for."
    would_pay_u_per_wh: list[int]
    "Contract price per slot at that price."

    @property
    def matched_wh(self) -> int:
        return sum(sum(trade.slot_wh) for trade in self.trades)


def matched_pairs(
    instance: Instance, solution: Solution
) -> Iterator[tuple[tuple[int, int], tuple[bytes, bytes], list[int], PairTerms]]:
    """Every pair of a solution, inside areas and across: (areas, users) of offer and bid, Wh per slot, terms."""
    market, spec, rules = Market(), instance.spec, instance.rules
    books = {book.chain: book for book in instance.books}
    for part in solution.slices:
        book, chains = books[part.chain], (part.chain, part.chain)
        for one, terms in zip(part.assignments, market.slice_terms(book, part, spec, rules), strict=True):
            yield chains, (book.offers[one.offer].user, book.bids[one.bid].user), one.slot_wh, terms
    for crossing in solution.across.crossings if solution.across is not None else ():
        chains = crossing.offer_chain, crossing.bid_chain
        sells, buys = books[chains[0]], books[chains[1]]
        users = sells.offers[crossing.offer].user, buys.bids[crossing.bid].user
        yield chains, users, crossing.slot_wh, market.crossing_terms(sells, buys, crossing, spec, rules)


def trades_of(instance: Instance, solution: Solution, place: tuple[int, str, bytes]) -> list[Trade]:
    """The pairs of one entry in a solution."""
    chain, side, user = place
    mine, other, other_side = (0, 1, "buy") if side == "sell" else (1, 0, "sell")
    return [
        Trade(instance.entries[chains[other], other_side, users[other]], wh, terms.price_u_per_wh, terms.charge_u)
        for chains, users, wh, terms in matched_pairs(instance, solution)
        if (chains[mine], users[mine]) == (chain, user)
    ]


def explain(instance: Instance, solution: Solution, entry: str) -> Explanation:
    """Explain one entry. Raises KeyError for an entry that the book does not have."""
    place = instance.offer_of(entry)
    chain, side, user = place
    book = next(book for book in instance.books if book.chain == chain)
    row = _row(book, side, user)
    trades = trades_of(instance, solution, place)
    wanted, matched = sum(row.slot_wh), sum(sum(trade.slot_wh) for trade in trades)
    reason, price, would_pay = "", None, list[int]()
    if matched < wanted:
        reason, hopeless = _reason(instance, book, row, side, matched)
        rows = sum(len(one.offers) + len(one.bids) for one in instance.books)
        if not matched and not hopeless and rows <= ROWS_MAX:
            price, would_pay = _matched_at(instance, place, row)
    return Explanation(entry, side, row.price_u_per_wh, wanted, trades, reason, price, would_pay)


def _row(book: Book, side: str, user: bytes) -> Offer | Bid:
    rows: list[Offer] | list[Bid] = book.offers if side == "sell" else book.bids
    return next(row for row in rows if row.user == user)


def _reason(instance: Instance, book: Book, row: Offer | Bid, side: str, matched: int) -> tuple[str, bool]:
    """(words, whether no price at all would help)."""
    books, where = (instance.books, "no area") if instance.rules.crossings else ([book], f"area {book.chain}")
    others: list[Offer | Bid] = [one for each in books for one in (each.bids if side == "sell" else each.offers)]
    them = "bid" if side == "sell" else "offer"
    if not sum(row.slot_wh):
        return "it asks for no energy", True
    if not others:
        return f"there is no {them} at all" if instance.rules.crossings else f"{where} has no {them} at all", True
    shared = [other for other in others if any(map(min, row.slot_wh, other.slot_wh))]
    if not shared:
        words = f"no {them} wants energy in its slots"
        return words if instance.rules.crossings else f"no {them} of {where} wants energy in its slots", True
    if row.price_u_per_wh > instance.rules.price_cap_u_per_wh:
        return f"its price is over the cap of {instance.rules.price_cap_u_per_wh} u/Wh", False
    prices = [other.price_u_per_wh for other in shared]
    alpha = min(a for a, wh in zip(instance.spec.alpha_u_per_wh, row.slot_wh, strict=True) if wh)
    if side == "sell" and row.price_u_per_wh >= max(prices):
        return f"it asks {row.price_u_per_wh} u/Wh; the dearest bid in its slots offers {max(prices)}", False
    if side == "buy" and row.price_u_per_wh <= min(prices):
        return f"it offers {row.price_u_per_wh} u/Wh; the cheapest offer in its slots asks {min(prices)}", False
    margin = max(prices) - row.price_u_per_wh if side == "sell" else row.price_u_per_wh - min(prices)
    if margin <= alpha:
        return f"the best margin of {margin} u/Wh does not cover the comfort cost of {alpha} u/Wh", False
    words = "the rest of its energy went" if matched else "better-priced entries, the charge or the budget took"
    what = (
        "to nobody: others were worth more, or caps, charges and budget left no more room" if matched else "its place"
    )
    return f"{words} {what}", False


def _matched_at(instance: Instance, place: tuple[int, str, bytes], row: Offer | Bid) -> tuple[int | None, list[int]]:
    """The price nearest to the entry's own at which it trades, by bisection; the next one is known not to."""
    side = place[1]
    good = 0 if side == "sell" else instance.rules.price_cap_u_per_wh
    bad = row.price_u_per_wh
    trades = _try(instance, place, good)
    if not trades:
        return None, []
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        found = _try(instance, place, middle)
        if found:
            good, trades = middle, found
        else:
            bad = middle
    return good, trades[0].price_u_per_wh


def _try(instance: Instance, place: tuple[int, str, bytes], price: int) -> list[Trade]:
    """The entry's trades when it names this price."""
    chain, side, user = place
    books = []
    for book in instance.books:
        if book.chain == chain and side == "sell":
            rows = [replace(row, price_u_per_wh=price) if row.user == user else row for row in book.offers]
            book = replace(book, offers=rows)
        elif book.chain == chain:
            bids = [replace(row, price_u_per_wh=price) if row.user == user else row for row in book.bids]
            book = replace(book, bids=bids)
        books.append(book)
    changed = Instance(
        books, instance.spec, instance.rules, instance.entries, instance.users, instance.document
    )  # the budget stays that of the book as it was
    rules = replace(instance.rules, gap_ppm=1_000_000)
    return trades_of(changed, Market().clear(books, instance.spec, rules), place)
