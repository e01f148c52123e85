"""`wattpact market bench`: books of growing size, cleared and checked; every figure is measured in one run.

Each row runs in a process of its own, so that its peak memory is its own. `cpu_s` counts the processor seconds of all
its processes: on a loaded machine it is the figure to compare. Verification is everything that stations and masters
together do: all slices and the sum.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from watt_tools import marks

if TYPE_CHECKING:
    from watt_market.engine import Progress

Actions = argparse._SubParsersAction  # the only name argparse has for it

SIZES: Final = ((100, 2), (1_000, 5), (10_000, 50), (10_000, 10), (100_000, 500))
"(households, areas): from two streets to 500 transformer stations; 10,000 both in small and in large areas."
TIGHT_PERCENT: Final = 70
"The tight budget: so much of the comfort and charges of the matching without a limit."
AIMS: Final = {10_000: 30, 100_000: 600}
"Households -> seconds on two cores."
GAP_AIM_PPM: Final = 5_000
MARK: Final = "market-bench"


def add(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add `bench` to the market's actions."""
    bench = actions.add_parser("bench", help="time, value, certified gap, verification and memory on growing books")
    bench.add_argument("--households", type=int, nargs="*", help="only these sizes (default: all)")
    bench.add_argument("--budget", choices=("quarter", "tight", "both"), default="both", help="comfort budget of a row")
    bench.add_argument("--seed", type=int, default=0)
    bench.add_argument("--jobs", type=int, default=2, help="local processes (default 2)")
    bench.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler to use instead; 'local' starts one")
    bench.add_argument("--json", action="store_true", help="print one JSON object")
    bench.add_argument("--markdown", action="store_true", help="print the table of master/BIDDING.md, with its head")
    bench.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document, between its marks")
    bench.add_argument("--row", nargs=3, metavar=("HOUSEHOLDS", "AREAS", "BUDGET"), help=argparse.SUPPRESS)
    bench.set_defaults(handler=run_bench)


def run_bench(chosen: argparse.Namespace) -> int:
    """Measure every row in a child process and print the table; 1 when a row misses an aim."""
    if chosen.row:
        households, areas, budget = chosen.row
        print(json.dumps(measure(int(households), int(areas), budget, chosen)))
        return 0
    budgets = ("quarter", "tight") if chosen.budget == "both" else (chosen.budget,)
    rows = []
    for households, areas in SIZES:
        for budget in budgets:
            if not chosen.households or households in chosen.households:
                rows.append(_child(households, areas, budget, chosen))
                if not (chosen.json or chosen.markdown):
                    print(line(rows[-1]) if len(rows) > 1 else f"{HEAD}\n{line(rows[-1])}", flush=True)
    if chosen.json:
        print(json.dumps({"cores": os.cpu_count(), "jobs": chosen.jobs, "rows": rows}, indent=1))
    elif chosen.markdown:
        print(markdown(rows, chosen))
    if chosen.write is not None:
        try:
            marks.replace(chosen.write, MARK, markdown(rows, chosen))
        except marks.MarkError as error:
            print(f"wattpact market bench: {error}", file=sys.stderr)
            return 2
    return 0 if all(not row["missed"] for row in rows) else 1


def _child(households: int, areas: int, budget: str, chosen: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "watt_tools.cli", "market", "bench", "--row", str(households), str(areas), budget]
    command += ["--seed", str(chosen.seed), "--jobs", str(chosen.jobs)]
    command += ["--scheduler", chosen.scheduler] if chosen.scheduler else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(households: int, areas: int, budget: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Generate, clear and check one book; see `line` for the fields that the table prints."""
    from msgspec.structs import replace
    from watt_chain.contract.rules import PPM, RULES_1
    from watt_market.engine import Market, Search

    from watt_tools import market_run
    from watt_tools.market_homes import homes

    made = homes(households, areas, chosen.seed)
    spec = made.spec
    with market_run.chosen(chosen.scheduler, chosen.jobs) as run:
        if budget == "tight":
            spec = replace(spec, budget_u=_free_cost_u(made.books, spec) * TIGHT_PERCENT // 100)
        begun, cpu = time.monotonic(), _cpu_s()
        search = Search(made.books, spec, RULES_1, run=run)
        for progress in search.steps():
            _tell(progress)
        solution = search.solution()
        solved = time.monotonic() - begun
    solve_cpu = _cpu_s() - cpu  # children count once they have ended
    begun, cpu = time.monotonic(), time.process_time()
    reason = Market().check(solution, search.books, spec, RULES_1)
    check_s, check_cpu = time.monotonic() - begun, time.process_time() - cpu
    charge_u = sum(part.charge_u for part in solution.slices)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    gap_ppm = (solution.bound_u - solution.value_u) * PPM // max(solution.bound_u, 1)
    missed = ["gap"] if gap_ppm > GAP_AIM_PPM else []
    missed += ["time"] if solved > AIMS.get(households, 600) else []
    missed += ["verification"] if check_cpu * 10 > solve_cpu else []
    return {
        "households": households, "areas": areas, "budget": budget, "reason": reason, "missed": missed,
        "offers": sum(len(book.offers) for book in made.books), "bids": sum(len(book.bids) for book in made.books),
        "pairs": sum(len(part.assignments) for part in solution.slices), "value_u": solution.value_u,
        "bound_u": solution.bound_u, "gap_ppm": gap_ppm, "rho_scaled": solution.rho_scaled,
        "charge_ppm": charge_u * PPM // max(solution.value_u + charge_u, 1), "solve_s": round(solved, 2),
        "solve_cpu_s": round(solve_cpu, 2), "check_s": round(check_s, 2), "check_cpu_s": round(check_cpu, 2),
        "check_ratio": round(check_cpu / solve_cpu, 3), "peak_mib": peaks[0] // 1024,
        "peak_worker_mib": peaks[1] // 1024,
    }  # fmt: skip


def _free_cost_u(books: list[Any], spec: Any) -> int:
    """Comfort and charges of a matching without a limit, from the merges alone."""
    from watt_chain.contract.rules import RULES_1
    from watt_market.greedy import priced
    from watt_market.upper import problem

    areas = [problem(book, spec, RULES_1) for book in books]
    return sum(priced(area, 0).cost_u(area, area.charge_u) for area in areas)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


_told = [0.0]


def _tell(progress: Progress) -> None:
    """One line a second on stderr, rewritten in place: where the search stands."""
    now = time.monotonic()
    if now - _told[0] >= 1 or not progress.stage.startswith("area"):
        _told[0] = now
        end = "\r" if progress.stage.startswith("area") else "\n"
        text = f"{progress.stage}: value {progress.value_u / 1e6:.2f}, gap {progress.gap_ppm / 1e4:.3f} %"
        print(f"{text:<70}", end=end, file=sys.stderr, flush=True)


HEAD: Final = (
    "| households | areas | budget | value | charges % | certified gap % | solve s (cpu) | check s (cpu) | check/solve "
    "| peak MiB | missed |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def markdown(rows: list[dict[str, Any]], chosen: argparse.Namespace) -> str:
    """The table, and what it was measured with."""
    where = f"`--scheduler {chosen.scheduler}`" if chosen.scheduler else f"{chosen.jobs} processes"
    load = os.getloadavg()[0]
    said = f"Seed {chosen.seed}, {os.cpu_count()} cores, {where}; load of the machine when it ended: {load:.1f}."
    return "\n".join([HEAD, *(line(row) for row in rows), "", said])


def line(row: dict[str, Any]) -> str:
    """One row of the table in BIDDING.md."""
    return (
        f"| {row['households']:,} | {row['areas']} | {row['budget']} | {row['value_u'] / 1e6:,.2f} "
        f"| {row['charge_ppm'] / 1e4:.2f} | {row['gap_ppm'] / 1e4:.3f} | {row['solve_s']} ({row['solve_cpu_s']}) "
        f"| {row['check_s']} ({row['check_cpu_s']}) | {row['check_ratio'] * 100:.1f} % "
        f"| {row['peak_mib']} + {row['peak_worker_mib']} | {', '.join(row['missed']) or '-'} |"
    )
