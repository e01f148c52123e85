"""`make rows`: run the tests and print, section by section, which acceptance rows have a passing test.

A row counts only when every test that names it passes. Exit code 1 when a marked row fails or names no known row.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SECTIONS = {
    "A": "roles and rights",
    "B": "architecture, chains, node kinds",
    "C": "hardware and data collected",
    "D": "what each node stores",
    "E": "integrity, identity, privacy, tracing",
    "F": "consensus",
    "G": "trading inside an area",
    "H": "trading across areas",
    "I": "market and bidding model",
    "J": "stages and contract functions",
    "K": "credit, points, penalties",
    "L": "application layer, EV, PV",
    "M": "experiments",
}


def main() -> int:
    with (HERE / "paper" / "rows.csv").open(newline="") as file:
        wanted = {row["id"]: row["requirement"] for row in csv.DictReader(file)}
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pytest", str(HERE), "-m", "row", *sys.argv[1:]]
        subprocess.run(command, env={**os.environ, "WATTPACT_ROW_REPORT": report.name}, check=False)
        text = Path(report.name).read_text()
    outcomes: dict[str, dict[str, str]] = json.loads(text) if text else {}
    unknown = sorted(set(outcomes) - set(wanted))
    held = {row for row, tests in outcomes.items() if set(tests.values()) == {"passed"}}
    for letter, title in SECTIONS.items():
        ids = [row for row in wanted if row[0] == letter]
        open_ids = [row for row in ids if row not in held]
        print(f"\n{letter}  {title}: {len(ids) - len(open_ids)} of {len(ids)} rows have a passing test")
        print("   with test: " + (" ".join(row for row in ids if row in held) or "none"))
        print("   not yet:   " + (" ".join(open_ids) or "none"))
    failing = sorted(set(outcomes) & set(wanted) - held)
    print(f"\n{len(held & set(wanted))} of {len(wanted)} rows have a passing test")
    for row in failing:
        print(f"FAILING {row}: {', '.join(t for t, o in outcomes[row].items() if o != 'passed')}")
    for row in unknown:
        print(f"UNKNOWN row {row} is marked in {', '.join(outcomes[row])}")
    return 1 if failing or unknown else 0


if __name__ == "__main__":
    raise SystemExit(main())
