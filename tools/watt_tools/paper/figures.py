"""Figures 6 to 10 of the paper from our data: PNG, and the same numbers as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from watt_chain.genesis import faults_tolerated

from watt_tools.paper import stats
from watt_tools.paper.cell import Cell, Repetition
from watt_tools.paper.data import Data
from watt_tools.paper.plan import COMPARED, MAIN_DELAY_US
from watt_tools.paper.reported import FIGURE_9_NODES, FIGURE_9_SHARDS, FIGURES, NODES, SHARDS, STORAGE_SHARDS
from watt_tools.picture import Line, Panel, panels_png

LABELS: Final = {
    "full-seq": "full, one area after the other",
    "full-par": "full, all areas at once",
    "paper": "partial, as the paper prints it",
    "ours": "ours: certified receipts",
}
Points = list[tuple[float, float, float, float]]


def draw(data: Data, folder: Path) -> list[Path]:
    """Write every figure the run has data for; the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    delay = f"{MAIN_DELAY_US / 1000:g} ms one way, bursts of 20 trades, bars: 95 %"
    for number, caption, shards in FIGURES:
        panels = [_over_nodes(data, s) for s in shards]
        made += _write(folder / f"figure{number}", f"{caption}: {delay}", panels)
    single = f"{MAIN_DELAY_US / 1000:g} ms one way, one trade at a time, bars: 95 %"
    panels = [_over_shards(data, n) for n in FIGURE_9_NODES]
    made += _write(folder / "figure9", f"Time cost vs s (n in 2, 3, 4): {single}", panels)
    panels = [_over_transactions(data, s) for s in STORAGE_SHARDS]
    made += _write(
        folder / "figure10",
        "Storage overhead vs number of transactions (s = 2, 3, 4), all of them inside the areas",
        panels,
    )
    panels = [_ratios_over_shards(data, delay_us) for delay_us in data.delays()]
    made += _write(folder / "figure11", "Not in the paper: parts of full sharding (one area after the other)", panels)
    return made


def _write(stem: Path, title: str, panels: Sequence[Panel]) -> list[Path]:
    with_data = [panel for panel in panels if any(line.points for line in panel.lines)]
    if not with_data:
        return []
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("panel", "line", "x", "y", "low", "high"))
        for panel in with_data:
            for line in panel.lines:
                writer.writerows((panel.title, line.label, *(f"{value:.6g}" for value in at)) for at in line.points)
    path = stem.with_suffix(".png")
    panels_png(title, with_data, path)
    return [path]


def _point(x: float, times: Sequence[int]) -> tuple[float, float, float, float]:
    low, high = stats.interval(times)
    return x, stats.median(times) / 1000, low / 1000, high / 1000


def _over_nodes(data: Data, s: int) -> Panel:
    lines = []
    for colour, mode in enumerate(COMPARED):
        found = [(n, data.times(mode, s, n, MAIN_DELAY_US)) for n in NODES]
        lines.append(Line(LABELS[mode], colour, [_point(n, times) for n, times in found if times]))
    return Panel(f"s = {s}", "nodes of an area, n (f = 0, 0, 1, 1)", "time of a trade, ms", lines)


def _over_shards(data: Data, n: int) -> Panel:
    lines = []
    for colour, mode in enumerate(COMPARED):
        found = [(s, data.times(mode, s, n, MAIN_DELAY_US, load="single")) for s in FIGURE_9_SHARDS]
        lines.append(Line(LABELS[mode], colour, [_point(s, times) for s, times in found if times]))
    return Panel(f"n = {n} (f = {faults_tolerated(n)})", "areas of the trade, s", "time of a trade, ms", lines)


def _over_transactions(data: Data, s: int) -> Panel:
    lines = []
    wanted = (
        ("normal node", "paper", "normal"),
        ("cross-node, as the paper prints it", "paper", "cross"),
        ("cross-node, ours (hardly more than a normal node)", "ours", "cross"),
    )
    for colour, (label, mode, role) in enumerate(wanted):
        points: Points = [
            (one["m"], one["bytes"] / 1000, one["bytes"] / 1000, one["bytes"] / 1000)
            for one in data.storage.get("ledger", ())
            if (one["mode"], one["load"], one["s"], one["role"]) == (mode, "local", s, role)
        ]
        lines.append(Line(label, (0, 2, 3)[colour], sorted(points)))
    return Panel(f"s = {s}", "transactions of each area, m", "kB on disk", lines)


def _ratios_over_shards(data: Data, delay_us: int) -> Panel:
    lines = []
    for colour, mode in enumerate(COMPARED[1:], 1):
        points: Points = []
        for s in SHARDS:
            found = [data.quick_ratio(mode, "full-seq", s, n, delay_us) for n in NODES]
            known = [ratio for ratio in found if ratio is not None]
            if known:
                points.append((s, stats.median(known), min(known), max(known)))
        lines.append(Line(LABELS[mode], colour, points))
    if any(line.points for line in lines):
        rule: Points = [(s, 1 / s, 1 / s, 1 / s) for s in SHARDS]
        lines.append(Line("1/s", 4, rule))
    return Panel(
        f"{delay_us / 1000:g} ms one way", "areas of the trade, s", "part of full-seq (bars: n = 2 to 5)", lines
    )


def cell_line(cell: Cell, found: Sequence[Repetition]) -> list[Any]:
    """A row of `cells.csv`."""
    times = [one.time_us for one in found if one.time_us]
    low, high = stats.interval(times)
    values = [stats.median(times), low, high]
    names = ("last_us", "decided_us", "anchored_us", "nodes_us", "busiest_us")
    values += [stats.median([getattr(one, name) for one in found]) for name in names]
    place = [cell.mode, cell.s, cell.n, faults_tolerated(cell.n), f"{cell.delay_us / 1000:g}", cell.load, cell.fault]
    counts = [round(stats.median([one.messages for one in found])), round(stats.median([one.bytes for one in found]))]
    unfinished = sum(one.unfinished for one in found)
    return [*place, cell.batch_ms, len(found), unfinished, *(f"{value / 1000:.3f}" for value in values), *counts]
