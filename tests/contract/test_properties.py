"""Any sequence of legal and illegal transactions: money is conserved, nothing raises, a refusal writes nothing.

World.block checks money after every block; World.dry checks that a refused call wrote and sent nothing.
"""

from __future__ import annotations

import msgspec
from contract_world import AGGREGATOR, GRID, REGULATOR, STRANGER, Home, Play, World, make_spec, usual_plans
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from watt_chain.contract import kinds
from watt_chain.contract.event import TRANSITIONS, EventSpec, State, check_spec
from watt_chain.contract.rules import RULES_1, RuleSet, check_rule_set
from watt_wire import checkpoint as wire

STARTS = [State.COMMIT, State.REVEAL, State.MATCHED, State.CONFIRMED, State.DELIVERING, State.METERED, State.SETTLED]

AREA_CALLS = [row for row in kinds.TABLE if row[0] == "area" and row[1] != "Resume"]
"""A Resume never comes to the contract as a call: no block is built with one that does not begin it."""


def of_fields(kind: type[msgspec.Struct]) -> st.SearchStrategy[list[object]]:
    """Arrays that have the form of a kind's fields more often than not."""
    value = st.one_of(
        st.integers(-2, 5),
        st.integers(0, 2**40),
        st.booleans(),
        st.binary(max_size=9),
        st.binary(min_size=32, max_size=32),
        st.sampled_from(["sell", "buy", "user", "plug", "h25", ""]),
        st.lists(st.integers(-1, 200), max_size=5),
    )
    count = len(kind.__struct_fields__)
    return st.lists(value, min_size=max(0, count - 1), max_size=count + 1)


class Chaos(RuleBasedStateMachine):
    """One event in one area, driven by anybody with anything."""

    @initialize(state=st.sampled_from(STARTS))
    def begin(self, state: State) -> None:
        self.world = World(areas=1)
        self.play = Play(self.world, usual_plans(self.world)).run(state)
        self.state = state

    def key(self, who: int) -> object:
        homes = [home.key for home in self.world.homes]
        return [REGULATOR, GRID, AGGREGATOR, self.world.validators[1][0], STRANGER, *homes][who % (5 + len(homes))]

    def send(self, who: int, kind: str, fields: object, seconds: int = 0) -> None:
        self.world.now_s += seconds
        key = self.key(who)
        if self.world.ledgers[1].next_nonce(key.public) < 0:  # type: ignore[attr-defined]
            self.world.dry(1, key, kind, fields)  # type: ignore[arg-type]
            return
        refused, _ = self.world.dry(1, key, kind, fields)  # type: ignore[arg-type]
        assert self.world.call(1, key, kind, fields) == refused  # type: ignore[arg-type]

    @rule(data=st.data(), who=st.integers(0, 20), row=st.sampled_from(AREA_CALLS))
    def anything(self, data: st.DataObject, who: int, row: tuple[str, str]) -> None:
        self.send(who, row[1], data.draw(of_fields(kinds.TABLE[row].fields)))  # type: ignore[index]

    @rule(who=st.integers(0, 20), kind=st.sampled_from(["Qualify", "SettlementCredit", "SettlementAmount", "Points"]))
    def aggregator_or_grid(self, who: int, kind: str) -> None:
        self.send(1 if kind == "Points" else who, kind, kinds.EventCall(1))
        self.send(2, kind, kinds.EventCall(1))

    @rule(pair=st.integers(1, 4), who=st.integers(5, 8), accept=st.booleans())
    def confirmation(self, pair: int, who: int, accept: bool) -> None:
        self.send(who, "Confirmtransaction", kinds.Confirmtransaction(1, accept or pair > 1))
        self.send(who, "Confirm", kinds.Confirm(1, pair, accept))

    @rule(who=st.integers(0, 3), wh=st.integers(0, 700), quality=st.sampled_from("USIR"), reason=st.integers(1, 9))
    def checkpoint(self, who: int, wh: int, quality: str, reason: int) -> None:
        home: Home = self.world.homes[who]
        time_s = self.world.now_s // 900 * 900 + (100 if wh % 2 else 0)
        kept = home.counter, home.previous
        frame = home.checkpoint(time_s, wh * 1000, time_quality=ord(quality), reason=reason)
        self.send(5 + who, "Checkpoint", kinds.Checkpoint(frame, wh))
        if wh % 3 == 0:
            home.counter, home.previous = kept
        assert len(frame) == wire.SIZE

    @rule(who=st.integers(0, 8), amount=st.integers(1, 300_000_000))
    def money(self, who: int, amount: int) -> None:
        self.send(who, "Withdraw", kinds.Withdraw(amount))
        self.send(1, "Deposit", kinds.Deposit(self.world.homes[who % 4].id, amount))

    @rule(seconds=st.sampled_from([0, 10, 100, 300, 900, 3000]))
    def time(self, seconds: int) -> None:
        self.world.tick(1, self.world.now_s + seconds)

    @invariant()
    def the_event_only_moves_along_its_table(self) -> None:
        if not hasattr(self, "world"):
            return
        now, seen, frontier = self.world.event(1).state, {self.state}, [self.state]
        while frontier:
            frontier = [new for one in frontier for new in TRANSITIONS[one].values() if new not in seen]
            seen.update(frontier)
        assert now in seen
        self.state = now

    @invariant()
    def what_is_locked_belongs_to_something_open(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for home in world.homes:
            account = world.account(1, home.key.public)
            pairs = world.pairs(1)
            escrow = sum(pair.buyer_escrow_u for pair in pairs if pair.buyer == home.id)
            escrow += sum(pair.seller_escrow_u for pair in pairs if pair.seller == home.id)
            bond = sum(pair.buyer_bond_u for pair in pairs if pair.buyer == home.id)
            bond += sum(pair.seller_bond_u for pair in pairs if pair.seller == home.id)
            stored = world.ledgers[1].state.get(b"sealed/1/" + home.id.hex().encode())
            deposit = world.sealed(home).deposit_u if stored else 0
            assert (account.escrow_u, account.bond_u) == (escrow, bond + deposit)


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=12, stateful_step_count=25, deadline=None, derandomize=True)

NUMBERS = st.one_of(st.integers(-1, 3), st.integers(-(2**63), 2**64 - 1))


@given(st.lists(NUMBERS, min_size=40, max_size=40), st.lists(st.sampled_from(["plain", "secure", "x"]), max_size=3))
def test_a_rule_set_of_any_numbers_is_judged_without_raising(numbers: list[int], classes: list[str]) -> None:
    names = [name for name in RuleSet.__struct_fields__ if isinstance(getattr(RULES_1, name), int)]
    changes: dict[str, object] = dict(zip(names, numbers, strict=False))
    made = msgspec.structs.replace(RULES_1, **changes, excluded_classes=classes)
    assert isinstance(check_rule_set(made), str)


@given(st.lists(NUMBERS, min_size=16, max_size=16), st.lists(NUMBERS, max_size=4))
def test_a_signal_of_any_numbers_is_judged_without_raising(numbers: list[int], values: list[int]) -> None:
    good = make_spec()
    names = [name for name in EventSpec.__struct_fields__ if isinstance(getattr(good, name), int)]
    changes: dict[str, object] = dict(zip(names[1:], numbers, strict=False))
    spec = msgspec.structs.replace(good, **changes, alpha_u_per_wh=values, profile_wh_per_mwh=values)
    assert isinstance(check_spec(spec, 6000), str)
