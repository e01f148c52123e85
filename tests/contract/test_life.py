"""Every (state, call) pair of an event and every (state, step) pair of a pair; deadlines; replays."""

from __future__ import annotations

import itertools

import pytest
from contract_world import AGGREGATOR, GRID, Play, World, usual_plans
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.event import MAIN_TRANSITIONS, OPEN_STATES, TRANSITIONS, MainTrigger, State, Trigger
from watt_chain.contract.market import Solution
from watt_chain.contract.orders import PAIR_TRANSITIONS, PairState, PairStep
from watt_chain.contract.rematch_kinds import Rematch, Reopen

BEFORE_ABORT = {State.ABORTED: State.QUALIFIED}


def world_in(state: State) -> tuple[World, Play]:
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(BEFORE_ABORT.get(state, state))
    if state is State.ABORTED:
        world.tick_all(play.spec.confirm_close_s)
    assert world.event(1).state is state
    return world, play


def calls(world: World, play: Play) -> dict[str, tuple[object, object]]:
    """One well-formed call of every kind that is tied to a stage: (key, fields)."""
    plan = play.plans[0]
    bid = plan.bid()
    return {
        "Commit": (plan.home.key, kinds.Commit(1, commitment_of(bid, plan.home.id))),
        "Reveal": (plan.home.key, bid),
        "Qualify": (AGGREGATOR, kinds.EventCall(1)),
        "Confirmtransaction": (plan.home.key, kinds.Confirmtransaction(1, True)),
        "Confirm": (plan.home.key, kinds.Confirm(1, 1, True)),
        "Reopen": (AGGREGATOR, Reopen(1)),
        "Rematch": (AGGREGATOR, Rematch(1, Solution(1, 0, [], 0, 0))),
        "CrossOp": (plan.home.key, cross_kinds.CrossOp(1, [1], True)),
        "SettlementCredit": (AGGREGATOR, kinds.EventCall(1)),
        "SettlementAmount": (AGGREGATOR, kinds.EventCall(1)),
        "PriceIncentives": (GRID, kinds.EventCall(1)),
        "Punish": (GRID, kinds.EventCall(1)),
        "Points": (GRID, kinds.EventCall(1)),
    }


@pytest.mark.row("J1", "J20", "J23")
@pytest.mark.parametrize("state", State)
def test_every_call_in_every_state_is_in_its_stage_or_refused(state: State) -> None:
    world, play = world_in(state)
    named = calls(world, play)
    staged = {kind for (place, kind), row in kinds.TABLE.items() if place == "area" and row.stages}
    assert set(named) == staged
    for kind, (key, fields) in named.items():
        code, _ = world.dry(1, key, kind, fields)  # type: ignore[arg-type]
        if state in kinds.TABLE["area", kind].stages:
            assert code != "stage", kind
        else:
            assert code == "stage", kind


@pytest.mark.parametrize("state", [State.ANNOUNCED, State.MATCHED, State.SETTLED, State.CLOSED, State.ABORTED])
def test_every_call_in_every_state_of_the_main_event(state: State) -> None:
    world = World(areas=1)
    play = Play(world, usual_plans(world))
    if state is State.ABORTED:
        play.run(State.COMMIT)
        world.tick_all(play.spec.match_by_s)
    else:
        play.run({State.ANNOUNCED: State.QUALIFIED}.get(state, state))
    assert world.main_event().state is state
    solution = play.solution() if state is not State.ABORTED else None
    if solution is not None:
        code, _ = world.dry(0, AGGREGATOR, "Match", kinds.Match(solution))
        assert (code == "stage") == (state is not State.ANNOUNCED)
    code, _ = world.dry(0, GRID, "SettlementAmount", kinds.EventCall(1))
    assert (code == "stage") == (state is not State.MATCHED)


@pytest.mark.parametrize(("state", "trigger"), [*itertools.product(State, Trigger)])
def test_the_table_of_an_area_names_every_state_and_ends(state: State, trigger: Trigger) -> None:
    target = TRANSITIONS[state].get(trigger)
    assert target is None or target is not state
    if state in (State.CLOSED, State.ABORTED):
        assert target is None
    else:
        assert TRANSITIONS[state]


@pytest.mark.parametrize(("state", "trigger"), [*itertools.product(State, MainTrigger)])
def test_the_table_of_the_main_chain_reaches_only_its_own_states(state: State, trigger: MainTrigger) -> None:
    target = MAIN_TRANSITIONS.get(state, {}).get(trigger)
    assert target is None or target in MAIN_TRANSITIONS


@pytest.mark.parametrize(("state", "step"), [*itertools.product(PairState, PairStep)])
def test_every_step_of_a_pair_advances_or_is_refused(state: PairState, step: PairStep) -> None:
    target = PAIR_TRANSITIONS[state].get(step)
    over = state in (PairState.DROPPED, PairState.SETTLED, PairState.RETURNED)
    assert (target is None) if over else (target is not state)


@pytest.mark.row("J5")
def test_the_boolean_open_is_true_exactly_while_bids_are_taken() -> None:
    """J5: "If the variable is true, it means that it is allowed to participate in this demand response"."""
    world = World(areas=1)
    play = Play(world, usual_plans(world))
    seen = {}
    for until in (State.ANNOUNCED, State.COMMIT, State.REVEAL, State.QUALIFIED, State.MATCHED):
        world = World(areas=1)
        play = Play(world, usual_plans(world)).run(until)
        seen[until] = world.event(1).open
    assert play.number == 1
    assert seen == {state: state in OPEN_STATES for state in seen}


def test_a_replayed_transaction_changes_nothing() -> None:
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.COMMIT)
    plan = play.plans[0]
    tx = world.tx(1, plan.home.key, "Commit", kinds.Commit(1, commitment_of(plan.bid(), plan.home.id)))
    world.block(1, [tx])
    account = world.account(1, plan.home.key.public)
    built = world.ledgers[1].build(0, 0, world.now_s, [tx])
    assert built.transactions == []
    assert world.account(1, plan.home.key.public) == account


@pytest.mark.parametrize(
    ("until", "kind", "reason"),
    [
        (State.COMMIT, "Commit", "committed"),
        (State.REVEAL, "Reveal", "revealed"),
        (State.QUALIFIED, "Qualify", "stage"),
        (State.METERED, "SettlementCredit", "stage"),
        (State.SETTLED, "SettlementAmount", "stage"),
        (State.CLOSED, "Points", "stage"),
    ],
)
def test_a_call_made_again_is_refused_by_name(until: State, kind: str, reason: str) -> None:
    world, play = world_in(until)
    key, fields = calls(world, play)[kind]
    world.call(1, key, kind, fields)  # type: ignore[arg-type]
    assert world.dry(1, key, kind, fields)[0] == reason  # type: ignore[arg-type]


def test_settlement_functions_keep_their_order_and_run_once() -> None:
    world, _ = world_in(State.SETTLED)
    one = kinds.EventCall(1)
    assert world.call(1, GRID, "Punish", one) == "order"
    assert world.call(1, GRID, "Points", one) == "order"
    assert world.call(1, GRID, "PriceIncentives", one) == ""
    assert world.call(1, GRID, "PriceIncentives", one) == "done"
    assert world.call(1, GRID, "Points", one) == "order"
    assert world.call(1, GRID, "Punish", one) == ""
    assert world.call(1, GRID, "Punish", one) == "done"
    assert world.call(1, GRID, "Points", one) == ""


def test_calls_before_their_time_are_refused() -> None:
    world, play = world_in(State.REVEAL)
    assert world.call(1, AGGREGATOR, "Qualify", kinds.EventCall(1)) == "early"
    world.now_s = play.spec.reveal_close_s
    assert world.call(1, play.plans[0].home.key, "Reveal", play.plans[0].bid()) == "late"
    world, play = world_in(State.DELIVERING)
    world.now_s = play.spec.meter_close_s - 1
    assert world.call(1, AGGREGATOR, "SettlementCredit", kinds.EventCall(1)) == "early"
    world, play = world_in(State.METERED)
    assert world.call(1, AGGREGATOR, "SettlementAmount", kinds.EventCall(1)) == "no-prices"


def test_credit_may_be_settled_early_once_every_register_is_there() -> None:
    world, play = world_in(State.DELIVERING)
    for position, time_s in enumerate(play.spec.boundaries_s()):
        world.now_s = time_s
        for plan in play.plans:
            frame = plan.home.checkpoint(time_s, plan.load_wh[position - 1] * 1000 if position else 0)
            assert world.call(1, plan.home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert world.now_s < play.spec.meter_close_s
    assert world.call(1, AGGREGATOR, "SettlementCredit", kinds.EventCall(1)) == ""


def test_several_deadlines_that_passed_without_a_block_take_effect_together() -> None:
    world = World(areas=1)
    play = Play(world, []).run(State.ANNOUNCED)
    world.tick(1, play.spec.reveal_close_s)
    assert world.event(1).state is State.REVEAL


@pytest.mark.row("H16")
@pytest.mark.parametrize("until", [State.REVEAL, State.QUALIFIED, State.CONFIRMED, State.DELIVERING, State.METERED])
def test_no_deposit_escrow_or_bond_outlives_its_deadline(until: State) -> None:
    """Atomicity: an event that does not finish in time gives everything back."""
    world, play = world_in(until)
    world.tick_all(play.spec.settle_by_s)
    assert world.event(1).state is State.ABORTED
    world.relay_up()
    for plan in play.plans:
        account = world.account(1, plan.home.key.public)
        assert (account.free_u, account.escrow_u, account.bond_u) == (200_000_000, 0, 0)
    assert world.main_event().state in (State.ABORTED, State.CLOSED)


def test_an_unknown_event_is_refused_in_every_call() -> None:
    world, play = world_in(State.REVEAL)
    for kind, (key, fields) in calls(world, play).items():
        other = type(fields)(*[9, *[getattr(fields, name) for name in fields.__struct_fields__[1:]]])  # type: ignore[attr-defined]
        assert world.dry(1, key, kind, other)[0] == "unknown-event"  # type: ignore[arg-type]
    assert world.dry(0, GRID, "SettlementAmount", kinds.EventCall(9))[0] == "unknown-event"
