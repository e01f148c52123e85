"""Structures of the experiment: a trade, its messages and proofs, the calls of every mode.

A trade has one buyer and, in every other area it touches, one seller: its s areas are the s shards of the paper. The
sellers' consent is the offer that stands in their account, as after a matching; so each mode signs one transaction
per area and step, by the buyer or by a node, and none is spared a signature that another one has to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta
from watt_chain import codec, crypto
from watt_chain.block import OutMessage, decode_certified
from watt_chain.codec import U16, U32, U63, Hash32, Id8, Structure
from watt_chain.tree import pair_up
from watt_wire import merkle

PARTS_MAX = 63
"""Sellers of one trade: as many areas as a committee has room for."""


class Part(Structure, frozen=True):
    """What one seller gives up, and for how much."""

    chain: U16
    seller: Id8
    wh: U63
    price_u: U63


class Trade(Structure, frozen=True):
    """A trade across areas: all parts or none."""

    number: U63
    chain: U16
    "The buyer's area."
    buyer: Id8
    parts: Annotated[list[Part], Meta(max_length=PARTS_MAX)]
    seller_height: U63
    "Last height of a seller's area at which it may still accept."
    main_height: U63
    "Main chain's height from which anybody may end a trade that is not decided."

    @property
    def chains(self) -> list[int]:
        """Areas it touches, the buyer's first."""
        return [self.chain, *(part.chain for part in self.parts)]

    @property
    def total_u(self) -> int:
        """What the buyer pays."""
        return sum(part.price_u for part in self.parts)

    @property
    def total_wh(self) -> int:
        """What the buyer may use more."""
        return sum(part.wh for part in self.parts)


def trade_id(trade: Trade) -> bytes:
    """32 bytes that name a trade on every chain."""
    return crypto.sha256(b"wattpact/1/experiment-trade\x00" + codec.encode(trade))


class Account(Structure, frozen=True):
    """A household on its area's chain. Money and quota only move between these fields and those of other accounts."""

    free_u: U63
    escrow_u: U63
    bound_u: U63
    "Owed under contracts that stand; paid after metering, which is not part of the experiment."
    quota_wh: U63
    held_wh: U63
    ask_u_per_wh: U63
    "Standing offer: what a Wh must bring; 0 sells nothing."
    locked: bool = False
    "Handed to the joint committee (`paper` mode): its own area moves nothing of it."


class Entry(Structure, frozen=True):
    """A message and its place under an outbox root."""

    index: U32
    message: bytes
    path: list[Hash32]


class Bundle(Structure, frozen=True):
    """Messages of one certified block to one chain, each with its proof: what the core calls a receipt."""

    chain: U16
    header: bytes
    certificate: bytes
    size: U32
    entries: list[Entry]


class Bundler:
    """Makes bundles of the messages of one block; their tree is hashed once."""

    def __init__(self, chain: int, certified: bytes, messages: Sequence[OutMessage]) -> None:
        parts, block, _, _ = decode_certified(certified)
        self._chain = chain
        self._final = block.header, parts.certificate
        self._encoded = [codec.encode(message) for message in messages]
        self._levels = pair_up([merkle.leaf_hash(data) for data in self._encoded])

    def bundle(self, wanted: Sequence[int]) -> Bundle:
        """The messages at these positions, with their proofs."""
        entries = [Entry(index, self._encoded[index], path_of(self._levels, index)) for index in wanted]
        return Bundle(self._chain, *self._final, len(self._encoded), entries)


def path_of(levels: list[list[bytes]], index: int) -> list[bytes]:
    """Inclusion path of a leaf, from all levels of its tree (one hashing for many paths)."""
    path: list[bytes] = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
    return path


# Calls ------------------------------------------------------------------------------------------------------------


class TradeCall(Structure, frozen=True):
    """Local, Prepare, Lock, JointTrade: the buyer asks for its trade, here or this area's part of it."""

    trade: Trade


class ProvenCall(Structure, frozen=True):
    """Commit, Abort, Step: a trade known here, and what other areas said about it."""

    trade: Hash32
    proofs: list[Bundle]


class StepCall(Structure, frozen=True):
    """Step: the next area of a trade in a row; the proof is that of the area before."""

    trade: Trade
    proofs: list[Bundle]


class InboxCall(Structure, frozen=True):
    """Inbox: messages of another chain, in sequence."""

    bundle: Bundle


class AnchorCall(Structure, frozen=True):
    """Anchor: a final block of an area, with every message it sent."""

    header: bytes
    certificate: bytes
    messages: list[bytes]


class KillCall(Structure, frozen=True):
    """Kill: end a trade whose time is over."""

    trade: Trade


class SpendCall(Structure, frozen=True):
    """Spend: a local payment, which must not meet a trade of the same account on its way."""

    to: Id8
    money_u: U63


class AccountCall(Structure, frozen=True):
    """LockAccount: hand an account to the joint committee, for the trade with this number."""

    account: Id8
    number: U63


# Messages ---------------------------------------------------------------------------------------------------------


class Said(Structure, frozen=True):
    """Prepared, Refused, Committed, Locked, Accept, Reject, Outcome: about one trade."""

    trade: Hash32
    number: U63
    content: Trade | None
    "With what decides: Locked, Accept, Reject. The reader checks that it has the id."
    end: bool
    "Outcome: nothing was concluded."


class Handed(Structure, frozen=True):
    """Handed: an account that its area has locked for the joint committee, as it was at that height."""

    account: Id8
    number: U63
    content: Account
