"""A chain without a network: blocks are built, certified with a quorum of the validators' keys and applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from watt_chain import codec
from watt_chain.block import (
    COMMIT,
    Certificate,
    CertifiedBlock,
    VoteSignature,
    block_hash,
    decode_certified,
    vote_bytes,
)
from watt_chain.codec import Structure
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import quorum
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.snapshot import FrozenState
from watt_chain.transaction import make_transaction
from watt_node.blocklog import BlockLog
from watt_node.disk import RealDisk
from watt_node.snapshots import Snapshots
from watt_wire import merkle


class OfflineChain:
    """A ledger and the keys that certify it; every block goes into a real block log."""

    def __init__(self, ledger: Ledger, keys: Sequence[PrivateKey], folder: Path) -> None:
        self.ledger = ledger
        self.folder = folder
        self._keys = keys
        self._nonces: dict[bytes, int] = {}
        folder.mkdir(parents=True)
        self._log = BlockLog(RealDisk(folder), ledger.chain, ledger.network)
        self.last: tuple[bytes, bytes] = (b"", b"")
        "(header, certificate) of the last block."

    def call(self, key: PrivateKey, kind: str, fields: Structure | object) -> bytes:
        """A transaction, with the signer's next nonce."""
        nonce = self._nonces.get(key.public) or self.ledger.next_nonce(key.public)
        self._nonces[key.public] = nonce + 1
        tx = make_transaction(key, self.ledger.network, kind, self.ledger.chain, nonce, fields)
        self.ledger.verified.add(merkle.leaf_hash(tx))  # made here: checking our own signature would measure nothing
        return tx

    def extend(self, txs: Sequence[bytes], time_s: int) -> tuple[bytes, AppliedBlock]:
        """The next block with these transactions; all of them are carried out, or the experiment is wrong."""
        ledger = self.ledger
        height = ledger.head.height + 1
        block = ledger.build(0, ledger.schedule.leader(height, 0), time_s, txs)
        message = vote_bytes(ledger.network, COMMIT, ledger.chain, height, 0, block_hash(ledger.network, block.header))
        voters = range(quorum(len(self._keys)))
        votes = [VoteSignature(index, self._keys[index].sign(message)) for index in voters]
        certified = codec.encode(CertifiedBlock(codec.encode(block), codec.encode(Certificate(0, votes))))
        applied = ledger.apply(certified, certificate_known=True)
        codes = [receipt.code for receipt in applied.receipts]
        assert len(codes) == len(txs) and not any(codes), codes
        self._log.add(certified, codes, [codec.encode(one) for one in applied.out_messages])
        parts, found, _, _ = decode_certified(certified)
        self.last = found.header, parts.certificate
        return certified, applied

    def log_bytes(self) -> int:
        """Size of the block log on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("blocks*"))

    def snapshot_bytes(self) -> int:
        """Size of a snapshot of the state after the last block, written as a station writes it."""
        frozen = FrozenState(self.ledger._tree, *self.last, self.ledger.changes)
        Snapshots(RealDisk(self.folder), self.ledger.chain, self.ledger.network).write(frozen)
        return max(path.stat().st_size for path in self.folder.glob("snapshot-*"))

    def close(self) -> None:
        """Release the files."""
        self._log.close()
