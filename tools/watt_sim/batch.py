"""Many runs: one after the other, or in child processes that take the next seed as they get free."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TypeVar

from watt_sim.run import Result, run_seed
from watt_sim.twins import run_scenario

Job = TypeVar("Job")
Played = TypeVar("Played")
CHUNK = 8
"""Seeds a child takes at a time: enough that handing them out costs nothing."""

RARE = (
    "view-change",
    "view-change-with-certificate",
    "view-above-2",
    "new-view",
    "prepared-reproposal",
    "final-in-later-view",
    "fetch",
    "bodies",
    "syncblocks",
    "restart-with-votes",
    "torn-tail",
    "crash-before-sync",
    "crash-after-record",
    "crash-while-sending",
    "crash-before-store",
    "crash-after-store",
    "outage",
    "rollback",
    "stays-dead",
    "cut-split",
    "cut-isolate",
    "cut-one-way",
    "cut-kind",
    "evidence-pre-prepare",
    "evidence-prepare",
    "evidence-commit",
    "censored",
    "left-out",
    "attest",
    "evidence-attest",
    "list-changed",
    "list-join",
    "list-leave",
    "list-rotate",
    "list-replace",
    "list-shuffle",
    "key-lost",
    "key-replaced",
    "votes-lost",
    "disk-lost",
    "blocks-lost",
    "below-floor",
    "doubt",
    "doubt-cleared",
    "blocks-dropped",
    "start-from-state",
    "state-installed",
    "restart-within-a-transfer",
    "spent-twice",
    "term-turned",
    "order-drawn",
    "struck",
    "demoted",
    "share-kept-back",
    "another-share",
    "bad-ticket",
    "evidence-on-chain",
    "run-area",
    "run-real",
    "run-terms",
)
"""States a batch has to reach: a simulator that never gets there proves nothing about them."""


@dataclass(slots=True)
class Summary:
    """What a batch found."""

    runs: int = 0
    events: int = 0
    heights: int = 0
    virtual_ms: int = 0
    violations: list[Result] = field(default_factory=list)
    coverage: dict[str, int] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """One more run."""
        self.runs += 1
        self.events += result.events
        self.heights += result.heights
        self.virtual_ms += result.virtual_ms
        count_states(self.coverage, result.coverage)
        if result.violation:
            self.violations.append(result)

    def missing(self) -> list[str]:
        """Rare states nobody reached."""
        return [what for what in RARE if what not in self.coverage]


def _seed(job: tuple[int, int]) -> Result:
    return run_seed(*job)


def _scenario(job: tuple[int, int]) -> Result:
    return run_scenario(*job)


def run_many(numbers: Sequence[int], n: int, jobs: int = 1, twins: bool = False) -> Iterator[Result]:
    """Results in the order they are ready; the same set for any number of jobs."""
    play = _scenario if twins else _seed
    yield from spread(play, [(number, n) for number in numbers], jobs, CHUNK)


def spread(play: Callable[[Job], Played], work: Sequence[Job], jobs: int, chunk: int) -> Iterator[Played]:
    """Play all work here, or in child processes that take `chunk` pieces at a time; results as they are ready."""
    if jobs <= 1:
        yield from map(play, work)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(play, work, chunk)


def count_states(total: dict[str, int], reached: dict[str, int]) -> None:
    """Add what one run reached to what a batch reached."""
    for what, count in reached.items():
        total[what] = total.get(what, 0) + count
