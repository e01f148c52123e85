"""A plug without a household waits to be paired over Bluetooth, and so does one in safe mode (DEVICE.md 2, WIRE.md 12).

Loaded only then: the code of pairing has no place in the heap of a plug that meters.
"""

import json
import os
import time

import machine
from watt_wire import p256, statement

from watt_plug import board as boards
from watt_plug import panel, provision, release
from watt_plug.ble import Service
from watt_plug.constants import calibration_hash


class Identity(provision.Identity):
    """What this plug says of itself while it is paired."""

    def __init__(self, board: "dict[str, object]", root: str) -> None:
        self._board = board
        self._root = root
        self._signer = boards.make_signer(board)
        self.public = self._signer.public
        self.tls_public = p256.public_key(boards.private_key("tls.bin"))

    def enrolment(self, network_hash: bytes, challenge: bytes) -> bytes:
        octets = {"network": network_hash, "public": self.public, "challenge": challenge}
        octets["firmware_hash"] = release.firmware_hash(self._root)
        octets["calibration_hash"] = calibration_hash((0, 0, 0), boards.calibration())
        numbers = {"key_class": self._signer.key_class, "rated_w": int(str(self._board["rated_w"]))}
        body = statement.ENROLMENT.encode(statement.Statement(numbers, octets))
        return statement.ENROLMENT.seal(body, self._signer.sign(statement.ENROLMENT.message(body)))


def pair(board: "dict[str, object]", root: str, seconds: int) -> None:
    """Wait to be taken into a household; write config.json and start anew."""
    code = boards.read("code.txt").decode().strip()
    provisioner = provision.Provisioner(code, Identity(board, root), os.urandom)
    service = Service(provisioner, "wattpact")
    watchdog = machine.WDT(timeout=boards.WATCHDOG_MS)
    lamp = boards.output(board, "led")
    lamp_on = int(str(board.get("led_on", 1)))
    start_ms = time.ticks_ms()
    passed_ms = 0
    while service.poll() and (not seconds or passed_ms < seconds * 1000):
        watchdog.feed()
        passed_ms = time.ticks_diff(time.ticks_ms(), start_ms)
        if lamp is not None:
            lit = panel.lit(panel.SAFE if seconds else panel.UNPAIRED, passed_ms)
            lamp.value(lamp_on if lit else 1 - lamp_on)
        time.sleep_ms(20)
    if provisioner.settings is not None:
        boards.write("config.json", json.dumps(provisioner.settings).encode())
        time.sleep(1)  # the tool's last notification
    service.stop()
    machine.reset()


def run_safe(seconds: int) -> None:
    """Safe mode: the relay on, pairing open, nothing measured."""
    board = json.loads(boards.read("board.json"))
    relay = boards.output(board, "relay")
    if relay is not None:
        relay.value(int(board.get("relay_on", 1)))
    pair(board, release.root_of(release.__file__), seconds)
