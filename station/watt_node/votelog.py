"""`votes.log`: what this validator has signed, so that it never signs against itself (CONSENSUS.md 4.7).

Every record of the file repeats three things beside the votes: the height of the last stored block once the votes'
output was carried out (`head`), the height up to which votes may have been forgotten (`floor`), and the place where
the file lies (`place`: its inode and the machine), which a copy does not have.

`doubt` says why the memory may be incomplete: the file was missing, damaged, cut where a whole record had stood, or
copied. A validator in doubt is silent until the rules of 4.7.6 clear it; doubt and its end are durable.
"""

from dataclasses import dataclass
from pathlib import Path

from watt_chain import codec
from watt_chain.codec import U63, ZERO32, DecodeError, Structure
from watt_chain.crypto import sha256
from watt_chain.pbft.outputs import CLEAR, DOUBT, Record

from watt_node.disk import Disk, File, ReadOnlyFile, StoreError
from watt_node.records import MAX_RECORD, Damage, RecordFile, Scan, title_of

NAME = "votes.log"
COMPACT_BYTES = 1 << 20
"""votes.log is rewritten beyond this size; with some 2 KiB per height that is once in about 500 blocks."""


class _Entry(Structure, frozen=True):
    head: U63
    floor: U63
    place: bytes
    votes: list[bytes]


def machine_id() -> bytes:
    """What names this installation of an operating system; empty where there is no such name."""
    try:
        return Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return b""


class VoteLog:
    """The file of one validator."""

    def __init__(
        self,
        disk: Disk,
        chain: int,
        network: bytes,
        machine: bytes | None = None,
        compact_bytes: int = COMPACT_BYTES,
    ) -> None:
        """Open, check, heal. StoreError when it belongs to another network or chain, or is in use."""
        self._disk = disk
        self._compact_bytes = compact_bytes
        self._machine = machine_id() if machine is None else machine
        self._title = title_of("votes", chain, network)
        self._kept: list[tuple[int, bytes]] = []
        "(head, record), oldest first."
        self.reports: list[tuple[str, dict[str, object]]] = []
        self.floor = 0
        "Votes of heights up to this one may have been forgotten."
        self.doubt = ""
        "Why votes may be missing; empty when none is."
        self._log: RecordFile
        self._place = b""
        self._open()

    def _open(self) -> None:
        for name in self._disk.names():
            if name == NAME + ".new":
                self._disk.remove(name)
        found = NAME in self._disk.names()
        file = self._disk.open(NAME)
        try:
            seen = _examine(file, self._title, self._disk.path(NAME))
        except StoreError:
            file.close()
            raise
        if seen.damage:
            self.reports.append(("votes-damaged", {"reason": seen.damage, "kept_as": NAME + ".damaged"}))
            file = self._set_aside(file)
        elif seen.lost:
            self.reports.append(("torn-tail-cut", {"file": NAME, "bytes": seen.lost}))
        problem = seen.problem if found else "missing"
        entries = seen.entries
        self._take(entries, file)
        if not problem and entries and entries[-1].place != self._place:
            problem = "copied or moved to another disk"
        self._log = RecordFile(file, 0)
        self._log.cut(seen.end)
        if not seen.end:
            self._log.append(self._title)
            self._disk.sync()
        if problem and not self.doubt:
            self.add([codec.encode(Record(DOUBT, 0, 0, ZERO32, problem.encode()))], 0)
        elif problem:
            self.add([], 0)
        elif not entries and not self.doubt:
            self.add([codec.encode(Record(DOUBT, 0, 0, ZERO32, b"it is empty"))], 0)

    def _take(self, entries: list[_Entry], file: File) -> None:
        self._place = _place_of(file, self._machine)
        for entry in entries:
            self.floor = max(self.floor, entry.floor)
            self._remember(entry.head, entry.votes)

    def _remember(self, head: int, votes: list[bytes]) -> None:
        for data in votes:
            record = codec.decode(data, Record)
            if record.kind == DOUBT:
                self.doubt = record.payload.decode("utf-8", "replace")
            elif record.kind == CLEAR:
                self.doubt = ""
                self.floor = max(self.floor, record.height)
            else:
                self._kept.append((head, data))

    def _set_aside(self, file: File) -> File:
        file.close()
        self._disk.replace(NAME, NAME + ".damaged")
        self._disk.sync()
        return self._disk.open(NAME)

    def records(self, head: int) -> list[bytes]:
        """The doubt, if there is one, and the records that may still matter at the last stored block, oldest first."""
        doubt = [codec.encode(Record(DOUBT, 0, 0, ZERO32, self.doubt.encode()))] if self.doubt else []
        return doubt + [record for height, record in self._kept if height >= head]

    def add(self, records: list[bytes] | tuple[bytes, ...], head: int) -> None:
        """Store records durably, all or none; `head` as explained above."""
        self._log.append(codec.encode(_Entry(head, self.floor, self._place, list(records))))
        self._remember(head, list(records))

    def settle(self, head: int) -> None:
        """Forget what is older than `head`; rewrites the file when it has grown."""
        if self._kept and self._kept[0][0] < head:
            self._kept = [(height, record) for height, record in self._kept if height >= head]
        if self._log.size > self._compact_bytes:
            self._rewrite(head)

    def _rewrite(self, head: int) -> None:
        fresh = NAME + ".new"
        file = self._disk.open(fresh)
        log = RecordFile(file, 0)
        log.cut(0)
        self._place = _place_of(file, self._machine)
        self.floor = max(self.floor, head)
        log.write(self._title)
        doubt = [codec.encode(Record(DOUBT, 0, 0, ZERO32, self.doubt.encode()))] if self.doubt else []
        log.write(codec.encode(_Entry(head, self.floor, self._place, doubt)))
        for height, record in self._kept:
            log.write(codec.encode(_Entry(height, self.floor, self._place, [record])))
        file.sync()
        self._disk.replace(fresh, NAME)
        self._disk.sync()
        self._log.file.close()
        self._log = log

    def size(self) -> int:
        """Bytes of the file."""
        return self._log.size

    def close(self) -> None:
        """Release the file."""
        self._log.file.close()


@dataclass
class _Seen:
    """What a file holds: sound entries, where they end, and what is wrong with the rest."""

    entries: list[_Entry]
    end: int = 0
    "Behind the last sound record; 0: there is not even a title, or nothing of the file may be used."
    lost: int = 0
    "Bytes behind it."
    problem: str = ""
    "Why votes may be missing."
    damage: str = ""
    "As `problem`, when the file cannot be written on."


def _examine(file: File, title: bytes, path: str) -> _Seen:
    """Read a file of votes. StoreError when it belongs to another network or chain."""
    scan = Scan(file)
    seen = _Seen([])
    first = True
    try:
        for _, payload in scan:
            if not first:
                seen.entries.append(codec.decode(payload, _Entry, MAX_RECORD))
            elif payload != title:
                raise StoreError(f"{path}: belongs to another network or chain ({payload[:40]!r})")
            first = False
    except (Damage, DecodeError) as damage:
        return _Seen([], problem=str(damage), damage=str(damage))
    seen.end, seen.lost = (0 if first else scan.end), scan.size - scan.end
    if first:
        seen.problem = "it has no title"
    elif seen.lost and scan.whole_tail:
        seen.problem = f"the last {seen.lost} bytes do not check"
    return seen


def _place_of(file: File, machine: bytes) -> bytes:
    """What a copy of the file does not have."""
    return sha256(file.identity().to_bytes(8, "big") + machine)[:8]


@dataclass(frozen=True, slots=True)
class Peek:
    """What `votes.log` says, for a person."""

    doubt: str
    "Why the node will not trust it; empty when it will."
    floor: int
    head: int
    "Height of the last stored block when it was written to last."


def peek(folder: Path, chain: int, network: bytes) -> Peek:
    """Look at a folder's votes without changing anything, also while the node runs. StoreError."""
    path = folder / NAME
    if not path.exists():
        return Peek("missing", 0, 0)
    file = ReadOnlyFile(path)
    try:
        seen = _examine(file, title_of("votes", chain, network), str(path))
        place = _place_of(file, machine_id())
    finally:
        file.close()
    doubt, floor = "", 0
    for entry in seen.entries:
        floor = max(floor, entry.floor)
        for record in (codec.decode(vote, Record) for vote in entry.votes):
            if record.kind == DOUBT:
                doubt = record.payload.decode("utf-8", "replace")
            elif record.kind == CLEAR:
                doubt, floor = "", max(floor, record.height)
    if not doubt:
        moved = bool(seen.entries) and seen.entries[-1].place != place
        doubt = seen.problem or ("copied or moved to another disk" if moved else "")
        doubt = doubt or ("" if seen.entries else "it is empty")
    return Peek(doubt, floor, seen.entries[-1].head if seen.entries else 0)
