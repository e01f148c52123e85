"""What the contract asks of the market: plain types and one Protocol.

The arithmetic lives in watt_market.engine (one layer above), so that a station checks a matching without knowing how
it was found.  Everything is exact integers; symbols of model.md 1.4 and 1.5:

    w_sbt  Assignment.slot_wh    u_st  Slice.offer_multipliers    q_bt  Slice.bid_multipliers    rho  rho_scaled
    P_t    Across.prices_scaled  h_jt  Across.headroom_multipliers

Multipliers are scaled by 10^6.  No method raises on a peer's data: a bad value is a reason.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec
from msgspec.structs import replace

from watt_chain import crypto
from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.rules import PPM, RuleSet

MULTIPLIER_SCALE: Final = 1_000_000
"rho, u and q are integers in units of 10^-6."


class Offer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A qualified seller's sealed bid, opened. `index` counts the book's offers from 0."""

    index: int
    user: bytes
    price_u_per_wh: int
    slot_wh: list[int]
    credit: int
    total_wh: int = 0
    "Most Wh over all slots; 0 means that only the slots limit it."
    alpha_u_per_wh: list[int] = []
    "The household's own comfort coefficient per slot; empty means the event's."


class Bid(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A qualified buyer's sealed bid, opened. `index` counts the book's bids from 0."""

    index: int
    user: bytes
    price_u_per_wh: int
    slot_wh: list[int]
    limit_u: int
    "What the buyer can escrow: sum of price * w over its pairs plus its halves of the charges must not exceed it."
    total_wh: int = 0
    "Most Wh over all slots; 0 means that only the slots limit it."


class Book(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """All qualified bids of one area, each list in the order of `rank`."""

    event: int
    chain: int
    offers: list[Offer]
    bids: list[Bid]
    seed: bytes = b""
    "32 bytes that nobody knew before the collection closed; empty = order by user id (books made by hand)."


def rank(seed: bytes, user: bytes) -> bytes:
    """Place of a household among equals: SHA-256 of the book's seed and its id; the id itself without a seed."""
    return crypto.sha256(seed + user) if seed else user


def pair_charge_u(spec: EventSpec, rules: RuleSet) -> int:
    """Equation (3) in money, u: gamma * 2X for a pair of one station, gamma * (2X + Y) with charge rule "2x+y"."""
    return rules.gamma_u_per_ms * (2 * spec.x_ms + (spec.y_ms if rules.charge_rule == "2x+y" else 0))


def across_charge_u(spec: EventSpec, rules: RuleSet) -> int:
    """Equation (3) in money, u, of a pair of two stations: gamma * (2X + Y)."""
    return rules.gamma_u_per_ms * (2 * spec.x_ms + spec.y_ms)


def dearest_charge_u(spec: EventSpec, rules: RuleSet) -> int:
    """The most that one contract of an event can be charged, u: what an account must be able to pay."""
    return max(pair_charge_u(spec, rules), across_charge_u(spec, rules) if rules.crossings else 0)


def budgeted(spec: EventSpec, rules: RuleSet, books: Sequence[Book]) -> EventSpec:
    """The signal with its comfort budget B (8) made good for these books: at most budget_ppm of sum v_b * D_b (U18)."""
    if not rules.budget_ppm:
        return spec
    worth_u = sum(bid.price_u_per_wh * sum(bid.slot_wh) for book in books for bid in book.bids)
    return replace(spec, budget_u=min(spec.budget_u, rules.budget_ppm * worth_u // PPM))


class Assignment(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Quota moved from one offer to one bid, Wh per slot; indexes into the area's book."""

    offer: int
    bid: int
    slot_wh: list[int]


class Leaf(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The bound of one area under some decisions: in a leaf, `fixed` pairs have a contract (1) or none (0)."""

    fixed: list[tuple[int, int, int]]
    "(offer, bid, 0 or 1), from the root of the tree down."
    offer_multipliers: list[list[int]]
    bid_multipliers: list[list[int]]
    offer_totals: list[int]
    "Multipliers of the offers' totals; all zero where there is none."
    bid_totals: list[int]
    bound_u: int
    spare_scaled: int
    "What rounding the bound up to whole units added, in 10^-6 units: bound_u * 10^6 - spare_scaled is exact."


class Slice(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One area's part of a matching with its terms of the certificate."""

    chain: int
    assignments: list[Assignment]
    offer_multipliers: list[list[int]]
    bid_multipliers: list[list[int]]
    value_u: int
    comfort_u: int
    charge_u: int
    bound_u: int
    "This area's terms of the bound, without rho * B: the largest of the leaves' where there are leaves."
    spare_scaled: int = 0
    "As in a leaf."
    offer_totals: list[int] = []
    "Multipliers of the offers' totals; empty when all are 0."
    bid_totals: list[int] = []
    leaves: list[Leaf] = []
    "A binary tree over decisions on pairs; empty: the multipliers above are the one leaf. With leaves those are empty."


class Crossing(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Quota moved between two areas, Wh per slot."""

    offer_chain: int
    offer: int
    bid_chain: int
    bid: int
    slot_wh: list[int]


class Across(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What no single area can check: the crossings, and the prices at which areas meet. Masters check it."""

    crossings: list[Crossing]
    "Ascending by (offer_chain, offer, bid_chain, bid)."
    prices_scaled: list[int]
    "P_t, 10^-6 u/Wh: what quota costs between the areas, per slot; empty where every crossing has a term of its own."
    headroom_multipliers: list[list[int]]
    "h_jt of each slice's area, in the order of the slices; an empty row where an area has no headroom limit."
    value_u: int
    comfort_u: int
    charge_u: int
    bound_u: int
    "Of the headroom rows, ceil(sum of H h), or of the terms of all crossings that there could be."
    spare_scaled: int
    "As in a leaf."


class Leg(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One area's side of a crossing: what its own row gives or takes, with whom, and at what price."""

    number: int
    "Place of the crossing in the matching, counted from 1: with the event it names the trade."
    side: Literal["sell", "buy"]
    "Of this area's row."
    row: int
    "Index of the offer or bid in this area's book."
    chain: int
    "Area of the other side."
    user: bytes
    "Household of the other side."
    slot_wh: list[int]
    price_u_per_wh: list[int]
    charge_u: int
    "Of the whole contract; the buyer pays (charge + 1) // 2 of it."


class Border(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What an area knows of all others when it checks its slice: two lists, and no book."""

    prices_scaled: list[int]
    "P_t + h_jt: what quota costs at this area's border; empty where masters check a term for every crossing."
    legs: list[Leg]
    "Of the crossings that touch this area, ascending by number."


class Solution(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A whole matching: one slice per area that has a book, ascending by chain."""

    event: int
    rho_scaled: int
    slices: list[Slice]
    value_u: int
    bound_u: int
    "ceil(rho * B) + sum of the slices' bounds + the bound of `across`."
    across: Across | None = None
    "None where the rules keep every pair inside its area (`crossings` 0), and only there."


class PairTerms(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a matched pair agrees on."""

    price_u_per_wh: list[int]
    charge_u: int


class Dispatch(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Least-cost supply of one slot's need with its dual: the real-time price is `lambda_u_per_wh` (P-L)."""

    g_wh: list[int]
    lambda_u_per_wh: int
    mu_u_per_wh: list[int]
    cost_u: int


class Market(Protocol):
    """Pure functions of the two-level market; reasons are short kebab-case strings, "" means good."""

    def rows(self, offer: Offer, spec: EventSpec, rules: RuleSet) -> list[Offer]:
        """An offer as rows of a book, numbered from its index: one, or one for each comfort step of the rule set."""

    def check_slice(
        self, book: Book, part: Slice, rho_scaled: int, spec: EventSpec, rules: RuleSet, border: Border | None = None
    ) -> str:
        """Feasibility, value and the area's terms of the bound, recomputed exactly. `border` where areas may trade."""

    def check(self, solution: Solution, books: Sequence[Book], spec: EventSpec, rules: RuleSet) -> str:
        """Every row of a whole matching against all books, ascending by chain; `spec` with its budget made good."""

    def borders(
        self, solution: Solution, books: Sequence[Book], spec: EventSpec, rules: RuleSet
    ) -> list[Border | None]:
        """What each area of a checked matching is told of the others; None each where every pair stays inside."""

    def slice_terms(self, book: Book, part: Slice, spec: EventSpec, rules: RuleSet) -> list[PairTerms]:
        """Contract price per slot and charge of every assignment of a checked slice, by the rule set's price rule."""

    def crossing_terms(
        self, offers: Book, bids: Book, crossing: Crossing, spec: EventSpec, rules: RuleSet
    ) -> PairTerms:
        """The same of a checked crossing, from the books of its two areas; its charge is that of 2X + Y."""

    def dispatch(self, units: Sequence[Unit], need_wh: Sequence[int], rules: RuleSet) -> list[Dispatch]:
        """Merit-order dispatch with dual price, one per slot; short capacity is priced at the dearest unit."""

    def check_dispatch(
        self, units: Sequence[Unit], need_wh: Sequence[int], dispatches: Sequence[Dispatch], rules: RuleSet
    ) -> str:
        """Primal and dual feasibility and equality of their values, per slot."""

    def incentive_price(
        self, credit: int, performed: bool, spec: EventSpec, mean_price_u_per_wh: int, rules: RuleSet
    ) -> int:
        """RP, model.md U13: the normal price of the later period from credit and the mean real-time price."""


__all__ = [
    "Across",
    "Assignment",
    "Bid",
    "Book",
    "Border",
    "Crossing",
    "Dispatch",
    "Leaf",
    "Leg",
    "Market",
    "MULTIPLIER_SCALE",
    "Offer",
    "PairTerms",
    "Slice",
    "Solution",
    "Unit",
    "across_charge_u",
    "budgeted",
    "dearest_charge_u",
    "pair_charge_u",
    "rank",
]
