"""The multipliers of an area, and the border where it meets the others: what one area checks of pairs across areas.

Where pairs across areas are admissible too, their terms of the bound are 0, by a rule that each area keeps for its own
rows and that needs no other area's book. With L_t = P_t + h_t, the price of quota at the area's border, no row may
gain more there than half of what a crossing is charged:

    bid     sum_t D [ S v - q - d - L ]^+                          <=  floor((S + rho) f_x / 2)
    offer   sum_t W [ L - (S (c + r) + (S + rho) alpha + u + e) ]^+ <=  the other half

A pair of two areas gains at most sum_t M ([S v - q - d - L_j]^+ + [L_i - ...]^+) and M <= W, M <= D: never more than
its charge (S + rho) f_x.

An area sees its *legs*: what its own rows give or take in crossings, with whom and at what price. It checks them beside
its pairs, against its own caps and declarations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Leg

from watt_market.book import SLOT_WH_MAX
from watt_market.upper import AreaProblem, Integers

MULTIPLIER_MAX: Final = 10**18
"Far above a scaled price cap; keeps a hostile certificate's products small."
FREE: Final = 2**61
"Spare of a row that no other area's row can pair with: more than all its energy, and still an int64."
WIDE: Final = 2**62
"A sum that stays below this fits an int64 with room for one more addition."


def peak(values: Integers) -> int:
    """The largest absolute value; 0 of nothing."""
    return int(np.abs(values).max()) if values.size else 0


@dataclass(slots=True)
class Multipliers:
    """Multipliers of one area, scaled; e and d are 0 wherever a row has no total."""

    u: Integers
    "(S, T)"
    q: Integers
    "(N, T)"
    e: Integers
    "(S,)"
    d: Integers
    "(N,)"

    @classmethod
    def zeros(cls, area: AreaProblem) -> "Multipliers":
        """All 0: a valid, loose bound."""
        return cls(*(np.zeros_like(a) for a in (area.offer_caps, area.bid_caps, area.offer_totals, area.bid_totals)))

    def copy(self) -> "Multipliers":
        return Multipliers(self.u.copy(), self.q.copy(), self.e.copy(), self.d.copy())


def stacked(parts: Sequence[Multipliers]) -> Multipliers:
    """The multipliers of several areas, one after another."""
    return Multipliers(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("u", "q", "e", "d")))


class Edge:
    """What the rows of an area gain at its border, by the multipliers as they are now.

    `prices` is L_t, scaled. Exact: Python's integers where a sum could leave 64 bits.
    """

    def __init__(self, area: AreaProblem, rho_scaled: int, at: Multipliers, prices: Sequence[int]) -> None:
        self.area, self.at = area, at
        most = max(peak(area.offer_caps), peak(area.bid_caps)) * area.slots
        worth = SCALE * (peak(area.values) + peak(area.costs)) + (SCALE + rho_scaled) * (peak(area.alpha) + 1)
        worth += max(prices, default=0) + sum(peak(values) for values in (at.u, at.q, at.e, at.d))
        charge = (SCALE + rho_scaled) * area.across_u
        self.kind = np.int64 if worth * most + charge < FREE else object
        self.prices = np.array(prices, dtype=self.kind)
        self.comfort = area.alpha.astype(self.kind) * (SCALE + rho_scaled)
        self.halves = (charge // 2, charge - charge // 2)
        "Of a bid, of an offer: what it may gain."

    def outside(self, *, is_offer: bool) -> Integers:
        """What one Wh of each row gains at the border, scaled, (rows, T); may be negative."""
        area, at = self.area, self.at
        if is_offer:
            costs = (SCALE * area.costs.astype(self.kind) + at.e)[:, None]
            found: Integers = self.prices - costs - self.comfort - at.u
        else:
            found = (SCALE * area.values.astype(self.kind) - at.d)[:, None] - at.q - self.prices
        return found

    def spare(self, *, is_offer: bool) -> Integers:
        """What each row may still gain, scaled, (rows,); negative where it gains too much."""
        area = self.area
        caps, crosses = (area.offer_caps, area.offer_crosses) if is_offer else (area.bid_caps, area.bid_crosses)
        gained = (caps * np.maximum(self.outside(is_offer=is_offer), 0)).sum(axis=1)
        found: Integers = np.where(crosses, self.halves[is_offer] - gained, FREE)
        return found

    def pressing(self, *, is_offer: bool) -> Integers:
        """How much more each row would gain if its multiplier in a slot were lowered by 1, (rows, T)."""
        caps = self.area.offer_caps if is_offer else self.area.bid_caps
        found: Integers = np.where(self.outside(is_offer=is_offer) >= 0, caps, 0)
        return found

    def holding(self) -> Integers:
        """Slots in which some bid would gain too much if the price at the border were lowered by 1, (T,) of bool."""
        over: Integers = self.pressing(is_offer=False) > self.spare(is_offer=False)[:, None]
        return np.asarray(over.any(axis=0))

    def least(self, slot: int) -> int:
        """The least price of one slot at this border that suits every bid, all others staying as they are."""
        outside, caps = self.outside(is_offer=False)[:, slot], self.area.bid_caps[:, slot]
        room = self.spare(is_offer=False) + caps * np.maximum(outside, 0)  # if the bid gained nothing in this slot
        needs = self.prices[slot] + outside - room // np.maximum(caps, 1)
        return int(np.where((caps > 0) & self.area.bid_crosses, needs, 0).max(initial=0))


def check_legs(area: AreaProblem, legs: Sequence[Leg]) -> str:
    """Check what an area's own rows have in crossings, but for their caps; "" or the name of the failing row."""
    bought = [0] * len(area.bid_caps)
    for position, leg in enumerate(legs):
        row, sells = f"slice-leg-{position}", leg.side == "sell"
        if leg.number < 1 or (position and leg.number <= legs[position - 1].number) or leg.chain == area.chain:
            return f"{row}-order"
        crosses = area.offer_crosses if sells else area.bid_crosses
        if not 0 <= leg.row < len(crosses) or not crosses[leg.row]:
            return f"{row}-inadmissible"
        if len(leg.slot_wh) != area.slots or min(leg.slot_wh) < 0 or not 0 < max(leg.slot_wh) <= SLOT_WH_MAX:
            return f"{row}-energy"
        if len(leg.price_u_per_wh) != area.slots or leg.charge_u != area.across_u:
            return f"{row}-terms"
        cells = enumerate(zip(leg.price_u_per_wh, leg.slot_wh, strict=True))
        used = [(price, slot, wh) for slot, (price, wh) in cells if wh]
        if sells:
            gains = [price - int(area.costs[leg.row] + area.alpha[leg.row, slot]) for price, slot, _ in used]
        else:
            gains = [int(area.values[leg.row]) - price for price, _, _ in used]
            bought[leg.row] += 1
        own_u = leg.charge_u // 2 if sells else (leg.charge_u + 1) // 2
        if min(gains) < 0 or sum(gain * wh for gain, (_, _, wh) in zip(gains, used, strict=True)) < own_u:
            return f"{row}-loses"
    for number, count in enumerate(bought):
        if count > area.crossings:
            return f"slice-bid-{number}-crossings"
    return ""


def legs_wh(area: AreaProblem, legs: Sequence[Leg], side: str) -> Integers:
    """What crossings take of the caps of one side's rows, (rows, T) Wh."""
    used = np.zeros_like(area.offer_caps if side == "sell" else area.bid_caps)
    for leg in legs:
        if leg.side == side:
            used[leg.row] += np.array(leg.slot_wh, dtype=np.int64)
    return used
