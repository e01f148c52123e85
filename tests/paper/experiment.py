"""Small cells of the real harness for the tests of the paper's experiments; each is run once per session."""

from __future__ import annotations

import statistics
from functools import lru_cache

from watt_chain import codec
from watt_chain.crypto import id8
from watt_chain.pbft.messages import kind_of
from watt_chain.state import FinalState
from watt_tools.paper.actors import AreaNode, Kind
from watt_tools.paper.book import account_key
from watt_tools.paper.cell import Cell, Repetition, Run
from watt_tools.paper.crossnode import JointNode
from watt_tools.paper.objects import Account

FIVE_MS = 5000


@lru_cache
def run(
    mode: str, s: int, n: int, load: str = "burst", repetitions: int = 3, delay_us: int = FIVE_MS
) -> list[Repetition]:
    """Repetitions of a cell."""
    return Run(Cell(mode, s, n, delay_us, load, repetitions=repetitions)).repetitions()


def ms(mode: str, s: int, n: int, load: str = "burst") -> float:
    """Median time of a trade."""
    found = run(mode, s, n, load)
    assert not any(one.unfinished for one in found), "a trade did not end"
    return statistics.median(one.time_us for one in found) / 1000


@lru_cache
def checks(mode: str, s: int, n: int) -> int:
    """Signature checks of all nodes during a repetition and its warm-up."""
    found = Run(Cell(mode, s, n, FIVE_MS, repetitions=1))
    found.repetitions()
    return found.signatures.checks


class Stage:
    """A world of which a test wants to see the inside, with one repetition's trades."""

    def __init__(self, mode: str, s: int, n: int, **more: object) -> None:
        self.run = Run(Cell(mode, s, n, FIVE_MS, repetitions=1, **more))  # type: ignore[arg-type]
        self.world = self.run.world
        self.network = self.run.network
        self.frames: list[tuple[int, int, int, bytes]] = []
        "(sender, receiver, kind, payload) of everything that left."

    def node(self, area: int, index: int) -> AreaNode:
        actor = self.world.machines[self.network.address(area, index)].actor
        assert isinstance(actor, AreaNode)
        return actor

    def nodes(self, area: int) -> list[AreaNode]:
        return [self.node(area, index) for index in range(self.network.plan.n)]

    def watch(self) -> None:
        """Note every frame."""
        for address, machine in self.world.machines.items():
            machine.spoil = lambda to, kind, payload, address=address: self._note(address, to, kind, payload)

    def _note(self, address: int, to: int, kind: int, payload: bytes) -> tuple[tuple[int, int, bytes], ...]:
        self.frames.append((address, to, kind, payload))
        return ((to, kind, payload),)

    def said(self) -> list[tuple[int, int, int, str]]:
        """(sender, receiver, kind, name of a replica's message) of what left, without the idle talk about heights."""
        named = [
            (sender, to, kind, kind_of(payload) if kind in (Kind.FRAME, Kind.JOINT_FRAME) else "")
            for sender, to, kind, payload in self.frames
        ]
        return [one for one in named if one[3] != "status"]

    def start(self, number: int) -> None:
        """Submit a trade."""
        self.run.tracker.start(number, self.world.now_us)
        self.world.call(self.network.client(number), lambda actor, now_ms: actor.start(now_ms))  # type: ignore[attr-defined]

    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.world.run(self.world.now_us + 1000 * ms, lambda: False)

    def over(self, *numbers: int, within_ms: int = 20_000) -> bool:
        """Whether these trades become final in all their areas within the time."""
        until_us = self.world.now_us + 1000 * within_ms
        return self.world.run(until_us, lambda: self.run.tracker.is_over(numbers))

    def account(self, area: int, public: bytes, index: int = 0) -> Account:
        """An account as a node of its area has it."""
        node = self.node(area, index)
        value = node.member.ledger.state.get(account_key(id8(public)))
        assert value is not None
        return codec.decode(value, Account)

    def joint_state(self) -> FinalState:
        """The state of the committee's chain at a cross-node of area 1."""
        node = next(node for node in self.nodes(1) if isinstance(node, JointNode) and node.joint is not None)
        assert isinstance(node, JointNode) and node.joint is not None
        return node.joint.ledger.state

    def totals(self, area: int, index: int = 0) -> tuple[int, int]:
        """(money, quota) of an area's accounts at a node."""
        return sums(self.node(area, index).member.ledger.state)


def sums(state: FinalState) -> tuple[int, int]:
    """(money, quota) of all accounts of a state."""
    found = [codec.decode(state.get(key) or b"", Account) for key in state.keys(b"account/")]
    money_u = sum(one.free_u + one.escrow_u + one.bound_u for one in found)
    return money_u, sum(one.quota_wh + one.held_wh for one in found)


__all__ = ["FIVE_MS", "Kind", "Stage", "checks", "ms", "run", "sums"]
