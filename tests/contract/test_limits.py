"""Credit beyond one event: repeated partners, the cap of a day, idle decay, the way back; the budget of rewards."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, REGULATOR, Home, Plan, Play, World, make_spec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds, standing
from watt_chain.contract.credit import Performance, credit_after
from watt_chain.contract.event import State
from watt_chain.contract.objects import Incentive, Standing, incentive_key, standing_key
from watt_chain.contract.rules import RULES_1, RULES_2, RuleSet

DAY_S = 86_400
PAPER = replace(RULES_1, version=3, improve_s=0)
NOBODY = Standing(-1, 0, [], 0)


def evening(world: World, number: int, loads: tuple[int, int] = (100, 220)) -> None:
    """One event of two homes; after the first the world's clock stands at its end."""
    seller, buyer = world.homes
    spec = make_spec(number, world.now_s)
    plans = [
        Plan(seller, "sell", 300, [60] * 4, [loads[0]] * 4),
        Plan(buyer, "buy", 900, [60] * 4, [loads[1]] * 4),
    ]
    for home in world.homes:  # a fresh checkpoint, so that the seller qualifies
        frame = home.checkpoint(world.now_s)
        assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    Play(world, plans, spec).run(State.CLOSED)


def two(rules: RuleSet) -> World:
    return World(areas=1, homes=[Home(0, 1), Home(1, 1)], rules=rules)


def remembered(world: World, home: Home) -> Standing:
    return codec.decode(world.ledgers[1].state.get(standing_key(home.id)) or b"", Standing)


@pytest.mark.row("K1", "K6")
def test_wash_trades_of_two_accounts_earn_less_and_less() -> None:
    """U30: the k-th trade with one partner counts a k-th part; an honest variety of partners is not touched."""
    rules = replace(PAPER, credit_reward=12, partner_days=30)
    world = two(rules)
    seen = []
    for number in (1, 2, 3, 4):
        evening(world, number)
        row = world.row(world.homes[0], number)
        seen.append(row.credit_after - row.credit_before)
    assert seen == [12, 6, 4, 3]
    day = (world.now_s - 1) // DAY_S
    assert [(who, count) for who, _, count in remembered(world, world.homes[0]).partners] == [(world.homes[1].id, 4)]
    assert remembered(world, world.homes[0]).day in (day, day - 1)


def test_a_run_of_trades_with_one_partner_begins_anew_after_its_days() -> None:
    rules = replace(PAPER, partner_days=30)
    partner = bytes(8)
    known = Standing(100, 0, [(partner, 100, 3)], 0)
    assert standing.count_trades(rules, known, 129, [(partner, 100)]) == (25, [(partner, 100, 4)])
    assert standing.count_trades(rules, known, 130, [(partner, 100)]) == (100, [(partner, 130, 1)])
    assert standing.count_trades(replace(rules, partner_days=0), known, 129, [(partner, 100)]) == (100, [])


def test_many_events_of_one_day_gain_no_more_than_the_cap_of_a_day() -> None:
    world = two(replace(PAPER, daily_gain_max=3))
    world.now_s = (world.now_s // DAY_S + 1) * DAY_S  # a fresh day, so that four evenings fit into it
    for number in (1, 2, 3):
        evening(world, number)
    assert [world.row(world.homes[0], n).credit_after for n in (1, 2, 3)] == [62, 63, 63]
    world.now_s += DAY_S
    evening(world, 4)
    assert world.row(world.homes[0], number=4).credit_after == 65


def test_a_breach_is_counted_in_full_whatever_the_limits() -> None:
    world = two(replace(PAPER, daily_gain_max=1, partner_days=30))
    evening(world, 1, (160, 220))
    assert world.row(world.homes[0]).credit_after == 56


def test_credit_above_the_start_falls_while_nothing_is_traded_and_never_below_it() -> None:
    rules = replace(PAPER, decay_days=30)
    known = Standing(1_000, 0, [], 0)
    assert [standing.idle_credit(rules, known, 80, day) for day in (1_000, 1_029, 1_030, 1_600, 9_999)] == [
        80, 80, 79, 60, 60,
    ]  # fmt: skip
    assert standing.idle_credit(rules, known, 55, 9_999) == 55
    assert standing.idle_credit(replace(rules, decay_days=0), known, 80, 9_999) == 80
    assert standing.idle_credit(rules, NOBODY, 80, 9_999) == 80


def test_idle_days_lower_the_credit_of_the_next_event() -> None:
    world = two(replace(PAPER, decay_days=1))
    evening(world, 1)
    world.now_s += 2 * DAY_S
    evening(world, 2)
    row = world.row(world.homes[0], number=2)
    assert (row.credit_before, row.credit_after) == (62, 62)  # two idle days, one performance


@pytest.mark.row("K3", "K7")
def test_the_regulator_lets_a_suspended_user_come_back_day_by_day() -> None:
    """U14: below the bar nothing is earned by trading, so there must be a way back; it is a signed call."""
    world = two(replace(PAPER, credit_start=51, rehab_per_day=1))
    evening(world, 1, (160, 220))
    seller, buyer = world.homes
    account = world.account(1, seller.key.public)
    assert (account.credit, account.suspended) == (47, True)
    call = kinds.Rehabilitate(seller.id)
    assert world.dry(1, AGGREGATOR, "Rehabilitate", call)[0] == "role"
    assert world.dry(1, REGULATOR, "Rehabilitate", kinds.Rehabilitate(bytes(8)))[0] == "unknown-user"
    assert world.dry(1, REGULATOR, "Rehabilitate", kinds.Rehabilitate(buyer.id))[0] == "not-suspended"
    assert world.dry(1, REGULATOR, "Rehabilitate", call)[0] == "early"
    since_s = remembered(world, seller).since_s
    world.now_s = since_s + 2 * DAY_S + 5
    assert world.call(1, REGULATOR, "Rehabilitate", call) == ""
    account = world.account(1, seller.key.public)
    assert (account.credit, account.suspended) == (49, True)
    assert world.dry(1, REGULATOR, "Rehabilitate", call)[0] == "early"  # days are not counted twice
    world.now_s = since_s + 9 * DAY_S
    assert world.call(1, REGULATOR, "Rehabilitate", call) == ""
    account = world.account(1, seller.key.public)
    assert (account.credit, account.suspended) == (50, False)


def test_a_rule_set_without_a_way_back_has_none() -> None:
    world = two(replace(PAPER, credit_start=51))
    evening(world, 1, (160, 220))
    call = kinds.Rehabilitate(world.homes[0].id)
    world.now_s += 9 * DAY_S
    assert world.call(1, REGULATOR, "Rehabilitate", call) == "rule-off"


def test_rule_set_1_remembers_nothing() -> None:
    world = two(replace(RULES_1, version=3))
    evening(world, 1)
    assert world.ledgers[1].state.get(standing_key(world.homes[0].id)) is None


@given(
    st.integers(0, 100), st.sampled_from(["performed", "breached"]), st.integers(1, 5_000), st.data(),
)  # fmt: skip
def test_no_limit_ever_raises_credit_and_no_discount_softens_a_breach(
    before: int, status: str, agreed: int, data: st.DataObject
) -> None:
    delivered = agreed if status == "performed" else data.draw(st.integers(0, agreed))
    performance = Performance(status, delivered, [])  # type: ignore[arg-type]
    counted, room = data.draw(st.integers(0, agreed)), data.draw(st.integers(0, 3))
    for rules in (PAPER, RULES_2):
        free = credit_after(rules, before, performance, agreed)
        bound = credit_after(rules, before, performance, agreed, counted, room)
        assert min(before, free) <= bound <= max(before, free)
        if free <= before:
            assert bound == free


@pytest.mark.row("I26", "J18")
def test_reduced_prices_never_cost_more_than_penalties_and_the_response_budget() -> None:
    """U13: rewards <= penalties + the grid's response budget, to the last unit."""
    for budget_u in (0, 1_000, 10**12):
        world = two(replace(PAPER, response_budget_u=budget_u, rho_max_ppm=1_000_000))
        evening(world, 1)
        given_u = 0
        for home in world.homes:
            raw = world.ledgers[1].state.get(incentive_key(home.id)) or b""
            incentive = codec.decode(raw, Incentive)
            assert incentive.price_u_per_wh <= 600
            given_u += (600 - incentive.price_u_per_wh) * incentive.energy_wh
        penalties = sum(world.row(home).penalty_u for home in world.homes)
        assert given_u <= budget_u + penalties
        assert (given_u > 0) == (budget_u == 10**12)
