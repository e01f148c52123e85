"""One area's terms of the Lagrangian bound (model.md 1.4), as a function of its multipliers, in exact integers.

For any integers u, q, e, d, rho >= 0, scaled by 10^6, no matching of the area is worth more, net of rho times its
comfort and charges, than

    sum W u + sum D q + sum E e + sum D d
      + sum over pairs of max(0, sum_t M [ S (v - c - r) - (S + rho) alpha - u - q - e - d ]^+ - (S + rho) f)

where e, d are the multipliers of rows with a total. In a leaf a pair that is fixed to 1 counts without the max, one
fixed to 0 not at all. `rho B` is added once, by the solution.
Where pairs across areas are admissible too, `border.py` says why their terms are 0.
"""

from collections.abc import Sequence

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Leaf, Slice

from watt_market.border import WIDE, Edge, Multipliers, peak
from watt_market.upper import NO_TOTAL, AreaProblem, Integers


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up: a bound may only be rounded away from the value."""
    return -(-numerator // denominator)


def multipliers_of(area: AreaProblem, leaf: Leaf) -> Multipliers:
    """The multipliers of a leaf whose shapes have been checked."""
    at = Multipliers.zeros(area)
    for name, rows in (
        ("u", leaf.offer_multipliers), ("q", leaf.bid_multipliers), ("e", leaf.offer_totals), ("d", leaf.bid_totals),
    ):  # fmt: skip
        if rows:
            setattr(at, name, np.array(rows, dtype=object).reshape(getattr(at, name).shape))
    return at


def root_of(part: Slice) -> Leaf:
    """The one leaf of a slice without a tree."""
    return Leaf(
        [], part.offer_multipliers, part.bid_multipliers, part.offer_totals, part.bid_totals, part.bound_u,
        part.spare_scaled,
    )  # fmt: skip


class Bound:
    """The bound at given multipliers. `gains` is what each pair earns, (S, N); it is kept as multipliers move.

    `border` is L_t, scaled, one per slot; None where every pair stays inside its area.
    """

    def __init__(
        self,
        area: AreaProblem,
        rho_scaled: int,
        at: Multipliers,
        fixed: Sequence[tuple[int, int, int]] = (),
        border: Sequence[int] | None = None,
        charges_u: Integers | None = None,
    ) -> None:
        self.area, self.rho_scaled, self.at, self.charges_u = area, rho_scaled, at, charges_u
        self.charge = (SCALE + rho_scaled) * (area.charge_u if charges_u is None else int(charges_u.max(initial=0)))
        "The dearest."
        self.free = area.allowed.copy()
        self.held = np.zeros_like(area.allowed)
        for offer, bid, value in fixed:
            self.free[offer, bid], self.held[offer, bid] = False, bool(value)
        self.kind = np.int64 if self._fits() else object
        for name in ("u", "q", "e", "d"):
            setattr(at, name, getattr(at, name).astype(self.kind))
        self.margins = SCALE * (area.values[None, :] - area.costs[:, None]).astype(self.kind)
        self.comfort = (area.alpha.astype(self.kind)) * (SCALE + rho_scaled)
        self.edge = None if border is None else Edge(area, rho_scaled, at, border)
        self.gains = self.refreshed()

    def _fits(self) -> bool:
        area, at = self.area, self.at
        peaks = [peak(values) for values in (at.u, at.q, at.e, at.d)]
        worth = SCALE * (peak(area.values) + peak(area.costs)) + (SCALE + self.rho_scaled) * peak(area.alpha)
        room = min(peak(area.offer_caps), peak(area.bid_caps)) + 1
        pair = (worth + sum(peaks)) * room * (area.slots + 1) + self.charge
        limits = [peak(np.where(t < NO_TOTAL, t, 0)) for t in (area.offer_totals, area.bid_totals)]
        own = max(peak(area.offer_caps) * area.slots, peak(area.bid_caps) * area.slots, *limits) * max(peaks)
        return pair * (max(area.allowed.shape) + 1) < WIDE and own < WIDE

    def reduced(self, slot: int) -> Integers:
        """Scaled reduced value of one Wh of each pair in a slot, (S, N); may be negative."""
        at = self.at
        ours = (self.comfort[:, slot] + at.u[:, slot] + at.e)[:, None]
        found: Integers = self.margins - ours - (at.q[:, slot] + at.d)[None, :]
        return found

    def refreshed(self) -> Integers:
        """The gains of all pairs at the multipliers as they are now."""
        shape, price = self.area.allowed.shape, SCALE + self.rho_scaled
        charges_u = np.full(shape, self.area.charge_u) if self.charges_u is None else self.charges_u
        total: Integers = charges_u.astype(self.kind) * -price
        for slot in range(self.area.slots):
            total += self.area.rooms(slot) * np.maximum(self.reduced(slot), 0)
        return total

    def worth(self, gains: Integers) -> Integers:
        """What pairs that gain so much add to the bound."""
        found: Integers = np.where(self.held, gains, np.where(self.free, np.maximum(gains, 0), 0))
        return found

    def scaled(self) -> int:
        """The area's terms of the bound, times SCALE."""
        area, at = self.area, self.at
        total = sum(self.worth(self.gains).sum(axis=1).tolist())
        for caps, prices in ((area.offer_caps, at.u), (area.bid_caps, at.q)):
            total += sum((caps * prices).sum(axis=1).tolist())
        for limits, prices in ((area.offer_totals, at.e), (area.bid_totals, at.d)):
            total += sum((limits * prices).tolist())
        return int(total)

    def lifts(self, slot: int) -> Integers:
        """What each pair gains in a slot when one of its multipliers there is lowered by 1."""
        found: Integers = np.where(self.reduced(slot) >= 0, self.area.rooms(slot), 0)
        return found

    def over_border(self) -> str:
        """Name the first row that gains too much at the border; "" when none does."""
        for side in ("offer", "bid"):
            if self.edge is not None:
                for number in np.flatnonzero(self.edge.spare(is_offer=side == "offer") < 0):
                    return f"{side}-{number}-over-border"
        return ""

    def not_least(self) -> str:
        """Name the first multiplier that could be lowered by itself without raising the bound; "" when none can.

        A row that would then gain too much at the border cannot have it lowered.
        """
        area, at, worth = self.area, self.at, self.worth(self.gains)
        free = {side: self._free_of_border(side == "offer") for side in ("offer", "bid")}
        whole = np.zeros_like(self.gains)
        for slot in range(area.slots):
            lift = self.lifts(slot)
            whole += lift
            rise = self.worth(self.gains + lift) - worth
            for side, rises, caps, prices in (
                ("offer", rise.sum(axis=1), area.offer_caps[:, slot], at.u[:, slot]),
                ("bid", rise.sum(axis=0), area.bid_caps[:, slot], at.q[:, slot]),
            ):
                for number in np.flatnonzero((prices > 0) & (rises <= caps) & free[side][0][:, slot]):
                    return f"{side}-{number}-slot-{slot}-multiplier"
        rise = self.worth(self.gains + whole) - worth
        for side, rises, limits, prices in (
            ("offer", rise.sum(axis=1), area.offer_totals, at.e),
            ("bid", rise.sum(axis=0), area.bid_totals, at.d),
        ):
            idle = (limits == NO_TOTAL) | ((rises <= limits) & free[side][1])
            for number in np.flatnonzero((prices > 0) & idle):
                return f"{side}-{number}-total-multiplier"
        return ""

    def _free_of_border(self, is_offer: bool) -> tuple[Integers, Integers]:
        """Where the border lets a multiplier of a slot, and one of a total, be lowered by 1."""
        caps = self.area.offer_caps if is_offer else self.area.bid_caps
        if self.edge is None:
            return np.ones(caps.shape, dtype=bool), np.ones(len(caps), dtype=bool)
        pressing, spare = self.edge.pressing(is_offer=is_offer), self.edge.spare(is_offer=is_offer)
        return pressing <= spare[:, None], pressing.sum(axis=1) <= spare
