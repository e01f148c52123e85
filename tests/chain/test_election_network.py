"""Whole networks of replicas that run the area's contract over several terms and elect their leaders by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chain_world import FalseKey, World, make_genesis
from watt_chain import codec, crypto, election
from watt_chain.contract import AreaContract, tickets
from watt_chain.contract.objects import ELECTION_KEY
from watt_chain.contract.rules import RULES_1
from watt_chain.election import Election
from watt_chain.genesis import network_of
from watt_chain.ledger import BlockContext, Contract
from watt_market.engine import Market


class ElectingWorld(World):
    """Every node does its duties after each of its blocks, as the daemons do; the grid keeps the chain busy."""

    def __init__(self, n: int, seed: int, **settings: int) -> None:
        self.orders: dict[int, tuple[int, ...]] = {}
        "Height -> order, the same at every node that ever stood before that height."
        self.idle: list[int] = []
        "Nodes that neither enter nor commit."
        self.grid_key = FalseKey("office-grid")
        super().__init__(n, seed, **settings)
        self.sent: dict[tuple[int, str, int], None] = {}

    def contract(self) -> Contract:
        return AreaContract(Market())

    def start(self, index: int) -> None:
        if not self.orders:
            offices = [FalseKey(f"office-{name}").public for name in ("regulator", "aggregator")]
            genesis = make_genesis([key.public for key in self.keys])
            self.genesis = type(genesis)(
                genesis.name, genesis.protocol_start_s, offices[0], self.grid_key.public, offices[1],
                genesis.main, genesis.areas, [codec.encode(RULES_1)], 1, 1000,
            )  # fmt: skip
            self.network = network_of(self.genesis)
        super().start(index)

    def carry_out(self, index: int) -> None:
        before = len(self.disks[index].blocks)
        super().carry_out(index)
        ledger = self.ledgers[index]
        if ledger is None:
            return
        height = ledger.head.height + 1
        order = tuple(ledger.schedule.leader(height, view) for view in range(self.n))
        assert self.orders.setdefault(height, order) == order, f"two opinions about height {height}"
        if len(self.disks[index].blocks) > before:
            self.do_duties(index)

    def do_duties(self, index: int) -> None:
        ledger = self.ledgers[index]
        assert ledger is not None
        key = self.keys[index]
        context = BlockContext(self.network, 1, ledger.head.height + 1, 0, 0, ledger.validators)
        due = tickets.duties(ledger.state, context, key.public)
        calls: list[tuple[str, int, list[object]]] = []
        if due.ticket is not None and index not in self.idle:
            term, puzzle, bits = due.ticket
            nonce = election.search(puzzle, bits, 0, 1 << 22)
            calls.append(("Ticket", term, [term, nonce]))
        if due.commit is not None and index not in self.idle:
            share = self.share(index, due.commit)
            made = election.commitment_of(self.network, 1, due.commit, crypto.id8(key.public), share)
            calls.append(("SeedCommit", due.commit, [due.commit, made]))
        if due.reveal is not None:
            calls.append(("SeedReveal", due.reveal[0], [due.reveal[0], self.share(index, due.reveal[0])]))
        nonce = ledger.next_nonce(key.public)
        for kind, term, fields in calls:
            if (index, kind, term) not in self.sent:
                self.sent[index, kind, term] = None
                self.submit(self.call_of(key, kind, nonce, fields), index)
                nonce += 1

    def share(self, index: int, term: int) -> bytes:
        """From the key, so that it is known again after a restart."""
        return crypto.sha256(self.keys[index].sign(b"share %d" % term))

    def call_of(self, key: object, kind: str, nonce: int, fields: list[object]) -> bytes:
        payload = codec.encode([kind, 1, nonce, fields])
        assert isinstance(key, FalseKey)
        return codec.encode([payload, key.public, key.sign(codec.signing_bytes(b"tx", self.network, payload))])

    def grow(self, height: int) -> None:
        """Until every running node has this height."""
        while True:
            up = [at for at in range(self.n) if self.ledgers[at] is not None]
            lowest = min(self.height(at) for at in up)
            if lowest >= height:
                return
            nonce = max(ledger.next_nonce(self.grid_key.public) for at in up if (ledger := self.ledgers[at]))
            for at in up:
                self.submit(self.call_of(self.grid_key, "Nothing", nonce, []), at)
            assert self.run(60_000, self.above(lowest)), f"stuck at {lowest}"

    def above(self, height: int) -> Callable[[], bool]:
        return lambda: all(self.height(at) > height for at in range(self.n) if self.ledgers[at] is not None)

    def election(self, index: int) -> Election:
        ledger = self.ledgers[index]
        assert ledger is not None
        return codec.decode(ledger.state.get(ELECTION_KEY) or b"", Election)


@pytest.mark.row("F1", "F7", "F11", "F18")
@pytest.mark.parametrize("seed", range(2))
def test_a_network_elects_its_leaders_term_after_term_through_a_restart(seed: int) -> None:
    """F7: "determine the bookkeeping node in each station area"
    F18: "Nodes of the same station area reach a consensus on the data"
    """
    world = ElectingWorld(4, seed, batch_ms=5, timeout_ms=400)
    world.grow(150)
    assert [one.validator for one in world.election(0).eligible] == [crypto.id8(key.public) for key in world.keys]
    world.crash(2)
    world.grow(160)
    world.start(2)
    world.grow(230)
    assert len({codec.encode(world.election(at)) for at in range(4)}) == 1
    drawn = {height: order for height, order in world.orders.items() if 129 <= height <= 230}
    assert {order[0] for order in drawn.values()} == {0, 1, 2, 3}
    assert any(order != election.rotation(height, 4) for height, order in drawn.items())
    assert world.election(0).term == 3 and not world.election(0).demoted, "the share was shown after the restart"


def test_a_dead_validator_is_skipped_once_and_then_stands_behind() -> None:
    """It costs one patience in a term, and with the next term it has no ticket."""
    world = ElectingWorld(4, 1, batch_ms=5, timeout_ms=400)
    world.grow(140)
    world.crash(3)
    started_ms = world.now_ms
    world.grow(256)
    patience_ms = world.now_ms - started_ms
    assert [one.validator for one in world.election(0).demoted] == [crypto.id8(world.keys[3].public)], "no share shown"
    first = [height for height in range(142, 257) if world.orders[height][0] == 3]
    assert len(first) <= 1
    assert patience_ms < 116 * 100 + 3 * 400
