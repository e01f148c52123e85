"""The radios of the virtual plugs: what their fake `bluetooth` module says becomes a peripheral of the fake BlueZ.

Lines are those of device/fake_bluetooth.py. Advertising data is parsed here as a phone would parse it (Bluetooth
Core, Vol 3, Part C, 11): a plug whose bytes are wrong is not found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from watt_rig.bluez import BASE_UUID, MTU, Characteristic, FakeBlueZ, Peripheral

FLAG_NAMES = {2: "read", 4: "write-without-response", 8: "write", 16: "notify", 32: "indicate"}
NAME_SHORT, NAME_WHOLE = 0x08, 0x09
UUID16_SOME, UUID16_ALL, UUID128_SOME, UUID128_ALL = 0x02, 0x03, 0x06, 0x07

Tell = Callable[[str], None]


class PlugRadios:
    """All virtual plugs of a bench on one fake BlueZ; `from_plug` is the `Radio` of `VirtualPlug`."""

    def __init__(self, bluez: FakeBlueZ) -> None:
        self._bluez = bluez
        self._tells: dict[str, Tell] = {}
        self._tables: dict[str, list[Any]] = {}
        self._characteristics: dict[str, dict[int, Characteristic]] = {}
        self._peripherals: dict[str, Peripheral] = {}

    def add(self, name: str, tell: Tell) -> None:
        """A plug of the bench; `tell` sends a line to its fakes."""
        self._tells[name] = tell

    def address_of(self, name: str) -> str:
        """The address that a plug's radio has: from its place on the bench."""
        return f"02:00:00:00:00:{list(self._tells).index(name) + 1:02X}"

    def restarted(self, name: str) -> None:
        """The plug has lost its supply or was reset: its radio is silent, a connection dead."""
        if self._peripherals.pop(name, None) is not None:
            self._bluez.silence(self.address_of(name))
        self._tables.pop(name, None)

    def from_plug(self, name: str, line: str) -> None:
        """One line of a plug's fake module."""
        word, _, rest = line.partition(" ")
        if word == "svc":
            self._tables[name] = json.loads(rest)
            self._characteristics[name] = {}
        elif word == "adv":
            self._advertise(name, rest)
        elif word in ("val", "ntf"):
            handle, _, data = rest.partition(" ")
            one = self._characteristics.get(name, {}).get(int(handle))
            if one is not None:
                value = bytes.fromhex(data)
                if word == "val":
                    one.value = value
                else:
                    one.notify(value)
            elif word == "val":
                self._early_value(name, int(handle), bytes.fromhex(data))
        elif word == "dis" and name in self._peripherals:
            self._peripherals[name].hang_up()

    def _early_value(self, name: str, handle: int, value: bytes) -> None:
        """A value set before the plug advertises: kept with the table."""
        for _, rows in self._tables.get(name, []):
            for row in rows:
                if row[2] == handle:
                    row[3:] = [value.hex()]

    def _advertise(self, name: str, rest: str) -> None:
        if rest.startswith("-") or name not in self._tables:
            return  # a plug that is connected stops advertising; it stays where it is
        said, _, response = rest.partition(" ")
        shown, uuids = "", list[str]()
        for text in (said, response):
            if text and text != "-":
                part_name, part_uuids = parse_advertising(bytes.fromhex(text))
                shown = shown or part_name
                uuids += part_uuids
        if name in self._peripherals:
            return  # still the same one: a reconnect is allowed
        peripheral = Peripheral(self.address_of(name), shown or name, self._services(name), uuids)
        tell = self._tells[name]
        peripheral.connected = lambda: tell(f"G con\nG mtu {MTU}")
        peripheral.disconnected = lambda: tell("G dis")
        self._peripherals[name] = peripheral
        self._bluez.advertise(peripheral)

    def _services(self, name: str) -> dict[str, list[Characteristic]]:
        services: dict[str, list[Characteristic]] = {}
        for uuid, rows in self._tables[name]:
            services[full_uuid(uuid)] = [self._characteristic(name, *row) for row in rows]
        return services

    def _characteristic(self, name: str, uuid: str, flags: int, handle: int, value: str = "") -> Characteristic:
        tell = self._tells[name]
        names = [text for bit, text in FLAG_NAMES.items() if flags & bit]
        one = Characteristic(full_uuid(uuid), names, bytes.fromhex(value))
        if flags & 12:
            one.write = lambda data: tell(f"G wr {handle} {data.hex()}")
        self._characteristics[name][handle] = one
        return one


def full_uuid(text: str) -> str:
    """A UUID of 16 bits in its long form, any other as it is."""
    return BASE_UUID.format(text) if len(text) == 4 else text


def parse_advertising(data: bytes) -> tuple[str, list[str]]:
    """Return (name, service UUIDs) of advertising data: structures of length, type, value."""
    name, uuids = "", list[str]()
    at = 0
    while at < len(data) and data[at]:
        kind, value = data[at + 1], data[at + 2 : at + 1 + data[at]]
        at += 1 + data[at]
        if kind in (NAME_SHORT, NAME_WHOLE):
            name = value.decode(errors="replace")
        size = 2 if kind in (UUID16_SOME, UUID16_ALL) else 16 if kind in (UUID128_SOME, UUID128_ALL) else 0
        for start in range(0, len(value) - size + 1 if size else 0, size or 1):
            digits = value[start : start + size][::-1].hex()
            uuids.append(
                BASE_UUID.format(digits)
                if size == 2
                else "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
            )
    return name, uuids
