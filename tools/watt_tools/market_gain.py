"""`wattpact market gain`: what one household gains by declaring another price than its true one, under each price rule.

Books of measured homes (market_homes.py), one area each, no budget. Everybody declares truly but one, who tries each of
FACTORS on its price; its gain is counted at its true price, and the best factor is kept. Also counted: what the rule
itself costs, the value it reaches by true declarations as a share of that of the k-double auction.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

if TYPE_CHECKING:
    from watt_chain.contract.event import EventSpec
    from watt_chain.contract.market import Bid, Book, Offer

FACTORS: Final = (70, 85, 95, 105, 115, 130, 160)
"Percent of the true price."
RULES: Final = ("k-double", "uniform", "reduction")
SAMPLE: Final = 6
"Sellers, and likewise buyers, of each book that try: spread evenly over the book."


def add(actions: Any) -> None:
    """Add `gain` to the market's actions."""
    gain = actions.add_parser("gain", help="what misreporting gains under each price rule")
    gain.add_argument("--books", type=int, default=3, help="books, each with its own seed (default 3)")
    gain.add_argument("--households", type=int, default=40, help="of each book (default 40)")
    gain.add_argument("--json", action="store_true", help="print one JSON object")
    gain.set_defaults(handler=run_gain)


def run_gain(chosen: argparse.Namespace) -> int:
    """Measure and print the table."""
    rows = measure(chosen.books, chosen.households)
    if chosen.json:
        print(json.dumps({"rows": rows}, indent=1))
        return 0
    print("| price rule | value % | sellers who gain % | mean % | largest % | buyers who gain % | mean % | largest % |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{row[side][name]:.1f}" for side in ("sellers", "buyers") for name in ("who", "mean", "largest")]
        print(f"| {row['rule']} | {row['value']:.1f} | " + " | ".join(cells) + " |")
    return 0


def measure(books: int, households: int) -> list[dict[str, Any]]:
    """One row per price rule; gains in percent of the true declaration's gain of the same household."""
    from watt_tools.market_homes import homes

    made = [homes(households, 1, seed) for seed in range(books)]
    rows: list[dict[str, Any]] = []
    best_u = 0
    for rule in RULES:
        value_u = sum(_gains(each.books[0], each.spec, rule)[2] for each in made)
        best_u = best_u or value_u
        row: dict[str, Any] = {"rule": rule, "value": 100 * value_u / best_u}
        for side in ("sellers", "buyers"):
            found = [pair for each in made for pair in _tries(each.books[0], each.spec, rule, side)]
            shares = [100 * (lied - true) / true for true, lied in found if true > 0]
            row[side] = {
                "tried": len(found),
                "who": 100 * sum(lied > true for true, lied in found) / max(len(found), 1),
                "mean": 100 * sum(lied - true for true, lied in found) / max(sum(true for true, _ in found), 1),
                "largest": max(shares, default=0.0),
            }
        rows.append(row)
    return rows


def _tries(book: Book, spec: EventSpec, rule: str, side: str) -> list[tuple[int, int]]:
    """(gain by the true price, best gain by any price) of the sampled rows of one side."""
    listed: list[Offer] | list[Bid] = book.offers if side == "sellers" else book.bids
    sellers, buyers, *_ = _gains(book, spec, rule)
    honest, found = sellers if side == "sellers" else buyers, []
    for index in range(0, len(listed), max(1, len(listed) // SAMPLE)):
        true = honest[index]
        lied = [_lie(book, spec, rule, side, index, factor) for factor in FACTORS]
        found.append((true, max([true, *lied])))
    return found


def _lie(book: Book, spec: EventSpec, rule: str, side: str, index: int, factor: int) -> int:
    """Gain at the true price of the row that declares `factor` percent of it."""
    true = book.offers[index].price_u_per_wh if side == "sellers" else book.bids[index].price_u_per_wh
    said = true * factor // 100
    if side == "sellers":
        offers = [replace(row, price_u_per_wh=said) if row.index == index else row for row in book.offers]
        gains, _, _, wh, _ = _gains(replace(book, offers=offers), spec, rule)
        return gains[index] + (said - true) * wh[index]
    bids = [replace(row, price_u_per_wh=said) if row.index == index else row for row in book.bids]
    _, gains, _, _, wh = _gains(replace(book, bids=bids), spec, rule)
    return gains[index] + (true - said) * wh[index]


def _gains(book: Book, spec: EventSpec, rule: str) -> tuple[list[int], list[int], int, list[int], list[int]]:
    """Gains of sellers and of buyers at their declared prices, value, and energies of sellers and of buyers."""
    import numpy as np
    from watt_chain.contract.rules import RULES_1
    from watt_market.greedy import matched, priced
    from watt_market.options import options_of
    from watt_market.primal import table
    from watt_market.upper import figures, problem

    rules = replace(RULES_1, price_rule=rule)
    area = problem(book, spec, rules, options_of(spec, rules))
    offers, bids, wh = table(area, matched(area, 0, priced(area, 0)))
    found = figures(area, offers, bids, wh)
    sums = []
    for index, count, values in (
        (offers, len(book.offers), found.seller_gains_u), (bids, len(book.bids), found.buyer_gains_u),
        (offers, len(book.offers), wh.sum(axis=1)), (bids, len(book.bids), wh.sum(axis=1)),
    ):  # fmt: skip
        total = np.zeros(count, dtype=np.int64)
        np.add.at(total, index, values)
        sums.append(total.tolist())
    return sums[0], sums[1], int(found.values_u.sum()), sums[2], sums[3]
