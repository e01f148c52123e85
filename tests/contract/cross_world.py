"""Two streets that trade with each other: area 1 has only buyers, area 2 only sellers, area 3 a seller as well."""

from __future__ import annotations

from contract_world import AGGREGATOR, GRID, REGULATOR, START_S, Home, Plan, Play, World, make_spec
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.cross_objects import CrossTrade, cross_key, kill_after_s
from watt_chain.contract.event import EventSpec, State
from watt_chain.contract.rules import RULES_1, RuleSet

CROSS_RULES: RuleSet = replace(RULES_1, version=3, crossings=8)
ENDOWED_U = 1_000_000_000


def streets(areas: int = 2, rules: RuleSet = CROSS_RULES, nodes: int = 2) -> World:
    """Buyers 0 and 1 in area 1, sellers 2 and 3 in area 2, seller 4 in area 3 if there is one."""
    homes = [Home(0, 1), Home(1, 1), Home(2, 2, node=1), Home(3, 2)] + [Home(4, 3)] * (areas > 2)
    world = World(areas=areas, rules=rules, homes=homes, nodes=nodes)
    for chain in world.areas:
        assert world.call(0, GRID, "Endow", cross_kinds.Endow(chain, ENDOWED_U, ENDOWED_U)) == ""
    return world


def plans_of(world: World) -> list[Plan]:
    """Everybody delivers; quota is 160 Wh in each of four slots."""
    homes = world.homes
    plans = [
        Plan(homes[0], "buy", 900, [60, 60, 60, 60], [220, 220, 220, 220]),
        Plan(homes[1], "buy", 800, [30, 30, 30, 30], [190, 190, 190, 190]),
        Plan(homes[2], "sell", 300, [60, 60, 60, 60], [100, 100, 100, 100]),
        Plan(homes[3], "sell", 350, [30, 30, 30, 30], [130, 130, 130, 130]),
    ]
    if len(homes) == 4:
        return plans
    # One buyer that needs two sellers, of area 2 and of area 3.
    sellers = [Plan(home, "sell", 300, [30, 30, 30, 30], [130, 130, 130, 130]) for home in (homes[2], homes[4])]
    return [plans[0], *sellers]


class Across(Play):
    """An event whose pairs are all across areas. `number` picks what is looked at where there are several trades."""

    def __init__(self, world: World, plans: list[Plan] | None = None, spec: EventSpec | None = None) -> None:
        super().__init__(world, plans_of(world) if plans is None else plans, spec or make_spec(start_s=START_S))

    def trades(self, chain: int) -> list[CrossTrade]:
        state = self.world.ledgers[chain].state
        found = [codec.decode(state.get(key) or b"", CrossTrade) for key in state.keys(b"cross/%d/" % self.number)]
        return sorted(found, key=lambda one: one.terms.number)

    def states(self, number: int = 1) -> tuple[str, str, str]:
        """(buyer's area, seller's area, main chain)."""
        main = self.world.main_trade(number, self.number)
        ends = (self.world.trade(chain, number, self.number) for chain in
                (main.terms.buyer_chain, main.terms.seller_chain))  # fmt: skip
        buyer, seller = (one.state for one in ends)
        return buyer, seller, main.state

    def numbers(self) -> list[int]:
        keys = self.world.ledgers[0].state.keys(b"cross/%d/" % self.number)
        return sorted(int(key.rsplit(b"/", 1)[1]) for key in keys)

    def home(self, number: int, side: str) -> Home:
        terms = self.world.main_trade(number, self.number).terms
        return next(home for home in self.world.homes if home.id == (terms.buyer if side == "buy" else terms.seller))

    def op(self, side: str, numbers: list[int], accept: bool = True) -> str:
        """The buyer's or the seller's CrossOp of these trades, all of one party."""
        home = self.home(numbers[0], side)
        return self.world.call(home.area, home.key, "CrossOp", cross_kinds.CrossOp(self.number, numbers, accept))

    def take(self) -> None:
        """Everybody takes its matching result."""
        for plan in self.plans:
            if any(trade.user == plan.home.id for trade in self.trades(plan.home.area)):
                fields = kinds.Confirmtransaction(self.number, True)
                assert self.world.call(plan.home.area, plan.home.key, "Confirmtransaction", fields) == ""

    def confirm(self) -> None:
        """All trades come about; locks and acceptances travel before the deadline."""
        self.take()
        for number in self.numbers():
            assert self.op("sell", [number]) == ""
            assert self.op("buy", [number]) == ""
        self.world.relay_all()
        self.world.tick_all(self.spec.confirm_close_s)

    def deliver(self) -> None:
        super().deliver()
        self.world.relay_all()

    def settle(self) -> None:
        super().settle()
        self.world.relay_all()

    def settle_area(self, chain: int) -> None:
        assert self.world.call(chain, AGGREGATOR, "SettlementAmount", kinds.EventCall(self.number)) == ""

    def matched(self) -> Across:
        self.run(State.MATCHED)
        return self


def total_u(world: World) -> int:
    """Money of all areas, what is on its way between them counted: it never changes but by deposits and withdrawals."""
    transits = [world.transit(chain) for chain in world.areas]
    held = 0
    for chain in world.areas:
        for key in world.ledgers[chain].state.keys(b"account/"):
            account = world.account_at(chain, key)
            held += account.free_u + account.escrow_u + account.bond_u
    return held + sum(one.sent_u - one.received_u for one in transits)


__all__ = ["kill_after_s", "CROSS_RULES", "Across", "cross_key", "plans_of", "streets", "total_u", "REGULATOR"]
