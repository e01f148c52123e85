"""`wattpact bench refusals`: what it costs a validator to refuse a message, in verifications of the same run.

A replica of four with real signatures gets each kind of message with one bit of its signature changed: everything in
it is right but that, so this is the most an outsider's message can cost. Frames of another size class cost what
hashing and decoding their bytes costs, which is shown for a full block. A validator can do worse, once, with its own
good signature over votes of which the last is bad: what it sends after that is refused unread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Certificate, CertifiedBlock, Header, VoteSignature, vote_bytes
from watt_chain.contract import AreaContract, kinds
from watt_chain.crypto import verify
from watt_chain.genesis import network_of
from watt_chain.ledger import Ledger
from watt_chain.pbft import Replica, ReplicaConfig
from watt_chain.pbft.messages import (
    TALK,
    Attest,
    Bodies,
    Commit,
    Fetch,
    Frame,
    Gossip,
    Message,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    Status,
    SyncBlocks,
    SyncRequest,
    ViewChange,
    signed_bytes,
)
from watt_chain.transaction import make_transaction
from watt_market.checker import Checker
from watt_wire import merkle

from watt_tools import marks
from watt_tools.bench import AREA, START_S, make_genesis, make_key
from watt_tools.bench_limit import Probe

ROUNDS = 60
"Repetitions of one refusal; the least of five rounds counts, because the machine is not alone."
SERIES = 16
"Messages of a validator that goes on and on with them."
SENDER = 2


class Stand:
    """Replica 0 of four, and what the other three could send it."""

    def __init__(self) -> None:
        self.keys = [make_key(f"node {index}") for index in range(4)]
        self.checks = 0
        genesis = make_genesis(self.keys)
        self.network = network_of(genesis)
        self.ledger = Ledger(genesis, AREA, AreaContract(Checker()), verify=self._verify)
        config = ReplicaConfig(0, self.keys[0], lambda now_ms: START_S + now_ms // 1000, self._verify, assigned=True)
        self.replica = Replica(config, self.ledger)
        self.replica.restore([], 0)
        self.replica.take_output()

    def _verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        self.checks += 1
        return verify(public, message, signature)

    def seal(self, message: Message) -> bytes:
        """The sender's frame."""
        body = codec.encode(message)
        key = self.keys[message.sender]
        return codec.encode(Frame(body, key.sign(signed_bytes(self.network, message, body))))

    def spoiled(self, message: Message) -> bytes:
        """A frame that must be refused: a bit of its signature changed, or for talk, which has none, another chain."""
        if isinstance(message, TALK):
            return self.seal(replace(message, chain=AREA + 1))
        return forged(self.seal(message))

    def transaction(self, number: int = 1) -> bytes:
        """One by a key that the chain knows."""
        return make_transaction(make_key("grid"), self.network, "Withdraw", AREA, number, kinds.Withdraw(1))

    def samples(self) -> dict[str, Message]:
        """One genuine message of every kind, by the sender, for height 1; and two of a full block."""
        txs = [self.transaction()]
        many = [self.transaction(number) for number in range(500)]
        digests = [merkle.leaf_hash(tx) for tx in txs]
        header = self._header()
        hash_ = blocks.block_hash(self.network, header)
        place = (AREA, SENDER, 1, 0)
        votes = [VoteSignature(index, bytes(64)) for index in range(3)]
        change = ViewChange(AREA, SENDER, 1, 1, Prepared(0, header, votes))
        return {
            "pre-prepare": PrePrepare(*place, header, digests),
            "prepare": Prepare(*place, hash_),
            "commit": Commit(*place, hash_),
            "view-change": change,
            "new-view": NewView(AREA, SENDER, 1, 1, [self.seal(change)] * 3),
            "fetch": Fetch(AREA, SENDER, 1, hash_, digests),
            "bodies": Bodies(AREA, SENDER, 1, hash_, txs),
            "gossip": Gossip(AREA, SENDER, 0, txs),
            "attest": Attest(AREA, SENDER, 0, digests),
            "status": Status(AREA, SENDER, 0, 0, False),
            "sync-request": SyncRequest(AREA, SENDER, 1),
            "sync-blocks": SyncBlocks(AREA, SENDER, 1, [codec.encode([header, header])]),
            "pre-prepare of 500": PrePrepare(*place, header, [merkle.leaf_hash(tx) for tx in many]),
            "gossip of 500": Gossip(AREA, SENDER, 0, many),
        }

    def insiders(self) -> dict[str, bytes]:
        """What only a validator can send: its own signature holds, and the last one inside does not."""
        block = self.ledger.build(0, 1, START_S, [self.transaction()])
        hash_ = blocks.block_hash(self.network, block.header)

        def votes(phase: str) -> list[VoteSignature]:
            signed = vote_bytes(self.network, phase, AREA, 1, 0, hash_)
            found = [VoteSignature(index, self.keys[index].sign(signed)) for index in range(1, 4)]
            return [*found[:-1], VoteSignature(3, forged(found[-1].signature))]

        led = next(view for view in range(1, 64) if self.ledger.schedule.leader(1, view) == SENDER)
        change = ViewChange(AREA, SENDER, 1, led, Prepared(0, block.header, votes("prepare")))
        good = [self.seal(replace(change, sender=sender, prepared=None)) for sender in (1, 2)]
        view = NewView(AREA, SENDER, 1, led, [*good, self.seal(replace(change, sender=3))])
        final = codec.encode(CertifiedBlock(codec.encode(block), codec.encode(Certificate(0, votes("commit")))))
        return {
            "view-change, last vote": self.seal(change),
            "new-view, last vote": self.seal(view),
            "sync-blocks, last vote": self.seal(SyncBlocks(AREA, SENDER, 1, [final])),
        }

    def refuse(self, frame: bytes) -> None:
        """Hand a frame in."""
        self.replica.receive(SENDER, frame, 1)

    def _header(self) -> bytes:
        numbers = dict.fromkeys(Header.__struct_fields__, 0)
        hashes = {name: bytes(32) for name, kind in Header.__annotations__.items() if "Hash32" in str(kind)}
        values = {**numbers, **hashes, "version": 1, "chain": AREA, "height": 1, "tx_count": 1}
        return codec.encode([values[name] for name in Header.__struct_fields__])


def forged(frame: bytes) -> bytes:
    """The frame with one bit of its signature changed."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


def measure() -> dict[str, tuple[float, float]]:
    """Kind of message -> (cost of refusing it in verifications of this run, checks made)."""
    stand = Stand()
    probe = Probe()
    found: dict[str, tuple[float, float]] = {}
    for name, message in stand.samples().items():
        frame = stand.spoiled(message)
        found[name] = _cost(stand, probe, lambda frame=frame: stand.refuse(frame))  # type: ignore[misc]
    for name in stand.insiders():
        found[f"{name} inside"] = _of_a_series(name, 1, probe)
        found[f"{name}, each of {SERIES} in a row"] = _of_a_series(name, SERIES, probe)
    tx = forged(stand.transaction())
    found["transaction"] = _cost(stand, probe, lambda: stand.replica.submit(tx, 1))
    return found


def _cost(stand: Stand, probe: Probe, act: Callable[[], object]) -> tuple[float, int]:
    before = stand.checks
    act()
    checks = stand.checks - before
    ratios = []
    for _ in range(5):
        probe.take()
        started = time.thread_time()
        for _ in range(ROUNDS):
            act()
        ratios.append((time.thread_time() - started) / ROUNDS / probe.unit_s())
        stand.replica.take_output()
    return min(ratios), checks


def _of_a_series(name: str, length: int, probe: Probe) -> tuple[float, float]:
    """As `_cost`, for each of a series by one validator that a replica has not met before."""
    ratios, checks = [], 0
    for _ in range(5):
        stand = Stand()
        frame = stand.insiders()[name]
        probe.take()
        started = time.thread_time()
        for _ in range(length):
            stand.refuse(frame)
        ratios.append((time.thread_time() - started) / length / probe.unit_s())
        checks = stand.checks
    return min(ratios), checks / length


def main(*, as_json: bool, write: Path | None = None) -> int:
    """Print; exit code 1 when a message of ordinary size costs more than one and a half verifications.

    A full block's worth of bytes, and the first message with something bad inside that its signer must have known, are
    shown and not judged: after that one its signer is not listened to (CONSENSUS.md 4.4.7, 4.6.2).
    """
    found = measure()
    code = 0
    if as_json:
        print(json.dumps({name: {"units": round(cost, 2), "checks": n} for name, (cost, n) in found.items()}, indent=1))
    else:
        lines = ["| refused | verify-units | signatures checked |", "|---|--:|--:|"]
        lines += [f"| {name} | {cost:.2f} | {round(checks, 2):g} |" for name, (cost, checks) in found.items()]
        code = marks.show_or_write("\n".join(lines), write, "bench-refusals")
    costs = [cost for name, (cost, _) in found.items() if "500" not in name and "inside" not in name]
    return int(max(costs) > 1.5 or code)
