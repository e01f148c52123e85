"""The transaction Validators: who may change the list, from when, what is refused, and what other chains make of it."""

import pytest
from contract_world import GRID, REGULATOR, World, key_of, make_spec
from msgspec.structs import replace
from watt_chain import block as blocks
from watt_chain import codec, crypto
from watt_chain.block import Certificate, Header, VoteSignature
from watt_chain.contract import kinds
from watt_chain.contract.access import read
from watt_chain.contract.kinds import ListChange
from watt_chain.contract.objects import (
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
from watt_chain.genesis import VALIDATORS_MAX, Validator, list_hash, quorum

FRESH = [key_of(900 + number) for number in range(4)]
ALL_KEYS = FRESH + [key_of(10 * (chain + 1) + i) for chain in range(3) for i in range(2)]


def present(world: World, chain: int) -> ValidatorList:
    found = read(world.ledgers[chain].state, VALIDATORS_KEY, ValidatorList)
    assert found is not None
    return found


def joined(world: World, chain: int, *keys: crypto.PrivateKey) -> list[Validator]:
    """The present list and these keys, each under the next free name."""
    now = present(world, chain)
    return [*now.validators, *(Validator(f"node{now.given + at}", key.public) for at, key in enumerate(keys))]


def change(world: World, chain: int, validators: list[Validator], ahead: int = 2, **other: int) -> ListChange:
    """The next change of a chain's list, `ahead` heights above the block that takes it."""
    at = world.ledgers[chain].head.height + 1 + ahead
    made = ListChange(present(world, chain).sequence + 1, at, validators)
    return replace(made, **other)


def move(world: World, chain: int, validators: list[Validator]) -> int:
    """Make a list act; the height from which it does."""
    fields = change(world, chain, validators)
    assert world.call(chain, REGULATOR, "Validators", fields) == ""
    world.tick(chain)
    by_public = {key.public: key for key in ALL_KEYS}
    world.validators[chain] = [by_public[validator.public] for validator in validators]
    return fields.from_height


def test_a_list_acts_from_its_height_and_not_before() -> None:
    world = World(areas=1, homes=[])
    ledger, wanted = world.ledgers[1], joined(world, 1, FRESH[0], FRESH[1])
    before = ledger.validators
    fields = change(world, 1, wanted, ahead=3)
    assert world.call(1, REGULATOR, "Validators", fields) == ""
    for _ in range(2):
        assert ledger.validators == before and ledger.head.height + 1 < fields.from_height
        world.tick(1)
    assert ledger.head.height + 1 == fields.from_height and list(ledger.validators) == wanted
    assert ledger.numbers == (0, 1, 2, 3) and ledger.head.header is not None
    assert ledger.head.header.next_validators == list_hash(wanted)
    with pytest.raises(codec.DecodeError, match="certificate"):
        world.tick(1)  # the two old keys alone: a quorum of four is three
    world.validators[1] = [*world.validators[1], FRESH[0], FRESH[1]]
    world.tick(1)


@pytest.mark.row("B7", "B11")
def test_a_change_is_refused_by_name_and_changes_nothing() -> None:
    world = World(areas=1, homes=[])
    area = world.validators[1]
    good = change(world, 1, joined(world, 1, FRESH[0]))
    nobody = Validator("node2", bytes(64))
    cases: list[tuple[ListChange, str]] = [
        (replace(good, sequence=0), "sequence"),
        (replace(good, sequence=2), "sequence"),
        (replace(good, from_height=good.from_height - 1), "too-soon"),
        (replace(good, from_height=0), "too-soon"),
        (replace(good, from_height=good.from_height + 10_000), "too-far"),
        (replace(good, validators=[]), "size"),
        (replace(good, validators=[nobody] * (VALIDATORS_MAX + 1)), "size"),
        (replace(good, validators=present(world, 1).validators), "unchanged"),
        (replace(good, validators=[*good.validators, Validator("node2", FRESH[1].public)]), "name-twice"),
        (replace(good, validators=[*good.validators, Validator("node3", FRESH[0].public)]), "key-twice"),
        (replace(good, validators=[Validator("node1", area[0].public)]), "key-used"),
        (replace(good, validators=[Validator("node7", FRESH[0].public)]), "name"),
        (replace(good, validators=[Validator("node", FRESH[0].public)]), "name"),
        (replace(good, validators=[Validator("node12", FRESH[0].public)]), "name"),
        (replace(good, validators=[nobody]), "key"),
        (replace(good, validators=[Validator("node2", GRID.public)]), "key-used"),
    ]
    for fields, reason in cases:
        assert world.dry(1, REGULATOR, "Validators", fields) == (reason, {}), reason
    for key in (GRID, area[0]):
        assert world.dry(1, key, "Validators", good) == ("role", {})
    assert world.dry(1, REGULATOR, "Validators", [b""]) == ("malformed", {})
    assert world.dry(1, REGULATOR, "Validators", good)[0] == ""


def test_an_old_key_never_comes_back_and_a_name_does_with_its_number() -> None:
    world = World(areas=1, homes=[])
    first, second = present(world, 1).validators
    acting = move(world, 1, [second])
    ended = read(world.ledgers[1].state, signer_key(crypto.id8(first.public)), Signer)
    assert ended is not None and ended.to_height == acting
    assert world.call(1, REGULATOR, "Validators", change(world, 1, [first, second])) == "key-used"
    again = Validator(first.name, FRESH[0].public)
    move(world, 1, [second, again])
    assert world.ledgers[1].numbers == (1, 0)
    member = read(world.ledgers[1].state, member_key(first.name), Member)
    assert member is not None and (member.number, member.account) == (0, crypto.id8(first.public))
    account = read(world.ledgers[1].state, account_key(member.account), Account)
    assert account is not None and (account.public, account.node) == (FRESH[0].public, 0)
    assert present(world, 1).given == 2


def test_a_change_that_waits_can_be_replaced_or_taken_back_until_it_acts() -> None:
    world = World(areas=1, homes=[])
    stays = present(world, 1).validators
    assert world.call(1, REGULATOR, "Validators", change(world, 1, joined(world, 1, FRESH[0]), ahead=4)) == ""
    assert world.call(1, REGULATOR, "Validators", change(world, 1, stays, ahead=3)) == ""
    for _ in range(4):
        world.tick(1)
    assert present(world, 1).sequence == 2 and list(world.ledgers[1].validators) == stays


def test_a_key_that_is_to_validate_is_not_enrolled_meanwhile() -> None:
    world = World(areas=1)
    assert world.call(1, REGULATOR, "Validators", change(world, 1, joined(world, 1, FRESH[0]))) == ""
    enrolment = replace(world.homes[0].enrol(), public=FRESH[0].public)
    assert world.dry(1, REGULATOR, "Enrol", enrolment)[0] == "exists"
    rotation = kinds.Rotate(world.homes[0].id, FRESH[0].public)
    assert world.dry(1, REGULATOR, "Rotate", rotation)[0] == "exists"


@pytest.mark.row("B6", "B34", "B39")
def test_the_main_chain_follows_an_area_through_its_anchors_and_old_keys_count_no_more() -> None:
    world = World(areas=1, homes=[])
    old = list(world.validators[1])
    wanted = [Validator("node0", FRESH[0].public), *joined(world, 1, FRESH[1])[1:]]
    acting = move(world, 1, wanted)
    world.tick(1)
    world.relay_up()
    known = read(world.ledgers[0].state, known_list_key(1), KnownList)
    assert known == KnownList(acting, wanted)
    world.tick(1)
    honest = world.anchor_fields(1, len(world.applied[1]) - 1)
    node = world.validators[0][0]
    header = codec.decode(honest.header, Header)
    forged = codec.encode(replace(header, state_root=bytes(32), next_validators=list_hash(world.genesis.validators(1))))
    for keys in (old, [*old, *old]):
        for bytes_ in (honest.header, forged):
            assert world.dry(0, node, "Anchor", replace(honest, header=bytes_, certificate=votes(world, bytes_, keys)))[
                0
            ] == ("proof")
    assert world.dry(0, node, "Anchor", honest)[0] == ""


def votes(world: World, header_bytes: bytes, keys: list[crypto.PrivateKey]) -> bytes:
    header = codec.decode(header_bytes, Header)
    hash_ = blocks.block_hash(world.network, header_bytes)
    message = blocks.vote_bytes(world.network, "commit", header.chain, header.height, header.view, hash_)
    made = [VoteSignature(at, key.sign(message)) for at, key in enumerate(keys)]
    return codec.encode(Certificate(header.view, made))


def test_an_anchor_that_hides_the_new_list_is_refused() -> None:
    """A quorum of the old list that lies about who comes next convinces nobody of a list nobody can name."""
    world = World(areas=1, homes=[])
    node, area = world.validators[0][0], list(world.validators[1])
    assert world.call(1, REGULATOR, "Validators", change(world, 1, joined(world, 1, FRESH[0]))) == ""
    world.relay_up()
    world.tick(1)
    honest = world.anchor_fields(1, len(world.applied[1]) - 1)
    assert [codec.decode(one, blocks.OutMessage).kind for one in honest.messages] == ["Validators"]
    header = codec.decode(honest.header, Header)
    silent = codec.encode(replace(header, outbox_root=blocks.messages_root([])))
    fields = kinds.Anchor(silent, votes(world, silent, area), [])
    assert world.dry(0, node, "Anchor", fields)[0] == "message"
    other = codec.encode(replace(header, next_validators=bytes(32)))
    fields = kinds.Anchor(other, votes(world, other, area), honest.messages)
    assert world.dry(0, node, "Anchor", fields)[0] == "message"
    assert world.dry(0, node, "Anchor", honest)[0] == ""


@pytest.mark.row("B6")
def test_an_area_follows_the_masters_and_takes_nothing_from_old_ones() -> None:
    world = World(areas=2, homes=[])
    old = list(world.validators[0])
    acting = move(world, 0, [Validator("node0", FRESH[0].public), *joined(world, 0, FRESH[1])[1:]])
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec())) == ""
    station = world.validators[1][0]
    first, second = world.inbox_fields(1)
    assert world.call(1, station, "Inbox", second) == "proof"  # it has not heard of the new masters yet
    assert world.call(1, station, "Inbox", first) == ""
    known = read(world.ledgers[1].state, known_list_key(0), KnownList)
    assert known is not None and known.from_height == acting
    # Removed masters, with all their keys: at the height of the change and after it, above and below the cursor.
    message = codec.decode(second.entries[0].message, blocks.OutMessage)
    leaf = codec.encode(message)
    header = codec.decode(second.header, Header)
    for height in (acting - 2, acting - 1, acting, acting + 5):
        lie = codec.encode(
            replace(header, height=height, outbox_root=blocks.messages_root([message]), previous=bytes(32))
        )
        fields = kinds.Inbox(lie, votes(world, lie, old[: quorum(2)]), 1, [kinds.InboxEntry(0, leaf, [])])
        assert world.dry(1, station, "Inbox", fields)[0] == "proof"
    assert world.call(1, station, "Inbox", second) == ""
    assert world.call(1, station, "Inbox", first) in ("stale", "proof", "sequence")


def test_a_removed_validator_signs_nothing_any_more_and_a_new_one_does() -> None:
    world = World(areas=1, homes=[])
    gone = world.validators[1][0]
    move(world, 1, joined(world, 1, FRESH[0])[1:])
    ledger = world.ledgers[1]
    assert ledger.next_nonce(gone.public) < 0 and ledger.next_nonce(FRESH[0].public) == 1
    assert world.call(1, FRESH[0], "Inbox", [b""]) == "malformed"
    assert ledger.state.get(account_key(crypto.id8(FRESH[0].public))) is not None
