"""An export taken apart down to its fields, and put together again with every hash that needs no key.

`Tree.files()` encodes as it stands (only the manifest fits); `Tree.forged()` first does what an attacker can do: ids,
roots of transactions, receipts and state, hashes of blocks down each chain, the network's name, the statement's hashes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import verify_world as vw
from msgspec.msgpack import decode, encode
from watt_chain import codec
from watt_chain.crypto import PrivateKey, sha256
from watt_tools.export import canonical
from watt_wire import merkle

PREVIOUS, TIME, TX_ROOT, RECEIPT_ROOT, STATE_ROOT, OUTBOX_ROOT, TX_COUNT = 3, 6, 8, 9, 10, 11, 14


@dataclass
class Tx:
    """A transaction; `payload` is [kind, chain, nonce, fields]."""

    payload: list[Any]
    signer: bytes
    signature: bytes

    @property
    def kind(self) -> str:
        return str(self.payload[0])

    @property
    def fields(self) -> list[Any]:
        fields: list[Any] = self.payload[3]
        return fields

    def bytes(self) -> bytes:
        return encode([encode(self.payload), self.signer, self.signature])

    def id(self) -> bytes:
        return sha256(b"\0" + encode(self.payload) + self.signer)


@dataclass
class Block:
    """A certified block; `certificate` is [view, [[seat, signature], ...]]."""

    header: list[Any]
    txs: list[Tx]
    certificate: list[Any]
    original: bytes = b""
    "The header as it was read."

    def bytes(self) -> bytes:
        block = encode([encode(self.header), [tx.bytes() for tx in self.txs]])
        return encode([block, encode(self.certificate)])


@dataclass
class Chain:
    """Blocks, receipts' codes and state objects [key, value]."""

    blocks: list[Block]
    codes: list[list[str]]
    state: list[list[Any]]


@dataclass
class Tree:
    """A whole export."""

    genesis: list[Any]
    signature: bytes
    chains: dict[int, Chain]
    leaves: list[list[Any]]
    statement: dict[str, Any]
    manifest: dict[str, Any] = field(default_factory=dict)

    def block(self, chain: int, height: int) -> Block:
        return self.chains[chain].blocks[height - 1]

    def files(self) -> dict[str, bytes]:
        """The export as it stands, with a manifest that fits it."""
        files = {"genesis.bin": encode([encode(self.genesis), self.signature])}
        for number, chain in self.chains.items():
            files[f"chain-{number}.blocks"] = vw.framed(block.bytes() for block in chain.blocks)
            files[f"chain-{number}.codes"] = vw.framed(encode(codes) for codes in chain.codes)
            files[f"chain-{number}.state"] = vw.framed(encode([key, encode(value)]) for key, value in chain.state)
        files["leaves.bin"] = vw.framed(encode(item) for item in self.leaves)
        files["statement.json"] = canonical(self.statement)
        return vw.with_manifest(files)

    def forged(self, keep: int | None = None) -> dict[str, bytes]:
        """The export after everything that needs no key was made to fit.

        keep   number of a header field that stays as it is although it could be made to fit
        """
        network = sha256(encode(self.genesis))
        self.statement["network"] = network.hex() if network != self.network else self.statement["network"]
        for number, chain in self.chains.items():
            previous = network
            for height, block in enumerate(chain.blocks, 1):
                ids = [encode([tx.id(), code]) for tx, code in zip(block.txs, self._codes(chain, height), strict=False)]
                made = {
                    PREVIOUS: previous,
                    TX_ROOT: root([tx.bytes() for tx in block.txs]),
                    RECEIPT_ROOT: root(ids),
                    TX_COUNT: len(block.txs),
                }
                if height == len(chain.blocks):
                    made[STATE_ROOT] = root([encode([key, encode(value)]) for key, value in chain.state])
                for position, value in made.items():
                    if position != keep:
                        block.header[position] = value
                previous = sha256(b"wattpact/1/header\0" + network + encode(block.header))
            if str(number) in self.statement["chains"] and chain.blocks:
                self.statement["chains"][str(number)] = {"height": len(chain.blocks), "hash": previous.hex()}
        return self.files()

    def signed(self, keys: dict[bytes, PrivateKey], keep: int | None = None) -> dict[str, bytes]:
        """As `forged`, by a conspiracy of everybody: `keys` has every private key, and all is signed anew.

        Areas come before the main chain, whose anchors follow them; so change an area after its last inbox only.
        """
        certified: dict[bytes, tuple[bytes, bytes]] = {}
        seats = {0: [key for _, key in self.genesis[5]], **{a[0]: [key for _, key in a[2]] for a in self.genesis[6]}}
        for number in (1, 2, 0):
            for block in self.chains[number].blocks:
                for tx in block.txs:
                    if tx.kind == "Anchor" and tx.fields[0] in certified:
                        tx.fields[0], tx.fields[1] = certified[tx.fields[0]]
                    message = codec.signing_bytes(b"tx", self.network, encode(tx.payload))
                    tx.signature = keys[tx.signer].sign(message)
            self.forged(keep)
            for block in self.chains[number].blocks:
                header = encode(block.header)
                hash_ = sha256(b"wattpact/1/header\0" + self.network + header)
                vote = encode(["commit", number, block.header[2], block.header[5], hash_])
                signer = [keys[key] for key in seats[number][:3]]
                votes = [
                    [seat, key.sign(codec.signing_bytes(b"vote", self.network, vote))]
                    for seat, key in enumerate(signer)
                ]
                block.certificate = [block.header[5], votes]
                if header != block.original:
                    certified[block.original] = (header, encode(block.certificate))
        return self.files()

    network: bytes = b""

    @staticmethod
    def _codes(chain: Chain, height: int) -> list[str]:
        return chain.codes[height - 1] if height <= len(chain.codes) else []


def root(items: list[bytes]) -> bytes:
    return bytes(merkle.root([merkle.leaf_hash(item) for item in items]))


def parts(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack_from(">I", data, at)[0]
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def open_tx(data: bytes) -> Tx:
    payload, signer, signature = decode(data)
    return Tx(decode(payload), signer, signature)


def open_block(data: bytes) -> Block:
    block, certificate = decode(data)
    header, txs = decode(block)
    return Block(decode(header), [open_tx(tx) for tx in txs], decode(certificate), header)


def open_tree(files: dict[str, bytes]) -> Tree:
    """Take an export apart."""
    body, signature = decode(files["genesis.bin"])
    chains = {}
    for number in (0, 1, 2):
        blocks = [open_block(part) for part in parts(files[f"chain-{number}.blocks"])]
        codes = [decode(part) for part in parts(files[f"chain-{number}.codes"])]
        state = [[key, decode(value)] for key, value in map(decode, parts(files[f"chain-{number}.state"]))]
        chains[number] = Chain(blocks, codes, state)
    leaves = [decode(part) for part in parts(files["leaves.bin"])]
    tree = Tree(decode(body), signature, chains, leaves, json.loads(files["statement.json"]))
    tree.network = sha256(body)
    return tree
