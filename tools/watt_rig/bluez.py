"""A fake BlueZ on a private D-Bus: what bleak needs of org.bluez, with the bench's plugs as radios around it.

The one module of the rig that imports dbus_fast. `PrivateBus` starts a dbus-daemon of its own; whoever runs with
DBUS_SYSTEM_BUS_ADDRESS set to its address finds one adapter, hci0, and the devices that advertise. A device is a
`Peripheral`: services and characteristics with what to do on read, write, connect. Fake: no pairing, no encryption,
no RSSI that means anything; as in BlueZ, a device appears only after discovery was started.

Interfaces and property names are those of BlueZ's doc/org.bluez.*.rst.
"""

# No `from __future__ import annotations`: dbus_fast reads the annotations and cannot take "None" as text.
import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dbus_fast import BusType
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import (
    DBusBool,
    DBusBytes,
    DBusDict,
    DBusInt16,
    DBusObjectPath,
    DBusSignature,
    DBusStr,
    DBusUInt16,
)
from dbus_fast.constants import PropertyAccess
from dbus_fast.errors import DBusError
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

ADAPTER = "/org/bluez/hci0"
APPEAR_S = 0.1
"A device may appear only after StartDiscovery was answered: bleak would miss it otherwise."
DAEMON_START_S = 10
MTU = 247
BASE_UUID = "0000{}-0000-1000-8000-00805f9b34fb"
DBusStrings = Annotated[list[str], DBusSignature("as")]
DBusObjectPaths = Annotated[list[str], DBusSignature("ao")]
BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class BluetoothError(Exception):
    """The private bus cannot be started; the text says why."""


@dataclass
class Characteristic:
    """One value of a peripheral. `flags` in BlueZ's words: read, write, write-without-response, notify."""

    uuid: str
    flags: list[str]
    value: bytes = b""
    read: Callable[[], bytes] | None = None
    write: Callable[[bytes], None] | None = None
    notify: Callable[[bytes], None] = field(default=lambda data: None)
    "Set by the bus: call it to notify."


@dataclass
class Peripheral:
    """A device in the air: what it advertises and what it offers."""

    address: str
    name: str
    services: dict[str, list[Characteristic]]
    advertised: list[str] = field(default_factory=list)
    connected: Callable[[], None] = field(default=lambda: None)
    disconnected: Callable[[], None] = field(default=lambda: None)
    hang_up: Callable[[], None] = field(default=lambda: None)
    "Set by the bus: the device ends the connection."


class PrivateBus:
    """A dbus-daemon in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self.address = ""

    async def start(self) -> None:
        """Start it; BluetoothError when it is not installed or does not listen."""
        self._folder.mkdir(parents=True, exist_ok=True)
        socket = self._folder / "bus"
        socket.unlink(missing_ok=True)
        config = self._folder / "bus.conf"
        config.write_text(BUS_CONFIG.format(socket=socket.resolve()))
        try:
            self._child = subprocess.Popen(
                ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            raise BluetoothError("dbus-daemon is not installed: apt-get install dbus (tools/need-dbus.sh)") from None
        for _ in range(DAEMON_START_S * 50):
            if socket.exists():
                self.address = f"unix:path={socket.resolve()}"
                return
            if self._child.poll() is not None:
                break
            await asyncio.sleep(0.02)
        raise BluetoothError(f"dbus-daemon does not listen on {socket}")

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait()


class FakeBlueZ:
    """The name org.bluez on a bus."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._bus: MessageBus | None = None
        self._devices: dict[str, _Device] = {}
        self._peripherals: dict[str, Peripheral] = {}
        self._adapter = _Adapter(self)
        self.connections = 0
        self.writes = 0

    async def start(self) -> None:
        """Take the name; BluetoothError when the bus refuses it."""
        try:
            self._bus = await MessageBus(bus_address=self._address, bus_type=BusType.SYSTEM).connect()
            self._bus.export(ADAPTER, self._adapter)
            await self._bus.request_name("org.bluez")
        except (OSError, DBusError) as error:
            raise BluetoothError(f"{self._address}: {error}") from None

    def stop(self) -> None:
        """Leave the bus."""
        if self._bus is not None:
            self._bus.disconnect()

    def advertise(self, peripheral: Peripheral) -> None:
        """Put a device into the air; one with this address is replaced."""
        self.silence(peripheral.address)
        self._peripherals[peripheral.address] = peripheral
        if self._adapter.discovering:
            self._appear(peripheral)

    def silence(self, address: str) -> None:
        """Take a device out of the air; a connection to it ends."""
        self._peripherals.pop(address, None)
        device = self._devices.pop(address, None)
        if device is not None:
            device.vanish()

    def discover(self) -> None:
        """Discovery has begun: what advertises appears a moment later."""
        asyncio.get_running_loop().call_later(APPEAR_S, self._appear_all)

    def _appear_all(self) -> None:
        for peripheral in list(self._peripherals.values()):
            self._appear(peripheral)

    def _appear(self, peripheral: Peripheral) -> None:
        if self._bus is None:
            return
        known = self._devices.get(peripheral.address)
        if known is None:
            device = _Device(self, peripheral)
            self._devices[peripheral.address] = device
            device.export(self._bus)
        else:
            known.heard()


class _Adapter(ServiceInterface):
    """org.bluez.Adapter1."""

    def __init__(self, owner: FakeBlueZ) -> None:
        super().__init__("org.bluez.Adapter1")
        self._owner = owner
        self.discovering = False

    @dbus_method()
    def StartDiscovery(self) -> None:  # the name on the bus
        self.discovering = True
        self.emit_properties_changed({"Discovering": True})
        self._owner.discover()

    @dbus_method()
    def StopDiscovery(self) -> None:
        self.discovering = False
        self.emit_properties_changed({"Discovering": False})

    @dbus_method()
    def SetDiscoveryFilter(self, properties: DBusDict) -> None:
        """Everything is found, whatever the filter says; bleak filters again."""

    @dbus_method()
    def RemoveDevice(self, device: DBusObjectPath) -> None:
        """Devices stay."""

    @dbus_property(access=PropertyAccess.READ)
    def Address(self) -> DBusStr:
        return "02:00:00:00:00:00"

    @dbus_property(access=PropertyAccess.READ)
    def Name(self) -> DBusStr:
        return "bench"

    @dbus_property(access=PropertyAccess.READ)
    def Powered(self) -> DBusBool:
        return True

    @dbus_property(access=PropertyAccess.READ)
    def Discovering(self) -> DBusBool:
        return self.discovering

    @dbus_property(access=PropertyAccess.READ)
    def UUIDs(self) -> DBusStrings:
        return []

    @dbus_property(access=PropertyAccess.READ)
    def Roles(self) -> DBusStrings:
        return ["central", "peripheral"]


class _Device(ServiceInterface):
    """org.bluez.Device1, with its services below it."""

    def __init__(self, owner: FakeBlueZ, peripheral: Peripheral) -> None:
        super().__init__("org.bluez.Device1")
        self.path = f"{ADAPTER}/dev_{peripheral.address.replace(':', '_')}"
        self._owner = owner
        self._peripheral = peripheral
        self._bus: MessageBus | None = None
        self._below: list[tuple[str, ServiceInterface]] = []
        self._connected = False
        self._resolved = False
        peripheral.hang_up = self._hang_up

    def export(self, bus: MessageBus) -> None:
        """Appear on the bus."""
        self._bus = bus
        bus.export(self.path, self)

    def heard(self) -> None:
        """Advertised again: BlueZ tells it by a new RSSI."""
        self.emit_properties_changed({"RSSI": -60})

    def vanish(self) -> None:
        """Out of range."""
        self._hang_up()
        if self._bus is not None:
            self._bus.unexport(self.path, self)

    def _hang_up(self) -> None:
        if self._connected:
            self._connected = self._resolved = False
            self.emit_properties_changed({"ServicesResolved": False, "Connected": False})
            for path, interface in reversed(self._below):
                if self._bus is not None:
                    self._bus.unexport(path, interface)
            self._below = []

    @dbus_method()
    def Connect(self) -> None:
        if self._bus is None or self._connected:
            return
        self._owner.connections += 1
        for number, (uuid, characteristics) in enumerate(self._peripheral.services.items()):
            path = f"{self.path}/service{number:04x}"
            self._add(path, _Service(uuid, self.path))
            for index, one in enumerate(characteristics):
                self._add(f"{path}/char{index:04x}", _Characteristic(self._owner, one, path))
        self._connected = self._resolved = True
        self.emit_properties_changed({"Connected": True})
        self.emit_properties_changed({"ServicesResolved": True})
        self._peripheral.connected()

    def _add(self, path: str, interface: ServiceInterface) -> None:
        assert self._bus is not None
        self._bus.export(path, interface)
        self._below.append((path, interface))

    @dbus_method()
    def Disconnect(self) -> None:
        if self._connected:
            self._hang_up()
            self._peripheral.disconnected()

    @dbus_property(access=PropertyAccess.READ)
    def Address(self) -> DBusStr:
        return self._peripheral.address

    @dbus_property(access=PropertyAccess.READ)
    def AddressType(self) -> DBusStr:
        return "random"

    @dbus_property(access=PropertyAccess.READ)
    def Name(self) -> DBusStr:
        return self._peripheral.name

    @dbus_property(access=PropertyAccess.READ)
    def Alias(self) -> DBusStr:
        return self._peripheral.name

    @dbus_property(access=PropertyAccess.READ)
    def Paired(self) -> DBusBool:
        return False

    @dbus_property(access=PropertyAccess.READ)
    def Trusted(self) -> DBusBool:
        return False

    @dbus_property(access=PropertyAccess.READ)
    def Blocked(self) -> DBusBool:
        return False

    @dbus_property(access=PropertyAccess.READ)
    def Connected(self) -> DBusBool:
        return self._connected

    @dbus_property(access=PropertyAccess.READ)
    def ServicesResolved(self) -> DBusBool:
        return self._resolved

    @dbus_property(access=PropertyAccess.READ)
    def UUIDs(self) -> DBusStrings:
        return self._peripheral.advertised

    @dbus_property(access=PropertyAccess.READ)
    def RSSI(self) -> DBusInt16:
        return -60

    @dbus_property(access=PropertyAccess.READ)
    def Adapter(self) -> DBusObjectPath:
        return ADAPTER


class _Service(ServiceInterface):
    """org.bluez.GattService1."""

    def __init__(self, uuid: str, device: str) -> None:
        super().__init__("org.bluez.GattService1")
        self._uuid = uuid
        self._device = device

    @dbus_property(access=PropertyAccess.READ)
    def UUID(self) -> DBusStr:
        return self._uuid

    @dbus_property(access=PropertyAccess.READ)
    def Primary(self) -> DBusBool:
        return True

    @dbus_property(access=PropertyAccess.READ)
    def Device(self) -> DBusObjectPath:
        return self._device

    @dbus_property(access=PropertyAccess.READ)
    def Includes(self) -> DBusObjectPaths:
        return []


class _Characteristic(ServiceInterface):
    """org.bluez.GattCharacteristic1."""

    def __init__(self, owner: FakeBlueZ, characteristic: Characteristic, service: str) -> None:
        super().__init__("org.bluez.GattCharacteristic1")
        self._owner = owner
        self._one = characteristic
        self._service = service
        self._notifying = False
        characteristic.notify = self._notify

    def _notify(self, data: bytes) -> None:
        if self._notifying:
            self.emit_properties_changed({"Value": data})

    @dbus_method()
    def ReadValue(self, options: DBusDict) -> DBusBytes:
        if "read" not in self._one.flags:
            raise DBusError("org.bluez.Error.NotPermitted", "not readable")
        return self._one.read() if self._one.read is not None else self._one.value

    @dbus_method()
    def WriteValue(self, value: DBusBytes, options: DBusDict) -> None:
        if self._one.write is None:
            raise DBusError("org.bluez.Error.NotPermitted", "not writable")
        self._owner.writes += 1
        self._one.write(bytes(value))

    @dbus_method()
    def StartNotify(self) -> None:
        self._notifying = True
        self.emit_properties_changed({"Notifying": True})

    @dbus_method()
    def StopNotify(self) -> None:
        self._notifying = False
        self.emit_properties_changed({"Notifying": False})

    @dbus_property(access=PropertyAccess.READ)
    def UUID(self) -> DBusStr:
        return self._one.uuid

    @dbus_property(access=PropertyAccess.READ)
    def Service(self) -> DBusObjectPath:
        return self._service

    @dbus_property(access=PropertyAccess.READ)
    def Value(self) -> DBusBytes:
        return self._one.value

    @dbus_property(access=PropertyAccess.READ)
    def Notifying(self) -> DBusBool:
        return self._notifying

    @dbus_property(access=PropertyAccess.READ)
    def Flags(self) -> DBusStrings:
        return self._one.flags

    @dbus_property(access=PropertyAccess.READ)
    def MTU(self) -> DBusUInt16:
        return MTU
