"""`wattpact bench flood`: whether a validator and a client that flood delay the others, as ratios within one run.

One of n stations is bad (with n = 4 as many as the chain bears): instead of it runs this module, with its key and
its certificate, and sends genuine, useless frames to all others without end; a client with a certificate delivers
forged transactions without end. The load is the same before and during the flood, on the other stations.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from watt_chain import codec
from watt_chain.pbft.messages import Frame, SyncRequest, signed_bytes
from watt_node.channel import PROTOCOL, Channel, ChannelError, Hello, Kind, dial, tls_context
from watt_node.config import TlsSection
from watt_node.names import node_name

from watt_tools import marks
from watt_tools.bench_limit import Probe
from watt_tools.bench_load import Load
from watt_tools.bench_net import AREA, HOST, USERS, BenchNet, make_key

BURST = 25
PAUSE_S = 0.005
"5,000 frames a second offered to each station by each connection: ten times what it reads of one."
TIMEOUT_MS = 500
"The bad station leads nothing: once a term the others wait that long for it, with and without the flood."
CLIENT = "main-node0"
BLOCK = 200


def main(nodes: int, seconds: float, *, as_json: bool, write: Path | None = None) -> int:
    """Run and print; exit code 0 (a figure is no verdict)."""
    with tempfile.TemporaryDirectory(prefix="wattpact-bench-") as name:
        net = BenchNet(Path(name) / "flood", nodes, BLOCK, timeout_ms=TIMEOUT_MS)
        try:
            net.start(absent=1)
            found = asyncio.run(_measure(net, seconds))
        finally:
            net.stop()
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    lines = ["| | calls/s | verify-units | p50 ms | p99 ms | forgeries checked | frames ignored |"]
    lines.append("|---" + "|--:" * 6 + "|")
    for label, row in found.items():
        figures = f"{row['rate']:.0f} | {row['units']:.2f} | {row['p50_ms']:.0f} | {row['p99_ms']:.0f}"
        lines.append(f"| {label} | {figures} | {row['checked']} | {row['ignored']} |")
    return marks.show_or_write("\n".join(lines), write, "bench-flood")


async def _measure(net: BenchNet, seconds: float) -> dict[str, dict[str, Any]]:
    probe = Probe()
    load = Load(net, probe)
    await load.connect()
    for founding in (net.enrolments(), net.deposits()):
        await load.closed(founding, 200, 300)
        await load.settle()
    txs = net.withdrawals(1, int(seconds * 6000 / USERS) + 5)
    warm, used = await load.closed(txs, 2 * BLOCK, 3.0)
    await load.settle()
    rate = warm.rate / 4
    found: dict[str, dict[str, Any]] = {}
    for label in ("without", "with a flood"):
        flood = _start_flood(net) if label != "without" else None
        before, spent = _read(net), _cpu_s(net)
        peak, more = await load.closed(txs[used:], 2 * BLOCK, seconds)
        used += more
        spent = _cpu_s(net) - spent
        units = spent / peak.final / net.running / probe.unit_s()
        await load.settle()
        calm, more = await load.open(txs[used:], rate, seconds)
        used += more
        if flood is not None:
            flood.terminate()
            flood.wait()
        await asyncio.sleep(2.5)  # the status files show it after their period
        checked, ignored = _read(net)
        found[label] = {
            "rate": peak.rate,
            "units": units,
            "p50_ms": calm.quantile(0.5) * 1000,
            "p99_ms": calm.quantile(0.99) * 1000,
            "checked": checked - before[0],
            "ignored": ignored - before[1],
        }
    await load.close()
    return found


def _cpu_s(net: BenchNet) -> float:
    return sum(float(one["cpu_s"]) for one in net.dump())


def _read(net: BenchNet) -> tuple[int, int]:
    """(forged transactions that were checked, frames beyond their share) at all stations."""
    states = [net.status(index) for index in range(net.running)]
    return sum(s["refused"].get("signature", 0) for s in states), sum(s["frames_ignored"] for s in states)


def _start_flood(net: BenchNet) -> subprocess.Popen[bytes]:
    name = node_name(AREA, net.nodes - 1)
    about = {
        "index": net.nodes - 1,
        "ports": net.ports[: net.running],
        "network": net.network.hex(),
        "peer": [str(part) for part in (net.authority.ca_path, *net.authority.issue(name))],
        "client": [str(part) for part in (net.authority.ca_path, *net.authority.issue(CLIENT))],
        "forged": (net.withdrawals(10**6, 1)[0][:-1] + b"\x00").hex(),
    }
    return subprocess.Popen([sys.executable, "-m", "watt_tools.bench_flood", json.dumps(about)])


async def _flood(about: dict[str, Any]) -> None:
    network, index = bytes.fromhex(about["network"]), about["index"]
    message = SyncRequest(AREA, index, 1 << 40)
    body = codec.encode(message)
    key = make_key(f"node {index}")
    useless = codec.encode(Frame(body, key.sign(signed_bytes(network, message, body))))
    forged = bytes.fromhex(about["forged"])
    floods = []
    for target, port in enumerate(about["ports"]):
        peer = (node_name(AREA, index), "consensus", about["peer"], Kind.CONSENSUS, useless)
        client = (CLIENT, "deliver", about["client"], Kind.SUBMIT, forged)
        floods += [_send(network, target, port, *who) for who in (peer, client)]
    await asyncio.gather(*floods)


async def _send(
    network: bytes, target: int, port: int, name: str, purpose: str, files: list[str], kind: Kind, frame: bytes
) -> None:
    """One connection of the flood, made again whenever it is cut."""
    context = tls_context(TlsSection(ca=Path(files[0]), cert=Path(files[1]), key=Path(files[2])), server=False)
    while True:
        with contextlib.suppress(ChannelError):
            channel = await dial(
                HOST, port, context, Hello(PROTOCOL, purpose, network, AREA, name), node_name(AREA, target)
            )
            reader = asyncio.ensure_future(_drain(channel))
            while not reader.done():
                channel.put_all(kind, [frame] * BURST)
                await channel.drain()
                await asyncio.sleep(PAUSE_S)
        await asyncio.sleep(0.2)


async def _drain(channel: Channel) -> None:
    with contextlib.suppress(ChannelError):
        while True:
            await channel.read()


if __name__ == "__main__":
    os.nice(10)  # what it costs to make a flood must not be taken for what it costs to bear it
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_flood(json.loads(sys.argv[1])))
