"""`snapshot-<height>.state`: the whole state after one block, from which a node starts without the blocks before it.

A file of records (records.py): the title, the `Manifest` (certified header, number of slots, roots of the chunks), then
every slot in `StateRange` records, in slot order. It is written under another name, synced, renamed, and the folder
synced: a name `snapshot-...` always stands for a whole file. A file is used only when its checksums hold, every range
follows the one before, the tree of all slots has the `state_root` of the header, and the header's certificate holds
(`Ledger.install`). Two are kept, so that damage to one costs some seconds of replay.

`transfer.part`: the same records of a state that is being fetched from peers, appended without sync as they come; every
range is checked again before a restarted node builds on it.
"""

from collections.abc import Iterator

from watt_chain import codec
from watt_chain.codec import DecodeError
from watt_chain.snapshot import FrozenState, Manifest, StateRange
from watt_chain.tree import StateTree, build_tree

from watt_node.disk import Disk, File, StoreError
from watt_node.records import MAX_RECORD, Damage, RecordFile, Scan, title_of

KEPT = 2
"""Snapshots kept: the newest, and the one before in case the newest is damaged."""
PART = "transfer.part"


def name_of(height: int) -> str:
    """File name of a snapshot."""
    return f"snapshot-{height:012d}.state"


def _height_of(name: str) -> int | None:
    digits = name.removeprefix("snapshot-").removesuffix(".state")
    return int(digits) if name.startswith("snapshot-") and name.endswith(".state") and digits.isdigit() else None


class SnapshotError(Exception):
    """A snapshot cannot be used; the text says why and where."""


class Snapshots:
    """The snapshots of one chain in a folder."""

    def __init__(self, disk: Disk, chain: int, network: bytes) -> None:
        self._disk = disk
        self._title = title_of("state", chain, network)
        for name in disk.names():
            if name.startswith("snapshot-") and name.endswith(".new"):
                disk.remove(name)

    def heights(self) -> list[int]:
        """Heights of the snapshots on disk, ascending."""
        return sorted(height for name in self._disk.names() if (height := _height_of(name)) is not None)

    def write(self, state: FrozenState) -> None:
        """Store a snapshot durably, then drop all but the newest KEPT. Safe in a thread of its own."""
        name = name_of(state.height)
        file = self._disk.open(name + ".new")
        log = RecordFile(file, 0)
        log.cut(0)
        log.write(self._title)
        log.write(codec.encode(state.manifest()))
        for part in ranges_of(state):
            log.write(codec.encode(part))
        file.sync()
        file.close()
        self._disk.replace(name + ".new", name)
        self._disk.sync()
        for height in self.heights()[:-KEPT]:
            self._disk.remove(name_of(height))

    def read(self, height: int) -> tuple[Manifest, StateTree]:
        """A snapshot, as far as the file itself proves it. SnapshotError when it is damaged."""
        return read_snapshot(self._disk.open(name_of(height), create=False), self._title)

    def check(self, height: int) -> None:
        """Whether a snapshot that is not needed now could be. SnapshotError when not."""
        file = self._disk.open(name_of(height), create=False)
        try:
            check_file(file, self._title)
        finally:
            file.close()

    def set_aside(self, height: int) -> str:
        """Keep a damaged snapshot under another name; the name."""
        name = name_of(height)
        self._disk.replace(name, name + ".damaged")
        self._disk.sync()
        return name + ".damaged"


def read_snapshot(file: File, title: bytes) -> tuple[Manifest, StateTree]:
    """A snapshot, as far as its file itself proves it; closes the file. SnapshotError when it is damaged."""
    try:
        records = iter(Scan(file))
        if next(records)[1] != title:
            raise SnapshotError("it belongs to another network or chain")
        manifest = codec.decode(next(records)[1], Manifest, MAX_RECORD)
        tree = build_tree(_entries(records))
    except StopIteration:
        raise SnapshotError("it is cut") from None
    except (Damage, DecodeError, ValueError) as error:
        raise SnapshotError(str(error)) from None
    finally:
        file.close()
    if len(tree) != manifest.size:
        raise SnapshotError(f"{len(tree)} of {manifest.size} slots")
    return manifest, tree


def check_file(file: File, title: bytes) -> None:
    """Title and checksums of a snapshot's file. SnapshotError."""
    scan = Scan(file)
    try:
        titles = [payload for number, (_, payload) in enumerate(scan) if not number]
    except Damage as damage:
        raise SnapshotError(str(damage)) from None
    if titles != [title]:
        raise SnapshotError("it belongs to another network or chain")
    if scan.end < scan.size:
        raise SnapshotError("it is cut")


def ranges_of(state: FrozenState) -> Iterator[StateRange]:
    """All slots of a state in ranges of bounded size."""
    slot = 0
    while (part := state.range(slot)) is not None:
        yield part
        slot += len(part.entries)


def _entries(records: Iterator[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    slot = 0
    for _, payload in records:
        part = codec.decode(payload, StateRange, MAX_RECORD)
        if part.slot != slot:
            raise DecodeError(f"slot {part.slot} follows slot {slot}")
        slot += len(part.entries)
        yield from part.entries


class PartFile:
    """What has come of a state that is being fetched."""

    def __init__(self, disk: Disk, chain: int, network: bytes) -> None:
        self._disk = disk
        self._title = title_of("transfer", chain, network)
        self._log: RecordFile | None = None
        self.damage = ""
        "What `read` found wrong; it only costs what it hit."

    def read(self) -> list[bytes]:
        """The records of an interrupted transfer up to the first that does not check; none when there was none."""
        if PART not in self._disk.names():
            return []
        file = self._disk.open(PART)
        scan = Scan(file)
        records: list[bytes] = []
        try:
            for _, payload in scan:
                records.append(payload)
        except Damage as damage:
            self.damage = str(damage)
        if not self.damage and scan.end < scan.size:
            self.damage = f"its last {scan.size - scan.end} bytes do not check"
        self._log = RecordFile(file, 0)
        self._log.cut(scan.end)
        if not records or records[0] != self._title:
            self.damage = self.damage or "it has no title of this chain"
            self.drop()
            return []
        return records[1:]

    def append(self, records: tuple[bytes, ...]) -> None:
        """Add a manifest (which starts over) or ranges; not synced: what is lost is fetched again."""
        if self._log is None:
            self._log = RecordFile(self._disk.open(PART), 0)
            self._log.cut(0)
            self._log.write(self._title)
        self._log.write(*records)

    def drop(self) -> None:
        """The transfer is over."""
        if self._log is not None:
            self._log.file.close()
            self._log = None
            self._disk.remove(PART)

    def close(self) -> None:
        """Release the file; what it holds stays for the next start."""
        if self._log is not None:
            self._log.file.close()
            self._log = None


__all__ = ["KEPT", "PartFile", "SnapshotError", "Snapshots", "StoreError", "name_of", "ranges_of"]
