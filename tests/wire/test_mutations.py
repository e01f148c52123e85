"""No frame survives a changed byte: every position of every kind of frame, nine ways, with OpenSSL verifying.

Whatever the change hits, the answer is a DecodeError or a refused signature, never another exception and never a
frame that is taken for the original.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from watt_wire import batch, checkpoint, command, merkle, p256, record
from watt_wire.errors import DecodeError

XORS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF)
VECTORS = Path(__file__).resolve().parents[1] / "vectors"


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """The wire's strict rule on top of OpenSSL; the pure Python one would take minutes here."""
    if not p256.is_low_s(signature):
        return False
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
    parts = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(encode_dss_signature(*parts), message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def golden(file: str, number: int) -> dict[str, bytes]:
    """The byte fields of one block of a vector file."""
    texts = [part for part in (VECTORS / file).read_text().split("\n\n") if not part.startswith("#")]
    pairs = (line.split(" =", 1) for line in texts[number].splitlines())
    return {name: bytes.fromhex(value) for name, value in pairs if len(value.strip()) % 2 == 0}


def mutants(frame: bytes) -> list[bytes]:
    return [
        frame[:position] + bytes([frame[position] ^ xor]) + frame[position + 1 :]
        for position in range(len(frame))
        for xor in XORS
    ]


def survivors(frames: list[bytes], is_accepted: Callable[[bytes], bool]) -> list[bytes]:
    return [frame for frame in frames if is_accepted(frame)]


@pytest.mark.row("E6", "E7")
def test_a_batch_with_any_byte_changed_is_refused() -> None:
    block = golden("checkpoint.txt", 2)

    def is_accepted(data: bytes) -> bool:
        try:
            batch.accept(data, block["public"], verify)
        except DecodeError:
            return False
        return True

    assert is_accepted(block["batch"])
    assert len(batch.decode(block["batch"])[1]) == 3
    assert survivors(mutants(block["batch"]), is_accepted) == []


@pytest.mark.row("E6", "E7")
def test_a_checkpoint_with_any_byte_changed_is_refused() -> None:
    block = golden("checkpoint.txt", 1)

    def is_accepted(frame: bytes) -> bool:
        try:
            checkpoint.decode(frame)
        except DecodeError:
            return False
        message = checkpoint.signing_message(checkpoint.body_of(frame))
        return verify(block["public"], message, checkpoint.signature_of(frame))

    assert is_accepted(block["frame"])
    assert survivors(mutants(block["frame"]), is_accepted) == []


def test_a_command_with_any_byte_changed_is_refused() -> None:
    block = golden("command.txt", 0)

    def is_accepted(frame: bytes) -> bool:
        return command.verify(frame, block["public_a"], block["public_b"], verify)

    assert is_accepted(block["frame"])
    assert survivors(mutants(block["frame"]), is_accepted) == []


@pytest.mark.row("E3")
def test_a_record_with_any_byte_changed_has_no_proof_under_the_signed_root() -> None:
    block = golden("checkpoint.txt", 2)
    frame, frames = batch.decode(block["batch"])
    root = checkpoint.decode(frame).merkle_root
    path = merkle.proof([merkle.leaf_hash(item) for item in frames], 1)

    def is_accepted(changed: bytes) -> bool:
        return merkle.verify_proof(merkle.leaf_hash(changed), 1, len(frames), path, root)

    assert is_accepted(frames[1])
    assert survivors(mutants(frames[1]), is_accepted) == []


def test_a_signature_of_one_kind_of_frame_is_worth_nothing_on_another() -> None:
    private = golden("checkpoint.txt", 1)["private"]
    body = golden("checkpoint.txt", 1)["frame"][: checkpoint.BODY_SIZE]
    public = golden("checkpoint.txt", 1)["public"]
    for message in (body, command.signing_message(body), b"wattpact/1/tx\x00" + body):
        assert not verify(public, checkpoint.signing_message(body), p256.sign(private, message))


def test_a_signed_batch_whose_records_break_the_run_is_refused() -> None:
    """Even the plug's own key cannot make a batch with a foreign, missing, repeated or falling record."""
    block = golden("checkpoint.txt", 2)
    frame, frames = batch.decode(block["batch"])

    def resigned(items: list[record.Record], **changes: int) -> bytes:
        encoded = [record.encode(item) for item in items]
        item = checkpoint.decode(frame)
        item.merkle_root = merkle.root([merkle.leaf_hash(one) for one in encoded])
        item.count = len(encoded)
        for name, value in changes.items():
            setattr(item, name, value)
        body = checkpoint.encode(item)
        signature = p256.sign(block["private"], checkpoint.signing_message(body))
        return batch.encode(checkpoint.seal(body, signature), encoded)

    def run() -> list[record.Record]:
        return [record.decode(one) for one in frames]

    batch.accept(resigned(run()), block["public"], verify)
    foreign, skipped, falling, exporting = run(), run(), run(), run()
    foreign[1].plug_id = bytes(8)
    skipped[2].sequence += 1
    falling[2].import_mwh = falling[1].import_mwh - 1
    exporting[0].export_mwh = 1
    below = run()[-1].import_mwh - 1
    for data, reason in (
        (resigned(foreign), "batch-plug"),
        (resigned(skipped), "batch-sequence"),
        (resigned(run()[::-1]), "batch-sequence"),
        (resigned(falling), "batch-register"),
        (resigned(exporting), "batch-register"),
        (resigned(run(), import_mwh=below), "batch-register"),
        (resigned(run(), count=2), "batch-count"),
    ):
        with pytest.raises(DecodeError) as caught:
            batch.accept(data, block["public"], verify)
        assert caught.value.reason == reason
