"""The book of one area and one event: its canonical order, and the shape every other module relies on.

A book is what an area reveals and anchors: offers to give up quota, bids to take it over. Two nodes that hold the
same reveals must build the same bytes: the order follows from a seed over all reveals, never from that of arrival.

Invariant: after `check_book(...) == ""` every number is an integer within the bounds below, each index equals its
position, and no household sells and buys or appears twice.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Bid, Book, Offer, rank

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
    sellers = sorted(offers, key=lambda offer: rank(seed, offer.user))
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
        previous = b""
        for position, row in enumerate(rows):
            reason = _check_row(row, position, spec.slots) or ("order" if rank(book.seed, row.user) <= previous else "")
            if reason:
                return f"book-{side}-{position}-{reason}"
            previous = rank(book.seed, row.user)
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
    if isinstance(row, Bid):
        return "" if 0 <= row.limit_u <= LIMIT_MAX_U else "limit"
    return "" if 0 <= row.credit <= CREDIT_MAX else "credit"
