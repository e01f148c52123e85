"""The checked-in vectors and the comb table are what their generators make, and WIRE.md says the same sizes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from ecdsa import NIST256p, SigningKey
from ecdsa.rfc6979 import generate_k
from watt_wire import batch, bundle, checkpoint, command, p256, pairing, record, statement, topics

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vectors_are_what_the_second_implementation_makes() -> None:
    for name, content in load(VECTORS / "make_vectors.py").files().items():
        assert (VECTORS / name).read_text() == content, name


def test_the_comb_table_is_what_its_generator_makes() -> None:
    generator = load(ROOT / "tools" / "micropython" / "make_p256_table.py")
    assert generator.TARGET.read_text() == generator.module_text()
    assert (generator.ROWS, generator.COLUMNS) == (p256.COMB_ROWS, p256.COMB_COLUMNS)
    assert len(p256.TABLE) == 63 * 64


def test_the_rfc_6979_file_agrees_with_the_second_implementation() -> None:
    text = (VECTORS / "rfc6979_p256_sha256.txt").read_text()
    blocks = [dict(line.split(" = ") for line in part.splitlines()) for part in text.split("\n\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        digest = hashlib.sha256(bytes.fromhex(block["message"])).digest()
        k = generate_k(int(NIST256p.order), int(block["private"], 16), hashlib.sha256, digest)
        assert k == int(block["k"], 16)
        key = SigningKey.from_string(bytes.fromhex(block["private"]), NIST256p, hashlib.sha256)
        signature = key.sign_digest_deterministic(digest, hashfunc=hashlib.sha256)
        assert signature.hex() == block["r"] + block["s"]
        s = int(block["s"], 16)
        assert int(block["s_low"], 16) == min(s, p256.N - s)


def test_wycheproof_as_published_agrees_with_plain_ecdsa_and_the_strict_rule() -> None:
    document = json.loads((VECTORS / "wycheproof" / "ecdsa_secp256r1_sha256_p1363_test.json").read_text())
    cases = refused = 0
    for group in document["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["uncompressed"])[1:]
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            is_valid = case["result"] == "valid"
            assert p256.verify_ecdsa(public, message, signature) == is_valid, case["tcId"]
            is_high = is_valid and int.from_bytes(signature[32:], "big") > p256.N // 2
            assert p256.verify(public, message, signature) == (is_valid and not is_high), case["tcId"]
            cases += 1
            refused += is_high
    assert cases == document["numberOfTests"] == 262
    assert refused > 0


@pytest.mark.parametrize(
    ("heading", "size"),
    [
        ("Record", record.SIZE),
        ("Checkpoint body", checkpoint.BODY_SIZE),
        ("Command body", command.BODY_SIZE),
        ("Event body", statement.EVENT.body_size),
        ("Enrolment body", statement.ENROLMENT.body_size),
        ("Time body", statement.TIME.body_size),
    ],
)
def test_the_offset_tables_of_wire_md_add_up(heading: str, size: int) -> None:
    text = (ROOT / "firmware" / "WIRE.md").read_text()
    table = text.split(f"Table: {heading}\n", 1)[1].lstrip("\n").split("\n\n", 1)[0]
    offset = 0
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert int(cells[0]) == offset, line
        offset += int(cells[1])
    assert offset == size


def test_the_limits_in_wire_md_are_those_of_the_code() -> None:
    text = (ROOT / "firmware" / "WIRE.md").read_text()
    limits = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE))
    assert limits == {
        "RECORD_SIZE": str(record.SIZE),
        "CHECKPOINT_SIZE": str(checkpoint.SIZE),
        "COMMAND_SIZE": str(command.SIZE),
        "ACK_SIZE": str(batch.ACK_SIZE),
        "RECORDS_MAX": str(checkpoint.COUNT_MAX),
        "BATCH_SIZE_MAX": str(batch.SIZE_MAX),
        "DURATION_S_MAX": str(record.DURATION_S_MAX),
        "WINDOW_S_MAX": str(command.WINDOW_S_MAX),
        "HOLD_S_MAX": str(command.HOLD_S_MAX),
        "SPREAD_S_MAX": str(command.SPREAD_S_MAX),
        "NAME_LENGTH_MAX": str(topics.NAME_LENGTH_MAX),
        "NODE_MAX": str(topics.NODE_MAX),
        "MANIFEST_SIZE_MAX": str(bundle.MANIFEST_SIZE_MAX),
        "FILES_MAX": str(bundle.FILES_MAX),
        "FILE_SIZE_MAX": str(bundle.FILE_SIZE_MAX),
        "TOTAL_SIZE_MAX": str(bundle.TOTAL_SIZE_MAX),
        "PATH_LENGTH_MAX": str(bundle.PATH_LENGTH_MAX),
        "FRAGMENT_MAX": str(pairing.FRAGMENT_MAX),
        "MESSAGE_MAX": str(pairing.MESSAGE_MAX),
    }
