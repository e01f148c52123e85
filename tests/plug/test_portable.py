"""The portable tests of the plug under CPython: the same files that a device runs, one case per function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the portable files import their reader by its bare name, as they must on a device
sys.path.append(str(HERE.parents[1] / "tools" / "watt_rig" / "device"))  # and the bench's fake chips


def cases() -> list[tuple[str, Callable[[], None]]]:
    found: list[tuple[str, Callable[[], None]]] = []
    for path in sorted(HERE.glob("portable_*.py")):
        module = importlib.import_module(path.stem)
        names = [name for name in sorted(vars(module)) if name.startswith("test_")]
        assert names, path
        found += [(f"{path.stem}-{name[5:]}", getattr(module, name)) for name in names]
    return found


CASES = cases()


@pytest.mark.parametrize("case", [pytest.param(call, id=name) for name, call in CASES])
def test_portable(case: Callable[[], None]) -> None:
    case()
