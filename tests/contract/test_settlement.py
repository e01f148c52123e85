"""Performance, credit, payments, penalties, incentives, points: exact arithmetic."""

from __future__ import annotations

import pytest
from contract_world import DEPOSIT_U, GRID, Home, Plan, Play, World, make_spec, usual_plans
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from watt_chain.contract import kinds
from watt_chain.contract.access import largest_remainder
from watt_chain.contract.credit import Performance, buyer_performance, credit_after, seller_performance
from watt_chain.contract.event import State, Unit
from watt_chain.contract.orders import PairState
from watt_chain.contract.points import strength_now
from watt_chain.contract.rules import RULES_1, RULES_2

LOADS = {
    "kept": [220, 220, 220, 220],
    "over": [260, 260, 220, 220],
    "under": [100, 220, 220, 220],
}


def one_pair(seller_load: list[int], buyer_load: list[int], **changes: object) -> tuple[World, Play]:
    world = World(areas=1, homes=[Home(0, 1), Home(1, 1)])
    plans = [
        Plan(world.homes[0], "sell", 300, [60] * 4, seller_load),
        Plan(world.homes[1], "buy", 900, [60] * 4, buyer_load),
    ]
    return world, Play(world, plans, make_spec(**changes))


KEEP = [100, 100, 100, 100]


@pytest.mark.row("I16", "J17")
@pytest.mark.parametrize(
    ("seller", "buyer", "statuses", "penalties"),
    [
        (KEEP, LOADS["kept"], ("performed", "performed"), (0, 0)),
        ([160] * 4, LOADS["kept"], ("breached", "performed"), (240 * 400 * 12 // 10, 0)),
        (KEEP, LOADS["over"], ("performed", "breached"), (0, 80 * 400 * 12 // 10)),
        (KEEP, LOADS["under"], ("performed", "breached"), (0, 120 * 400)),
    ],
)
def test_who_pays_whom_follows_the_table(
    seller: list[int], buyer: list[int], statuses: tuple[str, str], penalties: tuple[int, int]
) -> None:
    """I16: "excessive power consumption and failure to reach the agreed power load"."""
    world, play = one_pair(seller, buyer)
    play.run(State.SETTLED)
    rows = [world.row(home) for home in world.homes]
    assert tuple(row.status for row in rows) == statuses
    assert tuple(row.penalty_u for row in rows) == penalties
    paid = 0 if statuses[0] == "breached" else sum(60 * price for price in (610, 615, 620, 610))
    assert (rows[0].traded_u, rows[1].traded_u) == (paid, -paid)
    for home, row in zip(world.homes, rows, strict=True):
        account = world.account(1, home.key.public)
        assert account.free_u == DEPOSIT_U + row.traded_u - row.charge_u - row.penalty_u
        assert (account.escrow_u, account.bond_u) == (0, 0)
    assert world.account(1, GRID.public).free_u == 70 + sum(penalties)


def test_an_unverified_seller_gets_everything_back_and_so_does_its_buyer() -> None:
    world, play = one_pair(KEEP, LOADS["kept"])
    play.plans[0].late_registers = True
    play.run(State.CLOSED)
    assert [world.row(home).status for home in world.homes] == ["unverified", "performed"]
    assert {pair.state for pair in world.pairs(1)} == {PairState.RETURNED}
    for home in world.homes:
        account = world.account(1, home.key.public)
        assert (account.free_u, account.escrow_u, account.bond_u) == (DEPOSIT_U, 0, 0)
    assert [world.row(home).credit_after for home in world.homes] == [60, 62]
    assert world.row(world.homes[0]).rp_u_per_wh == 0


def test_absence_of_a_buyers_data_is_no_breach_and_no_way_out_of_paying() -> None:
    world, play = one_pair(KEEP, LOADS["over"])
    play.plans[1].late_registers = True
    play.run(State.CLOSED)
    row = world.row(world.homes[1])
    assert (row.status, row.credit_after, row.penalty_u) == ("unverified", 60, 0)
    assert row.traded_u == -world.row(world.homes[0]).traded_u < 0


def test_a_penalty_beyond_bond_and_free_money_is_recorded_and_collected_from_the_next_deposit() -> None:
    world, play = one_pair(KEEP, [500, 500, 500, 500], units=[Unit(6000, [9999] * 4)], normal_price_u_per_wh=600)
    play.run(State.CONFIRMED)
    buyer = world.homes[1]
    free = world.account(1, buyer.key.public).free_u
    assert world.call(1, buyer.key, "Withdraw", kinds.Withdraw(free)) == ""
    play.window()
    play.deliver()
    play.settle()
    row, account = world.row(buyer), world.account(1, buyer.key.public)
    assert row.penalty_u + row.arrears_u == 12 * 6000 * (2000 - 880) // 10
    assert row.arrears_u > 0
    assert (account.free_u, account.arrears_u) == (0, row.arrears_u)
    grid = world.account(1, GRID.public).free_u
    assert world.call(1, buyer.key, "Withdraw", kinds.Withdraw(1)) == "arrears"
    assert world.call(1, GRID, "Deposit", kinds.Deposit(buyer.id, row.arrears_u + 7)) == ""
    account = world.account(1, buyer.key.public)
    assert (account.free_u, account.arrears_u) == (7, 0)
    assert world.account(1, GRID.public).free_u == grid + row.arrears_u


def test_a_sellers_bond_covers_its_whole_penalty_at_the_price_cap() -> None:
    world, play = one_pair([400] * 4, LOADS["kept"], units=[Unit(6000, [9999] * 4)])
    play.run(State.CONFIRMED)
    seller = world.homes[0]
    free = world.account(1, seller.key.public).free_u
    assert world.call(1, seller.key, "Withdraw", kinds.Withdraw(free)) == ""
    play.window()
    play.deliver()
    play.settle()
    row = world.row(seller)
    assert (row.delivered_wh, row.arrears_u) == (0, 0)
    assert row.penalty_u == 240 * 6000 * 12 // 10


@pytest.mark.row("K1", "K2", "J16")
def test_rule_set_1_gives_two_points_and_takes_four() -> None:
    """K1, K2: "increased by two points", "the credit value will be decreased by four points"."""
    good, bad = Performance("performed", 100, []), Performance("breached", 99, [])
    none = Performance("unverified", 0, [])
    assert credit_after(RULES_1, 60, good, 100) == 62
    assert credit_after(RULES_1, 60, bad, 100) == 56
    assert credit_after(RULES_1, 60, none, 100) == 60
    assert credit_after(RULES_1, 99, good, 100) == 100
    assert credit_after(RULES_1, 3, bad, 100) == 0


@pytest.mark.parametrize(
    ("delivered", "agreed", "change"),
    [(1000, 1000, 2), (900, 1000, 0), (950, 1000, 1), (899, 1000, -1), (0, 1000, -18), (0, 9000, -18), (400, 400, 0)],
)
def test_rule_set_2_weighs_credit_by_energy_and_breaks_even_at_ninety_percent(
    delivered: int, agreed: int, change: int
) -> None:
    status = "performed" if delivered == agreed else "breached"
    assert credit_after(RULES_2, 60, Performance(status, delivered, []), agreed) == 60 + change  # type: ignore[arg-type]


def test_many_small_trades_earn_no_credit_under_rule_set_2() -> None:
    assert credit_after(RULES_2, 60, Performance("performed", 499, []), 499) == 60


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**4), min_size=1, max_size=12))
def test_a_split_is_exact_proportional_and_never_above_its_weight(total: int, weights: list[int]) -> None:
    shares = largest_remainder(total, weights)
    whole = sum(weights)
    assert sum(shares) == (total if whole else 0)
    for share, weight in zip(shares, weights, strict=True):
        assert whole == 0 or abs(share * whole - total * weight) < whole
        assert total > whole or share <= weight


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 300), st.integers(0, 500)), min_size=1, max_size=8),
    st.integers(0, 200_000),
)
def test_what_a_defaulter_is_charged_for_is_exactly_what_was_missing(
    rows: list[tuple[int, int, int]], eps: int
) -> None:
    agreed = [row[0] for row in rows]
    quota = [row[1] for row in rows]
    load = [row[2] for row in rows]
    if sum(agreed) == 0:
        return
    sold = seller_performance(agreed, agreed, quota, load, eps)
    assert sold.delivered_wh + sum(sold.short_wh) == sum(agreed)
    assert all(0 <= short <= wh for short, wh in zip(sold.short_wh, agreed, strict=True))
    assert (sold.status == "performed") == ((sum(quota) - sum(load)) * 10**6 >= (10**6 - eps) * sum(agreed))
    bought = buyer_performance(agreed, quota, load, eps)
    net = sum(load) - sum(quota) - sum(agreed)
    assert sum(bought.short_wh) == (0 if bought.status == "performed" else abs(net))
    assert 0 <= bought.delivered_wh <= sum(agreed)


@pytest.mark.row("F16", "F5", "F17")
def test_points_follow_credit_and_strength_and_are_issued_exactly() -> None:
    world = World(areas=1)
    for position, home in enumerate(world.homes):
        home.node = position % 2
    world = World(areas=1, homes=[replace_home(home) for home in world.homes])
    Play(world, usual_plans(world)).run(State.CLOSED)
    rows = [world.row(home) for home in world.homes]
    assert sum(row.points for row in rows) == RULES_1.points_per_event
    assert all((row.points > 0) == (row.status == "performed") for row in rows)
    assert [world.account(1, home.key.public).points for home in world.homes] == [row.points for row in rows]


def replace_home(home: Home) -> Home:
    return Home(home.number, home.area, node=home.node)


def test_the_outcome_does_not_depend_on_how_many_blocks_an_event_took() -> None:
    roots = []
    for blocks in (0, 5):
        world = World(areas=1)
        play = Play(world, usual_plans(world)).run(State.SETTLED)
        for _ in range(blocks):
            world.tick(1)
        play.close()
        roots.append(world.event(1).result_root)
    assert roots[0] == roots[1]


def test_strength_is_the_weighted_sum_of_three_shares() -> None:
    assert strength_now(0, 0, (0, 0), (0, 0)) == 0
    assert strength_now(1, 1, (1, 1), (1, 1)) == 1_000_000
    assert strength_now(1, 3, (1, 3), (2, 3)) == 200_000 + 66_666 + 133_333
    assert strength_now(2, 3, (1, 3), (2, 3)) > strength_now(1, 3, (1, 3), (2, 3))


@pytest.mark.row("K3", "K10", "J19")
def test_punish_warns_first_then_suspends_strictly_below_fifty_and_never_switches() -> None:
    """K3: "if the credit value is lower than 50, the intelligent terminal will be controlled to power off"."""
    seen = []
    for start in (60, 57, 54, 53):
        homes = [Home(0, 1), Home(1, 1)]
        world = World(areas=1, homes=homes, rules=replace(RULES_1, version=3, credit_start=start))
        plans = [
            Plan(homes[0], "sell", 300, [60] * 4, [160] * 4),
            Plan(homes[1], "buy", 900, [60] * 4, LOADS["kept"]),
        ]
        Play(world, plans).run(State.CLOSED)
        row, account = world.row(homes[0]), world.account(1, homes[0].key.public)
        seen.append((row.credit_after, row.notice, account.warned, account.suspended))
    assert seen == [
        (56, "none", False, False),
        (53, "warned", True, False),
        (50, "warned", True, False),
        (49, "suspended", False, True),
    ]


def test_a_suspended_user_cannot_bid_again() -> None:
    homes = [Home(0, 1), Home(1, 1)]
    world = World(areas=1, homes=homes, rules=replace(RULES_1, version=3, credit_start=53))
    plans = [
        Plan(homes[0], "sell", 300, [60] * 4, [160] * 4),
        Plan(homes[1], "buy", 900, [60] * 4, LOADS["kept"]),
    ]
    Play(world, plans).run(State.CLOSED)
    play = Play(world, [], make_spec(2, world.now_s)).run(State.COMMIT)
    fields = kinds.Commit(2, bytes(32))
    assert world.call(1, homes[0].key, "Commit", fields) == "suspended"
    assert world.call(1, homes[1].key, "Commit", fields) == ""
    assert play.number == 2
