"""Proofs about blocks that left the ledger's memory, made from what the block log keeps of them."""

from watt_chain import codec
from watt_chain.block import Receipt, decode_certified
from watt_chain.light import ReceiptProof
from watt_chain.transaction import txid
from watt_wire import merkle

from watt_node.blocklog import StoredBlock
from watt_node.disk import StoreError


def receipt_proof_of(stored: StoredBlock, wanted: bytes) -> ReceiptProof | None:
    """Proof of a transaction's outcome; None when the block does not hold it. StoreError when the codes are not its."""
    parts, block, header, _ = decode_certified(stored.certified)
    txids = [txid(tx) for tx in block.transactions]
    if wanted not in txids:
        return None
    receipts = [codec.encode(Receipt(id_, code)) for id_, code in zip(txids, stored.codes, strict=True)]
    leaves = [merkle.leaf_hash(data) for data in receipts]
    if merkle.root(leaves) != header.receipt_root:
        raise StoreError(f"blocks.log: the outcomes kept of block {header.height} are not those it has")
    at = txids.index(wanted)
    return ReceiptProof(block.header, parts.certificate, receipts[at], at, len(leaves), merkle.proof(leaves, at))
