"""Feasible integer energies of one area: pairing of what is to be sold with what is to be bought, repair, filling.

(P-U) without headroom rows is a packing program: taking energy away, or a pair with all its energy, stays feasible
(model 1.4, fact 1). So any proposal - rounded floats, a merge of two sorted lists, nonsense - becomes feasible by
cutting, and better by filling what is left.

Given what each row trades in each slot, every pairing of sellers with buyers is worth the same but for the charges. So
`pair_up` looks for few pairs: it always joins two rows of which one pair uses up most; and `join` takes out those whose
energy others can carry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Assignment, Slice

from watt_market.border import Multipliers
from watt_market.bound import ceil_div
from watt_market.upper import AreaProblem, Integers, figures

Energies = dict[tuple[int, int], Integers]
"(offer, bid) -> Wh per slot; pairs without energy are absent."
PART: Final = 2**20
"A share of a row is counted in so many parts."
NO_LOSS: Final = 50
"A pair that loses less than this part of its charge against the multipliers loses nothing: they are not exact either."
JOIN_ROUNDS: Final = 4
"Rounds of `join`; the second already finds few pairs to spare."
UNLIMITED: Final = 2**62
"A budget that never binds."


@dataclass(frozen=True, slots=True)
class Links:
    """What pairs of rows are charged, and which of them cross between areas."""

    charges_u: Integers
    "(S, N)"
    crosses: Integers
    "(S, N) of bool."
    crossings: Integers
    "(N,): how many crossings each bid may have."

    @staticmethod
    def plain(area: AreaProblem) -> "Links":
        """One charge for all, and no crossing to be counted; takes no memory."""
        shape = len(area.costs), len(area.values)
        none = np.zeros(len(area.values), dtype=np.int64)
        return Links(np.broadcast_to(np.int64(area.charge_u), shape), np.broadcast_to(np.False_, shape), none)

    @staticmethod
    def crossing(area: AreaProblem, left: Integers) -> "Links":
        """Every pair is a crossing."""
        shape = len(area.costs), len(area.values)
        return Links(np.broadcast_to(np.int64(area.charge_u), shape), np.broadcast_to(np.True_, shape), left)


class Filling:
    """Energies of an area under construction, with what is left of each cap and of the budget."""

    def __init__(self, area: AreaProblem, budget_u: int, rho_scaled: int = 0, links: "Links | None" = None) -> None:
        """`links` where pairs differ in their charge; None: all are charged as the area says."""
        self.area, self.left_u, self.rho_scaled = area, budget_u, rho_scaled
        self.links = links or Links.plain(area)
        self.crossings_left = self.links.crossings.copy()
        self.energies: Energies = {}
        self._bids_of: dict[int, dict[int, None]] = {}
        self._offers_of: dict[int, dict[int, None]] = {}
        "Partners of each row in open pairs: what `join` asks for again and again."
        self.offers_left, self.bids_left = area.offer_caps.copy(), area.bid_caps.copy()
        self.offer_totals, self.bid_totals = area.offer_totals.copy(), area.bid_totals.copy()

    def add(self, offer: int, bid: int, wanted_wh: Integers) -> Integers:
        """Give a pair up to `wanted_wh` (T,) more, as admissibility, caps, comfort and budget allow; what it got."""
        area = self.area
        net = area.values[bid] - area.costs[offer] - area.alpha[offer]
        wh = np.minimum(np.minimum(self.offers_left[offer], self.bids_left[bid]), wanted_wh)
        wh = np.where((net > 0) & area.allowed[offer, bid], np.maximum(wh, 0), 0)
        for left in (int(self.offer_totals[offer]), int(self.bid_totals[bid])):
            if int(wh.sum()) > left:
                wh = _first(wh, np.argsort(-net, kind="stable"), left)
        is_open = (offer, bid) in self.energies
        charge_u, crosses = int(self.links.charges_u[offer, bid]), bool(self.links.crosses[offer, bid])
        spare_u = self.left_u - (0 if is_open else charge_u)
        if spare_u < 0 or (crosses and not is_open and self.crossings_left[bid] <= 0):
            return np.zeros_like(wh)
        if int((wh * area.alpha[offer]).sum()) > spare_u:
            wh = self._afforded(offer, wh, net, spare_u)
        if not wh.any():
            return wh
        self._change(offer, bid, wh)
        self.left_u -= 0 if is_open else charge_u
        return wh

    def _afforded(self, offer: int, wh: Integers, net: Integers, spare_u: int) -> Integers:
        alpha, kept = self.area.alpha[offer], np.zeros_like(wh)
        by_worth = sorted(range(len(wh)), key=lambda t: (int(-net[t] * SCALE // max(int(alpha[t]), 1)), t))
        for slot in by_worth:
            cost = int(alpha[slot])
            kept[slot] = int(wh[slot]) if not cost else min(int(wh[slot]), spare_u // cost)
            spare_u -= cost * int(kept[slot])
        return kept

    def resume(self, energies: Mapping[tuple[int, int], Integers]) -> None:
        """Take over a feasible matching; the budget given is what is left beside it."""
        left_u = self.left_u
        for pair in sorted(energies):
            self._change(*pair, energies[pair])
        self.left_u = left_u

    def drop(self, offer: int, bid: int) -> Integers:
        """Take a pair out with all its energy; return what it had."""
        had = self.energies[offer, bid].copy()
        self._change(offer, bid, -had)
        self.left_u += int(self.links.charges_u[offer, bid])
        return had

    def _change(self, offer: int, bid: int, wh: Integers) -> None:
        is_open = (offer, bid) in self.energies
        now = self.energies[offer, bid] + wh if is_open else wh.copy()
        if now.any():
            self.energies[offer, bid] = now
            self._open(offer, bid)
        else:
            del self.energies[offer, bid]
            self._bids_of[offer].pop(bid, None)
            self._offers_of[bid].pop(offer, None)
        if self.links.crosses[offer, bid]:
            self.crossings_left[bid] += is_open - bool(now.any())
        self.offers_left[offer] -= wh
        self.bids_left[bid] -= wh
        self.offer_totals[offer] -= wh.sum()
        self.bid_totals[bid] -= wh.sum()
        self.left_u -= int((wh * self.area.alpha[offer]).sum())

    def _open(self, offer: int, bid: int) -> None:
        self._bids_of.setdefault(offer, {})[bid] = None
        self._offers_of.setdefault(bid, {})[offer] = None

    def losers(self) -> list[tuple[int, int]]:
        """Pairs in which a side would lose, or that are worth less than they cost at this rho."""
        offers, bids, energies = table(self.area, self.energies)
        charges_u = self.links.charges_u[offers, bids]
        found = figures(self.area, offers, bids, energies, charges_u)
        least = np.minimum(found.buyer_gains_u, found.seller_gains_u)
        priced = (found.comforts_u + charges_u) * self.rho_scaled
        poor = (least < 0) | (found.values_u * SCALE < priced)
        return [(int(offers[i]), int(bids[i])) for i in np.flatnonzero(poor)]

    def settle(self) -> None:
        """Take the losers out, fill what is left through open pairs and then new ones, take the losers out again."""
        for pair in self.losers():
            self.drop(*pair)
        self.fill_open()
        self.pair_up(self.offers_left, self.bids_left)
        self.join()
        for pair in self.losers():
            self.drop(*pair)
        self.fill_open()

    def join(self) -> None:
        """Take out pairs whose energy other open pairs can carry around a cycle, until no pair can be spared.

        Offer s gives to b' what s' gave to b', and s' gives to b what s gave to b: every row trades as before, the
        worth is the same, and the charge of (s, b) is saved. What no cycle carries is given up if it is worth less.
        """
        for _ in range(JOIN_ROUNDS):
            before = len(self.energies)
            for offer, bid in sorted(self.energies, key=lambda pair: (int(self.energies[pair].sum()), pair)):
                if (offer, bid) in self.energies:
                    self._spare(offer, bid)
            if len(self.energies) == before:
                return

    def _spare(self, offer: int, bid: int) -> None:
        area, need = self.area, self.energies[offer, bid].copy()
        moves: list[tuple[int, int, Integers]] = []
        givers = self._givers(bid, offer)
        for other_bid in self._takers(offer, bid):
            towards = area.values[other_bid] > area.costs[offer] + area.alpha[offer]
            for other in givers:
                if (other, other_bid) not in self.energies:
                    continue
                back = area.values[bid] > area.costs[other] + area.alpha[other]
                taken = sum((wh for s, b, wh in moves if (s, b) == (other, other_bid)), np.zeros_like(need))
                wh = np.where(towards & back, np.minimum(need, self.energies[other, other_bid] - taken), 0)
                if wh.any():
                    moves.append((other, other_bid, wh))
                    need = need - wh
            if not need.any():
                break
        net = SCALE * (area.values[bid] - area.costs[offer]) - (SCALE + self.rho_scaled) * area.alpha[offer]
        if int((net * need).sum()) >= (SCALE + self.rho_scaled) * int(self.links.charges_u[offer, bid]):
            return
        self.drop(offer, bid)
        for other, other_bid, wh in moves:
            was_open = (other, other_bid) in self.energies
            self._change(other, other_bid, -wh)
            if was_open and (other, other_bid) not in self.energies:
                self.left_u += int(self.links.charges_u[other, other_bid])
            self._change(offer, other_bid, wh)
            self._change(other, bid, wh)

    def _takers(self, offer: int, but: int) -> list[int]:
        return sorted(bid for bid in self._bids_of[offer] if bid != but)

    def _givers(self, bid: int, but: int) -> list[int]:
        return sorted(offer for offer in self._offers_of[bid] if offer != but)

    def fill_open(self) -> None:
        """Use what is left in pairs that already pay their charge, dearest buyer and cheapest seller first."""
        area = self.area
        order = sorted(self.energies, key=lambda p: (int(area.costs[p[0]] - area.values[p[1]]), p))
        for offer, bid in order:
            self.add(offer, bid, self._worthy(offer, bid))

    def _worthy(self, offer: int, bid: int) -> Integers:
        """Room of a pair in the slots that pay for their comfort at this rho."""
        area = self.area
        net = SCALE * (area.values[bid] - area.costs[offer]) - (SCALE + self.rho_scaled) * area.alpha[offer]
        return np.where(net > 0, np.minimum(area.offer_caps[offer], area.bid_caps[bid]), 0)

    def pair_up(self, sells: Integers, buys: Integers, at: Multipliers | None = None) -> None:
        """Join rows until nothing worth its charge is left of sells (S, T) and buys (N, T); ties: lower index.

        First come pairs that use up most of their rows; or, with multipliers, those that cover most of what these say
        the energies are worth for what the pair loses against them.
        """
        pairing = _Pairing(self, sells.copy(), buys.copy(), at)
        while pairing.step():
            pass


class _Pairing:
    """The state of `pair_up`: how much each pair is preferred, and for every offer its best bid."""

    def __init__(self, filling: Filling, sells: Integers, buys: Integers, at: Multipliers | None) -> None:
        self.filling, self.sells, self.buys, self.at = filling, sells, buys, at
        area = filling.area
        self.charges_u = -(-filling.links.charges_u * (SCALE + filling.rho_scaled) // SCALE)
        self.net = SCALE * (area.values[None, :] - area.costs[:, None])
        self.comfort = (SCALE + filling.rho_scaled) * area.alpha
        self.shut = ~area.allowed
        self.moves = np.zeros(area.allowed.shape, dtype=np.int64)
        for offer in range(len(self.moves)):
            self._refresh_row(offer)
        self.best = self.moves.argmax(axis=1) if self.moves.size else np.zeros(0, dtype=np.int64)
        self.peaks = self.moves[np.arange(len(self.best)), self.best] if self.moves.size else self.best

    def step(self) -> bool:
        """Join the best pair; False when none is left."""
        if not self.peaks.size or int(self.peaks.max()) <= 0:
            return False
        offer = int(self.peaks.argmax())
        bid = int(self.best[offer])
        net = self.net[offer, bid] - self.comfort[offer]
        wanted = np.where(net > 0, np.minimum(self.sells[offer], self.buys[bid]), 0)
        got = self.filling.add(offer, bid, wanted)
        if not got.any() or self._loses(offer, bid):
            if got.any():
                self.filling._change(offer, bid, -got)
                if (offer, bid) not in self.filling.energies:
                    self.filling.left_u += int(self.filling.links.charges_u[offer, bid])
            self.shut[offer, bid], self.moves[offer, bid] = True, 0
        else:
            self.sells[offer] -= got
            self.buys[bid] -= got
            if (got < wanted).any():  # a total or the budget: no more from this pair
                self.shut[offer, bid] = True
            self._refresh_row(offer)
            self._refresh_column(bid)
            stale = np.flatnonzero(self.best == bid)
            self.best[stale] = self.moves[stale].argmax(axis=1)
            self.peaks[stale] = self.moves[stale, self.best[stale]]
        self.best[offer] = int(self.moves[offer].argmax())
        self.peaks[offer] = self.moves[offer, self.best[offer]]
        return True

    def _loses(self, offer: int, bid: int) -> bool:
        area, energies = self.filling.area, self.filling.energies[offer, bid]
        charge_u = self.filling.links.charges_u[offer, bid]
        found = figures(area, np.array([offer]), np.array([bid]), energies[None, :], np.array([charge_u]))
        worth = int(found.values_u[0]) * SCALE
        priced = int(found.comforts_u[0] + charge_u) * self.filling.rho_scaled
        return min(int(found.buyer_gains_u[0]), int(found.seller_gains_u[0])) < 0 or worth < priced

    def _refresh_row(self, offer: int) -> None:
        net = self.net[offer][:, None] - self.comfort[offer][None, :]
        wh = np.where(net > 0, np.minimum(self.sells[offer][None, :], self.buys), 0)
        rest = self.sells[offer].sum(), self.buys.sum(axis=1)
        rent = None if self.at is None else self.at.u[offer][None, :] + self.at.q
        self.moves[offer] = np.where(self.shut[offer], 0, self._preference(wh, net, rest, rent, self.charges_u[offer]))

    def _refresh_column(self, bid: int) -> None:
        net = self.net[:, bid][:, None] - self.comfort
        wh = np.where(net > 0, np.minimum(self.sells, self.buys[bid][None, :]), 0)
        rest = self.sells.sum(axis=1), self.buys[bid].sum()
        rent = None if self.at is None else self.at.u + self.at.q[bid][None, :]
        self.moves[:, bid] = np.where(
            self.shut[:, bid], 0, self._preference(wh, net, rest, rent, self.charges_u[:, bid])
        )

    @staticmethod
    def _preference(
        wh: Integers, net: Integers, rest: tuple[Integers, Integers], rent: Integers | None, charges_u: Integers
    ) -> Integers:
        """How much each of some pairs, (pairs, T), is preferred; 0 where it is worth nothing."""
        if rent is None:
            energy = wh.sum(axis=1)
            parts = (energy * PART // np.maximum(one, 1) for one in rest)
            found: Integers = sum(parts, energy)
            return found
        worth_u = (wh * _whole(net)).sum(axis=1)
        covered_u = (wh * _whole(rent)).sum(axis=1)
        loses_u = np.maximum(charges_u + covered_u - worth_u, charges_u // NO_LOSS + 1)
        return np.where(worth_u > charges_u, covered_u * PART // loses_u + 1, 0)


def _whole(scaled: Integers) -> Integers:
    """u/Wh, rounded up, and 0 for what is not worth trading: small enough to be summed over slots."""
    found: Integers = np.maximum(-(-scaled // SCALE), 0)
    return found


def _first(wh: Integers, order: Integers, limit: int) -> Integers:
    """Keep `limit` Wh of `wh`, slots in the given order."""
    kept = np.zeros_like(wh)
    for slot in order.tolist():
        kept[slot] = min(int(wh[slot]), limit)
        limit -= int(kept[slot])
    return kept


def table(area: AreaProblem, energies: Mapping[tuple[int, int], Integers]) -> tuple[Integers, Integers, Integers]:
    """The pairs in order: offers (P,), bids (P,), Wh (P, T)."""
    pairs = sorted(energies)
    offers = np.array([offer for offer, _ in pairs], dtype=np.int64)
    bids = np.array([bid for _, bid in pairs], dtype=np.int64)
    wh = np.array([energies[pair] for pair in pairs], dtype=np.int64).reshape(len(pairs), area.slots)
    return offers, bids, wh


def value_u(area: AreaProblem, energies: Mapping[tuple[int, int], Integers]) -> int:
    """Z of an area's energies."""
    return int(figures(area, *table(area, energies)).values_u.sum())


def cost_u(area: AreaProblem, energies: Mapping[tuple[int, int], Integers]) -> int:
    """Comfort and charges of an area's energies: its part of the left side of Eq. (8)."""
    return int(figures(area, *table(area, energies)).comforts_u.sum()) + area.charge_u * len(energies)


def slice_of(area: AreaProblem, energies: Mapping[tuple[int, int], Integers], at: Multipliers, scaled: int) -> Slice:
    """Write an area's energies and one leaf, whose bound is `scaled`, as the slice that its stations check."""
    offers, bids, wh = table(area, energies)
    found = figures(area, offers, bids, wh)
    bound_u = ceil_div(scaled, SCALE)
    return Slice(
        chain=area.chain,
        assignments=[
            Assignment(s, b, row) for s, b, row in zip(offers.tolist(), bids.tolist(), wh.tolist(), strict=True)
        ],
        offer_multipliers=at.u.tolist(),
        bid_multipliers=at.q.tolist(),
        value_u=int(found.values_u.sum()),
        comfort_u=int(found.comforts_u.sum()),
        charge_u=len(offers) * area.charge_u,
        bound_u=bound_u,
        spare_scaled=bound_u * SCALE - scaled,
        offer_totals=at.e.tolist() if at.e.any() else [],
        bid_totals=at.d.tolist() if at.d.any() else [],
    )
