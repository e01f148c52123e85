"""The household's behaviour: listens to the plan that its gateway publishes and bends the load to it.

A cooperative resident makes the meter's watt-hours of each planned slot exactly the plan's; one who defaults
ignores it. A plan counts for slots that have not begun in the plugs' own time, so a restart repeats the same load:
what was planned is saved, and what was not yet saved had not begun.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from watt_plug import mqtt
from watt_wire import topics

from watt_rig.load import Load, LoadError, ShapedSlot

SLOTS_MAX = 96
"A day of quarter hours; a longer plan is not one."
FILE = "resident.json"
SLOT_WH_MAX = 100_000


class Home(Protocol):
    """One plug of the household, as the resident sees it."""

    load: Load
    state_dir: Path
    virtual_s: int


class Sender(Protocol):
    """Where bytes for the broker go."""

    def send(self, data: bytes) -> None: ...


class Plan:
    """A checked plan: quota after trade, Wh for each slot."""

    def __init__(self, start_s: int, slot_s: int, slot_wh: list[int], trades: int) -> None:
        self.start_s = start_s
        self.slot_s = slot_s
        self.slot_wh = slot_wh
        self.trades = trades


def parse_plan(payload: bytes) -> Plan | None:
    """Read the JSON of the topic `home_plan`; None when it is no plan (anybody on the broker may have sent it)."""
    try:
        data = json.loads(payload)
        start_s, slot_s, slots = data["window_start_s"], data["slot_s"], data["slots"]
        trades = data.get("trades", 1)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(slots, list) or not all(type(value) is int for value in [start_s, slot_s, trades, *slots]):
        return None
    if not (0 <= start_s < 1 << 32 and 1 <= slot_s <= 86_400 and len(slots) <= SLOTS_MAX):
        return None
    if not all(0 <= value <= SLOT_WH_MAX for value in slots):
        return None
    return Plan(start_s, slot_s, slots, trades)


class Resident:
    """Speaks MQTT on its own link. Several plugs of one household share a slot by what they would have used."""

    def __init__(self, gateway: str, homes: list[Home], timer_s: int) -> None:
        self._gateway = gateway
        self._homes = homes
        self._session: mqtt.Session | None = None
        self._timer_s = timer_s
        self.link: Sender | None = None
        self.plans = 0
        "Plans that changed the load."
        for home in homes:
            _restore(home)

    def link_opened(self) -> None:
        self._session = mqtt.Session("app-" + self._gateway)
        self._session.open(self._timer_s)
        self._drain()

    def link_closed(self) -> None:
        self._session = None

    def link_received(self, data: bytes) -> None:
        if self._session is not None:
            self._handle(self._session.receive(data, self._timer_s))
            self._drain()

    def tick(self, timer_s: int) -> bool:
        """Keep the connection alive; return False when it must be closed."""
        self._timer_s = timer_s
        if self._session is None:
            return True
        self._handle(self._session.tick(timer_s))
        self._drain()
        return not self._session.closed

    def _handle(self, events: list[mqtt.Event]) -> None:
        for event in events:
            if event.kind == mqtt.CONNECTED and self._session is not None:
                self._session.subscribe(topics.home_plan(self._gateway), self._timer_s)
            elif event.kind == mqtt.MESSAGE and event.topic == topics.home_plan(self._gateway):
                plan = parse_plan(event.payload)
                if plan is not None:
                    self.follow(plan)

    def _drain(self) -> None:
        if self._session is not None and self.link is not None:
            self.link.send(self._session.take_output())

    def follow(self, plan: Plan) -> None:
        """Bend every plug's load for the slots that have not begun; nothing to keep to without a trade."""
        if not plan.trades:
            return
        now_s = max(home.virtual_s for home in self._homes)
        first = max(0, -(-(now_s - plan.start_s) // plan.slot_s))
        slot_wh = plan.slot_wh[first:]
        if not slot_wh:
            return
        start_s = plan.start_s + first * plan.slot_s
        shares = [self._shares(start_s + n * plan.slot_s, plan.slot_s, wh) for n, wh in enumerate(slot_wh)]
        changed = False
        for index, home in enumerate(self._homes):
            before = list(home.load.slots)
            home.load.plan(start_s, plan.slot_s, [share[index] for share in shares])
            if home.load.slots != before:
                changed = True
                _save(home)
        self.plans += changed

    def _shares(self, start_s: int, slot_s: int, energy_wh: int) -> list[int]:
        """Split a slot between the plugs in proportion to their profiles; the last one takes the rounding."""
        used_j = [
            home.load.profile.energy_j(start_s + slot_s) - home.load.profile.energy_j(start_s) for home in self._homes
        ]
        total_j = sum(used_j)
        shares = [energy_wh * joules // total_j if total_j else 0 for joules in used_j]
        shares[-1] += energy_wh - sum(shares)
        return shares


def _save(home: Home) -> None:
    path = home.state_dir / FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps([asdict(slot) for slot in home.load.slots]))
    fresh.replace(path)


def _restore(home: Home) -> None:
    path = home.state_dir / FILE
    if path.exists():
        try:
            home.load.restore([ShapedSlot(**entry) for entry in json.loads(path.read_text())])
        except (ValueError, TypeError) as error:
            raise LoadError(f"{path}: damaged: {error}") from None
