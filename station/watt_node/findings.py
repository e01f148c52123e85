"""What a doctor says: one finding a line, with what to do about it; the same words in JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

COLOURS = {"ok": "\033[32m", "warn": "\033[33m", "bad": "\033[31m"}
PLAIN = "\033[0m"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `level` is ok, warn or bad; `action` says what to do about it."""

    level: str
    what: str
    action: str = ""


def bad_ones(findings: Sequence[Finding]) -> int:
    """How many are bad."""
    return sum(finding.level == "bad" for finding in findings)


def show(findings: Sequence[Finding], *, as_json: bool = False, more: dict[str, Any] | None = None) -> int:
    """Print them; 1 when one is bad, else 0. `more`: further members of the JSON object."""
    bad = bad_ones(findings)
    if as_json:
        print(json.dumps({**(more or {}), "findings": [asdict(one) for one in findings], "bad": bad}, indent=1))
        return int(bad > 0)
    colours = sys.stdout.isatty()
    for finding in findings:
        mark = f"{finding.level:4}"
        print(f"{COLOURS[finding.level]}{mark}{PLAIN}" if colours else mark, f" {finding.what}", sep="")
        if finding.action:
            print(f"      -> {finding.action}")
    warnings = sum(finding.level == "warn" for finding in findings)
    told = f"{warnings} to look at" if warnings else ""
    print(", ".join(filter(None, (f"{bad} to repair" if bad else "", told))) or "all good")
    return int(bad > 0)
