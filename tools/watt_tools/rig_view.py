"""A bench in the terminal: one table of plugs, one of meters, a line for the broker. Drawn from `rig status --json`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

SPARKS = " ▁▂▃▄▅▆▇█"
POINTS = 24
"Power values of a plug that its line shows: twelve seconds of the live view."


class Screen:
    """Keeps the last power values, so that a load can be seen moving."""

    def __init__(self, live_view: Live) -> None:
        self._live = live_view
        self._power: dict[str, deque[int]] = {}

    def show(self, status: dict[str, Any], codes: dict[str, str]) -> None:
        """Draw one status."""
        for name, plug in status["plugs"].items():
            self._power.setdefault(name, deque(maxlen=POINTS)).append(int(plug["power_w"]))
        self._live.update(drawn(status, codes, self._power), refresh=True)


@contextmanager
def live() -> Iterator[Screen]:
    """A screen that is redrawn in place."""
    with Live(console=Console(), auto_refresh=False, screen=False) as view:
        yield Screen(view)


def once(status: dict[str, Any]) -> None:
    """Print one status."""
    Console().print(drawn(status, {}, {}))


def drawn(status: dict[str, Any], codes: dict[str, str], power: dict[str, deque[int]]) -> Group:
    """The picture of a bench."""
    world = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(status["world_s"]))
    head = Text(f"bench  {world} UTC  x{status['speed']}  {status['hours']} h", style="bold")
    parts: list[Any] = [head, _plugs(status, power)]
    if status["meters"]:
        parts.append(_meters(status))
    parts.append(_lines(status))
    parts.append(_ports(status, codes))
    return Group(*parts)


def _plugs(status: dict[str, Any], power: dict[str, deque[int]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("plug", "state", "hours", "W", "", "Wh", "boots", "cuts", "air"):
        table.add_column(title, justify="right" if title in ("hours", "W", "Wh", "boots", "cuts") else "left")
    for name, plug in status["plugs"].items():
        life = plug["life"]
        row = [
            name,
            _state(plug),
            f"{plug['hours']:.1f}",
            str(plug["power_w"]),
            Text(sparks(power.get(name, deque())), style="cyan"),
            str(plug["energy_wh"]),
            str(life["boots"]),
            str(life["cuts"]),
            "yes" if plug["wifi"] else Text("gone", style="red"),
        ]
        table.add_row(*row)
    return table


def _ports(status: dict[str, Any], codes: dict[str, str]) -> Text:
    """Where `wattpact plug --port` finds each plug, whole, so that it can be copied; and its printed code."""
    text = Text(style="dim")
    for name, plug in status["plugs"].items():
        code = f"  code {codes[name]}" if name in codes else ""
        text.append(f"\n{name}: --port {plug['port']}{code}")
    return text


def _state(plug: dict[str, Any]) -> Text:
    if plug["failed"]:
        return Text("failed", style="bold red")
    if not plug["powered"]:
        return Text("no power", style="red")
    if not plug["healthy"]:
        return Text("starting", style="yellow")
    return Text("runs", style="green")


def _meters(status: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("meter", "kind", "where", "answers"):
        table.add_column(title, justify="right" if title == "answers" else "left")
    for name, meter in status["meters"].items():
        table.add_row(name, meter["kind"], short(meter["where"]), str(meter["answers"]))
    return table


def _lines(status: dict[str, Any]) -> Text:
    text = Text()
    broker, gateway = status["broker"], status["gateway"]
    if broker is not None:
        text.append("broker ")
        text.append(f"127.0.0.1:{broker['port']} ", style="green" if broker["running"] else "red")
        text.append(f"deaths {broker['deaths']}  ")
    if gateway is not None:
        text.append(f"stored {gateway['readings']} readings in {gateway['batches']} batches, gaps {gateway['gaps']}")
        refused = ", ".join(f"{reason} {count}" for reason, count in gateway["refused"].items())
        text.append(f"  refused: {refused or 'none'}")
    faults = ", ".join(f"{name} {count}" for name, count in status["faults"].items())
    text.append(f"\nfaults: {faults or 'none yet'}", style="dim")
    return text


def sparks(values: deque[int]) -> str:
    """A line of bars, the highest value a full one."""
    top = max(values, default=0)
    return "".join(SPARKS[value * (len(SPARKS) - 1) // top if top else 0] for value in values)


def short(path: str) -> str:
    """The last two parts of a path."""
    return "/".join(path.split("/")[-2:]) if path.startswith("/") else path
