"""Cross-nodes of an area: chosen from settled data and the beacon's randomness, replaced when the next one is ready.

A cross-node carries locks from partner areas in and decides nothing (cross/selection.py), so all of this is about who
is expected to work, who is paid for it in points, and who sits too long. An epoch is a settled event. At its end the
seats of the next one are drawn from what was known before it began: the figures that this module keeps of each node
are overwritten only after they were used. Who is drawn sits when it has shown that it follows the partners; until then
the one before it serves on.  Source: paper section 4.3 (H5 to H9); ledger.md 6.4; model.md U6 to U8.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from watt_chain import codec, crypto
from watt_chain.contract import cross_area, tickets, validators
from watt_chain.contract.access import Session, refuse_if
from watt_chain.contract.cross_kinds import Beacon, CrossReady
from watt_chain.contract.cross_objects import PORTFOLIO_MAX, source_key
from watt_chain.contract.objects import (
    Account,
    AreaEvent,
    InboxCursor,
    KnownList,
    Signer,
    known_list_key,
    signer_key,
)
from watt_chain.contract.proofs import proven_header
from watt_chain.cross.selection import HISTORY, PPM, TENURE_MIN, Standing, choose

CROSS_POINTS: Final = (5, 4)
"Points of users behind a cross-node count a quarter more (H9)."


class CrossSeat(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A cross-node: its number, and the epochs in a row that it has sat."""

    number: int
    terms: int


class CrossNodes(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Who carries this area's messages."""

    event: int
    "The event at whose end these were drawn; 0 = when the first partner was introduced."
    seats: list[CrossSeat]
    "Ascending by number."
    chosen: list[int]
    "Who was drawn; those that do not sit yet have not shown that they are ready."
    portfolio: list[int]
    "Partner areas, most energy first."


class Duty(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the choice goes by for one node, as of the end of an epoch; `missed`, `due`, `done` run on since then."""

    credits: list[int]
    "Credit of each user it serves, ascending."
    totals: list[int]
    "Their sum after each of the last epochs, oldest first."
    available_ppm: int
    relayed_ppm: int
    tenure: int
    "Epochs it has been there."
    from_height: int
    missed: int
    "Heights that it should have led and did not."
    due: int
    "Messages of partner areas that it was first to carry ..."
    done: int
    "... and those that it carried."


class BeaconSeed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The main chain's randomness of an event."""

    event: int
    seed: bytes


NODES_KEY: Final = b"crossnodes"
SEED_KEY: Final = b"beacon"
NOBODY: Final = CrossNodes(0, [], [], [])
_NEW: Final = Duty([], [], PPM, PPM, 0, 0, 0, 0, 0)


class SeatsOf(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Numbers of the cross-nodes that sat when an event was closed: its points go by them."""

    numbers: list[int]


def seats_key(event: int) -> bytes:
    """crossnodes/<n>: SeatsOf."""
    return b"crossnodes/%d" % event


def duty_key(number: int) -> bytes:
    """duty/<node>: Duty."""
    return b"duty/%d" % number


def nodes_of(session: Session) -> CrossNodes:
    """The present cross-nodes; nobody before the area had something to carry, or an epoch ended."""
    return session.get(NODES_KEY, CrossNodes) or NOBODY


def on_duty(nodes: CrossNodes, sequence: int) -> int | None:
    """Number of the cross-node that is first to carry the message with this number of a lane."""
    return nodes.seats[sequence % len(nodes.seats)].number if nodes.seats else None


# What is noted during an epoch ------------------------------------------------------------------------------------


def begin(session: Session, skipped: list[int]) -> None:
    """Before the transactions of a block: the leaders with these indexes were skipped, each has missed a height."""
    if not skipped or session.get(NODES_KEY, CrossNodes) is None:
        return
    numbers = validators.own_list(session).numbers
    for index in skipped:
        duty = session.get(duty_key(numbers[index]), Duty) or _NEW
        session.put(duty_key(numbers[index]), replace(duty, missed=duty.missed + 1))


def note_carried(session: Session, signer: Account, sequence: int) -> None:
    """A message of a partner area was carried in by `signer`: credit to whose duty it was, if it was its own work."""
    number = on_duty(nodes_of(session), sequence)
    if number is None:
        return
    duty = session.get(duty_key(number), Duty) or _NEW
    session.put(duty_key(number), replace(duty, due=duty.due + 1, done=duty.done + int(signer.node == number)))


def take_beacon(session: Session, body: Beacon) -> None:
    """The main chain's randomness for the end of this event."""
    session.put(SEED_KEY, BeaconSeed(body.event, body.seed))


def weigh(session: Session, node: int, weight: int) -> int:
    """Weight of a user's share of the points: more behind a cross-node (H9)."""
    sits = any(seat.number == node for seat in nodes_of(session).seats)
    return weight * CROSS_POINTS[0] // CROSS_POINTS[1] if sits else weight


def found(session: Session, partner: int, seed: bytes) -> None:
    """The first partner is introduced: draw the first cross-nodes, among equals."""
    if session.get(NODES_KEY, CrossNodes) is not None:
        return
    numbers = validators.own_list(session).numbers
    standings = [_standing(session, number, None, True, 0) for number in numbers]
    chosen = list(choose(standings, _own(session, 0, seed)))
    session.put(NODES_KEY, CrossNodes(0, [CrossSeat(number, 1) for number in chosen], chosen, [partner]))
    for number in numbers:
        session.put(duty_key(number), replace(_NEW, tenure=TENURE_MIN, from_height=session.context.height))


# The end of an epoch -----------------------------------------------------------------------------------------------


def turn(session: Session, event: AreaEvent) -> None:
    """An event is settled: draw the cross-nodes of the next epoch, then write down what this one was like."""
    if not session.rules(event.rules_version).crossings:
        return
    nodes, numbers = nodes_of(session), validators.own_list(session).numbers
    session.put(seats_key(event.event), SeatsOf([seat.number for seat in nodes.seats]))
    known = {number: session.get(duty_key(number), Duty) for number in numbers}
    founding = all(duty is None for duty in known.values())
    terms = {seat.number: seat.terms for seat in nodes.seats}
    standings = [_standing(session, number, known[number], founding, terms.get(number, 0)) for number in numbers]
    chosen = list(choose(standings, _seed(session, event)))
    portfolio = _portfolio(session, event) or nodes.portfolio
    if not nodes.seats:  # nobody is there to hand anything over
        seats = [CrossSeat(number, 1) for number in chosen]
    else:
        stay = [seat for seat in nodes.seats if seat.number in numbers]
        seats = [replace(seat, terms=seat.terms + 1) for seat in stay]
    session.put(NODES_KEY, CrossNodes(event.event, seats, chosen, portfolio))
    users = _users(session)
    for number in numbers:
        session.put(
            duty_key(number), _closed(session, known[number] or _NEW, users.get(number, []), len(numbers), founding)
        )


def _standing(session: Session, number: int, duty: Duty | None, founding: bool, terms: int) -> Standing:
    duty = duty or replace(_NEW, tenure=TENURE_MIN if founding else 0)
    candidate = tickets.candidate_of(session.state, _account_of(session, number))
    return Standing(
        number,
        tuple(duty.credits),
        tuple(duty.totals),
        duty.available_ppm,
        duty.relayed_ppm,
        candidate.faults > 0,
        duty.tenure,
        terms,
    )


def _account_of(session: Session, number: int) -> bytes:
    listed = validators.own_list(session)
    public = listed.validators[listed.numbers.index(number)].public
    return session.need(signer_key(crypto.id8(public)), Signer).account


def _seed(session: Session, event: AreaEvent) -> bytes:
    """The beacon's randomness for the end of an event."""
    beacon = session.get(SEED_KEY, BeaconSeed)
    return _own(session, event.event, beacon.seed if beacon and beacon.event == event.event else codec.ZERO32)


def _own(session: Session, event: int, seed: bytes) -> bytes:
    """Randomness made this area's own: what one area draws says nothing about another."""
    body = codec.encode([session.context.chain, event, seed])
    return crypto.sha256(codec.signing_bytes(b"cross-seats", session.context.network, body))


def _portfolio(session: Session, event: AreaEvent) -> list[int]:
    """Areas that were traded with in this event, most energy first, lower number first among equals."""
    energy: dict[int, int] = {}
    for trade in cross_area.standing_trades(session, event.event):
        other = trade.terms.buyer_chain if trade.side == "sell" else trade.terms.seller_chain
        energy[other] = energy.get(other, 0) + trade.terms.energy_wh
    return sorted(energy, key=lambda chain: (-energy[chain], chain))[:PORTFOLIO_MAX]


def _users(session: Session) -> dict[int, list[int]]:
    """Credits of the users of each serving node."""
    found: dict[int, list[int]] = {}
    for key in session.state.keys(b"user/"):
        account = session.account(bytes.fromhex(key[5:].decode()))
        found.setdefault(account.node, []).append(account.credit)
    return found


def _closed(session: Session, duty: Duty, credits: list[int], n: int, founding: bool) -> Duty:
    """The figures of the epoch that ends."""
    height = session.context.height
    led = (height - duty.from_height) // n
    return Duty(
        sorted(credits),
        [*duty.totals, sum(credits)][-HISTORY:],
        PPM - min(PPM, PPM * duty.missed // led) if led else PPM,
        PPM * duty.done // duty.due if duty.due else PPM,
        TENURE_MIN if founding else duty.tenure + 1,
        height,
        0,
        0,
        0,
    )


# Handing over ------------------------------------------------------------------------------------------------------


def ready(session: Session, signer: Account, fields: CrossReady) -> None:
    """CrossReady: one that was drawn shows certified blocks of the partner areas that are not behind what this area
    has consumed; it takes the seat of one that was not drawn again, the longest sitting first."""
    nodes = nodes_of(session)
    refuse_if(nodes.event != fields.event, "stage")
    refuse_if(signer.node not in nodes.chosen, "not-chosen")
    refuse_if(any(seat.number == signer.node for seat in nodes.seats), "decided")
    sources = [source for source in nodes.portfolio if session.get(known_list_key(source), KnownList) is not None]
    refuse_if(len(fields.blocks) != len(sources), "partners")
    for source, block in zip(sources, fields.blocks, strict=True):
        header = proven_header(session, source, block.header, block.certificate)
        cursor = session.get(source_key(source), InboxCursor)
        behind = cursor is not None and header.height < cursor.height
        refuse_if(behind or header.height < validators.known_list(session, source).from_height, "stale")
    leaving = sorted(
        (seat for seat in nodes.seats if seat.number not in nodes.chosen), key=lambda seat: (-seat.terms, seat.number)
    )
    kept = [seat for seat in nodes.seats if seat not in leaving[:1] or len(nodes.seats) < len(nodes.chosen)]
    seats = sorted([*kept, CrossSeat(signer.node, 1)], key=lambda seat: seat.number)
    session.put(NODES_KEY, replace(nodes, seats=seats))
