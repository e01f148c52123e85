"""Who finds the planted bugs: each is planted in a process of its own, then looked for with growing expense.

First random seeds with four and seven validators, then twins, then the hand-written tests of `TEST_FILES`. The first
violation kills the bug. What only a hand-written test kills is marked as such: no amount of seeds would have helped.
"""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from watt_sim.areas import run_areas
from watt_sim.bugs import BUGS, find
from watt_sim.planting import Mutant, plant
from watt_sim.run import run_seed
from watt_sim.twins import run_scenario, scenario_count

SECONDS_MAX = 60
"""Most processor time for which a bug is looked for, besides the last test."""
WALL_FACTOR = 30
"""Time by the wall for a second of the above: the machine may be busy with something else, and tests wait."""
SHARES = (40, 60)
"""Percent of that time after which seeds give way to twins, and these to tests."""
SEVEN_EVERY = 8
"""One seed in so many has seven validators: they cost four times as much."""
NEVER = 1 << 30
OFFSET_STEP = 1_000_000
"""Between the first seeds of two hunts for the same bug."""
TESTS = Path(__file__).parents[2] / "tests"
TEST_FILES = (
    "chain/test_replica.py",
    "chain/test_viewchange.py",
    "chain/test_attest.py",
    "chain/test_ledger.py",
    "chain/test_pool.py",
    "chain/test_tree.py",
    "chain/test_members.py",
    "chain/test_silence.py",
    "chain/test_vouch.py",
    "chain/test_inclusion.py",
    "chain/test_election.py",
    "contract/test_election.py",
    "paper/test_election_rows.py",
)


@dataclass(frozen=True, slots=True)
class Kill:
    """What became of one planted bug."""

    name: str
    rule: str
    killed_by: str
    "seeds, twins, test; empty when it survived."
    where: str
    "Seed, scenario or test, and what was violated."
    tries: int
    seconds_ms: int
    "Time to the kill, ms."


def hunt(mutant: Mutant, seconds: int, offset: int) -> Kill:
    """Plant the bug in this process and look for it."""
    plant(mutant)
    start = time.process_time()  # the machine may be busy with something else

    def spent_ms() -> int:
        return int((time.process_time() - start) * 1000)

    def kill(how: str, where: str, tries: int) -> Kill:
        return Kill(mutant.name, mutant.rule, how, where, tries, spent_ms())

    tries = 0
    while mutant.world == "areas" and spent_ms() < seconds * 10 * SHARES[1]:
        found = run_areas(offset + tries)
        tries += 1
        if found.violation:
            return kill("seeds", f"{found.seed} (areas): {found.violation[:90]}", tries)
    while spent_ms() < seconds * 10 * SHARES[0]:
        n = 7 if tries % SEVEN_EVERY == SEVEN_EVERY - 1 else 4
        result = run_seed(offset + tries, n)
        tries += 1
        if result.violation:
            return kill("seeds", f"{result.seed} (n={n}): {result.violation[:90]}", tries)
    number = offset
    while spent_ms() < seconds * 10 * SHARES[1]:
        # Without and with crashes in turn.
        result = run_scenario(number if number % 2 else scenario_count(4) + number)
        number += 1
        if result.violation:
            return kill("twins", f"{result.seed}: {result.violation[:90]}", number - offset)
    name = _failing_test(mutant.tests if mutant.world == "areas" else (*mutant.tests, *TEST_FILES))
    return kill("test" if name else "", name, 1)


def _failing_test(names: tuple[str, ...]) -> str:
    """The first hand-written test that fails with the planted bug; empty when all pass."""
    import pytest

    class Failures:
        name = ""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed and not self.name:
                self.name = report.nodeid.rsplit("::", 1)[-1]

    failures = Failures()
    files = [str(TESTS / name) for name in dict.fromkeys(names)]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files], plugins=[failures])
    return failures.name


def hunt_all(names: list[str], seconds: int = SECONDS_MAX, offset: int = 0) -> Iterator[Kill]:
    """One child process for each bug, in order."""
    for bug in [bug for bug in BUGS if bug.name in names]:
        command = [sys.executable, "-m", "watt_sim.mutants", bug.name, str(seconds), str(offset)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=WALL_FACTOR * seconds, check=False)
        except subprocess.TimeoutExpired:
            yield Kill(bug.name, bug.rule, "", f"not done in {WALL_FACTOR * seconds} s by the wall", 0, 0)
            continue
        if done.returncode:
            # Not a kill: most likely the bug does not fit the core any more.
            text = (done.stderr.strip().splitlines() or ["?"])[-1]
            yield Kill(bug.name, bug.rule, "", text[:120], 0, 0)
        else:
            yield Kill(**json.loads(done.stdout.splitlines()[-1]))


def remembered(file: Path | None) -> dict[tuple[str, int], Kill]:
    """(bug, first seed) -> what an interrupted run found out, one JSON object a line; what survived is tried again."""
    found: dict[tuple[str, int], Kill] = {}
    if file is not None and file.exists():
        for line in file.read_text().splitlines():
            offset, *values = json.loads(line)
            kill = Kill(*values)
            if kill.killed_by:
                found[kill.name, offset] = kill
    return found


def remember(file: Path | None, offset: int, kill: Kill) -> None:
    """One more line of `remembered`."""
    if file is not None:
        with file.open("a") as out:
            print(json.dumps([offset, *asdict(kill).values()]), file=out)


def median_tries(kills: list[Kill]) -> int:
    """The middle number of seeds to the kill, over hunts for one bug from different first seeds; 0 when seeds fail."""
    tries = sorted(kill.tries if kill.killed_by == "seeds" else NEVER for kill in kills)
    middle = tries[len(tries) // 2]
    return 0 if middle == NEVER else middle


def table(hunts: list[list[Kill]]) -> str:
    """Markdown of the hunts, one row for each bug; *test* marks what no seed of the first hunt has found."""
    firsts = [kills[0] for kills in hunts]
    counts = [f"{sum(kill.killed_by == how for kill in firsts)} by {how}" for how in ("seeds", "twins", "test")]
    survivors = [kill.name for kill in firsts if not kill.killed_by]
    lines = [
        f"{len(firsts)} bugs: {', '.join(counts)}; survivors: {', '.join(survivors) or 'none'}.",
        "",
        "| bug | rule | first killed by | runs to it | seconds | hunts won by seeds | median runs |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for kills in hunts:
        first = kills[0]
        seconds = f"{first.seconds_ms / 1000:.1f}"
        if first.killed_by in ("seeds", "twins"):
            what = first.where.partition(": ")[2].partition(":")[0]
            won, median = sum(kill.killed_by == "seeds" for kill in kills), median_tries(kills)
            rest = f"{first.killed_by}, {what} | {first.tries} | {seconds} | {won} of {len(kills)} | {median or '-'}"
        else:
            name = f"*test* `{first.where}`" if first.killed_by else "**nothing**"
            rest = f"{name} | | {seconds} | | "
        lines.append(f"| {first.name} | {first.rule} | {rest} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """In the child: NAME SECONDS OFFSET; one line of JSON."""
    name, seconds, offset = arguments
    print(json.dumps(asdict(hunt(find(name), int(seconds), int(offset)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
