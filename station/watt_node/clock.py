"""The two clocks of a daemon.

The *protocol clock* (seconds, UTC, Unix) dates blocks, records and event windows; a demo runs it faster than real
time. The *machine clock* (milliseconds) drives timers. `monotonic_ms` is the only time a consensus core is given:
a step of the machine's date must not fire or stall its timers.
"""

import time
from collections.abc import Callable


def machine_ms() -> int:
    """Unix time of this machine in milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """A clock that never steps, in milliseconds from an arbitrary start."""
    return time.monotonic_ns() // 1_000_000


class ProtocolClock:
    """protocol_s = protocol_start_s + max(0, machine_ms - machine_start_ms) * speed // 1000.

    Before machine_start_ms the clock stands still: a bench gives its daemons time to start without losing an hour.
    """

    def __init__(
        self, machine_start_ms: int, protocol_start_s: int, speed: int, machine: Callable[[], int] = machine_ms
    ) -> None:
        self.machine_start_ms = machine_start_ms
        self.protocol_start_s = protocol_start_s
        self.speed = speed
        self._machine = machine

    def at(self, machine_time_ms: int) -> int:
        """Protocol time in seconds at a machine time in milliseconds."""
        return self.protocol_start_s + max(0, machine_time_ms - self.machine_start_ms) * self.speed // 1000

    def now_s(self) -> int:
        """Protocol time now, in whole seconds."""
        return self.at(self._machine())

    def now_ms(self) -> int:
        """Protocol time now, in milliseconds (for pacing, never for anything signed)."""
        return self.protocol_start_s * 1000 + max(0, self._machine() - self.machine_start_ms) * self.speed

    def delay_ms(self, protocol_s: int) -> int:
        """Machine milliseconds to wait until the protocol clock shows `protocol_s`; 0 when it is past."""
        after_start_ms = -(-(protocol_s - self.protocol_start_s) * 1000 // self.speed)
        return max(0, self.machine_start_ms + after_start_ms - self._machine())


class ReplicaTime:
    """Protocol time at any reading of the monotonic clock, also one to come (the replica asks for bounds).

    The difference between the machine's date and its monotonic clock is taken afresh once a second, so that a
    corrected date arrives. A date set back is no harm: the ledger never lets a block's time fall.
    """

    def __init__(self, clock: ProtocolClock) -> None:
        self._clock = clock
        self._offset_ms = 0
        self.refresh()

    def refresh(self) -> None:
        """Look at the machine's date."""
        self._offset_ms = machine_ms() - monotonic_ms()

    def __call__(self, now_ms: int) -> int:
        return self._clock.at(now_ms + self._offset_ms)
