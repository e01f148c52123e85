"""The regulator's word by which an area in quarantine goes on under another list of validators (CONSENSUS.md 8.8).

Whoever certified two blocks of one height cannot be asked to certify who replaces them. So the word is the first
transaction of the first block that the new list makes: it names the block that it follows, and proves itself by the
regulator's signature to every node, verifier and light client alike.
"""

from collections.abc import Sequence

from watt_chain.codec import U63, DecodeError, Hash32, Structure, decode
from watt_chain.genesis import Validator
from watt_chain.transaction import DecodedTransaction, decode_transaction

RESUME = "Resume"
"""Kind of the transaction."""
_NAMED_WITHIN = 24
"""Bytes from the start of a transaction in which its kind stands: lengths of three arrays and a string come before."""


class Resume(Structure, frozen=True):
    """The list that makes the block of `height` after the block `previous`, and those that follow."""

    sequence: U63
    "Larger than that of any list or word of this chain before: of two words the later one counts."
    height: U63
    previous: Hash32
    validators: list[Validator]


def word_of(transactions: Sequence[bytes]) -> bytes:
    """The first of a block's transactions, if it looks like a Resume; else empty. Cheap: most blocks have none."""
    first = transactions[0] if transactions else b""
    return first if RESUME.encode() in first[:_NAMED_WITHIN] else b""


def open_word(raw: bytes) -> tuple[DecodedTransaction, Resume]:
    """A Resume and what it says. Raises DecodeError. Who signed it, and whether, is for the caller to check."""
    try:
        tx = decode_transaction(raw)
        said = decode(tx.fields_raw, Resume)
    except DecodeError:
        raise DecodeError("word-form") from None
    if tx.kind != RESUME:
        raise DecodeError("word-form")
    return tx, said
