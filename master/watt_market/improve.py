"""A better matching with fewer pairs: small groups of rows are taken apart and paired anew, many groups at once.

What a matching loses against its bound is mostly charges: which rows trade how much is nearly right, but more pairs
than needed carry it. Each round deals the rows into groups of a few offers and bids that are partners or could be,
forgets the pairs inside each group, and pairs its rows again by several preferences; a group changes if one of them is
worth more. Groups share no row, so all are worked on together, as arrays.

The worth of a pair is that at a given rho: sum of net w less its charge, both with the price of the budget.
Deterministic: preferences are disturbed by arithmetic on row numbers, not by chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE

from watt_market.primal import UNLIMITED, Energies, table
from watt_market.upper import NO_TOTAL, AreaProblem, Integers, figures

GROUP: Final = 4
"Offers, and likewise bids, of a group: of larger ones the preferences find less, for more work."
TRIES: Final = 4
"Preferences tried on a group in a round."
ROUNDS: Final = 60
"Of the search; each gains less than the one before it, and after so many little."
PATIENCE: Final = 9
"Rounds in a row without any gain after which the search ends: small books have nothing more to find."
STEPS: Final = 3 * GROUP
"Pairs that a group can be given: a row seldom needs more than three partners in it."
WIDE: Final = 2**32
"A scaled rho from which on parts of a unit would leave 64 bits; then worth is counted in whole units."
FINE: Final = 1024
"Worth is counted in parts of a unit: a whole unit per Wh would weigh like a charge."


@dataclass(frozen=True, slots=True)
class Field:
    """The rows that may be paired, and what a pair is charged. Functions take offers and bids that broadcast."""

    area: AreaProblem
    offer_area: Integers
    "(S,) number of each offer's area; rows of one area are dealt together in two of three rounds."
    bid_area: Integers
    allowed: Callable[[Integers, Integers], Integers]
    fixed: Callable[[Integers, Integers], Integers]
    "Pairs that stay as they are."
    charges_u: Callable[[Integers, Integers], Integers]
    "What pairs are charged: less inside an area than between two."
    crossings: int
    "Most pairs of one bid with offers of other areas."


def inside(area: AreaProblem) -> Field:
    """The rows of one area."""
    none = np.zeros(len(area.costs), dtype=np.int64), np.zeros(len(area.values), dtype=np.int64)

    def charges_u(offers: Integers, bids: Integers) -> Integers:
        return np.full(np.broadcast_shapes(offers.shape, bids.shape), area.charge_u, dtype=np.int64)

    return Field(area, *none, lambda s, b: area.allowed[s, b], lambda s, b: s < 0, charges_u, 0)


def improved(
    field: Field, energies: Energies, rho_scaled: int, left_u: int = UNLIMITED, rounds: Sequence[int] = range(ROUNDS)
) -> Energies:
    """A feasible and rational matching worth at least as much at `rho_scaled`, and at most `left_u` dearer in (8).

    `rounds` numbers the deals; the same number deals the same way.
    """
    dearest_u = max(field.area.charge_u, field.area.across_u)
    if (
        not energies or (SCALE + rho_scaled) * dearest_u * FINE >= UNLIMITED
    ):  # such a charge is never worth paying twice
        return energies
    state = _Matching(field, energies, rho_scaled, left_u)
    idle = 0
    for number in rounds:
        idle = 0 if state.round(number) else idle + 1
        if idle >= PATIENCE:
            break
    rows = zip(state.offers.tolist(), state.bids.tolist(), state.wh, strict=True)
    return {(offer, bid): wh for offer, bid, wh in rows}


class _Matching:
    """A matching as arrays: what each row has left, and the pairs."""

    def __init__(self, field: Field, energies: Energies, rho_scaled: int, left_u: int) -> None:
        self.field, self.rho_scaled, self.left_u = field, rho_scaled, left_u
        area = field.area
        self.offers, self.bids, self.wh = table(area, energies)
        self.offers_left, self.bids_left = area.offer_caps.copy(), area.bid_caps.copy()
        np.subtract.at(self.offers_left, self.offers, self.wh)
        np.subtract.at(self.bids_left, self.bids, self.wh)

    def round(self, number: int) -> bool:
        """Deal, pair anew, and take over what is worth more; False when nothing was."""
        sellers, buyers = self._deal(number)
        if not len(sellers):
            return False
        groups = _Groups(self, sellers, buyers)
        for variant in range(TRIES):
            groups.attempt(variant, number * TRIES + variant)
        return self._take(groups)

    def _deal(self, number: int) -> tuple[Integers, Integers]:
        """Offers and bids of every group, (B, GROUP); -1 where a group has fewer."""
        field, area = self.field, self.field.area
        near = number % 3 > 0  # two of three rounds stay inside the areas
        orders = []
        for totals, areas, salt in ((area.offer_totals, field.offer_area, 0), (area.bid_totals, field.bid_area, 1)):
            order = np.lexsort((noise(np.arange(len(areas)), 2 * number + salt), areas * near))
            orders.append(order[totals[order] == NO_TOTAL].tolist())  # rows with a total stay as they are
        dealer = _Dealer(self.offers.tolist(), self.bids.tolist(), orders[1], 1 + number % 3)
        return dealer.deal(orders[0])

    def _take(self, groups: "_Groups") -> bool:
        changed = np.flatnonzero(groups.best > groups.old)
        if self.left_u < UNLIMITED:
            changed = self._affordable(groups, changed)
        if not len(changed):
            return False
        takes = np.zeros(len(groups.old), dtype=bool)
        takes[changed] = True
        gone = groups.inner & takes[groups.group]
        offers, bids, wh = groups.chosen(changed)
        np.add.at(self.offers_left, self.offers[gone], self.wh[gone])
        np.add.at(self.bids_left, self.bids[gone], self.wh[gone])
        np.subtract.at(self.offers_left, offers, wh)
        np.subtract.at(self.bids_left, bids, wh)
        self.offers = np.concatenate([self.offers[~gone], offers])
        self.bids = np.concatenate([self.bids[~gone], bids])
        self.wh = np.concatenate([self.wh[~gone], wh])
        return True

    def _affordable(self, groups: "_Groups", changed: Integers) -> Integers:
        """Those of the changed groups that the budget allows, in their order."""
        more = groups.more_u(changed)
        taken = []
        for group, more_u in zip(changed.tolist(), more.tolist(), strict=True):
            if more_u <= self.left_u:
                self.left_u -= more_u
                taken.append(group)
        return np.array(taken, dtype=np.int64)


class _Dealer:
    """Deals rows into groups: an offer or a few, their partners, the partners' partners, and a stranger among bids."""

    def __init__(self, offers: Sequence[int], bids: Sequence[int], strangers: Sequence[int], seeds: int) -> None:
        self._of_offer: dict[int, list[int]] = {}
        self._of_bid: dict[int, list[int]] = {}
        for offer, bid in zip(offers, bids, strict=True):
            self._of_offer.setdefault(offer, []).append(bid)
            self._of_bid.setdefault(bid, []).append(offer)
        self._seeds = seeds
        self._free_bids = set(strangers)
        "Membership only; the order is that of the list."
        self._strangers = iter(strangers)

    def deal(self, order: Sequence[int]) -> tuple[Integers, Integers]:
        """Groups of the offers in this order, (B, GROUP) and (B, GROUP)."""
        self._free_offers = set(order)
        groups: list[tuple[list[int], list[int]]] = []
        mine: list[int] = []
        for offer in order:
            if offer not in self._free_offers:
                continue
            self._free_offers.discard(offer)
            mine.append(offer)
            if len(mine) == self._seeds:
                groups.append(self._grown(mine))
                mine = []
        if mine:
            groups.append(self._grown(mine))
        groups = [(offers, bids) for offers, bids in groups if bids]
        found = np.full((2, len(groups), GROUP), -1, dtype=np.int64)
        for number, sides in enumerate(groups):
            for side, rows in enumerate(sides):
                found[side, number, : len(rows)] = rows
        return found[0], found[1]

    def _grown(self, offers: list[int]) -> tuple[list[int], list[int]]:
        bids: list[int] = []
        self._add(bids, offers, self._of_offer, self._free_bids)
        self._add(offers, bids, self._of_bid, self._free_offers)
        self._add(bids, offers, self._of_offer, self._free_bids)
        if len(bids) < GROUP:
            bids += [bid for bid in self._next_stranger() if bid in self._free_bids]
            self._free_bids.difference_update(bids)
        return offers, bids

    def _next_stranger(self) -> list[int]:
        for bid in self._strangers:
            if bid in self._free_bids:
                return [bid]
        return []

    @staticmethod
    def _add(rows: list[int], others: Sequence[int], partners: dict[int, list[int]], free: set[int]) -> None:
        for other in others:
            for row in partners.get(other, ()):
                if len(rows) < GROUP and row in free:
                    free.discard(row)
                    rows.append(row)


class _Groups:
    """All groups of a round as arrays: B groups, k = GROUP rows on each side, T slots."""

    def __init__(self, state: _Matching, sellers: Integers, buyers: Integers) -> None:
        self.field, self.rho_scaled = state.field, state.rho_scaled
        self.sellers, self.buyers = sellers[:, :, None], buyers[:, None, :]
        area, count = self.field.area, len(sellers)
        self.group, places = self._places(state, sellers, buyers)
        self.inner = (self.group >= 0) & ~self.field.fixed(state.offers, state.bids)
        here = self.inner, self.group[self.inner]
        self.sells = np.where(sellers[:, :, None] >= 0, state.offers_left[sellers], 0)
        self.buys = np.where(buyers[:, :, None] >= 0, state.bids_left[buyers], 0)
        np.add.at(self.sells, (here[1], places[0][here[0]]), state.wh[here[0]])
        np.add.at(self.buys, (here[1], places[1][here[0]]), state.wh[here[0]])
        exists = (self.sellers >= 0) & (self.buyers >= 0)
        self.allowed = exists & self.field.allowed(self.sellers, self.buyers)
        self.net = np.where(self.allowed[..., None], np.maximum(self._net(self.sellers, self.buyers), 0), 0)
        self.charges = self._charges(self.sellers, self.buyers)
        self.crosses = self.field.offer_area[self.sellers] != self.field.bid_area[self.buyers]
        # What the pairs outside the groups leave of each bid's crossings.
        apart = ~self.inner & (self.field.offer_area[state.offers] != self.field.bid_area[state.bids])
        used = np.bincount(state.bids[apart], minlength=len(area.values))
        self.left = np.where(buyers >= 0, self.field.crossings - used[buyers], 0)
        old = state.offers[here[0]], state.bids[here[0]], state.wh[here[0]]
        worth = (self._net(*old[:2]) * old[2]).sum(axis=1) - self._charges(*old[:2])
        self.old, self.old_cost_u = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        np.add.at(self.old, here[1], worth)
        np.add.at(self.old_cost_u, here[1], self._costs_u(*old))
        self.best = self.old.copy()
        self._found = np.zeros((count, STEPS, 2), dtype=np.int64) - 1
        self._found_wh = np.zeros((count, STEPS, area.slots), dtype=np.int64)

    def _places(self, state: _Matching, sellers: Integers, buyers: Integers) -> tuple[Integers, list[Integers]]:
        """The group of every pair, -1 where its rows are in no common one, and the places of its rows in a group."""
        groups, places = [], []
        for rows, count, own in (
            (sellers, len(state.offers_left), state.offers), (buyers, len(state.bids_left), state.bids),
        ):  # fmt: skip
            group, place = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
            where = np.nonzero(rows >= 0)
            group[rows[where]], place[rows[where]] = where
            groups.append(group[own])
            places.append(place[own])
        return np.where(groups[0] == groups[1], groups[0], -1), places

    def _net(self, offers: Integers, bids: Integers) -> Integers:
        """Worth of a Wh in each slot, in parts of a unit; the last axis is the slot."""
        area = self.field.area
        alone = SCALE * (area.values[bids] - area.costs[offers])
        scaled: Integers = alone[..., None] - (SCALE + self.rho_scaled) * area.alpha[offers]
        return scaled * FINE // SCALE if self.rho_scaled < WIDE else scaled // SCALE * FINE

    def _charges(self, offers: Integers, bids: Integers) -> Integers:
        """Price of a pair's charge, in parts of a unit, rounded up."""
        found: Integers = -(-(SCALE + self.rho_scaled) * self.field.charges_u(offers, bids) * FINE // SCALE)
        return found

    def _costs_u(self, offers: Integers, bids: Integers, wh: Integers) -> Integers:
        """What pairs take of the budget."""
        found: Integers = (self.field.area.alpha[offers] * wh).sum(axis=1) + self.field.charges_u(offers, bids)
        return found

    def attempt(self, variant: int, salt: int) -> None:
        """Pair every group anew by one preference, and remember what is worth more than anything before."""
        count, every = len(self.old), np.arange(len(self.old))
        sells, buys, left = self.sells.copy(), self.buys.copy(), self.left.copy()
        worth = np.zeros(count, dtype=np.int64)
        found, found_wh = np.full_like(self._found, -1), np.zeros_like(self._found_wh)
        disturbed = noise(self.sellers * 7_919 + self.buyers, salt)
        for step in range(STEPS):
            wh = np.where(self.net > 0, np.minimum(sells[:, :, None, :], buys[:, None, :, :]), 0)
            gain = (wh * self.net).sum(axis=3) - self.charges
            good = self.allowed & (gain > 0) & ~(self.crosses & (left[:, None, :] <= 0))
            score = np.where(good, _scores(variant, gain, wh, sells, buys, disturbed), -1).reshape(count, -1)
            best = score.argmax(axis=1)
            goes_on = score[every, best] >= 0
            if not goes_on.any():
                break
            offer, bid = best // GROUP, best % GROUP
            taken = np.where(goes_on[:, None], wh[every, offer, bid], 0)
            sells[every, offer] -= taken
            buys[every, bid] -= taken
            left[every, bid] -= goes_on & self.crosses[every, offer, bid]
            worth += np.where(goes_on, gain[every, offer, bid], 0)
            rows = np.stack([self.sellers[every, offer, 0], self.buyers[every, 0, bid]], axis=1)
            found[:, step] = np.where(goes_on[:, None], rows, -1)
            found_wh[:, step] = taken
        better = np.flatnonzero(worth > self.best)
        better = better[self._rational(found[better], found_wh[better])]
        self.best[better], self._found[better], self._found_wh[better] = worth[better], found[better], found_wh[better]

    def _rational(self, found: Integers, found_wh: Integers) -> Integers:
        """Groups in which nobody loses, (groups,) of bool."""
        where, step = np.nonzero(found[:, :, 0] >= 0)
        offers, bids = found[where, step].T
        told = figures(self.field.area, offers, bids, found_wh[where, step], self.field.charges_u(offers, bids))
        loses = np.minimum(told.buyer_gains_u, told.seller_gains_u) < 0
        good: Integers = np.bincount(where[loses], minlength=len(found)) == 0
        return good

    def chosen(self, groups: Integers) -> tuple[Integers, Integers, Integers]:
        """The new pairs of some groups."""
        found, wh = self._found[groups], self._found_wh[groups]
        where = np.nonzero(found[:, :, 0] >= 0)
        offers, bids = found[where].T
        return offers, bids, wh[where]

    def more_u(self, groups: Integers) -> Integers:
        """How much more of the budget some groups take as they were paired anew."""
        found, wh = self._found[groups], self._found_wh[groups]
        where, step = np.nonzero(found[:, :, 0] >= 0)
        offers, bids = found[where, step].T
        new = np.zeros(len(groups), dtype=np.int64)
        np.add.at(new, where, self._costs_u(offers, bids, wh[where, step]))
        return new - self.old_cost_u[groups]


def _scores(
    variant: int, gain: Integers, wh: Integers, sells: Integers, buys: Integers, disturbed: Integers
) -> Integers:
    """A preference among the pairs of each group: what they gain, or how much of their rows they use up."""
    if variant == 0:
        found: Integers = gain // FINE * (2 * FINE + disturbed)
        return found
    energy = wh.sum(axis=3) * FINE
    offers, bids = (np.maximum(rows.sum(axis=2), 1) for rows in (sells, buys))
    parts = energy // offers[:, :, None], energy // bids[:, None, :]
    if variant == 1:
        return np.asarray(np.maximum(*parts) * (4 * FINE + disturbed))
    return np.asarray((parts[0] + parts[1]) * ((variant - 1) * FINE + disturbed))


def noise(numbers: Integers, salt: int) -> Integers:
    """A number from 0 to 1023 for each of `numbers`, without pattern."""
    mixed = (numbers * 2_654_435_761 + salt * 40_503 + 12_345) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 2_246_822_519) & 0xFFFFFFFF
    found: Integers = (mixed ^ (mixed >> 13)) & 1023
    return found
