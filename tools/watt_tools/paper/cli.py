"""The words of `wattpact paper`."""

from __future__ import annotations

import argparse
from pathlib import Path

from watt_tools.paper.stages import STAGES

Commands = argparse._SubParsersAction  # the only name argparse has for it


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `paper` and what it can do."""
    paper = commands.add_parser("paper", help="the paper's experiments: full against partial sharding, and ours")
    actions = paper.add_subparsers(dest="action", metavar="ACTION", required=True)
    stages = "\n".join(f"  {name:10} {text}" for name, text in STAGES.items())
    run = actions.add_parser(
        "run",
        help="measure; what is there already is kept, so an interrupted run goes on",
        description=f"Stages, in this order; about an hour in all on two cores:\n\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    run.add_argument("--stages", type=_stages, default=tuple(STAGES), metavar="A,B", help="only these (default: all)")
    run.add_argument(
        "--cells", nargs="+", default=(), metavar="WORD", help="only cells with all these words, such as s=2 n=4 5ms"
    )
    run.add_argument("--quick", action="store_true", help="a share of the grid with few repetitions (minutes)")
    run.add_argument("--jobs", type=_jobs, default=0, metavar="N", help="worker processes (default: one per core)")
    run.set_defaults(handler=_run)
    report = actions.add_parser(
        "report",
        help="tables, figures and aims of a run",
        description="Prints tables and verdicts, draws the figures. Exit code 1 when an aim is missed.",
    )
    report.add_argument(
        "--dir", type=Path, metavar="DIR", help="results (default: paper-run, else those of the project)"
    )
    report.add_argument("--json", action="store_true", help="print ratios, aims and findings as one JSON object")
    report.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this document")
    report.add_argument(
        "--figures", type=Path, metavar="DIR", help="where PNG and CSV of the figures go (default: DIR)"
    )
    report.set_defaults(handler=_report)


def _stages(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = [name for name in chosen if name not in STAGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: allowed are {', '.join(STAGES)}")
    return chosen


def _jobs(text: str) -> int:
    try:
        jobs = int(text)
    except ValueError:
        jobs = 0
    if not 1 <= jobs <= 64:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is 1..64")
    return jobs


def _run(chosen: argparse.Namespace) -> int:
    from watt_tools.paper import run

    return run.main(run.Options(chosen.out, chosen.stages, tuple(chosen.cells), chosen.quick, chosen.jobs))


def _report(chosen: argparse.Namespace) -> int:
    from watt_tools.paper import report

    return report.main(chosen.dir, as_json=chosen.json, document=chosen.write, figures_to=chosen.figures)
