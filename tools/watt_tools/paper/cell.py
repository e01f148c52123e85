"""One cell of the sweep: a network, and repetitions of twenty trades on it.

The time of a trade runs from the moment its client submits it to the moment at which, in the last of the areas it
touches, a quorum of the area's nodes has it final. A repetition's time is the median over its trades.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watt_chain.pbft.messages import kind_of

from watt_tools.paper import clients
from watt_tools.paper.actors import Actor, AreaNode, Kind
from watt_tools.paper.certified import MAIN
from watt_tools.paper.modes import MODES, make_actors, plan_of, settings_of
from watt_tools.paper.network import Network
from watt_tools.paper.relay import Master
from watt_tools.paper.virtual import Signatures, Spoil, World

TRADES: Final = 20
"""Trades of a repetition."""
LIMIT_US: Final = 60_000_000
"""A trade that takes a minute is counted as unfinished."""
WARM_UP: Final = 1
"""Repetitions that are not counted: imports, caches, the price of a signature check. With a fault all are counted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run."""

    mode: str
    s: int
    n: int
    delay_us: int
    load: str = "burst"
    """burst: all trades of a repetition at once; single: one after the other; burst-checked: a burst in which no
    signature check is looked up."""
    fault: str = "none"
    """crash: a cross-node of the buyer's area is down from the start; liar: one of a seller's area works at home and
    keeps its votes and whatever it should carry from all others (`liar_of`)."""
    batch_ms: int = 5
    repetitions: int = 30
    seed: int = 1

    @property
    def name(self) -> str:
        """Unique in a sweep."""
        where = f"{self.mode} s={self.s} n={self.n} {self.delay_us / 1000:g}ms"
        more = [self.load] if self.load != "burst" else []
        more += [self.fault] if self.fault != "none" else []
        more += [f"batch={self.batch_ms}"] if self.batch_ms != 5 else []
        more += [f"seed={self.seed}"] if self.seed != 1 else []
        return " ".join([where, *more])


@dataclass(slots=True)
class Repetition:
    """Twenty trades. Times in microseconds, of finished trades."""

    number: int
    unfinished: int
    split: int
    "Of these, trades that are final in some areas and not in others."
    time_us: int
    "Median over the trades."
    last_us: int
    "From the first submission to the end of the last trade."
    decided_us: int
    "Median time until the seller's area has accepted (certified receipts of two areas); 0 in other modes."
    anchored_us: int
    "Median time until the main chain has recorded the outcome; 0 in modes without."
    nodes_us: int
    "CPU of all nodes, per trade."
    busiest_us: int
    "CPU of the busiest node, per trade."
    messages: int
    "Of all nodes and clients, per trade; so are bytes."
    bytes: int


class Tracker:
    """Which trades are final where."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._chain_of = {
            address: chain
            for chain in (*network.areas, *([MAIN] if network.has_main else []))
            for address in network.addresses(chain)
        }
        self._have: dict[tuple[int, int, str], int] = {}
        "(trade, chain, step) -> nodes that have it final."
        self._areas_left: dict[int, int] = {}
        self.started_us: dict[int, int] = {}
        self.ended_us: dict[int, int] = {}
        self.decided_us: dict[int, int] = {}
        self.anchored_us: dict[int, int] = {}

    def start(self, number: int, now_us: int) -> None:
        """A trade is submitted."""
        self.started_us[number] = now_us
        self._areas_left[number] = len(dict.fromkeys(self._network.trades[number].chains))

    def step(self, address: int, number: int, step: str, at_us: int) -> None:
        """A node has a step of a trade final."""
        chain = self._chain_of[address]
        if step in ("anchored", "accept", "committed"):
            name = number, chain, step
            have = self._have[name] = self._have.get(name, 0) + 1
            if have == self._network.quorum(chain):
                if step == "anchored":
                    self.anchored_us[number] = at_us
                elif step == "accept":
                    self.decided_us[number] = at_us
                else:
                    self._areas_left[number] -= 1
                    if self._areas_left[number] == 0:
                        self.ended_us[number] = at_us

    def times(self, ends_us: dict[int, int], numbers: Sequence[int]) -> list[int]:
        """Microseconds from the start of those of these trades that came to this end."""
        return [ends_us[number] - self.started_us[number] for number in numbers if number in ends_us]

    def is_split(self, number: int) -> bool:
        """Whether a trade is final in some of its areas and not in others."""
        return 0 < self._areas_left[number] < len(dict.fromkeys(self._network.trades[number].chains))

    def is_over(self, numbers: Sequence[int]) -> bool:
        """Whether all of these are final everywhere."""
        ended = self.ended_us
        return all(number in ended for number in numbers)


class Run:
    """A cell being run."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        mode = MODES[cell.mode]
        s = 1 if mode.contract == "local" else cell.s
        self._warm_up = WARM_UP if cell.fault == "none" else 0
        trades = TRADES * (cell.repetitions + self._warm_up)
        self.network = Network(plan_of(mode, s, cell.n, trades, cell.seed))
        self.signatures = Signatures(every=cell.load == "burst-checked")
        settings = settings_of(mode, cell.batch_ms)
        actors = make_actors(mode, self.network, self.signatures.verify, settings)
        self.world = World(actors, cell.delay_us, self.signatures, f"{cell.seed} {cell.name}")
        self.tracker = Tracker(self.network)
        self.world.on_step = self.tracker.step
        self._nodes = [actor.address for actor in actors if not isinstance(actor, clients.Client)]
        if cell.fault == "crash":
            index = self.network.crossers[1][0]
            self.world.machines[self.network.address(1, index)].down = True
        elif cell.fault == "liar":
            index = self.network.crossers[2][0]
            self.world.machines[self.network.address(2, index)].spoil = liar_of(self.network, 2)
        for address in self._nodes:
            self.world.call(address, _start)
        self.world.calm(self.world.now_us + LIMIT_US)

    def repetitions(self) -> list[Repetition]:
        """Run them all; the warm-up is dropped."""
        found: list[Repetition] = []
        gc.collect()
        gc.disable()
        try:
            for number in range(self.cell.repetitions + self._warm_up):
                repetition = self._repeat(number)
                if number >= self._warm_up:
                    found.append(repetition)
                self.signatures.forget()
                gc.collect()
                gc.freeze()  # what is left stays to the end of the cell: the next collection need not look at it
        finally:
            gc.unfreeze()
            gc.enable()
        return found

    def _repeat(self, number: int) -> Repetition:
        world, tracker = self.world, self.tracker
        mine = range(number * TRADES, (number + 1) * TRADES)
        before = {address: world.machines[address].cpu_ns for address in self._nodes}
        messages, sent_bytes = world.messages, world.bytes
        groups = [[one] for one in mine] if self.cell.load == "single" else [list(mine)]
        for group in groups:
            started_us = world.now_us
            for one in group:
                tracker.start(one, started_us)
                world.call(self.network.client(one), _start)
            world.run(started_us + LIMIT_US, lambda group=group: tracker.is_over(group))  # type: ignore[misc]
            world.calm(world.now_us + LIMIT_US)
        times = tracker.times(tracker.ended_us, mine)
        decided, anchored = tracker.times(tracker.decided_us, mine), tracker.times(tracker.anchored_us, mine)
        spent = [world.machines[address].cpu_ns - before[address] for address in self._nodes]
        ended = [tracker.ended_us[one] for one in mine if one in tracker.ended_us]
        return Repetition(
            number=number,
            unfinished=TRADES - len(times),
            split=sum(tracker.is_split(one) for one in mine),
            time_us=int(statistics.median(times)) if times else 0,
            last_us=max(ended) - tracker.started_us[mine[0]] if ended else 0,
            decided_us=int(statistics.median(decided)) if decided else 0,
            anchored_us=int(statistics.median(anchored)) if anchored else 0,
            nodes_us=sum(spent) // 1000 // TRADES,
            busiest_us=max(spent) // 1000 // TRADES,
            messages=(world.messages - messages) // TRADES,
            bytes=(world.bytes - sent_bytes) // TRADES,
        )


def liar_of(network: Network, area: int) -> Spoil:
    """A cross-node that works at home and keeps from everybody else its votes and what it should carry."""
    own = dict.fromkeys(network.addresses(area))
    carried = (Kind.BLOCK, Kind.BUNDLE, Kind.JOINT_BUNDLE, Kind.ANSWER)

    def spoil(to: int, kind: int, payload: bytes) -> Sequence[tuple[int, int, bytes]]:
        votes = kind == Kind.JOINT_FRAME and kind_of(payload) in ("commit", "sync-blocks")
        keeps = to not in own and (votes or kind in carried)
        return () if keeps else ((to, kind, payload),)

    return spoil


def _start(actor: Actor, now_ms: int) -> None:
    assert isinstance(actor, AreaNode | Master | clients.Client)
    actor.start(now_ms)
