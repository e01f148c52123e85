"""What a plug must not forget: two slots written in turn, each with its own checksum.

    magic 4 | sequence u32 | boot id u32 | counter u32 | previous hash 32 | next record sequence u32
    | register mWh u64 | remainder uJ u32 | pulse position u32 (0xFFFFFFFF: none) | position time u64 | time u64
    | coefficients 3 x u32 | events u32 | first and last counter of a gap 2 x u32 | calibration check 8
    | appliance on since u64, register then u64 | refusals u32 | roll-backs u16 | pending energy uJ u64, from u64
    | open records u16 | their frames | first 16 bytes of SHA-256 of all before

"WPJ2" lacks roll-backs and pending energy, "WPJ1" all from the events on; both are read, and written as "WPJ3".

The younger valid slot counts. A torn write spoils only the slot being written, so at most the last save is lost;
everything the plug has sent out was saved before it was sent.

**Invariant:** a plug that finds slots but no valid one stops: it must not sign with a counter that it guessed.
"""

import hashlib

from watt_wire import checkpoint, record

from watt_plug.storage import Storage

MAGIC = b"WPJ3"
NAMES = ("journal0", "journal1")
CHECK_SIZE = 16
HEAD_SIZE_FIRST = 4 + 4 + 4 + 4 + 32 + 4 + 8 + 4 + 4 + 8 + 8 + 12 + 2
HEAD_SIZE_SECOND = HEAD_SIZE_FIRST + 4 + 8 + 8 + 16 + 4
HEAD_SIZE = HEAD_SIZE_SECOND + 2 + 8 + 8
HEAD_SIZES = {b"WPJ1": HEAD_SIZE_FIRST, b"WPJ2": HEAD_SIZE_SECOND, MAGIC: HEAD_SIZE}
CALIBRATION_SIZE = 8
NO_POSITION = 0xFFFFFFFF
OPEN_RECORDS_MAX = 192
"Records between two checkpoints: 15 of a minute, 180 of five seconds; more would not fit an MQTT packet."


class CorruptionError(Exception):
    """The disk's fault: stop, do not sign."""


class State:
    """The journal's content; a fresh one is that of a plug that never ran."""

    def __init__(self) -> None:
        self.boot_id = 0
        self.counter = 0
        self.previous = checkpoint.NO_PREVIOUS
        self.next_sequence = 1
        self.import_mwh = 0
        self.remainder_uj = 0
        self.position = -1
        self.position_s = 0
        self.time_s = 0
        self.coefficients: tuple[int, int, int] = (0, 0, 0)
        self.events = 0
        self.gap_first = 0
        self.gap_last = 0
        self.calibration = bytes(CALIBRATION_SIZE)
        self.on_since_s = 0
        self.on_mwh = 0
        self.refusals = 0
        self.roll_backs = 0
        self.pending_uj = 0
        self.pending_from_s = 0
        self.open_records: list[bytes] = []


def encode(state: State, sequence: int) -> bytes:
    """Return the bytes of one slot."""
    position = NO_POSITION if state.position < 0 else state.position
    parts = [MAGIC]
    for value, size in ((sequence, 4), (state.boot_id, 4), (state.counter, 4)):
        parts.append(_unsigned(value, size))
    parts.append(state.previous)
    for value, size in (
        (state.next_sequence, 4),
        (state.import_mwh, 8),
        (state.remainder_uj, 4),
        (position, 4),
        (state.position_s, 8),
        (state.time_s, 8),
        (state.coefficients[0], 4),
        (state.coefficients[1], 4),
        (state.coefficients[2], 4),
        (state.events, 4),
        (state.gap_first, 4),
        (state.gap_last, 4),
    ):
        parts.append(_unsigned(value, size))
    parts.append(state.calibration)
    for value, size in (
        (state.on_since_s, 8),
        (state.on_mwh, 8),
        (state.refusals, 4),
        (state.roll_backs, 2),
        (state.pending_uj, 8),
        (state.pending_from_s, 8),
        (len(state.open_records), 2),
    ):
        parts.append(_unsigned(value, size))
    body = b"".join(parts + state.open_records)
    return body + hashlib.sha256(body).digest()[:CHECK_SIZE]


def decode(slot: bytes) -> "tuple[int, State] | None":
    """Return (sequence, state), or None if the slot is torn or not a slot."""
    head_size = HEAD_SIZES.get(slot[:4], len(slot))
    if len(slot) < head_size + CHECK_SIZE:
        return None
    body = slot[:-CHECK_SIZE]
    if hashlib.sha256(body).digest()[:CHECK_SIZE] != slot[-CHECK_SIZE:]:
        return None
    state = State()
    state.boot_id = _number(body, 8, 4)
    state.counter = _number(body, 12, 4)
    state.previous = body[16:48]
    state.next_sequence = _number(body, 48, 4)
    state.import_mwh = _number(body, 52, 8)
    state.remainder_uj = _number(body, 60, 4)
    position = _number(body, 64, 4)
    state.position = -1 if position == NO_POSITION else position
    state.position_s = _number(body, 68, 8)
    state.time_s = _number(body, 76, 8)
    state.coefficients = (_number(body, 84, 4), _number(body, 88, 4), _number(body, 92, 4))
    if head_size >= HEAD_SIZE_SECOND:
        state.events = _number(body, 96, 4)
        state.gap_first = _number(body, 100, 4)
        state.gap_last = _number(body, 104, 4)
        state.calibration = body[108:116]
        state.on_since_s = _number(body, 116, 8)
        state.on_mwh = _number(body, 124, 8)
        state.refusals = _number(body, 132, 4)
    if head_size == HEAD_SIZE:
        state.roll_backs = _number(body, 136, 2)
        state.pending_uj = _number(body, 138, 8)
        state.pending_from_s = _number(body, 146, 8)
    count = _number(body, head_size - 2, 2)
    if count > OPEN_RECORDS_MAX or len(body) != head_size + count * record.SIZE:
        return None
    for index in range(count):
        offset = head_size + index * record.SIZE
        state.open_records.append(body[offset : offset + record.SIZE])
    return _number(body, 4, 4), state


class Journal:
    """Loads the younger slot once, then writes the other one each time."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._sequence = 0

    def load(self) -> State:
        """Return the saved state, a fresh one if nothing was ever saved; raise CorruptionError if all is torn."""
        best = None
        found = 0
        for name in NAMES:
            slot = self._storage.read(name)
            if slot is None:
                continue
            found += 1
            decoded = decode(slot)
            if decoded is not None and (best is None or decoded[0] > best[0]):
                best = decoded
        if best is None:
            if found:
                raise CorruptionError("no valid journal slot among " + str(found))
            return State()
        self._sequence = best[0]
        return best[1]

    def save(self, state: State) -> None:
        """Write the older slot."""
        self._sequence += 1
        self._storage.write(NAMES[self._sequence & 1], encode(state, self._sequence))


def _unsigned(value: int, size: int) -> bytes:
    # MicroPython wraps what does not fit; CPython raises: check here, so that both stop.
    assert 0 <= value < 1 << 8 * size
    return value.to_bytes(size, "big")


def _number(body: bytes, offset: int, size: int) -> int:
    return int.from_bytes(body[offset : offset + size], "big")
