"""The way of a signed transaction to an area: two stations at once, one transaction after the other.

Two, because one station alone could take a transaction and forget it; in order, because a key's transactions run by
nonce. Every stage of an event waits for its answer anyway, so nothing is gained by sending in parallel.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from watt_master.desk import Outgoing

TAKEN = ("", "duplicate", "final")
"Answers of a station that has the transaction."
UNREACHABLE = "unreachable"


class Door(Protocol):
    """One way into a chain (watt_node.remote.Remote, or the own node for the main chain)."""

    def submit(self, tx: bytes) -> Awaitable[str]:
        """ "" when a validator took it, else its reason, "unreachable" when none answered."""


def verdict(answers: Sequence[str]) -> str:
    """One answer from several: taken when any station took it, else the first that says why not."""
    if any(answer in TAKEN for answer in answers):
        return ""
    spoken = [answer for answer in answers if answer != UNREACHABLE]
    return spoken[0] if spoken else UNREACHABLE


class Link:
    """The queue to one chain and the task that empties it."""

    def __init__(self, doors: Sequence[Door], on_refused: Callable[[Outgoing, str], None]) -> None:
        self._doors = list(doors)
        self._on_refused = on_refused
        self._waiting: asyncio.Queue[Outgoing] = asyncio.Queue()
        self._names: set[bytes] = set()
        self.sent = 0

    def put(self, outgoing: Outgoing) -> None:
        """Queue a transaction, unless the same bytes wait already. The senders bound how many there are."""
        if outgoing.txid not in self._names:
            self._names.add(outgoing.txid)
            self._waiting.put_nowait(outgoing)

    async def run(self) -> None:
        """Submit what is queued, for ever."""
        while True:
            outgoing = await self._waiting.get()
            answers = await asyncio.gather(*(door.submit(outgoing.tx) for door in self._doors))
            self._names.discard(outgoing.txid)
            self.sent += 1
            reason = verdict(answers)
            if reason:
                self._on_refused(outgoing, reason)
