"""Multipliers of an area made better and then least, in integers.

The bound is convex and piecewise linear in every single multiplier. A few sweeps move each to a minimiser, which
mends the rounding of a solver's floats; one last pass lowers each as far as the bound stays. One pass is enough:
lowering a multiplier makes pairs worth more, so every other multiplier's bound falls at least as steeply as before,
and what could not be lowered still cannot.
"""

from collections.abc import Sequence
from typing import Final

from watt_market.certificate import Bound, evaluate
from watt_market.upper import AreaProblem

SWEEPS_MAX: Final = 8
"Nearly all of the gain comes in the first two; coordinate steps can creep, so the number is fixed."

Multipliers = list[list[int]]


def zeros(area: AreaProblem) -> tuple[Multipliers, Multipliers]:
    """Multipliers 0 for every cap: a valid, loose bound."""
    return [[0] * area.slots for _ in area.offer_caps], [[0] * area.slots for _ in area.bid_caps]


def polish(
    area: AreaProblem, rho_scaled: int, offers: Sequence[Sequence[int]], bids: Sequence[Sequence[int]]
) -> tuple[Multipliers, Multipliers]:
    """Return least multipliers (certificate.py) whose bound is at most that of the given ones."""
    u = [[max(0, value) for value in row] for row in offers]
    q = [[max(0, value) for value in row] for row in bids]
    bound = Bound(area, rho_scaled, u, q)
    for _ in range(SWEEPS_MAX):
        if not _sweep(bound, u, q, only_down=False):
            break
    _sweep(bound, u, q, only_down=True)
    return u, q


def _sweep(bound: Bound, u: Multipliers, q: Multipliers, *, only_down: bool) -> bool:
    """Move each multiplier to its smallest minimiser (no higher than it is, if `only_down`); True if one moved."""
    moved = False
    for is_offer, rows in ((True, u), (False, q)):
        for index, row in enumerate(rows):
            for slot, multiplier in enumerate(row):
                cap, terms = bound.terms(is_offer, index, slot)
                highest = multiplier if only_down else max([multiplier, *(worth for _, _, worth in terms)])
                best = smallest_minimiser(cap, terms, multiplier, highest)
                if best != multiplier:
                    row[slot] = best
                    bound.moved(is_offer, index)
                    moved = True
    return moved


def smallest_minimiser(cap: int, terms: Sequence[tuple[int, int, int]], start: int, highest: int) -> int:
    """Least x in 0..highest that minimises g(x) = cap x + sum of max(0, gain + room max(0, worth - x)).

    g is convex: bisect for the first x with g(x + 1) >= g(x). Beyond the largest worth g never falls.
    """
    here = evaluate(cap, terms, start)
    is_bottom = start == highest or evaluate(cap, terms, start + 1) >= here
    if is_bottom and (start == 0 or evaluate(cap, terms, start - 1) > here):
        return start
    low, high = 0, highest
    while low < high:
        middle = (low + high) // 2
        if evaluate(cap, terms, middle + 1) >= evaluate(cap, terms, middle):
            high = middle
        else:
            low = middle + 1
    return low
