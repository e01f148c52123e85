"""Books, signals and rule sets for the market's tests; everything follows from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

from msgspec.structs import replace
from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.market import Bid, Book, Offer, Slice
from watt_chain.contract.rules import RULES_1, RuleSet
from watt_market.book import canonical
from watt_market.upper import AreaProblem, gains_u, value_u

RICH = 10**12
"A budget or an escrow limit that never binds."


def rules(**changes: int) -> RuleSet:
    return replace(RULES_1, **changes)


def signal(alpha: Sequence[int], *, budget_u: int = RICH, x_ms: int = 20) -> EventSpec:
    slots = len(alpha)
    return EventSpec(
        event=1,
        kind="peak",
        slot_s=900,
        slots=slots,
        required_ppm=200_000,
        open_s=10,
        commit_close_s=20,
        reveal_close_s=30,
        match_by_s=40,
        confirm_close_s=50,
        window_start_s=900,
        meter_close_s=900 * (slots + 2),
        settle_by_s=900 * (slots + 4),
        alpha_u_per_wh=list(alpha),
        x_ms=x_ms,
        y_ms=60,
        budget_u=budget_u,
        units=[Unit(350, [300] * slots), Unit(520, [500] * slots), Unit(900, [800] * slots)],
        normal_price_u_per_wh=300,
        compensation_price_u_per_wh=200,
        profile_wh_per_mwh=[40] * slots,
    )


def user(number: int) -> bytes:
    return number.to_bytes(8, "big")


def offer(number: int, price: int, slot_wh: Sequence[int], credit: int = 60) -> Offer:
    return Offer(0, user(number), price, list(slot_wh), credit)


def bid(number: int, price: int, slot_wh: Sequence[int], limit_u: int = RICH) -> Bid:
    return Bid(0, user(number), price, list(slot_wh), limit_u)


def book_of(offers: Sequence[Offer], bids: Sequence[Bid], chain: int = 1) -> Book:
    return canonical(1, chain, offers, bids)


def random_books(seed: int, rows: int, slots: int, areas: int = 1, most_wh: int = 400) -> tuple[list[Book], list[int]]:
    """Books with `rows` offers and bids in every area, no two prices equal on one side, and comfort coefficients."""
    generator = random.Random(seed)

    def energies() -> list[int]:
        first = generator.randrange(slots)
        last = min(slots, first + generator.randint(1, max(1, slots // 2)))
        return [generator.randint(most_wh // 8, most_wh) if first <= slot < last else 0 for slot in range(slots)]

    books = []
    for chain in range(1, areas + 1):
        asks, limits = generator.sample(range(200, 700), rows), generator.sample(range(400, 1_200), rows)
        books.append(
            book_of(
                [offer(1 + n, asks[n], energies()) for n in range(rows)],
                [bid(1_001 + n, limits[n], energies()) for n in range(rows)],
                chain,
            )
        )
    return books, [generator.randint(20, 160) for _ in range(slots)]


def energies_of(area: AreaProblem, part: Slice) -> list[list[int]]:
    """Wh per (pair, slot) of a slice."""
    found = {(a.offer, a.bid): list(a.slot_wh) for a in part.assignments}
    return [found.get((pair.offer, pair.bid), [0] * area.slots) for pair in area.pairs]


def brute_force_u(area: AreaProblem, budget_u: int) -> int:
    """The optimum of (P-U) by trying every integer matching of a tiny book."""
    best = 0
    choices = [product(*(range(room + 1) for room in pair.room_wh)) for pair in area.pairs]
    for matching in product(*(list(choice) for choice in choices)):
        if _fits(area, matching, budget_u):
            worth = [value_u(area, p, wh) for p, wh in zip(area.pairs, matching, strict=True) if any(wh)]
            best = max(best, sum(worth))
    return best


def _fits(area: AreaProblem, matching: Sequence[Sequence[int]], budget_u: int) -> bool:
    cost_u = 0
    sold = [[0] * area.slots for _ in area.offer_caps]
    bought = [[0] * area.slots for _ in area.bid_caps]
    for pair, energies in zip(area.pairs, matching, strict=True):
        if not any(energies):
            continue
        if min(gains_u(area, pair, energies)) < 0:
            return False
        cost_u += area.charge_u + sum(a * wh for a, wh in zip(area.alpha_u_per_wh, energies, strict=True))
        for slot, wh in enumerate(energies):
            sold[pair.offer][slot] += wh
            bought[pair.bid][slot] += wh
    held = all(
        x <= cap for row, caps in zip(sold, area.offer_caps, strict=True) for x, cap in zip(row, caps, strict=True)
    )
    fed = all(
        x <= cap for row, caps in zip(bought, area.bid_caps, strict=True) for x, cap in zip(row, caps, strict=True)
    )
    return held and fed and cost_u <= budget_u
