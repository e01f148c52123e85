"""The search across areas, in integers: a merge of all books prices quota between them, what is left in areas crosses.

At a given rho every slot is merged over all areas: its price P_t is what quota costs anywhere, the same up to half a
crossing's charge. Where that would exceed an area's headroom, the area is merged by itself with as much inflow as it
may take, at a price L of its own, and the others meet that inflow as demand. Each area then pairs what the merge says
its rows sell and buy; what stays over in one area meets what stays over in others, in blocks of rows. Last, the
prices are lowered until some bid holds each, as the certificate wants them (across.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import Final

import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Across, Book, Crossing

from watt_market.across import Headroom
from watt_market.border import Edge, Multipliers
from watt_market.bound import Bound, ceil_div
from watt_market.dual import sweep
from watt_market.greedy import Answer, Priced, bounded, cut, priced, start_at
from watt_market.prices import merge_slot
from watt_market.primal import UNLIMITED, Energies, Filling, cost_u, table
from watt_market.upper import AreaProblem, Integers, figures, rows_of, union

BLOCK: Final = 384
"Offers, and likewise bids, that are paired at once: pairing costs their product, and a block of this size has choice."
INFLOW: Final = 2**40
"Wh; more than any area can take in."


class Network:
    """The rows of all areas in one numbering: area after area."""

    def __init__(self, areas: Sequence[AreaProblem], books: Sequence[Book], headroom: Headroom) -> None:
        self.areas, self.headroom = areas, headroom
        self.both = union(areas)
        self.offer_ends = np.cumsum([0, *(len(area.costs) for area in areas)]).tolist()
        self.bid_ends = np.cumsum([0, *(len(area.values) for area in areas)]).tolist()
        self.offer_area = np.repeat(np.arange(len(areas)), np.diff(self.offer_ends))
        self.bid_area = np.repeat(np.arange(len(areas)), np.diff(self.bid_ends))
        numbers: dict[bytes, int] = {}
        users = (
            [offer.user for book in books for offer in book.offers],
            [bid.user for book in books for bid in book.bids],
        )
        self.sellers, self.buyers = (
            np.array([numbers.setdefault(user, len(numbers)) for user in side], dtype=np.int64) for side in users
        )

    def split(self, table_: Integers, ends: Sequence[int]) -> list[Integers]:
        """A table of all rows, area by area."""
        return [table_[first:last] for first, last in pairwise(ends)]

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

    def dense(self) -> AreaProblem:
        """All rows as one area in which the pairs of different areas are admissible; for small books."""
        both = self.both
        every = np.arange(len(both.asks)), np.arange(len(both.values))
        return rows_of(both, *every, allowed=self.allowed(*every, both.offer_caps, both.bid_caps))

    def allowed(self, offers: Integers, bids: Integers, sells: Integers, buys: Integers) -> Integers:
        """Which of some rows may cross: (offers, bids) of bool; `sells` and `buys` say in which slots they could."""
        both = self.both
        found = both.asks[offers, None] < both.values[None, bids]
        found &= both.offer_crosses[offers, None] & both.bid_crosses[None, bids]
        found &= self.offer_area[offers, None] != self.bid_area[None, bids]
        found &= self.sellers[offers, None] != self.buyers[None, bids]
        shared: Integers = found & ((sells > 0).astype(np.int64) @ (buys > 0).T.astype(np.int64) > 0)
        return shared

    def offer_places(self) -> list[tuple[int, int]]:
        """Area and row of every offer."""
        return [(n, row) for n, area in enumerate(self.areas) for row in range(len(area.costs))]

    def bid_places(self) -> list[tuple[int, int]]:
        """Area and row of every bid."""
        return [(n, row) for n, area in enumerate(self.areas) for row in range(len(area.values))]

    def pairs(self) -> int:
        """Pairs of rows of different areas with the ask below the limit price: at most so many are admissible."""
        below = self.both.asks[:, None] < self.both.values[None, :] if len(self.both.asks) < BLOCK else None
        if below is None or len(self.both.values) >= BLOCK:
            return len(self.both.asks) * len(self.both.values)
        return int((below & (self.offer_area[:, None] != self.bid_area[None, :])).sum())

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


def search_inside(area: AreaProblem, rho_scaled: int, sells: Integers, buys: Integers, edge: Sequence[int]) -> Answer:
    """Pair inside an area what the plan sells and buys, and bound it at its border. Pure: the task of a worker."""
    filling = Filling(area, UNLIMITED, rho_scaled)
    filling.pair_up(sells, buys)
    for pair in filling.losers():
        filling.drop(*pair)
    filling.join()
    return Answer(filling.energies, *bounded(area, rho_scaled, start_at(area, rho_scaled, edge), edge))


def finish_inside(area: AreaProblem, rest: AreaProblem, rho_scaled: int, answer: Answer, edge: Sequence[int]) -> Answer:
    """Fill an area with what crossings left (`rest`), and make its multipliers least at the lowered prices."""
    filling = Filling(rest, UNLIMITED, rho_scaled)
    filling.resume(answer.energies)
    filling.settle()
    bound = Bound(area, rho_scaled, answer.at.copy(), border=edge)
    sweep(bound, only_down=True, is_offer=True)
    return Answer(filling.energies, bound.at, bound.scaled())


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
    filling = Filling(area, UNLIMITED, rho_scaled, left[bids])
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
    """What a search knows of the trade between areas: crossings, and prices at the borders."""

    def __init__(self, network: Network, energies: Energies | None = None) -> None:
        self.network = network
        self.energies: Energies = energies or {}
        "Keys number all rows."
        self.is_lowered = False
        "Whether the prices are least and the areas' multipliers made for them."
        self._plan: Plan | None = None
        self._prices: list[int] = []
        self._h: Integers = np.zeros((0, 0), dtype=object)

    def tasks(self, rho_scaled: int) -> list[tuple[AreaProblem, int, Integers, Integers, list[int]]]:
        """Arguments of `search_inside` for every area."""
        network, made = self.network, self._planned(rho_scaled)
        sells, buys = network.split(made.sells, network.offer_ends), network.split(made.buys, network.bid_ends)
        rows = zip(network.areas, sells, buys, made.edges.tolist(), strict=True)
        return [(area, rho_scaled, sold, bought, edge) for area, sold, bought, edge in rows]

    def edges(self, rho_scaled: int) -> list[list[int]]:
        """Prices at the border of every area before they are lowered."""
        found: list[list[int]] = self._planned(rho_scaled).edges.tolist()
        return found

    def find(self, rho_scaled: int, inside: Sequence[Energies]) -> None:
        """Cross what the areas have not paired inside of what the plan sells and buys."""
        made, network = self._planned(rho_scaled), self.network
        pairs = [traded(area, energies) for area, energies in zip(network.areas, inside, strict=True)]
        sells = made.sells - np.concatenate([sold for sold, _ in pairs])
        buys = made.buys - np.concatenate([bought for _, bought in pairs])
        self.energies = cross(network, rho_scaled, sells, buys)

    def last_tasks(
        self, rho_scaled: int, answers: Sequence[Answer]
    ) -> list[tuple[AreaProblem, AreaProblem, int, Answer, list[int]]]:
        """Lower the prices to the least that the areas' bids allow; arguments of `finish_inside` for every area."""
        network, made = self.network, self._planned(rho_scaled)
        self._prices, self._h = lowered(network, rho_scaled, made, [answer.at for answer in answers])
        edges = (self._h + np.array(self._prices, dtype=object)[None, :]).tolist()
        rows = zip(network.areas, self.rests(), answers, edges, strict=True)
        return [(area, rest, rho_scaled, answer, edge) for area, rest, answer, edge in rows]

    def rests(self) -> list[AreaProblem]:
        """The areas with what the crossings leave of their rows."""
        return self.network.rests(self.energies)

    def cut(self, rho_scaled: int, inside: Sequence[Energies], budget_u: int) -> int:
        """Fit pairs and crossings into the budget; what is left of it."""
        network = self.network
        cut([*network.areas, network.both], [*inside, self.energies], budget_u)
        self.energies = within_headroom(network, rho_scaled, self.energies)
        spent = sum(cost_u(area, energies) for area, energies in zip(network.areas, inside, strict=True))
        return budget_u - spent - cost_u(network.both, self.energies)

    def bounded(self, rho_scaled: int, starts: Sequence[Multipliers]) -> list[tuple[Multipliers, int]]:
        """Multipliers and bound of every area from other starts, which are raised until no row gains at its border."""
        answers = []
        for area, start, edge in zip(self.network.areas, starts, self.edges(rho_scaled), strict=True):
            start = start.copy()
            at_edge = Edge(area, rho_scaled, start, edge)
            start.u = start.u + np.maximum(at_edge.outside(is_offer=True), 0) * area.offer_crosses[:, None]
            start.q = start.q + np.maximum(at_edge.outside(is_offer=False), 0) * area.bid_crosses[:, None]
            answers.append(Answer({}, *bounded(area, rho_scaled, start, edge)))
        done = [finish_inside(*one) for one in self.last_tasks(rho_scaled, answers)]
        self.is_lowered = True
        return [(answer.at, answer.scaled) for answer in done]

    def headroom_scaled(self) -> int:
        """The bound of the headroom rows, scaled."""
        return sum(sum(map(mul, row, self.network.headroom[chain])) for chain, row in self._headroom_rows() if row)

    def _headroom_rows(self) -> list[tuple[int, list[int]]]:
        chains = [area.chain for area in self.network.areas]
        if not len(self._h):
            return [(chain, []) for chain in chains]
        return [(c, self._h[n].tolist() if c in self.network.headroom else []) for n, c in enumerate(chains)]

    def _planned(self, rho_scaled: int) -> Plan:
        if self._plan is None:
            self._plan = plan(self.network, rho_scaled)
        return self._plan

    def stated(self) -> Across:
        """The crossings and the prices between the areas as the masters check them."""
        network, both = self.network, self.network.both
        offers, bids, wh = table(both, self.energies)
        found = figures(both, offers, bids, wh)
        crossings = []
        for offer, bid, row in zip(offers.tolist(), bids.tolist(), wh.tolist(), strict=True):
            sells, buys = int(network.offer_area[offer]), int(network.bid_area[bid])
            chains = network.areas[sells].chain, network.areas[buys].chain
            own = offer - network.offer_ends[sells], bid - network.bid_ends[buys]
            crossings.append(Crossing(chains[0], own[0], chains[1], own[1], row))
        scaled = self.headroom_scaled()
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
