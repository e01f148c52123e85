"""`wattpact bench kills`: kill -9 at random moments of real stations under load, and whether anything breaks.

Four stations (`wattpact station run`, TLS, real disk), a client that keeps transactions under way at all of them and
follows the blocks of each. Killed is one station, two, or all at once, and some again while they start. Whatever any
station has ever told with a certificate must be the same at all others and stand in every log at the end, every
transaction must become final, no station may have signed twice, and each must be level again within LEVEL_S.
With `--damage` a bit of one of the killed station's files is changed now and then: it must say so when it starts, and
heal from the others; when that was its memory of votes, it must be silent until it may speak again.

A killed process loses nothing that it gave to the operating system: what a power cut takes is tried on a disk that
forgets (`wattpact bench stores`). Moments are random; what happens in them depends on the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from watt_chain.block import block_hash, check_certificate, decode_certified
from watt_chain.transaction import decode_transaction
from watt_node.byhand import log_of
from watt_node.channel import PROTOCOL, Channel, ChannelError, Hello, Kind, dial, tls_context
from watt_node.clock import machine_ms
from watt_node.names import node_name
from watt_node.votelog import peek

from watt_tools import marks
from watt_tools.bench_net import AREA, CLIENT, HOST, BenchNet

NODES = 4
USERS = 100
WINDOW = 50
"Transactions under way: half of the users, so that no user waits for itself."
AGAIN_S = 3.0
"What is not final after this long is handed in again, as a gateway does."
TICK_S = 0.02
DIAL_S = 0.1
BLOCK = 20
SNAPSHOT_BLOCKS = 8
"Small, so that many kills hit a snapshot."
TIMEOUT_MS = 1000
GROUPS = (1, 2, NODES)
WEIGHTS = (80, 12, 8)
"Of a hundred kills: how many hit one station, two, all at once."
UNDER_LOAD_S = 0.8
"A kill comes within this time after the last one was made good."
SUFFIXES = (".log", ".idx", ".state")
AWAY_S = 0.6
"A killed station is started again within this time."
STARTING_SHARE = 0.25
STARTING_S = 1.5
"One start in four is killed too, within this time."
LEVEL_S = 120.0
"A station that is not level by then has failed; on a quiet machine it takes two seconds."
REFETCH_S = 0.25
"More for each block of the chain: damage in an old segment of an archive means all blocks behind it once more."
SETTLE_S = 60.0
DAMAGE_SHARE = 0.3
"With `--damage`: so many of the kills of one station."
NOTICES = (
    "votes-damaged",
    "blocks-damaged",
    "segment-damaged",
    "snapshot-damaged",
    "index-",
    "torn-tail-cut",
    "silent",
)
"Events of a station's log that say that its disk is not as it was."
STATUS_S = 5.5
"A status file is at most 5 s old."


@dataclass
class Found:
    """What came of a run."""

    kills: int = 0
    while_starting: int = 0
    several_at_once: int = 0
    "Kills of two or all stations in one moment."
    blocks: int = 0
    transactions: int = 0
    level_s: list[float] = field(default_factory=list)
    "Start to the first new block, one per restart."
    damaged: dict[str, int] = field(default_factory=dict)
    "Files a bit of which was changed, by kind."
    unnoticed: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    signed_twice: int = 0
    stuck: str = ""
    "A station that did not come back, or a chain that stood: the run ends there."
    doubts: list[str] = field(default_factory=list)
    "Stations that did not trust their votes at the end: nothing but silence, and unnecessary after a mere kill."

    @property
    def broken(self) -> bool:
        faults = (self.contradictions, self.lost, self.signed_twice, self.stuck, self.doubts, self.unnoticed)
        return any(faults)

    def data(self) -> dict[str, Any]:
        """For JSON."""
        ordered = sorted(self.level_s) or [0.0]
        level = {"p50": ordered[len(ordered) // 2], "p99": ordered[int(0.99 * len(ordered))], "max": ordered[-1]}
        return {**vars(self), "level_s": {name: round(value, 2) for name, value in level.items()}}


class Client:
    """Keeps transactions under way at every station, and every station's word."""

    def __init__(self, net: BenchNet, found: Found) -> None:
        self.heights = [0] * net.nodes
        "Last block each station has told."
        self.dialled_s = [0.0] * net.nodes
        "When the connection on which each tells them was made."
        self.hashes: dict[int, bytes] = {}
        self.under_way: dict[bytes, float] = {}
        self.paused = False
        self._net = net
        self._found = found
        self._lanes: dict[int, Channel] = {}
        self._queue: list[bytes] = []
        self._nonce = 0
        self._publics = tuple(key.public for key in net.keys)
        self._context = tls_context(net.tls(CLIENT), server=False)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the first transactions enrol the users and give them money."""
        loops: list[Awaitable[None]] = [self._load()]
        for index in range(self._net.nodes):
            loops += [self._follow(index), self._lane(index)]
        self._tasks = [asyncio.ensure_future(one) for one in loops]

    def check(self) -> None:
        """Raise what a loop of this client has died of."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def close(self) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dial(self, index: int, purpose: str) -> Channel:
        mine = Hello(PROTOCOL, purpose, self._net.network, AREA, CLIENT)
        return await dial(HOST, self._net.ports[index], self._context, mine, node_name(AREA, index))

    async def _follow(self, index: int) -> None:
        while True:
            with suppress(ChannelError):
                channel = await self._dial(index, "follow")
                self.dialled_s[index] = time.monotonic()
                try:
                    await channel.send(Kind.FOLLOW, msgspec.msgpack.encode([self.heights[index] + 1]))
                    while True:
                        for kind, payload in await channel.read_some(64):
                            if kind == Kind.BLOCK:
                                self._note(index, payload)
                finally:
                    channel.close()
            await asyncio.sleep(DIAL_S)

    async def _lane(self, index: int) -> None:
        while True:
            with suppress(ChannelError):
                channel = self._lanes[index] = await self._dial(index, "deliver")
                try:
                    while True:
                        await channel.read()
                finally:
                    del self._lanes[index]
                    channel.close()
            await asyncio.sleep(DIAL_S)

    async def _load(self) -> None:
        for founding in (self._net.enrolments(), self._net.deposits()):
            self._queue = founding
            while self._queue or self.under_way:
                await self._tick()
        while True:
            if not self._queue and not self.paused:
                self._nonce += 1
                self._queue = self._net.withdrawals(self._nonce, 1)
            await self._tick()

    async def _tick(self) -> None:
        now = time.monotonic()
        room = 0 if self.paused else max(0, WINDOW - len(self.under_way))
        chosen, self._queue = self._queue[:room], self._queue[room:]
        chosen += [tx for tx, sent_s in self.under_way.items() if now - sent_s > AGAIN_S]
        self.under_way.update(dict.fromkeys(chosen, now))
        for channel in list(self._lanes.values()):
            with suppress(ChannelError):
                channel.put_all(Kind.SUBMIT, chosen)
                await channel.drain()
        await asyncio.sleep(TICK_S)

    def _note(self, index: int, certified: bytes) -> None:
        _, block, header, certificate = decode_certified(certified)
        hash_ = block_hash(self._net.network, block.header)
        reason = check_certificate(certificate, self._net.network, header, hash_, self._publics)
        where = f"station {index}, height {header.height}"
        if reason:
            self._found.contradictions.append(f"{where}: {reason}")
        if self.hashes.setdefault(header.height, hash_) != hash_:
            self._found.contradictions.append(f"{where}: another block than told before")
        self.heights[index] = header.height
        for tx in block.transactions:
            if self.under_way.pop(tx, None) is not None:
                self._found.transactions += 1


class Killer:
    """Kills stations and starts them again."""

    def __init__(self, net: BenchNet, client: Client, found: Found, seed: int, damage: bool) -> None:
        self._net = net
        self._damage = damage
        self._client = client
        self._found = found
        self._random = random.Random(seed)

    async def run(self, kills: int) -> None:
        """Until there were so many. TimeoutError when a station does not come back or the chain stands."""
        while self._found.kills < kills:
            chance = self._random
            await asyncio.sleep(chance.uniform(0, UNDER_LOAD_S))
            (size,) = chance.choices(GROUPS, WEIGHTS)
            chosen = chance.sample(range(NODES), size)
            for index in chosen:
                self._kill(index)
            self._found.several_at_once += size if size > 1 else 0
            if self._damage and size == 1 and chance.random() < DAMAGE_SHARE:
                await self._heal(chosen[0])
                self._show(kills)
                continue
            await asyncio.sleep(chance.uniform(0, AWAY_S))
            started = {index: self._start(index) for index in chosen}
            if chance.random() < STARTING_SHARE:
                await asyncio.sleep(chance.uniform(0, STARTING_S))
                self._kill(chosen[0])
                self._found.while_starting += 1
                started[chosen[0]] = self._start(chosen[0])
            wanted = max(self._client.heights) + 1
            for index, begun_s in started.items():
                await self._level(index, begun_s, wanted)
            self._show(kills)

    async def _heal(self, index: int) -> None:
        """Change a bit of a file of a killed station, start it, and wait until it is level and signs again."""
        data, log = self._net.data(index), self._net.children.children[index].log
        path = self._random.choice(sorted(one for one in data.iterdir() if one.suffix in SUFFIXES))
        content = bytearray(path.read_bytes())
        at = self._random.randrange(len(content))
        content[at] ^= 1 << self._random.randrange(8)
        with path.open("r+b") as file:  # in place: the inode stays, so that it is damage and not a copy
            file.write(content)
        kind = "".join(letter for letter in path.name if not letter.isdigit())
        self._found.damaged[kind] = self._found.damaged.get(kind, 0) + 1
        before = log.stat().st_size
        begun_ms, begun_s = machine_ms(), self._start(index)
        await self._level(index, begun_s, max(self._client.heights) + 1)
        said = log.read_bytes()[before:].decode()
        if not any(notice in said for notice in NOTICES):
            self._found.unnoticed.append(f"station {index}, {path.name}, byte {at} of {len(content)}")
        level_s = time.monotonic()
        while self._is_silent(index, begun_ms):
            self._client.check()
            if time.monotonic() - level_s > LEVEL_S:
                raise TimeoutError(f"station {index} is level and silent for {LEVEL_S} s: {log}")
            await asyncio.sleep(TICK_S)

    def _is_silent(self, index: int, since_ms: int) -> bool:
        """Whether a station signs nothing, by a status that is younger than its start."""
        status = self._net.status(index)
        return status["written_ms"] < since_ms or bool(status["replica"].get("silent", "starting"))

    def _kill(self, index: int) -> None:
        child = self._net.children.children[index]
        assert child.pid is not None, f"station {index} has ended by itself: {child.log}"
        os.kill(child.pid, signal.SIGKILL)
        assert child.process is not None
        child.process.wait()
        self._found.kills += 1

    def _start(self, index: int) -> float:
        self._net.children.again(self._net.children.children[index])
        return time.monotonic()

    async def _level(self, index: int, begun_s: float, wanted: int) -> None:
        # What is still read from the connection to the killed process says nothing about the new one.
        while self._client.dialled_s[index] < begun_s or self._client.heights[index] < wanted:
            self._client.check()
            child = self._net.children.children[index]
            if child.pid is None:
                raise TimeoutError(f"station {index} has ended: {child.log}")
            if time.monotonic() - begun_s > LEVEL_S + REFETCH_S * wanted:
                raise TimeoutError(
                    f"station {index} at height {self._client.heights[index]}, not {wanted}: {child.log}"
                )
            await asyncio.sleep(TICK_S)
        self._found.level_s.append(time.monotonic() - begun_s)

    def _show(self, kills: int) -> None:
        if sys.stderr.isatty():
            slowest_s = max(self._found.level_s)
            text = f"\rkills {self._found.kills} of {kills}, height {max(self._client.heights)}"
            text += f", {self._found.transactions} transactions, slowest restart {slowest_s:.1f} s \033[K"
            print(text, end="", file=sys.stderr, flush=True)


def main(kills: int, seed: int, folder: Path | None, *, damage: bool, as_json: bool, write: Path | None = None) -> int:
    """Run and print; 0 when nothing broke, else 1 (then the folder is kept if `folder` names one)."""
    with tempfile.TemporaryDirectory(prefix="wattpact-kills-") as name:
        found = measure(kills, seed, folder or Path(name), damage)
    code = 0
    if as_json:
        print(json.dumps(found.data(), indent=1))
    else:
        code = marks.show_or_write(table(found), write, "bench-kills")
        faults = (*found.contradictions, *found.lost, *found.doubts, *found.unnoticed, found.stuck)
        for line in filter(None, faults):
            print(line)
    return int(found.broken or code)


def table(found: Found) -> str:
    """For a person, and for CONSENSUS.md."""
    level = found.data()["level_s"]
    rows = {
        "kills": found.kills,
        "while starting": found.while_starting,
        "of several at once": found.several_at_once,
        "with a changed bit in": ", ".join(f"{kind} {count}" for kind, count in sorted(found.damaged.items())) or "-",
        "not noticed": len(found.unnoticed),
        "blocks": found.blocks,
        "transactions": found.transactions,
        "contradictions": len(found.contradictions),
        "told and lost": len(found.lost),
        "signed twice": found.signed_twice,
        "in doubt at the end": len(found.doubts),
        "start to the first new block: p50, p99, longest": f"{level['p50']} s, {level['p99']} s, {level['max']} s",
    }
    return "\n".join(["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows.items())])


def measure(kills: int, seed: int, folder: Path, damage: bool = False) -> Found:
    """One run in a folder."""
    where = folder / "kills"
    net = BenchNet(where, NODES, BLOCK, timeout_ms=TIMEOUT_MS, users=USERS, snapshot_blocks=SNAPSHOT_BLOCKS)
    found = Found()
    client = Client(net, found)
    try:
        net.start(measured=False)
        asyncio.run(_measure(net, client, Killer(net, client, found, seed, damage), found, kills))
    except TimeoutError as error:
        found.stuck = str(error)
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        net.stop()
    if client.hashes:
        _examine(net, client, found)
    return found


async def _measure(net: BenchNet, client: Client, killer: Killer, found: Found, kills: int) -> None:
    client.start()
    try:
        begun_s = time.monotonic()
        while found.transactions < 2 * USERS + WINDOW:
            client.check()
            if time.monotonic() - begun_s > LEVEL_S:
                raise TimeoutError(f"{found.transactions} transactions are final after {LEVEL_S} s")
            await asyncio.sleep(TICK_S)
        await killer.run(kills)
        client.paused = True
        deadline_s = time.monotonic() + SETTLE_S
        while client.under_way or min(client.heights) < max(client.heights):
            client.check()
            if time.monotonic() > deadline_s:
                found.lost += [f"transaction {decode_transaction(tx).txid.hex()[:16]}" for tx in client.under_way]
                break
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(STATUS_S)
        found.signed_twice = sum(net.status(index)["replica"]["evidence"] for index in range(NODES))
    finally:
        await client.close()


def _examine(net: BenchNet, client: Client, found: Found) -> None:
    """What the stopped stations have on their disks, against what they told."""
    found.blocks = max(client.hashes)
    for index in range(NODES):
        stored: dict[int, bytes] = {}
        for certified in log_of(net.data(index)):
            _, block, header, _ = decode_certified(certified)
            stored[header.height] = block_hash(net.network, block.header)
            kinds = [decode_transaction(tx).kind for tx in block.transactions]
            found.signed_twice += kinds.count("Evidence") if not index else 0
        for height, hash_ in client.hashes.items():
            if height not in stored:
                if not found.stuck:  # the run ended before the station had them all again
                    found.lost.append(f"station {index}, block {height}")
            elif stored[height] != hash_:
                found.contradictions.append(f"station {index}, height {height}: another block than was told")
        doubt = peek(net.data(index), AREA, net.network).doubt
        if doubt:
            found.doubts.append(f"station {index}: {doubt}")
