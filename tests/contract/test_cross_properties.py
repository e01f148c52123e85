"""Any order of calls, messages, deadlines, silence: money is conserved, both areas end alike, nothing stays locked."""

from __future__ import annotations

from contract_world import AGGREGATOR, GRID
from cross_world import Across, streets, total_u
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.event import State
from watt_chain.cross.tables import BUYER_STOOD, SELLER_STOOD, UNDECIDED

RESERVED = ("LOCKED", "READY", "ACCEPT", "SETTLED")
OVER = ("REJECT", "KILL", "PAID", "RETURNED", "VOID")
AFTER_ACCEPT = ("ACCEPT", "SETTLED", "PAID", "RETURNED", "VOID")


class CrossChaos(RuleBasedStateMachine):
    """An event of three areas that trade across their borders; the test is every relay and every clock."""

    @initialize(areas=st.sampled_from([2, 3]), stage=st.integers(0, 3))
    def begin(self, areas: int, stage: int) -> None:
        self.world = streets(areas)
        self.play = Across(self.world).matched()
        self.play.take()
        self.all_u = total_u(self.world)
        if stage:  # later stages are rarely reached step by step
            for number in self.play.numbers():
                assert (self.play.op("sell", [number]), self.play.op("buy", [number])) == ("", "")
            self.world.relay_all()
        if stage > 1:
            self.world.tick_all(self.play.spec.window_start_s)
        if stage > 2:
            for chain in self.world.areas:
                self.deliver(chain)

    def send(self, chain: int, key: object, kind: str, fields: object) -> None:
        refused, _ = self.world.dry(chain, key, kind, fields)  # type: ignore[arg-type]
        assert self.world.call(chain, key, kind, fields) == refused  # type: ignore[arg-type]

    @rule(side=st.sampled_from(["buy", "sell"]), number=st.integers(1, 2), accept=st.sampled_from([True, True, False]))
    def one_side(self, side: str, number: int, accept: bool) -> None:
        home = self.play.home(number, side)
        self.send(home.area, home.key, "CrossOp", cross_kinds.CrossOp(1, [number], accept))

    @rule()
    def together(self) -> None:
        home = self.play.home(1, "buy")
        self.send(1, home.key, "CrossOp", cross_kinds.CrossOp(1, self.play.numbers(), True))

    @rule()
    def carry_all(self) -> None:
        for chain in self.world.ledgers:
            self.world.now_s = max(self.world.now_s, self.world.ledgers[chain].head.time_s)
        self.world.relay_all()

    @rule(source=st.integers(0, 3), to=st.integers(0, 3))
    def carry(self, source: int, to: int) -> None:
        """The next block of one chain to another; what is not carried is late, perhaps for ever."""
        world = self.world
        if source == to or source not in world.ledgers or to not in world.ledgers:
            return
        node = world.validators[to][0]
        if to == 0:
            if world.anchored[source] < len(world.applied[source]):
                fields = world.anchor_fields(source, world.anchored[source])
                assert world.call(0, node, "Anchor", fields) == ""
                world.anchored[source] += 1
            return
        for inbox in world.inbox_fields(to, source)[:1]:
            self.send(to, node, "Inbox", inbox)

    @rule(chain=st.integers(0, 3), point=st.integers(0, 4))
    def clock(self, chain: int, point: int) -> None:
        spec, world = self.play.spec, self.world
        if chain in world.ledgers:
            instants = (
                spec.confirm_close_s,
                spec.window_start_s,
                spec.window_end_s,
                spec.meter_close_s,
                spec.settle_by_s,
            )
            world.now_s = max(instants[point], world.ledgers[chain].head.time_s)
            world.tick(chain)

    @rule(chain=st.integers(1, 3))
    def deliver(self, chain: int) -> None:
        """Everybody's registers at every boundary, if it is early enough; the last plan of an area keeps some back."""
        world, spec = self.world, self.play.spec
        if chain not in world.ledgers or world.ledgers[chain].head.time_s > spec.window_start_s:
            return
        plans = [plan for plan in self.play.plans if plan.home.area == chain]
        for position, time_s in enumerate(spec.boundaries_s()):
            world.now_s = time_s
            for plan in plans:
                frame = plan.home.checkpoint(time_s, plan.load_wh[position - 1] * 1000 if position else 0)
                assert world.call(chain, plan.home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""

    @rule()
    def end(self) -> None:
        self.world.now_s = self.world.ledgers[0].head.time_s
        self.send(0, self.world.validators[0][1], "CrossEnd", cross_kinds.CrossEnd(1))

    @rule(chain=st.integers(1, 3), kind=st.sampled_from(["SettlementCredit", "SettlementAmount"]))
    def settle(self, chain: int, kind: str) -> None:
        if chain in self.world.ledgers:
            self.world.now_s = self.world.ledgers[chain].head.time_s
            self.send(chain, AGGREGATOR, kind, kinds.EventCall(1))

    @rule()
    def price(self) -> None:
        self.world.now_s = self.world.ledgers[0].head.time_s
        self.send(0, GRID, "SettlementAmount", kinds.EventCall(1))

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def money_is_conserved(self) -> None:
        """I1: over all areas, with what is between them; and the main chain's positions say the same."""
        world, play = self.world, self.play
        assert total_u(world) == self.all_u
        mains = [world.main_trade(number) for number in play.numbers()]
        for chain in world.areas:
            held = world.position(chain)
            mine = [one for one in mains if one.terms.buyer_chain == chain]
            assert held.locked_u == sum(one.value_u for one in mine if one.state in RESERVED)
            assert held.out_u == sum(one.paid_u for one in mine if one.state == "PAID")
            assert held.out_u + held.locked_u <= held.endowed_u + held.in_u
            assert held.out_u <= world.transit(chain).sent_u
        for home in world.homes:
            account = world.account(home.area, home.key.public)
            trades = [trade for trade in play.trades(home.area) if trade.user == home.id]
            assert account.escrow_u == sum(trade.escrow_u for trade in trades)
            assert account.bond_u == sum(trade.bond_u for trade in trades)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def the_areas_follow_the_main_chain(self) -> None:
        """I2: no area acts on anything but what is recorded, and a recorded end has no contract."""
        for number in self.play.numbers():
            buyer, seller, main = self.play.states(number)
            if main not in AFTER_ACCEPT:
                assert buyer not in BUYER_STOOD and seller not in SELLER_STOOD
            else:
                assert buyer not in ("REFUNDED", "REFUSED") and seller not in ("REJECTED", "RELEASED")
            if buyer == "REFUNDED":
                assert main in ("REJECT", "KILL")

    def teardown(self) -> None:
        """Everything is carried, every deadline passes: nothing is left open, nothing locked."""
        if not hasattr(self, "world"):
            return
        world, spec = self.world, self.play.spec
        world.relay_all()
        for time_s in (spec.confirm_close_s, spec.settle_by_s):
            for chain in world.ledgers:
                world.now_s = max(time_s, world.ledgers[chain].head.time_s)
                world.tick(chain)
            world.relay_all()
            world.now_s = world.ledgers[0].head.time_s
            world.call(0, world.validators[0][0], "CrossEnd", cross_kinds.CrossEnd(1))
            world.relay_all()
        for number in self.play.numbers():
            buyer, seller, main = self.play.states(number)
            assert main in OVER and main not in UNDECIDED
            assert (buyer in BUYER_STOOD) == (seller in SELLER_STOOD) == (main in AFTER_ACCEPT)
            assert buyer != "BOUND" and seller != "EFFECTIVE"
        assert total_u(world) == self.all_u
        for chain in world.areas:
            done = world.event(chain).state in (State.ABORTED, State.SETTLED, State.CLOSED)
            assert done, world.event(chain).state
            assert world.position(chain).locked_u == 0
            assert world.transit(chain).sent_u == world.position(chain).out_u
            assert world.transit(chain).received_u == world.position(chain).in_u
        for home in world.homes:
            account = world.account(home.area, home.key.public)
            assert (account.escrow_u, account.bond_u) == (0, 0)


TestCrossChaos = CrossChaos.TestCase
TestCrossChaos.settings = settings(max_examples=20, stateful_step_count=30, deadline=None, derandomize=True)
