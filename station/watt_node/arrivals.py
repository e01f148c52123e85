"""Transactions on their way into the pool: form, cheap reasons, signatures in chunks, then the replica in one step.

Every way in ends here: one transaction that waits for its answer (`take`), a run of them from one connection
(`take_all`), a gossip frame of a peer (`take_gossip`). What arrives in the same turn of the event loop shares a job
of the threads and a step of the replica. Each source has a bound of its own: a connection is read on only when
its chunk has room (peers.py), a peer has at most GOSSIP_OPEN_MAX frames in work, all together VerifyPool's queue.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from watt_chain.codec import DecodeError
from watt_chain.ledger import Ledger
from watt_chain.pbft.messages import open_gossip
from watt_chain.transaction import DecodedTransaction, decode_transaction, is_signed

from watt_node.verify import CHUNK, Busy, VerifyPool

GOSSIP_OPEN_MAX = 4
"""Gossip frames of one peer in work: two seconds of its traffic at full load. More are dropped and counted: what still
waits is repeated after a second anyway, and a flood costs its sender's share only."""

KNOWN = ("duplicate", "final", "nonce-used", "nonce-taken")
"""What is usual for a gossiped transaction and nobody's fault."""


_Waiting = tuple[DecodedTransaction, bool, "asyncio.Future[str]"]


class Door(Protocol):
    """The replica, as far as transactions on their way need it."""

    def hand_in(self, txs: Sequence[DecodedTransaction], shared: bool) -> list[str]:
        """Transactions whose signature was checked or may wait for attestations: "" or the reason, one each."""

    def may_wait(self, digest: bytes) -> bool:
        """Whether other validators check this signature for us (CONSENSUS.md 4.9)."""

    def bad_signature(self, tx: DecodedTransaction) -> None:
        """The signature does not hold; a validator may have said that it does."""

    def blame(self, sender: int, faults: int) -> None:
        """A validator gossiped so many transactions that it must have seen are wrong."""


class Arrivals:
    """The way into the pool of one node; lives in its event loop."""

    def __init__(self, ledger: Ledger, threads: VerifyPool, door: Door, count: Callable[[str], str]) -> None:
        """`count(reason)` notes a refusal and returns it."""
        self._ledger = ledger
        self._threads = threads
        self._hand_in = door.hand_in
        self._may_wait = door.may_wait
        self._on_bad = door.bad_signature
        self._blame = door.blame
        self._count = count
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._gossip_open: dict[int, int] = {}

    async def stop(self) -> None:
        """Drop what is in work: nothing of it was answered."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, tx: bytes, shared: bool) -> str:
        """One transaction: "" or the reason. See `watt_node.node.Node.submit`."""
        try:
            decoded = decode_transaction(tx)
        except DecodeError:
            return self._count("undecodable")
        reason = self.objection(decoded)
        if reason:
            return self._count(reason)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._start_waiting)
        self._waiting.append((decoded, shared, future))
        return self._count_if(await future)

    async def take_all(self, txs: Sequence[bytes], shared: bool, known: Sequence[str] = ()) -> int:
        """A run of transactions of which nobody waits for an answer; how many were their sender's fault.

        Returns when they are in the pool or counted. Reasons in `known` are not: a peer cannot know what we have.
        """
        faults = 0
        found: list[DecodedTransaction] = []
        for tx in txs:
            try:
                decoded = decode_transaction(tx)
            except DecodeError:
                self._count("undecodable")
                faults += 1
                continue
            reason = self.objection(decoded)
            if not reason:
                found.append(decoded)
            elif reason not in known:
                self._count(reason)
        for reason in await self._admit(found, shared):
            if reason and reason not in known:
                self._count(reason)
                faults += reason == "signature"
        return faults

    def take_gossip(self, sender: int, frame: bytes) -> None:
        """A gossip frame of a peer; opened and verified in the threads."""
        if self._gossip_open.get(sender, 0) >= GOSSIP_OPEN_MAX:
            self._count("gossip-busy")
            return
        self._gossip_open[sender] = self._gossip_open.get(sender, 0) + 1
        self._spawn(self._gossip(sender, frame))

    def objection(self, tx: DecodedTransaction) -> str:
        """Reasons that need no signature check."""
        ledger = self._ledger
        if tx.chain != ledger.chain:
            return "chain"
        if ledger.find_receipt(tx.txid) is not None:
            return "final"
        next_nonce = ledger.next_nonce(tx.signer)
        if next_nonce < 0:
            return "signer-unknown"
        return "nonce-used" if tx.nonce < next_nonce else ""

    # --- inside

    def _start_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for shared in (True, False):
            chosen = [one for one in waiting if one[1] == shared]
            if chosen:
                self._spawn(self._answer(chosen, shared))

    async def _answer(self, chosen: list[_Waiting], shared: bool) -> None:
        try:
            reasons = await self._admit([tx for tx, _, _ in chosen], shared)
        except BaseException as error:  # whoever waits must hear of it, also when we are stopped
            for _, _, future in chosen:
                if not future.done():
                    future.cancel() if isinstance(error, asyncio.CancelledError) else future.set_exception(error)
            raise
        for (tx, _, future), reason in zip(chosen, reasons, strict=True):
            if not future.done():  # blocks became final in the meantime: "final" says more than "nonce-used"
                future.set_result(self.objection(tx) or reason if reason == "nonce-used" else reason)

    async def _admit(self, txs: list[DecodedTransaction], shared: bool) -> list[str]:
        """Verify in the threads what is not known to be signed, then hand in; one reason each, not yet counted."""
        parts = [txs[at : at + CHUNK] for at in range(0, len(txs), CHUNK)]
        if len(parts) == 1:
            return await self._admit_part(parts[0], shared)
        done = await asyncio.gather(*(self._admit_part(part, shared) for part in parts))
        return [reason for part in done for reason in part]

    async def _admit_part(self, txs: list[DecodedTransaction], shared: bool) -> list[str]:
        verified, network = self._ledger.verified, self._ledger.network
        unknown = [tx for tx in txs if tx.digest not in verified and not (shared and self._may_wait(tx.digest))]
        bad: dict[bytes, str] = {}
        if unknown:
            try:
                good = await self._threads.run(lambda: [is_signed(tx, network) for tx in unknown], len(unknown))
            except Busy:
                bad = {tx.digest: "busy" for tx in unknown}
            else:
                for tx, signed in zip(unknown, good, strict=True):
                    if signed:
                        verified.add(tx.digest)
                    else:
                        bad[tx.digest] = "signature"
                        self._on_bad(tx)
        reasons = iter(self._hand_in([tx for tx in txs if tx.digest not in bad], shared) if len(bad) < len(txs) else ())
        return [bad.get(tx.digest) or next(reasons) for tx in txs]

    async def _gossip(self, sender: int, frame: bytes) -> None:
        try:
            chain = self._ledger.chain
            try:
                transactions = await self._threads.run(lambda: open_gossip(frame, chain))
            except Busy:
                self._count("gossip-busy")
                return
            except DecodeError as error:
                self._count(str(error))
                self._blame(sender, 1)
                return
            faults = await self.take_all(transactions, shared=True, known=KNOWN)
            if faults:
                self._blame(sender, faults)
        finally:
            self._gossip_open[sender] -= 1

    def _count_if(self, reason: str) -> str:
        return self._count(reason) if reason else ""

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a fault of ours: the loop's handler stops the daemon
