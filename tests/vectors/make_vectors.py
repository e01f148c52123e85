"""Write the golden vectors of the wire. Run it from the root of the repository: python tests/vectors/make_vectors.py.

Nothing here imports watt_wire: frames are put together field by field from the tables of firmware/WIRE.md, Merkle
trees follow the recursive definition of RFC 9162 section 2.1, and signatures are those of the `ecdsa` package. A test
makes every file again and compares it with the one that is checked in.

Format: `name = value` lines, blocks separated by an empty line, comments begin with "#". Integers are decimal, bytes
are hex, text is plain; who reads a field knows which it is. An empty value is empty bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ecdsa import NIST256p, SigningKey
from ecdsa.util import sigencode_string_canonize

HERE = Path(__file__).resolve().parent
Value = int | bytes | str
Block = list[tuple[str, Value]]
Field = tuple[str, int, Value]
"""Name, size in bytes, value; an int is big-endian, negative in two's complement."""

U32_MAX = 2**32 - 1
REGISTER_MAX = 2**53 - 1

PLUG_PRIVATE = hashlib.sha256(b"wattpact test vector: plug").digest()
SIGNER_PRIVATES = [hashlib.sha256(b"wattpact test vector: signer %d" % n).digest() for n in (1, 2)]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def signing_key(private: bytes) -> SigningKey:
    return SigningKey.from_string(private, NIST256p, hashlib.sha256)


def public_of(private: bytes) -> bytes:
    return bytes(signing_key(private).verifying_key.to_string())


def sign(private: bytes, message: bytes) -> bytes:
    """RFC 6979, raw r||s, low s."""
    key = signing_key(private)
    return bytes(key.sign_deterministic(message, hashfunc=hashlib.sha256, sigencode=sigencode_string_canonize))


def pack(fields: Iterable[Field]) -> bytes:
    out = b""
    for _, size, value in fields:
        if isinstance(value, int):
            out += value.to_bytes(size, "big", signed=value < 0)
        else:
            assert isinstance(value, bytes) and len(value) == size
            out += value
    return out


def as_block(fields: Iterable[Field]) -> Block:
    return [(name, value) for name, _, value in fields if name != "version"]


def text(heading: str, blocks: list[Block]) -> str:
    parts = ["".join(f"# {line}\n" for line in heading.splitlines())]
    for block in blocks:
        lines = [
            f"{name} = {value.hex() if isinstance(value, bytes) else value}".rstrip() + "\n" for name, value in block
        ]
        parts.append("".join(lines))
    return "\n".join(parts)


def record_fields(sequence: int, changes: dict[str, Value] | None = None) -> list[Field]:
    """A plausible record of the vector plug, number `sequence`, with changes by name."""
    fields: list[Field] = [
        ("version", 1, 1),
        ("plug_id", 8, sha256(public_of(PLUG_PRIVATE))[:8]),
        ("sequence", 4, sequence),
        ("start_s", 4, 1_767_222_000 + 60 * sequence),
        ("duration_s", 2, 60),
        ("time_quality", 1, ord("S")),
        ("import_mwh", 8, 1_000_000 + 2_500 * sequence),
        ("export_mwh", 8, 0),
        ("v_min_mv", 4, 229_100),
        ("v_mean_mv", 4, 230_250),
        ("v_max_mv", 4, 231_400),
        ("i_min_ma", 4, 610),
        ("i_mean_ma", 4, 652),
        ("i_max_ma", 4, 700),
        ("p_min_mw", 4, 139_000),
        ("p_mean_mw", 4, 150_000),
        ("p_max_mw", 4, 161_000),
        ("relay", 1, 1),
        ("flags", 2, 0),
    ]
    return [(name, size, (changes or {}).get(name, value)) for name, size, value in fields]


def record_blocks() -> list[Block]:
    lowest: dict[str, Value] = {
        name: 0
        for name, _, _ in record_fields(0)
        if name not in ("version", "plug_id", "duration_s", "time_quality", "sequence")
    }
    lowest.update(plug_id=bytes(8), duration_s=1, time_quality=ord("U"), p_min_mw=-(2**31 - 1))
    highest: dict[str, Value] = {
        "plug_id": b"\xff" * 8,
        "start_s": U32_MAX - 900,
        "duration_s": 900,
        "time_quality": ord("R"),
        "import_mwh": REGISTER_MAX,
        "export_mwh": REGISTER_MAX,
        "v_min_mv": U32_MAX,
        "v_mean_mv": U32_MAX,
        "v_max_mv": U32_MAX,
        "i_min_ma": U32_MAX,
        "i_mean_ma": U32_MAX,
        "i_max_ma": U32_MAX,
        "p_min_mw": 2**31 - 1,
        "p_mean_mw": 2**31 - 1,
        "p_max_mw": 2**31 - 1,
        "relay": 2,
        "flags": 0x7F,
    }
    feeding: dict[str, Value] = {
        "time_quality": ord("I"),
        "export_mwh": 77,
        "p_min_mw": -900_001,
        "p_mean_mw": -450_000,
        "p_max_mw": -1,
    }
    chosen = [
        ("ordinary", record_fields(1)),
        ("lowest", record_fields(1, lowest)),
        ("highest", record_fields(U32_MAX, highest)),
        ("feeding-in", record_fields(3, feeding)),
    ]
    blocks: list[Block] = []
    for name, fields in chosen:
        frame = pack(fields)
        blocks.append([("case", name), *as_block(fields), ("frame", frame), ("leaf_hash", leaf_hash(frame))])
    return blocks


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data)


def merkle_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 2.1.1, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:]))


def merkle_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*merkle_path(index, leaves[:split]), merkle_root(leaves[split:])]
    return [*merkle_path(index - split, leaves[split:]), merkle_root(leaves[:split])]


def merkle_blocks() -> list[Block]:
    """Leaf i of every tree is the i bytes 0, 1, ... i - 1."""
    blocks: list[Block] = [[("size", 0), ("root", merkle_root([]))]]
    for size in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33):
        leaves = [leaf_hash(bytes(range(i))) for i in range(size)]
        block: Block = [("size", size), ("root", merkle_root(leaves))]
        for index in sorted({0, size // 2, size - 1}):
            block += [("index", index), ("path", b"".join(merkle_path(index, leaves)))]
        blocks.append(block)
    return blocks


def checkpoint_fields(counter: int, previous: bytes, frames: list[bytes], changes: dict[str, Value]) -> list[Field]:
    fields: list[Field] = [
        ("version", 1, 1),
        ("suite", 1, 1),
        ("plug_id", 8, sha256(public_of(PLUG_PRIVATE))[:8]),
        ("boot_id", 4, 7),
        ("counter", 4, counter),
        ("previous", 32, previous),
        ("merkle_root", 32, merkle_root([leaf_hash(f) for f in frames])),
        ("first_sequence", 4, 1),
        ("count", 2, len(frames)),
        ("time_s", 4, 1_767_222_000 + 60 * (len(frames) + 1)),
        ("time_quality", 1, ord("S")),
        ("import_mwh", 8, 1_000_000 + 2_500 * len(frames)),
        ("export_mwh", 8, 0),
        ("firmware_hash", 32, sha256(b"firmware")),
        ("calibration_hash", 32, sha256(b"calibration")),
        ("reason", 1, 1),
    ]
    return [(name, size, changes.get(name, value)) for name, size, value in fields]


def checkpoint_blocks() -> list[Block]:
    """A chain of four: the boot without records, two with records, and the last one with every limit reached."""
    runs = [[], [pack(record_fields(1))], [pack(record_fields(n)) for n in (2, 3, 4)], []]
    changes: list[dict[str, Value]] = [
        {"reason": 2},
        {},
        {"first_sequence": 2, "import_mwh": 1_010_000},
        {
            "boot_id": U32_MAX,
            "counter": U32_MAX,
            "first_sequence": U32_MAX - 192,
            "time_s": U32_MAX,
            "time_quality": ord("U"),
            "import_mwh": REGISTER_MAX,
            "export_mwh": REGISTER_MAX,
            "reason": 9,
        },
    ]
    blocks: list[Block] = []
    previous = bytes(32)
    for index, frames in enumerate(runs):
        fields = checkpoint_fields(index + 1, previous, frames, changes[index])
        body = pack(fields)
        signature = sign(PLUG_PRIVATE, b"wattpact/1/checkpoint\x00" + body)
        previous = sha256(body)
        batch = b"WPB\x01" + len(frames).to_bytes(2, "big") + body + signature + b"".join(frames)
        counter = fields[4][2]
        assert isinstance(counter, int)
        blocks.append(
            [
                ("private", PLUG_PRIVATE),
                ("public", public_of(PLUG_PRIVATE)),
                *as_block(fields),
                ("frame", body + signature),
                ("frame_hash", previous),
                ("batch", batch),
                ("ack", counter.to_bytes(4, "big") + previous),
            ]
        )
    return blocks


def command_blocks() -> list[Block]:
    privates = sorted(SIGNER_PRIVATES, key=lambda private: sha256(public_of(private)))
    ids = [sha256(public_of(private))[:8] for private in privates]
    blocks: list[Block] = []
    for action, hold_s, spread_s, window_s in ((1, 900, 120, 600), (2, 14_400, 3_600, 86_400), (3, 0, 0, 1)):
        fields: list[Field] = [
            ("version", 1, 1),
            ("suite", 1, 1),
            ("network", 32, sha256(b"genesis")),
            ("plug_id", 8, sha256(public_of(PLUG_PRIVATE))[:8]),
            ("counter", 4, action),
            ("action", 1, action),
            ("not_before_s", 4, 1_767_222_900),
            ("expires_s", 4, 1_767_222_900 + window_s),
            ("hold_s", 4, hold_s),
            ("spread_s", 2, spread_s),
            ("reference", 32, sha256(b"contract")),
            ("signer_a", 8, ids[0]),
            ("signer_b", 8, ids[1]),
        ]
        body = pack(fields)
        message = b"wattpact/1/command\x00" + body
        keys: Block = [("public_a", public_of(privates[0])), ("public_b", public_of(privates[1]))]
        frame = body + sign(privates[0], message) + sign(privates[1], message)
        blocks.append([*keys, *as_block(fields), ("frame", frame)])
    return blocks


def statement_blocks() -> list[Block]:
    """One small and one large value of each layout, signed by the plug or, for the time, by a gateway."""
    plug_id = sha256(public_of(PLUG_PRIVATE))[:8]
    head: list[Field] = [("version", 1, 1), ("suite", 1, 1)]
    blocks: list[Block] = []

    def add(layout: str, private: bytes, fields: list[Field]) -> None:
        body = pack([*head, *fields])
        frame = body + sign(private, f"wattpact/1/{layout}\0".encode() + body)
        blocks.append([("layout", layout), ("signer", public_of(private)), *as_block(fields), ("frame", frame)])

    for kind, number, value, large in ((1, 1, 0, 0), (3, U32_MAX, U32_MAX, REGISTER_MAX)):
        event: list[Field] = [("plug_id", 8, plug_id), ("boot_id", 4, value), ("number", 4, number), ("kind", 1, kind)]
        event += [("time_s", 4, value), ("time_quality", 1, 0x53), ("checkpoint", 4, value), ("import_mwh", 8, large)]
        add("event", PLUG_PRIVATE, [*event, ("first", 8, large), ("last", 8, large)])
    for kind, first, last in ((9, 1_772_442_000, 1), (10, U32_MAX, 7)):
        told: list[Field] = [("plug_id", 8, plug_id), ("boot_id", 4, 2), ("number", 4, 5), ("kind", 1, kind)]
        told += [("time_s", 4, 1_772_442_100), ("time_quality", 1, 0x53), ("checkpoint", 4, 9), ("import_mwh", 8, 77)]
        add("event", PLUG_PRIVATE, [*told, ("first", 8, first), ("last", 8, last)])
    for key_class, rated_w in ((3, 1), (1, 100_000)):
        enrolment: list[Field] = [("network", 32, sha256(b"genesis")), ("public", 64, public_of(PLUG_PRIVATE))]
        enrolment += [("key_class", 1, key_class), ("rated_w", 4, rated_w), ("firmware_hash", 32, sha256(b"firmware"))]
        enrolment += [("calibration_hash", 32, sha256(b"calibration")), ("challenge", 16, sha256(b"challenge")[:16])]
        add("enrolment", PLUG_PRIVATE, enrolment)
    for time_s, time_ms in ((0, 0), (U32_MAX, 999)):
        time: list[Field] = [("plug_id", 8, plug_id), ("nonce", 8, sha256(b"nonce")[:8]), ("time_s", 4, time_s)]
        add("time", SIGNER_PRIVATES[0], [*time, ("time_ms", 2, time_ms), ("time_quality", 1, 0x53)])
    return blocks


def bundle_blocks() -> list[Block]:
    privates = sorted(
        (sha256(b"wattpact test vector: release %d" % n) for n in range(3)), key=lambda key: sha256(public_of(key))
    )
    ids = [sha256(public_of(private))[:8] for private in privates]
    files = {"watt_wire/errors.py": b"# errors\n", "watt_plug/app.mpy": bytes(range(200)), "watt_plug/meters/x.py": b""}
    content = b"".join(
        pack([("length", 2, len(name)), ("name", len(name), name.encode()), ("size", 4, len(data))]) + data
        for name, data in files.items()
    )
    blocks: list[Block] = []
    for release, (a, b) in ((1, (0, 1)), (U32_MAX, (0, 2)), (7, (1, 2))):
        fields: list[Field] = [("magic", 4, b"WPM\x01"), ("suite", 1, 1), ("release", 4, release)]
        fields += [("firmware_hash", 32, sha256(content)), ("signer_a", 8, ids[a]), ("signer_b", 8, ids[b])]
        listed: list[Field] = [("count", 1, len(files))]
        for name, data in files.items():
            listed += [("length", 1, len(name)), ("name", len(name), name.encode()), ("size", 4, len(data))]
        body = pack([*fields, *listed])
        message = b"wattpact/1/bundle\0" + body
        block: Block = [("release_key", public_of(private)) for private in privates]
        block += as_block(fields[2:]) + [("file", f"{name} {len(data)}") for name, data in files.items()]
        blocks.append([*block, ("frame", body + sign(privates[a], message) + sign(privates[b], message))])
    return blocks


def signature_blocks() -> list[Block]:
    """Keys and messages at the edges: private keys 1, 2 and n - 1, an empty message, one of many SHA-256 blocks."""
    n = int(NIST256p.order)
    privates = [number.to_bytes(32, "big") for number in (1, 2, n - 1)]
    privates += [sha256(b"wattpact test vector: %d" % number) for number in range(5)]
    messages = [b"", b"\x00", b"abc", bytes(55), bytes(range(64)), b"\xff" * 300, b"wattpact", bytes(1000)]
    blocks: list[Block] = []
    for private, message in zip(privates, messages, strict=True):
        signed: Block = [("message", message), ("signature", sign(private, message))]
        blocks.append([("private", private), ("public", public_of(private)), *signed])
    return blocks


def wycheproof_text() -> str:
    source = HERE / "wycheproof" / "ecdsa_secp256r1_sha256_p1363_test.json"
    document = json.loads(source.read_text())
    lines = [
        "# Project Wycheproof, see NOTICE. One case per line: tcId result public(X||Y) message signature; - is empty.\n"
    ]
    for group in document["testGroups"]:
        assert group["publicKey"]["uncompressed"].startswith("04")
        public = group["publicKey"]["uncompressed"][2:]
        for case in group["tests"]:
            lines.append(f"{case['tcId']} {case['result']} {public} {case['msg'] or '-'} {case['sig'] or '-'}\n")
    assert len(lines) - 1 == document["numberOfTests"]
    return "".join(lines)


def files() -> dict[str, str]:
    """Return every made file: path below tests/vectors -> text."""
    return {
        "record.txt": text("Interval records, WIRE.md section 3.", record_blocks()),
        "merkle.txt": text(
            "Merkle trees, RFC 9162 2.1. Leaf i is the i bytes 0, 1, ... i - 1; a path is its hashes joined.",
            merkle_blocks(),
        ),
        "checkpoint.txt": text(
            "Checkpoints, batches and acknowledgements, WIRE.md sections 4 and 5. A batch's records are those of\n"
            "make_vectors.record_fields with the sequence numbers that the checkpoint names.",
            checkpoint_blocks(),
        ),
        "command.txt": text("Switch commands, WIRE.md section 6.", command_blocks()),
        "statement.txt": text("Events, enrolments and times, WIRE.md section 10.", statement_blocks()),
        "bundle.txt": text("Manifests of firmware bundles, WIRE.md section 11.", bundle_blocks()),
        "signature.txt": text("Deterministic low-s signatures by the ecdsa package.", signature_blocks()),
        "wycheproof/ecdsa_secp256r1_sha256_p1363.txt": wycheproof_text(),
    }


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_text(content)
