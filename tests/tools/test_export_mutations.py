"""Every field of every record of a small export is changed, by an attacker who recomputes what needs no key.

The export is a whole event of two homes in one area, made by the real ledgers. A change is one leaf of one decoded
record (an integer plus one, one bit of a byte string, a longer text, a flipped truth value), and it is played twice.
First only the manifest is repaired: the change must be found and its file named. Then the attacker also repairs
everything that is only a hash (transaction, receipt and state roots, the links down the chain): what is left for the
verifier are signatures and the recomputed money, and the change must still be found, in whichever file it comes out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contract_world import AGGREGATOR, GRID, REGULATOR, Home, Plan, Play, World
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Receipt, decode_certified
from watt_chain.contract.event import State
from watt_chain.crypto import sha256
from watt_chain.genesis import sign_genesis
from watt_chain.transaction import decode_transaction, txid
from watt_tools import export, verify
from watt_tools.readout import Final, Readout
from watt_wire import merkle, record

msgpack = msgspec.msgpack
RECORDS = 2
RECORD_S = 450


class MeteredHome(Home):
    """A home whose checkpoints carry two records each."""

    def checkpoint(self, time_s: int, add_mwh: int = 0, **changes: object) -> bytes:
        first = self.counter * RECORDS + 1
        frames = [
            record.encode(
                record.Record(
                    self.plug_id, first + n, time_s - RECORD_S * (RECORDS - n), RECORD_S, ord("S"),
                    self.register_mwh + add_mwh * (n + 1) // RECORDS, 0,
                    *(230_000,) * 3, *(1_000,) * 3, *(230_000,) * 3, 1, 0,
                )
            )
            for n in range(RECORDS)
        ]  # fmt: skip
        root = merkle.root([merkle.leaf_hash(frame) for frame in frames])
        about = {"merkle_root": root, "first_sequence": first, "count": RECORDS, **changes}
        signed = super().checkpoint(time_s, add_mwh, **about)
        self.__dict__.setdefault("leaves", []).append(codec.encode([self.plug_id, self.previous, frames]))
        return signed


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of one event of two homes."""
    world = World(areas=1, homes=[MeteredHome(0, 1), MeteredHome(1, 1)])
    seller, buyer = world.homes
    plans = [
        Plan(seller, "sell", 300, [50, 50, 50, 50], [110, 110, 110, 110]),
        Plan(buyer, "buy", 900, [60, 60, 60, 60], [210, 210, 210, 210]),
    ]
    Play(world, plans).run(State.CLOSED)
    readout = Readout(world.genesis, world.network, dict(world.ledgers), {}, [])
    for chain, ledger in world.ledgers.items():
        certified = [ledger.certified(height) for height in range(1, ledger.head.height + 1)]
        readout.blocks[chain] = [one for one in certified if one is not None]
        assert len(readout.blocks[chain]) == ledger.head.height
        for applied, _, _ in world.applied[chain]:
            _, body, header, _ = decode_certified(readout.blocks[chain][applied.header.height - 1])
            for raw, receipt in zip(body.transactions, applied.receipts, strict=True):
                code = receipt.code if isinstance(receipt, Receipt) else codec.decode(receipt, Receipt).code
                readout.transactions.append(Final(chain, header.height, decode_transaction(raw), code))
    homes = sorted(world.homes, key=lambda home: home.plug_id)
    leaves = [leaf for home in homes for leaf in home.__dict__["leaves"]]
    folder = tmp_path_factory.mktemp("small") / "export"
    export.write_files(folder, readout, sign_genesis(world.genesis, REGULATOR), leaves, 1)
    return folder


@pytest.fixture(scope="module", autouse=True)
def remembered() -> Iterator[None]:
    """One memory of signature checks for all changes: most of them repeat those of the clean export."""
    known: dict[Any, bool] = {}
    real = verify.check

    def check(claim: Any) -> bool:
        if claim not in known:
            known[claim] = real(claim)
        return known[claim]

    patch = pytest.MonkeyPatch()
    patch.setattr(verify, "check", check)
    yield
    patch.undo()


def problems_of(folder: Path) -> list[str]:
    return verify.verify(folder, REGULATOR.public)


def test_the_clean_export_holds(small: Path) -> None:
    assert problems_of(small) == []


# Changing one leaf


def changes(value: Any, rebuild: Callable[[Any], Any], where: str) -> Iterator[tuple[str, Any]]:
    """Every version of the whole record with one leaf changed; encoded structures inside byte strings are opened."""
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from changes(item, lambda new, at=at: rebuild([*value[:at], new, *value[at + 1 :]]), f"{where}.{at}")
        return
    if isinstance(value, bytes) and len(value) > 8:
        inner = opened(value)
        if inner is not None:
            yield from changes(inner, lambda new: rebuild(msgpack.encode(new)), where)
            return
    yield where, rebuild(changed(value))


def opened(value: bytes) -> list[Any] | None:
    """The array in a byte string that is exactly one canonical array, else None."""
    try:
        inner = msgpack.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return inner if isinstance(inner, list) and inner and msgpack.encode(inner) == value else None


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"\0"
    assert value is None
    return 0


def parts_of(path: Path) -> list[bytes]:
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        size = struct.unpack_from(">I", data, at)[0]
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def framed(parts: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


# The attacker


class Attacker:
    """Holds no key; repairs every hash after a change. `files` is the export as it will be written."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.network = sha256(msgpack.decode(self.files["genesis.bin"])[0])

    def repair_chain(self, folder: Path, chain: int, parts: list[bytes]) -> None:
        """Make roots, links and the last state root agree with what the blocks now hold."""
        codes = [msgpack.decode(part) for part in parts_of(folder / f"chain-{chain}.codes")]
        states = [merkle.leaf_hash(part) for part in parts_of(folder / f"chain-{chain}.state")]
        previous, repaired = self.network, []
        for height, part in enumerate(parts, start=1):
            body, certificate = msgpack.decode(part)
            header_bytes, txs = msgpack.decode(body)
            header = msgpack.decode(header_bytes)
            header[3] = previous
            header[8] = merkle.root([merkle.leaf_hash(tx) for tx in txs])
            receipts = [codec.encode([txid(tx), code]) for tx, code in zip(txs, codes[height - 1], strict=True)]
            header[9] = merkle.root([merkle.leaf_hash(receipt) for receipt in receipts])
            if height == len(parts):
                header[10] = merkle.root(states)
            header_bytes = msgpack.encode(header)
            previous = blocks.block_hash(self.network, header_bytes)
            repaired.append(msgpack.encode([msgpack.encode([header_bytes, txs]), certificate]))
        self.files[f"chain-{chain}.blocks"] = framed(repaired)

    def write(self, folder: Path) -> None:
        hashes = {name: sha256(data).hex() for name, data in sorted(self.files.items()) if name != "manifest.json"}
        self.files["manifest.json"] = export.canonical({"format": 1, "sha256": hashes})
        folder.mkdir(exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


def assert_named(folder: Path, file: str, what: str) -> None:
    problems = problems_of(folder)
    assert problems, f"{file}: the change of {what} was not found"
    # A chain's blocks, codes and state are one record in three files: the chain is what must be named.
    stem = file.split(".")[0]
    named = any(stem in problem or stem.replace("-", " ") in problem for problem in problems)
    assert named, f"{file}: {what} is reported elsewhere: {problems[:2]}"


@pytest.mark.timeout(400)
@pytest.mark.row("E1", "E2", "E3", "E4", "E22")
@pytest.mark.parametrize("chain", [0, 1])
def test_every_field_of_every_block(small: Path, tmp_path: Path, chain: int) -> None:
    name = f"chain-{chain}.blocks"
    parts = parts_of(small / name)
    count = 0
    for at, part in enumerate(parts):
        for where, new in changes(msgpack.decode(part), lambda value: value, f"block {at + 1}"):
            encoded = msgpack.encode(new)
            if encoded == part:
                continue
            changed_parts = [*parts[:at], encoded, *parts[at + 1 :]]
            attacker = Attacker(small)
            attacker.files[name] = framed(changed_parts)
            attacker.write(tmp_path / "x")
            assert_named(tmp_path / "x", name, where)
            try:
                attacker.repair_chain(small, chain, changed_parts)
            except (ValueError, TypeError, AttributeError, msgspec.MsgspecError, codec.DecodeError):
                continue  # what no longer parses cannot be repaired
            if attacker.files[name] != (small / name).read_bytes():  # else the field is itself such a hash
                attacker.write(tmp_path / "x")
                assert problems_of(tmp_path / "x"), f"{name}: {where}, with every hash repaired"
            count += 1
    assert count > 300


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["chain-0.state", "chain-1.state", "chain-0.codes", "chain-1.codes", "leaves.bin"])
def test_every_field_of_every_other_record(small: Path, tmp_path: Path, name: str) -> None:
    parts = parts_of(small / name)
    for at, part in enumerate(parts):
        for where, new in changes(msgpack.decode(part), lambda value: value, f"item {at}"):
            attacker = Attacker(small)
            attacker.files[name] = framed([*parts[:at], msgpack.encode(new), *parts[at + 1 :]])
            attacker.write(tmp_path / "x")
            assert_named(tmp_path / "x", name, where)
            if name.startswith("chain"):
                chain = int(name[6])
                attacker.repair_chain(tmp_path / "x", chain, parts_of(small / f"chain-{chain}.blocks"))
                attacker.write(tmp_path / "x")
                assert problems_of(tmp_path / "x"), f"{name}: {where}, with every hash repaired"


def test_every_field_of_the_genesis_file(small: Path, tmp_path: Path) -> None:
    for where, new in changes(msgpack.decode((small / "genesis.bin").read_bytes()), lambda value: value, "genesis"):
        attacker = Attacker(small)
        attacker.files["genesis.bin"] = msgpack.encode(new)
        attacker.write(tmp_path / "x")
        assert problems_of(tmp_path / "x"), where


def test_every_field_of_the_statement_and_the_manifest(small: Path, tmp_path: Path) -> None:
    def walk(value: Any, rebuild: Callable[[Any], Any], where: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key in value:
                yield from walk(value[key], lambda new, key=key: rebuild({**value, key: new}), f"{where}.{key}")
        elif isinstance(value, list):
            for at in range(len(value)):
                yield from walk(
                    value[at], lambda new, at=at: rebuild([*value[:at], new, *value[at + 1 :]]), f"{where}.{at}"
                )
        else:
            yield where, rebuild(changed(value))

    for name in ("statement.json", "manifest.json"):
        clean = msgspec.json.decode((small / name).read_bytes())
        for where, new in walk(clean, lambda value: value, name):
            attacker = Attacker(small)
            attacker.files[name] = export.canonical(new)
            attacker.write(tmp_path / "x")
            if name == "manifest.json":
                (tmp_path / "x" / name).write_bytes(export.canonical(new))
            problems = problems_of(tmp_path / "x")
            assert problems, where


# Larger lies


def test_a_network_of_the_attackers_own_is_found(small: Path) -> None:
    assert verify.verify(small, AGGREGATOR.public)
    assert any("genesis" in problem for problem in verify.verify(small, GRID.public))


@pytest.mark.parametrize("chain", [0, 1])
def test_a_missing_last_block_is_found(small: Path, tmp_path: Path, chain: int) -> None:
    attacker = Attacker(small)
    for kind in ("blocks", "codes"):
        attacker.files[f"chain-{chain}.{kind}"] = framed(parts_of(small / f"chain-{chain}.{kind}")[:-1])
    attacker.write(tmp_path / "x")
    assert problems_of(tmp_path / "x")


def test_a_dropped_or_doubled_vote_is_found(small: Path, tmp_path: Path) -> None:
    parts = parts_of(small / "chain-1.blocks")
    body, certificate = msgpack.decode(parts[4])
    view, votes = msgpack.decode(certificate)
    for lie in (votes[:-1], [votes[0], votes[0]], votes[::-1]):
        attacker = Attacker(small)
        forged = msgpack.encode([body, msgpack.encode([view, lie])])
        attacker.files["chain-1.blocks"] = framed([*parts[:4], forged, *parts[5:]])
        attacker.write(tmp_path / "x")
        assert_named(tmp_path / "x", "chain-1.blocks", f"{len(lie)} votes")


def test_records_that_were_left_out_are_found(small: Path, tmp_path: Path) -> None:
    parts = parts_of(small / "leaves.bin")
    for at in range(len(parts)):
        attacker = Attacker(small)
        attacker.files["leaves.bin"] = framed(parts[:at] + parts[at + 1 :])
        attacker.write(tmp_path / "x")
        assert_named(tmp_path / "x", "leaves.bin", f"item {at}")


def test_any_bytes_at_all_are_answered_with_problems(small: Path, tmp_path: Path) -> None:
    for name in ("genesis.bin", "chain-1.blocks", "leaves.bin", "statement.json", "manifest.json", "chain-0.state"):
        for junk in (
            b"",
            b"\xc1",
            b"\xff" * 40,
            b"\0\0\0\1",
            b"{}\n",
            b"\x90" * 3000,
            b"\0\0\x0b\xb8" + b"\x91" * 3000,
        ):
            attacker = Attacker(small)
            attacker.files[name] = junk
            if name != "genesis.bin":
                attacker.write(tmp_path / "x")
            (tmp_path / "x").mkdir(exist_ok=True)
            (tmp_path / "x" / name).write_bytes(junk)
            assert problems_of(tmp_path / "x"), (name, junk[:4])
