"""The ESP32 itself: files, keys, fuses and registers of one board. What a plug needs whether it is paired or not."""

import json
import os
import time

import esp32
import machine
from watt_wire import statement

from watt_plug.signer import Signer, SoftwareSigner, new_private

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from watt_plug.calibration import Calibration

WATCHDOG_MS = 60000
RESET_STATE = 0x3FF48034
FLASH_CRYPT_CNT = 0x3FF5A000
"RTC_CNTL_RESET_STATE_REG and EFUSE_BLK0_RDATA0 of the ESP32 (technical reference manual); others lay them elsewhere."
BROWN_OUT_STATE = 15
BROWN_OUT = 6
"The number of a brown-out in the signed event (WIRE.md 10.1); stock firmware reports it as a power-on."
KEY_CLASSES = {"plain": statement.KEY_PLAIN, "encrypted": statement.KEY_ENCRYPTED}


def read(name: str) -> bytes:
    """Return a file of the flash, b"" when it is not there."""
    try:
        with open("/" + name, "rb") as file:
            return file.read()
    except OSError:
        return b""


def write(name: str, data: bytes) -> None:
    """Replace a file as a whole (V1.1)."""
    with open("/" + name + ".new", "wb") as file:
        file.write(data)
    os.rename("/" + name + ".new", "/" + name)


def below(limit: int) -> int:
    """Return a random integer in 0..limit-1."""
    return int.from_bytes(os.urandom(4), "big") % limit


def private_key(name: str) -> bytes:
    """Return the key in a file, made on this plug if there is none. The radio must be on: it feeds the generator."""
    key = read(name)
    if len(key) != 32:
        key = new_private(os.urandom)
        write(name, key)
    return key


def register_bits(address: int) -> int:
    """Return a register of the ESP32, 0 on its later relatives: there it would be another one, or a fault."""
    # This sensor is the classic ESP32's alone.
    return machine.mem32[address] if hasattr(esp32, "raw_temperature") else 0


def key_class(board: "dict[str, object]") -> int:
    """Return the class of a key in this flash: encrypted if the board claims it and the fuse says so too."""
    claimed = KEY_CLASSES.get(str(board.get("key", "plain")), statement.KEY_PLAIN)
    if claimed == statement.KEY_ENCRYPTED:
        # An odd number of bits switches encryption on.
        bits = register_bits(FLASH_CRYPT_CNT) >> 20 & 0x7F
        if not sum([bits >> index & 1 for index in range(7)]) & 1:
            return statement.KEY_PLAIN
    return claimed


def reset_cause() -> int:
    """Return the cause of the last reset as the signed event names it."""
    if register_bits(RESET_STATE) & 0x3F == BROWN_OUT_STATE:
        return BROWN_OUT
    return machine.reset_cause()


def make_signer(board: "dict[str, object]") -> Signer:
    """Return who signs for this plug; it decides the key class. Nothing stands in for a secure element that fails."""
    if board.get("key") != "secure":
        return SoftwareSigner(private_key("key.bin"), key_class(board))
    from watt_plug.atecc import ADDRESS, Atecc608, AteccSigner

    clock, data = machine.Pin(int(str(board["scl_pin"]))), machine.Pin(int(str(board["sda_pin"])))
    # 100 kHz: a byte of zeros is then long enough to wake the chip.
    bus = machine.I2C(0, scl=clock, sda=data, freq=100000)
    return AteccSigner(Atecc608(bus, time.sleep_ms, int(str(board.get("element_address", ADDRESS)))))


def calibration() -> "Calibration | None":
    """Return the calibration on flash; ValueError when it is damaged: better no plug than a wrong one."""
    data = read("calibration.json")
    if not data:
        return None
    from watt_plug.calibration import Calibration

    return Calibration(json.loads(data))


def output(board: "dict[str, object]", name: str) -> "machine.Pin | None":
    """Return an output pin of the board, None when it has none of this name."""
    return machine.Pin(int(str(board[name + "_pin"])), machine.Pin.OUT) if name + "_pin" in board else None
