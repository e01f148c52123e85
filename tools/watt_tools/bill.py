"""`wattpact bill DIR HOME`: one household's bill in words, from the bill its own gateway wrote with proofs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from watt_tools.progress import load


def main(folder: Path, home: str | None, *, as_json: bool) -> int:
    """Print the bill; exit code 1 with one line when there is none."""
    homes = sorted(path.parent.name for path in (folder / "homes").glob("*/bill.json"))
    if home is None:
        print("\n".join(homes) if homes else "no bill yet")
        return 0 if homes else 1
    path = folder / "homes" / home / "bill.json"
    bill = load(path)
    if not bill:
        known = f" (there are: {', '.join(homes[:8])} ...)" if homes else ""
        print(f"wattpact bill: {path} does not exist or is not a bill{known}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(bill, indent=1))
        return 0
    _print(bill, path)
    return 0


def _print(bill: dict[str, object], path: Path, depth: int = 0) -> None:
    """Every plain field on a line; what is a proof is counted, not printed."""
    for name, value in bill.items():
        margin = "  " * depth
        if isinstance(value, dict):
            print(f"{margin}{name}:")
            _print(value, path, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict | list):
            print(f"{margin}{name}: {len(value)} (in the file)")
        elif isinstance(value, str) and len(value) > 80:
            print(f"{margin}{name}: {value[:32]}... ({len(value) // 2} bytes)")
        else:
            print(f"{margin}{name}: {value}")
    if depth == 0:
        print(f"with proofs: {path}")
