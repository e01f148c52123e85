"""What a validator keeps on disk: `blocks.log` (final blocks) and `votes.log` (what it has signed).

Both are append-only files of records:

    offset  size  field
         0     4  length of the payload, big-endian
         4     4  CRC-32 of the four bytes above
         8     4  CRC-32 of the payload
        12     .  payload

The first record of a file is its title (kind, chain, network hash): a folder of another network is refused. An append
returns after fdatasync. A crash can leave at most one unfinished record, at the end: it is cut off at start, since
nothing was answered on the ground of it. Anything else that does not check is damage (a dying disk, an editor): the
node stops with one line and leaves the file as it is. The length has a checksum of its own, because a damaged length
would otherwise look like an unfinished end and silently cost every block behind it.
"""

import os
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

HEAD = Struct(">III")
MAX_RECORD = 8 << 20
"""Twice the largest frame between nodes: a longer record cannot have been written by this program."""
COMPACT_BYTES = 1 << 20
"""votes.log is rewritten beyond this size; with some 2 KiB per height that is once in about 500 blocks."""


class StoreError(Exception):
    """The data on disk cannot be used; the text is one line for the operator."""


def _title(kind: str, chain: int, network: bytes) -> bytes:
    return f"wattpact/1/{kind}/{chain}/".encode() + network


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(payload: bytes) -> bytes:
    length = len(payload).to_bytes(4, "big")
    return length + zlib.crc32(length).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload


def _scan(path: Path, handle: int) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) of every sound record; stops at an unfinished end, StoreError on damage."""
    size = os.fstat(handle).st_size
    at = 0
    while at < size:
        head = os.pread(handle, HEAD.size, at)
        if len(head) < HEAD.size:
            return
        length, length_check, payload_check = HEAD.unpack(head)
        if zlib.crc32(head[:4]) != length_check or length > MAX_RECORD:
            if _only_zeros(handle, at, size):
                return  # a file system may extend the file before it writes the data
            raise StoreError(f"{path}: damaged at byte {at}: the record's length does not check")
        end = at + HEAD.size + length
        if end > size:
            return
        payload = os.pread(handle, length, at + HEAD.size)
        if zlib.crc32(payload) != payload_check:
            if end == size or _only_zeros(handle, end, size):
                return
            raise StoreError(f"{path}: damaged at byte {at}: the record's content does not check")
        yield at, payload
        at = end


def _only_zeros(handle: int, start: int, end: int) -> bool:
    while start < end:
        part = os.pread(handle, min(1 << 16, end - start), start)
        if not part or part.strip(b"\x00"):
            return False
        start += len(part)
    return True


class _Log:
    """One append-only file, locked by its process."""

    def __init__(self, path: Path, title: bytes) -> None:
        self.path = path
        self.cut_bytes = 0
        self._title = title
        try:
            self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: cannot open: {error.strerror}") from None
        try:
            self._lock()
            self.size = self._recover()
        except StoreError:
            os.close(self.handle)
            raise

    def _lock(self) -> None:
        import fcntl  # two processes on one folder would sign against each other

        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"{self.path}: in use by another process") from None

    def _recover(self) -> int:
        end = 0
        first = True
        for at, payload in _scan(self.path, self.handle):
            if first and payload != self._title:
                raise StoreError(f"{self.path}: belongs to another network or chain ({payload[:40]!r})")
            first = False
            end = at + HEAD.size + len(payload)
            self.found(at, payload)
        size = os.fstat(self.handle).st_size
        if end < size:
            self.cut_bytes = size - end
            os.ftruncate(self.handle, end)
            os.fdatasync(self.handle)
        self.size = end
        if first:
            self.append(self._title)
            _sync_folder(self.path.parent)
        return self.size

    def found(self, at: int, payload: bytes) -> None:
        """Called for each record during recovery, the title included."""

    def append(self, *payloads: bytes) -> None:
        """Write the payloads in order and return when they are durable; StoreError when the disk refuses."""
        data = b"".join(_pack(payload) for payload in payloads)
        try:
            at = 0
            while at < len(data):
                at += os.pwrite(self.handle, data[at:], self.size + at)
            os.fdatasync(self.handle)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write: {error.strerror}") from None
        self.size += len(data)

    def close(self) -> None:
        os.close(self.handle)


class BlockLog(_Log):
    """Final blocks in height order; the block of height h is record h of the file (the title is record 0)."""

    def __init__(self, folder: Path, chain: int, network: bytes) -> None:
        self._offsets = array("Q")
        super().__init__(folder / "blocks.log", _title("blocks", chain, network))

    def found(self, at: int, payload: bytes) -> None:
        if at:
            self._offsets.append(at)

    def __len__(self) -> int:
        """How many blocks are stored; heights run from 1 to this number."""
        return len(self._offsets)

    def add(self, certified: bytes) -> None:
        """Store the next block durably."""
        at = self.size
        self.append(certified)
        self._offsets.append(at)

    def read(self, height: int) -> bytes | None:
        """The stored block of a height; None when it is not there."""
        if not 1 <= height <= len(self._offsets):
            return None
        at = self._offsets[height - 1]
        length, _, check = HEAD.unpack(os.pread(self.handle, HEAD.size, at))
        payload = os.pread(self.handle, length, at + HEAD.size)
        if zlib.crc32(payload) != check:
            raise StoreError(f"{self.path}: damaged at byte {at}: the block of height {height} does not check")
        return payload


class VoteLog(_Log):
    """Records the replica wants to find again after a crash.

    Each is stored with the height of the head once its output was carried out; records older than the head are of
    no further use, and are dropped at start and whenever the file has grown. (Truncating at each commit would cost
    two more syncs per block, and would lose a vote for the next height that came in the same output as the commit.)
    """

    def __init__(self, folder: Path, chain: int, network: bytes) -> None:
        self._kept: list[tuple[int, bytes]] = []
        super().__init__(folder / "votes.log", _title("votes", chain, network))

    def found(self, at: int, payload: bytes) -> None:
        if at:
            self._kept.append((int.from_bytes(payload[:8], "big"), payload[8:]))

    def records(self, head: int) -> list[bytes]:
        """The records that may still matter when the last stored block is `head`, oldest first."""
        self._kept = [(height, record) for height, record in self._kept if height >= head]
        return [record for _, record in self._kept]

    def add(self, records: tuple[bytes, ...], head: int) -> None:
        """Store records durably; `head` as explained above."""
        self.append(*(head.to_bytes(8, "big") + record for record in records))
        self._kept.extend((head, record) for record in records)

    def settle(self, head: int) -> None:
        """Forget what is older than `head`; rewrites the file when it has grown."""
        if self._kept and self._kept[0][0] < head:
            self._kept = [(height, record) for height, record in self._kept if height >= head]
        if self.size > COMPACT_BYTES:
            self._rewrite()

    def _rewrite(self) -> None:
        fresh = self.path.with_suffix(".new")
        data = _pack(self._title) + b"".join(_pack(height.to_bytes(8, "big") + record) for height, record in self._kept)
        try:
            handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(data)
            os.fsync(handle)
            os.replace(fresh, self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot rewrite: {error.strerror}") from None
        os.close(self.handle)
        self.handle = handle
        self.size = len(data)
        self._lock()


def read_blocks(path: Path) -> Iterator[bytes]:
    """The CertifiedBlocks of a `blocks.log`, in height order, read-only (export, archive). StoreError on damage."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{path}: cannot open: {error.strerror}") from None
    try:
        for at, payload in _scan(path, handle):
            if at:
                yield payload
    finally:
        os.close(handle)
