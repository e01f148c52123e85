"""Where a plug keeps its few small files: the interface, one in memory, one in a directory."""

import os


class Storage:
    """Small named byte strings. `write` replaces as a whole; names are [a-z0-9]{1,12}."""

    def read(self, name: str) -> "bytes | None":
        """Return the content, or None if there is no such name."""
        raise NotImplementedError

    def write(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Forget the name; no error if it is unknown."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return all names, sorted."""
        raise NotImplementedError


class MemoryStorage(Storage):
    """For tests: what a file system that never fails would do."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> "bytes | None":
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = bytes(data)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def names(self) -> list[str]:
        return sorted(self.files)


class DirectoryStorage(Storage):
    """Files in one directory of LittleFS or a POSIX file system.

    A write goes to a temporary name and is renamed: both file systems make the rename one step, so a power cut
    leaves the old or the new content.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        try:
            os.mkdir(directory)
        except OSError:
            # It exists already; if it cannot be made, the first write says so.
            pass

    def _path(self, name: str) -> str:
        return self._directory + "/" + name

    def read(self, name: str) -> "bytes | None":
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> None:
        with open(self._path("new.tmp"), "wb") as file:
            file.write(data)
        os.rename(self._path("new.tmp"), self._path(name))

    def remove(self, name: str) -> None:
        try:
            os.remove(self._path(name))
        except OSError:
            # Gone already: an acknowledgement may come twice.
            pass

    def names(self) -> list[str]:
        return sorted([name for name in os.listdir(self._directory) if not name.endswith(".tmp")])
