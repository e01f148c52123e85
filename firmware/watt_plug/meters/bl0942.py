"""BL0942: the 23-byte answer of the metering chip to a read of all registers (UART, 4800 to 38400 baud, 8N1).

    offset  bytes  meaning (little-endian)
    0       1      0x55
    1       3      I_RMS            A = I_RMS / i_ref
    4       3      V_RMS            V = V_RMS / u_ref
    7       3      I_FAST_RMS       not used
    10      3      WATT, signed     W = WATT / p_ref
    13      3      CF_CNT           one pulse = 419430.4 / p_ref joules; wraps at 2^24
    16      2      FREQ             Hz = 1000000 / FREQ
    18      4      status and reserved bytes
    22      1      inverse of the sum of the request's first byte and bytes 0..21, low 8 bits

Source: chip data sheet; frames published in the comments of open plug firmware. The references are those of the data
sheet's circuit (1 milliohm, five 390 k resistors over 510 ohm); a board may differ by a few per cent, which is what
calibration is for. Known in the field: noise resets CF_CNT, and a reset looks like a wrap. The register does not guess
(register.py). Power is taken without its sign: CF_CNT counts both directions, and a plug has no feed-in.

**Invariant:** the parser never raises and never keeps more than one frame's worth of bytes between calls.
"""

from watt_plug.meters import sample as samples
from watt_plug.meters.sample import INPUT_MAX, VALID_ALL, VOLTAGE_MAX_MV, VOLTAGE_MIN_MV, Sample

FRAME_SIZE = 23
HEADER = 0x55
READ = 0x58
"First byte of a request to address 0; addresses 1 to 3 add to it."
READ_ALL = 0xAA
PULSE_SPAN = 1 << 24
U_REF_MILLI = 15883341
I_REF_MILLI = 251065681
P_REF_MILLI = 623027
"Counts per V, A, W, times 1000, from the data sheet's formulas (gain 16, 1.218 V reference)."
PULSE_MILLIJOULE_REF = 419430400
"1638.4 * 256 joules times p_ref, in millijoules."


def checksum(frame: bytes, address: int = 0) -> int:
    """Return what byte 22 of an answer must be."""
    return ~(READ + address + sum(frame[:22])) & 255


class Parser(samples.Parser):
    """Finds answers in a byte stream.

    u_ref_milli, i_ref_milli, p_ref_milli   references of the board, times 1000
    """

    def __init__(
        self,
        u_ref_milli: int = U_REF_MILLI,
        i_ref_milli: int = I_REF_MILLI,
        p_ref_milli: int = P_REF_MILLI,
        address: int = 0,
    ) -> None:
        self._u_ref_milli = u_ref_milli
        self._i_ref_milli = i_ref_milli
        self._p_ref_milli = p_ref_milli
        self._address = address
        self._coefficients = (u_ref_milli, i_ref_milli, PULSE_MILLIJOULE_REF * 1000000 // p_ref_milli)
        self._buffer = b""
        self.request = bytes((READ + address, READ_ALL))
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
            if frame[0] != HEADER:
                self.rejected["noise"] += 1
                offset += 1
                continue
            if checksum(frame, self._address) != frame[22]:
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
        voltage_mv = _u24(frame, 4) * 1000000 // self._u_ref_milli
        if not VOLTAGE_MIN_MV <= voltage_mv <= VOLTAGE_MAX_MV:
            self.rejected["voltage"] += 1
            return None
        watt = _u24(frame, 10)
        if watt & 0x800000:
            watt = (1 << 24) - watt
        return Sample(
            VALID_ALL,
            voltage_mv,
            _u24(frame, 1) * 1000000 // self._i_ref_milli,
            watt * 1000000 // self._p_ref_milli,
            _u24(frame, 13),
            self._coefficients,
            PULSE_SPAN,
        )


def _u24(frame: bytes, offset: int) -> int:
    return frame[offset] | frame[offset + 1] << 8 | frame[offset + 2] << 16
