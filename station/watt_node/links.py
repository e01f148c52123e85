"""What is on its way to and from one other validator: bounded, votes first, and never more work than its share.

A validator that floods is authenticated by its certificate, so everything here is per name: the queue towards it, the
frames a second that are read from it, and how often it may send what an honest one never sends before it is left alone.
"""

import asyncio
from collections import deque

from watt_chain.pbft.messages import kind_of

from watt_node.bucket import Bucket
from watt_node.config import PeerSection

QUEUE_FRAMES = 512
QUEUE_BYTES = 16 << 20
"""What waits for a slow peer, at most; then the oldest goes: the protocol repeats what still matters."""
QUEUE_FRAMES_AWAY = 64
"""What waits for a peer that is not connected: the present height's frames, not its history."""
RECORD_BYTES = 64 * 1024
"""Frames that wait together leave together, up to about this size."""
URGENT = ("prepare", "commit", "view-change", "new-view")
"""A block and its transactions are large and may wait; the votes that decide it are small and must not."""
FRAMES_PER_S = 500
"""Read from one peer: more than a fully loaded one sends (200 gossip frames, 100 votes); a twentieth of a core."""
FRAMES_AT_ONCE = 1000
"""After a silence so many may come in one go: what queues hold when a link comes back."""
KIND_PER_S = {
    "status": 10,
    "sync-request": 20,
    "sync-blocks": 50,
    "fetch": 100,
    "bodies": 100,
    "pre-prepare": 50,
    "prepare": 100,
    "commit": 100,
    "view-change": 50,
    "new-view": 50,
    "attest": 50,
    "state-offer": 20,
    "state-request": 100,
    "state-part": 100,
    "gossip": 300,
}
"""Of each kind, a second: several times what 20 blocks a second need. The protocol repeats whatever still matters."""
BURST_S = 2
"""Seconds' worth of a kind that may come in one go."""
FAULTS_MAX = 64
"""Frames or transactions with a bad form or signature until their sender is cut off; an honest one sends none."""
FAULTS_WINDOW_S = 10.0
BAN_S = 10.0
"""How long a sender that was cut off is not let back: at most some ten bad signatures a second are checked for it."""
BANNED_MAX = 256
"""Names remembered; more certificates than that are not in use in one place."""

FAULTS = frozenset(
    (
        *("frame-form", "message-form", "wrong-chain", "wrong-sender", "frame-signature", "tx-form", "tx-signature"),
        *("prepared-signature", "new-view-quorum", "set-aside"),
    )
)
"""Reasons of the replica that no honest validator gives it."""


class Link:
    """The way to one other validator, across reconnects."""

    def __init__(self, index: int, address: PeerSection | None = None) -> None:
        """`index`: the number of the node; `address`: None for one that connects to us and is in no configuration."""
        self.index = index
        self.address = address
        self.wake = asyncio.Event()
        self.dropped = 0
        self.ignored = 0
        self.connected = False
        self.last_problem = ""
        self.changed_s: float | None = None
        "When the connection last came or went, in seconds of the event loop's clock; None: it never came."
        self._urgent: deque[bytes] = deque()
        self._others: deque[bytes] = deque()
        self._bytes = 0

    @property
    def queued_bytes(self) -> int:
        """Bytes of all that waits."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def put(self, frame: bytes) -> None:
        """Queue a frame; when there are too many, the oldest of the not urgent ones goes."""
        most = QUEUE_FRAMES if self.connected else QUEUE_FRAMES_AWAY
        (self._urgent if kind_of(frame) in URGENT else self._others).append(frame)
        self._bytes += len(frame)
        while len(self) > most or self._bytes > QUEUE_BYTES:
            self._bytes -= len((self._others or self._urgent).popleft())
            self.dropped += 1
        self.wake.set()

    def take(self) -> list[bytes]:
        """The next frames to leave together, at least one when any waits: urgent ones first, each sort in order."""
        frames: list[bytes] = []
        size = 0
        while len(self) and (not frames or size < RECORD_BYTES):
            frame = (self._urgent or self._others).popleft()
            frames.append(frame)
            size += len(frame)
        self._bytes -= size
        return frames


class Budget:
    """What may be read from one peer: buckets that fill with time, one for all frames and one for each kind."""

    def __init__(self, now_s: float) -> None:
        self._all = Bucket(FRAMES_PER_S, FRAMES_AT_ONCE, now_s)
        self._kinds = {kind: Bucket(rate, rate * BURST_S, now_s) for kind, rate in KIND_PER_S.items()}

    def spend(self, now_s: float) -> float:
        """One frame was read; how long to wait before the next, in seconds."""
        left = self._all.take(now_s)
        return 0.0 if left >= 0 else -left / FRAMES_PER_S

    def admits(self, frame: bytes, now_s: float) -> bool:
        """Whether a frame is within its kind's share; beyond it the frame is dropped before anybody verifies it."""
        bucket = self._kinds.get(kind_of(frame))
        if bucket is None:
            return True  # no message: refused by its form, and held against its sender
        return bucket.admits(now_s)


class Blame:
    """Who sent what no honest sender sends, and who is not let back for a while."""

    def __init__(self) -> None:
        self._faults: dict[str, deque[float]] = {}
        self._until_s: dict[str, float] = {}

    def note(self, name: str, now_s: float, faults: int = 1) -> bool:
        """Count faults of a sender; True when it is to be cut off."""
        times = self._faults.setdefault(name, deque(maxlen=FAULTS_MAX))
        times.extend([now_s] * min(faults, FAULTS_MAX))
        if len(times) < FAULTS_MAX or now_s - times[0] > FAULTS_WINDOW_S:
            return False
        del self._faults[name]
        if len(self._until_s) >= BANNED_MAX:
            self._until_s = {one: until_s for one, until_s in self._until_s.items() if until_s > now_s}
        self._until_s[name] = now_s + BAN_S
        return True

    def is_banned(self, name: str, now_s: float) -> bool:
        """Whether a sender was cut off lately."""
        return self._until_s.get(name, 0.0) > now_s
