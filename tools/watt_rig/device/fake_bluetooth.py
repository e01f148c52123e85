"""A fake `bluetooth` module: the GATT server of an ESP32, its radio being lines to the host.

plug to host   G svc <json>            services: [[uuid, [[uuid, flags, handle], ...]], ...]
               G adv <hex> <hex>       advertise with this data and scan response; G adv - to stop
               G val <handle> <hex>    the value that a read returns
               G ntf <handle> <hex>    a notification
               G dis                   the plug ends the connection
host to plug   G con | G dis           a central came, left
               G wr <handle> <hex>     it wrote
               G mtu <n>
"""

import json

import fake_host

FLAG_READ = 2
FLAG_WRITE_NO_RESPONSE = 4
FLAG_WRITE = 8
FLAG_NOTIFY = 16
FLAG_INDICATE = 32
CONNECTION = 0
IRQ_CENTRAL_CONNECT = 1
IRQ_CENTRAL_DISCONNECT = 2
IRQ_GATTS_WRITE = 3
IRQ_MTU_EXCHANGED = 21
ADDRESS = b"\x02\x00\x00\x00\x00\x01"


class UUID:
    def __init__(self, value):
        if isinstance(value, UUID):
            value = value.text
        self.text = "%04x" % value if isinstance(value, int) else str(value).lower()

    def __eq__(self, other):
        return isinstance(other, UUID) and other.text == self.text

    def __hash__(self):
        return hash(self.text)

    def __iter__(self):
        # bytes(UUID(...)) on the board gives the octets as they go over the air: the last one first.
        digits = self.text.replace("-", "")
        return iter([int(digits[at : at + 2], 16) for at in range(len(digits) - 2, -1, -2)])

    def __len__(self):
        return len(self.text.replace("-", "")) // 2

    def __repr__(self):
        return "UUID(%r)" % self.text


class BLE:
    """One radio: every BLE() is the same one, as on the board."""

    _handler = None
    _values = {}
    _append = {}
    _active = False
    _mtu = 23

    def __init__(self):
        fake_host.on_bluetooth = BLE._take

    def active(self, value=None):
        if value is not None:
            BLE._active = bool(value)
            if not value:
                fake_host.send("G adv -")
        return BLE._active

    def config(self, *names, **values):
        if "mtu" in values:
            BLE._mtu = values["mtu"]
        if names:
            return {"mac": (0, ADDRESS), "mtu": BLE._mtu, "gap_name": b"wattpact"}.get(names[0])
        return None

    def irq(self, handler):
        BLE._handler = handler

    def gatts_register_services(self, services):
        table = []
        handles = []
        number = 10
        for uuid, characteristics in services:
            rows = []
            own = []
            for characteristic in characteristics:
                number += 2
                BLE._values[number] = b""
                rows.append([characteristic[0].text, characteristic[1], number])
                own.append(number)
            table.append([uuid.text, rows])
            handles.append(tuple(own))
        fake_host.send("G svc " + json.dumps(table))
        return tuple(handles)

    def gatts_set_buffer(self, handle, _size, append=False):
        BLE._append[handle] = append

    def gatts_read(self, handle):
        value = BLE._values[handle]
        if BLE._append.get(handle):
            BLE._values[handle] = b""
        return value

    def gatts_write(self, handle, data, send_update=False):
        BLE._values[handle] = bytes(data)
        fake_host.send("G val %d %s" % (handle, bytes(data).hex()))
        if send_update:
            self.gatts_notify(CONNECTION, handle)

    def gatts_notify(self, _connection, handle, data=None):
        if data is None:
            data = BLE._values[handle]
        fake_host.send("G ntf %d %s" % (handle, bytes(data).hex()))

    gatts_indicate = gatts_notify

    def gap_advertise(self, interval_us, adv_data=None, resp_data=None, connectable=True):
        if interval_us is None:
            fake_host.send("G adv -")
        else:
            fake_host.send("G adv %s %s" % (bytes(adv_data or b"").hex() or "-", bytes(resp_data or b"").hex() or "-"))

    def gap_disconnect(self, _connection):
        fake_host.send("G dis")
        BLE._tell(IRQ_CENTRAL_DISCONNECT, (CONNECTION, 0, ADDRESS))
        return True

    @staticmethod
    def _tell(event, data):
        if BLE._handler is not None:
            BLE._handler(event, data)

    @staticmethod
    def _take(line):
        words = line.split(" ")
        if words[0] == "con":
            BLE._tell(IRQ_CENTRAL_CONNECT, (CONNECTION, 0, ADDRESS))
        elif words[0] == "dis":
            BLE._tell(IRQ_CENTRAL_DISCONNECT, (CONNECTION, 0, ADDRESS))
        elif words[0] == "mtu":
            BLE._tell(IRQ_MTU_EXCHANGED, (CONNECTION, int(words[1])))
        elif words[0] == "wr":
            handle = int(words[1])
            data = bytes.fromhex(words[2])
            BLE._values[handle] = BLE._values[handle] + data if BLE._append.get(handle) else data
            BLE._tell(IRQ_GATTS_WRITE, (CONNECTION, handle))
