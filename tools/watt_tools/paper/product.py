"""Ours once more, with the product's own contracts: `AreaContract` and `MainContract`, `CrossOp`, `Inbox`, `Anchor`.

An event is planted in the first state of every chain in the middle of its life: the matching is decided, each trade of
the experiment is a crossing of it (several of one buyer stand or fall together), the sellers have consented, the areas
know each other's validators and are endowed. From there on everything is the product's: this mode shows that the small
contract of the others does not flatter ours. What is planted is as the contracts themselves would have left it, bonds
aside, which the sellers locked before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watt_chain import codec
from watt_chain.block import OutMessage
from watt_chain.codec import ZERO32
from watt_chain.contract import AreaContract, MainContract
from watt_chain.contract.access import Session
from watt_chain.contract.area import genesis_context
from watt_chain.contract.cross_kinds import CrossLocked, CrossNews, CrossOp, CrossReport
from watt_chain.contract.cross_objects import (
    TOGETHER_MAX,
    CrossTerms,
    CrossTrade,
    Lane,
    MainTrade,
    Position,
    cross_key,
    lane_key,
    position_key,
    source_key,
    trade_id,
)
from watt_chain.contract.event import EventSpec, State
from watt_chain.contract.kinds import Inbox as InboxFields
from watt_chain.contract.kinds import InboxEntry
from watt_chain.contract.objects import (
    FOREVER,
    INBOX_KEY,
    Account,
    AreaEvent,
    InboxCursor,
    KnownList,
    Sealed,
    Signer,
    account_key,
    event_key,
    known_list_key,
    sealed_key,
    signer_key,
)
from watt_chain.cross.tables import Beacon, Buyer, Seller
from watt_chain.genesis import Genesis
from watt_chain.ledger import AppliedBlock
from watt_chain.state import State as ChainState
from watt_market.checker import Checker

from watt_tools.paper.objects import Bundle, Trade

if TYPE_CHECKING:
    from watt_tools.paper.network import Network

EVENT: Final = 1
MAIN: Final = 0
FAR_S: Final = 1 << 40
"""No deadline of the event comes."""
LIMIT_U_PER_WH: Final = 200
MONEY_U: Final = 10**13
SHARDS_MAX: Final = TOGETHER_MAX + 1
"""A buyer may name so many sellers in one call."""


def contract(network: Network, chain: int) -> AreaContract | MainContract:
    """The product's contract of a chain, with the event planted."""
    return _Main(network) if chain == MAIN else _Area(network)


def numbers_of(trade: Trade) -> list[int]:
    """Numbers of a trade's pairs within the event, from 1."""
    first = trade.number * len(trade.parts) + 1
    return list(range(first, first + len(trade.parts)))


def call_of(trade: Trade) -> CrossOp:
    """What its buyer signs."""
    return CrossOp(EVENT, numbers_of(trade), True)


def _terms(trade: Trade) -> list[CrossTerms]:
    found = []
    for number, part in zip(numbers_of(trade), trade.parts, strict=True):
        price_u_per_wh = part.price_u // part.wh
        sides = part.chain, part.seller, trade.chain, trade.buyer
        found.append(CrossTerms(EVENT, number, *sides, [part.wh], [price_u_per_wh], 0))
    return found


def _spec() -> EventSpec:
    return EventSpec(
        event=EVENT,
        kind="peak",
        slot_s=900,
        slots=1,
        required_ppm=0,
        open_s=FAR_S,
        commit_close_s=FAR_S + 1,
        reveal_close_s=FAR_S + 2,
        match_by_s=FAR_S + 3,
        confirm_close_s=FAR_S + 4,
        window_start_s=FAR_S + 5,
        meter_close_s=FAR_S + 1000,
        settle_by_s=FAR_S + 2000,
        alpha_u_per_wh=[0],
        x_ms=0,
        y_ms=0,
        budget_u=0,
        units=[],
        normal_price_u_per_wh=1,
        compensation_price_u_per_wh=1,
        profile_wh_per_mwh=[1],
    )


class _Area(AreaContract):
    """The contract of an area, from the middle of the event on."""

    def __init__(self, network: Network) -> None:
        super().__init__(Checker())
        self._network = network

    def genesis(self, state: ChainState, genesis: Genesis, chain: int) -> None:
        """As the product's, and then the event with its trades."""
        super().genesis(state, genesis, chain)
        session = Session(state, genesis_context(genesis, chain), Checker())
        event = AreaEvent(
            EVENT, State.MATCHED, False, genesis.active_rules, _spec(), ZERO32,
            0, 0, [], 0, False, False, ZERO32, "",
        )  # fmt: skip
        session.put(event_key(EVENT), event)
        for other in self._network.areas:
            if other != chain:
                session.put(known_list_key(other), KnownList(1, list(genesis.validators(other))))
        for trade in self._network.trades:
            if chain == trade.chain:
                buyer = self._network.buyers[trade.number].public
                self._settle(session, trade.buyer, buyer, "buy")
            for terms in _terms(trade):
                id32 = trade_id(session.context.network, terms)
                if chain == trade.chain:
                    half = CrossTrade(terms, id32, "buy", Buyer.NONE.value, [], LIMIT_U_PER_WH, 0, 0, 0)
                    session.put(cross_key(EVENT, terms.number), half)
                elif chain == terms.seller_chain:
                    self._settle(session, terms.seller, self._network.seller(chain, trade.number), "sell")
                    half = CrossTrade(terms, id32, "sell", Seller.OFFERED.value, [], 0, 0, 0, 0)
                    session.put(cross_key(EVENT, terms.number), half)

    def _settle(self, session: Session, id8: bytes, public: bytes, side: str) -> None:
        """A household with an accepted matching result."""
        account = Account(id8, "user", public, 0, MONEY_U, 0, 0, 0, 0, 60, session.context.chain, 0, False, False)
        session.state.put(account_key(id8), account)
        session.put(signer_key(id8), Signer(id8, 0, FOREVER))
        sealed = Sealed(id8, ZERO32, 0, True, side, 0, [0], "qualified", "accept", ZERO32, [0], "profile")  # type: ignore[arg-type]
        session.put(sealed_key(EVENT, id8), sealed)


class _Main(MainContract):
    """The contract of the main chain, from the decided matching on."""

    def __init__(self, network: Network) -> None:
        super().__init__(Checker())
        self._network = network

    def genesis(self, state: ChainState, genesis: Genesis, chain: int) -> None:
        """As the product's, and then the trades that the matching made."""
        super().genesis(state, genesis, chain)
        session = Session(state, genesis_context(genesis, chain), Checker())
        for area in self._network.areas:
            session.put(position_key(area), Position(MONEY_U, MONEY_U, 0, 0, 0, EVENT, 0, ""))
            for other in self._network.areas:
                if other != area:
                    session.put(lane_key(area, other), Lane(0, 1))
        for trade in self._network.trades:
            for terms in _terms(trade):
                id32 = trade_id(session.context.network, terms)
                value_u = LIMIT_U_PER_WH * terms.energy_wh
                whole = MainTrade(terms, id32, Beacon.NONE.value, [], value_u, 0, "")
                session.put(cross_key(EVENT, terms.number), whole)


# What nodes read -----------------------------------------------------------------------------------------------------


def inbox_fields(bundle: Bundle) -> InboxFields:
    """A bundle as the product's call."""
    entries = [InboxEntry(entry.index, entry.message, list(entry.path)) for entry in bundle.entries]
    return InboxFields(bundle.header, bundle.certificate, bundle.size, entries)


def inbox_key(source: int) -> bytes:
    """Key of the cursor of a source."""
    return INBOX_KEY if source == MAIN else source_key(source)


def cursor_of(value: bytes | None) -> int:
    """Last message taken, from the cursor object."""
    return 0 if value is None else codec.decode(value, InboxCursor).sequence


WORDS: Final = {"anchored-accept": "committed", "anchored-end": "ended"}


def spoken_of(message: OutMessage, parts: int) -> list[tuple[int, str]]:
    """(number of a trade of the experiment, step) of a message, once per trade."""
    if message.kind == "CrossLocked":
        said = [(number, "locked") for number, _ in codec.decode(message.body, CrossLocked).trades]
    elif message.kind == "CrossReport":
        said = [(number, word) for number, _, word, _ in codec.decode(message.body, CrossReport).trades]
    elif message.kind == "CrossNews":
        said = [(number, WORDS[word]) for number, word, _ in codec.decode(message.body, CrossNews).trades]
    else:
        said = []
    return list(dict.fromkeys(((number - 1) // parts, word) for number, word in said))


def taken_in(applied: AppliedBlock) -> list[OutMessage]:
    """Messages that the block's Inbox calls have taken."""
    found: list[OutMessage] = []
    for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
        if tx.kind == "Inbox" and not receipt.code:
            fields = codec.decode(tx.fields_raw, InboxFields)
            found += [codec.decode(entry.message, OutMessage) for entry in fields.entries]
    return found
