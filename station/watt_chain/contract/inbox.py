"""The only way into an area from outside: messages of another chain, in sequence, each with a proof.

A message counts because a quorum of that chain's validators certified the block whose outbox root holds it. Each
source has a cursor, which admits sequence numbers one by one; a message is consumed exactly once, and one that comes
too late for its event is consumed without effect.  From another area only locks of trades are taken, and only when the
main chain has said who certifies its blocks.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace
from watt_wire import merkle

from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Header, OutMessage, block_hash
from watt_chain.contract import cross_area, cross_seats, matching, validators
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.cross_kinds import Beacon, CrossLocked, CrossNews, Partner
from watt_chain.contract.cross_objects import source_key
from watt_chain.contract.event import TRANSITIONS, State, Trigger
from watt_chain.contract.kinds import Abort, Announced, AreaMatch, Inbox, Prices, RuleSetActive
from watt_chain.contract.objects import (
    INBOX_KEY,
    MAIN_CHAIN,
    OPEN_KEY,
    RULES_KEY,
    Account,
    AreaEvent,
    InboxCursor,
    KnownList,
    OpenEvents,
    RulesIndex,
    event_key,
    known_list_key,
    rules_key,
)
from watt_chain.contract.proofs import open_body, proven_header
from watt_chain.contract.rules import RuleSet

RULES_SIZE_MAX: Final = 4096


def take_messages(session: Session, signer: Account, fields: Inbox) -> None:
    """Consume consecutive messages of one block of the main chain, or of another area that trades with this one."""
    try:
        source = codec.decode(fields.header, Header, HEADER_SIZE_MAX).chain
    except codec.DecodeError:
        refuse("proof")
    refuse_if(source != MAIN_CHAIN and session.get(known_list_key(source), KnownList) is None, "proof")
    cross_area.not_busy(session)
    key = INBOX_KEY if source == MAIN_CHAIN else source_key(source)
    cursor = session.get(key, InboxCursor) or InboxCursor(0, 0, codec.ZERO32)
    hash_ = block_hash(session.context.network, fields.header)
    if hash_ == cursor.hash:  # more of the block that was proven last
        header = codec.decode(fields.header, Header, HEADER_SIZE_MAX)
    else:
        header = proven_header(session, source, fields.header, fields.certificate)
        first = validators.known_list(session, source).from_height if source != MAIN_CHAIN else 0
        refuse_if(header.height <= cursor.height or header.height < first, "stale")
    sequence = cursor.sequence
    for entry in fields.entries:
        leaf = merkle.leaf_hash(entry.message)
        proven = merkle.verify_proof(leaf, entry.index, fields.size, entry.path, header.outbox_root)
        refuse_if(not proven, "proof")
        try:
            message = codec.decode(entry.message, OutMessage)
        except codec.DecodeError:
            refuse("message")
        refuse_if((message.source_chain, message.target_chain) != (source, session.context.chain), "sequence")
        refuse_if(message.sequence != sequence + 1, "sequence")
        sequence += 1
        if source != MAIN_CHAIN:
            _take_of_area(session, source, message)
            cross_seats.note_carried(session, signer, message.sequence)
        elif message.kind == "Validators":
            validators.follow(session, header, message)
        else:
            _take_of_main(session, message)
    session.put(key, InboxCursor(sequence, header.height, hash_))


def _take_of_main(session: Session, message: OutMessage) -> None:
    # A kind we do not know stops the inbox: skipping what the main chain decided would split the network's state.
    known = MESSAGES.get(message.kind)
    if known is None:
        refuse("message")
    body, handler = known
    handler(session, open_body(message, body))


def _take_of_area(session: Session, source: int, message: OutMessage) -> None:
    refuse_if(message.kind != "CrossLocked", "message")
    body = open_body(message, CrossLocked)
    assert isinstance(body, CrossLocked)
    cross_area.take_locks(session, source, body)


def _rule_set(session: Session, body: msgspec.Struct) -> None:
    assert isinstance(body, RuleSetActive)
    try:
        rules = codec.decode(body.rules, RuleSet, RULES_SIZE_MAX)
    except codec.DecodeError:
        refuse("message")
    session.put(rules_key(rules.version), rules)
    session.put(RULES_KEY, RulesIndex(rules.version, []))


def _initial(session: Session, body: msgspec.Struct) -> None:
    """Initial(): the demand signal reaches the area's users (J4)."""
    assert isinstance(body, Announced)
    spec = body.spec
    opened = session.open_events()
    if spec.event <= opened.last:
        return
    refuse_if(session.get(rules_key(body.rules_version), RuleSet) is None, "message")
    event = AreaEvent(
        event=spec.event,
        state=State.ANNOUNCED,
        open=False,
        rules_version=body.rules_version,
        spec=spec,
        book_root=codec.ZERO32,
        rho_scaled=0,
        pairs=0,
        lambda_u_per_wh=[],
        mean_price_u_per_wh=0,
        incentives_done=False,
        punish_done=False,
        result_root=codec.ZERO32,
        reason="",
    )
    session.put(event_key(spec.event), event)
    session.put(OPEN_KEY, OpenEvents([*opened.numbers, spec.event], spec.event))


def _match(session: Session, body: msgspec.Struct) -> None:
    assert isinstance(body, AreaMatch)
    matching.take_slice(session, body)


def _prices(session: Session, body: msgspec.Struct) -> None:
    """The lower level's prices; the first that arrive stand."""
    assert isinstance(body, Prices)
    event = session.event(body.event)
    if event.lambda_u_per_wh or event.state in (State.CLOSED, State.ABORTED):
        return
    session.put(event_key(event.event), replace(event, lambda_u_per_wh=body.lambda_u_per_wh))


def _abort(session: Session, body: msgspec.Struct) -> None:
    assert isinstance(body, Abort)
    event = session.event(body.event)
    if Trigger.ABORT in TRANSITIONS[event.state]:
        matching.abort(session, event, Trigger.ABORT, body.reason)


Handler = Callable[[Session, msgspec.Struct], None]


def _cross_news(session: Session, body: msgspec.Struct) -> None:
    assert isinstance(body, CrossNews)
    cross_area.take_news(session, body)


def _beacon(session: Session, body: msgspec.Struct) -> None:
    assert isinstance(body, Beacon)
    cross_seats.take_beacon(session, body)


def _partner(session: Session, body: msgspec.Struct) -> None:
    """Whose certificates of another area count from now on; what it sent before is known from the main chain."""
    assert isinstance(body, Partner)
    session.put(known_list_key(body.chain), KnownList(body.from_height, body.validators))
    cross_area.take_told_locks(session, body.chain, body.locked)
    # Not the larger of both: what validators without a majority of honest ones said here is forgotten with them.
    session.put(source_key(body.chain), InboxCursor(body.sequence, body.from_height - 1, codec.ZERO32))
    cross_seats.found(session, body.chain, body.seed)


MESSAGES: Final[dict[str, tuple[type[msgspec.Struct], Handler]]] = {
    "RuleSet": (RuleSetActive, _rule_set),
    "Initial": (Announced, _initial),
    "Match": (AreaMatch, _match),
    "Prices": (Prices, _prices),
    "Abort": (Abort, _abort),
    "CrossNews": (CrossNews, _cross_news),
    "Partner": (Partner, _partner),
    "Beacon": (Beacon, _beacon),
}
