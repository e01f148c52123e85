"""A serial line in software: two pseudo-terminals whose bytes cross, one for each end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from pathlib import Path

CHUNK = 4096


class PtyLine:
    """`near` and `far` are paths of serial devices; what is written to one is read at the other."""

    def __init__(self, near: Path, far: Path) -> None:
        self.near = near
        self.far = far
        self._masters: list[int] = []
        self._slaves: list[int] = []

    def start(self) -> None:
        """Open both ends. Call on the running loop."""
        for path in (self.near, self.far):
            master, slave = pty.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            path.unlink(missing_ok=True)
            path.symlink_to(os.ttyname(slave))
            self._masters.append(master)
            self._slaves.append(slave)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._masters[0], self._cross, 0, 1)
        loop.add_reader(self._masters[1], self._cross, 1, 0)

    def stop(self) -> None:
        """Close both ends."""
        for master in self._masters:
            asyncio.get_running_loop().remove_reader(master)
        for handle in [*self._masters, *self._slaves]:
            os.close(handle)
        for path in (self.near, self.far):
            path.unlink(missing_ok=True)

    def _cross(self, source: int, target: int) -> None:
        with contextlib.suppress(OSError):  # nobody reads: a line that is full loses what comes
            os.write(self._masters[target], os.read(self._masters[source], CHUNK))
