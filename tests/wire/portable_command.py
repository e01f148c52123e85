"""Switch commands on any interpreter: golden frames, two signers, limits, freshness."""

from watt_wire import command, p256
from watt_wire.errors import DecodeError, EncodeError
from wire_vectors import blocks, command_of, flipped, raises

STRIDE = 5
"""On a device every fifth byte is changed, one bit of it. test_mutations.py changes every byte nine ways."""


def test_golden_commands() -> None:
    for block in blocks("command.txt"):
        frame = block.data("frame")
        item = command_of(block)
        assert len(frame) == command.SIZE
        assert command.decode(frame) == item
        body = command.encode(item)
        middle = command.BODY_SIZE + 64
        assert command.seal(body, frame[command.BODY_SIZE : middle], frame[middle:]) == frame
        assert command.verify(frame, block.data("public_a"), block.data("public_b"), p256.verify)


def test_a_command_with_one_signer_twice_or_in_the_wrong_order_is_refused() -> None:
    block = blocks("command.txt")[0]
    frame, key_a, key_b = block.data("frame"), block.data("public_a"), block.data("public_b")
    first, second = frame[command.BODY_SIZE : command.BODY_SIZE + 64], frame[command.BODY_SIZE + 64 :]
    body = frame[: command.BODY_SIZE]
    assert not command.verify(body + first + first, key_a, key_b, p256.verify)
    assert not command.verify(body + second + first, key_a, key_b, p256.verify)
    assert not command.verify(frame, key_b, key_a, p256.verify)
    assert not command.verify(frame, key_a, key_a, p256.verify)
    item = command_of(block)
    item.signer_b = item.signer_a
    raises(EncodeError, command.encode, item)
    item.signer_a, item.signer_b = block.data("signer_b"), block.data("signer_a")
    raises(EncodeError, command.encode, item)


def test_a_command_with_a_byte_changed_is_refused() -> None:
    block = blocks("command.txt")[0]
    frame = block.data("frame")
    for position in range(0, len(frame), STRIDE):
        bad = flipped(frame, position, 1 << position % 8)
        assert not command.verify(bad, block.data("public_a"), block.data("public_b"), p256.verify)
    for bad in (b"", frame[:-1], frame + b"\x00"):
        raises(DecodeError, command.decode, bad)
        assert not command.verify(bad, block.data("public_a"), block.data("public_b"), p256.verify)


def test_a_command_outside_the_limits_is_not_encoded() -> None:
    start = blocks("command.txt")[0].number("not_before_s")
    outside = (
        ("suite", (0, 2)),
        ("network", (bytes(31),)),
        ("plug_id", (bytes(9),)),
        ("counter", (0, 1 << 32)),
        ("action", (0, 3, 4)),  # 3 is RELEASE, which holds for 0 s
        ("not_before_s", (-1, start + 600, start + 601, start - 86400)),
        ("expires_s", (-1, start, start + 86401, 1 << 32)),
        ("hold_s", (-1, 0, 14401)),
        ("spread_s", (-1, 3601)),
        ("reference", (b"",)),
        ("signer_a", (bytes(7),)),
        ("signer_b", (bytes(8),)),
    )
    for name, candidates in outside:
        for value in candidates:
            item = command_of(blocks("command.txt")[0])
            setattr(item, name, value)
            assert raises(EncodeError, command.encode, item), name


def test_a_command_for_another_plug_or_network_or_time_or_used_before_is_not_fresh() -> None:
    item = command_of(blocks("command.txt")[0])
    network, plug_id, start, end = item.network, item.plug_id, item.not_before_s, item.expires_s
    last = item.counter - 1
    assert command.refusal(item, network, plug_id, last, start) == ""
    assert command.refusal(item, network, plug_id, last, end - 1) == ""
    assert command.refusal(item, bytes(32), plug_id, last, start) == "command-network"
    assert command.refusal(item, network, bytes(8), last, start) == "command-plug"
    assert command.refusal(item, network, plug_id, item.counter, start) == "command-replayed"
    assert command.refusal(item, network, plug_id, item.counter + 1, start) == "command-replayed"
    assert command.refusal(item, network, plug_id, last, end) == "command-expired"
    assert command.refusal(item, network, plug_id, last, start - 1) == "command-early"
