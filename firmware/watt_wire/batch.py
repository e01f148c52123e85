"""Batch: one signed checkpoint and the records under it, as a plug publishes them (WIRE.md section 5).

Layout   "WPB" 0x01, count u16, checkpoint frame, count record frames; no padding, nothing after the last record.
`decode` checks the shape only. `accept` is the whole check that a gateway makes before it stores anything: shape,
fields, signature, Merkle root, and that the records are the ones the checkpoint names.
The acknowledgement that a gateway returns (counter, hash of the checkpoint body) lives here too.
"""

import hashlib
import struct

from watt_wire import checkpoint as checkpoints
from watt_wire import merkle
from watt_wire import record as records
from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import HASH_SIZE, ID_SIZE, U32_MAX, bytes_problem, integer_problem

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable

    Verify = Callable[[bytes, bytes, bytes], bool]

MAGIC = b"WPB\x01"
_HEADER_SIZE = 6
COUNT_MAX = checkpoints.COUNT_MAX
SIZE_MAX = _HEADER_SIZE + checkpoints.SIZE + COUNT_MAX * records.SIZE
"""Largest batch, bytes: bound for a receiver's buffer, checked before anything is parsed."""

ACK_SIZE = 4 + HASH_SIZE


def encode(checkpoint_frame: bytes, record_frames: list[bytes]) -> bytes:
    """Return the batch; EncodeError when a part has the wrong size or there are more than COUNT_MAX records."""
    text = bytes_problem("checkpoint_frame", checkpoint_frame, checkpoints.SIZE)
    if not text:
        text = integer_problem("count", len(record_frames), 0, COUNT_MAX)
    for frame in record_frames:
        text = text or bytes_problem("record_frame", frame, records.SIZE)
    if text:
        raise EncodeError(text)
    # One join, one allocation: on a device there is no room for a second copy of this size.
    return b"".join([MAGIC, struct.pack(">H", len(record_frames)), checkpoint_frame] + record_frames)


def decode(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return (checkpoint frame, record frames) of a batch whose size is exactly what its count says.

    Raises DecodeError("batch-..."); looks into neither part.
    """
    if not isinstance(data, bytes):
        raise DecodeError("batch-size", "batch is not bytes")
    start = _HEADER_SIZE + checkpoints.SIZE
    if not start <= len(data) <= SIZE_MAX:
        raise DecodeError("batch-size", "batch has %d bytes, expected %d..%d" % (len(data), start, SIZE_MAX))
    if data[:4] != MAGIC:
        raise DecodeError("batch-magic", "batch begins with " + data[:4].hex())
    count = (data[4] << 8) | data[5]
    if count > COUNT_MAX:
        raise DecodeError("batch-count", "batch of %d records, at most %d" % (count, COUNT_MAX))
    expected = start + count * records.SIZE
    if len(data) != expected:
        raise DecodeError("batch-size", "batch has %d bytes, expected %d" % (len(data), expected))
    frames = [data[at : at + records.SIZE] for at in range(start, expected, records.SIZE)]
    return data[_HEADER_SIZE:start], frames


def accept(data: bytes, public: bytes, verify: "Verify") -> "tuple[checkpoints.Checkpoint, list[records.Record]]":
    """Return (checkpoint, records) of a batch that the plug with this public key signed, every rule checked.

    public   64 bytes X||Y
    verify   verify(public, message, signature) -> bool; p256.verify on a device, the host's own elsewhere
    Raises   DecodeError: what decode of each part raises, or batch-plug, batch-signature, batch-count, batch-root,
             batch-sequence, batch-register
    Source   WIRE.md 5.2
    """
    frame, record_frames = decode(data)
    checkpoint = checkpoints.decode(frame)
    if hashlib.sha256(public).digest()[:ID_SIZE] != checkpoint.plug_id:
        raise DecodeError("batch-plug", "checkpoint of plug " + checkpoint.plug_id.hex())
    message = checkpoints.signing_message(checkpoints.body_of(frame))
    if not verify(public, message, checkpoints.signature_of(frame)):
        raise DecodeError("batch-signature", "signature of checkpoint %d is wrong" % checkpoint.counter)
    if checkpoint.count != len(record_frames):
        raise DecodeError("batch-count", "%d records, checkpoint names %d" % (len(record_frames), checkpoint.count))
    if merkle.root([merkle.leaf_hash(r) for r in record_frames]) != checkpoint.merkle_root:
        raise DecodeError("batch-root", "records are not those of checkpoint %d" % checkpoint.counter)
    result = [records.decode(r) for r in record_frames]
    _check_run(checkpoint, result)
    return checkpoint, result


def _check_run(checkpoint: "checkpoints.Checkpoint", run: "list[records.Record]") -> None:
    """Raise DecodeError unless the run is of this plug, consecutive, and its registers rise to the checkpoint's."""
    import_mwh = 0
    export_mwh = 0
    sequence = checkpoint.first_sequence
    for item in run:
        if item.plug_id != checkpoint.plug_id:
            raise DecodeError("batch-plug", "record of plug " + item.plug_id.hex())
        if item.sequence != sequence:
            raise DecodeError("batch-sequence", "record %d, expected %d" % (item.sequence, sequence))
        if item.import_mwh < import_mwh or item.export_mwh < export_mwh:
            raise DecodeError("batch-register", "register falls at record %d" % item.sequence)
        import_mwh = item.import_mwh
        export_mwh = item.export_mwh
        sequence += 1
    if checkpoint.import_mwh < import_mwh or checkpoint.export_mwh < export_mwh:
        raise DecodeError("batch-register", "register falls at checkpoint %d" % checkpoint.counter)


def encode_ack(counter: int, frame_hash: bytes) -> bytes:
    """Return the payload by which a gateway tells a plug that this checkpoint's batch is durably stored."""
    text = integer_problem("counter", counter, 1, U32_MAX) or bytes_problem("frame_hash", frame_hash, HASH_SIZE)
    if text:
        raise EncodeError(text)
    return struct.pack(">I", counter) + frame_hash


def decode_ack(payload: bytes) -> tuple[int, bytes]:
    """Return (counter, frame_hash); DecodeError("ack-size" or "ack-counter")."""
    text = bytes_problem("ack", payload, ACK_SIZE)
    if text:
        raise DecodeError("ack-size", text)
    counter = int.from_bytes(payload[:4], "big")
    if counter == 0:
        raise DecodeError("ack-counter", "counter 0")
    return counter, payload[4:]
