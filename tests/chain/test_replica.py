"""One replica at a time: what it signs, what it refuses, when it is silent, what it remembers."""

import itertools
from dataclasses import dataclass, field

import pytest
from chain_world import START_S, CountingContract, FalseKey, certify, false_verify, make_genesis, make_tx
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Block, Header
from watt_chain.codec import DecodeError
from watt_chain.genesis import network_of
from watt_chain.ledger import Ledger
from watt_chain.pbft import Output, Replica, ReplicaConfig, record_height
from watt_chain.pbft.config import FUTURE_FRAMES_MAX, SYNC_TIMEOUT_MS, VIEW_WINDOW
from watt_chain.pbft.messages import (
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
from watt_chain.pbft.outputs import EVIDENCE_MAX, Record
from watt_chain.pbft.round import VoteBook
from watt_wire import merkle

KEYS = [FalseKey(f"node{index}") for index in range(4)]
USER = FalseKey("user")
GENESIS = make_genesis([key.public for key in KEYS])
NETWORK = network_of(GENESIS)
T0 = 1_000_000
"Start of the tests on the machine clock, ms."


def protocol_s(now_ms: int) -> int:
    return START_S + (now_ms - T0) // 1000


def seal(message: Message, signer: int | None = None) -> bytes:
    body = codec.encode(message)
    key = KEYS[message.sender if signer is None else signer]
    return codec.encode(Frame(body, key.sign(signed_bytes(NETWORK, message, body))))


def opened(frame: bytes) -> Message:
    return codec.decode(codec.decode(frame, Frame).body, Message)  # type: ignore[arg-type]


@dataclass
class Bench:
    """Replica `index` alone, with a hand for every other validator."""

    index: int = 0
    now_ms: int = T0
    settings: dict[str, int] = field(default_factory=dict)
    records: list[bytes] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    heard: int = 2
    "How many others tell their height at the start."

    def __post_init__(self) -> None:
        self.sent: list[Message] = []
        self.rejected: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.ledger = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
        for certified in self.stored:
            self.ledger.replay(certified)
        config = ReplicaConfig(self.index, KEYS[self.index], protocol_s, false_verify, **self.settings)  # type: ignore[arg-type]
        self.replica = Replica(config, self.ledger)
        self.replica.restore(self.records, self.now_ms)
        self.take()
        others = [index for index in range(4) if index != self.index]
        for peer in others[: self.heard]:  # a validator asks where the others are before it signs anything
            self.give(Status(1, peer, self.ledger.head.height, 0, False))

    def take(self) -> Output:
        output = self.replica.take_output()
        self.records.extend(output.persist)
        self.stored.extend(output.commit)
        self.sent.extend(opened(frame) for _, frame in output.send)
        self.rejected.extend(rejected.reason for rejected in output.rejected)
        return output

    def give(self, message: Message, signer: int | None = None) -> Output:
        self.replica.receive(message.sender, seal(message, signer), self.now_ms)
        return self.take()

    def submit(self, *txs: bytes) -> None:
        for tx in txs:
            assert self.replica.submit(tx, self.now_ms) == ""
        self.take()

    def wait(self, ms: int) -> list[Message]:
        """Let time pass; what was sent meanwhile."""
        end_ms, before = self.now_ms + ms, len(self.sent)
        while (due_ms := self.replica.next_deadline_ms()) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.replica.expire(self.now_ms)
            self.take()
        self.now_ms = end_ms
        return self.sent[before:]

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.sent if isinstance(message, kind)]

    def votes(self) -> set[tuple[str, int, bytes]]:
        """(kind, view, block) of every prepare and commit sent for height 1."""
        return {
            (type(m).__name__, m.view, m.block_hash)
            for m in self.sent
            if isinstance(m, Prepare | Commit) and m.height == 1
        }


def tx(nonce: int = 1) -> bytes:
    return make_tx(USER, NETWORK, nonce)


def a_block(view: int = 0, time_s: int = START_S, txs: list[bytes] | None = None) -> Block:
    node = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
    return node.build(view, (1 + view) % 4, time_s, txs or [tx()])


def hash_of(block: Block) -> bytes:
    return blocks.block_hash(NETWORK, block.header)


def proposal(block: Block, view: int = 0) -> PrePrepare:
    digests = [merkle.leaf_hash(data) for data in block.transactions]
    return PrePrepare(1, (1 + view) % 4, 1, view, block.header, digests)


def certificate(block: Block, view: int) -> Prepared:
    message = blocks.vote_bytes(NETWORK, "prepare", 1, 1, view, hash_of(block))
    return Prepared(view, block.header, [blocks.VoteSignature(i, KEYS[i].sign(message)) for i in (1, 2, 3)])


def new_view(view: int, reports: dict[int, Prepared | None]) -> NewView:
    frames = [seal(ViewChange(1, sender, 1, view, report)) for sender, report in sorted(reports.items())]
    return NewView(1, (1 + view) % 4, 1, view, frames)


# Normal case


@pytest.mark.row("F13", "F18")
def test_a_block_is_final_with_q_commits_and_not_with_one_less() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    assert bench.votes() == {("Prepare", 0, hash_of(block))}
    bench.give(Prepare(1, 1, 1, 0, hash_of(block)))
    assert not bench.of(Commit)
    bench.give(Prepare(1, 1, 1, 0, hash_of(block)))  # the same voter again is one vote
    assert not bench.of(Commit)
    bench.give(Prepare(1, 2, 1, 0, hash_of(block)))
    assert bench.of(Commit)
    bench.give(Commit(1, 1, 1, 0, hash_of(block)))
    assert bench.ledger.head.height == 0
    output = bench.give(Commit(1, 3, 1, 0, hash_of(block)))
    assert bench.ledger.head.height == 1 and len(output.commit) == 1
    certified, _, _, votes = blocks.decode_certified(output.commit[0])
    assert [vote.index for vote in votes.votes] == [0, 1, 3]
    Ledger(GENESIS, 1, CountingContract(), verify=false_verify).apply(codec.encode(certified))


def test_what_is_signed_is_written_down_in_the_same_output_before_it_is_sent() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    output = bench.give(proposal(block))
    assert [codec.decode(data, Record).kind for data in output.persist] == ["prepare"]
    assert [type(opened(frame)) for _, frame in output.send] == [Prepare] * 3
    bench.give(Prepare(1, 1, 1, 0, hash_of(block)))
    output = bench.give(Prepare(1, 2, 1, 0, hash_of(block)))
    assert [codec.decode(data, Record).kind for data in output.persist] == ["commit"]
    assert [record_height(data) for data in bench.records] == [1, 1]


def test_a_leader_waits_for_company_then_proposes_once_and_never_an_empty_block() -> None:
    bench = Bench(index=1, settings={"batch_ms": 50})
    assert not [m for m in bench.wait(10_000) if not isinstance(m, Status)]
    bench.submit(tx(1))
    bench.wait(30)
    bench.submit(tx(2))
    bench.wait(19)
    assert not bench.of(PrePrepare)
    bench.wait(1)
    sent = bench.of(PrePrepare)
    assert len({codec.encode(message) for message in sent}) == 1 and len(sent[0].digests) == 2  # type: ignore[union-attr]
    assert bench.sent.index(bench.of(Gossip)[0]) < bench.sent.index(sent[0])


def test_a_full_batch_does_not_wait() -> None:
    bench = Bench(index=1, settings={"transactions_max": 2})
    bench.submit(tx(1), tx(2))
    assert len(bench.of(PrePrepare)) == 3


def test_missing_transactions_are_fetched_and_only_those_asked_for_are_taken() -> None:
    bench, block = Bench(), a_block(txs=[tx(1), tx(2)])
    bench.submit(tx(1))
    bench.give(proposal(block))
    assert not bench.votes()
    asked = bench.of(Fetch)
    assert len(asked) == 1 and asked[0].digests == [merkle.leaf_hash(tx(2))]  # type: ignore[union-attr]
    bench.give(Bodies(1, 2, 1, hash_of(block), [tx(3)]))
    assert bench.rejected == ["body-unasked"] and not bench.votes()
    bench.give(Bodies(1, 2, 1, hash_of(block), [tx(2)]))
    assert bench.votes() == {("Prepare", 0, hash_of(block))}


def test_a_holder_serves_what_is_asked_and_not_twice_at_once() -> None:
    bench, block = Bench(), a_block(txs=[tx(1), tx(2)])
    bench.submit(tx(1), tx(2))
    bench.give(proposal(block))
    bench.give(Fetch(1, 3, 1, hash_of(block), [merkle.leaf_hash(tx(2))]))
    bench.give(Fetch(1, 3, 1, hash_of(block), [merkle.leaf_hash(tx(2))]))
    assert [message.transactions for message in bench.of(Bodies)] == [[tx(2)]]  # type: ignore[union-attr]
    bench.wait(500)
    bench.give(Fetch(1, 3, 1, hash_of(block), []))
    assert bench.of(Bodies)[-1].transactions == [tx(1), tx(2)]  # type: ignore[union-attr]


def test_two_signatures_of_one_payload_cannot_be_exchanged() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    forged = tx()[:-64] + bytes(64)
    digests = [merkle.leaf_hash(forged)]
    values = [getattr(codec.decode(block.header, Header), name) for name in Header.__struct_fields__]
    values[8] = merkle.root(digests)
    header = codec.encode(Header(*values))
    bench.give(PrePrepare(1, 1, 1, 0, header, digests))
    bench.give(Bodies(1, 1, 1, blocks.block_hash(NETWORK, header), [forged]))
    assert bench.rejected == ["block-tx-signature"] and not bench.votes()


def test_votes_are_sent_again_until_the_height_is_final_and_less_and_less_often() -> None:
    bench, block = Bench(settings={"timeout_ms": 60_000, "timeout_max_ms": 60_000, "status_ms": 10**9}), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    times = []
    for _ in range(60):
        if any(isinstance(m, Prepare) for m in bench.wait(500)):
            times.append(bench.now_ms - T0)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:3] == [1000, 2000, 4000] and set(gaps[3:]) == {4000}


# Time


@pytest.mark.parametrize(
    ("offset_s", "voted"), [(0, True), (5, True), (6, False), (-5, True), (-6, False), (3600, False)]
)
def test_a_new_block_is_judged_by_our_clock_when_it_arrives(offset_s: int, voted: bool) -> None:
    bench = Bench(now_ms=T0 + 100_000)
    bench.submit(tx())
    bench.give(proposal(a_block(time_s=START_S + 100 + offset_s)))
    assert bool(bench.votes()) is voted
    assert bench.rejected == ([] if voted else ["time"])


def test_a_prepared_block_is_not_judged_by_time_again() -> None:
    bench, block = Bench(now_ms=T0 + 3_600_000), a_block(time_s=START_S)
    bench.submit(tx())
    bench.give(new_view(2, {1: certificate(block, 0), 2: None, 3: None}))
    bench.give(proposal(block, view=2))
    assert bench.votes() == {("Prepare", 2, hash_of(block))} and not bench.rejected


# View change


def test_no_clock_runs_while_nothing_is_pending_and_one_runs_for_a_pending_transaction() -> None:
    bench = Bench(settings={"timeout_ms": 2000})
    bench.wait(3_600_000)
    assert not bench.of(ViewChange)
    bench.submit(tx())
    bench.wait(1999)
    assert not bench.of(ViewChange)
    bench.wait(1)
    assert bench.of(ViewChange)[0].view == 1  # type: ignore[union-attr]


def test_alone_a_replica_leaves_one_view_and_then_waits_for_the_others() -> None:
    bench = Bench(settings={"timeout_ms": 100, "timeout_max_ms": 400, "batch_ms": 10})
    bench.submit(tx())
    bench.wait(60_000)
    assert {message.view for message in bench.of(ViewChange)} == {1}  # type: ignore[union-attr]


def test_patience_doubles_with_each_view_up_to_its_cap() -> None:
    bench = Bench(index=0, settings={"timeout_ms": 1000, "timeout_max_ms": 4000})
    bench.submit(tx())
    left: dict[int, int] = {}
    for _ in range(400):
        for message in bench.wait(100):
            if isinstance(message, ViewChange) and message.view not in left:
                left[message.view] = bench.now_ms - T0
                if message.view < 7:  # two others come along, nobody leads
                    for sender in (2, 1):
                        bench.give(ViewChange(1, sender, 1, message.view, None))
    waits = [left[view + 1] - left[view] for view in (1, 2) if view + 1 in left]
    assert left[1] == 1000 and waits == [2000, 4000]
    config = ReplicaConfig(0, KEYS[0], protocol_s, timeout_ms=1000, timeout_max_ms=4000)
    assert [config.timeout_of(view) for view in (0, 1, 2, 3, 10**6)] == [1000, 2000, 4000, 4000, 4000]


def test_a_replica_joins_f_plus_1_others_and_not_one() -> None:
    bench = Bench()
    bench.give(ViewChange(1, 1, 1, 2**31, None))
    assert not bench.of(ViewChange)
    bench.give(ViewChange(1, 2, 1, 3, None))
    assert bench.of(ViewChange)[0].view == 3  # type: ignore[union-attr]


@pytest.mark.row("F11", "F12")
def test_a_prepared_block_survives_the_view_change_with_its_own_header() -> None:
    leader, block = Bench(index=2), a_block()
    leader.submit(tx())
    leader.give(proposal(block))
    for sender in (1, 3):
        leader.give(Prepare(1, sender, 1, 0, hash_of(block)))
    leader.wait(2000)
    for sender in (0, 3):
        leader.give(ViewChange(1, sender, 1, 1, None))
    proposed = leader.of(PrePrepare)
    assert proposed and proposed[0].view == 1 and proposed[0].header == block.header  # type: ignore[union-attr]
    for sender in (0, 3):
        leader.give(Prepare(1, sender, 1, 1, hash_of(block)))
        leader.give(Commit(1, sender, 1, 1, hash_of(block)))
    assert leader.ledger.head.block_hash == hash_of(block)
    _, _, header, votes = blocks.decode_certified(leader.stored[0])
    assert header.view == 0 and votes.view == 1  # the certificate is younger than the block


def test_a_new_leader_fetches_the_prepared_block_it_never_saw() -> None:
    leader, block = Bench(index=2), a_block()
    leader.submit(tx(1))
    for sender, report in ((0, certificate(block, 0)), (3, None)):
        leader.give(ViewChange(1, sender, 1, 1, report))
    asked = leader.of(Fetch)
    assert asked and asked[0].digests == [] and not leader.of(PrePrepare)  # type: ignore[union-attr]
    leader.give(Bodies(1, 1, 1, hash_of(block), [tx(2)]))
    assert leader.rejected == ["bodies-root"]
    leader.give(Bodies(1, 1, 1, hash_of(block), block.transactions))
    assert leader.of(PrePrepare)[0].header == block.header  # type: ignore[union-attr]


def test_after_a_new_view_only_the_required_block_is_supported() -> None:
    bench, block = Bench(), a_block()
    rival = a_block(view=2, txs=[tx(), tx(2)])
    bench.submit(tx(), tx(2))
    bench.give(new_view(2, {1: certificate(block, 0), 2: None, 3: None}))
    bench.give(proposal(rival, view=2))
    assert bench.rejected == ["not-required"] and not bench.votes()
    bench.give(proposal(block, view=2))
    assert bench.votes() == {("Prepare", 2, hash_of(block))}


def test_a_new_view_without_q_votes_or_by_another_leader_is_refused() -> None:
    bench = Bench()
    bench.give(new_view(2, {2: None, 3: None}))
    bench.give(NewView(1, 2, 1, 2, new_view(2, {1: None, 2: None, 3: None}).votes))
    assert bench.rejected == ["new-view-quorum", "not-leader"]
    assert bench.replica.status()["view"] == 0


def forged_certificate(block: Block) -> Prepared:
    good = certificate(block, 0)
    return Prepared(0, good.header, [*good.votes[:-1], blocks.VoteSignature(3, bytes(64))])


def test_who_shows_a_forged_certificate_is_not_listened_to_about_views_until_the_height_is_over() -> None:
    bench, block = Bench(), a_block()
    bench.give(ViewChange(1, 3, 1, 1, forged_certificate(block)))
    bench.give(ViewChange(1, 3, 1, 2, None))
    bench.give(ViewChange(1, 1, 1, 2, None))
    assert bench.rejected == ["prepared-signature", "set-aside"]
    assert bench.replica.status()["view"] == 0, "one of two is not f + 1"
    bench.submit(tx())
    bench.give(proposal(block))
    for sender in (1, 3):  # its votes count as before: it can only be one of the f
        bench.give(Prepare(1, sender, 1, 0, hash_of(block)))
    for sender in (1, 3):
        bench.give(Commit(1, sender, 1, 0, hash_of(block)))
    assert bench.ledger.head.height == 1
    for sender in (1, 3):
        bench.give(ViewChange(1, sender, 2, 1, None))
    assert bench.replica.status()["view"] == 1, "the next height listens again"


def test_a_leader_with_a_forged_new_view_is_not_listened_to_and_the_next_one_is() -> None:
    bench, block = Bench(), a_block()
    forged = new_view(1, {1: None, 2: None, 3: forged_certificate(block)})
    for _ in range(3):
        bench.give(forged)
    assert bench.rejected == ["new-view-quorum", "set-aside", "set-aside"]
    bench.give(new_view(2, {1: None, 2: None, 3: None}))
    assert bench.replica.status()["view"] == 2


def test_a_proposal_that_overtook_its_new_view_is_kept() -> None:
    bench, block = Bench(), a_block(view=2)
    bench.submit(tx())
    bench.give(proposal(block, view=2))
    assert not bench.votes()
    bench.give(new_view(2, {1: None, 2: None, 3: None}))
    assert bench.votes() == {("Prepare", 2, hash_of(block))}


def test_a_peer_that_missed_the_new_view_is_sent_it_again() -> None:
    leader = Bench(index=2)
    for sender in (0, 1, 3):
        leader.give(ViewChange(1, sender, 1, 1, None))
    leader.sent.clear()
    leader.give(ViewChange(1, 1, 1, 1, None))
    assert len(leader.of(NewView)) == 1


def test_transactions_that_no_block_takes_are_forgotten_and_nothing_is_proposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(index=1, settings={"batch_ms": 0})
    monkeypatch.setattr(bench.ledger, "build", lambda view, proposer, time_s, txs: Block(a_block().header, []))
    bench.submit(tx())
    bench.wait(10_000)
    assert not bench.of(PrePrepare) and not bench.of(ViewChange) and len(bench.replica.pool) == 0


def test_in_a_view_change_nothing_is_prepared_or_committed() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.wait(2000)
    bench.give(proposal(block))
    for sender in (1, 2, 3):
        bench.give(Prepare(1, sender, 1, 0, hash_of(block)))
    assert not bench.votes()


def test_commits_of_a_view_we_left_still_decide() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    bench.wait(2000)
    assert bench.of(ViewChange)
    for sender in (1, 2, 3):
        bench.give(Commit(1, sender, 1, 0, hash_of(block)))
    assert bench.ledger.head.block_hash == hash_of(block)


# Restart


def test_after_a_restart_a_conflicting_proposal_is_met_with_silence_and_the_old_vote_repeated() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    bench.restart()
    bench.submit(tx(), tx(2))
    bench.give(proposal(a_block(txs=[tx(), tx(2)])))
    bench.wait(1500)
    assert bench.votes() == {("Prepare", 0, hash_of(block))}
    for sender in (1, 2):
        bench.give(Prepare(1, sender, 1, 0, hash_of(block)))
        bench.give(Commit(1, sender, 1, 0, hash_of(block)))
    assert bench.ledger.head.block_hash == hash_of(block)


def test_a_restarted_leader_repeats_its_proposal_byte_for_byte() -> None:
    bench = Bench(index=1, settings={"batch_ms": 0})
    bench.submit(tx())
    bench.wait(0)
    first = bench.of(PrePrepare)[0]
    bench.restart()
    bench.now_ms += 7000
    bench.submit(tx(), tx(2))
    bench.wait(900)
    assert set(map(codec.encode, bench.of(PrePrepare))) == {codec.encode(first)}
    assert len(bench.votes()) == 1


def test_a_restarted_replica_stays_in_the_view_it_promised_and_reports_what_it_had_prepared() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    for sender in (1, 2):
        bench.give(Prepare(1, sender, 1, 0, hash_of(block)))
    bench.wait(2000)
    before = bench.of(ViewChange)[0]
    bench.sent.clear()
    bench.restart()
    assert set(map(codec.encode, bench.of(ViewChange))) == {codec.encode(before)}
    assert before.prepared is not None and before.prepared.header == block.header  # type: ignore[union-attr]
    bench.give(proposal(block))
    bench.give(Prepare(1, 3, 1, 0, hash_of(block)))
    assert not any(isinstance(message, Prepare) for message in bench.sent)


def test_records_of_a_later_height_wait_for_it_and_those_of_final_heights_are_ignored() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    for sender in (1, 2):
        bench.give(Prepare(1, sender, 1, 0, hash_of(block)))
        bench.give(Commit(1, sender, 1, 0, hash_of(block)))
    ledger = bench.ledger
    second = ledger.build(0, 2, START_S, [tx(2)])
    bench.submit(tx(2))
    bench.give(PrePrepare(1, 2, 2, 0, second.header, [merkle.leaf_hash(tx(2))]))
    stored = bench.stored[:]
    bench.stored.clear()  # the disk kept the votes of height 2 but not block 1
    bench.sent.clear()
    bench.restart()
    bench.give(SyncBlocks(1, 3, 1, stored))
    bench.submit(tx(2), tx(3))
    rival = bench.ledger.build(0, 2, START_S, [tx(2), tx(3)])
    bench.give(PrePrepare(1, 2, 2, 0, rival.header, [merkle.leaf_hash(tx(2)), merkle.leaf_hash(tx(3))]))
    bench.wait(1000)
    votes = {message.block_hash for message in bench.of(Prepare) if message.height == 2}  # type: ignore[union-attr]
    assert votes == {hash_of(second)}


def test_a_damaged_record_stops_the_start() -> None:
    with pytest.raises(DecodeError):
        Bench(records=[b"\x95\xa7prepare"])


# Catching up


def test_a_laggard_asks_one_who_is_ahead_and_applies_only_certified_blocks() -> None:
    bench = Bench()
    source = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
    chain = []
    for number in range(3):
        block = source.build(0, (number + 1) % 4, START_S + number, [tx(number + 1)])
        chain.append(certify(source, block, KEYS))
        source.apply(chain[-1])
    bench.give(Status(1, 2, 3, 0, False))
    bench.wait(200)
    assert [message.height for message in bench.of(SyncRequest)] == [1]  # type: ignore[union-attr]
    bad = certify(source, source.build(0, 0, START_S + 9, [tx(4)]), KEYS)
    bench.give(SyncBlocks(1, 2, 1, [bad]))
    assert bench.rejected == ["sync-block"] and bench.ledger.head.height == 0
    bench.give(SyncBlocks(1, 2, 1, chain[:1]))
    assert bench.rejected[1:] == ["sync-distrusted"] and bench.ledger.head.height == 0
    bench.now_ms += SYNC_TIMEOUT_MS
    bench.give(SyncBlocks(1, 2, 1, chain[:1]))
    assert bench.ledger.head.height == 1, "it is given another chance"
    bench.give(SyncBlocks(1, 3, 1, chain))
    assert bench.ledger.head.height == 3 and len(bench.stored) == 3
    bench.give(SyncBlocks(1, 3, 1, chain))  # again: nothing happens
    assert bench.ledger.head.height == 3 and len(bench.stored) == 3


def test_a_peer_that_votes_on_a_final_height_is_sent_the_block() -> None:
    bench, block = Bench(), a_block()
    bench.give(SyncBlocks(1, 3, 1, [certify(Ledger(GENESIS, 1, CountingContract(), verify=false_verify), block, KEYS)]))
    bench.give(Commit(1, 2, 1, 0, hash_of(block)))
    assert not bench.of(SyncBlocks)  # it just heard of it as we did
    bench.now_ms += 1000
    bench.give(Commit(1, 2, 1, 0, hash_of(block)))
    bench.give(Prepare(1, 2, 1, 0, hash_of(block)))
    assert len(bench.of(SyncBlocks)) == 1


# Bad input


def test_a_leader_is_accused_of_two_proposals_only_with_both_frames_at_hand() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    bench.restart()  # the block comes back from the log, the leader's frame does not
    bench.give(proposal(a_block(time_s=START_S + 1)))
    assert not bench.replica.evidence and bench.rejected[-1] == "equivocation"
    bench.give(proposal(block))
    bench.give(proposal(a_block(time_s=START_S + 1)))
    (found,) = bench.replica.evidence
    assert found.first == seal(proposal(block)) and found.second == seal(proposal(a_block(time_s=START_S + 1)))


@pytest.mark.row("F11")
def test_equivocation_is_kept_as_evidence_against_its_signer_and_bounded() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx())
    bench.give(proposal(block))
    bench.give(proposal(a_block(time_s=START_S + 1)))
    bench.give(Prepare(1, 2, 1, 0, hash_of(block)))
    bench.give(Prepare(1, 2, 1, 0, bytes(32)))
    bench.give(Commit(1, 3, 1, 0, hash_of(block)))
    bench.give(Commit(1, 3, 1, 0, bytes(32)))
    for _ in range(EVIDENCE_MAX * 2):
        bench.give(Commit(1, 3, 1, 0, bytes(32)))
    found = [(item.kind, item.sender) for item in bench.replica.evidence]
    assert found == [("pre-prepare", 1), ("prepare", 2), ("commit", 3)]
    for item in bench.replica.evidence:
        for data in (item.first, item.second):
            frame, message = codec.decode(data, Frame), opened(data)
            signed = signed_bytes(NETWORK, message, frame.body)
            assert false_verify(KEYS[item.sender].public, signed, frame.signature)
        assert item.first != item.second


@pytest.mark.parametrize(
    ("message", "signer", "reason"),
    [
        (Prepare(1, 2, 1, 0, bytes(32)), 3, "frame-signature"),
        (ViewChange(1, 2, 1, 3, None), 3, "frame-signature"),
        (Status(0, 2, 9, 0, False), 2, "wrong-chain"),
        (PrePrepare(1, 2, 1, 0, a_block().header, []), 2, "not-leader"),
        (PrePrepare(1, 1, 1, 0, b"x", []), 1, "header-form"),
        (PrePrepare(1, 1, 1, 0, a_block().header, []), 1, "tx-count"),
        (PrePrepare(1, 1, 1, 0, a_block().header, [bytes(32)]), 1, "tx-root"),
        (proposal(a_block(view=4)), 1, "header-view"),
        (ViewChange(1, 2, 1, 3, Prepared(0, a_block().header, [])), 2, "prepared-size"),
        (Gossip(1, 2, 0, [tx()[:-1]]), 2, "tx-form"),
        (Gossip(1, 2, 0, [tx()[:-64] + bytes(64)]), 2, "tx-signature"),
        (Gossip(1, 2, 0, [make_tx(USER, NETWORK, 1, chain=2)]), 2, "tx-chain"),
    ],
)
def test_a_bad_message_is_refused_with_its_reason_and_changes_nothing(
    message: Message, signer: int, reason: str
) -> None:
    bench = Bench()
    before = bench.replica.status()
    output = bench.give(message, signer)
    assert [(item.reason, item.sender) for item in output.rejected] == [(reason, message.sender)]
    assert not output.persist and not output.send and not output.commit
    after = bench.replica.status()
    assert after.pop("rejected") == {reason: 1} and before.pop("rejected") == {}
    assert after == before


@pytest.mark.parametrize("sender", [0, 4, -1])
def test_a_frame_of_nobody_or_of_ourselves_is_refused(sender: int) -> None:
    bench = Bench()
    bench.replica.receive(sender, seal(Prepare(1, 2, 1, 0, bytes(32))), bench.now_ms)
    assert [item.reason for item in bench.take().rejected] == ["unknown-sender"]
    bench.replica.receive(3, seal(Prepare(1, 2, 1, 0, bytes(32))), bench.now_ms)
    assert [item.reason for item in bench.take().rejected] == ["wrong-sender"]


def test_every_changed_byte_of_every_kind_of_frame_is_refused() -> None:
    block = a_block()
    messages: list[Message] = [
        proposal(block),
        Prepare(1, 1, 1, 0, hash_of(block)),
        Commit(1, 1, 1, 0, hash_of(block)),
        ViewChange(1, 1, 1, 2, certificate(block, 0)),
        new_view(2, {1: None, 2: None, 3: None}),
        Fetch(1, 1, 1, hash_of(block), []),
        Bodies(1, 1, 1, hash_of(block), [tx()]),
        Gossip(1, 1, 0, [tx()]),
        Status(1, 1, 0, 0, True),
        SyncRequest(1, 1, 1),
        SyncBlocks(1, 1, 1, []),
    ]
    for message in messages:
        frame = seal(message)
        for at in range(len(frame)):
            bench = BENCH
            bench.replica.receive(message.sender, frame[:at] + bytes([frame[at] ^ 0x01]) + frame[at + 1 :], T0)
            output = bench.take()
            assert not output.persist and not output.commit, (message, at)
    assert BENCH.ledger.head.height == 0 and not BENCH.votes() and not BENCH.replica.evidence
    assert BENCH.replica.status()["view"] == 0
    # Talk is not signed: a transaction in it proves itself, whatever happened to the rest of its frame.
    assert [waiting.raw for waiting in BENCH.replica.pool.waiting(T0, 9)] == [tx()]


BENCH = Bench()


def test_frames_of_far_views_and_heights_take_no_room() -> None:
    bench = Bench()
    for number in range(3 * FUTURE_FRAMES_MAX):
        bench.give(Prepare(1, 2, 1, VIEW_WINDOW + 1 + number, bytes(32)))
        bench.give(Prepare(1, 2, 2, number, bytes(32)))
        bench.give(Prepare(1, 2, 3 + number, 0, bytes(32)))
    assert len(bench.replica._future[2]) == FUTURE_FRAMES_MAX
    assert bench.replica._agreement.round.prepares.winners(1) == []


def test_frames_that_came_a_height_early_are_used_when_it_begins() -> None:
    bench, block = Bench(), a_block()
    bench.submit(tx(), tx(2))
    source = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
    first = certify(source, block, KEYS)
    source.apply(first)
    second = source.build(0, 2, START_S, [tx(2)])
    hash_ = blocks.block_hash(NETWORK, second.header)
    bench.give(PrePrepare(1, 2, 2, 0, second.header, [merkle.leaf_hash(tx(2))]))
    for sender in (1, 2, 3):
        bench.give(Prepare(1, sender, 2, 0, hash_))
        bench.give(Commit(1, sender, 2, 0, hash_))
    bench.give(SyncBlocks(1, 3, 1, [first]))
    assert bench.ledger.head.height == 2 and len(bench.stored) == 2


def test_settings_that_cannot_work_are_refused() -> None:
    for settings in ({"batch_ms": 1001}, {"timeout_max_ms": 10}, {"resend_ms": 0}, {"batch_ms": -1}):
        with pytest.raises(ValueError):
            ReplicaConfig(0, KEYS[0], protocol_s, **settings)  # type: ignore[arg-type]


def test_the_status_names_whose_vote_is_missing() -> None:
    bench, block = Bench(), a_block()
    assert bench.replica.status()["phase"] == "idle"
    bench.submit(tx())
    assert (bench.replica.status()["phase"], bench.replica.status()["missing"]) == ("waiting-for-proposal", [1])
    bench.give(proposal(block))
    bench.give(Prepare(1, 1, 1, 0, hash_of(block)))
    assert (bench.replica.status()["phase"], bench.replica.status()["missing"]) == ("prepare", [2, 3])
    bench.give(Prepare(1, 2, 1, 0, hash_of(block)))
    assert (bench.replica.status()["phase"], bench.replica.status()["missing"]) == ("commit", [1, 2, 3])
    assert bench.replica.status()["crashes_survived"] == 1


def test_votes_of_views_long_left_are_forgotten() -> None:
    book = VoteBook()
    for view in range(40):
        book.add(view, 1, bytes(32), bytes(64))
        book.prune(view)
    assert book.seen(39, 1) and book.seen(39 - VIEW_WINDOW, 1) and book.seen(38 - VIEW_WINDOW, 1) is None
    assert len(book.winners(1)) == VIEW_WINDOW + 1
