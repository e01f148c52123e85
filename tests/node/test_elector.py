"""What a daemon does for its elections: it asks the contract, solves, derives its share, submits, repeats itself."""

from __future__ import annotations

import asyncio
import io

import pytest
from contract_world import key_of
from election_world import ElectionWorld
from watt_chain import codec, election
from watt_chain.pbft import Evidence
from watt_node import elector
from watt_node.elector import Elector, share_of
from watt_node.log import Log


class Bench:
    """One elector for validator 0 of a world; what it submits goes into a block when the test says so."""

    def __init__(self, world: ElectionWorld, number: int = 0) -> None:
        self.world, self.number = world, number
        self.handed: list[tuple[str, object]] = []
        self.seen: tuple[Evidence, ...] = ()
        self.reason = ""
        self.log = io.StringIO()
        self.elector = Elector(
            world.ledger, world.validators[number], lambda: self.seen, self.submit, Log("node", "debug", self.log)
        )

    async def submit(self, kind: str, fields: object) -> str:
        self.handed.append((kind, fields))
        return self.reason

    async def step(self) -> list[str]:
        """Let it do what is due; the kinds it handed in."""
        self.handed.clear()
        await self.elector._do_due()
        return [kind for kind, _ in self.handed]

    def carry(self) -> list[str]:
        """The codes of what was handed in, in one block."""
        if not self.handed:
            return self.world.block() and []
        nonce = self.world.ledger.next_nonce(self.world.validators[self.number].public)
        key = self.world.validators[self.number]
        txs = []
        for at, (kind, fields) in enumerate(self.handed):
            payload = codec.encode([kind, 1, nonce + at, fields])
            signature = key.sign(codec.signing_bytes(b"tx", self.world.network, payload))
            txs.append(codec.encode([payload, key.public, signature]))
        return self.world.block(*txs)


async def test_it_takes_part_in_every_term_and_each_call_is_accepted() -> None:
    world = ElectionWorld()
    bench = Bench(world)
    done: list[tuple[int, list[str]]] = []
    while election.term_of(world.height) < 3:
        kinds_now = await bench.step()
        assert bench.carry() == [""] * len(kinds_now)
        if kinds_now:
            done.append((world.height - 1, kinds_now))
    assert done == [
        (1, ["SeedCommit"]),
        (65, ["SeedCommit", "Ticket"]),
        (97, ["SeedReveal"]),
        (129, ["SeedCommit", "Ticket"]),
        (161, ["SeedReveal"]),
    ]
    world.block()
    assert [one.validator for one in world.election().eligible] == [world.ids[0]]
    assert world.election().demoted == []
    assert bench.elector.status() == {
        "term": 3, "eligible": 1, "struck": 0, "demoted": 0,
        "tickets": 2, "commitments": 3, "shares": 2, "evidence": 0,
    }  # fmt: skip


async def test_a_restarted_node_shows_the_share_it_committed_to_before() -> None:
    world = ElectionWorld()
    first = Bench(world)
    await first.step()
    assert first.carry() == [""]
    world.go_to(1, 40)
    again = Bench(world)  # nothing is left of the first but its key
    assert await again.step() == ["SeedReveal"]
    assert again.carry() == [""]


async def test_nothing_is_handed_in_twice_while_it_waits_and_again_when_it_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ms = 1_000
    monkeypatch.setattr(elector, "monotonic_ms", lambda: now_ms)
    bench = Bench(ElectionWorld())
    assert await bench.step() == ["SeedCommit"]
    assert await bench.step() == []
    now_ms += elector.AGAIN_MS + 1
    assert await bench.step() == ["SeedCommit"]
    bench = Bench(ElectionWorld())
    bench.reason = "pool-full"
    assert await bench.step() == ["SeedCommit"]
    assert await bench.step() == ["SeedCommit"], "it was not taken"


async def test_a_share_of_another_key_is_not_tried() -> None:
    world = ElectionWorld()
    assert world.send(0, "SeedCommit", world.commitment(0, 2)) == "", "by a key that is lost"
    world.go_to(1, 40)
    bench = Bench(world)
    assert await bench.step() == [] and "share-lost" in bench.log.getvalue()


async def test_evidence_goes_on_chain_once() -> None:
    world = ElectionWorld()
    bench = Bench(world)
    proof = world.two_votes(3)
    bench.seen = (Evidence("commit", 3, 5, 0, proof.first, proof.second, proof.public),)
    assert await bench.step() == ["SeedCommit", "Evidence"]
    assert await bench.step() == []
    assert (await bench.step(), Bench(world).handed) == ([], [])
    bench.handed = [("Evidence", proof)]
    assert bench.carry() == [""]
    other = Bench(world, 1)
    other.seen = bench.seen
    assert "Evidence" not in await other.step(), "another validator was faster"


async def test_a_puzzle_that_is_too_late_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ElectionWorld()
    world.go_to(1, 1)
    monkeypatch.setattr(elector, "CHUNK", 1)
    monkeypatch.setattr(elector, "LOOK_EVERY", 4)
    monkeypatch.setattr(elector, "PAUSE_S", 0.0)
    monkeypatch.setattr(election, "is_solved", lambda *_: False)
    bench = Bench(world)
    task = asyncio.ensure_future(bench.step())
    for _ in range(5):
        await asyncio.sleep(0)
    world.go_to(1, 33)
    async with asyncio.timeout(20):
        assert await task == ["SeedCommit"]


def test_shares_differ_between_terms_chains_networks_and_keys() -> None:
    keys = (key_of(1), key_of(2))
    shares = {
        share_of(key, network, chain, term)
        for key in keys
        for network in (bytes(32), b"n" * 32)
        for chain in (0, 1)
        for term in (2, 3)
    }
    assert len(shares) == 16
    assert share_of(keys[0], bytes(32), 0, 2) == share_of(key_of(1), bytes(32), 0, 2), "the same key, read again"
