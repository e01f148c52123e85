"""Carries the messages of another chain into the area: those of the main chain, and those of partner areas.

The other chain's validators serve, per block, all messages for this area with the proof that a quorum made them final.
One stream runs to each of f + 1 validators' worth of starting points, so that a single one that withholds delays
nothing. What arrives is checked, kept until the area's ledger has consumed it, and submitted as an Inbox transaction
under the validator key. All stations of the area do this; they take turns by a delay (whose turn it is is the caller's
business), and whoever finds the cursor moved stays silent.
"""

import asyncio
from collections.abc import Awaitable, Callable

from watt_chain import codec
from watt_chain.block import OutMessage
from watt_chain.codec import DecodeError
from watt_chain.contract.kinds import INBOX_MESSAGES_MAX, Inbox
from watt_chain.contract.objects import KnownList, known_list_key
from watt_chain.light import LightClient, ProofError
from watt_chain.state import StateReader
from watt_node.log import Log
from watt_node.remote import Remote

TURN_S = 1.0
"""How long each station waits longer than the one before it; a block takes a fraction of that."""
RETRY_S = 15.0
"""After a submission whose block did not come the next attempt waits this long."""
Prove = Callable[[Inbox], list[OutMessage]]
"""The messages of a batch, once its certificate and paths hold. Raises ProofError, DecodeError."""
KEPT_MESSAGES = 4096
"""Messages kept at most before the ledger consumes them; more means the area stands still, and masters keep them."""


def prover(state: StateReader, light: LightClient, source: int) -> Prove:
    """Checks batches of `source`: those validators count that this area's own chain names for it, from their height."""

    def prove(inbox: Inbox) -> list[OutMessage]:
        value = state.get(known_list_key(source))
        if value is not None:
            known = codec.decode(value, KnownList)
            light.trust(source, known.from_height, [validator.public for validator in known.validators])
        entries = [(entry.index, entry.message, entry.path) for entry in inbox.entries]
        return light.check_messages(source, inbox.header, inbox.certificate, inbox.size, entries)

    return prove


class InboxRelay:
    """Streams in, transactions out."""

    def __init__(
        self,
        chain: int,
        remotes: list[Remote],
        prove: Prove,
        cursor: Callable[[], int],
        turn_s: Callable[[], float],
        submit: Callable[[Inbox], Awaitable[str]],
        log: Log,
        ripe: Callable[[Inbox], bool] = lambda _: True,
    ) -> None:
        """`cursor()` is the last consumed sequence, `turn_s()` how long to wait for others that are due before us;
        `ripe(batch)` whether the ledger would take it now, asked again after each block."""
        self._chain = chain
        self._remotes = remotes
        self._prove = prove
        self._cursor = cursor
        self._turn_s = turn_s
        self._submit = submit
        self._log = log
        self._ripe = ripe
        self._kept: dict[int, tuple[Inbox, int, int]] = {}
        "Batch by its first sequence: (batch, first, last)."
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.counters = {"batches": 0, "submitted": 0, "wrong": 0, "lagging": 0}

    def start(self) -> None:
        """Begin to stream and to submit."""
        self._tasks = [asyncio.ensure_future(self._collect(remote)) for remote in self._remotes]
        self._tasks.append(asyncio.ensure_future(self._relay()))

    async def stop(self) -> None:
        """End all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def advanced(self) -> None:
        """The ledger has a new block: the cursor may have moved."""
        cursor = self._cursor()
        for first in [first for first, (_, _, last) in self._kept.items() if last <= cursor]:
            del self._kept[first]
        self._changed.set()

    def status(self) -> dict[str, object]:
        """For status.json."""
        return {
            **self.counters,
            "cursor": self._cursor(),
            "waiting": len(self._kept),
            "connected": [remote.connected for remote in self._remotes if remote.connected],
        }

    async def _collect(self, remote: Remote) -> None:
        def check(batch: bytes) -> str:
            try:
                self._take(batch)
            except (DecodeError, ProofError) as error:
                self.counters["wrong"] += 1
                return f"wrong-batch: {error}"
            return ""

        async for _ in remote.messages(self._chain, lambda: self._cursor() + 1, check):
            self._changed.set()

    def _take(self, batch: bytes) -> None:
        """Keep a batch that is proven and still of use. Raises DecodeError, ProofError."""
        inbox = codec.decode(batch, Inbox)
        if self._known(inbox):
            return
        messages = self._prove(inbox)
        sequences = [message.sequence for message in messages]
        if any(message.target_chain != self._chain for message in messages):
            raise ProofError("message-target")
        if not sequences or sequences != list(range(sequences[0], sequences[0] + len(sequences))):
            raise ProofError("message-sequence")
        self.counters["batches"] += 1
        if sequences[-1] > self._cursor() and len(self._kept) < KEPT_MESSAGES:
            self._kept[sequences[0]] = (inbox, sequences[0], sequences[-1])

    def _known(self, inbox: Inbox) -> bool:
        """The other stream has brought the same batch already: its signatures need no second look."""
        return any(inbox == kept for kept, _, _ in self._kept.values())

    async def _relay(self) -> None:
        while True:
            self._changed.clear()
            due = self._next()
            if due is None or not self._ripe(due):
                await self._changed.wait()
                continue
            cursor = self._cursor()
            turn_s = self._turn_s()
            if turn_s and await self._moved(cursor, turn_s):
                continue
            reason = await self._submit(due)
            if reason in ("", "duplicate"):
                self.counters["submitted"] += 1
            self._log.debug("inbox-submitted", cursor=cursor, messages=len(due.entries), reason=reason or "taken")
            if not await self._moved(cursor, RETRY_S):
                self.counters["lagging"] += 1
                self._log.warning(
                    "relay-lags", cursor=cursor, after_s=RETRY_S, action="submitted again; is a quorum of stations up?"
                )

    async def _moved(self, cursor: int, patience_s: float) -> bool:
        """Wait until the cursor leaves `cursor`, at most so long; whether it did."""
        try:
            async with asyncio.timeout(patience_s):
                while self._cursor() == cursor:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _next(self) -> Inbox | None:
        """The part of the kept batch that begins right behind the cursor, at most INBOX_MESSAGES_MAX messages."""
        wanted = self._cursor() + 1
        for inbox, first, last in self._kept.values():
            if first <= wanted <= last:
                entries = inbox.entries[wanted - first :][:INBOX_MESSAGES_MAX]
                return Inbox(inbox.header, inbox.certificate, inbox.size, entries)
        return None
