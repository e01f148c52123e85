"""A virtual plug: a real MicroPython behind a pseudo-terminal that the real `mpremote` can flash.

The interpreter runs on a terminal of its own; the bench hands its bytes to and from a second one, whose name is what
a serial port would be. Its flash is a file with a real LittleFS in it (device/fake_flash.py), its heap is bounded,
and SIGKILL is the power cut. What an ESP32 does around the interpreter is done here: a soft reset when the
interpreter ends (Ctrl-D), a hard one when it asks for it, the watchdog.

Everything runs on one asyncio loop. The line to the fakes inside is described in device/fake_host.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import termios
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).resolve().parent
CONSOLE_MAX = 65_536
"Bytes of console output kept for whoever asks; a plug that prints for ever must not fill the memory."
CHUNK = 4096
PENDING_MAX = 65_536
"Bytes on their way to a busy interpreter; mpremote waits for its answers long before."
RESTART_S = 0.05
"Between the end of an interpreter and the next: an ESP32 needs longer to start, nothing here waits for it."
CRASHES_MAX = 50
"Interpreters in a row that end within CRASH_S without being told to: then the plug stays off and says so."
CRASH_S = 1.0
LINE_MAX = 65_536
BUTTON_PIN = 0
"GPIO 0, the button of most boards; it pulls to ground."
PWRON, HARD, WATCHDOG, SOFT, BROWN_OUT = 1, 2, 3, 5, 6
"Reset causes of the ESP32 port, and a brown-out, which the port shows as PWRON_RESET (device/fake_machine.py)."
RAW_ON, RAW_OFF, CTRL_D = b"\x01", b"\x02", b"\x04"


class PlugError(Exception):
    """The plug cannot be started; the text says why."""


class Chip(Protocol):
    """What sits on the plug's UART and pulse pins. Times are world seconds."""

    def power_on(self, time_s: int) -> None: ...
    def reset(self, time_s: int) -> None: ...
    def say(self, uart: int, time_s: int) -> bytes: ...
    def hear(self, uart: int, data: bytes) -> None: ...
    def pulses(self, pin: int, time_s: int) -> int: ...


class Bus(Protocol):
    """What sits on the plug's I2C bus; None and False are a NACK."""

    def write(self, address: int, data: bytes) -> bool: ...
    def read(self, address: int, size: int) -> bytes | None: ...


class Radio(Protocol):
    """Who carries the plug's Bluetooth: the fake BlueZ."""

    def add(self, name: str, tell: Callable[[str], None]) -> None: ...
    def restarted(self, name: str) -> None: ...
    def from_plug(self, name: str, line: str) -> None: ...


@dataclass
class Clock:
    """World time: `protocol_s` at machine time `start_ms`, then `speed` times as fast.

    `timer_speed` is that of the plugs' ticks and sleeps. It cannot be `speed` on a fast bench: a round trip over a
    real network would then take minutes of a plug's timers.
    """

    start_ms: int
    protocol_s: int
    speed: int
    timer_speed: int = 1

    def now_s(self) -> int:
        return self.protocol_s + (_now_ms() - self.start_ms) * self.speed // 1000


@dataclass
class Life:
    """What is counted of a plug."""

    boots: int = 0
    cuts: int = 0
    brownouts: int = 0
    torn_writes: int = 0
    resets: int = 0
    watchdog_resets: int = 0
    soft_resets: int = 0
    healthy: int = 0
    "Lives in which the application fed its watchdog: a cut before one of them was survived."
    healthy_now: bool = False
    crashes: int = 0
    relay_moves: int = 0
    noisy_bytes: int = 0
    told: dict[str, int] = field(default_factory=dict)


class VirtualPlug:
    """One plug. `port` is the path of its serial port (a link in its folder)."""

    def __init__(
        self,
        name: str,
        folder: Path,
        clock: Clock,
        chip: Chip,
        interpreter: str,
        heap_kib: int = 384,
        flash_kib: int = 2048,
        radio: Radio | None = None,
        bus: Bus | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = folder / "tty"
        self.life = Life()
        self.console = bytearray()
        self.outputs: dict[int, int] = {}
        "What the plug's output pins show, by pin number."
        self.wifi = True
        self.jump_s = 0
        self.world_s = clock.now_s()
        self.on_console: Callable[[bytes], None] | None = None
        self.failed = ""
        self._chip = chip
        self._clock = clock
        self._radio = radio
        self._bus = bus
        self._interpreter = interpreter
        self._heap_kib = heap_kib
        self._flash_kib = flash_kib
        self._image = folder / "flash.bin"
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._line_input = b""
        self._inner = -1
        self._outer = self._outer_slave = -1
        self._raw = False
        self._pending = b""
        self._cause = PWRON
        self._error_s = 0
        self._started_s = 0.0
        self._fed_s = 0.0
        self._feed_max_s = 0.0
        self._quick_ends = 0
        self._restart: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._powered = False
        self._off_ms = 0

    # Power.

    def start(self) -> None:
        """Open the serial port and switch the supply on. Call on the running loop."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.get_running_loop()
        self._outer, self._outer_slave = pty.openpty()
        tty.setraw(self._outer_slave)
        os.set_blocking(self._outer, False)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(self._outer_slave))
        self._loop.add_reader(self._outer, self._from_client)
        if self._radio is not None:
            self._radio.add(self.name, self.tell)
        self.power_on()

    def stop(self) -> None:
        """Switch off, keep what the console said last, and close the port."""
        self.power_off()
        with contextlib.suppress(OSError):
            (self.folder / "console.log").write_bytes(self.console)
        if self._outer >= 0 and self._loop is not None:
            self._loop.remove_reader(self._outer)
            os.close(self._outer)
            os.close(self._outer_slave)
            self._outer = -1
            self.port.unlink(missing_ok=True)

    @property
    def powered(self) -> bool:
        """Whether the supply is on."""
        return self._powered

    def power_on(self, cause: int = PWRON) -> None:
        """Start the interpreter; with PWRON the metering chip starts from zero too."""
        if self._powered:
            return
        self._powered = True
        self._cause = cause
        # A plug that lags goes on where it was, so that no piece of its day is skipped; time without supply passes.
        self.world_s += (_now_ms() - self._off_ms) * self._clock.speed // 1000 if self._off_ms else 0
        self._off_ms = 0
        if cause == PWRON:
            self._chip.power_on(self.world_s)
            self._raw = False
        self._spawn(run=True)

    def power_off(self) -> None:
        """Take the supply away, whatever the plug is doing."""
        if self._powered:
            self._off_ms = _now_ms()
        self._powered = False
        self._kill()

    def cut(self) -> None:
        """A power cut of the whole socket, back at once."""
        self.life.cuts += 1
        self.power_off()
        self.power_on(PWRON)

    def brown_out(self) -> None:
        """The supply dips: the processor resets, the metering chip goes on."""
        self.life.cuts += 1
        self.life.brownouts += 1
        self.power_off()
        self.power_on(BROWN_OUT)

    def restart(self, cause: int = HARD) -> None:
        """Start anew for the bench's own reasons; no fault."""
        self.power_off()
        self.power_on(cause)

    def cut_in_write(self, writes: int) -> None:
        """Cut the power inside the flash write that is the `writes`th from now."""
        self.tell(f"K {writes}")

    # The air, the clock, the button.

    def set_wifi(self, there: bool) -> None:
        self.wifi = there
        self.tell(f"W {int(there)}")

    def jump_clock(self, error_s: int) -> None:
        """The plug's clock and its time source are wrong by this much from now on."""
        self.jump_s = error_s
        self.tell(f"J {error_s}")

    def set_pin(self, pin: int, value: int) -> None:
        self.tell(f"P {pin} {value}")

    def press(self, milliseconds: int, pin: int = BUTTON_PIN) -> None:
        """Hold the button down for a while."""
        assert self._loop is not None
        self.set_pin(pin, 0)
        self._loop.call_later(milliseconds / 1000, self.set_pin, pin, 1)

    def tell(self, line: str) -> None:
        """Send a line to the fakes inside; lost when the plug is off."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send((line + "\n").encode())

    # The interpreter.

    def _spawn(self, run: bool) -> None:
        assert self._loop is not None
        if self._cause != PWRON:
            self._chip.reset(self.world_s)
        inner, slave = pty.openpty()
        _child_terminal(slave)
        ours, theirs = socket.socketpair()
        settings = {
            "here": str(HERE / "device"),
            "image": str(self._image),
            "flash_size": self._flash_kib * 1024,
            "world_s": self.world_s,
            "start_ms": self._clock.start_ms,
            "protocol_s": self._clock.protocol_s,
            "speed": self._clock.speed,
            "timer_speed": self._clock.timer_speed,
            "cause": self._cause,
            "error_s": self._error_s,
            "jump_s": self.jump_s,
            "wifi": self.wifi,
            "unique_id": self.name.encode().hex()[:12].ljust(12, "0"),
            "run": run,
            "line": theirs.fileno(),
        }
        command = ["setsid", "-c", self._interpreter, "-X", f"heapsize={self._heap_kib}K", "-i"]
        try:
            self._child = subprocess.Popen(
                [*command, str(HERE / "device" / "shim.py")],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={"WATT_RIG": json.dumps(settings), "TERM": "dumb", "PATH": os.environ.get("PATH", "")},
                pass_fds=(theirs.fileno(),),
                cwd=self.folder,
            )
        except OSError as error:
            os.close(inner)
            ours.close()
            raise PlugError(f"plug {self.name}: cannot start {self._interpreter}: {error.strerror}") from None
        finally:
            os.close(slave)
            theirs.close()
        os.set_blocking(inner, False)
        ours.setblocking(False)
        self._inner, self._line, self._line_input = inner, ours, b""
        self._started_s = self._fed_s = self._loop.time()
        self._feed_max_s = 0.0
        self.life.boots += 1
        self.life.healthy_now = False
        self._loop.add_reader(inner, self._from_child)
        self._loop.add_reader(ours, self._from_fakes)

    def _kill(self) -> None:
        """End the interpreter as a loss of supply does: nothing in it runs any more."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(signal.SIGKILL)
        child.wait()
        self._release()

    def _release(self) -> None:
        assert self._loop is not None and self._line is not None
        self._loop.remove_reader(self._inner)
        self._loop.remove_writer(self._inner)
        self._loop.remove_reader(self._line)
        self._pending = b""
        if self._radio is not None:
            self._radio.restarted(self.name)
        os.close(self._inner)
        self._line.close()
        self._inner, self._line = -1, None

    def _again(self, cause: int, run: bool) -> None:
        """Start the interpreter anew after a moment, with the supply on all the time."""
        assert self._loop is not None
        self._cause = cause
        quick = self._loop.time() - self._started_s < CRASH_S and run and not self.life.healthy_now
        self._quick_ends = self._quick_ends + 1 if quick else 0
        if self._quick_ends >= CRASHES_MAX:
            self.failed = f"plug {self.name}: the interpreter ended {CRASHES_MAX} times in a row; see its console"
            self._powered = False
            return
        self._restart = self._loop.call_later(RESTART_S, self._start_again, run)

    def _start_again(self, run: bool) -> None:
        self._restart = None
        if not self._powered:
            return
        self._spawn(run)
        if not run:
            self._write_inner(RAW_ON)

    def _ended(self) -> None:
        """The interpreter has closed its terminal by itself: Ctrl-D, or a crash."""
        child, self._child = self._child, None
        if child is None:
            return
        code = child.wait()
        self._release()
        if code < 0:
            self.life.crashes += 1
            self._to_client(b"\r\nrig: interpreter died of signal %d\r\n" % -code)
        self.life.soft_resets += 1
        self._to_client(b"MPY: soft reboot\r\n")
        self._again(SOFT, run=not self._raw)

    def watch(self) -> None:
        """The hardware watchdog: call it now and then."""
        if self._child is None or self._loop is None or not self._feed_max_s:
            return
        if self._loop.time() - self._fed_s > self._feed_max_s:
            self.life.watchdog_resets += 1
            self._kill()
            self._again(WATCHDOG, run=True)

    # Bytes.

    def _from_client(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            data = os.read(self._outer, CHUNK)
            for at in range(len(data)):
                byte = data[at : at + 1]
                if byte == RAW_ON:
                    self._raw = True
                elif byte == RAW_OFF:
                    self._raw = False
            self._write_inner(data)

    def _write_inner(self, data: bytes = b"") -> None:
        """Give the interpreter what came, in order, as fast as it takes it."""
        if self._inner < 0 or self._loop is None:
            return  # off, or between two lives: what comes is lost, as on a real line
        self._pending = (self._pending + data)[-PENDING_MAX:]
        with contextlib.suppress(BlockingIOError, OSError):
            self._pending = self._pending[os.write(self._inner, self._pending) :]
        if self._pending:
            self._loop.add_writer(self._inner, self._write_inner)
        else:
            self._loop.remove_writer(self._inner)

    def _from_child(self) -> None:
        try:
            data = os.read(self._inner, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._to_client(data)
        else:
            self._ended()

    def _to_client(self, data: bytes) -> None:
        self.console += data
        del self.console[:-CONSOLE_MAX]
        if self.on_console is not None:
            self.on_console(data)
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._outer, data)

    # The fakes inside.

    def _from_fakes(self) -> None:
        assert self._line is not None
        try:
            data = self._line.recv(LINE_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # The other end closes with the process; its terminal tells us the same in a moment.
            assert self._loop is not None
            self._loop.remove_reader(self._line)
            return
        *lines, self._line_input = (self._line_input + data).split(b"\n")
        for line in lines:
            self._heard(line.decode("ascii", "replace"))
            if self._line is None:
                return

    def _heard(self, line: str) -> None:
        kind, rest = line[:1], line[2:]
        if kind == "U":
            uart, time_s = (int(word) for word in rest.split(" "))
            self.world_s = time_s
            self.tell("U " + self._chip.say(uart, time_s).hex())
        elif kind == "T":
            uart_text, _, data = rest.partition(" ")
            self._chip.hear(int(uart_text), bytes.fromhex(data))
        elif kind == "N":
            pin, time_s = (int(word) for word in rest.split(" "))
            self.world_s = time_s
            self.tell(f"N {self._chip.pulses(pin, time_s)}")
        elif kind == "I":
            self.tell("I " + self._on_bus(rest))
        elif kind == "F":
            self._fed(int(rest))
        elif kind == "D":
            self._feed_max_s = int(rest) / 1000
        elif kind == "P":
            pin, value = (int(word) for word in rest.split(" "))
            self.outputs[pin] = value
            self.life.relay_moves += 1
        elif kind == "G" and self._radio is not None:
            self._radio.from_plug(self.name, rest)
        elif kind == "R":
            self.life.resets += 1
            self._kill()
            self._again(SOFT, run=True)  # esp_restart() counts as one
        elif kind == "C":
            self.life.torn_writes += 1
            self.cut()

    def _on_bus(self, asked: str) -> str:
        """One transfer on the I2C bus."""
        what, address, rest = asked.split(" ")
        if self._bus is None:
            return "!"
        if what == "w":
            return "ok" if self._bus.write(int(address), bytes.fromhex(rest.strip("-"))) else "!"
        data = self._bus.read(int(address), int(rest))
        return "!" if data is None else data.hex()

    def _fed(self, time_s: int) -> None:
        assert self._loop is not None
        self.world_s = time_s
        self._fed_s = self._loop.time()
        if not self.life.healthy_now:
            self.life.healthy_now = True
            self.life.healthy += 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _child_terminal(slave: int) -> None:
    """No echo and no newline translation, as on a UART; signals stay on, so that Ctrl-C interrupts a program."""
    mode = termios.tcgetattr(slave)
    mode[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(slave, termios.TCSANOW, mode)
