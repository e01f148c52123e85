"""Signature checks off the event loop.

Two threads: OpenSSL releases the GIL, so on a 2-core station they fill what the loop leaves free; more would only
queue. The switch interval is lowered because a busy loop otherwise holds the GIL up to 5 ms before a thread with a
finished check gets it back. Checks travel in chunks: handing one to a thread and its answer back costs about half as
much as the check itself.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
MAX_WAITING = 4096
"""Checks queued at most (about half a second of work for two cores); beyond it the caller answers "busy"."""
CHUNK = 64
"""Checks of one job: some 8 ms of work, so that a job never keeps another peer's waiting for long."""
SWITCH_INTERVAL_S = 0.0005

T = TypeVar("T")


class Busy(Exception):
    """More work is queued than can be done soon."""


class VerifyPool:
    """Runs pure functions in two threads, with a bounded queue."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self.waiting = 0
        "Checks handed in and not yet done."

    def has_room(self, checks: int) -> bool:
        """Whether so many checks may be handed in now."""
        return self.waiting + checks <= MAX_WAITING

    async def run(self, job: Callable[[], T], checks: int = 1) -> T:
        """The result of `job()`, which makes `checks` checks in a thread; Busy when MAX_WAITING checks are queued."""
        if not self.has_room(checks):
            raise Busy
        if self._threads is None:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")
        self.waiting += checks
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        finally:
            self.waiting -= checks

    def close(self) -> None:
        """Drop what is queued; running checks end on their own."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
