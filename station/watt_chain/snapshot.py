"""The state after one block, held still: what a snapshot file keeps and what a laggard is sent (CONSENSUS.md 4.6.4).

A state of many slots is taken apart into chunks of CHUNK_SLOTS slots. The roots of the chunks are the nodes of one
level of the state tree, so their list proves itself against the `state_root` of a certified header, and each chunk,
or an aligned part of one (a *range*), proves itself against its root: a receiver keeps nothing that is not checked.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from msgspec import Meta
from watt_wire import merkle

from watt_chain import codec
from watt_chain.block import CERTIFICATE_SIZE_MAX, CHANGES_MAX, HEADER_SIZE_MAX, Certificate, Change, Header
from watt_chain.codec import U63, DecodeError, Hash32, Structure
from watt_chain.tree import EMPTY_ROOT, StateTree, leaf_of, pair_up

CHUNK_LEVEL = 8
CHUNK_SLOTS = 1 << CHUNK_LEVEL
"""Slots of a chunk: some 40 kB at the usual 150 bytes a slot, one question and one answer."""
CHUNKS_MAX = 1 << 16
"""Chunks of one state: 16 million slots, some 5 million accounts; their roots fit in one frame of 4 MiB."""
RANGE_BYTES_MAX = 1 << 20
"""Where a range stops growing; one more slot, at most one transaction's worth of value, still fits a frame."""

Entries = Annotated[list[tuple[bytes, bytes]], Meta(max_length=CHUNK_SLOTS)]


class Manifest(Structure, frozen=True):
    """What a state consists of: the certified header whose `state_root` it has, slots, and the roots of the chunks."""

    header: bytes
    certificate: bytes
    size: U63
    chunk_roots: Annotated[list[Hash32], Meta(max_length=CHUNKS_MAX)]
    changes: Annotated[list[Change], Meta(max_length=CHANGES_MAX)]
    "Of the validators up to the header, the last CHANGES_MAX: how to get from a list one knows to that of the header."


class StateRange(Structure, frozen=True):
    """Slots from `slot` on, as [key, value], and the path from their subtree to the root of their chunk."""

    slot: U63
    entries: Entries
    path: list[Hash32]


class FrozenState:
    """The state at one height, unaffected by later blocks. Values are shared with the live tree, lists are copied."""

    __slots__ = ("_keys", "_levels", "_values", "certificate", "changes", "header", "height", "time_s")

    def __init__(
        self, tree: StateTree, header_bytes: bytes, certificate_bytes: bytes, changes: Sequence[Change] = ()
    ) -> None:
        self.changes = list(changes)
        self.header = header_bytes
        self.certificate = certificate_bytes
        decoded = codec.decode(header_bytes, Header, HEADER_SIZE_MAX)
        self.height = decoded.height
        self.time_s = decoded.time_s
        self._keys = list(tree.keys)
        self._values = list(tree.values)
        self._levels = [list(level) for level in tree.levels[: CHUNK_LEVEL + 1]]

    def __len__(self) -> int:
        return len(self._keys)

    def manifest(self) -> Manifest:
        """The list of contents."""
        roots = self._levels[-1] if self._keys else []
        return Manifest(self.header, self.certificate, len(self._keys), list(roots), self.changes)

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) in slot order."""
        return zip(self._keys, self._values, strict=True)

    def range(self, slot: int) -> StateRange | None:
        """The largest aligned range from `slot` on that stays within RANGE_BYTES_MAX; None outside the state."""
        size = len(self._keys)
        if not 0 <= slot < size:
            return None
        level = CHUNK_LEVEL if slot == 0 else min(CHUNK_LEVEL, (slot & -slot).bit_length() - 1)
        while level and self._bytes(slot, slot + (1 << level)) > RANGE_BYTES_MAX:
            level -= 1
        end = min(slot + (1 << level), size)
        path: list[bytes] = []
        index = slot >> level
        for number in range(level, min(CHUNK_LEVEL, len(self._levels) - 1)):
            nodes = self._levels[number]
            if index ^ 1 < len(nodes):
                path.append(nodes[index ^ 1])
            index >>= 1
        return StateRange(slot, list(zip(self._keys[slot:end], self._values[slot:end], strict=True)), path)

    def _bytes(self, start: int, end: int) -> int:
        pairs = zip(self._keys[start:end], self._values[start:end], strict=True)
        return sum(len(key) + len(value) + 8 for key, value in pairs)


def open_manifest(manifest: Manifest) -> tuple[Header, Certificate]:
    """Its header and certificate, once the list of chunks fits the header; the certificate is the caller's to check.

    Raises DecodeError. That every root is one of a whole chunk shows when the first of each peak is filled.
    """
    header = codec.decode(manifest.header, Header, HEADER_SIZE_MAX)
    certificate = codec.decode(manifest.certificate, Certificate, CERTIFICATE_SIZE_MAX)
    if len(manifest.chunk_roots) != -(-manifest.size // CHUNK_SLOTS):
        raise DecodeError("manifest-size")
    root = pair_up(list(manifest.chunk_roots))[-1][0] if manifest.chunk_roots else EMPTY_ROOT
    if root != header.state_root:
        raise DecodeError("manifest-root")
    return header, certificate


def chunk_size(manifest: Manifest, chunk: int) -> int:
    """Slots of a chunk: CHUNK_SLOTS, fewer in the last."""
    return min(CHUNK_SLOTS, manifest.size - chunk * CHUNK_SLOTS)


def peaks(chunks: int) -> list[int]:
    """The first chunk of each whole subtree that a list of chunks consists of, left to right.

    A liar can give a list with the right root whose members are nodes of another level. Within one whole subtree all
    members have the same level, so one chunk of each that was filled proves the list (CONSENSUS.md 4.6.6).
    """
    found: list[int] = []
    at = 0
    while at < chunks:
        found.append(at)
        at += 1 << ((chunks - at).bit_length() - 1)
    return found


def check_range(manifest: Manifest, part: StateRange) -> None:
    """Raises DecodeError unless the entries are these slots of the state that the manifest lists (4.6.5)."""
    count = len(part.entries)
    if not 0 <= part.slot < manifest.size or not count:
        raise DecodeError("range-slot")
    chunk, offset = divmod(part.slot, CHUNK_SLOTS)
    size = chunk_size(manifest, chunk)
    width = 1 << (count - 1).bit_length()  # slots of the subtree; fewer than that only at the end of the state
    if offset % width or (count != width and offset + count != size) or offset + count > size:
        raise DecodeError("range-place")
    leaves = [leaf_of(key, value) for key, value in part.entries]
    top = merkle.root(leaves)
    if not merkle.verify_proof(top, offset // width, -(-size // width), part.path, manifest.chunk_roots[chunk]):
        raise DecodeError("range-path")


def join(parts: Sequence[StateRange]) -> Iterator[tuple[bytes, bytes]]:
    """All (key, value) of ranges that follow each other."""
    for part in parts:
        yield from part.entries
