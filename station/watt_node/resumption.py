"""The regulator's word in a node's folder: how the stations of a readmitted area begin (CONSENSUS.md 8.8).

    resume.word     the Resume transaction, until the block that begins with it is there; then it is of no effect

A word names no key that ever signed on the chain, so who goes on under one has signed nothing yet: a doubt about votes
ends with it.
"""

import os
from pathlib import Path

from watt_chain.ledger import Ledger
from watt_chain.transaction import TRANSACTION_SIZE_MAX

from watt_node.disk import StoreError
from watt_node.offline import StoppedNode

NAME = "resume.word"
IMPORT = "begin with an empty folder, and import what a master exports up to the block before"
WHY = {
    "height": f"it is for another height than the one after block {{height}} here; {IMPORT}",
    "previous": f"the last block here is not the one that the main chain anchored; {IMPORT}",
    "nonce": "the regulator signed it with another nonce than the state here asks for",
    "tx-chain": "it is for another chain",
    "tx-signature": "it is not signed by the key that it names",
    "tx-form": "it is no transaction",
    "unknown-kind": "it is another call than Resume, or this is the main chain",
    "role": "the regulator has not signed it",
}


def keep(node: StoppedNode, folder: Path, path: Path, public: bytes) -> str:
    """Put the word of a file into a folder; a sentence about it. StoreError when it does not hold here; OSError.

    public   the node's own validator key
    """
    with path.open("rb") as file:
        raw = file.read(TRANSACTION_SIZE_MAX + 1)
    reason = node.ledger.resume(raw) if len(raw) <= TRANSACTION_SIZE_MAX else "tx-form"
    if reason:
        why = WHY.get(reason, "the list in it breaks a rule of CONTRACT.md 3, Resume").format(height=node.height)
        raise StoreError(f"{path}: {reason}: {why}")
    write(folder / NAME, raw)
    node.vault.accept_disk()
    names = ", ".join(validator.name for validator in node.ledger.validators)
    votes = (
        "this node is one of them" if public in node.ledger.publics else "this node only follows: its key is not listed"
    )
    return f"height {node.height + 1} is made by {names}; {votes}"


def write(path: Path, raw: bytes) -> None:
    """A word's file, whole and safe on the disk. OSError."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def begin(folder: Path, ledger: Ledger) -> bytes:
    """The word that the ledger goes on under, now that it is at its last block; empty when there is none."""
    path = folder / NAME
    raw = path.read_bytes() if path.exists() else b""
    return raw if raw and not ledger.resume(raw) else b""
