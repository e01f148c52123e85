"""`wattpact sim ...`: consensus under seeded faults, replay, shrinking, twins, planted bugs.

`add` puts the subcommands under a parser. Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from watt_tools import areas_cli, marks, model_cli

if TYPE_CHECKING:
    from watt_sim.batch import Summary
    from watt_sim.mutants import Kill
    from watt_sim.run import Result

PROGRESS_MS = 500
"""Time between two lines of progress on a terminal."""
SHOWN_MAX = 20
"""Violations shown one by one; the rest are counted."""
TWINS_DEFAULT = "0..20000"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sim` and what it can do."""
    sim = commands.add_parser("sim", help="consensus under seeded faults, in memory")
    actions = sim.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="play seeds and check the invariants")
    run.add_argument("--seeds", type=parse_range, default=range(100), metavar="A..B", help="default 0..100")
    twins = actions.add_parser("twins", help="play scenarios with one validator running twice")
    twins.add_argument(
        "--scenarios",
        type=parse_range,
        default=parse_range(TWINS_DEFAULT),
        metavar="A..B",
        help=f"default {TWINS_DEFAULT}",
    )
    for batch in (run, twins):
        batch.add_argument("--replicas", type=int, default=4, metavar="N", help="validators of the area (default 4)")
        batch.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
        batch.add_argument("--json", action="store_true", help="print one JSON object")
    run.add_argument("--rare", action="store_true", help="fail when a rare state was not reached")
    twins.set_defaults(rare=False)
    run.set_defaults(handler=lambda chosen: _batch(chosen, chosen.seeds, twins=False))
    twins.set_defaults(handler=lambda chosen: _batch(chosen, chosen.scenarios, twins=True))
    control = actions.add_parser("control", help="with one liar too many: forks must show, and name who lied")
    control.add_argument("--seeds", type=parse_range, default=range(50), metavar="A..B", help="default 0..50")
    control.add_argument("--replicas", type=int, default=4, metavar="N", help="validators of the area (default 4)")
    control.set_defaults(handler=_control)
    replay = actions.add_parser("replay", help="play one seed and print what happened")
    shrink = actions.add_parser("shrink", help="make a failing seed small")
    for single in (replay, shrink):
        single.add_argument("seed", type=int)
        single.add_argument("--replicas", type=int, default=4, metavar="N")
        single.add_argument("--twins", action="store_true", help="the number is a twins scenario")
        single.add_argument("--plant", metavar="BUG", help="with this planted bug, as named by `sim mutants`")
    replay.set_defaults(handler=_replay)
    shrink.set_defaults(handler=_shrink)
    mutants = actions.add_parser("mutants", help="plant bugs in the core and see which check finds each")
    mutants.add_argument("names", nargs="*", help="bugs to plant (default all)")
    mutants.add_argument("--seconds", type=int, default=60, help="most time for one bug (default 60)")
    mutants.add_argument("--offset", type=int, default=0, help="first seed (default 0)")
    mutants.add_argument("--hunts", type=int, default=1, help="hunts from fresh seeds, for medians (default 1)")
    mutants.add_argument("--keep", type=Path, metavar="FILE", help="note results there; go on where such a run ended")
    mutants.add_argument("--json", action="store_true", help="print one JSON object")
    mutants.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables into this document, between their marks"
    )
    mutants.add_argument("--markdown", action="store_true", help="print the table of tools/watt_sim/README.md")
    mutants.set_defaults(handler=_mutants)
    elections = actions.add_parser("elections", help="how often attackers lead, against their fair share")
    elections.add_argument("--elections", type=int, default=100_000, metavar="N", help="draws of a leader per row")
    elections.add_argument("--replicas", type=int, default=7, metavar="N", help="validators, 4 to 16 (default 7)")
    elections.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    elections.add_argument("--json", action="store_true", help="print one JSON object")
    elections.set_defaults(handler=_elections)
    areas_cli.add(actions, parse_range)
    model_cli.add(actions)


def parse_range(text: str) -> range:
    """`A..B`: A to B - 1; a single number is that number alone."""
    first, dots, last = text.partition("..")
    try:
        start = int(first)
        stop = int(last) if dots else start + 1
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected A..B, got {text!r}") from None
    if not 0 <= start < stop:
        raise argparse.ArgumentTypeError(f"expected A..B with 0 <= A < B, got {text!r}")
    return range(start, stop)


def _batch(chosen: argparse.Namespace, numbers: Sequence[int], twins: bool) -> int:
    from watt_sim.batch import Summary, run_many

    if not 1 <= chosen.replicas <= 16:
        print(f"--replicas {chosen.replicas}: expected 1 to 16", file=sys.stderr)
        return 2
    summary = Summary()
    started = shown = time.monotonic()
    for result in run_many(numbers, chosen.replicas, chosen.jobs, twins):
        summary.add(result)
        now = time.monotonic()
        if (now - shown) * 1000 >= PROGRESS_MS and sys.stderr.isatty():
            shown = now
            _progress(summary, len(numbers), now - started)
    seconds = time.monotonic() - started
    if sys.stderr.isatty():
        _progress(summary, len(numbers), seconds)
        print(file=sys.stderr)
    if chosen.json:
        print(json.dumps(_as_json(summary, chosen.replicas, seconds, twins), indent=2))
    else:
        _print(summary, chosen.replicas, seconds, twins)
    if chosen.rare and summary.missing():
        print("rare states were not reached: " + ", ".join(summary.missing()), file=sys.stderr)
        return 1
    return 1 if summary.violations else 0


def _control(chosen: argparse.Namespace) -> int:
    """The negative control; 0 when some seed forks, every fork names f + 1 liars, and no fork an honest validator."""
    from watt_sim.control import run_control

    forks = unnamed = wronged = 0
    for seed in chosen.seeds:
        control = run_control(seed, chosen.replicas)
        forks += len(control.forks)
        for fork in control.forks:
            unnamed += len(fork.named) < len(control.liars)
            wronged += bool({*fork.named} - {*control.liars})
    few = (chosen.replicas - 1) // 3 + 1
    print(f"{len(chosen.seeds)} seeds, {chosen.replicas} validators, {few} liars: {forks} forks")
    print(f"{unnamed} forks name fewer than {few} liars, {wronged} name an honest validator")
    return 0 if forks and not unnamed and not wronged else 1


def _elections(chosen: argparse.Namespace) -> int:
    """Exit code 1 when an attack pays or a control does not."""
    from watt_sim.elections import failures, play_all

    if not 4 <= chosen.replicas <= 16 or chosen.elections < 1:
        print("expected --replicas 4 to 16 and at least one election", file=sys.stderr)
        return 2
    head = f"{'play':<24}{'players':>8}{'elections':>11}{'wins':>8}{'fair':>10}{'ratio':>7}{'+-':>7}{'chi2':>9}{'p':>9}"
    if not chosen.json:
        print(f"{chosen.replicas} validators\n{head}  note")
    rows = []
    for row in play_all(chosen.replicas, chosen.elections, chosen.jobs):
        rows.append(row)
        if not chosen.json:
            figures = (
                f"{row.wins:>8}{row.fair:>10.1f}{row.ratio:>7.3f}{row.error:>7.3f}{row.chi_squared:>9.1f}{row.p:>9.2g}"
            )
            print(f"{row.name:<24}{row.players:>8}{row.elections:>11}{figures}  {row.note}", flush=True)
    wrong = failures(rows)
    if chosen.json:
        print(
            json.dumps(
                {"validators": chosen.replicas, "rows": [asdict(row) for row in rows], "failures": wrong}, indent=2
            )
        )
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


def _progress(summary: Summary, total: int, seconds: float) -> None:
    rate = summary.runs / max(seconds, 0.001)
    left = (total - summary.runs) / max(rate, 0.001)
    print(
        f"\r{summary.runs}/{total}  {rate:.1f}/s  {left:.0f} s left  {len(summary.violations)} violations   ",
        end="",
        file=sys.stderr,
        flush=True,
    )


def _as_json(summary: Summary, n: int, seconds: float, twins: bool) -> dict[str, object]:
    return {
        "kind": "twins" if twins else "seeds",
        "replicas": n,
        "runs": summary.runs,
        "seconds": round(seconds, 1),
        "runs_per_second": round(summary.runs / max(seconds, 0.001), 1),
        "events": summary.events,
        "final_blocks": summary.heights,
        "simulated_seconds": summary.virtual_ms // 1000,
        "violations": [{"seed": r.seed, "violation": r.violation, "hash": r.hash} for r in summary.violations],
        "coverage": dict(sorted(summary.coverage.items())),
        "states_not_reached": [] if twins else summary.missing(),
    }


def _print(summary: Summary, n: int, seconds: float, twins: bool) -> None:
    what = "scenarios" if twins else "seeds"
    rate = summary.runs / max(seconds, 0.001)
    print(f"{summary.runs} {what}, {n} validators, {seconds:.1f} s, {rate:.1f} {what}/s")
    print(f"{summary.events} events, {summary.heights} final blocks, {summary.virtual_ms // 1000} simulated seconds")
    for name, count in sorted(summary.coverage.items()):
        print(f"  {name:32} {count}")
    if not twins and summary.missing():
        print("not reached: " + ", ".join(summary.missing()))
    for result in summary.violations[:SHOWN_MAX]:
        print(f"VIOLATION {what[:-1]} {result.seed}: {result.violation}")
    print(f"{len(summary.violations)} violations")


def _single(chosen: argparse.Namespace, transcript: bool) -> Result:
    from watt_sim.run import run_seed
    from watt_sim.twins import run_scenario

    _plant(chosen.plant)
    play = run_scenario if chosen.twins else run_seed
    return play(chosen.seed, chosen.replicas, transcript)


def _plant(name: str | None) -> None:
    if name is not None:
        from watt_sim.bugs import find
        from watt_sim.planting import plant

        plant(find(name))


def _replay(chosen: argparse.Namespace) -> int:
    from watt_sim.config import draw
    from watt_sim.run import Runner
    from watt_sim.twins import configure

    try:
        _plant(chosen.plant)
    except KeyError:
        print(f"no planted bug is called {chosen.plant}", file=sys.stderr)
        return 2
    config = (configure if chosen.twins else draw)(chosen.seed, chosen.replicas)
    lines: list[str] = []
    result = Runner(config, lines).play()
    print(f"validators {config.n}, contract {config.contract}, bad {dict(config.bad)}, stay dead {list(config.dead)}")
    print(f"ppm of frames lost {config.loss_ppm}, doubled {config.double_ppm}, changed {config.corrupt_ppm}")
    print(f"timing {config.settings}")
    print("\n".join(lines))
    return _outcome(result)


def _outcome(result: Result) -> int:
    print(f"{result.events} events, {result.heights} heights, run hash {result.hash}")
    print(f"VIOLATION {result.violation}" if result.violation else "no violation")
    return 1 if result.violation else 0


def _shrink(chosen: argparse.Namespace) -> int:
    from watt_sim.config import draw
    from watt_sim.shrink import shrink
    from watt_sim.twins import configure

    try:
        _plant(chosen.plant)
        config = (configure if chosen.twins else draw)(chosen.seed, chosen.replicas)
        small, result = shrink(config, lambda text: print(text, file=sys.stderr))
    except KeyError:
        print(f"no planted bug is called {chosen.plant}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 0
    print(small)
    print("\n".join(result.tail))
    return _outcome(result)


def _mutants(chosen: argparse.Namespace) -> int:
    from watt_sim.bugs import BUGS
    from watt_sim.mutants import OFFSET_STEP, hunt_all, median_tries, remember, remembered, table

    unknown = sorted({*chosen.names} - {bug.name for bug in BUGS})
    if unknown:
        print(f"no planted bug is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    hunts: dict[str, list[Kill]] = {}
    names = [bug.name for bug in BUGS if not chosen.names or bug.name in chosen.names]
    known = remembered(chosen.keep)
    for hunt in range(chosen.hunts):
        offset = chosen.offset + hunt * OFFSET_STEP
        for name in names:
            kill = known.get((name, offset))
            if kill is None:
                (kill,) = hunt_all([name], chosen.seconds, offset)
                remember(chosen.keep, offset, kill)
            hunts.setdefault(kill.name, []).append(kill)
            if chosen.write or not (chosen.json or chosen.markdown):
                found = f"{kill.killed_by or 'SURVIVED':9} {kill.seconds_ms / 1000:6.1f} s  {kill.where}"
                print(f"{kill.name:40} {kill.rule:6} {found}", flush=True)
        # What all seeds of the first hunt missed is the tests', and they do the same every time.
        names = [name for name in names if hunts[name][0].killed_by in ("seeds", "twins")]
    kills = [found[0] for found in hunts.values()]
    survivors = [kill.name for kill in kills if not kill.killed_by]
    by = {how: sum(kill.killed_by == how for kill in kills) for how in ("seeds", "twins", "test")}
    if chosen.json:
        rows = [
            {**asdict(found[0]), "seconds": found[0].seconds_ms / 1000, "median_seeds": median_tries(found)}
            for found in hunts.values()
        ]
        report = {"planted": len(kills), "killed_by": by, "survivors": survivors, "mutants": rows}
        print(json.dumps(report, indent=2))
    elif chosen.markdown or chosen.write:
        return max(marks.show_or_write(table(list(hunts.values())), chosen.write, "sim-mutants"), bool(survivors))
    else:
        counts = ", ".join(f"{count} by {how}" for how, count in by.items() if count)
        print(f"{len(kills)} planted, {counts}; survivors: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0
