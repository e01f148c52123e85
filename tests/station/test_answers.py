"""Intake and replies by themselves: what is counted, what is answered, and by whom."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from node_bench import key
from watt_chain import codec, crypto
from watt_chain.block import Header, Receipt
from watt_chain.contract.objects import Account, Signer, account_key, signer_key
from watt_chain.ledger import AppliedBlock
from watt_chain.question import KEYS_MAX, Body, Question, make_question
from watt_chain.transaction import decode_transaction, make_transaction
from watt_node.log import Log
from watt_station.intake import (
    GATEWAY_IN_WORK_MAX,
    IN_WORK_MAX,
    QUESTIONS_AT_ONCE,
    QUESTIONS_PER_S,
    TX_BYTES_MAX,
    Intake,
)
from watt_station.replies import EXPECTED_MAX, Replies

NETWORK = bytes(32)


@dataclass
class FakeNode:
    """Answers every submission with `reason`; every proof is a marker."""

    reason: str = ""
    submitted: list[bytes] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def submit(self, tx: bytes, shared: bool = False) -> str:
        assert shared
        self.submitted.append(tx)
        if self.gate is not None:
            await self.gate.wait()
        return self.reason

    def receipt_proof(self, txid: bytes) -> bytes | None:
        return b"proof of " + txid

    def state_proof(self, keys: Sequence[bytes]) -> bytes | None:
        return b"state " + b",".join(keys)


class FakeState:
    """Accounts of two users: ann is served by node 0, bob by node 1."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        for name, node, role in (("ann", 0, "user"), ("bob", 1, "user"), ("clerk", 0, "regulator")):
            public = key(name).public
            account = Account(crypto.id8(public), role, public, 0, 0, 0, 0, 0, 0, 60, 1, node, False, False)  # type: ignore[arg-type]
            self.values[account_key(account.id)] = codec.encode(account)
            self.values[signer_key(crypto.id8(public))] = codec.encode(Signer(account.id, 0, 0))
        self.values[signer_key(crypto.id8(key("gone").public))] = codec.encode(Signer(account.id, 1, 5))

    def get(self, name: bytes) -> bytes | None:
        return self.values.get(name)

    look = get

    def keep(self, name: bytes, value: object) -> None:
        pass

    def keys(self, prefix: bytes) -> list[bytes]:
        return [name for name in self.values if name.startswith(prefix)]


class Bench:
    def __init__(self, reason: str = "", index: int = 0) -> None:
        self.node = FakeNode(reason)
        self.state = FakeState()
        self.out: list[tuple[str, list[object]]] = []
        self.replies = Replies(self.node, self.state, NETWORK, 1, index, self.publish)
        self.now_s = 5.0
        log = Log("t", "debug", io.StringIO())
        self.intake = Intake(self.node, "area1", index, self.replies, log, lambda: self.now_s)

    def publish(self, topic: str, payload: bytes) -> bool:
        self.out.append((topic, msgspec.msgpack.decode(payload)))
        return True

    async def say(self, topic: str, payload: bytes) -> None:
        self.intake.handle(topic, payload)
        await asyncio.gather(*self.intake._in_work)

    def commit(self, *txs: bytes, proposer: int = 0) -> None:
        decoded = tuple(decode_transaction(tx) for tx in txs)
        header = Header(
            2, 1, 1, NETWORK, 0, 0, 5, proposer, NETWORK, NETWORK, NETWORK, NETWORK, 0, 1, len(txs), NETWORK
        )
        self.replies.committed(AppliedBlock(header, tuple(Receipt(tx.txid, "") for tx in decoded), (), b"", decoded))


def tx_of(who: str, nonce: int = 1) -> bytes:
    return make_transaction(key(who), NETWORK, "Commit", 1, nonce, [nonce])


def question_of(who: str, body: Body, signed_by: str = "", network: bytes = NETWORK) -> bytes:
    """A question as it would be sent, with whatever is wrong about it."""
    signature = key(signed_by or who).sign(codec.signing_bytes(b"question", network, codec.encode(body)))
    return codec.encode(Question(codec.encode(body), key(who).public, signature))


TX, REPLY, QUERY = "wp/1/area/area1/tx/gw1", "wp/1/area/area1/reply/gw1", "wp/1/area/area1/node/0/query/gw1"


async def test_given_a_taken_transaction_when_its_block_is_final_then_the_serving_node_sends_the_receipt() -> None:
    bench = Bench()
    tx = tx_of("ann")
    await bench.say(TX, tx)
    assert bench.out == []
    bench.commit(tx)
    txid = decode_transaction(tx).txid
    assert bench.out == [(REPLY, ["receipt", txid, b"proof of " + txid])]


async def test_given_another_nodes_user_or_an_office_when_final_then_this_node_is_silent() -> None:
    bench = Bench()
    bob, clerk = tx_of("bob"), tx_of("clerk")
    await bench.say(TX, bob)
    await bench.say(TX, clerk)
    bench.commit(bob, clerk, tx_of("stranger"))
    assert bench.out == []


async def test_given_a_transaction_that_is_final_already_when_seen_again_then_any_node_sends_the_receipt() -> None:
    bench = Bench("final", index=1)
    tx = tx_of("ann")
    await bench.say(TX, tx)
    txid = decode_transaction(tx).txid
    assert bench.out == [(REPLY, ["receipt", txid, b"proof of " + txid])]


@pytest.mark.parametrize("reason", ["signature", "duplicate", "final", "nonce-used"])
async def test_given_a_forgery_or_a_copy_when_sent_by_another_gateway_then_the_receipt_still_goes_to_its_household(
    reason: str,
) -> None:
    bench = Bench()
    tx = tx_of("ann")
    await bench.say(TX, tx)
    bench.node.reason = reason
    await bench.say(TX.replace("gw1", "gw2"), tx)
    bench.out.clear()
    bench.commit(tx)
    assert [topic for topic, _ in bench.out] == [REPLY]


async def test_given_an_area_of_one_when_final_before_the_submission_returns_then_the_receipt_is_sent() -> None:
    bench = Bench()
    tx = tx_of("ann")
    bench.node.gate = asyncio.Event()
    bench.intake.handle(TX, tx)
    await asyncio.sleep(0)
    bench.commit(tx)
    bench.node.gate.set()
    await asyncio.gather(*bench.intake._in_work)
    txid = decode_transaction(tx).txid
    assert bench.out == [(REPLY, ["receipt", txid, b"proof of " + txid])]


async def test_given_a_refusal_when_submitted_then_the_household_hears_the_reason() -> None:
    bench = Bench("nonce-used")
    tx = tx_of("ann")
    await bench.say(TX, tx)
    assert bench.out == [(REPLY, ["refused", decode_transaction(tx).txid, "nonce-used"])]
    assert bench.intake.counters == {"nonce-used": 1}


@pytest.mark.parametrize("reason", ["duplicate", "busy", "pool-full", "starting"])
async def test_given_a_passing_hindrance_when_submitted_then_nothing_is_sent(reason: str) -> None:
    bench = Bench(reason)
    await bench.say(TX, tx_of("ann"))
    assert bench.out == []
    assert bench.intake.counters == {reason: 1}


@pytest.mark.parametrize(
    ("topic", "payload", "counted"),
    [
        (TX, b"\xff\x00rubbish", "undecodable"),
        (TX, b"", "undecodable"),
        (TX, bytes(TX_BYTES_MAX + 1), "size"),
        (TX.replace("area1", "area2"), b"x", "topic"),
        (TX + "/deeper", b"x", "topic"),
        (TX.replace("gw1", "UPPER"), b"x", "topic"),
        ("something/else", b"x", "topic"),
        (QUERY.replace("node/0", "node/1"), b"x", "topic"),
        (QUERY, b"x", "query-form"),
        (QUERY, msgspec.msgpack.encode(["state", 1, [b"k"]]), "query-form"),
        (QUERY, question_of("ann", Body(1, "gw1", b"n" * 33, [b"k"])), "query-form"),
        (QUERY, question_of("ann", Body(1, "gw1", b"n", [b"k"] * (KEYS_MAX + 1))), "query-form"),
        (QUERY, question_of("ann", Body(1, "gw1", b"n", [b"k" * 97])), "query-form"),
        (QUERY, question_of("ann", Body(2, "gw1", b"n", [b"k"])), "query-address"),
        (QUERY, question_of("ann", Body(1, "gw2", b"n", [b"k"])), "query-address"),
        (QUERY, question_of("ann", Body(1, "gw1", b"n", [b"k"]), signed_by="bob"), "query-signature"),
        (QUERY, question_of("ann", Body(1, "gw1", b"n", [b"k"]), network=b"n" * 32), "query-signature"),
        (QUERY, question_of("gone", Body(1, "gw1", b"n", [b"k"])), "query-revoked"),
        (QUERY, bytes(9000), "size"),
    ],
)
async def test_given_a_bad_message_when_it_arrives_then_it_is_counted_and_never_answered(
    topic: str, payload: bytes, counted: str
) -> None:
    bench = Bench()
    await bench.say(topic, payload)
    assert bench.out == []
    assert bench.node.submitted == []
    assert bench.intake.counters == {counted: 1}


@pytest.mark.row("E11", "E15")
async def test_given_a_question_when_it_arrives_then_the_asker_is_shown_what_is_common_and_its_own() -> None:
    bench = Bench()
    ann, bob = (account_key(crypto.id8(key(name).public)) for name in ("ann", "bob"))
    await bench.say(QUERY, make_question(key("ann"), NETWORK, 1, "gw1", b"7", [ann, bob, b"rules", b"book/1"]))
    assert bench.out == [(REPLY, ["state", b"7", b"state " + ann + b",rules"])]
    assert bench.replies.counters["withheld"] == 2 and bench.replies.counters["answers"] == 1


async def test_given_somebody_unknown_when_it_asks_whether_it_is_enrolled_then_it_is_answered() -> None:
    bench = Bench()
    own = signer_key(crypto.id8(key("newcomer").public))
    await bench.say(QUERY, make_question(key("newcomer"), NETWORK, 1, "gw1", b"7", [own]))
    assert bench.out == [(REPLY, ["state", b"7", b"state " + own])]


async def test_given_a_flood_of_questions_when_others_ask_then_only_the_flood_is_dropped() -> None:
    bench = Bench()
    for number in range(QUESTIONS_AT_ONCE + 5):
        await bench.say(QUERY, make_question(key("ann"), NETWORK, 1, "gw1", b"%d" % number, [b"rules"]))
    assert bench.intake.counters == {"query": QUESTIONS_AT_ONCE, "query-budget": 5}
    await bench.say(QUERY.replace("gw1", "gw2"), make_question(key("bob"), NETWORK, 1, "gw2", b"mine", [b"rules"]))
    assert bench.out[-1] == (REPLY.replace("gw1", "gw2"), ["state", b"mine", b"state rules"])
    bench.now_s += 1
    for number in range(QUESTIONS_PER_S + 1):
        await bench.say(QUERY, make_question(key("ann"), NETWORK, 1, "gw1", b"%d" % number, [b"rules"]))
    assert bench.intake.counters == {"query": QUESTIONS_AT_ONCE + 1 + QUESTIONS_PER_S, "query-budget": 6}


async def test_given_questions_under_many_names_when_counted_then_the_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("watt_station.intake.GATEWAYS_MAX", 3)
    bench = Bench()
    for number in range(9):
        await bench.say(QUERY.replace("gw1", f"gw{number}"), b"x")
    assert len(bench.intake._budgets) == 3 and bench.intake.counters == {"query-form": 9}


async def test_given_too_many_in_work_when_more_arrive_then_they_are_dropped_and_counted() -> None:
    bench = Bench()
    bench.node.gate = asyncio.Event()
    tx = tx_of("ann")
    for number in range(IN_WORK_MAX + 3):
        bench.intake.handle(TX.replace("gw1", f"gw{number // GATEWAY_IN_WORK_MAX}"), tx)
    assert bench.intake.counters == {"busy": 3}
    bench.node.gate.set()
    await asyncio.gather(*bench.intake._in_work)
    assert len(bench.node.submitted) == IN_WORK_MAX


async def test_given_a_flood_of_one_gateway_when_others_send_then_only_it_is_turned_away() -> None:
    bench = Bench()
    bench.node.gate = asyncio.Event()
    for _ in range(10 * IN_WORK_MAX):
        bench.intake.handle(TX, tx_of("ann"))
    for number in range(2, 8):
        bench.intake.handle(TX.replace("gw1", f"gw{number}"), tx_of(f"user{number}"))
    assert bench.intake.counters == {"busy": 10 * IN_WORK_MAX - GATEWAY_IN_WORK_MAX}
    bench.node.gate.set()
    await asyncio.gather(*bench.intake._in_work)
    assert bench.node.submitted[GATEWAY_IN_WORK_MAX:] == [tx_of(f"user{number}") for number in range(2, 8)]
    assert not bench.intake._gateways


async def test_given_more_expected_receipts_than_are_kept_when_final_then_the_signers_gateway_still_gets_one() -> None:
    bench = Bench()
    tx = tx_of("ann")
    await bench.say(TX, tx)
    for number in range(EXPECTED_MAX):
        bench.replies.expect(b"%32d" % number, b"somebody", "gw2")
    assert len(bench.replies._expected) == EXPECTED_MAX
    bench.commit(tx)
    assert [topic for topic, _ in bench.out] == [REPLY]


def test_given_an_event_when_its_state_changes_then_only_the_proposer_notices_and_the_lowest_repeats() -> None:
    notice = ("wp/1/area/area1/notice", ["event", b"state event/1"])
    proposer, other = Bench(index=0), Bench(index=1)
    for bench in (proposer, other):
        bench.state.values[b"event/1"] = b"announced"
        bench.commit(proposer=0)
        bench.commit(proposer=0)  # nothing moved
    assert proposer.out == [notice]
    assert other.out == []
    other.replies.repeat_notice()
    assert other.out == [notice]
    restarted = Bench()
    restarted.state.values[b"event/1"] = b"announced"
    restarted.replies.remember_events()
    restarted.commit(proposer=0)
    assert restarted.out == []
