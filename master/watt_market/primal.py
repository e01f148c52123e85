"""Feasible integer energies: repair of a proposal, greedy filling, and the slices a solution is made of.

(P-U) without headroom rows is a packing program: taking energy away, or a pair with all its energy, stays feasible
(model 1.4, fact 1). So any proposal - rounded floats, a merge of two sorted lists, nonsense - becomes feasible by
cutting, and better by filling what is left in order of worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from watt_chain.contract.market import MULTIPLIER_SCALE, Assignment, Slice

from watt_market.certificate import ceil_div
from watt_market.dual import Multipliers
from watt_market.upper import AreaProblem, bound_scaled, comfort_u, gains_u, value_u

Energies = list[list[int]]
"Wh, shape (pair, slot), pairs in the order of AreaProblem.pairs."


@dataclass(slots=True)
class Filling:
    """Energies of all areas under construction, with what is left of each cap and of the budget."""

    areas: Sequence[AreaProblem]
    budget_u: int
    energies: list[Energies] = field(init=False)
    offers_left: list[Energies] = field(init=False)
    bids_left: list[Energies] = field(init=False)
    left_u: int = field(init=False)

    def __post_init__(self) -> None:
        self.energies = [[[0] * area.slots for _ in area.pairs] for area in self.areas]
        self.offers_left = [[list(row) for row in area.offer_caps] for area in self.areas]
        self.bids_left = [[list(row) for row in area.bid_caps] for area in self.areas]
        self.left_u = self.budget_u

    def add(self, a: int, p: int, slot: int, wanted_wh: int) -> int:
        """Give pair `p` of area `a` up to `wanted_wh` more in `slot`, as caps, budget and comfort allow."""
        area = self.areas[a]
        pair, alpha = area.pairs[p], area.alpha_u_per_wh[slot]
        if pair.margin_u_per_wh <= alpha:
            return 0
        wh = min(wanted_wh, self.offers_left[a][pair.offer][slot], self.bids_left[a][pair.bid][slot])
        opening_u = 0 if any(self.energies[a][p]) else area.charge_u
        if alpha:
            wh = min(wh, (self.left_u - opening_u) // alpha)
        if wh <= 0 or opening_u > self.left_u:
            return 0
        self._change(a, p, slot, wh)
        self.left_u -= opening_u
        return wh

    def drop(self, a: int, p: int) -> list[int]:
        """Take pair `p` of area `a` out with all its energy; return what it had."""
        had = list(self.energies[a][p])
        if any(had):
            for slot, wh in enumerate(had):
                self._change(a, p, slot, -wh)
            self.left_u += self.areas[a].charge_u
        return had

    def drop_losers(self) -> None:
        """Take out every pair in which a side would lose: cutting keeps feasibility (fact 2)."""
        for a, area in enumerate(self.areas):
            for p, pair in enumerate(area.pairs):
                if any(self.energies[a][p]) and min(gains_u(area, pair, self.energies[a][p])) < 0:
                    self.drop(a, p)

    def fill(self, rho_scaled: int) -> None:
        """Use what is left: first pairs that already pay their charge, then new ones, dearest net worth first."""
        ranked = []
        for a, area in enumerate(self.areas):
            for p, pair in enumerate(area.pairs):
                for slot, room in enumerate(pair.room_wh):
                    alpha = area.alpha_u_per_wh[slot]
                    worth = MULTIPLIER_SCALE * pair.margin_u_per_wh - (MULTIPLIER_SCALE + rho_scaled) * alpha
                    if room and pair.margin_u_per_wh > alpha:
                        ranked.append((-worth, a, p, slot))
        ranked.sort()  # ties: area, pair, slot, so that every run agrees
        for _, a, p, slot in ranked:
            if any(self.energies[a][p]):
                self.add(a, p, slot, self.areas[a].pairs[p].room_wh[slot])
        self._open_pairs(ranked)

    def _open_pairs(self, ranked: Sequence[tuple[int, int, int, int]]) -> None:
        tried: set[tuple[int, int]] = set()  # membership only
        for _, a, p, _slot in ranked:
            if (a, p) in tried or any(self.energies[a][p]):
                continue
            tried.add((a, p))
            pair = self.areas[a].pairs[p]
            for slot in range(self.areas[a].slots):
                self.add(a, p, slot, pair.room_wh[slot])
            if any(self.energies[a][p]) and min(gains_u(self.areas[a], pair, self.energies[a][p])) < 0:
                self.drop(a, p)

    def value_u(self) -> int:
        """Z of what is placed so far."""
        return sum(
            value_u(area, pair, wh)
            for area, rows in zip(self.areas, self.energies, strict=True)
            for pair, wh in zip(area.pairs, rows, strict=True)
            if any(wh)
        )

    def _change(self, a: int, p: int, slot: int, wh: int) -> None:
        pair = self.areas[a].pairs[p]
        self.energies[a][p][slot] += wh
        self.offers_left[a][pair.offer][slot] -= wh
        self.bids_left[a][pair.bid][slot] -= wh
        self.left_u -= wh * self.areas[a].alpha_u_per_wh[slot]


def repaired(
    areas: Sequence[AreaProblem],
    budget_u: int,
    rho_scaled: int,
    proposal: Sequence[Mapping[int, Sequence[int]]],
) -> list[Energies]:
    """Make the proposal (per area: pair position -> Wh per slot) feasible and rational, then fill it up.

    Deterministic: areas, pairs and slots in their order; ties as in `Filling.fill`.
    """
    filling = Filling(areas, budget_u)
    for a, wanted in enumerate(proposal):
        for p in sorted(wanted):
            for slot, wh in enumerate(wanted[p]):
                filling.add(a, p, slot, wh)
    filling.drop_losers()
    filling.fill(rho_scaled)
    return filling.energies


def total_u(areas: Sequence[AreaProblem], energies: Sequence[Energies]) -> int:
    """Z of complete energies."""
    return sum(
        value_u(area, pair, wh)
        for area, rows in zip(areas, energies, strict=True)
        for pair, wh in zip(area.pairs, rows, strict=True)
        if any(wh)
    )


def slice_of(area: AreaProblem, energies: Energies, rho_scaled: int, u: Multipliers, q: Multipliers) -> Slice:
    """Write an area's energies and multipliers as the slice that its stations check."""
    active = [(pair, wh) for pair, wh in zip(area.pairs, energies, strict=True) if any(wh)]
    return Slice(
        chain=area.chain,
        assignments=[Assignment(offer=pair.offer, bid=pair.bid, slot_wh=wh) for pair, wh in active],
        offer_multipliers=u,
        bid_multipliers=q,
        value_u=sum(value_u(area, pair, wh) for pair, wh in active),
        comfort_u=sum(comfort_u(area, wh) for _, wh in active),
        charge_u=len(active) * area.charge_u,
        bound_u=ceil_div(bound_scaled(area, rho_scaled, u, q), MULTIPLIER_SCALE),
    )
