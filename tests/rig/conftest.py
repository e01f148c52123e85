"""Puts this folder on the path, and gives tests a plug: a virtual one, or the real one of `--plug=/dev/ttyUSB0`."""

from __future__ import annotations

import asyncio
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_plug import PlugUnderTest
from bench_tools import MICROPYTHON, START_S, need
from watt_rig.load import Load, Profile
from watt_rig.plugchips import Cse7766Chip
from watt_rig.vplug import Clock, VirtualPlug

WATTS = 900


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plug", help="serial port of a real plug; it is flashed and loses its state")


@pytest.fixture
def plug(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PlugUnderTest]:
    real = request.config.getoption("--plug", default=None)
    if real:
        yield PlugUnderTest(real, None, None)
        return
    need("micropython")
    if shutil.which("setsid") is None:
        pytest.skip("setsid (util-linux) is not here")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    chip = Cse7766Chip(Load(Profile(START_S - 3600, 60, [WATTS]), 3680))
    virtual = VirtualPlug("one", tmp_path / "one", Clock(time.time_ns() // 10**6, START_S, 1), chip, str(MICROPYTHON))

    async def start() -> None:
        virtual.start()

    async def stop() -> None:
        virtual.stop()

    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield PlugUnderTest(str(virtual.port), virtual, loop)
    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
