"""Everybody conspires and signs everything anew: what the verifier then still finds, it finds by the documents' rules.

Each case changes the end of area 1 (after its last inbox) or of the main chain in a way that no contract would have
accepted, with every hash, root, certificate and signature genuine.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import verify_world as vw
from msgspec.msgpack import decode, encode
from verify_export import OUTBOX_ROOT, TIME, Tree, Tx, open_tree, root
from watt_chain import codec
from watt_chain.crypto import PrivateKey, sha256
from watt_tools import verify
from watt_wire import checkpoint

FRAME_BODY = 174


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return vw.export(*vw.play(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def keys() -> dict[bytes, PrivateKey]:
    """Every private key of the network in memory, by public key."""
    master = vw.load_master_world()
    numbers = [1, 2, 3, *range(100, 124), *range(1001, 1005), *range(1501, 1505)]
    return {key.public: key for key in map(master.key, numbers)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> vw.Folder:
    return vw.Folder(tmp_path_factory.mktemp("export") / "export")


def calls(tree: Tree, chain: int, kind: str) -> list[Tx]:
    return [tx for block in tree.chains[chain].blocks for tx in block.txs if tx.kind == kind]


def last_checkpoint(tree: Tree, keys: dict[bytes, PrivateKey], change: Callable[[bytearray], None]) -> None:
    """Change the body of area 1's last checkpoint; the plug signs it, and its leaves follow."""
    tx = calls(tree, 1, "Checkpoint")[-1]
    body = bytearray(tx.fields[0][:FRAME_BODY])
    old = sha256(bytes(body))
    change(body)
    plug = next(key for key in keys.values() if sha256(key.public)[:8] == body[2:10])
    tx.fields[0] = bytes(body) + plug.sign(checkpoint.signing_message(bytes(body)))
    leaf = next(leaf for leaf in tree.leaves if leaf[1] == old)
    leaf[1] = sha256(bytes(body))


def last_records(tree: Tree, keys: dict[bytes, PrivateKey], change: Callable[[list[bytes]], None]) -> None:
    """Change the records under that checkpoint; root and signature follow."""
    hash_ = sha256(calls(tree, 1, "Checkpoint")[-1].fields[0][:FRAME_BODY])
    frames = next(leaf for leaf in tree.leaves if leaf[1] == hash_)[2]
    change(frames)
    last_checkpoint(tree, keys, lambda body: body.__setitem__(slice(50, 82), root(frames)))


def set_at(at: int, size: int, value: int) -> Callable[[bytearray], None]:
    return lambda body: body.__setitem__(slice(at, at + size), value.to_bytes(size, "big"))


def skip_numbers(frames: list[bytes]) -> None:
    frames[:] = [
        frame[:9] + struct.pack(">I", struct.unpack(">I", frame[9:13])[0] + 1) + frame[13:] for frame in frames
    ]


def fall_back(frames: list[bytes]) -> None:
    frames[0] = frames[0][:20] + frames[1][20:28] + frames[0][28:]
    frames[1] = frames[1][:20] + bytes(8) + frames[1][28:]


def early_first(tree: Tree, keys: dict[bytes, PrivateKey]) -> None:
    first = struct.unpack(">I", calls(tree, 1, "Checkpoint")[-1].fields[0][82:86])[0] + 1
    last_records(tree, keys, skip_numbers)
    last_checkpoint(tree, keys, set_at(82, 4, first))


def other_owner(tree: Tree) -> None:
    """The seller's last checkpoint comes from the buyer, with the right nonces of both."""
    first, second = calls(tree, 1, "Checkpoint")[-2:]
    first.payload[3], second.payload[3] = second.payload[3], first.payload[3]


def last_nonce(tree: Tree) -> None:
    calls(tree, 1, "Checkpoint")[-1].payload[2] += 1


def other_chain(tree: Tree) -> None:
    calls(tree, 1, "Checkpoint")[-1].payload[1] = 2


def time_back(tree: Tree) -> None:
    tree.chains[1].blocks[-1].header[TIME] = 1


def wrong_path(tree: Tree) -> None:
    entry = calls(tree, 1, "Inbox")[-1].fields[3][0]
    entry[2] = [bytes(32), *entry[2][1:]]


def last_message(tree: Tree) -> tuple[Any, Tx]:
    """The area block that reported the close of its event, and its anchor."""
    block = next(b for b in tree.chains[1].blocks if any(tx.kind == "Points" for tx in b.txs))
    return block, next(tx for tx in calls(tree, 0, "Anchor") if tx.fields[0] == block.original)


def wrong_sequence(tree: Tree) -> None:
    block, anchor = last_message(tree)
    message = decode(anchor.fields[2][0])
    message[2] += 1
    anchor.fields[2][0] = encode(message)
    block.header[OUTBOX_ROOT] = root(anchor.fields[2])


def hidden_message(tree: Tree) -> None:
    last_message(tree)[1].fields[2].clear()


def anchored_twice(tree: Tree) -> None:
    block = tree.chains[0].blocks[-1]
    last = calls(tree, 0, "Anchor")[-1]
    block.txs.append(Tx([*last.payload[:2], last.payload[2] + 1, list(last.fields)], last.signer, b""))
    tree.chains[0].codes[-1].append("")


def not_anchored(tree: Tree) -> None:
    _, anchor = last_message(tree)
    for block, codes in zip(tree.chains[0].blocks, tree.chains[0].codes, strict=True):
        if anchor in block.txs and len(block.txs) > 1:
            codes.pop(block.txs.index(anchor))
            block.txs.remove(anchor)
    later = [tx for tx in calls(tree, 0, "Anchor") if tx.signer == anchor.signer and tx.payload[2] > anchor.payload[2]]
    for tx in later:
        tx.payload[2] -= 1


def cases() -> Iterator[tuple[str, Callable[[Tree, dict[bytes, PrivateKey]], None], str]]:
    """(name, what the conspiracy does, words of the problem)."""
    yield "a nonce is left out", lambda t, k: last_nonce(t), "nonce"
    yield "a transaction for another chain", lambda t, k: other_chain(t), "chain"
    yield "time runs backwards", lambda t, k: time_back(t), "time runs backwards"
    yield "a path of a message", lambda t, k: wrong_path(t), "not under its root"
    yield "a message out of sequence", lambda t, k: wrong_sequence(t), "not the next of its chain"
    yield "a message is hidden", lambda t, k: hidden_message(t), "not all that the area's block sent"
    yield "a block anchored twice", lambda t, k: anchored_twice(t), "for the second time"
    yield "a block not anchored", lambda t, k: not_anchored(t), "is not anchored"
    yield "another household's plug", lambda t, k: other_owner(t), "another household"
    yield "a checkpoint's version", lambda t, k: last_checkpoint(t, k, set_at(0, 1, 2)), "version"
    yield "a checkpoint's counter", lambda t, k: last_checkpoint(t, k, set_at(14, 4, 1)), "does not follow"
    yield "a checkpoint's previous", lambda t, k: last_checkpoint(t, k, set_at(18, 32, 7)), "does not follow"
    yield "a register that falls", lambda t, k: last_checkpoint(t, k, set_at(93, 8, 1)), "does not follow"
    yield "a number of a record", lambda t, k: last_records(t, k, skip_numbers), "sequence of a record"
    yield "a register that falls in a record", lambda t, k: last_records(t, k, fall_back), "a register fell"
    yield "records left out between checkpoints", early_first, "records are missing"


CASES = list(cases())


@pytest.mark.row("E7", "E22")
@pytest.mark.parametrize(("name", "change", "words"), CASES, ids=[name for name, _, _ in CASES])
def test_what_no_contract_accepts_is_found_although_everybody_signed_it(
    files: dict[str, bytes], keys: dict[bytes, PrivateKey], folder: vw.Folder, name: str, change: Any, words: str
) -> None:
    tree = open_tree(files)
    change(tree, keys)
    problems = verify.verify(folder.write(tree.signed(keys)), vw.load_master_world().REGULATOR.public)
    assert problems and any(words in problem for problem in problems), problems


def test_signing_an_honest_export_anew_changes_nothing(files: dict[str, bytes], keys: dict[bytes, PrivateKey]) -> None:
    assert open_tree(files).signed(keys) == files


def test_one_key_in_two_seats_is_refused(
    files: dict[str, bytes], folder: vw.Folder, keys: dict[bytes, PrivateKey]
) -> None:
    tree = open_tree(files)
    tree.genesis[5][1][1] = tree.genesis[5][0][1]
    body = encode(tree.genesis)
    tree.signature = keys[tree.genesis[2]].sign(codec.signing_bytes(b"genesis", codec.ZERO32, body))
    problems = verify.verify(folder.write(tree.forged()), tree.genesis[2])
    assert problems == ["genesis.bin: a validator has two seats"], problems


def test_the_folder_of_the_tests_is_the_one_that_is_read(folder: vw.Folder, files: dict[str, bytes]) -> None:
    path = folder.write(files)
    assert {entry.name for entry in Path(path).iterdir()} == files.keys()
