"""A fake Bluetooth meter: the SIG's Energy 32 (0x2BA8, Wh) and Power (0x2B05, 0.1 W) under the bench's own service."""

from __future__ import annotations

from collections.abc import Callable

from watt_rig.bluez import BASE_UUID, Characteristic, Peripheral

ADDRESS = "02:6D:65:74:65:72"
SERVICE = "6d657465-7200-4001-8000-776174747061"
UJ_PER_WH = 3_600_000_000


def ble_meter(reading: Callable[[], tuple[int, int]]) -> Peripheral:
    """`reading()` gives (microjoules since installation, mW)."""

    def energy() -> bytes:
        return (reading()[0] // UJ_PER_WH).to_bytes(4, "little")

    def power() -> bytes:
        return (reading()[1] // 100).to_bytes(3, "little")

    values = [
        Characteristic(BASE_UUID.format("2ba8"), ["read"], read=energy),
        Characteristic(BASE_UUID.format("2b05"), ["read"], read=power),
    ]
    return Peripheral(ADDRESS, "meter", {SERVICE: values}, [SERVICE])
