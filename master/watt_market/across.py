"""What only the masters can check: pairs across areas, headroom, and the prices between the areas.

Every crossing is admissible and worth its charge; what flows into an area, less what flows out, stays within its
headroom; the sums are sums; and the prices are least, as multipliers are (certificate.py): lowering P_t by 1, or an
area's h_jt, lets some bid gain too much at its border. Raising one breaks that, so each has one value. The bound of the
headroom rows is sum H h.

Small books need no prices: the masters then count a term for every crossing that there could be, as an area does for
its pairs, and look whether the multipliers are least with all of them. That bound is lower where areas are small.
Errors: none is raised on a peer's data.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import mul
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE, Across, Book, Border, Crossing, Leg, Slice

from watt_market.book import SLOT_WH_MAX
from watt_market.border import MULTIPLIER_MAX, Edge, Multipliers, stacked
from watt_market.bound import Bound, ceil_div, multipliers_of, root_of
from watt_market.upper import AreaProblem, Integers, figures, pair_prices, rows_of, union

CROSSINGS_MAX: Final = 2**20
"Of one matching: ten for each household of the largest event."
TERMS_MAX: Final = 2**18
"Offers times bids up to which every crossing may have its own term: a thousand homes, checked in a tenth of a second."
NOTHING: Final = Across([], [], [], 0, 0, 0, 0, 0)
"Of a matching without areas."
Headroom = Mapping[int, tuple[int, ...]]
"Per area (chain) with a limit, and slot: most Wh that may flow in, net of what flows out."


class Rows:
    """The rows of all areas in one numbering: area after area. At least one area."""

    def __init__(self, areas: Sequence[AreaProblem], books: Sequence[Book]) -> None:
        self.areas, self.both = areas, union(areas)
        self.offer_ends = np.cumsum([0, *(len(area.costs) for area in areas)]).tolist()
        self.bid_ends = np.cumsum([0, *(len(area.values) for area in areas)]).tolist()
        self.offer_area = np.repeat(np.arange(len(areas)), np.diff(self.offer_ends))
        "Number of each offer's area."
        self.bid_area = np.repeat(np.arange(len(areas)), np.diff(self.bid_ends))
        numbers: dict[bytes, int] = {}
        users = [offer.user for book in books for offer in book.offers], [b.user for book in books for b in book.bids]
        self._sellers, self._buyers = (
            np.array([numbers.setdefault(user, len(numbers)) for user in side], dtype=np.int64) for side in users
        )

    def pairable(self, offers: Integers, bids: Integers) -> Integers:
        """Whether offers and bids that broadcast may pair, but for a shared slot: inside an area or across."""
        both = self.both
        found = (both.asks[offers] < both.values[bids]) & both.offer_crosses[offers] & both.bid_crosses[bids]
        apart: Integers = found & (self._sellers[offers] != self._buyers[bids])
        return apart

    def charges_u(self, offers: Integers, bids: Integers) -> Integers:
        """What they are charged: less inside an area than between two."""
        here = self.offer_area[offers] == self.bid_area[bids]
        return np.where(here, self.areas[0].charge_u, self.both.across_u)

    def whole(self) -> tuple[AreaProblem, Integers]:
        """All rows as one area, pairs inside areas and across admissible, and every pair's charge; for small books."""
        both = self.both
        offers, bids = np.arange(len(both.asks)), np.arange(len(both.values))
        shared = (both.offer_caps > 0).astype(np.int64) @ (both.bid_caps > 0).T.astype(np.int64) > 0
        grid = offers[:, None], bids[None, :]
        return rows_of(both, offers, bids, allowed=self.pairable(*grid) & shared), self.charges_u(*grid)

    def split(self, table: Integers, ends: Sequence[int]) -> list[Integers]:
        """A table of all offers (with `offer_ends`) or bids, area by area."""
        return [table[first:last] for first, last in pairwise(ends)]


def check_crossings(across: Across, rows: Rows | None, books: Sequence[Book], headroom: Headroom) -> str:
    """Check the crossings against all books; "" or the failing row. Their rows' caps are checked with the slices."""
    if rows is None:
        return "" if across == NOTHING else "across-empty"
    reason = _check_shape(across, rows, headroom) or _check_admissible(across, rows.areas, books)
    return reason or _check_sums(across, rows) or _check_flows(across, rows.areas, headroom)


def check_terms(across: Across, rows: Rows | None, parts: Sequence[Slice], rho_scaled: int, headroom: Headroom) -> str:
    """Check what crossings add to the bound, once the slices have been checked; "" or the failing row."""
    if rows is None:
        return ""
    if across.prices_scaled:
        scaled = _headroom_scaled(across, rows.areas, headroom)
        reason = _check_prices(across, rows.areas, parts, rho_scaled)
    else:
        at = stacked([_multipliers(area, part) for area, part in zip(rows.areas, parts, strict=True)])
        whole, charges_u = rows.whole()
        bound = Bound(whole, rho_scaled, at, charges_u=charges_u)
        scaled = bound.scaled() - sum(part.bound_u * MULTIPLIER_SCALE - part.spare_scaled for part in parts)
        loose = bound.not_least()
        reason = f"across-{loose}" if loose else ""
    exact = across.bound_u == ceil_div(scaled, MULTIPLIER_SCALE)
    exact = exact and across.bound_u * MULTIPLIER_SCALE - across.spare_scaled == scaled
    return reason or ("" if exact else "across-bound")


def _check_shape(across: Across, rows: Rows, headroom: Headroom) -> str:
    areas, slots = rows.areas, rows.both.slots
    prices, multipliers = across.prices_scaled, across.headroom_multipliers
    if prices and (len(prices) != slots or not 0 <= min(prices) <= max(prices) <= MULTIPLIER_MAX):
        return "across-prices"
    if not prices and (headroom or len(rows.both.asks) * len(rows.both.values) > TERMS_MAX):
        return "across-prices"  # headroom, and large books, need the prices
    if len(multipliers) != len(areas):
        return "across-headroom"
    for area, row in zip(areas, multipliers, strict=True):
        if len(row) != (slots if area.chain in headroom else 0):
            return f"across-area-{area.chain}-headroom"
        if row and not 0 <= min(row) <= max(row) <= MULTIPLIER_MAX:
            return f"across-area-{area.chain}-headroom"
    return ""


def _check_admissible(across: Across, areas: Sequence[AreaProblem], books: Sequence[Book]) -> str:
    index, crossings = {area.chain: n for n, area in enumerate(areas)}, across.crossings
    keys = [(one.offer_chain, one.offer, one.bid_chain, one.bid) for one in crossings]
    if len(keys) > CROSSINGS_MAX or any(a >= b for a, b in pairwise(keys)):
        return "across-order"
    for number, one in enumerate(crossings, start=1):
        row = f"across-crossing-{number}"
        if one.offer_chain not in index or one.bid_chain not in index or one.offer_chain == one.bid_chain:
            return f"{row}-areas"
        sells, buys = index[one.offer_chain], index[one.bid_chain]
        if not (0 <= one.offer < len(areas[sells].asks) and 0 <= one.bid < len(areas[buys].values)):
            return f"{row}-inadmissible"
        if not areas[sells].offer_crosses[one.offer] or not areas[buys].bid_crosses[one.bid]:
            return f"{row}-inadmissible"
        seller, buyer = books[sells].offers[one.offer], books[buys].bids[one.bid]
        if seller.user == buyer.user or seller.price_u_per_wh >= buyer.price_u_per_wh:
            return f"{row}-inadmissible"
        wh = one.slot_wh
        if len(wh) != areas[sells].slots or min(wh) < 0 or not 0 < max(wh) <= SLOT_WH_MAX:
            return f"{row}-energy"
    return ""


def _check_sums(across: Across, rows: Rows) -> str:
    both, (offers, bids, wh) = rows.both, crossed(across.crossings, rows)
    cold = (wh > 0) & (both.values[bids, None] <= both.costs[offers, None] + both.alpha[offers])
    for where, slot in np.argwhere(cold).tolist():
        return f"across-crossing-{where + 1}-slot-{slot}-below-comfort"
    found = figures(both, offers, bids, wh)
    for where in np.flatnonzero(np.minimum(found.buyer_gains_u, found.seller_gains_u) < 0).tolist():
        return f"across-crossing-{where + 1}-loses"
    told = (across.value_u, across.comfort_u, across.charge_u)
    counted = (int(found.values_u.sum()), int(found.comforts_u.sum()), len(offers) * both.charge_u)
    for name, said, is_so in zip(("value", "comfort", "charge"), told, counted, strict=True):
        if said != is_so:
            return f"across-{name}"
    return ""


def crossed(crossings: Sequence[Crossing], rows: Rows) -> tuple[Integers, Integers, Integers]:
    """The crossings in the numbering of all rows: offers (C,), bids (C,), Wh (C, T)."""
    index = {area.chain: n for n, area in enumerate(rows.areas)}
    offers = np.array([rows.offer_ends[index[one.offer_chain]] + one.offer for one in crossings], dtype=np.int64)
    bids = np.array([rows.bid_ends[index[one.bid_chain]] + one.bid for one in crossings], dtype=np.int64)
    wh = np.array([one.slot_wh for one in crossings], dtype=np.int64).reshape(len(offers), rows.both.slots)
    return offers, bids, wh


def inflow_wh(crossings: Sequence[Crossing], areas: Sequence[AreaProblem]) -> Integers:
    """What flows into each area less what flows out, (areas, T) Wh."""
    index = {area.chain: n for n, area in enumerate(areas)}
    found = np.zeros((len(areas), areas[0].slots), dtype=np.int64)
    for one in crossings:
        found[index[one.bid_chain]] += np.array(one.slot_wh, dtype=np.int64)
        found[index[one.offer_chain]] -= np.array(one.slot_wh, dtype=np.int64)
    return found


def _check_flows(across: Across, areas: Sequence[AreaProblem], headroom: Headroom) -> str:
    flows = inflow_wh(across.crossings, areas)
    for area, flow in zip(areas, flows.tolist(), strict=True):
        for slot, (wh, most) in enumerate(zip(flow, headroom.get(area.chain, ()), strict=False)):
            if wh > most:
                return f"across-area-{area.chain}-slot-{slot}-over-headroom"
    return ""


def _headroom_scaled(across: Across, areas: Sequence[AreaProblem], headroom: Headroom) -> int:
    rows = zip(areas, across.headroom_multipliers, strict=True)
    return sum(sum(map(mul, row, headroom[area.chain])) for area, row in rows if row)


def edge_of(across: Across, number: int) -> list[int]:
    """L_t = P_t + h_t at the border of the n-th area; empty where there are no prices."""
    row = across.headroom_multipliers[number] or [0] * len(across.prices_scaled)
    return [price + own for price, own in zip(across.prices_scaled, row, strict=True)]


def _check_prices(across: Across, areas: Sequence[AreaProblem], parts: Sequence[Slice], rho_scaled: int) -> str:
    held = np.zeros(areas[0].slots, dtype=bool)
    for number, (area, part) in enumerate(zip(areas, parts, strict=True)):
        own = np.zeros(area.slots, dtype=bool)
        for at in _bid_multipliers(area, part):
            own |= Edge(area, rho_scaled, at, edge_of(across, number)).holding()
        for slot, h in enumerate(across.headroom_multipliers[number]):
            if h and not own[slot]:
                return f"across-area-{area.chain}-slot-{slot}-headroom-multiplier"
        held |= own
    for slot, price in enumerate(across.prices_scaled):
        if price and not held[slot]:
            return f"across-slot-{slot}-price"
    return ""


def _bid_multipliers(area: AreaProblem, part: Slice) -> Iterator[Multipliers]:
    """The multipliers of each leaf of a checked slice."""
    for leaf in part.leaves:
        yield multipliers_of(area, leaf)
    if not part.leaves:
        yield _multipliers(area, part)


def _multipliers(area: AreaProblem, part: Slice) -> Multipliers:
    return multipliers_of(area, root_of(part))


def borders(across: Across, rows: Rows | None, books: Sequence[Book]) -> list[Border | None]:
    """What each area is told of the others; the crossings have been checked."""
    if rows is None:
        return []
    found = [Border(edge_of(across, number), []) for number in range(len(rows.areas))]
    index = {area.chain: n for n, area in enumerate(rows.areas)}
    offers, bids, _ = crossed(across.crossings, rows)
    prices = pair_prices(rows.both, offers, bids).tolist()
    for number, (one, row) in enumerate(zip(across.crossings, prices, strict=True), start=1):
        sells, buys = index[one.offer_chain], index[one.bid_chain]
        seller, buyer = books[sells].offers[one.offer], books[buys].bids[one.bid]
        terms = (one.slot_wh, row, rows.both.charge_u)
        found[sells].legs.append(Leg(number, "sell", one.offer, one.bid_chain, buyer.user, *terms))
        found[buys].legs.append(Leg(number, "buy", one.bid, one.offer_chain, seller.user, *terms))
    return [*found]
