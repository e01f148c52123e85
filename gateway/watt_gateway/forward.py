"""The outbox as a machine: nonces, signatures, repetition, receipts. No clock, no socket, no disk.

Strategy. Items leave in the order they came; at most FLIGHT_MAX are signed and on their way, each with the next
nonce of the household's account. The shell asks `to_sign`, makes the signatures durable, tells `signed`, and sends
what `due` returns, for ever, with a back-off. Only `settled`, called with a *verified* receipt, ends an item; a
refusal by a station's pool, an acknowledgement of a broker or silence never does.

A station answers "nonce-used" when the account is further on than we believe: our transaction is final and its
receipt was lost, or the key was used elsewhere (a restored backup). The proven account state tells how far it is. A
transaction below it is sent on: whoever has its receipt answers. Only when it was refused as used
STALE_REFUSALS_MAX times more does it get a new nonce; a double then costs a refusal by the contract (labels, plug
counters and events make every call of ours idempotent) and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from watt_gateway.store import Attempt, OutboxItem

FLIGHT_MAX = 32
"""Signed and not final at a time: a block a second takes them all; well below a pool's 256 per signer."""
RESEND_MIN_MS, RESEND_MAX_MS = 3_000, 60_000
"""Machine time until a transaction is sent again: above the usual second to finality, doubling up to a minute."""
JITTER_PPM = 250_000
"""Up to a quarter is added, so that the gateways of an area do not answer a broker's return in one moment."""
RESYNC_MS = 2_000
"""Pause between two questions for the account state."""
SENDS_BEFORE_RESYNC = 3
"""Repetitions without any answer after which the account is asked for: some 20 s."""
STALE_REFUSALS_MAX = 8
"""Four stations, two rounds: by then every one of them had the chance to show the receipt."""
REASONS_MAX = 64
"""Distinct reasons counted; a hostile broker cannot grow the table."""

NONCE_REASONS = ("nonce-used", "nonce-far", "nonce-taken", "nonce")
"""Pool reasons that say our idea of the account is wrong."""
UNKNOWN_REASONS = ("signer-unknown", "unknown-signer")
"""Pool reasons that say the household is not enrolled (yet)."""

MakeTransaction = Callable[[str, int, bytes], tuple[bytes, bytes]]
"""(kind, nonce, encoded fields) -> (txid, transaction bytes), signed with the household's key."""


@dataclass(frozen=True, slots=True)
class Send:
    """A transaction to publish now."""

    seq: int
    txid: bytes
    tx: bytes


class _Entry:
    __slots__ = ("attempt", "due_ms", "item", "sent", "stale_refusals")

    def __init__(self, item: OutboxItem, attempt: Attempt | None) -> None:
        self.item = item
        self.attempt = attempt
        self.due_ms = 0
        self.sent = 0
        self.stale_refusals = 0


class Forwarder:
    """Everything of one household that is on its way to a block."""

    def __init__(self, make: MakeTransaction, jitter: Random) -> None:
        self._make = make
        self._jitter = jitter
        self._entries: dict[int, _Entry] = {}
        self._by_txid: dict[bytes, Attempt] = {}
        self._next_nonce: int | None = None
        self._account_nonce = 0
        self._height = 0
        self._resync = True
        self._resync_at_ms = 0
        self.refused: dict[str, int] = {}
        "What the stations' pools answered, by reason: hints, never the end of an item."

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def in_flight(self) -> int:
        """How many items are signed and not final."""
        return sum(entry.attempt is not None for entry in self._entries.values())

    def restore(self, items: Sequence[OutboxItem], attempts: Sequence[Attempt]) -> None:
        """Take over what a restart found on disk; every signed item is sent again as the same bytes."""
        for attempt in attempts:
            self._by_txid[attempt.txid] = attempt
        for item in items:
            current = None if item.txid is None else self._by_txid.get(item.txid)
            self._entries[item.seq] = _Entry(item, current)

    def add(self, items: Sequence[OutboxItem]) -> None:
        """Queue items that are on disk."""
        for item in items:
            self._entries.setdefault(item.seq, _Entry(item, None))

    # ---- nonces -----------------------------------------------------------------------------------------------

    def wants_account(self, now_ms: int) -> bool:
        """Whether the shell should fetch the account's proven nonce now; true at most every RESYNC_MS."""
        if not self._resync or not self._entries or now_ms < self._resync_at_ms:
            return False
        self._resync_at_ms = now_ms + RESYNC_MS
        return True

    def account(self, last_nonce: int, height: int) -> None:
        """The account used `last_nonce` after the block of this height, by proof.

        A proof older than a receipt we hold says nothing new and is left aside.
        """
        if height < self._height:
            return
        self._height = height
        self._account_nonce = last_nonce
        self._resync = False
        signed = [entry for entry in self._entries.values() if entry.attempt and entry.attempt.nonce > last_nonce]
        open_nonces = [entry.attempt.nonce for entry in signed if entry.attempt]
        if open_nonces and min(open_nonces) > last_nonce + 1:
            # A hole that nothing of ours fills: what is signed can never run. Sign it anew, in order.
            for entry in signed:
                self._unsign(entry)
            open_nonces = []
        self._next_nonce = max([last_nonce, *open_nonces]) + 1

    def to_sign(self) -> list[Attempt]:
        """New signatures for the items whose turn it is. Make them durable, then call `signed`, then send."""
        if self._next_nonce is None or self._resync:
            return []
        nonce = self._next_nonce
        attempts: list[Attempt] = []
        for entry in self._flight():
            if entry.attempt is None:
                txid, tx = self._make(entry.item.kind, nonce, entry.item.fields)
                attempts.append(Attempt(entry.item.seq, nonce, txid, tx))
                nonce += 1
        return attempts

    def signed(self, attempts: Sequence[Attempt]) -> None:
        """These signatures are durable: they may be sent."""
        for attempt in attempts:
            entry = self._entries.get(attempt.seq)
            if entry is None or self._next_nonce is None:
                continue
            entry.attempt = attempt
            entry.due_ms = 0
            entry.sent = entry.stale_refusals = 0
            self._by_txid[attempt.txid] = attempt
            self._next_nonce = max(self._next_nonce, attempt.nonce + 1)

    # ---- sending ----------------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> list[Send]:
        """What to publish now, lowest nonce first; each call books the next repetition."""
        ready = [entry for entry in self._flight() if entry.attempt is not None and entry.due_ms <= now_ms]
        sends: list[Send] = []
        for entry in ready:
            assert entry.attempt is not None
            wait = min(RESEND_MIN_MS << min(entry.sent, 10), RESEND_MAX_MS)
            entry.due_ms = now_ms + wait + self._jitter.randrange(wait * JITTER_PPM // 1_000_000 + 1)
            entry.sent += 1
            if entry.sent > SENDS_BEFORE_RESYNC:
                self._resync = True  # silence too may mean that we are wrong about the account
            sends.append(Send(entry.item.seq, entry.attempt.txid, entry.attempt.tx))
        return sorted(sends, key=lambda send: self._by_txid[send.txid].nonce)

    def not_sent(self, sends: Sequence[Send]) -> None:
        """There was no broker: these count as never tried."""
        for send in sends:
            entry = self._entries.get(send.seq)
            if entry is not None:
                entry.sent = max(0, entry.sent - 1)

    def broker_up(self) -> None:
        """A connection is new: whatever was on the way may be lost, send it soon."""
        for entry in self._entries.values():
            if entry.sent:
                entry.due_ms, entry.sent = 0, 0

    def next_deadline_ms(self) -> int | None:
        """When `due` may have something again; None when there is nothing to repeat."""
        return min((entry.due_ms for entry in self._flight() if entry.attempt is not None), default=None)

    # ---- answers ----------------------------------------------------------------------------------------------

    def find(self, txid: bytes) -> tuple[OutboxItem, Attempt] | None:
        """The item and the exact bytes that an answer speaks of; None when it is not ours or is settled."""
        attempt = self._by_txid.get(txid)
        entry = None if attempt is None else self._entries.get(attempt.seq)
        return None if attempt is None or entry is None else (entry.item, attempt)

    def pool_refused(self, txid: bytes, reason: str, now_ms: int) -> None:
        """A station's pool did not take a transaction: a hint, from a party we need not trust."""
        known = reason in self.refused or len(self.refused) < REASONS_MAX
        name = reason if known else "other"
        self.refused[name] = self.refused.get(name, 0) + 1
        attempt = self._by_txid.get(txid)
        entry = None if attempt is None else self._entries.get(attempt.seq)
        if attempt is None or entry is None or entry.attempt != attempt:
            return
        if reason in NONCE_REASONS or reason in UNKNOWN_REASONS:
            self._resync = True
        if reason in NONCE_REASONS and attempt.nonce <= self._account_nonce:
            entry.stale_refusals += 1
            if entry.stale_refusals >= STALE_REFUSALS_MAX:
                self._unsign(entry)
            else:
                entry.due_ms = min(entry.due_ms, now_ms + RESEND_MIN_MS)

    def settled(self, seq: int, height: int) -> None:
        """The item's receipt was verified and is on disk."""
        entry = self._entries.pop(seq, None)
        self._height = max(self._height, height)
        if entry is not None:
            for txid in [txid for txid, attempt in self._by_txid.items() if attempt.seq == seq]:
                del self._by_txid[txid]

    def _unsign(self, entry: _Entry) -> None:
        # The old form stays known: should it win after all, its receipt settles the item.
        entry.attempt = None
        entry.sent = entry.stale_refusals = 0
        entry.due_ms = 0

    def _flight(self) -> list[_Entry]:
        """The oldest FLIGHT_MAX items."""
        found: list[_Entry] = []
        for entry in self._entries.values():
            found.append(entry)
            if len(found) == FLIGHT_MAX:
                break
        return found
