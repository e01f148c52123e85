"""What the contract remembers decoded must be safe to hand out many times, and must never change what a block does."""

import msgspec
import pytest
from contract_world import DEPOSIT_U, GRID, REGULATOR, Home, World, key_of
from watt_chain.contract import kinds
from watt_chain.contract.access import FLAT
from watt_chain.crypto import PrivateKey
from watt_chain.ledger import Ledger
from watt_chain.snapshot import FrozenState
from watt_chain.transaction import make_transaction
from watt_chain.tree import build_tree

SCALARS = (msgspec.inspect.IntType, msgspec.inspect.BytesType, msgspec.inspect.StrType, msgspec.inspect.BoolType)


@pytest.mark.parametrize("kind", sorted(FLAT, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_an_object_that_is_remembered_decoded_has_no_part_that_could_be_changed(kind: type[msgspec.Struct]) -> None:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType) and kind.__struct_config__.frozen
    for field in info.fields:
        types = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        assert all(isinstance(one, (*SCALARS, msgspec.inspect.LiteralType)) for one in types), field.name


def test_ledgers_that_kept_objects_and_that_read_bytes_agree_on_every_block() -> None:
    world = World(areas=1, homes=[Home(0, 1), Home(1, 1)])
    ledger, new = world.ledgers[1], key_of(500)
    first, second = world.homes
    reader, joined = (Ledger(world.genesis, 1, world._contract(1)) for _ in range(2))

    def withdraw(key: PrivateKey, nonce: int, amount_u: int) -> bytes:
        return make_transaction(key, world.network, "Withdraw", 1, nonce, kinds.Withdraw(amount_u))

    def follow() -> None:
        for height in range(reader.head.height + 1, ledger.head.height + 1):
            certified = ledger.certified(height)
            assert certified is not None
            reader.apply(certified)  # raises when it comes to another header
            reader._tree.objects.clear()
            if joined.head.height:
                joined.apply(certified)

    # A refusal between two calls of one signer is undone, its nonce is not.
    due = ledger.next_nonce(first.key.public)
    calls = [(0, 5), (1, 2 * DEPOSIT_U), (2, 7)]
    applied = world.block(1, [withdraw(first.key, due + at, amount_u) for at, amount_u in calls])
    assert [receipt.code for receipt in applied.receipts] == ["", "balance", ""]
    assert world.account(1, first.key.public).free_u == DEPOSIT_U - 12
    follow()
    # A state that was fetched knows no objects.
    _, header, certificate = world.applied[1][-1]
    frozen = FrozenState(ledger._tree, header, certificate, ledger.changes)
    joined.install(frozen.manifest(), build_tree(frozen.entries()))
    # Another block is built at the height, and forgotten; then a key changes within a block.
    leader, due = ledger.schedule.leader(ledger.head.height + 1, 0), due + 3
    ledger.build(0, leader, world.now_s, [withdraw(first.key, due, 1), withdraw(second.key, 2, 1)])
    rotate = world.tx(1, REGULATOR, "Rotate", kinds.Rotate(first.id, new.public))
    late = withdraw(first.key, due + 1, 3)
    applied = world.block(1, [withdraw(first.key, due, 2), rotate, late, withdraw(new, due + 1, 4)])
    assert [tx.signer for tx in applied.transactions] == [first.key.public, REGULATOR.public, new.public]
    assert [receipt.code for receipt in applied.receipts] == [""] * 3
    follow()
    assert world.call(1, GRID, "Deposit", kinds.Deposit(first.id, 1)) == ""
    follow()
    assert world.account(1, first.key.public).free_u == DEPOSIT_U - 12 - 2 - 4 + 1
    assert ledger.head.block_hash == reader.head.block_hash == joined.head.block_hash
    assert list(ledger.state.items()) == list(reader.state.items()) == list(joined.state.items())
