"""Trades across areas in an area: consent and lock by the two sides, news of the main chain, delivery, settlement.

Every step goes through `Desk.step`, which takes the next state and the effects from the tables and from nowhere else.
The area tells the main chain what it did (CrossReport), and the seller's area of a lock (CrossLocked); what binds money
or gives it back comes from the main chain only. In quota, performance, credit and points a trade that stood counts as
a pair of the area does.  Source: paper section 4.3; ledger.md 6.3; model.md U9, U10, rows H10 to H28.
"""

from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from watt_chain import codec
from watt_chain.contract import orders
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.cross_kinds import CrossLocked, CrossNews, CrossOp, CrossReport
from watt_chain.contract.cross_objects import (
    TRANSIT_KEY,
    CrossIndex,
    CrossTerms,
    CrossTrade,
    Transit,
    cross_key,
    index_key,
    trade_id,
)
from watt_chain.contract.event import BEFORE_MATCH, State
from watt_chain.contract.market import Book, Leg
from watt_chain.contract.objects import MAIN_CHAIN, Account, AreaEvent, Pair, ResultRow
from watt_chain.contract.orders import PairState
from watt_chain.cross.tables import BUYER, BUYER_STOOD, SELLER, SELLER_STOOD, Buyer, Effect, Seller, Trigger

BLOCK_MESSAGES_MAX: Final = 768
"Messages of a block above which calls that send some are refused `busy`: what deadlines send still fits an anchor."
TO_SETTLE: Final = (State.MATCHED, State.CONFIRMED, State.DELIVERING, State.METERED)
"States of an event in which a bond is still needed: a penalty may be taken from it."


def trades_of(session: Session, event: int) -> list[CrossTrade]:
    """The area's halves of trades across areas, by number."""
    found = [session.need(key, CrossTrade) for key in session.state.keys(b"cross/%d/" % event)]
    return sorted(found, key=lambda one: one.terms.number)


def stood(trade: CrossTrade) -> bool:
    """Whether the trade was a contract, whatever came of it."""
    return trade.state in (BUYER_STOOD if trade.side == "buy" else SELLER_STOOD)


def standing_trades(session: Session, event: int) -> list[CrossTrade]:
    """Trades that were contracts, by number."""
    return [trade for trade in trades_of(session, event) if stood(trade)]


def are_undecided(trades: list[CrossTrade]) -> bool:
    """Whether the main chain's word on some trade is still to come."""
    return any(trade.state in (Buyer.LOCKED, Seller.ACCEPTED) for trade in trades)


def as_pair(trade: CrossTrade, event: AreaEvent) -> Pair:
    """The trade in the form of a confirmed pair, numbered behind the event's pairs."""
    terms = trade.terms
    return Pair(
        terms.event,
        event.pairs + terms.number,
        0,
        0,
        terms.seller,
        terms.buyer,
        terms.slot_wh,
        trade.limit_u_per_wh,
        terms.price_u_per_wh,
        terms.charge_u,
        0,
        0,
        0,
        0,
        PairState.CONFIRMED.value,
        0,
    )


@dataclass(slots=True)
class Desk:
    """Steps of trades of one event within one call, and what the call has to tell other chains."""

    session: Session
    event: AreaEvent
    _reports: list[tuple[int, bytes, str, int]] = field(default_factory=list)
    _locks: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)

    def step(self, trade: CrossTrade, trigger: Trigger, paid_u: int = 0) -> CrossTrade | None:
        """Move the trade as its table says, with all effects; None, and nothing done, when the table has no step.

        Refuses "balance" when a side cannot lock what the step asks for.
        """
        if trade.side == "buy":
            buyer = BUYER[Buyer(trade.state)].get(trigger)
            if buyer is None:
                return None
            goal, effects = buyer[0].value, buyer[1]
        else:
            seller = SELLER[Seller(trade.state)].get(trigger)
            if seller is None:
                return None
            goal, effects = seller[0].value, seller[1]
        trade = replace(trade, state=goal)
        if trigger in (Trigger.SETTLE, Trigger.SETTLED):
            trade = replace(trade, paid_u=paid_u)
        for effect in effects:
            trade = self._effect(trade, effect)
        self.session.put(cross_key(trade.terms.event, trade.terms.number), trade)
        return trade

    def flush(self, group: list[int] | None = None) -> None:
        """Send what the steps have left to say."""
        for target in sorted(self._locks):
            self.session.emit(target, "CrossLocked", CrossLocked(self.event.event, self._locks[target], group or []))
        if self._reports:
            self.session.emit(MAIN_CHAIN, "CrossReport", CrossReport(self.event.event, self._reports))  # type: ignore[arg-type]
        self._locks, self._reports = {}, []

    def _effect(self, trade: CrossTrade, effect: Effect) -> CrossTrade:
        match effect:
            case Effect.ESCROW:
                return self._lock(trade, _value_u(trade) + (trade.terms.charge_u + 1) // 2)
            case Effect.CONSUME:
                return self._lock(trade, trade.terms.charge_u // 2)
            case Effect.REFUND | Effect.RELEASE:
                return self.give_back(trade)
            case Effect.SPEND:
                return self._spend(trade)
            case Effect.CREDIT:
                self.session.move(trade.terms.seller, free_u=trade.paid_u)
                transit = transit_of(self.session)
                self.session.put(TRANSIT_KEY, replace(transit, received_u=transit.received_u + trade.paid_u))
                return trade
            case Effect.SEND_LOCKED:
                self._locks.setdefault(trade.terms.seller_chain, []).append((trade.terms.number, trade.id))
                return trade
            case Effect.SEND_ACCEPT | Effect.SEND_REJECT | Effect.SEND_RETURNED | Effect.SEND_PAY:
                self._reports.append((trade.terms.number, trade.id, _WORDS[effect], 0))
                return trade
            case Effect.SEND_SETTLED:
                self._reports.append((trade.terms.number, trade.id, "settled", trade.paid_u))
                return trade
        raise AssertionError(f"{effect} is no effect of an area")

    def _lock(self, trade: CrossTrade, escrow_u: int) -> CrossTrade:
        rules = self.session.rules(self.event.rules_version)
        bond_u = orders.bond_u(rules, trade.terms.energy_wh)
        refuse_if(self.session.account(trade.user).free_u < escrow_u + bond_u, "balance")
        self.session.move(trade.user, free_u=-escrow_u - bond_u, escrow_u=escrow_u, bond_u=bond_u)
        return replace(trade, escrow_u=escrow_u, bond_u=bond_u)

    def give_back(self, trade: CrossTrade) -> CrossTrade:
        """Escrow to free money; the bond too, unless the trade stood and its event still has to be settled."""
        keeps = stood(trade) and self.event.state in TO_SETTLE
        bond_u = 0 if keeps else trade.bond_u
        self.session.move(trade.user, free_u=trade.escrow_u + bond_u, escrow_u=-trade.escrow_u, bond_u=-bond_u)
        return replace(trade, escrow_u=0, bond_u=trade.bond_u - bond_u)

    def _spend(self, trade: CrossTrade) -> CrossTrade:
        """The payment leaves the area, the buyer's half of the charge goes to the grid, the rest is given back."""
        charge_u = (trade.terms.charge_u + 1) // 2
        assert trade.paid_u + charge_u <= trade.escrow_u, "the escrow at the limit price covers price and charge"
        self.session.move(trade.user, escrow_u=-trade.paid_u - charge_u)
        self.session.move(self.session.office("grid").id, free_u=charge_u)
        transit = transit_of(self.session)
        self.session.put(TRANSIT_KEY, replace(transit, sent_u=transit.sent_u + trade.paid_u))
        return self.give_back(replace(trade, escrow_u=trade.escrow_u - trade.paid_u - charge_u))


_WORDS: Final = {
    Effect.SEND_ACCEPT: "accept",
    Effect.SEND_REJECT: "reject",
    Effect.SEND_RETURNED: "returned",
    Effect.SEND_PAY: "pay",
}


def _value_u(trade: CrossTrade) -> int:
    return trade.limit_u_per_wh * trade.terms.energy_wh


def transit_of(session: Session) -> Transit:
    """Money that crossed the area's border so far."""
    return session.get(TRANSIT_KEY, Transit) or Transit(0, 0)


def not_busy(session: Session) -> None:
    """Refuses "busy" when the block already sends so much that nothing may be added."""
    refuse_if(len(session.state.messages()) >= BLOCK_MESSAGES_MAX, "busy")


# Calls -----------------------------------------------------------------------------------------------------------


def cross_op(session: Session, signer: Account, fields: CrossOp) -> None:
    """CrossOp(): the buyer locks, the seller consents, or either refuses (H10 to H13, H19).

    A buyer that names several trades locks them together. Whether they are in other areas was settled by the matching.
    """
    event = session.event_in(fields.event, State.MATCHED)
    refuse_if(sorted({*fields.trades}) != fields.trades, "order")
    trades = [_mine(session, signer, event.event, number) for number in fields.trades]
    sealed = session.sealed(event.event, signer.id)
    refuse_if(sealed is None or sealed.choice != "accept", "no-choice")
    refuse_if(fields.accept and signer.suspended, "suspended")
    not_busy(session)
    buys = trades[0].side == "buy"
    group = fields.trades if buys and len(trades) > 1 else []
    desk = Desk(session, event)
    for trade in trades:
        trigger = (Trigger.LOCK if buys else Trigger.CONSENT) if fields.accept else Trigger.DECLINE
        refuse_if(desk.step(replace(trade, group=group) if group else trade, trigger) is None, "decided")
    desk.flush(group)


def _mine(session: Session, signer: Account, event: int, number: int) -> CrossTrade:
    """A trade of the signer. Refuses "unknown-trade", "not-yours", "same-area"."""
    trade = session.get(cross_key(event, number), CrossTrade)
    if trade is None:
        refuse("unknown-trade")
    refuse_if(trade.user != signer.id, "not-yours")
    refuse_if(trade.terms.seller_chain == trade.terms.buyer_chain, "same-area")
    return trade


def decline_all(session: Session, event: AreaEvent, user: bytes) -> None:
    """The user refuses its matching result: its trades across areas go with it."""
    _step_all(session, event, Trigger.DECLINE, [one for one in trades_of(session, event.event) if one.user == user])


def lapse(session: Session, event: AreaEvent) -> None:
    """Confirmations are over, or the event is aborted: what is not locked or accepted by now never will be."""
    _step_all(session, event, Trigger.LAPSE, trades_of(session, event.event))


def _step_all(session: Session, event: AreaEvent, trigger: Trigger, trades: list[CrossTrade]) -> None:
    desk = Desk(session, event)
    for trade in trades:
        desk.step(trade, trigger)
    desk.flush()


# Messages --------------------------------------------------------------------------------------------------------


def trades_from(event: AreaEvent, book: Book, legs: list[Leg], network: bytes, chain: int) -> list[CrossTrade] | None:
    """The area's halves of the crossings that touch it; None when a price leaves what its own row bids."""
    found: list[CrossTrade] = []
    for leg in legs:
        row = book.offers[leg.row] if leg.side == "sell" else book.bids[leg.row]
        used = [price for price, wh in zip(leg.price_u_per_wh, leg.slot_wh, strict=True) if wh > 0]
        bound = row.price_u_per_wh
        if not used or (min(used) < bound if leg.side == "sell" else max(used) > bound):
            return None
        ends = (chain, row.user, leg.chain, leg.user) if leg.side == "sell" else (leg.chain, leg.user, chain, row.user)
        terms = CrossTerms(event.event, leg.number, *ends, leg.slot_wh, leg.price_u_per_wh, leg.charge_u)
        state = Seller.NONE.value if leg.side == "sell" else Buyer.NONE.value
        limit = 0 if leg.side == "sell" else bound
        found.append(CrossTrade(terms, trade_id(network, terms), leg.side, state, [], limit, 0, 0, 0))
    return found


def open_trades(session: Session, trades: list[CrossTrade]) -> None:
    """Write the area's halves, and for each user which are its own."""
    owned: dict[bytes, list[int]] = {}
    for trade in trades:
        session.put(cross_key(trade.terms.event, trade.terms.number), trade)
        owned.setdefault(trade.user, []).append(trade.terms.number)
        session.put(index_key(trade.terms.event, trade.user), CrossIndex(owned[trade.user]))


def take_news(session: Session, body: CrossNews) -> None:
    """What the main chain recorded; nothing that it says again, or too late, has an effect."""
    event = session.event(body.event)
    desk = Desk(session, event)
    for number, word, paid_u in body.trades:
        trade = session.get(cross_key(body.event, number), CrossTrade)
        if trade is None:
            continue
        moved = desk.step(trade, Trigger(word), paid_u)
        if moved is not None and moved.state == Seller.EFFECTIVE and event.state is State.ABORTED:
            desk.step(moved, Trigger.SETTLE_EMPTY)  # the event was given up here before the word came
    desk.flush()


def take_locks(session: Session, source: int, body: CrossLocked) -> None:
    """The buyer's area has locked the money of trades whose sellers live here.

    Refuses "early": the matching is still on its way here, and a lock that went by would be lost.
    """
    event = session.event(body.event)
    refuse_if(event.state in BEFORE_MATCH, "early")
    desk = Desk(session, event)
    for number, named in body.trades:
        trade = session.get(cross_key(body.event, number), CrossTrade)
        if trade is None or trade.id != named or trade.terms.buyer_chain != source or trade.side != "sell":
            continue  # another area's lie, or its mistake: it says nothing about a trade of ours
        desk.step(trade, Trigger.LOCKED)
    desk.flush()


def take_told_locks(session: Session, source: int, locked: list[tuple[int, int]]) -> None:
    """Locks of another area as the main chain has them anchored: (event, trade)."""
    for number, trade_number in locked:
        trade = session.get(cross_key(number, trade_number), CrossTrade)
        if trade is not None and trade.terms.buyer_chain == source and trade.side == "sell":
            _step_all(session, session.event(number), Trigger.LOCKED, [trade])


# Settlement ------------------------------------------------------------------------------------------------------


def settle(session: Session, event: AreaEvent, rows: dict[bytes, ResultRow], delivered: dict[int, list[int]]) -> None:
    """SettlementCredit: each effective trade of a seller comes to its price for what was delivered; the buyer's area
    is told through the main chain. `delivered` is by the number of `as_pair`, Wh per slot."""
    desk = Desk(session, event)
    for trade in standing_trades(session, event.event):
        if trade.side != "sell":
            continue
        if rows[trade.user].status == "unverified":
            desk.step(trade, Trigger.SETTLE_EMPTY)
            continue
        cells = delivered[event.pairs + trade.terms.number]
        paid_u = sum(price * wh for price, wh in zip(trade.terms.price_u_per_wh, cells, strict=True))
        desk.step(trade, Trigger.SETTLE, paid_u)
    desk.flush()


def close(session: Session, event: AreaEvent, rows: dict[bytes, ResultRow], grid: bytes) -> None:
    """SettlementAmount: what the trades came to enters the rows, the seller's charge is paid, bonds are free."""
    for trade in standing_trades(session, event.event):
        row = rows[trade.user]
        terms = trade.terms
        if trade.state in (Seller.SETTLED, Seller.CREDITED):
            charge_u = terms.charge_u // 2
            session.move(trade.user, escrow_u=-charge_u)
            session.move(grid, free_u=charge_u)
            trade = replace(trade, escrow_u=trade.escrow_u - charge_u)
            row = replace(row, traded_u=row.traded_u + trade.paid_u, charge_u=row.charge_u + charge_u)
        elif trade.state == Buyer.PAID:
            charge_u = (terms.charge_u + 1) // 2
            row = replace(row, traded_u=row.traded_u - trade.paid_u, charge_u=row.charge_u + charge_u)
        rows[trade.user] = row
        session.move(trade.user, free_u=trade.bond_u, bond_u=-trade.bond_u)
        session.put(cross_key(terms.event, terms.number), replace(trade, bond_u=0))


def abandon(session: Session, event: AreaEvent) -> None:
    """The event is aborted here: open trades lapse, effective ones of sellers come to nothing, bonds are free.

    `event` is already ABORTED. Money that waits for the main chain's word goes on waiting for it.
    """
    desk = Desk(session, event)
    for trade in trades_of(session, event.event):
        moved = desk.step(trade, Trigger.LAPSE) or desk.step(trade, Trigger.SETTLE_EMPTY) or trade
        if stood(moved) and moved.state != Buyer.BOUND:
            moved = desk.give_back(moved)
        elif stood(moved):
            session.move(moved.user, free_u=moved.bond_u, bond_u=-moved.bond_u)
            moved = replace(moved, bond_u=0)
        session.put(cross_key(event.event, moved.terms.number), moved)
    desk.flush()


def result_leaves(session: Session, event: int) -> list[bytes]:
    """What the result root says of trades across areas: [number, side, came about, paid_u], by number.

    "came about" is settled, returned or ended. Whether the payment of a settled one has arrived is not in it: the root
    must not depend on when.
    """
    words = {
        Buyer.PAID.value: "settled",
        Seller.SETTLED.value: "settled",
        Seller.CREDITED.value: "settled",
        Buyer.RETURNED.value: "returned",
        Seller.RETURNED.value: "returned",
    }
    found: list[bytes] = []
    for trade in trades_of(session, event):
        word = words.get(trade.state, "ended")
        paid_u = trade.paid_u if word == "settled" else 0
        found.append(codec.encode([trade.terms.number, trade.side, word, paid_u]))
    return found
