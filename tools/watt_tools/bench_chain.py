"""`wattpact bench chain`: an area of real station processes under load, as ratios to the limit of the same run.

Each run founds an area of n stations (TLS, fdatasync, contract, state root, exactly `wattpact station run`), enrols the
signers, measures what the cores can verify, then loads the stations: closed with a few blocks under way for
throughput, then open at half of what that gave for latency, and measures the cores again in between. The limit is
cores * verifications per second / n: what is left when nothing costs anything but one signature for each call, and
everybody checks it. Assigned verifiers and batches go beyond it: they check fewer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watt_tools import marks
from watt_tools.bench_limit import Probe, cores, verifications_per_s
from watt_tools.bench_load import Load
from watt_tools.bench_net import USERS, BenchNet

WINDOW_BLOCKS = 4
"Blocks' worth of transactions under way in the closed loop: one voted on, one verified, two on their way."
WARM_UP_S = 3.0
HEADROOM = 3.0
"Transactions signed in advance, as a multiple of what the limit would allow."
TABLE = ((4, "all", 1), (4, "assigned", 1), (4, "all", 8), (4, "assigned", 8), (7, "all", 1), (10, "all", 1))
"(stations, who verifies, calls under one signature): the runs of the table in CONSENSUS.md."
PARTS = ("verify", "hash, codec", "execute", "sign", "agree, pool", "network", "disk", "loop", "other")


@dataclass(frozen=True)
class Plan:
    """What to run."""

    nodes: int = 4
    seconds: float = 15.0
    block: int = 500
    verifiers: str = "all"
    "Or `assigned`: f + 1 stations check a signature for all (CONSENSUS.md 4.9)."
    calls: int = 1
    "Calls of a transaction: more than one are a batch under one signature."


@dataclass
class Figures:
    """One run. CPU is that of all stations, per call and station, in microseconds; without batches a call is a
    transaction."""

    nodes: int
    block: int
    verifiers: str
    calls: int
    cores: int
    tx_bytes: int
    verifications_per_s: float
    unit_us: float
    rate: float
    block_filled: float
    cpu_us: float
    client_us: float
    parts_us: dict[str, float]
    syncs_per_block: float
    sync_ms: float
    wire_bytes: float
    disk_bytes: float
    half_rate: float
    p50_ms: float
    p99_ms: float
    late_ticks: int
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """Calls a second, if nothing cost anything but one signature for each, checked by everybody."""
        return self.verifications_per_s / self.nodes

    @property
    def units(self) -> float:
        """CPU per transaction and station, in verifications."""
        return self.cpu_us / self.unit_us

    @property
    def client_units(self) -> float:
        """CPU of the client, as `units`."""
        return self.client_us / self.unit_us

    def data(self) -> dict[str, Any]:
        """For JSON."""
        values: dict[str, Any] = {name: _rounded(value) for name, value in vars(self).items()}
        values.update(limit=round(self.limit, 1), ratio=round(self.rate / self.limit, 3), units=round(self.units, 3))
        return values


def main(
    plans: list[Plan], folder: Path | None, *, as_json: bool, markdown: bool = False, write: Path | None = None
) -> int:
    """Run and print; exit code 0 (a figure is no verdict). `markdown`: the tables alone, reports on stderr."""
    found = []
    for plan in plans:
        figures = measure(plan, folder)
        found.append(figures)
        if not as_json:
            print(_report(figures), file=sys.stderr if markdown else sys.stdout, flush=True)
    if as_json:
        print(json.dumps([figures.data() for figures in found], indent=1))
    elif markdown:
        split = f"CPU per call and station in verify-units, by part:\n\n{split_table(found)}"
        return marks.show_or_write(f"{table(found)}\n\n{split}", write, "bench-chain")
    else:
        print(table(found))
    return 0


def measure(plan: Plan, folder: Path | None = None) -> Figures:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="wattpact-bench-") as name:
        net = BenchNet((folder or Path(name)) / f"n{plan.nodes}", plan.nodes, plan.block, plan.verifiers)
        net.start()
        try:
            return asyncio.run(_measure(plan, net))
        finally:
            net.stop()


async def _measure(plan: Plan, net: BenchNet) -> Figures:
    probe = Probe()
    load = Load(net, probe)
    await load.connect()
    for founding in (net.enrolments(), net.deposits()):
        await load.closed(founding, 200, 300)
        await load.settle()
    speed_before = verifications_per_s()
    rounds = int(HEADROOM * speed_before / plan.nodes * (2 * plan.seconds + WARM_UP_S) / USERS) + 1
    txs = net.withdrawals(1, rounds, plan.calls)
    window = WINDOW_BLOCKS * plan.block
    _, used = await load.closed(txs, window, WARM_UP_S)
    probe.unit_s()
    before, disk_before, client_before = net.dump(), net.disk_bytes(), _cpu_s()
    peak, more = await load.closed(txs[used:], window, plan.seconds)
    after, disk_after, client_s = net.dump(), net.disk_bytes(), _cpu_s() - client_before
    used += more
    unit_s = probe.unit_s()
    await load.settle()
    speed = (speed_before + verifications_per_s()) / 2
    missing = int(peak.rate / 2 * plan.seconds) - (len(txs) - used)
    if missing > 0:  # the machine got faster in the meantime
        txs += net.withdrawals(rounds + 1, missing // USERS + 1, plan.calls)
    half, _ = await load.open(txs[used:], peak.rate / 2, plan.seconds)
    refused = _refusals(net)
    await load.close()
    each = peak.final * plan.calls * plan.nodes
    spent = _Spent(before, after, each)
    return Figures(
        nodes=plan.nodes,
        block=plan.block,
        verifiers=plan.verifiers,
        calls=plan.calls,
        cores=cores(),
        tx_bytes=len(txs[0]),
        verifications_per_s=speed,
        unit_us=unit_s * 1e6,
        rate=peak.rate * plan.calls,
        block_filled=peak.final / max(1, peak.blocks),
        cpu_us=spent.us("cpu_s"),
        client_us=client_s * 1e6 / each,
        parts_us=spent.parts(),
        syncs_per_block=spent.total("syncs") / plan.nodes / max(1, peak.blocks),
        sync_ms=spent.total("sync_s") * 1000 / max(1, spent.total("syncs")),
        wire_bytes=spent.total("sent") / each,
        disk_bytes=(sum(disk_after) - sum(disk_before)) / each,
        half_rate=half.sent * plan.calls / plan.seconds,
        p50_ms=half.quantile(0.5) * 1000,
        p99_ms=half.quantile(0.99) * 1000,
        late_ticks=half.late,
        refused=refused,
    )


class _Spent:
    """What the stations spent between two dumps."""

    def __init__(self, before: list[dict[str, Any]], after: list[dict[str, Any]], each: int) -> None:
        self._pairs = list(zip(before, after, strict=True))
        self._each = each

    def total(self, name: str) -> float:
        """Sum over the stations."""
        return float(sum(after[name] - before[name] for before, after in self._pairs))

    def us(self, name: str) -> float:
        """Microseconds per call and station."""
        return self.total(name) * 1e6 / self._each

    def parts(self) -> dict[str, float]:
        """CPU by part: the threads' and the syncs' own clocks, and the rest by the samples of the main thread."""
        samples = {
            part: sum(after["samples"].get(part, 0) - before["samples"].get(part, 0) for before, after in self._pairs)
            for part in PARTS
        }
        main_us = self.us("cpu_s") - self.us("worker_s") - self.us("sync_cpu_s")
        whole = max(1, sum(samples.values()))
        parts = {part: main_us * count / whole for part, count in samples.items()}
        parts["verify"] += self.us("worker_s")
        parts["disk"] += self.us("sync_cpu_s")
        return parts


def _cpu_s() -> float:
    import time

    return time.process_time()


def _refusals(net: BenchNet) -> dict[str, int]:
    """Whatever the stations refused by now; in a good run nothing but repeated gossip."""
    found: dict[str, int] = {}
    for index in range(net.nodes):
        status = net.status(index)
        outcomes = {code: count for code, count in status["outcomes"].items() if code != "accepted"}
        for reason, count in (*status["refused"].items(), *outcomes.items()):
            found[reason] = found.get(reason, 0) + count
    return found


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value


def _report(f: Figures) -> str:
    """One run for a person."""
    parts = "  ".join(f"{part} {us / f.unit_us:.3f}" for part, us in f.parts_us.items())
    lines = [
        f"n = {f.nodes}, verified by {f.verifiers}, blocks of {f.block}, {f.calls} call(s) in {f.tx_bytes} bytes",
        f"limit    {f.limit:8.0f} calls/s = {f.verifications_per_s:.0f} verifications/s on {f.cores} cores / {f.nodes}",
        f"reached  {f.rate:8.0f} calls/s = {f.rate / f.limit:.0%} of the limit, {f.block_filled:.0f} a block",
        f"CPU      {f.units:8.3f} units of {f.unit_us:.0f} us per call and station (client {f.client_units:.2f})",
        f"         {parts}",
        f"latency  {f.p50_ms:8.0f} ms p50, {f.p99_ms:.0f} ms p99 to the certificate at {f.half_rate:.0f} calls/s",
        f"bytes    {f.wire_bytes:8.0f} on the wire, {f.disk_bytes:.0f} on disk, per call and station",
        f"disk     {f.syncs_per_block:8.1f} syncs a block of {f.sync_ms:.1f} ms; refused: {f.refused or 'nothing'}",
    ]
    return "\n  ".join(lines)


def table(found: list[Figures]) -> str:
    """The markdown of CONSENSUS.md."""
    head = "| n | verify | K | limit/s | reached | of the limit | verify-units | p50 ms | p99 ms | wire B | disk B |"
    lines = [head, "|--:|---" + "|--:" * 9 + "|"]
    for f in found:
        lines.append(
            f"| {f.nodes} | {f.verifiers} | {f.calls} | {f.limit:.0f} | {f.rate:.0f} | {f.rate / f.limit:.0%} "
            f"| {f.units:.2f} | {f.p50_ms:.0f} | {f.p99_ms:.0f} | {f.wire_bytes:.0f} | {f.disk_bytes:.0f} |"
        )
    return "\n".join(lines)


def split_table(found: list[Figures]) -> str:
    """Where the CPU goes, as markdown."""
    lines = ["| n | verify | K | " + " | ".join(PARTS) + " | client |", "|--:|---" + "|--:" * (len(PARTS) + 2) + "|"]
    for f in found:
        parts = " | ".join(f"{f.parts_us[part] / f.unit_us:.3f}" for part in PARTS)
        lines.append(f"| {f.nodes} | {f.verifiers} | {f.calls} | {parts} | {f.client_units:.3f} |")
    return "\n".join(lines)
