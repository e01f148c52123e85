"""The plug's GATT service against a fake of MicroPython's `bluetooth` module; the radio itself is not tested here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from watt_plug import provision
from watt_wire import pairing
from watt_wire.initiator import Initiator

sys.path.insert(0, str(Path(__file__).resolve().parent))
tools = importlib.import_module("portable_provision")
fake_bluetooth = importlib.import_module("fake_bluetooth")


def exchange(service: object, tool: Initiator, writes: list[bytes]) -> tuple[int, bytes]:
    ble = fake_bluetooth.BLE.made
    last = (0, b"")
    while writes:
        for fragment in writes:
            ble.write(fragment)
            service.poll()  # type: ignore[attr-defined]
        writes = []
        notified, ble.notified = ble.notified, []
        for fragment in notified:
            assert len(fragment) <= pairing.FRAGMENT_MAX
            step = tool.receive(fragment)
            if step is not None:
                writes += step[0]
                last = (step[1], step[2])
    return last


def test_a_plug_is_paired_over_gatt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bluetooth", fake_bluetooth)
    ble_module = importlib.import_module("watt_plug.ble")
    provisioner = provision.Provisioner(tools.CODE, tools.Card(), tools.Random())
    service = ble_module.Service(provisioner, "wattpact")
    ble = fake_bluetooth.BLE.made
    assert ble.is_active and ble.advertised == 1 and len(ble.values[21]) == 10
    ble.connect()
    tool = Initiator(tools.CODE, b"\x33" * 32, b"\x44" * 16)
    assert exchange(service, tool, tool.hello())[0] == pairing.CONFIRM_REPLY
    assert ble.values[21][1] == provision.PROVEN
    ble.leave()
    service.poll()
    assert ble.advertised == 2 and ble.values[21][1] == provision.OPEN
    ble.connect()
    tool = Initiator(tools.CODE, b"\x35" * 32, b"\x46" * 16)
    exchange(service, tool, tool.hello())
    assert exchange(service, tool, tool.write(pairing.SETTINGS, pairing.encode_fields(tools.FIELDS)))[0] == 0x92
    assert service.poll()
    assert exchange(service, tool, tool.write(pairing.APPLY))[0] == pairing.APPLIED
    assert not service.poll(), "the settings are there"
    service.stop()
    assert not ble.is_active
