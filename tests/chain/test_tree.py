"""The state tree against a naive one; undo; order of slots."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watt_chain import codec
from watt_chain.state import FinalState, State
from watt_chain.tree import EMPTY_ROOT, Overlay, StateTree, build_tree, leaf_of, root_of
from watt_wire import merkle

SIZES = 130


def key_of(number: int) -> bytes:
    return b"k/%d" % number


@pytest.mark.row("E3")
def test_roots_and_proofs_equal_the_naive_tree_for_every_size() -> None:
    tree, leaves = StateTree(), []
    for size in range(SIZES):
        assert tree.root() == merkle.root(leaves)
        for index in range(size):
            slot, path = tree.proof(key_of(index))
            assert slot == index and path == merkle.proof(leaves, index)
            assert merkle.verify_proof(leaves[index], index, size, path, tree.root())
        overlay = Overlay(tree)
        overlay.put(key_of(size), b"v")
        leaves.append(leaf_of(key_of(size), b"v"))
        tree.merge(overlay)


def test_many_writes_at_once_equal_the_naive_tree() -> None:
    chance = random.Random(7)
    tree, values, keys = StateTree(), {}, []
    for _ in range(120):
        overlay = Overlay(tree)
        for _ in range(chance.randint(0, 9)):
            mark = overlay.savepoint()
            before = dict(values), list(keys)
            for _ in range(chance.randint(1, 4)):
                key, value = key_of(chance.randint(0, 60)), bytes([chance.randint(0, 255)])
                overlay.put(key, value)
                if key not in values:
                    keys.append(key)
                values[key] = value
            if chance.random() < 0.3:
                overlay.rollback(mark)
                values, keys = before
            if chance.random() < 0.3:
                overlay.root()
        expected = merkle.root([leaf_of(key, values[key]) for key in keys])
        assert overlay.root() == expected
        assert overlay.keys(b"k/") == keys
        if chance.random() < 0.8:
            tree.merge(overlay)
        else:
            values, keys = dict(zip(tree.keys, tree.values, strict=True)), list(tree.keys)
        assert tree.root() == merkle.root([leaf_of(key, values[key]) for key in keys])
        assert all(tree.get(key) == values[key] for key in keys)


class Counter(codec.Structure, frozen=True):
    """A value that may be written as an object."""

    number: int


def test_objects_are_what_their_bytes_spell_whatever_is_undone_merged_or_dropped() -> None:
    chance = random.Random(11)
    plain, other = StateTree(), StateTree()
    for step in range(300):
        if step % 50 == 49:  # a snapshot takes the place of the state, as in `Ledger.install`
            other.adopt(build_tree(FinalState(other).items()))
            assert not other.objects
        state, objects = State(plain, 1), State(other, 1)
        dropped = State(other, 1)  # another block at the same height
        for _ in range(chance.randint(0, 9)):
            marks = state.savepoint(), objects.savepoint()
            for _ in range(chance.randint(1, 4)):
                key, value = key_of(chance.randint(0, 30)), Counter(chance.randint(0, 9))
                state.put(key, codec.encode(value))
                objects.put(key, value if chance.random() < 0.7 else codec.encode(value))
                dropped.put(key, Counter(99))
                _read(objects, key_of(chance.randint(0, 30)))
            if chance.random() < 0.3:
                assert objects.root() == state.root()
            if chance.random() < 0.3:
                state.rollback(marks[0])
                objects.rollback(marks[1])
            dropped.root()
            assert all(
                objects.get(key_of(at)) == state.get(key_of(at)) == _read(objects, key_of(at)) for at in range(31)
            )
        assert objects.root() == state.root()
        if chance.random() < 0.8:
            plain.merge(state.overlay)
            other.merge(objects.overlay)
        assert other.root() == plain.root() and (other.keys, other.values) == (plain.keys, plain.values)
        assert all(_read(FinalState(other), key_of(at)) == plain.get(key_of(at)) for at in range(31))
        assert all(codec.encode(value) == other.get(key) for key, value in other.objects.items())


def _read(state: State | FinalState, key: bytes) -> bytes | None:
    """What `look` finds, as bytes; bytes are taken apart and kept, as `contract.access.read` does."""
    found = state.look(key)
    if isinstance(found, bytes):
        state.keep(key, codec.decode(found, Counter))
    return found if found is None or isinstance(found, bytes) else codec.encode(found)


def test_an_overlay_changes_nothing_until_it_is_merged() -> None:
    tree = StateTree()
    overlay = Overlay(tree)
    overlay.put(b"a", b"1")
    assert tree.get(b"a") is None and tree.root() == EMPTY_ROOT and overlay.get(b"a") == b"1"


def test_an_overlay_of_an_older_state_cannot_be_merged() -> None:
    tree = StateTree()
    first, second = Overlay(tree), Overlay(tree)
    first.put(b"a", b"1")
    second.put(b"b", b"1")
    tree.merge(first)
    with pytest.raises(AssertionError):
        tree.merge(second)


def test_keys_come_by_prefix_in_slot_order() -> None:
    tree = StateTree()
    overlay = Overlay(tree)
    for key in (b"user/b", b"pair/1/2", b"user/a", b"pair/12/1", b"pool"):
        overlay.put(key, b"x")
    tree.merge(overlay)
    overlay = Overlay(tree)
    overlay.put(b"user/0", b"x")
    overlay.put(b"user/b", b"y")
    assert overlay.keys(b"user/") == [b"user/b", b"user/a", b"user/0"]
    assert overlay.keys(b"pair/1/") == [b"pair/1/2"]
    assert overlay.keys(b"pair/1") == [b"pair/1/2", b"pair/12/1"]
    assert overlay.keys(b"po") == [b"pool"]


def test_messages_are_numbered_per_target_and_undone_with_the_state() -> None:
    state = State(StateTree(), 1)
    state.emit(0, "A", b"1")
    mark = state.savepoint()
    state.emit(0, "B", b"2")
    state.emit(2, "C", b"3")
    state.rollback(mark)
    state.emit(0, "D", b"4")
    assert [(m.target_chain, m.sequence, m.kind) for m in state.messages()] == [(0, 1, "A"), (0, 2, "D")]


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70))
def test_the_root_of_a_whole_list_is_that_of_the_wire(leaves: list[bytes]) -> None:
    assert root_of(leaves) == merkle.root(leaves)
