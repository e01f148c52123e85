"""What a run shows: the eleven ratios beside the paper's, the aims, the paper's findings, each with a verdict.

A verdict is True, False, or None when the cells it needs were not run. A False is printed like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from watt_tools.paper import stats
from watt_tools.paper.data import Data
from watt_tools.paper.plan import MAIN_DELAY_US, PAPER_CELLS
from watt_tools.paper.reported import (
    FIGURE_9_NODES,
    FIGURE_9_SHARDS,
    NODES,
    SHARDS,
    STORAGE_RATIOS,
    TIME_RATIOS,
    TRANSACTIONS,
    Ratio,
)

BASELINES: Final = ("full-seq", "full-last", "full-par", "step")
STABLE: Final = 0.25
"""Partial sharding counts as stable in s when it stays this near to its mean (model: 3.3 item 9)."""
RISING: Final = 0.9
"""Rank correlation from which a time counts as rising."""
STORAGE_AIM: Final = 0.79
ROUNDS_AIM: Final = 2.5
POINT: Final = 0.01
"""One percentage point."""

Verdict = dict[str, Any]


def eleven(data: Data) -> list[Verdict]:
    """The paper's eleven ratios, ours beside each; times one trade at a time."""
    rows = [_time_ratio(data, number, one) for number, one in enumerate(TIME_RATIOS, 1)]
    return rows + [_storage_ratio(data, number, one) for number, one in enumerate(STORAGE_RATIOS, len(rows) + 1)]


def _time_ratio(data: Data, number: int, one: Ratio) -> Verdict:
    reported = one.ppm / 1e6
    row: Verdict = {"number": number, "row": one.row, "section": one.section, "s": one.s, "n": one.n, "paper": reported}
    for baseline in BASELINES:
        at = {}
        for delay_us in data.delays():
            found = data.ratio("paper", baseline, one.s, one.n, delay_us, load="single")
            if found is not None:
                low, high = found[1]
                at[f"{delay_us / 1000:g}"] = {"ratio": found[0], "low": low, "high": high, "apart": found[0] - reported}
        row[baseline] = at
    return row


def _storage_ratio(data: Data, number: int, one: Ratio) -> Verdict:
    reported = one.ppm / 1e6
    found = [ratio for m in TRANSACTIONS if (ratio := storage_ratio(data, "paper", one.s, m)) is not None]
    ours = [ratio for m in TRANSACTIONS if (ratio := storage_ratio(data, "ours", one.s, m)) is not None]
    row: Verdict = {"number": number, "row": one.row, "section": one.section, "s": one.s, "n": one.n, "paper": reported}
    if found:
        low, high = min(found), max(found)
        middle = stats.median(found)
        row["storage"] = {"ratio": middle, "low": low, "high": high, "apart": middle - reported}
        row["ours"] = stats.median(ours) if ours else None
    return row


def storage_ratio(data: Data, mode: str, s: int, m: int, load: str = "local") -> float | None:
    """Bytes of a normal node as a part of those of a cross-node, each area holding m transactions."""
    sizes = {
        one["role"]: one["bytes"]
        for one in data.storage.get("ledger", ())
        if (one["mode"], one["load"], one["s"], one["m"]) == (mode, load, s, m)
    }
    return sizes["normal"] / sizes["cross"] if "normal" in sizes and "cross" in sizes else None


# Aims -------------------------------------------------------------------------------------------------------------


def aims(data: Data) -> list[Verdict]:
    """The project's aims for these experiments."""
    delays = [delay_us for delay_us in data.delays() if delay_us >= 1000]
    return [
        _below(data, "partial below full (sequential) in every cell", "paper", "full-seq", delays, SHARDS),
        _below(data, "partial below full (parallel) in every cell", "paper", "full-par", delays, SHARDS, aim=False),
        _as_good_as_reported(data, delays),
        _below(data, "ours below full (sequential), s >= 3", "ours", "full-seq", delays, SHARDS[1:]),
        _below(data, "ours below full (sequential), s = 2", "ours", "full-seq", delays, (2,), aim=False),
        _below(data, "ours below full (last area decides), s >= 3", "ours", "full-last", delays, SHARDS[1:], aim=False),
        _below(data, "ours below full (last area decides), s = 2", "ours", "full-last", delays, (2,), aim=False),
        _below(data, "ours below full (parallel)", "ours", "full-par", delays, SHARDS, aim=False),
        _storage_aim(data),
        _anchor_aim(data, "ours", delays),
        _anchor_aim(data, "ours-product", delays),
        _finality_aim(data, delays),
    ]


def _below(
    data: Data, text: str, part: str, whole: str, delays: Iterable[int], shards: Iterable[int], *, aim: bool = True
) -> Verdict:
    """How many cells of the grid have one mode below another."""
    ratios = {
        (s, n, delay_us): ratio
        for delay_us in delays
        for s in shards
        for n in NODES
        if (ratio := data.quick_ratio(part, whole, s, n, delay_us)) is not None
    }
    above = sorted(place for place, ratio in ratios.items() if ratio >= 1)
    return {
        "aim": text,
        "is_aim": aim,
        "delays_ms": [delay_us / 1000 for delay_us in delays],
        "cells": len(ratios),
        "below": len(ratios) - len(above),
        "largest": max(ratios.values(), default=None),
        "not_below": [{"s": s, "n": n, "delay_ms": delay_us / 1000} for s, n, delay_us in above],
        "pass": None if not ratios else not above,
    }


def _as_good_as_reported(data: Data, delays: Iterable[int]) -> Verdict:
    worse, count = [], 0
    for one in TIME_RATIOS:
        for delay_us in delays:
            found = data.quick_ratio("paper", "full-seq", one.s, one.n, delay_us, load="single")
            if found is not None:
                count += 1
                if found > one.ppm / 1e6:
                    worse.append({"row": one.row, "s": one.s, "n": one.n, "delay_ms": delay_us / 1000, "ratio": found})
    text = "partial at least as good as each of the paper's eight ratios, against the sequential baseline"
    return {"aim": text, "is_aim": True, "cells": count, "worse": worse, "pass": None if not count else not worse}


def _storage_aim(data: Data) -> Verdict:
    found = [
        ratio
        for m in TRANSACTIONS
        for load in ("local", "mixed")
        if (ratio := storage_ratio(data, "ours", 10, m, load)) is not None
    ]
    low = min(found, default=None)
    return {
        "aim": f"normal-to-cross storage of ours at least {STORAGE_AIM} at s = 10",
        "is_aim": True,
        "ratio": low,
        "pass": None if low is None else low >= STORAGE_AIM,
    }


def _anchor_aim(data: Data, mode: str, delays: Iterable[int]) -> Verdict:
    """Anchored within 2.5 local trades and one anchor interval: the time the main chain takes for what it is sent."""
    rows = []
    for delay_us in delays:
        for n in NODES:
            ours = data.found(mode, 2, n, delay_us, load="single")
            local = data.ms("local", 1, n, delay_us, load="single")
            if ours and local:
                anchored = stats.median([one.anchored_us for one in ours]) / 1000
                decided = stats.median([one.decided_us for one in ours]) / 1000
                rows.append(
                    {
                        "n": n,
                        "delay_ms": delay_us / 1000,
                        "local_ms": local,
                        "decided_ms": decided,
                        "anchored_ms": anchored,
                        "interval_ms": anchored - decided,
                        "locals": decided / local,
                    }
                )
    worst = max((row["locals"] for row in rows), default=None)
    return {
        "aim": f"two areas: anchored ACCEPT within {ROUNDS_AIM} local trades plus one anchor interval ({mode})",
        "is_aim": mode == "ours",
        "worst": worst,
        "rows": rows,
        "pass": None if worst is None else worst <= ROUNDS_AIM,
    }


def _finality_aim(data: Data, delays: Iterable[int]) -> Verdict:
    """One round later: carrying the outcome and one consensus, no more than 1.5 local trades."""
    worst: float | None = None
    for delay_us in delays:
        for n in NODES:
            ours = data.found("ours", 2, n, delay_us, load="single")
            local = data.ms("local", 1, n, delay_us, load="single")
            if ours and local:
                later = stats.median([one.time_us - one.anchored_us for one in ours]) / 1000 / local
                worst = later if worst is None else max(worst, later)
    return {
        "aim": "two areas: final in both areas one round after the anchor (at most 1.5 local trades)",
        "is_aim": True,
        "worst": worst,
        "pass": None if worst is None else worst <= 1.5,
    }


# The paper's findings ---------------------------------------------------------------------------------------------


def findings(data: Data) -> list[Verdict]:
    """What the paper says it found, looked for in our data."""
    delay = MAIN_DELAY_US
    return [
        {"row": "M16, M36", "finding": "full takes longer than partial", **_share(_full_above(data, delay))},
        {"row": "M17, M51", "finding": "full rises with n", **_share(_rises_in_n(data, "full-seq", delay))},
        {"row": "M35", "finding": "partial rises only slightly with n", **_slightly(data, delay)},
        {"row": "M23, M54", "finding": "full rises with s", **_share(_rises_in_s(data, "full-seq", delay))},
        {"row": "M23", "finding": "partial is stable in s (2 to 5)", **_share(_stable_in_s(data, delay))},
        {"row": "M55", "finding": "the more shards, the larger the gap", **_share(_gap_grows(data, delay))},
        {"row": "M33, M52, M53", "finding": "a cross-node stores more, the more shards", **_share(_cross_grows(data))},
    ]


def _share(outcomes: list[bool]) -> Verdict:
    return {"holds": sum(outcomes), "of": len(outcomes), "pass": None if not outcomes else all(outcomes)}


def _full_above(data: Data, delay: int) -> list[bool]:
    ratios = [data.quick_ratio("paper", "full-seq", s, n, delay) for s, n in data.places(delay)]
    return [ratio < 1 for ratio in ratios if ratio is not None]


def _rises_in_n(data: Data, mode: str, delay: int) -> list[bool]:
    lines = [[data.ms(mode, s, n, delay) for n in NODES] for s in SHARDS]
    return [stats.spearman(NODES, line) > RISING for line in lines if all(line)]


def _rises_in_s(data: Data, mode: str, delay: int) -> list[bool]:
    lines = [[data.ms(mode, s, n, delay) for s in SHARDS] for n in NODES]
    return [stats.spearman(SHARDS, line) > RISING for line in lines if all(line)]


def _stable_in_s(data: Data, delay: int) -> list[bool]:
    lines = [[data.ms("paper", s, n, delay, load="single") for s in FIGURE_9_SHARDS] for n in FIGURE_9_NODES]
    means = [(line, sum(line) / len(line)) for line in lines if all(line)]
    return [max(abs(one - mean) for one in line) <= STABLE * mean for line, mean in means]


def _gap_grows(data: Data, delay: int) -> list[bool]:
    """The gap full minus partial, over s."""
    found = []
    for n in NODES:
        gaps = [data.ms("full-seq", s, n, delay) - data.ms("paper", s, n, delay) for s in SHARDS]
        if all(data.ms("paper", s, n, delay) for s in SHARDS):
            found.append(stats.spearman(SHARDS, gaps) > RISING)
    return found


def _cross_grows(data: Data) -> list[bool]:
    found = []
    for m in TRANSACTIONS:
        ratios = [storage_ratio(data, "paper", s, m) for s in (2, 3, 4)]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) == 3:
            found.append(1 > known[0] > known[1] > known[2])
    return found


def _slightly(data: Data, delay: int) -> Verdict:
    """Growth of each mode from n = 2 to n = 5, median over s."""
    growth = {}
    for mode in ("full-seq", "paper"):
        grown = [
            data.ms(mode, s, 5, delay) / data.ms(mode, s, 2, delay)
            for s in SHARDS
            if data.ms(mode, s, 5, delay) and data.ms(mode, s, 2, delay)
        ]
        if grown:
            growth[mode] = stats.median(grown)
    return {"growth": growth, "pass": None if "paper" not in growth else growth["paper"] <= 1 + STABLE}


def resemblance(data: Data) -> list[Verdict]:
    """How far each baseline's ratios are from the paper's eight, mean distance in percentage points, nearest first."""
    found = []
    for baseline in BASELINES:
        for delay_us in data.delays():
            apart = [
                abs(ratio - one.ppm / 1e6) / POINT
                for one in TIME_RATIOS
                if (ratio := data.quick_ratio("paper", baseline, one.s, one.n, delay_us, load="single")) is not None
            ]
            if len(apart) == len(TIME_RATIOS):
                mean = sum(apart) / len(apart)
                found.append({"baseline": baseline, "delay_ms": delay_us / 1000, "points": mean})
    return sorted(found, key=lambda one: one["points"])


def safety_price(data: Data) -> list[Verdict]:
    """Time of ours over that of the paper's mode, and both over the baselines, by s (median over n)."""
    rows = []
    for delay_us in data.delays():
        for s in SHARDS:
            row: Verdict = {"delay_ms": delay_us / 1000, "s": s}
            for name, part, whole in (
                ("ours/paper", "ours", "paper"),
                ("ours/full-seq", "ours", "full-seq"),
                ("ours/full-par", "ours", "full-par"),
                ("paper/full-seq", "paper", "full-seq"),
                ("paper/full-par", "paper", "full-par"),
            ):
                ratios = [data.quick_ratio(part, whole, s, n, delay_us) for n in NODES]
                known = [ratio for ratio in ratios if ratio is not None]
                if known:
                    row[name] = stats.median(known)
            if len(row) > 2:
                rows.append(row)
    return rows


def charge(data: Data) -> Verdict:
    """Cells with looked-up signature checks against the same cells with all checks done: relative differences."""
    rows: list[Verdict] = []
    for cell, found in data.cells.values():
        if cell.seed != 2 or cell.load != "burst":
            continue
        done = data.found(cell.mode, cell.s, cell.n, cell.delay_us, load="burst-checked", repetitions=6, seed=2)
        if done:
            cpu = stats.median([one.nodes_us for one in found]) / stats.median([one.nodes_us for one in done]) - 1
            time = stats.median([one.time_us for one in found]) / stats.median([one.time_us for one in done]) - 1
            rows.append({"cell": cell.name, "cpu": cpu, "time": time})
    return {
        "cells": len(rows),
        "cpu_median": stats.median([row["cpu"] for row in rows]),
        "cpu_worst": max((abs(row["cpu"]) for row in rows), default=0.0),
        "time_worst": max((abs(row["time"]) for row in rows), default=0.0),
        "rows": rows,
    }


__all__ = ["PAPER_CELLS", "aims", "charge", "eleven", "findings", "resemblance", "safety_price", "storage_ratio"]
