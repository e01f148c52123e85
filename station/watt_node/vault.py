"""Everything a validator keeps on disk, and in which order: votes, blocks, snapshots, a state being fetched.

Durable before anything is sent: votes. Durable before it is told or answered: the block. A snapshot is whole and
durable before blocks under it are dropped, and a fetched state is durable before the blocks it replaces are forgotten.
Whatever is damaged is set aside under another name, reported, and fetched again or made again; a validator whose votes
may be incomplete is in doubt and signs nothing (CONSENSUS.md 4.7).

One object per folder; not for several threads, except `write_snapshot`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from watt_chain import codec
from watt_chain.codec import ZERO32, DecodeError
from watt_chain.ledger import AppliedBlock, CorruptionError, Ledger
from watt_chain.pbft import Output
from watt_chain.pbft.outputs import CLEAR, Record
from watt_chain.snapshot import FrozenState, Manifest, StateRange

from watt_node.blocklog import SEGMENT_BLOCKS, BlockLog, StoredBlock
from watt_node.disk import Disk, StoreError
from watt_node.snapshots import PART, PartFile, SnapshotError, Snapshots
from watt_node.votelog import COMPACT_BYTES, VoteLog

SNAPSHOT_BLOCKS = 1024
"""Blocks between two snapshots: every chain's validators make them at the same heights; a start replays at most two."""
ARCHIVE = -1
"""Retention that drops no block."""

Report = tuple[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept and how often the state is written."""

    retain: int = ARCHIVE
    "Blocks kept below the head at least; ARCHIVE: all. Those that a restart needs are kept whatever this says."
    snapshot_blocks: int = SNAPSHOT_BLOCKS
    segment_blocks: int = SEGMENT_BLOCKS
    votes_bytes: int = COMPACT_BYTES


class Vault:
    """The stores of one validator of one chain."""

    def __init__(self, disk: Disk, chain: int, network: bytes, keeping: Keeping | None = None) -> None:
        """Open and check everything. StoreError when it belongs to something else or is in use."""
        self.keeping = keeping or Keeping()
        self.reports: list[Report] = []
        "(event, fields) worth a line in the log, since the last look."
        # First: its lock keeps a second process out of all files.
        self._votes = VoteLog(disk, chain, network, compact_bytes=self.keeping.votes_bytes)
        try:
            self._blocks = BlockLog(disk, chain, network, self.keeping.segment_blocks)
        except StoreError:
            self._votes.close()
            raise
        self._snapshots = Snapshots(disk, chain, network)
        self._part = PartFile(disk, chain, network)
        self._written = 0
        "Height of the newest snapshot on disk."
        self._due: FrozenState | None = None
        self.reports += [*self._votes.reports, *self._blocks.reports]

    # Starting ---------------------------------------------------------------------------------------------

    def load(self, ledger: Ledger) -> Iterator[AppliedBlock | None]:
        """Bring a new ledger to the last stored block; yields after each step. StoreError when that is impossible."""
        self._start_from_snapshot(ledger)
        yield None
        while ledger.head.height < self._blocks.end:
            height = ledger.head.height + 1
            stored = self._blocks.stored(height)
            assert stored is not None
            try:
                applied = ledger.replay(stored.certified)
            except (DecodeError, CorruptionError) as error:
                raise StoreError(f"blocks.log: block {height} cannot be replayed: {error}") from None
            if stored != stored_of(stored.certified, applied):
                raise StoreError(f"blocks.log: block {height} is stored with another outcome than it has")
            yield applied

    def _start_from_snapshot(self, ledger: Ledger) -> None:
        """The newest good snapshot that may be used; without one, everything is replayed or fetched.

        An archive whose first blocks are here goes on from them even when it has lost later ones to damage: a state in
        their place would leave a gap for ever, and others send them again.
        """
        log = self._blocks
        whole = self.keeping.retain == ARCHIVE and log.base == 0
        used = -1
        for height in reversed(self._snapshots.heights()):
            if used >= 0 or (whole and height > log.end):
                self._check_snapshot(height)
            elif self._install(ledger, height):
                used = self._written = height
        if used >= 0 and not log.base <= used <= log.end:
            self._drop_blocks(used)
        elif used < 0 and log.base:
            self._drop_blocks(0)

    def _drop_blocks(self, start: int) -> None:
        """The kept blocks do not go on from where the ledger starts."""
        log = self._blocks
        self.reports.append(("blocks-dropped", {"base": log.base, "end": log.end, "start": start}))
        log.restart_at(start)

    def _install(self, ledger: Ledger, height: int) -> bool:
        try:
            manifest, tree = self._snapshots.read(height)
            if ledger.install(manifest, tree).height != height:
                raise SnapshotError("it is of another height")
        except (SnapshotError, DecodeError) as error:
            self._set_aside(height, error)
            return False
        return True

    def _check_snapshot(self, height: int) -> None:
        """One that is not needed now: better to know today that it could not be used."""
        try:
            self._snapshots.check(height)
        except SnapshotError as error:
            self._set_aside(height, error)

    def _set_aside(self, height: int, error: Exception) -> None:
        kept_as = self._snapshots.set_aside(height)
        self.reports.append(("snapshot-damaged", {"height": height, "reason": error, "kept_as": kept_as}))

    def records(self) -> list[bytes]:
        """What the validator has signed and may still matter; the doubt about it first, when there is one."""
        return self._votes.records(self._blocks.end)

    @property
    def floor(self) -> int:
        """Votes of heights up to this one may have been forgotten."""
        return self._votes.floor

    @property
    def doubt(self) -> str:
        """Why the votes may be incomplete."""
        return self._votes.doubt

    def interrupted(self) -> tuple[Manifest | None, list[StateRange]]:
        """The state that was being fetched: what it consists of, and what has come."""
        manifest: Manifest | None = None
        parts: list[StateRange] = []
        try:
            for record in self._part.read():
                if record[:1] == MANIFEST:
                    manifest, parts = codec.decode(record, Manifest), []
                else:
                    parts.append(codec.decode(record, StateRange))
        except DecodeError as error:
            self._part.drop()
            self._part.damage = str(error)
            manifest, parts = None, []
        if self._part.damage:
            self.reports.append(("transfer-damaged", {"file": PART, "reason": self._part.damage}))
        return manifest, parts

    # Running ----------------------------------------------------------------------------------------------

    def carry_out(
        self, output: Output, send: Callable[[int, bytes], None], told: Callable[[bytes, AppliedBlock], None]
    ) -> None:
        """Do what a replica asks, in the order that makes it safe. `told(certified, applied)`: a block is durable."""
        if output.persist:
            end = self._blocks.end if output.installed is None else output.installed.height
            self._votes.add(output.persist, end + len(output.commit))
        for index, frame in output.send:
            send(index, frame)
        if output.parts:
            self._part.append(output.parts)
        if output.installed is not None:
            self._install_fetched(output.installed)
        for certified, applied in zip(output.commit, output.applied, strict=True):
            self.store(certified, applied)
            told(certified, applied)
        if output.commit:
            self._votes.settle(self._blocks.end)

    def store(self, certified: bytes, applied: AppliedBlock) -> None:
        """Store the next block durably."""
        stored = stored_of(certified, applied)
        txids = [receipt.txid for receipt in applied.receipts]
        self._blocks.add(stored.certified, stored.codes, stored.messages, txids)

    def accept_disk(self) -> str:
        """End a doubt because a person says that no newer disk exists; what the doubt was, "" when there was none."""
        doubt = self._votes.doubt
        if doubt:
            self._votes.add([codec.encode(Record(CLEAR, self._blocks.end, 0, ZERO32, b""))], self._blocks.end)
        return doubt

    def _install_fetched(self, state: FrozenState) -> None:
        """A fetched state takes the place of the blocks."""
        self._snapshots.write(state)
        self._written = state.height
        self._blocks.restart_at(state.height)
        self._part.drop()
        self.reports.append(("state-installed", {"height": state.height, "slots": len(state)}))

    def snapshot_due(self, ledger: Ledger) -> FrozenState | None:
        """A state that is not on disk yet and whose block is; it counts as written from now on."""
        newest = ledger.frozen[-1] if ledger.frozen else None
        if newest is None or newest.height <= self._written or newest.height > self._blocks.end:
            return None
        self._written = newest.height
        return newest

    def write_snapshot(self, state: FrozenState) -> None:
        """Store a snapshot; may run in a thread."""
        self._snapshots.write(state)

    def prune(self) -> int:
        """Drop blocks that neither a restart nor the retention needs; how many files went. After `write_snapshot`."""
        heights = self._snapshots.heights()
        if self.keeping.retain == ARCHIVE or not heights:
            return 0
        return self._blocks.prune(min(heights[0], self._blocks.end - self.keeping.retain))

    # Questions --------------------------------------------------------------------------------------------

    @property
    def base(self) -> int:
        """Height before the first block that is kept."""
        return self._blocks.base

    @property
    def end(self) -> int:
        """Height of the last block."""
        return self._blocks.end

    def block(self, height: int) -> bytes | None:
        """CertifiedBlock bytes of a height; None when it is not kept."""
        return self._blocks.read(height)

    def stored(self, height: int) -> StoredBlock | None:
        """A block with its outcome; None when it is not kept."""
        return self._blocks.stored(height)

    def find(self, txid: bytes) -> int | None:
        """A height whose block may hold a transaction."""
        return self._blocks.find(txid)

    def senders(self, target: int, from_sequence: int, count: int) -> list[tuple[int, int]]:
        """(last sequence, height) of blocks that sent messages to a chain."""
        return self._blocks.senders(target, from_sequence, count)

    def status(self) -> dict[str, object]:
        """For status.json."""
        return {
            "first_block": self._blocks.base + 1,
            "last_block": self._blocks.end,
            "snapshot": self._written,
            "votes_bytes": self._votes.size(),
            "votes_floor": self._votes.floor,
        }

    def close(self) -> None:
        """Release the files; nothing is lost that was answered."""
        self._blocks.close()
        self._part.close()
        self._votes.close()


MANIFEST = bytes([0x90 + len(Manifest.__struct_fields__)])
"""First byte of an encoded Manifest; a StateRange has fewer fields."""


def stored_of(certified: bytes, applied: AppliedBlock) -> StoredBlock:
    """What is kept of a block."""
    codes = [receipt.code for receipt in applied.receipts]
    return StoredBlock(certified, codes, [codec.encode(message) for message in applied.out_messages])
