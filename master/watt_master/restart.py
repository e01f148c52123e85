"""What a master starts from: snapshots of its areas' states, the archive's blocks after them, a look at all the rest.

    area<chain>/snapshot-<height>.state     as a station writes them (watt_node.snapshots), the last two of each area

A snapshot proves itself (certificate and state root), so it needs no order towards the archive; it is used when the
archive goes on from it. Whatever else the archive holds is looked at in a thread while the master runs (`Inspection`);
damage stops the master with one line, and the next start repairs the archive (`archive.open_archive`).
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from watt_chain.block import block_hash, decode_certified
from watt_chain.codec import DecodeError
from watt_chain.contract.objects import KnownList
from watt_chain.snapshot import FrozenState
from watt_chain.transaction import decode_transaction
from watt_node.blocklog import StoredBlock
from watt_node.disk import RealDisk
from watt_node.offline import write_chain
from watt_node.snapshots import SnapshotError, Snapshots

from watt_master.archive import Archive, ArchiveDamage, ArchiveError, BlockRow, TransactionRow
from watt_master.areas import AreaReplica, is_by_list

INSPECT_PAUSE_S = 0.05
"Between two goes of the inspection: it must not keep a core, or the disk, from the master's work."


class AreaSnapshots:
    """The snapshots of one area."""

    def __init__(self, folder: Path, chain: int, network: bytes) -> None:
        """`folder`: the master's data folder. OSError when the area's folder cannot be made."""
        path = folder / f"area{chain}"
        path.mkdir(mode=0o700, exist_ok=True)
        self._snapshots = Snapshots(RealDisk(path), chain, network)
        self.written = 0
        "Height of the newest one on disk."
        self.reports: list[tuple[str, dict[str, object]]] = []
        "(event, fields) worth a line in the log."

    def install(self, replica: AreaReplica, archived: int) -> None:
        """Bring a new replica to the newest good snapshot that the archive goes on from, if there is one."""
        for height in reversed(self._snapshots.heights()):
            if height > archived:
                continue
            try:
                replica.install(*self._snapshots.read(height))
            except (SnapshotError, DecodeError) as error:
                kept_as = self._snapshots.set_aside(height)
                self.reports.append(("snapshot-damaged", {"height": height, "reason": error, "kept_as": kept_as}))
                continue
            self.written = height
            return

    def forget(self, from_height: int) -> None:
        """Set aside the snapshots from a height on."""
        for height in self._snapshots.heights():
            if height >= from_height:
                self._snapshots.set_aside(height)

    def due(self, replica: AreaReplica) -> FrozenState | None:
        """A state that the replica holds still and that is not on disk yet; it is the caller's to `write` now."""
        frozen = replica.ledger.frozen
        if not frozen or frozen[-1].height <= self.written:
            return None
        state = frozen[-1]
        frozen.clear()  # nobody fetches an area's state from a master: it need not be held any longer
        return state

    def write(self, state: FrozenState) -> None:
        """Store a snapshot durably; may run in a thread. StoreError."""
        self._snapshots.write(state)
        self.written = state.height


def holds_old_list(archive: Archive, replica: AreaReplica) -> bool:
    """Whether the block that should be the first of the list in force is certified by another. ArchiveError."""
    stored = None if replica.listed is None else archive.block(replica.chain, replica.listed.from_height)
    return stored is not None and not is_by_list(stored.certified, replica.listed, replica.ledger.network)


def take_list(archive: Archive, replica: AreaReplica, listed: KnownList) -> str:
    """The main chain has readmitted an area under this list; why the process must start again, or "". ArchiveError.

    What the old list made beyond the anchored block is in the way then: `set_aside_old_list` at the next start.
    """
    replica.listed = listed
    if not replica.halted and not holds_old_list(archive, replica):
        return ""
    return f"area {replica.chain} was readmitted from height {listed.from_height} on; start again to follow it"


def set_aside_old_list(archive: Archive, folder: Path, replica: AreaReplica, snapshots: AreaSnapshots) -> str:
    """Drop what a readmitted area's old validators made beyond the anchored block; the file that keeps it, or "".

    Blocks of two lists at one height would stand in each other's way for ever (CONTRACT.md 17.7).
    ArchiveError, OSError.
    """
    listed, chain = replica.listed, replica.chain
    if listed is None or not holds_old_list(archive, replica):
        return ""
    path = folder / f"area{chain}-from-{listed.from_height}.old"
    for _ in write_chain(path, archive.blocks(chain, listed.from_height)):
        pass
    snapshots.forget(listed.from_height)
    archive.forget(chain, listed.from_height)
    return path.name


def restore(replica: AreaReplica, archive: Archive, snapshots: AreaSnapshots) -> Iterator[int]:
    """Bring a new replica to the archive's last block; yields each height. AreaHalted, ArchiveError."""
    snapshots.install(replica, archive.height(replica.chain))
    for certified in archive.blocks(replica.chain, replica.height + 1):
        replica.restore(certified)
        yield replica.height
    replica.ledger.frozen.clear()


def rows_of_stored(stored: StoredBlock, network: bytes) -> tuple[BlockRow, list[TransactionRow]]:
    """What the archive stores of a block that the block log has with its outcome."""
    _, block, header, _ = decode_certified(stored.certified)
    hash_ = block_hash(network, block.header)
    row = BlockRow(header.chain, header.height, hash_, header.time_s, stored.certified, tuple(stored.messages))
    rows: list[TransactionRow] = []
    for position, (raw, code) in enumerate(zip(block.transactions, stored.codes, strict=True)):
        tx = decode_transaction(raw)
        rows.append(TransactionRow(tx.txid, header.chain, header.height, position, tx.kind, tx.signer_id, code))
    return row, rows


class Inspection:
    """Reads the whole archive once after a start, in a thread and on a connection of its own."""

    def __init__(self, path: Path, network: bytes) -> None:
        self._path, self._network = path, network
        self._ending = threading.Event()
        self.blocks = 0
        "Looked at so far."
        self.done = False

    async def run(self) -> None:
        """Returns when everything was looked at. ArchiveDamage."""
        await asyncio.get_running_loop().run_in_executor(None, self._run)

    def end(self) -> None:
        """Have the thread end soon."""
        self._ending.set()

    def _run(self) -> None:
        try:
            archive = Archive(self._path, self._network, read_only=True)
        except ArchiveDamage:
            raise
        except ArchiveError:
            return  # it is being closed; the next start looks again
        try:
            for looked in archive.check(lambda: not self._ending.is_set()):
                self.blocks = looked
                time.sleep(INSPECT_PAUSE_S)
            self.done = not self._ending.is_set()
        finally:
            archive.close()
