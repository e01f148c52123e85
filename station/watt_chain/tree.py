"""The state tree: numbered slots under an RFC 9162 root that is kept up to date (CONSENSUS.md 2.9).

Strategy. A key gets the next free slot number at its first `put` and keeps it for ever; slot i is leaf i.
`levels[0]` holds the leaf hashes, `levels[k+1]` the hashes of pairs of `levels[k]`; a last node without a
partner moves up unchanged. That is the tree of RFC 9162 section 2.1.1 (the split at the largest power of
two leaves exactly the complete subtrees paired), and a changed leaf touches one node per level.

Writes go into an `Overlay`, never into the tree: the overlay carries its own values and, once its root was
asked for, its own nodes. A block that becomes final is merged (`StateTree.merge`) without hashing anything
again; one that does not is dropped. Readers of the tree never see a block that is not final.

A value may be written as the object it spells, and is remembered as one that was read: what a thousand transactions
of a block change in turn is spelt once, when the root is asked for.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from watt_chain import codec

_sha256 = hashlib.sha256
EMPTY_ROOT = _sha256(b"").digest()

Value = bytes | msgspec.Struct
"""Bytes, or the object they spell: an immutable one, with nothing inside that somebody could change."""

KEY_SIZE_MAX = 96
"""A key is a word, numbers and at most two identities."""


def leaf_of(key: bytes, value: bytes) -> bytes:
    """Leaf hash of one entry of the state."""
    return _sha256(b"\x00" + codec.encode([key, value])).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162 root over leaf hashes: `merkle.root` for whole lists, twice as fast (a level at a time, no stack)."""
    if not leaves:
        return EMPTY_ROOT
    level = leaves
    while len(level) > 1:
        pairs = iter(level)
        above = [_sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
        if len(level) & 1:
            above.append(level[-1])
        level = above
    return level[0]


def build_tree(entries: Iterable[tuple[bytes, bytes]]) -> "StateTree":
    """The tree of these (key, value), the first in slot 0. Raises ValueError when a key has two slots or a bad size."""
    tree = StateTree()
    leaves = tree.levels[0]
    for slot, (key, value) in enumerate(entries):
        if key in tree.slots or not 0 < len(key) <= KEY_SIZE_MAX:
            raise ValueError(f"slot {slot} has no good key")
        tree.slots[key] = slot
        tree.keys.append(key)
        tree.values.append(value)
        leaves.append(leaf_of(key, value))
        for prefix in prefixes_of(key):
            tree.groups.setdefault(prefix, []).append(slot)
    tree.levels = pair_up(leaves)
    return tree


def pair_up(nodes: list[bytes]) -> list[list[bytes]]:
    """All levels of the tree above (and with) `nodes`; the last has one node, or none for no nodes."""
    levels = [nodes]
    while len(nodes) > 1:
        above = [_sha256(b"\x01" + nodes[at] + nodes[at + 1]).digest() for at in range(0, len(nodes) - 1, 2)]
        if len(nodes) & 1:
            above.append(nodes[-1])
        levels.append(above)
        nodes = above
    return levels


def prefixes_of(key: bytes) -> Iterable[bytes]:
    """Every prefix of `key` that ends with a slash; what `keys(prefix)` can be asked for cheaply."""
    at = key.find(b"/")
    while at >= 0:
        yield key[: at + 1]
        at = key.find(b"/", at + 1)


class StateTree:
    """The state after the last final block. Changes only through `merge`."""

    __slots__ = ("groups", "keys", "levels", "objects", "slots", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.slots: dict[bytes, int] = {}
        self.groups: dict[bytes, list[int]] = {}
        "Slots by prefix ending with a slash."
        self.levels: list[list[bytes]] = [[]]
        self.objects: dict[bytes, msgspec.Struct] = {}
        "By key, what a value spells, as far as somebody has read or written it as an object; never more than slots."

    def __len__(self) -> int:
        return len(self.keys)

    def get(self, key: bytes) -> bytes | None:
        """Value of a key, or None when it was never written."""
        slot = self.slots.get(key)
        return None if slot is None else self.values[slot]

    def look(self, key: bytes) -> Value | None:
        """As `get`; the object, when it is known what the bytes spell."""
        found = self.objects.get(key)
        return self.get(key) if found is None else found

    def root(self) -> bytes:
        """RFC 9162 root over all slots."""
        return self.levels[-1][0] if self.keys else EMPTY_ROOT

    def proof(self, key: bytes) -> tuple[int, list[bytes]]:
        """(slot, inclusion path) of a key. Raises KeyError when it was never written."""
        slot = index = self.slots[key]
        path: list[bytes] = []
        for level in self.levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index >>= 1
        return slot, path

    def adopt(self, other: "StateTree") -> None:
        """Become a copy of `other`, which is not used any more; readers of this tree see the new state."""
        for name in StateTree.__slots__:
            setattr(self, name, getattr(other, name))

    def merge(self, overlay: "Overlay") -> None:
        """Make the overlay's writes final. The overlay must rest on this tree as it is now."""
        assert overlay.base is self and overlay.base_size == len(self.keys), "the overlay is out of date"
        overlay.root()
        for (key, data), value in zip(overlay.spelt.items(), overlay.writes.values(), strict=True):
            slot = self.slots.get(key)
            if slot is None:
                slot = self.slots[key] = len(self.keys)
                self.keys.append(key)
                self.values.append(data)
                for prefix in prefixes_of(key):
                    self.groups.setdefault(prefix, []).append(slot)
            else:
                self.values[slot] = data
            if isinstance(value, bytes):
                self.objects.pop(key, None)
            else:
                self.objects[key] = value
        for number, nodes in enumerate(overlay.nodes):
            if number == len(self.levels):
                self.levels.append([])
            level = self.levels[number]
            for index in sorted(nodes):
                if index == len(level):
                    level.append(nodes[index])
                else:
                    level[index] = nodes[index]


class Overlay:
    """Writes on top of a tree: read through, roll back, ask for the root, then merge or forget."""

    __slots__ = ("_journal", "_root", "base", "base_size", "new_keys", "nodes", "spelt", "writes")

    def __init__(self, base: StateTree) -> None:
        self.base = base
        self.base_size = len(base.keys)
        self.writes: dict[bytes, Value] = {}
        "Key to value, in order of the first write; new keys take their slot numbers in this order."
        self.spelt: dict[bytes, bytes] = {}
        "The same in the same order, all bytes, as of when the root was last made."
        self.new_keys: list[bytes] = []
        self.nodes: list[dict[int, bytes]] = []
        self._journal: list[tuple[bytes, Value | None]] = []
        self._root: bytes | None = None

    def get(self, key: bytes) -> bytes | None:
        """Value of a key as this overlay sees it."""
        value = self.writes.get(key)
        if value is None:
            return self.base.get(key)
        return value if isinstance(value, bytes) else codec.encode(value)

    def keep(self, key: bytes, value: msgspec.Struct) -> None:
        """Remember what the bytes under a key spell."""
        if key not in self.writes:
            self.base.objects[key] = value

    def put(self, key: bytes, value: Value) -> None:
        """Write a key; the first write of a new key gives it the next slot."""
        assert 0 < len(key) <= KEY_SIZE_MAX, "key size"
        before = self.writes.get(key)
        if before is None and key not in self.base.slots:
            self.new_keys.append(key)
        self._journal.append((key, before))
        self.writes[key] = value
        self._root = None

    def keys(self, prefix: bytes) -> list[bytes]:
        """All keys that start with `prefix`, by slot number."""
        base = self.base
        at = prefix.rfind(b"/")
        if at < 0:
            found = [key for key in base.keys if key.startswith(prefix)]
        else:
            group = [base.keys[slot] for slot in base.groups.get(prefix[: at + 1], ())]
            found = group if at + 1 == len(prefix) else [key for key in group if key.startswith(prefix)]
        found.extend(key for key in self.new_keys if key.startswith(prefix))
        return found

    def savepoint(self) -> int:
        """A mark that `rollback` returns to."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Undo every write since `savepoint` gave `mark`; a slot given since then is free again."""
        journal = self._journal
        while len(journal) > mark:
            key, before = journal.pop()
            if before is not None:
                self.writes[key] = before
                continue
            del self.writes[key]
            if key not in self.base.slots:
                assert self.new_keys[-1] == key, "slots are given and taken back in order"
                self.new_keys.pop()
        self._root = None

    def root(self) -> bytes:
        """Root of the tree with these writes; hashes each changed node once."""
        if self._root is None:
            self._root = self._hash_up()
        return self._root

    def _hash_up(self) -> bytes:
        """Fill `nodes` with every changed node, level by level, and return the root."""
        base = self.base
        width = self.base_size + len(self.new_keys)
        if width == 0:
            return EMPTY_ROOT
        new_slots = {key: self.base_size + number for number, key in enumerate(self.new_keys)}
        changed: dict[int, bytes] = {}
        self.spelt = {}
        for key, value in self.writes.items():
            slot = base.slots.get(key)
            data = self.spelt[key] = value if isinstance(value, bytes) else codec.encode(value)
            changed[new_slots[key] if slot is None else slot] = leaf_of(key, data)
        self.nodes = [changed]
        number = 0
        while width > 1:
            below = base.levels[number] if number < len(base.levels) else []
            above: dict[int, bytes] = {}
            for parent in dict.fromkeys(index >> 1 for index in changed):
                left_index = parent * 2
                left = changed.get(left_index) or below[left_index]
                if left_index + 1 < width:
                    right = changed.get(left_index + 1) or below[left_index + 1]
                    above[parent] = _sha256(b"\x01" + left + right).digest()
                else:
                    above[parent] = left
            self.nodes.append(above)
            changed = above
            width = (width + 1) // 2
            number += 1
        # A tree whose writes are all undone has no changed node at the top: the root is the old one.
        return changed.get(0) or base.root()
