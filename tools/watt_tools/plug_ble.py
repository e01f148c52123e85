"""The pairing service over Bluetooth: the one module of the tools that imports bleak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bleak import BleakClient, BleakScanner
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.exc import BleakError
from watt_wire import pairing

from watt_tools.plug_pair import ANSWERS_MAX, PairingError

SCAN_S = 8
"A plug that waits to be paired advertises ten times a second; a busy radio hears every few seconds."
CONNECT_S = 20


@dataclass(frozen=True)
class Found:
    """A plug in the air."""

    address: str
    name: str
    rssi: int


async def scan(timeout_s: float = SCAN_S) -> list[Found]:
    """Every plug that offers the pairing service, strongest first."""
    try:
        seen = await BleakScanner.discover(timeout=timeout_s, return_adv=True, service_uuids=[pairing.SERVICE_UUID])
    except (BleakError, OSError, EOFError) as error:
        raise PairingError(f"Bluetooth cannot be used here: {error}") from None
    plugs = [
        Found(device.address, said.local_name or device.name or "", said.rssi)
        for device, said in seen.values()
        if pairing.SERVICE_UUID in said.service_uuids
    ]
    return sorted(plugs, key=lambda plug: (-plug.rssi, plug.address))


class BleCarrier:
    """A connected plug."""

    def __init__(self, client: BleakClient) -> None:
        self._client = client
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(ANSWERS_MAX)

    async def open(self) -> None:
        """Listen to the plug."""
        await self._client.start_notify(pairing.NOTIFY_UUID, self._notified)

    async def info(self) -> bytes:
        return bytes(await self._client.read_gatt_char(pairing.INFO_UUID))

    async def write(self, fragment: bytes) -> None:
        await self._client.write_gatt_char(pairing.WRITE_UUID, fragment, response=True)

    async def notification(self) -> bytes:
        return await self._heard.get()

    def _notified(self, _characteristic: BleakGATTCharacteristic, data: bytearray) -> None:
        if not self._heard.full():
            self._heard.put_nowait(bytes(data))


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[BleCarrier]:
    """A connection to the plug at `address`; PairingError when there is none."""
    device = await BleakScanner.find_device_by_address(address, timeout=SCAN_S)
    if device is None:
        raise PairingError(f"{address} does not advertise: is the plug new, or after a factory reset?")
    try:
        async with BleakClient(device, timeout=CONNECT_S) as client:
            carrier = BleCarrier(client)
            await carrier.open()
            yield carrier
    except (BleakError, OSError, EOFError) as error:
        raise PairingError(f"{address}: Bluetooth: {error}") from None
