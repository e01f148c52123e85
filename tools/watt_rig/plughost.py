"""One emulated plug: chip, interpreter and broker connection, in step with the protocol clock.

The chip and the plug's clock advance together in ticks of TICK_S virtual seconds, and no tick is ever left out: a
host that is late catches up. After a restart the plug says from which time its journal goes on, the chip's counter
follows from the load at that time, and the ticks since then are repeated. So the registers at slot boundaries
depend on the load alone, neither on the speed of the machine nor on crashes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from watt_rig.chip import FakeCse7766
from watt_rig.engine import Engine
from watt_rig.link import Link
from watt_rig.load import Load

TICK_S = 10
"One frame of the chip for ten virtual seconds (a real one sends twenty a second)."
BATCH = 12
"Ticks handed over at once, and ticks under way in a child: two virtual minutes."
IDLE_MS = 1_000
"A plug gets the time at least this often, for its MQTT timers."
RESTART_MS = 2_000
RESTARTS_MAX = 5
"Deaths of one interpreter before its host gives up: more is a fault, not an accident."
NETWORK_CHUNK = 512
"Bytes from the broker per line: a small heap holds the line, its hexadecimal and its bytes at once."
LOG_MAX = 50
"Lines of one plug that go to the log; a plug in trouble must not fill a disk."


class HostError(Exception):
    """This plug cannot run any more; the text says which and why."""


class PlugHost:
    """Owned by the service's loop; `virtual_s` is the time that the plug has been given last."""

    def __init__(
        self,
        name: str,
        settings: dict[str, object],
        load: Load,
        state_dir: Path,
        first_s: int,
        make_engine: Callable[[Callable[[str], None]], Engine],
        say: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.load = load
        self.state_dir = state_dir
        self._first_s = first_s - first_s % TICK_S
        self.virtual_s = self._first_s
        self.link: Link | None = None
        self.counter = 0
        self.unacknowledged = 0
        self.restarts = 0
        self._settings = settings
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._chip = FakeCse7766()
        self._say = say
        self._said = 0
        self._under_way = 0
        self._resumed = False
        self._started = False
        self._is_new = False
        self._told_ms = 0
        self._restart_ms = 0

    # The plug.

    def start(self) -> None:
        """Start the interpreter; engine.EngineError when that is not possible."""
        self._resumed = False
        self._started = False
        self._under_way = 0
        self._engine = self._make_engine(self._answer)
        self._engine.start(self._settings)

    def stop(self) -> None:
        """Stop the interpreter and leave the broker."""
        if self.link is not None:
            self.link.stop()
        if self._engine is not None:
            self._engine.stop()
            self._engine = None

    def has_backlog(self, now_s: int) -> bool:
        """True if ticks are due that can be handed over at once."""
        return self._resumed and not self._under_way and self.virtual_s + TICK_S <= now_s

    def next_s(self) -> int:
        """Virtual time of the next tick."""
        return self.virtual_s + TICK_S

    def advance(self, now_s: int, now_ms: int) -> None:
        """Hand over what is due up to `now_s`, BATCH ticks at most; HostError when the interpreter is beyond help."""
        engine = self._engine
        if engine is None or engine.failed:
            self._restart(now_ms)
            return
        if not self._resumed:
            return
        lines: list[str] = []
        if not self._started and self.virtual_s <= now_s:
            self._started = True
            if self._is_new:
                # The counter's position at the very start, so that the first ten seconds count as well.
                lines.append("U " + self._frame(self.virtual_s))
            lines.append(f"T {self.virtual_s} {now_ms // 1000}")
            if self.link is not None and self.link.is_open:
                lines.append("O")
        while self._started and self.virtual_s + TICK_S <= now_s and len(lines) < 2 * BATCH:
            if self._under_way + len(lines) // 2 >= BATCH:
                break
            self.virtual_s += TICK_S
            lines.append("U " + self._frame(self.virtual_s))
            lines.append(f"T {self.virtual_s} {now_ms // 1000}")
        if self._started and not lines and now_ms - self._told_ms >= IDLE_MS and not self._under_way:
            lines.append(f"T {self.virtual_s} {now_ms // 1000}")
        if lines:
            self._told_ms = now_ms
            self._under_way += sum(line[0] == "T" for line in lines)
            engine.write(lines)
            if self.link is not None:
                self.link.flush(now_ms)

    def reading(self) -> tuple[int, int]:
        """Return (microjoules since the start of the profile, mW) at the plug's time: what a main meter shows."""
        time_s = self.virtual_s
        return self.load.energy_uj(time_s), self._power_mw(time_s)

    def status(self, now_s: int) -> dict[str, object]:
        """What the status file shows of this plug."""
        link = self.link
        return {
            "counter": self.counter,
            "unacknowledged": self.unacknowledged,
            "virtual_s": self.virtual_s,
            "lag_s": max(0, now_s - self.virtual_s),
            "connected": link is not None and link.is_open,
            "connections": 0 if link is None else link.opened_count,
            "last_error": "" if link is None else link.last_error,
            "restarts": self.restarts,
        }

    def _frame(self, time_s: int) -> str:
        return self._chip.frame(self.load.energy_uj(time_s), self._power_mw(time_s)).hex()

    def _power_mw(self, time_s: int) -> int:
        before_s = max(self.load.profile.start_s, time_s - TICK_S)
        return (self.load.energy_uj(time_s) - self.load.energy_uj(before_s)) // (TICK_S * 1000)

    def _restart(self, now_ms: int) -> None:
        if not self._restart_ms:
            reason = self._engine.failed if self._engine is not None else "not started"
            if self.restarts >= RESTARTS_MAX:
                raise HostError(f"plug {self.name}: {reason}")
            self._say(self.name, reason)
            self._restart_ms = now_ms + RESTART_MS
        elif now_ms >= self._restart_ms:
            self._restart_ms = 0
            self.restarts += 1
            self.start()

    def _answer(self, line: str) -> None:
        """Take one line of the plug."""
        kind, rest = line[:1], line[2:]
        if kind == "R":
            with contextlib.suppress(ValueError):
                time_s, self.counter, self.unacknowledged = (int(part) for part in rest.split(" "))
                if self._resumed:
                    self._under_way -= 1
                else:
                    self._resumed = True
                    self._is_new = not time_s
                    self.virtual_s = time_s or self._first_s
        elif kind == "N" and self.link is not None:
            with contextlib.suppress(ValueError):
                self.link.send(bytes.fromhex(rest))
        elif kind == "X" and self.link is not None:
            self.link.close(self._told_ms, "closed by the plug")
        elif self._said < LOG_MAX:
            # A log line, or the traceback of an interpreter that prints it on its standard output.
            self._said += 1
            self._say(self.name, rest if kind == "L" else line)

    # The broker.

    def link_opened(self) -> None:
        self._tell("O")

    def link_closed(self) -> None:
        self._tell("X")

    def link_received(self, data: bytes) -> None:
        for offset in range(0, len(data), NETWORK_CHUNK):
            self._tell("N " + data[offset : offset + NETWORK_CHUNK].hex())

    def _tell(self, line: str) -> None:
        if self._started and self._engine is not None and not self._engine.failed:
            self._engine.write([line])
