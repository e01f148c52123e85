"""The event: its signal (EventSpec) and its life, as one table.

Strategy.  One demand-response event is an object on the main chain with one child per area.  Both lives are tables
`state -> trigger -> state`; a trigger that is not in the row of the current state is refused with reason "stage".
Triggers whose name ends in `-due` are deadlines: they fire by block time in `Contract.begin`, before the first
transaction of a block, as often as they apply.  Source: paper section 4.1 (five stages), model.md U24, U27.
"""

from enum import StrEnum
from itertools import pairwise
from typing import Final, Literal

import msgspec

SLOTS_MAX: Final = 96
"One day of quarter hours; bounds every per-slot list of an event."
UNITS_MAX: Final = 32
"Generating units of the lower level; a merit order of a distribution area is far shorter."
SLOT_S_MAX: Final = 3_600
MONEY_MAX: Final = 10**15
"No single amount, in micro-currency, is larger (10^9 currency units); sums stay far below 2^63."
ALPHA_MAX: Final = 10**6


class State(StrEnum):
    """Life of an event; the value is what stands in the chain state."""

    ANNOUNCED = "ANNOUNCED"
    COMMIT = "COMMIT"
    REVEAL = "REVEAL"
    QUALIFIED = "QUALIFIED"
    MATCHED = "MATCHED"
    CONFIRMED = "CONFIRMED"
    DELIVERING = "DELIVERING"
    METERED = "METERED"
    SETTLED = "SETTLED"
    CLOSED = "CLOSED"
    ABORTED = "ABORTED"


BEFORE_MATCH: Final = (State.ANNOUNCED, State.COMMIT, State.REVEAL, State.QUALIFIED)
"The area has no matching yet, and may still get one."


class Trigger(StrEnum):
    """What can move an event of an area."""

    OPEN_DUE = "open-due"
    COMMIT_DUE = "commit-due"
    QUALIFY = "Qualify"
    SLICE = "slice-good"
    SLICE_REFUSED = "slice-bad"
    CONFIRM_DUE = "confirm-due"
    WINDOW_DUE = "window-due"
    SETTLEMENT_CREDIT = "SettlementCredit"
    SETTLEMENT_AMOUNT = "SettlementAmount"
    POINTS = "Points"
    ABORT = "Abort"
    SETTLE_DUE = "settle-due"


class MainTrigger(StrEnum):
    """What can move an event of the main chain."""

    MATCH = "match-decided"
    MATCH_DUE = "match-due"
    SETTLEMENT_AMOUNT = "SettlementAmount"
    ALL_REPORTED = "all-reported"


TRANSITIONS: Final[dict[State, dict[Trigger, State]]] = {
    State.ANNOUNCED: {Trigger.OPEN_DUE: State.COMMIT, Trigger.ABORT: State.ABORTED},
    State.COMMIT: {Trigger.COMMIT_DUE: State.REVEAL, Trigger.ABORT: State.ABORTED},
    State.REVEAL: {
        Trigger.QUALIFY: State.QUALIFIED,
        Trigger.CONFIRM_DUE: State.ABORTED,
        Trigger.ABORT: State.ABORTED,
    },
    State.QUALIFIED: {
        Trigger.SLICE: State.MATCHED,
        Trigger.SLICE_REFUSED: State.ABORTED,
        Trigger.CONFIRM_DUE: State.ABORTED,
        Trigger.ABORT: State.ABORTED,
    },
    State.MATCHED: {Trigger.CONFIRM_DUE: State.CONFIRMED},
    State.CONFIRMED: {Trigger.WINDOW_DUE: State.DELIVERING, Trigger.SETTLE_DUE: State.ABORTED},
    State.DELIVERING: {Trigger.SETTLEMENT_CREDIT: State.METERED, Trigger.SETTLE_DUE: State.ABORTED},
    State.METERED: {Trigger.SETTLEMENT_AMOUNT: State.SETTLED, Trigger.SETTLE_DUE: State.ABORTED},
    State.SETTLED: {Trigger.POINTS: State.CLOSED},
    State.CLOSED: {},
    State.ABORTED: {},
}
"An area's event."

MAIN_TRANSITIONS: Final[dict[State, dict[MainTrigger, State]]] = {
    State.ANNOUNCED: {MainTrigger.MATCH: State.MATCHED, MainTrigger.MATCH_DUE: State.ABORTED},
    State.MATCHED: {
        MainTrigger.SETTLEMENT_AMOUNT: State.SETTLED,
        MainTrigger.ALL_REPORTED: State.CLOSED,
    },
    State.SETTLED: {MainTrigger.ALL_REPORTED: State.CLOSED},
    State.CLOSED: {},
    State.ABORTED: {},
}
"The main chain's event; it uses a subset of the states."

OPEN_STATES: Final = (State.COMMIT, State.REVEAL)
"J5: the boolean `open` of an event is true exactly in these states."


class Unit(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A generating unit below the real-time price (model.md 1.5)."""

    cost_u_per_wh: int
    capacity_wh: list[int]
    "Free capacity beyond the plan, one per slot."


class EventSpec(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The demand signal of the grid (Initial). Field order is normative; instants are protocol seconds."""

    event: int
    kind: Literal["peak", "valley"]
    "valley (low load, I22) mirrors every sign: a quota is a floor, what is sold is use above it."
    slot_s: int
    slots: int
    required_ppm: int
    "Quota = baseline * (10^6 - required_ppm) // 10^6; in a valley 10^6 + required_ppm."
    open_s: int
    commit_close_s: int
    reveal_close_s: int
    match_by_s: int
    confirm_close_s: int
    window_start_s: int
    meter_close_s: int
    settle_by_s: int
    alpha_u_per_wh: list[int]
    "Comfort coefficient per slot, from temperature and hour (model.md U17)."
    x_ms: int
    y_ms: int
    budget_u: int
    "Equation (8): upper limit of the comfort cost."
    units: list[Unit]
    normal_price_u_per_wh: int
    compensation_price_u_per_wh: int
    profile_wh_per_mwh: list[int]
    "Standard load profile: Wh per slot for each 1000 kWh of annual consumption."

    @property
    def window_end_s(self) -> int:
        """End of the last slot, protocol seconds."""
        return self.window_start_s + self.slots * self.slot_s

    @property
    def sign(self) -> int:
        """1 for a peak: use above the allowance is excess; -1 for a valley: use below it is."""
        return 1 if self.kind == "peak" else -1

    def boundaries_s(self) -> list[int]:
        """The slots + 1 instants at which registers are read."""
        return [self.window_start_s + k * self.slot_s for k in range(self.slots + 1)]


def _in_order(spec: EventSpec) -> bool:
    strict = (
        spec.open_s,
        spec.commit_close_s,
        spec.reveal_close_s,
        spec.match_by_s,
        spec.confirm_close_s,
        spec.window_start_s + 1,
        spec.window_end_s,
        spec.meter_close_s + 1,
        spec.settle_by_s + 1,
    )
    return all(early < late for early, late in pairwise(strict))


def check_spec(spec: EventSpec, price_cap_u_per_wh: int) -> str:
    """ "" when the signal is well formed, otherwise its reject reason.

    Order of instants: open < commit_close < reveal_close < match_by < confirm_close <= window_start < window end
    <= meter_close < settle_by.
    """
    if spec.event < 1 or not 1 <= spec.slots <= SLOTS_MAX or not 1 <= spec.slot_s <= SLOT_S_MAX:
        return "spec-size"
    if spec.open_s < 0 or spec.settle_by_s >= 2**40 or not _in_order(spec):
        return "spec-time"
    lists = [spec.alpha_u_per_wh, spec.profile_wh_per_mwh, *(unit.capacity_wh for unit in spec.units)]
    if any(len(values) != spec.slots or min(values) < 0 or max(values) > 10**9 for values in lists):
        return "spec-lists"
    if not 1 <= len(spec.units) <= UNITS_MAX or max(spec.alpha_u_per_wh) > ALPHA_MAX:
        return "spec-lists"
    if not 0 <= spec.required_ppm <= 1_000_000 or not 0 <= spec.budget_u <= MONEY_MAX:
        return "spec-range"
    if not (0 <= spec.x_ms <= 10**6 and 0 <= spec.y_ms <= 10**6):
        return "spec-range"
    prices = [spec.normal_price_u_per_wh, spec.compensation_price_u_per_wh]
    prices += [unit.cost_u_per_wh for unit in spec.units]
    if any(price < 0 or price > price_cap_u_per_wh for price in prices):
        return "spec-price"  # a bond computed with the cap covers every penalty price
    return ""
