"""The scalable search, in integers: price every slot by a merge, pair few rows, bound by coordinate descent.

Inside one area every Wh of slot t is worth a buyer's figure less a seller's: v_b - (c_s + r_s) - (1 + rho) alpha_st.
Without charges and totals (P-U) for a given rho is therefore solved exactly, slot by slot, by merging bids from the
dearest and offers from the cheapest; the meeting price P gives the multipliers u = [P - cost]^+, q = [value - P]^+.
rho is the least one at which the merges fit the budget, by bisection over all areas. With rho fixed the areas fall
apart: each is paired (primal.py) and its multipliers are lowered (dual.py) by itself, on any machine, with the same
integers. What the answer can lose is half of the charges and the last Wh of the budget.

It needs no solver, so it is also the answer that never stalls (U28).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE

from watt_market.border import Multipliers
from watt_market.dual import polish
from watt_market.improve import ROUNDS, improved, inside
from watt_market.prices import merge_slot
from watt_market.primal import UNLIMITED, Energies, Filling, cost_u, table, value_u
from watt_market.upper import NO_TOTAL, AreaProblem, Integers, figures

RHO_PRECISION: Final = 4_096
"rho is found to one part in so many: the bound is flat around the best one, and each step prices every area."
TOTAL_ROUNDS: Final = 6
"Merges after which rows with a total have settled on their best slots; the rest is mended by filling."


@dataclass(slots=True)
class Priced:
    """What the merges of an area say at one rho; prices, costs and values are scaled."""

    sells: Integers
    "(S, T) Wh."
    buys: Integers
    "(N, T) Wh."
    prices: list[int]
    "Of each slot."
    costs: Integers
    "(S, T): of a Wh, with its comfort at this rho."
    values: Integers
    "(N,)"
    offers: Integers
    "(S, T) Wh: the caps that took part."
    bids: Integers
    "(N, T) Wh."

    def cost_u(self, area: AreaProblem, charge_u: int) -> int:
        """Comfort, and the charges of as many pairs as the longer side has trading rows."""
        rows = max(int(self.sells.any(axis=1).sum()), int(self.buys.any(axis=1).sum()))
        return int((self.sells * area.alpha).sum()) + charge_u * rows


def pairable(area: AreaProblem) -> tuple[Integers, Integers]:
    """Rows that can be in a pair at all: offers (S,), bids (N,) of bool."""
    if area.crossings:
        return area.offer_crosses, area.bid_crosses
    return np.asarray(area.allowed.any(axis=1)), np.asarray(area.allowed.any(axis=0))


def scaled_worth(area: AreaProblem, rho_scaled: int) -> tuple[Integers, Integers]:
    """Cost of a Wh of each offer in each slot, with its comfort, (S, T), and value of a bid's, (N,); scaled."""
    kind = object if rho_scaled > 2**31 else np.int64
    costs = SCALE * area.costs[:, None].astype(kind) + (SCALE + rho_scaled) * area.alpha.astype(kind)
    return costs, SCALE * area.values.astype(kind)


def priced(area: AreaProblem, rho_scaled: int) -> Priced:
    """Merge every slot of an area at `rho_scaled`; rows with a total take part in their best slots only."""
    costs, values = scaled_worth(area, rho_scaled)
    sellers, buyers = (one.reshape(-1, 1) for one in pairable(area))
    offers, bids = area.offer_caps * sellers, area.bid_caps * buyers
    found = _merged(costs, values, offers, bids)
    if (area.offer_totals < NO_TOTAL).any() or (area.bid_totals < NO_TOTAL).any():
        for _ in range(TOTAL_ROUNDS):
            prices = np.array(found[2], dtype=costs.dtype)
            offers = _best_slots(area.offer_caps * sellers, area.offer_totals, prices[None, :] - costs)
            bids = _best_slots(area.bid_caps * buyers, area.bid_totals, values[:, None] - prices[None, :])
            found = _merged(costs, values, offers, bids)
    return Priced(*found, costs, values, offers, bids)


def start_at(area: AreaProblem, rho_scaled: int, prices: Sequence[int]) -> Multipliers:
    """The multipliers of prices, one per slot: u = [P - cost]^+, q = [value - P]^+. No pair gains anything."""
    costs, values = scaled_worth(area, rho_scaled)
    sellers, buyers = (one.reshape(-1, 1) for one in pairable(area))
    at, row = Multipliers.zeros(area), np.array(prices, dtype=costs.dtype)
    at.u = np.maximum(row[None, :] - costs, 0) * sellers
    at.q = np.maximum(values[:, None] - row[None, :], 0) * buyers
    return at


def _merged(
    costs: Integers, values: Integers, offers: Integers, bids: Integers
) -> tuple[Integers, Integers, list[int]]:
    sells, buys, prices = np.zeros_like(offers), np.zeros_like(bids), []
    for slot in range(offers.shape[1]):
        found = merge_slot(costs[:, slot], values, offers[:, slot], bids[:, slot])
        sells[:, slot], buys[:, slot] = found.sold, found.bought
        prices.append(found.price)
    return sells, buys, prices


def _best_slots(caps: Integers, totals: Integers, worth: Integers) -> Integers:
    """Caps cut to the totals, the slots of highest worth first; ties: earlier slot."""
    order = np.argsort(-worth, axis=1, kind="stable")
    ranked = np.take_along_axis(caps, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    kept = np.clip(totals[:, None] - before, 0, ranked)
    found = np.zeros_like(caps)
    np.put_along_axis(found, order, kept, axis=1)
    return found


def least_rho(areas: Sequence[AreaProblem], budget_u: int, charge_u: int) -> int:
    """The least rho, to within RHO_PRECISION, at which the merges of all areas fit the budget (8)."""

    def cost(rho_scaled: int) -> int:
        return sum(priced(area, rho_scaled).cost_u(area, charge_u) for area in areas)

    if cost(0) <= budget_u:
        return 0
    # At the largest margin no Wh with comfort cost is worth trading; rho above it changes nothing.
    margin = max(int(area.values.max(initial=0)) - int(area.costs.min(initial=0)) for area in areas)
    low, high = 0, SCALE * max(margin, 1)
    guess = SCALE  # the answer is a small multiple of 1: gallop up before bisecting
    while guess < high and cost(guess) > budget_u:
        low, guess = guess + 1, guess * 4
    high = min(high, guess)
    while high - low > high // RHO_PRECISION:
        middle = (low + high) // 2
        if cost(middle) <= budget_u:
            high = middle
        else:
            low = middle + 1
    return high


def opening_scaled(area: AreaProblem, rho_scaled: int, prices: Sequence[int]) -> int:
    """The bound of an area at the multipliers of prices, where no pair gains anything: the terms of the caps alone."""
    at = start_at(area, rho_scaled, prices)
    parts = ((area.offer_caps, at.u), (area.bid_caps, at.q))
    return sum(int((caps.astype(object) * rows).sum()) for caps, rows in parts)


@dataclass(slots=True)
class Answer:
    """What is known of one area at one rho: a feasible matching and a bound."""

    energies: Energies
    at: Multipliers
    scaled: int
    "The area's terms of the bound."


def search_area(area: AreaProblem, rho_scaled: int) -> Answer:
    """Energies of an area at `rho_scaled`, with no limit on the budget, and its bound. Pure: the task of a worker."""
    found = priced(area, rho_scaled)
    at, scaled = bounded(area, rho_scaled, start_at(area, rho_scaled, found.prices))
    tries = [matched(area, rho_scaled, found, way) for way in (None, at)]
    best = max(tries, key=lambda energies: worth_scaled(area, energies, rho_scaled))
    return Answer(improved(inside(area), best, rho_scaled), at, scaled)


def matched(area: AreaProblem, rho_scaled: int, found: Priced, at: Multipliers | None = None) -> Energies:
    """Energies of an area that pay for their comfort and charges at `rho_scaled`, paired as `Filling.pair_up` says."""
    filling = Filling(area, UNLIMITED, rho_scaled)
    filling.pair_up(found.sells, found.buys, at)
    filling.settle()
    return filling.energies


def worth_scaled(area: AreaProblem, energies: Energies, rho_scaled: int) -> int:
    """What energies are worth less the price of the budget that they take, scaled."""
    return SCALE * value_u(area, energies) - rho_scaled * cost_u(area, energies)


def bounded(
    area: AreaProblem, rho_scaled: int, start: Multipliers, border: Sequence[int] | None = None
) -> tuple[Multipliers, int]:
    """The better of two descents from `start`: offers give way first, or bids."""
    bounds = [polish(area, rho_scaled, start, offers_first=first, border=border) for first in (True, False)]
    best = min(bounds, key=lambda bound: bound.scaled())
    return best.at, best.scaled()


def idle(area: AreaProblem, rho_scaled: int, border: Sequence[int] | None = None) -> Answer:
    """The answer for an area nobody has searched yet: no pair, and the bound of its clearing prices."""
    prices = priced(area, rho_scaled).prices if border is None else border
    bound = polish(area, rho_scaled, start_at(area, rho_scaled, prices), sweeps=0, border=border)
    return Answer({}, bound.at, bound.scaled())


def cut(areas: Sequence[AreaProblem], energies: Sequence[Energies], budget_u: int) -> int:
    """Over the budget (8) the pairs that are worth least per unit of comfort and charge go; what is left of it."""
    left_u = budget_u - sum(cost_u(area, rows) for area, rows in zip(areas, energies, strict=True))
    if left_u >= 0:
        return left_u
    ranked = []
    for number, (area, own) in enumerate(zip(areas, energies, strict=True)):
        offers, bids, wh = table(area, own)
        found = figures(area, offers, bids, wh)
        spent = found.comforts_u + area.charge_u
        worth = found.values_u * SCALE // np.maximum(spent, 1)
        rows = zip(worth.tolist(), offers.tolist(), bids.tolist(), spent.tolist(), strict=True)
        ranked += [(each, number, offer, bid, cost) for each, offer, bid, cost in rows]
    for _, number, offer, bid, cost in sorted(ranked):
        if left_u >= 0:
            break
        del energies[number][offer, bid]
        left_u += cost
    return left_u


def falling(rho_scaled: int, *, is_cut: bool) -> Iterator[tuple[int, range]]:
    """Falling prices of a budget that is not used up, with the rounds of improvement at each.

    Where the budget has no price there is nothing to use up, unless pairs had to go: what a merge costs is an estimate.
    """
    for step, percent in enumerate(FILL_PERCENT if rho_scaled else (0,) * is_cut):
        first = ROUNDS + step * FILL_ROUNDS
        yield max(rho_scaled * percent // 100 - 1, 0), range(first, first + FILL_ROUNDS)


def use_up(
    areas: Sequence[AreaProblem], answers: Sequence[Answer], left_u: int, rho_scaled: int, rounds: Sequence[int]
) -> int:
    """Use what is left of the budget at one price of it, in one area after another; what then remains.

    At rho the merges jump from below the budget to above it; the optimum has some areas on either side of the jump.
    """
    for area, answer in zip(areas, answers, strict=True):
        if left_u <= area.charge_u + int(area.alpha.min(initial=0)):
            continue
        before_u = cost_u(area, answer.energies)
        filling = Filling(area, left_u, rho_scaled)
        filling.resume(answer.energies)
        filling.fill_open()
        filling.pair_up(filling.offers_left, filling.bids_left)
        answer.energies = improved(inside(area), filling.energies, rho_scaled, filling.left_u, rounds)
        left_u -= cost_u(area, answer.energies) - before_u
    return left_u


FILL_PERCENT: Final = (100, 99, 98, 97, 95, 92, 88, 80, 60, 0)
"Of rho: the tie at rho itself first, then what is worth less and less per unit of budget."
FILL_ROUNDS: Final = 8
"Of improvement at each of these prices."
