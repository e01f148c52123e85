"""A disk in memory that counts every operation and can show what a power cut may have left (reliability.md, G4).

Content: a written range is certain after the file's `sync`; until then any part of it may be on the disk, in 512-byte
sectors, in any order, whatever came later. Names: a creation, a rename or a removal is certain after the folder's
`sync`; until then each may have happened or not, independently of the others.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from watt_node.disk import StoreError

SECTOR = 512


class PowerCut(Exception):
    """The machine is off: raised in place of the operation."""


@dataclass
class Inode:
    """A file's content: what is certain, and what was done since the last sync."""

    number: int
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    "(offset, data) of a write, (size, None) of a cut."
    locked: bool = False

    def content(self) -> bytes:
        return apply(self.durable, self.pending)


def apply(content: bytes, operations: list[tuple[int, bytes | None]]) -> bytes:
    data = bytearray(content)
    for at, piece in operations:
        if piece is None:
            del data[at:]
            data.extend(bytes(at - len(data)))
        else:
            data.extend(bytes(max(0, at - len(data))))
            data[at : at + len(piece)] = piece
    return bytes(data)


class FakeFile:
    def __init__(self, disk: FakeDisk, inode: Inode) -> None:
        self._disk, self._inode = disk, inode

    def read(self, at: int, length: int) -> bytes:
        return self._inode.content()[at : at + length]

    def write(self, at: int, data: bytes) -> None:
        self._disk.step("write")
        self._inode.pending.append((at, data))

    def truncate(self, size: int) -> None:
        self._disk.step("truncate")
        self._inode.pending.append((size, None))

    def sync(self) -> None:
        self._disk.step("sync")
        self._inode.durable = self._inode.content()
        self._inode.pending.clear()

    def size(self) -> int:
        return len(self._inode.content())

    def identity(self) -> int:
        return self._inode.number

    def close(self) -> None:
        self._inode.locked = False


class FakeDisk:
    """As watt_node.disk.Disk. `stop_at`: the operation (counted from 1) at which the power goes."""

    def __init__(self, stop_at: int = 0) -> None:
        self.entries: dict[str, Inode] = {}
        self.certain: dict[str, Inode] = {}
        self.changes: list[tuple[str, str, str]] = []
        "(what, old name, new name) since the folder's last sync."
        self.stop_at = stop_at
        self.steps = 0
        self.kinds: list[str] = []
        self._inodes = 0

    def step(self, kind: str) -> None:
        self.steps += 1
        self.kinds.append(kind)
        if self.steps == self.stop_at:
            raise PowerCut(kind)

    def path(self, name: str) -> str:
        return f"disk/{name}"

    def open(self, name: str, create: bool = True) -> FakeFile:
        inode = self.entries.get(name)
        if inode is None:
            if not create:
                raise StoreError(f"disk/{name}: cannot open: No such file")
            self.step("create")
            self._inodes += 1
            inode = self.entries[name] = Inode(self._inodes)
            self.changes.append(("create", "", name))
        if inode.locked:
            raise StoreError(f"disk/{name}: in use by another process")
        inode.locked = True
        return FakeFile(self, inode)

    def names(self) -> list[str]:
        return sorted(self.entries)

    def replace(self, old: str, new: str) -> None:
        self.step("replace")
        self.entries[new] = self.entries.pop(old)
        self.changes.append(("replace", old, new))

    def remove(self, name: str) -> None:
        if name in self.entries:
            self.step("remove")
            del self.entries[name]
            self.changes.append(("remove", "", name))

    def sync(self) -> None:
        self.step("folder-sync")
        self.certain = dict(self.entries)
        self.changes.clear()

    def after_crash(self, chance: random.Random | None, keep: str = "") -> FakeDisk:
        """What may be there when the power returns. `keep`: "all" or "none" of what was not synced; else by chance."""

        def survives() -> bool:
            return keep == "all" or (keep != "none" and chance is not None and chance.random() < 0.5)

        other = FakeDisk()
        other._inodes = self._inodes
        inodes = {inode.number: inode for inode in [*self.certain.values(), *self.entries.values()]}
        # Inodes reached through a name that a change gave and a later one took away again are found there too.
        names = dict(self.certain)
        for what, old, new in self.changes:
            if not survives():
                continue
            if what == "create":
                made = self._made(new)
                if made is not None:
                    names[new] = made
            elif what == "remove":
                names.pop(new, None)
            elif old in names:
                names[new] = names.pop(old)
        for name, inode in names.items():
            content = _torn(inodes.get(inode.number, inode), chance, keep)
            other.entries[name] = Inode(inode.number, content)
        other.certain = dict(other.entries)
        return other

    def _made(self, name: str) -> Inode | None:
        """The file that was created under a name; it may have another name by now."""
        at = name
        seen = False
        for what, old, new in self.changes:
            if what == "create" and new == at:
                seen = True
            elif seen and what == "replace" and old == at:
                at = new
            elif seen and what == "remove" and new == at:
                return None
        return self.entries.get(at)

    def image(self) -> dict[str, bytes]:
        """Content by name, for a flip of bytes."""
        return {name: inode.content() for name, inode in self.entries.items()}

    def copy(self, same_place: bool = True) -> FakeDisk:
        """The folder on another disk; `same_place`: an image of the whole disk, which keeps the inode numbers."""
        other = FakeDisk()
        other._inodes = self._inodes + 1000
        for name, inode in self.entries.items():
            number = inode.number if same_place else inode.number + 1000
            other.entries[name] = Inode(number, inode.content())
        other.certain = dict(other.entries)
        return other


def _torn(inode: Inode, chance: random.Random | None, keep: str) -> bytes:
    if keep == "all":
        return inode.content()
    if keep == "none" or chance is None:
        return inode.durable
    kept: list[tuple[int, bytes | None]] = []
    for at, data in inode.pending:
        if data is None:
            if chance.random() < 0.5:
                kept.append((at, None))
            continue
        mode = chance.random()
        if mode < 0.3:
            kept.append((at, data[: chance.randint(0, len(data))]))
        else:  # any of its sectors, in any order: what is missing reads as it was before, or as zeros
            start = at
            while start < at + len(data):
                end = min((start // SECTOR + 1) * SECTOR, at + len(data))
                if chance.random() < 0.6:
                    kept.append((start, data[start - at : end - at]))
                start = end
    return apply(inode.durable, kept)
