"""Log lines that must not flood: at most one per topic and minute, with the number of those held back.

A broker that is away for a day would otherwise fill an SD card with the same sentence.
"""

from __future__ import annotations

from collections.abc import Callable

from watt_node.clock import monotonic_ms
from watt_node.log import Log

QUIET_MS = 60_000
"""One clear line a minute is enough to notice a fault and too little to fill a disk (44 kB a day)."""
TOPICS_MAX = 256
"""Distinct topics remembered; they are constants of this program, the bound is a seat belt."""


class Lines:
    """A log with a limit per topic."""

    def __init__(self, log: Log, now_ms: Callable[[], int] = monotonic_ms) -> None:
        self._log = log
        self._now_ms = now_ms
        self._last: dict[str, tuple[int, int]] = {}

    def warn(self, event: str, **fields: object) -> bool:
        """Write a warning, unless the same event was written less than a minute ago; returns whether it was."""
        now = self._now_ms()
        last, held = self._last.get(event, (now - QUIET_MS, 0))
        if now - last < QUIET_MS:
            self._last[event] = (last, held + 1)
            return False
        if len(self._last) >= TOPICS_MAX:
            self._last.clear()
        self._last[event] = (now, 0)
        if held:
            fields = {**fields, "repeated": held}
        self._log.warning(event, **fields)
        return True

    def clear(self, event: str, **fields: object) -> None:
        """Say that what `event` warned of is over, if anything was said."""
        if self._last.pop(event, None) is not None:
            self._log.info(f"{event}-over", **fields)
