"""Batches and acknowledgements on any interpreter: what a gateway accepts, and everything next to it."""

from watt_wire import batch, p256, record
from watt_wire.errors import DecodeError, EncodeError
from wire_vectors import blocks, checkpoint_of, flipped, raises

STRIDE = 5
"""On a device every fifth byte is changed, one bit of it. test_mutations.py changes every byte nine ways."""


def test_a_golden_batch_is_accepted() -> None:
    for block in blocks("checkpoint.txt"):
        frame, frames = batch.decode(block.data("batch"))
        assert frame == block.data("frame")
        assert batch.encode(frame, frames) == block.data("batch")
        item, run = batch.accept(block.data("batch"), block.data("public"), p256.verify)
        assert item == checkpoint_of(block)
        assert [record.encode(r) for r in run] == frames
        assert len(run) == item.count


def test_a_batch_with_a_byte_changed_is_refused() -> None:
    block = blocks("checkpoint.txt")[2]
    data = block.data("batch")
    for position in range(0, len(data), STRIDE):
        raises(DecodeError, batch.accept, flipped(data, position, 1 << position % 8), block.data("public"), p256.verify)


def test_a_truncated_lengthened_or_oversized_batch_is_refused() -> None:
    data = blocks("checkpoint.txt")[2].data("batch")
    for length in range(len(data)):
        raises(DecodeError, batch.decode, data[:length])
    for bad in (data + b"\x00", data + data[-record.SIZE :], bytes(batch.SIZE_MAX + 1), None, "x" * len(data)):
        raises(DecodeError, batch.decode, bad)
    for count in (0, 2, 4, batch.COUNT_MAX + 1, 65535):
        raises(DecodeError, batch.decode, data[:4] + bytes([count >> 8, count & 255]) + data[6:])


def test_records_that_are_not_those_of_the_checkpoint_are_refused() -> None:
    block = blocks("checkpoint.txt")[2]
    frame, frames = batch.decode(block.data("batch"))
    for bad in ([], frames[:2], frames[1:], [frames[1], frames[0], frames[2]], frames + frames[2:]):
        raises(DecodeError, batch.accept, batch.encode(frame, bad), block.data("public"), p256.verify)


def test_a_batch_of_another_plug_is_refused() -> None:
    block = blocks("checkpoint.txt")[1]
    other = blocks("signature.txt")[0].data("public")
    message = raises(DecodeError, batch.accept, block.data("batch"), other, p256.verify)
    assert "plug" in message


def test_acknowledgements() -> None:
    for block in blocks("checkpoint.txt"):
        counter, frame_hash = batch.decode_ack(block.data("ack"))
        assert (counter, frame_hash) == (block.number("counter"), block.data("frame_hash"))
        assert batch.encode_ack(counter, frame_hash) == block.data("ack")
    ack = blocks("checkpoint.txt")[0].data("ack")
    for bad in (b"", ack[:-1], ack + b"\x00", bytes(len(ack)), None):
        raises(DecodeError, batch.decode_ack, bad)
    for counter, frame_hash in ((0, bytes(32)), (1 << 32, bytes(32)), (1, bytes(31))):
        raises(EncodeError, batch.encode_ack, counter, frame_hash)
