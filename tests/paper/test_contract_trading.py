"""Trading inside an area, roles, credit and points, in the words of the paper (model rows A, B, G, I, K, F)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from contract_world import AGGREGATOR, DEPOSIT_U, GRID, REGULATOR, Home, Plan, Play, World, make_spec, usual_plans
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_chain.contract.market import Book
from watt_chain.contract.objects import (
    AnchorState,
    Incentive,
    Pool,
    Strength,
    anchor_key,
    book_key,
    incentive_key,
    main_book_key,
    rules_key,
    strength_key,
)
from watt_chain.contract.rules import RULES_1, RULES_2, RuleSet

KEPT, SAVED, NOT_SAVED = [220] * 4, [100] * 4, [160] * 4


def trade(seller_load: list[int], buyer_load: list[int], rules: object = RULES_1) -> tuple[World, Home, Home]:
    """One seller of 60 Wh a slot and one buyer, to the end of the event."""
    homes = [Home(0, 1), Home(1, 1)]
    world = World(areas=1, homes=homes, rules=rules)  # type: ignore[arg-type]
    plans = [Plan(homes[0], "sell", 300, [60] * 4, seller_load), Plan(homes[1], "buy", 900, [60] * 4, buyer_load)]
    Play(world, plans).run(State.CLOSED)
    return world, homes[0], homes[1]


# Trading inside an area ---------------------------------------------------------------------------------------


@pytest.mark.row("G1", "G2", "G3", "G9")
def test_a_trade_of_one_area_stays_in_the_areas_own_chain() -> None:
    """G2: "The transactions within the station are all in the same alliance chain"
    G9: "A has a small demand for electricity, which is reported to the system to respond to, and B purchases
    the electricity"
    """
    world = World(areas=2)
    Play(world, usual_plans(world)).run(State.CLOSED)
    for chain in world.areas:
        members = {home.id for home in world.homes if home.area == chain}
        assert world.pairs(chain)
        for pair in world.pairs(chain):
            assert {pair.seller, pair.buyer} <= members
        other = 3 - chain
        assert not any(world.ledgers[other].state.get(b"account/" + one.hex().encode()) for one in sorted(members))


@pytest.mark.row("G4", "K4")
def test_credit_and_balance_are_checked_before_the_trade() -> None:
    """G4: "user B confirms whether A's credit value is lower than the penalty threshold and whether his balance
    is sufficient"
    K4: "lower than the penalty threshold"
    """
    for credit, expected in ((49, "credit"), (50, "qualified")):
        homes = [Home(0, 1), Home(1, 1)]
        world = World(areas=1, homes=homes, rules=replace(RULES_1, version=3, credit_start=credit))
        plans = [Plan(homes[0], "sell", 300, [60] * 4, SAVED), Plan(homes[1], "buy", 900, [60] * 4, KEPT)]
        Play(world, plans).run(State.QUALIFIED)
        assert world.sealed(homes[0]).status == expected
    homes = [Home(0, 1), Home(1, 1)]
    world = World(areas=1, homes=homes)
    poor = kinds.Withdraw(DEPOSIT_U - RULES_1.commit_deposit_u)
    assert world.call(1, homes[1].key, "Withdraw", poor) == ""
    plans = [Plan(homes[0], "sell", 300, [60] * 4, SAVED), Plan(homes[1], "buy", 900, [60] * 4, KEPT)]
    Play(world, plans).run(State.QUALIFIED)
    assert world.sealed(homes[1]).status == "balance"


@pytest.mark.row("G6", "G8", "H20", "H28")
def test_the_seller_is_paid_for_what_it_saved_in_the_period() -> None:
    """G6: "A needs to save the submitted response power within this time period"
    G8: "According to the performance of users, corresponding rewards and punishments will be given"
    """
    world, seller, buyer = trade(SAVED, KEPT)
    assert world.row(seller).traded_u == 60 * (610 + 615 + 620 + 610)
    world, seller, buyer = trade(NOT_SAVED, KEPT)
    assert world.row(seller).traded_u == 0
    assert world.row(seller).penalty_u > 0
    world, seller, buyer = trade([130] * 4, KEPT)
    assert world.row(seller).delivered_wh == 120
    assert world.row(seller).traded_u == 30 * (610 + 615 + 620 + 610)
    assert world.row(buyer).status == "performed"


@pytest.mark.row("H19", "H27", "G5")
def test_the_payers_money_is_locked_before_delivery() -> None:
    """H19: "the alliance chain of the sender must confirm that there is enough balance in user A's account to pay"
    H27: "Atomicity means that the sender has enough balance, so that the sender has enough expenses to pay"
    """
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.CONFIRMED)
    for plan in play.plans:
        if plan.side == "buy":
            cost = sum(
                sum(price * wh for price, wh in zip(pair.price_u_per_wh, pair.slot_wh, strict=True))
                for pair in world.pairs(1)
                if pair.buyer == plan.home.id
            )
            assert world.account(1, plan.home.key.public).escrow_u >= cost > 0
            assert world.dry(1, plan.home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U))[0] == "balance"


@pytest.mark.row("I16", "I15")
def test_both_kinds_of_default_are_found_and_priced() -> None:
    """I16: "excessive power consumption and failure to reach the agreed power load"
    I15: "the power load may exceed the contracted load at this time due to the possibility of the seller's
    breach of contract"
    """
    world, seller, _ = trade(NOT_SAVED, KEPT)
    assert (world.row(seller).status, world.row(seller).penalty_u) == ("breached", 240 * 400 * 12 // 10)
    assert sum(world.main_event().need_wh) == 240
    world, _, buyer = trade(SAVED, [300] * 4)
    assert world.row(buyer).penalty_u == 320 * 900 * 12 // 10
    world, _, buyer = trade(SAVED, [100] * 4)
    assert world.row(buyer).penalty_u == 480 * 400


@pytest.mark.row("I20")
def test_full_performance_leaves_no_cost_to_the_grid() -> None:
    """I20: "If all users fulfill the agreement, the cost of the grid will just offset the settlement amount" """
    world, _, _ = trade(SAVED, KEPT)
    assert world.main_event().need_wh == [0] * 4
    assert world.main_event().cost_u == [0] * 4


@pytest.mark.row("I5")
def test_the_contract_price_depends_on_the_sellers_credit_when_the_rules_say_so() -> None:
    """I5: "the trading price is adjustable with user's credit, instead of being linear to the power trading volume" """
    prices = []
    for credit in (50, 90):
        world, _, _ = trade(SAVED, KEPT, replace(RULES_1, version=3, credit_start=credit, risk_u_per_wh=100))
        prices.append(world.pairs(1)[0].price_u_per_wh)
    assert prices == [[635, 640, 645, 635], [615, 620, 625, 615]]


# Roles --------------------------------------------------------------------------------------------------------


@pytest.mark.row("A3", "A4", "A8")
def test_the_grid_publishes_indicators_and_prices_and_touches_no_household() -> None:
    """A4: "grid companies only need to publish relevant power consumption control indicators, and do not need
    to participate in residents' power load management in depth"
    A8: "The real-time electricity price at the time of demand response is priced by the grid company with the
    lowest cost as the optimization goal"
    """
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.METERED)
    for key in (REGULATOR, AGGREGATOR):
        assert world.dry(0, key, "SettlementAmount", kinds.EventCall(1))[0] == "role"
    play.settle()
    event = world.main_event()
    for need, cost in zip(event.need_wh, event.cost_u, strict=True):
        cheap = min(need, 60)
        assert cost == cheap * 400 + (need - cheap) * 900
    home = play.plans[0].home
    for kind, fields in (
        ("Commit", kinds.Commit(1, bytes(32))),
        ("Confirm", kinds.Confirm(1, 1, True)),
        ("Checkpoint", kinds.Checkpoint(home.checkpoint(world.now_s), -1)),
    ):
        assert world.dry(1, GRID, kind, fields)[0] == "role"


@pytest.mark.row("A20")
def test_one_trading_system_serves_the_users_interest_and_the_grids_cost() -> None:
    """A20: "a two-layer bidding model based on the maximization of users' interests and the lowest cost of grid
    companies" """
    world, seller, buyer = trade(SAVED, KEPT)
    idle, _, _ = trade(NOT_SAVED, KEPT)
    assert world.main_event().value_u > 0
    pair, bids = world.pairs(1)[0], [world.sealed(home) for home in (seller, buyer)]
    assert all(bids[0].price_u_per_wh < price < bids[1].price_u_per_wh for price in pair.price_u_per_wh)
    assert sum(world.main_event().cost_u) < sum(idle.main_event().cost_u)


@pytest.mark.row("A13", "E17")
def test_only_the_regulator_makes_rules_and_they_hold_from_a_future_height() -> None:
    """A13: "responsible for formulating trading rules and supervising the process of trading" """
    world = World(areas=1, homes=[])
    height = world.ledgers[0].head.height
    change = kinds.RuleSetChange(codec.encode(RULES_2), height + 3)
    for key in (GRID, AGGREGATOR, world.validators[0][0]):
        assert world.dry(0, key, "RuleSet", change)[0] == "role"
    assert world.dry(0, REGULATOR, "RuleSet", replace(change, active_from_height=height))[0] == "height"
    assert world.call(0, REGULATOR, "RuleSet", change) == ""
    versions = []
    for _ in range(3):
        world.tick(0)
        header = world.ledgers[0].head.header
        assert header is not None
        versions.append(header.rules_version)
    assert versions == [1, 2, 2]


@pytest.mark.row("A2", "A17")
def test_a_user_that_does_not_take_part_is_left_alone() -> None:
    """A17: "low-voltage users independently choose to participate in the demand response trading process
    according to the optimal strategy provided by the signal and bidding model" """
    world = World(areas=1)
    plans = usual_plans(world)
    Play(world, plans[1:]).run(State.CLOSED)
    account = world.account(1, plans[0].home.key.public)
    assert (account.free_u, account.credit, account.points) == (DEPOSIT_U, 60, 0)


# Credit, points -----------------------------------------------------------------------------------------------


@pytest.mark.row("K1", "K2", "K5")
def test_credit_goes_up_by_two_and_down_by_four() -> None:
    """K1: "the credit value of the user in this transaction will be increased by two points"
    K2: "the credit value will be decreased by four points"
    K5: "Each low-voltage user will have the credit value of his/her own account"
    """
    world, seller, buyer = trade(NOT_SAVED, KEPT)
    assert world.account(1, seller.key.public).credit == 56
    assert world.account(1, buyer.key.public).credit == 62


@pytest.mark.row("K3", "K10", "H21")
def test_fifty_is_not_below_fifty_and_a_warning_comes_before() -> None:
    """K3: "if the credit value is lower than 50, the intelligent terminal will be controlled to power off"
    K10: "the user can be warned and powered off"
    """
    found = {}
    for start in (57, 54, 53):
        world, seller, _ = trade(NOT_SAVED, KEPT, replace(RULES_1, version=3, credit_start=start))
        account = world.account(1, seller.key.public)
        found[account.credit] = (account.warned, account.suspended)
    assert found == {53: (True, False), 50: (True, False), 49: (False, True)}


@pytest.mark.row("K7", "F5", "F16")
def test_more_credit_and_more_response_bring_more_points() -> None:
    """F16: "a certain amount of power incentive points will be issued according to the credit value and the
    response business strength"
    K7: "Reliable users with integrity will get more preferential rights and interests"
    """
    homes = [Home(n, 1, node=n // 2) for n in range(4)]
    world = World(areas=1, homes=homes)
    plans = [
        Plan(homes[0], "sell", 300, [60] * 4, SAVED),
        Plan(homes[1], "buy", 900, [60] * 4, KEPT),
        Plan(homes[2], "sell", 310, [60] * 4, NOT_SAVED),
        Plan(homes[3], "buy", 890, [60] * 4, KEPT),
    ]
    Play(world, plans).run(State.CLOSED)
    strong, weak = (
        codec.decode(world.ledgers[1].state.get(strength_key(node)) or b"", Strength).strength_ppm for node in (0, 1)
    )
    assert strong > weak
    points = [world.account(1, home.key.public).points for home in homes]
    assert points[1] > points[3] > points[2] == 0
    before = points[0]
    credit = world.account(1, homes[0].key.public).credit
    play = Play(world, [replace_plan(plan) for plan in plans], make_spec(2, world.now_s + 100))
    play.run(State.CLOSED)
    assert world.account(1, homes[0].key.public).credit == credit + 2
    rows = [world.row(home, number=play.number) for home in homes]
    shares = {row.credit_after: row.points for row in rows[:2]}
    assert world.account(1, homes[0].key.public).points == before + rows[0].points
    assert sum(row.points for row in rows) == RULES_1.points_per_event
    assert shares


def replace_plan(plan: Plan) -> Plan:
    return Plan(plan.home, plan.side, plan.price_u_per_wh, plan.slot_wh, plan.load_wh)


@pytest.mark.row("F15", "F17", "A7", "K9")
def test_every_block_brings_points_to_the_grids_pool() -> None:
    """F17: "When the system generates a new block, it also generates a large number of rewards, that is, power
    incentive points"
    F15: "The rewards obtained from the blocks will be uniformly recovered and managed by the grid"
    A7: "The points will be managed by the grid company in a unified way"
    """
    world = World(areas=1)

    def pool() -> Pool:
        return codec.decode(world.ledgers[1].state.get(b"pool") or b"", Pool)

    before = pool().points
    world.tick(1)
    assert pool().points == before + RULES_1.block_points
    play = Play(world, usual_plans(world)).run(State.SETTLED)
    for key in (AGGREGATOR, REGULATOR, play.plans[0].home.key):
        assert world.dry(1, key, "Points", kinds.EventCall(1))[0] == "role"
    play.close()
    held = sum(world.account(1, home.key.public).points for home in world.homes)
    assert pool().issued == held == RULES_1.points_per_event


# Two layers ---------------------------------------------------------------------------------------------------


@pytest.mark.row("B34", "B39", "B13")
def test_every_area_block_is_anchored_in_the_main_chain_in_order() -> None:
    """B34: "Each alliance chain is associated with the main chain"
    B39: "The data of the alliance chain consensus is synchronously spread to full nodes of the master station"
    B13: "must be uploaded to the regional alliance chain before being synchronized to the main chain network"
    """
    world = World(areas=2)
    Play(world, usual_plans(world)).run(State.CLOSED)
    for chain in world.areas:
        last = codec.decode(world.ledgers[0].state.get(anchor_key(chain)) or b"", AnchorState)
        head = world.ledgers[chain].head
        assert (last.height, last.block_hash) == (head.height, head.block_hash)


@pytest.mark.row("B17")
def test_the_main_chain_holds_what_is_needed_to_audit_the_response() -> None:
    """B17: "audit and evaluate the response effect according to the implementation requirements of the deployed
    smart contract" """
    world = World(areas=2)
    Play(world, usual_plans(world)).run(State.CLOSED)
    event = world.main_event()
    assert [report.result_root for report in event.areas] == [world.event(chain).result_root for chain in world.areas]
    assert all(world.ledgers[0].state.get(main_book_key(1, chain)) for chain in world.areas)
    assert 0 < event.value_u <= event.bound_u


# The three modules --------------------------------------------------------------------------------------------


@pytest.mark.row("I23", "I24")
def test_pool_rules_and_incentive_are_three_things_on_the_chain() -> None:
    """I23: "low-voltage side adjustable capacity resource pool, trading rules and price incentive mechanism"
    I24: "the response volume and expected price provided by users during bidding form a low-voltage side
    adjustable capacity resource pool"
    """
    world, seller, buyer = trade(SAVED, KEPT)
    state = world.ledgers[1].state
    pool = codec.decode(state.get(book_key(1)) or b"", Book)
    assert [(row.user, row.price_u_per_wh, row.slot_wh) for row in pool.offers] == [(seller.id, 300, [60] * 4)]
    assert [(row.user, row.price_u_per_wh, row.slot_wh) for row in pool.bids] == [(buyer.id, 900, [60] * 4)]
    assert codec.decode(state.get(rules_key(1)) or b"", RuleSet) == RULES_1
    incentive = codec.decode(state.get(incentive_key(seller.id)) or b"", Incentive)
    assert incentive.price_u_per_wh == world.row(seller).rp_u_per_wh < make_spec().normal_price_u_per_wh


@pytest.mark.row("K13", "I26")
def test_who_responds_is_better_off_than_who_does_not_and_than_who_breaks_its_word() -> None:
    """K13: "encourages users to actively respond and participate in reasonable power resource scheduling"
    I26: "A corresponding proportion of price incentives will be given to the users who perform the contract, and
    economic penalties will be given to the users who break the contract"
    """
    homes = [Home(0, 1), Home(1, 1), Home(2, 1), Home(3, 1)]
    world = World(areas=1, homes=homes)
    plans = [
        Plan(homes[0], "sell", 300, [60] * 4, SAVED),
        Plan(homes[1], "sell", 310, [60] * 4, NOT_SAVED),
        Plan(homes[2], "buy", 900, [120] * 4, [280] * 4),
    ]
    Play(world, plans).run(State.CLOSED)  # the fourth home takes no part
    kept, broke, _, passive = (world.account(1, home.key.public) for home in homes)
    assert kept.free_u > passive.free_u == DEPOSIT_U > broke.free_u
    assert kept.credit > passive.credit > broke.credit
    assert kept.points > passive.points == broke.points == 0
    normal = make_spec().normal_price_u_per_wh
    assert world.row(homes[0]).rp_u_per_wh < normal < world.row(homes[1]).rp_u_per_wh
