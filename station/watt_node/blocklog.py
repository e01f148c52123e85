"""`blocks.log`: final blocks in height order, with what their execution brought, in segments that can be dropped.

    blocks.log                 the segment being written
    blocks-<base>.log          full segments; base = the height before the first block in it, 12 digits
    blocks-<base>.idx          what a full segment is asked for: offsets, transactions, messages; rebuilt when lost

A segment's title ends with its base (8 bytes, big-endian). Each record is one `StoredBlock`: the certified block, the
codes of its receipts and the messages it sent, which header roots prove. One append, one sync per block; heights have
no gap from `base` + 1 to `end`. A segment is closed when it has SEGMENT_BLOCKS blocks or SEGMENT_BYTES bytes: rename,
folder sync, new file with its title, sync, folder sync; each step alone leaves a log that can be read.

Damage (records.py) is healed from the peers: the file is kept under `<name>.damaged`, the sound blocks before the
damaged one stay, and the rest is fetched again.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from watt_chain import codec
from watt_chain.block import Block, CertifiedBlock, OutMessage
from watt_chain.codec import DecodeError, Structure
from watt_chain.transaction import txid

from watt_node.blockindex import SegmentIndex
from watt_node.disk import Disk, File, ReadOnlyFile, StoreError
from watt_node.records import MAX_RECORD, Damage, RecordFile, Scan, title_of

SEGMENT_BLOCKS = 4096
"""Blocks of a segment: its offsets take 32 KiB of memory while it is read."""
SEGMENT_BYTES = 256 << 20
"""The same in bytes: what pruning frees at a time, and what is read again when an index is lost."""
SEGMENT_TRANSACTIONS = 100_000
"""The same in transactions: their index takes some 15 MB of memory until the segment is closed."""
OPEN_SEGMENTS = 8
"""Closed segments whose file and index are kept open for readers."""
ACTIVE = "blocks.log"


class StoredBlock(Structure, frozen=True):
    """One record: CertifiedBlock bytes, the receipts' codes, the encoded messages to other chains."""

    certified: bytes
    codes: list[str]
    messages: list[bytes]

    def out_messages(self) -> tuple[OutMessage, ...]:
        """The messages, decoded. Raises DecodeError."""
        return tuple(codec.decode(message, OutMessage) for message in self.messages)


def segment_name(base: int) -> str:
    """File name of a closed segment."""
    return f"blocks-{base:012d}.log"


def _base_of(name: str) -> int | None:
    digits = name.removeprefix("blocks-").removesuffix(".log")
    return int(digits) if name.startswith("blocks-") and name.endswith(".log") and digits.isdigit() else None


def decode_stored(payload: bytes) -> StoredBlock:
    """A record. Raises DecodeError."""
    return codec.decode(payload, StoredBlock, MAX_RECORD)


def txids_of(certified: bytes) -> list[bytes]:
    """Ids of the transactions of a block, for the index. Raises DecodeError."""
    block = codec.decode(codec.decode(certified, CertifiedBlock).block, Block)
    return [txid(tx) for tx in block.transactions]


def last_sequences_of(stored: StoredBlock) -> list[tuple[int, int]]:
    """[(target chain, last sequence)] of a block, for the index. Raises DecodeError."""
    last: dict[int, int] = {}
    for message in stored.out_messages():
        last[message.target_chain] = message.sequence
    return sorted(last.items())


class BlockLog:
    """The final blocks of one chain that are still kept here."""

    def __init__(
        self,
        disk: Disk,
        chain: int,
        network: bytes,
        segment_blocks: int = SEGMENT_BLOCKS,
    ) -> None:
        """Open, check every record, heal what can be healed. StoreError for a folder of another network or chain."""
        self._disk = disk
        self._title = title_of("blocks", chain, network)
        self._segment_blocks = segment_blocks
        self.reports: list[tuple[str, dict[str, object]]] = []
        "(event, fields) of what was found at start, for the log."
        self._closed: list[tuple[int, int]] = []
        "(base, end) of the closed segments, ascending."
        self._readers: OrderedDict[int, tuple[File, SegmentIndex]] = OrderedDict()
        self._outboxes: dict[int, list[tuple[int, int]]] = {}
        "Target chain -> (base, last sequence) of the closed segments that sent to it, ascending."
        self.base = 0
        self._log: RecordFile
        self._offsets = array("Q")
        self._index = SegmentIndex(0)
        self._open_all()

    # Opening ----------------------------------------------------------------------------------------------

    def _open_all(self) -> None:
        names = self._disk.names()
        for name in names:
            orphan = name.endswith(".idx") and name.removesuffix(".idx") + ".log" not in names
            if name.startswith("blocks") and (name.endswith(".new") or orphan):
                self._disk.remove(name)
        bases = sorted(base for name in names if (base := _base_of(name)) is not None)
        wanted: int | None = None
        for number, base in enumerate(bases):
            if wanted is not None and base != wanted:
                self._set_aside_from(bases[number:], f"does not follow height {wanted}")
                break
            whole = self._open_closed(base)
            wanted = base if not self._closed or self._closed[-1][0] != base else self._closed[-1][1]
            if not whole:
                self._set_aside_from(bases[number + 1 :], f"follows damage at height {wanted + 1}")
                break
        self.base = self._closed[0][0] if self._closed else 0
        self._open_active(wanted)

    def _open_closed(self, base: int) -> bool:
        """Check a closed segment and its index; False when it was damaged and only its beginning is kept."""
        name = segment_name(base)
        file = self._disk.open(name, create=False)
        try:
            index, _, damage = self._scan(file, base, name)
        finally:
            file.close()
        if damage:
            self._keep_sound(name, base, len(index.offsets), damage)
        if index.offsets:
            if index.stored(self._disk) != index:
                index.store(self._disk)
                self.reports.append(("index-made-again", {"file": SegmentIndex.name(base)}))
            self._note_closed(base, index)
        return not damage and bool(index.offsets)

    def _note_closed(self, base: int, index: SegmentIndex) -> None:
        self._closed.append((base, base + len(index.offsets)))
        for target, last in index.last_sequences().items():
            self._outboxes.setdefault(target, []).append((base, last))

    def _scan(self, file: File, base: int | None, name: str) -> tuple[SegmentIndex, int, str]:
        """A whole segment's index (base -1: no title), its sound end, and why the rest is damaged, if it is."""
        scan = Scan(file)
        index = SegmentIndex(-1 if base is None else base)
        damage = ""
        first = True
        try:
            for at, payload in scan:
                if first:
                    index.base = self._check_title(payload, base, name)
                    first = False
                    continue
                stored = decode_stored(payload)
                index.add(at, txids_of(stored.certified), last_sequences_of(stored))
        except (Damage, DecodeError) as found:
            damage = str(found)
        if not damage and base is not None and (first or scan.end < scan.size):
            damage = f"damaged at byte {scan.end}: a closed segment does not end with a block"
        return index, scan.end, damage

    def _check_title(self, payload: bytes, base: int | None, name: str) -> int:
        title, number = payload[:-8], int.from_bytes(payload[-8:], "big")
        if title != self._title:
            raise StoreError(f"{self._disk.path(name)}: belongs to another network or chain ({payload[:40]!r})")
        if base is not None and number != base:
            raise StoreError(f"{self._disk.path(name)}: begins behind height {number}")
        return number

    def _open_active(self, wanted: int | None) -> None:
        """Open or create `blocks.log`; `wanted`: the height before its first block, when closed segments tell."""
        file = self._disk.open(ACTIVE)
        try:
            index, end, damage = self._scan(file, None, ACTIVE)
        except StoreError:
            file.close()
            raise
        misplaced = index.base >= 0 and wanted is not None and index.base != wanted
        if misplaced or (damage and index.base < 0):
            file.close()
            self._report_aside(ACTIVE, damage or f"does not follow height {wanted}")
            self._disk.replace(ACTIVE, ACTIVE + ".damaged")
            self._disk.sync()
            file = self._disk.open(ACTIVE)
            index = SegmentIndex(-1)
        elif damage:
            file.close()
            self._keep_sound(ACTIVE, index.base, len(index.offsets), damage)
            file = self._disk.open(ACTIVE)
            index, end, _ = self._scan(file, None, ACTIVE)
        if index.base < 0:  # new, or a crash came before its title was durable
            self._report_torn(file.size())
            self._begin_segment(file, 0 if wanted is None else wanted)
            return
        if wanted is None:
            self.base = index.base
        self._log = RecordFile(file, 0)
        self._report_torn(self._log.cut(end))
        self._index, self._offsets = index, index.offsets

    def _begin_segment(self, file: File, base: int) -> None:
        """Write the title of a new segment."""
        self._log = RecordFile(file, 0)
        self._log.cut(0)
        self._log.append(self._title + base.to_bytes(8, "big"))
        self._disk.sync()
        self._index = SegmentIndex(base)
        self._offsets = self._index.offsets
        if not self._closed:
            self.base = base

    def _keep_sound(self, name: str, base: int, count: int, damage: str) -> None:
        """Set a damaged file aside and write its first `count` blocks anew; a closed segment has at least one."""
        self._report_aside(name, damage)
        self._disk.replace(name, name + ".damaged")
        if not count and name != ACTIVE:
            self._disk.sync()
            return
        old = self._disk.open(name + ".damaged", create=False)
        file = self._disk.open(name + ".new")
        fresh = RecordFile(file, 0)
        fresh.cut(0)
        fresh.write(self._title + base.to_bytes(8, "big"))
        for _, payload in islice(Scan(old), 1, count + 1) if count else ():
            fresh.write(payload)
        file.sync()
        file.close()
        old.close()
        self._disk.replace(name + ".new", name)
        self._disk.sync()

    def _set_aside_from(self, bases: Sequence[int], why: str) -> None:
        for base in bases:
            name = segment_name(base)
            self._report_aside(name, why)
            self._disk.replace(name, name + ".damaged")
        self._disk.sync()

    def _report_torn(self, lost: int) -> None:
        if lost:
            self.reports.append(("torn-tail-cut", {"file": ACTIVE, "bytes": lost}))

    def _report_aside(self, name: str, why: str) -> None:
        self.reports.append(("blocks-damaged", {"file": name, "reason": why, "kept_as": name + ".damaged"}))

    # Writing ----------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """Height of the last stored block; `base` when there is none."""
        return self._index.base + len(self._offsets)

    def add(
        self,
        certified: bytes,
        codes: Sequence[str] = (),
        messages: Sequence[bytes] = (),
        txids: Sequence[bytes] | None = None,
    ) -> None:
        """Store the next block durably. `txids`: of its transactions, when they are at hand."""
        index = self._index
        if (
            len(self._offsets) >= self._segment_blocks
            or self._log.size >= SEGMENT_BYTES
            or len(index.entries) >= SEGMENT_TRANSACTIONS
        ):
            self._close_segment()
        stored = StoredBlock(certified, list(codes), list(messages))
        txids = txids_of(certified) if txids is None else txids
        last_sequences = last_sequences_of(stored)
        self._index.add(self._log.append(codec.encode(stored)), txids, last_sequences)

    def _close_segment(self) -> None:
        index = self._index
        index.store(self._disk)
        self._log.file.close()
        self._disk.replace(ACTIVE, segment_name(index.base))
        self._disk.sync()
        self._note_closed(index.base, index)
        self._begin_segment(self._disk.open(ACTIVE), index.base + len(index.offsets))

    def prune(self, below: int) -> int:
        """Drop whole segments whose blocks are all at or below a height; how many files were removed."""
        gone = 0
        while self._closed and self._closed[0][1] <= below:
            base, _ = self._closed[0]
            reader = self._readers.pop(base, None)
            if reader is not None:
                reader[0].close()
            # The lowest goes first and is certain to be gone before the next: heights never have a hole.
            self._disk.remove(segment_name(base))
            self._disk.remove(SegmentIndex.name(base))
            self._disk.sync()
            del self._closed[0]
            gone += 1
        if gone:
            self.base = self._closed[0][0] if self._closed else self._index.base
            for target, known in list(self._outboxes.items()):
                self._outboxes[target] = [item for item in known if item[0] >= self.base]
        return gone

    def restart_at(self, height: int) -> None:
        """Forget all blocks: the next one has `height` + 1, whose snapshot is durable by now."""
        self._close_readers()
        self._log.file.close()
        for base, _ in self._closed:
            self._disk.remove(segment_name(base))
            self._disk.remove(SegmentIndex.name(base))
        self._disk.remove(ACTIVE)
        self._disk.sync()
        self._closed, self._outboxes = [], {}
        self._begin_segment(self._disk.open(ACTIVE), height)

    # Reading ----------------------------------------------------------------------------------------------

    def read(self, height: int) -> bytes | None:
        """CertifiedBlock bytes of a height; None when it is not here."""
        stored = self.stored(height)
        return None if stored is None else stored.certified

    def stored(self, height: int) -> StoredBlock | None:
        """Everything kept of a block; None when it is not here. StoreError when it is damaged."""
        if not self.base < height <= self.end:
            return None
        base, log, offsets = self._segment_of(height)
        try:
            return decode_stored(log.read(offsets[height - base - 1]))
        except (Damage, DecodeError) as error:
            name = ACTIVE if base == self._index.base else segment_name(base)
            raise StoreError(f"{self._disk.path(name)}: {error}; the block of height {height} does not check") from None

    def find(self, wanted: bytes) -> int | None:
        """A height that may hold a transaction with this id: the caller looks; None when no kept block does."""
        height = self._index.find(wanted)
        for base, _ in reversed(self._closed):
            if height is not None:
                break
            height = self._reader(base)[1].find(wanted)
        return height

    def senders(self, target: int, from_sequence: int, count: int) -> list[tuple[int, int]]:
        """(last sequence, height) of up to `count` blocks that sent to `target`, from the one with a sequence on."""
        found: list[tuple[int, int]] = []
        for base, last in self._outboxes.get(target, ()):
            if last >= from_sequence and len(found) < count:
                found += self._reader(base)[1].senders(target, from_sequence, count - len(found))
        if len(found) < count:
            found += self._index.senders(target, from_sequence, count - len(found))
        return found

    def _segment_of(self, height: int) -> tuple[int, RecordFile, "array[int]"]:
        if height > self._index.base:
            return self._index.base, self._log, self._offsets
        low, high = 0, len(self._closed) - 1
        while low < high:
            middle = (low + high) // 2
            if self._closed[middle][1] < height:
                low = middle + 1
            else:
                high = middle
        base = self._closed[low][0]
        file, index = self._reader(base)
        return base, RecordFile(file, file.size()), index.offsets

    def _reader(self, base: int) -> tuple[File, SegmentIndex]:
        known = self._readers.get(base)
        if known is not None:
            self._readers.move_to_end(base)
            return known
        index = SegmentIndex(base).stored(self._disk)
        if index is None:
            raise StoreError(f"{self._disk.path(SegmentIndex.name(base))}: damaged; start again to rebuild it")
        if len(self._readers) >= OPEN_SEGMENTS:
            self._readers.popitem(last=False)[1][0].close()
        self._readers[base] = self._disk.open(segment_name(base), create=False), index
        return self._readers[base]

    def _close_readers(self) -> None:
        for file, _ in self._readers.values():
            file.close()
        self._readers.clear()

    def close(self) -> None:
        """Release the files."""
        self._close_readers()
        self._log.file.close()


def read_stored(path: Path) -> Iterator[StoredBlock]:
    """Everything a log keeps, in height order, read-only; `path` is the folder's `blocks.log`. StoreError on damage."""
    names = sorted(entry.name for entry in path.parent.glob("blocks-*.log"))
    for name in [*names, path.name]:
        file = ReadOnlyFile(path.parent / name)
        try:
            for number, (_, payload) in enumerate(Scan(file)):
                if number:
                    yield decode_stored(payload)
        except (Damage, DecodeError) as error:
            raise StoreError(f"{path.parent / name}: {error}") from None
        finally:
            file.close()


def read_blocks(path: Path) -> Iterator[bytes]:
    """The CertifiedBlocks of a log, as `read_stored`."""
    for stored in read_stored(path):
        yield stored.certified
