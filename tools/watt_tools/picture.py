"""The evening as a picture: load per quarter hour with and without the event, in the terminal and as PNG.

The one module that imports matplotlib.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

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
