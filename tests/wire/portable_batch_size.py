"""The largest batch on any interpreter. A file of its own: one piece of 14.6 kB has to be found in a small heap."""

from watt_wire import batch
from watt_wire.errors import EncodeError
from wire_vectors import blocks, raises


def test_the_largest_batch_is_encoded_and_one_more_record_is_not() -> None:
    block = blocks("checkpoint.txt")[2]
    frame, frames = batch.decode(block.data("batch"))
    assert len(batch.encode(frame, [frames[0]] * batch.COUNT_MAX)) == batch.SIZE_MAX
    raises(EncodeError, batch.encode, frame, [frames[0]] * (batch.COUNT_MAX + 1))
    raises(EncodeError, batch.encode, frame[:-1], frames)
    raises(EncodeError, batch.encode, frame, [frames[0][:-1]])
