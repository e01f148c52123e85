"""The results of a run, asked for by cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from watt_tools.paper import results, stats
from watt_tools.paper.cell import Cell, Repetition

HERE: Final = Path("paper-run")
"""Where `paper report` looks when it is not told."""
FILES: Final = (results.FILE, "storage.json", "processes.json")
OURS: Final = Path(__file__).parents[3] / "station" / "experiments"
"""The results that station/EXPERIMENTS.md shows."""


class Data:
    """Cells and files of a run; what was not measured is empty."""

    def __init__(self, folder: Path) -> None:
        """Raises ResultsError."""
        self.folder = folder
        self.cells: dict[str, tuple[Cell, list[Repetition]]] = results.read(folder / results.FILE)
        self._ratios: dict[object, tuple[float, tuple[float, float]] | None] = {}
        self.storage: dict[str, Any] = _json(folder / "storage.json")
        self.processes: dict[str, Any] = _json(folder / "processes.json")
        self.machine: dict[str, Any] = _json(folder / "machine.json")
        self.settings: dict[str, Any] = _json(folder / "settings.json")

    def found(self, mode: str, s: int, n: int, delay_us: int, **more: Any) -> list[Repetition]:
        """Repetitions of a cell; [] when it was not run."""
        cell = replace(Cell(mode, 1 if mode == "local" else s, n, delay_us), **more)
        return self.cells.get(cell.name, (cell, []))[1]

    def times(self, mode: str, s: int, n: int, delay_us: int, **more: Any) -> list[int]:
        """Time of a trade in each repetition that finished any, microseconds."""
        return [one.time_us for one in self.found(mode, s, n, delay_us, **more) if one.time_us]

    def ms(self, mode: str, s: int, n: int, delay_us: int, **more: Any) -> float:
        """Median time of a trade, ms; 0 when it was not run."""
        return stats.median(self.times(mode, s, n, delay_us, **more)) / 1000

    def ratio(
        self, part: str, whole: str, s: int, n: int, delay_us: int, **more: Any
    ) -> tuple[float, tuple[float, float]] | None:
        """(ratio of medians, 95 % interval) of two modes in one place; None when one was not run."""
        name = part, whole, s, n, delay_us, *sorted(more.items())
        if name not in self._ratios:
            parts, wholes = self.times(part, s, n, delay_us, **more), self.times(whole, s, n, delay_us, **more)
            self._ratios[name] = (
                (stats.median(parts) / stats.median(wholes), stats.ratio_interval(parts, wholes))
                if parts and wholes
                else None
            )
        return self._ratios[name]

    def quick_ratio(self, part: str, whole: str, s: int, n: int, delay_us: int, **more: Any) -> float | None:
        """As `ratio`, without the interval."""
        below = self.ms(whole, s, n, delay_us, **more)
        above = self.ms(part, s, n, delay_us, **more)
        return above / below if above and below else None

    def delays(self) -> Sequence[int]:
        """One-way delays that were run, microseconds, ascending."""
        return sorted({cell.delay_us for cell, _ in self.cells.values()})

    def places(self, delay_us: int) -> Sequence[tuple[int, int]]:
        """(s, n) of the sweep at a delay, those of the paper's grid."""
        found = {
            (cell.s, cell.n)
            for cell, _ in self.cells.values()
            if cell.mode == "full-seq" and (cell.delay_us, cell.load, cell.fault) == (delay_us, "burst", "none")
        }
        return sorted(place for place in found if place[1] <= 5)


def find(folder: Path | None) -> Path:
    """The folder to report on: the one named, else ./paper-run, else the project's own results. Raises ResultsError."""
    if folder is not None:
        if not any((folder / name).exists() for name in FILES):
            raise results.ResultsError(f"{folder} holds no results; make some with: wattpact paper run --out {folder}")
        return folder
    for one in (HERE, OURS):
        if (one / results.FILE).exists():
            return one
    raise results.ResultsError(f"no results; make some with: wattpact paper run --out {HERE}")


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise results.ResultsError(f"{path}: not JSON") from None
    if not isinstance(found, dict):
        raise results.ResultsError(f"{path}: not a JSON object")
    return found
