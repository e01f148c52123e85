"""One validator of one chain: ledger, replica, store and peers wired together.

A station runs one for its area, a master one for the main chain; what differs between them is handed in (the
contract) or hooked on (`on_commit`, `on_refused`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from watt_node.clock import ProtocolClock
from watt_node.config import EndpointSection, ListenSection, NetworkSection, NodeSection, PeerSection, TlsSection
from watt_node.log import Log


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The sections of the configuration that every validator has."""

    network: NetworkSection
    node: NodeSection
    tls: TlsSection
    listen: ListenSection
    peers: list[PeerSection]


class Node:
    """A running validator. Create, hook callbacks on, `start`, later `stop`; all within one event loop."""

    def __init__(self, settings: NodeSettings, contract: Any, clock: ProtocolClock, log: Log) -> None:
        """Reads genesis and key; ConfigError when they do not fit together. Opens nothing else."""
        raise NotImplementedError

    # Public attributes: name, chain, index, genesis, network (32 bytes), ledger, key, clock, data (Path).

    def on_commit(self, hook: Callable[[bytes, Any], None]) -> None:
        """`hook(certified_block_bytes, AppliedBlock)` after each committed block is on disk and applied."""
        raise NotImplementedError

    def on_refused(self, hook: Callable[[bytes, str], None]) -> None:
        """`hook(txid, reason)` for a transaction this node took and later dropped from its pool."""
        raise NotImplementedError

    async def start(self) -> None:
        """Replay the block log, restore the votes, listen and connect; StoreError / ConfigError when it cannot."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close connections and files; nothing is lost that was answered."""
        raise NotImplementedError

    async def submit(self, tx: bytes) -> str:
        """Verify and pool a transaction: "" when taken, else the reason (short kebab-case)."""
        raise NotImplementedError

    async def submit_own(self, kind: str, fields: Any) -> str:
        """Sign `kind` with the validator key at the next free nonce and submit it; "" or the reason."""
        raise NotImplementedError

    def block(self, height: int) -> bytes | None:
        """CertifiedBlock bytes of a height from the block log."""
        raise NotImplementedError

    def receipt_proof(self, txid: bytes) -> bytes | None:
        """Encoded ReceiptProof of a final transaction, None when it is not in a block."""
        raise NotImplementedError

    def state_proof(self, keys: list[bytes]) -> bytes:
        """Encoded StateProof of up to MAX_PROOF_KEYS keys at the head."""
        raise NotImplementedError

    def messages(self, target_chain: int, from_sequence: int) -> list[bytes]:
        """Inbox batches [header, certificate, size, [[index, OutMessage, path]...]], one per block."""
        raise NotImplementedError


__all__ = ["EndpointSection", "Node", "NodeSettings"]
