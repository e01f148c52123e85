"""The main meter behind Bluetooth: the one module of the gateway that imports bleak.

A map file (`maps/<name>.toml` with `ble = true`) names the characteristic that holds the import register, its bytes
and its unit. `ble-energy` is the Bluetooth SIG's own form: Energy 32 (0x2BA8), unsigned, Wh, where two values mean
"not valid" and "not known". Each poll connects, reads and leaves, because a radio link is shared and a meter that is
held gives nobody else a turn.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from bleak import BleakClient, BleakScanner
from bleak.args.bluez import BlueZClientArgs, BlueZScannerArgs
from bleak.exc import BleakError
from watt_node.config import Section, load

from watt_gateway.config import BleSection
from watt_gateway.meters.main import MILLI, MainMeter, MeterError
from watt_gateway.meters.modbus import map_path

FIND_S = 8
"""A meter advertises at least every two seconds; four chances."""
READ_S = 10
"""Connection and one read; a radio in the next room needs about two seconds."""

Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Characteristic(Section, frozen=True, kw_only=True):
    """One value of a map: little-endian and unsigned, `unknown` are the values that mean "none"."""

    uuid: Uuid
    size: Literal[3, 4, 6, 8]
    unit: Literal["kWh", "Wh", "W"]
    divisor: Literal[1, 10, 100, 1000] = 1
    unknown: list[int] = msgspec.field(default_factory=list)


class BleMap(Section, frozen=True, kw_only=True):
    """A map file of a Bluetooth meter."""

    name: str
    service: Uuid
    import_energy: Characteristic
    power: Characteristic | None = None


def load_ble_map(name: str, base: Path) -> BleMap:
    """Read a Bluetooth map. ConfigError when it cannot be used."""
    return load(map_path(name, base), BleMap)


def value_of(entry: Characteristic, data: bytes) -> int:
    """The integer in sub-units; MeterError when the meter gives none."""
    if len(data) != entry.size:
        raise MeterError("meter-answer", f"{len(data)} bytes, expected {entry.size}")
    value = int.from_bytes(data, "little")
    if value in entry.unknown:
        raise MeterError("meter-value", "the meter does not know its register")
    return value * MILLI[entry.unit] // entry.divisor


class BleMeter(MainMeter):
    """A meter that shows its register as a GATT characteristic."""

    def __init__(self, section: BleSection, meter_map: BleMap) -> None:
        super().__init__()
        self._section = section
        self._map = meter_map

    @property
    def where(self) -> str:
        return self._section.address

    async def read_import(self) -> int:
        """Bounded by FIND_S and READ_S."""
        return await self.read(self._map.import_energy)

    async def read(self, entry: Characteristic) -> int:
        """One value of the map in its sub-unit, now."""
        adapter = self._section.adapter
        scan = BlueZScannerArgs(adapter=adapter) if adapter else BlueZScannerArgs()
        use = BlueZClientArgs(adapter=adapter) if adapter else BlueZClientArgs()
        try:
            device = await BleakScanner.find_device_by_address(self._section.address, timeout=FIND_S, bluez=scan)
            if device is None:
                raise MeterError("meter-missing", f"{self._section.address} does not advertise")
            async with asyncio.timeout(READ_S), BleakClient(device, bluez=use) as client:
                data = await client.read_gatt_char(entry.uuid)
        except TimeoutError:
            raise MeterError("meter-timeout", self._section.address) from None
        except (BleakError, OSError, EOFError) as error:
            raise MeterError("meter-missing", str(error)) from None
        return value_of(entry, bytes(data))

    def close(self) -> None:
        """Nothing is held between polls."""
