"""What one replica is told at start, and the timing everybody in a chain should share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from watt_chain import crypto
from watt_chain.transaction import Verify

VIEW_WINDOW = 8
"""Views around our own for which votes and proposals are kept; further ones are re-sent when we get there."""
FUTURE_FRAMES_MAX = 16
"""Frames kept per peer for the height after ours: two votes and a proposal for a few views."""
RESEND_BACKOFF_MAX = 3
"""Re-sending slows down to 2^3 times its interval: a node alone in a partition must not fill its queues."""
SYNC_DELAY_MS = 150
"""A block that a peer has and we do not usually arrives by itself within a round trip."""
SYNC_TIMEOUT_MS = 1500
"""How long one peer may take to answer before the next is asked."""
CLAIMS_MAX = 128
"""Nodes whose heights are remembered: the 64 validators of a list, and as many that left or will join."""
HELP_INTERVAL_MS = 200
"""Least time between two answers to the same peer and question: an answer may be 4 MiB."""
STATE_ASKS_MAX = 4
"""Ranges of a state asked for at a time, each of another peer: the slowest is not waited for."""
STATE_MISSES_MAX = 3
"""Questions in a row that a peer may leave open before it is not asked any more for this state: it may be dead, and the
others may have a newer one by now."""
GOSSIP_DELAY_MS = 5
"""Transactions handed in within this time share a frame, and its signature."""
GOSSIP_REPEAT_MS = 1000
"""A transaction that waited this long is sent to everybody (again): its first copy may be lost."""
GOSSIP_REPEAT_COUNT = 64
"""Transactions repeated at a time, oldest first: a backlog must not be repeated as a whole."""
INCLUSION_AGE_MS = 2 * GOSSIP_REPEAT_MS
"""Least age of what a leader must not leave out: by then it was sent to everybody twice."""
INCLUSION_COUNT = 16
"""Transactions on an inclusion list: few, because they are what is repeated first."""
POOL_AGE_MAX_MS = 15 * 60 * 1000
"""A transaction whose turn did not come in a quarter of an hour is forgotten; its sender will repeat it."""


class Signer(Protocol):
    """A private key; a simulator brings its own."""

    @property
    def public(self) -> bytes:
        """64 bytes X || Y."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message gives the same bytes."""


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """Settings of one replica. Raises ValueError for combinations that could not make progress."""

    number: int
    "Our own number, by which the peers know our connections: in genesis the index."
    key: Signer
    protocol_time: Callable[[int], int]
    "Protocol time (Unix seconds) at a `now_ms`; pure and never decreasing."
    verify: Verify = crypto.verify
    others: tuple[int, ...] = ()
    "Numbers of nodes to tell our height besides the validators: who slept through a change of all of them has these."
    batch_ms: int = 50
    "How long a leader waits for company after the first transaction."
    transactions_max: int = 500
    bytes_max: int = 1024 * 1024
    timeout_ms: int = 2000
    "How long view 0 may take with a request pending; doubles with each view."
    timeout_max_ms: int = 30000
    "Where the doubling ends: after an outage nobody waits longer than this for a working leader."
    resend_ms: int = 500
    status_ms: int = 2000
    assigned: bool = False
    "Whether f + 1 assigned validators check a transaction for all (CONSENSUS.md 4.9), or everybody checks all."
    time_bound_ms: int = 5000
    "How far a new block's time may be from our clock, in machine time either way."
    vouch: Callable[[bytes], bool] = lambda _: True
    "Whether this validator supports a new block with this transaction now; asked again when told to (`reconsider`)."
    takes_states: bool = True
    "Whether a state is taken in place of blocks that peers have no more; an archive wants the blocks."

    def __post_init__(self) -> None:
        if self.batch_ms < 0 or 2 * self.batch_ms > self.timeout_ms:
            raise ValueError(f"batch_ms {self.batch_ms} must be at most half of timeout_ms {self.timeout_ms}")
        if self.timeout_max_ms < self.timeout_ms:
            raise ValueError(f"timeout_max_ms {self.timeout_max_ms} is below timeout_ms {self.timeout_ms}")
        if min(self.timeout_ms, self.resend_ms, self.status_ms, self.time_bound_ms, self.transactions_max) <= 0:
            raise ValueError("timeouts and limits must be positive")

    def timeout_of(self, view: int) -> int:
        """Patience in a view, ms: doubled per view, capped (CONSENSUS.md 4.5.2)."""
        return min(self.timeout_ms << min(view, 20), self.timeout_max_ms)
