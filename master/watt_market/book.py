"""The book of one area and one event: its canonical order, and the shape every other module relies on.

A book is what an area reveals and anchors: offers to give up quota, bids to take it over. Two nodes that hold the
same reveals must build the same bytes: the order follows from a seed over all reveals, never from that of arrival.

Invariant: after `check_book(...) == ""` every number is an integer within the bounds below, each index equals its
position, and no household sells and buys or appears twice, but for the comfort steps of one offer (`stepped`).
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace
from watt_chain.contract.event import ALPHA_MAX, EventSpec
from watt_chain.contract.market import Bid, Book, Offer, rank
from watt_chain.contract.rules import PPM

ROWS_MAX: Final = 4096
"Offers, and likewise bids, of one area: ten times the largest station of a distribution grid."
SLOT_WH_MAX: Final = 1_000_000
"1 MWh in one slot: no household connection carries more; keeps sums of products far below 2^63."
PRICE_MAX_U_PER_WH: Final = 10**7
"10 currency units per Wh, far above any price cap; only there to bound the products."
LIMIT_MAX_U: Final = 2**62
"Money of one household; the codec's integers end at 2^63."
SEED_BYTES: Final = 32
"SHA-256 over the reveals."
CREDIT_MAX: Final = 10**6
"Ten thousand times the cap of rule set 1."


def canonical(event: int, chain: int, offers: Sequence[Offer], bids: Sequence[Bid], seed: bytes = b"") -> Book:
    """Build the book of `offers` and `bids` in canonical order (`rank`), numbered from 0."""
    sellers = sorted(offers, key=lambda offer: (rank(seed, offer.user), offer.alpha_u_per_wh))
    buyers = sorted(bids, key=lambda bid: rank(seed, bid.user))
    return Book(
        event=event,
        chain=chain,
        offers=[replace(offer, index=index) for index, offer in enumerate(sellers)],
        bids=[replace(bid, index=index) for index, bid in enumerate(buyers)],
        seed=seed,
    )


def check_book(book: Book, spec: EventSpec) -> str:
    """Name what is wrong with `book` as a book of event `spec`; "" when nothing is.

    Prices over the rule set's cap and empty rows are not errors of the book: they only make no admissible pair.
    """
    if book.event != spec.event:
        return "book-event"
    if len(book.seed) not in (0, SEED_BYTES):
        return "book-seed"
    sides: tuple[tuple[str, Sequence[Offer | Bid]], ...] = (("offer", book.offers), ("bid", book.bids))
    for side, rows in sides:
        if len(rows) > ROWS_MAX:
            return f"book-{side}s-too-many"
        previous, before = b"", None
        for position, row in enumerate(rows):
            place = rank(book.seed, row.user)
            reason = _check_row(row, position, spec.slots)
            if not reason and place <= previous and not (place == previous and _is_next_step(before, row)):
                reason = "order"
            if reason:
                return f"book-{side}-{position}-{reason}"
            previous, before = rank(book.seed, row.user), row
    sellers = {offer.user for offer in book.offers}  # membership only: never iterated
    for bid in book.bids:
        if bid.user in sellers:
            return f"book-bid-{bid.index}-also-sells"
    return ""


def _check_row(row: Offer | Bid, position: int, slots: int) -> str:
    if row.index != position:
        return "index"
    if len(row.slot_wh) != slots:
        return "slots"
    if not 0 <= row.price_u_per_wh <= PRICE_MAX_U_PER_WH:
        return "price"
    for slot, wh in enumerate(row.slot_wh):
        if not 0 <= wh <= SLOT_WH_MAX:
            return f"slot-{slot}-energy"
    if not 0 <= row.total_wh <= SLOT_WH_MAX * slots:
        return "total"
    if isinstance(row, Bid):
        return "" if 0 <= row.limit_u <= LIMIT_MAX_U else "limit"
    if row.alpha_u_per_wh and (
        len(row.alpha_u_per_wh) != slots or not 0 <= min(row.alpha_u_per_wh) <= max(row.alpha_u_per_wh) <= ALPHA_MAX
    ):
        return "comfort"
    return "" if 0 <= row.credit <= CREDIT_MAX else "credit"


def _is_next_step(before: Offer | Bid | None, row: Offer | Bid) -> bool:
    """True when `row` is the next comfort step of the same offer: same price and credit, comfort nowhere lower."""
    if not isinstance(before, Offer) or not isinstance(row, Offer):
        return False
    lower, higher = before.alpha_u_per_wh, row.alpha_u_per_wh
    if before.price_u_per_wh != row.price_u_per_wh or before.credit != row.credit or len(lower) != len(higher):
        return False
    return lower != higher and all(a <= b for a, b in zip(lower, higher, strict=True))


def stepped(offer: Offer, spec: EventSpec, steps_ppm: Sequence[int]) -> list[Offer]:
    """The convex comfort cost in steps (U17): equal parts of an offer, each at its factor on alpha, as rows of a book.

    The first parts take the odd Wh. Each row is an offer like any other: the cheaper steps fill first because they are
    worth more, and the program stays linear. A total of the offer is split like its slots. Parts whose comfort is the
    same after rounding are one row, and a part without energy is none.
    """
    alphas, count = offer.alpha_u_per_wh or spec.alpha_u_per_wh, len(steps_ppm)
    rows: list[Offer] = []
    for k, step in enumerate(steps_ppm if count > 1 else ()):
        part = replace(
            offer,
            slot_wh=[(wh + count - 1 - k) // count for wh in offer.slot_wh],
            total_wh=(offer.total_wh + count - 1 - k) // count,
            alpha_u_per_wh=[alpha * step // PPM for alpha in alphas],
        )
        if not any(part.slot_wh) or (offer.total_wh and not part.total_wh):
            continue
        if rows and rows[-1].alpha_u_per_wh == part.alpha_u_per_wh:
            both = [one + other for one, other in zip(rows[-1].slot_wh, part.slot_wh, strict=True)]
            rows[-1] = replace(rows[-1], slot_wh=both, total_wh=rows[-1].total_wh + part.total_wh)
        else:
            rows.append(part)
    return rows or [offer]
