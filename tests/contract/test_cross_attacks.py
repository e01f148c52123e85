"""Attacks of ledger.md 6.6 on trades across areas that have no test elsewhere (table: tools/watt_sim/README.md)."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, GRID, Home, World
from cross_world import CROSS_RULES, Across, streets, total_u
from msgspec.structs import replace
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Certificate, Header, OutMessage, VoteSignature
from watt_chain.contract import kinds
from watt_chain.contract.cross_kinds import CrossLocked, CrossOp, Endow
from watt_chain.contract.market import Solution
from watt_chain.genesis import quorum
from watt_chain.ledger import AppliedBlock, Ledger
from watt_wire import merkle


def locked(areas: int = 2) -> Across:
    """All results are taken, the sellers consent, nobody has locked."""
    play = Across(streets(areas)).matched()
    play.take()
    for number in play.numbers():
        assert play.op("sell", [number]) == ""
    return play


def inbox_code(world: World, chain: int, fields: kinds.Inbox) -> str:
    return world.dry(chain, world.validators[chain][0], "Inbox", fields)[0]


def test_every_changed_byte_of_a_receipt_is_refused() -> None:
    """Attack 2: no bit of message, path, header or certificate may be another."""
    play = locked()
    world = play.world
    # Two messages in one block, so that the path has something in it.
    calls = [CrossOp(1, [number], True) for number in play.numbers()]
    homes = [play.home(number, "buy") for number in play.numbers()]
    world.block(1, [world.tx(1, home.key, "CrossOp", call) for home, call in zip(homes, calls, strict=True)])
    (good,) = world.inbox_fields(2, 1)
    assert [len(entry.path) for entry in good.entries] == [1, 1] and inbox_code(world, 2, good) == ""

    def flipped(data: bytes, at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]

    entry = good.entries[0]
    mutants = [replace(good, certificate=flipped(good.certificate, at)) for at in range(0, len(good.certificate), 5)]
    mutants += [replace(good, header=flipped(good.header, at)) for at in range(0, len(good.header), 3)]
    for at in range(len(entry.message)):
        mutants.append(replace(good, entries=[replace(entry, message=flipped(entry.message, at)), good.entries[1]]))
    for at in range(32):
        mutants.append(replace(good, entries=[replace(entry, path=[flipped(entry.path[0], at)]), good.entries[1]]))
    for size in (0, 1, 3, 4, 2**20):
        mutants.append(replace(good, size=size))
    for index, path in ((1, entry.path), (2, entry.path), (0, []), (0, [*entry.path, bytes(32)])):
        mutants.append(replace(good, entries=[replace(entry, index=index, path=path), good.entries[1]]))
    mutants.append(replace(good, entries=good.entries[::-1]))
    mutants.append(replace(good, entries=[entry, entry]))
    for mutant in mutants:
        assert inbox_code(world, 2, mutant) in ("proof", "sequence"), mutant


def test_one_balance_pays_for_one_lock_whatever_areas_the_sellers_are_in() -> None:
    """Attack 5: the buyer's own area orders its locks, so its money is locked once."""
    play = locked(3)
    world = play.world
    numbers = play.numbers()
    buyer = play.home(numbers[0], "buy")
    assert {world.main_trade(number).terms.seller_chain for number in numbers} == {2, 3}
    free_u = world.account(1, buyer.key.public).free_u
    assert play.op("buy", [numbers[0]]) == ""
    need_u = free_u - world.account(1, buyer.key.public).free_u
    # The same again with enough for either trade and not for both.
    other = locked(3)
    world = other.world
    assert world.call(1, buyer.key, "Withdraw", kinds.Withdraw(free_u - need_u * 3 // 2)) == ""
    assert other.op("buy", numbers) == "balance"  # both at once: none
    assert other.op("buy", [numbers[0]]) == ""
    assert other.op("buy", [numbers[1]]) == "balance"
    world.relay_all()
    assert [other.states(number)[2] for number in numbers] == ["ACCEPT", "NONE"]


def test_a_matching_that_sells_one_saving_to_two_areas_or_buyers_is_refused() -> None:
    """Attack 6, before there is a trade: the masters add up what each row of a book gives."""
    play = Across(streets())
    for step in (play.announce, play.open, play.commit, play.reveal):
        step()
    solution = play.solution()
    across = solution.across
    assert across is not None and len(across.crossings) == 2
    first, second = across.crossings
    stolen = replace(second, offer_chain=first.offer_chain, offer=first.offer)  # both buyers get the first one's saving

    def code(broken: Solution) -> str:
        return play.world.dry(0, AGGREGATOR, "Match", [broken])[0]

    assert code(solution) == ""
    assert code(replace(solution, across=replace(across, crossings=[first, stolen]))).startswith("across-")
    more = replace(first, slot_wh=[wh + 1 for wh in first.slot_wh])
    assert code(replace(solution, across=replace(across, crossings=[more, second]))).startswith("across-")


def test_a_lock_that_arrives_again_is_answered_once() -> None:
    """Attack 6, two locks of one trade: the seller's area decides once, and consumes once."""
    play = locked()
    world = play.world
    assert play.op("buy", [1]) == ""
    assert play.op("buy", [1]) == "decided"  # the buyer's area orders one lock of a trade
    world.relay_across()
    seller = play.home(1, "sell")
    held = world.account(2, seller.key.public)
    assert world.trade(2).state == "ACCEPTED"
    assert play.op("sell", [1]) == "decided"
    assert play.op("sell", [1], accept=False) == "decided"  # nor is there a way back before the main chain's word
    assert world.account(2, seller.key.public).bond_u == held.bond_u
    assert [message.kind for message in reports(world, 2)].count("CrossReport") == 1


def reports(world: World, chain: int) -> list[OutMessage]:
    return [message for applied, _, _ in world.applied[chain] for message in applied.out_messages
            if message.kind.startswith("Cross")]  # fmt: skip


def test_an_area_that_is_known_locks_for_its_own_buyers_only() -> None:
    """Attack 10, against the trade of somebody else: areas 1 and 3 both buy in area 2, and area 3 is bad."""
    homes = [Home(0, 1), Home(1, 3), Home(2, 2, node=1), Home(3, 2)]
    world = World(areas=3, rules=CROSS_RULES, homes=homes)
    for chain in world.areas:
        assert world.call(0, GRID, "Endow", Endow(chain, 10**9, 10**9)) == ""
    play = Across(world).matched()
    theirs, own = sorted(play.numbers(), key=lambda number: world.main_trade(number).terms.buyer_chain)
    assert [world.main_trade(number).terms.buyer_chain for number in (theirs, own)] == [1, 3]
    for number, state in ((theirs, "NONE"), (own, "ASKED")):
        body = CrossLocked(1, [(number, world.main_trade(number).id)], [])
        sequence = 1 + (number == own)
        header = codec.decode(world.applied[3][-1][1], Header)
        message = codec.encode(OutMessage(3, 2, sequence, "CrossLocked", codec.encode(body)))
        root = merkle.leaf_hash(message)
        header_bytes = codec.encode(replace(header, height=header.height + sequence, outbox_root=root))
        certificate = certify(world, 3, header_bytes)
        fields = kinds.Inbox(header_bytes, certificate, 1, [kinds.InboxEntry(0, message, [])])
        assert world.call(2, world.validators[2][0], "Inbox", fields) == ""
        assert world.trade(2, number).state == state


def certify(world: World, chain: int, header_bytes: bytes) -> bytes:
    """A certificate by a quorum of the chain's validators, of any header."""
    header = codec.decode(header_bytes, Header)
    hash_ = blocks.block_hash(world.network, header_bytes)
    vote = blocks.vote_bytes(world.network, "commit", chain, header.height, header.view, hash_)
    keys = world.validators[chain]
    votes = [VoteSignature(index, keys[index].sign(vote)) for index in range(quorum(len(keys)))]
    return codec.encode(Certificate(header.view, votes))


def test_a_lock_is_no_option_and_costs_its_owner_the_use_of_the_money() -> None:
    """Attack 12: who locks has decided. It cannot decline, lock for more than its own trades, or get its money back
    before the main chain's word, and as long as it waits it cannot spend the money elsewhere."""
    play = Across(streets()).matched()
    world = play.world
    play.take()
    buyer = play.home(1, "buy")
    free_u = world.account(1, buyer.key.public).free_u
    assert play.op("buy", [1]) == ""
    locked_u = free_u - world.account(1, buyer.key.public).free_u
    trade = world.trade(1)
    assert locked_u == trade.escrow_u + trade.bond_u >= trade.limit_u_per_wh * trade.terms.energy_wh
    assert play.op("buy", [1], accept=False) == "decided"
    refusal = kinds.Confirmtransaction(1, False)
    assert world.call(1, buyer.key, "Confirmtransaction", refusal) == "decided"
    assert world.call(1, buyer.key, "CrossOp", CrossOp(1, [2], True)) == "not-yours"
    assert world.call(1, buyer.key, "Withdraw", kinds.Withdraw(free_u - locked_u + 1)) == "balance"
    world.tick(1, play.spec.confirm_close_s)  # its own clock changes nothing
    assert world.trade(1).state == "LOCKED"
    world.relay_all()
    # The seller, unbound by the lock, has let it lapse: the buyer gets its money with the main chain's word.
    world.tick_all(play.spec.confirm_close_s)
    world.relay_all()
    assert play.states() == ("REFUNDED", "REJECTED", "REJECT")
    assert world.account(1, buyer.key.public).free_u == free_u


@pytest.mark.row("H16")
def test_a_node_that_dies_after_any_block_of_a_trade_says_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 27: what a chain has to send is part of its blocks. After every block from the first lock on, the chain
    that made it starts again from its log; it then sends what it would have sent, and the trade goes on."""
    play = locked()
    world = play.world
    made = World.block
    restarts = 0

    def block(self: World, chain: int, txs: list[bytes]) -> AppliedBlock:
        nonlocal restarts
        applied = made(self, chain, txs)
        old = self.ledgers[chain]
        fresh = Ledger(self.genesis, chain, self._contract(chain), verified=old.verified)
        for height in range(1, old.head.height + 1):
            again = fresh.replay(old.certified(height) or b"")
            known = self.applied[chain][height - 1][0]
            assert again.out_messages == known.out_messages
        assert fresh.head.block_hash == old.head.block_hash
        self.ledgers[chain] = fresh
        restarts += 1
        return applied

    monkeypatch.setattr(World, "block", block)
    for number in play.numbers():
        assert play.op("buy", [number]) == ""
    world.relay_all()
    world.tick_all(play.spec.confirm_close_s)
    monkeypatch.setattr(World, "block", made)
    for step in (play.window, play.deliver):
        step()
    monkeypatch.setattr(World, "block", block)
    for step in (play.settle, play.close):
        step()
    world.relay_all()
    assert [play.states(number) for number in play.numbers()] == [("PAID", "CREDITED", "PAID")] * 2
    assert restarts > 20 and total_u(world) == 800_000_000
