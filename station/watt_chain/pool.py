"""Transactions that wait for a block: bounded, without doubles, in an order every restart repeats (CONSENSUS.md 4.1).

A signer's transactions run by nonce; those whose turn it is not yet wait for the missing ones. What may be
proposed next is chosen by arrival, and within a signer by nonce. The pool checks no signatures: whoever adds
a transaction has checked it.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence

from watt_chain.transaction import DecodedTransaction

POOL_TRANSACTIONS_MAX = 20000
"""All waiting transactions: 20 s at 1,000 a second, the burst when an event opens; 10 MB at 500 bytes."""
POOL_BYTES_MAX = 32 * 1024 * 1024
"""The same bound in bytes; a few large transactions must not fill the memory of a small computer."""
SIGNER_TRANSACTIONS_MAX = 256
"""Waiting transactions of one key: a gateway that comes back after two days brings 192 quarter-hours."""
NONCE_AHEAD_MAX = 1024
"""How far ahead of its turn a nonce may be; beyond that the gap is not an accident of the network."""

Vouch = Callable[[bytes], bool]
"""Transaction bytes -> whether this validator supports it in a new block now (CONSENSUS.md 4.3.7)."""
NextNonce = Callable[[bytes], int]
"""Signer's 64-byte key -> the nonce it must use next, negative when the key is unknown."""


class _Entry:
    __slots__ = ("arrival_ms", "blocks", "order", "tx")

    def __init__(self, tx: DecodedTransaction, arrival_ms: int, order: int, blocks: int) -> None:
        self.tx = tx
        self.arrival_ms = arrival_ms
        self.order = order
        self.blocks = blocks
        "Blocks that had become final when it came."


class Pool:
    """The waiting transactions of one chain at one node."""

    def __init__(
        self,
        transactions_max: int = POOL_TRANSACTIONS_MAX,
        bytes_max: int = POOL_BYTES_MAX,
        signer_max: int = SIGNER_TRANSACTIONS_MAX,
        nonce_ahead_max: int = NONCE_AHEAD_MAX,
    ) -> None:
        self._transactions_max = transactions_max
        self._bytes_max = bytes_max
        self._signer_max = signer_max
        self._nonce_ahead_max = nonce_ahead_max
        self._by_txid: dict[bytes, _Entry] = {}
        self._by_digest: dict[bytes, bytes] = {}
        self._by_signer: dict[bytes, dict[int, _Entry]] = {}
        self._bytes = 0
        self._order = 0
        self._blocks = 0
        "Blocks that became final since the start."
        self._ready_ms: int | None = None
        self._ready_known = True
        self.refused: dict[str, int] = {}
        "How often a transaction was refused, by reason."

    def __len__(self) -> int:
        return len(self._by_txid)

    def __contains__(self, txid: bytes) -> bool:
        return txid in self._by_txid

    @property
    def size_bytes(self) -> int:
        """Bytes of all waiting transactions."""
        return self._bytes

    def find(self, digest: bytes) -> bytes | None:
        """A waiting transaction by its digest (leaf hash)."""
        txid = self._by_digest.get(digest)
        return None if txid is None else self._by_txid[txid].tx.raw

    def find_decoded(self, digest: bytes) -> DecodedTransaction | None:
        """As `find`, taken apart already."""
        txid = self._by_digest.get(digest)
        return None if txid is None else self._by_txid[txid].tx

    def refusal(self, tx: DecodedTransaction, next_nonce: int) -> str:
        """ "" when `add` would take the transaction; else the reason. Cheap: asked before the signature is checked."""
        if tx.txid in self._by_txid:
            return "duplicate"
        if next_nonce < 0:
            return "signer-unknown"
        if tx.nonce < next_nonce:
            return "nonce-used"
        if tx.nonce > next_nonce + self._nonce_ahead_max:
            return "nonce-far"
        waiting = self._by_signer.get(tx.signer)
        if waiting is not None:
            if tx.nonce in waiting:
                return "nonce-taken"
            if len(waiting) >= self._signer_max:
                return "signer-full"
        if len(self._by_txid) >= self._transactions_max or self._bytes + len(tx.raw) > self._bytes_max:
            return "pool-full"
        return ""

    def add(self, tx: DecodedTransaction, arrival_ms: int, next_nonce: int) -> str:
        """Let a transaction wait; "" or the reason why not (counted in `refused`)."""
        reason = self.refusal(tx, next_nonce)
        if reason:
            return self.refuse(reason)
        self.insert(tx, arrival_ms, next_nonce)
        return ""

    def refuse(self, reason: str) -> str:
        """Count a refusal and return it."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return reason

    def insert(self, tx: DecodedTransaction, arrival_ms: int, next_nonce: int) -> None:
        """Let a transaction wait that `refusal` has just let pass."""
        self._order += 1
        entry = _Entry(tx, arrival_ms, self._order, self._blocks)
        self._by_txid[tx.txid] = entry
        self._by_digest[tx.digest] = tx.txid
        self._by_signer.setdefault(tx.signer, {})[tx.nonce] = entry
        self._bytes += len(tx.raw)
        if tx.nonce == next_nonce and (self._ready_ms is None or arrival_ms < self._ready_ms):
            self._ready_known = False

    def forget(self, txid: bytes) -> None:
        """Drop one transaction, whether or not it waits here."""
        entry = self._by_txid.pop(txid, None)
        if entry is None:
            return
        tx = entry.tx
        del self._by_digest[tx.digest]
        waiting = self._by_signer[tx.signer]
        del waiting[tx.nonce]
        if not waiting:
            del self._by_signer[tx.signer]
        self._bytes -= len(tx.raw)
        self._ready_known = False

    def settle(self, txs: Sequence[DecodedTransaction]) -> None:
        """A block is final: drop its transactions and everything of the same signers that can no longer run."""
        self._blocks += 1
        for tx in txs:
            self.forget(tx.txid)
            waiting = self._by_signer.get(tx.signer)
            if waiting is not None:
                for nonce in [nonce for nonce in waiting if nonce <= tx.nonce]:
                    entry = waiting.get(nonce)
                    if entry is not None:
                        self.forget(entry.tx.txid)
        self._ready_known = False

    def expire(self, next_nonce: NextNonce) -> None:
        """Drop everything that can no longer run, after heights were passed whose blocks were not seen."""
        for signer in list(self._by_signer):
            due = next_nonce(signer)
            for entry in [entry for nonce, entry in self._by_signer[signer].items() if nonce < due]:
                self.forget(entry.tx.txid)

    def ready_since(self, next_nonce: NextNonce, vouch: Vouch | None = None) -> int | None:
        """Arrival (ms) of the oldest transaction whose turn it is and that `vouch(bytes)` does not deny; None: there is
        none. Remembered until the pool changes, or `reconsider`."""
        if not self._ready_known:
            first = next(self._ready(next_nonce, vouch), None)
            self._ready_ms = None if first is None else first.arrival_ms
            self._ready_known = True
        return self._ready_ms

    def reconsider(self) -> None:
        """What `vouch` answers may have changed."""
        self._ready_known = False

    def _ready(self, next_nonce: NextNonce, vouch: Vouch | None) -> Iterator[_Entry]:
        """Those whose turn it is and that `vouch(bytes)` does not deny, in order of arrival: usually the very first."""
        wanted: dict[bytes, int] = {}
        for entry in self._by_txid.values():
            signer = entry.tx.signer
            nonce = wanted.get(signer)
            if nonce is None:
                nonce = wanted[signer] = next_nonce(signer)
            if entry.tx.nonce == nonce and (vouch is None or vouch(entry.tx.raw)):
                yield entry

    def select(
        self, next_nonce: NextNonce, count_max: int, bytes_max: int, vouch: Vouch | None = None
    ) -> list[DecodedTransaction]:
        """The transactions for the next block, oldest first, each signer's in the order of its nonces.

        Of each signer none from the first on for which `vouch(bytes)` is false. Otherwise at least one is returned
        when any is ready, even if it alone is over `bytes_max`.
        """
        heap: list[tuple[int, int, bytes]] = []
        for signer, waiting in self._by_signer.items():
            entry = waiting.get(next_nonce(signer))
            if entry is not None:
                heap.append((entry.arrival_ms, entry.order, entry.tx.txid))
        heapq.heapify(heap)
        chosen: list[DecodedTransaction] = []
        size = 0
        while heap and len(chosen) < count_max:
            arrival_ms, _, txid = heapq.heappop(heap)
            tx = self._by_txid[txid].tx
            if vouch is not None and not vouch(tx.raw):
                continue
            if chosen and size + len(tx.raw) > bytes_max:
                break
            chosen.append(tx)
            size += len(tx.raw)
            following = self._by_signer[tx.signer].get(tx.nonce + 1)
            if following is not None:
                # A later nonce that arrived first still comes after: its key is never below its predecessor's.
                heapq.heappush(heap, (max(arrival_ms, following.arrival_ms), following.order, following.tx.txid))
        return chosen

    def overdue(
        self, next_nonce: NextNonce, blocks: int, before_ms: int, count_max: int, vouch: Vouch | None = None
    ) -> list[DecodedTransaction]:
        """The oldest transactions whose turn it is and that `vouch(bytes)` does not deny, among those that waited
        through `blocks` final blocks and since before the given instant; at most `count_max`."""
        found: list[DecodedTransaction] = []
        for entry in self._ready(next_nonce, vouch):
            if len(found) == count_max or entry.blocks + blocks > self._blocks or entry.arrival_ms > before_ms:
                break
            found.append(entry.tx)
        return found

    def is_older(self, digest: bytes, before_ms: int) -> bool:
        """Whether a transaction has waited here since before the given instant."""
        txid = self._by_digest.get(digest)
        return txid is not None and self._by_txid[txid].arrival_ms <= before_ms

    def waiting(self, older_than_ms: int, count_max: int) -> list[DecodedTransaction]:
        """Up to `count_max` transactions that arrived before the given instant, in order of arrival."""
        found: list[DecodedTransaction] = []
        for entry in self._by_txid.values():
            if len(found) == count_max or entry.arrival_ms > older_than_ms:
                break
            found.append(entry.tx)
        return found
