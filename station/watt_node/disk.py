"""The folder of a daemon as its stores see it: named files, and the few operations whose order matters after a crash.

Everything a store does to the disk goes through a `Disk`, so that a test can put another one underneath which counts
the operations, stops at any of them, and rebuilds what a power cut may have left: what was not synced may be there,
missing, or torn, in any order; a new, renamed or removed name is certain only once the folder was synced.
"""

import os
from pathlib import Path
from typing import Protocol


class StoreError(Exception):
    """The data on disk cannot be used; the text is one line for the operator."""


class File(Protocol):
    """An open file, locked by its opener until it is closed."""

    def read(self, at: int, length: int) -> bytes:
        """Up to `length` bytes."""

    def write(self, at: int, data: bytes) -> None:
        """All of `data`; durable only after `sync`."""

    def truncate(self, size: int) -> None:
        """Cut the file; durable only after `sync`."""

    def sync(self) -> None:
        """Return when content and size are durable."""

    def size(self) -> int:
        """Length in bytes."""

    def identity(self) -> int:
        """A number that a copy of the file does not have (the inode)."""

    def close(self) -> None:
        """Release the file and its lock."""


class Disk(Protocol):
    """A folder of files."""

    def path(self, name: str) -> str:
        """The file's name for messages."""

    def open(self, name: str, create: bool = True) -> File:
        """Open for reading and writing, and lock. StoreError when it cannot be, or another process has it."""

    def names(self) -> list[str]:
        """Files of the folder, sorted."""

    def replace(self, old: str, new: str) -> None:
        """Rename; `new` may exist."""

    def remove(self, name: str) -> None:
        """Remove; a missing file is no fault."""

    def sync(self) -> None:
        """Return when creations, renames and removals are durable."""


class _RealFile:
    """A file of the operating system."""

    def __init__(self, path: Path, create: bool) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            self._handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: cannot open: {error.strerror}") from None
        try:
            self._lock()
        except StoreError:
            os.close(self._handle)
            raise

    def _lock(self) -> None:
        import fcntl  # two processes on one folder would sign against each other

        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"{self._path}: in use by another process") from None

    def read(self, at: int, length: int) -> bytes:
        try:
            return os.pread(self._handle, length, at)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot read: {error.strerror}") from None

    def write(self, at: int, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._handle, data[done:] if done else data, at + done)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot write: {error.strerror}") from None

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._handle, size)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot cut: {error.strerror}") from None

    def sync(self) -> None:
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot write: {error.strerror}") from None

    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def identity(self) -> int:
        return os.fstat(self._handle).st_ino

    def close(self) -> None:
        os.close(self._handle)


class ReadOnlyFile:
    """A file that another process may be writing."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise StoreError(f"{path}: cannot open: {error.strerror}") from None

    def read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)

    def size(self) -> int:
        return self._file.seek(0, 2)

    def write(self, at: int, data: bytes) -> None:
        raise AssertionError("opened for reading")

    def truncate(self, size: int) -> None:
        raise AssertionError("opened for reading")

    def sync(self) -> None:
        raise AssertionError("opened for reading")

    def identity(self) -> int:
        return os.fstat(self._file.fileno()).st_ino

    def close(self) -> None:
        self._file.close()


class RealDisk:
    """A folder of the operating system; it exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def open(self, name: str, create: bool = True) -> File:
        return _RealFile(self.folder / name, create)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def replace(self, old: str, new: str) -> None:
        try:
            os.replace(self.folder / old, self.folder / new)
        except OSError as error:
            raise StoreError(f"{self.folder / old}: cannot rename: {error.strerror}") from None

    def remove(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder / name}: cannot remove: {error.strerror}") from None

    def sync(self) -> None:
        try:
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot open: {error.strerror}") from None
        try:
            os.fsync(handle)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot sync: {error.strerror}") from None
        finally:
            os.close(handle)
