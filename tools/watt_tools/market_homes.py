"""Books of any size for the market's bench, resampled from measured homes; everything follows from the seed.

Method. The window is the demo's evening made four hours long, 17:00 to 21:00 UTC on 8 January 2013, 16 slots. For each
household a home-day is drawn with replacement from the winter working days of the seven measured homes (scenario.py),
its load scaled by 70 to 130 %, and one run of a measured washing machine or dishwasher laid into the first three and a
half hours. Quota is the contract's: standard profile H25 times annual use, less a fifth. A household whose base load
leaves quota free offers four fifths of what is free, in all no more than its run; one whose load exceeds the quota bids
for what it lacks. Others take no part and are not counted. Asks, limit prices and comfort coefficients are the demo's
(EMHASS tariff, CityLearn evening prices, outdoor temperature at the UK homes). Households are dealt to areas in turn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from msgspec.structs import replace
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Bid, Book, Offer
from watt_market.book import canonical

from watt_tools import scenario

SLOTS, SLOT_S = 16, 900
LEAD_STEPS = scenario.HOURS_BEFORE * scenario.HOUR_S // scenario.STEP_S
SLOT_STEPS = SLOT_S // scenario.STEP_S
RUN_STARTS = 14
"A run begins at one of so many quarter hours."
SCALE_PERCENT = (70, 130)
LIMIT_U = 10**9
"Escrow limit of every buyer: a thousand currency units, which never binds here."


@dataclass(frozen=True, slots=True)
class Homes:
    """Books of a synthetic evening and its signal; `budget_u` of the signal is U18's quarter of the bids' value."""

    books: list[Book]
    spec: EventSpec


@cache
def _days() -> list[tuple[int, list[int]]]:
    """(annual kWh, base load per slot in Wh) of every measured home-day."""
    found = []
    for day in scenario._home_days():
        sums = [0, *accumulate(day.watts)]
        starts = [LEAD_STEPS + n * SLOT_STEPS for n in range(SLOTS)]
        found.append(
            (day.annual_kwh, [-(-(sums[at + SLOT_STEPS] - sums[at]) * scenario.STEP_S // 3_600) for at in starts])
        )
    return found


@cache
def _runs() -> list[list[int]]:
    """Wh per slot of every machine's run, from its start."""
    found = []
    for _, watts in scenario._runs():
        parts = [watts[at : at + SLOT_STEPS] for at in range(0, len(watts), SLOT_STEPS)]
        found.append([-(-sum(part) * scenario.STEP_S // 3_600) for part in parts])
    return found


def homes(count: int, areas: int, seed: int = 0, budget_percent: int = scenario.BUDGET_PERCENT) -> Homes:
    """Books of `count` trading households in `areas` areas."""
    generator = random.Random(f"{count} {areas} {seed}")
    profile = scenario._profile_wh(SLOTS)
    low, high = scenario._ask_prices()
    prices = scenario._evening_prices()
    offers: list[list[Offer]] = [[] for _ in range(areas)]
    bids: list[list[Bid]] = [[] for _ in range(areas)]
    number = 0
    while number < count:
        row = _household(generator, profile)
        if row is None:
            continue
        is_seller, slot_wh = row
        user, area = number.to_bytes(8, "big"), number % areas
        if is_seller:
            offers[area].append(Offer(0, user, generator.randrange(low, high + 1), slot_wh, 60))
        else:
            bids[area].append(Bid(0, user, generator.randrange(prices[0], prices[-1] + 1), slot_wh, LIMIT_U))
        number += 1
    books = [canonical(1, chain, offers[chain - 1], bids[chain - 1]) for chain in range(1, areas + 1)]
    worth_u = sum(bid.price_u_per_wh * sum(bid.slot_wh) for book in books for bid in book.bids)
    spec = scenario.build().spec
    spec = replace(
        spec,
        slots=SLOTS,
        alpha_u_per_wh=scenario._alphas(SLOT_S, SLOTS),
        profile_wh_per_mwh=profile,
        units=[replace(unit, capacity_wh=[unit.capacity_wh[0]] * SLOTS) for unit in spec.units],
        budget_u=worth_u * budget_percent // 100,
    )
    return Homes(books, spec)


def _household(generator: random.Random, profile: list[int]) -> tuple[bool, list[int]] | None:
    """(sells, Wh per slot) of one draw; None when it would not trade."""
    annual_kwh, base = generator.choice(_days())
    percent = generator.randint(*SCALE_PERCENT)
    run, start = generator.choice(_runs()), generator.randrange(RUN_STARTS)
    flexible = ([0] * start + run + [0] * SLOTS)[:SLOTS]
    load = [wh * percent // 100 for wh in base]
    quota = scenario.quota(profile, annual_kwh)
    if generator.randrange(2):
        if any(wh > own for wh, own in zip(load, quota, strict=True)):
            return None
        left, slot_wh = sum(flexible), []
        for wh, own in zip(load, quota, strict=True):
            slot_wh.append(min((own - wh) * scenario.OFFERED_FIFTHS // 5, left))
            left -= slot_wh[-1]
        return (True, slot_wh) if sum(slot_wh) >= scenario.TRADE_WH_MIN else None
    lacks = [max(0, wh + extra - own) for wh, extra, own in zip(load, flexible, quota, strict=True)]
    return (False, lacks) if sum(lacks) >= scenario.TRADE_WH_MIN else None
