"""Trades across areas: every (state, trigger) pair of the three tables, driven through the contract's own steps."""

from __future__ import annotations

import itertools

import pytest
from contract_world import GRID, World
from cross_world import CROSS_RULES, Across, streets
from msgspec.structs import replace
from watt_chain.contract import cross_area, cross_main
from watt_chain.contract.access import Refused, Session
from watt_chain.contract.cross_objects import CrossTrade, MainTrade, cross_key
from watt_chain.contract.event import State
from watt_chain.contract.orders import bond_u
from watt_chain.cross.tables import BEACON, BUYER, SELLER, Beacon, Buyer, Effect, Seller, Trigger
from watt_chain.ledger import BlockContext
from watt_chain.state import State as ChainState

PAID_U = 50_000


@pytest.fixture(scope="module")
def play() -> Across:
    return Across(streets()).matched()


def session_of(world: World, chain: int) -> Session:
    """A block in the making that never becomes final."""
    ledger = world.ledgers[chain]
    context = BlockContext(world.network, chain, ledger.head.height + 1, world.now_s, 0, ledger.validators)
    return Session(ChainState(ledger._tree, chain), context, world.market)


def put_area_trade(session: Session, side: str, state: str) -> CrossTrade:
    """The trade in some state, with what its party has locked in that state."""
    trade = replace(session.need(cross_key(1, 1), CrossTrade), state=state)
    assert trade.side == side
    bond = bond_u(CROSS_RULES, trade.terms.energy_wh)
    buys, charge_u = side == "buy", trade.terms.charge_u
    escrow = trade.limit_u_per_wh * trade.terms.energy_wh + (charge_u + 1) // 2 if buys else charge_u // 2
    holds = state in (Buyer.LOCKED, Buyer.BOUND, Seller.OFFERED, Seller.ACCEPTED, Seller.EFFECTIVE, Seller.SETTLED)
    if holds:
        session.move(trade.user, free_u=-escrow - bond, escrow_u=escrow, bond_u=bond)
        trade = replace(trade, escrow_u=escrow, bond_u=bond)
    if state in (Seller.SETTLED, Seller.CREDITED, Buyer.PAID):
        trade = replace(trade, paid_u=PAID_U)
    session.put(cross_key(1, 1), trade)
    return trade


def money(session: Session, user: bytes) -> tuple[int, int]:
    account = session.account(user)
    return account.free_u, account.escrow_u + account.bond_u


SIDES = {"buy": (1, Buyer, BUYER), "sell": (2, Seller, SELLER)}
CASES = [(side, state, trigger) for side in SIDES for state, trigger in itertools.product(SIDES[side][1], Trigger)]


@pytest.mark.row("H16", "H27")
@pytest.mark.parametrize(("side", "state", "trigger"), CASES)
def test_a_step_of_an_area_does_what_the_table_says_and_nothing_else(
    play: Across, side: str, state: Buyer | Seller, trigger: Trigger
) -> None:
    chain, _, table = SIDES[side]
    session = session_of(play.world, chain)
    trade = put_area_trade(session, side, state.value)
    event = replace(session.event(1), state=State.MATCHED)
    desk = cross_area.Desk(session, event)
    writes, sent = dict(session.state.overlay.writes), len(session.state.messages())
    before, grid = money(session, trade.user), money(session, session.office("grid").id)
    transit = cross_area.transit_of(session)
    moved = desk.step(trade, trigger, PAID_U)
    desk.flush()
    step = table[state].get(trigger)  # type: ignore[index]
    if step is None:
        assert moved is None
        assert session.state.overlay.writes == writes and len(session.state.messages()) == sent
        return
    assert moved is not None and moved.state == step[0] and session.need(cross_key(1, 1), CrossTrade) == moved
    locked_u = money(session, trade.user)[1] - before[1]
    effects = step[1]
    kinds = [message.kind for message in session.state.messages()[sent:]]
    wanted = ["CrossLocked"] * (Effect.SEND_LOCKED in effects)
    wanted += ["CrossReport"] * any(effect.startswith("send-") and effect != "send-locked" for effect in effects)
    assert kinds == wanted
    gone = [effect for effect in effects if effect in (Effect.REFUND, Effect.RELEASE, Effect.SPEND)]
    if Effect.ESCROW in effects or Effect.CONSUME in effects:
        assert locked_u == moved.escrow_u + moved.bond_u > 0
    elif gone:  # a trade that stood keeps its bond until its event is settled
        assert locked_u == -trade.escrow_u - (0 if cross_area.stood(moved) else trade.bond_u) < 0
        assert moved.bond_u == (trade.bond_u if cross_area.stood(moved) else 0) and moved.escrow_u == 0
    else:
        assert locked_u == 0
    after = cross_area.transit_of(session)
    assert after.sent_u - transit.sent_u == (PAID_U if Effect.SPEND in effects else 0)
    assert after.received_u - transit.received_u == (PAID_U if Effect.CREDIT in effects else 0)
    all_u = sum(money(session, trade.user)) + sum(money(session, session.office("grid").id))
    crossed = after.received_u - transit.received_u - after.sent_u + transit.sent_u
    assert all_u == sum(before) + sum(grid) + crossed


@pytest.mark.parametrize(("state", "trigger"), [*itertools.product(Beacon, Trigger)])
def test_a_step_of_the_main_chain_does_what_the_table_says_and_nothing_else(
    play: Across, state: Beacon, trigger: Trigger
) -> None:
    session = session_of(play.world, 0)
    trade = replace(session.need(cross_key(1, 1), MainTrade), state=state.value)
    reserved = (Beacon.LOCKED, Beacon.READY, Beacon.ACCEPT, Beacon.SETTLED)
    held = cross_main.position(session, 1)
    locked = replace(held, locked_u=trade.value_u if state in reserved else 0)
    session.put(b"position/1", locked)
    if state is Beacon.SETTLED:
        trade = replace(trade, paid_u=PAID_U)
    session.put(cross_key(1, 1), trade)
    writes, sent = dict(session.state.overlay.writes), len(session.state.messages())
    docket = cross_main.Docket(session)
    moved = docket.step(trade, trigger, PAID_U)
    docket.flush()
    step = BEACON[state].get(trigger)
    if step is None:
        assert moved is None
        assert session.state.overlay.writes == writes and len(session.state.messages()) == sent
        return
    goal, effects = step
    assert moved is not None and session.need(cross_key(1, 1), MainTrade).state == goal
    now, taker = cross_main.position(session, 1), cross_main.position(session, 2)
    assert now.locked_u == (trade.value_u if goal in reserved else 0)
    assert now.out_u == taker.in_u == (PAID_U if Effect.TRANSFER in effects else 0)
    targets = [message.target_chain for message in session.state.messages()[sent:]]
    if Effect.SEND_OUTCOME in effects:
        assert targets == [1, 2]
    elif Effect.SEND_SETTLED in effects or Effect.SEND_RETURNED in effects:
        assert targets == [1]
    else:
        assert targets == ([2] if Effect.SEND_PAY in effects else [])


def test_a_side_without_the_money_cannot_lock(play: Across) -> None:
    """H19, H27: the payer's own chain confirms that there is enough."""
    for side, trigger, chain in (("buy", Trigger.LOCK, 1), ("sell", Trigger.CONSENT, 2)):
        session = session_of(play.world, chain)
        trade = put_area_trade(session, side, "NONE")
        free_u = session.account(trade.user).free_u
        escrow_u = trade.limit_u_per_wh * trade.terms.energy_wh + (trade.terms.charge_u + 1) // 2
        need_u = bond_u(CROSS_RULES, trade.terms.energy_wh) + (escrow_u if side == "buy" else trade.terms.charge_u // 2)
        session.move(trade.user, free_u=need_u - 1 - free_u)
        with pytest.raises(Refused, match="balance"):
            cross_area.Desk(session, session.event(1)).step(trade, trigger)
        session.move(trade.user, free_u=1)
        assert cross_area.Desk(session, session.event(1)).step(trade, trigger) is not None
        assert session.account(trade.user).free_u == 0


def test_a_call_that_the_table_has_not_is_refused(play: Across) -> None:
    play = Across(streets()).matched()
    play.take()
    assert play.op("buy", [1]) == ""
    assert play.op("buy", [1]) == "decided"
    assert play.op("buy", [1], accept=False) == "decided"
    assert play.op("sell", [1], accept=False) == ""
    assert play.op("sell", [1]) == "decided"
    assert play.world.account(1, GRID.public).free_u == 0
