"""Four validators in memory, one of them on the real stores of a node over a disk that can lose power.

The other three have memories that never fail. What the one on the disk sends and tells is written down outside of it:
after any crash it must still know what it has signed and hold what it has told (`StoreWorld.look`).
"""

from __future__ import annotations

from collections import deque
from functools import partial

from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.genesis import network_of
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.pbft import Replica, ReplicaConfig
from watt_chain.pbft.messages import kind_of
from watt_chain.pbft.outputs import Record
from watt_chain.transaction import decode_transaction
from watt_node.vault import Keeping, Vault

from watt_sim.fakes import CHAIN, START_S, TallyContract, fake_verify, found_network, make_signer, make_tx
from watt_sim.power import PowerDisk

VALIDATORS = 4
USER = make_signer("user", real=False)
KEYS = [make_signer(f"node{index}", real=False) for index in range(VALIDATORS)]
OFFICES = [make_signer(name, real=False) for name in ("regulator", "grid", "aggregator")]
GENESIS = found_network(KEYS, OFFICES, [])
NETWORK = network_of(GENESIS)
STEP_MS = 25
STEPS_MAX = 2000
"""Steps after which a world that does not get on is stuck: 50 s, some ten views."""
PLEDGE_EVERY_MS = 20 * STEP_MS
VOTES = {"pre-prepare": "proposal", "prepare": "prepare", "commit": "commit"}
"""What a frame of the agreement is called among the records."""


class Broken(AssertionError):
    """Something was lost, contradicted or stuck; the text says what."""


def new_ledger(snapshot_blocks: int) -> Ledger:
    """At height 0."""
    users = (USER.public, *(key.public for key in KEYS))
    return Ledger(GENESIS, CHAIN, TallyContract(users), verify=fake_verify, freeze_every=snapshot_blocks)


class StoreWorld:
    """The validator with the disk is `index`; time passes in steps."""

    def __init__(self, disk: PowerDisk, keeping: Keeping, takes_states: bool = True, index: int = 0) -> None:
        self.disk, self.keeping, self.index, self.takes_states = disk, keeping, index, takes_states
        self.now_ms = 1_000
        self.signed: dict[tuple[str, int, int], bytes] = {}
        "(phase, height, view) -> block hash, of everything the validator on the disk ever sent."
        self.answered: dict[int, bytes] = {}
        "Height -> block hash, of every block it told anybody about."
        self.chain: dict[int, bytes] = {}
        self.away: set[int] = set()
        self.reports: list[tuple[str, dict[str, object]]] = []
        self.pledges = 0
        self.replayed = 0
        "Blocks executed again by the last start."
        self.ledgers: dict[int, Ledger] = {}
        self.replicas: dict[int, Replica] = {}
        self.vault: Vault | None = None
        self.oldest = 0
        "Blocks up to this height are no longer kept by the others."
        self.installed = 0
        "Height of the newest state that was taken in place of blocks."
        self.late_steps = 0
        "So much later than others the validator on the disk hears commits: the next height has begun by then."
        self._queue: deque[tuple[int, int, bytes]] = deque()
        self._later: deque[tuple[int, int, bytes]] = deque()
        "(due in ms, sender, frame) of the commits it has not heard yet."
        self._stored: dict[int, dict[int, bytes]] = {}
        for other in [number for number in range(VALIDATORS) if number != index]:
            self._stored[other] = {}
            ledger = new_ledger(keeping.snapshot_blocks)
            ledger.certified = partial(self._kept, other)  # type: ignore[method-assign]  # also forgets what is recent
            self.ledgers[other] = ledger
            self.replicas[other] = Replica(self._config(other), ledger)
            self.replicas[other].restore([], self.now_ms)
            self._carry(other)

    # --- the validator on the disk

    def start(self) -> None:
        """Start it. Raises StoreError, PowerCut, Broken."""
        self.vault = vault = Vault(self.disk, CHAIN, NETWORK, self.keeping)
        ledger = new_ledger(self.keeping.snapshot_blocks)
        ledger._archive = vault.block
        self.replayed = sum(applied is not None for applied in vault.load(ledger))
        self.ledgers[self.index] = ledger
        replica = Replica(self._config(self.index), ledger)
        records = vault.records()
        replica.restore(records, self.now_ms, vault.floor, *vault.interrupted())
        self._take_reports()
        self.replicas[self.index] = replica
        self._recall(records, vault)
        self._snapshot()
        self._carry(self.index)

    def _recall(self, records: list[bytes], vault: Vault) -> None:
        """Everything that was sent about heights above the head must be known, unless the memory is in doubt."""
        if vault.doubt:
            return
        found = {(record.kind, record.height, record.view) for record in (codec.decode(one, Record) for one in records)}
        for phase, height, view in self.signed:
            if height > max(vault.end, vault.floor) and (VOTES[phase], height, view) not in found:
                raise Broken(f"{phase} of height {height}, view {view} was sent and is forgotten")

    def stop(self) -> None:
        """The process is gone, as it would be after kill -9."""
        self.replicas.pop(self.index, None)
        self.ledgers.pop(self.index, None)
        self.vault = None
        self.disk.unlock()
        self._queue = deque(item for item in self._queue if item[1] != self.index)
        self._later.clear()

    def look(self) -> None:
        """What was told must be there, as far as it is to be kept. Raises Broken."""
        vault = self.vault
        assert vault is not None
        told = max(self.answered, default=0)
        if self.height() < told:
            raise Broken(f"height {told} was told, {self.height()} is left")
        kept_from = 1 if self.keeping.retain < 0 else vault.end - self.keeping.retain + 1
        kept_from = max(kept_from, self.installed + 1)
        for height, hash_ in self.answered.items():
            block = vault.block(height)
            if block is None and height >= kept_from:
                raise Broken(f"block {height} was told and is not kept")
            if self.chain[height] != hash_:
                raise Broken(f"block {height} is another one than was told")

    def _take_reports(self) -> None:
        assert self.vault is not None
        self.reports += self.vault.reports
        self.vault.reports.clear()

    def _snapshot(self) -> None:
        """As the node does, but in the same thread."""
        assert self.vault is not None
        state = self.vault.snapshot_due(self.ledgers[self.index])
        if state is not None:
            self.vault.write_snapshot(state)
            self.vault.prune()

    # --- everybody

    def _kept(self, other: int, height: int) -> bytes | None:
        return None if height <= self.oldest else self._stored[other].get(height)

    def _config(self, index: int) -> ReplicaConfig:
        return ReplicaConfig(
            index, KEYS[index], lambda now_ms: START_S + now_ms // 1000, fake_verify, batch_ms=5, timeout_ms=400,
            timeout_max_ms=1600, resend_ms=100, status_ms=300, takes_states=self.takes_states,
        )  # fmt: skip

    def _carry(self, index: int) -> None:
        replica = self.replicas[index]
        while output := replica.take_output():
            if index == self.index:
                assert self.vault is not None
                if output.installed is not None:
                    self.installed = output.installed.height
                self.vault.carry_out(output, self._send, self._told)
                if output.commit or output.installed:
                    self._take_reports()
                    self._snapshot()
                continue
            for to, frame in output.send:
                self._queue.append((index, to, frame))
            for certified, applied in zip(output.commit, output.applied, strict=True):
                self._stored[index][applied.header.height] = certified
                self._agree(applied)

    def _send(self, to: int, frame: bytes) -> None:
        body = codec.decode(codec.decode(frame, list[bytes])[0], list)
        if body[0] in VOTES:
            hash_ = blocks.block_hash(NETWORK, body[5]) if body[0] == "pre-prepare" else body[5]
            place = body[0], body[3], body[4]
            if self.signed.setdefault(place, hash_) != hash_:
                raise Broken(f"signed twice: {place}")
        self._queue.append((self.index, to, frame))

    def _told(self, _: bytes, applied: AppliedBlock) -> None:
        self._agree(applied)
        self.answered[applied.header.height] = applied.block_hash

    def _agree(self, applied: AppliedBlock) -> None:
        known = self.chain.setdefault(applied.header.height, applied.block_hash)
        if known != applied.block_hash:
            raise Broken(f"two blocks at height {applied.header.height}")

    def submit(self, nonce: int) -> None:
        """A user asks everybody that is up."""
        tx = make_tx(USER, NETWORK, "Send" if nonce % 2 else "Add", nonce, [nonce])
        for index in self._up():
            self.replicas[index].submit(tx, self.now_ms)
            self._carry(index)

    def step(self) -> None:
        """Deliver what is on the way, then let some time pass."""
        for _ in range(len(self._queue)):
            sender, to, frame = self._queue.popleft()
            if to == self.index and self.late_steps and kind_of(frame) == "commit":
                self._later.append((self.now_ms + self.late_steps * STEP_MS, sender, frame))
            elif to in self.replicas and not {sender, to} & self.away:
                self.replicas[to].receive(sender, frame, self.now_ms)
                self._carry(to)
        while self._later and self._later[0][0] <= self.now_ms:
            _, sender, frame = self._later.popleft()
            if self.index in self.replicas and not {sender, self.index} & self.away:
                self.replicas[self.index].receive(sender, frame, self.now_ms)
                self._carry(self.index)
        self.now_ms += STEP_MS
        for index in sorted(self.replicas):
            self.replicas[index].expire(self.now_ms)
            self._carry(index)

    def height(self, index: int | None = None) -> int:
        """Of the head of a validator, of the one on the disk unless told otherwise."""
        return self.ledgers[self.index if index is None else index].head.height

    def _up(self) -> list[int]:
        return [index for index in sorted(self.replicas) if index not in self.away]

    def run_to(self, height: int) -> None:
        """Ask for one transaction after the other until everybody that is up has the height. Raises Broken: stuck."""
        for _ in range(STEPS_MAX):
            heights = [self.height(index) for index in self._up()]
            if min(heights) >= height:
                return
            if max(heights) < height and not self.now_ms % (4 * STEP_MS):
                self.submit(self.ledgers[self._up()[-1]].next_nonce(USER.public))
            self._pledge()
            self.step()
        raise Broken(f"stuck: {[(index, replica.status()) for index, replica in sorted(self.replicas.items())]}")

    def _pledge(self) -> None:
        """What the shell does for a validator in doubt: a new transaction under its own key."""
        replica = self.replicas.get(self.index)
        if replica is None or not replica.doubt or not self.height() or self.now_ms % PLEDGE_EVERY_MS:
            return
        key = KEYS[self.index]
        self.pledges += 1
        tx = make_tx(key, NETWORK, "Add", self.ledgers[self.index].next_nonce(key.public), [self.now_ms])
        replica.pledge(decode_transaction(tx).txid)
        replica.submit(tx, self.now_ms)
        self._carry(self.index)
