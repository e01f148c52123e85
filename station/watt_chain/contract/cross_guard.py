"""Areas that broke their bound: proven forks, blocks that masters could not execute, quarantine and the way back.

An area beyond its f faults can certify anything. What it certifies twice convicts those who signed both; what it
certifies and does not follow from its own blocks is not anchored, and when f + 1 masters say so at least one honest one
found it. Either puts the area in quarantine: nothing of it is taken in any more, its trades without outcome end, new
ones are not made. The regulator ends the quarantine with a new list of validators, which goes on from the last anchored
block: what came after it counts for nobody.  Source: ledger.md 6.5, 6.6 rows 9 and 10.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from watt_chain import crypto
from watt_chain.block import (
    CERTIFICATE_SIZE_MAX,
    HEADER_SIZE_MAX,
    Certificate,
    Header,
    block_hash,
    check_certificate,
)
from watt_chain.codec import DecodeError, decode
from watt_chain.contract import contest, cross_main, validators
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.cross_kinds import Fork, Readmit, Refute
from watt_chain.contract.cross_objects import position_key
from watt_chain.contract.objects import (
    LAST_STATES,
    Account,
    AnchorState,
    KnownList,
    anchor_key,
    event_key,
    known_list_key,
)
from watt_chain.genesis import faults_tolerated

FORK: Final = "fork"
REFUTED: Final = "refuted"
QUARANTINE: Final = "quarantine"
"Why an area is out of an event, and why a trade ended."


class ForkProof(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """fork/<chain>/<height>: who signed two blocks of one height; the transaction holds the proof."""

    signers: list[str]
    "Names, in order of their indexes."


class Refuted(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """refuted/<chain>: masters that found that this certified block does not follow from those before it."""

    block_hash: bytes
    masters: list[int]
    "Numbers, ascending."


def fork_key(chain: int, height: int) -> bytes:
    """fork/<chain>/<height>: ForkProof."""
    return b"fork/%d/%d" % (chain, height)


def refuted_key(chain: int) -> bytes:
    """refuted/<chain>: Refuted, of the last block that a master refuted (two at one height are a fork)."""
    return b"refuted/%d" % chain


def fork(session: Session, signer: Account, fields: Fork) -> None:
    """Fork: two certified blocks of one area and height. Anybody may show them; the signers of both are named."""
    first, second = _open(fields.first.header), _open(fields.second.header)
    refuse_if((first.chain, first.height) != (second.chain, second.height), "no-conflict")
    _anchored(session, first.chain)
    network = session.context.network
    hashes = [block_hash(network, one.header) for one in (fields.first, fields.second)]
    refuse_if(hashes[0] == hashes[1], "no-conflict")
    refuse_if(cross_main.position(session, first.chain).quarantine == FORK, "known")
    known = validators.known_list(session, first.chain)
    refuse_if(first.height < known.from_height, "stale")
    voters = [
        _voters(session, known, header, one.header, one.certificate)
        for header, one in ((first, fields.first), (second, fields.second))
    ]
    both = [known.validators[index].name for index in sorted(voters[0]) if index in voters[1]]
    assert both, "two quorums of one list share an honest validator's seat at least"
    session.put(fork_key(first.chain, first.height), ForkProof(both))
    quarantine(session, first.chain, FORK)


def refute(session: Session, signer: Account, fields: Refute) -> None:
    """Refute: a master executed the next certified block of an area, and it does not come to its own header."""
    header = _open(fields.header)
    last = _anchored(session, header.chain)
    refuse_if(header.height != last.height + 1, "height")
    refuse_if(header.previous != last.block_hash, "previous")
    _voters(session, validators.known_list(session, header.chain), header, fields.header, fields.certificate)
    hash_ = block_hash(session.context.network, fields.header)
    before = session.get(refuted_key(header.chain), Refuted)
    masters = before.masters if before is not None and before.block_hash == hash_ else []
    numbers = validators.own_list(session).numbers
    refuse_if(signer.node not in numbers, "not-validator")
    refuse_if(signer.node in masters, "known")
    masters = sorted([*masters, signer.node])
    session.put(refuted_key(header.chain), Refuted(hash_, masters))
    if sum(number in numbers for number in masters) > faults_tolerated(len(numbers)):
        quarantine(session, header.chain, REFUTED)


def quarantine(session: Session, chain: int, reason: str) -> None:
    """Nothing of the area is taken any more: events go on without it, and its trades without outcome end."""
    held = cross_main.position(session, chain)
    session.put(position_key(chain), replace(held, quarantine=reason))
    if held.quarantine:
        return
    for number in session.open_events().numbers:
        event = contest.main_event(session, number)
        position = next(index for index, report in enumerate(event.areas) if report.chain == chain)
        if event.areas[position].state not in LAST_STATES:
            reports = list(event.areas)
            reports[position] = replace(reports[position], state="refused", reason=QUARANTINE)
            event = replace(event, areas=reports)
            session.put(event_key(number), event)
        docket = cross_main.Docket(session)
        cross_main.end_of_area(session, docket, number, chain, QUARANTINE)
        docket.flush()
        contest.end_if_reported(session, event)


def readmit(session: Session, signer: Account, fields: Readmit) -> None:
    """Readmit: the area goes on from its last anchored block, certified by this list from the next height on."""
    last = _anchored(session, fields.chain)
    held = cross_main.position(session, fields.chain)
    refuse_if(not held.quarantine, "not-quarantined")
    validators.check_form(fields.validators)
    refuse_if(not all(crypto.is_public_key(one.public) for one in fields.validators), "key")
    before = {one.public for one in validators.known_list(session, fields.chain).validators}
    refuse_if(any(one.public in before for one in fields.validators), "key-used")
    session.put(position_key(fields.chain), replace(held, quarantine=""))
    session.put(known_list_key(fields.chain), KnownList(last.height + 1, fields.validators))
    cross_main.introduce_again(session, fields.chain)


def _open(header: bytes) -> Header:
    try:
        return decode(header, Header, HEADER_SIZE_MAX)
    except DecodeError:
        refuse("proof")


def _anchored(session: Session, chain: int) -> AnchorState:
    """The last anchored block of an area. Refuses "chain"."""
    found = session.get(anchor_key(chain), AnchorState)
    if found is None:
        refuse("chain")
    return found


def _voters(session: Session, known: KnownList, header: Header, header_bytes: bytes, certificate: bytes) -> list[int]:
    """Indexes of those who certified the block. Refuses "proof"."""
    try:
        votes = decode(certificate, Certificate, CERTIFICATE_SIZE_MAX)
    except DecodeError:
        refuse("proof")
    network = session.context.network
    publics = [validator.public for validator in known.validators]
    reason = check_certificate(votes, network, header, block_hash(network, header_bytes), publics)
    refuse_if(reason != "", "proof")
    return [vote.index for vote in votes.votes]
