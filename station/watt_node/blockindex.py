"""What a segment of the block log is asked for: where a block begins, which block has a transaction, who was sent to.

Kept in memory for the segment being written; a closed segment's index is one record in `blocks-<base>.idx`. Everything
in it follows from the segment, so a lost or damaged index is made again, and an answer is looked up in the block.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from watt_chain import codec
from watt_chain.codec import DecodeError, Structure

from watt_node.disk import Disk
from watt_node.records import MAX_RECORD, Damage, RecordFile, Scan

PREFIX = 8
"""Bytes of a transaction id that the index keeps: two ids that share them (one in 2^64) cost a look."""
ENTRY = PREFIX + 4
"""The prefix and the number of the block in its segment, big-endian."""


class _Stored(Structure, frozen=True):
    base: int
    offsets: bytes
    entries: bytes
    "ENTRY bytes each, ascending."
    senders: list[tuple[int, int, int]]
    "(target chain, last sequence, height), in height order."


class SegmentIndex:
    """Index of the blocks behind height `base`."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.offsets = array("Q")
        self.entries: dict[bytes, int] = {}
        "Prefix -> height; empty for an index that was read from its file."
        self._sorted = b""
        self._senders: list[tuple[int, int, int]] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SegmentIndex) and self._as_stored() == other._as_stored()

    __hash__ = None  # type: ignore[assignment]  # it changes

    @staticmethod
    def name(base: int) -> str:
        """Its file."""
        return f"blocks-{base:012d}.idx"

    def add(self, offset: int, txids: Sequence[bytes], last_sequences: list[tuple[int, int]]) -> None:
        """The next block."""
        self.offsets.append(offset)
        height = self.base + len(self.offsets)
        for txid in txids:
            self.entries.setdefault(txid[:PREFIX], height)
        self._senders.extend((target, last, height) for target, last in last_sequences)

    def find(self, txid: bytes) -> int | None:
        """Height of a block that may hold the transaction."""
        prefix = txid[:PREFIX]
        if not self._sorted:
            return self.entries.get(prefix)
        low, high = 0, len(self._sorted) // ENTRY
        while low < high:
            middle = (low + high) // 2
            if self._sorted[middle * ENTRY : middle * ENTRY + PREFIX] < prefix:
                low = middle + 1
            else:
                high = middle
        entry = self._sorted[low * ENTRY : (low + 1) * ENTRY]
        return self.base + int.from_bytes(entry[PREFIX:], "big") if entry[:PREFIX] == prefix else None

    def senders(self, target: int, from_sequence: int, count: int) -> list[tuple[int, int]]:
        """(last sequence, height) of up to `count` blocks that sent to `target`."""
        found = [(last, height) for to, last, height in self._senders if to == target]
        first = bisect_left(found, (from_sequence, 0))
        return found[first : first + count]

    def last_sequences(self) -> dict[int, int]:
        """Target chain -> last sequence sent to it in this segment."""
        return {target: last for target, last, _ in self._senders}

    def _as_stored(self) -> _Stored:
        packed = self._sorted or b"".join(
            prefix + (height - self.base).to_bytes(4, "big") for prefix, height in sorted(self.entries.items())
        )
        offsets = array("Q", self.offsets)
        return _Stored(self.base, offsets.tobytes(), packed, self._senders)

    def store(self, disk: Disk) -> None:
        """Write the file, whole or not at all."""
        name = self.name(self.base)
        file = disk.open(name + ".new")
        record = RecordFile(file, 0)
        record.cut(0)
        record.append(codec.encode(self._as_stored()))
        file.close()
        disk.replace(name + ".new", name)
        disk.sync()

    def stored(self, disk: Disk) -> "SegmentIndex | None":
        """The index of the same base from its file; None when there is no sound one."""
        name = self.name(self.base)
        if name not in disk.names():
            return None
        file = disk.open(name, create=False)
        try:
            payload = next((payload for _, payload in Scan(file)), b"")
            found = codec.decode(payload, _Stored, MAX_RECORD)
        except (Damage, DecodeError):
            return None
        finally:
            file.close()
        if found.base != self.base:
            return None
        index = SegmentIndex(found.base)
        index.offsets.frombytes(found.offsets)
        index._sorted, index._senders = found.entries, found.senders
        return index
