"""The best certified matching wins, whoever found it, within its window."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, GRID, REGULATOR, Play, World, usual_plans
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.contest import Best, best_key
from watt_chain.contract.event import State
from watt_chain.contract.market import Book, Solution
from watt_chain.contract.rules import RULES_1

RULES = replace(RULES_1, version=3, improve_s=100, gap_ppm=1_000_000)


def qualified(rules: object = RULES) -> tuple[World, Play]:
    world = World(areas=2, rules=rules)  # type: ignore[arg-type]
    return world, Play(world, usual_plans(world)).run(State.QUALIFIED)


def test_an_empty_matching_is_replaced_by_a_better_one_from_anybody_and_not_the_other_way_round() -> None:
    world, play = qualified()
    best = play.solution()
    nothing = empty(best)
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(nothing)) == ""
    assert world.main_event().state is State.ANNOUNCED
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(nothing)) == "not-better"
    stranger = world.validators[0][1]
    assert world.call(0, stranger, "Match", kinds.Match(best)) == ""
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(nothing)) == "not-better"
    found = codec.decode(world.ledgers[0].state.get(best_key(1)) or b"", Best)
    assert (found.found, found.solution) == (2, best)
    world.tick(0, found.closes_s)
    assert world.main_event().state is State.MATCHED
    assert world.main_event().value_u == best.value_u > 0
    world.relay_down()
    assert [len(world.pairs(chain)) for chain in world.areas] == [len(part.assignments) for part in best.slices]


def empty(solution: Solution) -> Solution:
    """Nothing is traded; the multipliers stay, so the bound is as true as before."""
    slices = [replace(part, assignments=[], value_u=0, comfort_u=0, charge_u=0) for part in solution.slices]
    return replace(solution, slices=slices, value_u=0)


@pytest.mark.parametrize("key", [GRID, REGULATOR], ids=["grid", "regulator"])
def test_every_account_of_the_main_chain_may_hand_in_a_matching(key: object) -> None:
    world, play = qualified()
    assert world.dry(0, key, "Match", kinds.Match(play.solution()))[0] == ""  # type: ignore[arg-type]


def test_after_the_window_a_better_matching_comes_too_late() -> None:
    world, play = qualified()
    best = play.solution()
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(empty(best))) == ""
    world.now_s += RULES.improve_s
    assert world.call(0, GRID, "Match", kinds.Match(best)) == "stage"
    assert world.main_event().value_u == 0


def test_the_window_never_outlives_the_time_for_matching() -> None:
    world, play = qualified(replace(RULES, improve_s=86_400))
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(play.solution())) == ""
    world.tick(0, play.spec.match_by_s)
    assert world.main_event().state is State.MATCHED


def test_a_wrong_matching_opens_no_window() -> None:
    world, play = qualified()
    best = play.solution()
    wrong = replace(best, value_u=best.value_u + 1)
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(wrong)) == "solution-value"
    assert world.ledgers[0].state.get(best_key(1)) is None


def test_without_a_window_the_first_matching_stands_at_once() -> None:
    world, play = qualified(replace(RULES, improve_s=0))
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(empty(play.solution()))) == ""
    assert world.main_event().state is State.MATCHED


def test_a_book_that_arrives_after_the_first_matching_is_left_out() -> None:
    world = World(areas=2, rules=RULES)
    play = Play(world, [plan for plan in usual_plans(world) if plan.home.area == 1]).run(State.REVEAL)
    for plan in play.plans:
        assert world.call(1, plan.home.key, "Reveal", plan.bid()) == ""
    world.tick_all(play.spec.reveal_close_s)
    assert world.call(1, AGGREGATOR, "Qualify", kinds.EventCall(1)) == ""
    world.relay_up()
    world.now_s = play.spec.reveal_close_s + 100  # half the time for matching: the missing area is not waited for
    state = world.ledgers[0].state
    only = [codec.decode(state.get(b"book/1/1") or b"", Book)]
    solution = world.market.clear(only, play.spec, play.rules())
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(solution)) == ""
    assert world.call(2, AGGREGATOR, "Qualify", kinds.EventCall(1)) == ""
    world.relay_up()
    world.tick(0, world.now_s + 100)
    assert [report.state for report in world.main_event().areas] == ["sliced", "left-out"]
