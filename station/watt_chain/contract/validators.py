"""Membership: who validates a chain, from which height, by the regulator's word (CONSENSUS.md 8, CONTRACT.md 3).

`validators` is always the list of the *next* block: a change takes effect in `begin` of the last block that the old
list certifies, so the state after it, its header's hash and its message to the other chains say the same. What other
chains know of a list follows from those messages, each proven by a header that names the list's hash.
Source: model.md 2.B (B1, B6, B7, B11), ledger.md 6.6 rows 11 and 25.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from watt_chain import crypto
from watt_chain.block import Header, OutMessage
from watt_chain.codec import DecodeError, decode
from watt_chain.contract.access import Session, read, refuse, refuse_if
from watt_chain.contract.kinds import ListChange, ValidatorsActing
from watt_chain.contract.objects import (
    FOREVER,
    MAIN_CHAIN,
    VALIDATORS_KEY,
    Account,
    KnownList,
    Member,
    Signer,
    ValidatorList,
    account_key,
    known_list_key,
    member_key,
    signer_key,
)
from watt_chain.genesis import VALIDATORS_MAX, Genesis, Seat, Validator, list_hash
from watt_chain.resume import Resume
from watt_chain.state import StateReader

NOTICE_HEIGHTS: Final = 2
"A change is in a block this far before its height at least: the block between announces it, under the old list."
AHEAD_MAX: Final = 10_000
"Heights that a change may lie ahead: some hours of an idle chain; further is a slip of the pen."


def found(session: Session, genesis: Genesis, chain: int) -> None:
    """The lists of genesis: our own, and those of the chains whose blocks this one checks."""
    own = list(genesis.validators(chain))
    session.put(VALIDATORS_KEY, ValidatorList(0, own, list(range(len(own))), len(own), 0, []))
    for number, validator in enumerate(own):
        session.put(member_key(validator.name), Member(number, crypto.id8(validator.public)))
    for other in genesis.chains() if chain == MAIN_CHAIN else (MAIN_CHAIN,):
        if other != chain:
            session.put(known_list_key(other), KnownList(1, list(genesis.validators(other))))


def seats(state: StateReader) -> tuple[Seat, ...]:
    """Who certifies the block after `state`, by index."""
    listed = read(state, VALIDATORS_KEY, ValidatorList)
    assert listed is not None, "genesis writes the list"
    return tuple(Seat(*seat) for seat in zip(listed.numbers, listed.validators, strict=True))


def own_list(session: Session) -> ValidatorList:
    """The list of the next block of this chain, and a change that waits."""
    return session.need(VALIDATORS_KEY, ValidatorList)


def change(session: Session, signer: Account, fields: ListChange) -> None:
    """Validators: a new list from a height on (join, leave, rotate, lost key). Replaces one that waits."""
    now = own_list(session)
    height = session.context.height
    refuse_if(fields.sequence != now.sequence + 1, "sequence")
    refuse_if(fields.from_height < height + NOTICE_HEIGHTS, "too-soon")
    refuse_if(fields.from_height > height + AHEAD_MAX, "too-far")
    refuse_if(fields.validators == now.validators and not now.next_from, "unchanged")
    _check_list(session, fields.validators, now, now.validators)
    later = replace(now, sequence=fields.sequence, next_from=fields.from_height, next=fields.validators)
    session.put(VALIDATORS_KEY, later)


def resume(session: Session, fields: Resume, previous: bytes) -> None:
    """Resume: before anything else of this block the regulator's list takes over, under keys that never signed here.

    Not one of the old keys stays, so no quorum of the old list can pass for one of the new (CONSENSUS.md 8.8).
    """
    now = own_list(session)
    height = session.context.height
    refuse_if(fields.height != height, "height")
    refuse_if(fields.previous != previous, "previous")
    refuse_if(fields.sequence <= now.sequence, "sequence")
    _check_list(session, fields.validators, now, [])
    _take_over(session, replace(now, sequence=fields.sequence, next=fields.validators), height)


def not_first(session: Session, signer: Account, fields: Resume) -> None:
    """A Resume anywhere but where it acts: refused. Where it acts, the ledger has carried it out before this."""
    refuse("not-first")


def check_form(listed: Sequence[Validator]) -> None:
    """Refuses a list by "size", "name-twice" or "key-twice"."""
    refuse_if(not 0 < len(listed) <= VALIDATORS_MAX, "size")
    refuse_if(len({one.name for one in listed}) != len(listed), "name-twice")
    refuse_if(len({one.public for one in listed}) != len(listed), "key-twice")


def _check_list(
    session: Session, listed: Sequence[Validator], now: ValidatorList, staying: Sequence[Validator]
) -> None:
    """Refuses a list by "size", "name-twice", "key-twice", "name", "key" or "key-used"."""
    check_form(listed)
    number = now.given
    for validator in listed:
        if session.get(member_key(validator.name), Member) is None:
            refuse_if(not _ends_with(validator.name, number), "name")
            number += 1
        if validator not in staying:
            refuse_if(not crypto.is_public_key(validator.public), "key")
            # A key that ever signed here, for whomever, does not come back: CONSENSUS.md 8.2.
            refuse_if(session.get(signer_key(crypto.id8(validator.public)), Signer) is not None, "key-used")


def is_awaited(session: Session, public: bytes) -> bool:
    """Whether a key is to become a validator's: nobody else may register it meanwhile."""
    return any(validator.public == public for validator in own_list(session).next)


def begin(session: Session, told: Sequence[int]) -> None:
    """In the last block of the old list: end and open keys, take the new list, tell the chains `told`."""
    now = own_list(session)
    acting = session.context.height + 1
    if now.next_from != acting:
        return
    _take_over(session, now, acting)
    for chain in told:
        session.emit(chain, "Validators", ValidatorsActing(now.next))


def _take_over(session: Session, now: ValidatorList, acting: int) -> None:
    """End and open keys from a height on, and put the waiting list in force."""
    for validator in now.validators:
        if validator not in now.next:
            key = signer_key(crypto.id8(validator.public))
            session.put(key, replace(session.need(key, Signer), to_height=acting))
    given, numbers = now.given, []
    for validator in now.next:
        member = session.get(member_key(validator.name), Member)
        if member is None:
            member = Member(given, crypto.id8(validator.public))
            given += 1
            session.put(member_key(validator.name), member)
        if validator not in now.validators:
            _seat(session, member, validator.public, acting)
        numbers.append(member.number)
    session.put(VALIDATORS_KEY, ValidatorList(now.sequence, now.next, numbers, given, 0, []))


def follow(session: Session, header: Header, message: OutMessage) -> None:
    """Another chain changed its list: `header` of its last block under the old one carries the hash of the new one.

    Refuses "message" for what is not that list.
    """
    try:
        acting = decode(message.body, ValidatorsActing)
    except DecodeError:
        refuse("message")
    refuse_if(list_hash(acting.validators) != header.next_validators, "message")
    session.put(known_list_key(header.chain), KnownList(header.height + 1, acting.validators))


def known_list(session: Session, chain: int) -> KnownList:
    """Who certifies the blocks of another chain from a height on."""
    return session.need(known_list_key(chain), KnownList)


def _seat(session: Session, member: Member, public: bytes, acting: int) -> None:
    """Let a member sign with this key from a height on; a new member gets its account."""
    session.put(signer_key(crypto.id8(public)), Signer(member.account, acting, FOREVER))
    account = session.get(account_key(member.account), Account)
    if account is None:
        chain = session.context.chain
        account = Account(member.account, "validator", public, 0, 0, 0, 0, 0, 0, 0, chain, member.number, False, False)
    session.put(account_key(member.account), replace(account, public=public))


def _ends_with(name: str, number: int) -> bool:
    """Whether a name ends with this number, so that connections of `...-node4` are those of member 4."""
    digits = len(name) - len(name.rstrip("0123456789"))
    return digits > 0 and name[-digits:] == str(number)
