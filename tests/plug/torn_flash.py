"""A LittleFS block device in a file, in a real MicroPython, that tears a write and kills the process with it."""

import os
import sys

import vfs

BLOCK = 4096
COUNT = 96


class Flash:
    """A block device in a file that tears the write at which the supply fails."""

    def __init__(self, image: str, cut: int) -> None:
        self._file = open(image, "r+b")  # noqa: SIM115  # open for the life of the process
        self.left = cut

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * BLOCK + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=None):
        if offset is None:
            self._write(block * BLOCK, b"\xff" * BLOCK)
            offset = 0
        self._write(block * BLOCK + offset, buffer)

    def _write(self, at, data):
        self._file.seek(at)
        if self.left == 0:
            self._file.write(bytes(data)[: len(data) // 2])
            self._file.flush()
            os.system("kill -9 $PPID")
        self.left -= 1
        self._file.write(data)
        self._file.flush()

    def ioctl(self, command, argument):
        if command == 4:
            return COUNT
        if command == 5:
            return BLOCK
        if command == 6:
            self._write(argument * BLOCK, b"\xff" * BLOCK)
            return 0
        return 0


def mount(image: str, cut: int) -> None:
    """Mount the image at /flash; `cut` writes later the supply fails in the middle of one."""
    try:
        system = vfs.VfsLfs2(Flash(image, cut), progsize=256, readsize=256, lookahead=32)
    except OSError:
        print("no file system")
        sys.exit(3)
    vfs.mount(system, "/flash")
