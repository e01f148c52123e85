"""Statements and manifests on any interpreter: golden frames, limits, two different release keys."""

from watt_wire import bundle, p256, statement
from watt_wire.errors import DecodeError, EncodeError
from wire_vectors import Block, blocks, flipped, raises

LAYOUTS = {"event": statement.EVENT, "enrolment": statement.ENROLMENT, "time": statement.TIME}
STRIDE = 7


def statement_of(block: Block, layout: statement.Layout) -> statement.Statement:
    numbers = {}
    octets = {}
    for name, _, _, high in layout.fields:
        if high < 0:
            octets[name] = block.data(name)
        else:
            numbers[name] = block.number(name)
    return statement.Statement(numbers, octets)


def manifest_of(block: Block) -> bundle.Manifest:
    files = []
    for line in block.every("file"):
        path, size = line.split(" ")
        files.append((path, int(size)))
    keys = block.data("signer_a"), block.data("signer_b")
    return bundle.Manifest(block.number("release"), block.data("firmware_hash"), keys[0], keys[1], files)


def first_of_each() -> "list[Block]":
    found = {}
    for block in blocks("statement.txt"):
        found.setdefault(block.text("layout"), block)
    assert len(found) == len(LAYOUTS)
    return list(found.values())


def test_golden_statements() -> None:
    kinds = []
    for block in blocks("statement.txt"):
        layout = LAYOUTS[block.text("layout")]
        kinds.append(layout.name)
        frame = block.data("frame")
        found = layout.decode(frame)
        item = statement_of(block, layout)
        assert (found.numbers, found.octets) == (item.numbers, item.octets)
        body = layout.encode(item)
        assert body == layout.body_of(frame) and layout.seal(body, layout.signature_of(frame)) == frame
        assert p256.verify(block.data("signer"), layout.message(body), layout.signature_of(frame))
    assert sorted(set(kinds)) == sorted(LAYOUTS)


def test_a_statement_with_a_byte_changed_is_refused() -> None:
    for block in first_of_each():
        layout = LAYOUTS[block.text("layout")]
        frame = block.data("frame")
        for position in range(0, len(frame), STRIDE):
            changed = flipped(frame, position, 0x01)
            try:
                layout.decode(changed)
            except DecodeError:
                continue
            body = layout.body_of(changed)
            assert not p256.verify(block.data("signer"), layout.message(body), layout.signature_of(changed)), position


def test_values_outside_their_limits_are_refused_both_ways() -> None:
    for block in first_of_each():
        layout = LAYOUTS[block.text("layout")]
        frame = block.data("frame")
        offset = 2
        for name, size, low, high in layout.fields:
            item = statement_of(block, layout)
            if high < 0:
                item.octets[name] = item.octets[name][:-1]
                raises(EncodeError, layout.encode, item)
            else:
                for value in (low - 1, high + 1):
                    item.numbers[name] = value
                    raises(EncodeError, layout.encode, item)
                    if 0 <= value < 1 << 8 * size:
                        bad = frame[:offset] + value.to_bytes(size, "big") + frame[offset + size :]
                        raises(DecodeError, layout.decode, bad)
            offset += size
        for bad in (frame[:-1], frame + b"\x00", b"", b"\x02" + frame[1:], frame[:1] + b"\x02" + frame[2:]):
            raises(DecodeError, layout.decode, bad)


def test_golden_manifests() -> None:
    for block in blocks("bundle.txt"):
        frame = block.data("frame")
        manifest = bundle.decode(frame)
        body, first, second = bundle.parts(frame)
        assert bundle.encode(manifest_of(block)) == body == bundle.encode(manifest)
        assert bundle.seal(body, first, second) == frame
        keys = [bytes.fromhex(text) for text in block.every("release_key")]
        assert len(keys) == 3
        assert bundle.verify(frame, keys, p256.verify)
        assert manifest.total_size == sum([size for _, size in manifest.files])


def test_a_manifest_needs_two_different_release_keys() -> None:
    block = blocks("bundle.txt")[0]
    frame = block.data("frame")
    body, first, second = bundle.parts(frame)
    keys = [bytes.fromhex(text) for text in block.every("release_key")]
    for bad in (body + first + first, body + second + second, body + second + first, body + first + bytes(64), b""):
        assert not bundle.verify(bad, keys, p256.verify)
    strangers = [p256.public_key(bytes([number]) * 32) for number in (1, 2, 3)]
    assert not bundle.verify(frame, strangers, p256.verify)
    signer = block.data("signer_a")
    alone = [key for key in keys if p256.hashlib.sha256(key).digest()[:8] == signer]
    assert len(alone) == 1 and not bundle.verify(frame, alone, p256.verify)


def test_manifests_that_reach_out_of_their_slot_are_refused() -> None:
    block = blocks("bundle.txt")[0]
    good = [("watt_wire/a.py", 1)]
    for files in (
        [],
        [("watt_wire/../boot.py", 1)],
        [("boot.py", 1)],
        [("/watt_wire/a.py", 1)],
        [("watt_wire/a.txt", 1)],
        [("watt_wire//a.py", 1)],
        [("watt_wire/A.py", 1)],
        good + good,
        [("watt_wire/a.py", bundle.FILE_SIZE_MAX + 1)],
        [("watt_wire/" + "a" * 40 + ".py", 1)],
        [("watt_wire/a%d.py" % number, 1) for number in range(bundle.FILES_MAX + 1)],
        [("watt_wire/a%d.py" % number, bundle.FILE_SIZE_MAX) for number in range(9)],
    ):
        item = manifest_of(block)
        item.files = files
        raises(EncodeError, bundle.encode, item)
    item = manifest_of(block)
    item.signer_a, item.signer_b = item.signer_b, item.signer_a
    raises(EncodeError, bundle.encode, item)


def test_a_manifest_cut_or_changed_anywhere_is_refused() -> None:
    block = blocks("bundle.txt")[0]
    frame = block.data("frame")
    keys = [bytes.fromhex(text) for text in block.every("release_key")]
    for size in range(0, len(frame), 11):
        raises(DecodeError, bundle.decode, frame[:size])
    raises(DecodeError, bundle.decode, frame + b"\x00")
    for position in range(0, len(frame) - 128, STRIDE):
        assert not bundle.verify(flipped(frame, position, 0x01), keys, p256.verify), position
