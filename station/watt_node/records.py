"""Files of records: how every store of a node writes, finds out what a crash has left, and notices damage.

    offset  size  field
         0     4  "WPR1"
         4     4  length of the payload, big-endian
         8     4  CRC-32 of the length
        12     4  CRC-32 of the payload
        16     .  payload

The first record of a file is its title: kind, chain, network. One append is one record, synced before the next one is
begun, so a crash leaves at most one that does not check, and it is the last: nothing sound follows it. Where something
sound does follow, or the title is wrong, the disk has lost what it had promised: that is damage, and is reported with
its place. At the end of a file a record that the crash cut short cannot be told from one that was damaged later;
`Scan.whole_tail` says whether it looks complete, for those who must not lose a record that they acted on.
"""

import zlib
from collections.abc import Iterator
from struct import Struct

from watt_node.disk import File

MAGIC = b"WPR1"
HEAD = Struct(">4sIII")
MAX_RECORD = 8 << 20
"""Twice the largest frame between nodes: a longer record cannot have been written by this program."""
READ_BYTES = 1 << 20


class Damage(Exception):
    """A record does not check although it was durable once; `at` is the byte where it begins."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(f"damaged at byte {at}: {text}")
        self.at = at


def title_of(kind: str, chain: int, network: bytes) -> bytes:
    """The first record of a store's file."""
    return f"wattpact/2/{kind}/{chain}/".encode() + network


def pack(payload: bytes) -> bytes:
    """The bytes of one record."""
    assert len(payload) <= MAX_RECORD, "a record is at most twice a frame"
    length = len(payload).to_bytes(4, "big")
    return b"".join(
        (MAGIC, length, zlib.crc32(length).to_bytes(4, "big"), zlib.crc32(payload).to_bytes(4, "big"), payload)
    )


class Scan:
    """The sound records of a file from its beginning; iterate once, then look at the rest."""

    def __init__(self, file: File, start: int = 0) -> None:
        self._file = file
        self.end = start
        "Behind the last sound record."
        self.size = file.size()
        self.whole_tail = False
        "Whether what is cut off has a length that fits the file: damage is as likely as a crash."

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(offset, payload). Raises Damage."""
        while self.end < self.size:
            at = self.end
            problem, payload = self._read(at)
            if problem:
                if self._sound_after(at):
                    raise Damage(at, problem)
                return
            self.end = at + HEAD.size + len(payload)
            yield at, payload

    def _read(self, at: int) -> tuple[str, bytes]:
        head = self._file.read(at, HEAD.size)
        if len(head) < HEAD.size:
            return "the record's head is cut", b""
        magic, length, length_check, payload_check = HEAD.unpack(head)
        if magic != MAGIC or zlib.crc32(head[4:8]) != length_check or length > MAX_RECORD:
            self.whole_tail = bool(head.strip(b"\x00"))
            return "the record's head does not check", b""
        payload = self._file.read(at + HEAD.size, length)
        if len(payload) < length:
            return "the record is cut", b""
        if zlib.crc32(payload) != payload_check:
            self.whole_tail = True
            return "the record's content does not check", b""
        return "", payload

    def _sound_after(self, at: int) -> bool:
        """Whether a sound record begins anywhere behind `at`."""
        whole_tail = self.whole_tail
        while at + 1 < self.size:
            found = self._file.read(at + 1, READ_BYTES + len(MAGIC)).find(MAGIC)
            if found < 0:
                at += READ_BYTES
                continue
            at += 1 + found
            if not self._read(at)[0]:
                return True
        self.whole_tail = whole_tail
        return False


class RecordFile:
    """Appending to a file of records."""

    def __init__(self, file: File, size: int) -> None:
        self.file = file
        self.size = size

    def append(self, *payloads: bytes) -> int:
        """Write records and return when they are durable; the offset of the first. StoreError when the disk refuses."""
        at = self.write(*payloads)
        self.file.sync()
        return at

    def write(self, *payloads: bytes) -> int:
        """As `append`, but durable only after the next sync."""
        at = self.size
        data = b"".join(map(pack, payloads))
        self.file.write(at, data)
        self.size += len(data)
        return at

    def read(self, at: int) -> bytes:
        """The payload of the record at an offset. Raises Damage."""
        problem, payload = Scan(self.file)._read(at)
        if problem:
            raise Damage(at, problem)
        return payload

    def cut(self, end: int) -> int:
        """Drop what is behind `end`; how many bytes that was."""
        lost = self.file.size() - end
        if lost > 0:
            self.file.truncate(end)
            self.file.sync()
        self.size = end
        return max(0, lost)
