"""`wattpact bench peers`: what others take for an ordered, durable 300-byte write on this machine, beside ours.

etcd (Debian's package, unpacked into a folder of its own when there is none) and pysyncobj (an environment of its own)
order what they are told, survive crashes and trust every member. They are called without TLS and without signatures,
etcd through its JSON gateway, pysyncobj from inside its leader. CPU is that of all servers, per write and server, also
in verifications of the same run.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from watt_tools import market_peers, marks
from watt_tools.bench_limit import Probe
from watt_tools.bench_net import HOST, free_ports

BYTES: Final = 300
WORKERS: Final = 16
"Connections of the client of etcd."
ETCD_BATCH: Final = 125
"Writes of one transaction; etcd takes 128."
WINDOWS: Final = {"as-shipped": 2000, "sync": 20}
"Calls under way at pysyncobj: as at ours; with a sync for each few, or it syncs until it takes its leader for dead."
START_S: Final = 30
SYNCOBJ: Final = "pysyncobj==0.3.17"
WORKER: Final = Path(__file__).parent / "peers/syncobj.py"
CANNOT: Final = {
    "etcd": "a member that lies or is broken into, who signed what, a proof for somebody outside, rules that every "
    "member checks; here also without TLS",
    "pysyncobj": "the same, and as shipped it never syncs its journal: a power cut takes what it acknowledged",
    "wattpact": "a majority of crashed members: it needs q = ceil((n + f + 1) / 2)",
}


@dataclass(frozen=True)
class Row:
    """One system under load."""

    system: str
    nodes: int
    crashes: int
    liars: int
    batch: int
    "Writes of one call of the client."
    rate: float
    "Writes a second in a closed loop."
    cpu_us: float
    units: float
    "CPU per write and node, in verifications."
    half_rate: float
    p50_ms: float
    p99_ms: float
    "At half of `rate`."


def main(
    folder: Path, seconds: float, only: list[str], *, as_json: bool, markdown: bool, write: Path | None = None
) -> int:
    """Run and print; 1 when a peer could not be had."""
    rows: list[Row] = []
    try:
        for name, run in (("etcd", etcd), ("pysyncobj", syncobj), ("wattpact", ours)):
            if name in only:
                print(f"wattpact bench peers: {name}", file=sys.stderr, flush=True)
                rows += run(folder, seconds)
    except (market_peers.PeerError, OSError, TimeoutError) as error:
        print(f"wattpact bench peers: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"bytes": BYTES, "rows": [asdict(row) for row in rows], "cannot": CANNOT}, indent=1))
        return 0
    bullet = "- " if markdown else "  "
    names = dict.fromkeys(row.system.split(",")[0] for row in rows)
    lines = [table(rows), "", "What each does not stand:", "", *(f"{bullet}{name}: {CANNOT[name]}." for name in names)]
    return marks.show_or_write("\n".join(lines), write, "bench-peers")
    return 0


def table(rows: list[Row]) -> str:
    """The markdown of CONSENSUS.md."""
    head = "| system | nodes | crashed | lying | writes a call | writes/s | CPU us | verify-units | p50 ms | p99 ms |"
    lines = [head, "|---" + "|--:" * 9 + "|"]
    lines += [
        f"| {r.system} | {r.nodes} | {r.crashes} | {r.liars} | {r.batch} | {r.rate:,.0f} | {r.cpu_us:.0f} "
        f"| {r.units:.2f} | {r.p50_ms:.0f} | {r.p99_ms:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def ours(_: Path, seconds: float) -> Iterator[Row]:
    """An area of four stations: every write signed, checked by all, executed by a contract, under a state root."""
    from watt_tools.bench_chain import Plan, measure

    f = measure(Plan(seconds=seconds))
    figures = (f.rate, f.cpu_us, f.units, f.half_rate, f.p50_ms, f.p99_ms)
    yield Row("wattpact, signed calls", f.nodes, 1, 1, 1, *figures)


# etcd ---------------------------------------------------------------------------------------------------------


def etcd(folder: Path, seconds: float) -> Iterator[Row]:
    """Three and four members, the second as many as ours; one write a request, then transactions of many."""
    program = find_etcd(folder)
    for nodes, batch in ((3, 1), (3, ETCD_BATCH), (4, ETCD_BATCH)):
        with tempfile.TemporaryDirectory(prefix="wattpact-etcd-") as name, _members(program, Path(name), nodes) as up:
            ports, pids = up
            yield _figures("etcd, plain writes", pids, batch, seconds, EtcdClient(ports, batch))


def find_etcd(folder: Path) -> Path:
    """The program of this machine, or Debian's, unpacked. Raises PeerError."""
    there = shutil.which("etcd")
    unpacked = folder / "etcd/usr/bin/etcd"
    if there or unpacked.exists():
        return Path(there or unpacked)
    target = folder / "etcd"
    target.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "etcd-server"], cwd=target, check=True, capture_output=True)
        (package,) = target.glob("etcd-server*.deb")
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=target, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError, ValueError):
        raise market_peers.PeerError("etcd: not installed, and apt-get cannot download etcd-server") from None
    return unpacked


@contextmanager
def _members(program: Path, folder: Path, nodes: int) -> Iterator[tuple[list[int], list[int]]]:
    """A cluster on loopback: (ports for clients, process ids)."""
    ports = free_ports(2 * nodes)
    clients, between = ports[:nodes], ports[nodes:]
    cluster = ",".join(f"m{index}=http://{HOST}:{port}" for index, port in enumerate(between))
    members = []
    with (folder / "log").open("wb") as log:
        for index in range(nodes):
            client, peer = f"http://{HOST}:{clients[index]}", f"http://{HOST}:{between[index]}"
            words = [str(program), "--name", f"m{index}", "--data-dir", str(folder / f"m{index}")]
            words += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
            words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--logger", "zap"]
            members.append(subprocess.Popen(words, stdout=log, stderr=log))
        try:
            _wait_for(lambda: _answers(clients[0]), f"etcd does not answer; its log is {folder / 'log'}")
            yield clients, [member.pid for member in members]
        finally:
            for member in members:
                member.kill()
                member.wait()


def _answers(port: int) -> bool:
    try:
        _post(http.client.HTTPConnection(HOST, port, timeout=2), "/v3/kv/put", {"key": "eA==", "value": "eA=="})
    except (OSError, http.client.HTTPException):
        return False
    return True


def _post(connection: http.client.HTTPConnection, path: str, body: object) -> None:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise OSError(f"etcd answers {answer.status}")


class EtcdClient:
    """WORKERS connections, spread over the members."""

    def __init__(self, ports: list[int], batch: int) -> None:
        self._ports = ports
        value = base64.b64encode(b"x" * (BYTES - 8)).decode()
        keys = [base64.b64encode(b"%08d" % number).decode() for number in range(batch)]
        puts = [{"requestPut": {"key": key, "value": value}} for key in keys]
        one = {"key": keys[0], "value": value}
        self._call: tuple[str, object] = ("/v3/kv/txn", {"success": puts}) if batch > 1 else ("/v3/kv/put", one)
        self._batch = batch

    def closed(self, seconds: float) -> tuple[int, float, list[float]]:
        """(writes, seconds, latencies in ms) with every connection busy."""
        began_s = time.perf_counter()
        found = self._run(lambda: time.perf_counter() if time.perf_counter() < began_s + seconds else None)
        return len(found) * self._batch, time.perf_counter() - began_s, found

    def open(self, rate: float, seconds: float) -> tuple[int, float, list[float]]:
        """As `closed`, `rate` writes a second; latencies count from when a call was due."""
        began_s = time.perf_counter()
        due: queue.SimpleQueue[float] = queue.SimpleQueue()
        for number in range(int(rate * seconds / self._batch)):
            due.put(began_s + number * self._batch / rate)

        def following() -> float | None:
            try:
                at_s = due.get_nowait()
            except queue.Empty:
                return None
            time.sleep(max(0.0, at_s - time.perf_counter()))
            return at_s

        found = self._run(following)
        return len(found) * self._batch, time.perf_counter() - began_s, found

    def _run(self, following: Callable[[], float | None]) -> list[float]:
        """Calls until `following` has none; their latencies from the instant it gave."""
        found: list[float] = []
        broken: list[Exception] = []

        def work(number: int) -> None:
            connection = http.client.HTTPConnection(HOST, self._ports[number % len(self._ports)], timeout=30)
            try:
                while (at_s := following()) is not None:
                    _post(connection, *self._call)
                    found.append((time.perf_counter() - at_s) * 1000)
            except (OSError, http.client.HTTPException) as error:
                broken.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if broken:
            raise OSError(f"etcd: {broken[0]}")
        return found


# pysyncobj ----------------------------------------------------------------------------------------------------


def syncobj(folder: Path, seconds: float) -> Iterator[Row]:
    """Three nodes, as shipped and with a sync for every entry."""
    python = market_peers.environment(folder, "pysyncobj", (SYNCOBJ,))
    for mode in ("as-shipped", "sync"):
        with tempfile.TemporaryDirectory(prefix="wattpact-syncobj-") as name:
            nodes = _Cluster(python, Path(name), mode)
            try:
                what = "synced" if mode == "sync" else "as shipped, not synced"
                yield _figures(f"pysyncobj, {what}", nodes.pids, 1, seconds, nodes)
            finally:
                nodes.stop()


class _Cluster:
    """Three processes of peers/syncobj.py; the one that leads makes the load."""

    def __init__(self, python: Path, folder: Path, mode: str) -> None:
        addresses = [f"{HOST}:{port}" for port in free_ports(3)]
        self._window = WINDOWS[mode]
        self._nodes = []
        for own in addresses:
            others = [address for address in addresses if address != own]
            words = [str(python.absolute()), "-I", str(WORKER.resolve()), own, str(folder / own), mode, *others]
            pipe = subprocess.PIPE
            quiet = subprocess.DEVNULL
            self._nodes.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=quiet, text=True, cwd=folder))
        self.pids = [node.pid for node in self._nodes]
        self._leader = self._nodes[0]
        _wait_for(self._find_leader, "pysyncobj finds no leader")

    def _find_leader(self) -> bool:
        for node in self._nodes:
            if self._ask(node, {"do": "leader"}):
                self._leader = node
                return True
        return False

    def _ask(self, node: subprocess.Popen[str], order: dict[str, object]) -> Any:
        assert node.stdin is not None and node.stdout is not None
        node.stdin.write(json.dumps(order) + "\n")
        node.stdin.flush()
        line = node.stdout.readline()
        if not line:
            raise OSError("pysyncobj: a node has ended")
        return json.loads(line)

    def closed(self, seconds: float) -> tuple[int, float, list[float]]:
        """As `EtcdClient.closed`."""
        return self._load({"do": "closed", "window": self._window, "seconds": seconds, "bytes": BYTES})

    def open(self, rate: float, seconds: float) -> tuple[int, float, list[float]]:
        """As `EtcdClient.open`."""
        return self._load({"do": "open", "rate": rate, "seconds": seconds, "bytes": BYTES})

    def _load(self, order: dict[str, object]) -> tuple[int, float, list[float]]:
        told = self._ask(self._leader, order)
        return told["count"], told["seconds"], told["latencies_ms"]

    def stop(self) -> None:
        """End the three processes."""
        for node in self._nodes:
            node.kill()
            node.wait()


# All of them --------------------------------------------------------------------------------------------------


def _figures(system: str, pids: list[int], batch: int, seconds: float, client: EtcdClient | _Cluster) -> Row:
    """Closed loop, then half of that open."""
    client.closed(1.0)
    probe = Probe()
    probe.take()
    before_s = sum(map(_cpu_s, pids))
    count, took_s, _ = client.closed(seconds)
    cpu_us = (sum(map(_cpu_s, pids)) - before_s) * 1e6 / max(1, count) / len(pids)
    probe.take()
    unit_us = probe.unit_s() * 1e6
    rate = count / took_s
    half, took_s, latencies = client.open(rate / 2, seconds)
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] if latencies else 0.0 for share in (0.5, 0.99))
    nodes = len(pids)
    return Row(system, nodes, (nodes - 1) // 2, 0, batch, rate, cpu_us, cpu_us / unit_us, half / took_s, p50, p99)


def _cpu_s(pid: int) -> float:
    """CPU that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for(ready: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > deadline_s:
            raise TimeoutError(otherwise)
        time.sleep(0.1)
