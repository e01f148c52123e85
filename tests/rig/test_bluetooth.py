"""Bluetooth with the real bleak: against a fake BlueZ on a private D-Bus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from bench_tools import need_dbus
from watt_gateway.config import BleSection
from watt_gateway.meters.ble import BleMeter, load_ble_map, value_of
from watt_gateway.meters.main import MeterError
from watt_rig.blemeter import ADDRESS, ble_meter
from watt_rig.bluez import FakeBlueZ, PrivateBus


def with_radio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[FakeBlueZ], Awaitable[None]]
) -> None:
    """Run `scenario` with a private bus as the system's."""
    need_dbus()

    async def run() -> None:
        bus = PrivateBus(tmp_path / "bus")
        await bus.start()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        radio = FakeBlueZ(bus.address)
        await radio.start()
        try:
            await scenario(radio)
        finally:
            radio.stop()
            bus.stop()

    asyncio.run(run())


def test_the_gateway_reads_a_bluetooth_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = [(25_920_000_000_000, 1_150_000)]

    async def scenario(radio: FakeBlueZ) -> None:
        radio.advertise(ble_meter(lambda: reading[0]))
        meter_map = load_ble_map("ble-energy", tmp_path)
        source = BleMeter(BleSection(address=ADDRESS), meter_map)
        assert await source.poll(900) == 7_200_000
        reading[0] = (25_923_600_000_000, 1_150_000)
        assert await source.poll(960) == 7_201_000 and source.at(905, 30) == 7_200_000
        assert meter_map.power is not None and await source.read(meter_map.power) == 1_150_000
        assert radio.connections == 3

    with_radio(tmp_path, monkeypatch, scenario)


def test_a_bluetooth_meter_that_knows_nothing_is_counted(tmp_path: Path) -> None:
    entry = load_ble_map("ble-energy", tmp_path).import_energy
    with pytest.raises(MeterError, match="does not know"):
        value_of(entry, b"\xff\xff\xff\xff")
    with pytest.raises(MeterError, match="2 bytes"):
        value_of(entry, b"\x00\x00")
    assert value_of(entry, b"\x02\x00\x00\x00") == 2000


def test_a_bluetooth_meter_that_is_gone_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watt_gateway.meters.ble.FIND_S", 1)

    async def scenario(radio: FakeBlueZ) -> None:
        source = BleMeter(BleSection(address=ADDRESS), load_ble_map("ble-energy", tmp_path))
        with pytest.raises(MeterError, match="does not advertise"):
            await source.poll(900)
        assert source.failures == {"meter-missing": 1}

    with_radio(tmp_path, monkeypatch, scenario)
