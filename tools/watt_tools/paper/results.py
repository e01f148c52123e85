"""`repetitions.csv`: the store of a run, one row per repetition, written cell by cell and read back whole.

A run that was killed leaves whole cells and perhaps a part of one; reading drops that part, so resuming repeats it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from io import StringIO
from pathlib import Path
from typing import Any, Final

from watt_tools.paper.cell import Cell, Repetition

FILE: Final = "repetitions.csv"
CELL: Final = ("mode", "s", "n", "delay_us", "load", "fault", "batch_ms", "repetitions", "seed")
REPETITION: Final = tuple(field.name for field in fields(Repetition))
COLUMNS: Final = (*CELL, *REPETITION)


class PaperError(Exception):
    """The command cannot go on; the text says why and what to do."""


class ResultsError(PaperError):
    """Files that cannot be used; the text names file and line."""


def cell_row(cell: Cell) -> tuple[Any, ...]:
    """A cell's columns."""
    return tuple(getattr(cell, name) for name in CELL)


def append(path: Path, cell: Cell, found: Sequence[Repetition]) -> None:
    """Add a cell's rows in one write, synced."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not path.exists():
        writer.writerow(COLUMNS)
    writer.writerows((*cell_row(cell), *astuple(one)) for one in found)
    with path.open("a") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> dict[str, tuple[Cell, list[Repetition]]]:
    """All whole cells, by name, in the order of the file. ResultsError for a file of another form."""
    if not path.exists():
        return {}
    found: dict[str, tuple[Cell, list[Repetition]]] = {}
    whole = path.read_text()
    lines = whole[: whole.rfind("\n") + 1].splitlines()  # what follows was being written when the run was killed
    if not lines or tuple(lines[0].split(",")) != COLUMNS:
        raise ResultsError(f"{path}:1: expected the columns {','.join(COLUMNS)}")
    for number, row in enumerate(csv.reader(lines[1:]), 2):
        try:
            cell, repetition = _parse(row)
        except (ValueError, IndexError):
            raise ResultsError(f"{path}:{number}: not a repetition: {','.join(row)[:80]}") from None
        found.setdefault(cell.name, (cell, []))[1].append(repetition)
    return {name: (cell, rows) for name, (cell, rows) in found.items() if len(rows) == cell.repetitions}


def _parse(row: Sequence[str]) -> tuple[Cell, Repetition]:
    if len(row) != len(COLUMNS):
        raise ValueError(row)
    values: list[Any] = [
        text if name in ("mode", "load", "fault") else int(text) for name, text in zip(COLUMNS, row, strict=True)
    ]
    return Cell(**dict(zip(CELL, values[: len(CELL)], strict=True))), Repetition(*values[len(CELL) :])


def rewrite(path: Path, cells: Iterable[tuple[Cell, Sequence[Repetition]]]) -> None:
    """Replace the file by these cells, atomically."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    for cell, found in cells:
        append(fresh, cell, found)
    if fresh.exists():
        fresh.replace(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """A JSON file, atomically."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    fresh.replace(path)
