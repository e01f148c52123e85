"""One price per slot, found by merging a book's bids from the dearest with its offers from the cheapest.

Used twice: as the start of every search (the meeting price gives the multipliers), and as contract price where the
rule is one price per slot. Both follow from the book alone. Ties: lower index first.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Merge:
    """The merge of one slot."""

    sold: Integers
    "(S,) Wh."
    bought: Integers
    "(N,) Wh."
    price: int
    "Between the last traded and the next untraded figures: every traded row gains, every row with rest has no rent."


def merge_slot(costs: Integers, values: Integers, offers: Integers, bids: Integers) -> Merge:
    """Merge one slot: costs (S,), values (N,) in one unit of money; offers, bids Wh. Trades where value > cost."""
    sellers, buyers = np.argsort(costs, kind="stable"), np.argsort(-values, kind="stable")
    sellers, buyers = sellers[offers[sellers] > 0], buyers[bids[buyers] > 0]
    sold, bought = np.zeros_like(offers), np.zeros_like(bids)
    if not len(sellers) or not len(buyers):
        return Merge(sold, bought, int(values[buyers[0]]) if len(buyers) else 0)
    supply, demand = np.cumsum(offers[sellers]), np.cumsum(bids[buyers])
    # Demand above each seller's cost: bids are sorted by falling value, so count those that exceed it.
    count = np.searchsorted(-values[buyers], -costs[sellers], side="left")
    above = np.where(count > 0, demand[np.maximum(count, 1) - 1], 0)
    traded = int(np.minimum(supply, above).max())
    sold[sellers] = np.clip(traded - (supply - offers[sellers]), 0, offers[sellers])
    bought[buyers] = np.clip(traded - (demand - bids[buyers]), 0, bids[buyers])
    left = np.flatnonzero(demand > traded)
    next_value = int(values[buyers[left[0]]]) if len(left) else 0
    if not traded:
        return Merge(sold, bought, next_value)
    last_cost = int(costs[sellers[np.flatnonzero(supply >= traded)[0]]])
    return Merge(sold, bought, max(last_cost, next_value))


def slot_prices(costs: Integers, values: Integers, offers: Integers, bids: Integers) -> list[int]:
    """Uniform dual price of every slot; costs (S, T), values (N,), offers (S, T), bids (N, T)."""
    slots = range(offers.shape[1])
    return [merge_slot(costs[:, t], values, offers[:, t], bids[:, t]).price for t in slots]


def reduced_caps(
    costs: Integers, values: Integers, offers: Integers, bids: Integers
) -> tuple[list[int], Integers, Integers]:
    """Trade reduction: per slot, the dearest seller and the cheapest buyer of the merge do not trade, and price it.

    The price is the midpoint of what these two declared, rounded down; nobody who trades set it.
    """
    offers, bids, prices = offers.copy(), bids.copy(), []
    for slot in range(offers.shape[1]):
        merged = merge_slot(costs[:, slot], values, offers[:, slot], bids[:, slot])
        sold, bought = np.flatnonzero(merged.sold), np.flatnonzero(merged.bought)
        if not len(sold):
            prices.append(merged.price)
            continue
        seller = max(sold.tolist(), key=lambda s: (int(costs[s, slot]), s))
        buyer = min(bought.tolist(), key=lambda b: (int(values[b]), -b))
        dearest, cheapest = int(costs[seller, slot]), int(values[buyer])
        prices.append((dearest + cheapest) // 2)
        # Whoever would only trade because the marginal two do not is out as well: it would set the price again.
        offers[(costs[:, slot] > dearest) | (np.arange(len(costs)) == seller), slot] = 0
        bids[(values < cheapest) | (np.arange(len(values)) == buyer), slot] = 0
    return prices, offers, bids
