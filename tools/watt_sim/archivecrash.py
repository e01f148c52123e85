"""The archive of a master through crashes, refusals of the disk and changed bytes, as `storecrash` and `storeflips` do.

SQLite runs as it is, over a recording layer (`sqlitedisk`). One run writes, lets the log be copied back in passing,
closes, opens and writes again; what a power cut before each operation leaves is opened by the real `open_archive`. A
byte that is changed where nothing is stored changes nothing: then every answer must be as before.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from watt_master.archive import Archive, ArchiveDamage, ArchiveError, BlockRow, TransactionRow, mark, open_archive

from watt_sim.drbg import Drbg
from watt_sim.power import VARIANTS, PowerDisk
from watt_sim.sqlitedisk import Recorder, Replay
from watt_sim.storecrash import Cut
from watt_sim.storeflips import Change, Tally
from watt_sim.storeworld import Broken

STORE = "archive"
NAME = "archive.sqlite"
NETWORK = bytes(range(32))
CHAINS = (0, 1)
SIGNERS = (b"signer01", b"signer02")
KINDS = ("Checkpoint", "Commit")
BEFORE, AFTER = 4, 2
"""Heights written before the archive is closed and opened again, and after it."""
CHECKPOINT_PAGES = 12
"""The log is copied back every other block, as a large archive does every thousand pages."""
CUT_EVERY = 64
"""Lengths at which an archive is cut: it is read by pages of 4,096 bytes, and a log by frames of 4,120."""
LOG_EVERY = 16
"""Bytes between two that are changed when a log stands beside the archive: most of it is pages that are in both."""
MEMORY = "/dev/shm"
"""Where images are put if it is there: nothing of them has to last."""
ACK = "acknowledged"


@cache
def block(chain: int, height: int) -> BlockRow:
    """A block of some hundred bytes."""
    body = Drbg("archive", chain, height)
    certified = bytes(body.below(256) for _ in range(300))
    return BlockRow(chain, height, certified[:32], 1000 + height, certified, (b"message %d" % height,))


@cache
def transactions(chain: int, height: int) -> list[TransactionRow]:
    """Two of them; every third is refused."""
    rows = []
    for position in range(2):
        name = Drbg("tx", chain, height, position)
        txid = bytes(name.below(256) for _ in range(32))
        code = "late" if (height + position) % 3 == 0 else ""
        rows.append(TransactionRow(txid, chain, height, position, KINDS[position], SIGNERS[height % 2], code))
    return rows


def _write(archive: Archive, first: int, count: int, acknowledged: dict[int, int], recorder: Recorder | None) -> None:
    """Blocks of both chains; what `add` has returned for is acknowledged."""
    for height in range(first, first + count):
        for chain in CHAINS:
            archive.add(block(chain, height), transactions(chain, height))
            acknowledged[chain] = height
            if recorder is not None:
                recorder.operations.append((ACK, str(chain), height, b""))


def play(folder: Path, recorder: Recorder, acknowledged: dict[int, int]) -> None:
    """The run. ArchiveError where the disk refuses."""
    with recorder.installed():
        for first, count in ((1, BEFORE), (BEFORE + 1, AFTER)):
            archive, _ = open_archive(folder / NAME, NETWORK)
            try:
                archive._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
                _write(archive, first, count, acknowledged, recorder)
            finally:
                archive.close()


def look(folder: Path, acknowledged: dict[int, int]) -> tuple[str, dict[int, int]]:
    """Open what is there as a master does: (what was repaired, heights). Raises Broken, ArchiveError.

    Every block must be the one that was stored, and what is missing must be taken in again.
    """
    path = folder / NAME
    archive, repaired = open_archive(path, NETWORK)
    try:
        for _ in archive.check():
            pass
    except ArchiveDamage as damage:
        archive.close()
        mark(path, str(damage))
        archive, repaired = open_archive(path, NETWORK)
        for _ in archive.check():
            pass
    try:
        heights = {chain: archive.height(chain) for chain in CHAINS}
        for chain, height in acknowledged.items():
            if heights[chain] < height and not repaired:
                raise Broken(f"block {height} of chain {chain} was acknowledged, {heights[chain]} is left")
        for chain in CHAINS:
            _compare(archive, chain, heights[chain])
            for height in range(heights[chain] + 1, BEFORE + AFTER + 1):
                archive.add(block(chain, height), transactions(chain, height))
            _compare(archive, chain, BEFORE + AFTER)
        for _ in archive.check():
            pass
    finally:
        archive.close()
    return repaired, heights


def _compare(archive: Archive, chain: int, height: int) -> None:
    """Every way to ask, against what was stored."""
    stored = [block(chain, at) for at in range(1, height + 1)]
    rows = [row for at in range(1, height + 1) for row in transactions(chain, at)]
    found = [archive.block(chain, at) for at in range(1, height + 1)]
    if found != stored or list(archive.blocks(chain)) != [one.certified for one in stored]:
        raise Broken(f"chain {chain} holds other blocks than were stored")
    by_kind = sorted(archive.transactions(chain, KINDS), key=lambda row: (row.height, row.position))
    by_signer = [row for signer in SIGNERS for row in archive.transactions_of(signer, 10**6) if row.chain == chain]
    by_id = [archive.transaction(row.txid) for row in rows]
    ordered = sorted(by_signer, key=lambda row: (row.height, row.position))
    if not rows == by_kind == ordered == by_id:
        raise Broken(f"chain {chain} finds other transactions than were stored")


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None)


def _put(folder: Path, image: dict[str, bytes]) -> None:
    for old in folder.iterdir():
        old.unlink()
    for name, content in image.items():
        (folder / name).write_bytes(content)


def _outcome(folder: Path, acknowledged: dict[int, int]) -> tuple[str, str]:
    try:
        repaired, _ = look(folder, acknowledged)
        if repaired:
            raise Broken(f"a crash alone does no damage: {repaired}")
    except Broken as broken:
        return "lost", str(broken)
    except ArchiveError as error:
        return "does-not-start", str(error)
    return "", ""


@dataclass(frozen=True, slots=True)
class _Point:
    """Before one operation."""

    number: int
    disk: PowerDisk
    acknowledged: dict[int, int]


def _points(folder: Path) -> Iterator[_Point]:
    """The disk before every operation of the run."""
    recorder = Recorder()
    play(folder, recorder, {})
    replay, acknowledged, number = Replay(), dict.fromkeys(CHAINS, 0), 0
    for operation in recorder.operations:
        if operation[0] == ACK:
            acknowledged[int(operation[1])] = operation[2]
            continue
        number += 1
        yield _Point(number, replay.disk, dict(acknowledged))
        replay.take(operation)


def operations() -> int:
    """Of an undisturbed run."""
    with _scratch() as folder:
        return sum(1 for _ in _points(Path(folder)))


def cuts(every: int = 1, first: int = 0) -> Iterator[tuple[str, Cut]]:
    """(store, what came of it) of every crash and every refusal; `every` and `first` as in `storecrash.cuts`."""
    with _scratch() as begun, _scratch() as ended:
        number, folder = 0, Path(ended)
        for point in _points(Path(begun)):
            for variant in VARIANTS:
                number += 1
                if number % every == first % every:
                    _put(folder, point.disk.after_crash(variant, STORE, point.number).image())
                    yield STORE, Cut(STORE, point.number, variant, *_outcome(folder, point.acknowledged))
        for at in range(1, point.number + 1):
            number += 1
            if number % every == first % every:
                yield STORE, _refused(folder, at)


def _refused(folder: Path, at: int) -> Cut:
    """The disk refuses an operation; the master stops, and starts again."""
    _put(folder, {})
    acknowledged = dict.fromkeys(CHAINS, 0)
    with contextlib.suppress(ArchiveError):  # none when only copying the log back failed: SQLite tries again later
        play(folder, Recorder(at), acknowledged)
    return Cut(STORE, at, "fails", *_outcome(folder, acknowledged))


def flip(every: int = 1, first: int = 0) -> Iterator[Tally]:
    """As `storeflips.flip`, for a closed archive and for one that was killed with its log beside it."""
    tally = Tally(STORE)
    with _scratch() as begun, _scratch() as ended:
        folder, number = Path(ended), 0
        for image in _images(Path(begun)):
            for change in _changes(image):
                number += 1
                if number % every != first % every:
                    continue
                data = bytearray(image[change.name])
                if change.bit < 0:
                    del data[change.at :]
                else:
                    data[change.at] ^= 1 << change.bit
                _put(folder, {**image, change.name: bytes(data)})
                tally.add(change, *_judge(folder))
                yield tally


def _images(folder: Path) -> Iterator[dict[str, bytes]]:
    """Closed, and before the last operation that was not needed for the last acknowledgement."""
    last: dict[str, bytes] = {}
    wanted = dict.fromkeys(CHAINS, BEFORE + AFTER)
    for point in _points(folder):
        if point.acknowledged == wanted:
            last = last or point.disk.image()
    yield {path.name: path.read_bytes() for path in folder.iterdir() if path.name == NAME}
    yield last


def _changes(image: dict[str, bytes]) -> Iterator[Change]:
    chance = Drbg("flips", "archive")
    for name, content in sorted(image.items()):
        step = 1 if len(image) == 1 else LOG_EVERY
        yield from (Change(name, at, chance.below(8)) for at in range(0, len(content), step))
        yield from (Change(name, at, -1) for at in range(0, len(content), CUT_EVERY))


def _judge(folder: Path) -> tuple[str, str]:
    wanted = dict.fromkeys(CHAINS, BEFORE + AFTER)
    try:
        repaired, heights = look(folder, {})
    except Broken as broken:
        return "wrong", str(broken)
    except ArchiveError as error:
        return ("refused", "") if NAME in str(error) else ("wrong", str(error))
    if repaired:
        return "noticed", ""
    return ("harmless", "") if heights == wanted else ("like-a-crash", "")
