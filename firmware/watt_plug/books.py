"""A plug's books: records, checkpoints and events, signed and stored in the order that makes a power cut harmless.

Order of a checkpoint and of an event: sign, store the frame, save the journal; only then may it be sent (the owner
pumps). A crash in between repeats the frame with the same number and never sends two of them, because nothing leaves
before the journal knows.
"""

import hashlib

from watt_wire import batch, checkpoint, merkle, record, statement

from watt_plug.config import Config
from watt_plug.constants import calibration_hash
from watt_plug.interval import Interval
from watt_plug.journal import Journal
from watt_plug.outbox import EVENT_PREFIX, EVENTS_MAX, Outbox, event_identity
from watt_plug.register import Register
from watt_plug.signer import Signer
from watt_plug.storage import Storage


class Books:
    """Everything that one plug signs and remembers. `state` is the journal's, `register` the energy."""

    def __init__(self, config: Config, signer: Signer, storage: Storage) -> None:
        """Load what is stored; raise journal.CorruptionError if it cannot be trusted."""
        self._config = config
        self._signer = signer
        self.plug_id = hashlib.sha256(signer.public).digest()[:8]
        self._journal = Journal(storage)
        self.state = self._journal.load()
        state = self.state
        self.register = Register(config.rated_w, state.import_mwh, state.remainder_uj, config.span)
        self.register.pending_uj, self.register.pending_from_s = state.pending_uj, state.pending_from_s
        self.batches = Outbox(storage)
        self.batches.restore(state.counter)
        self.events = Outbox(storage, EVENT_PREFIX, event_identity, EVENTS_MAX)
        self.events.restore(state.events)
        self.unsaved = 0
        "Records since the last save."

    def record(self, interval: Interval, start_s: int, end_s: int, quality: str, relay: int) -> None:
        """End an interval: one more open record with the register of `end_s`."""
        duration_s = end_s - start_s
        flags = interval.flags
        if not interval.samples:
            flags |= record.FLAG_NO_SAMPLES
        if interval.samples < duration_s // self._config.sample_s:
            flags |= record.FLAG_PARTIAL
        voltage_mv = interval.voltage_mv
        current_ma = interval.current_ma
        power_mw = interval.power_mw
        state = self.state
        state.open_records.append(
            record.encode(
                record.Record(
                    self.plug_id,
                    state.next_sequence,
                    start_s,
                    duration_s,
                    ord(quality),
                    self.register.import_mwh,
                    0,
                    voltage_mv.low,
                    voltage_mv.mean(),
                    voltage_mv.high,
                    current_ma.low,
                    current_ma.mean(),
                    current_ma.high,
                    power_mw.low,
                    power_mw.mean(),
                    power_mw.high,
                    relay,
                    flags,
                )
            )
        )
        state.next_sequence += 1
        self.unsaved += 1

    def checkpoint(self, time_s: int, quality: str, reason: int) -> None:
        """Close the open records under a signature."""
        state = self.state
        frames = state.open_records
        counter = state.counter + 1
        body = checkpoint.encode(
            checkpoint.Checkpoint(
                1,
                self.plug_id,
                state.boot_id,
                counter,
                state.previous,
                merkle.root([merkle.leaf_hash(frame) for frame in frames]),
                state.next_sequence - len(frames),
                len(frames),
                time_s,
                ord(quality),
                self.register.import_mwh,
                0,
                self._config.firmware_hash,
                calibration_hash(state.coefficients, self._config.calibration),
                reason,
            )
        )
        frame = checkpoint.seal(body, self._signer.sign(checkpoint.signing_message(body)))
        victim = self.batches.victim
        if victim:
            # The store is full. What is given up is known to the journal before it is gone.
            state.gap_first = state.gap_first or victim
            state.gap_last = victim
            self.save(time_s)
        self.batches.store(counter, batch.encode(frame, frames))
        state.counter = counter
        state.previous = checkpoint.frame_hash(frame)
        state.open_records = []
        self.save(time_s)
        self.batches.add(counter, state.previous)

    def event(self, kind: int, time_s: int, quality: str, first: int, last: int) -> None:
        """Sign something that happened (WIRE.md 10.1)."""
        state = self.state
        numbers = {
            "boot_id": state.boot_id,
            "number": state.events + 1,
            "kind": kind,
            "time_s": time_s,
            "time_quality": ord(quality),
            "checkpoint": state.counter,
            "import_mwh": self.register.import_mwh,
            "first": first,
            "last": last,
        }
        body = statement.EVENT.encode(statement.Statement(numbers, {"plug_id": self.plug_id}))
        frame = statement.EVENT.seal(body, self._signer.sign(statement.EVENT.message(body)))
        self.events.store(state.events + 1, frame)
        state.events += 1
        self.save(time_s)
        self.events.add(state.events, hashlib.sha256(body).digest())

    def save(self, time_s: int) -> None:
        """Write the journal."""
        state, register = self.state, self.register
        state.import_mwh = register.import_mwh
        state.remainder_uj = register.remainder_uj
        state.position = register.position
        state.position_s = register.position_s
        state.pending_uj = register.pending_uj
        state.pending_from_s = register.pending_from_s
        state.time_s = time_s
        self._journal.save(state)
        self.unsaved = 0

    def forget_household(self, time_s: int) -> None:
        """Give up what the household's gateway has not taken: it is not for the next household (V1.2)."""
        state = self.state
        counters = self.batches.counters()
        if counters:
            state.gap_first = state.gap_first or counters[0]
            state.gap_last = counters[-1]
        self.save(time_s)
        self.batches.clear()
        self.events.clear()
