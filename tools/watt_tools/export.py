"""Writes DIR/export: the files from which anybody recomputes the run (format: tools/README.md, section Export).

    genesis.bin            as signed by the regulator
    chain-<id>.blocks      every CertifiedBlock, each after its length (u32, big-endian)
    chain-<id>.codes       per block, the codes of its receipts: [code, ...], each after its length
    chain-<id>.state       every state object [key, value] in slot order, each after its length
    leaves.bin             [plug id, checkpoint hash, [record, ...]] of every final checkpoint, each after its length
    statement.json         what it comes to: canonical JSON, derived, recomputed by the verifier
    manifest.json          SHA-256 of every other file: canonical JSON

Invariant: each byte of each file is either signed, hashed by something signed, or recomputed by the verifier.
"""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from watt_chain import codec
from watt_chain.crypto import sha256
from watt_chain.ledger import CorruptionError
from watt_gateway.store import read_final_batches
from watt_node.store import StoreError
from watt_wire import checkpoint

from watt_tools.network import Network
from watt_tools.readout import Readout, read, statement


def write(network: Network, readout: Readout) -> dict[str, Any]:
    """Write the export of `network` from its replayed chains; returns the statement."""
    folder = network.folder / "export"
    fresh = network.folder / "export.new"
    shutil.rmtree(fresh, ignore_errors=True)
    genesis = (network.folder / "genesis.bin").read_bytes()
    stated = write_files(fresh, readout, genesis, _leaves(network, readout), network.description["event"])
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return stated


def write_files(fresh: Path, readout: Readout, genesis: bytes, leaves: Iterable[bytes], event: int) -> dict[str, Any]:
    """Write every file of an export into the new folder `fresh`; returns the statement.

    genesis   the signed file; leaves: encoded [plug id, checkpoint hash, records], ordered by (plug, counter)
    """
    fresh.mkdir()
    (fresh / "genesis.bin").write_bytes(genesis)
    for chain, blocks in readout.blocks.items():
        (fresh / f"chain-{chain}.blocks").write_bytes(_framed(blocks))
        codes: list[list[str]] = [[] for _ in blocks]
        for final in readout.transactions:
            if final.chain == chain:
                codes[final.height - 1].append(final.code)
        (fresh / f"chain-{chain}.codes").write_bytes(_framed(codec.encode(block) for block in codes))
        items = readout.ledgers[chain].state.items()
        (fresh / f"chain-{chain}.state").write_bytes(_framed(codec.encode([key, value]) for key, value in items))
    (fresh / "leaves.bin").write_bytes(_framed(leaves))
    stated = statement(readout, event)
    (fresh / "statement.json").write_bytes(canonical(stated))
    hashes = {path.name: sha256(path.read_bytes()).hex() for path in sorted(fresh.iterdir())}
    (fresh / "manifest.json").write_bytes(canonical({"format": 1, "sha256": hashes}))
    return stated


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no white space, one newline at the end: one value has one spelling."""
    return msgspec.json.encode(value, order="sorted") + b"\n"


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _leaves(network: Network, readout: Readout) -> list[bytes]:
    """Records under every final checkpoint, from the gateways' stores, in the order (plug, counter)."""
    final = readout.checkpoint_hashes()
    found: dict[tuple[bytes, int], bytes] = {}
    for home in network.homes:
        for frame, records in read_final_batches(network.folder / "homes" / home["name"]):
            hash_ = checkpoint.frame_hash(frame)
            if hash_ in final:
                about = checkpoint.decode(frame)
                found[(about.plug_id, about.counter)] = codec.encode([about.plug_id, hash_, records])
    return [found[key] for key in sorted(found)]


def main(folder: Path) -> int:
    """`wattpact export DIR`: exit code 1 with one line when the stores cannot be read."""
    try:
        network = Network(folder, msgspec.json.decode((folder / "network.json").read_bytes()))
        readout = read(folder)
        write(network, readout)
    except (OSError, StoreError, CorruptionError, codec.DecodeError) as error:
        print(f"wattpact export: {error}", file=sys.stderr)
        return 1
    print(f"{folder / 'export'}: written; check it with: wattpact verify {folder}")
    return 0
