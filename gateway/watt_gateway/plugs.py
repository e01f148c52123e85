"""`wattpact gateway plugs`: every plug of a household, what it told last, its signed events and its commands.

Reads the store and the status file of a gateway, running or not, and changes nothing.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from watt_node.config import ConfigError
from watt_wire import command as commands
from watt_wire import statement

from watt_gateway.config import load_config
from watt_gateway.plugbook import PlugBook, PlugCommand, PlugEvent
from watt_gateway.registry import PlugEntry, Registry, RegistryError
from watt_gateway.store import STORE_FILE, Store, StoreError

KINDS = (
    "", "appliance on", "appliance off", "batches given up", "over-power trip", "commands refused", "reset", "button",
    "update rolled back", "command accepted", "command refused",
)  # fmt: skip
"""Names of the kinds of events (WIRE.md 10.1)."""
CAUSES = ("", "power", "hard", "watchdog", "deep sleep", "soft", "brown-out", "safe mode")
ACTIONS = {commands.OFF: "off", commands.ON: "on", commands.RELEASE: "release"}
CALENDAR_S = 1_000_000_000
"""An instant below it counts seconds since the plug's start."""


def collect(config_path: Path, limit: int) -> list[dict[str, Any]]:
    """Everything known of each plug; ConfigError, StoreError or RegistryError when it cannot be read."""
    config = load_config(config_path)
    folder = config_path.resolve().parent / config.store.path
    if not (folder / STORE_FILE).exists():
        raise ConfigError(f"{folder}: no gateway has run here yet")
    registry, store = Registry(folder / "registry.json"), Store(folder / STORE_FILE)
    try:
        book = PlugBook(store)
        told = _told(folder / "status.json")
        tips = store.tips()
        return [
            {
                **_plug(entry, told.get(plug.hex(), {})),
                "import_wh": tips[plug].import_mwh // 1000 if plug in tips else 0,
                "events": [_event(event) for event in book.events(plug, limit)],
                "commands": [_command(command) for command in book.commands(plug, limit)],
            }
            for plug, entry in sorted(registry.plugs().items(), key=lambda item: item[1].name)
        ]
    finally:
        store.close()
        registry.close()


def run(config_path: Path, limit: int, as_json: bool) -> int:
    """Print it; the exit code."""
    try:
        plugs = collect(config_path, limit)
    except (ConfigError, StoreError, RegistryError) as error:
        print(f"wattpact gateway: {error}", file=sys.stderr)
        return 1
    print(
        json.dumps(plugs, indent=1) if as_json else "\n\n".join(text(plug) for plug in plugs) or "no plugs are paired"
    )
    return 0


def text(plug: dict[str, Any]) -> str:
    """One plug for people."""
    told = plug["told"]
    state = f"{told.get('state', '?')}, {told.get('power_mw', 0) // 1000} W" if told else "not heard of since the start"
    lines = [f"{plug['name']}  {plug['plug']}  {plug['rated_w']} W  register {plug['import_wh']} Wh  {state}"]
    if told:
        update = told.get("update_state", "none")
        words = [f"release {told.get('release')}", "on trial" if told.get("trial") else ""]
        words += [f"time {told.get('quality')}", "" if update == "none" else f"update {update} {told.get('update')}"]
        lines.append("  " + ", ".join(word for word in words if word))
    lines += [f"  {row['time']}  {row['what']}" for row in plug["events"]]
    lines += [
        f"  command {row['counter']}: {row['action']} {row['hold_s']} s, {row['state']}" for row in plug["commands"]
    ]
    return "\n".join(lines)


def _plug(entry: PlugEntry, told: dict[str, Any]) -> dict[str, Any]:
    return {"plug": entry.plug_id, "name": entry.name, "rated_w": entry.rated_w, "told": told.get("told", {})}


def _event(stored: PlugEvent) -> dict[str, Any]:
    event = statement.EVENT.decode(stored.frame)
    first, last, kind = event.number("first"), event.number("last"), event.number("kind")
    time_s = event.number("time_s")
    when = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_s)) if time_s >= CALENDAR_S else f"{time_s} s after a start"
    )
    what = KINDS[kind]
    if kind == statement.APPLIANCE_ON:
        what += f" at {first // 1000} W"
    elif kind == statement.APPLIANCE_OFF:
        what += f" after {last} s and {first // 1000} Wh"
    elif kind == statement.GAP:
        what += f": checkpoints {first} to {last}"
    elif kind == statement.TRIP:
        what += f": {first // 1000} W, limit {last // 1000} W"
    elif kind == statement.REFUSALS:
        what += f": {last} since the last time"
    elif kind == statement.RESET:
        what += f": {CAUSES[first] if first < len(CAUSES) else first}"
    elif kind == statement.BUTTON:
        what += f" {'held for ten seconds' if first == 2 else f'pressed, relay {last}'}"
    elif kind == statement.ROLL_BACK:
        what += f": {first} failed, {last} runs"
    elif kind == statement.COMMAND_ACCEPTED:
        what += f": {first} {ACTIONS.get(last, last)}"
    elif kind == statement.COMMAND_REFUSED:
        reasons = statement.COMMAND_REASONS
        what += f": {first} {reasons[last] if last < len(reasons) else last}"
    numbers = {"number": stored.number, "kind": kind, "first": first, "last": last, "time_s": time_s}
    return {**numbers, "time": when, "quality": chr(event.number("time_quality")), "what": what}


def _command(stored: PlugCommand) -> dict[str, Any]:
    order = commands.decode(stored.frame)
    return {
        "counter": stored.counter,
        "action": ACTIONS[order.action],
        "hold_s": order.hold_s,
        "state": stored.state,
        "sends": stored.sends,
        "taken_s": stored.taken_s,
        "ended_s": stored.ended_s,
    }


def _told(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())["plugs"]
    except (OSError, ValueError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}
