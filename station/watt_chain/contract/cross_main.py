"""Trades across areas on the main chain: made from the certified matching, at most one outcome each, money counted.

The main chain takes what areas say only from anchored blocks, which the masters have executed again. Whatever it
records of a trade is told to both areas in one message per event and call.  An area cannot send out more than it was
given (`position/<chain>`), nor lock more than its rate in one event: a lock above either ends its trade.
Source: ledger.md 6.3, 6.5; model.md rows H16, H24, B34.
"""

from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from watt_chain import codec
from watt_chain.block import OutMessage
from watt_chain.contract import validators
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.cross_kinds import CrossEnd, CrossLocked, CrossNews, CrossReport, Endow, Partner
from watt_chain.contract.cross_objects import (
    CROSSINGS_MAX,
    CrossTerms,
    Lane,
    MainTrade,
    Position,
    cross_key,
    kill_after_s,
    lane_key,
    position_key,
    trade_id,
)
from watt_chain.contract.market import Book, Solution
from watt_chain.contract.objects import ELECTION_KEY, Account, MainEvent, event_key
from watt_chain.cross.tables import BEACON, UNDECIDED, Beacon, Effect, Trigger
from watt_chain.election import Election

_OF_SELLER: Final = ("accept", "reject", "settled", "returned")


def trades_of(session: Session, event: int) -> list[MainTrade]:
    """All trades across areas of an event, by number."""
    found = [session.need(key, MainTrade) for key in session.state.keys(b"cross/%d/" % event)]
    return sorted(found, key=lambda one: one.terms.number)


def position(session: Session, chain: int) -> Position:
    """What an area may send out; nothing before the grid company says what it has paid in."""
    return session.get(position_key(chain), Position) or Position(0, 0, 0, 0, 0, 0, 0, "")


@dataclass(slots=True)
class Docket:
    """Steps of trades within one call, and the news of them for each area."""

    session: Session
    _news: dict[tuple[int, int], list[tuple[int, str, int]]] = field(default_factory=dict)

    def step(self, trade: MainTrade, trigger: Trigger, paid_u: int = 0, reason: str = "") -> MainTrade | None:
        """Move a trade as the table says, with all effects; None, and nothing done, when the table has no step."""
        step = BEACON[Beacon(trade.state)].get(trigger)
        if step is None:
            return None
        goal, effects = step
        trade = replace(trade, state=goal.value, reason=reason or trade.reason)
        if trigger is Trigger.SETTLED:
            trade = replace(trade, paid_u=paid_u)
        for effect in effects:
            self._effect(trade, goal, effect)
        self.session.put(cross_key(trade.terms.event, trade.terms.number), trade)
        if goal in (Beacon.REJECT, Beacon.KILL):
            self._end_together(trade)
        elif goal is Beacon.READY:
            self._complete(trade)
        return trade

    def end(self, trade: MainTrade, reason: str) -> bool:
        """KILL a trade without outcome, VOID one that was never settled; whether there was anything to end."""
        trigger = Trigger.VOID if trade.state == Beacon.ACCEPT else Trigger.KILL
        return self.step(trade, trigger, reason=reason) is not None

    def flush(self) -> None:
        """Tell the areas, lower chain first."""
        for chain, event in sorted(self._news):
            self.session.emit(chain, "CrossNews", CrossNews(event, self._news[chain, event]))  # type: ignore[arg-type]
        self._news = {}

    def _effect(self, trade: MainTrade, goal: Beacon, effect: Effect) -> None:
        terms = trade.terms
        match effect:
            case Effect.RESERVE:
                held = _of_event(position(self.session, terms.buyer_chain), terms.event)
                held = replace(held, rate_locked_u=held.rate_locked_u + trade.value_u)
                self.session.put(position_key(terms.buyer_chain), replace(held, locked_u=held.locked_u + trade.value_u))
            case Effect.UNRESERVE:
                held = position(self.session, terms.buyer_chain)
                self.session.put(position_key(terms.buyer_chain), replace(held, locked_u=held.locked_u - trade.value_u))
            case Effect.TRANSFER:
                giver, taker = (position(self.session, chain) for chain in (terms.buyer_chain, terms.seller_chain))
                left = replace(giver, locked_u=giver.locked_u - trade.value_u, out_u=giver.out_u + trade.paid_u)
                self.session.put(position_key(terms.buyer_chain), left)
                self.session.put(position_key(terms.seller_chain), replace(taker, in_u=taker.in_u + trade.paid_u))
            case Effect.SEND_OUTCOME:
                word = _WORDS[goal]
                self._tell(trade, terms.buyer_chain, word)
                self._tell(trade, terms.seller_chain, word)
            case Effect.SEND_SETTLED | Effect.SEND_RETURNED:
                self._tell(trade, terms.buyer_chain, "settled" if effect is Effect.SEND_SETTLED else "returned")
            case Effect.SEND_PAY:
                self._tell(trade, terms.seller_chain, "pay")
            case _:
                raise AssertionError(f"{effect} is no effect of the main chain")

    def _tell(self, trade: MainTrade, chain: int, word: str) -> None:
        paid_u = trade.paid_u if word in ("settled", "pay") else 0
        self._news.setdefault((chain, trade.terms.event), []).append((trade.terms.number, word, paid_u))

    def _group(self, trade: MainTrade) -> list[MainTrade]:
        return [self.session.need(cross_key(trade.terms.event, number), MainTrade) for number in trade.group]

    def _end_together(self, ended: MainTrade) -> None:
        for other in self._group(ended):
            if other.state in UNDECIDED:
                self.step(other, Trigger.KILL, reason="together")

    def _complete(self, ready: MainTrade) -> None:
        group = self._group(ready)
        if all(one.state == Beacon.READY for one in group):
            for one in group:
                self.step(one, Trigger.ALL_READY)


_WORDS: Final = {
    Beacon.ACCEPT: "anchored-accept",
    Beacon.REJECT: "anchored-end",
    Beacon.KILL: "anchored-end",
    Beacon.VOID: "void",
}


def _of_event(held: Position, event: int) -> Position:
    return held if held.event == event else replace(held, event=event, rate_locked_u=0)


# From the matching -------------------------------------------------------------------------------------------------


def check_crossings(session: Session, solution: Solution) -> None:
    """What the market's certificate does not say of crossings (H13). Refuses "across-...", the first that fails."""
    crossings = [] if solution.across is None else solution.across.crossings
    refuse_if(len(crossings) > CROSSINGS_MAX, "across-many")
    for crossing in crossings:
        chains = (crossing.offer_chain, crossing.bid_chain)
        refuse_if(chains[0] == chains[1], "across-same-area")
        refuse_if(any(position(session, chain).quarantine for chain in chains), "across-quarantine")


def open_trades(session: Session, event: MainEvent, solution: Solution, books: list[Book]) -> None:
    """Make a trade of every crossing of the matching that stands, before the areas get their legs of it."""
    if solution.across is None:
        return
    rules = session.rules(event.rules_version)
    known = {book.chain: book for book in books}
    for number, crossing in enumerate(solution.across.crossings, start=1):
        offers, bids = known[crossing.offer_chain], known[crossing.bid_chain]
        agreed = session.market.crossing_terms(offers, bids, crossing, event.spec, rules)
        bid = bids.bids[crossing.bid]
        terms = CrossTerms(
            event.event,
            number,
            crossing.offer_chain,
            offers.offers[crossing.offer].user,
            crossing.bid_chain,
            bid.user,
            crossing.slot_wh,
            agreed.price_u_per_wh,
            agreed.charge_u,
        )
        named = trade_id(session.context.network, terms)
        value_u = bid.price_u_per_wh * terms.energy_wh
        session.put(cross_key(event.event, number), MainTrade(terms, named, Beacon.NONE.value, [], value_u, 0, ""))
        if not _has_told(session, crossing.bid_chain, crossing.offer_chain):
            _introduce(session, crossing.bid_chain, crossing.offer_chain)


def _has_told(session: Session, source: int, target: int) -> bool:
    """Whether an area was told a list of another that is in force from where the present one is."""
    lane = session.get(lane_key(source, target), Lane)
    return lane is not None and lane.told_from == validators.known_list(session, source).from_height


def _introduce(session: Session, source: int, target: int) -> None:
    """Tell the seller's area who certifies the blocks of the buyer's."""
    lane = session.get(lane_key(source, target), Lane) or Lane(0, 0)
    known = validators.known_list(session, source)
    locked = [
        (trade.terms.event, trade.terms.number)
        for number in session.open_events().numbers
        for trade in trades_of(session, number)
        if (trade.terms.buyer_chain, trade.terms.seller_chain) == (source, target)
        and trade.state in (Beacon.LOCKED, Beacon.READY)
    ]
    seed = session.need(ELECTION_KEY, Election).seed
    body = Partner(source, known.from_height, known.validators, lane.sequence, locked, seed)
    session.emit(target, "Partner", body)
    session.put(lane_key(source, target), replace(lane, told_from=known.from_height))


def introduce_again(session: Session, source: int) -> None:
    """The validators of an area have changed, and the block that said so is taken in whole: tell its partners.

    Whatever they were told: the regulator's list begins after the last anchored block, as the list before may have.
    """
    for key in session.state.keys(b"lane/%d/" % source):
        if session.need(key, Lane).told_from:
            _introduce(session, source, int(key.rsplit(b"/", 1)[1]))


# From anchored blocks ----------------------------------------------------------------------------------------------


def pass_message(session: Session, docket: Docket, message: OutMessage) -> None:
    """A message of an anchored block to another area: counted, and its locks noted. Refuses "sequence", "message"."""
    key = lane_key(message.source_chain, message.target_chain)
    lane = session.get(key, Lane) or Lane(0, 0)
    refuse_if(message.sequence != lane.sequence + 1, "sequence")
    session.put(key, replace(lane, sequence=message.sequence))
    try:
        body = codec.decode(message.body, CrossLocked)
    except codec.DecodeError:
        refuse("message")
    refuse_if(message.kind != "CrossLocked", "message")
    for number, named in body.trades:
        trade = _named(session, body.event, number, named)
        if trade is None or trade.terms.buyer_chain != message.source_chain:
            continue
        if body.group and not _is_group(session, trade, body.group):
            continue
        _lock(session, docket, trade, body.group)


def _named(session: Session, event: int, number: int, named: bytes) -> MainTrade | None:
    trade = session.get(cross_key(event, number), MainTrade)
    return trade if trade is not None and trade.id == named else None


def _is_group(session: Session, trade: MainTrade, group: list[int]) -> bool:
    """Whether these are trades of one buyer, this one among them, and no other group has one of them."""
    if trade.terms.number not in group:
        return False
    for number in group:
        other = session.get(cross_key(trade.terms.event, number), MainTrade)
        if other is None or (other.terms.buyer_chain, other.terms.buyer) != (
            trade.terms.buyer_chain,
            trade.terms.buyer,
        ):
            return False
        if other.group not in ([], group):
            return False
    return True


def _lock(session: Session, docket: Docket, trade: MainTrade, group: list[int]) -> None:
    held = _of_event(position(session, trade.terms.buyer_chain), trade.terms.event)
    value_u = trade.value_u
    reason = held.quarantine and "quarantine"
    if held.locked_u + held.out_u + value_u > held.endowed_u + held.in_u:
        reason = reason or "bound"
    if held.rate_locked_u + value_u > held.rate_u:
        reason = reason or "rate"
    trade = replace(trade, group=group)
    if reason:
        docket.step(trade, Trigger.OVER, reason=reason)
    elif group and trade.state == Beacon.ACCEPTED:
        docket.step(trade, Trigger.JOIN)
    else:
        docket.step(trade, Trigger.LOCKED)


def take_report(session: Session, docket: Docket, chain: int, body: CrossReport) -> None:
    """What an area did with its halves of trades; what does not fit the trade's state or sides has no effect."""
    for number, named, word, paid_u in body.trades:
        trade = _named(session, body.event, number, named)
        if trade is None:
            continue
        terms = trade.terms
        if chain != (terms.seller_chain if word in _OF_SELLER else terms.buyer_chain) or paid_u > trade.value_u:
            continue
        joins = word == "accept" and trade.group and trade.state == Beacon.LOCKED
        docket.step(trade, Trigger.JOIN if joins else Trigger(word), paid_u)


def end_of_area(session: Session, docket: Docket, event: int, chain: int, reason: str) -> None:
    """An area is out of the event: its trades without outcome end at once. One that it owes a settlement it settles as
    empty by itself, or it is void in the end."""
    for trade in trades_of(session, event):
        if trade.state in UNDECIDED and chain in (trade.terms.seller_chain, trade.terms.buyer_chain):
            docket.end(session.need(cross_key(event, trade.terms.number), MainTrade), reason)


# Calls -------------------------------------------------------------------------------------------------------------


def endow(session: Session, signer: Account, fields: Endow) -> None:
    """Endow: what the grid company has paid into an area, in all, and what its buyers may lock in one event."""
    chain = fields.chain
    refuse_if(chain not in areas_of(session), "chain")
    held = position(session, chain)
    refuse_if(fields.endowed_u + held.in_u < held.out_u + held.locked_u, "below")
    session.put(position_key(chain), replace(held, endowed_u=fields.endowed_u, rate_u=fields.rate_u))


def areas_of(session: Session) -> list[int]:
    """Chain numbers of the areas."""
    return [int(key.rsplit(b"/", 1)[1]) for key in session.state.keys(b"anchor/")]


def end_overdue(session: Session, signer: Account, fields: CrossEnd) -> None:
    """CrossEnd: anybody may end what the main chain's deadlines have passed; money never waits for ever (H16)."""
    event = session.get(event_key(fields.event), MainEvent)
    if event is None:
        refuse("unknown-event")
    now_s = session.context.time_s
    docket = Docket(session)
    ended = 0
    for trade in trades_of(session, event.event):
        due_s = kill_after_s(event.spec) if trade.state in UNDECIDED else event.spec.settle_by_s
        if now_s >= due_s:
            ended += docket.end(session.need(cross_key(event.event, trade.terms.number), MainTrade), "late")
    refuse_if(not ended, "early")
    docket.flush()


def close(session: Session, event: MainEvent) -> None:
    """The main chain prices an event: no trade of it is left without an end, and areas hear that before the prices."""
    docket = Docket(session)
    for trade in trades_of(session, event.event):
        docket.end(session.need(cross_key(event.event, trade.terms.number), MainTrade), "unsettled")
    docket.flush()
