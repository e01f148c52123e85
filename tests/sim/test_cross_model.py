"""Trades across areas: every state at small scope is safe, and every known way to break the protocol is found."""

import pytest
from watt_chain.cross.tables import BEACON, BUYER, SELLER, Beacon, Buyer, Effect, Seller
from watt_sim.cross_model import SELLER_AREA, SOUND, UNSAFE, Protocol, Rules, World, explore


@pytest.mark.row("H16")
@pytest.mark.parametrize("rules", SOUND, ids=lambda rules: rules.name)
def test_no_state_is_unsafe_and_no_money_is_stuck(rules: Rules) -> None:
    outcome = explore(rules)
    assert (outcome.fault, outcome.path) == ("", ())
    assert outcome.states > 1000


@pytest.mark.parametrize("rules", UNSAFE, ids=lambda rules: rules.name)
def test_an_unsafe_variant_is_found(rules: Rules) -> None:
    assert explore(rules).fault


def test_money_locked_after_the_last_word_would_be_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lying seller's area can have its acceptance anchored first; the buyer's area must remember that."""
    row = dict(BUYER[Buyer.NONE])
    monkeypatch.setitem(BUYER, Buyer.NONE, {next(iter(row)): row[next(iter(row))]})
    assert explore(Rules("forgetful", bad_area=SELLER_AREA)).fault == "money stuck for ever"


def test_what_the_main_chain_recorded_is_never_changed() -> None:
    assert all(not row for state, row in BEACON.items() if state is not Beacon.NONE)


def test_escrow_leaves_by_one_door_in_each_life() -> None:
    """In every path of the buyer's table escrow is followed by exactly one of refund and payment, or is still held."""
    held = {Buyer.LOCKED, Buyer.BOUND}
    for state, row in BUYER.items():
        for goal, effects in row.values():
            out = [effect for effect in effects if effect in (Effect.REFUND, Effect.SPEND)]
            assert (len(out) == 1) == (state in held and goal not in held)


def test_an_offer_is_released_only_by_the_main_chain() -> None:
    released = [
        (state, trigger)
        for state, row in SELLER.items()
        for trigger, (goal, _) in row.items()
        if goal is Seller.RELEASED
    ]
    assert {trigger for _, trigger in released} == {"anchored-end"}


def test_the_worlds_steps_depend_on_nothing_but_the_state() -> None:
    assert list(Protocol(Rules()).steps(World())) == list(Protocol(Rules()).steps(World()))
