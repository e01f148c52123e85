"""`wattpact sim areas`: networks of areas under seeded faults. Results go to stdout, progress to stderr."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watt_sim.areas import AreasResult

LINE_S, TERMINAL_S = 60, 0.5
"""Time between two lines of progress: in a log, and on a terminal."""
SHOWN_MAX = 20
"""Violations shown one by one; the rest are counted."""


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser], parse_range: Callable[[str], range]) -> None:
    """Add `areas` under `sim`."""
    areas = actions.add_parser("areas", help="trades across 2 to 4 areas and the main chain: play seeds, check")
    areas.add_argument("--seeds", type=parse_range, default=range(100), metavar="A..B", help="default 0..100")
    areas.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    areas.add_argument("--rare", action="store_true", help="fail when a rare state was not reached")
    areas.add_argument("--json", action="store_true", help="print one JSON object")
    areas.add_argument(
        "--replay", type=int, metavar="SEED", help="play one seed and print what happened, block by block"
    )
    areas.add_argument("--plant", metavar="BUG", help="with --replay: with this planted bug, as named by `sim mutants`")
    areas.set_defaults(handler=run)


def run(chosen: argparse.Namespace) -> int:
    """Play the seeds; 0 when no invariant is broken (and, with --rare, every rare state was reached)."""
    from watt_sim.areas_batch import Tally, run_many

    if chosen.replay is not None:
        return _replay(chosen.replay, chosen.plant)
    if chosen.plant is not None:
        print("--plant needs --replay SEED; `sim mutants BUG` looks for the seeds", file=sys.stderr)
        return 2
    if chosen.jobs < 1:
        print(f"--jobs {chosen.jobs}: expected at least 1", file=sys.stderr)
        return 2
    tally = Tally()
    started = shown = time.monotonic()
    terminal = sys.stderr.isatty()
    for result in run_many(chosen.seeds, chosen.jobs):
        tally.add(result)
        now = time.monotonic()
        if now - shown >= (TERMINAL_S if terminal else LINE_S):
            shown = now
            rate = tally.runs / (now - started)
            left = f"{(len(chosen.seeds) - tally.runs) / rate:.0f} s left"
            line = f"{tally.runs}/{len(chosen.seeds)}  {rate:.1f}/s  {left}  {len(tally.violations)} violations"
            print(f"\r{line}   " if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    if terminal:
        print("\r" + " " * 78 + "\r", end="", file=sys.stderr)
    rate = tally.runs / max(seconds, 0.001)
    if chosen.json:
        report = {
            "runs": tally.runs,
            "seconds": round(seconds, 1),
            "runs_per_second": round(rate, 1),
            "processor_ms_per_run": round(tally.spent_ms / max(tally.runs, 1), 1),
            "final_blocks": tally.blocks,
            "violations": [_named(result) for result in tally.violations],
            "coverage": dict(sorted(tally.coverage.items())),
            "states_not_reached": tally.missing(),
        }
        print(json.dumps(report, indent=2))
    else:
        print(f"{tally.runs} networks, {seconds:.1f} s, {rate:.1f}/s, {tally.blocks} final blocks")
        for name, count in sorted(tally.coverage.items()):
            print(f"  {name:32} {count}")
        if tally.missing():
            print("not reached: " + ", ".join(tally.missing()))
        for result in tally.violations[:SHOWN_MAX]:
            print(f"VIOLATION seed {result.seed}: {result.violation}")
        print(f"{len(tally.violations)} violations")
    if chosen.rare and tally.missing():
        print("rare states were not reached: " + ", ".join(tally.missing()), file=sys.stderr)
        return 1
    return 1 if tally.violations else 0


def _named(result: AreasResult) -> dict[str, object]:
    return {"seed": result.seed, "violation": result.violation, "hash": result.hash}


def _replay(seed: int, bug: str | None) -> int:
    from watt_sim.areas import draw_areas, run_areas

    if bug is not None:
        from watt_sim.bugs import find
        from watt_sim.planting import plant

        try:
            plant(find(bug))
        except KeyError:
            print(f"no planted bug is called {bug}", file=sys.stderr)
            return 2
    print(draw_areas(seed))
    result = run_areas(seed, transcript=True)
    print("\n".join(result.tail))
    print(f"{result.blocks} final blocks, run hash {result.hash}")
    print(f"VIOLATION {result.violation}" if result.violation else "no violation")
    return 1 if result.violation else 0
