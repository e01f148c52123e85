"""Ends trades across areas that the main chain's deadlines have passed, so that no household's money waits for ever.

Anybody may do that (CONTRACT.md 17.2); masters do it in turn: the first at once, the others each STANDBY_MS later, if
it is still to be done. Everything is read from final state, so a master that restarts knows what is due.
"""

from dataclasses import dataclass, field
from typing import Final

from watt_chain.contract.cross_objects import MainTrade, kill_after_s
from watt_chain.contract.objects import MainEvent
from watt_chain.cross.tables import UNDECIDED, Beacon

from watt_master.view import MAIN, View

STANDBY_MS: Final = 3_000
"How much longer each master waits than the one before it; a main block takes a fraction of that."
AGAIN_MS: Final = 10_000
"After a submission that changed nothing (a clock ahead of the chain's) the next one waits so long."


def is_overdue(trade: MainTrade, event: MainEvent, now_s: int) -> bool:
    """Whether the main chain would end this trade now."""
    if trade.state in UNDECIDED:
        return now_s >= kill_after_s(event.spec)
    return trade.state == Beacon.ACCEPT and now_s >= event.spec.settle_by_s


@dataclass(slots=True)
class Overdue:
    """Which events this master should submit a CrossEnd for now."""

    _since_ms: dict[int, int] = field(default_factory=dict)
    "Event -> when it was first found overdue, machine ms."
    _sent_ms: dict[int, int] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)
    "Events whose trades all have their end: looked at no more."
    submitted: int = 0

    def due(self, view: View, rank: int, now_s: int, now_ms: int) -> list[int]:
        """Numbers of events; `rank` is this master's place in the turn, from 0."""
        found: list[int] = []
        for number in sorted({*view.numbers(MAIN), view.last_event(MAIN)} - self._done - {0}):
            event = view.main_event(number)
            if event is None or now_s < kill_after_s(event.spec):
                continue
            trades = view.main_trades(number)
            if not any(is_overdue(trade, event, now_s) for trade in trades):
                self._since_ms.pop(number, None)
                if all(trade.state not in (*UNDECIDED, Beacon.ACCEPT) for trade in trades):
                    self._done.add(number)
                continue
            since_ms = self._since_ms.setdefault(number, now_ms)
            waits = now_ms - since_ms < rank * STANDBY_MS
            if waits or now_ms - self._sent_ms.get(number, -AGAIN_MS) < AGAIN_MS:
                continue
            self._sent_ms[number] = now_ms
            self.submitted += 1
            found.append(number)
        return found
