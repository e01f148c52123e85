"""Interval record: what one plug measured over one interval (WIRE.md section 3).

75 bytes, big-endian, one encoding per value. A record carries no signature of its own: its leaf hash lies under the
Merkle root of a signed checkpoint, so that a proof reveals one interval and not the whole day.
"""

import struct

from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import (
    I32_MAX,
    ID_SIZE,
    REGISTER_MWH_MAX,
    U32_MAX,
    bytes_problem,
    integer_problem,
    quality_problem,
    size_problem,
)

VERSION = 1
_FORMAT = ">B8sIIHBQQIIIIIIiiiBH"
SIZE = 75

DURATION_S_MAX = 900
"""Longest interval, s: a record never spans more than the quarter-hour that a checkpoint closes."""

RELAY_OFF = 0
RELAY_ON = 1
RELAY_NONE = 2  # a meter that switches nothing

FLAG_PARTIAL = 0x0001  # fewer samples than the interval should have
FLAG_DISCONTINUITY = 0x0002  # the chip's counter fell or jumped; see the checkpoint with reason 3
FLAG_CLAMPED = 0x0004  # an energy delta was limited to rated power times time
FLAG_RELAY_CHANGED = 0x0008  # the relay moved inside the interval; `relay` is the state at its end
FLAG_CLOCK_STEPPED = 0x0010  # the clock was set inside the interval
FLAG_NO_SAMPLES = 0x0020  # nothing measured: voltages, currents and powers are 0 and mean nothing
FLAG_OVER_RANGE = 0x0040  # a sample was outside the range of the meter
FLAGS_KNOWN = 0x007F

_U32_FIELDS = ("v_min_mv", "v_mean_mv", "v_max_mv", "i_min_ma", "i_mean_ma", "i_max_ma")
_I32_FIELDS = ("p_min_mw", "p_mean_mw", "p_max_mw")


class Record:
    """One interval.

    plug_id          8 bytes, first bytes of SHA-256(public key)
    sequence         consecutive number of the record in the life of the plug, from 1
    start_s          Unix s of the start (seconds since boot while time_quality is U)
    duration_s       1..900 s
    time_quality     ord of U, I, S or R (fields.QUALITY_*)
    import_mwh       energy register at the END of the interval, mWh taken from the grid, never falls
    export_mwh       the same, mWh fed in
    v_/i_/p_         minimum, mean, maximum over the samples; mV, mA, mW (p signed, positive = import)
    relay            RELAY_* at the end of the interval
    flags            FLAG_* bits; unknown bits are refused
    """

    FIELDS = (
        "plug_id",
        "sequence",
        "start_s",
        "duration_s",
        "time_quality",
        "import_mwh",
        "export_mwh",
        "v_min_mv",
        "v_mean_mv",
        "v_max_mv",
        "i_min_ma",
        "i_mean_ma",
        "i_max_ma",
        "p_min_mw",
        "p_mean_mw",
        "p_max_mw",
        "relay",
        "flags",
    )

    def __init__(
        self,
        plug_id: bytes,
        sequence: int,
        start_s: int,
        duration_s: int,
        time_quality: int,
        import_mwh: int,
        export_mwh: int,
        v_min_mv: int,
        v_mean_mv: int,
        v_max_mv: int,
        i_min_ma: int,
        i_mean_ma: int,
        i_max_ma: int,
        p_min_mw: int,
        p_mean_mw: int,
        p_max_mw: int,
        relay: int,
        flags: int,
    ) -> None:
        self.plug_id = plug_id
        self.sequence = sequence
        self.start_s = start_s
        self.duration_s = duration_s
        self.time_quality = time_quality
        self.import_mwh = import_mwh
        self.export_mwh = export_mwh
        self.v_min_mv = v_min_mv
        self.v_mean_mv = v_mean_mv
        self.v_max_mv = v_max_mv
        self.i_min_ma = i_min_ma
        self.i_mean_ma = i_mean_ma
        self.i_max_ma = i_max_ma
        self.p_min_mw = p_min_mw
        self.p_mean_mw = p_mean_mw
        self.p_max_mw = p_max_mw
        self.relay = relay
        self.flags = flags

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and all(getattr(self, n) == getattr(other, n) for n in self.FIELDS)

    def __hash__(self) -> int:
        return hash((self.plug_id, self.sequence))

    def __repr__(self) -> str:
        return "Record(" + ", ".join("%s=%r" % (n, getattr(self, n)) for n in self.FIELDS) + ")"


def encode(record: Record) -> bytes:
    """Return the 75 bytes of a record; EncodeError when a field is outside its limits."""
    text = problem(record)
    if text:
        raise EncodeError(text)
    return struct.pack(
        _FORMAT,
        VERSION,
        record.plug_id,
        record.sequence,
        record.start_s,
        record.duration_s,
        record.time_quality,
        record.import_mwh,
        record.export_mwh,
        record.v_min_mv,
        record.v_mean_mv,
        record.v_max_mv,
        record.i_min_ma,
        record.i_mean_ma,
        record.i_max_ma,
        record.p_min_mw,
        record.p_mean_mw,
        record.p_max_mw,
        record.relay,
        record.flags,
    )


def decode(frame: bytes) -> Record:
    """Return the record in a frame of exactly SIZE bytes; DecodeError("record-...") otherwise."""
    text = size_problem(frame, SIZE)
    if text:
        raise DecodeError("record-size", text)
    values = struct.unpack(_FORMAT, frame)
    if values[0] != VERSION:
        raise DecodeError("record-version", "record version %d, expected %d" % (values[0], VERSION))
    record = Record(*values[1:])
    text = problem(record)
    if text:
        raise DecodeError("record-field", text)
    return record


def problem(record: Record) -> str:
    """Return "" when every field keeps its limits (WIRE.md section 3), else what is wrong first."""
    text = (
        bytes_problem("plug_id", record.plug_id, ID_SIZE)
        or integer_problem("sequence", record.sequence, 1, U32_MAX)
        or integer_problem("start_s", record.start_s, 0, U32_MAX - DURATION_S_MAX)
        or integer_problem("duration_s", record.duration_s, 1, DURATION_S_MAX)
        or quality_problem(record.time_quality)
        or integer_problem("import_mwh", record.import_mwh, 0, REGISTER_MWH_MAX)
        or integer_problem("export_mwh", record.export_mwh, 0, REGISTER_MWH_MAX)
        or integer_problem("relay", record.relay, RELAY_OFF, RELAY_NONE)
        or integer_problem("flags", record.flags, 0, FLAGS_KNOWN)
    )
    if text:
        return text
    for name in _U32_FIELDS:
        text = integer_problem(name, getattr(record, name), 0, U32_MAX)
        if text:
            return text
    for name in _I32_FIELDS:
        text = integer_problem(name, getattr(record, name), -I32_MAX, I32_MAX)
        if text:
            return text
    if not record.v_min_mv <= record.v_mean_mv <= record.v_max_mv:
        return "voltage mean is outside its minimum and maximum"
    if not record.i_min_ma <= record.i_mean_ma <= record.i_max_ma:
        return "current mean is outside its minimum and maximum"
    if not record.p_min_mw <= record.p_mean_mw <= record.p_max_mw:
        return "power mean is outside its minimum and maximum"
    return ""
