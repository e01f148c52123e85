"""The bench's shell around the firmware's pairing end: GATT server, keys made on the plug, files it writes.

Copied to a virtual plug and run there by the real MicroPython; the conversation itself is `watt_plug.provision`, the
radio the `bluetooth` module. It stands where the firmware's own Bluetooth shell belongs until that one is flashed.
"""

import json
import os
import time

import bluetooth
import machine
from watt_plug import provision, release
from watt_plug.calibration import calibration_hash
from watt_wire import p256, pairing, statement

TIMEOUT_MS = 120000
READ, WRITE, NOTIFY = 0x02, 0x08, 0x10
EVENT_DISCONNECT, EVENT_WRITE = 2, 3
SEC1 = bytes.fromhex("30770201010420"), bytes.fromhex("a00a06082a8648ce3d030107a14403420004")
"A P-256 private key in DER: head, 32 bytes, curve and public key."


class Keys(provision.Identity):
    """Both keys are made here; the private halves go into files and nowhere else."""

    def __init__(self, rated_w):
        self._rated_w = rated_w
        self._secret = provision.new_private(os.urandom)
        self._tls_secret = provision.new_private(os.urandom)
        self.public = p256.public_key(self._secret)
        self.tls_public = p256.public_key(self._tls_secret)

    def enrolment(self, network, challenge):
        said = {"network": network, "public": self.public, "challenge": challenge}
        said["firmware_hash"] = release.firmware_hash("")
        said["calibration_hash"] = calibration_hash((0, 0, 0))
        numbers = {"key_class": statement.KEY_PLAIN, "rated_w": self._rated_w}
        body = statement.ENROLMENT.encode(statement.Statement(numbers, said))
        return statement.ENROLMENT.seal(body, p256.sign(self._secret, statement.ENROLMENT.message(body)))

    def save(self):
        write("key.hex", self._secret.hex().encode())
        write("client-key.der", SEC1[0] + self._tls_secret + SEC1[1] + self.tls_public)


class Server:
    """The GATT service of WIRE.md 12 around a Provisioner."""

    def __init__(self, end):
        self._end = end
        self._writes = []
        self._left = False
        self._radio = bluetooth.BLE()
        self._radio.active(True)
        self._radio.config(mtu=247)
        self._radio.irq(self._event)
        rows = ((pairing.INFO_UUID, READ), (pairing.WRITE_UUID, WRITE), (pairing.NOTIFY_UUID, NOTIFY))
        service = (bluetooth.UUID(pairing.SERVICE_UUID), tuple([(bluetooth.UUID(uuid), flag) for uuid, flag in rows]))
        ((self._info, self._in, self._out),) = self._radio.gatts_register_services((service,))
        self._radio.gatts_set_buffer(self._in, pairing.FRAGMENT_MAX)
        self._radio.gatts_write(self._info, end.info())
        uuid = bytes.fromhex(pairing.SERVICE_UUID.replace("-", ""))
        data = b"\x02\x01\x06" + bytes((17, 7)) + bytes([uuid[15 - i] for i in range(16)])
        self._radio.gap_advertise(100000, data, b"\x09\x09wattpact")

    def _event(self, event, data):
        # As on a board: no work inside the interrupt, only what is lost otherwise.
        if event == EVENT_WRITE:
            self._writes.append(self._radio.gatts_read(self._in))
        elif event == EVENT_DISCONNECT:
            self._left = True

    def poll(self):
        if self._left:
            self._left = False
            self._end.disconnected()
        while self._writes:
            for fragment in self._end.write(self._writes.pop(0)):
                self._radio.gatts_notify(0, self._out, fragment)
        self._radio.gatts_write(self._info, self._end.info())


def write(name, data):
    with open(name + ".new", "wb") as file:
        file.write(data)
    os.rename(name + ".new", name)


def run():
    with open("board.json") as file:
        board = json.load(file)
    with open("code.txt") as file:
        code = file.read().strip()
    keys = Keys(board["rated_w"])
    end = provision.Provisioner(code, keys, os.urandom)
    server = Server(end)
    started_ms = time.ticks_ms()
    while end.settings is None and time.ticks_diff(time.ticks_ms(), started_ms) < TIMEOUT_MS:
        server.poll()
        time.sleep_ms(20)
    if end.settings is None:
        print("pairing: nobody came")
        return
    settings = end.settings
    keys.save()
    write("ca.der", bytes.fromhex(settings.pop("ca")))
    write("client.der", bytes.fromhex(settings.pop("certificate")))
    settings.update(board)
    write("config.json", json.dumps(settings).encode())
    time.sleep_ms(500)
    machine.reset()


run()
