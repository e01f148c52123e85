"""`votes.log`: what this validator has signed, so that it never signs against itself (CONSENSUS.md 4.7).

Every record of the file repeats three things beside the votes: the height of the last stored block once the votes'
output was carried out (`head`), the height up to which votes may have been forgotten (`floor`), and the place where
the file lies (`place`: its inode and the machine), which a copy does not have.

`doubt` says why the memory may be incomplete: the file was missing, damaged, cut where a whole record had stood, or
copied. A validator in doubt is silent until the rules of 4.7.6 clear it; doubt and its end are durable.
"""

from pathlib import Path

from watt_chain import codec
from watt_chain.codec import U63, ZERO32, DecodeError, Structure
from watt_chain.crypto import sha256
from watt_chain.pbft.outputs import CLEAR, DOUBT, Record

from watt_node.disk import Disk, File, StoreError
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
        scan = Scan(file)
        problem = "" if found else "missing"
        entries: list[_Entry] = []
        first = True
        try:
            for _, payload in scan:
                if first:
                    if payload != self._title:
                        file.close()
                        path = self._disk.path(NAME)
                        raise StoreError(f"{path}: belongs to another network or chain ({payload[:40]!r})")
                    first = False
                else:
                    entries.append(codec.decode(payload, _Entry, MAX_RECORD))
            if scan.end < scan.size:
                lost = scan.size - scan.end
                self.reports.append(("torn-tail-cut", {"file": NAME, "bytes": lost}))
                if scan.whole_tail:
                    problem = f"the last {lost} bytes do not check"
            if first and found:
                problem = "it has no title"
        except (Damage, DecodeError) as damage:
            problem = str(damage)
            self.reports.append(("votes-damaged", {"reason": damage, "kept_as": NAME + ".damaged"}))
            file = self._set_aside(file)
            entries, first = [], True
        self._take(entries, file)
        if not problem and entries and entries[-1].place != self._place:
            problem = "copied or moved to another disk"
        end = 0 if first else scan.end
        self._log = RecordFile(file, 0)
        self._log.cut(end)
        if first:
            self._log.append(self._title)
            self._disk.sync()
        if problem and not self.doubt:
            self.add([codec.encode(Record(DOUBT, 0, 0, ZERO32, problem.encode()))], 0)
        elif problem:
            self.add([], 0)
        elif not entries and not self.doubt:
            self.add([codec.encode(Record(DOUBT, 0, 0, ZERO32, b"it is empty"))], 0)

    def _take(self, entries: list[_Entry], file: File) -> None:
        self._place = sha256(file.identity().to_bytes(8, "big") + self._machine)[:8]
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
        self._place = sha256(file.identity().to_bytes(8, "big") + self._machine)[:8]
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
