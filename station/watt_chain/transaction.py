"""Transactions: signed calls of the contract, kept and hashed as the bytes that were sent (CONSENSUS.md 2.4).

    Transaction = [payload bytes, signer 64, signature 64]
    payload     = [kind, chain, nonce, fields]        fields: an array, decoded by the kind's own structure

The transaction id leaves the signature out (who asked for what); the *digest* of a transaction is its leaf
hash in the block and covers every byte. Signature checks are remembered by digest, never by id: two
signatures of one payload share the id, and only one of them may have been checked.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from watt_wire import merkle

from watt_chain import codec, crypto
from watt_chain.codec import U16, U63, Key64, Signature64, Structure

TRANSACTION_SIZE_MAX = 1024 * 1024
"""One transaction: the largest are a whole market solution and an anchor with its messages (some 100 kB)."""
KIND_LENGTH_MAX = 32
FIELDS_DEPTH_MAX = 16
"""Arrays within arrays of `fields`; the deepest of the contract, a market solution, has 7.

Without a bound of our own the decoder's recursion limit would be the bound, and that depends on how deep the caller's
stack is: one node would take a transaction that another, or the same node elsewhere, cannot read.
"""

VERIFIED_MAX = 65536
"""Signature checks remembered, per half: two minutes at 1,000 transactions a second; 100 bytes each."""

_decode_any = msgspec.msgpack.Decoder().decode

Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether it holds; injected so that a simulator may replace it."""


class Transaction(Structure, frozen=True, gc=False):
    """A signed call, as sent."""

    payload: bytes
    signer: Key64
    signature: Signature64


class Payload(Structure, frozen=True, gc=False):
    """What is signed: which function, on which chain, the signer's running number, and the arguments."""

    kind: str
    chain: U16
    nonce: U63
    fields: msgspec.Raw


class DecodedTransaction(msgspec.Struct, frozen=True, gc=False):
    """A transaction taken apart once; `fields_raw` is left for the contract."""

    txid: bytes
    kind: str
    chain: int
    nonce: int
    fields_raw: bytes
    signer: bytes
    signer_id: bytes
    raw: bytes = b""
    "The transaction as sent."
    digest: bytes = b""
    "Leaf hash of the transaction in its block: covers the signature, unlike txid."
    payload: bytes = b""
    signature: bytes = b""


_NESTS = frozenset((list, tuple, dict))
"""What has something inside; a tuple is an array as a map's key."""


def _check_fields(fields: msgspec.Raw) -> None:
    """Raises DecodeError when `fields` is nested too deep; what else it holds is for the contract to judge."""
    try:
        value = _decode_any(fields)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise codec.DecodeError(f"fields: {error}"[:200]) from None
    if type(value) in _NESTS:
        _check_depth(value, 1)


def _check_depth(value: Any, depth: int) -> None:
    """Raises DecodeError when something in `value`, which is an array at this depth, is nested too deep."""
    if depth > FIELDS_DEPTH_MAX:
        raise codec.DecodeError(f"fields: more than {FIELDS_DEPTH_MAX} arrays deep")
    for inner in value:
        if type(inner) in _NESTS:
            _check_depth(inner, depth + 1)
    if type(value) is dict:
        for inner in value.values():
            if type(inner) in _NESTS:
                _check_depth(inner, depth + 1)


def make_transaction(
    key: crypto.PrivateKey, network: bytes, kind: str, chain: int, nonce: int, fields: object
) -> bytes:
    """Sign a call and return its bytes. `fields` is the kind's structure (or a list)."""
    payload = codec.encode([kind, chain, nonce, fields])
    signature = key.sign(codec.signing_bytes(b"tx", network, payload))
    return codec.encode(Transaction(payload, key.public, signature))


def decode_transaction(tx: bytes) -> DecodedTransaction:
    """Take a transaction apart; the signature is not checked here. Raises DecodeError."""
    outer = codec.decode(tx, Transaction, TRANSACTION_SIZE_MAX)
    payload = codec.decode(outer.payload, Payload, TRANSACTION_SIZE_MAX)
    if not 0 < len(payload.kind) <= KIND_LENGTH_MAX:
        raise codec.DecodeError("kind: expected 1 to 32 characters")
    _check_fields(payload.fields)
    return DecodedTransaction(
        crypto.sha256(b"\x00" + outer.payload + outer.signer),
        payload.kind,
        payload.chain,
        payload.nonce,
        bytes(payload.fields),
        outer.signer,
        crypto.id8(outer.signer),
        tx,
        merkle.leaf_hash(tx),
        outer.payload,
        outer.signature,
    )


def txid(tx: bytes) -> bytes:
    """The transaction's id: what it asks and who asks it, without the signature. Raises DecodeError."""
    outer = codec.decode(tx, Transaction, TRANSACTION_SIZE_MAX)
    return crypto.sha256(b"\x00" + outer.payload + outer.signer)


def is_signed(tx: DecodedTransaction, network: bytes, verify: Verify = crypto.verify) -> bool:
    """Whether the signer signed this payload for this network."""
    return verify(tx.signer, codec.signing_bytes(b"tx", network, tx.payload), tx.signature)


def check_signature(tx: bytes, network: bytes, verify: Verify = crypto.verify) -> bool:
    """Whether the signer signed this payload for this network. False for bytes that are no transaction."""
    try:
        return is_signed(decode_transaction(tx), network, verify)
    except codec.DecodeError:
        return False


class VerifiedTransactions:
    """Which transactions' signatures are known to hold, by digest; bounded.

    Shared by ledger, replica and the shell's verification threads: every operation is a single dictionary
    step, so threads may add while the core reads. Two generations instead of exact age: when the young one
    is full the old one is forgotten. A forgotten entry costs one verification, nothing else.
    """

    __slots__ = ("_max", "_old", "_young")

    def __init__(self, max_entries: int = VERIFIED_MAX) -> None:
        self._max = max_entries
        self._young: dict[bytes, None] = {}
        self._old: dict[bytes, None] = {}

    def add(self, digest: bytes) -> None:
        """Remember that the signature of the transaction with this leaf hash holds."""
        young = self._young
        young[digest] = None
        if len(young) >= self._max:
            self._old = young
            self._young = {}

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._young or digest in self._old
