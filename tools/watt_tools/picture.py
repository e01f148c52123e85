"""The evening as a picture: load per quarter hour with and without the event, in the terminal and as PNG.

The one module that imports matplotlib.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHART_ROWS = 12
"Height of the terminal chart: readable, and the tables still fit on the same screen."
BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Evening:
    """Average load of all homes per quarter hour, watts, and the event window as slot numbers."""

    start_s: int
    slot_s: int
    before_w: list[int]
    after_w: list[int]
    window: tuple[int, int]
    cap_w: int
    "Sum of the quotas in the window's highest slot."

    def clock(self, slot: int) -> str:
        moment = datetime.datetime.fromtimestamp(self.start_s + slot * self.slot_s, datetime.UTC)
        return moment.strftime("%H:%M")


def terminal(evening: Evening) -> str:
    """The evening in characters: `█` load with the event, `░` what the event took away, `·` what it added."""
    top_w = max(*evening.before_w, *evening.after_w, 1)
    lines = []
    for row in range(CHART_ROWS, 0, -1):
        low_w = top_w * (row - 1) // CHART_ROWS
        high_w = top_w * row // CHART_ROWS
        label = f"{high_w / 1000:5.1f} kW │" if row % 3 == 0 else "         │"
        cells = [
            _cell(before, after, low_w, high_w) * 2
            for before, after in zip(evening.before_w, evening.after_w, strict=True)
        ]
        lines.append(label + "".join(cells))
    lines.append("         └" + "──" * len(evening.before_w))
    first, last = evening.window
    marks = "".join("━━" if first <= slot < last else "  " for slot in range(len(evening.before_w)))
    lines.append("          " + marks + " event window")
    hours = ""
    for slot in range(0, len(evening.before_w), 4):
        hours += evening.clock(slot).ljust(8)
    lines.append("          " + hours.rstrip())
    lines.append("          █ with the event   ░ taken away by it   · moved here by it")
    return "\n".join(lines)


def _cell(before_w: int, after_w: int, low_w: int, high_w: int) -> str:
    middle_w = (low_w + high_w) / 2
    if after_w >= middle_w:
        return "·" if before_w < middle_w else "█"
    return "░" if before_w >= middle_w else " "


def png(evening: Evening, path: Path) -> None:
    """Draw the same as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    slots = range(len(evening.before_w) + 1)
    figure, axes = pyplot.subplots(figsize=(9, 4.5), dpi=120)
    before = [value / 1000 for value in evening.before_w]
    after = [value / 1000 for value in evening.after_w]
    axes.axvspan(*evening.window, color="#f3ead7", label="event window", zorder=0)
    axes.stairs(before, slots, baseline=None, color="#b4532a", linewidth=1.8, linestyle="--", label="without the event")
    axes.stairs(after, slots, baseline=None, color="#1f5f8b", linewidth=2.2, label="with the event (metered)")
    axes.hlines(
        evening.cap_w / 1000,
        *evening.window,
        color="#444444",
        linewidth=1,
        linestyle=":",
        label="sum of quotas, highest slot",
    )
    axes.set_xlim(0, len(before))
    axes.set_ylim(0, max(*before, *after) * 1.08)
    ticks = list(range(0, len(before) + 1, 4))
    axes.set_xticks(ticks, [evening.clock(slot) for slot in ticks])
    axes.set_xlabel("time of day (UTC)")
    axes.set_ylabel("load of all homes, kW (quarter-hour mean)")
    axes.set_title("One evening peak: what the plugs metered, and what the same homes would have drawn", fontsize=10)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


@dataclass(frozen=True)
class MarketPanels:
    """Curves of one clearing: prices in u/Wh, energies in Wh."""

    supply: list[tuple[int, int]]
    "(ask, Wh), ascending by ask."
    demand: list[tuple[int, int]]
    "(limit price, Wh), falling."
    traded_wh: int
    matched: dict[int, list[int]]
    "Per area: Wh per slot; ACROSS is what areas sold to each other."
    offered: list[int]
    wanted: list[int]
    trace: list[tuple[int, str, int, int]]
    "(ms, stage, value, bound) of the search."


ACROSS = 0
AREAS_SHOWN = 8
"Areas with a colour of their own; the others are added up."


def market_png(panels: MarketPanels, path: Path) -> None:
    """Draw supply and demand, matched volume per slot, and the gap over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (curves, volume, gap) = pyplot.subplots(1, 3, figsize=(14, 4.4), dpi=120)
    for rows, color, label in ((panels.supply, "#1f5f8b", "offers"), (panels.demand, "#b4532a", "bids")):
        reached = [0]
        for _, wh in rows:
            reached.append(reached[-1] + wh)
        prices = [price for price, _ in rows]
        if rows:
            curves.stairs(prices, [one / 1000 for one in reached], baseline=None, color=color, linewidth=2, label=label)
    curves.axvline(panels.traded_wh / 1000, color="#444444", linewidth=1, linestyle=":", label="matched")
    curves.set_xlabel("energy of the window, kWh")
    curves.set_ylabel("price, u/Wh")
    curves.set_title("Supply and demand", fontsize=10)

    slots = range(len(panels.offered))
    volume.stairs(
        [w / 1000 for w in panels.offered], edges := range(len(panels.offered) + 1), color="#1f5f8b", label="offered"
    )
    volume.stairs([w / 1000 for w in panels.wanted], edges, color="#b4532a", linestyle="--", label="wanted")
    bottom = [0.0] * len(panels.offered)
    ranked = sorted(
        (area for area in panels.matched if any(panels.matched[area])),
        key=lambda area: (-sum(panels.matched[area]), area),
    )
    groups = [([area], f"area {area}" if area else "across areas") for area in ranked[:AREAS_SHOWN]]
    if ranked[AREAS_SHOWN:]:
        groups.append((ranked[AREAS_SHOWN:], f"{len(ranked) - AREAS_SHOWN} more areas"))
    for number, (areas, label) in enumerate(groups):
        heights = [sum(panels.matched[area][slot] for area in areas) / 1000 for slot in slots]
        shade = pyplot.get_cmap("viridis")(number / max(1, len(groups) - 1) * 0.85)
        volume.bar([slot + 0.5 for slot in slots], heights, 0.8, bottom=bottom, color=shade, label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    volume.set_ylim(0, max(*panels.offered, *panels.wanted, 1) / 1000 * 1.35)
    volume.set_xlabel("slot")
    volume.set_ylabel("energy, kWh")
    volume.set_title("Matched volume per slot", fontsize=10)

    known = [
        (ms / 1000, (bound - value) * 1_000_000 // bound / 10_000) for ms, _, value, bound in panels.trace if bound > 0
    ]
    gap.step([s for s, _ in known], [percent for _, percent in known], where="post", color="#1f5f8b", marker="o")
    if known:
        gap.annotate(f"{known[-1][1]:.4f} %", known[-1], (-8, 8), textcoords="offset points", ha="right", fontsize=9)
    gap.set_ylim(bottom=0)
    gap.set_xlabel("time of the search, s")
    gap.set_ylabel("certified gap, % of the bound")
    gap.set_title("Gap over time", fontsize=10)
    for axes in (curves, volume, gap):
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in (curves, volume):
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


LINE_STYLES = (
    ("#b4532a", "-", "o"),
    ("#d9a441", "--", "s"),
    ("#6b7f3a", "-", "^"),
    ("#1f5f8b", "-", "D"),
    ("#888888", ":", ""),
)
"Colour, dash and marker of a line by its number: they differ in print without colour too."


@dataclass(frozen=True)
class Line:
    """Points (x, y, low, high) under one label; `style` numbers a colour."""

    label: str
    style: int
    points: list[tuple[float, float, float, float]]


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]


def panels_png(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Draw panels side by side under one legend; whiskers from low to high."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (max(8.2, 4.1 * len(panels)), 4.2)
    top = max(high for panel in panels for line in panel.lines for _, _, _, high in line.points)
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=size, dpi=90, squeeze=False, sharey=True)
    labelled: dict[str, Any] = {}
    for axes, panel in zip(all_axes[0], panels, strict=True):
        for line in panel.lines:
            if not line.points:
                continue
            xs, ys, lows, highs = zip(*line.points, strict=True)
            colour, dash, marker = LINE_STYLES[line.style % len(LINE_STYLES)]
            below = [y - low for y, low in zip(ys, lows, strict=True)]
            above = [high - y for y, high in zip(ys, highs, strict=True)]
            labelled[line.label] = axes.errorbar(
                xs, ys, yerr=[below, above], color=colour, linestyle=dash, marker=marker, markersize=4, capsize=2
            )
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.x_label, fontsize=9)
        axes.set_ylim(0, 1.08 * top)
        axes.set_xticks(sorted({point[0] for line in panel.lines for point in line.points}))
        axes.margins(x=0.12)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    all_axes[0][0].set_ylabel(panels[0].y_label, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.legend(
        list(labelled.values()), list(labelled), loc="lower center", ncols=len(labelled), frameon=False, fontsize=8
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path)
    pyplot.close(figure)
