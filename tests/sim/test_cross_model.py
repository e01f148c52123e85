"""Trades across areas: every state at small scope is safe, and every known way to break the protocol is found."""

import pytest
from watt_chain.cross.tables import BEACON, BUYER, SELLER, UNDECIDED, Beacon, Buyer, Effect, Seller, Trigger
from watt_sim.cross_model import SOUND, UNSAFE, Protocol, Rules, World, explore


@pytest.mark.row("H16")
@pytest.mark.parametrize("rules", SOUND, ids=lambda rules: rules.name)
def test_no_state_is_unsafe_and_no_money_is_stuck(rules: Rules) -> None:
    outcome = explore(rules)
    assert (outcome.fault, outcome.path) == ("", ())
    assert outcome.states > 800


@pytest.mark.parametrize("rules", UNSAFE, ids=lambda rules: rules.name)
def test_an_unsafe_variant_is_found(rules: Rules) -> None:
    assert explore(rules).fault


def test_money_locked_after_the_last_word_would_be_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seller may decline before the buyer locks; the buyer's area must remember that the trade is over."""
    row = {trigger: step for trigger, step in BUYER[Buyer.NONE].items() if trigger is not Trigger.ANCHORED_END}
    monkeypatch.setitem(BUYER, Buyer.NONE, row)
    assert explore(Rules("forgetful")).fault.startswith("money stuck for ever")


def test_what_the_main_chain_recorded_is_never_changed() -> None:
    outcomes = {Beacon.ACCEPT, Beacon.REJECT, Beacon.KILL}
    for state, row in BEACON.items():
        if state not in UNDECIDED:
            assert not outcomes & {goal for goal, _ in row.values()}


def test_escrow_leaves_by_one_door_in_each_life() -> None:
    """In every path of a table what is locked leaves by exactly one step, or is still held."""
    held = {Buyer.LOCKED, Buyer.BOUND}
    for state, row in BUYER.items():
        for goal, effects in row.values():
            out = [effect for effect in effects if effect in (Effect.REFUND, Effect.SPEND)]
            assert (len(out) == 1) == (state in held and goal not in held)
    reserved = {Beacon.LOCKED, Beacon.READY, Beacon.ACCEPT, Beacon.SETTLED}
    for beacon, steps in BEACON.items():
        for to, effects in steps.values():
            out = [effect for effect in effects if effect in (Effect.UNRESERVE, Effect.TRANSFER)]
            assert (len(out) == 1) == (beacon in reserved and to not in reserved)
            assert (Effect.RESERVE in effects) == (beacon not in reserved and to in reserved)


def test_a_seller_that_accepted_is_released_only_by_the_main_chain() -> None:
    released = [
        (state, trigger)
        for state, row in SELLER.items()
        for trigger, (goal, _) in row.items()
        if goal is Seller.RELEASED
    ]
    assert released == [(Seller.ACCEPTED, Trigger.ANCHORED_END)]


def test_the_worlds_steps_depend_on_nothing_but_the_state() -> None:
    assert list(Protocol(Rules()).steps(World())) == list(Protocol(Rules()).steps(World()))
