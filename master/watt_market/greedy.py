"""The answer that never stalls: sorted merge by net value per Wh, with a dual bound of its own, in integers.

Inside one area every Wh of slot t is worth v_b - (c_s + r_s) - (1 + rho) alpha_t, a difference of a buyer's and a
seller's figure. Without charges (P-U) for a given rho is therefore solved exactly, slot by slot, by merging bids from
the dearest and offers from the cheapest; the meeting price P gives the multipliers
u = [P - cost]^+, q = [value - P]^+.  rho is the least one at which the merge fits the budget, by bisection. What the
answer can lose is the charges and the last Wh of the budget: small when charges are milliseconds of communication.
"""

from collections.abc import Sequence

from watt_chain.contract.market import MULTIPLIER_SCALE

from watt_market.dual import Multipliers
from watt_market.primal import Energies, repaired
from watt_market.upper import AreaProblem

Proposal = dict[int, list[int]]


def greedy(
    areas: Sequence[AreaProblem], budget_u: int
) -> tuple[int, list[Energies], list[tuple[Multipliers, Multipliers]]]:
    """Return rho (scaled), feasible energies of every area, and (offer, bid) multipliers of every area."""
    rho_scaled = _least_rho(areas, budget_u)
    merged = [merge(area, rho_scaled) for area in areas]
    energies = repaired(areas, budget_u, rho_scaled, [proposal for proposal, _, _ in merged])
    return rho_scaled, energies, [(u, q) for _, u, q in merged]


def _least_rho(areas: Sequence[AreaProblem], budget_u: int) -> int:
    if _cost_u(areas, 0) <= budget_u:
        return 0
    # At the largest margin no Wh with comfort cost is worth trading; rho above it changes nothing.
    margins = [pair.margin_u_per_wh for area in areas for pair in area.pairs]
    low, high = 0, MULTIPLIER_SCALE * max(margins)
    while low < high:
        middle = (low + high) // 2
        if _cost_u(areas, middle) <= budget_u:
            high = middle
        else:
            low = middle + 1
    return low


def _cost_u(areas: Sequence[AreaProblem], rho_scaled: int) -> int:
    """Comfort and charges (8) of the merge at `rho_scaled`."""
    total = 0
    for area in areas:
        proposal, _, _ = merge(area, rho_scaled)
        for wh in proposal.values():
            total += area.charge_u + sum(alpha * x for alpha, x in zip(area.alpha_u_per_wh, wh, strict=True))
    return total


def merge(area: AreaProblem, rho_scaled: int) -> tuple[Proposal, Multipliers, Multipliers]:
    """Merge each slot of one area at `rho_scaled`; ties: lower index first.

    Returns pair position -> Wh per slot, and the multipliers of offers and bids. Rows without any admissible pair
    take no part: their multiplier stays 0.
    """
    u = [[0] * area.slots for _ in area.offer_caps]
    q = [[0] * area.slots for _ in area.bid_caps]
    position = {(pair.offer, pair.bid): p for p, pair in enumerate(area.pairs)}
    proposal: Proposal = {}
    for slot in range(area.slots):
        comfort = (MULTIPLIER_SCALE + rho_scaled) * area.alpha_u_per_wh[slot]
        costs = [MULTIPLIER_SCALE * cost + comfort for cost in area.offer_costs_u_per_wh]
        values = [MULTIPLIER_SCALE * value for value in area.bid_values_u_per_wh]
        sellers = [s for s, own in enumerate(area.pairs_of_offers()) if own and area.offer_caps[s][slot]]
        buyers = [b for b, own in enumerate(area.pairs_of_bids()) if own and area.bid_caps[b][slot]]
        sellers.sort(key=lambda s: (costs[s], s))
        buyers.sort(key=lambda b: (-values[b], b))
        trades, price = _merge_slot(
            [(costs[s], area.offer_caps[s][slot]) for s in sellers],
            [(values[b], area.bid_caps[b][slot]) for b in buyers],
        )
        for i, j, wh in trades:
            proposal.setdefault(position[sellers[i], buyers[j]], [0] * area.slots)[slot] = wh
        for s in sellers:
            u[s][slot] = max(0, price - costs[s])
        for b in buyers:
            q[b][slot] = max(0, values[b] - price)
    return proposal, u, q


def _merge_slot(
    sellers: Sequence[tuple[int, int]], buyers: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int, int]], int]:
    """Merge (cost, Wh) ascending with (value, Wh) descending; return trades (i, j, Wh) and a price that clears.

    The price lies between the last traded and the next untraded figures, so that every traded row has a multiplier
    >= 0 and every row with something left has multiplier 0 (complementary slackness).
    """
    trades: list[tuple[int, int, int]] = []
    i = j = 0
    seller_left = sellers[0][1] if sellers else 0
    buyer_left = buyers[0][1] if buyers else 0
    while i < len(sellers) and j < len(buyers) and buyers[j][0] > sellers[i][0]:
        wh = min(seller_left, buyer_left)
        trades.append((i, j, wh))
        seller_left, buyer_left = seller_left - wh, buyer_left - wh
        if not seller_left:
            i += 1
            seller_left = sellers[i][1] if i < len(sellers) else 0
        if not buyer_left:
            j += 1
            buyer_left = buyers[j][1] if j < len(buyers) else 0
    last_cost = sellers[trades[-1][0]][0] if trades else 0
    next_value = buyers[j][0] if j < len(buyers) else 0
    if trades:
        return trades, max(last_cost, next_value)
    # Nothing trades: any price between the dearest bid and the cheapest offer leaves every multiplier at 0.
    return trades, next_value if sellers or buyers else 0
