"""A clearing and an explanation as data, as words and tables, and as what the plot needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watt_tools import market_certificate, picture
from watt_tools.market_book import Instance
from watt_tools.market_certificate import Trace
from watt_tools.market_explain import matched_pairs
from watt_tools.show import market_pairs, money

if TYPE_CHECKING:
    from watt_chain.contract.market import Across, PairTerms, Slice, Solution

    from watt_tools.market_explain import Explanation


def as_data(instance: Instance, solution: Solution) -> dict[str, Any]:
    """What a clearing comes to; amounts in u (10^-6 currency units), energies in Wh."""
    pairs = [_pair(instance, *one) for one in matched_pairs(instance, solution)]
    terms: list[Slice | Across] = [*solution.slices, *([] if solution.across is None else [solution.across])]
    matched = {pair[side] for pair in pairs for side in ("offer", "bid")}
    return {
        "pairs": pairs,
        "unmatched": sorted(name for name in instance.entries.values() if name not in matched),
        "energy_wh": sum(sum(pair["slot_wh"]) for pair in pairs),
        "value_u": solution.value_u,
        "bound_u": solution.bound_u,
        "gap_ppm": market_certificate.gap_ppm(solution),
        "comfort_u": sum(term.comfort_u for term in terms),
        "charge_u": sum(term.charge_u for term in terms),
        "budget_u": instance.spec.budget_u,
        "rules_version": instance.rules.version,
    }


def _pair(
    instance: Instance, chains: tuple[int, int], ids: tuple[bytes, bytes], wh: list[int], terms: PairTerms
) -> Any:
    return {
        "area": chains[0],
        "bid_area": chains[1],
        "offer": instance.entries[chains[0], "sell", ids[0]],
        "bid": instance.entries[chains[1], "buy", ids[1]],
        "seller": instance.users[ids[0]],
        "buyer": instance.users[ids[1]],
        "slot_wh": wh,
        "price_u_per_wh": terms.price_u_per_wh,
        "paid_u": sum(price * one for price, one in zip(terms.price_u_per_wh, wh, strict=True)),
        "charge_u": terms.charge_u,
    }


UNMATCHED_SHOWN = 12


def clearing(data: dict[str, Any]) -> None:
    """Print a clearing as a table and four lines."""
    market_pairs(data["pairs"])
    unmatched = data["unmatched"]
    spent = data["comfort_u"] + data["charge_u"]
    print(f"{len(data['pairs'])} pairs, {data['energy_wh']:,} Wh; not matched: {len(unmatched)} entries", end="")
    more = " ..." if len(unmatched) > UNMATCHED_SHOWN else ""
    print(f" ({', '.join(unmatched[:UNMATCHED_SHOWN])}{more})" if unmatched else "")
    print(f"value {money(data['value_u'])}, certified bound {money(data['bound_u'])}, ", end="")
    print(f"gap {data['gap_ppm'] / 10_000:.4f} %")
    print(f"comfort {money(data['comfort_u'])} + charges {money(data['charge_u'])} = {money(spent)}", end=" ")
    print(f"of a budget of {money(data['budget_u'])}")


def explanation(told: Explanation) -> None:
    """Print an explanation in sentences."""
    does = "sells" if told.side == "sell" else "buys"
    verb = "asks" if told.side == "sell" else "offers up to"
    print(f"{told.entry} {does} {told.wanted_wh:,} Wh and {verb} {told.price_u_per_wh} u/Wh.")
    for trade in told.trades:
        prices = sorted({p for p, wh in zip(trade.price_u_per_wh, trade.slot_wh, strict=True) if wh})
        span = f"{prices[0]}" if len(prices) == 1 else f"{prices[0]} to {prices[-1]}"
        print(f"  matched with {trade.partner}: {sum(trade.slot_wh):,} Wh at {span} u/Wh, charge {trade.charge_u} u")
    if told.reason:
        print(f"  {'only ' + format(told.matched_wh, ',') + ' Wh' if told.trades else 'not'} matched: {told.reason}.")
    if told.matched_at_u_per_wh is not None:
        price = told.matched_at_u_per_wh
        low, high = min(told.would_pay_u_per_wh), max(told.would_pay_u_per_wh)
        next_ = price + 1 if told.side == "sell" else price - 1
        word = "An ask" if told.side == "sell" else "A limit"
        print(f"  {word} of {price} u/Wh would have been matched, at a contract price of {low}", end="")
        print(f"{'' if low == high else f' to {high}'} u/Wh; {next_} would not.")
    elif told.reason and not told.trades:
        print("  No other price was found at which it would have been matched.")


def panels(instance: Instance, solution: Solution, trace: Trace) -> picture.MarketPanels:
    """Curves of the plot."""
    offers = [(row.price_u_per_wh, sum(row.slot_wh)) for book in instance.books for row in book.offers]
    bids = [(row.price_u_per_wh, sum(row.slot_wh)) for book in instance.books for row in book.bids]
    slots = range(instance.spec.slots)
    matched = {
        part.chain: [sum(one.slot_wh[slot] for one in part.assignments) for slot in slots] for part in solution.slices
    }
    if solution.across is not None:
        crossings = solution.across.crossings
        matched[picture.ACROSS] = [sum(one.slot_wh[slot] for one in crossings) for slot in slots]
    return picture.MarketPanels(
        supply=sorted(offers),
        demand=sorted(bids, reverse=True),
        traded_wh=sum(map(sum, matched.values())),
        matched=matched,
        offered=[sum(row.slot_wh[slot] for book in instance.books for row in book.offers) for slot in slots],
        wanted=[sum(row.slot_wh[slot] for book in instance.books for row in book.bids) for slot in slots],
        trace=trace,
    )
