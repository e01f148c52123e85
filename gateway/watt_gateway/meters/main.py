"""The main meter, whatever it is read through: its register by protocol time, and how often it was missing.

A main meter is a witness beside the signed plugs, so a missing one is a counted warning and never stops a reading.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

POLL_MS_MIN = 500
"""Machine milliseconds between polls at least, whatever the protocol speed: a bus has many masters."""
HISTORY_MAX = 64
"""Polled registers kept for matching with checkpoints: an hour at the default of one a minute."""
MILLI = {"kWh": 1_000_000, "Wh": 1_000, "W": 1_000, "V": 1_000, "A": 1_000}
"""Factor from a unit of a map to our integer sub-unit (mWh, mW, mV, mA)."""


class MeterError(Exception):
    """This poll gave nothing; `reason` is what to count."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class MainMeter(ABC):
    """Polls the import register and remembers the last hour of it by protocol time."""

    def __init__(self) -> None:
        self._history: deque[tuple[int, int]] = deque(maxlen=HISTORY_MAX)
        self.polls = 0
        self.failures: dict[str, int] = {}
        "Polls that gave nothing, by reason."

    @property
    @abstractmethod
    def where(self) -> str:
        """Its address, for people."""

    @abstractmethod
    async def read_import(self) -> int:
        """The import register, mWh, now; MeterError when it cannot be had. Bounded in time."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connection; the next poll opens another."""

    @property
    def last_mwh(self) -> int:
        """The newest import register, mWh; -1 before the first."""
        return self._history[-1][1] if self._history else -1

    async def poll(self, now_s: int) -> int:
        """Read the import register and date it `now_s` (protocol time); MeterError when it cannot be had."""
        self.polls += 1
        try:
            import_mwh = await self.read_import()
            if self._history and import_mwh < self._history[-1][1]:
                # The register of a meter never falls: another meter, or a reset. Start again from here.
                self._history.clear()
                raise MeterError("meter-register-fell", f"to {import_mwh} mWh")
        except MeterError as error:
            self.failures[error.reason] = self.failures.get(error.reason, 0) + 1
            raise
        self._history.append((now_s, import_mwh))
        return import_mwh

    def at(self, time_s: int, tolerance_s: int) -> int:
        """The register polled nearest to `time_s`, mWh; -1 when none lies within `tolerance_s`."""
        near = min(self._history, key=lambda entry: (abs(entry[0] - time_s), entry[0]), default=None)
        if near is None or abs(near[0] - time_s) > tolerance_s:
            return -1
        return near[1]
