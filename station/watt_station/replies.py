"""What a station tells the households of its area by MQTT. Every answer is a msgpack array with its name first:

    ["receipt", txid, ReceiptProof bytes]   on the reply topic; by the station that serves the user when the block is
                                            final, by any station when the same transaction is seen again later
    ["refused", txid, reason]               on the reply topic; the transaction cannot be taken as it is
    ["state", nonce, StateProof bytes]      on the reply topic; answer to a signed question (watt_chain.question), with
                                            the keys that the asker may read; empty bytes before the first block
    ["event", StateProof bytes]             on the notice topic; an event's state changed

Nothing in them has to be believed: a light client checks the proofs. "refused" has no proof and decides nothing: a
gateway must not drop a transaction on the ground of it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from watt_chain import codec
from watt_chain.codec import DecodeError
from watt_chain.contract.objects import Account, Signer, account_key, signer_key
from watt_chain.contract.readers import may_read, reader_of
from watt_chain.ledger import AppliedBlock
from watt_chain.question import decode_question, is_signed
from watt_chain.state import StateReader
from watt_node.names import chain_name
from watt_wire import topics

EXPECTED_MAX = 20_000
"""Transactions whose gateway is remembered until they are final: as many as the pool holds."""
GATEWAYS_MAX = 10_000
"""Signers whose gateway is remembered: an area has some hundreds."""
NOTICED_EVENTS = 2
"""The newest events repeated to gateways that come late: the present one and the one before."""

K = TypeVar("K")
V = TypeVar("V")
Publish = Callable[[str, bytes], bool]


class Proofs(Protocol):
    """What replies need of the node."""

    def receipt_proof(self, txid: bytes) -> bytes | None:
        """Encoded ReceiptProof."""

    def state_proof(self, keys: Sequence[bytes]) -> bytes | None:
        """Encoded StateProof."""


class Replies:
    """Makes and publishes the answers."""

    def __init__(
        self,
        node: Proofs,
        state: StateReader,
        network: bytes,
        chain: int,
        index: int,
        publish: Publish,
        numbers: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        """`index` is our number; `numbers()` those of the validators by index, empty: number and index are the same."""
        self._node = node
        self._state = state
        self._network = network
        self._chain = chain
        self._area = chain_name(chain)
        self._index = index
        self._numbers = numbers
        self._publish = publish
        self._expected: dict[bytes, str] = {}
        self._gateways: dict[bytes, str] = {}
        self._events: dict[bytes, bytes] = {}
        self._latest: frozenset[bytes] = frozenset()
        "Transactions of the last final block."
        self.counters = {"receipts": 0, "refused": 0, "answers": 0, "withheld": 0, "notices": 0}

    def expect(self, txid: bytes, signer_id: bytes, gateway: str, *, first: bool = True) -> None:
        """Remember where the receipt of a transaction is wanted; who repeats one (not `first`) moves nothing."""
        if txid in self._latest:  # an area of one node: the block was final before the submission returned
            if self._serving_node(signer_id) == self._index:
                self.receipt(txid, gateway)
            return
        if first or txid not in self._expected:
            remember(self._expected, txid, gateway, EXPECTED_MAX)
        if first or signer_id not in self._gateways:
            remember(self._gateways, signer_id, gateway, GATEWAYS_MAX)

    def receipt(self, txid: bytes, gateway: str) -> None:
        """Publish the receipt of a final transaction, if it is recent enough to prove."""
        proof = self._node.receipt_proof(txid)
        if proof is not None and self._reply(gateway, ["receipt", txid, proof]):
            self.counters["receipts"] += 1

    def refused(self, txid: bytes, reason: str, gateway: str) -> None:
        """Tell why a transaction cannot be taken."""
        if self._reply(gateway, ["refused", txid, reason]):
            self.counters["refused"] += 1

    def query(self, payload: bytes, gateway: str) -> str:
        """Answer a question, with what the asker may read of it; "" or why it gets no answer."""
        try:
            question, body = decode_question(payload)
        except DecodeError:
            return "query-form"
        if body.chain != self._chain or body.gateway != gateway:
            return "query-address"
        reader = reader_of(self._state, question.signer)
        if reader is None:
            return "query-revoked"
        if not is_signed(question, self._network):
            return "query-signature"
        keys = [key for key in body.keys if may_read(self._state, reader, key)]
        self.counters["withheld"] += len(body.keys) - len(keys)
        if self._reply(gateway, ["state", body.nonce, self._node.state_proof(keys) or b""]):
            self.counters["answers"] += 1
        return ""

    def committed(self, applied: AppliedBlock) -> None:
        """A block is final: receipts for the users served here, and a notice when an event moved."""
        self._latest = frozenset(tx.txid for tx in applied.transactions)
        for tx in applied.transactions:
            gateway = self._expected.pop(tx.txid, None) or self._gateways.get(tx.signer_id)
            if gateway is not None and self._serving_node(tx.signer_id) == self._index:
                self.receipt(tx.txid, gateway)
        moved = self._moved_events()
        numbers, proposer = self._numbers(), applied.header.proposer
        if moved and self._index == (numbers[proposer % len(numbers)] if numbers else proposer):
            self._notice(moved)

    def remember_events(self) -> None:
        """Take the present events as known (after a replay)."""
        self._moved_events()

    def repeat_notice(self) -> None:
        """Publish the newest events once more, for gateways that came late."""
        newest = list(self._events)[-NOTICED_EVENTS:]
        if newest:
            self._notice(newest)

    def _moved_events(self) -> list[bytes]:
        moved: list[bytes] = []
        for key in self._state.keys(b"event/"):
            value = self._state.get(key)
            if value is not None and self._events.get(key) != value:
                self._events[key] = value
                moved.append(key)
        return moved

    def _notice(self, keys: list[bytes]) -> None:
        for key in keys:
            proof = self._node.state_proof([key])
            if proof is not None and self._publish(
                topics.area_notice(self._area), msgspec.msgpack.encode(["event", proof])
            ):
                self.counters["notices"] += 1

    def _serving_node(self, signer_id: bytes) -> int | None:
        """Number of the station that serves the user behind a key; None for keys that are no user's.

        Users of a station that has left are served by one of those that are there.
        """
        try:
            raw = self._state.get(signer_key(signer_id))
            if raw is None:
                return None
            raw = self._state.get(account_key(codec.decode(raw, Signer).account))
            account = None if raw is None else codec.decode(raw, Account)
        except DecodeError:
            return None
        if account is None or account.role != "user":
            return None
        numbers = self._numbers()
        return account.node if not numbers or account.node in numbers else numbers[account.node % len(numbers)]

    def _reply(self, gateway: str, answer: list[object]) -> bool:
        return self._publish(topics.area_reply(self._area, gateway), msgspec.msgpack.encode(answer))


def remember(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Insert at the end, drop the oldest beyond `most`."""
    known.pop(key, None)
    known[key] = value
    if len(known) > most:
        del known[next(iter(known))]
