"""GATT shell of pairing: the `bluetooth` module around `provision.Provisioner`. Loaded only while a plug is unpaired.

The interrupt handler only queues; work is done by `poll`, because key agreement takes half a second on an ESP32.
"""

import bluetooth
from watt_wire import pairing

from watt_plug.provision import Provisioner

_IRQ_CONNECT = 1
_IRQ_DISCONNECT = 2
_IRQ_WRITE = 3
_READ = 0x0002
_WRITE = 0x0008
_NOTIFY = 0x0010
QUEUE_MAX = 40
"Fragments waiting: a message of 4 KiB has 23."
ADVERTISE_US = 250000


class Service:
    """One plug's GATT service. `poll` takes one queued step and returns True while the tool may have more to say."""

    def __init__(self, provisioner: Provisioner, name: str) -> None:
        self._provisioner = provisioner
        self._name = name
        self._queue: "list[bytes | None]" = []
        self._connection = -1
        self._ble = bluetooth.BLE()
        self._ble.active(True)
        self._ble.irq(self._irq)
        service = (
            bluetooth.UUID(pairing.SERVICE_UUID),
            (
                (bluetooth.UUID(pairing.INFO_UUID), _READ),
                (bluetooth.UUID(pairing.WRITE_UUID), _WRITE),
                (bluetooth.UUID(pairing.NOTIFY_UUID), _NOTIFY),
            ),
        )
        ((self._info, self._write, self._notify),) = self._ble.gatts_register_services((service,))
        # Writes are with response: the next one comes after this one was read, so one fragment is room enough.
        self._ble.gatts_set_buffer(self._write, pairing.FRAGMENT_MAX)
        self._ble.config(mtu=pairing.FRAGMENT_MAX + 5)
        self._advertise()

    def poll(self) -> bool:
        """Handle one fragment or disconnection; return whether the household's settings are still missing."""
        if self._queue:
            item = self._queue.pop(0)
            if item is None:
                self._provisioner.disconnected()
                self._advertise()
            else:
                for notification in self._provisioner.write(item):
                    if self._connection >= 0:
                        self._ble.gatts_notify(self._connection, self._notify, notification)  # type: ignore[call-arg]
            self._ble.gatts_write(self._info, self._provisioner.info())
        return self._provisioner.settings is None

    def stop(self) -> None:
        """Switch the radio off."""
        self._ble.active(False)

    def _advertise(self) -> None:
        self._ble.gatts_write(self._info, self._provisioner.info())
        name = self._name.encode()[:8]
        flags = b"\x02\x01\x06"
        service = b"\x11\x07" + bytes(bluetooth.UUID(pairing.SERVICE_UUID))  # type: ignore[arg-type]  # a buffer
        self._ble.gap_advertise(ADVERTISE_US, flags + service, resp_data=bytes((len(name) + 1, 0x09)) + name)

    def _irq(self, event: int, data: object) -> None:
        if event == _IRQ_CONNECT:
            self._connection = data[0]  # type: ignore[index]
        elif event == _IRQ_DISCONNECT:
            self._connection = -1
            self._queue.append(None)
        elif event == _IRQ_WRITE and len(self._queue) < QUEUE_MAX:
            self._queue.append(bytes(self._ble.gatts_read(self._write)))
