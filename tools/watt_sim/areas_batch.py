"""Many networks of areas: one after the other, or in child processes that take the next seeds as they get free."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from watt_sim.areas import AreasResult, run_areas
from watt_sim.batch import count_states, spread

CHUNK = 16
"""Seeds a child takes at a time: enough that handing them out costs nothing."""

RARE = (
    *(f"main-{state}" for state in ("LOCKED", "ACCEPTED", "READY", "ACCEPT", "REJECT", "KILL")),
    *(f"main-{state}" for state in ("SETTLED", "PAID", "RETURNED", "VOID")),
    *(f"buyer-{state}" for state in ("LOCKED", "BOUND", "REFUNDED", "PAID", "RETURNED", "REFUSED")),
    *(f"seller-{state}" for state in ("OFFERED", "ASKED", "ACCEPTED", "REJECTED", "EFFECTIVE", "RELEASED")),
    *(f"seller-{state}" for state in ("SETTLED", "CREDITED", "RETURNED")),
    *(f"ended-{reason}" for reason in ("bound", "rate", "quarantine", "late", "together", "area", "unsettled")),
    "equivocation",
    "execution-refused",
    "lie",
    "lie-believed",
    "fork-shown",
    "refuted",
    "accused",
    "quarantine-fork",
    "quarantine-refuted",
    "readmitted",
    "bad-again",
    "old-history-Anchor",
    "old-history-Fork",
    "old-history-Inbox",
    "halted",
    "list-changed",
    "group",
    "CrossOp-balance",
    "CrossOp-not-yours",
    "forged-replay",
    "forged-gap",
    "forged-short-certificate",
    "forged-other-message",
    "forged-other-place",
    "forged-other-target",
    "forged-strangers",
    "forged-stolen-keys",
    "forged-anchor-replay",
    "forged-anchor-gap",
    "forged-anchor-short",
    "forged-anchor-without-messages",
    "forged-unexecuted",
    "run-real",
    "run-2-areas",
    "run-3-areas",
    "run-4-areas",
)
"""States a batch has to reach: a simulator that never gets there proves nothing about them."""


@dataclass(slots=True)
class Tally:
    """What a batch found."""

    runs: int = 0
    blocks: int = 0
    spent_ms: int = 0
    violations: list[AreasResult] = field(default_factory=list)
    coverage: dict[str, int] = field(default_factory=dict)

    def add(self, result: AreasResult) -> None:
        """One more run."""
        self.runs += 1
        self.blocks += result.blocks
        self.spent_ms += result.spent_ms
        count_states(self.coverage, result.coverage)
        if result.violation:
            self.violations.append(result)

    def missing(self) -> list[str]:
        """Rare states nobody reached."""
        return [what for what in RARE if what not in self.coverage]


def _timed(seed: int) -> AreasResult:
    began = time.process_time()
    result = run_areas(seed)
    result.spent_ms = int((time.process_time() - began) * 1000)
    return result


def run_many(seeds: Sequence[int], jobs: int = 1) -> Iterator[AreasResult]:
    """Results in the order they are ready; the same set for any number of jobs."""
    yield from spread(_timed, seeds, jobs, CHUNK)
