"""Assigned verification (CONSENSUS.md 4.9): who checks, who is believed, and what becomes of those who lie."""

from collections.abc import Callable

import pytest
from chain_world import START_S, CountingContract, FalseKey, World, false_verify, make_genesis, make_tx
from hypothesis import given
from hypothesis import strategies as st
from watt_chain import codec
from watt_chain.genesis import faults_tolerated, network_of
from watt_chain.ledger import Ledger
from watt_chain.pbft import Output, Replica, ReplicaConfig
from watt_chain.pbft import attest as attests
from watt_chain.pbft.attest import ATTEST_DELAY_MS, ATTEST_WAIT_MS, MISSES_MAX, ROOM_MAX, SAID_MAX, assigned_to
from watt_chain.pbft.messages import Attest, Frame, Gossip, Message, Prepare, PrePrepare, Status, signed_bytes
from watt_wire import merkle

KEYS = [FalseKey(f"node{index}") for index in range(4)]
GENESIS = make_genesis([key.public for key in KEYS])
NETWORK = network_of(GENESIS)
T0 = 1_000_000


class Alone:
    """Replica 0 of 4 in assigned mode, with a hand for every other validator; counts its checks of transactions."""

    def __init__(self) -> None:
        self.checks = 0
        self.sent: list[Message] = []
        self.rejected: list[str] = []
        self.now_ms = T0
        self.ledger = Ledger(GENESIS, 1, CountingContract(), verify=self.verify)
        config = ReplicaConfig(
            0, KEYS[0], lambda now_ms: START_S + (now_ms - T0) // 1000, self.verify, batch_ms=0, assigned=True
        )
        self.replica = Replica(config, self.ledger)
        self.replica.restore([], T0)
        for peer in (1, 2):  # a validator asks where the others are before it signs anything
            self.give(Status(1, peer, 0, 0, False))
        self.take()
        self.sent.clear()

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        self.checks += all(public != key.public for key in KEYS)
        return false_verify(public, message, signature)

    def take(self) -> Output:
        output = self.replica.take_output()
        for peer, frame in output.send:
            if peer == 1:
                self.sent.append(codec.decode(codec.decode(frame, Frame).body, Message))  # type: ignore[arg-type]
        self.rejected += [rejected.reason for rejected in output.rejected]
        return output

    def hear(self, tx: bytes) -> str:
        """A transaction that everybody hears."""
        reason = self.replica.submit(tx, self.now_ms, shared=True)
        self.take()
        return reason

    def give(self, message: Message) -> None:
        self.replica.receive(message.sender, seal(message), self.now_ms)
        self.take()

    def attested(self, *txs: bytes, by: int) -> None:
        self.give(Attest(1, by, 0, [merkle.leaf_hash(tx) for tx in txs]))

    def wait(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while (due_ms := self.replica.next_deadline_ms()) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.replica.expire(self.now_ms)
            self.take()
        self.now_ms = end_ms


def seal(message: Message) -> bytes:
    body = codec.encode(message)
    return codec.encode(Frame(body, KEYS[message.sender].sign(signed_bytes(NETWORK, message, body))))


def of(*assigned: int, forged: bool = False, not_these: tuple[bytes, ...] = ()) -> bytes:
    """A transaction that these validators have to check."""
    for number in range(1000):
        tx = make_tx(FalseKey(f"user{number}"), NETWORK, 1)
        tx = tx[:-64] + bytes(64) if forged else tx
        if assigned_to(merkle.leaf_hash(tx), 4, 1) == assigned and tx not in not_these:
            return tx
    raise AssertionError("no such transaction")


@given(st.binary(min_size=32, max_size=32), st.integers(1, 64))
def test_f_plus_1_different_validators_are_assigned(digest: bytes, n: int) -> None:
    found = assigned_to(digest, n, faults_tolerated(n))
    assert len(dict.fromkeys(found)) == len(found) == faults_tolerated(n) + 1
    assert all(0 <= index < n for index in found)


def test_what_is_ours_is_checked_at_once_and_attested_once_to_everybody() -> None:
    bench = Alone()
    mine, forged = of(0, 1), of(3, 0, forged=True)
    assert bench.hear(mine) == "" and bench.checks == 1 and len(bench.replica.pool) == 1
    assert bench.hear(forged) == "tx-signature" and bench.checks == 2
    bench.wait(3 * ATTEST_DELAY_MS)
    said = [message.digests for message in bench.sent if isinstance(message, Attest)]
    assert said == [[merkle.leaf_hash(mine)]]


def test_what_others_check_waits_for_all_f_plus_1_of_them_and_costs_no_check() -> None:
    bench = Alone()
    tx = of(1, 2)
    assert bench.hear(tx) == "" and len(bench.replica.pool) == 0
    bench.attested(tx, by=1)
    assert len(bench.replica.pool) == 0
    bench.attested(tx, by=2)
    assert len(bench.replica.pool) == 1 and bench.checks == 0
    assert bench.hear(tx) == "duplicate"


def test_attestations_may_come_before_the_transaction() -> None:
    bench = Alone()
    tx = of(2, 3)
    bench.attested(tx, by=3)
    bench.attested(tx, by=2)
    assert bench.hear(tx) == "" and len(bench.replica.pool) == 1 and bench.checks == 0


def test_an_attestation_of_what_is_anothers_to_check_is_refused() -> None:
    bench = Alone()
    tx = of(1, 2)
    bench.hear(tx)
    bench.attested(tx, by=3)
    bench.attested(tx, by=1)
    assert bench.rejected == ["not-assigned"] and len(bench.replica.pool) == 0


def test_what_is_not_attested_in_time_is_checked_here() -> None:
    bench = Alone()
    good, bad = of(1, 2), of(2, 3, forged=True)
    bench.hear(good)
    bench.hear(bad)
    assert bench.hear(good) == "duplicate"
    bench.wait(ATTEST_WAIT_MS - 1)
    assert bench.checks == 0
    bench.wait(1)
    assert bench.checks == 2 and len(bench.replica.pool) == 1
    assert not bench.replica.evidence


def test_a_silent_validators_share_is_checked_at_once_until_it_is_heard_again() -> None:
    bench = Alone()
    seen: tuple[bytes, ...] = ()
    for _ in range(MISSES_MAX):
        tx = of(1, 2, not_these=seen)
        seen += (tx,)
        bench.hear(tx)
        bench.attested(tx, by=1)
    bench.wait(ATTEST_WAIT_MS)
    assert bench.checks == MISSES_MAX and len(bench.replica.pool) == MISSES_MAX
    late = of(2, 3)
    assert bench.hear(late) == "" and bench.checks == MISSES_MAX + 1
    bench.attested(late, by=2)
    again = of(1, 2, not_these=seen)
    assert bench.hear(again) == "" and bench.checks == MISSES_MAX + 1


def test_who_attests_what_does_not_hold_is_convicted_by_its_frame_and_not_believed_again() -> None:
    bench = Alone()
    forged = of(1, 2, forged=True)
    bench.hear(forged)
    bench.attested(forged, by=1)
    bench.wait(ATTEST_WAIT_MS)
    assert len(bench.replica.pool) == 0
    (proof,) = bench.replica.evidence
    assert (proof.kind, proof.sender, proof.second) == ("attest", 1, forged)
    frame = codec.decode(proof.first, Frame)
    message = codec.decode(frame.body, Attest)
    assert merkle.leaf_hash(forged) in message.digests
    assert false_verify(KEYS[1].public, signed_bytes(NETWORK, message, frame.body), frame.signature)
    tx = of(1, 2)
    bench.attested(tx, by=1)
    assert bench.rejected == ["false-attestation", "convicted"]
    bench.hear(tx)
    assert bench.checks == 2  # its share is checked here from now on


def test_the_shell_that_finds_a_bad_signature_convicts_too() -> None:
    from watt_chain.transaction import decode_transaction

    bench = Alone()
    forged = of(1, 2, forged=True)
    bench.attested(forged, by=2)
    bench.replica.refuse_signature(decode_transaction(forged), bench.now_ms)
    assert [proof.sender for proof in bench.replica.evidence] == [2]


def test_what_only_we_were_given_is_checked_before_it_is_passed_on() -> None:
    bench = Alone()
    assert bench.replica.submit(of(1, 2), T0) == "" and bench.checks == 1
    assert bench.replica.submit(of(2, 3, forged=True), T0) == "tx-signature"
    bench.take()
    bench.wait(10)
    assert [len(message.transactions) for message in bench.sent if isinstance(message, Gossip)] == [1]


def test_a_proposal_is_supported_once_its_transactions_are_attested_or_checked() -> None:
    for prove in (lambda bench, tx: [bench.attested(tx, by=by) for by in (2, 3)], lambda b, tx: b.wait(ATTEST_WAIT_MS)):
        check_proposal(prove)


def check_proposal(prove: Callable[[Alone, bytes], object]) -> None:
    bench = Alone()
    tx = of(2, 3)
    bench.hear(tx)
    leader = bench.ledger.schedule.leader(1, 0)
    builder = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
    block = builder.build(0, leader, START_S, [tx])
    bench.give(PrePrepare(1, leader, 1, 0, block.header, [merkle.leaf_hash(tx)]))
    assert not [message for message in bench.sent if isinstance(message, Prepare)]
    assert not [message for message in bench.sent if type(message).__name__ == "Fetch"]  # it is here
    prove(bench, tx)
    assert [message for message in bench.sent if isinstance(message, Prepare)]


def test_everything_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ROOM_MAX <= 4096 and SAID_MAX <= 8192
    monkeypatch.setattr(attests, "ROOM_MAX", 3)
    monkeypatch.setattr(attests, "SAID_MAX", 5)
    bench = Alone()
    seen: tuple[bytes, ...] = ()
    for _ in range(6):
        seen += (of(1, 2, not_these=seen),)
        bench.hear(seen[-1])
    assert bench.replica._exchange.attest.sizes()[0] == 3 and bench.checks == 3  # beyond the bound: checked at once
    for number in range(40):
        digest = number.to_bytes(8, "big") + bytes(24)
        if 2 in assigned_to(digest, 4, 1):
            bench.give(Attest(1, 2, 0, [digest]))
    assert bench.replica._exchange.attest.sizes()[1] == 5


@pytest.mark.parametrize("n", [4, 7])
def test_a_chain_checks_each_signature_f_plus_1_times_and_agrees(n: int) -> None:
    world = World(n, 1, assigned=1)
    checks: dict[bytes, int] = {}
    verify = world.verify

    def counted(public: bytes, message: bytes, signature: bytes) -> bool:
        if all(public != key.public for key in world.keys):
            checks[public] = checks.get(public, 0) + 1
        return verify(public, message, signature)

    world.verify = counted
    for index in range(n):
        world.start(index)
    txs = [make_tx(FalseKey(f"user{number}"), world.network, 1) for number in range(40)]
    for tx in txs:
        for replica in world.replicas:
            assert replica is not None
            replica.submit(tx, world.now_ms, shared=True)
    for index in range(n):
        world.carry_out(index)
    world.run(5000)
    assert all(ledger is not None and ledger.next_nonce(FalseKey("user39").public) == 2 for ledger in world.ledgers)
    assert sorted(checks.values()) == [faults_tolerated(n) + 1] * 40
