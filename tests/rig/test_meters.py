"""The emulated main meters, read as the gateway reads them."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest
from pymodbus.client import ModbusTcpClient
from watt_gateway.config import ModbusSection
from watt_gateway.meters.main import MeterError
from watt_gateway.meters.modbus import ModbusMeter, load_map
from watt_rig.meters import FakeModbusMeter, MeterPortError
from watt_rig.ptyline import PtyLine


def free_port() -> int:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        return int(handle.getsockname()[1])


def test_registers_hold_what_the_real_meter_has_there() -> None:
    reading = [(7_200_000_000_000, 1_150_000)]
    meter = FakeModbusMeter("sdm120", lambda: reading[0], free_port())
    meter.start()
    client = ModbusTcpClient("127.0.0.1", port=meter.port)
    assert client.connect()

    def value(address: int) -> float:
        words = client.read_input_registers(address, count=2, device_id=1).registers
        return float(struct.unpack(">f", struct.pack(">HH", *words))[0])

    assert [value(address) for address in (0x0000, 0x0006, 0x000C, 0x0048, 0x004A)] == [230.0, 5.0, 1150.0, 2.0, 0.0]
    reading[0] = (10_800_000_000_000, 0)
    assert (value(0x0048), value(0x000C)) == (3.0, 0.0)
    assert client.read_input_registers(0x0100, count=2, device_id=1).isError()
    client.close()
    meter.stop()


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MeterPortError, match="127"):
        FakeModbusMeter("sdm120", lambda: (0, 0), taken.getsockname()[1]).start()


@pytest.mark.parametrize("kind", ["sdm120", "sdm630", "pzem004t"])
@pytest.mark.parametrize("line", ["tcp", "pty"])
def test_the_gateway_reads_every_meter_through_its_map(kind: str, line: str, tmp_path: Path) -> None:
    """7.2 kWh used and 1150 W: to the Wh by every meter, on a network and on a serial line."""

    async def scenario() -> None:
        wire = PtyLine(tmp_path / "gateway.tty", tmp_path / "meter.tty")
        wire.start()
        port = free_port()
        meter = FakeModbusMeter(
            kind, lambda: (25_920_000_000_000, 1_150_000), port, wire.far if line == "pty" else None
        )
        await asyncio.to_thread(meter.start)
        section = ModbusSection(serial=str(wire.near)) if line == "pty" else ModbusSection(host="127.0.0.1", port=port)
        meter_map = load_map(kind, tmp_path)
        source = ModbusMeter(section, meter_map)
        assert abs(await source.poll(900) - 7_200_000) <= 1
        assert meter_map.power is not None and meter_map.voltage is not None
        assert abs(await source.read(meter_map.power) - 1_150_000) <= 1
        assert await source.read(meter_map.voltage) == 230_000
        source.close()
        await asyncio.to_thread(meter.stop)
        wire.stop()

    asyncio.run(scenario())


def test_a_meter_that_is_gone_from_its_line_is_counted(tmp_path: Path) -> None:
    source = ModbusMeter(ModbusSection(serial=str(tmp_path / "nothing")), load_map("pzem004t", tmp_path))
    with pytest.raises(MeterError, match="meter-missing"):
        asyncio.run(source.poll(900))
    assert source.failures == {"meter-missing": 1}


def test_no_map_asks_for_a_function_that_writes() -> None:
    """A PZEM-004T clears its energy at function 0x42; a map can name 3 and 4 only."""
    for name in ("sdm120", "sdm630", "pzem004t"):
        assert load_map(name, Path(".")).function in (3, 4)
