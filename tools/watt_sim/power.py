"""A disk that loses power: it counts every operation, stops at any of them, and shows what may be left of the rest.

Content: a written range is certain after the file's `sync`. Until then any part of it may be on the disk, in sectors of
512 bytes, in any order, or the file may only have become longer. Names: a creation, a rename or a removal is certain
after the folder's `sync`; until then each may have happened or not, independently of the others. An operation can also
fail: once, as a bad sector does, or from then on, as a full disk does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import FrameType

from watt_node.disk import StoreError

from watt_sim.drbg import Drbg

SECTOR = 512
VARIANTS = ("lost", "kept", "torn", "sectors", "reordered", "names", "contents", "zeros", "rubbish")
"""What of the unsynced a power cut leaves.

lost       nothing                                 kept       everything
torn       all up to some byte, nothing after it   sectors    any sectors of any write, and any names
reordered  any writes, later ones without earlier  names      every name, no content
contents   every content, no name                  zeros      names and lengths, zeros in place of content
rubbish    names and lengths, old content of other files
"""
_ALL_NAMES = ("kept", "names", "zeros", "rubbish")
_ALL_CONTENT = ("kept", "contents")
_NO_CONTENT = ("lost", "names")
STORES = ("watt_node.votelog", "watt_node.blocklog", "watt_node.blockindex", "watt_node.snapshots")
"""Modules whose functions are the acts of a store."""
RECORDS = "watt_node.records"
"""What they write with."""

Operation = tuple[int, bytes | None]
"""(offset, data) of a write, (size, None) of a cut."""


class PowerCut(Exception):
    """The machine is off: raised in place of the operation."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation that a crash may come before or after."""

    kind: str
    "create, write, truncate, sync, replace, remove or folder-sync."
    name: str
    "The file; for folder-sync the one that was named last."
    act: str
    "The function of a store that was called, as Class.method."
    call: int
    "Which call of it."
    places: tuple[tuple[str, int], ...]
    "(module, line) in the stores on the way to the operation, innermost first."


@dataclass
class Inode:
    """A file's content: what is certain, and what was done since the last sync."""

    number: int
    durable: bytes = b""
    pending: list[Operation] = field(default_factory=list)
    locked: bool = False

    def content(self) -> bytes:
        """As the running program sees it."""
        return _apply(self.durable, self.pending)


def _apply(content: bytes, operations: list[Operation]) -> bytes:
    data = bytearray(content)
    for at, piece in operations:
        if piece is None:
            del data[at:]
            data.extend(bytes(at - len(data)))
        else:
            data.extend(bytes(max(0, at - len(data))))
            data[at : at + len(piece)] = piece
    return bytes(data)


class PowerFile:
    """As watt_node.disk.File."""

    def __init__(self, disk: PowerDisk, name: str, inode: Inode) -> None:
        self._disk, self._name, self._inode = disk, name, inode

    def read(self, at: int, length: int) -> bytes:
        """Up to `length` bytes."""
        self._disk.reads += 1
        return self._inode.content()[at : at + length]

    def write(self, at: int, data: bytes) -> None:
        """Not durable yet; a write that fails leaves its first half."""
        try:
            self._disk.step("write", self._name)
        except StoreError:
            self._inode.pending.append((at, data[: len(data) // 2]))
            raise
        self._inode.pending.append((at, data))

    def truncate(self, size: int) -> None:
        """Not durable yet."""
        self._disk.step("truncate", self._name)
        self._inode.pending.append((size, None))

    def sync(self) -> None:
        """Content and size are durable."""
        self._disk.step("sync", self._name)
        self._inode.durable = self._inode.content()
        self._inode.pending.clear()

    def size(self) -> int:
        """Length in bytes."""
        return len(self._inode.content())

    def identity(self) -> int:
        """The inode's number."""
        return self._inode.number

    def close(self) -> None:
        """Release the lock."""
        self._inode.locked = False


class PowerDisk:
    """As watt_node.disk.Disk, in memory."""

    def __init__(self, stop_at: int = 0, fail_at: int = 0, fails: str = "") -> None:
        """Operations are counted from 1.

        stop_at   the operation in place of which the power goes
        fail_at   the operation that fails; `fails`: "once", or "ever" when all after it fail too
        """
        self.entries: dict[str, Inode] = {}
        self.certain: dict[str, Inode] = {}
        self.changes: list[tuple[str, str, str]] = []
        "(what, old name, new name) since the folder's last sync."
        self.stop_at, self.fail_at, self.fails = stop_at, fail_at, fails
        self.steps: list[Step] = []
        self.reads = 0
        "Pieces of files that were read."
        self._inodes = 0
        self._frame: FrameType | None = None
        self._calls = 0

    def step(self, kind: str, name: str) -> None:
        """Before each operation. Raises PowerCut or StoreError when it is the chosen one."""
        frame, places = _way_of(sys._getframe(2))
        if frame is not self._frame or frame is None:
            self._frame = frame
            self._calls += 1
        act = "" if frame is None else frame.f_code.co_qualname
        self.steps.append(Step(kind, name, act, self._calls, places))
        number = len(self.steps)
        if number == self.stop_at:
            raise PowerCut(f"{kind} {name}")
        if self.fail_at and (number == self.fail_at or (number > self.fail_at and self.fails == "ever")):
            raise StoreError(f"disk/{name}: cannot {kind}: No space left on device")

    def path(self, name: str) -> str:
        """For messages."""
        return f"disk/{name}"

    def open(self, name: str, create: bool = True) -> PowerFile:
        """Open and lock."""
        inode = self.entries.get(name)
        if inode is None:
            if not create:
                raise StoreError(f"disk/{name}: cannot open: No such file")
            self.step("create", name)
            self._inodes += 1
            inode = self.entries[name] = Inode(self._inodes)
            self.changes.append(("create", "", name))
        if inode.locked:
            raise StoreError(f"disk/{name}: in use by another process")
        inode.locked = True
        return PowerFile(self, name, inode)

    def names(self) -> list[str]:
        """Files, sorted."""
        return sorted(self.entries)

    def replace(self, old: str, new: str) -> None:
        """Rename."""
        self.step("replace", new)
        self.entries[new] = self.entries.pop(old)
        self.changes.append(("replace", old, new))

    def remove(self, name: str) -> None:
        """Remove; a missing file is no fault and no step."""
        if name in self.entries:
            self.step("remove", name)
            del self.entries[name]
            self.changes.append(("remove", "", name))

    def sync(self) -> None:
        """Names are durable."""
        self.step("folder-sync", self.steps[-1].name if self.steps else "")
        self.certain = dict(self.entries)
        self.changes.clear()

    def unlock(self) -> None:
        """The process is gone, and its locks with it."""
        for inode in self.entries.values():
            inode.locked = False

    def after_crash(self, variant: str, *seed: object) -> PowerDisk:
        """What is there when the power returns (VARIANTS); what is left open is drawn from the seed."""
        chance = Drbg("power", variant, *seed)
        other = PowerDisk()
        other._inodes = self._inodes
        names = dict(self.certain)
        kept = len(self.changes) if variant in _ALL_NAMES else 0
        if variant == "torn":
            kept = chance.between(0, len(self.changes))
        for number, (what, old, new) in enumerate(self.changes):
            if not (number < kept or (variant in ("sectors", "reordered") and chance.below(2))):
                continue
            if what == "create":
                made = self._made(number)
                if made is not None:
                    names[new] = made
            elif what == "remove":
                names.pop(new, None)
            elif old in names:
                names[new] = names.pop(old)
        for name, inode in names.items():
            other.entries[name] = Inode(inode.number, _left(inode, variant, chance))
        other.certain = dict(other.entries)
        return other

    def _made(self, number: int) -> Inode | None:
        """The file that the change `number` created; it may have another name by now, or none."""
        at = self.changes[number][2]
        for what, old, new in self.changes[number + 1 :]:
            if what == "replace" and old == at:
                at = new
            elif new == at:  # removed, or another file took its name
                return None
        return self.entries.get(at)

    def image(self) -> dict[str, bytes]:
        """Content by name."""
        return {name: inode.content() for name, inode in self.entries.items()}

    def with_content(self, image: dict[str, bytes]) -> PowerDisk:
        """The same folder, file by file in its place, with other content; a name that is new gets a new place."""
        other = PowerDisk()
        other._inodes = self._inodes + 1000
        for name, content in image.items():
            known = self.entries.get(name)
            if known is None:
                other._inodes += 1
            other.entries[name] = Inode(other._inodes if known is None else known.number, content)
        other.certain = dict(other.entries)
        return other

    def copy(self, same_place: bool = True) -> PowerDisk:
        """The folder on another disk; `same_place`: an image of the whole disk, which keeps the inode numbers."""
        other = self.with_content(self.image())
        if not same_place:
            for inode in other.entries.values():
                inode.number += 1000
        return other


def _left(inode: Inode, variant: str, chance: Drbg) -> bytes:
    """The content of a file after the cut."""
    if variant in _ALL_CONTENT:
        return inode.content()
    if variant in _NO_CONTENT:
        return inode.durable
    kept: list[Operation] = []
    torn_at = chance.between(0, len(inode.pending))
    for number, (at, data) in enumerate(inode.pending):
        if variant == "torn":
            if number < torn_at:
                kept.append((at, data))
            elif number == torn_at and data is not None:
                kept.append((at, data[: chance.between(0, len(data))]))
        elif data is None:
            if variant in ("zeros", "rubbish") or chance.below(2):
                kept.append((at, None))
        elif variant == "zeros":
            kept.append((at, bytes(len(data))))
        elif variant == "rubbish":
            kept.append((at, bytes(chance.below(256) for _ in range(len(data)))))
        elif variant == "reordered":
            if chance.below(2):
                kept.append((at, data))
        else:
            kept += [piece for piece in _sectors(at, data) if chance.below(5) < 3]
    return _apply(inode.durable, kept)


def _sectors(at: int, data: bytes) -> list[Operation]:
    pieces: list[Operation] = []
    start = at
    while start < at + len(data):
        end = min((start // SECTOR + 1) * SECTOR, at + len(data))
        pieces.append((start, data[start - at : end - at]))
        start = end
    return pieces


def _way_of(frame: FrameType | None) -> tuple[FrameType | None, tuple[tuple[str, int], ...]]:
    """The outermost function of a store on the way here, and all places in stores."""
    found: FrameType | None = None
    places: list[tuple[str, int]] = []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in (*STORES, RECORDS):
            places.append((module, frame.f_lineno))
        if module in STORES:
            found = frame
        frame = frame.f_back
    return found, tuple(places)
