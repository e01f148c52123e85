"""A virtual clock and network for the actors: real code, real bytes, and every node with a processor of its own.

A handler runs for real, and the CPU time of this thread that it took is charged to its node: what it sends leaves
when the charge is over, and what arrives meanwhile waits. A signature check of bytes that were checked before in this
process is looked up instead, and charged what a check costs (`Signatures`); so a sweep fits in minutes, and the
figures are those of machines that do not share a processor. `wattpact paper run` compares the charge on a sample with
a run in which every check is done (stage `charge`).

Not in it: disks (no sync is charged), bandwidth, TLS, the verification threads of a station (each node has one core).
"""

from __future__ import annotations

import heapq
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from watt_chain import crypto

from watt_tools.paper.actors import Actor

FRAME_OVERHEAD: Final = 5
"""Bytes of a frame on a connection besides its payload (watt_node.channel: length and kind)."""
JITTER_PPM: Final = 100_000
"""A message takes between 0.9 and 1.1 of the nominal delay."""
OVERDUE_US: Final = 1000
"""Who has something overdue looks again this much later: a timer that changes nothing must not stop the clock."""
UNIT_SAMPLES: Final = 201
"""Measured checks over which the charge of a looked-up one is the median."""


class Signatures:
    """P-256 checks: each distinct one once for real, then by its measured cost."""

    def __init__(self, *, every: bool = False) -> None:
        """`every`: look nothing up (to check that the charge is right)."""
        self._every = every
        self._known: dict[tuple[bytes, bytes, bytes], bool] = {}
        self._costs_ns: deque[int] = deque(maxlen=UNIT_SAMPLES)
        self._unit_ns = 0
        self._owed_ns = 0
        self.checks = 0
        self.looked_up = 0

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """As crypto.verify."""
        self.checks += 1
        name = (public, message, signature)
        found = None if self._every else self._known.get(name)
        if found is None:
            started = time.thread_time_ns()
            found = crypto.verify(public, message, signature)
            self._costs_ns.append(time.thread_time_ns() - started)
            if len(self._costs_ns) % 16 == 1:
                self._unit_ns = int(statistics.median(self._costs_ns))
            self._known[name] = found
        else:
            self.looked_up += 1
            self._owed_ns += self._unit_ns
        return found

    def take_owed_ns(self) -> int:
        """Cost of what was looked up since the last call."""
        owed, self._owed_ns = self._owed_ns, 0
        return owed

    def forget(self) -> None:
        """Between repetitions: no signature is met again."""
        self._known.clear()


Spoil = Callable[[int, int, bytes], Sequence[tuple[int, int, bytes]]]
"""A liar's hand: (to, kind, payload) -> what leaves instead."""


class Machine:
    """An actor, its queue and its processor."""

    __slots__ = ("actor", "cpu_ns", "down", "due_us", "free_us", "queue", "spoil", "working")

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.queue: deque[tuple[int, int, bytes]] = deque()
        self.free_us = 0
        self.cpu_ns = 0
        self.working = False
        self.due_us: int | None = None
        self.down = False
        self.spoil: Spoil | None = None


class World:
    """Actors, the time in microseconds, and what is under way."""

    def __init__(self, actors: Sequence[Actor], delay_us: int, signatures: Signatures, seed: str) -> None:
        self.machines = {actor.address: Machine(actor) for actor in actors}
        self.now_us = 0
        self.messages = 0
        self.bytes = 0
        self.on_step: Callable[[int, int, str, int], None] = lambda address, number, step, at_us: None
        self._delay_us = delay_us
        self._signatures = signatures
        self._chance = random.Random(seed)
        self._heap: list[tuple[int, int, int, int, int, bytes | None]] = []
        "(time, order, address, sender, kind, payload); no payload: the address works or looks at its timer."
        self._order = 0
        self._flying = 0
        "Messages not yet handled: when 0, only timers can make anything happen."
        self._last_us: dict[tuple[int, int], int] = {}
        "(sender, receiver) -> last arrival: a connection keeps its order."

    # Doing ------------------------------------------------------------------------------------------------

    def call(self, address: int, what: Callable[[Actor, int], None]) -> None:
        """Let an actor do something now, on its processor."""
        machine = self.machines[address]
        if machine.down:
            return
        start_us = max(self.now_us, machine.free_us)
        self._charged(machine, start_us, lambda: what(machine.actor, start_us // 1000))

    def run(self, until_us: int, done: Callable[[], bool]) -> bool:
        """Let time pass until `done`, or until the given time. Looks at `done` after every handler."""
        heap = self._heap
        while not done():
            if not heap or heap[0][0] > until_us:
                self.now_us = until_us
                return False
            self._next()
        return True

    def calm(self, until_us: int) -> None:
        """Let everything that is under way arrive and be dealt with."""
        self.run(until_us, lambda: self._flying == 0)

    def _next(self) -> None:
        at_us, _, address, sender, kind, payload = heapq.heappop(self._heap)
        self.now_us = max(self.now_us, at_us)
        machine = self.machines[address]
        if payload is not None:
            if machine.down:
                self._flying -= 1
                return
            machine.queue.append((sender, kind, payload))
            if not machine.working:
                machine.working = True
                self._push(max(at_us, machine.free_us), address)
        elif kind:
            self._work(machine)
        else:
            self._timer(machine, at_us)

    def _work(self, machine: Machine) -> None:
        """Handle the oldest message."""
        if machine.down:
            self._flying -= len(machine.queue)
            machine.queue.clear()
            machine.working = False
            return
        sender, kind, payload = machine.queue.popleft()
        start_us = max(self.now_us, machine.free_us)
        actor = machine.actor
        self._charged(machine, start_us, lambda: actor.receive(sender, kind, payload, start_us // 1000))
        self._flying -= 1
        machine.working = bool(machine.queue)
        if machine.working:
            self._push(machine.free_us, machine.actor.address)

    def _timer(self, machine: Machine, at_us: int) -> None:
        if machine.down or machine.due_us != at_us:
            return
        machine.due_us = None
        start_us = max(self.now_us, machine.free_us)
        self._charged(machine, start_us, lambda: machine.actor.expire(start_us // 1000))

    def _charged(self, machine: Machine, start_us: int, handler: Callable[[], None]) -> None:
        """Run a handler, charge its processor, let what it sends leave at the end."""
        actor = machine.actor
        started = time.thread_time_ns()
        handler()
        due_ms = actor.deadline_ms()
        cost_ns = time.thread_time_ns() - started + self._signatures.take_owed_ns()
        machine.cpu_ns += cost_ns
        end_us = start_us + max(1, cost_ns // 1000)
        machine.free_us = end_us
        sent, actor.sent = actor.sent, []
        actor.records.clear()
        actor.blocks.clear()
        for to, kind, payload in sent:
            for message in machine.spoil(to, kind, payload) if machine.spoil is not None else ((to, kind, payload),):
                self._post(actor.address, *message, end_us)
        steps, actor.steps = actor.steps, []
        for number, step in steps:
            self.on_step(actor.address, number, step, end_us)
        due_us = None if due_ms is None else due_ms * 1000
        if due_us is not None and due_us < end_us:
            due_us = end_us if due_us > start_us else end_us + OVERDUE_US
        if due_us is not None and due_us != machine.due_us:
            self._push(due_us, actor.address, timer=True)
        machine.due_us = due_us

    def _post(self, sender: int, to: int, kind: int, payload: bytes, at_us: int) -> None:
        delay_us = self._delay_us
        if delay_us:
            delay_us = delay_us + delay_us * self._chance.randint(-JITTER_PPM, JITTER_PPM) // 1_000_000
        link = sender, to
        arrival_us = max(at_us + delay_us, self._last_us.get(link, 0))
        self._last_us[link] = arrival_us
        self.messages += 1
        self.bytes += len(payload) + FRAME_OVERHEAD
        self._flying += 1
        self._order += 1
        heapq.heappush(self._heap, (arrival_us, self._order, to, sender, kind, payload))

    def _push(self, at_us: int, address: int, *, timer: bool = False) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at_us, self._order, address, 0, 0 if timer else 1, None))
