"""Fixtures of the chain tests: a toy contract, fast false signatures, and a seeded network in memory.

The false signature is SHA-256(public, message) twice: as good as a real one against everything a test does
on purpose (wrong message, wrong key, changed bytes), and a hundred times faster. Tests of real signatures
use `real_keys`.
"""

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from watt_chain import block as blocks
from watt_chain import codec, crypto
from watt_chain.block import Block, Certificate, CertifiedBlock, VoteSignature
from watt_chain.election import rotation
from watt_chain.genesis import AreaGenesis, Genesis, Seat, Validator, network_of, quorum
from watt_chain.ledger import BlockContext, Contract, Ledger
from watt_chain.pbft import Replica, ReplicaConfig
from watt_chain.resume import Resume
from watt_chain.state import State, StateReader
from watt_chain.transaction import DecodedTransaction

START_S = 1_700_000_000


class FalseKey:
    """A signer whose signatures cost one hash."""

    def __init__(self, name: str) -> None:
        half = hashlib.sha256(name.encode()).digest()
        self.public = half + hashlib.sha256(half).digest()

    def sign(self, message: bytes) -> bytes:
        return hashlib.sha256(self.public + message).digest() * 2


def false_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    return hashlib.sha256(public + message).digest() * 2 == signature


def real_keys(count: int, offset: int = 0) -> list[crypto.PrivateKey]:
    return [crypto.PrivateKey.from_bytes((offset + number + 1).to_bytes(32, "big")) for number in range(count)]


class CountingContract:
    """A contract to count with: "Add" adds, "Send" sends a message, "Seats" sets the validators, others are refused."""

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        state.put(b"total", codec.encode(0))

    def begin(self, state: State, context: BlockContext) -> None:
        state.put(b"time", codec.encode(context.time_s))
        waiting = state.get(b"seats/next")
        if waiting is not None:
            height, listed = codec.decode(waiting, tuple[int, list[tuple[int, str, bytes]]])
            if context.height + 1 == height:
                state.put(b"seats", codec.encode(listed))

    def execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> str:
        total = codec.decode(state.get(b"total") or b"\x00", int)
        state.put(b"total", codec.encode(total + 1))
        if tx.kind == "Send":
            state.emit(0, "Hello", tx.fields_raw)
        if tx.kind == "Seats":  # [height from which they act, [[number, name, public]]]
            state.put(b"seats/next", tx.fields_raw)
        if tx.kind == "Refuse":
            state.put(b"refused/" + tx.txid, b"1")
            return "refused"
        return ""

    def next_nonce(self, state: StateReader, signer: bytes) -> int:
        if signer == bytes(64):
            return -1
        found = state.get(b"nonce/" + crypto.id8(signer))
        return 1 if found is None else codec.decode(found, int) + 1

    def consume_nonce(self, state: State, signer: bytes, nonce: int) -> bool:
        if nonce != self.next_nonce(state, signer):
            return False
        state.put(b"nonce/" + crypto.id8(signer), codec.encode(nonce))
        return True

    def resume(self, state: State, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        word = codec.decode(tx.fields_raw, Resume)
        if (word.height, word.previous) != (context.height, previous):
            return "previous"
        state.put(b"seats", codec.encode([[int(one.name[4:]), one.name, one.public] for one in word.validators]))
        return ""

    def rules_version(self, state: StateReader) -> int:
        return 1

    def inbox_cursor(self, state: StateReader) -> int:
        return 0

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        return rotation(context.height, len(context.validators))

    def seats(self, state: StateReader) -> tuple[Seat, ...] | None:
        listed = state.get(b"seats")
        return None if listed is None else seats_of(codec.decode(listed, list[tuple[int, str, bytes]]))


def seats_of(listed: list[tuple[int, str, bytes]]) -> tuple[Seat, ...]:
    return tuple(Seat(number, Validator(name, public)) for number, name, public in listed)


def make_genesis(publics: list[bytes], office: bytes | None = None) -> Genesis:
    """A network with one area; main chain and area have the same validators' keys."""
    validators = [Validator(f"node{index}", public) for index, public in enumerate(publics)]
    key = office or FalseKey("office").public
    return Genesis("test", START_S, key, key, key, validators, [AreaGenesis(1, "area", validators)], [], 1, 0)


def make_tx(
    key: "FalseKey | crypto.PrivateKey",
    network: bytes,
    nonce: int,
    kind: str = "Add",
    chain: int = 1,
    fields: object = None,
) -> bytes:
    payload = codec.encode([kind, chain, nonce, [nonce] if fields is None else fields])
    return codec.encode([payload, key.public, key.sign(codec.signing_bytes(b"tx", network, payload))])


def certify(
    ledger: Ledger, block: Block, keys: "list[FalseKey] | list[crypto.PrivateKey]", view: int | None = None
) -> bytes:
    """A certified block signed by the first q keys."""
    header = codec.decode(block.header, blocks.Header)
    at = header.view if view is None else view
    hash_ = blocks.block_hash(ledger.network, block.header)
    message = blocks.vote_bytes(ledger.network, "commit", header.chain, header.height, at, hash_)
    votes = [VoteSignature(index, keys[index].sign(message)) for index in range(quorum(len(keys)))]
    return codec.encode(CertifiedBlock(codec.encode(block), codec.encode(Certificate(at, votes))))


@dataclass
class Disk:
    """What survives a crash of a node."""

    votes: list[bytes] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)


Tamper = Callable[[int, int, bytes], bytes | None]
"""(sender, receiver, frame) -> the frame that arrives, or None."""


class World:
    """n replicas, a lossy network and a clock, all from one seed."""

    def __init__(self, n: int, seed: int, real: bool = False, founders: int = 0, **settings: int) -> None:
        """`real`: P-256 signatures instead of false ones; `founders`: validators of genesis, the rest only follow."""
        self.n = n
        self.verify = crypto.verify if real else false_verify
        self.random = random.Random(seed)
        self.seed = seed
        self.settings = settings
        self.keys: list[FalseKey] | list[crypto.PrivateKey] = (
            real_keys(n) if real else [FalseKey(f"node{index}") for index in range(n)]
        )
        self.genesis = make_genesis([key.public for key in self.keys[: founders or n]])
        self.network = network_of(self.genesis)
        self.now_ms = 1_000
        self.disks = [Disk() for _ in range(n)]
        self.replicas: list[Replica | None] = [None] * n
        self.ledgers: list[Ledger | None] = [None] * n
        self.queue: list[tuple[int, int, int, int, bytes]] = []
        self.order = 0
        self.loss = 0.0
        self.double = 0.0
        self.delay_ms = (1, 20)
        self.torn = 0.0
        "Chance that a node dies while it carries out an output, with a part of its records on the disk."
        self.cut: Callable[[int, int], bool] = lambda a, b: False
        self.tamper: Tamper = lambda a, b, frame: frame
        self.chain: dict[int, bytes] = {}
        "Height -> block hash, over all nodes: the safety check."
        self.signed: dict[tuple[int, str, int, int], bytes] = {}
        "(node, phase, height, view) -> block hash: nobody honest signs twice."
        self.watched = [True] * n
        "Whether a node is expected to be honest."
        self.word = b""
        "The regulator's Resume that nodes are told at their start; of no effect after its height."
        self.spare_keys: dict[int, list[FalseKey]] = {}
        for index in range(n):
            self.start(index)

    # Nodes

    def contract(self) -> Contract:
        """A new contract for a node that starts."""
        return CountingContract()

    def start(self, index: int) -> None:
        """Start a node from its disk."""
        disk = self.disks[index]
        ledger = Ledger(self.genesis, 1, self.contract(), verify=self.verify)
        for certified in disk.blocks:
            ledger.replay(certified)
        if self.word:
            ledger.resume(self.word)
        config = ReplicaConfig(
            number=index,
            key=self.keys[index],
            protocol_time=lambda now_ms: START_S + now_ms // 1000,
            verify=self.verify,
            others=tuple(number for number in range(self.n) if number != index),
            **self.settings,
        )
        replica = Replica(config, ledger)
        for key in self.spare_keys.get(index, ()):
            replica.add_key(key, self.now_ms)
        self.replicas[index], self.ledgers[index] = replica, ledger
        replica.restore(disk.votes, self.now_ms)
        self.carry_out(index)

    def crash(self, index: int) -> None:
        """Lose everything that is not on the disk; frames on the way still arrive."""
        self.replicas[index] = self.ledgers[index] = None

    def carry_out(self, index: int) -> None:
        """Do what the replica asks: persist, send, commit."""
        replica = self.replicas[index]
        assert replica is not None
        output = replica.take_output()
        disk = self.disks[index]
        if output.persist and self.torn and self.random.random() < self.torn:
            disk.votes.extend(output.persist[: self.random.randint(0, len(output.persist))])
            self.crash(index)
            return
        disk.votes.extend(output.persist)
        for peer, frame in output.send:
            self.watch(index, frame)
            self.post(index, peer, frame)
        for certified, applied in zip(output.commit, output.applied, strict=True):
            disk.blocks.append(certified)
            height = applied.header.height
            known = self.chain.setdefault(height, applied.block_hash)
            assert known == applied.block_hash, f"SAFETY two blocks at height {height}, seed {self.seed}"
            assert height == len(disk.blocks), f"heights in order, seed {self.seed}"

    def watch(self, index: int, frame: bytes) -> None:
        """No honest node signs two proposals, prepares or commits of one height and view."""
        if not self.watched[index]:
            return
        body = codec.decode(codec.decode(frame, list[bytes])[0], list)
        kind = body[0]
        if kind not in ("pre-prepare", "prepare", "commit"):
            return
        place = (index, kind, body[3], body[4])
        hash_ = blocks.block_hash(self.network, body[5]) if kind == "pre-prepare" else body[5]
        assert self.signed.setdefault(place, hash_) == hash_, f"SIGNED TWICE {place}, seed {self.seed}"

    # Network

    def post(self, sender: int, receiver: int, frame: bytes) -> None:
        changed = self.tamper(sender, receiver, frame)
        if changed is None or self.cut(sender, receiver):
            return
        copies = 1 + (self.random.random() < self.double)
        for _ in range(copies):
            if self.random.random() < self.loss:
                continue
            self.order += 1
            at = self.now_ms + self.random.randint(*self.delay_ms)
            heapq.heappush(self.queue, (at, self.order, sender, receiver, changed))

    def submit(self, tx: bytes, to: int) -> str:
        replica = self.replicas[to]
        if replica is None:
            return "down"
        reason = replica.submit(tx, self.now_ms)
        self.carry_out(to)
        return reason

    def run(self, duration_ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True when `until` became true."""
        end_ms = self.now_ms + duration_ms
        steps = 0
        while True:
            if until is not None and until():
                return True
            steps += 1
            assert steps < 400_000, f"the world does not come to rest, seed {self.seed}"
            due = [(self.queue[0][0], -1)] if self.queue else []
            for index, replica in enumerate(self.replicas):
                if replica is not None and (deadline := replica.next_deadline_ms()) is not None:
                    due.append((max(deadline, self.now_ms), index))
            at, index = min(due, default=(end_ms + 1, 0))
            if at > end_ms:
                self.now_ms = end_ms
                return until is not None and until()
            self.now_ms = max(self.now_ms, at)
            if index >= 0:
                replica = self.replicas[index]
                assert replica is not None
                replica.expire(self.now_ms)
                self.carry_out(index)
                continue
            _, _, sender, receiver, frame = heapq.heappop(self.queue)
            target = self.replicas[receiver]
            if target is not None:
                target.receive(sender, frame, self.now_ms)
                self.carry_out(receiver)

    def heal(self) -> None:
        """No more faults of the network."""
        self.loss = self.double = 0.0
        self.cut = lambda a, b: False

    def height(self, index: int) -> int:
        ledger = self.ledgers[index]
        return -1 if ledger is None else ledger.head.height

    def total(self, index: int) -> int:
        """Transactions counted by the contract at a node."""
        ledger = self.ledgers[index]
        return -1 if ledger is None else codec.decode(ledger.state.get(b"total") or b"", int)
