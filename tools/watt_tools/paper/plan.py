"""Which cells a run consists of, stage by stage, and roughly what each costs.

- sweep: the paper's grid, every s and n at every delay, all modes, bursts of twenty trades;
- single: the paper's eight cells and Figure 9, one trade at a time;
- beyond: larger areas, variants, a crashed cross-node, other batching;
- charge: a sample with every signature check done, against the same sample with checks looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from watt_tools.paper.cell import TRADES, Cell
from watt_tools.paper.reported import FIGURE_9_NODES, FIGURE_9_SHARDS, NODES, SHARDS, TIME_RATIOS

DELAYS_US: Final = (0, 1000, 5000, 20000)
MAIN_DELAY_US: Final = 5000
"""Where one delay has to do: a few milliseconds is what stations of one city have between them."""
COMPARED: Final = ("full-seq", "full-par", "paper", "ours")
PAPER_CELLS: Final = tuple(dict.fromkeys((ratio.s, ratio.n) for ratio in TIME_RATIOS))
"""The eight ratios belong to seven cells: the paper gives two numbers for s = n = 2."""
QUICK_REPETITIONS: Final = 4
SECONDS_PER_MESSAGE: Final = 110e-6
"""Rough, for the forecast of a run: what a message costs this process, all included."""


def cells(stage: str, *, quick: bool = False) -> list[Cell]:
    """Cells of a stage that runs on the virtual clock."""
    made = {"sweep": _sweep, "single": _single, "beyond": _beyond, "charge": _charge}[stage](quick)
    if quick:
        made = [replace(cell, repetitions=min(QUICK_REPETITIONS, cell.repetitions)) for cell in made]
    return list({cell.name: cell for cell in made}.values())


def _sweep(quick: bool) -> Iterable[Cell]:
    shards, nodes, delays = ((2, 3, 5, 8), (2, 4), (0, 5000)) if quick else (SHARDS, NODES, DELAYS_US)
    return [Cell(mode, s, n, delay) for delay in delays for s in shards for n in nodes for mode in COMPARED]


def _single(quick: bool) -> Iterable[Cell]:
    figure_9 = [(s, n) for s in FIGURE_9_SHARDS for n in FIGURE_9_NODES]
    modes = (*COMPARED, "full-last", "step")
    delays = (MAIN_DELAY_US,) if quick else DELAYS_US
    eight = [
        Cell(mode, s, n, delay, "single")
        for delay in delays
        for s, n in PAPER_CELLS
        for mode in modes
        if mode != "ours" or s == 2 or delay == MAIN_DELAY_US
    ]
    rest = [Cell(mode, s, n, MAIN_DELAY_US, "single") for s, n in figure_9 for mode in COMPARED]
    local = [Cell("local", 1, n, delay, "single") for delay in delays for n in NODES]
    real = [Cell("ours-product", 2, n, delay, "single") for delay in delays for n in NODES]
    return [*eight, *([] if quick else rest), *local, *real]


def _beyond(quick: bool) -> Iterable[Cell]:
    five = MAIN_DELAY_US
    if quick:
        faulty = [Cell(mode, 2, 4, five, fault=fault) for fault in ("crash", "liar") for mode in COMPARED]
        return [*faulty, Cell("paper-all", 3, 4, 1000), Cell("ours-product", 3, 4, five)]
    larger = [Cell(mode, s, n, five) for s in (2, 5, 10) for n in (7, 10) for mode in COMPARED]
    all_cross = [Cell("paper-all", s, n, 1000) for s in SHARDS for n in NODES]
    variants = [
        Cell(mode, s, n, five)
        for s in (2, 3, 5, 10)
        for n in (2, 4)
        for mode in ("full-last", "paper-lock", "ours-client")
    ]
    real = [Cell("ours-product", s, n, five) for s in (2, 3, 5, 9) for n in NODES]
    crashed = [Cell(mode, s, n, five, fault="crash") for s in (2, 3) for n in (3, 4, 5, 7) for mode in COMPARED]
    lying = [Cell(mode, 2, n, five, fault="liar") for n in NODES for mode in COMPARED]
    batched = [
        Cell(mode, s, n, five, batch_ms=batch_ms)
        for s, n in PAPER_CELLS
        for batch_ms in (0, 100)
        for mode in ("full-seq", "paper", "ours")
    ]
    local = [Cell("local", 1, n, five) for n in (*NODES, 7, 10)]
    return [*larger, *all_cross, *variants, *real, *crashed, *lying, *batched, *local]


def _charge(quick: bool) -> Iterable[Cell]:
    """A second look at cells of the sweep, with a seed of their own: `every` is part of the name through the load."""
    places = ((2, 4),) if quick else ((2, 2), (2, 5), (5, 4), (10, 3))
    return [
        Cell(mode, s, n, delay, load, repetitions=6, seed=2)
        for s, n in places
        for mode in COMPARED
        for delay in (0, MAIN_DELAY_US)
        for load in ("burst", "burst-checked")
    ]


def weight(cell: Cell) -> float:
    """Forecast of a cell's CPU, seconds."""
    cross = cell.n if cell.mode == "paper-all" else (cell.n - 1) // 3 + 1
    votes = 2 * cell.n * (cell.n - 1)
    committee = cell.s * cross
    per_instance = {
        "full-seq": 2 * cell.s * (votes + 4 * cell.n),
        "full-par": 2 * cell.s * (votes + 4 * cell.n),
        "full-last": 2 * cell.s * (votes + 4 * cell.n),
        "step": cell.s * (votes + 4 * cell.n),
        "local": votes + 2 * cell.n,
        "paper": 2 * committee * committee + cell.s * cell.n,
        "paper-all": 2 * committee * committee,
        "paper-lock": cell.s * (votes + 2 * cell.n) + 4 * committee * committee,
    }.get(cell.mode, 2 * cell.s * (votes + 6 * cell.n) + 12 * cell.s + 60)
    instances = TRADES if cell.load == "single" else 1
    trades = 0 if cell.load == "single" else TRADES * cell.s * cell.n * (1 + cell.s / 4)
    return (cell.repetitions + 1) * SECONDS_PER_MESSAGE * (instances * per_instance + trades)
