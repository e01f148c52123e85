"""What only the masters can check: pairs across areas, headroom, and the prices between the areas.

Every crossing is admissible and worth its charge; what flows into an area, less what flows out, stays within its
headroom; the sums are sums; and the prices are least, as multipliers are (certificate.py): lowering P_t by 1, or an
area's h_jt, lets some bid gain too much at its border. Raising one breaks that, so each has one value. The bound of the
headroom rows is sum H h. Errors: none is raised on a peer's data.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE, Across, Book, Border, Crossing, Leaf, Leg, Slice

from watt_market.book import SLOT_WH_MAX
from watt_market.border import MULTIPLIER_MAX, Edge, Multipliers
from watt_market.bound import ceil_div
from watt_market.upper import AreaProblem, Integers, figures, pair_prices, union

CROSSINGS_MAX: Final = 2**20
"Of one matching: ten for each household of the largest event."
NOTHING: Final = Across([], [], [], 0, 0, 0, 0, 0)
"Of a matching without areas."
Headroom = Mapping[int, tuple[int, ...]]
"Per area (chain) with a limit, and slot: most Wh that may flow in, net of what flows out."


def check_across(
    across: Across, areas: Sequence[AreaProblem], books: Sequence[Book], parts: Sequence[Slice], rho_scaled: int,
    headroom: Headroom,
) -> str:  # fmt: skip
    """Check crossings and prices against all books; "" or the failing row. Slices are checked apart, with `borders`."""
    reason = _check_shape(across, areas, headroom)
    if reason or not areas:
        return reason
    reason = _check_crossings(across, areas, books) or _check_flows(across, areas, headroom)
    return reason or _check_prices(across, areas, parts, rho_scaled)


def _check_shape(across: Across, areas: Sequence[AreaProblem], headroom: Headroom) -> str:
    if not areas:
        return "" if across == NOTHING else "across-empty"
    slots = areas[0].slots
    prices, rows = across.prices_scaled, across.headroom_multipliers
    if len(prices) != slots or not 0 <= min(prices) <= max(prices) <= MULTIPLIER_MAX:
        return "across-prices"
    if len(rows) != len(areas):
        return "across-headroom"
    for area, row in zip(areas, rows, strict=True):
        if len(row) != (slots if area.chain in headroom else 0):
            return f"across-area-{area.chain}-headroom"
        if row and not 0 <= min(row) <= max(row) <= MULTIPLIER_MAX:
            return f"across-area-{area.chain}-headroom"
    return ""


def _check_crossings(across: Across, areas: Sequence[AreaProblem], books: Sequence[Book]) -> str:
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
    return _check_sums(across, areas)


def _check_sums(across: Across, areas: Sequence[AreaProblem]) -> str:
    both, offers, bids, wh = crossed(across.crossings, areas)
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


def crossed(
    crossings: Sequence[Crossing], areas: Sequence[AreaProblem]
) -> tuple[AreaProblem, Integers, Integers, Integers]:
    """All rows as one area, and the crossings in it: offers (C,), bids (C,), Wh (C, T)."""
    both, index = union(areas), {area.chain: n for n, area in enumerate(areas)}
    first_offer = np.cumsum([0, *(len(area.costs) for area in areas)]).tolist()
    first_bid = np.cumsum([0, *(len(area.values) for area in areas)]).tolist()
    offers = np.array([first_offer[index[one.offer_chain]] + one.offer for one in crossings], dtype=np.int64)
    bids = np.array([first_bid[index[one.bid_chain]] + one.bid for one in crossings], dtype=np.int64)
    wh = np.array([one.slot_wh for one in crossings], dtype=np.int64).reshape(len(offers), both.slots)
    return both, offers, bids, wh


def inflow_wh(crossings: Sequence[Crossing], areas: Sequence[AreaProblem]) -> Integers:
    """What flows into each area less what flows out, (areas, T) Wh."""
    index = {area.chain: n for n, area in enumerate(areas)}
    found = np.zeros((len(areas), areas[0].slots), dtype=np.int64)
    for one in crossings:
        found[index[one.bid_chain]] += np.array(one.slot_wh, dtype=np.int64)
        found[index[one.offer_chain]] -= np.array(one.slot_wh, dtype=np.int64)
    return found


def _check_flows(across: Across, areas: Sequence[AreaProblem], headroom: Headroom) -> str:
    flows, scaled = inflow_wh(across.crossings, areas), 0
    for area, flow, row in zip(areas, flows.tolist(), across.headroom_multipliers, strict=True):
        for slot, (wh, most) in enumerate(zip(flow, headroom.get(area.chain, ()), strict=False)):
            if wh > most:
                return f"across-area-{area.chain}-slot-{slot}-over-headroom"
        scaled += sum(h * most for h, most in zip(row, headroom.get(area.chain, ()), strict=False))
    exact = across.bound_u == ceil_div(scaled, MULTIPLIER_SCALE)
    return "" if exact and across.bound_u * MULTIPLIER_SCALE - across.spare_scaled == scaled else "across-bound"


def edge_of(across: Across, number: int) -> list[int]:
    """L_t = P_t + h_t at the border of the n-th area."""
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
    """The bids' multipliers of each leaf of a slice whose shape may still be wrong: then there is nothing to check."""
    leaves: list[Leaf | Slice] = [*part.leaves] or [part]
    for leaf in leaves:
        at, rows = Multipliers.zeros(area), leaf.bid_multipliers
        if len(rows) == len(area.bid_caps) and all(len(row) == area.slots for row in rows):
            at.q = np.array(rows, dtype=object).reshape(at.q.shape)
            if len(leaf.bid_totals) == len(rows):
                at.d = np.array(leaf.bid_totals, dtype=object)
            yield at


def borders(across: Across, areas: Sequence[AreaProblem], books: Sequence[Book]) -> list[Border | None]:
    """What each area is told of the others; the crossings have been checked."""
    found = [Border(edge_of(across, number), []) for number in range(len(areas))]
    if not areas:
        return []
    index = {area.chain: n for n, area in enumerate(areas)}
    both, offers, bids, _ = crossed(across.crossings, areas)
    prices = pair_prices(both, offers, bids).tolist()
    for number, (one, row) in enumerate(zip(across.crossings, prices, strict=True), start=1):
        sells, buys = index[one.offer_chain], index[one.bid_chain]
        seller, buyer = books[sells].offers[one.offer], books[buys].bids[one.bid]
        terms = (one.slot_wh, row, both.charge_u)
        found[sells].legs.append(Leg(number, "sell", one.offer, one.bid_chain, buyer.user, *terms))
        found[buys].legs.append(Leg(number, "buy", one.bid, one.offer_chain, seller.user, *terms))
    return [*found]
