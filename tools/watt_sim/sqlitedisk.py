"""What SQLite really does on the disk: a recording layer under the very library that Python's sqlite3 uses.

SQLite reaches the disk through a *VFS*, a table of functions that a program may replace. `Recorder` puts a copy of the
usual one in place in which writing, truncating, syncing, creating and deleting are written down (or refused) before
they happen. The structures are those of sqlite3.h, versions 1 to 3 of VFS and methods.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast
from pathlib import Path
from typing import Any

from watt_sim.power import PowerDisk, PowerFile

OK, FULL = 0, 13
CREATE = 0x4
"""SQLITE_OPEN_CREATE."""

Operation = tuple[str, str, int, bytes]
"""(kind, file, offset or size, data)."""

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    _fields_ = [  # as ctypes wants it
        ("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int), ("pNext", c_void_p), ("zName", c_char_p),
        ("pAppData", c_void_p), ("xOpen", c_void_p), ("xDelete", c_void_p), ("others", c_void_p * 14),
    ]  # fmt: skip


class _Methods(Structure):
    _fields_ = [  # as above
        ("iVersion", c_int), ("xClose", c_void_p), ("xRead", c_void_p), ("xWrite", c_void_p), ("xTruncate", c_void_p),
        ("xSync", c_void_p), ("others", c_void_p * 13),
    ]  # fmt: skip


class _File(Structure):
    _fields_ = [("pMethods", POINTER(_Methods))]  # as above


class Recorder:
    """Writes down what happens to files while it is `installed`; `fail_at`: the operation (from 1) that is refused."""

    def __init__(self, fail_at: int = 0) -> None:
        self.operations: list[Operation] = []
        self.fail_at = fail_at
        self._count = 0
        self._names: dict[int, str] = {}
        self._methods: dict[int, _Methods] = {}
        self._kept: list[Any] = []
        "Objects that C holds pointers to."
        # The library that Python's module is linked with, found through the module itself.
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._usual = self._library.sqlite3_vfs_find(None)
        self._own = _Vfs()
        ctypes.memmove(ctypes.byref(self._own), self._usual, ctypes.sizeof(_Vfs))
        self._own.zName = b"recorder"
        self._own.xOpen = self._keep(_Open(self._open))
        self._own.xDelete = self._keep(_Delete(self._delete))

    def _keep(self, function: Any) -> int | None:
        self._kept.append(function)
        return cast(function, c_void_p).value

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Connections opened meanwhile are recorded; all must be closed at the end."""
        self._library.sqlite3_vfs_register(ctypes.byref(self._own), 1)
        try:
            yield
        finally:
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._own))
            self._library.sqlite3_vfs_register(self._usual, 1)

    def _note(self, kind: str, name: str, at: int = 0, data: bytes = b"") -> bool:
        """Whether the operation may happen."""
        self.operations.append((kind, name, at, data))
        self._count += 1
        return self._count != self.fail_at

    def _open(self, _: int, path: int | None, file: int, flags: int, out: int | None) -> int:
        # The path is handed on as the pointer it is: SQLite keeps it, and has parameters of its own behind the text.
        name = "temporary" if path is None else _path(path).name
        new = path is not None and flags & CREATE and not _path(path).exists()
        if new and not self._note("create", name):
            return FULL
        code = int(_Open(self._usual.contents.xOpen)(cast(self._usual, c_void_p).value, path, file, flags, out))
        opened = cast(file, POINTER(_File)).contents
        if code == OK and opened.pMethods:
            self._names[file] = name
            opened.pMethods = ctypes.pointer(self._recording(opened.pMethods))
        return code

    def _recording(self, usual: Any) -> _Methods:
        """The file's methods with ours in place of three."""
        address = ctypes.addressof(usual.contents)
        known = self._methods.get(address)
        if known is not None:
            return known
        methods = _Methods()
        ctypes.memmove(ctypes.byref(methods), usual, ctypes.sizeof(_Methods))
        write, truncate, sync = _Write(methods.xWrite), _Truncate(methods.xTruncate), _Sync(methods.xSync)

        def on_write(file: int, data: int, size: int, at: int) -> int:
            if not self._note("write", self._names[file], at, ctypes.string_at(data, size)):
                return FULL
            return int(write(file, data, size, at))

        def on_truncate(file: int, size: int) -> int:
            return int(truncate(file, size)) if self._note("truncate", self._names[file], size) else FULL

        def on_sync(file: int, flags: int) -> int:
            return int(sync(file, flags)) if self._note("sync", self._names[file]) else FULL

        methods.xWrite = self._keep(_Write(on_write))
        methods.xTruncate = self._keep(_Truncate(on_truncate))
        methods.xSync = self._keep(_Sync(on_sync))
        self._methods[address] = methods
        return methods

    def _delete(self, _: int, path: int, sync_folder: int) -> int:
        if _path(path).exists() and not self._note("delete", _path(path).name, sync_folder):
            return FULL
        return int(_Delete(self._usual.contents.xDelete)(cast(self._usual, c_void_p).value, path, sync_folder))


def _path(pointer: int) -> Path:
    return Path(ctypes.string_at(pointer).decode())


class Replay:
    """The recorded operations on a disk that loses power, one after the other."""

    def __init__(self) -> None:
        self.disk = PowerDisk()
        self._files: dict[str, PowerFile] = {}
        self._unsynced: set[str] = set()
        "Logs and journals whose name SQLite makes durable with their first sync."

    def take(self, operation: Operation) -> None:
        """The next one."""
        kind, name, at, data = operation
        disk = self.disk
        if kind == "create":
            self._files[name] = disk.open(name)
            if name.endswith(("-wal", "-journal")):
                self._unsynced.add(name)
        elif kind == "write":
            self._files[name].write(at, data)
        elif kind == "truncate":
            self._files[name].truncate(at)
        elif kind == "sync":
            self._files[name].sync()
            if name in self._unsynced:
                self._unsynced.discard(name)
                disk.sync()
        else:
            disk.remove(name)
            if at:
                disk.sync()
