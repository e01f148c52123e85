"""The main meter: an emulated SDM120 speaks Modbus TCP, and its absence is a counted warning."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from watt_gateway.config import ModbusSection
from watt_gateway.meters import modbus
from watt_gateway.meters.main import MeterError
from watt_gateway.meters.modbus import ModbusMeter, load_map, milli_from_float32, value_of
from watt_node.config import ConfigError

IMPORT, EXPORT, VOLTAGE = 0x48, 0x4A, 0x00


def words(value: float) -> list[int]:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return [high, low]


class Sdm120:
    """Input registers of an SDM120 behind a pymodbus server; `kwh` may be changed while it runs."""

    def __init__(self) -> None:
        self.kwh = 1234.5
        self.silent = False
        self.port = 0

    async def action(
        self, function: int, start: int, address: int, count: int, registers: list[int], values: object
    ) -> ExcCodes | None:
        if self.silent:
            await asyncio.sleep(60)
        if function != 4:
            return ExcCodes.ILLEGAL_FUNCTION
        base = IMPORT - start
        registers[base : base + 2] = words(self.kwh)
        return None

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        block = [SimData(0, count=0x100, values=0, datatype=DataType.REGISTERS)]
        server = ModbusTcpServer(SimDevice(id=1, simdata=block, action=self.action), address=("127.0.0.1", 0))
        await server.listen()
        assert server.transport is not None
        self.port = server.transport.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            await server.shutdown()


def meter_at(port: int, unit: int = 1) -> ModbusMeter:
    return ModbusMeter(ModbusSection(host="127.0.0.1", port=port, unit=unit), load_map("sdm120", Path(".")))


def test_the_import_register_is_read_exactly() -> None:
    async def scenario() -> None:
        emulated = Sdm120()
        async with emulated.serve():
            meter = meter_at(emulated.port)
            assert await meter.poll(900) == 1_234_500_000
            emulated.kwh = 1234.75
            assert await meter.poll(960) == 1_234_750_000
            assert meter.last_mwh == 1_234_750_000 and meter.failures == {}
            assert meter.at(905, 30) == 1_234_500_000 and meter.at(2000, 30) == -1
            meter.close()

    asyncio.run(scenario())


def test_a_register_that_falls_is_counted_and_forgets_what_came_before() -> None:
    async def scenario() -> None:
        emulated = Sdm120()
        async with emulated.serve():
            meter = meter_at(emulated.port)
            await meter.poll(900)
            emulated.kwh = 3.0
            with pytest.raises(MeterError, match="meter-register-fell"):
                await meter.poll(960)
            assert meter.at(900, 30) == -1
            assert await meter.poll(1020) == 3_000_000
            meter.close()

    asyncio.run(scenario())


def test_a_missing_meter_is_a_counted_warning_and_comes_back() -> None:
    async def scenario() -> None:
        emulated = Sdm120()
        async with emulated.serve():
            pass
        meter = meter_at(emulated.port)
        for _ in range(3):
            with pytest.raises(MeterError, match="meter-missing"):
                await meter.poll(900)
        assert meter.failures == {"meter-missing": 3} and meter.at(900, 900) == -1

    asyncio.run(scenario())


def test_a_silent_meter_ends_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(modbus, "RETRIES", 1)

    async def scenario() -> None:
        emulated = Sdm120()
        emulated.silent = True
        async with emulated.serve():
            meter = meter_at(emulated.port)
            with pytest.raises(MeterError, match="meter-timeout"):
                await asyncio.wait_for(meter.poll(900), 5)
            meter.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.001, 1.0, 1234.5678, 99999.99, 1e7, 2.0**-140])
def test_a_single_becomes_milli_units_without_a_host_float(value: float) -> None:
    bits = struct.unpack(">I", struct.pack(">f", value))[0]
    exact = struct.unpack(">f", struct.pack(">f", value))[0]
    numerator, denominator = exact.as_integer_ratio()
    assert milli_from_float32(bits, 1_000_000) == numerator * 1_000_000 // denominator


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0xBF800000])
def test_infinities_nan_and_negative_energy_are_refused(bits: int) -> None:
    with pytest.raises(MeterError, match="meter-value"):
        milli_from_float32(bits, 1_000_000)


def test_the_word_order_of_the_map_counts() -> None:
    entry = modbus.RegisterEntry(address=0, format="uint32", unit="Wh")
    assert value_of(entry, "high-first", [1, 2]) == 0x10002 * 1000
    assert value_of(entry, "low-first", [1, 2]) == 0x20001 * 1000
    with pytest.raises(MeterError, match="meter-answer"):
        value_of(entry, "high-first", [1])


def test_an_unknown_or_wrong_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sdm120"):
        load_map("sdm999", tmp_path)
    (tmp_path / "own.toml").write_text('name = "own"\nfunction = 6\nword_order = "high-first"\n')
    with pytest.raises(ConfigError, match=r"own\.toml:2: function = 6"):
        load_map("own.toml", tmp_path)
