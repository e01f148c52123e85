"""The search across areas, in integers: a merge of all books prices quota between them, what is left in areas crosses.

At a given rho every slot is merged over all areas: its price P_t is what quota costs anywhere, the same up to half a
crossing's charge. Where that would exceed an area's headroom, the area is merged by itself with as much inflow as it
may take, at a price L of its own, and the others meet that inflow as demand. Each area then pairs what the merge says
its rows sell and buy; what stays over in one area meets what stays over in others, in blocks of rows. Last, the
prices are lowered until some bid holds each, as the certificate wants them (across.py).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import Any, Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Across, Book, Crossing

from watt_market.across import TERMS_MAX, Headroom, Rows
from watt_market.border import Edge, Multipliers, stacked
from watt_market.bound import Bound, ceil_div
from watt_market.dual import polish, sweep
from watt_market.greedy import Answer, Priced, bounded, cut, idle, opening_scaled, priced, start_at, worth_scaled
from watt_market.improve import Field, improved, inside
from watt_market.prices import merge_slot
from watt_market.primal import UNLIMITED, Energies, Filling, Links, cost_u, table
from watt_market.upper import AreaProblem, Integers, figures, rows_of

BLOCK: Final = 384
"Offers, and likewise bids, that are paired at once: pairing costs their product, and a block of this size has choice."
INFLOW: Final = 2**40
"Wh; more than any area can take in."


class Network(Rows):
    """The rows of all areas, and what may flow between them."""

    def __init__(self, areas: Sequence[AreaProblem], books: Sequence[Book], headroom: Headroom) -> None:
        super().__init__(areas, books)
        self.headroom = headroom

    @property
    def is_small(self) -> bool:
        """Whether every crossing can have a term of its own in the bound."""
        return not self.headroom and len(self.both.asks) * len(self.both.values) <= TERMS_MAX

    def inflow(self, sells: Integers, buys: Integers) -> Integers:
        """What each area buys less what it sells, (areas, T) Wh."""
        found = np.zeros((len(self.areas), self.both.slots), dtype=np.int64)
        np.add.at(found, self.bid_area, buys)
        np.subtract.at(found, self.offer_area, sells)
        return found

    def rests(self, crossings: Energies) -> list[AreaProblem]:
        """The areas with what crossings leave of their rows."""
        sold, bought = traded(self.both, crossings)
        rows = zip(self.areas, self.split(sold, self.offer_ends), self.split(bought, self.bid_ends), strict=True)
        return [without(area, sells, buys) for area, sells, buys in rows]

    def only_across(self) -> AreaProblem:
        """All rows as one area in which the pairs of different areas are admissible; for small books."""
        whole, _ = self.whole()
        apart = self.offer_area[:, None] != self.bid_area[None, :]
        return dataclasses.replace(whole, allowed=whole.allowed & apart)

    def allowed(self, offers: Integers, bids: Integers, sells: Integers, buys: Integers) -> Integers:
        """Which of some rows may cross: (offers, bids) of bool; `sells` and `buys` say in which slots they could."""
        grid = offers[:, None], bids[None, :]
        found = self.pairable(*grid) & (self.offer_area[grid[0]] != self.bid_area[grid[1]])
        shared: Integers = found & ((sells > 0).astype(np.int64) @ (buys > 0).T.astype(np.int64) > 0)
        return shared

    def field(self) -> Field:
        """All rows, to be paired inside areas and across; what flows to or from an area with headroom stays."""
        limited = np.array([area.chain in self.headroom for area in self.areas])

        def across(offers: Integers, bids: Integers) -> Integers:
            mine, theirs = self.offer_area[offers], self.bid_area[bids]
            found: Integers = (mine != theirs) & (limited[mine] | limited[theirs])
            return found

        def allowed(offers: Integers, bids: Integers) -> Integers:
            found: Integers = self.pairable(offers, bids) & ~across(offers, bids)
            return found

        return Field(self.both, self.offer_area, self.bid_area, allowed, across, self.charges_u, self.both.crossings)

    def offer_places(self) -> list[tuple[int, int]]:
        """Area and row of every offer."""
        return [(n, row) for n, area in enumerate(self.areas) for row in range(len(area.costs))]

    def bid_places(self) -> list[tuple[int, int]]:
        """Area and row of every bid."""
        return [(n, row) for n, area in enumerate(self.areas) for row in range(len(area.values))]

    def pairs(self) -> int:
        """Pairs with the ask below the limit price, inside areas and across: at most so many are admissible."""
        asks, values = len(self.both.asks), len(self.both.values)
        if asks * values > TERMS_MAX:
            return asks * values
        return int((self.both.asks[:, None] < self.both.values[None, :]).sum())

    def limits(self, slot: int) -> Integers:
        """Most that may flow into each area in a slot, (areas,) Wh."""
        return np.array([self.headroom[a.chain][slot] if a.chain in self.headroom else INFLOW for a in self.areas])


@dataclass(slots=True)
class Plan:
    """What the merges of all areas say at one rho."""

    prices: list[int]
    "P_t, scaled."
    edges: Integers
    "L_jt, scaled, (areas, T)."
    sells: Integers
    "(all S, T) Wh."
    buys: Integers
    "(all N, T) Wh."


def plan(network: Network, rho_scaled: int) -> Plan:
    """Merge all areas at one rho within their headroom."""
    found = priced(network.both, rho_scaled)
    prices = list(found.prices)
    edges = np.array([prices] * len(network.areas), dtype=object)
    made = Plan(prices, edges, found.sells, found.buys)
    if network.headroom:
        for slot in range(network.both.slots):
            _limit(network, made, found, slot)
    return made


def _limit(network: Network, made: Plan, found: Priced, slot: int) -> None:
    """Merge one slot anew until no area takes in more than its headroom. Each round limits an area more, for good."""
    most, limited = network.limits(slot), np.zeros(len(network.areas), dtype=bool)
    costs, offers, bids = found.costs[:, slot], found.offers[:, slot], found.bids[:, slot]
    dear = 2 * int(found.values.max(initial=0)) + 1
    for _ in range(len(network.areas)):
        over = (network.inflow(made.sells, made.buys)[:, slot] > most) & ~limited
        if not over.any():
            return
        limited |= over
        free_offers, free_bids = ~limited[network.offer_area], ~limited[network.bid_area]
        whole = merge_slot(
            costs, np.append(found.values, dear), offers * free_offers, np.append(bids * free_bids, most[limited].sum())
        )
        made.prices[slot] = whole.price
        made.edges[~limited, slot] = whole.price
        made.sells[:, slot], made.buys[:, slot] = whole.sold, whole.bought[:-1]
        for number in np.flatnonzero(limited).tolist():
            own_offers, own_bids = network.offer_area == number, network.bid_area == number
            inside = merge_slot(
                np.append(costs[own_offers], -1), found.values[own_bids], np.append(offers[own_offers], most[number]),
                bids[own_bids],
            )  # fmt: skip
            made.sells[own_offers, slot], made.buys[own_bids, slot] = inside.sold[:-1], inside.bought
            made.edges[number, slot] = max(inside.price, whole.price)


def search_inside(
    area: AreaProblem, rho_scaled: int, sells: Integers, buys: Integers, edge: Sequence[int], at: Multipliers | None
) -> Answer:
    """Pair inside an area what the plan sells and buys; bound it at its border if it has no multipliers yet. Pure."""
    if at is None:
        at, scaled = bounded(area, rho_scaled, start_at(area, rho_scaled, edge), edge)
    else:
        scaled = Bound(area, rho_scaled, at.copy()).scaled()
    tries = []
    for way in (None, at):
        filling = Filling(area, UNLIMITED, rho_scaled)
        filling.pair_up(sells, buys, way)
        for pair in filling.losers():
            filling.drop(*pair)
        filling.join()
        tries.append(filling.energies)
    best = max(tries, key=lambda energies: worth_scaled(area, energies, rho_scaled))
    return Answer(best, at, scaled)


def finish_inside(area: AreaProblem, rest: AreaProblem, rho_scaled: int, answer: Answer, edge: Sequence[int]) -> Answer:
    """Fill an area with what crossings left (`rest`), and make its multipliers least at the lowered prices, if any."""
    filling = Filling(rest, UNLIMITED, rho_scaled)
    filling.resume(answer.energies)
    filling.settle()
    energies = improved(inside(rest), filling.energies, rho_scaled)
    if not edge:
        return Answer(energies, answer.at, answer.scaled)
    bound = Bound(area, rho_scaled, answer.at.copy(), border=edge)
    sweep(bound, only_down=True, is_offer=True)
    return Answer(energies, bound.at, bound.scaled())


def without(area: AreaProblem, sold: Integers, bought: Integers) -> AreaProblem:
    """An area whose rows have less left: `sold` (S, T) and `bought` (N, T) Wh are taken."""
    whole = np.arange(len(area.costs)), np.arange(len(area.values))
    return rows_of(
        area, *whole,
        offer_caps=area.offer_caps - sold, bid_caps=area.bid_caps - bought,
        offer_totals=area.offer_totals - sold.sum(axis=1), bid_totals=area.bid_totals - bought.sum(axis=1),
    )  # fmt: skip


def traded(area: AreaProblem, energies: Energies) -> tuple[Integers, Integers]:
    """What the rows of an area sell (S, T) and buy (N, T)."""
    sells, buys = np.zeros_like(area.offer_caps), np.zeros_like(area.bid_caps)
    offers, bids, wh = table(area, energies)
    np.add.at(sells, offers, wh)
    np.add.at(buys, bids, wh)
    return sells, buys


def cross(network: Network, rho_scaled: int, sells: Integers, buys: Integers) -> Energies:
    """Pair rows of different areas out of what is left to sell and to buy; keys number all rows.

    Blocks take every n-th row, so that each has rows of many areas; what a round leaves over meets in fewer blocks.
    """
    sells, buys = sells.copy(), buys.copy()
    left = np.full(len(buys), network.both.crossings, dtype=np.int64)
    found: Energies = {}
    while True:
        offers, bids = np.flatnonzero(sells.any(axis=1)), np.flatnonzero(buys.any(axis=1) & (left > 0))
        blocks = -(-max(len(offers), len(bids)) // BLOCK)
        for block in range(blocks):
            mine = offers[block::blocks], bids[block::blocks]
            for (offer, bid), wh in _block(network, rho_scaled, *mine, sells, buys, left).items():
                pair = int(mine[0][offer]), int(mine[1][bid])
                left[pair[1]] -= pair not in found
                found[pair] = found[pair] + wh if pair in found else wh
                sells[pair[0]] -= wh
                buys[pair[1]] -= wh
        if blocks <= 1:
            return within_headroom(network, rho_scaled, found)
        # What no partner of its block could take meets others once; rows that are done with leave the next round.
        if blocks == -(-max(int(sells.any(axis=1).sum()), int((buys.any(axis=1) & (left > 0)).sum())) // BLOCK):
            return within_headroom(network, rho_scaled, found)


def _block(
    network: Network, rho_scaled: int, offers: Integers, bids: Integers, sells: Integers, buys: Integers,
    left: Integers,
) -> Energies:  # fmt: skip
    allowed = network.allowed(offers, bids, sells[offers], buys[bids])
    area = rows_of(network.both, offers, bids, offer_caps=sells[offers], bid_caps=buys[bids], allowed=allowed)
    filling = Filling(area, UNLIMITED, rho_scaled, Links.crossing(area, left[bids]))
    filling.pair_up(area.offer_caps, area.bid_caps)
    filling.join()
    for pair in filling.losers():
        filling.drop(*pair)
    filling.fill_open()
    return filling.energies


def within_headroom(network: Network, rho_scaled: int, energies: Energies) -> Energies:
    """Take inflow away where it exceeds the headroom, from the crossings worth least there, until it fits anywhere."""
    both = network.both
    found = {pair: wh.copy() for pair, wh in energies.items()}
    for slot in range(both.slots) if network.headroom else ():
        most = network.limits(slot)
        ranked = sorted(found, key=lambda pair: (int(both.values[pair[1]] - both.costs[pair[0]]), pair))
        flows = np.zeros(len(most), dtype=np.int64)
        for offer, bid in ranked:
            flows[network.bid_area[bid]] += found[offer, bid][slot]
            flows[network.offer_area[offer]] -= found[offer, bid][slot]
        while (flows > most).any():  # each pass takes something away, and nothing flows when all is taken
            for offer, bid in ranked:
                into, out = network.bid_area[bid], network.offer_area[offer]
                less = min(int(found[offer, bid][slot]), max(0, int(flows[into] - most[into])))
                found[offer, bid][slot] -= less
                flows[into] -= less
                flows[out] += less
    if not network.headroom:
        return found
    kept = {pair: wh for pair, wh in found.items() if wh.any()}
    return _worthy(network, rho_scaled, kept)


def _worthy(network: Network, rho_scaled: int, energies: Energies) -> Energies:
    """Only the crossings in which nobody loses; dropping one changes flows, so headroom is looked at again."""
    filling = Filling(network.both, UNLIMITED, rho_scaled)
    filling.energies = dict(energies)
    losers = filling.losers()
    kept = {pair: wh for pair, wh in energies.items() if pair not in losers}
    return within_headroom(network, rho_scaled, kept) if losers else kept


def lowered(network: Network, rho_scaled: int, made: Plan, ats: Sequence[Multipliers]) -> tuple[list[int], Integers]:
    """Least prices P_t for the bids' multipliers, and least h_jt, (areas, T): lowered from the plan's, slot by slot."""
    edges = [
        Edge(area, rho_scaled, at, made.edges[n].tolist())
        for n, (area, at) in enumerate(zip(network.areas, ats, strict=True))
    ]
    prices, h = list(made.prices), made.edges - np.array(made.prices, dtype=object)
    for slot in range(network.both.slots):
        least = np.array([edge.least(slot) for edge in edges], dtype=object)
        prices[slot] = max(0, int((least - h[:, slot]).max()))
        h[:, slot] = np.maximum(least - prices[slot], 0)
        for n, edge in enumerate(edges):
            if network.areas[n].chain not in network.headroom:
                h[n, slot] = 0
            edge.prices[slot] = prices[slot] + h[n, slot]
    return prices, h


class Trade:
    """What a search knows of the trade between areas: crossings, prices at the borders, or a bound of all at once."""

    def __init__(self, network: Network, energies: Energies | None = None) -> None:
        self.network = network
        self.energies: Energies = energies or {}
        "Keys number all rows."
        self.is_finished = False
        "Whether the multipliers of the areas are what the certificate wants."
        self._plan: Plan | None = None
        self._ats: list[Multipliers | None] = [None] * len(network.areas)
        "Multipliers of each area where they were found for all areas at once."
        self._whole_scaled = 0
        "The bound of all areas at once."
        self._prices: list[int] = []
        self._h: Integers = np.zeros((len(network.areas), network.both.slots), dtype=object)

    def prepare(self, rho_scaled: int, start: Multipliers | None = None) -> Plan:
        """Merge all areas; where books are small, find the multipliers of all at once."""
        if self._plan is None:
            self._plan = plan(self.network, rho_scaled)
            self._h = self._plan.edges - np.array(self._plan.prices, dtype=object)[None, :]
            if self.network.is_small:
                whole, charges_u = self.network.whole()
                start = start or start_at(whole, rho_scaled, self._plan.prices)
                tries = [polish(whole, rho_scaled, start, offers_first=f, charges_u=charges_u) for f in (True, False)]
                best = min(tries, key=lambda bound: bound.scaled())
                self._whole_scaled, self._ats = best.scaled(), [*self._parted(best.at)]
        return self._plan

    def _parted(self, at: Multipliers) -> Iterator[Multipliers]:
        network = self.network
        offers, bids = pairwise(network.offer_ends), pairwise(network.bid_ends)
        for (first, last), (low, high) in zip(offers, bids, strict=True):
            yield Multipliers(at.u[first:last], at.q[low:high], at.e[first:last], at.d[low:high])

    def tasks(self, rho_scaled: int) -> list[tuple[Any, ...]]:
        """Arguments of `search_inside` for every area."""
        network, made = self.network, self.prepare(rho_scaled)
        sells, buys = network.split(made.sells, network.offer_ends), network.split(made.buys, network.bid_ends)
        rows = zip(network.areas, sells, buys, made.edges.tolist(), self._ats, strict=True)
        return [(area, rho_scaled, sold, bought, edge, at) for area, sold, bought, edge, at in rows]

    def idle(self, number: int, rho_scaled: int) -> Answer:
        """The answer for an area nobody has searched yet."""
        area, made = self.network.areas[number], self.prepare(rho_scaled)
        at = self._ats[number]
        if at is None:
            return idle(area, rho_scaled, made.edges[number].tolist())
        return Answer({}, at, Bound(area, rho_scaled, at.copy()).scaled())

    def opening_scaled(self, number: int, rho_scaled: int) -> int:
        """The bound of an area before it is searched; nothing where that of all areas is known already."""
        made = self.prepare(rho_scaled)
        if self._ats[number] is not None:
            return 0
        return opening_scaled(self.network.areas[number], rho_scaled, made.edges[number].tolist())

    def find(self, rho_scaled: int, inside: Sequence[Energies]) -> None:
        """Cross what the areas have not paired inside of what the plan sells and buys."""
        made, network = self.prepare(rho_scaled), self.network
        pairs = [traded(area, energies) for area, energies in zip(network.areas, inside, strict=True)]
        sells = made.sells - np.concatenate([sold for sold, _ in pairs])
        buys = made.buys - np.concatenate([bought for _, bought in pairs])
        self.energies = cross(network, rho_scaled, sells, buys)

    def last_tasks(self, rho_scaled: int, answers: Sequence[Answer]) -> list[tuple[Any, ...]]:
        """Lower the prices to the least that the areas' bids allow; arguments of `finish_inside` for every area."""
        network, made = self.network, self.prepare(rho_scaled)
        edges: list[list[int]] = [[] for _ in network.areas]
        if self._ats[0] is None:
            self._prices, self._h = lowered(network, rho_scaled, made, [answer.at for answer in answers])
            edges = (self._h + np.array(self._prices, dtype=object)[None, :]).tolist()
        rows = zip(network.areas, self.rests(), answers, edges, strict=True)
        return [(area, rest, rho_scaled, answer, edge) for area, rest, answer, edge in rows]

    def rests(self) -> list[AreaProblem]:
        """The areas with what the crossings leave of their rows."""
        return self.network.rests(self.energies)

    def pair_all(self, rho_scaled: int, answers: Sequence[Answer]) -> None:
        """Where books are small: pair all rows at once, inside areas and across, and keep what is worth more."""
        network, made = self.network, self.prepare(rho_scaled)
        if not network.is_small or self._ats[0] is None:
            return
        whole, charges_u = network.whole()
        crosses = network.offer_area[:, None] != network.bid_area[None, :]
        links = Links(charges_u, crosses, np.full(len(whole.values), whole.crossings))
        at = stacked([one for one in self._ats if one is not None])
        tries = [self._together(answers)]
        for way in (None, at):
            filling = Filling(whole, UNLIMITED, rho_scaled, links)
            filling.pair_up(made.sells, made.buys, way)
            filling.settle()
            tries.append(filling.energies)
        tries = [improved(network.field(), energies, rho_scaled) for energies in tries]
        self._part(max(tries, key=lambda energies: self._worth_scaled(energies, rho_scaled)), answers)

    def _worth_scaled(self, together: Energies, rho_scaled: int) -> int:
        network = self.network
        offers, bids, wh = table(network.both, together)
        charges_u = network.charges_u(offers, bids)
        found = figures(network.both, offers, bids, wh, charges_u)
        return SCALE * int(found.values_u.sum()) - rho_scaled * int(found.comforts_u.sum() + charges_u.sum())

    def improve(
        self, rho_scaled: int, answers: Sequence[Answer], rounds: Sequence[int], left_u: int = UNLIMITED
    ) -> int:
        """Pair small groups of rows anew, inside areas and across at once; what is left of `left_u`."""
        before = self._together(answers)
        found = improved(self.network.field(), before, rho_scaled, left_u, rounds)
        self._part(found, answers)
        return left_u - self._cost_u(found) + self._cost_u(before)

    def _cost_u(self, together: Energies) -> int:
        offers, bids, wh = table(self.network.both, together)
        comforts_u = figures(self.network.both, offers, bids, wh).comforts_u
        return int(comforts_u.sum() + self.network.charges_u(offers, bids).sum())

    def _together(self, answers: Sequence[Answer]) -> Energies:
        """Pairs inside areas and crossings in the numbering of all rows."""
        network, found = self.network, dict(self.energies)
        for answer, offer, bid in zip(answers, network.offer_ends, network.bid_ends, strict=False):
            found |= {(offer + s, bid + b): wh for (s, b), wh in answer.energies.items()}
        return found

    def _part(self, found: Energies, answers: Sequence[Answer]) -> None:
        """The opposite."""
        network = self.network
        self.energies = {}
        for answer in answers:
            answer.energies = {}
        for (offer, bid), wh in found.items():
            sells, buys = int(network.offer_area[offer]), int(network.bid_area[bid])
            if sells != buys:
                self.energies[offer, bid] = wh
            else:
                own = offer - network.offer_ends[sells], bid - network.bid_ends[buys]
                answers[sells].energies[own] = wh

    def cut(self, rho_scaled: int, inside: Sequence[Energies], budget_u: int) -> int:
        """Fit pairs and crossings into the budget; what is left of it."""
        network = self.network
        cut([*network.areas, network.both], [*inside, self.energies], budget_u)
        self.energies = within_headroom(network, rho_scaled, self.energies)
        spent = sum(cost_u(area, energies) for area, energies in zip(network.areas, inside, strict=True))
        return budget_u - spent - cost_u(network.both, self.energies)

    def bounded(self, rho_scaled: int, starts: Sequence[Multipliers]) -> list[tuple[Multipliers, int]]:
        """Multipliers and bound of every area from other starts."""
        made = self.prepare(rho_scaled, stacked(starts))
        answers = []
        for number, (area, start) in enumerate(zip(self.network.areas, starts, strict=True)):
            if self._ats[number] is not None:
                answers.append(self.idle(number, rho_scaled))
                continue
            edge, raised = made.edges[number].tolist(), start.copy()  # until no row gains at its border
            outside = Edge(area, rho_scaled, start, edge)
            raised.u = start.u + np.maximum(outside.outside(is_offer=True), 0) * area.offer_crosses[:, None]
            raised.q = start.q + np.maximum(outside.outside(is_offer=False), 0) * area.bid_crosses[:, None]
            answers.append(Answer({}, *bounded(area, rho_scaled, raised, edge)))
        done = [finish_inside(*one) for one in self.last_tasks(rho_scaled, answers)]
        self.is_finished = True
        return [(answer.at, answer.scaled) for answer in done]

    def terms_scaled(self, areas_scaled: int) -> int:
        """What crossings add to the bound of the areas: the headroom rows, or what the bound of all is above it."""
        if self._ats[0] is not None:
            return self._whole_scaled - areas_scaled
        return sum(sum(map(mul, row, self.network.headroom[chain])) for chain, row in self._headroom_rows() if row)

    def _headroom_rows(self) -> list[tuple[int, list[int]]]:
        headroom, areas = self.network.headroom, self.network.areas
        return [(one.chain, self._h[n].tolist() if one.chain in headroom else []) for n, one in enumerate(areas)]

    def stated(self, areas_scaled: int) -> Across:
        """The crossings and the prices between the areas as the masters check them; `areas_scaled` bounds the areas."""
        network, both = self.network, self.network.both
        offers, bids, wh = table(both, self.energies)
        found = figures(both, offers, bids, wh)
        crossings = []
        for offer, bid, row in zip(offers.tolist(), bids.tolist(), wh.tolist(), strict=True):
            sells, buys = int(network.offer_area[offer]), int(network.bid_area[bid])
            chains = network.areas[sells].chain, network.areas[buys].chain
            own = offer - network.offer_ends[sells], bid - network.bid_ends[buys]
            crossings.append(Crossing(chains[0], own[0], chains[1], own[1], row))
        scaled = self.terms_scaled(areas_scaled)
        bound_u = ceil_div(scaled, SCALE)
        return Across(
            crossings=crossings,  # rows are numbered area by area: they ascend as they should
            prices_scaled=list(self._prices),
            headroom_multipliers=[row for _, row in self._headroom_rows()],
            value_u=int(found.values_u.sum()),
            comfort_u=int(found.comforts_u.sum()),
            charge_u=len(offers) * both.charge_u,
            bound_u=bound_u,
            spare_scaled=bound_u * SCALE - scaled,
        )
