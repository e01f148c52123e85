"""The household registry: its plugs and the profile of its user, small and read by people.

TinyDB over a storage of our own; this is the one module that imports tinydb. TinyDB's JSONStorage rewrites the file
in place, which a power cut turns into an unreadable file most of the time. `AtomicStorage` writes a new file beside
it, syncs, keeps the old one as `.bak` and renames: at every instant one complete version exists.
Invariant: readings and transactions never live here (they are in `store`), so losing the registry loses no energy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from tinydb import Query, TinyDB
from tinydb.storages import Storage

FILE_BYTES_MAX = 1 << 20
"""64 plugs and one profile are some 30 kB; a larger file is not ours."""


class RegistryError(Exception):
    """The registry and its backup cannot be read; the text is complete and meant for the operator."""


class PlugEntry(msgspec.Struct, frozen=True):
    """One plug: id (16 hex digits), public key (128 hex digits), name, rated power, protocol time of pairing."""

    plug_id: str
    public: str
    name: str
    rated_w: int
    paired_s: int


class Profile(msgspec.Struct, frozen=True):
    """What the household's app knows of its user: yearly use, standard profile, tariff name."""

    annual_kwh: int = 0
    standard_profile: str = "h25"
    tariff: str = ""


class AtomicStorage(Storage):
    """A TinyDB storage whose writes are all or nothing, also when power fails in the middle."""

    def __init__(self, path: str, replace: Callable[[Path, Path], None] = os.replace) -> None:
        super().__init__()
        self._path = Path(path)
        self._backup = self._path.with_name(self._path.name + ".bak")
        self._replace = replace
        self.restored_from_backup = False

    def read(self) -> dict[str, dict[str, Any]] | None:
        """The stored tables; None when there is no file yet. Falls back to `.bak`; RegistryError when both fail."""
        problem = ""
        for path in (self._path, self._backup):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                problem = f"{path}: {error.strerror}"
                continue
            data = _tables(raw)
            if data is not None:
                self.restored_from_backup = path is self._backup
                return data
            problem = f"{path}: not a registry"
        if problem:
            raise RegistryError(f"{problem}; restore it from a backup or remove it and pair the plugs again")
        return None

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Replace the file by `data`; OSError leaves the old version in place."""
        text = json.dumps(data, sort_keys=True, indent=1)
        fresh = self._path.with_name(self._path.name + ".new")
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if self._path.exists() and _tables(self._path.read_bytes()) is not None:
            # A link, not a rename: the current name must never be absent.
            self._backup.unlink(missing_ok=True)
            os.link(self._path, self._backup)
        self._replace(fresh, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself must be durable, not only the bytes
        finally:
            os.close(folder)


def _tables(raw: bytes) -> dict[str, dict[str, Any]] | None:
    if len(raw) > FILE_BYTES_MAX:
        return None
    try:
        data = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(data, dict) or not all(isinstance(table, dict) for table in data.values()):
        return None
    return data


class Registry:
    """Plugs and profile of one household."""

    def __init__(self, path: Path, replace: Callable[[Path, Path], None] = os.replace) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = TinyDB(str(path), storage=AtomicStorage, replace=replace)
        self._plugs = self._database.table("plugs")
        self._profile = self._database.table("profile")
        self._storage: Any = self._database.storage
        self._plugs.all()  # read once, so that a broken file is found at start and not at the first reading

    @property
    def restored_from_backup(self) -> bool:
        """Whether the main file was unreadable and its backup is in use."""
        return bool(self._storage.restored_from_backup)

    def plugs(self) -> dict[bytes, PlugEntry]:
        """Every paired plug by its 8-byte id; entries that are not of our form are left out."""
        found: dict[bytes, PlugEntry] = {}
        for document in self._plugs.all():
            try:
                entry = msgspec.convert(dict(document), PlugEntry)
                found[bytes.fromhex(entry.plug_id)] = entry
            except (msgspec.ValidationError, ValueError):
                continue
        return found

    def pair(self, entry: PlugEntry) -> bool:
        """Add a plug, or change its name and rating; returns whether anything was written. Never twice one id."""
        old = self.plugs().get(bytes.fromhex(entry.plug_id))
        if old is not None:
            entry = msgspec.structs.replace(entry, paired_s=old.paired_s)
        if entry == old:
            return False
        # Not upsert: it writes the file twice, once for an update of nothing.
        if old is None:
            self._plugs.insert(msgspec.to_builtins(entry))
        else:
            self._plugs.update(msgspec.to_builtins(entry), Query().plug_id == entry.plug_id)
        return True

    def forget(self, plug_id: bytes) -> bool:
        """Remove a plug; returns whether it was there."""
        return bool(self._plugs.remove(Query().plug_id == plug_id.hex()))

    def profile(self) -> Profile:
        """The user's profile; the empty one until it is set."""
        for document in self._profile.all():
            try:
                return msgspec.convert(dict(document), Profile)
            except msgspec.ValidationError:
                continue
        return Profile()

    def set_profile(self, profile: Profile) -> bool:
        """Store the profile; returns whether it changed (an unchanged one costs no flash wear)."""
        if profile == self.profile() and len(self._profile) == 1:
            return False
        if len(self._profile):
            self._profile.update(msgspec.to_builtins(profile))
        else:
            self._profile.insert(msgspec.to_builtins(profile))
        return True

    def close(self) -> None:
        """Release the file."""
        self._database.close()
