"""`status.json` in the data folder: what a person or the demo looks at. Replaced atomically, never half written."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

PERIOD_S = 1.0
REFRESH_PERIODS = 5
"""An unchanged status is written again after this many periods, so that its age tells whether the daemon lives."""


def read_json(path: Path) -> dict[str, Any]:
    """A status file, or another JSON object; {} when it is not there (yet)."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class StatusFile:
    """Writes a dict as JSON when it has changed or has become old."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "status.json"
        self._fresh = folder / "status.json.new"
        self._last = b""
        self._age = 0

    def write(self, status: dict[str, object], written_ms: int) -> bool:
        """Called each period; True when the file was replaced. A full disk is no reason to stop: returns False."""
        body = msgspec.json.encode(status)
        self._age += 1
        if body == self._last and self._age < REFRESH_PERIODS:
            return False
        try:
            self._fresh.write_bytes(msgspec.json.encode({"written_ms": written_ms, **status}) + b"\n")
            os.replace(self._fresh, self._path)
        except OSError:
            return False
        self._last = body
        self._age = 0
        return True
