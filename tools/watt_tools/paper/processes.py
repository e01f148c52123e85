"""Stage `processes`: the paper's cells as real processes on this machine, at 0 and 5 ms one way.

One process a node (`process.py`), one more for the clients, which drive one trade after the other and note when a
quorum of every area has it final; all processes read one clock. They share this machine's cores, so the figures are
those of its crowding too: they are here to show what the virtual clock's ratios owe to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from watt_tools.network import free_ports
from watt_tools.paper import plan, stats
from watt_tools.paper.cell import Cell, Tracker
from watt_tools.paper.clients import Client
from watt_tools.paper.modes import MODES, settings_of
from watt_tools.paper.network import MASTERS
from watt_tools.paper.process import READY, STEP, Links, Orders, Shell, network_of, order_line
from watt_tools.paper.results import PaperError, write_json

DELAYS_US: Final = (0, 5000)
REPETITIONS: Final = 10
TRADES: Final = 10
WARM_UP: Final = 5
"""Trades before the first that counts: connections, imports, founding of the chains."""
START_S: Final = 60.0
"""All processes must be up within this."""
TRADE_S: Final = 20.0


class StageError(PaperError):
    """A network of processes did not do what it should; running the command again goes on with it."""


def run(out: Path, words: tuple[str, ...], *, quick: bool = False) -> None:
    """Measure what is not there yet. Raises StageError."""
    path = out / "processes.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"cells": []}
    places = plan.PAPER_CELLS[:1] if quick else plan.PAPER_CELLS
    delays = DELAYS_US[1:] if quick else DELAYS_US
    wanted = [Cell(mode, s, n, delay_us) for delay_us in delays for s, n in places for mode in plan.COMPARED]
    wanted = [cell for cell in wanted if all(word in cell.name.split() for word in words)]
    known = {(one["s"], one["n"], one["delay_us"], mode) for one in data["cells"] for mode in one["ms"]}
    missing = [cell for cell in wanted if (cell.s, cell.n, cell.delay_us, cell.mode) not in known]
    print(f"processes: {len(wanted)} networks, {len(wanted) - len(missing)} of them from before", file=sys.stderr)
    for cell in missing:
        times = measure(cell, 2 if quick else REPETITIONS)
        row = _row(data["cells"], cell)
        low, high = stats.interval(times)
        row["ms"][cell.mode] = stats.median(times) / 1000
        row["interval_ms"][cell.mode] = [low / 1000, high / 1000]
        write_json(path, data)
        print(f"  {cell.name}: {stats.median(times) / 1000:.1f} ms", file=sys.stderr)


def _row(rows: list[dict[str, Any]], cell: Cell) -> dict[str, Any]:
    for row in rows:
        if (row["s"], row["n"], row["delay_us"]) == (cell.s, cell.n, cell.delay_us):
            return row
    rows.append({"s": cell.s, "n": cell.n, "delay_us": cell.delay_us, "ms": {}, "interval_ms": {}})
    return rows[-1]


def measure(cell: Cell, repetitions: int = REPETITIONS) -> list[int]:
    """Median time of a trade in each repetition, microseconds. Raises StageError."""
    with (
        tempfile.TemporaryDirectory(prefix="wattpact-paper-") as folder,
        started(cell, repetitions, Path(folder)) as driver,
    ):
        return asyncio.run(driver.drive(repetitions))


@contextlib.contextmanager
def started(cell: Cell, repetitions: int, folder: Path) -> Iterator[Driver]:
    """The processes of a cell's nodes; they are gone afterwards."""
    trades = WARM_UP + repetitions * TRADES
    network = network_of(cell, trades)
    nodes = [*range(MASTERS if network.has_main else 0), *range(MASTERS, network.client(0))]
    free = free_ports(len(nodes) + 1)
    ports = dict(zip(nodes, free, strict=False))
    ports |= {network.client(number): free[-1] for number in range(trades)}
    running: list[subprocess.Popen[str]] = []
    try:
        for address in nodes:
            home = folder / str(address)
            home.mkdir()
            named = {str(one): port for one, port in ports.items()}
            orders = Orders(asdict(cell), trades, address, named, str(home))
            words = [sys.executable, "-m", "watt_tools.paper.process"]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)
            assert process.stdin is not None
            process.stdin.write(order_line(orders))
            process.stdin.flush()
            running.append(process)
        yield Driver(cell, trades, ports, nodes, running)
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


class Driver:
    """All clients, in this process."""

    def __init__(
        self, cell: Cell, trades: int, ports: dict[int, int], nodes: list[int], running: list[subprocess.Popen[str]]
    ) -> None:
        self._network = network_of(cell, trades)
        self._tracker = Tracker(self._network)
        self._ports = ports
        self._awaited = dict.fromkeys(nodes)
        self._running = running
        self._links = Links(ports, cell.delay_us / 1e6, self._handle)
        mode = MODES[cell.mode]
        settings = settings_of(mode, cell.batch_ms)
        self._shells: dict[int, Shell] = {}
        self._clients: list[Client] = [mode.client(self._network, number, settings) for number in range(trades)]
        self._moved = asyncio.Event()

    async def drive(self, repetitions: int) -> list[int]:
        """Start, warm up, measure."""
        self._shells = {one.address: Shell(one, self._links, one.address, None) for one in self._clients}
        await self._links.listen(self._ports[self._network.client(0)])
        await self._until(lambda: not self._awaited, START_S, "the processes did not start")
        numbers = iter(range(len(self._clients)))
        for _ in range(WARM_UP):
            await self._trade(next(numbers))
        return [
            int(stats.median([await self._trade(next(numbers)) for _ in range(TRADES)])) for _ in range(repetitions)
        ]

    async def _trade(self, number: int) -> int:
        """One trade, from its submission to its end."""
        client, tracker = self._clients[number], self._tracker
        tracker.start(number, time.monotonic_ns() // 1000)
        client.start(time.monotonic_ns() // 1_000_000)
        self._shells[client.address].settle()
        await self._until(lambda: number in tracker.ended_us, TRADE_S, f"trade {number} did not end")
        return tracker.ended_us[number] - tracker.started_us[number]

    async def _until(self, done: Any, seconds: float, fault: str) -> None:
        end_s = time.monotonic() + seconds
        while not done():
            dead = [process.pid for process in self._running if process.poll() is not None]
            if dead or time.monotonic() > end_s:
                raise StageError(f"{fault}{'; a process has stopped' if dead else ''}")
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._moved.wait()

    def _handle(self, sender: int, to: int, kind: int, payload: bytes) -> None:
        """What nodes tell: that they are up, steps of trades, answers for clients."""
        if kind == READY:
            self._awaited.pop(sender, None)
        elif kind == STEP:
            number, step, at_us = json.loads(payload)
            self._tracker.step(sender, number, step, at_us)
        else:
            self._shells[to].receive(sender, to, kind, payload)
        self._moved.set()
