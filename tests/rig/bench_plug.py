"""A plug as the tests of the cable see it: a port, and for a virtual one its power switch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from watt_rig.vplug import VirtualPlug


class PlugUnderTest:
    """A port to flash. `virtual` is None for a real plug, which has no power switch here."""

    def __init__(self, port: str, virtual: VirtualPlug | None, loop: asyncio.AbstractEventLoop | None) -> None:
        self.port = port
        self.virtual = virtual
        self._loop = loop

    def on_loop(self, call: Callable[[VirtualPlug], None]) -> None:
        """Do something to a virtual plug on its own loop, and wait until it is done; a real one skips the test."""
        if self.virtual is None or self._loop is None:
            pytest.skip("a real plug has no power switch here")
        virtual = self.virtual

        async def run() -> None:
            call(virtual)

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def wait(self, fits: Callable[[VirtualPlug], bool], timeout_s: float = 30) -> None:
        """Wait for a virtual plug to come into some state."""
        assert self.virtual is not None
        end = time.monotonic() + timeout_s
        while not fits(self.virtual):
            assert time.monotonic() < end, bytes(self.virtual.console[-2000:]).decode(errors="replace")
            time.sleep(0.02)
