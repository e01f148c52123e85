"""The plug: a step machine from chip frames and a clock to signed batches on MQTT.

Strategy. The owner feeds bytes (`uart`, `network`) and time (`tick`), and sends what `take_output` returns. Records
end at multiples of `record_s`; a checkpoint closes every slot at a multiple of `slot_s` with the register of exactly
that instant: a frame that arrives at t belongs to the interval that ends at t. Boot, a counter discontinuity, a
clock step and a change of the chip's coefficients close the record at once with a checkpoint of their own.

Order at a checkpoint: sign, store the batch, save the journal, send. A crash in between repeats the checkpoint with
the same counter and never sends two of them, because nothing leaves before the journal knows.

Two clocks: `now_s` (Unix seconds, what records are about) and `timer_s` (any monotonic seconds, what MQTT timers
need). They differ only where the first one runs faster, in a demonstration.

It obeys no command yet: the only topic it subscribes to is its own acknowledgements.
"""

import hashlib

from watt_wire import batch, checkpoint, merkle, record, topics

from watt_plug import mqtt
from watt_plug.interval import Interval
from watt_plug.journal import OPEN_RECORDS_MAX, Journal
from watt_plug.meters import cse7766
from watt_plug.outbox import Outbox
from watt_plug.register import OVERLOAD_PPM, STEP_COUNTED, STEP_DISCONTINUITY, Register
from watt_plug.signer import Signer
from watt_plug.storage import Storage

CLOCK_STEP_S = 120
"A tick this far from the one before is a clock that was set (or a plug that hung): signed, not smoothed over."
SAMPLES_MAX = 512
"Frames between two ticks: 20 a second for 25 s. More means a loop that hangs; the oldest go, the counter heals."
EVENTS_MAX = 8
"Event checkpoints per slot: noise on the counter must not become a stream of signatures; the flags still tell."
COEFFICIENTS_AGREE = 3
"Frames in a row that must carry new coefficients: a damaged frame that passes the checksum is not a calibration."
LOG_MAX = 16
"Lines kept for the owner; a line that nobody took is not worth memory."


class Config:
    """How one plug works.

    gateway         name of the household's gateway in topics
    rated_w         rated power; bounds what the register accepts
    firmware_hash   32 bytes, of the code that runs (release.py)
    record_s        length of a record; divides slot_s
    slot_s          length of a slot; checkpoints at its multiples
    sample_s        expected time between frames; fewer samples mark a record as partial
    save_records    journal after this many records; at a checkpoint always
    keep_alive_s    of MQTT, in `timer_s` seconds
    time_quality    letter of U, I, S, R (WIRE.md)
    voltage_ppm     voltage divider of the module
    """

    def __init__(
        self,
        gateway: str,
        rated_w: int,
        firmware_hash: bytes,
        record_s: int = 60,
        slot_s: int = 900,
        sample_s: int = 10,
        save_records: int = 1,
        keep_alive_s: int = 60,
        time_quality: str = "S",
        voltage_ppm: int = cse7766.PPM,
    ) -> None:
        assert 0 < record_s <= slot_s and slot_s % record_s == 0
        self.gateway = gateway
        self.rated_w = rated_w
        self.firmware_hash = firmware_hash
        self.record_s = record_s
        self.slot_s = slot_s
        self.sample_s = sample_s
        self.save_records = save_records
        self.keep_alive_s = keep_alive_s
        self.time_quality = time_quality
        self.voltage_ppm = voltage_ppm


class Plug:
    """One plug. Everything it remembers over a restart is in `storage`."""

    def __init__(self, config: Config, signer: Signer, storage: Storage) -> None:
        """Load the journal; raise journal.CorruptionError if it cannot be trusted."""
        self._config = config
        self._signer = signer
        self.plug_id = hashlib.sha256(signer.public).digest()[:8]
        self._journal = Journal(storage)
        self._state = self._journal.load()
        self.resume_s = self._state.time_s
        "Time of the last journal; 0 for a plug that never ran. An emulated chip goes on from here."
        self._register = Register(config.rated_w, self._state.import_mwh, self._state.remainder_uj)
        self._outbox = Outbox(storage)
        self._outbox.restore(self._state.counter)
        self._parser = cse7766.Parser(config.voltage_ppm)
        self._samples: list[cse7766.Sample] = []
        self._interval = Interval()
        self._started = False
        self._now_s = 0
        self._timer_s = 0
        self._start_s = 0
        self._events = 0
        self._unsaved = 0
        self._candidate = (0, 0, 0)
        self._candidate_count = 0
        self._session: "mqtt.Session | None" = None
        self._log: list[str] = []

    # What the owner asks.

    @property
    def counter(self) -> int:
        """Counter of the last checkpoint that was signed; 0 before the first one."""
        return self._state.counter

    @property
    def import_mwh(self) -> int:
        return self._register.import_mwh

    @property
    def unacknowledged(self) -> list[int]:
        """Counters of the batches that the gateway has not acknowledged, ascending."""
        return self._outbox.counters()

    @property
    def must_close(self) -> bool:
        """The session is over: close the transport, then call `closed`."""
        return self._session is not None and self._session.closed

    def take_output(self) -> bytes:
        """Return the network bytes to send and forget them."""
        return self._session.take_output() if self._session is not None else b""

    def take_log(self) -> list[str]:
        """Return the lines logged since the last call."""
        lines = self._log
        self._log = []
        return lines

    # Time and measurement.

    def start(self, now_s: int, chip_running: bool = True, timer_s: int = -1) -> None:
        """Begin a life: count the boot and sign it.

        chip_running   False after a loss of supply: the chip began at zero, its counter says nothing about before
        """
        assert not self._started
        self._started = True
        self._now_s = now_s
        self._timer_s = now_s if timer_s < 0 else timer_s
        self._start_s = now_s
        state = self._state
        state.boot_id += 1
        if state.position >= 0 and chip_running:
            self._register.resume(state.position, state.position_s)
        self._checkpoint(now_s, checkpoint.BOOT)

    def uart(self, data: bytes) -> None:
        """Take bytes of the metering chip; they are measured at the next tick."""
        self._samples += self._parser.feed(data)
        if len(self._samples) > SAMPLES_MAX:
            self._samples = self._samples[-SAMPLES_MAX:]

    def tick(self, now_s: int, timer_s: int = -1) -> None:
        """It is `now_s`: measure what arrived, close what is due, keep the connection alive."""
        assert self._started
        if not 0 <= now_s - self._now_s <= CLOCK_STEP_S:
            self._step_clock(now_s)
        while self._end_s() < now_s:
            # A late tick: the interval ended before it, so what has just arrived belongs to the next one.
            self._close(self._end_s(), 0)
        self._now_s = now_s
        self._timer_s = now_s if timer_s < 0 else timer_s
        event = 0
        for sample in self._samples:
            event = self._measure(sample) or event
        self._samples = []
        if event and self._events >= EVENTS_MAX:
            event = 0
        if event:
            self._events += 1
        if event or self._end_s() == now_s:
            self._close(now_s, event)
        if self._session is not None:
            self._handle(self._session.tick(self._timer_s))
            self._pump()

    def _end_s(self) -> int:
        return self._start_s - self._start_s % self._config.record_s + self._config.record_s

    def _measure(self, sample: cse7766.Sample) -> int:
        """Take one frame; return the reason of the checkpoint it calls for, or 0."""
        state = self._state
        if sample.coefficients != state.coefficients:
            if state.coefficients[2] and not self._is_agreed(sample.coefficients):
                return 0
            known = state.coefficients[2]
            state.coefficients = sample.coefficients
            if known:
                # The pulses in between have one of two weights: start from here, and say so.
                self._register.resume(sample.pulses, self._now_s)
                self._interval.add(sample)
                self._interval.flags |= record.FLAG_DISCONTINUITY
                return checkpoint.CALIBRATION
        self._candidate_count = 0
        outcome = self._register.count(sample.pulses, sample.coefficients[2], self._now_s)
        if outcome == STEP_DISCONTINUITY:
            self._interval.flags |= record.FLAG_DISCONTINUITY
            self._say("discontinuity at " + str(self._now_s))
        elif outcome != STEP_COUNTED:
            return 0
        self._interval.add(sample)
        if sample.power_mw * 1000 > self._config.rated_w * OVERLOAD_PPM:
            self._interval.flags |= record.FLAG_OVER_RANGE
        return checkpoint.DISCONTINUITY if outcome == STEP_DISCONTINUITY else 0

    def _is_agreed(self, coefficients: tuple[int, int, int]) -> bool:
        if coefficients != self._candidate:
            self._candidate = coefficients
            self._candidate_count = 0
        self._candidate_count += 1
        return self._candidate_count >= COEFFICIENTS_AGREE

    def _step_clock(self, now_s: int) -> None:
        """Close what was measured under the old time, sign the step, begin anew under the new time."""
        self._say("clock step " + str(self._now_s) + " to " + str(now_s))
        self._interval.flags |= record.FLAG_CLOCK_STEPPED
        if self._now_s > self._start_s:
            self._append(self._now_s)
        else:
            self._interval = Interval()
        self._register.shift(now_s - self._now_s)
        self._now_s = now_s
        self._start_s = now_s
        self._checkpoint(now_s, checkpoint.CLOCK_STEP)

    def _close(self, end_s: int, reason: int) -> None:
        """End the open record at `end_s`; sign a checkpoint if there is a reason or the slot ends."""
        if end_s > self._start_s:
            self._append(end_s)
        if end_s % self._config.slot_s == 0:
            self._events = 0
            reason = reason or checkpoint.PERIODIC
        elif len(self._state.open_records) >= OPEN_RECORDS_MAX:
            reason = reason or checkpoint.PERIODIC
        if reason:
            self._checkpoint(end_s, reason)
        elif self._unsaved >= self._config.save_records:
            self._save(end_s)

    def _append(self, end_s: int) -> None:
        config = self._config
        interval = self._interval
        duration_s = end_s - self._start_s
        flags = interval.flags
        if not interval.samples:
            flags |= record.FLAG_NO_SAMPLES
        if interval.samples < duration_s // config.sample_s:
            flags |= record.FLAG_PARTIAL
        voltage_mv = interval.voltage_mv
        current_ma = interval.current_ma
        power_mw = interval.power_mw
        self._state.open_records.append(
            record.encode(
                record.Record(
                    self.plug_id,
                    self._state.next_sequence,
                    self._start_s,
                    duration_s,
                    ord(config.time_quality),
                    self._register.import_mwh,
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
                    record.RELAY_ON,
                    flags,
                )
            )
        )
        self._state.next_sequence += 1
        self._interval = Interval()
        self._start_s = end_s
        self._unsaved += 1

    def _checkpoint(self, time_s: int, reason: int) -> None:
        state = self._state
        frames = state.open_records
        body = checkpoint.encode(
            checkpoint.Checkpoint(
                1,
                self.plug_id,
                state.boot_id,
                state.counter + 1,
                state.previous,
                merkle.root([merkle.leaf_hash(frame) for frame in frames]),
                state.next_sequence - len(frames),
                len(frames),
                time_s,
                ord(self._config.time_quality),
                self._register.import_mwh,
                0,
                self._config.firmware_hash,
                calibration_hash(state.coefficients),
                reason,
            )
        )
        frame = checkpoint.seal(body, self._signer.sign(checkpoint.signing_message(body)))
        counter = state.counter + 1
        self._outbox.store(counter, batch.encode(frame, frames))
        state.counter = counter
        state.previous = checkpoint.frame_hash(frame)
        state.open_records = []
        self._save(time_s)
        self._outbox.add(counter, state.previous)
        self._pump()

    def _save(self, time_s: int) -> None:
        state = self._state
        state.import_mwh = self._register.import_mwh
        state.remainder_uj = self._register.remainder_uj
        state.position = self._register.position
        state.position_s = self._register.position_s
        state.time_s = time_s
        self._journal.save(state)
        self._unsaved = 0

    # Network.

    def opened(self) -> None:
        """The transport to the broker is open."""
        self._session = mqtt.Session("plug-" + self.plug_id.hex(), self._config.keep_alive_s)
        self._session.open(self._timer_s)

    def closed(self) -> None:
        """The transport is closed, whoever closed it."""
        self._session = None
        self._outbox.forget_connection()

    def network(self, data: bytes) -> None:
        """Take bytes from the transport."""
        if self._session is not None:
            self._handle(self._session.receive(data, self._timer_s))

    def _handle(self, events: list[mqtt.Event]) -> None:
        for event in events:
            if event.kind == mqtt.CONNECTED and self._session is not None:
                self._session.subscribe(topics.plug_ack(self._config.gateway, self.plug_id), self._timer_s)
            elif event.kind == mqtt.SUBSCRIBED:
                self._outbox.forget_connection()
                self._pump()
            elif event.kind == mqtt.MESSAGE:
                if event.topic == topics.plug_ack(self._config.gateway, self.plug_id):
                    if self._outbox.acknowledge(event.payload):
                        self._pump()
            elif event.kind == mqtt.CLOSED:
                self._say("mqtt " + event.reason)

    def _pump(self) -> None:
        """Publish the batches that are due. One that the session cannot take now comes up again by its time-out."""
        session = self._session
        if session is None or not session.connected:
            return
        topic = topics.plug_batch(self._config.gateway, self.plug_id)
        for _, data in self._outbox.due(self._timer_s):
            session.publish(topic, data, self._timer_s)

    def _say(self, line: str) -> None:
        if len(self._log) < LOG_MAX:
            self._log.append(line)


def calibration_hash(coefficients: tuple[int, int, int]) -> bytes:
    """Return the hash of the constants in use: SHA-256 of a label and three u32; of zeros before the first frame."""
    data = b"wattpact/1/cse7766\x00"
    for value in coefficients:
        data += value.to_bytes(4, "big")
    return hashlib.sha256(data).digest()
