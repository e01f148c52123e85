"""Properties over generated input: one encoding per value, and DecodeError as the only answer to bad bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from watt_wire import batch, checkpoint, command, merkle, p256, record, topics
from watt_wire.errors import DecodeError
from watt_wire.fields import REGISTER_MWH_MAX, TIME_QUALITIES, U32_MAX

u32 = st.integers(0, U32_MAX)
register = st.integers(0, REGISTER_MWH_MAX)
ids = st.binary(min_size=8, max_size=8)
hashes = st.binary(min_size=32, max_size=32)


def ordered(low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=3, max_size=3).map(sorted)


records = st.builds(
    lambda head, v, i, p, tail: record.Record(*head, *v, *i, *p, *tail),
    st.tuples(
        ids,
        st.integers(1, U32_MAX),
        st.integers(0, U32_MAX - 900),
        st.integers(1, 900),
        st.sampled_from(TIME_QUALITIES),
        register,
        register,
    ),
    ordered(0, U32_MAX),
    ordered(0, U32_MAX),
    ordered(-(2**31) + 1, 2**31 - 1),
    st.tuples(st.integers(0, 2), st.integers(0, record.FLAGS_KNOWN)),
)
checkpoints = st.builds(
    checkpoint.Checkpoint,
    st.just(1),
    ids,
    u32,
    st.integers(1, U32_MAX),
    hashes,
    hashes,
    st.integers(1, U32_MAX - checkpoint.COUNT_MAX),
    st.integers(1, checkpoint.COUNT_MAX),
    u32,
    st.sampled_from(TIME_QUALITIES),
    register,
    register,
    hashes,
    hashes,
    st.integers(1, 9),
)


@given(records)
def test_a_record_comes_back_from_its_only_encoding(item: record.Record) -> None:
    frame = record.encode(item)
    assert len(frame) == record.SIZE
    assert record.decode(frame) == item
    assert record.encode(record.decode(frame)) == frame


@given(checkpoints)
def test_a_checkpoint_comes_back_from_its_only_encoding(item: checkpoint.Checkpoint) -> None:
    body = checkpoint.encode(item)
    assert len(body) == checkpoint.BODY_SIZE
    assert checkpoint.decode(checkpoint.seal(body, bytes(64))) == item


@given(records, st.binary(min_size=record.SIZE, max_size=record.SIZE))
def test_bytes_that_decode_are_the_encoding_of_what_they_decode_to(item: record.Record, noise: bytes) -> None:
    known = record.encode(item)
    for frame in (noise, known[:40] + noise[40:], known[:-3] + noise[-3:]):
        try:
            decoded = record.decode(frame)
        except DecodeError:
            continue
        assert record.encode(decoded) == frame


ANYTHING: list[Callable[[bytes], object]] = [
    record.decode,
    checkpoint.decode,
    checkpoint.frame_hash,
    batch.decode,
    batch.decode_ack,
    command.decode,
]


@pytest.mark.parametrize("decode", ANYTHING)
@given(data=st.binary(max_size=400))
@example(b"")
@example(b"\x01" * record.SIZE)
@example(b"\x01" * checkpoint.SIZE)
@example(b"\x01" * command.SIZE)
@example(batch.MAGIC + b"\xff\xff" + bytes(300))
def test_decoding_raises_nothing_but_decode_error(decode: Callable[[bytes], object], data: bytes) -> None:
    sizes = (record.SIZE, checkpoint.SIZE, command.SIZE, batch.ACK_SIZE)
    for frame in (data, *((data + bytes(size))[:size] for size in sizes), batch.MAGIC + data):
        try:
            decode(frame)
        except DecodeError as error:
            assert error.reason
            assert str(error)


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=70))
def test_verification_of_noise_is_false_and_raises_nothing(public: bytes, message: bytes, signature: bytes) -> None:
    for key in (public, (public + bytes(64))[:64], p256.public_key(bytes(31) + b"\x05")):
        for candidate in (signature, (signature + bytes(64))[:64]):
            assert not p256.verify(key, message, candidate)


def test_a_key_that_is_no_point_never_reaches_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point of another curve would run through the same formulas, which do not use the curve's constant."""
    public = p256.public_key(bytes(31) + b"\x05")
    signature = p256.sign(bytes(31) + b"\x05", b"m")
    monkeypatch.delattr(p256, "_Product")
    assert not p256.verify(public[:63] + bytes([public[63] ^ 1]), b"m", signature)
    with pytest.raises(NameError):
        p256.verify(public, b"m", signature)


@given(st.text(max_size=60), st.lists(st.text(max_size=8), max_size=9))
def test_parsing_a_topic_raises_nothing_but_decode_error(text: str, levels: list[str]) -> None:
    parsers: list[Callable[[str], object]] = [
        topics.parse_plug_batch,
        topics.parse_plug_ack,
        topics.parse_home_plan,
        topics.parse_area_tx,
        topics.parse_area_query,
        topics.parse_area_reply,
        topics.parse_area_notice,
    ]
    for topic in (text, "/".join(levels), "wp/1/home/" + text, "wp/1/area/a/node/" + text + "/query/a"):
        for parse in parsers:
            try:
                parse(topic)
            except DecodeError as error:
                assert error.reason.startswith("topic")


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_a_leaf_is_proved_at_its_own_place_only(items: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(bytes([number]) + item) for number, item in enumerate(items)]
    index = data.draw(st.integers(0, len(leaves) - 1))
    other = data.draw(st.integers(0, len(leaves) + 2))
    path = merkle.proof(leaves, index)
    assert merkle.verify_proof(leaves[index], index, len(leaves), path, merkle.root(leaves))
    assert merkle.verify_proof(leaves[index], other, len(leaves), path, merkle.root(leaves)) == (other == index)


def test_every_leaf_of_every_tree_up_to_300_leaves_is_proved() -> None:
    leaves = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(300)]
    for size in (*range(1, 70), 127, 128, 129, 255, 256, 257, 299, 300):
        root = merkle.root(leaves[:size])
        for index in range(0, size, 1 if size < 70 else 7):
            path = merkle.proof(leaves[:size], index)
            assert merkle.verify_proof(leaves[index], index, size, path, root)


@given(st.integers(1, p256.N - 1), st.binary(max_size=80))
def test_signatures_verify_have_a_low_s_and_are_deterministic(secret: int, message: bytes) -> None:
    private = secret.to_bytes(32, "big")
    signature = p256.sign(private, message)
    assert p256.is_low_s(signature)
    assert p256.sign(private, message) == signature
    assert p256.verify(p256.public_key(private), message, signature)


@given(st.integers(0, 63), st.integers(0, 2**258 - 1))
def test_the_comb_of_any_scalar_is_that_multiple_of_the_generator(index: int, scalar: int) -> None:
    """Blinded scalars reach 2^258; shapes with empty columns are drawn too."""
    for value in (scalar, sum(1 << (43 * row) for row in range(6) if index >> row & 1)):
        reduced = value % p256.N
        if reduced:
            expected = p256.public_key(reduced.to_bytes(32, "big"))
            x, y = p256._affine(p256._multiply_base(value, 12345))
            assert x.to_bytes(32, "big") + y.to_bytes(32, "big") == expected
