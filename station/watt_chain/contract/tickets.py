"""Tickets, shares of the seed, and the turn of a term: the replicated part of the election (CONSENSUS.md 6).

The arithmetic is watt_chain.election; here it meets the state. `order` is asked for the height after the last final
block: at the end of a term the turn has not been written yet then, so it is computed from the same state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from watt_chain import election
from watt_chain.contract.access import Session, read, refuse, refuse_if, signer_of
from watt_chain.contract.kinds import SeedCommit, SeedReveal, Ticket
from watt_chain.contract.objects import (
    ELECTION_KEY,
    MAIN_CHAIN,
    Account,
    Strength,
    account_key,
    candidate_key,
    strength_key,
)
from watt_chain.election import NEW_CANDIDATE, Candidate, Election, Entrant, Pledge
from watt_chain.ledger import BlockContext
from watt_chain.state import StateReader

MASTER_STRENGTH_PPM = election.PPM
"""Masters answer no demand signal, so nothing of theirs can be measured: all of them have full strength (6.2.4)."""


def found(session: Session) -> None:
    """The election of term 0: nobody holds a ticket, all lead in rotation."""
    context = session.context
    seed = election.first_seed(context.network, context.chain)
    session.put(ELECTION_KEY, Election(0, seed, [], _entrants(session.state, context), [], []))


def begin(session: Session) -> list[int]:
    """Before the transactions of a block: turn the term at its first height; strike the leaders that were skipped.

    Returns the indexes of those, also of the ones struck before.
    """
    context = session.context
    if election.place_of(context.height) and not context.view:
        return []  # the usual block reads nothing
    ranked: Sequence[int] = ()
    now, candidates = _election(session.state, context)
    for validator, candidate in candidates:
        session.put(candidate_key(validator), candidate)
    if context.view:
        validators = _validators(session.state, context)
        ranked = election.order(now, context.height, validators)
        now = election.strike(now, [validators[index] for index in ranked], context.view)
    session.put(ELECTION_KEY, now)
    return [index for index in ranked[: context.view] if index != context.proposer]


def order(state: StateReader, context: BlockContext) -> tuple[int, ...]:
    """The validators in the order in which they lead the height of `context`, the one after the final `state`."""
    now, _ = _election(state, context)
    return election.order(now, context.height, _validators(state, context))


# Transactions -----------------------------------------------------------------------------------------------------


def take_ticket(session: Session, signer: Account, fields: Ticket) -> None:
    """A validator enters the draw of the next term (F8, F9)."""
    context = session.context
    now = _need(session.state)
    entrant = _entrant(now, signer.id)
    refuse_if(entrant is None or not _is_validator(session, signer.id), "not-validator")
    assert entrant is not None
    refuse_if(fields.term <= now.term or election.place_of(context.height) >= election.ENTRY_BLOCKS, "late")
    refuse_if(fields.term > now.term + 1 or fields.term < election.FIRST_DRAWN_TERM, "early")
    candidate = candidate_of(session.state, signer.id)
    refuse_if(candidate.ticket == fields.term, "twice")
    puzzle = election.puzzle(context.network, context.chain, fields.term, now.seed, signer.id)
    refuse_if(not election.is_solved(puzzle, fields.nonce, entrant.bits), "bits")
    session.put(candidate_key(signer.id), replace(candidate, ticket=fields.term))


def commit(session: Session, signer: Account, fields: SeedCommit) -> None:
    """A validator commits to its share of the seed of the term after the next."""
    now = _need(session.state)
    refuse_if(not _is_validator(session, signer.id), "not-validator")
    in_time = election.place_of(session.context.height) < election.ENTRY_BLOCKS
    refuse_if(fields.term < now.term + 2 or not in_time, "late")
    refuse_if(fields.term > now.term + 2, "early")
    candidate = candidate_of(session.state, signer.id)
    refuse_if(any(pledge.term == fields.term for pledge in candidate.pledges), "twice")
    pledges = [*candidate.pledges, Pledge(fields.term, fields.commitment, b"")]
    session.put(candidate_key(signer.id), replace(candidate, pledges=pledges))


def reveal(session: Session, signer: Account, fields: SeedReveal) -> None:
    """A validator shows its share of the seed of the next term."""
    context = session.context
    now = _need(session.state)
    refuse_if(not _is_validator(session, signer.id), "not-validator")
    refuse_if(fields.term <= now.term, "late")
    in_time = election.place_of(context.height) >= election.ENTRY_BLOCKS
    refuse_if(fields.term > now.term + 1 or not in_time, "early")
    candidate = candidate_of(session.state, signer.id)
    pledge = next((one for one in candidate.pledges if one.term == fields.term), None)
    if pledge is None:
        refuse("no-commitment")
    refuse_if(pledge.share != b"", "twice")
    made = election.commitment_of(context.network, context.chain, fields.term, signer.id, fields.share)
    refuse_if(made != pledge.commitment, "commitment")
    pledges = [replace(one, share=fields.share) if one is pledge else one for one in candidate.pledges]
    session.put(candidate_key(signer.id), replace(candidate, pledges=pledges))


def punish_equivocation(session: Session, validator: bytes) -> None:
    """Proven equivocation costs the rank for CONVICTED_TERMS and counts as a fault (4.8.3)."""
    now = _need(session.state)
    demoted = election.demote(now.demoted, validator, now.term + election.CONVICTED_TERMS)
    session.put(ELECTION_KEY, replace(now, demoted=demoted))
    candidate = candidate_of(session.state, validator)
    faults = min(candidate.faults + 1, election.FAULTS_MAX)
    session.put(candidate_key(validator), replace(candidate, faults=faults))


# What a validator has to do now -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Duties:
    """What the contract would take from a validator in the next block."""

    ticket: tuple[int, bytes, int] | None = None
    "(term, puzzle, bits)"
    commit: int | None = None
    "Term"
    reveal: tuple[int, bytes] | None = None
    "(term, commitment)"


def duties(state: StateReader, context: BlockContext, public: bytes) -> Duties:
    """For the validator with this key, at the height of `context` (the one after the final `state`)."""
    signer = signer_of(state, public)
    if election_of(state) is None or signer is None or signer.account not in _validators(state, context):
        return Duties()  # not of this chain, or a contract that elects nobody
    now, turned = _election(state, context)
    me = signer.account
    candidate = dict(turned).get(me) or candidate_of(state, me)
    if election.place_of(context.height) >= election.ENTRY_BLOCKS:
        hidden = [one for one in candidate.pledges if one.term == now.term + 1 and not one.share]
        return Duties(reveal=(hidden[0].term, hidden[0].commitment) if hidden else None)
    pledged = any(pledge.term == now.term + 2 for pledge in candidate.pledges)
    entrant, term = _entrant(now, me), now.term + 1
    ticket = None
    if entrant is not None and candidate.ticket < term >= election.FIRST_DRAWN_TERM:
        puzzle = election.puzzle(context.network, context.chain, term, now.seed, me)
        ticket = (term, puzzle, entrant.bits)
    return Duties(ticket, None if pledged else now.term + 2)


# Inside -------------------------------------------------------------------------------------------------------------


def candidate_of(state: StateReader, validator: bytes) -> Candidate:
    """The record of a validator; an empty one before it has done anything."""
    return read(state, candidate_key(validator), Candidate) or NEW_CANDIDATE


def election_of(state: StateReader) -> Election | None:
    """The election as written; at the end of a term still that of the term that is over."""
    return read(state, ELECTION_KEY, Election)


def account_of(state: StateReader, public: bytes) -> bytes:
    """The account that a validator's key signs for."""
    signer = signer_of(state, public)
    assert signer is not None, "every validator has an account"
    return signer.account


def _need(state: StateReader) -> Election:
    found = election_of(state)
    assert found is not None, "genesis writes the election of term 0"
    return found


def _election(state: StateReader, context: BlockContext) -> tuple[Election, list[tuple[bytes, Candidate]]]:
    """The election in force at the height of `context`, and the records that the turn to it changes."""
    before = _need(state)
    if election.term_of(context.height) == before.term:
        return before, []
    assert election.term_of(context.height) == before.term + 1, "no height is left out"
    validators = _validators(state, context)
    rows = [(one, candidate_of(state, one), _strength(state, context, one)) for one in validators]
    now, after = election.turn(context.network, context.chain, before, rows)
    return now, list(zip(validators, after, strict=True))


def _entrants(state: StateReader, context: BlockContext) -> list[Entrant]:
    found: list[Entrant] = []
    for validator in _validators(state, context):
        strength = _strength(state, context, validator)
        found.append(Entrant(validator, strength, election.bits_for(strength, 0)))
    return found


def _strength(state: StateReader, context: BlockContext, validator: bytes) -> int:
    """Response strength that elections go by, ppm: after the settled event before the last one (6.2.1)."""
    if context.chain == MAIN_CHAIN:
        return MASTER_STRENGTH_PPM
    account = read(state, account_key(validator), Account)
    assert account is not None, "every validator has an account"
    found = read(state, strength_key(account.node), Strength)
    return 0 if found is None else found.before_ppm


def _validators(state: StateReader, context: BlockContext) -> Sequence[bytes]:
    """Accounts of the validators of the height, by index: an account outlives its key."""
    return [account_of(state, validator.public) for validator in context.validators]


def _is_validator(session: Session, account: bytes) -> bool:
    return account in _validators(session.state, session.context)


def _entrant(now: Election, validator: bytes) -> Entrant | None:
    return next((one for one in now.entrants if one.validator == validator), None)
