"""One node of an experiment as a process: the same actor over TCP, the machine's clock, records synced before sending.

`python -m watt_tools.paper.process` reads its orders (JSON) from the first line of its input and ends with its input.
Frames between processes are a length, the sender's address, a kind and the payload; every frame is handled the one-way
delay after it came. There is no TLS here: all modes do without it alike (station/EXPERIMENTS.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from watt_chain.crypto import verify

from watt_tools.paper.actors import Actor, AreaNode
from watt_tools.paper.cell import Cell
from watt_tools.paper.certified import MAIN
from watt_tools.paper.modes import MODES, make_node, plan_of, settings_of
from watt_tools.paper.network import MASTERS, Network
from watt_tools.paper.relay import Master

HOST: Final = "127.0.0.1"
HEAD: Final = struct.Struct(">IIIB")
"""Length of the payload, sender, receiver (several clients share a port), kind."""
STEP: Final = 100
"""Kind of a frame to the driver: a trade has come to a step."""
READY: Final = 101
RETRY_S: Final = 0.05
TRIES_MAX: Final = 400
"""Twenty seconds: fifteen interpreters start on two cores."""
FRAME_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is told."""

    cell: dict[str, Any]
    trades: int
    address: int
    ports: dict[str, int]
    "By address; those of the clients are the driver's."
    folder: str

    def network(self) -> Network:
        """The network, the same in every process."""
        return network_of(Cell(**self.cell), self.trades)


def network_of(cell: Cell, trades: int) -> Network:
    """The network of a cell."""
    mode = MODES[cell.mode]
    s = 1 if mode.contract == "local" else cell.s
    return Network(plan_of(mode, s, cell.n, trades, cell.seed))


Handle = Callable[[int, int, int, bytes], None]
"""(sender, receiver, kind, payload)."""


class Links:
    """Outgoing connections, opened when first needed, and the door for incoming ones."""

    def __init__(self, ports: dict[int, int], delay_s: float, handle: Handle) -> None:
        self._ports = ports
        self._delay_s = delay_s
        self._handle = handle
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._waiting: dict[int, list[bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def listen(self, port: int) -> None:
        """Take connections."""
        await asyncio.start_server(self._serve, HOST, port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                length, sender, to, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
                payload = await reader.readexactly(min(length, FRAME_MAX))
                if self._delay_s:
                    loop.call_later(self._delay_s, self._handle, sender, to, kind, payload)
                else:
                    self._handle(sender, to, kind, payload)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()  # cancelled: the loop ends, and with it everything

    def post(self, sender: int, to: int, kind: int, payload: bytes) -> None:
        """Send a frame; while the connection is being opened it waits."""
        port = self._ports[to]
        data = HEAD.pack(len(payload), sender, to, kind) + payload
        writer = self._writers.get(port)
        if writer is not None:
            writer.write(data)
        elif port in self._waiting:
            self._waiting[port].append(data)
        else:
            self._waiting[port] = [data]
            self._tasks.append(asyncio.get_running_loop().create_task(self._open(port)))

    async def _open(self, port: int) -> None:
        for _ in range(TRIES_MAX):
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            self._writers[port] = writer
            writer.write(b"".join(self._waiting.pop(port)))
            return
        raise TimeoutError(f"nobody listens on port {port}")


class Shell:
    """An actor in real time."""

    def __init__(self, actor: Actor, links: Links, driver: int, folder: Path | None) -> None:
        self.actor = actor
        self._links = links
        self._driver = driver
        self._records = None if folder is None else os.open(folder / "records", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._blocks = None if folder is None else os.open(folder / "blocks", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._timer: asyncio.TimerHandle | None = None

    def receive(self, sender: int, to: int, kind: int, payload: bytes) -> None:
        """A frame, after its delay."""
        self.actor.receive(sender, kind, payload, _now_ms())
        self.settle()

    def settle(self) -> None:
        """Records to disk, then frames out, then blocks to disk; then the timer."""
        actor = self.actor
        self._store(self._records, actor.records)
        sent, actor.sent = actor.sent, []
        for to, kind, payload in sent:
            self._links.post(actor.address, to, kind, payload)
        steps, actor.steps = actor.steps, []
        for number, step in steps:
            text = json.dumps([number, step, time.monotonic_ns() // 1000])
            self._links.post(actor.address, self._driver, STEP, text.encode())
        self._store(self._blocks, actor.blocks)
        if self._timer is not None:
            self._timer.cancel()
        due_ms = actor.deadline_ms()
        if due_ms is not None:
            wait_s = max(0.001, (due_ms - _now_ms()) / 1000)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._expire)

    def _expire(self) -> None:
        self.actor.expire(_now_ms())
        self.settle()

    def _store(self, handle: int | None, items: list[bytes]) -> None:
        if items and handle is not None:
            os.write(handle, b"".join(len(item).to_bytes(4, "big") + item for item in items))
            os.fdatasync(handle)
        items.clear()


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


async def _run(orders: Orders) -> None:
    network = orders.network()
    cell = Cell(**orders.cell)
    chain, index = place_of(network, orders.address)
    actor = make_node(network, chain, index, verify, settings_of(MODES[cell.mode], cell.batch_ms))
    ports = {int(address): port for address, port in orders.ports.items()}
    driver = network.client(0)
    links = Links(ports, cell.delay_us / 1e6, lambda *frame: shell.receive(*frame))
    shell = Shell(actor, links, driver, Path(orders.folder))
    await links.listen(ports[orders.address])
    assert isinstance(actor, AreaNode | Master)
    actor.start(_now_ms())
    shell.settle()
    links.post(orders.address, driver, READY, b"")
    await asyncio.Event().wait()


def place_of(network: Network, address: int) -> tuple[int, int]:
    """(chain, index) of a node's address."""
    if address < MASTERS:
        return MAIN, address
    area, index = divmod(address - MASTERS, network.plan.n)
    return area + 1, index


def order_line(orders: Orders) -> str:
    """The first line of a process's input."""
    return json.dumps(asdict(orders)) + "\n"


def main() -> int:
    """Run until the input ends."""
    orders = Orders(**json.loads(sys.stdin.readline()))

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    asyncio.run(_run(orders))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
