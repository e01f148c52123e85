"""One worker of `wattpact paper run`: cells in, one JSON line each; repetitions out. It ends when its input does.

Its parent may be killed: the pipe then closes, and the worker is gone after the cell it is at.
"""

from __future__ import annotations

import json
import sys
from dataclasses import astuple

from watt_tools.paper.cell import Cell, Run


def main() -> int:
    """Read, run, answer."""
    for line in sys.stdin:
        cell = Cell(**json.loads(line))
        found = Run(cell).repetitions()
        print(json.dumps([astuple(one) for one in found]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
