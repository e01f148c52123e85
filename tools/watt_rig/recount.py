"""Counts again what a household's store holds, sharing no code with those who wrote it.

sqlite3 on the file, the tables of firmware/WIRE.md by offset, hashlib, and the second implementation of ECDSA. What
comes out is compared with what the plugs themselves say they made.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from watt_rig import second

RECORD_SIZE = 75
BODY_SIZE = 174
FLAG_DISCONTINUITY = 0x0002
QUALITY_GOOD = ord("S")
DOMAIN = b"wattpact/1/checkpoint\x00"
REASONS = (
    "", "periodic", "boot", "discontinuity", "clock-step", "calibration", "firmware", "command", "relay", "shut-down",
)  # fmt: skip


@dataclass
class Recount:
    """What is stored of one plug."""

    checkpoints: int = 0
    counter: int = 0
    "The highest one."
    missing_checkpoints: int = 0
    broken_links: int = 0
    "Checkpoints that do not name the hash of the one before."
    bad_signatures: int = 0
    records: int = 0
    sequence: int = 0
    "The highest one."
    missing_records: int = 0
    duplicate_records: int = 0
    fallen_registers: int = 0
    import_mwh: int = 0
    time_s: int = 0
    first_s: int = 0
    first_mwh: int = 0
    "Time and register of the first checkpoint whose time is good: from there on it must show what flowed."
    boots: int = 0
    discontinuities: int = 0
    "Records in which the plug says that energy is missing (WIRE.md W3.4)."
    reasons: dict[str, int] = field(default_factory=dict)


def recount(database: Path, public: bytes) -> Recount:
    """Read every batch of the plug with this key, in order of its counter."""
    plug = hashlib.sha256(public).digest()[:8]
    found = Recount()
    numbers: set[int] = set()
    boots: set[int] = set()
    counters: set[int] = set()
    before = b""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    rows = connection.execute("SELECT frame, records FROM batches WHERE plug = ? ORDER BY counter", (plug,)).fetchall()
    connection.close()
    for frame, records in rows:
        body, signature = frame[:BODY_SIZE], frame[BODY_SIZE:]
        found.bad_signatures += not second.verify(public, DOMAIN + body, signature)
        counter = _number(body, 14, 4)
        if before and _number(before, 14, 4) == counter - 1 and body[18:50] != hashlib.sha256(before).digest():
            found.broken_links += 1
        before = body
        counters.add(counter)
        if not found.first_s and body[92] == QUALITY_GOOD:
            found.first_s, found.first_mwh = _number(body, 88, 4), _number(body, 93, 8)
        boots.add(_number(body, 10, 4))
        reason = REASONS[body[173]] if body[173] < len(REASONS) else str(body[173])
        found.reasons[reason] = found.reasons.get(reason, 0) + 1
        for at in range(0, len(records), RECORD_SIZE):
            number = _number(records, at + 9, 4)
            found.duplicate_records += number in numbers
            numbers.add(number)
            found.records += 1
            found.discontinuities += bool(_number(records, at + 73, 2) & FLAG_DISCONTINUITY)
            found.fallen_registers += _number(records, at + 20, 8) < found.import_mwh
            found.import_mwh = _number(records, at + 20, 8)
        found.fallen_registers += _number(body, 93, 8) < found.import_mwh
        found.import_mwh, found.time_s = _number(body, 93, 8), _number(body, 88, 4)
    found.checkpoints = len(rows)
    found.counter, found.missing_checkpoints = max(counters, default=0), max(counters, default=0) - len(counters)
    found.sequence, found.missing_records = max(numbers, default=0), max(numbers, default=0) - len(numbers)
    found.boots = len(boots)
    return found


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "big")
