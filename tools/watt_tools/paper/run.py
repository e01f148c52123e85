"""`wattpact paper run`: all stages, with progress, in worker processes, resumable after any interruption.

In its folder: `settings.json`, what was asked for (a second run there must ask for the same), `machine.json`, where
it ran, and `repetitions.csv`, the results.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Final

from watt_tools.paper import plan, results
from watt_tools.paper.cell import Cell, Repetition

LINE_S: Final = 10.0
"""Where no terminal is, a line of progress this often."""
LIVE_S: Final = 0.3


class RunError(results.PaperError):
    """The run cannot go on."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `paper run` was asked for."""

    out: Path
    stages: tuple[str, ...]
    cells: tuple[str, ...] = ()
    "Words that a cell's name must contain, all of them."
    quick: bool = False
    jobs: int = 0
    "0: one worker per core."


def main(options: Options) -> int:
    """Run what is missing. Exit code 0, or 1 with one line of text."""
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        _settle(options)
        for stage in options.stages:
            if stage == "storage":
                from watt_tools.paper import storage

                storage.run(options.out, quick=options.quick)
            elif stage == "processes":
                from watt_tools.paper import processes

                processes.run(options.out, options.cells, quick=options.quick)
            else:
                run_cells(options, stage)
    except (results.PaperError, OSError) as error:
        print(f"wattpact paper run: {error}", file=sys.stderr)
        return 1
    print(f"results in {options.out}; `wattpact paper report --dir {options.out}` shows them", file=sys.stderr)
    return 0


def _settle(options: Options) -> None:
    """A folder holds one run: the same settings, or it is refused."""
    path = options.out / "settings.json"
    wanted = {"quick": options.quick, "format": 1}
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            raise RunError(f"{path} is damaged; delete {options.out} or choose another --out") from None
        if found != wanted:
            raise RunError(f"{options.out} holds another run ({json.dumps(found)}); choose another --out")
    else:
        results.write_json(path, wanted)
        results.write_json(options.out / "machine.json", machine())


def machine() -> dict[str, object]:
    """Where a run takes place."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model or platform.machine(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def run_cells(options: Options, stage: str) -> None:
    """Run the cells of a stage that the folder does not have yet."""
    path = options.out / results.FILE
    known = results.read(path)
    if path.exists():
        results.rewrite(path, list(known.values()))  # without the torn end of an interrupted run
    wanted = [cell for cell in plan.cells(stage, quick=options.quick) if _chosen(cell, options.cells)]
    missing = [cell for cell in wanted if cell.name not in known]
    missing.sort(key=plan.weight, reverse=True)  # the longest first, so that the workers end together
    show = Progress(stage, wanted, missing)
    done = show.done

    def finished(cell: Cell, found: Sequence[Repetition]) -> None:
        results.append(path, cell, found)
        done(cell)

    jobs = options.jobs or len(os.sched_getaffinity(0))
    _spread(missing, jobs, finished, show.live)
    show.close()


def _chosen(cell: Cell, words: Sequence[str]) -> bool:
    parts = cell.name.split()
    return all(word in parts for word in words)


def _spread(
    cells: Sequence[Cell], jobs: int, finished: Callable[[Cell, Sequence[Repetition]], None], live: Callable[[], None]
) -> None:
    """Hand the cells to workers, one at a time each."""
    waiting = list(reversed(cells))
    outcome: list[tuple[Cell, list[Repetition] | str]] = []

    def serve() -> None:
        words = [sys.executable, "-m", "watt_tools.paper.worker"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            while waiting:
                try:
                    cell = waiting.pop()
                except IndexError:
                    return
                worker.stdin.write(json.dumps(asdict(cell)) + "\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
                if not line:
                    outcome.append((cell, f"the worker stopped with exit code {worker.wait()}"))
                    return
                outcome.append((cell, [Repetition(*row) for row in json.loads(line)]))

    threads = [Thread(target=serve, daemon=True) for _ in range(min(jobs, len(cells)))]
    for thread in threads:
        thread.start()
    while outcome or any(thread.is_alive() for thread in threads):
        while outcome:
            cell, found = outcome.pop(0)
            if isinstance(found, str):
                raise RunError(f"cell {cell.name!r}: {found}")
            finished(cell, found)
        live()
        time.sleep(LIVE_S)


class Progress:
    """How far a stage is: a living line on a terminal, else a line now and then; to standard error."""

    def __init__(self, stage: str, wanted: Sequence[Cell], missing: Sequence[Cell]) -> None:
        self._stage = stage
        self._count = len(wanted)
        self._done = len(wanted) - len(missing)
        self._whole = sum(map(plan.weight, missing)) or 1.0
        self._part = 0.0
        self._started_s = time.monotonic()
        self._shown_s = self._started_s
        self._last = ""
        self._living = sys.stderr.isatty()
        kept = f", {self._done} of them from before" if self._done else ""
        print(f"{stage}: {self._count} cells{kept}", file=sys.stderr)

    def done(self, cell: Cell) -> None:
        """A cell is stored."""
        self._done += 1
        self._part += plan.weight(cell)
        self._last = cell.name

    def live(self) -> None:
        """Show, if it is time."""
        now_s = time.monotonic()
        if now_s - self._shown_s >= (LIVE_S if self._living else LINE_S):
            self._shown_s = now_s
            self._print("\r" if self._living else "", "" if self._living else "\n")

    def close(self) -> None:
        """The last word of the stage."""
        if self._part:
            self._print("\r" if self._living else "", "\n")

    def _print(self, before: str, after: str) -> None:
        passed_s = time.monotonic() - self._started_s
        share = self._part / self._whole
        left = (
            f"about {passed_s / share - passed_s:.0f} s left  {self._last}" if share else "the longest cells come first"
        )
        text = f"  {self._done}/{self._count}  {share:4.0%}  {passed_s:5.0f} s, {left}"
        print(before + text.ljust(100), end=after, file=sys.stderr, flush=True)
