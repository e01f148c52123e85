"""Interval records on any interpreter: the golden frames, every limit, every length."""

from watt_wire import merkle, record
from watt_wire.errors import DecodeError, EncodeError
from wire_vectors import blocks, raises, record_of

I32_MIN = -(1 << 31)


def test_encoding_a_golden_record_gives_its_frame_and_leaf() -> None:
    for block in blocks("record.txt"):
        frame = record.encode(record_of(block))
        assert frame == block.data("frame"), block.text("case")
        assert len(frame) == record.SIZE
        assert merkle.leaf_hash(frame) == block.data("leaf_hash")


def test_decoding_a_golden_frame_gives_its_record() -> None:
    for block in blocks("record.txt"):
        assert record.decode(block.data("frame")) == record_of(block), block.text("case")


def test_a_frame_of_any_other_length_is_refused() -> None:
    frame = blocks("record.txt")[0].data("frame")
    for length in range(len(frame)):
        raises(DecodeError, record.decode, frame[:length])
    raises(DecodeError, record.decode, frame + b"\x00")
    raises(DecodeError, record.decode, frame + frame)


def test_a_value_outside_its_limits_is_not_encoded_instead_of_wrapping() -> None:
    u32 = 1 << 32
    outside = (
        ("sequence", (-1, 0, u32)),
        ("start_s", (-1, u32 - 900, u32)),
        ("duration_s", (-1, 0, 901, 65536)),
        ("time_quality", (0, 0x54, 256 + 0x53)),
        ("import_mwh", (-1, 1 << 53, 1 << 64)),
        ("export_mwh", (-1, 1 << 53)),
        ("v_max_mv", (u32,)),
        ("v_min_mv", (-1,)),
        ("i_max_ma", (u32,)),
        ("i_min_ma", (-1,)),
        ("p_min_mw", (I32_MIN,)),
        ("p_max_mw", (1 << 31,)),
        ("relay", (-1, 3)),
        ("flags", (-1, 0x80, 0x8000, 65536)),
        ("plug_id", (b"", b"1234567", b"123456789")),
    )
    for name, candidates in outside:
        for value in candidates:
            item = record_of(blocks("record.txt")[0])
            setattr(item, name, value)
            message = raises(EncodeError, record.encode, item)
            assert message, name


def test_a_value_that_is_no_integer_is_not_encoded() -> None:
    for value in (None, "60", b"60", True):
        item = record_of(blocks("record.txt")[0])
        item.duration_s = value  # type: ignore[assignment]
        raises(EncodeError, record.encode, item)


def test_a_mean_outside_its_minimum_and_maximum_is_refused_both_ways() -> None:
    for prefix, unit in (("v", "mv"), ("i", "ma"), ("p", "mw")):
        item = record_of(blocks("record.txt")[0])
        setattr(item, f"{prefix}_mean_{unit}", getattr(item, f"{prefix}_max_{unit}") + 1)
        raises(EncodeError, record.encode, item)
        item = record_of(blocks("record.txt")[0])
        setattr(item, f"{prefix}_mean_{unit}", getattr(item, f"{prefix}_min_{unit}") - 1)
        raises(EncodeError, record.encode, item)


def test_an_unknown_version_flag_or_relay_state_is_refused_with_its_reason() -> None:
    frame = blocks("record.txt")[0].data("frame")
    for changed, reason in (
        (b"\x02" + frame[1:], "record-version"),
        (frame[:-2] + b"\x00\x80", "record-field"),
        (frame[:-2] + b"\x80\x00", "record-field"),
        (frame[:-3] + b"\x03" + frame[-2:], "record-field"),
    ):
        try:
            record.decode(changed)
        except DecodeError as error:
            assert error.reason == reason
        else:
            raise AssertionError(reason)


def test_what_is_not_bytes_is_refused() -> None:
    for value in (None, 5, "x" * record.SIZE, bytearray(record.SIZE)):
        raises(DecodeError, record.decode, value)
