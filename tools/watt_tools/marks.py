"""Measured tables stand in documents between `<!-- begin: NAME -->` and `<!-- end -->`; a command writes them anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path


class MarkError(Exception):
    """The document cannot be read or has no such marks; the text names both."""


def replace(path: Path, name: str, text: str) -> None:
    """Put `text` between the marks of `name` in a document. Raises MarkError."""
    begin, end = f"<!-- begin: {name} -->\n", "<!-- end -->"
    try:
        whole = path.read_text()
    except OSError as error:
        raise MarkError(f"{path}: {error.strerror}") from None
    found = re.subn(
        re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + text.rstrip("\n") + "\n" + end, whole, flags=re.S
    )
    if found[1] != 1:
        raise MarkError(f"{path}: '{begin.strip()}' ... '{end}' stands there {found[1]} times, not once")
    path.write_text(found[0])


def show_or_write(text: str, path: Path | None, name: str) -> int:
    """Print `text`, or put it between the marks of `name` in a document; 1 with a line when that cannot be."""
    if path is None:
        print(text)
        return 0
    try:
        replace(path, name, text)
    except MarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
