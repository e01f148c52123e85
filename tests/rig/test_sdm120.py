"""The emulated main meter, read with pymodbus as the gateway reads it."""

from __future__ import annotations

import socket
import struct

import pytest
from pymodbus.client import ModbusTcpClient
from watt_rig.sdm120 import FakeSdm120, MeterPortError


def free_port() -> int:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        return int(handle.getsockname()[1])


def test_registers_hold_what_the_real_meter_has_there() -> None:
    reading = [(7_200_000_000_000, 1_150_000)]
    meter = FakeSdm120(free_port(), lambda: reading[0])
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
        FakeSdm120(taken.getsockname()[1], lambda: (0, 0)).start()
