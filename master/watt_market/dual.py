"""Multipliers of an area made better and then least, in integers: coordinate descent on the bound.

The bound is convex and piecewise linear. Given everything else, the multipliers of all offers in one slot are
independent of each other, and so are those of all bids: each minimises cap x + sum of M [R - x]^+ over its pairs, where
R is the reduced value at multiplier 0, less what the pair still lacks to pay its charge. The minimiser is a
weighted order statistic, found for a whole side at once.

Where areas meet at a border, a row may go down only as far as half a crossing's charge lets it (bound.py): that is a
floor under each of its multipliers, and a convex function's least minimiser above a floor is the higher of the two.

Moves are made down from a start that no pair can use (a clearing price): every step lowers the bound. One last pass
lowers only: that makes pairs worth more, so what could not be lowered before still cannot, and all are least.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from watt_market.border import Multipliers
from watt_market.bound import Bound
from watt_market.upper import NO_TOTAL, AreaProblem, Integers

SWEEPS_MAX: Final = 12
"Nearly all of the gain comes in the first four; coordinate steps can creep, so the number is fixed."
ENOUGH: Final = 20_000
"A sweep that lowers the bound by less than one part in so many is the last."


def polish(
    area: AreaProblem,
    rho_scaled: int,
    start: Multipliers,
    fixed: Sequence[tuple[int, int, int]] = (),
    sweeps: int = SWEEPS_MAX,
    offers_first: bool = True,
    border: Sequence[int] | None = None,
    charges_u: Integers | None = None,
) -> Bound:
    """Return a bound with least multipliers that is at most the one at `start` (which is not changed).

    With a `border` no row may gain too much there at `start` already.
    """
    bound = Bound(area, rho_scaled, start.copy(), fixed, border, charges_u)
    if not area.allowed.any() and border is None:
        bound.at = Multipliers.zeros(area)
        return bound
    last = bound.scaled()
    for _ in range(sweeps):
        for is_offer in (offers_first, not offers_first):
            sweep(bound, only_down=False, is_offer=is_offer)
        now = bound.scaled()
        if (last - now) * ENOUGH <= last:
            break
        last = now
    for is_offer in (offers_first, not offers_first):
        sweep(bound, only_down=True, is_offer=is_offer)
    return bound


def sweep(bound: Bound, *, only_down: bool, is_offer: bool) -> None:
    """Move all multipliers of one side once; `only_down` leaves them least as long as the border stays."""
    _move_totals(bound, is_offer=is_offer, only_down=only_down)
    for slot in range(bound.area.slots):
        _move_slot(bound, slot, is_offer=is_offer, only_down=only_down)


def _floor(bound: Bound, slot: int, *, is_offer: bool) -> Integers | int:
    """How far the multipliers of one side in a slot may be lowered, all others staying as they are, (rows,)."""
    if bound.edge is None:
        return 0
    own = (bound.at.u if is_offer else bound.at.q)[:, slot]
    caps = (bound.area.offer_caps if is_offer else bound.area.bid_caps)[:, slot]
    outside = bound.edge.outside(is_offer=is_offer)[:, slot]
    room = bound.edge.spare(is_offer=is_offer) + caps * np.maximum(outside, 0)  # if the row gained nothing in this slot
    found: Integers = np.where(caps > 0, np.maximum(outside + own - room // np.maximum(caps, 1), 0), 0)
    return found


def _move_slot(bound: Bound, slot: int, *, is_offer: bool, only_down: bool) -> None:
    """Move one side's multipliers of a slot to their least minimisers."""
    area, at = bound.area, bound.at
    own = (at.u if is_offer else at.q)[:, slot]
    caps = (area.offer_caps if is_offer else area.bid_caps)[:, slot]

    def turn(table: Integers) -> Integers:
        return table if is_offer else table.T

    room, reduced, gains = turn(area.rooms(slot)), turn(bound.reduced(slot)), turn(bound.gains)
    held, free = turn(bound.held), turn(bound.free)
    worth = reduced + own[:, None]  # at multiplier 0
    rest = gains - room * np.maximum(reduced, 0)
    weight = np.where(held | free, room, 0)
    # A pair that does not pay its charge elsewhere starts to count below `worth` only.
    lack = np.where(held | (rest >= 0), 0, -rest)
    bends = np.where(weight > 0, worth - lack // np.maximum(weight, 1), 0)
    floor = _floor(bound, slot, is_offer=is_offer)
    best = np.maximum(least_minimisers(np.maximum(bends, 0), weight, caps), floor)
    if only_down:
        best = np.minimum(best, own)
    best = np.maximum(_lowered(best, worth, rest, weight, caps, held), floor)
    if only_down:  # raising is never needed here, and a lowering must not raise the bound
        best = np.minimum(best, own)
    changed = np.flatnonzero(best != own)
    if changed.size:
        gains[changed] += room[changed] * (
            np.maximum(worth[changed] - best[changed, None], 0) - np.maximum(reduced[changed], 0)
        )
        own[changed] = best[changed]


def least_minimisers(bends: Integers, weights: Integers, caps: Integers) -> Integers:
    """Least x >= 0 of each row that minimises cap x + sum of weight [bend - x]^+; bends >= 0, shape (rows, pairs).

    With bends in falling order it is the first at which the weights so far exceed the cap, and 0 if they never do.
    """
    if not bends.size:
        return np.zeros(len(bends), dtype=bends.dtype)
    order = np.argsort(-bends, axis=1)  # which of equal bends comes first makes no difference to what is found
    sums = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    over = sums > caps[:, None]
    first = over.argmax(axis=1)
    rows = np.arange(len(bends))
    found: Integers = np.where(over.any(axis=1), bends[rows, order[rows, first]], 0)
    return found


def _lowered(
    best: Integers, worth: Integers, rest: Integers, weight: Integers, caps: Integers, held: Integers
) -> Integers:
    """Undo what rounding a bend up cost: step down by 1 wherever that does not raise the bound.

    One step is enough: below the true bend, which is less than 1 away, the bound falls strictly up to it.
    """
    here = rest + weight * np.maximum(worth - best[:, None], 0)
    below = here + np.where(worth >= best[:, None], weight, 0)
    rise = np.where(held, below - here, np.maximum(below, 0) - np.maximum(here, 0))
    rises = np.where(weight > 0, rise, 0).sum(axis=1)
    lowered: Integers = np.where((best > 0) & (rises <= caps), best - 1, best)
    return lowered


def _move_totals(bound: Bound, *, is_offer: bool, only_down: bool) -> None:
    """Move the multipliers of rows with a total, by bisection: lowering one lifts its pairs in every slot."""
    area, at = bound.area, bound.at
    limits = area.offer_totals if is_offer else area.bid_totals
    rows = np.flatnonzero(limits < NO_TOTAL)
    if not rows.size:
        return
    own = at.e if is_offer else at.d
    low, high = np.zeros_like(own[rows]), own[rows].copy()
    if not only_down:  # above every worth of its pairs a multiplier changes nothing
        peak = max((int(bound.reduced(slot).max()) for slot in range(area.slots)), default=0)
        high = own[rows] + max(peak, 0)
    while bool((low < high).any()):
        middle = (low + high) // 2
        own[rows] = middle
        over = np.zeros(len(rows), dtype=bool) if bound.edge is None else bound.edge.spare(is_offer=is_offer)[rows] < 0
        own[rows] = middle + 1
        falls = over | (_rise_of_total(bound, is_offer, rows) > limits[rows])  # g(middle) > g(middle + 1)
        low, high = np.where((low < high) & falls, middle + 1, low), np.where((low < high) & ~falls, middle, high)
    own[rows] = low
    bound.gains = bound.refreshed()


def _rise_of_total(bound: Bound, is_offer: bool, rows: Integers) -> Integers:
    """What the pairs of each row gain when its total's multiplier is lowered by 1."""
    gains = bound.refreshed()
    lift = sum((bound.lifts(slot) for slot in range(bound.area.slots)), np.zeros_like(gains))
    rise = bound.worth(gains + lift) - bound.worth(gains)
    found: Integers = rise.sum(axis=1 if is_offer else 0)[rows]
    return found
