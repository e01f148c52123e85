"""The five stages and the contract's functions, in the words of the paper (model rows J)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from contract_world import AGGREGATOR, DEPOSIT_U, GRID, REGULATOR, STRANGER, Play, World, make_spec, usual_plans
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_chain.contract.market import Book
from watt_chain.contract.objects import Incentive, book_key, incentive_key
from watt_chain.contract.orders import PairState


def at(state: State, areas: int = 1) -> tuple[World, Play]:
    world = World(areas=areas)
    return world, Play(world, usual_plans(world)).run(state)


def book_of(world: World, chain: int = 1) -> Book:
    return codec.decode(world.ledgers[chain].state.get(book_key(1)) or b"", Book)


@pytest.mark.row("J1", "J20", "M38", "M48")
def test_the_five_stages_run_in_this_order_and_no_other() -> None:
    """J1: "user registration, information release, transaction matching, transaction settlement and price incentive"
    J20: "achieves information release, transaction matching, transaction settlement, price incentive"
    """
    world = World(areas=1)
    play = Play(world, usual_plans(world))
    later = {
        "Qualify": AGGREGATOR,
        "SettlementCredit": AGGREGATOR,
        "SettlementAmount": AGGREGATOR,
        "PriceIncentives": GRID,
    }
    steps = [play.announce, play.open, play.commit, play.reveal, play.match, play.confirm, play.window]
    done_by = {"Qualify": 4, "SettlementCredit": 99, "SettlementAmount": 99, "PriceIncentives": 99}
    for number, step in enumerate(steps, start=1):
        step()
        for kind, key in later.items():
            if number < done_by[kind] and not (kind == "Qualify" and number == 3):
                world.now_s = max(world.now_s, world.ledgers[1].head.time_s)
                assert world.dry(1, key, kind, kinds.EventCall(1))[0] in ("stage", "early")
    play.deliver()
    assert world.dry(1, GRID, "PriceIncentives", kinds.EventCall(1))[0] == "stage"
    play.settle()
    play.close()
    assert world.main_event().state is State.CLOSED


@pytest.mark.row("J2", "J3")
def test_only_registered_users_take_part() -> None:
    """J2: "including grid companies, aggregators, regulatory companies, and low-voltage users"
    J3: "After registering in the blockchain system, users can participate in demand response through smart contracts"
    """
    world, _ = at(State.COMMIT)
    assert world.dry(1, STRANGER, "Commit", kinds.Commit(1, bytes(32)))[0] == "unknown-signer"
    roles = {world.account(1, key.public).role for key in (REGULATOR, GRID, AGGREGATOR, world.homes[0].key)}
    assert roles == {"regulator", "grid", "aggregator", "user"}


@pytest.mark.row("J4", "A5", "B16", "L7")
def test_initial_sends_the_signal_to_every_area() -> None:
    """J4: "the grid company sends a demand signal to all users in the blockchain system through the Initial() function"
    A5: "issues demand response signals according to the load dispatching demand"
    """
    world = World(areas=3, homes=[])
    play = Play(world, [])
    for key in (REGULATOR, AGGREGATOR):
        assert world.dry(0, key, "Initial", kinds.Initial(play.spec))[0] == "role"
    play.announce()
    assert [world.event(chain).spec for chain in world.areas] == [play.spec] * 3


@pytest.mark.row("J5")
def test_the_boolean_lets_users_in_only_while_it_is_true() -> None:
    """J5: "A global variable of boolean type will be set in the function. If the variable is true, it means
    that it is allowed to participate in this demand response" """
    for state, is_open in (
        (State.ANNOUNCED, False),
        (State.COMMIT, True),
        (State.REVEAL, True),
        (State.MATCHED, False),
    ):
        world, play = at(state)
        assert world.event(1).open is is_open
        home = play.plans[0].home
        codes = [
            world.dry(1, home.key, "Commit", kinds.Commit(1, bytes(32)))[0],
            world.dry(1, home.key, "Reveal", play.plans[0].bid())[0],
        ]
        assert (codes == ["stage", "stage"]) is not is_open


@pytest.mark.row("J6", "J24", "A9")
def test_get_users_information_collects_two_parts() -> None:
    """J6: "the aggregator collects the information of low-voltage users participating in this demand response
    point-to-point transaction using the information collection function GetUsersInformation()"
    J24: "The information collected is divided into two parts: buyer information and seller information"
    """
    world, play = at(State.REVEAL)
    world.now_s = play.spec.reveal_close_s
    for key in (GRID, REGULATOR, play.plans[0].home.key):
        assert world.dry(1, key, "Qualify", kinds.EventCall(1))[0] == "role"
    world, play = at(State.QUALIFIED)
    book = book_of(world)
    assert {offer.user for offer in book.offers} == {plan.home.id for plan in play.plans if plan.side == "sell"}
    assert {bid.user for bid in book.bids} == {plan.home.id for plan in play.plans if plan.side == "buy"}


@pytest.mark.row("J7", "J8", "J9")
def test_the_book_holds_load_price_time_area_and_the_sellers_credit() -> None:
    """J7: "The buyer information includes the demand load, the price acceptable to the user, the desired
    response time, and the station area where the user is located"
    J8: "The seller information includes the load, price, response time, user's station area and user's credit
    value that the seller intends to provide"
    J9: "The variables calculated by the user are from the information collection function"
    """
    world, play = at(State.QUALIFIED)
    book = book_of(world)
    for plan in play.plans:
        rows = book.offers if plan.side == "sell" else book.bids
        row = next(one for one in rows if one.user == plan.home.id)
        assert (row.slot_wh, row.price_u_per_wh) == (plan.slot_wh, plan.price_u_per_wh)
    assert [offer.credit for offer in book.offers] == [60, 60]
    assert book.chain == 1
    used = {(part.offer, part.bid) for piece in play.solution().slices for part in piece.assignments}
    assert used <= {(offer.index, bid.index) for offer in book.offers for bid in book.bids}


@pytest.mark.row("J10")
def test_a_seller_that_offers_more_than_its_quota_is_not_qualified() -> None:
    """J10: "it is necessary to ensure that the seller is qualified to provide demand response quantity" """
    world = World(areas=1)
    plans = usual_plans(world)
    plans[0].slot_wh = [161, 50, 50, 50]
    Play(world, plans).run(State.QUALIFIED)
    assert world.sealed(plans[0].home).status == "over-quota"
    assert plans[0].home.id not in [offer.user for offer in book_of(world).offers]


@pytest.mark.row("J11", "J25", "A10")
def test_max_users_profit_lists_pairs_and_its_profit_is_checked() -> None:
    """J11: "the aggregator calculates the maximum profit of the user through the function MaxUsersProfit() and
    lists the matching pairs of transactions" """
    world, play = at(State.QUALIFIED)
    best = play.solution()
    nothing = replace(best.slices[0], assignments=[], value_u=0, comfort_u=0, charge_u=0)
    idle = replace(best, slices=[nothing], value_u=0)
    assert world.dry(0, AGGREGATOR, "Match", kinds.Match(idle))[0] == "solution-gap"
    # The aggregator's duty; who is registered on the main chain may bring a better one.
    assert world.dry(0, STRANGER, "Match", kinds.Match(best))[0] == "unknown-signer"
    assert world.dry(0, GRID, "Match", kinds.Match(best))[0] == ""
    play.match()
    assert [(pair.seller, pair.buyer) for pair in world.pairs(1)] != []


@pytest.mark.row("J12", "J13", "J14", "J15")
def test_a_pair_needs_the_choice_and_both_confirmations() -> None:
    """J12: "This trading pair is fed back to the user so that the user can decide whether to choose the trading
    matching result"
    J13: "the Confirmtransaction() function is required for the user to submit"
    J14: "needs to be confirmed by the buyer and the seller respectively"
    """
    world, play = at(State.MATCHED)
    pair = world.pairs(1)[0]
    homes = {plan.home.id: plan.home for plan in play.plans}
    seller, buyer = homes[pair.seller], homes[pair.buyer]
    yes, one = kinds.Confirmtransaction(1, True), kinds.Confirm(1, 1, True)
    assert world.call(1, seller.key, "Confirm", one) == "no-choice"
    assert world.call(1, seller.key, "Confirmtransaction", yes) == ""
    assert world.call(1, seller.key, "Confirm", one) == ""
    assert world.pairs(1)[0].state == PairState.SELLER_CONFIRMED
    assert world.call(1, buyer.key, "Confirmtransaction", yes) == ""
    assert world.call(1, buyer.key, "Confirm", one) == ""
    assert world.pairs(1)[0].state == PairState.CONFIRMED
    world.tick_all(play.spec.confirm_close_s)
    assert [pair.state for pair in world.pairs(1)].count(PairState.CONFIRMED) == 1


@pytest.mark.row("J16", "G7", "C12")
def test_settlement_credit_compares_the_terminals_data_with_the_contract() -> None:
    """J16: "the data obtained from the user intelligent terminals of the buyer and the seller after the
    completion of the demand response phase and the electricity quantity in the contract"
    G7: "the smart contract will compare the response value submitted by user A with the actual load of user A"
    C12: "the actual load of user A obtained from the low-voltage interactive response terminal"
    """
    world, play = at(State.METERED)
    for plan in play.plans:
        row = world.row(plan.home)
        assert row.metered_wh == plan.load_wh
        assert sum(row.sold_wh) + sum(row.bought_wh) == row.agreed_wh
    statuses = {plan.home.id: world.row(plan.home).status for plan in play.plans}
    assert list(statuses.values()) == ["performed", "breached", "performed", "performed"]


@pytest.mark.row("J17", "J26", "A11")
def test_settlement_amount_settles_between_the_parties() -> None:
    """J17: "the load and price at the time of signing the demand response contract and after the completion of
    the demand response phase are compared"
    J26: "The point-to-point trading parties settle the transaction amount"
    """
    world, play = at(State.SETTLED)
    rows = [world.row(plan.home) for plan in play.plans]
    assert sum(row.traded_u for row in rows) == 0
    for pair in world.pairs(1):
        full = sum(price * wh for price, wh in zip(pair.price_u_per_wh, pair.slot_wh, strict=True))
        seller = next(row for row in rows if row.user == pair.seller)
        assert pair.paid_u == full if seller.status == "performed" else pair.paid_u < full
    for plan, row in zip(play.plans, rows, strict=True):
        account = world.account(1, plan.home.key.public)
        assert account.free_u == DEPOSIT_U + row.traded_u - row.charge_u - row.penalty_u


@pytest.mark.row("J18", "I26", "I31")
def test_price_incentives_reward_performance_and_charge_breach_by_credit() -> None:
    """J18: "the reward and penalty prices for normal electricity use in the later period are calculated by the
    RP price incentive model based on the user's credit value"
    I26: "A corresponding proportion of price incentives will be given to the users who perform the contract,
    and economic penalties will be given to the users who break the contract"
    """
    world, play = at(State.CLOSED)
    normal = play.spec.normal_price_u_per_wh
    for plan in play.plans:
        row = world.row(plan.home)
        stored = world.ledgers[1].state.get(incentive_key(plan.home.id)) or b""
        price = codec.decode(stored, Incentive).price_u_per_wh
        assert price == row.rp_u_per_wh
        assert (price < normal) if row.status == "performed" else (price > normal)


@pytest.mark.row("J19", "K8", "C11")
def test_punish_takes_market_rights_below_the_threshold_and_cuts_nobody_off() -> None:
    """J19: "it can judge whether the low-voltage user has reached the power outage threshold" """
    from watt_chain.contract.rules import RULES_1

    world = World(areas=1, rules=replace(RULES_1, version=3, credit_start=52))
    play = Play(world, usual_plans(world)).run(State.CLOSED)
    defaulter = play.plans[1].home
    assert world.row(defaulter).credit_after == 48
    assert world.account(1, defaulter.key.public).suspended
    assert all(
        not world.account(1, plan.home.key.public).suspended for plan in play.plans if plan.home is not defaulter
    )
    assert not [kind for _, kind in kinds.TABLE if "ower" in kind or "witch" in kind]


@pytest.mark.row("J21", "J22", "J23")
def test_all_four_roles_run_the_contract_each_in_its_own_functions() -> None:
    """J21: "The grid companies, low-voltage users, aggregators and regulators in the system run the smart contract"
    J23: "According to the different roles of registration, they perform different functions in the low-voltage
    load response trading system"
    """
    world, _ = at(State.CLOSED)
    ran: dict[str, set[str]] = {}
    for chain, ledger in world.ledgers.items():
        for applied, _, _ in world.applied[chain]:
            for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
                if receipt.code == "":
                    ran.setdefault(world.account(chain, tx.signer).role, set()).add(tx.kind)
        assert ledger.head.height > 0
    assert {"regulator", "grid", "aggregator", "user"} <= set(ran)
    offices = [ran[role] for role in ("regulator", "aggregator", "user")]
    assert not offices[0] & offices[1]
    assert not offices[1] & offices[2]


@pytest.mark.row("I21", "I25")
def test_the_contract_is_signed_before_and_cleared_after_delivery() -> None:
    """I21: "signing a contract before demand response and clearing after demand response"
    I25: "match and conduct point-to-point transactions according to the data and transaction rules of the
    resource pool, and settle after the end of the demand response cycle"
    """
    world, play = at(State.DELIVERING)
    assert {pair.state for pair in world.pairs(1)} == {PairState.CONFIRMED}
    assert all(pair.paid_u == 0 for pair in world.pairs(1))
    assert world.dry(1, AGGREGATOR, "SettlementAmount", kinds.EventCall(1))[0] == "stage"
    assert make_spec().window_end_s <= make_spec().meter_close_s
    play.deliver()
    play.settle()
    assert {pair.state for pair in world.pairs(1)} == {PairState.SETTLED}
