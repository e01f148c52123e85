"""Fetching a state in place of blocks that nobody keeps any more (CONSENSUS.md 4.6.4 to 4.6.8).

A manifest says what the state consists of. Its certificate and the list of its chunks are checked when it comes; each
range is checked against the root of its chunk before it is kept; the whole tree is compared with the header once more
before the ledger takes it. So nobody is believed, and whoever sends a wrong range is not asked again.

The first range of every peak is asked of the one who made the offer: while these are missing the list of chunk roots
may still be one that nobody could fill, and then it is the offer that is dropped, not an honest peer that is blamed.
"""

from watt_chain.codec import DecodeError
from watt_chain.pbft.config import STATE_ASKS_MAX, STATE_MISSES_MAX, SYNC_TIMEOUT_MS
from watt_chain.snapshot import (
    CHUNK_SLOTS,
    Manifest,
    StateRange,
    check_range,
    chunk_size,
    join,
    peaks,
)
from watt_chain.tree import StateTree, build_tree


class Transfer:
    """One state on its way."""

    def __init__(self, height: int, manifest: Manifest, offerer: int, peers: tuple[int, ...]) -> None:
        """`offerer`: the peer that sent the manifest; -1 when it comes from our own disk."""
        self.height = height
        self.manifest = manifest
        self._offerer = offerer
        self._peers = [peer for peer in peers if peer != offerer] + ([offerer] if offerer >= 0 else [])
        "Who may still be asked; the next one first."
        count = len(manifest.chunk_roots)
        self._chunks: dict[int, list[StateRange]] = {}
        self._missing: dict[int, None] = dict.fromkeys([*peaks(count), *range(count)])
        "Chunks not yet complete: the first of every peak, then all in order."
        self._unproven: dict[int, None] = dict.fromkeys(peaks(count))
        self._asked: dict[int, tuple[int, int]] = {}
        "Peer -> (slot it was asked for, when it has to have answered)."
        self._missed: dict[int, int] = {}
        "Peer -> questions in a row that it has left open."

    @property
    def complete(self) -> bool:
        """Whether every slot is here."""
        return not self._missing

    @property
    def hopeless(self) -> bool:
        """Whether nobody is left to ask."""
        return bool(self._missing) and not self._peers

    @property
    def slots(self) -> int:
        """Slots that are here."""
        return sum(len(part.entries) for parts in self._chunks.values() for part in parts)

    def parts(self) -> list[StateRange]:
        """Everything that is here, by chunk."""
        return [part for chunk in sorted(self._chunks) for part in self._chunks[chunk]]

    def due_ms(self) -> int | None:
        """When the next answer is overdue."""
        return min((due for _, due in self._asked.values()), default=None)

    def reuse(self, older: "Transfer") -> None:
        """Take over whole chunks that have not changed since an older state."""
        roots = self.manifest.chunk_roots
        for chunk, parts in older._chunks.items():
            whole = chunk not in older._missing and chunk not in older._unproven
            if whole and chunk < len(roots) and older.manifest.chunk_roots[chunk] == roots[chunk]:
                self._chunks[chunk] = parts
                self._done(chunk)

    def take(self, part: StateRange) -> bool:
        """Keep a range that proves itself; False when it is not wanted (any more). Raises DecodeError."""
        check_range(self.manifest, part)
        chunk = part.slot // CHUNK_SLOTS
        if chunk not in self._missing or part.slot != self._next_slot(chunk):
            return False
        parts = self._chunks.setdefault(chunk, [])
        parts.append(part)
        if sum(len(each.entries) for each in parts) == chunk_size(self.manifest, chunk):
            self._done(chunk)
        return True

    def _done(self, chunk: int) -> None:
        self._missing.pop(chunk, None)
        self._unproven.pop(chunk, None)

    def answered(self, peer: int) -> None:
        """A peer has answered, with whatever."""
        self._asked.pop(peer, None)
        self._missed.pop(peer, None)

    def drop(self, peer: int) -> None:
        """Do not ask a peer any more: it lied, or it no longer has this state."""
        self._asked.pop(peer, None)
        if peer in self._peers:
            self._peers.remove(peer)
        if peer == self._offerer and self._unproven:
            self._peers.clear()  # the offer itself could not be proven

    def questions(self, now_ms: int) -> list[tuple[int, int]]:
        """(peer, slot) to ask now; whoever is overdue moves to the end of the line, and leaves it in the end."""
        for peer in [number for number, (_, due_ms) in self._asked.items() if now_ms >= due_ms]:
            del self._asked[peer]
            self._missed[peer] = self._missed.get(peer, 0) + 1
            if peer in self._peers:
                self._peers.remove(peer)
                if self._missed[peer] < STATE_MISSES_MAX:
                    self._peers.append(peer)
            if peer == self._offerer and self._unproven:
                self._peers.clear()  # it does not prove its offer; somebody else's is as good
        found: list[tuple[int, int]] = []
        under_way = [slot for slot, _ in self._asked.values()]
        for chunk in self._missing:
            slot = self._next_slot(chunk)
            if slot in under_way:
                continue
            free = self._free_peer(chunk)
            if free is None:
                break
            self._asked[free] = slot, now_ms + SYNC_TIMEOUT_MS
            found.append((free, slot))
        return found

    def _free_peer(self, chunk: int) -> int | None:
        if self._unproven and self._offerer >= 0:
            free = self._offerer in self._peers and self._offerer not in self._asked
            return self._offerer if free and chunk in self._unproven else None
        if len(self._asked) >= STATE_ASKS_MAX:
            return None
        return next((peer for peer in self._peers if peer not in self._asked), None)

    def _next_slot(self, chunk: int) -> int:
        return chunk * CHUNK_SLOTS + sum(len(part.entries) for part in self._chunks.get(chunk, ()))

    def tree(self) -> StateTree:
        """The state. Raises DecodeError when a key has two slots."""
        assert self.complete
        try:
            return build_tree(join(self.parts()))
        except ValueError as error:
            raise DecodeError(f"state-keys: {error}") from None
