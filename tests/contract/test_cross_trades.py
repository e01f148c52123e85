"""Trades across areas from the matching to the last micro-unit, and every way in which one can fail to come about."""

from __future__ import annotations

from contract_world import AGGREGATOR, GRID, REGULATOR, STRANGER, Home, Plan, World, make_spec
from cross_world import CROSS_RULES, ENDOWED_U, Across, plans_of, streets, total_u
from msgspec.structs import replace
from pytest import mark, param
from watt_chain import codec
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.cross_objects import kill_after_s
from watt_chain.contract.cross_seats import CrossNodes
from watt_chain.contract.event import State

ALL_U = 4 * 200_000_000


def last(play: Across) -> list[tuple[str, str, str]]:
    return [play.states(number) for number in play.numbers()]


@mark.row("H2", "H4", "H10", "H12", "H16", "H17", "H19", "H20", "H22", "H23", "H24", "H25", "H26", "H28")
def test_quota_moves_between_areas_and_money_the_other_way() -> None:
    """H25: whoever saves after hours gives its power to a user of another area, and is paid by it."""
    world = streets()
    play = Across(world)
    play.run(State.MATCHED)
    assert last(play) == [("NONE", "NONE", "NONE")] * 2
    terms = world.main_trade(1).terms
    assert (terms.seller_chain, terms.buyer_chain) == (2, 1)
    assert [world.pairs(chain) for chain in world.areas] == [[], []]
    play.confirm()
    assert last(play) == [("BOUND", "EFFECTIVE", "ACCEPT")] * 2
    play.window()
    play.deliver()
    assert last(play) == [("PAID", "CREDITED", "PAID")] * 2
    play.settle()
    play.close()
    world.relay_all()
    buyers, sellers = (world.homes[:2], world.homes[2:])
    paid = {world.main_trade(n).terms.buyer: world.main_trade(n).paid_u for n in play.numbers()}
    for home in buyers:
        row, account = world.row(home), world.account(1, home.key.public)
        assert (row.side, row.traded_u, row.charge_u, row.credit_after) == ("buy", -paid[home.id], 85, 62)
        assert (account.free_u, account.escrow_u, account.bond_u) == (200_000_000 - paid[home.id] - 85, 0, 0)
        assert row.bought_wh == [wh - 160 for wh in row.metered_wh]
    for home in sellers:
        row, account = world.row(home), world.account(2, home.key.public)
        assert account.free_u == 200_000_000 + row.traded_u - row.charge_u
        assert (account.escrow_u, account.bond_u, row.credit_after) == (0, 0, 62)
    whole = sum(paid.values())
    assert sum(world.row(home).traded_u for home in sellers) == whole > 0
    assert (world.transit(1).sent_u, world.transit(2).received_u) == (whole, whole)
    assert [world.account(chain, GRID.public).free_u for chain in (1, 2)] == [170, 170]
    positions = [world.position(chain) for chain in (1, 2)]
    assert [(one.locked_u, one.out_u, one.in_u) for one in positions] == [(0, whole, 0), (0, 0, whole)]
    assert total_u(world) == ALL_U
    assert world.main_event().state is State.CLOSED


@mark.row("H11", "H13", "H14")
def test_a_call_of_either_side_is_refused_by_name() -> None:
    world = streets()
    play = Across(world)
    play.run(State.QUALIFIED)
    buyer, seller = world.homes[0], world.homes[2]

    def op(home: Home, *numbers: int, event: int = 1, accept: bool = True) -> str:
        fields = cross_kinds.CrossOp(event, list(numbers), accept)
        return world.dry(home.area, home.key, "CrossOp", fields)[0]

    assert op(buyer, 1, event=9) == "unknown-event"
    assert op(buyer, 1) == "stage"
    play.match()
    mine = next(number for number in play.numbers() if play.home(number, "buy") is buyer)
    other = next(number for number in play.numbers() if number != mine)
    assert op(buyer, mine) == "no-choice"
    play.take()
    assert op(buyer, 7) == "unknown-trade"
    assert op(buyer, other) == "not-yours"
    assert op(seller, mine) == ("" if play.home(mine, "sell") is seller else "not-yours")
    assert op(buyer, mine, mine) == "order"
    assert op(buyer, 2, 1) == "order"
    assert world.dry(1, GRID, "CrossOp", cross_kinds.CrossOp(1, [mine], True))[0] == "role"
    assert world.dry(1, STRANGER, "CrossOp", cross_kinds.CrossOp(1, [mine], True))[0] == "unknown-signer"
    assert op(buyer, mine) == ""
    assert world.dry(1, buyer.key, "CrossOp", cross_kinds.CrossOp(1, [], True))[0] == "malformed"


def test_the_seller_may_consent_before_or_after_the_lock() -> None:
    for order in (("sell", "buy"), ("buy", "sell")):
        play = Across(streets()).matched()
        play.take()
        for side in order:
            assert play.op(side, [1]) == ""
            play.world.relay_all()
        assert play.states() == ("BOUND", "EFFECTIVE", "ACCEPT")


def test_a_lock_after_the_sellers_deadline_is_refunded() -> None:
    """Ledger.md 6.6 attack 7: the buyer's area never refunds by its own clock, only on the main chain's word."""
    play = Across(streets()).matched()
    world = play.world
    play.take()
    assert (play.op("sell", [1]), play.op("buy", [1])) == ("", "")
    world.tick(2, play.spec.confirm_close_s)
    assert play.states()[1] == "REJECTED"
    for chain in (1, 2):
        world.tick(chain, play.spec.confirm_close_s)
    world.relay_across()
    assert play.states() == ("LOCKED", "REJECTED", "NONE")
    world.relay_all()
    assert play.states() == ("REFUNDED", "REJECTED", "REJECT")
    for home in world.homes:
        assert world.account(home.area, home.key.public).free_u == 200_000_000


@mark.parametrize("side", ["buy", "sell"])
def test_who_refuses_its_result_or_one_trade_ends_it(side: str) -> None:
    for whole in (True, False):
        play = Across(streets()).matched()
        world = play.world
        if whole:
            home = play.home(1, side)
            fields = kinds.Confirmtransaction(1, False)
            assert world.call(home.area, home.key, "Confirmtransaction", fields) == ""
        else:
            play.take()
            assert play.op("sell" if side == "buy" else "buy", [1]) == ""
            assert play.op(side, [1], accept=False) == ""
        world.relay_all()
        world.tick_all(play.spec.confirm_close_s)
        world.relay_all()
        ends = {"buy": ("REFUSED", "REJECTED", "REJECT"), "sell": ("REFUNDED", "REJECTED", "REJECT")}[side]
        assert play.states() == (("REFUSED", *ends[1:]) if whole else ends)
        assert total_u(world) == ALL_U
        assert sum(world.account(h.area, h.key.public).free_u for h in world.homes) == ALL_U


@mark.row("H16")
def test_the_main_chain_ends_a_trade_whose_sellers_area_stands_still() -> None:
    """Ledger.md 6.6 attack 8: the seller's area halts after the lock; the money returns."""
    play = Across(streets()).matched()
    world = play.world
    play.take()
    assert (play.op("sell", [1]), play.op("buy", [1])) == ("", "")
    node = world.validators[0][0]
    world.relay_up()
    assert world.dry(0, node, "CrossEnd", cross_kinds.CrossEnd(9))[0] == "unknown-event"
    world.now_s = kill_after_s(play.spec) - 1
    assert world.call(0, node, "CrossEnd", cross_kinds.CrossEnd(1)) == "early"
    world.now_s += 1
    for key in (AGGREGATOR, GRID, REGULATOR):
        assert world.dry(0, key, "CrossEnd", cross_kinds.CrossEnd(1))[0] == ""
    assert world.call(0, node, "CrossEnd", cross_kinds.CrossEnd(1)) == ""
    assert world.call(0, node, "CrossEnd", cross_kinds.CrossEnd(1)) == "early"
    world.relay_down()
    assert play.states()[0] == "REFUNDED" and play.states()[2] == "KILL"
    assert world.main_trade().reason == "late"
    # The seller's area wakes up: it takes the lock, and hears that the trade is over.
    world.relay_all()
    assert play.states() == ("REFUNDED", "REJECTED", "KILL")
    assert sum(world.account(h.area, h.key.public).free_u for h in world.homes) == ALL_U


def test_an_acceptance_that_comes_after_the_kill_has_no_effect() -> None:
    play = Across(streets()).matched()
    world = play.world
    play.take()
    assert (play.op("sell", [1]), play.op("buy", [1])) == ("", "")
    world.relay_across()
    assert play.states() == ("LOCKED", "ACCEPTED", "NONE")
    world.now_s = kill_after_s(play.spec)
    assert world.call(0, world.validators[0][0], "CrossEnd", cross_kinds.CrossEnd(1)) == ""
    world.relay_all()
    assert play.states() == ("REFUNDED", "RELEASED", "KILL")
    assert sum(world.account(h.area, h.key.public).free_u for h in world.homes) == ALL_U


def test_what_is_settled_too_late_is_void_and_the_buyer_is_not_charged() -> None:
    """The seller's area stands still after the window: the main chain prices the event and voids the trade."""
    play = Across(streets()).matched()
    world = play.world
    play.confirm()
    play.window()
    silent = world.ledgers[2], world.anchored.pop(2)
    del world.ledgers[2]
    everybody, play.plans = play.plans, [plan for plan in play.plans if plan.home.area == 1]
    super(Across, play).deliver()
    world.now_s = (play.spec.meter_close_s + play.spec.settle_by_s) // 2
    super(Across, play).settle()
    assert {world.trade(1, number).state for number in play.numbers()} == {"RETURNED"}
    assert {world.main_trade(number).state for number in play.numbers()} == {"VOID"}
    row = world.row(world.homes[0])
    assert (row.traded_u, row.charge_u, row.status, row.bought_wh) == (0, 0, "performed", [60, 60, 60, 60])
    buyers, anchored = world.ledgers.pop(1), world.anchored.pop(1)
    world.ledgers[2], world.anchored[2] = silent
    play.plans = [plan for plan in everybody if plan.home.area == 2]
    super(Across, play).deliver()
    world.ledgers[1], world.anchored[1] = buyers, anchored
    assert {world.trade(2, number).state for number in play.numbers()} == {"SETTLED"}
    world.relay_all()
    assert {world.trade(2, number).state for number in play.numbers()} == {"RETURNED"}
    assert {world.main_trade(number).state for number in play.numbers()} == {"VOID"}
    play.settle_area(2)
    assert world.account(2, world.homes[2].key.public).free_u == 200_000_000
    assert [world.position(chain).locked_u for chain in (1, 2)] == [0, 0]
    assert total_u(world) == ALL_U


@mark.row("H16")
def test_an_event_that_is_aborted_in_one_area_pays_nothing_in_the_other() -> None:
    for chain, ends in ((2, ("RETURNED", "RETURNED", "RETURNED")), (1, ("PAID", "CREDITED", "PAID"))):
        play = Across(streets()).matched()
        world = play.world
        play.confirm()
        play.window()
        if chain == 2:  # the seller's area gives up before it has metered
            world.tick(2, play.spec.settle_by_s)
            assert world.event(2).state is State.ABORTED
        else:
            super(Across, play).deliver()
            world.tick(1, play.spec.settle_by_s)
            assert world.event(1).state is State.ABORTED
        world.relay_all()
        assert last(play) == [ends] * 2
        for home in world.homes:
            account = world.account(home.area, home.key.public)
            assert (account.escrow_u, account.bond_u) == (0, 0) or (chain == 1 and home.area == 2)
        assert total_u(world) == ALL_U


def test_an_area_that_refuses_its_slice_ends_its_trades_at_once() -> None:
    play = Across(streets())
    world = play.world
    play.run(State.QUALIFIED)
    assert world.call(0, AGGREGATOR, "Match", [play.solution()]) == ""
    world.now_s = play.spec.confirm_close_s
    world.tick(2)
    assert world.event(2).state is State.ABORTED
    world.now_s = play.spec.match_by_s
    for fields in world.inbox_fields(1):
        assert world.call(1, world.validators[1][0], "Inbox", fields) == ""
    play.plans = [plan for plan in play.plans if plan.home.area == 1]
    play.take()
    assert play.op("buy", [1]) == ""
    world.relay_all()
    assert [world.main_trade(number).state for number in play.numbers()] == ["KILL", "KILL"]
    assert world.trade(1).state == "REFUNDED"
    assert world.main_trade().reason == "area"


FULL, SHORT, MORE, LESS = [100] * 4, [130] * 4, [250] * 4, [180] * 4
DEFAULTS = [
    param(FULL, [220] * 4, "paid", 0, 0, (62, 62), id="both perform"),
    param(SHORT, [220] * 4, "part", 1, 0, (56, 62), id="the seller delivers less"),
    param(FULL, MORE, "paid", 0, 1, (62, 56), id="the buyer draws more"),
    param(FULL, LESS, "paid", 0, 1, (62, 56), id="the buyer draws less"),
    param(SHORT, MORE, "part", 1, 1, (56, 56), id="both break"),
    param(None, [220] * 4, "nothing", 0, 0, (60, 62), id="the seller's data is missing"),
    param(FULL, None, "paid", 0, 0, (62, 60), id="the buyer's data is missing"),
]


@mark.row("H20", "H21", "H22")
@mark.parametrize(("seller", "buyer", "pays", "seller_owes", "buyer_owes", "credit"), DEFAULTS)
def test_every_default_has_the_price_it_has_inside_an_area(
    seller: list[int] | None,
    buyer: list[int] | None,
    pays: str,
    seller_owes: bool,
    buyer_owes: bool,
    credit: tuple[int, int],
) -> None:
    """CONTRACT.md 11, for a pair of two areas; lambda is 400 or 900, a penalty 1.2 lambda a Wh."""
    world = streets()
    homes = world.homes
    plans = [
        Plan(homes[0], "buy", 900, [60] * 4, buyer or [0] * 4, late_registers=buyer is None),
        Plan(homes[2], "sell", 300, [60] * 4, seller or [0] * 4, late_registers=seller is None),
    ]
    play = Across(world, plans)
    for step in (play.announce, play.open, play.commit, play.reveal, play.match, play.confirm, play.window):
        step()
    assert last(play) == [("BOUND", "EFFECTIVE", "ACCEPT")]
    play.deliver()
    play.settle()
    play.close()
    world.relay_all()
    terms, trade = world.main_trade().terms, world.main_trade()
    bought, sold = world.row(homes[0]), world.row(homes[2])
    whole = sum(price * wh for price, wh in zip(terms.price_u_per_wh, terms.slot_wh, strict=True))
    half = sum(price * 30 for price in terms.price_u_per_wh)
    assert trade.paid_u == {"paid": whole, "part": half, "nothing": 0}[pays]
    assert (bought.traded_u, sold.traded_u) == (-trade.paid_u, trade.paid_u)
    charged = pays != "nothing"
    assert (bought.charge_u, sold.charge_u) == ((85, 85) if charged else (0, 0))
    assert (sold.penalty_u > 0, bought.penalty_u > 0) == (bool(seller_owes), bool(buyer_owes))
    assert (sold.credit_after, bought.credit_after) == credit
    for home, row in ((homes[0], bought), (homes[2], sold)):
        account = world.account(home.area, home.key.public)
        assert account.free_u == 200_000_000 + row.traded_u - row.charge_u - row.penalty_u
        assert (account.escrow_u, account.bond_u) == (0, 0)
    assert total_u(world) == ALL_U
    assert last(play)[0][2] == ("PAID" if charged else "RETURNED")


def test_a_lock_above_what_the_area_may_send_out_ends_the_trade() -> None:
    """Ledger.md 6.6 attack 10: pessimistic accounting and the rate of one event."""
    for endow, reason in (
        (cross_kinds.Endow(1, 1000, ENDOWED_U), "bound"),
        (cross_kinds.Endow(1, ENDOWED_U, 1000), "rate"),
    ):
        play = Across(streets()).matched()
        world = play.world
        assert world.call(0, GRID, "Endow", endow) == ""
        play.take()
        assert (play.op("sell", [1]), play.op("buy", [1])) == ("", "")
        world.relay_all()
        assert play.states() == ("REFUNDED", "RELEASED", "KILL")
        assert world.main_trade().reason == reason
        assert world.position(1).locked_u == 0


def test_endowing_is_the_grids_and_never_below_what_is_out() -> None:
    play = Across(streets()).matched()
    world = play.world
    assert world.dry(0, GRID, "Endow", cross_kinds.Endow(9, 1, 1))[0] == "chain"
    assert world.dry(0, REGULATOR, "Endow", cross_kinds.Endow(1, 1, 1))[0] == "role"
    play.confirm()
    locked = world.position(1).locked_u
    assert locked == sum(world.main_trade(number).value_u for number in play.numbers())
    assert world.dry(0, GRID, "Endow", cross_kinds.Endow(1, locked - 1, 0))[0] == "below"
    assert world.dry(0, GRID, "Endow", cross_kinds.Endow(1, locked, 0))[0] == ""


def test_the_rate_counts_one_event_and_the_bound_all() -> None:
    world = streets()
    first = Across(world)
    first.run(State.CLOSED)
    rate_u, out_u = world.position(1).rate_locked_u, world.position(1).out_u
    assert world.call(0, GRID, "Endow", cross_kinds.Endow(1, out_u + rate_u, rate_u)) == ""
    start_s = first.spec.settle_by_s + 900
    again = Across(world, spec=make_spec(2, start_s - start_s % 900))
    again.run(State.CLOSED)
    world.relay_all()
    assert [again.states(number)[2] for number in again.numbers()] == ["PAID", "PAID"]
    assert total_u(world) == ALL_U


def test_terms_say_nothing_of_the_other_areas_bids() -> None:
    """CONTRACT.md 15: the book of another area is seen by no station; a price is all that a pair reveals."""
    play = Across(streets()).matched()
    assert play.world.trade(2).limit_u_per_wh == 0
    assert play.world.trade(1).limit_u_per_wh in (800, 900)
    assert play.world.trade(1).terms == play.world.trade(2).terms == play.world.main_trade().terms


def test_a_matching_that_crosses_inside_one_area_is_refused() -> None:
    """H13: "both low-voltage users of the transaction are not in the same station area"."""
    play = Across(streets())
    play.run(State.QUALIFIED)
    solution = play.solution()
    assert solution.across is not None
    wrong = [replace(one, offer_chain=1, offer=0) for one in solution.across.crossings]
    changed = replace(solution, across=replace(solution.across, crossings=wrong))
    assert play.world.dry(0, AGGREGATOR, "Match", [changed])[0] == "across-same-area"


def test_strength_and_points_count_trades_of_two_areas() -> None:
    world = streets()
    play = Across(world, plans_of(world))
    play.run(State.CLOSED)
    points = [world.row(home).points for home in world.homes]
    # Buyers sit behind one node of area 1, sellers behind two of area 2, of which one is its cross-node (17.6).
    (seat,) = codec.decode(world.ledgers[2].state.get(b"crossnodes") or b"", CrossNodes).seats
    weights = [5 if home.node == seat.number else 4 for home in world.homes[2:]]
    assert sorted(weights) == [4, 5]
    assert points[:2] == [50_000] * 2 and sum(points[2:]) == 100_000
    assert [round(point * 9 / 100_000) for point in points[2:]] == weights
    assert CROSS_RULES.points_per_event == 100_000


def test_world_totals_see_money_between_areas() -> None:
    """The sum of the tests is not blind: money taken out of one area and not yet arrived is counted."""
    play = Across(streets()).matched()
    world: World = play.world
    play.confirm()
    play.window()
    super(Across, play).deliver()
    world.relay_up()
    for fields in world.inbox_fields(1):
        assert world.call(1, world.validators[1][0], "Inbox", fields) == ""
    assert world.transit(1).sent_u > 0 == world.transit(2).received_u
    assert total_u(world) == ALL_U
