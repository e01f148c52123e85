"""What replicas send each other (CONSENSUS.md 4.2), and the one way in for every message.

A frame is `[body bytes, signature]`. The body is an array that starts with the message's name. The signature
of a prepare or commit is the vote itself, over the bytes that certificates prove; every other message of the
agreement is signed over its body in the domain "frame". `open_frame` checks form, chain and sender; `is_genuine`
checks the signature. No handler ever sees a message that did not pass both. `TALK` is not signed: it carries what
proves itself or is only a question, and the connection says who speaks.
"""

from typing import Annotated

from msgspec import Meta

from watt_chain import codec
from watt_chain.block import BLOCK_TRANSACTIONS_MAX, COMMIT, PREPARE, VoteSignature, vote_bytes
from watt_chain.codec import U16, U32, U63, DecodeError, Hash32, Signature64, Structure
from watt_chain.genesis import VALIDATORS_MAX
from watt_chain.snapshot import Manifest, StateRange
from watt_chain.transaction import Verify

FRAME_SIZE_MAX = codec.MESSAGE_SIZE_MAX
GOSSIP_TRANSACTIONS_MAX = 512
"""Transactions of one gossip frame: about one block; more are sent in the next frame."""
GOSSIP_BYTES_MAX = 1024 * 1024
ATTEST_DIGESTS_MAX = 512
"""Digests of one attestation: a block's worth, 17 kB."""
SYNC_BLOCKS_MAX = 64
"""Blocks of one answer to a laggard: the receiver applies them in one step and must stay responsive."""
SYNC_BYTES_MAX = 1536 * 1024
"""Where an answer stops growing; one more block of at most 2 MiB still fits the frame."""

_BODY_HEAD = {b"\xc4": 3, b"\xc5": 4, b"\xc6": 6}
"""Where a frame's body begins, by the second byte of the frame (msgpack: bin 8, 16, 32)."""
NO_SEAT = 0xFFFF
"""Sender of talk by a node that is not a validator of the height it knows."""
NO_SIGNATURE = bytes(64)
"""In place of a signature under talk; not looked at."""

Digests = Annotated[list[Hash32], Meta(max_length=BLOCK_TRANSACTIONS_MAX)]


class Frame(Structure, frozen=True):
    """A signed message."""

    body: bytes
    signature: Signature64


class Prepared(Structure, frozen=True):
    """A prepared certificate: q prepare votes of one view for the block with this header."""

    view: U32
    header: bytes
    votes: list[VoteSignature]


class PrePrepare(Structure, frozen=True, tag="pre-prepare"):
    """The leader's proposal: the header and the leaf hashes of the transactions; bodies travel apart."""

    chain: U16
    sender: U16
    height: U63
    view: U32
    header: bytes
    digests: Digests


class Prepare(Structure, frozen=True, tag=PREPARE):
    """I have the block, it is valid, and it is the only one I support in this view."""

    chain: U16
    sender: U16
    height: U63
    view: U32
    block_hash: Hash32


class Commit(Structure, frozen=True, tag=COMMIT):
    """I hold a prepared certificate for the block: it is final once q say so."""

    chain: U16
    sender: U16
    height: U63
    view: U32
    block_hash: Hash32


class ViewChange(Structure, frozen=True, tag="view-change"):
    """I have left all views below `view`; here is the best prepared certificate I hold for the height."""

    chain: U16
    sender: U16
    height: U63
    view: U32
    prepared: Prepared | None


class NewView(Structure, frozen=True, tag="new-view"):
    """The leader of `view` shows the q view changes that let it lead."""

    chain: U16
    sender: U16
    height: U63
    view: U32
    votes: Annotated[list[bytes], Meta(max_length=VALIDATORS_MAX)]
    "ViewChange frames, as sent by their signers."


class Fetch(Structure, frozen=True, tag="fetch"):
    """Send me these transactions of that block; no digests: all of it."""

    chain: U16
    sender: U16
    height: U63
    block_hash: Hash32
    digests: Digests


class Bodies(Structure, frozen=True, tag="bodies"):
    """Transactions of a block, as asked for."""

    chain: U16
    sender: U16
    height: U63
    block_hash: Hash32
    transactions: Annotated[list[bytes], Meta(max_length=BLOCK_TRANSACTIONS_MAX)]


GOSSIP = "gossip"


class Gossip(Structure, frozen=True, tag=GOSSIP):
    """Transactions that were handed to me and that you may not have."""

    chain: U16
    sender: U16
    height: U63
    transactions: Annotated[list[bytes], Meta(max_length=GOSSIP_TRANSACTIONS_MAX)]


ATTEST = "attest"


class Attest(Structure, frozen=True, tag=ATTEST):
    """I have checked the signatures of the transactions with these digests, and each holds (CONSENSUS.md 4.9)."""

    chain: U16
    sender: U16
    height: U63
    digests: Annotated[list[Hash32], Meta(min_length=1, max_length=ATTEST_DIGESTS_MAX)]


class Status(Structure, frozen=True, tag="status"):
    """My last final height, and the view I am in for the next; `asks`: I have just started, tell me yours."""

    chain: U16
    sender: U16
    height: U63
    view: U32
    asks: bool


class SyncRequest(Structure, frozen=True, tag="sync-request"):
    """Send me certified blocks from `height` on."""

    chain: U16
    sender: U16
    height: U63


class SyncBlocks(Structure, frozen=True, tag="sync-blocks"):
    """Certified blocks with consecutive heights, the first of which is `height`."""

    chain: U16
    sender: U16
    height: U63
    blocks: Annotated[list[bytes], Meta(max_length=SYNC_BLOCKS_MAX)]


class StateOffer(Structure, frozen=True, tag="state-offer"):
    """I no longer have the block you asked for; I have the state after `height`, which consists of this."""

    chain: U16
    sender: U16
    height: U63
    manifest: Manifest


class StateRequest(Structure, frozen=True, tag="state-request"):
    """Send me slots of the state after `height`, from `slot` on."""

    chain: U16
    sender: U16
    height: U63
    slot: U63


class StatePart(Structure, frozen=True, tag="state-part"):
    """Slots of the state after `height`, as asked for."""

    chain: U16
    sender: U16
    height: U63
    part: StateRange


Message = (
    PrePrepare
    | Prepare
    | Commit
    | ViewChange
    | NewView
    | Fetch
    | Bodies
    | Gossip
    | Attest
    | Status
    | SyncRequest
    | SyncBlocks
    | StateOffer
    | StateRequest
    | StatePart
)


TALK = (Fetch, Bodies, Gossip, Status, SyncRequest, SyncBlocks, StateOffer, StateRequest, StatePart)
"""CONSENSUS.md 4.2.5: questions, claims that nobody believes, answers that hashes or certificates prove."""


def signed_bytes(network: bytes, message: Message, body: bytes) -> bytes:
    """What the frame's signature covers."""
    if isinstance(message, Prepare):
        return vote_bytes(network, PREPARE, message.chain, message.height, message.view, message.block_hash)
    if isinstance(message, Commit):
        return vote_bytes(network, COMMIT, message.chain, message.height, message.view, message.block_hash)
    return codec.signing_bytes(b"frame", network, body)


def open_any(data: bytes) -> tuple[Frame, Message]:
    """Take a frame of any chain and sender apart. Raises DecodeError; the signature is not checked here."""
    try:
        frame = codec.decode(data, Frame, FRAME_SIZE_MAX)
    except DecodeError:
        raise DecodeError("frame-form") from None
    try:
        message: Message = codec.decode(frame.body, Message, FRAME_SIZE_MAX)  # type: ignore[arg-type]  # a union
    except DecodeError:
        raise DecodeError("message-form") from None
    return frame, message


def open_frame(data: bytes, chain: int, sender: int | None = None) -> tuple[Frame, Message]:
    """Take a frame apart. Raises DecodeError with a reason in kebab-case; the signature is not checked here.

    `sender` is the index that the message must name; None leaves that to the caller.
    """
    frame, message = open_any(data)
    if message.chain != chain:
        raise DecodeError("wrong-chain")
    if sender is not None and message.sender != sender:
        raise DecodeError("wrong-sender")
    return frame, message


def vote_frame(like: Prepare | Commit, vote: tuple[bytes, bytes]) -> bytes:
    """The frame of another vote of the same validator, height and view, from its (block hash, signature)."""
    body = type(like)(like.chain, like.sender, like.height, like.view, vote[0])
    return codec.encode(Frame(codec.encode(body), vote[1]))


def kind_of(data: bytes) -> str:
    """The name of a frame's message, read from its first bytes; "" when there is none. Proves nothing."""
    start = _BODY_HEAD.get(data[1:2], 0)
    if data[:1] != b"\x92" or not start:
        return ""
    length = data[start + 1 : start + 2]
    if not length or not 0xA0 <= length[0] <= 0xBF:
        return ""
    return data[start + 2 : start + 2 + (length[0] & 0x1F)].decode("ascii", "replace")


def open_gossip(data: bytes, chain: int) -> list[bytes]:
    """The transactions of a gossip frame, each still to be verified. Raises DecodeError with a reason in kebab-case."""
    _, message = open_frame(data, chain)
    if not isinstance(message, Gossip):
        raise DecodeError("message-form")
    return message.transactions


def is_genuine(frame: Frame, message: Message, network: bytes, public: bytes, verify: Verify) -> bool:
    """Whether the sender named in the message signed it."""
    return verify(public, signed_bytes(network, message, frame.body), frame.signature)
