"""The network that a benchmark measures: one area, real station daemons, keys that are the same in every run.

There is no main chain behind it (its one validator exists in the genesis file only) and no broker: the load comes over
the stations' own port, every transaction to every station, as a broker would deliver it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.rules import RULES_1
from watt_chain.crypto import PrivateKey, id8, sha256
from watt_chain.genesis import AreaGenesis, Genesis, Validator, open_genesis, sign_genesis
from watt_chain.transaction import make_transaction
from watt_node.config import TlsSection

from watt_tools.certificates import Authority
from watt_tools.children import Children, command

AREA = 1
START_S = 1_700_000_000
HOST = "127.0.0.1"
CLIENT = "regulator"
"The one name besides the validators that a station serves."
USERS = 1000
"Signers that take turns: a pool holds at most 256 transactions of one."
DEPOSIT_U = 10**9
START_TIMEOUT_S = 60
DUMP_TIMEOUT_S = 20


def make_key(name: str) -> PrivateKey:
    """A key that is the same in every run."""
    return PrivateKey.from_bytes(sha256(b"wattpact bench " + name.encode()))


class BenchNet:
    """The folder, the daemons and the transactions of one run."""

    def __init__(
        self,
        folder: Path,
        nodes: int,
        block: int,
        verifiers: str = "all",
        timeout_ms: int = 8000,
        users: int = USERS,
        **more: int | str,
    ) -> None:
        """Makes the folder anew. `block`: most transactions of a block; `verifiers`: the stations' setting.

        `more`: further keys of `[node]`.
        """
        self.folder = folder
        self.nodes = self.running = nodes
        self.keys = [make_key(f"node {index}") for index in range(nodes)]
        self.users = [make_key(f"user {number}") for number in range(users)]
        self._settings = {"transactions_max": block, "verifiers": verifiers, "timeout_ms": timeout_ms, **more}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.authority = Authority(folder / "tls", "bench")
        regulator = make_key("regulator")
        grid, aggregator = make_key("grid").public, make_key("aggregator").public
        validators = [Validator(f"area1-node{index}", key.public) for index, key in enumerate(self.keys)]
        main = [Validator("main-node0", make_key("main").public)]
        area = AreaGenesis(AREA, "area1", validators)
        rules = [codec.encode(RULES_1)]
        about = (main, [area], rules, RULES_1.version, 0)
        document = Genesis("bench", START_S, regulator.public, grid, aggregator, *about)
        data = sign_genesis(document, regulator)
        (folder / "genesis.bin").write_bytes(data)
        self.genesis, self.network = open_genesis(data, regulator.public)
        self.ports = free_ports(nodes)
        self.children = Children(folder / "pids.json")

    # --- daemons

    def start(self, absent: int = 0, *, measured: bool = True) -> None:
        """Start every station, but not the last `absent`, and wait until each has its peers.

        `measured`: with the counters of bench_node.py; without, it is what a deployment runs and nothing else.
        """
        self.running = self.nodes - absent
        for index in range(self.running):
            name = f"node{index}"
            path = self.folder / f"{name}.toml"
            path.write_text(self._configuration(index))
            words = command("station", "run", "--config", str(path))
            if measured:
                words = [sys.executable, "-m", "watt_tools.bench_node", str(path), str(self._dump_path(index))]
            self.children.start(name, words, self.folder / f"{name}.log")
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not all(self._is_complete(index) for index in range(self.running)):
            self.children.watch()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the stations did not find each other in {START_TIMEOUT_S} s ({self.folder})")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop every station."""
        self.children.stop()

    def pids(self) -> list[int]:
        """Process ids by index of the station."""
        return [child.pid or 0 for child in self.children.children]

    def status(self, index: int) -> dict[str, Any]:
        """The station's status file; empty before its first."""
        try:
            found: dict[str, Any] = json.loads((self.data(index) / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def dump(self) -> list[dict[str, Any]]:
        """The counters of every station's process, as of now."""
        paths = [self._dump_path(index) for index in range(self.running)]
        for path, pid in zip(paths, self.pids(), strict=True):
            path.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR1)
        deadline_s = time.monotonic() + DUMP_TIMEOUT_S
        while not all(path.exists() for path in paths):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"a station did not answer in {DUMP_TIMEOUT_S} s")
            time.sleep(0.01)
        return [json.loads(path.read_text()) for path in paths]

    def disk_bytes(self) -> list[int]:
        """Bytes of the block logs."""
        return [(self.data(index) / "blocks.log").stat().st_size for index in range(self.running)]

    def tls(self, name: str) -> TlsSection:
        """Certificate of a name."""
        certificate, private = self.authority.issue(name)
        return TlsSection(ca=self.authority.ca_path, cert=certificate, key=private)

    def data(self, index: int) -> Path:
        """A station's data folder."""
        return self.folder / f"node{index}"

    def _dump_path(self, index: int) -> Path:
        return self.folder / f"node{index}.dump.json"

    def _is_complete(self, index: int) -> bool:
        status = self.status(index)
        return bool(status) and len(status["peers"]) == self.running - 1

    def _configuration(self, index: int) -> str:
        name = f"area1-node{index}"
        key_path = self.folder / f"{name}.key"
        key_path.touch(mode=0o600)
        key_path.write_text(self.keys[index].to_text())
        tls = self.tls(name)
        folder = self.folder.absolute()
        text = _table("network", {"genesis": folder / "genesis.bin", "regulator": self.genesis.regulator.hex()})
        text += _table("clock", {"machine_start_ms": 0, "protocol_start_s": 0, "speed": 1})
        settings = {"batch_ms": 100, **self._settings}
        where = {"chain": AREA, "index": index, "key": key_path.absolute(), "data": self.data(index).absolute()}
        text += _table("node", {**where, **settings})
        text += _table("tls", {"ca": tls.ca.absolute(), "cert": tls.cert.absolute(), "key": tls.key.absolute()})
        text += _table("listen", {"host": HOST, "port": self.ports[index]})
        for other, port in enumerate(self.ports):
            if other != index:
                text += _table("[peers]", {"index": other, "host": HOST, "port": port})
        return text

    # --- transactions

    def enrolments(self) -> list[bytes]:
        """Every user with one plug, by the regulator."""
        return [
            self._sign(make_key("regulator"), "Enrol", number + 1, self._enrol(number, user))
            for number, user in enumerate(self.users)
        ]

    def deposits(self) -> list[bytes]:
        """Money for every user, by the grid company."""
        grid = make_key("grid")
        return [
            self._sign(grid, "Deposit", number + 1, kinds.Deposit(id8(user.public), DEPOSIT_U))
            for number, user in enumerate(self.users)
        ]

    def withdrawals(self, first_nonce: int, rounds: int, calls: int = 1) -> list[bytes]:
        """`rounds` transactions of every user: one signature each, money moves; several `calls` are a batch."""
        one = kinds.Call("Withdraw", msgspec.Raw(codec.encode(kinds.Withdraw(1))))
        kind, fields = ("Withdraw", kinds.Withdraw(1)) if calls == 1 else ("Batch", kinds.Batch([one] * calls))
        return [
            self._sign(user, kind, nonce, fields)
            for nonce in range(first_nonce, first_nonce + rounds)
            for user in self.users
        ]

    def _enrol(self, number: int, user: PrivateKey) -> kinds.Enrol:
        plug = kinds.EnrolPlug(make_key(f"plug {number}").public, "plain", 3680)
        return kinds.Enrol(user.public, 0, [plug], False, 3500, "h25", False)

    def _sign(self, key: PrivateKey, kind: str, nonce: int, fields: object) -> bytes:
        return make_transaction(key, self.network, kind, AREA, nonce, fields)


def _table(name: str, values: dict[str, Any]) -> str:
    lines = [f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines]) + "\n\n"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    doors = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports
