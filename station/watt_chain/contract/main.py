"""The contract of the main chain: events, matching of anchored books, lower-level prices, anchors of the areas.

The main chain sees no household: it holds every area's book and reports, decides, and sends each area its part.
What it tells an area leaves by the outbox; what an area tells it comes in with the area's certified blocks, one by one
and in sequence (Anchor).  Source: paper section 4.1 and 5; design.md section 6; model.md 1.5, rows B16, B34, B39, H24.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace
from watt_wire import merkle

from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Header, OutMessage, block_hash
from watt_chain.contract import contest, cross_guard, cross_main, tickets, validators
from watt_chain.contract.access import Refused, Session, refuse, refuse_if
from watt_chain.contract.area import ELECTION, Function, Keeper, dispatch, genesis_context
from watt_chain.contract.bidding import book_root
from watt_chain.contract.contest import advance, halfway, main_event
from watt_chain.contract.cross_kinds import Beacon, CrossReport
from watt_chain.contract.event import EventSpec, MainTrigger, State, check_spec
from watt_chain.contract.inbox import RULES_SIZE_MAX
from watt_chain.contract.kinds import (
    Anchor,
    Announced,
    BookClosed,
    EventCall,
    EventClosed,
    Initial,
    Matched,
    MatchRefused,
    Metered,
    Prices,
    RuleSetActive,
    RuleSetChange,
)
from watt_chain.contract.market import Book, Market
from watt_chain.contract.objects import (
    ELECTION_KEY,
    LAST_STATES,
    MAIN_CHAIN,
    OPEN_KEY,
    RULES_KEY,
    Account,
    AnchorState,
    AreaReport,
    MainEvent,
    OpenEvents,
    RulesIndex,
    anchor_key,
    event_key,
    main_book_key,
    rules_key,
)
from watt_chain.contract.proofs import open_body, proven_header
from watt_chain.contract.registration import found
from watt_chain.contract.rules import RuleSet, check_rule_set
from watt_chain.election import Election
from watt_chain.genesis import Genesis, list_hash, network_of
from watt_chain.ledger import BlockContext
from watt_chain.state import State as ChainState
from watt_chain.transaction import DecodedTransaction


class MainContract(Keeper):
    """watt_chain.ledger.Contract for the main chain."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def genesis(self, state: ChainState, genesis: Genesis, chain: int) -> None:
        """Write the first state. Raises ValueError when the genesis document cannot be used."""
        session = Session(state, genesis_context(genesis, chain), self._market)
        found(session, genesis, chain)
        session.put(AREAS_KEY, Areas([area.chain for area in genesis.areas]))
        for area in genesis.areas:
            session.put(anchor_key(area.chain), AnchorState(0, network_of(genesis), 0))

    def begin(self, state: ChainState, context: BlockContext) -> None:
        """A term may turn; rule sets whose height has come become active; unmatched events are aborted in time."""
        session = Session(state, context, self._market)
        tickets.begin(session)
        validators.begin(session, session.need(AREAS_KEY, Areas).chains)
        _activate_rules(session)
        for number in session.open_events().numbers:
            event = main_event(session, number)
            if event.state is State.ANNOUNCED:
                contest.pass_deadlines(session, event)

    def execute(self, state: ChainState, context: BlockContext, tx: DecodedTransaction) -> str:
        """Run one call; "" or the reject reason, and then the state is as before."""
        mark = state.savepoint()
        try:
            dispatch(Session(state, context, self._market), "main", FUNCTIONS, tx)
        except Refused as refusal:
            state.rollback(mark)
            return refusal.reason
        return ""


class Areas(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """areas: chain numbers of the areas, in the order of the genesis file."""

    chains: list[int]


AREAS_KEY: Final = b"areas"


# Rules ------------------------------------------------------------------------------------------------------


def change_rules(session: Session, signer: Account, fields: RuleSetChange) -> None:
    """RuleSet (A13, U29): signed by the regulator, active from a future height of the main chain."""
    try:
        rules = codec.decode(fields.rules, RuleSet, RULES_SIZE_MAX)
    except codec.DecodeError:
        refuse("malformed")
    reason = check_rule_set(rules)
    if reason:
        refuse(reason)
    known = session.get(rules_key(rules.version), RuleSet)
    refuse_if(known is not None and known != rules, "version")  # a version names one text, for ever
    refuse_if(fields.active_from_height <= session.context.height, "height")
    session.put(rules_key(rules.version), rules)
    index = session.rules_index()
    pending = [*index.pending, (rules.version, fields.active_from_height)]
    session.put(RULES_KEY, RulesIndex(index.active, sorted(pending, key=lambda one: one[1])))


def _activate_rules(session: Session) -> None:
    index = session.rules_index()
    due = [version for version, height in index.pending if height <= session.context.height]
    if not due:
        return
    session.put(RULES_KEY, RulesIndex(due[-1], index.pending[len(due) :]))
    body = RuleSetActive(codec.encode(session.rules(due[-1])))
    for chain in session.need(AREAS_KEY, Areas).chains:
        session.emit(chain, "RuleSet", body)


# The event --------------------------------------------------------------------------------------------------


def initial(session: Session, signer: Account, fields: Initial) -> None:
    """Initial(): announce an event to every area (J4, A5)."""
    spec = fields.spec
    rules = session.rules()
    reason = check_spec(spec, rules.price_cap_u_per_wh)
    if reason:
        refuse(reason)
    refuse_if(spec.kind == "valley" and not rules.valley, "valley")
    opened = session.open_events()
    refuse_if(spec.event != opened.last + 1, "event-number")
    refuse_if(spec.commit_close_s <= session.context.time_s, "late")
    for number in opened.numbers:
        other = main_event(session, number).spec
        apart = spec.window_end_s < other.window_start_s or other.window_end_s < spec.window_start_s
        refuse_if(not apart, "overlap")
    nothing = [0] * spec.slots
    chains = session.need(AREAS_KEY, Areas).chains
    barred = {chain: cross_main.position(session, chain).quarantine != "" for chain in chains}
    reports = [
        AreaReport(chain, "refused", codec.ZERO32, nothing, nothing, codec.ZERO32, cross_guard.QUARANTINE)
        if barred[chain]
        else AreaReport(chain, "waiting", codec.ZERO32, nothing, nothing, codec.ZERO32, "")
        for chain in chains
    ]
    event = MainEvent(spec.event, State.ANNOUNCED, rules.version, spec, reports, 0, 0, 0, nothing, [], [])
    session.put(event_key(spec.event), event)
    session.put(OPEN_KEY, OpenEvents([*opened.numbers, spec.event], spec.event))
    for chain in chains:
        if not barred[chain]:
            session.emit(chain, "Initial", Announced(spec, rules.version))


def settle_amount(session: Session, signer: Account, fields: EventCall) -> None:
    """SettlementAmount() of the grid: the lower level. R_t = max(0, sum of over - under); its dual is the price.

    Every slice's area must have reported its metering, or half the time between meter_close and settle_by is over.
    """
    event = main_event(session, fields.event)
    refuse_if(event.state is not State.MATCHED, "stage")
    awaited = any(report.state in ("sliced", "matched") for report in event.areas)
    half_s = halfway(event.spec.meter_close_s, event.spec.settle_by_s)
    refuse_if(awaited and session.context.time_s < half_s, "not-metered")
    need_wh = [
        max(0, sum(report.over_wh[slot] - report.under_wh[slot] for report in event.areas))
        for slot in range(event.spec.slots)
    ]
    rules = session.rules(event.rules_version)
    dispatches = session.market.dispatch(event.spec.units, need_wh, rules)
    wrong = session.market.check_dispatch(event.spec.units, need_wh, dispatches, rules)
    refuse_if(wrong != "" or len(dispatches) != event.spec.slots, "dispatch")
    prices = [one.lambda_u_per_wh for one in dispatches]
    costs = [one.cost_u for one in dispatches]
    cross_main.close(session, event)
    for report in event.areas:
        if report.state not in LAST_STATES:
            session.emit(report.chain, "Prices", Prices(event.event, prices, need_wh, costs))
            if rules.crossings:  # what nobody could choose, for the draw of the areas' cross-nodes
                session.emit(report.chain, "Beacon", Beacon(event.event, session.need(ELECTION_KEY, Election).seed))
    settled = replace(event, need_wh=need_wh, lambda_u_per_wh=prices, cost_u=costs)
    advance(session, settled, MainTrigger.SETTLEMENT_AMOUNT)


# Anchors ----------------------------------------------------------------------------------------------------


def anchor(session: Session, signer: Account, fields: Anchor) -> None:
    """Take in the next certified block of an area and every message it has for the main chain (B34, B39)."""
    try:
        chain = codec.decode(fields.header, Header, HEADER_SIZE_MAX).chain
    except codec.DecodeError:
        refuse("proof")
    last = session.get(anchor_key(chain), AnchorState)
    if last is None:
        refuse("chain")
    refuse_if(cross_main.position(session, chain).quarantine != "", "quarantine")
    header = codec.decode(fields.header, Header, HEADER_SIZE_MAX)
    refuse_if(header.height <= last.height, "stale")
    refuse_if(header.height != last.height + 1, "height")
    refuse_if(header.previous != last.block_hash, "previous")
    proven_header(session, chain, fields.header, fields.certificate)
    leaves = [merkle.leaf_hash(message) for message in fields.messages]
    refuse_if(merkle.root(leaves) != header.outbox_root, "outbox")
    sequence, docket = last.sequence, cross_main.Docket(session)
    for encoded in fields.messages:
        try:
            message = codec.decode(encoded, OutMessage)
        except codec.DecodeError:
            refuse("message")
        refuse_if(message.source_chain != chain, "sequence")
        if message.target_chain != MAIN_CHAIN:
            cross_main.pass_message(session, docket, message)
            continue
        refuse_if(message.sequence != sequence + 1, "sequence")
        sequence += 1
        if message.kind == "Validators":
            validators.follow(session, header, message)
        elif message.kind == "CrossReport":
            body = open_body(message, CrossReport)
            assert isinstance(body, CrossReport)
            cross_main.take_report(session, docket, chain, body)
        else:
            _take_message(session, docket, chain, message)
    docket.flush()
    # CONSENSUS.md 8.5: a block after which others certify carries their list, or nothing of the chain counts any more.
    known = validators.known_list(session, chain)
    refuse_if(list_hash(known.validators) != header.next_validators, "message")
    if known.from_height == header.height + 1:
        cross_main.introduce_again(session, chain)
    session.put(
        anchor_key(chain), AnchorState(header.height, block_hash(session.context.network, fields.header), sequence)
    )


def _take_message(session: Session, docket: cross_main.Docket, chain: int, message: OutMessage) -> None:
    """One report of an area about an event; a report that comes too late for the event is taken without effect."""
    known = REPORTS.get(message.kind)
    if known is None:
        refuse("message")
    kind, handler = known
    body = open_body(message, kind)
    number: int = body.event  # type: ignore[attr-defined]  # every kind in REPORTS begins with its event
    event = main_event(session, number)
    position = next(index for index, report in enumerate(event.areas) if report.chain == chain)
    changed = handler(session, event, event.areas[position], body)
    if changed is None:
        return
    reports = [changed if index == position else report for index, report in enumerate(event.areas)]
    event = replace(event, areas=reports)
    session.put(event_key(number), event)
    if changed.state == "refused":
        cross_main.end_of_area(session, docket, number, chain, "area")
    contest.end_if_reported(session, event)


def _book_closed(session: Session, event: MainEvent, report: AreaReport, body: msgspec.Struct) -> AreaReport | None:
    assert isinstance(body, BookClosed)
    if event.state is not State.ANNOUNCED or report.state != "waiting":
        return None
    try:
        book = codec.decode(body.book, Book)
    except codec.DecodeError:
        refuse("message")
    right = book.event == event.event and book.chain == report.chain and book_root(book) == body.book_root
    refuse_if(not right, "message")
    session.put(main_book_key(event.event, report.chain), book)
    return replace(report, state="booked", book_root=body.book_root)


def _matched(session: Session, event: MainEvent, report: AreaReport, body: msgspec.Struct) -> AreaReport | None:
    return replace(report, state="matched") if report.state == "sliced" else None


def _match_refused(session: Session, event: MainEvent, report: AreaReport, body: msgspec.Struct) -> AreaReport | None:
    assert isinstance(body, MatchRefused)
    return None if report.state in LAST_STATES else replace(report, state="refused", reason=body.reason)


def _metered(session: Session, event: MainEvent, report: AreaReport, body: msgspec.Struct) -> AreaReport | None:
    assert isinstance(body, Metered)
    if report.state not in ("sliced", "matched"):
        return None
    refuse_if(
        not _is_energy_list(event.spec, body.over_wh) or not _is_energy_list(event.spec, body.under_wh), "message"
    )
    return replace(report, state="metered", over_wh=body.over_wh, under_wh=body.under_wh)


def _is_energy_list(spec: EventSpec, values: Sequence[int]) -> bool:
    return len(values) == spec.slots and min(values) >= 0 and max(values) <= 2**50


def _event_closed(session: Session, event: MainEvent, report: AreaReport, body: msgspec.Struct) -> AreaReport | None:
    assert isinstance(body, EventClosed)
    return None if report.state in LAST_STATES else replace(report, state="closed", result_root=body.result_root)


Report = Callable[[Session, MainEvent, AreaReport, msgspec.Struct], AreaReport | None]

REPORTS: Final[dict[str, tuple[type[msgspec.Struct], Report]]] = {
    "BookClosed": (BookClosed, _book_closed),
    "Matched": (Matched, _matched),
    "MatchRefused": (MatchRefused, _match_refused),
    "Metered": (Metered, _metered),
    "EventClosed": (EventClosed, _event_closed),
}

FUNCTIONS: Final[dict[str, Function]] = {
    **ELECTION,
    "Anchor": anchor,
    "RuleSet": change_rules,
    "Initial": initial,
    "Match": contest.match,
    "SettlementAmount": settle_amount,
    "Validators": validators.change,
    "Endow": cross_main.endow,
    "CrossEnd": cross_main.end_overdue,
    "Fork": cross_guard.fork,
    "Refute": cross_guard.refute,
    "Readmit": cross_guard.readmit,
}
