"""An area beyond its faults: forks name signers, f + 1 masters refute, quarantine contains, a new list goes on."""

from __future__ import annotations

import pytest
from contract_world import GRID, REGULATOR, World, key_of
from cross_world import Across, plans_of, streets, total_u
from msgspec.structs import replace
from test_cross_messages import lie
from watt_chain import block as blocks
from watt_chain import codec, crypto
from watt_chain.block import Certificate, Header, VoteSignature
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.cross_guard import ForkProof, Refuted, fork_key, refuted_key
from watt_chain.contract.event import State
from watt_chain.contract.objects import KnownList, known_list_key
from watt_chain.genesis import Validator, list_hash, quorum


def certified(
    world: World, chain: int, header: Header, keys: list[crypto.PrivateKey] | None = None
) -> cross_kinds.PartnerBlock:
    """Any header, under the signatures of a quorum of the area, or of these keys."""
    data = codec.encode(header)
    vote = blocks.vote_bytes(
        world.network, "commit", chain, header.height, header.view, blocks.block_hash(world.network, data)
    )
    keys = keys or world.validators[chain]
    votes = [VoteSignature(index, keys[index].sign(vote)) for index in range(quorum(len(keys)))]
    return cross_kinds.PartnerBlock(data, codec.encode(Certificate(header.view, votes)))


def last(world: World, chain: int) -> tuple[Header, cross_kinds.PartnerBlock]:
    _, header, certificate = world.applied[chain][-1]
    return codec.decode(header, Header), cross_kinds.PartnerBlock(header, certificate)


@pytest.mark.row("H16")
def test_two_certified_blocks_of_one_height_convict_those_who_signed_both() -> None:
    """Ledger.md 6.6 attack 9: the first that is anchored stands, the second is evidence with names."""
    world = streets(nodes=4)
    header, honest = last(world, 2)
    other = certified(world, 2, replace(header, time_s=header.time_s + 1))
    node = world.validators[0][1]

    def answer(fields: cross_kinds.Fork) -> str:
        return world.dry(0, node, "Fork", fields)[0]

    assert answer(cross_kinds.Fork(honest, honest)) == "no-conflict"
    assert answer(cross_kinds.Fork(honest, last(world, 1)[1])) == "no-conflict"
    unsigned = replace(other, certificate=honest.certificate)
    assert answer(cross_kinds.Fork(honest, unsigned)) == "proof"
    assert answer(cross_kinds.Fork(honest, replace(other, header=b"x"))) == "proof"
    main = last(world, 0)
    twin = certified(world, 0, replace(main[0], time_s=main[0].time_s + 1))
    assert answer(cross_kinds.Fork(main[1], twin)) == "chain"
    assert world.call(0, node, "Fork", cross_kinds.Fork(honest, other)) == ""
    held = codec.decode(world.ledgers[0].state.get(fork_key(2, header.height)) or b"", ForkProof)
    assert held.signers == ["node0", "node1", "node2"]
    assert world.position(2).quarantine == "fork"
    assert answer(cross_kinds.Fork(other, honest)) == "known"


def test_f_plus_one_masters_that_cannot_execute_a_block_put_the_area_in_quarantine() -> None:
    """Attack 10: what the masters find when they execute a block again is a matter of record, not of one of them."""
    world = streets(nodes=4)
    world.relay_up()
    header, _ = last(world, 1)
    previous = blocks.block_hash(world.network, world.applied[1][-1][1])
    wrong = certified(world, 1, replace(header, height=header.height + 1, previous=previous, state_root=bytes(32)))
    fields = cross_kinds.Refute(wrong.header, wrong.certificate)
    far = certified(world, 1, replace(header, height=header.height + 2, previous=previous))
    apart = certified(world, 1, replace(header, height=header.height + 1))
    masters = world.validators[0]
    assert world.dry(0, masters[0], "Refute", cross_kinds.Refute(far.header, far.certificate))[0] == "height"
    assert world.dry(0, masters[0], "Refute", cross_kinds.Refute(apart.header, apart.certificate))[0] == "previous"
    assert world.dry(0, masters[0], "Refute", replace(fields, certificate=far.certificate))[0] == "proof"
    assert world.dry(0, GRID, "Refute", fields)[0] == "role"
    assert world.call(0, masters[0], "Refute", fields) == ""
    assert world.call(0, masters[0], "Refute", fields) == "known"
    held = codec.decode(world.ledgers[0].state.get(refuted_key(1)) or b"", Refuted)
    assert held.masters == [0] and world.position(1).quarantine == ""
    assert world.call(0, masters[2], "Refute", fields) == ""
    assert world.position(1).quarantine == "refuted"


def quarantined() -> Across:
    """Buyers have locked and sellers accepted; then area 2 is found to have two blocks at one height."""
    play = Across(streets()).matched()
    world = play.world
    play.take()
    for number in play.numbers():
        assert (play.op("sell", [number]), play.op("buy", [number])) == ("", "")
    header, honest = last(world, 2)
    other = certified(world, 2, replace(header, time_s=header.time_s + 1))
    world.relay_across()
    assert world.call(0, world.validators[0][0], "Fork", cross_kinds.Fork(honest, other)) == ""
    return play


def test_quarantine_ends_what_is_open_and_takes_nothing_more() -> None:
    play = quarantined()
    world = play.world
    assert [world.main_trade(number).state for number in play.numbers()] == ["KILL", "KILL"]
    assert world.main_trade().reason == "quarantine"
    report = world.main_event().areas[1]
    assert (report.chain, report.state, report.reason) == (2, "refused", "quarantine")
    node = world.validators[0][0]
    fields = world.anchor_fields(2, world.anchored[2])
    assert world.dry(0, node, "Anchor", fields)[0] == "quarantine"
    for inbox in world.inbox_fields(1):
        assert world.call(1, world.validators[1][0], "Inbox", inbox) == ""
    assert {world.trade(1, number).state for number in play.numbers()} == {"REFUNDED"}
    for home in world.homes[:2]:
        assert world.account(1, home.key.public).free_u == 200_000_000


def test_a_lock_of_an_area_in_quarantine_counts_for_nothing_and_new_trades_are_not_made() -> None:
    world = streets()
    play = Across(world)
    play.run(State.QUALIFIED)
    solution = play.solution()
    header, honest = last(world, 1)
    other = certified(world, 1, replace(header, time_s=header.time_s + 1))
    assert world.call(0, world.validators[0][0], "Fork", cross_kinds.Fork(honest, other)) == ""
    assert world.dry(0, GRID, "Match", [solution])[0] == "slices"


def test_the_regulator_readmits_an_area_under_new_validators_from_its_last_anchored_block() -> None:
    play = quarantined()
    world = play.world
    new = [key_of(950), key_of(951)]
    seats = [Validator(f"node{2 + at}", key.public) for at, key in enumerate(new)]
    good = cross_kinds.Readmit(2, seats)
    cases = {
        "chain": replace(good, chain=9),
        "not-quarantined": replace(good, chain=1),
        "size": replace(good, validators=[]),
        "name-twice": replace(good, validators=[seats[0], replace(seats[1], name=seats[0].name)]),
        "key-twice": replace(good, validators=[seats[0], replace(seats[1], public=seats[0].public)]),
        "key": replace(good, validators=[replace(seats[0], public=bytes(64))]),
        "key-used": replace(good, validators=[seats[0], Validator("node1", world.validators[2][1].public)]),
    }
    for reason, fields in cases.items():
        assert world.dry(0, REGULATOR, "Readmit", fields)[0] == reason
    assert world.dry(0, GRID, "Readmit", good)[0] == "role"
    assert world.call(0, REGULATOR, "Readmit", good) == ""
    assert world.position(2).quarantine == ""
    anchored = world.anchored[2]
    known = codec.decode(world.ledgers[0].state.get(known_list_key(2)) or b"", KnownList)
    assert known == KnownList(anchored + 1, seats)
    # Blocks that the old validators made after the last anchored one count for nobody.
    old = world.anchor_fields(2, anchored)
    assert world.dry(0, world.validators[0][0], "Anchor", old)[0] == "proof"
    # The new ones go on from it: their own block of that height is taken.
    header = codec.decode(old.header, Header)
    world.validators[2] = new
    block = certified(world, 2, replace(header, outbox_root=crypto.sha256(b""), next_validators=list_hash(seats)))
    assert world.dry(0, world.validators[0][0], "Anchor", kinds.Anchor(block.header, block.certificate, []))[0] == ""


def told_after(world: World, pair: cross_kinds.Fork, seats: list[Validator]) -> KnownList:
    """What area 2 believes of area 1 once a fork of it is shown and it is readmitted under this list."""
    assert world.call(0, world.validators[0][0], "Fork", pair) == ""
    assert world.call(0, REGULATOR, "Readmit", cross_kinds.Readmit(1, seats)) == ""
    for fields in world.inbox_fields(2):
        assert world.call(2, world.validators[2][0], "Inbox", fields) == ""
    return codec.decode(world.ledgers[2].state.get(known_list_key(1)) or b"", KnownList)


def test_a_partner_of_a_readmitted_area_hears_of_its_new_validators() -> None:
    world = streets()
    play = Across(world, plans_of(world)).matched()
    world.relay_all()
    header, honest = last(world, 1)
    other = certified(world, 1, replace(header, time_s=header.time_s + 1))
    seats = [Validator("node2", key_of(950).public), Validator("node3", key_of(951).public)]
    known = told_after(world, cross_kinds.Fork(honest, other), seats)
    assert known.validators == seats and known.from_height == world.anchored[1] + 1
    lies = lie(world, 1, 2, "CrossLocked", cross_kinds.CrossLocked(1, [(1, world.main_trade().id)], []), 1)
    assert world.dry(2, world.validators[2][0], "Inbox", lies)[0] == "proof"
    assert play.number == 1 and total_u(world) == 800_000_000
    # These lie too, before a block of theirs is anchored: a second list from the same height on.
    world.validators[1] = [key_of(950), key_of(951)]
    header = replace(header, height=world.anchored[1] + 1)
    first, second = (certified(world, 1, replace(header, time_s=header.time_s + at)) for at in (1, 2))
    seats = [Validator("node2", key_of(952).public), Validator("node3", key_of(953).public)]
    known = told_after(world, cross_kinds.Fork(first, second), seats)
    assert known == KnownList(world.anchored[1] + 1, seats)
