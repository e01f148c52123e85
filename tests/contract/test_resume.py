"""A readmitted area goes on: its own chain under the new list, anchored and trading; the old list counts no more."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from contract_world import GRID, REGULATOR, START_S, World, key_of, make_spec
from cross_world import Across, plans_of, streets, total_u
from msgspec.structs import replace
from test_cross_guard import certified, last, quarantined
from watt_chain import block as blocks
from watt_chain import codec, crypto
from watt_chain.block import Certificate, CertifiedBlock, Header, VoteSignature
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.event import State
from watt_chain.contract.objects import (
    VALIDATORS_KEY,
    AnchorState,
    KnownList,
    ValidatorList,
    anchor_key,
    known_list_key,
)
from watt_chain.genesis import Validator, list_hash, quorum
from watt_chain.ledger import AppliedBlock, CorruptionError, Ledger
from watt_chain.light import LightClient, ProofError
from watt_chain.resume import Resume
from watt_chain.transaction import make_transaction

NEW = [key_of(950), key_of(951)]


def seats(first: int = 2) -> list[Validator]:
    return [Validator(f"node{first + at}", key.public) for at, key in enumerate(NEW)]


def anchored(world: World, chain: int) -> AnchorState:
    return codec.decode(world.ledgers[0].state.get(anchor_key(chain)) or b"", AnchorState)


def at_anchor(world: World, chain: int, ledger: Ledger | None = None) -> Ledger:
    """A new node of the area with what the main chain has of it, and nothing after."""
    old = ledger or world.ledgers[chain]
    fresh = Ledger(world.genesis, chain, world._contract(chain), freeze_every=1)
    for height in range(1, anchored(world, chain).height + 1):
        fresh.replay(old.certified(height) or b"")
    return fresh


def word(world: World, chain: int, signer: crypto.PrivateKey = REGULATOR, nonce: int = 0, **other: object) -> bytes:
    """What the regulator signs besides `Readmit`, from what the main chain says of the area."""
    held = anchored(world, chain)
    fields = replace(Resume(1, held.height + 1, held.block_hash, seats()), **other)
    nonce = nonce or max(1, at_anchor(world, chain).next_nonce(signer.public))
    return make_transaction(signer, world.network, "Resume", chain, nonce, fields)


@dataclass
class Readmitted:
    """An area after `Readmit`: the ledger that the old validators have, and a new node's in the world."""

    play: Across
    old: Ledger
    keys: list[crypto.PrivateKey]
    word: bytes
    applied: list[tuple[AppliedBlock, bytes, bytes]]
    "What the old list made of it."

    @property
    def world(self) -> World:
        return self.play.world


def readmitted(chain: int = 2) -> Readmitted:
    play = quarantined()
    world = play.world
    old, keys, raw = world.ledgers[chain], world.validators[chain], word(world, chain)
    assert old.head.height > anchored(world, chain).height, "the old list has made blocks that nobody anchored"
    assert world.call(0, REGULATOR, "Readmit", cross_kinds.Readmit(chain, seats())) == ""
    world.ledgers[chain] = at_anchor(world, chain)
    applied, world.applied[chain] = world.applied[chain], world.applied[chain][: world.anchored[chain]]
    world.validators[chain] = list(NEW)
    assert world.ledgers[chain].resume(raw) == ""
    return Readmitted(play, old, keys, raw, applied)


def certify(world: World, chain: int, ledger: Ledger, txs: list[bytes], keys: list[crypto.PrivateKey]) -> bytes:
    """The next block of a ledger, with the votes of these keys."""
    height = ledger.head.height + 1
    built = ledger.build(0, ledger.schedule.leader(height, 0), world.now_s, txs)
    hash_ = blocks.block_hash(world.network, built.header)
    message = blocks.vote_bytes(world.network, "commit", chain, height, 0, hash_)
    votes = [VoteSignature(index, keys[index].sign(message)) for index in range(quorum(len(keys)))]
    return codec.encode(CertifiedBlock(codec.encode(built), codec.encode(Certificate(0, votes))))


def trade_again(area: Readmitted) -> Across:
    """What was open comes back to everybody; then an event with trades of both areas, to its end."""
    world = area.world
    world.relay_all()
    world.tick_all(area.play.spec.settle_by_s)
    world.relay_all()
    for home in world.homes:
        assert world.account(home.area, home.key.public).free_u == 200_000_000
    play = Across(world, plans_of(world), make_spec(event=2, start_s=START_S + 9000))
    world.now_s = START_S + 9000
    for home in world.homes:  # a seller's plugs must have been heard of
        frame = home.checkpoint(world.now_s)
        assert world.call(home.area, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    play.run(State.CLOSED)
    world.relay_all()
    return play


@pytest.mark.row("H16")
def test_a_readmitted_area_goes_on_from_its_anchored_block_under_the_new_list_and_trades_again() -> None:
    area = readmitted()
    world = area.world
    before = total_u(world)
    assert [receipt.code for receipt in world.block(2, []).receipts] == [""]  # the regulator's word, and nothing else
    header, _ = last(world, 2)
    assert header.height == anchored(world, 2).height + 1
    assert header.next_validators == list_hash(seats())
    listed = codec.decode(world.ledgers[2].state.get(VALIDATORS_KEY) or b"", ValidatorList)
    assert (listed.sequence, listed.validators, listed.numbers, listed.given) == (1, seats(), [2, 3], 4)
    world.relay_all()
    assert world.anchored[2] == len(world.applied[2]) and anchored(world, 2).height == world.ledgers[2].head.height
    play = trade_again(area)
    assert {world.main_trade(number, 2).state for number in play.numbers()} == {"PAID"} and play.numbers()
    assert world.transit(2).received_u > 0 and world.transit(1).sent_u == world.transit(2).received_u
    assert total_u(world) == before == 800_000_000


def test_nothing_that_the_old_list_certifies_counts_after_the_word() -> None:
    area = readmitted()
    world, network = area.world, area.world.network
    at = anchored(world, 2).height
    client = LightClient(world.genesis, network)
    theirs = area.old.certified(at + 1) or b""
    parts, block, _, _ = blocks.decode_certified(theirs)
    client.check_header(2, block.header, parts.certificate)  # before it hears of the word
    first = certify(world, 2, world.ledgers[2], [], NEW)
    follower = at_anchor(world, 2, area.old)  # a node that nobody told
    follower.apply(first)
    world.block(2, [])
    assert client.follow(2, follower.changes) == 1 and client.follow(2, follower.changes) == 0
    with pytest.raises(ProofError, match="certificate"):
        client.check_header(2, block.header, parts.certificate)
    # The block that they made in its place, and one that they would make after it.
    for node in (world.ledgers[2], follower):
        with pytest.raises(codec.DecodeError, match="certificate"):
            node.apply(certify(world, 2, follower, [world.tx(2, GRID, "Validators", [b""])], area.keys))
    assert (
        world.dry(0, world.validators[0][0], "Anchor", kinds.Anchor(block.header, parts.certificate, []))[0] == "proof"
    )
    told = at_anchor(world, 2, area.old)
    assert told.resume(area.word) == ""
    with pytest.raises(codec.DecodeError, match="certificate"):
        told.apply(theirs)
    # Nor do they sign a call: each of their keys has ended.
    for key in area.keys:
        assert world.ledgers[2].next_nonce(key.public) < 0
    # Nor can they put the word into a block of their own, and one who does not go on under it makes none with it.
    honest = at_anchor(world, 2, area.old)
    assert honest.build(0, 0, world.now_s, [area.word]).transactions == []
    genuine = blocks.decode_certified(first)[1]
    assert honest.check(genuine) is not None
    header = codec.decode(genuine.header, Header)
    forged = certified(world, 2, header, area.keys)
    with pytest.raises(codec.DecodeError, match="certificate"):
        honest.apply(codec.encode(CertifiedBlock(codec.encode(genuine), forged.certificate)))
    # Their list leads nowhere either: a change that they certify from their own height is skipped or refused.
    lie = replace(codec.decode(block.header, Header), next_validators=list_hash(world.genesis.validators(2)))
    change = certified(world, 2, lie, area.keys)
    with pytest.raises(ProofError, match="certificate"):
        client.follow(2, [blocks.Change(change.header, change.certificate, list(world.genesis.validators(2)))])


def test_a_client_that_the_old_list_led_astray_is_led_back_and_an_older_word_changes_nothing() -> None:
    area = readmitted()
    world = area.world
    client = LightClient(world.genesis, world.network)
    later = area.old.head.header
    assert later is not None
    mine = [Validator("node0", key_of(970).public)]
    lie = certified(world, 2, replace(later, next_validators=list_hash(mine)), area.keys)
    assert client.follow(2, [blocks.Change(lie.header, lie.certificate, mine)]) == 1
    world.block(2, [])
    world.tick(2)
    assert client.follow(2, world.ledgers[2].changes) == 1
    assert client.height_of_list(2) == anchored(world, 2).height + 1
    _, shown = last(world, 2)
    client.check_header(2, shown.header, shown.certificate)
    one = world.ledgers[2].changes[0]
    twin = word(world, 2, validators=[Validator("node2", key_of(970).public)])
    cases = {
        "change-word": [
            replace(one, word=twin),
            replace(one, word=word(world, 2, key_of(970), 1)),
            replace(one, word=one.word[:-1] + bytes([one.word[-1] ^ 1])),
            replace(one, word=word(world, 2, previous=bytes(32))),
        ],
        "change-list": [replace(one, validators=mine)],
        "certificate": [replace(one, certificate=lie.certificate)],
        "word-form": [replace(one, word=b"Resume"), replace(one, word=world_tx(world.ledgers[2], world))],
    }
    for reason, changes in cases.items():
        for change in changes:
            with pytest.raises(ProofError, match=reason):
                LightClient(world.genesis, world.network).follow(2, [change])
    assert client.follow(2, [replace(one, validators=mine)]) == 0  # not newer than what it knows


def test_a_word_is_refused_by_name_and_changes_nothing() -> None:
    play = quarantined()
    world = play.world
    ledger = at_anchor(world, 2)
    nobody = Validator("node3", bytes(64))
    new = seats()
    cases = {
        "height": word(world, 2, height=ledger.head.height),
        "previous": word(world, 2, previous=bytes(32)),
        "sequence": word(world, 2, sequence=0),
        "size": word(world, 2, validators=[]),
        "name-twice": word(world, 2, validators=[new[0], replace(new[1], name=new[0].name)]),
        "key-twice": word(world, 2, validators=[new[0], replace(new[1], public=new[0].public)]),
        "name": word(world, 2, validators=[replace(new[0], name="node7")]),
        "key": word(world, 2, validators=[new[0], nobody]),
        "key-used": word(world, 2, validators=[new[0], Validator("node1", world.validators[2][1].public)]),
        "role": word(world, 2, GRID),
        "nonce": word(world, 2, nonce=99),
        "tx-chain": word(world, 1),
        "tx-signature": word(world, 2)[:-1] + b"\0",
        "tx-form": b"Resume",
        "unknown-kind": world_tx(ledger, world),
    }
    before, root = ledger.validators, ledger.state.root()
    for reason, raw in cases.items():
        assert ledger.resume(raw) == reason, reason
        assert (ledger.validators, ledger.state.root()) == (before, root)
    assert world.ledgers[0].resume(
        make_transaction(REGULATOR, world.network, "Resume", 0, 1, Resume(1, 1, bytes(32), new))
    )
    # In a place where it does not act it is an ordinary call, and refused.
    assert world.dry(2, REGULATOR, "Resume", Resume(1, 1, bytes(32), new))[0] == "not-first"
    assert ledger.resume(word(world, 2)) == ""
    assert ledger.validators == tuple(new)
    with pytest.raises(CorruptionError, match="resume"):  # the new list may not leave it out
        plain = at_anchor(world, 2)
        ledger.apply(certify(world, 2, plain, [world_tx(plain, world)], NEW))


def world_tx(ledger: Ledger, world: World) -> bytes:
    nonce = ledger.next_nonce(GRID.public)
    return make_transaction(GRID, world.network, "Validators", 2, nonce, [b""])


@pytest.mark.parametrize("later", [0, 1])
def test_a_node_that_starts_from_a_state_after_the_word_knows_the_list(later: int) -> None:
    area = readmitted()
    world = area.world
    world.block(2, [])
    for _ in range(later):
        world.tick(2)
    manifest = world.ledgers[2].frozen[-1].manifest()
    fresh = Ledger(world.genesis, 2, world._contract(2))
    assert fresh.check_final(manifest).height == world.ledgers[2].head.height
    bare = replace(manifest, changes=[replace(change, word=b"") for change in manifest.changes])
    with pytest.raises(codec.DecodeError, match="certificate"):
        fresh.check_final(bare)


def test_a_partner_and_the_main_chain_go_on_with_an_area_that_buys() -> None:
    """Area 1 has the buyers: what it locked in blocks that nobody anchored is gone for everybody."""
    world = streets()
    play = Across(world, plans_of(world)).matched()
    world.relay_all()
    play.take()
    header, honest = last(world, 1)
    other = certified(world, 1, replace(header, time_s=header.time_s + 1))
    for number in play.numbers():
        assert play.op("sell", [number]) == ""
    assert play.op("buy", [play.numbers()[0]]) == ""
    world.relay_across()  # the seller's area has consumed the lock; the main chain has not
    assert world.call(0, world.validators[0][0], "Fork", cross_kinds.Fork(honest, other)) == ""
    assert world.call(0, REGULATOR, "Readmit", cross_kinds.Readmit(1, seats())) == ""
    raw = word(world, 1)
    world.ledgers[1] = at_anchor(world, 1)
    world.applied[1] = world.applied[1][: world.anchored[1]]
    world.validators[1] = list(NEW)
    assert world.ledgers[1].resume(raw) == ""
    world.block(1, [])
    world.relay_all()
    known = codec.decode(world.ledgers[2].state.get(known_list_key(1)) or b"", KnownList)
    assert known.validators == seats()
    world.tick_all(play.spec.settle_by_s)
    world.relay_all()
    for home in world.homes:
        assert world.account(home.area, home.key.public).free_u == 200_000_000
    assert total_u(world) == 800_000_000
