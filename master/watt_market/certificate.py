"""The check of a matching in exact integers: what every station and every master runs instead of a solver.

`check_slice` names the first row that fails, in this order:

    shape         chain, list lengths, integers >= 0, assignments strictly ascending by (offer, bid)
    admissible    each assignment is a pair of the book by rule (upper.admissible)
    caps          sum over bids w_sbt <= W_st;  sum over offers w_sbt <= D_bt (after the escrow trim)
    rational      neither side of a pair loses, and no slot is traded below comfort
    value         value, comfort and charge of the slice are what its energies say
    least         no multiplier can be lowered alone without raising the bound
    bound         the bound of the slice is what its multipliers say

The bound holds for *any* multipliers (model.md 1.4): soundness needs no rule about them. "Least" makes tampering
visible. The bound is convex in each multiplier x and, where x is least, falls by at least 1 per unit up to x. A larger
x' that is least too lies on the same falling branch, so |x - x'| is at most the change of the bound: an alteration of
one multiplier by 1 u/Wh or more always fails a row, a smaller one only passes if the bound is the same in whole u.

`check_solution` checks the sums, Eq. (8) and the gap; it needs no book. Errors: none is raised on a peer's data.
"""

from collections.abc import Sequence
from itertools import pairwise

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE, Book, Slice, Solution
from watt_chain.contract.rules import PPM, RuleSet

from watt_market.book import check_book
from watt_market.upper import AreaProblem, bound_scaled, comfort_u, gains_u, problem, reduced_scaled, value_u

MULTIPLIER_MAX = 10**18
"Far above a scaled price cap; keeps a hostile certificate's products small."
SLICES_MAX = 1024
"Areas of one event."


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up: a bound may only be rounded away from the value."""
    return -(-numerator // denominator)


def check_slice(book: Book, part: Slice, rho_scaled: int, spec: EventSpec, rules: RuleSet) -> str:
    """Check one area's part of a solution against its anchored book; "" or the name of the failing row."""
    reason = check_book(book, spec)
    if reason:
        return reason
    if part.chain != book.chain:
        return "slice-chain"
    if not 0 <= rho_scaled <= MULTIPLIER_MAX:
        return "slice-rho"
    if part.spare_scaled or part.offer_totals or part.bid_totals or part.leaves:
        return "slice-leaves"
    area = problem(book, spec, rules)
    return _check_energies(area, part) or _check_bound(area, part, rho_scaled)


def _check_energies(area: AreaProblem, part: Slice) -> str:
    known = {(pair.offer, pair.bid): pair for pair in area.pairs}
    offers_left = [list(row) for row in area.offer_caps]
    bids_left = [list(row) for row in area.bid_caps]
    previous = (-1, -1)
    value = comfort = charge = 0
    for position, assignment in enumerate(part.assignments):
        row, key, energies = f"slice-pair-{position}", (assignment.offer, assignment.bid), assignment.slot_wh
        if key <= previous:
            return f"{row}-order"
        if key not in known:
            return f"{row}-inadmissible"
        if len(energies) != area.slots or min(energies) < 0 or not any(energies):
            return f"{row}-energy"
        pair, previous = known[key], key
        for slot, wh in enumerate(energies):
            offers_left[pair.offer][slot] -= wh
            bids_left[pair.bid][slot] -= wh
            if wh and pair.margin_u_per_wh <= area.alpha_u_per_wh[slot]:
                return f"{row}-slot-{slot}-below-comfort"
        if min(gains_u(area, pair, energies)) < 0:
            return f"{row}-loses"
        value += value_u(area, pair, energies)
        comfort += comfort_u(area, energies)
        charge += area.charge_u
    over = _first_negative("offer", offers_left) or _first_negative("bid", bids_left)
    if over:
        return over
    told, counted = (part.value_u, part.comfort_u, part.charge_u), (value, comfort, charge)
    for name, said, is_so in zip(("value", "comfort", "charge"), told, counted, strict=True):
        if said != is_so:
            return f"slice-{name}"
    return ""


def _first_negative(side: str, rows: Sequence[Sequence[int]]) -> str:
    for index, row in enumerate(rows):
        for slot, left in enumerate(row):
            if left < 0:
                return f"slice-{side}-{index}-slot-{slot}-over-cap"
    return ""


def _check_bound(area: AreaProblem, part: Slice, rho_scaled: int) -> str:
    sides = (
        ("offer", part.offer_multipliers, area.offer_caps),
        ("bid", part.bid_multipliers, area.bid_caps),
    )
    for side, rows, caps in sides:
        if len(rows) != len(caps):
            return f"slice-{side}-multipliers"
        for index, row in enumerate(rows):
            if len(row) != area.slots or not 0 <= min(row) <= max(row) <= MULTIPLIER_MAX:
                return f"slice-{side}-{index}-multipliers"
    bound = Bound(area, rho_scaled, part.offer_multipliers, part.bid_multipliers)
    for side, rows, _ in sides:
        for index, row in enumerate(rows):
            for slot, multiplier in enumerate(row):
                if not bound.is_least(side == "offer", index, slot, multiplier):
                    return f"slice-{side}-{index}-slot-{slot}-multiplier"
    scaled = bound_scaled(area, rho_scaled, part.offer_multipliers, part.bid_multipliers)
    return "" if part.bound_u == ceil_div(scaled, MULTIPLIER_SCALE) else "slice-bound"


class Bound:
    """The bound as a function of one multiplier with all others held."""

    def __init__(
        self, area: AreaProblem, rho_scaled: int, offers: Sequence[Sequence[int]], bids: Sequence[Sequence[int]]
    ) -> None:
        self.area, self.rho_scaled, self.offers, self.bids = area, rho_scaled, offers, bids
        self._of_offer, self._of_bid = area.pairs_of_offers(), area.pairs_of_bids()
        charge = (MULTIPLIER_SCALE + rho_scaled) * area.charge_u
        self._gains = [sum(self._slot_gain(p, t) for t in range(area.slots)) - charge for p in range(len(area.pairs))]

    def terms(self, is_offer: bool, index: int, slot: int) -> tuple[int, list[tuple[int, int, int]]]:
        """Own cap, and per pair (gain elsewhere, room, reduced value at multiplier 0): g(x) = cap x + sum of
        max(0, gain + room * max(0, reduced - x))."""
        own = (self.offers if is_offer else self.bids)[index][slot]
        cap = (self.area.offer_caps if is_offer else self.area.bid_caps)[index][slot]
        found = []
        for position in (self._of_offer if is_offer else self._of_bid)[index]:
            room = self.area.pairs[position].room_wh[slot]
            if room:
                elsewhere = self._gains[position] - self._slot_gain(position, slot)
                found.append((elsewhere, room, self._reduced(position, slot) + own))
        return cap, found

    def is_least(self, is_offer: bool, index: int, slot: int, multiplier: int) -> bool:
        """True when lowering `multiplier` alone would raise the bound, or it is 0."""
        cap, terms = self.terms(is_offer, index, slot)
        return not multiplier or evaluate(cap, terms, multiplier - 1) > evaluate(cap, terms, multiplier)

    def moved(self, is_offer: bool, index: int) -> None:
        """Account for changed multipliers of one row."""
        charge = (MULTIPLIER_SCALE + self.rho_scaled) * self.area.charge_u
        for p in (self._of_offer if is_offer else self._of_bid)[index]:
            self._gains[p] = sum(self._slot_gain(p, t) for t in range(self.area.slots)) - charge

    def _reduced(self, position: int, slot: int) -> int:
        pair = self.area.pairs[position]
        u, q = self.offers[pair.offer][slot], self.bids[pair.bid][slot]
        return reduced_scaled(self.area, pair, slot, self.rho_scaled, u, q)

    def _slot_gain(self, position: int, slot: int) -> int:
        return self.area.pairs[position].room_wh[slot] * max(0, self._reduced(position, slot))


def evaluate(cap: int, terms: Sequence[tuple[int, int, int]], multiplier: int) -> int:
    """g(x) of `Bound.terms`."""
    return cap * multiplier + sum(max(0, gain + room * max(0, worth - multiplier)) for gain, room, worth in terms)


def check_solution(solution: Solution, spec: EventSpec, rules: RuleSet) -> str:
    """Check what ties the slices together: sums, comfort budget (8), bound and gap; "" or the failing row."""
    chains = [part.chain for part in solution.slices]
    if solution.event != spec.event:
        return "solution-event"
    if len(chains) > SLICES_MAX or any(a >= b for a, b in pairwise(chains)):
        return "solution-slices"
    if not 0 <= solution.rho_scaled <= MULTIPLIER_MAX:
        return "solution-rho"
    if solution.across is not None:
        return "solution-across"
    if solution.value_u != sum(part.value_u for part in solution.slices):
        return "solution-value"
    if sum(part.comfort_u + part.charge_u for part in solution.slices) > spec.budget_u:
        return "solution-budget"
    priced = ceil_div(solution.rho_scaled * spec.budget_u, MULTIPLIER_SCALE)
    if solution.bound_u != priced + sum(part.bound_u for part in solution.slices):
        return "solution-bound"
    # The gap is a fraction of the bound (rules.gap_ppm); an empty matching with an empty bound has gap 0.
    gap_u = solution.bound_u - solution.value_u
    return "" if 0 <= gap_u * PPM <= rules.gap_ppm * solution.bound_u else "solution-gap"
