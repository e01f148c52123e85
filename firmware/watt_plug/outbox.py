"""Signed batches that the gateway has not acknowledged yet: kept in storage, sent in order, repeated with a bound.

An entry leaves only when the gateway names its counter and its frame hash: the broker's PUBACK is not the
gateway's word that it stored the batch.
"""

from watt_wire import batch, checkpoint
from watt_wire.errors import DecodeError

from watt_plug.storage import Storage

PENDING_MAX = 192
"Two days of quarter-hour batches of 1.8 KiB: 350 KiB of a 2 MiB flash. When full, the oldest gives way."
WINDOW = 1
"Batches on their way at once. The gateway takes them in order only: with more, one lost batch wastes all behind it."
RESEND_FIRST_S = 5
RESEND_MAX_S = 320
"Seconds of the machine clock between repetitions: doubles up to five minutes, for as long as the gateway is away."
ACK_SIZE = 36
PREFIX = "b"


class Entry:
    """One unacknowledged batch: its counter, its hash, when it was last sent (-1: not on this connection)."""

    def __init__(self, counter: int, frame_hash: bytes) -> None:
        self.counter = counter
        self.frame_hash = frame_hash
        self.sent_s = -1
        self.wait_s = RESEND_FIRST_S


class Outbox:
    """All unacknowledged batches in counter order."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._entries: list[Entry] = []
        self.dropped = 0
        "Batches given up because the store was full: the gateway sees the gap in the counter."

    def restore(self, counter_max: int) -> None:
        """Read what is stored; remove what a crash left above the journal's counter, for it was never sent."""
        for name in self._storage.names():
            if not name.startswith(PREFIX):
                continue
            stored = self._storage.read(name)
            try:
                frame, _ = batch.decode(stored or b"")
                counter = checkpoint.decode(frame).counter
            except DecodeError:
                self._storage.remove(name)
                continue
            if counter > counter_max or name != _name(counter):
                self._storage.remove(name)
            else:
                self._entries.append(Entry(counter, checkpoint.frame_hash(frame)))

    def store(self, counter: int, data: bytes) -> None:
        """Put the batch into storage; `add` makes it known once the journal knows the counter too."""
        if len(self._entries) >= PENDING_MAX:
            self._storage.remove(_name(self._entries[0].counter))
            self._entries = self._entries[1:]
            self.dropped += 1
        self._storage.write(_name(counter), data)

    def add(self, counter: int, frame_hash: bytes) -> None:
        self._entries.append(Entry(counter, frame_hash))

    def acknowledge(self, payload: bytes) -> bool:
        """Take the gateway's acknowledgement (counter u32, frame hash); return whether it named an entry."""
        if len(payload) != ACK_SIZE:
            return False
        counter = int.from_bytes(payload[:4], "big")
        for index, entry in enumerate(self._entries):
            if entry.counter == counter and entry.frame_hash == payload[4:]:
                self._entries = self._entries[:index] + self._entries[index + 1 :]
                self._storage.remove(_name(counter))
                return True
        return False

    def forget_connection(self) -> None:
        """The connection is gone: everything is to be sent again on the next one."""
        for entry in self._entries:
            entry.sent_s = -1
            entry.wait_s = RESEND_FIRST_S

    def due(self, timer_s: int) -> list[tuple[int, bytes]]:
        """Return (counter, batch) of the oldest WINDOW entries that were not sent yet or waited long enough."""
        result = []
        for entry in self._entries[:WINDOW]:
            if entry.sent_s >= 0:
                if timer_s - entry.sent_s < entry.wait_s:
                    continue
                entry.wait_s = min(2 * entry.wait_s, RESEND_MAX_S)
            data = self._storage.read(_name(entry.counter))
            if data is not None:
                entry.sent_s = timer_s
                result.append((entry.counter, data))
        return result

    def counters(self) -> list[int]:
        """Return the counters still unacknowledged, ascending."""
        return [entry.counter for entry in self._entries]


def _name(counter: int) -> str:
    # Zero-padded, so that names sort as counters do.
    digits = str(counter)
    return PREFIX + "0" * (10 - len(digits)) + digits
