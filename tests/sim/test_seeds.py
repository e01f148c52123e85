"""A share of the simulator in every test run: seeds, twins, determinism, and that a broken core is noticed."""

import os
import subprocess
import sys

import pytest
from watt_sim import planting
from watt_sim.batch import Summary
from watt_sim.bugs import BUGS
from watt_sim.config import CRASH_POINTS, Config, Event, draw
from watt_sim.control import run_control
from watt_sim.mutants import hunt_all
from watt_sim.planting import Mutant
from watt_sim.run import Result, run_config, run_seed
from watt_sim.shrink import shrink
from watt_sim.twins import configure, run_scenario, scenario_count

EVERY_RUN = (
    "view-change-with-certificate",
    "new-view",
    "prepared-reproposal",
    "final-in-later-view",
    "fetch",
    "syncblocks",
    "restart-with-votes",
    "torn-tail",
    "crash-after-record",
    "rollback",
    "cut-one-way",
    "evidence-pre-prepare",
    "evidence-prepare",
    "evidence-commit",
    "list-changed",
    "list-join",
    "list-leave",
    "list-rotate",
    "doubt-cleared",
    "blocks-dropped",
    "start-from-state",
    "state-installed",
    "spent-twice",
    "run-area",
)
"""Rare states that already the share of seeds played here has to reach."""


def play(seeds: range, n: int) -> Summary:
    summary = Summary()
    for seed in seeds:
        summary.add(run_seed(seed, n))
    assert not summary.violations, [(result.seed, result.violation) for result in summary.violations]
    return summary


@pytest.mark.row("F11", "F12", "F13", "F18")
@pytest.mark.parametrize("first", range(0, 120, 40))
def test_four_validators_stay_safe_and_become_live_in_every_seed(first: int) -> None:
    summary = play(range(first, first + 40), 4)
    assert summary.heights > 40


@pytest.mark.row("F8", "F9")
def test_whole_terms_with_tickets_shares_and_draws_are_led_by_whom_a_second_implementation_names() -> None:
    long = [seed for seed in range(1000) if draw(seed, 4).terms and draw(seed, 4).bad][:3]
    summary = Summary()
    for seed in long:
        summary.add(run_seed(seed, 4))
    assert not summary.violations, [(result.seed, result.violation) for result in summary.violations]
    assert summary.heights > 150 * len(long)
    assert {"term-turned", "order-drawn", "struck"} <= {*summary.coverage}


@pytest.mark.row("F11", "F12", "F13", "F18")
@pytest.mark.parametrize("first", [0, 10])
def test_seven_validators_with_two_bad_ones_stay_safe_and_become_live(first: int) -> None:
    assert play(range(first, first + 10), 7).heights > 10


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
def test_other_sizes_keep_what_their_f_promises(n: int) -> None:
    play(range(4), n)


def test_a_share_of_seeds_reaches_the_rare_states() -> None:
    summary = play(range(1000, 1080), 4)
    assert not [state for state in EVERY_RUN if state not in summary.coverage]


def test_with_real_signatures_a_seed_is_as_safe() -> None:
    seeds = [seed for seed in range(300) if draw(seed, 4).real]
    assert seeds
    result = run_seed(seeds[0], 4)
    assert not result.violation and result.coverage["run-real"]


@pytest.mark.row("F13")
def test_a_validator_running_twice_forks_nothing_and_stalls_nobody() -> None:
    for number in range(60):
        result = run_scenario(number if number % 2 else scenario_count(4) + number)
        assert not result.violation, (result.seed, result.violation)


def test_every_scenario_of_twins_comes_once() -> None:
    places = {configure(number).bad + configure(number).schedule[:1] for number in range(0, scenario_count(4), 64)}
    assert len(places) == scenario_count(4) // 64


def hashes(hash_seed: str) -> str:
    program = "from watt_sim.run import run_seed; print([run_seed(seed, 4).hash for seed in range(30, 50)])"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    assert hashes("1") == hashes("2") == f"{[run_seed(seed, 4).hash for seed in range(30, 50)]}\n"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_planted_bug_still_fits_the_core(bug: Mutant) -> None:
    planting.check(bug)


def test_a_bug_whose_place_has_changed_is_reported() -> None:
    edit = planting.Edit("watt_chain.genesis", "quorum", "no such text", "")
    with pytest.raises(planting.PlantError, match="quorum has 0 times"):
        planting.check(Mutant("x", "1", (edit,)))


@pytest.mark.parametrize("name", ["lock-ignored", "lock-forgotten-at-restart", "client-counts-one-twice"])
def test_a_planted_bug_is_found(name: str) -> None:
    (kill,) = hunt_all([name], seconds=60)
    assert kill.killed_by == "seeds", kill


@pytest.mark.row("F11")
@pytest.mark.parametrize("n", [4, 7])
def test_one_liar_too_many_forks_the_chain_and_the_proof_names_only_liars(n: int) -> None:
    forks = []
    for seed in (*range(6), 29):  # 29: an honest validator of a forked height holds evidence of the next
        control = run_control(seed, n)
        forks += [(control, fork) for fork in control.forks]
    assert forks
    for control, fork in forks:
        assert {*fork.named} <= {*control.liars}
        assert len(fork.named) >= (n - 1) // 3 + 1


def test_a_crash_at_every_point_of_every_record_is_survived() -> None:
    settings = {"timeout_ms": 300, "timeout_max_ms": 1200, "resend_ms": 80, "status_ms": 400, "batch_ms": 5}
    for record in ("proposal", "prepare", "commit", "view-change"):
        for point in CRASH_POINTS:
            for node in (0, 1):
                events = (
                    Event(1000, "trap", node, (record, point, 30)),
                    Event(1001, "cut", 1, ("isolate" if record == "view-change" else "heal", "")),
                    Event(1002, "submit", 0, (1, "Add", 0, 1, 2, 3)),
                    Event(2000, "cut", 0, ("heal", "")),
                )
                result = run_config(Config(1, 4, settings=settings, schedule=events))
                assert not result.violation, (record, point, node, result.violation)


def test_a_failing_run_becomes_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from watt_sim import shrink as module

    def fails(config: Config, transcript: bool = False) -> Result:
        guilty = any(event.kind == "cut" for event in config.schedule)
        return Result(config.seed, config.n, "I1: planted" if guilty else "", "I1" if guilty else "", tail=("end",))

    monkeypatch.setattr(module, "run_config", fails)
    drawn = [draw(seed, 4) for seed in range(100)]
    config = next(config for config in drawn if any(event.kind == "cut" for event in config.schedule))
    small, result = shrink(config, lambda text: None)
    assert [event.kind for event in small.schedule] == ["cut"] and small.loss_ppm == 0 and result.violation
