"""Fake Modbus meters: Eastron SDM120 and SDM630, PZEM-004T v3. The one module of the rig that imports pymodbus.

A meter listens on TCP (Modbus TCP) or on a serial line (RTU; under a bench a pseudo-terminal), function 4, and shows
what its load used. Register tables as in the makers' lists:

    SDM120   IEEE 754 single, high word first: 0x0000 V, 0x0006 A, 0x000C W, 0x0046 Hz, 0x0048 kWh in, 0x004A kWh out
    SDM630   the same form: 0x0000.. V of three phases, 0x0006.. A, 0x000C.. W, 0x0034 W in all, 0x0046, 0x0048, 0x004A
    PZEM     integers, low word first: 0 V/10, 1-2 mA, 3-4 W/10, 5-6 Wh, 7 Hz/10, 8 power factor/100, 9 alarm

A meter answers at any moment; it is read from a thread of its own, never in step with the plugs.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNIT = 1
REGISTERS = 0x0080
VOLTS = 230.0
START_S = 10
"Seconds a server may take to listen on a loaded machine."
BAUD = 9600

Reading = Callable[[], tuple[int, int]]
"Returns (energy since the meter was installed in microjoules, power in mW)."


class MeterPortError(Exception):
    """The meter's port cannot be opened; the text names it."""


def _floats(values: tuple[tuple[int, float], ...]) -> dict[int, int]:
    """Registers of IEEE singles, high word first."""
    words: dict[int, int] = {}
    for address, value in values:
        words[address], words[address + 1] = struct.unpack(">HH", struct.pack(">f", value))
    return words


def sdm120(energy_uj: int, power_mw: int) -> dict[int, int]:
    """Registers by address."""
    watts = power_mw / 1000
    kwh = energy_uj / 3_600_000_000_000
    return _floats(
        ((0x0000, VOLTS), (0x0006, watts / VOLTS), (0x000C, watts), (0x0046, 50.0), (0x0048, kwh), (0x004A, 0.0))
    )


def sdm630(energy_uj: int, power_mw: int) -> dict[int, int]:
    """Registers by address; the load is spread evenly over the phases."""
    watts = power_mw / 1000
    phase = watts / 3
    values = [(base + 2 * number, value) for number in range(3) for base, value in
              ((0x0000, VOLTS), (0x0006, phase / VOLTS), (0x000C, phase))]  # fmt: skip
    values += [(0x0034, watts), (0x0046, 50.0), (0x0048, energy_uj / 3_600_000_000_000), (0x004A, 0.0)]
    return _floats(tuple(values))


def pzem004t(energy_uj: int, power_mw: int) -> dict[int, int]:
    """Registers by address."""
    current_ma = round(power_mw / VOLTS)
    tenths_w, energy_wh = power_mw // 100, energy_uj // 3_600_000_000
    words = [round(VOLTS * 10)]
    for value in (current_ma, tenths_w, energy_wh):
        words += [value & 0xFFFF, value >> 16 & 0xFFFF]
    return dict(enumerate([*words, 500, 100, 0]))


KINDS: dict[str, Callable[[int, int], dict[int, int]]] = {"sdm120": sdm120, "sdm630": sdm630, "pzem004t": pzem004t}


class FakeModbusMeter:
    """One meter on 127.0.0.1:`port`, or on `line` (a serial device), from a daemon thread."""

    def __init__(self, kind: str, reading: Reading, port: int = 0, line: Path | None = None) -> None:
        self.kind = kind
        self.port = port
        self.line = line
        self._table = KINDS[kind]
        self._reading = reading
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = threading.Event()
        self._problem = ""
        self._server: ModbusTcpServer | ModbusSerialServer | None = None
        self._thread = threading.Thread(target=self._run, name=f"{kind}-{port}", daemon=True)
        self.answers = 0

    @property
    def where(self) -> str:
        """Its address, for people."""
        return str(self.line) if self.line is not None else f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when the port is open; MeterPortError when it cannot be."""
        self._thread.start()
        if not self._listening.wait(START_S) or self._problem:
            raise MeterPortError(f"{self.where}: {self._problem or 'the meter does not start'}")

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
        if self.line is None:
            self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        else:
            self._server = ModbusSerialServer(device, framer=FramerType.RTU, port=str(self.line), baudrate=BAUD)
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
        self.answers += 1
        for address, word in self._table(*self._reading()).items():
            registers[address - start] = word
        return None


async def _shut_down(server: ModbusTcpServer | ModbusSerialServer) -> None:
    await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus leaves it without annotations
