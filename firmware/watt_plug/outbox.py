"""Signed batches and events that the gateway has not acknowledged yet: kept, sent in order, repeated with a bound.

An entry leaves only when the gateway names its counter and its frame hash: the broker's PUBACK is not the
gateway's word that it stored the batch.
"""

import hashlib

from watt_wire import batch, checkpoint, statement
from watt_wire.errors import DecodeError

from watt_plug.storage import Storage

PENDING_MAX = 192
"Two days of quarter-hour batches of 1.8 KiB: 350 KiB of a 2 MiB flash. When full, the oldest gives way."
EVENTS_MAX = 64
"Events kept; beside two days of batches, room for a day of the most that the plug signs by itself."
WINDOW = 4
"Batches on their way at once, in order on one connection: a backlog of two days is gone in 96 round trips at most."
WINDOW_BYTES = 4096
"Nor more bytes than these, beyond the first batch: the largest is 14.6 kB, and the heap is small."
RESEND_FIRST_S = 5
RESEND_MAX_S = 320
"Seconds of the machine clock between repetitions: doubles up to five minutes, for as long as the gateway is away."
ACK_SIZE = 36
PREFIX = "b"
EVENT_PREFIX = "e"


def batch_identity(data: bytes) -> "tuple[int, bytes]":
    """Return (counter, hash) of a stored batch; DecodeError when it is none."""
    frame, _ = batch.decode(data)
    return checkpoint.decode(frame).counter, checkpoint.frame_hash(frame)


def event_identity(data: bytes) -> "tuple[int, bytes]":
    """Return (number, hash) of a stored event; DecodeError when it is none."""
    event = statement.EVENT.decode(data)
    return event.number("number"), hashlib.sha256(statement.EVENT.body_of(data)).digest()


class Entry:
    """One unacknowledged batch: its counter, its hash, when it was last sent (-1: not on this connection)."""

    def __init__(self, counter: int, frame_hash: bytes) -> None:
        self.counter = counter
        self.frame_hash = frame_hash
        self.sent_s = -1
        self.size = 0
        self.wait_s = RESEND_FIRST_S


class Outbox:
    """All unacknowledged frames of one kind, in counter order.

    prefix     of their names in storage
    identity   (counter, hash) of stored bytes
    """

    def __init__(
        self, storage: Storage, prefix: str = PREFIX, identity: object = batch_identity, pending_max: int = PENDING_MAX
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._identity = identity
        self._pending_max = pending_max
        self._entries: list[Entry] = []
        self.dropped = 0
        "Batches given up because the store was full: the gateway sees the gap in the counter."

    def restore(self, counter_max: int) -> None:
        """Read what is stored; remove what a crash left above the journal's counter, for it was never sent."""
        for name in self._storage.names():
            if not name.startswith(self._prefix):
                continue
            stored = self._storage.read(name)
            try:
                counter, frame_hash = self._identity(stored or b"")  # type: ignore[operator]
            except DecodeError:
                self._storage.remove(name)
                continue
            if counter > counter_max or name != self._name(counter):
                self._storage.remove(name)
            else:
                self._entries.append(Entry(counter, frame_hash))

    @property
    def victim(self) -> int:
        """Counter of the entry that the next `store` will give up, 0 while there is room."""
        return self._entries[0].counter if len(self._entries) >= self._pending_max else 0

    def store(self, counter: int, data: bytes) -> None:
        """Put the batch into storage; `add` makes it known once the journal knows the counter too."""
        if len(self._entries) >= self._pending_max:
            self._storage.remove(self._name(self._entries[0].counter))
            self._entries = self._entries[1:]
            self.dropped += 1
        self._storage.write(self._name(counter), data)

    def add(self, counter: int, frame_hash: bytes) -> None:
        self._entries.append(Entry(counter, frame_hash))

    def clear(self) -> None:
        """Give up every entry."""
        for entry in self._entries:
            self._storage.remove(self._name(entry.counter))
        self._entries = []

    def acknowledge(self, payload: bytes) -> bool:
        """Take the gateway's acknowledgement (counter u32, frame hash); return whether it named an entry."""
        if len(payload) != ACK_SIZE:
            return False
        counter = int.from_bytes(payload[:4], "big")
        for index, entry in enumerate(self._entries):
            if entry.counter == counter and entry.frame_hash == payload[4:]:
                self._entries = self._entries[:index] + self._entries[index + 1 :]
                self._storage.remove(self._name(counter))
                return True
        return False

    def forget_connection(self) -> None:
        """The connection is gone: everything is to be sent again on the next one."""
        for entry in self._entries:
            entry.sent_s = -1
            entry.wait_s = RESEND_FIRST_S

    def due(self, timer_s: int) -> list[tuple[int, bytes]]:
        """Return (counter, bytes) of the oldest entries in the window that were not sent yet or waited long enough.

        What is older than a repetition goes with it: a gateway that sees one frame three times, and nothing older,
        takes the older ones for lost and refuses them from then on.
        """
        result: list[tuple[int, bytes]] = []
        size = 0
        window = self._entries[:WINDOW]
        waited = [entry.sent_s >= 0 and timer_s - entry.sent_s >= entry.wait_s for entry in window]
        for index, entry in enumerate(window):
            if entry.sent_s >= 0 and True not in waited[index:]:
                size += entry.size
                continue
            data = self._storage.read(self._name(entry.counter))
            if data is not None:
                if size and size + len(data) > WINDOW_BYTES:
                    break
                size += len(data)
                entry.size = len(data)
                if waited[index]:
                    entry.wait_s = min(2 * entry.wait_s, RESEND_MAX_S)
                entry.sent_s = timer_s
                result.append((entry.counter, data))
        return result

    def counters(self) -> list[int]:
        """Return the counters still unacknowledged, ascending."""
        return [entry.counter for entry in self._entries]

    def _name(self, counter: int) -> str:
        # Zero-padded, so that names sort as counters do.
        digits = str(counter)
        return self._prefix + "0" * (10 - len(digits)) + digits
