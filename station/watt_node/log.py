"""One line per happening: `HH:MM:SS level area event key=value ...` on standard error (UTC).

No personal data belongs here: identities are shown as 8-byte ids in hex, never names; readings never at all.
"""

import sys
import time
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
MAX_VALUE = 300
"""Characters of one value: a peer's bytes must not be able to fill a disk through the log."""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.hex()
    text = str(value)
    if len(text) > MAX_VALUE:
        text = text[: MAX_VALUE - 3] + "..."
    # A value comes from outside now and then: no control character may forge a line of its own.
    if not text or not text.isprintable() or any(mark in text for mark in ' "='):
        return ascii(text)
    return text


class Log:
    """A logger for one area of the program; `bind` gives another area the same level and stream."""

    def __init__(self, area: str, level: str = "info", stream: TextIO | None = None) -> None:
        self._area = area
        self._least = LEVELS.index(level)
        self._stream = stream

    def bind(self, area: str) -> "Log":
        """The same log under another area name."""
        return Log(area, LEVELS[self._least], self._stream)

    def debug(self, event: str, **fields: object) -> None:
        """For finding a fault; off by default."""
        self._write(0, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """A normal, noteworthy happening."""
        self._write(1, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is missing or refused, and the daemon carries on."""
        self._write(2, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """The daemon cannot do what it is for."""
        self._write(3, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if level < self._least:
            return
        stamp = time.strftime("%H:%M:%S", time.gmtime())
        pairs = "".join(f" {key}={_text(value)}" for key, value in fields.items())
        stream = self._stream if self._stream is not None else sys.stderr
        try:
            stream.write(f"{stamp} {LEVELS[level]} {self._area} {event}{pairs}\n")
            stream.flush()
        except (OSError, ValueError):
            # A full disk or a closed stream must not stop consensus; status.json still tells.
            return
