"""PZEM-004T v3: the answer of the meter to a Modbus RTU read of its ten input registers (9600 baud, 8N1).

    offset  bytes  meaning (16-bit registers big-endian, low word first)
    0       3      address, 0x04, 0x14
    3       2      voltage, 0.1 V
    5       4      current, 0.001 A
    9       4      power, 0.1 W
    13      4      energy, Wh
    17      2      frequency, 0.1 Hz
    19      2      power factor, 0.01
    21      2      alarm
    23      2      CRC-16/MODBUS, low byte first

The energy counter steps by 1 Wh: good for days, coarse for a quarter-hour (0.1 % of 1 kWh, 4 % of 25 Wh); calibrate
and compare over hours. This module can only read: the function that resets the energy (0x42) is not in it.

**Invariant:** the parser never raises and never keeps more than one frame's worth of bytes between calls.
"""

from watt_plug.meters import sample as samples
from watt_plug.meters.sample import INPUT_MAX, VALID_ALL, VOLTAGE_MAX_MV, VOLTAGE_MIN_MV, Sample

FRAME_SIZE = 25
READ_INPUT = 0x04
DATA_SIZE = 20
ADDRESS = 0x01
PULSE_SPAN = 1 << 32
PULSE_UJ = 3600000000
"One watt-hour."


def crc16(data: bytes) -> int:
    """Return CRC-16/MODBUS (polynomial 0xA001 reflected, start 0xFFFF)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def request(address: int = ADDRESS) -> bytes:
    """Return the read of registers 0 to 9."""
    body = bytes((address, READ_INPUT, 0, 0, 0, 10))
    crc = crc16(body)
    return body + bytes((crc & 255, crc >> 8))


class Parser(samples.Parser):
    """Finds answers in a byte stream."""

    def __init__(self, address: int = ADDRESS) -> None:
        self._head = bytes((address, READ_INPUT, DATA_SIZE))
        self._buffer = b""
        self.request = request(address)
        self.accepted = 0
        self.rejected = {"checksum": 0, "voltage": 0, "noise": 0}

    def feed(self, data: bytes) -> "list[Sample]":
        buffer = self._buffer + data
        if len(buffer) > INPUT_MAX:
            self.rejected["noise"] += len(buffer) - INPUT_MAX
            buffer = buffer[-INPUT_MAX:]
        found = []
        offset = 0
        while len(buffer) - offset >= FRAME_SIZE:
            frame = buffer[offset : offset + FRAME_SIZE]
            if frame[:3] != self._head:
                self.rejected["noise"] += 1
                offset += 1
                continue
            if crc16(frame[:23]) != frame[23] | frame[24] << 8:
                self.rejected["checksum"] += 1
                offset += 1
                continue
            offset += FRAME_SIZE
            sample = self._sample(frame)
            if sample is not None:
                self.accepted += 1
                found.append(sample)
        self._buffer = buffer[offset:]
        return found

    def _sample(self, frame: bytes) -> "Sample | None":
        voltage_mv = (frame[3] << 8 | frame[4]) * 100
        if not VOLTAGE_MIN_MV <= voltage_mv <= VOLTAGE_MAX_MV:
            self.rejected["voltage"] += 1
            return None
        return Sample(
            VALID_ALL,
            voltage_mv,
            _low_first(frame, 5),
            _low_first(frame, 9) * 100,
            _low_first(frame, 13),
            (0, 0, PULSE_UJ),
            PULSE_SPAN,
        )


def _low_first(frame: bytes, offset: int) -> int:
    low = frame[offset] << 8 | frame[offset + 1]
    return (frame[offset + 2] << 8 | frame[offset + 3]) << 16 | low
