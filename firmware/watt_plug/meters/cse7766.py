"""CSE7766 / HLW8032: the 24-byte frame that the metering chip sends on its UART (4800 baud, 8E1).

    offset  bytes  meaning (24-bit values big-endian)
    0       1      0x55 measured; 0xAA not calibrated; 0xFx error bits, see HEADER_*
    1       1      0x5A
    2       3      voltage coefficient          V = coefficient / cycle
    5       3      voltage cycle
    8       3      current coefficient          A = coefficient / cycle
    11      3      current cycle
    14      3      power coefficient            W = coefficient / cycle; one CF pulse = coefficient microjoules
    17      3      power cycle
    20      1      state: 0x10 power, 0x20 current, 0x40 voltage measured; 0x80 flips when CF overflows
    21      2      CF pulse count, wraps at 65536
    23      1      sum of bytes 2..22, low 8 bits

Source: chip data sheet; frames published in the comments of open plug firmware. HLW8032 modules with another
voltage divider scale the voltage by VOLTAGE_PPM_HLW8032.

**Invariant:** the parser never raises and never keeps more than one frame's worth of bytes between calls.
The 8-bit sum passes one damaged frame in 256, so a frame must also be plausible: voltage within bounds.
"""

from watt_plug.meters import sample as samples
from watt_plug.meters.sample import (
    INPUT_MAX,
    PPM,
    VALID_CURRENT,
    VALID_POWER,
    VALID_VOLTAGE,
    VOLTAGE_MAX_MV,
    VOLTAGE_MIN_MV,
    Sample,
)

FRAME_SIZE = 24
MARK = 0x5A
HEADER_OK = 0x55
HEADER_NOT_CALIBRATED = 0xAA
HEADER_POWER_RANGE = 0x02
"The power cycle did not end: no load, power and current are zero."
HEADER_CURRENT_RANGE = 0x04
HEADER_VOLTAGE_RANGE = 0x08
HEADER_COEFFICIENT = 0x01
"The chip's coefficient area is damaged: nothing in the frame can be used."

STATE_POWER = 0x10
STATE_CURRENT = 0x20
STATE_VOLTAGE = 0x40
STATE_CARRY = 0x80

VOLTAGE_PPM_HLW8032 = 1880000
PULSE_SPAN = 131072
"17 bits: 16 of the counter and its carry."


def checksum(frame: bytes) -> int:
    """Return the sum of bytes 2..22 modulo 256, which byte 23 must equal."""
    return sum(frame[2:23]) & 255


def _u24(frame: bytes, offset: int) -> int:
    return frame[offset] << 16 | frame[offset + 1] << 8 | frame[offset + 2]


class Parser(samples.Parser):
    """Finds frames in a byte stream and turns them into samples.

    voltage_ppm   scale of the module's voltage divider, 1000000 for a CSE7766 board
    rejected      counts of refused frames and skipped bytes by reason
    """

    def __init__(self, voltage_ppm: int = PPM) -> None:
        self._voltage_ppm = voltage_ppm
        self._buffer = b""
        self.accepted = 0
        self.rejected = {"checksum": 0, "header": 0, "not-calibrated": 0, "coefficient": 0, "voltage": 0, "noise": 0}

    def feed(self, data: bytes) -> list[Sample]:
        """Take bytes, return the samples of every whole good frame in them, oldest first."""
        buffer = self._buffer + data
        if len(buffer) > INPUT_MAX:
            self.rejected["noise"] += len(buffer) - INPUT_MAX
            buffer = buffer[-INPUT_MAX:]
        found = []
        offset = 0
        while len(buffer) - offset >= FRAME_SIZE:
            if buffer[offset + 1] != MARK or not _is_header(buffer[offset]):
                self.rejected["noise"] += 1
                offset += 1
                continue
            frame = buffer[offset : offset + FRAME_SIZE]
            if checksum(frame) != frame[23]:
                # One byte on, not one frame on: the real frame may begin inside this false one.
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
        header = frame[0]
        if header == HEADER_NOT_CALIBRATED:
            self.rejected["not-calibrated"] += 1
            return None
        errors = header & 15 if header & 0xF0 == 0xF0 else 0
        voltage_coefficient = _u24(frame, 2)
        current_coefficient = _u24(frame, 8)
        power_coefficient = _u24(frame, 14)
        if errors & HEADER_COEFFICIENT or not voltage_coefficient or not current_coefficient or not power_coefficient:
            self.rejected["coefficient"] += 1
            return None
        state = frame[20]
        valid = 0
        voltage_mv = 0
        current_ma = 0
        power_mw = 0
        cycle = _u24(frame, 5)
        if state & STATE_VOLTAGE and not errors & HEADER_VOLTAGE_RANGE and cycle:
            voltage_mv = voltage_coefficient * self._voltage_ppm // (cycle * 1000)
            if not VOLTAGE_MIN_MV <= voltage_mv <= VOLTAGE_MAX_MV:
                self.rejected["voltage"] += 1
                return None
            valid |= VALID_VOLTAGE
        # No load: the power cycle never ends, so the chip's last current cycle is stale as well.
        loaded = not errors & HEADER_POWER_RANGE
        cycle = _u24(frame, 17)
        if state & STATE_POWER and loaded and cycle:
            power_mw = power_coefficient * 1000 // cycle
            valid |= VALID_POWER
        cycle = _u24(frame, 11)
        if state & STATE_CURRENT and loaded and not errors & HEADER_CURRENT_RANGE and cycle:
            current_ma = current_coefficient * 1000 // cycle
            valid |= VALID_CURRENT
        pulses = (state & STATE_CARRY) << 9 | frame[21] << 8 | frame[22]
        return Sample(
            valid,
            voltage_mv,
            current_ma,
            power_mw,
            pulses,
            (voltage_coefficient, current_coefficient, power_coefficient),
            PULSE_SPAN,
        )


def _is_header(value: int) -> bool:
    return value == HEADER_OK or value == HEADER_NOT_CALIBRATED or value & 0xF0 == 0xF0
