"""`wattpact bench soak`: whether the memory of a station stays flat under a steady load.

Real stations, an open load of so many transactions a second for so many minutes. The resident memory of each
process is read at intervals. What a station keeps in memory has bounds that take some thousand blocks to fill
(CONSENSUS.md 9.3), and the index of the open segment of the block log falls back to nothing whenever that is closed:
so the smallest values of the middle and of the last third of a run are compared, a third must be longer than a
segment, and the first one long enough to fill the list of verified signatures.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watt_chain.transaction import VERIFIED_MAX
from watt_node.blocklog import SEGMENT_BLOCKS

from watt_tools import marks
from watt_tools.bench_limit import Probe
from watt_tools.bench_load import Load
from watt_tools.bench_net import BenchNet

BLOCK = 500
FLAT_SHARE = 0.02
"""Flat: the last third's smallest value is at most this share above the middle third's."""
POINTS = 60
"Intervals of a run."
SAMPLE_S = 0.5
MIB = 1 << 20


@dataclass(frozen=True)
class Point:
    """One interval: when it ended, the height, and the smallest resident memory of each station in it, MiB."""

    minutes: float
    height: int
    transactions: int
    mib: list[float]


@dataclass
class Found:
    """A run."""

    rate: float
    batch_ms: int
    points: list[Point] = field(default_factory=list)

    def thirds(self) -> tuple[list[Point], list[Point]]:
        """The middle one and the last one, by height."""
        low, high = self.points[-1].height / 3, self.points[-1].height * 2 / 3
        return (
            [point for point in self.points if low < point.height <= high],
            [point for point in self.points if point.height > high],
        )

    def growth(self) -> list[float]:
        """Share of its memory that each station has added between the middle and the last third."""
        middle, last = (_least(points) for points in self.thirds())
        return [after / before - 1 for before, after in zip(middle, last, strict=True)]

    def slopes(self) -> list[float]:
        """The same in MiB for 1,000 blocks."""
        middle, last = (_least(points) for points in self.thirds())
        blocks = self.points[-1].height / 3000
        return [(after - before) / blocks for before, after in zip(middle, last, strict=True)]

    @property
    def verdict(self) -> str:
        last = self.points[-1]
        if last.height / 3 < SEGMENT_BLOCKS or last.transactions / 3 < 2 * VERIFIED_MAX:
            return f"too short to judge: a third is to have {SEGMENT_BLOCKS} blocks, {2 * VERIFIED_MAX} transactions"
        return "flat" if max(self.growth()) < FLAT_SHARE else "grows"

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rate": self.rate,
            "batch_ms": self.batch_ms,
            "minutes": round(self.points[-1].minutes, 2),
            "blocks": self.points[-1].height,
            "transactions": self.points[-1].transactions,
            "mib_per_1000_blocks": [round(one, 3) for one in self.slopes()],
            "growth": [round(one, 4) for one in self.growth()],
            "verdict": self.verdict,
            "points": [
                [round(point.minutes, 2), point.height, *(round(one, 2) for one in point.mib)] for point in self.points
            ],
        }


def _least(points: list[Point]) -> list[float]:
    """Smallest memory of each station."""
    return [min(values) for values in zip(*(point.mib for point in points), strict=True)]


def main(nodes: int, minutes: float, rate: float, batch_ms: int, *, as_json: bool, write: Path | None = None) -> int:
    """Run and print; 1 when the memory grows, else 0."""
    with tempfile.TemporaryDirectory(prefix="wattpact-soak-") as name:
        net = BenchNet(Path(name) / "soak", nodes, BLOCK, batch_ms=batch_ms)
        found = Found(rate, batch_ms)
        try:
            net.start(measured=False)
            asyncio.run(_measure(net, found, minutes))
        finally:
            net.stop()
    code = 0
    if as_json:
        print(json.dumps(found.data()))
    else:
        code = marks.show_or_write(report(found), write, "bench-soak")
    return int(found.verdict == "grows" or code)


def report(found: Found) -> str:
    """For a person, and for CONSENSUS.md."""
    last = found.points[-1]
    lines = ["| minutes | height | " + " | ".join(f"station {index}, MiB" for index in range(len(last.mib))) + " |"]
    lines.append("|--:" * (2 + len(last.mib)) + "|")
    step = max(1, len(found.points) // 10)
    shown = [*found.points[::step], *([last] if (len(found.points) - 1) % step else [])]
    for point in shown:
        figures = " | ".join(f"{one:.1f}" for one in point.mib)
        lines.append(f"| {point.minutes:.1f} | {point.height} | {figures} |")
    slopes = ", ".join(f"{one:+.2f}" for one in found.slopes())
    growth = ", ".join(f"{one:+.1%}" for one in found.growth())
    lines.append(f"\n{last.transactions} transactions; from the middle to the last third {slopes} MiB for 1,000 blocks")
    lines.append(f"growth {growth}, at most {FLAT_SHARE:.0%} is flat: {found.verdict}")
    return "\n".join(lines)


async def _measure(net: BenchNet, found: Found, minutes: float) -> None:
    load = Load(net, Probe())
    await load.connect()
    for founding in (net.enrolments(), net.deposits()):
        await load.closed(founding, 200, 300)
        await load.settle()
    begun_s = time.monotonic()
    interval_s = minutes * 60 / POINTS
    txs: list[bytes] = []
    rounds = sent = 0
    smallest = _resident(net)

    async def watch() -> None:
        while True:
            smallest[:] = map(min, zip(smallest, _resident(net), strict=True))
            await asyncio.sleep(SAMPLE_S)

    watching = asyncio.ensure_future(watch())
    try:
        while time.monotonic() - begun_s < minutes * 60:
            while len(txs) < found.rate * interval_s:
                rounds += 1
                txs += net.withdrawals(rounds, 1)
            _, used = await load.open(txs, found.rate, interval_s)
            txs = txs[used:]
            sent += used
            passed = (time.monotonic() - begun_s) / 60
            found.points.append(Point(passed, load.height, sent, list(smallest)))
            smallest[:] = _resident(net)
            _show(found, minutes)
    finally:
        watching.cancel()
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    await load.close()


def _resident(net: BenchNet) -> list[float]:
    """Resident memory of each station, MiB."""
    page = resource.getpagesize()
    return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / MIB for pid in net.pids()]


def _show(found: Found, minutes: float) -> None:
    if sys.stderr.isatty():
        last = found.points[-1]
        memory = " ".join(f"{one:.0f}" for one in last.mib)
        text = f"\r{last.minutes:.1f} of {minutes:g} minutes, height {last.height}, MiB {memory} \033[K"
        print(text, end="", file=sys.stderr, flush=True)
