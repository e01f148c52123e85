"""What a contract sees of the state: keys, values, messages to other chains; every step can be undone.

`State` is an overlay on the final state, so a block under discussion changes nothing that others read.
`FinalState` is the read-only view of the last final block, with proofs.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from watt_chain import codec
from watt_chain.block import OutMessage
from watt_chain.tree import Overlay, StateTree, Value

MESSAGES_PER_BLOCK_MAX = 4096
"""Messages to other chains in one block: one for every area plus its results, with room."""

OUTBOX_PREFIX = b"outbox/"
"""`outbox/<target chain, decimal>` holds the last sequence number used towards that chain."""


class StateReader(Protocol):
    """Reading access; what queries and the pool need."""

    def get(self, key: bytes) -> bytes | None:
        """Value of a key, None when never written."""

    def look(self, key: bytes) -> Value | None:
        """As `get`; the object, when it is known what the bytes spell."""

    def keep(self, key: bytes, value: msgspec.Struct) -> None:
        """Remember what the bytes under a key spell, for `look`."""

    def keys(self, prefix: bytes) -> list[bytes]:
        """Keys with this prefix in slot order."""


class State:
    """The state of one block in the making."""

    __slots__ = ("_chain", "_messages", "overlay")

    def __init__(self, tree: StateTree, chain: int) -> None:
        self.overlay = Overlay(tree)
        self._chain = chain
        self._messages: list[OutMessage] = []

    def get(self, key: bytes) -> bytes | None:
        """Value of a key, None when never written."""
        return self.overlay.get(key)

    def look(self, key: bytes) -> Value | None:
        """As `get`; the object, when it is known what the bytes spell."""
        overlay = self.overlay  # what is under it is read here, without further calls: a transaction reads ten times
        value = overlay.writes.get(key)
        if value is None:
            value = overlay.base.objects.get(key)
        return overlay.base.get(key) if value is None else value

    def keep(self, key: bytes, value: msgspec.Struct) -> None:
        """Remember what the bytes under a key spell, for `look`."""
        self.overlay.keep(key, value)

    def put(self, key: bytes, value: Value) -> None:
        """Write a key (1 to 96 bytes). There is no delete: what a household once had stays provable."""
        self.overlay.put(key, value)

    def keys(self, prefix: bytes) -> list[bytes]:
        """Keys with this prefix in slot order; cheap when the prefix ends with a slash."""
        return self.overlay.keys(prefix)

    def emit(self, target_chain: int, kind: str, body: bytes) -> OutMessage:
        """Send a message to another chain; it leaves with the block, numbered 1, 2, 3 ... per target."""
        assert len(self._messages) < MESSAGES_PER_BLOCK_MAX, "too many messages in one block"
        key = OUTBOX_PREFIX + b"%d" % target_chain
        before = self.overlay.get(key)
        sequence = (codec.decode(before, int) if before else 0) + 1
        self.overlay.put(key, codec.encode(sequence))
        message = OutMessage(self._chain, target_chain, sequence, kind, body)
        self._messages.append(message)
        return message

    def messages(self) -> tuple[OutMessage, ...]:
        """Messages of this block so far, in the order they were sent."""
        return tuple(self._messages)

    def savepoint(self) -> tuple[int, int]:
        """A mark for `rollback`."""
        return self.overlay.savepoint(), len(self._messages)

    def rollback(self, mark: tuple[int, int]) -> None:
        """Undo all writes and messages since the mark."""
        self.overlay.rollback(mark[0])
        del self._messages[mark[1] :]

    def root(self) -> bytes:
        """Root of the state with everything written so far."""
        return self.overlay.root()


class FinalState:
    """The state after the last final block, read-only."""

    __slots__ = ("_tree",)

    def __init__(self, tree: StateTree) -> None:
        self._tree = tree

    def get(self, key: bytes) -> bytes | None:
        """Value of a key, None when never written."""
        return self._tree.get(key)

    def look(self, key: bytes) -> Value | None:
        """As `get`; the object, when it is known what the bytes spell."""
        return self._tree.look(key)

    def keep(self, key: bytes, value: msgspec.Struct) -> None:
        """Remember what the bytes under a key spell, for `look`."""
        self._tree.objects[key] = value

    def keys(self, prefix: bytes) -> list[bytes]:
        """Keys with this prefix in slot order."""
        return Overlay(self._tree).keys(prefix)

    def root(self) -> bytes:
        """State root of the last final block."""
        return self._tree.root()

    def size(self) -> int:
        """Number of slots."""
        return len(self._tree)

    def proof(self, key: bytes) -> tuple[int, list[bytes]]:
        """(slot, inclusion path). Raises KeyError for a key that was never written."""
        return self._tree.proof(key)

    def items(self) -> Sequence[tuple[bytes, bytes]]:
        """All (key, value) in slot order; for exports."""
        return list(zip(self._tree.keys, self._tree.values, strict=True))
