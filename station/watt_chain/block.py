"""Blocks, receipts, messages between chains, votes and certificates (CONSENSUS.md 2.5 to 2.8).

A header is hashed as bytes once; the hash is what validators vote for. A certificate is exactly q commit
votes in ascending order of the voter's index: anybody with the genesis file can check it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from watt_wire import merkle

from watt_chain import codec, crypto
from watt_chain.codec import U16, U32, U63, DecodeError, Hash32, Signature64, Structure
from watt_chain.genesis import Validator, list_hash, quorum
from watt_chain.resume import open_word
from watt_chain.transaction import Verify, is_signed

HEADER_VERSION = 2
"""1 had no `next_validators`; nothing of version 1 is read any more."""
HEADER_SIZE_MAX = 512
"""A header is about 315 bytes; the margin is for large heights and times."""
CERTIFICATE_SIZE_MAX = 8 * 1024
"""64 validators at most, 69 bytes a vote."""
CHANGES_MAX = 64
"""Changes of a list that are shown together, the last ones: years of a chain, and 64 kB; older clients start anew."""
BLOCK_TRANSACTIONS_MAX = 5000
"""Upper bound a validator accepts; a proposer's own limit is lower (ReplicaConfig)."""
BLOCK_SIZE_MAX = 2 * 1024 * 1024
"""All transactions of a block, so that a block and its certificate fit in one peer frame of 4 MiB."""

PREPARE = "prepare"
COMMIT = "commit"


class Header(Structure, frozen=True):
    """What a block is: its place, its time, and the roots of everything in it and after it."""

    version: U16
    chain: U16
    height: U63
    previous: Hash32
    "Hash of the block before; of height 1: the network's name."
    term: U63
    view: U32
    "View in which the block was first proposed; a certificate may come from a later view."
    time_s: U63
    "Protocol time, Unix seconds."
    proposer: U16
    tx_root: Hash32
    receipt_root: Hash32
    state_root: Hash32
    "After this block."
    outbox_root: Hash32
    inbox_cursor: U63
    rules_version: U32
    tx_count: U32
    next_validators: Hash32
    "Hash of the list that certifies the next height (genesis.list_hash); the preimage travels apart."


class Receipt(Structure, frozen=True, gc=False):
    """The outcome of one transaction: code "" means accepted, anything else is the reason it was refused."""

    txid: Hash32
    code: str


class OutMessage(Structure, frozen=True):
    """What one chain tells another; `sequence` runs 1, 2, 3 ... for each pair of chains."""

    source_chain: U16
    target_chain: U16
    sequence: U63
    kind: str
    body: bytes


class Block(Structure, frozen=True):
    """A header and the transactions it commits to, each as sent."""

    header: bytes
    transactions: list[bytes]


class Vote(Structure, frozen=True):
    """What a prepare or commit signature covers, behind the domain "vote"."""

    phase: str
    chain: U16
    height: U63
    view: U32
    block_hash: Hash32


class VoteSignature(Structure, frozen=True):
    """One validator's signature in a certificate."""

    index: U16
    signature: Signature64


class Certificate(Structure, frozen=True):
    """Proof that a block is final: exactly q commit votes of one view, ascending by index."""

    view: U32
    votes: list[VoteSignature]


class Change(Structure, frozen=True):
    """The last header under an old list of validators, its certificate, and the list it names for the next height.

    Or, with the regulator's `word`, the first header under a new list, which certifies it (CONSENSUS.md 8.8).
    """

    header: bytes
    certificate: bytes
    validators: list[Validator]
    word: bytes = b""
    "The Resume transaction; empty for a change that the old list certified."


class CertifiedBlock(Structure, frozen=True):
    """A final block and the proof that it is final; both kept as bytes."""

    block: bytes
    certificate: bytes


def block_hash(network: bytes, header_bytes: bytes) -> bytes:
    """The hash validators vote for."""
    return crypto.sha256(codec.signing_bytes(b"header", network, header_bytes))


def vote_bytes(network: bytes, phase: str, chain: int, height: int, view: int, hash_: bytes) -> bytes:
    """The message a prepare or commit vote signs."""
    return codec.signing_bytes(b"vote", network, codec.encode([phase, chain, height, view, hash_]))


def check_votes(
    votes: Sequence[VoteSignature], message: bytes, publics: Sequence[bytes], verify: Verify = crypto.verify
) -> str:
    """ "" or why these are not exactly q votes, ascending by index, each a good signature of `message`."""
    if len(votes) != quorum(len(publics)):  # CONSENSUS.md 2.8: not one vote more, so one block has few spellings
        return "certificate-size"
    before = -1
    for vote in votes:
        if vote.index <= before:
            return "certificate-order"
        if vote.index >= len(publics):
            return "certificate-index"
        before = vote.index
    for vote in votes:
        if not verify(publics[vote.index], message, vote.signature):
            return "certificate-signature"
    return ""


def check_certificate(
    certificate: Certificate,
    network: bytes,
    header: Header,
    hash_: bytes,
    publics: Sequence[bytes],
    verify: Verify = crypto.verify,
) -> str:
    """ "" or why the certificate does not make the block with this header and hash final."""
    if certificate.view < header.view:
        return "certificate-view"  # nobody can have voted before the block existed
    message = vote_bytes(network, COMMIT, header.chain, header.height, certificate.view, hash_)
    return check_votes(certificate.votes, message, publics, verify)


class Followed(NamedTuple):
    """What a change has proven."""

    from_height: int
    "First height under its list."
    sequence: int
    "Of the regulator's word; 0 without one."


def follow(
    change: Change,
    network: bytes,
    chain: int,
    publics: Sequence[bytes],
    regulator: bytes,
    verify: Verify = crypto.verify,
) -> Followed:
    """From where a change's list acts, once it proves that the validators with `publics` give way to it.

    CONSENSUS.md 8.7. Raises DecodeError. That `publics` were the validators of that height is for the caller to know;
    they do not matter where the regulator's word replaces them (8.8).
    """
    header = codec.decode(change.header, Header, HEADER_SIZE_MAX)
    certificate = codec.decode(change.certificate, Certificate, CERTIFICATE_SIZE_MAX)
    if header.version != HEADER_VERSION or header.chain != chain:
        raise DecodeError("change-chain")
    if not change.validators or list_hash(change.validators) != header.next_validators:
        raise DecodeError("change-list")
    followed = Followed(header.height + 1, 0)
    if change.word:
        tx, word = open_word(change.word)
        said = (tx.chain, tx.signer, word.height, word.previous, word.validators)
        if said != (chain, regulator, header.height, header.previous, change.validators):
            raise DecodeError("change-word")
        if not is_signed(tx, network, verify):
            raise DecodeError("change-word")
        followed = Followed(header.height, word.sequence)
        publics = [validator.public for validator in change.validators]
    reason = check_certificate(certificate, network, header, block_hash(network, change.header), publics, verify)
    if reason:
        raise DecodeError(reason)
    return followed


def transactions_root(transactions: Sequence[bytes]) -> bytes:
    """Root over the transactions as sent."""
    return merkle.root([merkle.leaf_hash(tx) for tx in transactions])


def messages_root(messages: Sequence[OutMessage]) -> bytes:
    """Root over the encoded messages a block sends."""
    return merkle.root([merkle.leaf_hash(codec.encode(message)) for message in messages])


def message_proofs(messages: Sequence[OutMessage], target_chain: int) -> tuple[int, list[list[object]]]:
    """(number of messages in the block, [[index, message bytes, path], ...] for one target chain)."""
    encoded = [codec.encode(message) for message in messages]
    leaves = [merkle.leaf_hash(data) for data in encoded]
    return len(leaves), [
        [index, encoded[index], merkle.proof(leaves, index)]
        for index, message in enumerate(messages)
        if message.target_chain == target_chain
    ]


def decode_certified(data: bytes) -> tuple[CertifiedBlock, Block, Header, Certificate]:
    """Take a certified block apart without checking anything but its form. Raises DecodeError."""
    certified = codec.decode(data, CertifiedBlock)
    block = codec.decode(certified.block, Block)
    header = codec.decode(block.header, Header, HEADER_SIZE_MAX)
    certificate = codec.decode(certified.certificate, Certificate, CERTIFICATE_SIZE_MAX)
    return certified, block, header, certificate
