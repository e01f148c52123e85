"""What a running network shows: reads the daemons' status files and prints phases and one living line.

Invariant: reading is all it does; a missing or half-old status file is simply not counted.
"""

from __future__ import annotations

import datetime
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from watt_node.status import read_json

from watt_tools.network import MASTERS, NODES_PER_AREA, Network

PHASES = (
    ("open_s", "sealed bids are taken (commit)"),
    ("commit_close_s", "bids are opened (reveal)"),
    ("reveal_close_s", "offers are qualified, the market is cleared"),
    ("match_by_s", "users confirm their matches"),
    ("confirm_close_s", "contracts stand; money is in escrow"),
    ("window_start_s", "the event window: plugs meter the delivery"),
    ("window_end_s", "the window is over; last checkpoints arrive"),
    ("meter_close_s", "settlement, credit, incentive, points"),
)
TRADE_OVER = ("REJECT", "KILL", "PAID", "RETURNED", "VOID")
"States of a trade across areas on the main chain after which nothing comes."
LINE_WIDTH = 118
START_LOOK_BACK_MS = 12_000
"A status older than this start is of an earlier run."


@dataclass
class Seen:
    """One look at the whole network."""

    main_state: str = ""
    main_height: int = 0
    area_heights: dict[int, int] = field(default_factory=dict)
    nodes_alive: int = 0
    pairs: int = 0
    across: int = 0
    "Trades across areas of the event."
    across_open: int = 0
    "Those that some master does not know the end of yet, over all masters."
    aborted: str = ""
    signed: int = 0
    "Checkpoints that plugs have signed."
    final: int = 0
    "Transactions of gateways that hold a verified receipt."
    pending: int = 0
    refused: int = 0
    unacknowledged: int = 0
    "Batches that a plug holds because its gateway has not stored them yet."
    gateways: int = 0
    outboxes_empty: bool = False
    level: bool = True
    "All nodes of each chain stand at the same height."
    unbilled: int = 0
    "Households with trades in the event that do not hold its final bill yet."


def observe(net: Network) -> Seen:
    """Read every status file once."""
    seen = Seen()
    event = str(net.description["event"])
    heights: list[int] = []
    for index in range(MASTERS):
        status = read_json(net.folder / f"main/node{index}/status.json")
        heights.append(int(status.get("height", 0)))
        seen.nodes_alive += bool(status)
        seen.main_height = max(seen.main_height, int(status.get("height", 0)))
        found = status.get("events", {}).get(event, {})
        state = str(found.get("state", ""))
        if state in ("CLOSED", "ABORTED") or not seen.main_state:
            seen.main_state = state or seen.main_state
        seen.pairs = max(seen.pairs, int(found.get("matches", 0) or 0))
        across = found.get("across", {})
        seen.across = max(seen.across, sum(across.values()))
        seen.across_open += sum(count for state, count in across.items() if state not in TRADE_OVER)
        for chain, area in found.get("areas", {}).items():
            if area.get("state") == "ABORTED" and int(chain) != net.hamlet:  # it was down when it should have agreed
                seen.aborted = f"area {chain}: {area.get('reason', '')}"
    seen.level = len({*heights}) == 1
    for area in range(1, net.areas + 1):
        heights = []
        for index in range(NODES_PER_AREA):
            status = read_json(net.folder / f"area{area}/node{index}/status.json")
            seen.nodes_alive += bool(status)
            heights.append(int(status.get("height", 0)))
        seen.area_heights[area] = max(heights)
        seen.level = seen.level and len({*heights}) == 1
    for home in net.homes:
        status = read_json(net.folder / f"homes/{home['name']}/status.json")
        seen.gateways += bool(status)
        tx = status.get("tx", {})
        seen.final += int(tx.get("final", 0))
        seen.pending += int(tx.get("pending", 0))
        seen.refused += sum(tx.get("refused", {}).values())
        traded = int((status.get("event") or {}).get("trades", 0) or 0) > 0
        bill = bill_of(net, home["name"])
        owed = any(trade["state"] == "SETTLED" for trade in bill.get("trades", []))
        seen.unbilled += traded and (bill.get("state") != "CLOSED" or owed)
    for path in (net.folder / "rig").glob("plugs-*.status.json"):
        status = read_json(path)
        seen.signed += int(status.get("signed", 0))
        seen.unacknowledged += int(status.get("unacknowledged", 0))
    seen.outboxes_empty = seen.gateways == len(net.homes) and seen.pending == 0
    return seen


def event_of(net: Network) -> dict[str, Any]:
    """The event as the first master that shows it has it, or {}."""
    for index in range(MASTERS):
        events = read_json(net.folder / f"main/node{index}/status.json").get("events", {})
        if found := events.get(str(net.description["event"])):
            assert isinstance(found, dict)
            return found
    return {}


def bill_of(net: Network, home: str) -> dict[str, Any]:
    """The bill of the event that a household's gateway wrote, or {} when there is none (yet)."""
    return read_json(net.folder / f"homes/{home}/bill-{net.description['event']}.json")


def gateways_listen(net: Network) -> bool:
    """Whether every gateway of this start is connected to the broker of its plugs."""
    clock = net.clock
    for home in net.homes:
        status = read_json(net.folder / f"homes/{home['name']}/status.json")
        if int(status.get("written_ms", 0)) < int(clock["machine_start_ms"]) - START_LOOK_BACK_MS:
            return False
        if not status.get("brokers", {}).get("home"):
            return False
    return True


class Reporter:
    """Prints a line per phase, and on a terminal one line that is written anew."""

    def __init__(self, *, quiet: bool) -> None:
        # With --json the result alone goes to standard output; what happens meanwhile goes to standard error.
        self._out = sys.stderr if quiet else sys.stdout
        self._living = self._out.isatty()
        self._phase = -1
        self._drawn = False
        self._started_s = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line of its own above the living one."""
        self.close()
        print(text, file=self._out, flush=True)

    def close(self) -> None:
        """Leave the living line behind."""
        if self._drawn:
            print("\r" + " " * LINE_WIDTH + "\r", end="", file=self._out, flush=True)
            self._drawn = False

    def show(self, seen: Seen, protocol_s: int, spec: dict[str, Any] | None) -> None:
        """Show where the evening stands."""
        clock = datetime.datetime.fromtimestamp(protocol_s, datetime.UTC).strftime("%H:%M")
        if spec is not None:
            instants = {**spec, "window_end_s": spec["window_start_s"] + spec["slots"] * spec["slot_s"]}
            phase = sum(1 for name, _ in PHASES if instants[name] <= protocol_s) - 1
            if phase > self._phase:
                self._phase = phase
                elapsed_s = time.monotonic() - self._started_s
                self.line(f"  {elapsed_s:5.1f} s  {clock}  {PHASES[phase][1]}")
        if self._living:
            heights = " ".join(f"area {area}: {height}" for area, height in seen.area_heights.items())
            text = (
                f"  {clock}  blocks main: {seen.main_height} {heights} "
                f"| nodes {seen.nodes_alive} gateways {seen.gateways} "
                f"| pairs {seen.pairs} + {seen.across} across "
                f"| checkpoints signed {seen.signed} | final {seen.final} open {seen.pending}"
            )
            print("\r" + text[:LINE_WIDTH].ljust(LINE_WIDTH), end="", file=self._out, flush=True)
            self._drawn = True
