"""The market's clearing off the event loop: one worker thread, progress in the log, a deadline, an answer or none.

The solver works in floats and may take seconds; consensus of this node goes on meanwhile. What it returns is integers
plus a certificate that every station and every master checks again: a wrong answer is refused on chain, it cannot do
harm. The market itself bounds each solve and falls back to its greedy answer (BIDDING.md).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Book, Solution
from watt_chain.contract.rules import RuleSet

Clear = Callable[[Sequence[Book], EventSpec, RuleSet], Solution]

PROGRESS_MS = 5_000
"A line in the log this often while a clearing runs."
FAILED_AGAIN_MS = 10_000
"After a failed clearing (books the market refuses, no memory) it is tried again after this pause, while in time."
FAILURES_MAX = 3
"The same books fail the same way; three tries cover a passing shortage of memory."


@dataclass(slots=True)
class _Run:
    event: int
    books: tuple[bytes, ...]
    future: Future[Solution]
    started_ms: int
    told_ms: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What happened since the last call, for the log."""

    event: int
    what: str
    "started, running, done, failed or too-late"
    running_ms: int
    detail: str = ""


class Clearing:
    """At most one clearing at a time; results are kept by event and books."""

    def __init__(self, clear: Clear, executor: Executor) -> None:
        self._clear = clear
        self._executor = executor
        self._run: _Run | None = None
        self._solutions: dict[tuple[int, tuple[bytes, ...]], Solution] = {}
        self._failed: dict[tuple[int, tuple[bytes, ...]], tuple[int, int]] = {}
        self._progress: list[Progress] = []

    def solution(
        self, spec: EventSpec, roots: Sequence[bytes], books: Sequence[Book], rules: RuleSet, now_ms: int
    ) -> Solution | None:
        """The matching of these books, None while it is being found. `roots` (book roots) name the instance."""
        name = (spec.event, tuple(roots))
        self._poll(now_ms)
        if name in self._solutions:
            return self._solutions[name]
        failures, again_ms = self._failed.get(name, (0, 0))
        if self._run is None and failures < FAILURES_MAX and now_ms >= again_ms:
            future = self._executor.submit(self._clear, books, spec, rules)
            self._run = _Run(spec.event, tuple(roots), future, now_ms, now_ms)
            self._progress.append(Progress(spec.event, "started", 0, f"{len(books)} books"))
            self._poll(now_ms)
        return self._solutions.get(name)

    def _poll(self, now_ms: int) -> None:
        run = self._run
        if run is None:
            return
        elapsed = now_ms - run.started_ms
        if not run.future.done():
            if now_ms - run.told_ms >= PROGRESS_MS:
                run.told_ms = now_ms
                self._progress.append(Progress(run.event, "running", elapsed))
            return
        self._run = None
        name = (run.event, run.books)
        error = run.future.exception()
        if error is None:
            solution = run.future.result()
            self._solutions[name] = solution
            detail = f"value_u={solution.value_u} bound_u={solution.bound_u}"
            self._progress.append(Progress(run.event, "done", elapsed, detail))
            return
        failures = self._failed.get(name, (0, 0))[0] + 1
        self._failed[name] = (failures, now_ms + FAILED_AGAIN_MS)
        self._progress.append(Progress(run.event, "failed", elapsed, f"{type(error).__name__}: {error}"))

    def forget(self, event: int) -> None:
        """The event has its matching, or it is too late for one."""
        self._solutions = {name: found for name, found in self._solutions.items() if name[0] != event}
        self._failed = {name: found for name, found in self._failed.items() if name[0] != event}

    def running(self) -> int:
        """Event that is being cleared, 0 when none."""
        return 0 if self._run is None else self._run.event

    def take_progress(self) -> tuple[Progress, ...]:
        """What to log."""
        progress, self._progress = tuple(self._progress), []
        return progress
