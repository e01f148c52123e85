"""A whole event in memory: the offices of a master drive real ledgers from Initial to CLOSED."""

from typing import Any

import pytest
from msgspec.structs import replace
from watt_chain.contract.event import State
from watt_chain.contract.rules import RULES_1
from watt_master.grid import XY_UNKNOWN_MS
from watt_node.config import FieldProblem

END_S = 9000
OFFICE_CALLS = ("Qualify", "SettlementCredit", "SettlementAmount", "PriceIncentives", "Punish", "Points")


def finish(world: Any, before: Any = None) -> None:
    world.run(world.genesis.protocol_start_s + END_S, before)


@pytest.mark.row("B16", "H24", "J1", "J2", "J4", "J6", "J10", "J11", "J15", "J16", "J17", "J18", "J20", "K1", "K2")
def test_given_two_areas_when_the_clock_runs_then_the_offices_bring_the_event_from_initial_to_closed(
    world: Any,
) -> None:
    finish(world)
    main = world.view.main_event(1)
    assert main.state is State.CLOSED, (main.state, [(r.chain, r.state, r.reason) for r in main.areas])
    assert [report.state for report in main.areas] == ["closed", "closed"]
    for area in (1, 2):
        assert world.view.area_event(area, 1).state is State.CLOSED
        assert all(world.calls(kind, area) == [""] for kind in OFFICE_CALLS)
        assert main.areas[area - 1].result_root == world.root(area)
        assert world.view.anchor_height(area) == world.chains[area].ledger.head.height
        assert world.money_u(area) == 4 * 50_000_000
    assert world.calls("Initial", 0) == world.calls("Match", 0) == world.calls("SettlementAmount", 0) == [""]
    assert world.offices.grid.status()["announcement_missed"] is False
    statuses = {home.number: world.row(home).status for home in world.homes if home.area == 1}
    assert statuses == {1: "performed", 2: "breached", 3: "performed", 4: "performed"}
    changes = {home.number: world.row(home).credit_after - world.row(home).credit_before for home in world.homes}
    assert changes == {1: 2, 2: -4, 3: 2, 4: 2}


def test_given_a_restart_before_every_single_step_then_the_outcome_and_the_number_of_calls_are_the_same(
    make_world: Any,
) -> None:
    plain, restarted = make_world("plain"), make_world("restarted")
    finish(plain)
    restarts = 0

    def restart() -> None:
        nonlocal restarts
        restarts += 1
        restarted.boot()

    finish(restarted, restart)
    assert restarts == END_S // 150
    for area in (1, 2):
        assert restarted.root(area) == plain.root(area)
        for kind in OFFICE_CALLS:
            assert restarted.calls(kind, area) == [""]
    assert restarted.calls("Initial", 0) == restarted.calls("Match", 0) == [""]
    assert restarted.view.main_event(1) == plain.view.main_event(1)


def test_given_a_restart_between_submission_and_block_then_the_call_is_made_once(make_world: Any) -> None:
    world = make_world()
    submit, boots = world.master_step, 0

    def step_and_crash() -> Any:
        nonlocal boots
        sent = submit()
        if sent and boots < 200:
            boots += 1
            world.boot()  # nothing in memory survives; the transactions wait in the pools
            submit()
        return sent

    world.master_step = step_and_crash
    finish(world)
    assert boots >= 10  # one per stage at least
    assert world.view.main_event(1).state is State.CLOSED
    for area in (1, 2):
        assert all(world.calls(kind, area) == [""] for kind in OFFICE_CALLS)
        assert world.calls("Enrol", area) == world.calls("Deposit", area) == [""] * 4


def test_given_the_master_sleeps_through_a_deadline_then_it_continues_where_the_ledgers_stand(make_world: Any) -> None:
    """Down from before the reveals close until just before the last moment for a matching."""
    world = make_world()
    world.run(world.event.reveal_close_s - 150)
    step, world.master_step = world.master_step, list
    world.run(world.event.match_by_s - 150)
    world.master_step = step
    world.boot()
    finish(world)
    assert world.view.main_event(1).state is State.CLOSED


def test_given_no_master_until_the_matching_is_late_then_the_event_is_aborted_and_every_deposit_is_back(
    make_world: Any,
) -> None:
    world = make_world()
    world.run(world.event.reveal_close_s - 150)
    step, world.master_step = world.master_step, list
    world.run(world.event.confirm_close_s)
    world.master_step = step
    world.boot()
    finish(world)
    assert world.view.main_event(1).state is State.ABORTED
    for area in (1, 2):
        assert world.view.area_event(area, 1).state is State.ABORTED
        assert world.calls("Match", 0) == []
        for home in world.homes:
            assert world.free_u(home) == 50_000_000


def test_given_an_area_without_any_bid_then_the_event_still_closes_there(make_world: Any) -> None:
    from_area = make_world("only-one")
    from_area.homes = [home for home in from_area.homes if home.area == 1]
    finish(from_area)
    assert from_area.view.main_event(1).state is State.CLOSED
    assert from_area.view.area_event(2, 1).pairs == 0


@pytest.mark.row("J12", "J13", "J15")
def test_given_a_refusal_and_a_second_round_when_the_clock_runs_then_what_it_frees_finds_another_partner(
    make_world: Any,
) -> None:
    """'If users are not satisfied with the matching results, they can choose not to participate' (A17, U25)."""
    rules = replace(RULES_1, rematch_s=450, gap_ppm=1_000_000)
    plain, world = make_world("plain", rules=replace(rules, rematch_s=0)), make_world("rematch", rules=rules)
    for one in (plain, world):
        one.homes[3].slot_wh = [120, 120]  # it wants more than the dearer buyer leaves
        one.refusing.add(one.homes[2].id)
        finish(one)
    assert world.view.main_event(1).state is State.CLOSED
    assert world.calls("Reopen", 1) == world.calls("Rematch", 1) == [""]
    assert world.calls("Reopen", 2) == [""] and world.calls("Rematch", 2) == []  # nothing was free there
    assert plain.row(plain.homes[3]).agreed_wh == 120
    assert world.row(world.homes[3]).agreed_wh == 240
    assert world.money_u(1) == 4 * 50_000_000
    assert plain.calls("Reopen", 1) == []


def test_given_an_event_when_status_is_asked_then_state_books_matches_and_gap_are_shown(world: Any) -> None:
    from watt_master.progress import event_status

    assert event_status(world.view) is None
    finish(world)
    status = event_status(world.view)
    assert status is not None
    assert status["state"] == "CLOSED"
    assert status["matches"] == sum(world.view.area_event(area, 1).pairs for area in (1, 2)) > 0
    assert status["areas"]["1"]["offers"] == 2 and status["areas"]["1"]["bids"] == 2
    assert 0 <= status["gap_ppm"] <= 50_000
    assert status["areas"]["1"]["users"] == {"breached": 1, "performed": 3}


def test_given_a_signal_whose_bids_are_already_closed_when_the_master_starts_then_it_is_not_sent_and_shown_as_missed(
    world: Any,
) -> None:
    world.run(world.event.announce_s - 150)
    world.now_s = world.event.commit_close_s
    finish(world)
    assert world.calls("Initial", 0) == []
    assert world.offices.grid.status()["announcement_missed"] is True


@pytest.mark.row("I11")
def test_given_no_x_and_y_in_the_file_then_the_signal_waits_for_those_of_the_running_network(make_world: Any) -> None:
    """'X to denote the time cost of a single communication': what the network measured is on chain, for the event."""
    world = make_world("measured")
    world.event = replace(world.event, x_ms=None, y_ms=None)
    known: list[tuple[int, int]] = []
    world.measured = lambda: known[-1] if known else None
    world.boot()
    start_s = world.genesis.protocol_start_s
    world.run(start_s + 1_650)
    assert world.view.main_event(1) is None
    known.append((7, 31))
    world.run(start_s + 1_800)
    known.append((9, 99))
    world.run(start_s + END_S)
    main = world.view.main_event(1)
    assert (main.spec.x_ms, main.spec.y_ms, main.state) == (7, 31, State.CLOSED)
    assert world.calls("Initial", 0) == [""]


def test_given_nothing_measured_when_the_collection_opens_then_the_signal_goes_out_with_named_figures(
    make_world: Any,
) -> None:
    world = make_world("unmeasured")
    world.event = replace(world.event, x_ms=None, y_ms=None)
    world.boot()
    finish(world)
    assert (world.view.main_event(1).spec.x_ms, world.view.main_event(1).spec.y_ms) == XY_UNKNOWN_MS


def test_given_only_one_of_x_and_y_then_the_file_is_refused(make_world: Any) -> None:
    with pytest.raises(FieldProblem, match="together"):
        replace(make_world("half").event, y_ms=None)
