"""A FAKE of MicroPython's `bluetooth` module: what a plug's GATT service uses of it, and a central's side."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any


class UUID:
    def __init__(self, text: str) -> None:
        self.text = text

    def __bytes__(self) -> bytes:
        return uuid.UUID(self.text).bytes[::-1]


class BLE:
    """The last one made is `BLE.made`; `connect`, `write` and `leave` are the central's side."""

    made: BLE

    def __init__(self) -> None:
        BLE.made = self
        self.values: dict[int, bytes] = {}
        self.sizes: dict[int, int] = {}
        self.notified: list[bytes] = []
        self.advertised = 0
        self.is_active = False
        self._handler: Callable[[int, Any], None] = lambda event, data: None

    def active(self, on: bool) -> None:
        self.is_active = on

    def irq(self, handler: Callable[[int, Any], None]) -> None:
        self._handler = handler

    def config(self, **options: int) -> None:
        assert options == {"mtu": 185}

    def gatts_register_services(self, services: Any) -> Any:
        ((_, characteristics),) = services
        assert [flags for _, flags in characteristics] == [0x02, 0x08, 0x10]
        return ((21, 23, 25),)

    def gatts_set_buffer(self, handle: int, size: int) -> None:
        self.sizes[handle] = size

    def gatts_write(self, handle: int, data: bytes) -> None:
        self.values[handle] = data

    def gatts_read(self, handle: int) -> bytes:
        return self.values[handle]

    def gatts_notify(self, connection: int, handle: int, data: bytes) -> None:
        assert (connection, handle) == (7, 25)
        self.notified.append(data)

    def gap_advertise(self, interval_us: int, data: bytes, resp_data: bytes) -> None:
        assert len(data) <= 31 and len(resp_data) <= 31, "an advertisement has 31 bytes"
        self.advertised += 1

    def connect(self) -> None:
        self._handler(1, (7, 0, b"\x01" * 6))

    def write(self, data: bytes) -> None:
        self.values[23] = data[: self.sizes[23]]
        self._handler(3, (7, 23))

    def leave(self) -> None:
        self._handler(2, (7, 0, b"\x01" * 6))
