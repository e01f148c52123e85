"""What arrives from households by MQTT: transactions and questions.

Every station of the area receives every transaction of the area, so one dead station delays no household. A message
is judged in this order: topic, size, form, signature (in the verification threads), pool; whatever ends the way is
counted, and where the household can do something about it, it is told.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from watt_chain.codec import DecodeError
from watt_chain.question import QUESTION_BYTES_MAX
from watt_chain.transaction import decode_transaction
from watt_node.bucket import Bucket
from watt_node.log import Log
from watt_wire import topics
from watt_wire.errors import DecodeError as TopicError

from watt_station.replies import Replies, remember

TX_BYTES_MAX = 64 * 1024
"""A household's transaction; the largest, a sealed bid over a day of slots, has under 2 KiB."""
IN_WORK_MAX = 1024
"""Transactions between arrival and answer; a station handles them in about a second."""
GATEWAY_IN_WORK_MAX = 128
"""Of these, one gateway's: after two days without uplink it sends more, in the order of its nonces, and again."""
QUESTIONS_PER_S = 10
QUESTIONS_AT_ONCE = 128
"""Of one gateway. A look takes one to three; finding one's pairs among 2,048 of an event takes 64, once."""
GATEWAYS_MAX = 10_000
"""Gateways whose questions are counted: an area has some hundreds; the one that began first is forgotten first."""
SILENT = ("duplicate", "busy", "starting", "stopping", "pool-full", "signer-full")
"""Not the household's fault and over by itself: it sends again anyway, an answer would only add to the load."""

Answer = Callable[[str, bytes], None]


class Submits(Protocol):
    """What the intake needs of the node."""

    async def submit(self, tx: bytes, shared: bool = False) -> str:
        """Verify and pool a transaction: "" or the reason. Shared: every station hears it by itself."""


class Intake:
    """Takes messages off the broker's hands; `handle` returns at once."""

    def __init__(
        self,
        node: Submits,
        area: str,
        index: int,
        replies: Replies,
        log: Log,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._area = area
        self._index = index
        self._replies = replies
        self._log = log
        self._now_s = now_s
        self._in_work: set[asyncio.Task[None]] = set()
        self._gateways: dict[str, int] = {}
        "Messages in work by gateway: a flood of one must not turn away the others."
        self._budgets: dict[str, Bucket] = {}
        "What each gateway may still ask."
        self.counters: dict[str, int] = {}

    def filters(self) -> list[str]:
        """Topics to subscribe to."""
        return [topics.area_tx_filter(self._area), topics.area_query_filter(self._area, self._index)]

    def handle(self, topic: str, payload: bytes) -> None:
        """One message; runs on the event loop."""
        try:
            if "/tx/" in topic:
                area, gateway = topics.parse_area_tx(topic)
                wanted, limit = area == self._area, TX_BYTES_MAX
                answer: Answer = self._transaction
            else:
                area, node, gateway = topics.parse_area_query(topic)
                wanted, limit = (area, node) == (self._area, self._index), QUESTION_BYTES_MAX
                answer = self._query
        except TopicError:
            self._count("topic")
            return
        if not wanted:
            self._count("topic")
        elif len(payload) > limit:
            self._count("size")
        elif len(self._in_work) >= IN_WORK_MAX or self._gateways.get(gateway, 0) >= GATEWAY_IN_WORK_MAX:
            self._count("busy")
        else:
            answer(gateway, payload)

    async def stop(self) -> None:
        """Drop what is in work: nothing of it was answered."""
        for task in list(self._in_work):
            task.cancel()
        await asyncio.gather(*self._in_work, return_exceptions=True)

    def _transaction(self, gateway: str, tx: bytes) -> None:
        self._gateways[gateway] = self._gateways.get(gateway, 0) + 1
        self._spawn(self._submit_counted(gateway, tx))

    async def _submit_counted(self, gateway: str, tx: bytes) -> None:
        try:
            await self._submit(gateway, tx)
        finally:
            self._gateways[gateway] -= 1
            if not self._gateways[gateway]:
                del self._gateways[gateway]

    async def _submit(self, gateway: str, tx: bytes) -> None:
        try:
            decoded = decode_transaction(tx)
        except DecodeError:
            self._count("undecodable")
            return
        reason = await self._node.submit(tx, shared=True)
        self._count(reason or "taken")
        # Only now is the signature known to be good: somebody else's forgery must not turn a receipt away from here.
        if reason in ("", "duplicate"):
            self._replies.expect(decoded.txid, decoded.signer_id, gateway, first=reason == "")
        elif reason == "final":
            self._replies.receipt(decoded.txid, gateway)
        elif reason not in SILENT:
            self._replies.refused(decoded.txid, reason, gateway)

    def _query(self, gateway: str, payload: bytes) -> None:
        now_s = self._now_s()
        if gateway not in self._budgets:
            remember(self._budgets, gateway, Bucket(QUESTIONS_PER_S, QUESTIONS_AT_ONCE, now_s), GATEWAYS_MAX)
        if not self._budgets[gateway].admits(now_s):
            self._count("query-budget")  # before anything is verified; the gateway asks another station, or later
            return
        self._count(self._replies.query(payload, gateway) or "query")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._in_work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a fault of ours: the loop's handler stops the daemon

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1
