"""`wattpact bench chain --inside COUNT`: the cost of a transaction in consensus and contract.

Real replicas with the real ledger, the real area contract and real P-256 signatures exchange real bytes in one process:
no sockets, no TLS, no disk. Every replica verifies every transaction itself. The limit is this processor's own
rate of P-256 verifications, measured in the same run: one verification per transaction and node is the least that
"every node verifies all" can cost. For profiling the cores; `bench_chain.py` measures real stations.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass

from watt_chain import codec
from watt_chain.contract import AreaContract, kinds
from watt_chain.contract.rules import RULES_1
from watt_chain.crypto import PrivateKey, id8, sha256, verify
from watt_chain.genesis import AreaGenesis, Genesis, Validator, network_of
from watt_chain.ledger import Ledger
from watt_chain.pbft.config import ReplicaConfig
from watt_chain.pbft.replica import Replica
from watt_chain.transaction import make_transaction
from watt_market.checker import Checker

AREA = 1
START_S = 1_700_000_000
USERS = 200
"Signers that take turns: the pool holds a bounded number of transactions of one signer."
VERIFICATIONS = 4000
"Enough to average over scheduling; about half a second."


@dataclass(frozen=True)
class Figures:
    """One run. Times are CPU seconds of this process."""

    replicas: int
    transactions: int
    blocks: int
    batch: int
    transaction_size: int
    verify_us: float
    cpu_us_per_transaction_and_node: float

    @property
    def verify_units(self) -> float:
        """CPU per transaction and node, in verifications."""
        return self.cpu_us_per_transaction_and_node / self.verify_us

    @property
    def ratio(self) -> float:
        """Reached / limit: the share of the CPU that went into the one verification nobody can spare."""
        return 1 / self.verify_units


def main(replicas: int, transactions: int, batch: int, *, as_json: bool) -> int:
    """Run and print; exit code 0 (a figure is no verdict)."""
    figures = measure(replicas, transactions, batch)
    data = {
        "replicas": figures.replicas,
        "transactions": figures.transactions,
        "blocks": figures.blocks,
        "batch": figures.batch,
        "transaction_size": figures.transaction_size,
        "verify_us": round(figures.verify_us, 1),
        "cpu_us_per_transaction_and_node": round(figures.cpu_us_per_transaction_and_node, 1),
        "verify_units": round(figures.verify_units, 3),
        "ratio": round(figures.ratio, 3),
        "mode": "cores in one process: no TLS, no disk; every node verifies all",
    }
    if as_json:
        print(json.dumps(data, indent=1))
    else:
        for name, value in data.items():
            print(f"{name:34} {value}")
    return 0


def measure(replicas: int, transactions: int, batch: int) -> Figures:
    """Order `transactions` withdrawals by `replicas` replicas in blocks of at most `batch`."""
    keys = [make_key(f"node {i}") for i in range(replicas)]
    users = [make_key(f"user {i}") for i in range(USERS)]
    genesis = make_genesis(keys)
    area = _Area(genesis, keys, batch)
    area.order(_founding(genesis, users))
    rounds = -(-transactions // USERS)
    wave = [_withdrawals(genesis, users, nonce) for nonce in range(1, rounds + 1)]
    sample = wave[0][0]
    blocks_before = area.height
    started = time.process_time()
    for txs in wave:
        area.order(txs)
    used_s = time.process_time() - started
    count = rounds * USERS
    return Figures(
        replicas,
        count,
        area.height - blocks_before,
        batch,
        len(sample),
        _verify_us(),
        used_s * 1e6 / count / replicas,
    )


class _Area:
    """Replicas wired by queues; the clock advances only when nobody has anything to say."""

    def __init__(self, genesis: Genesis, keys: list[PrivateKey], batch: int) -> None:
        self._now_ms = 0
        self._frames: deque[tuple[int, int, bytes]] = deque()
        self._final = [0] * len(keys)
        "Transactions final at each replica."
        self._ledgers = [Ledger(genesis, AREA, AreaContract(Checker())) for _ in keys]
        self._replicas = [
            Replica(
                ReplicaConfig(i, key, lambda now_ms: START_S + now_ms // 1000, transactions_max=batch, batch_ms=5),
                self._ledgers[i],
            )
            for i, key in enumerate(keys)
        ]

    @property
    def height(self) -> int:
        return self._ledgers[0].head.height

    def order(self, txs: list[bytes]) -> None:
        """Hand `txs` to every replica and run until all of them are final everywhere."""
        for tx in txs:
            for replica in self._replicas:
                reason = replica.submit(tx, self._now_ms, shared=True)
                assert not reason, reason
        wanted = min(self._final) + len(txs)
        while min(self._final) < wanted:
            for index, replica in enumerate(self._replicas):
                output = replica.take_output()
                self._final[index] += sum(len(applied.receipts) for applied in output.applied)
                self._frames.extend((index, target, frame) for target, frame in output.send)
            if self._frames:
                sender, target, frame = self._frames.popleft()
                self._replicas[target].receive(sender, frame, self._now_ms)
                continue
            due = [at for at in (replica.next_deadline_ms() for replica in self._replicas) if at is not None]
            self._now_ms = max(self._now_ms, min(due, default=self._now_ms + 1))
            for replica in self._replicas:
                replica.expire(self._now_ms)


def make_key(name: str) -> PrivateKey:
    """A key that is the same in every run."""
    return PrivateKey.from_bytes(sha256(b"wattpact bench " + name.encode()))


def make_genesis(keys: list[PrivateKey]) -> Genesis:
    """A network with these validators in its one area."""
    validators = [Validator(f"area1-node{i}", key.public) for i, key in enumerate(keys)]
    regulator, grid, aggregator = (make_key(name).public for name in ("regulator", "grid", "aggregator"))
    main = [Validator("main-node0", make_key("main").public)]
    area = AreaGenesis(AREA, "area1", validators)
    rules = [codec.encode(RULES_1)]
    return Genesis("bench", START_S, regulator, grid, aggregator, main, [area], rules, RULES_1.version, 0)


def _founding(genesis: Genesis, users: list[PrivateKey]) -> list[bytes]:
    """Enrolment of every user (one plug each) and money to withdraw."""
    network = network_of(genesis)
    regulator, grid = make_key("regulator"), make_key("grid")
    txs = []
    for number, user in enumerate(users):
        plug = kinds.EnrolPlug(make_key(f"plug {number}").public, "plain", 3680)
        enrolment = kinds.Enrol(user.public, 0, [plug], False, 3500, "h25", False)
        txs.append(make_transaction(regulator, network, "Enrol", AREA, number + 1, enrolment))
    for number, user in enumerate(users):
        deposit = kinds.Deposit(id8(user.public), 10**9)
        txs.append(make_transaction(grid, network, "Deposit", AREA, number + 1, deposit))
    return txs


def _withdrawals(genesis: Genesis, users: list[PrivateKey], nonce: int) -> list[bytes]:
    network = network_of(genesis)
    return [make_transaction(user, network, "Withdraw", AREA, nonce, kinds.Withdraw(1)) for user in users]


def _verify_us() -> float:
    """CPU of one verification, microseconds."""
    key, message = make_key("probe"), b"x" * 200
    signature = key.sign(message)
    started = time.process_time()
    for _ in range(VERIFICATIONS):
        assert verify(key.public, message, signature)
    return (time.process_time() - started) * 1e6 / VERIFICATIONS
