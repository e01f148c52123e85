"""The load of a benchmark: one client of all stations, closed (so many under way) or open (so many a second).

It sends every transaction to every station in one go per tick, follows the blocks of one station, checks every
certificate, and notes for each transaction the time from its sending to that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from watt_chain.block import block_hash as hash_of
from watt_chain.block import check_certificate, decode_certified
from watt_node.channel import PROTOCOL, Channel, Hello, Kind, dial, tls_context
from watt_node.names import node_name

from watt_tools.bench_limit import Probe
from watt_tools.bench_net import AREA, CLIENT, HOST, BenchNet

TICK_S = 0.005
"An open loop sends what is due this often; it adds half of it to a latency, 2.5 ms."
PROBE_EVERY_S = 0.5
STALL_S = 60
"Without a block for this long the run is broken."


@dataclass
class Phase:
    """What one phase of load saw. Latencies in seconds, in order of arrival."""

    started_s: float
    ended_s: float = 0.0
    sent: int = 0
    final: int = 0
    blocks: int = 0
    late: int = 0
    "Open loop: ticks more than one tick behind the schedule."
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Final transactions a second."""
        return self.final / (self.ended_s - self.started_s)

    def quantile(self, share: float) -> float:
        """Latency that this share of the transactions did not exceed, seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Load:
    """The client. `connect`, run phases, `close`."""

    def __init__(self, net: BenchNet, probe: Probe) -> None:
        self._net = net
        self._probe = probe
        self._probed_s = 0.0
        self._lanes: list[Channel] = []
        self._follower: Channel | None = None
        self._reader: asyncio.Task[None] | None = None
        self._under_way: dict[bytes, float] = {}
        self._moved = asyncio.Event()
        self._publics = tuple(key.public for key in net.keys)
        self.phase = Phase(time.perf_counter())
        self.height = 0

    async def connect(self) -> None:
        """One delivering connection to each station, one that follows the first."""
        context = tls_context(self._net.tls(CLIENT), server=False)
        for index in range(self._net.running):
            mine = Hello(PROTOCOL, "deliver", self._net.network, AREA, CLIENT)
            self._lanes.append(await dial(HOST, self._net.ports[index], context, mine, node_name(AREA, index)))
        mine = Hello(PROTOCOL, "follow", self._net.network, AREA, CLIENT)
        self._follower = await dial(HOST, self._net.ports[0], context, mine, node_name(AREA, 0))
        await self._follower.send(Kind.FOLLOW, msgspec.msgpack.encode([1]))
        self._reader = asyncio.ensure_future(self._read_blocks(self._follower))

    async def close(self) -> None:
        """Leave."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        for channel in self._lanes:
            channel.close()
        if self._follower is not None:
            self._follower.close()

    async def closed(self, txs: Sequence[bytes], window: int, seconds: float) -> tuple[Phase, int]:
        """Keep `window` under way until `seconds` are over or nothing is left; (what was seen, how many were sent)."""
        phase = self._begin()
        at = 0
        while at < len(txs) and time.perf_counter() - phase.started_s < seconds:
            room = window - len(self._under_way)
            if room > 0:
                await self._send(txs[at : at + room])
                at += min(room, len(txs) - at)
            await self._wait()
        phase.ended_s = time.perf_counter()
        self._begin()
        return phase, at

    async def open(self, txs: Sequence[bytes], rate: float, seconds: float) -> tuple[Phase, int]:
        """Send `rate` a second for `seconds`, whatever becomes of them, then wait for all of those."""
        phase = self._begin()
        at = 0
        while (passed := time.perf_counter() - phase.started_s) < seconds and at < len(txs):
            due = min(int(passed * rate), len(txs))
            phase.late += due - at > 2 * rate * TICK_S
            await self._send(txs[at:due])
            at = due
            self._take_probe()
            await asyncio.sleep(TICK_S)
        await self.settle()
        phase.ended_s = time.perf_counter()
        self._begin()
        return phase, at

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await self._wait()

    def _begin(self) -> Phase:
        self.phase = Phase(time.perf_counter())
        return self.phase

    async def _send(self, txs: Sequence[bytes]) -> None:
        if not txs:
            return
        now = time.perf_counter()
        self._under_way.update(dict.fromkeys(txs, now))
        self.phase.sent += len(txs)
        for lane in self._lanes:
            lane.put_all(Kind.SUBMIT, txs)
        for lane in self._lanes:
            await lane.drain()

    async def _wait(self) -> None:
        """Until the next block."""
        self._take_probe()
        self._moved.clear()
        assert self._reader is not None
        waiting = asyncio.ensure_future(self._moved.wait())
        done, _ = await asyncio.wait({waiting, self._reader}, timeout=STALL_S, return_when=asyncio.FIRST_COMPLETED)
        if self._reader in done:
            self._reader.result()
        if waiting not in done:
            raise TimeoutError(f"no block for {STALL_S} s, {len(self._under_way)} transactions under way")

    def _take_probe(self) -> None:
        if time.perf_counter() - self._probed_s > PROBE_EVERY_S:
            self._probe.take()
            self._probed_s = time.perf_counter()

    async def _read_blocks(self, channel: Channel) -> None:
        while True:
            for kind, payload in await channel.read_some(64):
                if kind == Kind.BLOCK:
                    self._note(payload)

    def _note(self, certified: bytes) -> None:
        _, block, header, certificate = decode_certified(certified)
        hash_ = hash_of(self._net.network, block.header)
        reason = check_certificate(certificate, self._net.network, header, hash_, self._publics)
        assert not reason, f"block {header.height} has no certificate: {reason}"
        now, phase = time.perf_counter(), self.phase
        for tx in block.transactions:
            sent = self._under_way.pop(tx, None)
            if sent is not None:
                phase.latencies.append(now - sent)
        phase.final += len(block.transactions)
        phase.blocks += 1
        self.height = header.height
        self._moved.set()
