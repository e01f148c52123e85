"""Clears books with a peer's own code, inside the peer's own environment: nothing of ours is imported here.

stdin    {"peer": ..., "mechanisms": [...], "slots": [{"supply": [[price, wh], ...], "demand": [...]}, ...]}
stdout   {mechanism: {"seconds": s, "supply": [[wh, ...], ...], "demand": [...]}}, energies as the peer accepted them

Each slot is a market of its own: neither peer knows an order that spans several products and one limit of energy.
"""

import importlib
import json
import sys
import time
from datetime import datetime, timedelta
from typing import Any


def assume(mechanism: str, slots: list[dict[str, Any]]) -> Any:
    """`assume-framework`: PayAsClearRole or PayAsBidRole."""
    objects = importlib.import_module("assume.common.market_objects")
    simple = importlib.import_module("assume.markets.clearing_algorithms.simple")
    rrule = importlib.import_module("dateutil.rrule")
    relative = importlib.import_module("dateutil.relativedelta").relativedelta
    begin = datetime(2020, 1, 1)
    hours = rrule.rrule(rrule.DAILY, dtstart=begin, until=begin + timedelta(days=2))
    product = objects.MarketProduct(relative(minutes=15), 1, relative(hours=1))
    config = objects.MarketConfig(
        market_id="m", opening_hours=hours, opening_duration=timedelta(hours=1), market_products=[product]
    )
    role = {"pay-as-clear": simple.PayAsClearRole, "pay-as-bid": simple.PayAsBidRole}[mechanism](config)
    accepted = []
    for slot in slots:
        place = {"start_time": begin, "end_time": begin + timedelta(minutes=15), "only_hours": None}
        orders = []
        for side, sign in (("supply", 1), ("demand", -1)):
            for number, (price, wh) in enumerate(slot[side]):
                if wh:
                    name = f"{side}-{number}"
                    orders.append({**place, "volume": sign * wh, "price": price, "agent_addr": name, "bid_id": name})
        found = role.clear(orders, [(begin, begin + timedelta(minutes=15), None)])[0]
        by_name = {order["bid_id"]: abs(order["accepted_volume"]) for order in found}
        accepted.append([[by_name.get(f"{s}-{n}", 0) for n in range(len(slot[s]))] for s in ("supply", "demand")])
    return accepted


def pymarket(mechanism: str, slots: list[dict[str, Any]]) -> Any:
    """`pymarket`: Huang's truthful auction, MUDA, random partners; the two with chance in them get a fixed seed."""
    markets = importlib.import_module("pymarket")
    numpy = importlib.import_module("numpy")
    accepted = []
    for slot in slots:
        market, places = markets.Market(), list[tuple[bool, int]]()
        for side, buys in (("supply", False), ("demand", True)):
            for number, (price, wh) in enumerate(slot[side]):
                if wh:
                    market.accept_bid(wh, price, len(places), buys)
                    places.append((buys, number))
        sums = [[0.0] * len(slot[side]) for side in ("supply", "demand")]
        if {buys for buys, _ in places} == {False, True}:
            chance = {} if mechanism == "huang" else {"r": numpy.random.RandomState(1)}
            trades, _ = market.run(mechanism, **chance)
            for row in trades.get_df().itertuples():
                buys, number = places[int(row.bid)]
                sums[buys][number] += float(row.quantity)
        accepted.append(sums)
    return accepted


def main() -> None:
    """Read one order from stdin, answer on stdout."""
    wanted = json.load(sys.stdin)
    run = {"assume-framework": assume, "pymarket": pymarket}[wanted["peer"]]
    answers = {}
    run(wanted["mechanisms"][0], [])  # what it imports is not what it clears with
    for mechanism in wanted["mechanisms"]:
        begun = time.monotonic()
        accepted = run(mechanism, wanted["slots"])
        seconds = time.monotonic() - begun
        answers[mechanism] = {
            "seconds": seconds,
            "supply": [slot[0] for slot in accepted],
            "demand": [slot[1] for slot in accepted],
        }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
