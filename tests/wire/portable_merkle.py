"""Merkle trees on any interpreter: golden roots and proofs, every leaf of small trees, and what must not verify."""

from watt_wire import merkle
from wire_vectors import blocks, flipped


def leaves_of(size: int) -> list[bytes]:
    return [merkle.leaf_hash(bytes(range(i))) for i in range(size)]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_golden_roots_and_proofs() -> None:
    for block in blocks("merkle.txt"):
        leaves = leaves_of(block.number("size"))
        assert merkle.root(leaves) == block.data("root")
        paths = block.every("path")
        for number, index in enumerate(block.every("index")):
            assert b"".join(merkle.proof(leaves, int(index))) == bytes.fromhex(paths[number])


def test_every_leaf_of_every_small_tree_is_proved() -> None:
    for size in range(1, 20):
        leaves = leaves_of(size)
        root = merkle.root(leaves)
        for index in range(size):
            path = merkle.proof(leaves, index)
            assert merkle.verify_proof(leaves[index], index, size, path, root)


def test_a_frontier_has_the_root_of_the_list_at_every_size() -> None:
    frontier = merkle.Frontier()
    leaves = leaves_of(20)
    for size in range(20):
        assert frontier.size == size
        assert frontier.root() == merkle.root(leaves[:size])
        frontier.add(leaves[size])


def test_a_proof_holds_for_no_other_leaf_index_size_path_or_root() -> None:
    size = 13
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    for index in range(size):
        path = merkle.proof(leaves, index)
        other = (index + 1) % size
        assert not merkle.verify_proof(leaves[other], index, size, path, root)
        assert not merkle.verify_proof(leaves[index], other, size, path, root)
        assert not merkle.verify_proof(leaves[index], index, size, path[:-1], root)
        assert not merkle.verify_proof(leaves[index], index, size, path + [root], root)
        assert not merkle.verify_proof(leaves[index], index, size, path, flipped(root, 31, 1))
        for at in range(len(path)):
            bad = path[:at] + [flipped(path[at], at, 0x80)] + path[at + 1 :]
            assert not merkle.verify_proof(leaves[index], index, size, bad, root)
            short = path[:at] + [path[at][:-1]] + path[at + 1 :]
            assert not merkle.verify_proof(leaves[index], index, size, short, root)


def test_a_proof_outside_the_tree_is_refused() -> None:
    leaves = leaves_of(4)
    root = merkle.root(leaves)
    path = merkle.proof(leaves, 0)
    for index, size in ((-1, 4), (4, 4), (0, 0), (0, -1), (1 << 70, 4)):
        assert not merkle.verify_proof(leaves[0], index, size, path, root)
    assert not merkle.verify_proof(leaves[0], 0, 1 << 80, path * 40, root)
    for index in (-1, 4):
        try:
            merkle.proof(leaves, index)
        except IndexError:
            continue
        raise AssertionError("a proof of no leaf")


def test_an_inner_node_is_not_a_leaf() -> None:
    left, right = merkle.leaf_hash(b"l"), merkle.leaf_hash(b"r")
    assert merkle.leaf_hash(left + right) != merkle.root([left, right])
