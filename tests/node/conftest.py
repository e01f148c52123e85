"""Runs coroutine tests in an event loop of their own, and makes helper modules importable in whatever import mode."""

import asyncio
import inspect
import sys
from pathlib import Path

import pytest

for folder in ("contract", "node"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A coroutine function is a test like any other."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
