"""A validator with grounds of its own not to support a new block (CONSENSUS.md 4.3.7)."""

from __future__ import annotations

import dataclasses

import pytest
from chain_world import FalseKey, World, make_tx
from watt_chain.pool import Pool
from watt_chain.transaction import decode_transaction

USER = FalseKey("user")


def hold_back(world: World, index: int, doubtful: set[bytes]) -> None:
    """Node `index` supports no new block with one of these transactions."""
    replica = world.replicas[index]
    assert replica is not None
    desk = replica._desk
    desk.config = dataclasses.replace(desk.config, vouch=lambda tx: decode_transaction(tx).txid not in doubtful)
    replica.reconsider(world.now_ms)


def doubted(world: World, nodes: tuple[int, ...]) -> tuple[bytes, set[bytes]]:
    tx = make_tx(USER, world.network, 1)
    doubtful = {decode_transaction(tx).txid}
    for index in nodes:
        hold_back(world, index, doubtful)
    for index in range(world.n):
        assert world.submit(tx, index) == ""
    return tx, doubtful


def resolve(world: World, doubtful: set[bytes]) -> None:
    """The grounds are gone, and everybody looks again."""
    doubtful.clear()
    for index in range(4):
        replica = world.replicas[index]
        assert replica is not None
        replica.reconsider(world.now_ms)
        world.carry_out(index)


def others_than_the_leader(world: World) -> tuple[int, ...]:
    """All but the first leader: it proposes what they do not support."""
    ledger = world.ledgers[0]
    assert ledger is not None
    leader = ledger.schedule.leader(1, 0)
    return tuple(index for index in range(world.n) if index != leader)


def test_a_quorum_that_vouches_is_enough_and_the_others_follow() -> None:
    world = World(4, 1)
    doubted(world, (3,))
    assert world.run(500, lambda: all(world.height(index) == 1 for index in range(3)))
    assert world.run(5_000, lambda: world.height(3) == 1)


@pytest.mark.row("B16", "B39")
def test_without_a_quorum_nothing_is_final_until_the_grounds_are_gone() -> None:
    world = World(4, 1)
    _, doubtful = doubted(world, others_than_the_leader(world))
    assert not world.run(20_000, lambda: any(world.height(index) > 0 for index in range(4)))
    resolve(world, doubtful)
    assert world.run(60_000, lambda: all(world.height(index) == 1 for index in range(4)))


def test_the_grounds_may_go_while_the_proposal_is_there() -> None:
    world = World(4, 1, timeout_ms=30_000)
    _, doubtful = doubted(world, others_than_the_leader(world))
    assert not world.run(5_000, lambda: world.height(0) > 0)
    resolve(world, doubtful)
    assert world.run(1_000, lambda: all(world.height(index) == 1 for index in range(4)))


def test_a_block_that_a_quorum_supported_is_not_held_up() -> None:
    """Three vouch and prepare; the network then cuts off the leader before anything is final: the block must come."""
    world = World(4, 3)
    leader = world.ledgers[0].schedule.leader(1, 0) if world.ledgers[0] else 0
    doubter = (leader + 1) % 4
    doubted(world, (doubter,))
    commits: list[int] = []

    def tamper(a: int, b: int, frame: bytes) -> bytes:
        if b"commit" in frame and world.now_ms < 6_000:
            commits.append(a)
            return b""
        return frame

    world.tamper = tamper
    world.run(2_000)
    assert commits, "three prepared the block, and no commit arrived"
    world.tamper = lambda a, b, frame: frame
    world.crash(leader)
    assert world.run(60_000, lambda: all(world.height(index) == 1 for index in range(4) if index != leader))


def test_what_nobody_supports_holds_up_its_signer_and_nobody_else() -> None:
    """One bad master hands in an anchor that no honest one can support: the chain goes on without it."""
    world = World(4, 1)
    _, doubtful = doubted(world, (0, 1, 2, 3))
    others = [FalseKey(f"other{number}") for number in range(3)]
    for number, other in enumerate(others):
        for index in range(4):
            world.submit(make_tx(other, world.network, 1), index)
        assert world.run(2_000, lambda number=number: all(world.height(index) > number for index in range(4)))  # type: ignore[misc]
    for index, ledger in enumerate(world.ledgers):
        assert ledger is not None and ledger.next_nonce(USER.public) == 1
        replica = world.replicas[index]
        assert replica is not None and len(replica.pool) == 1
    resolve(world, doubtful)
    assert world.run(2_000, lambda: all(world.total(index) == 4 for index in range(4)))


def test_what_nobody_supports_takes_no_room_in_a_block() -> None:
    pool = Pool()
    for number in range(4):
        for nonce in (1, 2):
            tx = decode_transaction(make_tx(FalseKey(f"user{number}"), bytes(32), nonce))
            assert pool.add(tx, number, 1) == ""
    refused = decode_transaction(make_tx(FalseKey("user0"), bytes(32), 1)).txid
    chosen = pool.select(lambda _: 1, 6, 1 << 20, lambda raw: decode_transaction(raw).txid != refused)
    assert [(tx.signer, tx.nonce) for tx in chosen] == [
        (FalseKey(f"user{number}").public, nonce) for number in (1, 2, 3) for nonce in (1, 2)
    ]


def test_nobody_waits_for_what_nobody_supports() -> None:
    """Else every view would run out, and honest leaders be struck for it."""
    world = World(4, 1)
    doubted(world, (0, 1, 2, 3))
    world.run(60_000)
    for index in range(4):
        replica = world.replicas[index]
        assert replica is not None and replica.status()["view"] == 0
