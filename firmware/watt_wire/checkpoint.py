"""Signed checkpoint: closes a run of records and commits the plug to its registers (WIRE.md section 4).

Frame = 174 bytes of body + 64 bytes of signature over b"wattpact/1/checkpoint" 0x00 body. Checkpoints of one plug
form a chain: `counter` rises by one and `previous` is the hash of the body before, so that a gap, a fork (two bodies
with one counter) and a re-ordering are visible to anybody who holds the frames.
"""

import hashlib
import struct

from watt_wire import merkle
from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import (
    HASH_SIZE,
    ID_SIZE,
    REGISTER_MWH_MAX,
    SIGNATURE_SIZE,
    SUITE_P256_SHA256,
    U32_MAX,
    bytes_problem,
    integer_problem,
    quality_problem,
    size_problem,
)

VERSION = 1
DOMAIN = b"wattpact/1/checkpoint\x00"
_FORMAT = ">BB8sII32s32sIHIBQQ32s32sB"
BODY_SIZE = 174
SIZE = BODY_SIZE + SIGNATURE_SIZE

COUNT_MAX = 192
"""Most records under one checkpoint: a quarter-hour of the shortest interval (5 s) has 180, and a dozen are room for
intervals cut short by an event. The batch, 14.6 kB in one piece, still finds its place in a used heap of 128 KiB."""

NO_PREVIOUS = b"\x00" * HASH_SIZE
"""`previous` of the first checkpoint of a plug, the one with counter 1."""

PERIODIC = 1
BOOT = 2
DISCONTINUITY = 3
CLOCK_STEP = 4
CALIBRATION = 5
FIRMWARE = 6
COMMAND = 7
RELAY = 8
SHUTDOWN = 9

_EMPTY_ROOT = merkle.root([])


class Checkpoint:
    """One checkpoint body.

    suite              1 = P-256 with SHA-256
    plug_id            8 bytes
    boot_id            number of the boot in the life of the plug
    counter            number of the checkpoint in the life of the plug, from 1
    previous           SHA-256 of the body before; NO_PREVIOUS for counter 1
    merkle_root        over the leaf hashes of the records first_sequence .. first_sequence + count - 1
    first_sequence     the next record's number when count is 0
    count              0..192 records
    time_s             Unix s (seconds since boot while time_quality is U)
    import_mwh         registers at time_s, mWh
    firmware_hash      32 bytes, of the code that ran
    calibration_hash   32 bytes, of the constants that were used
    reason             PERIODIC ... SHUTDOWN
    """

    FIELDS = (
        "suite",
        "plug_id",
        "boot_id",
        "counter",
        "previous",
        "merkle_root",
        "first_sequence",
        "count",
        "time_s",
        "time_quality",
        "import_mwh",
        "export_mwh",
        "firmware_hash",
        "calibration_hash",
        "reason",
    )

    def __init__(
        self,
        suite: int,
        plug_id: bytes,
        boot_id: int,
        counter: int,
        previous: bytes,
        merkle_root: bytes,
        first_sequence: int,
        count: int,
        time_s: int,
        time_quality: int,
        import_mwh: int,
        export_mwh: int,
        firmware_hash: bytes,
        calibration_hash: bytes,
        reason: int,
    ) -> None:
        self.suite = suite
        self.plug_id = plug_id
        self.boot_id = boot_id
        self.counter = counter
        self.previous = previous
        self.merkle_root = merkle_root
        self.first_sequence = first_sequence
        self.count = count
        self.time_s = time_s
        self.time_quality = time_quality
        self.import_mwh = import_mwh
        self.export_mwh = export_mwh
        self.firmware_hash = firmware_hash
        self.calibration_hash = calibration_hash
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and all(getattr(self, n) == getattr(other, n) for n in self.FIELDS)

    def __hash__(self) -> int:
        return hash((self.plug_id, self.counter))

    def __repr__(self) -> str:
        return "Checkpoint(" + ", ".join("%s=%r" % (n, getattr(self, n)) for n in self.FIELDS) + ")"


def encode(checkpoint: Checkpoint) -> bytes:
    """Return the BODY_SIZE bytes to be signed (see signing_message); EncodeError outside the limits."""
    text = problem(checkpoint)
    if text:
        raise EncodeError(text)
    return struct.pack(
        _FORMAT,
        VERSION,
        checkpoint.suite,
        checkpoint.plug_id,
        checkpoint.boot_id,
        checkpoint.counter,
        checkpoint.previous,
        checkpoint.merkle_root,
        checkpoint.first_sequence,
        checkpoint.count,
        checkpoint.time_s,
        checkpoint.time_quality,
        checkpoint.import_mwh,
        checkpoint.export_mwh,
        checkpoint.firmware_hash,
        checkpoint.calibration_hash,
        checkpoint.reason,
    )


def seal(body: bytes, signature: bytes) -> bytes:
    """Return the frame: body and signature over signing_message(body)."""
    text = bytes_problem("body", body, BODY_SIZE) or bytes_problem("signature", signature, SIGNATURE_SIZE)
    if text:
        raise EncodeError(text)
    return body + signature


def decode(frame: bytes) -> Checkpoint:
    """Return the checkpoint in a frame of exactly SIZE bytes; the signature is NOT checked here.

    Raises DecodeError("checkpoint-...").
    """
    text = size_problem(frame, SIZE)
    if text:
        raise DecodeError("checkpoint-size", text)
    values = struct.unpack(_FORMAT, frame[:BODY_SIZE])
    if values[0] != VERSION:
        raise DecodeError("checkpoint-version", "checkpoint version %d, expected %d" % (values[0], VERSION))
    if values[1] != SUITE_P256_SHA256:
        raise DecodeError("checkpoint-suite", "suite %d, expected %d" % (values[1], SUITE_P256_SHA256))
    checkpoint = Checkpoint(*values[1:])
    text = problem(checkpoint)
    if text:
        raise DecodeError("checkpoint-field", text)
    return checkpoint


def body_of(frame: bytes) -> bytes:
    """Return the signed bytes of a frame of exactly SIZE bytes."""
    text = size_problem(frame, SIZE)
    if text:
        raise DecodeError("checkpoint-size", text)
    return frame[:BODY_SIZE]


def signature_of(frame: bytes) -> bytes:
    """Return the 64-byte signature of a frame of exactly SIZE bytes."""
    text = size_problem(frame, SIZE)
    if text:
        raise DecodeError("checkpoint-size", text)
    return frame[BODY_SIZE:]


def signing_message(body: bytes) -> bytes:
    """Return what the plug's key signs: the domain, then the body."""
    return DOMAIN + body


def frame_hash(frame: bytes) -> bytes:
    """Return SHA-256 of the body: what the next checkpoint names as `previous`."""
    return hashlib.sha256(body_of(frame)).digest()


def problem(checkpoint: Checkpoint) -> str:
    """Return "" when every field keeps its limits (WIRE.md section 4), else what is wrong first."""
    text = (
        integer_problem("suite", checkpoint.suite, SUITE_P256_SHA256, SUITE_P256_SHA256)
        or bytes_problem("plug_id", checkpoint.plug_id, ID_SIZE)
        or integer_problem("boot_id", checkpoint.boot_id, 0, U32_MAX)
        or integer_problem("counter", checkpoint.counter, 1, U32_MAX)
        or bytes_problem("previous", checkpoint.previous, HASH_SIZE)
        or bytes_problem("merkle_root", checkpoint.merkle_root, HASH_SIZE)
        or integer_problem("first_sequence", checkpoint.first_sequence, 1, U32_MAX - COUNT_MAX)
        or integer_problem("count", checkpoint.count, 0, COUNT_MAX)
        or integer_problem("time_s", checkpoint.time_s, 0, U32_MAX)
        or quality_problem(checkpoint.time_quality)
        or integer_problem("import_mwh", checkpoint.import_mwh, 0, REGISTER_MWH_MAX)
        or integer_problem("export_mwh", checkpoint.export_mwh, 0, REGISTER_MWH_MAX)
        or bytes_problem("firmware_hash", checkpoint.firmware_hash, HASH_SIZE)
        or bytes_problem("calibration_hash", checkpoint.calibration_hash, HASH_SIZE)
        or integer_problem("reason", checkpoint.reason, PERIODIC, SHUTDOWN)
    )
    if text:
        return text
    if checkpoint.count == 0 and checkpoint.merkle_root != _EMPTY_ROOT:
        return "merkle_root of no records is not the empty root"
    return ""
