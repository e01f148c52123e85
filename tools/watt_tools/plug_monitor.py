"""`wattpact plug monitor`: what a plug says on its console, line by line, without stopping it.

The one module that imports pyserial (mpremote brings it). Opening a USB port resets some boards through DTR and RTS:
both lines are held low, so that a plug that measures goes on measuring.
"""

from __future__ import annotations

import json
import sys
import time

import serial

BAUD = 115_200
LINE_MAX = 4_096
"Bytes of one line; a console that never ends a line is cut here."
WAIT_S = 0.2


class MonitorError(Exception):
    """The port cannot be opened; the text names it."""


def monitor(port: str, as_json: bool, seconds: float = 0) -> int:
    """Print lines until Ctrl-C, or for some seconds; returns how many there were. MonitorError."""
    try:
        line = serial.serial_for_url(port, do_not_open=True, baudrate=BAUD, timeout=WAIT_S)
        if port.startswith("/dev/tty"):
            line.dtr = line.rts = False
        line.open()
    except (serial.SerialException, ValueError, OSError) as error:
        raise MonitorError(f"{port}: {error}") from None
    end = time.monotonic() + seconds if seconds else None
    pending = b""
    count = 0
    try:
        while end is None or time.monotonic() < end:
            pending += line.read(LINE_MAX)
            *whole, pending = pending.split(b"\n")
            if len(pending) > LINE_MAX:
                whole, pending = [*whole, pending], b""
            for data in whole:
                count += 1
                _print(data.decode(errors="replace").rstrip("\r"), as_json)
    except serial.SerialException as error:
        raise MonitorError(f"{port}: {error}") from None
    finally:
        line.close()
    return count


def _print(text: str, as_json: bool) -> None:
    now = time.time()
    if as_json:
        print(json.dumps({"time_ms": int(now * 1000), "line": text}), flush=True)
    else:
        stamp = time.strftime("%H:%M:%S", time.localtime(now))
        print(f"{stamp}.{int(now * 1000) % 1000:03d}  {text}", flush=True)
    sys.stdout.flush()
