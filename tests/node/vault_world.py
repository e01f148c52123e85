"""Four validators in memory, one of them on real stores over a disk that can lose power (fake_disk.py)."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

from fake_disk import FakeDisk, PowerCut
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.genesis import network_of
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.pbft import Replica, ReplicaConfig
from watt_node.vault import Keeping, Vault

sys.path.insert(0, str(Path(__file__).parents[1] / "chain"))

from chain_world import START_S, CountingContract, FalseKey, false_verify, make_genesis, make_tx

KEYS = [FalseKey(f"node{index}") for index in range(4)]
GENESIS = make_genesis([key.public for key in KEYS])
NETWORK = network_of(GENESIS)
USER = FalseKey("user")
STEP_MS = 25
MACHINE = b"machine"


def new_ledger(every: int = 0) -> Ledger:
    return Ledger(GENESIS, 1, CountingContract(), verify=false_verify, freeze_every=every)


class VaultWorld:
    """Validator `index` on `disk`; the others have memories that never fail. Time passes in steps."""

    def __init__(self, disk: FakeDisk, keeping: Keeping, index: int = 0, takes_states: bool = True) -> None:
        self.disk, self.keeping, self.index = disk, keeping, index
        self.now_ms = 1_000
        self.signed: dict[tuple[str, int, int], bytes] = {}
        "(phase, height, view) -> block hash, of everything the validator on the disk ever sent."
        self.answered: dict[int, bytes] = {}
        "Height -> block hash, of every block it told anybody about."
        self.chain: dict[int, bytes] = {}
        self.queue: deque[tuple[int, int, bytes]] = deque()
        self.takes_states = takes_states
        self.away: set[int] = set()
        self.reports: list[tuple[str, dict[str, object]]] = []
        self.pledges = 0
        self.ledgers: dict[int, Ledger] = {}
        self.replicas: dict[int, Replica] = {}
        self.vault: Vault | None = None
        self.stored: dict[int, dict[int, bytes]] = {other: {} for other in range(4) if other != index}
        self.oldest = 0
        "Blocks up to this height are no longer kept by the others."
        for other in self.stored:
            ledger = new_ledger(keeping.snapshot_blocks)
            ledger._archive = lambda height, other=other: self._kept(other, height)  # type: ignore[misc]
            ledger.certified = lambda height, other=other: self._kept(other, height)  # type: ignore[misc, method-assign]
            self.ledgers[other] = ledger
            self.replicas[other] = Replica(self._config(other), ledger)
            self.replicas[other].restore([], self.now_ms)
            self._carry(other)

    def _kept(self, other: int, height: int) -> bytes | None:
        return None if height <= self.oldest else self.stored[other].get(height)

    def _config(self, index: int) -> ReplicaConfig:
        return ReplicaConfig(
            index, KEYS[index], lambda now_ms: START_S + now_ms // 1000, false_verify, batch_ms=5, timeout_ms=400,
            timeout_max_ms=1600, resend_ms=100, status_ms=300, takes_states=self.takes_states,
        )  # fmt: skip

    def start(self) -> None:
        """Start the validator from its disk. StoreError, PowerCut."""
        self.vault = Vault(self.disk, 1, NETWORK, self.keeping)
        ledger = new_ledger(self.keeping.snapshot_blocks)
        vault = self.vault
        ledger._archive = vault.block
        for _ in vault.load(ledger):
            pass
        self.reports += vault.reports
        vault.reports.clear()
        self.ledgers[self.index] = ledger
        replica = Replica(self._config(self.index), ledger)
        replica.restore(vault.records(), self.now_ms, vault.floor, *vault.interrupted())
        self.replicas[self.index] = replica
        self._snapshot()
        self._carry(self.index)

    def stop(self) -> None:
        """The power is gone."""
        self.replicas.pop(self.index, None)
        self.ledgers.pop(self.index, None)
        self.vault = None
        for inode in self.disk.entries.values():
            inode.locked = False
        self.queue = deque(item for item in self.queue if item[1] != self.index)

    def _carry(self, index: int) -> None:
        replica = self.replicas[index]
        while output := replica.take_output():
            if index == self.index:
                assert self.vault is not None
                self.vault.carry_out(output, self._send_own, self._told)
                if output.commit or output.installed:
                    self._snapshot()
                continue
            for to, frame in output.send:
                self.queue.append((index, to, frame))
            for certified, applied in zip(output.commit, output.applied, strict=True):
                self.stored[index][applied.header.height] = certified
                self._agree(applied)

    def _send_own(self, to: int, frame: bytes) -> None:
        body = codec.decode(codec.decode(frame, list[bytes])[0], list)
        if body[0] in ("pre-prepare", "prepare", "commit"):
            hash_ = blocks.block_hash(NETWORK, body[5]) if body[0] == "pre-prepare" else body[5]
            place = body[0], body[3], body[4]
            assert self.signed.setdefault(place, hash_) == hash_, f"signed twice: {place}"
        self.queue.append((self.index, to, frame))

    def _told(self, certified: bytes, applied: AppliedBlock) -> None:
        self._agree(applied)
        self.answered[applied.header.height] = applied.block_hash

    def _agree(self, applied: AppliedBlock) -> None:
        known = self.chain.setdefault(applied.header.height, applied.block_hash)
        assert known == applied.block_hash, "two blocks at one height"

    def _snapshot(self) -> None:
        assert self.vault is not None
        state = self.vault.snapshot_due(self.ledgers[self.index])
        if state is not None:
            self.vault.write_snapshot(state)
            self.vault.prune()

    def submit(self, nonce: int) -> None:
        """A user asks everybody that is up."""
        tx = make_tx(USER, NETWORK, nonce, "Send" if nonce % 2 else "Add")
        for index in sorted(self.replicas):
            if index not in self.away:
                self.replicas[index].submit(tx, self.now_ms)
                self._carry(index)

    def step(self) -> None:
        """Deliver what is on the way, then let some time pass."""
        for _ in range(len(self.queue)):
            sender, to, frame = self.queue.popleft()
            if to in self.replicas and not {sender, to} & self.away:
                self.replicas[to].receive(sender, frame, self.now_ms)
                self._carry(to)
        self.now_ms += STEP_MS
        for index in sorted(self.replicas):
            self.replicas[index].expire(self.now_ms)
            self._carry(index)

    def height(self, index: int | None = None) -> int:
        return self.ledgers[self.index if index is None else index].head.height

    def run_to(self, height: int, steps: int = 2000) -> None:
        """Ask for one transaction after the other until everybody that is up has the height. AssertionError: stuck."""
        ups = lambda: [index for index in self.replicas if index not in self.away]  # noqa: E731
        for _ in range(steps):
            lowest = min(self.height(index) for index in ups())
            highest = max(self.height(index) for index in ups())
            if lowest >= height:
                return
            if highest < height and not self.now_ms % (4 * STEP_MS):
                self.submit(self.ledgers[ups()[-1]].next_nonce(USER.public))
            self._pledge()
            self.step()
        raise AssertionError(f"stuck: {[(i, r.status()) for i, r in sorted(self.replicas.items())]}")

    def _pledge(self) -> None:
        """What the shell does for a validator in doubt: a new transaction under its own key."""
        replica = self.replicas.get(self.index)
        if replica is None or not replica.doubt or not self.height():
            return
        nonce = self.ledgers[self.index].next_nonce(KEYS[self.index].public)
        if self.now_ms % (20 * STEP_MS):
            return
        self.pledges += 1
        payload = codec.encode(["Add", 1, nonce, [self.now_ms]])
        signature = KEYS[self.index].sign(codec.signing_bytes(b"tx", NETWORK, payload))
        tx = codec.encode([payload, KEYS[self.index].public, signature])
        from watt_chain.transaction import txid

        replica.pledge(txid(tx))
        replica.submit(tx, self.now_ms)
        self._carry(self.index)


__all__ = ["FakeDisk", "PowerCut", "VaultWorld"]
