"""No leader keeps a transaction out (CONSENSUS.md 4.10): what has waited too long must be in the next new block."""

from __future__ import annotations

from typing import Any

import pytest
from chain_world import CountingContract, FalseKey, World, make_tx
from test_replica import NETWORK, USER, Bench, a_block, certificate, hash_of, new_view, proposal, protocol_s, tx
from watt_chain.election import rotation
from watt_chain.ledger import BlockContext, Contract
from watt_chain.pbft.config import GOSSIP_REPEAT_MS, INCLUSION_AGE_MS, INCLUSION_COUNT
from watt_chain.pbft.messages import Bodies, Commit, Gossip, Prepare
from watt_chain.state import StateReader
from watt_chain.transaction import decode_transaction

VICTIM = FalseKey("victim")
CROWD = [FalseKey(f"crowd{number}") for number in range(20)]
PATIENT = {"timeout_ms": 60_000, "timeout_max_ms": 60_000}


class LedContract(CountingContract):
    """A draw that the lowest indices won: they lead the first views of every height."""

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        return rotation(0, len(context.validators))


class LedWorld(World):
    """f validators conspire against one signer, and lead before everybody else."""

    def contract(self) -> Contract:
        return LedContract()

    def conspire(self, nodes: int) -> None:
        for index in range(nodes):
            pool: Any = self.replicas[index].pool  # type: ignore[union-attr]
            pool.select = lambda *limits, honest=pool.select: [
                found for found in honest(*limits) if found.signer != VICTIM.public
            ]
            pool.overdue = lambda *_: []  # nor do they object to each other


def time_passes(world: World, heights: int, pace_ms: int = 800) -> None:
    """One call of somebody else a height; `pace_ms` apart."""
    for _ in range(heights):
        before, nonce = world.height(world.n - 1), world.total(world.n - 1) + 1
        other = make_tx(CROWD[0], world.network, nonce - is_final(world))
        for index in range(world.n):
            world.submit(other, index)
        assert world.run(60_000, lambda before=before: world.height(world.n - 1) > before)  # type: ignore[misc]
        world.run(pace_ms)


def is_final(world: World) -> int:
    ledger = world.ledgers[world.n - 1]
    assert ledger is not None
    return ledger.next_nonce(VICTIM.public) - 1


@pytest.mark.parametrize(("n", "f"), [(4, 1), (7, 2), (10, 3)])
def test_what_f_plus_1_were_given_is_final_within_n_plus_2_heights_whoever_leads(n: int, f: int) -> None:
    world = LedWorld(n, 1, timeout_max_ms=4_000)
    world.conspire(f)
    time_passes(world, 1)
    begun = world.height(n - 1)
    for index in range(n - f - 1, n):
        assert world.submit(make_tx(VICTIM, world.network, 1), index) == ""
    time_passes(world, n - 1)
    assert not is_final(world), "they do lead, and nobody may object yet"
    time_passes(world, 3)
    assert is_final(world)
    assert world.height(n - 1) <= begun + n + 3
    status = world.replicas[n - 1].status()  # type: ignore[union-attr]
    assert status["rejected"]["left-out"] == f  # type: ignore[index]


def test_a_backlog_in_another_order_everywhere_costs_no_view() -> None:
    """Nobody conspires: blocks are far too small for what waits, but each leader takes its oldest."""
    world = World(4, 7, transactions_max=4, batch_ms=5)
    world.delay_ms = (20, 200)
    for nonce in range(1, 9):
        for number, key in enumerate(CROWD):
            world.submit(make_tx(key, world.network, nonce), (number + nonce) % 4)
    assert world.run(60_000, lambda: all(world.total(index) == 160 for index in range(4)))
    assert world.now_ms > 1_000 + INCLUSION_AGE_MS, "some of it did wait"
    assert all("left-out" not in replica.status()["rejected"] for replica in world.replicas if replica)  # type: ignore[operator]


# One replica


def waiting(blocks: int = 4, age_ms: int = INCLUSION_AGE_MS, **settings: int) -> Bench:
    """A replica where nonce 1 of the user waited through `blocks` blocks, and the crowd's calls came just now."""
    bench = Bench(settings={**PATIENT, **settings})
    bench.submit(tx())
    for _ in range(blocks):
        bench.replica.pool.settle(())
    bench.now_ms += age_ms
    return bench


def crowd(bench: Bench, count: int = 1) -> list[bytes]:
    found = [make_tx(key, NETWORK, 1) for key in CROWD[:count]]
    bench.submit(*found)
    return found


def offered(bench: Bench, txs: list[bytes]) -> bytes:
    """The leader proposes these; the hash of the block."""
    block = a_block(time_s=protocol_s(bench.now_ms), txs=txs)
    bench.give(proposal(block))
    return hash_of(block)


@pytest.mark.parametrize(
    ("blocks", "age_ms", "supported"),
    [(4, INCLUSION_AGE_MS, False), (3, INCLUSION_AGE_MS, True), (4, INCLUSION_AGE_MS - 1, True)],
)
def test_a_block_that_leaves_out_what_has_waited_long_gets_silence(blocks: int, age_ms: int, supported: bool) -> None:
    bench = waiting(blocks, age_ms)
    hash_ = offered(bench, crowd(bench))
    assert bool(bench.votes()) == supported
    assert bench.rejected == ([] if supported else ["left-out"])
    assert bench.replica.status()["phase"] == ("prepare" if supported else "left-out")
    for sender in (1, 2, 3):  # a quorum that saw it otherwise decides, and we follow
        bench.give(Commit(1, sender, 1, 0, hash_))
    assert bench.ledger.head.block_hash == hash_


def test_a_block_that_holds_it_is_supported() -> None:
    bench = waiting()
    hash_ = offered(bench, [*crowd(bench), tx()])
    assert bench.votes() == {("Prepare", 0, hash_)}


def test_another_call_in_the_same_turn_is_an_excuse() -> None:
    bench = waiting()
    other = make_tx(USER, NETWORK, 1, "Send")
    hash_ = offered(bench, [other])
    assert not bench.votes(), "it is not here"
    bench.give(Bodies(1, 1, 1, hash_, [other]))
    assert bench.votes() == {("Prepare", 0, hash_)}


@pytest.mark.parametrize(
    ("old", "age_ms", "supported"),
    [(2, GOSSIP_REPEAT_MS, True), (1, GOSSIP_REPEAT_MS, False), (2, GOSSIP_REPEAT_MS - 1, False)],
)
def test_a_full_block_is_supported_when_nothing_in_it_came_just_now(old: int, age_ms: int, supported: bool) -> None:
    bench = Bench(settings={**PATIENT, "transactions_max": 2})
    bench.submit(tx())
    for _ in range(4):
        bench.replica.pool.settle(())
    bench.now_ms += INCLUSION_AGE_MS
    waited = crowd(bench, 2)
    bench.now_ms += age_ms
    young = [make_tx(key, NETWORK, 1) for key in CROWD[2:4]]
    bench.submit(*young)
    offered(bench, [*waited[:old], *young[old:]])
    assert bool(bench.votes()) == supported


@pytest.mark.parametrize(("bytes_max", "supported"), [(288, False), (287, True)])
def test_bytes_count_as_well_as_numbers(bytes_max: int, supported: bool) -> None:
    bench = Bench(settings={**PATIENT, "bytes_max": bytes_max})
    old = crowd(bench, 2)
    assert sum(map(len, old)) == 288
    for _ in range(4):
        bench.replica.pool.settle(())
    bench.now_ms += INCLUSION_AGE_MS
    offered(bench, old[1:])
    assert bool(bench.votes()) == supported


def test_what_nobody_here_supports_is_not_asked_for() -> None:
    bench = waiting()
    doubtful = decode_transaction(tx()).txid
    desk: Any = bench.replica._desk
    object.__setattr__(desk.config, "vouch", lambda raw: decode_transaction(raw).txid != doubtful)
    hash_ = offered(bench, crowd(bench))
    assert bench.votes() == {("Prepare", 0, hash_)}


def test_what_cannot_run_yet_is_not_asked_for() -> None:
    bench = Bench(settings=PATIENT)
    bench.submit(tx(2))  # nonce 1 is missing
    for _ in range(4):
        bench.replica.pool.settle(())
    bench.now_ms += INCLUSION_AGE_MS
    hash_ = offered(bench, crowd(bench))
    assert bench.votes() == {("Prepare", 0, hash_)}


def test_a_block_that_a_quorum_prepared_is_not_held_up() -> None:
    """Safety comes first: what may be final already is supported, whatever it leaves out."""
    bench = waiting()
    block = a_block(txs=crowd(bench))
    bench.give(new_view(1, {1: certificate(block, 0), 2: None, 3: None}))
    bench.give(proposal(block, view=1))
    assert bench.votes() == {("Prepare", 1, hash_of(block))} and not bench.rejected


def test_the_list_is_bounded_and_holds_the_oldest() -> None:
    bench = Bench(settings=PATIENT)
    old = crowd(bench, INCLUSION_COUNT + 2)
    for _ in range(4):
        bench.replica.pool.settle(())
    bench.now_ms += INCLUSION_AGE_MS
    hash_ = offered(bench, old[:INCLUSION_COUNT])
    assert bench.votes() == {("Prepare", 0, hash_)}
    again = Bench(settings=PATIENT)
    crowd(again, INCLUSION_COUNT + 2)
    for _ in range(4):
        again.replica.pool.settle(())
    again.now_ms += INCLUSION_AGE_MS
    offered(again, old[2:])
    assert not again.votes()


def test_prepares_of_others_do_not_make_us_commit_to_it() -> None:
    bench = waiting()
    hash_ = offered(bench, crowd(bench))
    for sender in (1, 2, 3):
        bench.give(Prepare(1, sender, 1, 0, hash_))
    assert not bench.votes()


def test_what_waits_is_sent_again_every_second_however_short_the_heights_are() -> None:
    bench = Bench(settings={**PATIENT, "resend_ms": 20_000})
    bench.submit(tx(2))  # nonce 1 is missing: it stays
    rounds = [[m for m in bench.wait(GOSSIP_REPEAT_MS) if isinstance(m, Gossip)] for _ in range(3)]
    assert [len(sent) for sent in rounds] == [6, 3, 3], "at once and after a second, to three others; then every second"
    assert all(m.transactions == [tx(2)] for sent in rounds for m in sent)


def test_what_no_leader_can_put_into_a_block_is_not_waited_for() -> None:
    """The regulator's word for an area in quarantine counts where nodes were told it (CONSENSUS.md 8.8)."""
    bench = Bench(settings=PATIENT)
    assert bench.replica.submit(make_tx(USER, NETWORK, 1, "Resume"), bench.now_ms) == "not-first"
    assert not len(bench.replica.pool)


def test_after_f_plus_1_leaders_nobody_objects() -> None:
    """Progress never hangs on the lists: one of these leaders was honest, and lacks what we have."""
    bench = waiting()
    txs = crowd(bench)
    for view, supported in ((1, False), (2, True)):
        bench.give(new_view(view, {1: None, 2: None, 3: None}))
        block = a_block(view, protocol_s(bench.now_ms), txs)
        bench.give(proposal(block, view))
        assert bool(bench.votes()) == supported


def test_what_is_wanted_is_sent_again_before_anything_that_cannot_run() -> None:
    bench = waiting()
    for key in CROWD:
        bench.submit(*(make_tx(key, NETWORK, nonce) for nonce in range(2, 8)))
    bench.replica.pool.forget(decode_transaction(tx()).txid)
    bench.submit(tx())  # it came last, and is the only one that can run
    for _ in range(4):
        bench.replica.pool.settle(())
    bench.sent.clear()
    bench.wait(INCLUSION_AGE_MS + 1000)
    sent = [message.transactions for message in bench.of(Gossip)]  # type: ignore[union-attr]
    assert sent and sent[-1][0] == tx()
