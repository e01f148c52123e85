"""Every field of every message changed by a validator that signs what it says: refused or harmless, and cheap.

`CASES` are messages that move a replica on. Of each, every field and every field inside it is changed in every way of
`variants`, signed again by its sender, and given to a replica that waits for the genuine one. It must sign nothing,
store nothing and stay where it is. What is not refused with a reason stands in UNSAID, and what is as good as the
genuine message in GENUINE: both tables are compared with what happens, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import test_replica
from chain_world import CountingContract, FalseKey, certify, false_verify
from msgspec import structs
from test_replica import (
    GENESIS,
    KEYS,
    NETWORK,
    T0,
    Bench,
    a_block,
    certificate,
    hash_of,
    new_view,
    opened,
    proposal,
    seal,
    tx,
)
from watt_chain import codec
from watt_chain.block import Header
from watt_chain.codec import DecodeError
from watt_chain.ledger import Ledger
from watt_chain.pbft.messages import (
    FRAME_SIZE_MAX,
    TALK,
    Attest,
    Bodies,
    Commit,
    Fetch,
    Frame,
    Gossip,
    Message,
    Prepare,
    StateRequest,
    Status,
    SyncBlocks,
    SyncRequest,
    ViewChange,
    signed_bytes,
)
from watt_wire import merkle

OVERSIZE = 6000
"More elements than any list of a message may have."
ANSWERS = (Bodies, SyncBlocks, Fetch, SyncRequest, Status)
"What a bad message may at most be answered with: questions, and what anybody may ask for."
BLOCK = a_block()


def certified() -> bytes:
    """The block of height 1, final."""
    return certify(Ledger(GENESIS, 1, CountingContract(), verify=false_verify), BLOCK, KEYS)


def waiting() -> Bench:
    """Holds the transaction and waits for the proposal."""
    bench = Bench()
    bench.submit(tx())
    return bench


def supporting() -> Bench:
    """Has sent its prepare, and one other came."""
    bench = waiting()
    bench.give(proposal(BLOCK))
    bench.give(Prepare(1, 1, 1, 0, hash_of(BLOCK)))
    return bench


def prepared() -> Bench:
    """Has sent its commit, and one other came."""
    bench = supporting()
    bench.give(Prepare(1, 3, 1, 0, hash_of(BLOCK)))
    bench.give(Commit(1, 1, 1, 0, hash_of(BLOCK)))
    return bench


def lacking() -> Bench:
    """Has the proposal and not its transaction."""
    bench = Bench()
    bench.give(proposal(BLOCK))
    return bench


def leaving() -> Bench:
    """One other has left view 0 for the view that it leads."""
    bench = waiting()
    bench.give(ViewChange(1, 1, 1, 3, None))
    return bench


def attested() -> Bench:
    """Signatures are checked by f + 1 for all."""
    return Bench(settings={"assigned": True})


@dataclass(frozen=True)
class Case:
    """A replica, and the message that it waits for."""

    stand: Callable[[], Bench]
    message: Message
    checks: int
    "Most signatures checked for a changed one: the frame's own, and those inside it up to the first bad one."


CASES = {
    "pre-prepare": Case(waiting, proposal(BLOCK), 1),
    "prepare": Case(supporting, Prepare(1, 2, 1, 0, hash_of(BLOCK)), 1),
    "commit": Case(prepared, Commit(1, 2, 1, 0, hash_of(BLOCK)), 1),
    "view-change": Case(leaving, ViewChange(1, 2, 1, 3, certificate(BLOCK, 0)), 1 + 3),
    "new-view": Case(waiting, new_view(2, {1: None, 2: certificate(BLOCK, 0), 3: None}), 1 + 3 + 3),
    "bodies": Case(lacking, Bodies(1, 2, 1, hash_of(BLOCK), [tx()]), 1),
    "gossip": Case(Bench, Gossip(1, 2, 0, [tx()]), 1),
    "attest": Case(attested, Attest(1, 2, 0, [merkle.leaf_hash(tx())]), 1),
    "sync-blocks": Case(Bench, SyncBlocks(1, 2, 1, [certified()]), 3),
    "fetch": Case(prepared, Fetch(1, 2, 1, hash_of(BLOCK), []), 0),
    "status": Case(Bench, Status(1, 2, 1, 0, False), 0),
    "sync-request": Case(Bench, SyncRequest(1, 2, 1), 0),
    "state-request": Case(Bench, StateRequest(1, 2, 0, 0), 0),
}
GENUINE = {
    "view-change": {"view", "prepared"},  # for another view; without a certificate: both are view changes
    "new-view": {"votes"},  # one of them twice
    "bodies": {"sender", "transactions"},  # talk: the connection says who speaks, and a transaction twice is one
    "gossip": {"sender", "height", "transactions"},  # the same; its height is not looked at
    "sync-blocks": {"sender", "blocks"},  # the same; the second copy of the block is not needed any more
}
UNSAID = {
    # A height that is over, or to come: answered, kept within a bound, or dropped (CONSENSUS.md 4.6).
    **{name: {"height"} for name in ("pre-prepare", "view-change", "new-view")},
    # A vote of a view far away; a vote for another block counts for that block.
    **{name: {"height", "view", "block_hash"} for name in ("prepare", "commit")},
    # Answers that nobody waits for any more: late ones come all the time.
    "bodies": {"height", "block_hash", "transactions"},
    "sync-blocks": {"height", "blocks"},
    # Nothing in it, or nothing new in it.
    "gossip": {"transactions"},
    "attest": {"height", "digests"},
    # Questions, which may be about what is not here.
    "fetch": {"sender", "height", "block_hash"},
    "status": {"sender", "height", "view", "asks"},
    "sync-request": {"sender", "height"},
    "state-request": {"sender", "height", "slot"},
}


def variants(value: Any) -> Iterator[Any]:
    """Other values in its place, of the same type and of others."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from {value + 1, max(value - 1, 0), 1 << 40, 1 << 63, -1} - {value}
    elif isinstance(value, str):
        yield "rubbish"
    elif isinstance(value, bytes):
        yield from (b"", value[:-1], value + b"\0")
        if value:
            yield from (bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 1]))
    elif isinstance(value, list):
        yield from ([], value[:-1], value + value[:1], (value or [b""]) * OVERSIZE)
    yield None if value is not None else 0


def changed(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(path, the whole with one value changed); bytes that are an encoded array are changed inside too."""
    for other in variants(value):
        if other != value or type(other) is not type(value):
            yield path, other
    if isinstance(value, list):
        for at, part in enumerate(value):
            for inner, other in changed(part, (*path, at)):
                yield inner, [*value[:at], other, *value[at + 1 :]]
    elif isinstance(value, bytes) and (inside := array_in(value)) is not None:
        for inner, other in changed(inside, path):
            yield inner, msgspec.msgpack.encode(other)


def array_in(data: bytes) -> list[Any] | None:
    try:
        found = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, ValueError):
        return None
    return found if isinstance(found, list) and codec.encode(found) == data else None


def resealed(body: bytes, key: FalseKey) -> bytes:
    """The frame of a changed body, signed as its sender would sign it."""
    try:
        message = codec.decode(body, Message)  # type: ignore[arg-type]  # a union
    except DecodeError:
        return codec.encode(Frame(body, bytes(64)))
    return codec.encode(Frame(body, key.sign(signed_bytes(NETWORK, message, body))))


def name_of(message: Message, path: tuple[int, ...]) -> str:
    """Field names for the first places of a path."""
    if not path or not path[0]:
        return "kind" if path else "all"
    field = type(message).__struct_fields__[path[0] - 1]
    if field == "header" and len(path) > 1:
        return f"header.{Header.__struct_fields__[path[1]]}"
    return field


def place(bench: Bench) -> tuple[object, ...]:
    """All that must stay as it is."""
    status, ledger = bench.replica.status(), bench.ledger
    held = tuple(waiting.raw for waiting in bench.replica.pool.waiting(T0, 9))
    return ledger.head, ledger.state.root(), held, status["view"], status["silent"], status["fetching"]


@dataclass
class Counted:
    """Signature checks."""

    checks: int = 0

    def __call__(self, public: bytes, message: bytes, signature: bytes) -> bool:
        self.checks += 1
        return false_verify(public, message, signature)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(test_replica, "false_verify", counted)
    return counted


def bad_ones(message: Message) -> Iterator[tuple[str, bytes]]:
    """(field that was changed, frame signed by the sender all the same)."""
    for path, body in changed(msgspec.msgpack.decode(codec.encode(message))):
        yield name_of(message, path), resealed(codec.encode(body), KEYS[message.sender])


@pytest.mark.parametrize("name", CASES)
def test_every_changed_field_is_refused_or_harmless_and_cheap(name: str, counted: Counted) -> None:
    case = CASES[name]
    genuine: set[str] = set()
    unsaid: set[str] = set()
    most = refused = 0
    for field, frame in bad_ones(case.message):
        bench = case.stand()
        before, counted.checks = place(bench), 0
        bench.replica.receive(case.message.sender, frame, bench.now_ms)
        output = bench.take()
        talked = all(isinstance(opened(sent), ANSWERS) for _, sent in output.send)
        if output.persist or output.commit or place(bench) != before or not talked:
            genuine.add(field)
            continue
        most = max(most, counted.checks)
        if output.rejected:
            refused += 1
            assert {one.sender for one in output.rejected} == {case.message.sender}
        else:
            unsaid.add(field)
        assert not bench.replica.evidence
    assert (genuine, unsaid) == (GENUINE.get(name, set()), UNSAID.get(name, set()))
    assert most <= case.checks and refused > 10


@pytest.mark.parametrize("name", CASES)
def test_the_unchanged_message_is_not_refused(name: str) -> None:
    case = CASES[name]
    bench = case.stand()
    assert not bench.give(case.message).rejected


@pytest.mark.parametrize("name", CASES)
def test_a_message_of_another_network_area_or_signer_costs_one_check_at_most(name: str, counted: Counted) -> None:
    case = CASES[name]
    message, is_talk = case.message, isinstance(case.message, TALK)
    body = codec.encode(message)
    key = KEYS[message.sender]
    other_network = codec.encode(Frame(body, key.sign(signed_bytes(bytes(32), message, body))))
    there = structs.replace(message, chain=2)
    other_area = codec.encode(Frame(body, key.sign(signed_bytes(NETWORK, there, codec.encode(there)))))
    somebody = seal(message, 3 if message.sender != 3 else 2)
    for frame in (other_network, other_area, somebody, seal(there)):
        bench = case.stand()
        before, counted.checks = place(bench), 0
        bench.replica.receive(message.sender, frame, bench.now_ms)
        output = bench.take()
        reason = "wrong-chain" if frame == seal(there) else "frame-signature"
        if is_talk and reason == "frame-signature":
            continue  # talk is not signed: what it brings proves itself, and does so in any frame
        assert [rejected.reason for rejected in output.rejected] == [reason]
        assert not output.persist and not output.commit and not output.send and place(bench) == before
        assert counted.checks == (reason == "frame-signature")


def test_a_frame_beyond_the_limit_is_not_taken_apart(counted: Counted) -> None:
    bench = Bench()
    counted.checks = 0
    bench.replica.receive(2, codec.encode(Frame(bytes(FRAME_SIZE_MAX), bytes(64))), bench.now_ms)
    assert [rejected.reason for rejected in bench.take().rejected] == ["frame-form"] and not counted.checks


def test_all_bad_messages_of_one_validator_do_not_keep_the_others_from_their_block() -> None:
    bench = waiting()
    for name in ("prepare", "commit", "view-change", "gossip", "fetch", "status", "sync-request"):
        for _, frame in bad_ones(CASES[name].message):
            bench.replica.receive(2, frame, bench.now_ms)
            bench.take()
    assert sum(bench.replica.status()["rejected"].values()) > 200  # type: ignore[attr-defined]
    bench.give(proposal(BLOCK))
    for sender in (1, 3):
        bench.give(Prepare(1, sender, 1, 0, hash_of(BLOCK)))
    for sender in (1, 3):
        bench.give(Commit(1, sender, 1, 0, hash_of(BLOCK)))
    assert bench.ledger.head.height == 1
