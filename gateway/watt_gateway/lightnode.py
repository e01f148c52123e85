"""The household's light node: asks stations and believes only what a certificate and a Merkle path prove.

A question goes to one station node at a time; after QUERY_MS without an answer the next node of the area is asked.
Answers carry a quorum's signatures, so it does not matter who sent them or over which broker they came. What a lying
station can still do is answer with an old state; the caller passes the height it already knows as `min_height`, and
older proofs are refused. Questions are signed by the household's key, and a station shows each only its own: what it
leaves out is neither proven nor refuted.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from watt_chain import codec, crypto
from watt_chain.block import Header
from watt_chain.codec import DecodeError
from watt_chain.genesis import Genesis
from watt_chain.light import LightClient, ProofError, ReceiptProof, StateProof
from watt_chain.question import KEYS_MAX, make_question
from watt_wire import topics

QUERY_MS = 1_500
"""A station answers from memory within milliseconds; this covers a busy one behind a slow line."""
ROUNDS_MAX = 2
"""How often all nodes are asked before a question fails; the caller asks again later."""
QUERIES_MAX = 32
"""Questions without an answer at a time; more would be a loop of ours."""
QUIET_FAILURES = ("no-broker", "overtaken", "no-block")
"""Reasons of QueryFailed that need no line: the broker has its own, the others pass by themselves."""
NONCE_SIZE = 8
"""Bytes that name a question."""
REPLY_BYTES_MAX = 256 << 10
"""Bound of one decoded reply (mqtt.MESSAGE_BYTES_MAX)."""
SIGNATURES_REMEMBERED = 8192
"""Checked signatures kept per process: many households share it and see the same certificates (some 4 MB)."""


class QueryFailed(Exception):
    """No station of the area gave a usable answer; `reason` is a short word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Proven:
    """Values that a final block of our area holds. A key that is missing is neither proven nor refuted."""

    values: dict[bytes, bytes]
    height: int
    time_s: int
    "Protocol time of the block."
    proof: bytes
    "The encoded StateProof, for the bill."


@dataclass(frozen=True, slots=True)
class ReceiptMessage:
    """A station says a transaction is final; `proof` is still to be checked against the transaction's bytes."""

    txid: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A station's pool did not take a transaction."""

    txid: bytes
    reason: str


Reply = ReceiptMessage | RefusedMessage | None


def cached_light_client(genesis: Genesis, network: bytes) -> LightClient:
    """A light client that remembers which signatures it has checked: gateways of one process share it."""
    return LightClient(genesis, network, lru_cache(maxsize=SIGNATURES_REMEMBERED)(crypto.verify))


class LightNode:
    """Questions and answers of one household."""

    def __init__(
        self,
        light: LightClient,
        key: crypto.PrivateKey,
        chain: int,
        nodes: int,
        serving: int,
        area: str,
        gateway: str,
        publish: Callable[[str, bytes], bool],
        query_ms: int = QUERY_MS,
    ) -> None:
        self._light = light
        self._key = key
        self._gateway = gateway
        self._chain = chain
        self._nodes = nodes
        self._asked = serving
        self._topics = [topics.area_query(area, node, gateway) for node in range(nodes)]
        self._publish = publish
        self._query_ms = query_ms
        self._waiting: dict[bytes, asyncio.Future[Proven]] = {}
        self.height = 0
        "The highest block proven to us."
        self.time_s = 0
        "Its protocol time."
        self.rejected: dict[str, int] = {}
        "Replies that proved nothing, by reason."

    @property
    def node(self) -> int:
        """Index of the node that is asked at present."""
        return self._asked

    async def state(self, keys: Sequence[bytes], min_height: int = 0) -> Proven:
        """The proven values of `keys` at a height of at least `min_height`; QueryFailed when nobody answers."""
        assert len(keys) <= KEYS_MAX
        if len(self._waiting) >= QUERIES_MAX:
            raise QueryFailed("busy")
        last = "no-answer"
        for _ in range(ROUNDS_MAX * self._nodes):
            # Random, so that the answer to somebody else under our name (the doctor) is not taken for ours.
            number = secrets.token_bytes(NONCE_SIZE)
            answer: asyncio.Future[Proven] = asyncio.get_running_loop().create_future()
            self._waiting[number] = answer
            try:
                question = make_question(self._key, self._light.network, self._chain, self._gateway, number, keys)
                if not self._publish(self._topics[self._asked], question):
                    raise QueryFailed("no-broker")
                proven = await asyncio.wait_for(answer, self._query_ms / 1000)
                if proven.height >= min_height:
                    return proven
                last = "stale"
            except TimeoutError:
                last = "no-answer"
            except QueryFailed as failure:
                if failure.reason == "no-broker":
                    raise
                last = failure.reason
            finally:
                self._waiting.pop(number, None)
            self._asked = (self._asked + 1) % self._nodes
        raise QueryFailed(last)

    def take(self, payload: bytes) -> Reply:
        """Read a reply; answers to our questions are checked and delivered, the rest is for the caller."""
        try:
            parts = msgspec.msgpack.decode(payload) if len(payload) <= REPLY_BYTES_MAX else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            parts = None
        if not isinstance(parts, list) or len(parts) != 3:
            self._reject("reply-form")
            return None
        kind, subject, body = parts
        if kind == "state" and isinstance(subject, bytes) and isinstance(body, bytes):
            self._take_state(subject, body)
            return None
        if kind == "receipt" and isinstance(subject, bytes) and isinstance(body, bytes):
            return ReceiptMessage(subject, body)
        if kind == "refused" and isinstance(subject, bytes) and isinstance(body, str):
            return RefusedMessage(subject, body[:64])
        self._reject("reply-kind")
        return None

    def check_notice(self, payload: bytes) -> Proven | None:
        """The proven content of a notice; None (counted) when it proves nothing."""
        parts: Any = None
        if len(payload) <= REPLY_BYTES_MAX:
            try:
                parts = msgspec.msgpack.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                parts = None
        if not isinstance(parts, list) or len(parts) != 2 or parts[0] != "event" or not isinstance(parts[1], bytes):
            self._reject("notice-form")
            return None
        return self.check_state(parts[1])

    def check_state(self, encoded: bytes) -> Proven | None:
        """The values that a StateProof of our area proves; None (counted) when it proves nothing."""
        try:
            proof = codec.decode(encoded, StateProof)
            values = self._light.check_state(proof, self._chain)
            header = codec.decode(proof.header, Header)
        except (DecodeError, ProofError) as error:
            self._reject(error.reason if isinstance(error, ProofError) else "proof-form")
            return None
        self._saw(header)
        known = {key: value for key, value in values.items() if value is not None}
        return Proven(known, header.height, header.time_s, encoded)

    def check_receipt(self, encoded: bytes, tx: bytes) -> tuple[str, int, int] | None:
        """(code, height, block time) that a ReceiptProof shows for `tx`; None (counted) when it proves nothing."""
        try:
            proof = codec.decode(encoded, ReceiptProof)
            code = self._light.check_receipt(proof, tx)
            header = codec.decode(proof.header, Header)
        except (DecodeError, ProofError) as error:
            self._reject(error.reason if isinstance(error, ProofError) else "proof-form")
            return None
        if header.chain != self._chain:
            self._reject("chain")
            return None
        self._saw(header)
        return code, header.height, header.time_s

    def _take_state(self, number: bytes, encoded: bytes) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return  # a late answer of a node that was given up; not an error
        if not encoded:
            answer.set_exception(QueryFailed("no-block"))  # the area has no block yet: nothing can be proven
            return
        proven = self.check_state(encoded)
        if proven is not None:
            answer.set_result(proven)

    def _saw(self, header: Header) -> None:
        if header.height > self.height:
            self.height, self.time_s = header.height, header.time_s

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
