"""Merkle tree over SHA-256 with the hashing of RFC 9162 section 2.1.

leaf  SHA-256(0x00 || data)        node  SHA-256(0x01 || left || right)        empty tree  SHA-256("")
A tree of n leaves splits at the largest power of two below n; that is the same tree as pairing each level from the
left and carrying an odd last node up unchanged, which is how it is computed here.
"""

import hashlib

HASH_SIZE = 32

PROOF_LENGTH_MAX = 64
"""Longest proof that verify_proof looks at: trees are indexed by integers below 2^64."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node over two 32-byte hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """Root of a growing list of leaves in O(log n) memory: one pending subtree per size, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._pending: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        carry = leaf
        size = self.size
        while size & 1:
            carry = node_hash(self._pending.pop(), carry)
            size >>= 1
        self._pending.append(carry)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over the leaves so far; SHA-256("") when there is none."""
        if not self._pending:
            return hashlib.sha256(b"").digest()
        index = len(self._pending) - 1
        result = self._pending[index]
        while index > 0:
            index -= 1
            result = node_hash(self._pending[index], result)
        return result


def root(leaf_hashes: list[bytes]) -> bytes:
    """Return the root over the leaf hashes in order."""
    frontier = Frontier()
    for leaf in leaf_hashes:
        frontier.add(leaf)
    return frontier.root()


def proof(leaf_hashes: list[bytes], index: int) -> list[bytes]:
    """Return the inclusion proof of leaf `index`: sibling hashes from the leaf up. IndexError outside the tree."""
    if not 0 <= index < len(leaf_hashes):
        raise IndexError("leaf %d of %d" % (index, len(leaf_hashes)))
    path = []
    level = list(leaf_hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        above = []
        for left in range(0, len(level) - 1, 2):
            above.append(node_hash(level[left], level[left + 1]))
        if len(level) & 1:
            above.append(level[-1])
        level = above
        index >>= 1
    return path


def verify_proof(leaf: bytes, index: int, size: int, path: list[bytes], expected_root: bytes) -> bool:
    """Tell whether leaf hash `leaf` is number `index` of the tree of `size` leaves with that root.

    Never raises on hostile input of the right types. Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size or len(path) > PROOF_LENGTH_MAX or len(leaf) != HASH_SIZE:
        return False
    last = size - 1
    result = leaf
    for sibling in path:
        if last == 0 or len(sibling) != HASH_SIZE:
            return False
        if index & 1 or index == last:
            result = node_hash(sibling, result)
            while not index & 1 and index != 0:
                index >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        index >>= 1
        last >>= 1
    return last == 0 and result == expected_root
