"""What is done to a node's folder by hand: a chain taken out, a chain put in, a doubt ended.

A chain in a file is a row of CertifiedBlocks, each after its length (u32, big-endian), from some height on: the
`chain-<id>.blocks` of an export. Taking it out reads only, also while the node runs. Putting it in needs a node that
does not run; every certificate is checked and every block executed, as if a peer had sent them.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from watt_chain.block import block_hash, decode_certified
from watt_chain.codec import MESSAGE_SIZE_MAX, DecodeError
from watt_chain.genesis import Genesis
from watt_chain.ledger import AppliedBlock, Contract, CorruptionError, Ledger

from watt_node.disk import RealDisk
from watt_node.vault import Keeping, Vault

LENGTH = 4
"""Bytes of a block's length in a file."""


class ChainFileError(Exception):
    """The file cannot be used; the text is one line for the operator."""


def write_chain(path: Path, blocks: Iterable[bytes]) -> Iterator[int]:
    """Write CertifiedBlocks to a file, whole or not at all; yields how many there are so far. OSError."""
    fresh = path.with_name(path.name + ".new")
    count = 0
    with fresh.open("wb") as file:
        for count, block in enumerate(blocks, start=1):
            file.write(len(block).to_bytes(LENGTH, "big") + block)
            yield count
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_chain(path: Path) -> Iterator[bytes]:
    """The CertifiedBlocks of a file. ChainFileError when it is cut or is something else; OSError."""
    with path.open("rb") as file:
        at = 0
        while head := file.read(LENGTH):
            length = int.from_bytes(head, "big")
            if len(head) < LENGTH or not 0 < length <= MESSAGE_SIZE_MAX:
                raise ChainFileError(f"{path}: no chain: byte {at} is not the length of a block")
            block = file.read(length)
            if len(block) < length:
                raise ChainFileError(f"{path}: cut at byte {at}: a block of {length} bytes has {len(block)}")
            at += LENGTH + length
            yield block


class Taker(Protocol):
    """Where the blocks of a chain are put in, in height order."""

    @property
    def height(self) -> int:
        """Of the last block that is there."""

    def block(self, height: int) -> bytes | None:
        """One that is there; None when it is not kept."""

    def take(self, certified: bytes) -> None:
        """The next one: check, execute, store durably. DecodeError: not the next, or not certified."""


def put_in(path: Path, taker: Taker, network: bytes) -> Iterator[int]:
    """Put a file's blocks in; yields the height after each. ChainFileError names the block that does not fit."""
    for certified in read_chain(path):
        try:
            _, block, header, _ = decode_certified(certified)
        except DecodeError as error:
            raise ChainFileError(f"{path}: what follows height {taker.height} is no block: {error}") from None
        if header.height > taker.height + 1:
            raise ChainFileError(f"{path}: begins at height {header.height}; the next one here is {taker.height + 1}")
        if header.height <= taker.height:
            known = taker.block(header.height)
            mine = block.header if known is None else decode_certified(known)[1].header
            if mine != block.header:
                theirs, ours = (block_hash(network, one).hex()[:16] for one in (block.header, mine))
                raise ChainFileError(f"{path}: block {header.height} is {theirs}, the one here is {ours}")
            continue
        try:
            taker.take(certified)
        except (DecodeError, CorruptionError) as error:
            raise ChainFileError(f"{path}: block {header.height} is refused: {error}") from None
        yield taker.height


class StoppedNode:
    """The stores of a node that does not run."""

    def __init__(
        self, folder: Path, genesis: Genesis, network: bytes, chain: int, contract: Contract, keeping: Keeping
    ) -> None:
        """Opens the stores and brings the ledger to the last block. StoreError when the node runs, or is damaged."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.vault = Vault(RealDisk(folder), chain, network, keeping)
        self.ledger = Ledger(genesis, chain, contract, freeze_every=keeping.snapshot_blocks)
        try:
            for _ in self.vault.load(self.ledger):
                pass
        except BaseException:  # whatever it is, the locks must not stay
            self.vault.close()
            raise

    @property
    def height(self) -> int:
        """Of the last block."""
        return self.ledger.head.height

    def block(self, height: int) -> bytes | None:
        """A block that is kept."""
        return self.vault.block(height)

    def take(self, certified: bytes) -> None:
        """`Taker`."""
        applied: AppliedBlock = self.ledger.apply(certified)
        self.vault.store(certified, applied)
        state = self.vault.snapshot_due(self.ledger)
        if state is not None:
            self.vault.write_snapshot(state)
            self.vault.prune()

    def close(self) -> None:
        """Release the files."""
        self.vault.close()
