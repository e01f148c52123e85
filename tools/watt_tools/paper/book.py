"""The experiment's contract, the part that all modes share: accounts, nonces, trades inside one area.

Money and quota are conserved: `free + escrow + bound` of an area never changes, `quota + held` of all areas together
changes only while a contract stands on one side and not yet on the other (tests/paper). A mode is a table of calls,
so the same ledger, blocks, state tree and signatures serve all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from msgspec.structs import replace
from watt_chain import codec, crypto
from watt_chain.block import OutMessage
from watt_chain.codec import DecodeError, Structure
from watt_chain.genesis import Genesis, Seat
from watt_chain.ledger import BlockContext
from watt_chain.light import LightClient, ProofError
from watt_chain.state import State, StateReader
from watt_chain.transaction import DecodedTransaction, Verify

from watt_tools.paper.objects import Account, Bundle, Part, Said, SpendCall, Trade, TradeCall, trade_id

T = TypeVar("T", bound=Structure)
HEADERS_MAX: Final = 512
"""Checked headers a node remembers: the blocks of ten areas during one burst, with room."""
OPEN: Final = 0
"""Chain number that messages are addressed to when anybody may use them as proof."""


class Refused(Exception):
    """A call that changes nothing; the text is the reason in the receipt."""


@dataclass(frozen=True, slots=True)
class Party:
    """An account at the beginning."""

    public: bytes
    account: Account


class KnownHeaders(LightClient):
    """A light client that checks each certificate once: twenty trades of one block bring the same one."""

    __slots__ = ("_known",)

    def __init__(self, genesis: Genesis, network: bytes, verify: Verify) -> None:
        super().__init__(genesis, network, verify)
        self._known: dict[bytes, Any] = {}

    def check_header(self, chain: int, header_bytes: bytes, certificate_bytes: bytes) -> Any:
        """As LightClient.check_header."""
        name = crypto.sha256(header_bytes + certificate_bytes)
        found = self._known.get(name)
        if found is None:
            found = super().check_header(chain, header_bytes, certificate_bytes)
            if len(self._known) >= HEADERS_MAX:
                del self._known[next(iter(self._known))]
            self._known[name] = found
        elif found.chain != chain:
            raise ProofError("chain")
        return found

    def believes(self, bundle: Bundle) -> bool:
        """Whether the bundle's header is final; remembered, so that the contract's look costs nothing."""
        try:
            self.check_header(bundle.chain, bundle.header, bundle.certificate)
        except ProofError:
            return False
        return True

    def open(self, bundle: Bundle) -> list[OutMessage]:
        """The messages that a bundle proves. Raises ProofError."""
        entries = [(entry.index, entry.message, entry.path) for entry in bundle.entries]
        return self.check_messages(bundle.chain, bundle.header, bundle.certificate, bundle.size, entries)


class Book:
    """Typed access to the state of one block, and the moves of money and quota."""

    __slots__ = ("context", "proofs", "state")

    def __init__(self, state: State, context: BlockContext, proofs: KnownHeaders) -> None:
        self.state = state
        self.context = context
        self.proofs = proofs

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The object under a key."""
        value = self.state.get(key)
        return None if value is None else codec.decode(value, kind)

    def put(self, key: bytes, value: Structure) -> None:
        """Write an object."""
        self.state.put(key, codec.encode(value))

    def account(self, id8: bytes) -> Account:
        """An account of this chain that is not in the joint committee's hands. Refuses."""
        found = self.get(account_key(id8), Account)
        if found is None:
            raise Refused("account")
        if found.locked:
            raise Refused("locked")
        return found

    def save(self, id8: bytes, account: Account) -> None:
        """Write an account."""
        self.put(account_key(id8), account)

    # Moves ------------------------------------------------------------------------------------------------

    def escrow(self, trade: Trade) -> None:
        """Set the buyer's money aside. Refuses "balance"."""
        account = self.account(trade.buyer)
        if account.free_u < trade.total_u:
            raise Refused("balance")
        left_u, aside_u = account.free_u - trade.total_u, account.escrow_u + trade.total_u
        self.save(trade.buyer, replace(account, free_u=left_u, escrow_u=aside_u))

    def hold(self, part: Part) -> None:
        """Set the seller's quota aside. Refuses "offer"."""
        account = self.account(part.seller)
        if not account.ask_u_per_wh or account.quota_wh < part.wh or part.price_u < account.ask_u_per_wh * part.wh:
            raise Refused("offer")
        self.save(part.seller, replace(account, quota_wh=account.quota_wh - part.wh, held_wh=account.held_wh + part.wh))

    def close(self, trade: Trade, chain: int) -> None:
        """The contract stands: what this area set aside goes where it belongs."""
        if chain == trade.chain:
            account = self.account(trade.buyer)
            self.save(
                trade.buyer,
                replace(
                    account,
                    escrow_u=account.escrow_u - trade.total_u,
                    bound_u=account.bound_u + trade.total_u,
                    quota_wh=account.quota_wh + trade.total_wh,
                ),
            )
            return
        for part in self.parts_here(trade, chain):
            account = self.account(part.seller)
            self.save(part.seller, replace(account, held_wh=account.held_wh - part.wh))

    def undo(self, trade: Trade, chain: int) -> None:
        """There is no contract: what this area set aside goes back."""
        if chain == trade.chain:
            account = self.account(trade.buyer)
            back_u, aside_u = account.free_u + trade.total_u, account.escrow_u - trade.total_u
            self.save(trade.buyer, replace(account, free_u=back_u, escrow_u=aside_u))
            return
        for part in self.parts_here(trade, chain):
            account = self.account(part.seller)
            self.save(
                part.seller, replace(account, quota_wh=account.quota_wh + part.wh, held_wh=account.held_wh - part.wh)
            )

    def set_aside(self, trade: Trade, chain: int) -> None:
        """This area's share of a trade: the buyer's money or the sellers' quota. Refuses."""
        if chain == trade.chain:
            self.escrow(trade)
        for part in self.parts_here(trade, chain):
            self.hold(part)

    def parts_here(self, trade: Trade, chain: int) -> list[Part]:
        """The sellers of this chain."""
        return [part for part in trade.parts if part.chain == chain]

    def say(self, target: int, kind: str, trade: Trade, with_content: bool = False, end: bool = False) -> None:
        """Send a message about a trade."""
        body = Said(trade_id(trade), trade.number, trade if with_content else None, end)
        self.state.emit(target, kind, codec.encode(body))

    def open(self, bundle: Bundle) -> list[OutMessage]:
        """The messages that a bundle proves. Refuses with the reason why it proves nothing."""
        try:
            return self.proofs.open(bundle)
        except ProofError as error:
            raise Refused(error.reason) from None


def said(message: OutMessage) -> Said:
    """What a message says about a trade. Refuses "message"."""
    try:
        found = codec.decode(message.body, Said)
    except DecodeError:
        raise Refused("message") from None
    if found.content is not None and trade_id(found.content) != found.trade:
        raise Refused("message")
    return found


def account_key(id8: bytes) -> bytes:
    """Key of an account."""
    return b"account/" + id8.hex().encode()


def trade_key(id32: bytes) -> bytes:
    """Key of what this chain knows about a trade."""
    return b"trade/" + id32.hex().encode()


def _nonce_key(public: bytes) -> bytes:
    return b"nonce/" + crypto.id8(public).hex().encode()


Call = tuple[type[Structure], Callable[[Book, bytes, Any], None]]
"""(fields, function(book, signer's id, fields)); raises Refused."""


class Contract:
    """watt_chain.ledger.Contract for one chain of the experiment."""

    def __init__(
        self,
        calls: Mapping[str, Call],
        parties: Sequence[Party],
        clerks: Sequence[bytes],
        proofs: KnownHeaders,
    ) -> None:
        """`parties` have accounts, `clerks` (nodes, and buyers of other areas) only sign."""
        self._calls = calls
        self._parties = parties
        self._clerks = clerks
        self.proofs = proofs
        "What this node has checked of other chains."

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        """Accounts, and a nonce for every key that may sign."""
        for party in self._parties:
            state.put(account_key(crypto.id8(party.public)), codec.encode(party.account))
        for public in dict.fromkeys([*(party.public for party in self._parties), *self._clerks]):
            state.put(_nonce_key(public), codec.encode(0))

    def begin(self, state: State, context: BlockContext) -> None:
        """Nothing moves by time alone."""

    def execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> str:
        """Run one call; "" or the reason."""
        known = self._calls.get(tx.kind)
        if known is None:
            return "unknown-kind"
        try:
            fields = codec.decode(tx.fields_raw, known[0])
        except DecodeError:
            return "malformed"
        mark = state.savepoint()
        try:
            known[1](Book(state, context, self.proofs), tx.signer_id, fields)
        except Refused as refusal:
            state.rollback(mark)
            return str(refusal)
        return ""

    def next_nonce(self, state: StateReader, signer: bytes) -> int:
        """Nonces run from 1; -1 for a key that may not sign."""
        found = state.get(_nonce_key(signer))
        return -1 if found is None else codec.decode(found, int) + 1

    def consume_nonce(self, state: State, signer: bytes, nonce: int) -> bool:
        """One more."""
        if nonce != self.next_nonce(state, signer):
            return False
        state.put(_nonce_key(signer), codec.encode(nonce))
        return True

    def seats(self, state: StateReader) -> tuple[Seat, ...] | None:
        """The validators of genesis, for ever."""
        return None

    def resume(self, state: State, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        """Nobody replaces them."""
        return "unknown-kind"

    def rules_version(self, state: StateReader) -> int:
        """There is one rule."""
        return 1

    def inbox_cursor(self, state: StateReader) -> int:
        """Cursors of several sources are in the state; the header has room for one, which nobody uses here."""
        return 0

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        """The rotation, as in a chain without tickets (CONSENSUS.md 6.1.2)."""
        n = len(context.validators)
        return tuple((context.height + step) % n for step in range(n))


# Inside one area --------------------------------------------------------------------------------------------------


def local(book: Book, signer: bytes, call: TradeCall) -> None:
    """A trade inside one area, in one step: what a trade across areas is compared with."""
    trade, chain = call.trade, book.context.chain
    need_buyer(signer, trade)
    if trade.chains != [chain] * len(trade.chains):
        raise Refused("area")
    book.escrow(trade)
    for part in trade.parts:
        book.hold(part)
        account = book.account(part.seller)
        book.save(part.seller, replace(account, held_wh=account.held_wh - part.wh))
    book.close(trade, chain)
    book.say(OPEN, "Committed", trade)


def spend(book: Book, signer: bytes, call: SpendCall) -> None:
    """A local payment."""
    payer, payee = book.account(signer), book.account(call.to)
    if payer.free_u < call.money_u or signer == call.to:
        raise Refused("balance")
    book.save(signer, replace(payer, free_u=payer.free_u - call.money_u))
    book.save(call.to, replace(payee, free_u=payee.free_u + call.money_u))


def need_buyer(signer: bytes, trade: Trade) -> None:
    """Refuses a trade that its buyer has not signed."""
    if signer != trade.buyer:
        raise Refused("role")


LOCAL: Final[dict[str, Call]] = {"Local": (TradeCall, local), "Spend": (SpendCall, spend)}
