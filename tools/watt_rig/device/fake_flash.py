"""A fake flash chip: a file of the host as block device of LittleFS, whose power can go inside a write."""

import fake_host

BLOCK = 4096
ERASED = b"\xff" * BLOCK
"Made once: a plug's heap must not pay for a chip's erasing."


class FileFlash:
    """`size` bytes in `path`, made of 0xFF when the file is new."""

    def __init__(self, path, size):
        self._count = size // BLOCK
        try:
            self._file = open(path, "r+b")
        except OSError:
            with open(path, "wb") as file:
                for _ in range(self._count):
                    file.write(ERASED)
            self._file = open(path, "r+b")

    def readblocks(self, number, data, offset=0):
        self._file.seek(number * BLOCK + offset)
        self._file.readinto(data)

    def writeblocks(self, number, data, offset=None):
        if offset is None:
            offset = 0
        fake_host.pump()
        self._file.seek(number * BLOCK + offset)
        if fake_host.cut_after:
            fake_host.cut_after -= 1
            if not fake_host.cut_after:
                self._file.write(bytes(memoryview(data)[: len(data) // 2]))
                fake_host.die("C")
        self._file.write(data)

    def ioctl(self, operation, argument):
        if operation == 4:
            return self._count
        if operation == 5:
            return BLOCK
        if operation == 6:
            # LittleFS never relies on the content of an erased block; a chip would hold 0xFF now.
            self._file.seek(argument * BLOCK)
            self._file.write(ERASED)
        return 0
