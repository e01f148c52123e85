"""Write firmware/watt_wire/p256_table.py: the comb table of the generator of P-256.

Run it from the root of the repository with the development environment's Python. The points come from the `ecdsa`
package, which shares no code with the firmware; tests/wire compares the file with a fresh run.
"""

from __future__ import annotations

from pathlib import Path

from ecdsa import NIST256p

ROWS = 6
COLUMNS = 43
BYTES_PER_LINE = 16
TARGET = Path(__file__).resolve().parents[2] / "firmware" / "watt_wire" / "p256_table.py"

HEADING = '''"""Comb table of the P-256 generator. Made by tools/micropython/make_p256_table.py; do not edit.

Entry i (1..63) is X||Y, 64 bytes, of the sum of 2^(43 j) G over the bits j set in i.
"""

TABLE = (
'''


def table() -> bytes:
    """Return the 63 entries of 64 bytes."""
    rows = [NIST256p.generator * (1 << (COLUMNS * row)) for row in range(ROWS)]
    out = bytearray()
    for index in range(1, 1 << ROWS):
        # Multiples of one point add up as their scalars do, which needs no case for equal or opposite points.
        scalar = sum(1 << (COLUMNS * row) for row in range(ROWS) if index >> row & 1)
        point = NIST256p.generator * scalar if index.bit_count() > 1 else rows[index.bit_length() - 1]
        out += int(point.x()).to_bytes(32, "big") + int(point.y()).to_bytes(32, "big")
    return bytes(out)


def module_text() -> str:
    """Return the whole module: one bytes literal, so that a frozen or compiled module keeps it out of the heap."""
    data = table()
    lines = []
    for at in range(0, len(data), BYTES_PER_LINE):
        lines.append('    b"' + "".join(f"\\x{byte:02x}" for byte in data[at : at + BYTES_PER_LINE]) + '"\n')
    return HEADING + "".join(lines) + ")\n"


if __name__ == "__main__":
    TARGET.write_text(module_text())
