"""Response strength and the election, in the words of the paper (model rows F1 to F10, F20)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from contract_world import Home, Plan, Play, World, make_spec
from watt_chain import codec, election
from watt_chain.contract.event import State
from watt_chain.contract.objects import ELECTION_KEY, Strength, strength_key
from watt_chain.contract.points import strength_now
from watt_chain.election import Election

KEPT, SAVED, NOT_SAVED = [220] * 4, [100] * 4, [160] * 4


def strength_of(world: World, node: int) -> Strength:
    return codec.decode(world.ledgers[1].state.get(strength_key(node)) or b"", Strength)


def election_of(world: World) -> Election:
    return codec.decode(world.ledgers[1].state.get(ELECTION_KEY) or b"", Election)


def area() -> World:
    """Two homes behind each of two nodes; the first two sell."""
    return World(areas=1, homes=[Home(0, 1, node=0), Home(1, 1, node=1), Home(2, 1, node=0), Home(3, 1, node=1)])


def plans(world: World, loads: tuple[list[int], list[int]], active: tuple[int, ...] = (0, 1, 2, 3)) -> list[Plan]:
    homes = world.homes
    everybody = [
        Plan(homes[0], "sell", 300, [60] * 4, loads[0]),
        Plan(homes[1], "sell", 310, [60] * 4, loads[1]),
        Plan(homes[2], "buy", 900, [60] * 4, KEPT),
        Plan(homes[3], "buy", 890, [60] * 4, KEPT),
    ]
    return [everybody[at] for at in active]


@pytest.mark.row("F3", "A6")
def test_the_node_whose_users_answer_the_grids_need_has_the_higher_response_value() -> None:
    """F3: "based on the response value of the station-area node within the station area to the business needs of grid
    companies"
    A6: "the grid company will calculate the demand response strength of each station": in Points, and every node again
    """
    world = area()
    Play(world, plans(world, (SAVED, NOT_SAVED))).run(State.CLOSED)
    assert strength_of(world, 0).strength_ppm > strength_of(world, 1).strength_ppm
    world = area()
    Play(world, plans(world, (NOT_SAVED, SAVED))).run(State.CLOSED)
    assert strength_of(world, 0).strength_ppm < strength_of(world, 1).strength_ppm


@pytest.mark.row("F4")
def test_a_user_that_takes_part_raises_its_nodes_response_value() -> None:
    """F4: "If a user actively participates in the energy conservation incentive plan of the grid, he/she will obtain
    high response value" """
    found = {}
    for active in ((0, 2, 3), (0, 1, 2, 3)):
        world = area()
        Play(world, plans(world, (SAVED, SAVED), active)).run(State.CLOSED)
        found[len(active)] = strength_of(world, 1).strength_ppm
    assert found[4] > found[3]


@pytest.mark.row("F5", "F6")
def test_strength_follows_from_the_periods_response_report_and_the_users_feedback() -> None:
    """F6: "according to the detailed information of the demand response report during the block out period and the user
    feedback data": delivery and answers are the report, confirmed trades the feedback; each counts, and never down
    """
    low = strength_now(50, 100, (1, 4), (1, 4))
    assert low == 300_000 + 50_000 + 50_000
    assert strength_now(60, 100, (1, 4), (1, 4)) > low
    assert strength_now(50, 100, (2, 4), (1, 4)) > low
    assert strength_now(50, 100, (1, 4), (2, 4)) > low
    assert strength_now(100, 100, (4, 4), (4, 4)) == 1_000_000 and strength_now(0, 0, (0, 0), (0, 0)) == 0


@pytest.mark.row("F6", "F7", "F10")
def test_elections_go_by_what_was_settled_one_epoch_before_the_last() -> None:
    """F7: "determine the bookkeeping node in each station area"
    F10: "the station-area node does not need to do more PoW consensus proof": its puzzle gets easier with its strength
    """
    world = area()
    settled: list[list[int]] = []
    for number in (1, 2, 3):
        loads = (SAVED, NOT_SAVED) if number < 3 else (NOT_SAVED, SAVED)
        Play(world, plans(world, loads), make_spec(number, world.now_s + 100)).run(State.CLOSED)
        settled.append([strength_of(world, node).strength_ppm for node in (0, 1)])
        before = settled[-2] if number > 1 else [0, 0]
        assert [strength_of(world, node).before_ppm for node in (0, 1)] == before
    term = election.term_of(world.ledgers[1].head.height)
    while election.term_of(world.ledgers[1].head.height) == term:
        world.tick(1)
    entrants = election_of(world).entrants
    assert [one.strength_ppm for one in entrants] == settled[1] != settled[2]
    assert [one.bits for one in entrants] == [election.bits_for(strength, 0) for strength in settled[1]]
    assert entrants[0].bits < entrants[1].bits, "more response, easier puzzle"


@pytest.mark.row("F2", "F20")
def test_each_area_elects_and_agrees_by_itself() -> None:
    """F2: "groups the nodes according to the transaction granularity, reduces the number of nodes participating in the
    consensus"
    F20: "Considering the strong interconnection of the station-area nodes on the physical equipment": a group is the
    nodes behind one transformer station, as the genesis file lists them
    """
    world = World(areas=2)
    seeds = {codec.decode(world.ledgers[chain].state.get(ELECTION_KEY) or b"", Election).seed for chain in (0, 1, 2)}
    assert len(seeds) == 3
    for chain in (0, 1, 2):
        listed = codec.decode(world.ledgers[chain].state.get(ELECTION_KEY) or b"", Election).entrants
        assert len(listed) == len(world.validators[chain]) < sum(len(keys) for keys in world.validators.values())
