"""Partial sharding as the paper prints it: one consensus of all cross-nodes, a certificate with a quorum of every area.

The cross-nodes of the areas are one PBFT committee with a chain of its own (`watt_chain.pbft` unchanged); its state
has the accounts of all areas, which is what makes a cross-node keep every area's data. A decision is a block of that
chain with commit votes of a quorum *in each area's part* of the committee (model: U9). Normal nodes check that and
append, without a vote of their own.

The paper says nothing about a balance that is spent locally at the same time. Here an account is *locked* by its
area's chain and handed over, as it was at that height, before the committee moves it (`LockAccount` -> Handed ->
`Inbox`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import (
    COMMIT,
    HEADER_SIZE_MAX,
    Header,
    OutMessage,
    Receipt,
    VoteSignature,
    block_hash,
    vote_bytes,
)
from watt_chain.codec import U32, DecodeError, Hash32, Structure
from watt_chain.genesis import quorum
from watt_chain.transaction import Verify, decode_transaction
from watt_chain.tree import Overlay, StateTree, pair_up
from watt_wire import merkle

from watt_tools.paper.book import LOCAL, Book, Call, Refused, account_key, need_buyer, trade_key
from watt_tools.paper.certified import Cursor, cursor_key
from watt_tools.paper.objects import (
    Account,
    AccountCall,
    Handed,
    InboxCall,
    Trade,
    TradeCall,
    path_of,
    trade_id,
)


class Concluded(Structure, frozen=True):
    """A trade that stands."""

    trade: Trade


def conclude(book: Book, signer: bytes, call: TradeCall) -> None:
    """JointTrade: all parts at once, on the committee's copies of all accounts."""
    trade = call.trade
    need_buyer(signer, trade)
    key = trade_key(trade_id(trade))
    if book.get(key, Concluded) is not None:
        raise Refused("stage")
    for chain in trade.chains:
        book.set_aside(trade, chain)
    for chain in trade.chains:
        book.close(trade, chain)
    book.put(key, Concluded(trade))


def take_accounts(book: Book, signer: bytes, call: InboxCall) -> None:
    """Inbox of the committee's chain: accounts that their areas have locked."""
    key = cursor_key(call.bundle.chain)
    before = book.get(key, Cursor)
    sequence = 0 if before is None else before.sequence
    for message in book.open(call.bundle):
        if message.target_chain != book.context.chain or message.sequence != sequence + 1 or message.kind != "Handed":
            raise Refused("sequence")
        sequence += 1
        handed = _handed(message)
        book.save(handed.account, replace(handed.content, locked=False))
    book.put(key, Cursor(sequence))


def lock_account(book: Book, signer: bytes, call: AccountCall) -> None:
    """LockAccount: from here on the area itself moves nothing of it."""
    account = book.account(call.account)
    book.save(call.account, replace(account, locked=True))
    book.state.emit(JOINT_CHAIN, "Handed", codec.encode(Handed(call.account, call.number, account)))


def _handed(message: OutMessage) -> Handed:
    try:
        return codec.decode(message.body, Handed)
    except DecodeError:
        raise Refused("message") from None


JOINT_CHAIN: Final = 60_000
"""Chain number of the committee; areas are 1, 2, 3 ..."""
JOINT: Final[dict[str, Call]] = {"JointTrade": (TradeCall, conclude), "Inbox": (InboxCall, take_accounts)}
JOINT_AREA: Final[dict[str, Call]] = {**LOCAL, "LockAccount": (AccountCall, lock_account)}


# Decisions --------------------------------------------------------------------------------------------------------


class Related(Structure, frozen=True):
    """A transaction of a joint block that concerns an area, its outcome, and where both are."""

    index: U32
    transaction: bytes
    receipt: bytes
    path: list[Hash32]
    receipt_path: list[Hash32]


class Decision(Structure, frozen=True):
    """What the nodes of an area are told about a joint block."""

    header: bytes
    view: U32
    votes: list[VoteSignature]
    "Commit votes, ascending by index: a quorum in every part."
    related: list[Related]


@dataclass(frozen=True, slots=True)
class Committee:
    """Who sits for whom: validators of the joint chain, those of one area next to each other."""

    publics: tuple[bytes, ...]
    parts: tuple[tuple[int, int], ...]
    "(first index, how many) of each area, in the order of the areas."
    part_of: tuple[int, ...]
    "Place in `parts` of each index."

    def complete(self, indices: Iterable[int]) -> bool:
        """Whether these voters are a quorum in every area's part."""
        lacking = [quorum(count) for _, count in self.parts]
        for index in indices:
            lacking[self.part_of[index]] -= 1
        return max(lacking) <= 0

    def needed(self, indices: Sequence[int]) -> list[int]:
        """The lowest of these voters that make every part's quorum; shorter when a part has none."""
        chosen: list[int] = []
        for first, count in self.parts:
            chosen += sorted(index for index in indices if first <= index < first + count)[: quorum(count)]
        return chosen


def check_decision(decision: Decision, committee: Committee, network: bytes, verify: Verify) -> str:
    """ "" or why this is no decision of the committee about what it names."""
    try:
        header = codec.decode(decision.header, Header, HEADER_SIZE_MAX)
    except DecodeError:
        return "header-form"
    if header.chain != JOINT_CHAIN or decision.view < header.view:
        return "chain"
    indices = [vote.index for vote in decision.votes]
    if indices != sorted({*indices}) or indices[-1:] >= [len(committee.publics)]:
        return "votes"
    if not committee.complete(indices):
        return "quorum"
    hash_ = block_hash(network, decision.header)
    message = vote_bytes(network, COMMIT, header.chain, header.height, decision.view, hash_)
    if not all(verify(committee.publics[vote.index], message, vote.signature) for vote in decision.votes):
        return "signature"
    for one in decision.related:
        leaf, receipt = merkle.leaf_hash(one.transaction), merkle.leaf_hash(one.receipt)
        if not merkle.verify_proof(leaf, one.index, header.tx_count, one.path, header.tx_root):
            return "path"
        if not merkle.verify_proof(receipt, one.index, header.tx_count, one.receipt_path, header.receipt_root):
            return "path"
    return ""


def related_to(chain: int, transactions: Sequence[bytes], receipts: Sequence[Receipt]) -> list[Related]:
    """The trades of a joint block that touch an area, with their proofs."""
    encoded = [codec.encode(receipt) for receipt in receipts]
    levels = pair_up([merkle.leaf_hash(tx) for tx in transactions])
    receipt_levels = pair_up([merkle.leaf_hash(data) for data in encoded])
    found: list[Related] = []
    for index, raw in enumerate(transactions):
        trade = trade_in(raw)
        if trade is not None and chain in trade.chains:
            paths = path_of(levels, index), path_of(receipt_levels, index)
            found.append(Related(index, raw, encoded[index], *paths))
    return found


def trade_in(raw: bytes) -> Trade | None:
    """The trade of a JointTrade transaction."""
    tx = decode_transaction(raw)
    return codec.decode(tx.fields_raw, TradeCall).trade if tx.kind == "JointTrade" else None


class Appendix:
    """A normal node's part of what the committee decided: its area's handed accounts, and the decisions themselves."""

    def __init__(self, chain: int, accounts: Sequence[tuple[bytes, Account]]) -> None:
        """`accounts` as they were handed over."""
        self._chain = chain
        self._tree = StateTree()
        first = Overlay(self._tree)
        for id8, account in accounts:
            first.put(account_key(id8), codec.encode(account))
        self._tree.merge(first)
        self.height = 0
        self.bytes = 0

    def append(self, decision: Decision) -> list[Trade]:
        """Take a checked decision; the trades that stand with it."""
        overlay = Overlay(self._tree)
        stand: list[Trade] = []
        for one in decision.related:
            receipt = codec.decode(one.receipt, Receipt)
            tx = decode_transaction(one.transaction)
            trade = trade_in(one.transaction)
            if receipt.code or receipt.txid != tx.txid or trade is None:
                continue
            self._move(overlay, trade)
            stand.append(trade)
        overlay.root()
        self._tree.merge(overlay)
        self.height = codec.decode(decision.header, Header, HEADER_SIZE_MAX).height
        self.bytes += len(codec.encode(decision))
        return stand

    def hand(self, handed: Handed) -> None:
        """The area has locked an account."""
        overlay = Overlay(self._tree)
        overlay.put(account_key(handed.account), codec.encode(handed.content))
        self._tree.merge(overlay)

    def account(self, id8: bytes) -> Account:
        """An account as of the last decision."""
        return codec.decode(self._tree.values[self._tree.slots[account_key(id8)]], Account)

    def _move(self, overlay: Overlay, trade: Trade) -> None:
        if trade.chain == self._chain:
            account = _read(overlay, trade.buyer)
            left_u, bound_u = account.free_u - trade.total_u, account.bound_u + trade.total_u
            after = replace(account, free_u=left_u, bound_u=bound_u, quota_wh=account.quota_wh + trade.total_wh)
            overlay.put(account_key(trade.buyer), codec.encode(after))
        for part in trade.parts:
            if part.chain == self._chain:
                account = _read(overlay, part.seller)
                after = replace(account, quota_wh=account.quota_wh - part.wh)
                overlay.put(account_key(part.seller), codec.encode(after))


def _read(overlay: Overlay, id8: bytes) -> Account:
    value = overlay.get(account_key(id8))
    assert value is not None, "the committee decides about accounts that were handed over"
    return codec.decode(value, Account)
