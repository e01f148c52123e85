"""What passes between areas: forged, replayed and stale receipts, lying areas, trades that stand or fall together."""

from __future__ import annotations

import itertools

import pytest
from contract_world import GRID, REGULATOR, World, key_of
from cross_world import Across, streets, total_u
from msgspec.structs import replace
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Certificate, Header, OutMessage, VoteSignature
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.cross_objects import kill_after_s
from watt_chain.contract.event import State
from watt_chain.contract.objects import InboxCursor
from watt_chain.genesis import Validator, quorum
from watt_wire import merkle

ALL_U = 4 * 200_000_000


def locked() -> Across:
    """The buyer of trade 1 has locked, the seller consents, nothing has been carried anywhere."""
    play = Across(streets()).matched()
    play.take()
    assert (play.op("sell", [1]), play.op("buy", [1])) == ("", "")
    return play


def lie(world: World, source: int, target: int, kind: str, body: object, sequence: int) -> kinds.Inbox:
    """A block of `source` that its quorum signs and no honest node ever executed, with one message for `target`."""
    last = codec.decode(world.applied[source][-1][1], Header)
    message = codec.encode(OutMessage(source, target, sequence, kind, codec.encode(body)))
    root = merkle.root([merkle.leaf_hash(message)])
    height = last.height + sequence
    header = codec.encode(replace(last, height=height, outbox_root=root))
    hash_ = blocks.block_hash(world.network, header)
    vote = blocks.vote_bytes(world.network, "commit", source, height, 0, hash_)
    keys = world.validators[source]
    votes = [VoteSignature(index, keys[index].sign(vote)) for index in range(quorum(len(keys)))]
    return kinds.Inbox(header, codec.encode(Certificate(0, votes)), 1, [kinds.InboxEntry(0, message, [])])


def take(world: World, chain: int, fields: kinds.Inbox) -> str:
    return world.dry(chain, world.validators[chain][0], "Inbox", fields)[0]


@pytest.mark.row("H18")
def test_a_receipt_counts_only_with_a_certificate_and_its_path() -> None:
    """Ledger.md 6.6 attacks 1, 2, 29: a cross-node claims a lock without it, or proves another leaf."""
    world = locked().world
    (good,) = world.inbox_fields(2, 1)
    entry = good.entries[0]
    assert take(world, 2, replace(good, certificate=b"")) == "proof"
    assert take(world, 2, replace(good, size=good.size + 1)) == "proof"
    assert take(world, 2, replace(good, entries=[replace(entry, index=entry.index + 1)])) == "proof"
    message = codec.decode(entry.message, OutMessage)
    for changes in ({"sequence": 2}, {"target_chain": 3}, {"body": message.body[:-1] + b"\x05"}):
        forged = codec.encode(replace(message, **changes))
        assert take(world, 2, replace(good, entries=[replace(entry, message=forged)])) == "proof"
    header = codec.decode(good.header, Header)
    assert take(world, 2, replace(good, header=codec.encode(replace(header, chain=2)))) == "proof"
    assert take(world, 2, replace(good, header=codec.encode(replace(header, chain=9)))) == "proof"
    assert take(world, 2, good) == ""
    for flip in range(0, len(good.header), 7):
        bent = good.header[:flip] + bytes([good.header[flip] ^ 1]) + good.header[flip + 1 :]
        assert take(world, 2, replace(good, header=bent)) != ""


def test_a_receipt_is_taken_once_and_in_order() -> None:
    """Attack 3: replays and reordering."""
    play = Across(streets()).matched()
    world = play.world
    play.take()
    for number in (1, 2):
        assert play.op("buy", [number]) == ""
    first, second = world.inbox_fields(2, 1)
    assert take(world, 2, second) == "sequence"
    node = world.validators[2][0]
    assert world.call(2, node, "Inbox", first) == ""
    assert world.call(2, node, "Inbox", first) == "sequence"
    assert world.call(2, node, "Inbox", second) == ""
    assert world.call(2, node, "Inbox", first) == "stale"
    state = world.ledgers[2].state.get(b"inbox/1") or b""
    assert codec.decode(state, InboxCursor).sequence == 2


def test_an_area_that_does_not_know_another_takes_nothing_of_it() -> None:
    world = streets()
    fields = lie(world, 2, 1, "CrossLocked", [1, [[1, bytes(32)]], []], 1)
    assert take(world, 1, fields) == "proof"


def test_a_lock_that_an_area_makes_up_binds_no_seller() -> None:
    """Attack 10: area 1 signs a lock that no re-execution would find. The seller's area believes its certificate and
    accepts; the main chain never sees the lock anchored, so there is no outcome but the end."""
    play = Across(streets()).matched()
    world = play.world
    play.take()
    assert play.op("sell", [1]) == ""
    named = world.main_trade().id
    made_up = lie(world, 1, 2, "CrossLocked", cross_kinds.CrossLocked(1, [(1, named)], []), 1)
    assert world.call(2, world.validators[2][0], "Inbox", made_up) == ""
    assert world.trade(2).state == "ACCEPTED"
    world.anchored[1] = len(world.applied[1])  # nothing of area 1 is anchored any more
    world.relay_up()
    assert world.main_trade().state == "ACCEPTED"
    world.now_s = kill_after_s(play.spec)
    assert world.call(0, world.validators[0][0], "CrossEnd", cross_kinds.CrossEnd(1)) == ""
    world.relay_down()
    assert (world.trade(2).state, world.main_trade().state) == ("RELEASED", "KILL")
    assert world.account(2, play.home(1, "sell").key.public).free_u == 200_000_000


def test_what_an_area_says_of_trades_that_are_not_its_own_has_no_effect() -> None:
    play = Across(streets(3)).matched()
    world = play.world
    assert play.op("buy", [1]) == "no-choice"
    named = world.main_trade().id
    wrong = [
        cross_kinds.CrossLocked(1, [(1, bytes(32))], []),
        cross_kinds.CrossLocked(1, [(9, named)], []),
    ]
    for sequence, body in enumerate(wrong, start=1):
        fields = lie(world, 1, 2, "CrossLocked", body, sequence)
        assert world.call(2, world.validators[2][0], "Inbox", fields) == ""
    assert world.trade(2).state == "NONE"
    assert take(world, 2, lie(world, 1, 2, "CrossNews", [1, [[1, "pay", 5]]], 3)) == "message"
    assert take(world, 2, lie(world, 1, 2, "CrossLocked", [1, [[1, named]]], 3)) == "message"
    assert take(world, 2, lie(world, 3, 2, "CrossLocked", [1, [[1, named]], []], 1)) == "proof"


def test_a_lock_that_is_carried_before_the_matching_is_refused_and_taken_afterwards() -> None:
    """A cross-node that is early, by haste or on purpose, must not make a lock go by without effect."""
    play = Across(streets())
    play.run(State.QUALIFIED)
    world = play.world
    assert world.call(0, GRID, "Match", [play.solution()]) == ""
    (news,) = world.inbox_fields(2)
    for fields in world.inbox_fields(1):
        assert world.call(1, world.validators[1][0], "Inbox", fields) == ""
    buyer = play.home(1, "buy")
    assert world.call(1, buyer.key, "Confirmtransaction", kinds.Confirmtransaction(1, True)) == ""
    assert play.op("buy", [1]) == ""
    partner, match = (replace(news, entries=[entry]) for entry in news.entries)
    assert world.call(2, world.validators[2][0], "Inbox", partner) == ""
    (lock,) = world.inbox_fields(2, 1)
    assert take(world, 2, lock) == "early"
    assert world.call(2, world.validators[2][0], "Inbox", match) == ""
    assert world.call(2, world.validators[2][0], "Inbox", lock) == ""
    assert world.trade(2).state == "ASKED"


# Together: three areas --------------------------------------------------------------------------------------------


def three() -> Across:
    """One buyer of area 1, sellers in areas 2 and 3, one trade with each."""
    play = Across(streets(3)).matched()
    assert {play.world.main_trade(number).terms.seller_chain for number in play.numbers()} == {2, 3}
    play.take()
    return play


@pytest.mark.row("H16")
def test_trades_that_are_locked_together_all_come_about() -> None:
    play = three()
    numbers = play.numbers()
    assert play.op("buy", numbers) == ""
    for number in numbers:
        assert play.op("sell", [number]) == ""
    play.world.relay_all()
    assert [play.states(number) for number in numbers] == [("BOUND", "EFFECTIVE", "ACCEPT")] * 2
    assert all(play.world.main_trade(number).group == numbers for number in numbers)
    play.world.tick_all(play.spec.confirm_close_s)
    for step in (play.window, play.deliver, play.settle, play.close):
        step()
    play.world.relay_all()
    assert [play.states(number) for number in numbers] == [("PAID", "CREDITED", "PAID")] * 2
    assert total_u(play.world) == 5 * 200_000_000


@pytest.mark.parametrize("who", ["one refuses", "one is silent", "one area halts", "main first"])
def test_trades_that_are_locked_together_fall_together(who: str) -> None:
    """Attack 30: no lock waits for another; one that is missing at the deadline ends all."""
    play = three()
    world, numbers = play.world, play.numbers()
    assert play.op("sell", [numbers[0]]) == ""
    if who == "main first":  # both sellers' areas answer before the lock itself is anchored
        assert play.op("sell", [numbers[1]]) == ""
        assert play.op("buy", numbers) == ""
        world.relay_across()
        for chain in (2, 3):
            while world.anchored[chain] < len(world.applied[chain]):
                assert (
                    world.call(0, world.validators[0][0], "Anchor", world.anchor_fields(chain, world.anchored[chain]))
                    == ""
                )
                world.anchored[chain] += 1
        assert [world.main_trade(number).state for number in numbers] == ["ACCEPTED", "ACCEPTED"]
        world.relay_all()
        assert [play.states(number)[2] for number in numbers] == ["ACCEPT", "ACCEPT"]
        return
    assert play.op("buy", numbers) == ""
    if who == "one refuses":
        assert play.op("sell", [numbers[1]], accept=False) == ""
        world.relay_all()
    elif who == "one is silent":
        world.relay_all()
        assert [world.main_trade(number).state for number in numbers] == ["READY", "LOCKED"]
        world.tick_all(play.spec.confirm_close_s)
        world.relay_all()
    else:
        world.relay_all()
        world.now_s = kill_after_s(play.spec)
        assert world.call(0, world.validators[0][0], "CrossEnd", cross_kinds.CrossEnd(1)) == ""
        world.relay_down()
    assert [play.states(number)[0] for number in numbers] == ["REFUNDED", "REFUNDED"]
    assert {play.states(number)[2] for number in numbers} <= {"KILL", "REJECT"}
    assert play.states(numbers[0])[1] == "RELEASED"
    for home in world.homes:
        assert world.account(home.area, home.key.public).free_u == 200_000_000


# The validators of an area change -----------------------------------------------------------------------------------


def change_list(world: World, chain: int) -> None:
    """Node 1 of an area gets a new key, two heights later."""
    ledger = world.ledgers[chain]
    new = key_of(900 + chain)
    seats = [ledger.validators[0], Validator("node1", new.public)]
    fields = kinds.ListChange(1, ledger.head.height + 3, seats)
    assert world.call(chain, REGULATOR, "Validators", fields) == ""
    world.tick(chain)
    world.validators[chain] = [world.validators[chain][0], new]


@pytest.mark.parametrize("carried", [True, False])
def test_a_lock_outlives_the_validators_that_certified_it(carried: bool) -> None:
    """Attacks 11 and 25: the receipt is of the old validators; the area hears of the new ones from the main chain, with
    the locks that are open, and from then on the old ones certify nothing any more."""
    play = locked()
    world = play.world
    (old,) = world.inbox_fields(2, 1)
    old_keys = list(world.validators[1])
    if carried:
        assert world.call(2, world.validators[2][0], "Inbox", old) == ""
    change_list(world, 1)
    world.relay_up()
    world.relay_down()
    assert take(world, 2, old) == "proof"
    assert world.trade(2).state == ("EFFECTIVE" if carried else "ACCEPTED")
    world.relay_all()
    assert play.states() == ("BOUND", "EFFECTIVE", "ACCEPT")
    # The old validators sign a block of a height that is not theirs, and one of a height that was.
    for keys, height in itertools.product((old_keys,), (0, -4)):
        last = codec.decode(world.applied[1][-1][1], Header)
        body = cross_kinds.CrossLocked(1, [(2, world.main_trade(2).id)], [])
        message = codec.encode(OutMessage(1, 2, 2, "CrossLocked", codec.encode(body)))
        root = merkle.root([merkle.leaf_hash(message)])
        header = codec.encode(replace(last, height=last.height + 1 + height, outbox_root=root))
        hash_ = blocks.block_hash(world.network, header)
        vote = blocks.vote_bytes(world.network, "commit", 1, last.height + 1 + height, 0, hash_)
        votes = [VoteSignature(index, keys[index].sign(vote)) for index in range(2)]
        entry = kinds.InboxEntry(0, message, [])
        fields = kinds.Inbox(header, codec.encode(Certificate(0, votes)), 1, [entry])
        assert take(world, 2, fields) == "proof"
    # And a lock under the new ones is taken as before.
    assert play.op("sell", [2]) == ""
    assert play.op("buy", [2]) == ""
    world.relay_all()
    assert play.states(2) == ("BOUND", "EFFECTIVE", "ACCEPT")


def test_a_block_that_sends_too_much_takes_no_more_calls() -> None:
    """Attack 24: what a block sends fits an anchor, or the area could never be anchored again."""
    play = locked()
    world = play.world
    from watt_chain.contract import cross_area

    before = cross_area.BLOCK_MESSAGES_MAX
    try:
        cross_area.BLOCK_MESSAGES_MAX = 0  # type: ignore[misc]
        for fields in world.inbox_fields(2, 1):
            assert take(world, 2, fields) == "busy"
        home = play.home(2, "buy")
        assert world.dry(1, home.key, "CrossOp", cross_kinds.CrossOp(1, [2], True))[0] == "busy"
    finally:
        cross_area.BLOCK_MESSAGES_MAX = before  # type: ignore[misc]
    assert world.event(1).state is State.MATCHED
    assert world.account(1, GRID.public).free_u == 0
