"""The grid company's office: announces the event, prices the deviation, sets incentives, punishes, hands out points,
and says on the main chain how much it has paid into each area: more than that no area can send to others.

Functions of the paper it signs (section 4.1): Initial() on the main chain; SettlementAmount() there, which is the lower
level's price for all areas; PriceIncentives(), Punish() and the points in each area, in this order.

`due` is a pure function of the ledgers and the protocol clock: called again it says the same, after a restart too.
"""

from collections.abc import Callable

from msgspec.structs import replace
from watt_chain.contract.cross_kinds import Endow
from watt_chain.contract.cross_objects import Position, position_key
from watt_chain.contract.event import EventSpec, State
from watt_chain.contract.kinds import EventCall, Initial
from watt_chain.contract.objects import SUPPLY_KEY, AreaEvent, MainEvent, Supply
from watt_chain.contract.rules import PPM

from watt_master.config import EventFile
from watt_master.desk import Wish
from watt_master.view import MAIN, View

XY_UNKNOWN_MS = (20, 60)
"X and Y of a first event that nothing could be measured for: a slow town's network."
RATE_PPM = 500_000
"""Share of an area's money that its buyers may lock for other areas in one event: half, so that validators that turn
against their area cannot send away everything at once; an evening's trades are a small part of what homes hold."""
AWAITED = ("sliced", "matched")
"Reports of an area whose metering is still to come."


class Grid:
    """What the grid company has to sign now."""

    role = "grid"

    def __init__(self, event: EventFile | None, measured: Callable[[], tuple[int, int] | None] = lambda: None) -> None:
        """`measured()` is (X, Y) of the running network in ms, None while nobody knows (watt_node.probe)."""
        self._file = event
        self._spec = None if event is None else event.spec()
        self._measured = measured
        self.missed = False
        "The announcement could not be made while bids could still be taken."

    def due(self, view: View, now_s: int) -> list[Wish]:
        """Transactions that are due at `now_s` (protocol seconds), main chain first, areas ascending."""
        wishes = self._announcement(view, now_s)
        for number in view.numbers(MAIN):
            main = view.main_event(number)
            if main is not None and _to_price(main, now_s):
                stage = ",".join(report.state for report in main.areas)
                wishes.append(Wish(MAIN, "SettlementAmount", f"event {number}", EventCall(number), stage))
            if main is not None and main.state is State.ANNOUNCED and main.spec.open_s <= now_s:
                wishes += _endowments(view, main, now_s)
        for chain in view.areas():
            for number in view.numbers(chain):
                event = view.area_event(chain, number)
                if event is not None and event.state is State.SETTLED:
                    wishes.append(_after_settlement(chain, event))
        return wishes

    def _announcement(self, view: View, now_s: int) -> list[Wish]:
        if self._file is None or self._spec is None:
            return []
        number = self._file.event
        if now_s < self._file.announce_s or view.main_event(number) is not None:
            return []
        if now_s >= self._spec.commit_close_s or view.last_event(MAIN) >= number:
            self.missed = True  # the contract would refuse it; a person must set a new number and new instants
            return []
        spec = self._with_times(view, now_s)
        if spec is None:
            return []
        stage = f"open {view.numbers(MAIN)} last {view.last_event(MAIN)}"
        return [Wish(MAIN, "Initial", f"event {number}", Initial(spec), stage)]

    def _with_times(self, view: View, now_s: int) -> EventSpec | None:
        """The signal with X and Y of the running network, fixed for the event (U18); None while they may still come.

        Who can measure nothing before the collection opens takes the figures of the last event, or XY_UNKNOWN_MS.
        """
        assert self._file is not None and self._spec is not None
        if self._file.x_ms is not None or self._spec.x_ms:
            return self._spec
        last = view.main_event(view.last_event(MAIN))
        known = self._measured()
        if known is None and now_s < self._spec.open_s:
            return None
        if known is None:
            known = XY_UNKNOWN_MS if last is None else (last.spec.x_ms, last.spec.y_ms)
        self._spec = replace(self._spec, x_ms=known[0], y_ms=known[1])  # a call that is repeated says the same
        return self._spec

    def status(self) -> dict[str, object]:
        """For status.json."""
        number = None if self._file is None else self._file.event
        return {"event": number, "announcement_missed": self.missed}


def _endowments(view: View, main: MainEvent, now_s: int) -> list[Wish]:
    """What has been paid into each area, where areas may trade and the main chain does not know it yet: when bids are
    taken, and again when the books are closed."""
    rules = view.rules(MAIN, main.rules_version)
    if rules is None or not rules.crossings:
        return []
    wishes: list[Wish] = []
    for chain in view.areas():
        supply = view.read(chain, SUPPLY_KEY, Supply)
        held = view.read(MAIN, position_key(chain), Position)
        net_u = 0 if supply is None else supply.deposited_u - supply.withdrawn_u
        if net_u != (0 if held is None else held.endowed_u):
            stage = "closed" if now_s >= main.spec.reveal_close_s else "open"
            fields = Endow(chain, net_u, net_u * RATE_PPM // PPM)
            wishes.append(Wish(MAIN, "Endow", f"event {main.event} area {chain}", fields, stage))
    return wishes


def _to_price(main: MainEvent, now_s: int) -> bool:
    """Whether a matched event waits for the lower level's price.

    As the contract has it: when every area has reported its metering, or half the time for it is over.
    """
    spec = main.spec
    last_call_s = (spec.meter_close_s + spec.settle_by_s) // 2
    awaited = any(report.state in AWAITED for report in main.areas)
    return main.state is State.MATCHED and (not awaited or now_s >= last_call_s)


def _after_settlement(chain: int, event: AreaEvent) -> Wish:
    """The next of the three calls that end an area's event."""
    if not event.incentives_done:
        kind = "PriceIncentives"
    elif not event.punish_done:
        kind = "Punish"
    else:
        kind = "Points"
    stage = f"{event.state} {event.incentives_done} {event.punish_done}"
    return Wish(chain, kind, f"event {event.event}", EventCall(event.event), stage)
