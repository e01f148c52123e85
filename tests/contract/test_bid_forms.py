"""What a sealed bid can say beyond energy and price: a limit over all slots, an own comfort, comfort in steps."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, Home, Plan, Play, World, make_spec
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.event import State
from watt_chain.contract.market import Book
from watt_chain.contract.objects import book_key
from watt_chain.contract.rules import RULES_1, RuleSet


def world_of(rules: RuleSet = RULES_1) -> tuple[World, list[Plan]]:
    world = World(areas=1, rules=rules, homes=[Home(0, 1), Home(1, 1)])
    plans = [
        Plan(world.homes[0], "sell", 300, [60] * 4, [100] * 4),
        Plan(world.homes[1], "buy", 900, [60] * 4, [220] * 4),
    ]
    return world, plans


def bid_with(plan: Plan, **changes: object) -> None:
    """Let a plan's sealed bid say more."""
    plain = plan.bid
    plan.bid = lambda event=1: replace(plain(event), **changes)  # type: ignore[method-assign]


def book_of(world: World) -> Book:
    return codec.decode(world.ledgers[1].state.get(book_key(1)) or b"", Book)


def test_given_a_limit_over_all_slots_then_no_more_is_matched_and_the_bond_goes_by_it() -> None:
    world, plans = world_of()
    bid_with(plans[0], total_wh=100)
    play = Play(world, plans).run(State.MATCHED)
    assert book_of(world).offers[0].total_wh == 100
    assert sum(sum(pair.slot_wh) for pair in world.pairs(1)) == 100
    play.confirm()
    assert world.account(1, plans[0].home.key.public).bond_u == 1_200_000 * 6_000 * 100 // 1_000_000


@pytest.mark.row("I7")
def test_given_an_own_comfort_coefficient_then_it_replaces_the_event_s_in_price_and_order() -> None:
    """'comfort coefficient': a household that freezes sooner says so, and is asked later."""
    world, plans = world_of()
    bid_with(plans[0], alpha_u_per_wh=[120, 120, 700, 120])
    Play(world, plans).run(State.MATCHED)
    (pair,) = world.pairs(1)
    assert pair.slot_wh == [60, 60, 0, 60]
    assert [pair.price_u_per_wh[t] for t in (0, 1, 3)] == [(900 + 300 + 120) // 2] * 3


@pytest.mark.parametrize(
    ("number", "changes"), [(0, {"alpha_u_per_wh": [1, 2]}), (1, {"alpha_u_per_wh": [5] * 4}),
                            (0, {"alpha_u_per_wh": [10**7] * 4})]
)  # fmt: skip
def test_given_a_comfort_that_does_not_fit_then_the_reveal_is_refused(number: int, changes: dict[str, object]) -> None:
    world, plans = world_of()
    bid_with(plans[number], **changes)
    play = Play(world, plans).run(State.REVEAL)
    world.now_s = play.spec.commit_close_s + 10
    plan = plans[number]
    assert world.call(1, plan.home.key, "Reveal", plan.bid()) == "comfort"


def test_given_a_bid_that_says_more_than_was_sealed_then_the_commitment_refuses_it() -> None:
    world, plans = world_of()
    play = Play(world, plans).run(State.REVEAL)
    world.now_s = play.spec.commit_close_s + 10
    said = plans[0].bid()
    for more in (replace(said, total_wh=1), replace(said, alpha_u_per_wh=[0] * 4)):
        assert commitment_of(more, plans[0].home.id) != commitment_of(said, plans[0].home.id)
        assert world.call(1, plans[0].home.key, "Reveal", more) == "commitment"


@pytest.mark.parametrize("total_wh", [0, 120])
def test_given_comfort_steps_then_an_offer_is_three_rows_of_one_household_and_settles_as_one(total_wh: int) -> None:
    rules = replace(RULES_1, version=3, comfort_steps_ppm=[666_667, 1_000_000, 1_333_333])
    world, plans = world_of(rules)
    bid_with(plans[0], total_wh=total_wh)
    Play(world, plans).run(State.CLOSED)
    offers = book_of(world).offers
    assert [offer.index for offer in offers] == [0, 1, 2]
    assert {offer.user for offer in offers} == {plans[0].home.id}
    assert [offer.slot_wh for offer in offers] == [[20] * 4] * 3
    assert [offer.alpha_u_per_wh[0] for offer in offers] == [13, 20, 26]
    assert [offer.total_wh for offer in offers] == [total_wh // 3] * 3
    pairs = world.pairs(1)
    assert [pair.offer for pair in pairs] == [0, 1, 2]
    assert [pair.price_u_per_wh[0] for pair in pairs] == [(1_200 + alpha) // 2 for alpha in (13, 20, 26)]
    row = world.row(plans[0].home)
    assert sum(row.sold_wh) == (total_wh or 240) and row.status == "performed"


def test_given_steps_that_round_to_the_same_comfort_then_there_is_one_row() -> None:
    rules = replace(RULES_1, version=3, comfort_steps_ppm=[666_667, 1_000_000, 1_333_333])
    world, plans = world_of(rules)
    Play(world, plans, make_spec(alpha_u_per_wh=[0, 0, 0, 0])).run(State.QUALIFIED)
    assert [offer.slot_wh for offer in book_of(world).offers] == [[60] * 4]
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(Play(world, plans, make_spec()).solution())) == ""
