"""A validator's part in the elections of its chain: tickets, shares of the seed, and evidence against liars.

What is due is asked of the contract after every block (`tickets.duties`); this module only solves the puzzle, derives
the share and submits. Nothing is stored: the share follows from the key and the term, so a restarted node can show the
share it committed to before.
"""

import asyncio
from collections.abc import Awaitable, Callable

from watt_chain import codec, crypto, election
from watt_chain.contract import evidence, tickets
from watt_chain.contract.kinds import Evidence, SeedCommit, SeedReveal, Ticket
from watt_chain.ledger import Ledger
from watt_chain.pbft.config import Signer
from watt_chain.pbft.outputs import Evidence as Seen

from watt_node.clock import monotonic_ms
from watt_node.log import Log

CHUNK = 2048
"""Hashes tried in one go in the thread, some 2 ms: the loop must get the interpreter in between."""
PAUSE_S = 0.002
"""Rest after each: at most half a core goes into a puzzle, and the hardest takes a minute."""
LOOK_EVERY = 256
"""Chunks between two looks whether the ticket is still wanted."""
AGAIN_MS = 30_000
"""What is still due after this long is submitted again: a call may lose its nonce to one of an earlier life."""
SENT_MAX = 256
"""Calls remembered: three a term, and at most 64 proofs."""

Submit = Callable[[str, object], Awaitable[str]]


def share_of(key: Signer, network: bytes, chain: int, term: int) -> bytes:
    """The 32 secret bytes that `key` commits to for a term, the same after every restart (CONSENSUS.md 6.4.5)."""
    return crypto.sha256(key.sign(codec.signing_bytes(b"share", network, codec.encode([chain, term]))))


class Elector:
    """Runs beside a node, woken by its blocks."""

    def __init__(
        self, ledger: Ledger, key: Signer, seen: Callable[[], tuple[Seen, ...]], submit: Submit, log: Log
    ) -> None:
        """`seen()` gives what the replica has against others; `submit(kind, fields)` signs and hands in."""
        self._ledger = ledger
        self._key = key
        self._seen = seen
        self._submit = submit
        self._log = log
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sent: dict[tuple[str | int, ...], int] = {}
        "What was handed in -> when, monotonic ms."
        self.counters = {"tickets": 0, "commitments": 0, "shares": 0, "evidence": 0}

    def use_key(self, key: Signer) -> None:
        """Our account has another key now; shares committed to under the old one are lost (6.4.4)."""
        self._key = key
        self._changed.set()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End; an unsolved puzzle is dropped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def advanced(self) -> None:
        """The ledger has a new block."""
        self._changed.set()

    def status(self) -> dict[str, object]:
        """For status.json."""
        now = tickets.election_of(self._ledger.state)
        if now is None:
            return {}
        found = {"term": now.term, "eligible": len(now.eligible), "struck": len(now.struck)}
        return {**found, "demoted": len(now.demoted), **self.counters}

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            await self._do_due()
            await self._changed.wait()

    async def _do_due(self) -> None:
        due = self._duties()
        if due.commit is not None:
            share = share_of(self._key, self._ledger.network, self._ledger.chain, due.commit)
            await self._hand_in("commitments", SeedCommit(due.commit, self._commitment(due.commit, share)), due.commit)
        if due.reveal is not None:
            term, committed = due.reveal
            share = share_of(self._key, self._ledger.network, self._ledger.chain, term)
            if self._commitment(term, share) == committed:
                await self._hand_in("shares", SeedReveal(term, share), term)
            elif self._first("shares", term):  # committed with another key: nobody can show that share any more
                self._log.warning("share-lost", term=term)
        for found in self._seen():
            await self._accuse(found)
        if due.ticket is not None and self._first("tickets", due.ticket[0]):
            nonce = await self._solve(due.ticket)
            if nonce is not None:
                await self._hand_in("tickets", Ticket(due.ticket[0], nonce), due.ticket[0])

    async def _accuse(self, found: Seen) -> None:
        place = (found.sender, found.height, found.view)
        public = found.public
        if evidence.is_known(self._ledger.state, public, found.height, found.view, found.kind):
            return
        await self._hand_in("evidence", Evidence(public, found.first, found.second), *place, phase=found.kind)

    async def _solve(self, ticket: tuple[int, bytes, int]) -> int | None:
        """A nonce for the puzzle; None when it is not wanted any more."""
        _, puzzle, bits = ticket
        loop = asyncio.get_running_loop()
        chunk = 0
        while True:
            nonce = await loop.run_in_executor(None, election.search, puzzle, bits, chunk * CHUNK, CHUNK)
            if nonce is not None:
                return nonce
            chunk += 1
            if chunk % LOOK_EVERY == 0 and self._duties().ticket != ticket:
                return None
            await asyncio.sleep(PAUSE_S)

    async def _hand_in(self, what: str, fields: object, *place: int, phase: str = "") -> None:
        """Submit once, and again when it is still due much later."""
        if not self._first(what + phase, *place):
            return
        reason = await self._submit(type(fields).__name__, fields)
        if reason in ("", "duplicate"):
            self._sent[(what + phase, *place)] = monotonic_ms()
            self.counters[what] += 1
            while len(self._sent) > SENT_MAX:
                del self._sent[next(iter(self._sent))]
        self._log.debug("election", what=what, place=place, reason=reason or "taken")

    def _first(self, what: str, *place: int) -> bool:
        at_ms = self._sent.get((what, *place))
        return at_ms is None or monotonic_ms() - at_ms > AGAIN_MS

    def _duties(self) -> tickets.Duties:
        ledger = self._ledger
        return tickets.duties(ledger.state, ledger.next_context(), self._key.public)

    def _commitment(self, term: int, share: bytes) -> bytes:
        ledger = self._ledger
        me = tickets.account_of(ledger.state, self._key.public)
        return election.commitment_of(ledger.network, ledger.chain, term, me, share)
