"""A fake Eastron SDM120 main meter on Modbus TCP. The one module of the rig that imports pymodbus.

Input registers, two per value, IEEE 754 single with the high word first, as the real meter has them:
0x0000 V, 0x0006 A, 0x000C W, 0x0046 Hz, 0x0048 kWh imported, 0x004A kWh exported.
A meter answers at any moment; it is read from a thread of its own, never in step with the plugs.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNIT = 1
REGISTERS = 0x0080
VOLTAGE, CURRENT, POWER, FREQUENCY, IMPORT, EXPORT = 0x0000, 0x0006, 0x000C, 0x0046, 0x0048, 0x004A
VOLTS = 230.0
START_S = 10
"Seconds a server may take to listen on a loaded machine."

Reading = Callable[[], tuple[int, int]]
"Returns (energy since the meter was installed in microjoules, power in mW)."


class MeterPortError(Exception):
    """The meter's port cannot be opened; the text names it."""


class FakeSdm120:
    """Serves one meter on 127.0.0.1 from a daemon thread."""

    def __init__(self, port: int, reading: Reading) -> None:
        self.port = port
        self._reading = reading
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = threading.Event()
        self._problem = ""
        self._server: ModbusTcpServer | None = None
        self._thread = threading.Thread(target=self._run, name=f"sdm120-{port}", daemon=True)

    def start(self) -> None:
        """Return when the port is open; MeterPortError when it cannot be."""
        self._thread.start()
        if not self._listening.wait(START_S) or self._problem:
            raise MeterPortError(f"127.0.0.1:{self.port}: {self._problem or 'the meter does not start'}")

    def stop(self) -> None:
        """Close the port."""
        loop, server = self._loop, self._server
        if loop is not None and server is not None and loop.is_running():
            asyncio.run_coroutine_threadsafe(_shut_down(server), loop).result(START_S)
            self._thread.join(START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, RuntimeError) as error:
            self._problem = str(error)
            self._listening.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        device = SimDevice(
            id=UNIT,
            simdata=[SimData(address=0, count=REGISTERS, values=0, datatype=DataType.REGISTERS, readonly=True)],
            action=self._answer,
        )
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)
        self._listening.set()
        await self._server.serving

    async def _answer(
        self,
        _function: int,
        start: int,
        _address: int,
        _count: int,
        registers: list[int],
        _values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        energy_uj, power_mw = self._reading()
        watts = power_mw / 1000
        kwh = energy_uj / 3_600_000_000_000
        values = (
            (VOLTAGE, VOLTS),
            (CURRENT, watts / VOLTS),
            (POWER, watts),
            (FREQUENCY, 50.0),
            (IMPORT, kwh),
            (EXPORT, 0.0),
        )
        for address, value in values:
            registers[address - start : address - start + 2] = struct.unpack(">HH", struct.pack(">f", value))
        return None


async def _shut_down(server: ModbusTcpServer) -> None:
    await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus leaves it without annotations
