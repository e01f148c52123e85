"""`wattpact paper report`: tables on the terminal, one JSON object, figures as PNG and CSV, tables of the document."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

from watt_tools.paper import figures, results, tables, verdicts
from watt_tools.paper.data import OURS, Data, find

MARK = re.compile(r"<!-- begin (?P<name>[a-z0-9-]+) -->\n.*?<!-- end (?P=name) -->", re.DOTALL)


def main(folder: Path | None, *, as_json: bool, document: Path | None, figures_to: Path | None) -> int:
    """Print; exit code 0, 1 when an aim is missed or there are no results."""
    try:
        data = Data(find(folder))
        found = tables.all_tables(data)
        if document is not None:
            fill(document, found)
        # The results that come with the project are not touched by being looked at.
        target = figures_to or (data.folder if data.folder != OURS else None)
        drawn = figures.draw(data, target) if target is not None else []
        if target is not None:
            write_cells(data, target / "cells.csv")
    except (results.PaperError, OSError) as error:
        print(f"wattpact paper report: {error}", file=sys.stderr)
        return 1
    goals = [one for one in verdicts.aims(data) if one["is_aim"]]
    missed = [one["aim"] for one in goals if one["pass"] is False]
    if as_json:
        print(json.dumps(as_object(data), indent=1))
    else:
        print("\n\n".join(table.text() for table in found))
        print(f"\nresults of {data.folder}; figures: {', '.join(path.name for path in drawn) or 'none'}")
        for aim in missed:
            print(f"missed: {aim}")
    return 1 if missed else 0


def as_object(data: Data) -> dict[str, object]:
    """Everything with a verdict, for a script."""
    return {
        "folder": str(data.folder),
        "machine": data.machine,
        "ratios": verdicts.eleven(data),
        "aims": verdicts.aims(data),
        "findings": verdicts.findings(data),
        "resemblance": verdicts.resemblance(data),
        "price_of_safety": verdicts.safety_price(data),
        "charge": verdicts.charge(data),
        "storage": data.storage,
        "processes": data.processes,
    }


def fill(document: Path, found: list[tables.Table]) -> None:
    """Put each table between its marks; a table without marks in the document is left out there."""
    by_name = {table.name: table for table in found}

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in by_name:
            return match[0]
        return f"<!-- begin {name} -->\n{by_name[name].markdown()}\n<!-- end {name} -->"

    text = document.read_text()
    document.write_text(MARK.sub(replaced, text))


def write_cells(data: Data, path: Path) -> None:
    """`cells.csv`: one row per cell, medians and their intervals."""
    columns = ("mode", "s", "n", "f", "delay_ms", "load", "fault", "batch_ms", "repetitions", "unfinished")
    measured = ("time", "low", "high", "last", "decided", "anchored", "nodes_cpu", "busiest_cpu")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*columns, *(f"{name}_ms" for name in measured), "messages", "bytes"))
        for cell, found in data.cells.values():
            writer.writerow(figures.cell_line(cell, found))
