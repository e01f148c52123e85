"""Checkpoints on any interpreter: golden frames, the chain, every limit, every wrong length."""

from watt_wire import checkpoint, p256
from watt_wire.errors import DecodeError, EncodeError
from wire_vectors import blocks, checkpoint_of, flipped, raises


def test_encoding_a_golden_checkpoint_gives_its_frame() -> None:
    for block in blocks("checkpoint.txt"):
        body = checkpoint.encode(checkpoint_of(block))
        assert len(body) == checkpoint.BODY_SIZE
        signature = p256.sign(block.data("private"), checkpoint.signing_message(body))
        frame = checkpoint.seal(body, signature)
        assert frame == block.data("frame")
        assert len(frame) == checkpoint.SIZE
        assert checkpoint.frame_hash(frame) == block.data("frame_hash")
        assert checkpoint.body_of(frame) == body
        assert checkpoint.signature_of(frame) == signature


def test_decoding_a_golden_checkpoint_gives_its_fields() -> None:
    for block in blocks("checkpoint.txt"):
        assert checkpoint.decode(block.data("frame")) == checkpoint_of(block)


def test_checkpoints_form_a_chain() -> None:
    previous = checkpoint.NO_PREVIOUS
    for block in blocks("checkpoint.txt"):
        assert checkpoint.decode(block.data("frame")).previous == previous
        previous = checkpoint.frame_hash(block.data("frame"))


def test_a_checkpoint_outside_the_limits_is_not_encoded() -> None:
    outside = (
        ("suite", (0, 2)),
        ("plug_id", (b"", bytes(7), bytes(9))),
        ("boot_id", (-1, 1 << 32)),
        ("counter", (-1, 0, 1 << 32)),
        ("previous", (bytes(31),)),
        ("merkle_root", (bytes(33),)),
        ("first_sequence", (-1, 0, (1 << 32) - 192)),
        ("count", (-1, 193, 65536)),
        ("time_s", (-1, 1 << 32)),
        ("time_quality", (0, 0x41)),
        ("import_mwh", (-1, 1 << 53)),
        ("export_mwh", (-1, 1 << 53)),
        ("firmware_hash", (b"",)),
        ("calibration_hash", (b"",)),
        ("reason", (0, 10)),
    )
    for name, candidates in outside:
        for value in candidates:
            item = checkpoint_of(blocks("checkpoint.txt")[1])
            setattr(item, name, value)
            assert raises(EncodeError, checkpoint.encode, item), name


def test_a_root_over_no_records_is_the_empty_root() -> None:
    item = checkpoint_of(blocks("checkpoint.txt")[0])
    assert item.count == 0
    item.merkle_root = bytes(32)
    raises(EncodeError, checkpoint.encode, item)


def test_a_checkpoint_of_any_other_length_version_or_suite_is_refused() -> None:
    frame = blocks("checkpoint.txt")[1].data("frame")
    for call in (checkpoint.decode, checkpoint.body_of, checkpoint.signature_of, checkpoint.frame_hash):
        for bad in (b"", frame[:-1], frame[: checkpoint.BODY_SIZE], frame + b"\x00", None):
            raises(DecodeError, call, bad)
    for position, reason in ((0, "checkpoint-version"), (1, "checkpoint-suite")):
        try:
            checkpoint.decode(flipped(frame, position, 3))
        except DecodeError as error:
            assert error.reason == reason
        else:
            raise AssertionError(reason)
    raises(EncodeError, checkpoint.seal, frame, frame[:64])
    raises(EncodeError, checkpoint.seal, frame[: checkpoint.BODY_SIZE], frame[:63])
