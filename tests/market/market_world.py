"""Books, signals and rule sets for the market's tests; everything follows from a seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from msgspec.structs import replace
from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.market import Assignment, Bid, Book, Offer, PairTerms, Slice
from watt_chain.contract.rules import RULES_1, RuleSet
from watt_market.book import canonical
from watt_market.checker import Checker
from watt_market.primal import Energies, table
from watt_market.upper import AreaProblem, Figures, figures

RICH = 10**12
"A budget or an escrow limit that never binds."


def paths_of(tree: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Where the integers of plain lists are."""
    if isinstance(tree, int):
        return [path]
    if not isinstance(tree, list):
        return []
    return [found for index, branch in enumerate(tree) for found in paths_of(branch, (*path, index))]


def shifted(plain: Any, path: tuple[int, ...], by: int) -> Any:
    """A copy in which the integer at `path` is another one."""
    changed = copy.deepcopy(plain)
    branch = changed
    for index in path[:-1]:
        branch = branch[index]
    branch[path[-1]] += by
    return changed


def any_shift(generator: random.Random) -> int:
    """By one, by something, or by far."""
    return generator.choice((1, -1, generator.randint(-(10**7), 10**7) or 1, 2**40, -(2**40)))


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


def terms_of(seller: Offer, buyer: Bid, slot_wh: Sequence[int], spec: EventSpec, rule_set: RuleSet) -> PairTerms:
    """Contract terms of a pair that is alone in its book."""
    book = book_of([seller], [buyer])
    part = Slice(1, [Assignment(0, 0, list(slot_wh))], [], [], 0, 0, 0, 0)
    return Checker().slice_terms(book, part, spec, rule_set)[0]


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


def energies_of(area: AreaProblem, part: Slice) -> Energies:
    """Wh per slot of every pair of a slice."""
    return {(a.offer, a.bid): np.array(a.slot_wh, dtype=np.int64) for a in part.assignments}


def brute_force_u(area: AreaProblem, budget_u: int) -> int:
    """The optimum of (P-U) by trying every integer matching of a tiny book."""
    best = 0
    pairs = [(int(s), int(b)) for s, b in np.argwhere(area.allowed)]
    rooms = [np.minimum(area.offer_caps[s], area.bid_caps[b]).tolist() for s, b in pairs]
    choices = [list(product(*(range(room + 1) for room in row))) for row in rooms]
    for matching in product(*choices):
        chosen = {pair: np.array(wh, dtype=np.int64) for pair, wh in zip(pairs, matching, strict=True) if any(wh)}
        offers, bids, wh = table(area, chosen)
        found = figures(area, offers, bids, wh)
        if _fits(area, offers, bids, wh, found, budget_u):
            best = max(best, int(found.values_u.sum()))
    return best


def _fits(area: AreaProblem, offers: Any, bids: Any, wh: Any, found: Figures, budget_u: int) -> bool:
    if (found.buyer_gains_u < 0).any() or (found.seller_gains_u < 0).any():
        return False
    for index, caps, totals in (
        (offers, area.offer_caps, area.offer_totals),
        (bids, area.bid_caps, area.bid_totals),
    ):
        used = np.zeros_like(caps)
        np.add.at(used, index, wh)
        if (used > caps).any() or (used.sum(axis=1) > totals).any():
            return False
    return int(found.comforts_u.sum()) + area.charge_u * len(offers) <= budget_u
