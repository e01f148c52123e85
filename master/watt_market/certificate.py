"""The check of a matching in exact integers: what every station and every master runs instead of a solver.

`check_slice` names the first row that fails, in the order of BIDDING.md section 3: shape, admissible, rational, caps,
value, then for each leaf of the bound: least multipliers, bound. The bound holds for *any* multipliers (model.md 1.4):
soundness needs no rule about them. "Least" leaves a tamperer no room: the bound is convex in each multiplier and falls
strictly up to a least one, and the bound is stated exactly (bound_u, spare_scaled), so two different least values of
one multiplier have different bounds.

The arithmetic is int64 where no product can leave 64 bits and Python's integers otherwise; `Bound` decides.
`check_solution` checks the sums, Eq. (8) and the gap; it needs no book. Errors: none is raised on a peer's data.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE, Across, Book, Border, Leaf, Leg, Slice, Solution
from watt_chain.contract.rules import PPM, RuleSet

from watt_market.book import SLOT_WH_MAX, check_book
from watt_market.border import MULTIPLIER_MAX, check_legs, legs_wh
from watt_market.bound import Bound, ceil_div, multipliers_of, root_of
from watt_market.options import Options, options_of
from watt_market.upper import AreaProblem, figures, problem

SLICES_MAX = 1024
"Areas of one event."
LEAVES_MAX = 64
"Of one slice; each costs a station one pass over its pairs."


def check_slice(
    book: Book, part: Slice, rho_scaled: int, spec: EventSpec, rules: RuleSet, border: Border | None = None,
    options: Options | None = None,
) -> str:  # fmt: skip
    """Check one area's part of a solution against its anchored book; "" or the name of the failing row.

    `border` says what its rows give and take across, and at what price: nothing else of the other areas is needed.
    """
    return check_book(book, spec) or check_area(problem(book, spec, rules, options), part, rho_scaled, border)


def check_area(area: AreaProblem, part: Slice, rho_scaled: int, border: Border | None = None) -> str:
    """`check_slice` for a program that was derived before."""
    if part.chain != area.chain:
        return "slice-chain"
    if not 0 <= rho_scaled <= MULTIPLIER_MAX:
        return "slice-rho"
    edge = None if border is None else border.prices_scaled
    if (border is None) != (area.crossings == 0):
        return "slice-border"
    if edge and (len(edge) != area.slots or not 0 <= min(edge) <= max(edge) <= MULTIPLIER_MAX):
        return "slice-border"
    if edge == [] and part.leaves:
        return "slice-leaves"
    legs = [] if border is None else border.legs
    return check_legs(area, legs) or _check_energies(area, part, legs) or _check_bound(area, part, rho_scaled, edge)


def _check_energies(area: AreaProblem, part: Slice, legs: Sequence[Leg]) -> str:
    previous, shape = (-1, -1), area.allowed.shape
    for position, assignment in enumerate(part.assignments):
        row, key, slot_wh = f"slice-pair-{position}", (assignment.offer, assignment.bid), assignment.slot_wh
        if key <= previous:
            return f"{row}-order"
        previous = key
        if not (0 <= key[0] < shape[0] and 0 <= key[1] < shape[1]) or not area.allowed[key]:
            return f"{row}-inadmissible"
        if len(slot_wh) != area.slots or min(slot_wh) < 0 or not 0 < max(slot_wh) <= SLOT_WH_MAX:
            return f"{row}-energy"
    offers = np.array([assignment.offer for assignment in part.assignments], dtype=np.int64)
    bids = np.array([assignment.bid for assignment in part.assignments], dtype=np.int64)
    energies = np.array([a.slot_wh for a in part.assignments], dtype=np.int64).reshape(len(offers), area.slots)
    cold = (energies > 0) & (area.values[bids, None] <= area.costs[offers, None] + area.alpha[offers])
    for where, slot in np.argwhere(cold).tolist():
        return f"slice-pair-{where}-slot-{slot}-below-comfort"
    found = figures(area, offers, bids, energies)
    for where in np.flatnonzero(np.minimum(found.buyer_gains_u, found.seller_gains_u) < 0).tolist():
        return f"slice-pair-{where}-loses"
    sides = (("offer", offers, area.offer_caps, area.offer_totals), ("bid", bids, area.bid_caps, area.bid_totals))
    for side, index, caps, totals in sides:
        used = legs_wh(area, legs, "sell" if side == "offer" else "buy")
        np.add.at(used, index, energies)
        for number, slot in np.argwhere(used > caps):
            return f"slice-{side}-{number}-slot-{slot}-over-cap"
        for number in np.flatnonzero(used.sum(axis=1) > totals):
            return f"slice-{side}-{number}-over-total"
    told = (part.value_u, part.comfort_u, part.charge_u)
    counted = (int(found.values_u.sum()), int(found.comforts_u.sum()), len(offers) * area.charge_u)
    for name, said, is_so in zip(("value", "comfort", "charge"), told, counted, strict=True):
        if said != is_so:
            return f"slice-{name}"
    return ""


def _check_bound(area: AreaProblem, part: Slice, rho_scaled: int, edge: Sequence[int] | None) -> str:
    if not part.leaves:
        return _check_leaf(area, root_of(part), rho_scaled, "slice", edge)
    if len(part.leaves) > LEAVES_MAX or not _cover([leaf.fixed for leaf in part.leaves], 0):
        return "slice-leaves"
    if part.offer_multipliers or part.bid_multipliers or part.offer_totals or part.bid_totals or part.spare_scaled:
        return "slice-leaves-beside-a-root"
    for number, leaf in enumerate(part.leaves):
        reason = _check_leaf(area, leaf, rho_scaled, f"slice-leaf-{number}", edge)
        if reason:
            return reason
    return "" if part.bound_u == max(leaf.bound_u for leaf in part.leaves) else "slice-bound"


def _cover(paths: Sequence[Sequence[tuple[int, int, int]]], depth: int) -> bool:
    """True when the paths are those of a binary tree's leaves: at each node one pair without, then with a contract."""
    if len(paths) == 1:
        return len(paths[0]) == depth
    if any(len(path) <= depth or path[depth][:2] != paths[0][depth][:2] for path in paths):
        return False
    values = [path[depth][2] for path in paths]
    zeros = values.count(0)
    if not 0 < zeros < len(values) or any(values[:zeros]) or any(value != 1 for value in values[zeros:]):
        return False
    return _cover(paths[:zeros], depth + 1) and _cover(paths[zeros:], depth + 1)


def _check_leaf(area: AreaProblem, leaf: Leaf, rho_scaled: int, name: str, edge: Sequence[int] | None) -> str:
    shape = area.allowed.shape
    for offer, bid, _ in leaf.fixed:
        if not (0 <= offer < shape[0] and 0 <= bid < shape[1]) or not area.allowed[offer, bid]:
            return f"{name}-fixed"
    totals = (("offer-totals", leaf.offer_totals, shape[0]), ("bid-totals", leaf.bid_totals, shape[1]))
    for side, row, count in totals:
        if row and (len(row) != count or not any(row) or not 0 <= min(row) <= max(row) <= MULTIPLIER_MAX):
            return f"{name}-{side}"
    sides = (("offer", leaf.offer_multipliers, shape[0]), ("bid", leaf.bid_multipliers, shape[1]))
    for side, rows, count in sides:
        if len(rows) != count:
            return f"{name}-{side}-multipliers"
        for index, row in enumerate(rows):
            if len(row) != area.slots or not 0 <= min(row) <= max(row) <= MULTIPLIER_MAX:
                return f"{name}-{side}-{index}-multipliers"
    bound = Bound(area, rho_scaled, multipliers_of(area, leaf), leaf.fixed, edge or None)
    # Where crossings have terms of their own, what is least depends on all books: the masters look.
    loose = "" if edge == [] else bound.over_border() or bound.not_least()
    if loose:
        return f"{name}-{loose}"
    scaled = bound.scaled()
    exact = leaf.bound_u == ceil_div(scaled, MULTIPLIER_SCALE)
    return "" if exact and leaf.bound_u * MULTIPLIER_SCALE - leaf.spare_scaled == scaled else f"{name}-bound"


def check_solution(solution: Solution, spec: EventSpec, rules: RuleSet, options: Options | None = None) -> str:
    """Check what ties the slices together: sums, comfort budget (8), bound and gap; "" or the failing row."""
    parts = solution.slices
    chains = [part.chain for part in parts]
    if solution.event != spec.event:
        return "solution-event"
    if len(chains) > SLICES_MAX or any(a >= b for a, b in pairwise(chains)):
        return "solution-slices"
    if not 0 <= solution.rho_scaled <= MULTIPLIER_MAX:
        return "solution-rho"
    if (solution.across is None) != ((options or options_of(spec, rules)).crossings == 0):
        return "solution-across"
    terms: list[Slice | Across] = [*parts, *([] if solution.across is None else [solution.across])]
    if solution.value_u != sum(term.value_u for term in terms):
        return "solution-value"
    if sum(term.comfort_u + term.charge_u for term in terms) > spec.budget_u:
        return "solution-budget"
    priced = ceil_div(solution.rho_scaled * spec.budget_u, MULTIPLIER_SCALE)
    if solution.bound_u != priced + sum(term.bound_u for term in terms):
        return "solution-bound"
    # The gap is a fraction of the bound (rules.gap_ppm); an empty matching with an empty bound has gap 0.
    gap_u = solution.bound_u - solution.value_u
    return "" if 0 <= gap_u * PPM <= rules.gap_ppm * solution.bound_u else "solution-gap"
