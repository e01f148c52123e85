"""The lower level, program (P-L): dispatch in merit order; its dual is the real-time price p_tjm (model 1.5).

    R_t      need_wh           Wh      unplanned load of the slot, >= 0
    G_kt     capacity_wh       Wh      free capacity of unit k beyond the plan
    g_kt     g_wh              Wh      what it runs; the last entry is what no unit can serve
    lambda   lambda_u_per_wh   u/Wh    price of the slot, Eq. (11): >= 0
    mu_kt    mu_u_per_wh       u/Wh    scarcity rent of unit k

Load beyond all capacity is an implicit last unit without limit at the cost of the dearest unit, so (D) is always
feasible. Where lambda is not unique it is the least one: the cost of the dearest unit that runs, and where nothing
is needed the cost of the cheapest unit that could.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from watt_chain.contract.event import Unit
from watt_chain.contract.market import Dispatch
from watt_chain.contract.rules import PPM, RuleSet


def dispatch(units: Sequence[Unit], need_wh: Sequence[int], rules: RuleSet) -> list[Dispatch]:
    """Serve the need of every slot at least cost; ties: lower unit index first.

    A negative need counts as none. `rules` does not enter the dispatch; the surcharge of Eq. (10) comes after it.
    """
    return [_dispatch_slot(units, slot, max(0, need)) for slot, need in enumerate(need_wh)]


def _merit_order(units: Sequence[Unit]) -> list[int]:
    """Indexes by cost; the implicit last unit (index len(units)) comes after all others."""
    return [*sorted(range(len(units)), key=lambda k: (units[k].cost_u_per_wh, k)), len(units)]


def _costs(units: Sequence[Unit]) -> list[int]:
    costs = [unit.cost_u_per_wh for unit in units]
    return [*costs, max(costs, default=0)]


def _room(units: Sequence[Unit], slot: int) -> list[int]:
    """Free capacity of each unit; the implicit last one has no limit and no entry."""
    return [unit.capacity_wh[slot] if slot < len(unit.capacity_wh) else 0 for unit in units]


def _dispatch_slot(units: Sequence[Unit], slot: int, need: int) -> Dispatch:
    costs, room = _costs(units), _room(units, slot)
    g = [0] * len(costs)
    left = need
    for k in _merit_order(units):
        g[k] = left if k == len(units) else min(left, room[k])
        left -= g[k]
    price = _price(costs, room, g)
    return Dispatch(
        g_wh=g,
        lambda_u_per_wh=price,
        mu_u_per_wh=[max(0, price - cost) for cost in costs],
        cost_u=sum(cost * wh for cost, wh in zip(costs, g, strict=True)),
    )


def _price(costs: Sequence[int], room: Sequence[int], g: Sequence[int]) -> int:
    running = [cost for cost, wh in zip(costs, g, strict=True) if wh]
    able = [cost for cost, wh in zip(costs, room, strict=False) if wh]
    return max(running) if running else min(able, default=costs[-1])


def check_dispatch(
    units: Sequence[Unit], need_wh: Sequence[int], dispatches: Sequence[Dispatch], rules: RuleSet
) -> str:
    """Check (g, lambda, mu) of every slot: primal and dual feasibility, equal values, least price, merit order."""
    if len(dispatches) != len(need_wh):
        return "dispatch-slots"
    costs, last = _costs(units), len(units)
    for slot, (need, found) in enumerate(zip(need_wh, dispatches, strict=True)):
        row, room = f"dispatch-slot-{slot}", _room(units, slot)
        g, mu, price = found.g_wh, found.mu_u_per_wh, found.lambda_u_per_wh
        if len(g) != len(costs) or len(mu) != len(costs):
            return f"{row}-units"
        if sum(g) != max(0, need) or min(g) < 0:
            return f"{row}-need"
        for k in range(last):
            if g[k] > room[k]:
                return f"{row}-unit-{k}-over-capacity"
        if price < 0:
            return f"{row}-price-negative"  # Eq. (11)
        for k, cost in enumerate(costs):
            if mu[k] != max(0, price - cost) or (k == last and mu[k]):
                return f"{row}-unit-{k}-rent"
        if found.cost_u != sum(cost * wh for cost, wh in zip(costs, g, strict=True)):
            return f"{row}-cost"
        dual = price * max(0, need) - sum(rent * wh for rent, wh in zip(mu, room, strict=False))
        if dual != found.cost_u:
            return f"{row}-not-optimal"
        if price != _price(costs, room, g):
            return f"{row}-price"
        order = _merit_order(units)
        for k, after in pairwise(order):
            if g[after] and g[k] < room[k]:
                return f"{row}-unit-{after}-before-{k}"
    return ""


@dataclass(frozen=True, slots=True)
class GridCost:
    """Eq. (9'), (10) of one slot."""

    over_wh: int
    under_wh: int
    lambda_u_per_wh: int
    beta_ppm: int
    "Eq. (10): the surcharge where load exceeds the contract, 0 where it does not."
    cost_u: int


def grid_cost(
    over_wh: Sequence[int], under_wh: Sequence[int], prices_u_per_wh: Sequence[int], rules: RuleSet
) -> list[GridCost]:
    """I_CSG per slot: (1 + beta) lambda over + sigma lambda under, rounded down once per slot."""
    costs = []
    for over, under, price in zip(over_wh, under_wh, prices_u_per_wh, strict=True):
        beta_ppm = rules.beta_ppm if over > 0 else 0
        amount = ((PPM + beta_ppm) * price * over + rules.sigma_ppm * price * under) // PPM
        costs.append(GridCost(over, under, price, beta_ppm, amount))
    return costs
