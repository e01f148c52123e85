"""Whole areas under faults, from seeds: never two blocks at one height, and progress once the faults stop.

The harness asserts on every step that no height gets two blocks, that every node stores heights in order,
and that no honest node ever signs two different proposals, prepares or commits of one height and view,
whatever it was restarted from.
"""

import random

import pytest
from chain_world import FalseKey, World, make_tx, real_keys
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.light import LightClient
from watt_chain.pbft.messages import Commit, Frame, Message, Prepare, PrePrepare, signed_bytes

USERS = [FalseKey(f"user{number}") for number in range(5)]
SETTINGS = {"timeout_ms": 600, "timeout_max_ms": 5000, "resend_ms": 200, "status_ms": 1000}
HEAL_MS = 60_000
"""Machine time within which everything must be final once the network works: 12 times the cap of the timers."""


class Run:
    """One seeded stretch of faults, then a healed network."""

    def __init__(self, n: int, seed: int, name: str) -> None:
        self.world = world = World(n, seed, **SETTINGS)
        self.name = name
        self.chance = random.Random(seed * 7 + n)
        self.nonces = [0] * len(USERS)
        self.bad = self.chance.randrange(n)
        self.down: list[int] = []
        world.loss = self.chance.choice([0, 0.05, 0.2])
        world.double = self.chance.choice([0, 0.2])
        world.delay_ms = (1, self.chance.choice([20, 200]))
        if name == "crash":
            world.torn = 0.02
        if name == "silent":
            world.cut = lambda a, b: self.bad in (a, b)
        if name == "equivocate":
            world.watched[self.bad] = False
            world.tamper = self.equivocate

    @property
    def live(self) -> list[int]:
        out = self.bad if self.name in ("silent", "equivocate") else None
        return [index for index in range(self.world.n) if index != out]

    def step(self) -> None:
        """One transaction somewhere, some time, perhaps one fault."""
        world, chance = self.world, self.chance
        user, to = chance.randrange(len(USERS)), chance.randrange(world.n)
        if world.replicas[to] is not None and to in self.live:
            tx = make_tx(USERS[user], world.network, self.nonces[user] + 1)
            if world.submit(tx, to) == "":
                self.nonces[user] += 1
        if self.name == "partition":
            side = [chance.random() < 0.5 for _ in range(world.n)]
            world.cut = lambda a, b: side[a] != side[b]
        world.run(chance.choice([5, 50, 400, 1500]))
        if self.name == "crash":
            self.down = [index for index in range(world.n) if world.replicas[index] is None]
            what = chance.random()
            if what < 0.25:
                world.crash(chance.randrange(world.n))
            elif what < 0.5 and self.down:
                world.start(chance.choice(self.down))
            elif what < 0.55:
                for index in range(world.n):
                    world.crash(index)
                for index in range(world.n):
                    world.start(index)

    def finish(self) -> None:
        """Heal the network, start everybody, and wait until every transaction is final everywhere."""
        world = self.world
        world.heal()
        world.torn = 0.0
        if self.name == "silent":
            world.cut = lambda a, b: self.bad in (a, b)
        for index in range(world.n):
            if world.replicas[index] is None:
                world.start(index)
        if self.name == "crash":  # pools are not durable: a gateway sends again until it has a receipt
            for user, last in zip(USERS, self.nonces, strict=True):
                for nonce in range(1, last + 1):
                    for index in self.live:
                        world.submit(make_tx(user, world.network, nonce), index)
        everything = sum(self.nonces)
        done = world.run(HEAL_MS, lambda: all(world.total(index) == everything for index in self.live))
        assert done, f"LIVENESS seed {world.seed} {self.name}: {[r and r.status() for r in world.replicas]}"
        world.run(3000)
        assert len({world.height(index) for index in self.live}) == 1
        roots = {ledger.state.root() for index in self.live if (ledger := world.ledgers[index])}
        assert len(roots) == 1
        for index in self.live:
            replica = world.replicas[index]
            assert replica is not None
            guilty = {item.sender for item in replica.evidence}
            assert guilty <= {self.bad} and (self.name == "equivocate" or not guilty)

    def equivocate(self, sender: int, receiver: int, frame: bytes) -> bytes:
        """As leader, tell odd nodes of another valid block; as voter, tell each what it hopes for."""
        world = self.world
        if sender != self.bad or receiver % 2 == 0:
            return frame
        body = codec.decode(codec.decode(frame, list[bytes])[0], list)
        ledger, replica = world.ledgers[sender], world.replicas[sender]
        assert ledger is not None and replica is not None
        if body[0] == "pre-prepare":
            header = codec.decode(body[5], blocks.Header)
            txs = [found for digest in body[6] if (found := replica.pool.find(digest))]
            if len(txs) < header.tx_count or ledger.head.height + 1 != header.height:
                return frame
            other = ledger.build(header.view, sender, header.time_s + 1, txs)
            return self.seal(PrePrepare(*body[1:5], other.header, body[6]))
        if body[0] in ("prepare", "commit"):
            others = [
                hash_
                for (_, kind, height, view), hash_ in world.signed.items()
                if (kind, height, view) == ("prepare", body[3], body[4]) and hash_ != body[5]
            ]
            if others:
                return self.seal((Prepare if body[0] == "prepare" else Commit)(*body[1:5], others[0]))
        return frame

    def seal(self, message: Message) -> bytes:
        body = codec.encode(message)
        signature = self.world.keys[self.bad].sign(signed_bytes(self.world.network, message, body))
        return codec.encode(Frame(body, signature))


def run(n: int, seed: int, name: str) -> Run:
    scene = Run(n, seed, name)
    for _ in range(25):
        scene.step()
    scene.finish()
    return scene


CASES = [
    (n, name, first)
    for n, count in ((4, 16), (7, 8))
    for name in ("lossy", "silent", "equivocate", "crash", "partition")
    for first in range(0, count, 4)
]


@pytest.mark.row("F11", "F12", "F13", "F18")
@pytest.mark.parametrize(("n", "name", "first"), CASES)
def test_an_area_stays_safe_under_faults_and_live_after_them(n: int, name: str, first: int) -> None:
    for seed in range(first, first + 4):
        run(n, seed, name)


def test_an_equivocating_leader_is_convicted_by_somebody() -> None:
    convicted = 0
    for seed in range(6):
        scene = run(4, seed, "equivocate")
        convicted += any(replica is not None and replica.evidence for replica in scene.world.replicas)
    assert convicted


@pytest.mark.parametrize(("n", "crashes"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (7, 2), (10, 3)])
@pytest.mark.row("B7", "F12")
def test_an_area_of_any_size_survives_the_crashes_its_status_claims_and_no_more(n: int, crashes: int) -> None:
    world = World(n, 1, **SETTINGS)
    status = world.replicas[0].status()  # type: ignore[union-attr]
    assert status["n"] == n and status["crashes_survived"] == n - world.replicas[0]._desk.q  # type: ignore[union-attr]
    assert n - world.replicas[0]._desk.q >= crashes  # type: ignore[union-attr]
    survived = n - world.replicas[0]._desk.q  # type: ignore[union-attr]
    for index in range(survived):
        world.crash(n - 1 - index)
    world.submit(make_tx(USERS[0], world.network, 1), 0)
    assert world.run(20_000, lambda: world.total(0) == 1)
    if n == survived + 1:
        return
    world.crash(n - 1 - survived)
    world.submit(make_tx(USERS[0], world.network, 2), 0)
    assert not world.run(20_000, lambda: world.total(0) == 2)


@pytest.mark.row("B11")
def test_the_chain_goes_on_in_one_area_while_another_has_no_quorum() -> None:
    one, other = World(4, 1, **SETTINGS), World(4, 2, **SETTINGS)
    for index in (2, 3):
        other.crash(index)
    for world in (one, other):
        world.submit(make_tx(USERS[0], world.network, 1), 0)
        world.run(5000)
    assert one.height(0) == 1 and other.height(0) == 0


def test_a_dead_leader_costs_one_patience_and_no_transaction() -> None:
    world = World(4, 3, timeout_ms=1000)
    world.crash(1)  # leader of height 1
    for nonce in range(1, 21):
        world.submit(make_tx(USERS[0], world.network, nonce), 0)
    start_ms = world.now_ms
    assert world.run(10_000, lambda: all(world.total(index) == 20 for index in (0, 2, 3)))
    assert world.now_ms - start_ms <= 1000 + 400


def test_a_new_node_with_an_empty_disk_follows_a_long_chain() -> None:
    world = World(4, 4, **SETTINGS)
    world.crash(3)
    for nonce in range(1, 141):
        world.submit(make_tx(USERS[0], world.network, nonce), 0)
        world.run(700, lambda wanted=nonce: world.total(0) == wanted)  # type: ignore[misc]
    assert world.height(0) > 64  # more than one answer holds
    world.start(3)
    assert world.run(20_000, lambda: world.height(3) == world.height(0))


@pytest.mark.row("F13")
def test_with_real_signatures_four_stations_make_blocks_that_anybody_can_check() -> None:
    world = World(4, 6, real=True, **SETTINGS)
    user = real_keys(1, offset=100)[0]
    for nonce in range(1, 6):
        assert world.submit(make_tx(user, world.network, nonce), nonce % 4) == ""
        assert world.run(10_000, lambda wanted=nonce: all(world.total(i) == wanted for i in range(4)))  # type: ignore[misc]
    client = LightClient(world.genesis, world.network)
    for certified in world.disks[0].blocks:
        parts, block, header, _ = blocks.decode_certified(certified)
        assert client.check_header(1, block.header, parts.certificate) == header


def test_an_idle_area_only_says_where_it_is() -> None:
    world = World(4, 5, status_ms=2000)
    kinds: set[str] = set()
    frames = 0

    def look(sender: int, receiver: int, frame: bytes) -> bytes:
        nonlocal frames
        frames += 1
        kinds.add(codec.decode(codec.decode(frame, list[bytes])[0], list)[0])
        return frame

    world.tamper = look
    world.run(60_000)
    assert kinds == {"status"} and frames <= 4 * 3 * 31 + 4 * 3  # and one answer each to those who have just started
    assert {replica.status()["view"] for replica in world.replicas if replica} == {0}


def test_the_same_seed_gives_the_same_run() -> None:
    assert run(4, 11, "crash").world.chain == run(4, 11, "crash").world.chain
