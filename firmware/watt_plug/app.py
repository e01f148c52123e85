"""The plug: a step machine from chip frames and a clock to signed batches on MQTT.

Strategy. The owner feeds bytes (`uart`, `network`) and time (`tick`), and sends what `take_output` returns. Records
end at multiples of `record_s`; a checkpoint closes every slot at a multiple of `slot_s` with the register of exactly
that instant: a frame that arrives at t belongs to the interval that ends at t. Boot, a counter discontinuity, a
clock step and a change of the chip's coefficients close the record at once with a checkpoint of their own.

Order at a checkpoint: sign, store the batch, save the journal, send. A crash in between repeats the checkpoint with
the same counter and never sends two of them, because nothing leaves before the journal knows.

Two clocks: `now_s` (Unix seconds, what records are about) and `timer_s` (any monotonic seconds, what MQTT timers
need). They differ only where the first one runs faster, in a demonstration.

Without a `Switch` it obeys no command and subscribes to its own acknowledgements alone.
"""

import hashlib

from watt_wire import batch, checkpoint, merkle, record, statement

from watt_plug import courier
from watt_plug.appliance import NO_CHANGE, WENT_ON, Appliance, OverPower
from watt_plug.calibration import calibration_hash
from watt_plug.config import Config
from watt_plug.courier import Courier
from watt_plug.interval import Interval
from watt_plug.journal import CALIBRATION_SIZE, OPEN_RECORDS_MAX, Journal
from watt_plug.meters.sample import Sample
from watt_plug.outbox import EVENT_PREFIX, EVENTS_MAX, Outbox, event_identity
from watt_plug.register import OVERLOAD_PPM, STEP_COUNTED, STEP_DISCONTINUITY, Register
from watt_plug.signer import Signer
from watt_plug.storage import Storage

CLOCK_STEP_S = 120
"A tick this far from the one before is a clock that was set (or a plug that hung): signed, not smoothed over."
SAMPLES_MAX = 512
"Frames between two ticks: 20 a second for 25 s. More means a loop that hangs; the oldest go, the counter heals."
EVENTS_PER_SLOT = 8
"Event checkpoints per slot: noise on the counter must not become a stream of signatures; the flags still tell."
COEFFICIENTS_AGREE = 3
"Frames in a row that must carry new coefficients: a damaged frame that passes the checksum is not a calibration."
ASKED_MAX = 4
"Messages for the owner that it has not taken yet: a piece of an update has two kilobytes."
LOG_MAX = 16
"Lines kept for the owner; a line that nobody took is not worth memory."


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
        self._register = Register(config.rated_w, self._state.import_mwh, self._state.remainder_uj, config.span)
        self._outbox = Outbox(storage)
        self._outbox.restore(self._state.counter)
        self._event_box = Outbox(storage, EVENT_PREFIX, event_identity, EVENTS_MAX)
        self._event_box.restore(self._state.events)
        self._parser = config.parser
        self._switch = config.switch
        self._appliance = Appliance(self._state.on_since_s > 0)
        self._over_power = OverPower(config.rated_w * OVERLOAD_PPM // 1000)
        self._quality = config.time_quality
        self._power_mw = 0
        self._signed_events = 0
        self._refused = 0
        self._asked: "list[tuple[str, bytes]]" = []
        self._samples: list[Sample] = []
        self._interval = Interval()
        self._started = False
        self._now_s = 0
        self._timer_s = 0
        self._start_s = 0
        self._events = 0
        self._unsaved = 0
        self._candidate = (0, 0, 0)
        self._candidate_count = 0
        self._courier = Courier(
            config.gateway, self.plug_id, config.keep_alive_s, self._outbox, self._event_box, config.switch is not None
        )
        self._log: list[str] = []
        if self._switch is not None and not self._switch.load(storage, self.plug_id):
            self._say("interlock file is damaged: no command will be taken")

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
        return self._courier.must_close

    def take_output(self) -> bytes:
        """Return the network bytes to send and forget them."""
        return self._courier.take_output()

    @property
    def relay(self) -> bool:
        """What the relay's pin should show now; what it stands for is saved already."""
        return self._switch is None or self._switch.lock.relay

    @property
    def must_wait(self) -> bool:
        """A command is at work: a restart for an update has to wait (V6.3)."""
        return self._switch is not None and self._switch.lock.busy

    @property
    def dropped(self) -> int:
        """Batches given up since the start because the store was full."""
        return self._outbox.dropped

    def status(self) -> "dict[str, object]":
        """Return what the status topic shows (DEVICE.md 7); the owner adds what it knows."""
        shown: dict[str, object] = {
            "counter": self._state.counter,
            "import_mwh": self._register.import_mwh,
            "power_mw": self._power_mw,
            "relay": self.relay,
            "quality": self._quality,
            "unacknowledged": len(self._outbox.counters()),
            "dropped": self._outbox.dropped,
            "rejected": self._parser.rejected,
        }
        if self._switch is not None:
            shown["state"] = self._switch.lock.name
            shown["refused"] = self._switch.orders.refused
        return shown

    def take_log(self) -> list[str]:
        """Return the lines logged since the last call."""
        lines = self._log
        self._log = []
        return lines

    # Time and measurement.

    def start(
        self,
        now_s: int,
        chip_running: bool = True,
        timer_s: int = -1,
        reset: int = 0,
        boots: int = 1,
        quality: str = "",
    ) -> None:
        """Begin a life: count the boot and sign it.

        chip_running   False after a loss of supply: the chip began at zero, its counter says nothing about before
        reset, boots   cause of the reset and starts since the last healthy one, signed as an event (WIRE.md 10.1)
        quality        of `now_s`; as configured without it
        """
        assert not self._started
        self._started = True
        self._now_s = now_s
        self._timer_s = now_s if timer_s < 0 else timer_s
        self._start_s = now_s
        self._quality = quality or self._quality
        state = self._state
        state.boot_id += 1
        if state.position >= 0 and chip_running:
            self._register.resume(state.position, state.position_s)
        if self._switch is not None:
            self._switch.lock.start(now_s, self._timer_s, self._quality == "S", not chip_running)
        self._checkpoint(now_s, checkpoint.BOOT)
        if reset:
            self._event(statement.RESET, reset, boots)
        calibration = self._config.calibration
        check = bytes(CALIBRATION_SIZE)
        if calibration is not None:
            check = hashlib.sha256(calibration.text()).digest()[:CALIBRATION_SIZE]
        if check != state.calibration:
            state.calibration = check
            self._checkpoint(now_s, checkpoint.CALIBRATION)

    def uart(self, data: bytes) -> None:
        """Take bytes of the metering chip; they are measured at the next tick."""
        self._samples += self._parser.feed(data)
        if len(self._samples) > SAMPLES_MAX:
            self._samples = self._samples[-SAMPLES_MAX:]

    def sample(self, sample: Sample) -> None:
        """Take a sample of a chip without a UART; it is measured at the next tick."""
        self._samples = self._samples[1 - SAMPLES_MAX :] + [sample]

    def tick(self, now_s: int, timer_s: int = -1, quality: str = "") -> None:
        """It is `now_s`, known with `quality`: measure what arrived, close what is due, keep the connection alive."""
        assert self._started
        if quality and quality != self._quality:
            self._step_clock(now_s, quality)
        if not 0 <= now_s - self._now_s <= CLOCK_STEP_S:
            self._step_clock(now_s, self._quality)
        while self._end_s() < now_s:
            # A late tick: the interval ended before it, so what has just arrived belongs to the next one.
            self._close(self._end_s(), 0)
        self._now_s = now_s
        self._timer_s = now_s if timer_s < 0 else timer_s
        event = 0
        changes: list[int] = []
        for sample in self._samples:
            event = self._measure(sample, changes) or event
        self._samples = []
        event = self._tick_switch(now_s) or event
        if event and self._events >= EVENTS_PER_SLOT and event != checkpoint.RELAY:
            event = 0
        if event:
            self._events += 1
        if event or self._end_s() == now_s or (changes and self._signed_events < EVENTS_PER_SLOT):
            self._close(now_s, event)
        for change in changes:
            self._sign_change(change)
        self._deliver(self._courier.tick(self._timer_s))

    def _end_s(self) -> int:
        return self._start_s - self._start_s % self._config.record_s + self._config.record_s

    def stop(self, now_s: int) -> None:
        """End a life in order: close the record and sign that the plug shuts down (V6.3)."""
        self._close(now_s, checkpoint.SHUTDOWN)

    # The switch.

    def work(self) -> bool:
        """Do a slice of what takes long; return whether more is to be done. Feed the watchdog between two calls."""
        switch = self._switch
        if switch is None:
            return False
        order = switch.orders.step()
        if order is not None:
            reason = switch.lock.order(order, self._now_s, self._timer_s, self._quality == "S")
            if reason:
                switch.orders.refuse(reason)
                self._say("command refused: " + reason)
            else:
                switch.save()
                self._close(self._now_s, checkpoint.COMMAND)
        return switch.orders.busy

    def button(self) -> None:
        """The household pressed the button, short."""
        if self._switch is not None:
            self._switch.lock.button(self._now_s, self._timer_s)
            self._move()
            self._event(statement.BUTTON, 1, 1 if self.relay else 0)

    def set_essential(self, essential: bool) -> bool:
        """The household says that this plug must never be switched off, or no longer; False without a clock."""
        if self._switch is None:
            return False
        clock_good = self._quality == "S"
        done = self._switch.lock.set_essential(essential, self._now_s, self._timer_s, clock_good)
        self._move()
        return done

    def _tick_switch(self, now_s: int) -> int:
        """Let the interlock's time pass; return checkpoint.RELAY if the relay moved."""
        switch = self._switch
        if switch is None:
            return 0
        before = switch.lock.relay
        switch.lock.tick(now_s, self._timer_s, self._quality == "S")
        switch.save()
        if switch.lock.relay == before:
            return 0
        self._interval.flags |= record.FLAG_RELAY_CHANGED
        return checkpoint.RELAY

    def _move(self) -> None:
        """The relay may have moved by hand or by a trip: save, then close the record with a checkpoint."""
        switch = self._switch
        if switch is not None and switch.lock.dirty:
            switch.save()
            self._interval.flags |= record.FLAG_RELAY_CHANGED
            self._close(self._now_s, checkpoint.RELAY)

    def _sign_change(self, change: int) -> None:
        state = self._state
        if change == WENT_ON:
            state.on_since_s = max(1, self._now_s)
            state.on_mwh = self._register.import_mwh
            self._event(statement.APPLIANCE_ON, max(0, self._power_mw), 0)
        else:
            energy_mwh = self._register.import_mwh - state.on_mwh
            length_s = max(0, self._now_s - state.on_since_s)
            state.on_since_s = 0
            self._event(statement.APPLIANCE_OFF, max(0, energy_mwh), length_s)

    def _event(self, kind: int, first: int, last: int) -> None:
        """Sign and store an event, in the order of a checkpoint: store, journal, send."""
        if self._signed_events >= EVENTS_PER_SLOT:
            return
        self._signed_events += 1
        state = self._state
        numbers = {
            "boot_id": state.boot_id,
            "number": state.events + 1,
            "kind": kind,
            "time_s": self._now_s,
            "time_quality": ord(self._quality),
            "checkpoint": state.counter,
            "import_mwh": self._register.import_mwh,
            "first": first,
            "last": last,
        }
        body = statement.EVENT.encode(statement.Statement(numbers, {"plug_id": self.plug_id}))
        frame = statement.EVENT.seal(body, self._signer.sign(statement.EVENT.message(body)))
        self._event_box.store(state.events + 1, frame)
        state.events += 1
        self._save(self._now_s)
        self._event_box.add(state.events, hashlib.sha256(body).digest())
        self._courier.pump(self._timer_s)

    # Measuring.

    def _measure(self, sample: Sample, changes: "list[int]") -> int:
        """Take one frame; return the reason of the checkpoint it calls for, or 0. Appliance changes are appended."""
        state = self._state
        if self._config.calibration is not None:
            sample = self._config.calibration.apply(sample)
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
        self._power_mw = sample.power_mw
        if sample.power_mw * 1000 > self._config.rated_w * OVERLOAD_PPM:
            self._interval.flags |= record.FLAG_OVER_RANGE
        if self._config.appliances:
            change = self._appliance.take(sample.power_mw)
            if change != NO_CHANGE:
                changes.append(change)
        if self._switch is not None and self._over_power.take(sample.power_mw) and self._switch.lock.relay:
            self._switch.lock.trip(self._timer_s)
            self._move()
            self._event(statement.TRIP, sample.power_mw, self._over_power.limit_mw)
        return checkpoint.DISCONTINUITY if outcome == STEP_DISCONTINUITY else 0

    def _is_agreed(self, coefficients: tuple[int, int, int]) -> bool:
        if coefficients != self._candidate:
            self._candidate = coefficients
            self._candidate_count = 0
        self._candidate_count += 1
        return self._candidate_count >= COEFFICIENTS_AGREE

    def _step_clock(self, now_s: int, quality: str) -> None:
        """Close what was measured under the old time, sign the step, begin anew under the new time."""
        self._say("clock step " + str(self._now_s) + " to " + str(now_s))
        self._interval.flags |= record.FLAG_CLOCK_STEPPED
        if self._now_s > self._start_s:
            self._append(self._now_s)
        else:
            self._interval = Interval()
        # What was measured so far keeps the quality under which it was measured.
        self._quality = quality
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
            self._signed_events = 0
            reason = reason or checkpoint.PERIODIC
        elif len(self._state.open_records) >= OPEN_RECORDS_MAX:
            reason = reason or checkpoint.PERIODIC
        if reason:
            self._checkpoint(end_s, reason)
            self._sign_refusals()
        elif self._unsaved >= self._config.save_records:
            self._save(end_s)

    def _sign_refusals(self) -> None:
        """Commands were refused since the last checkpoint: say how many, once a slot."""
        if self._switch is None:
            return
        new = self._switch.orders.total - self._refused
        if new and self._events == 0:
            self._refused += new
            self._state.refusals += new
            self._event(statement.REFUSALS, self._state.refusals, new)

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
                    ord(self._quality),
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
                    record.RELAY_ON if self._switch is None else self._switch.record_relay,
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
                ord(self._quality),
                self._register.import_mwh,
                0,
                self._config.firmware_hash,
                calibration_hash(state.coefficients, self._config.calibration),
                reason,
            )
        )
        frame = checkpoint.seal(body, self._signer.sign(checkpoint.signing_message(body)))
        counter = state.counter + 1
        victim = self._outbox.victim
        if victim:
            # The store is full. What is given up is known to the journal before it is gone.
            state.gap_first = state.gap_first or victim
            state.gap_last = victim
            self._save(time_s)
        self._outbox.store(counter, batch.encode(frame, frames))
        state.counter = counter
        state.previous = checkpoint.frame_hash(frame)
        state.open_records = []
        self._save(time_s)
        self._outbox.add(counter, state.previous)
        self._courier.pump(self._timer_s)

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
        self._courier.opened(self._timer_s)

    def closed(self) -> None:
        """The transport is closed, whoever closed it."""
        self._courier.closed()

    def network(self, data: bytes) -> None:
        """Take bytes from the transport."""
        self._deliver(self._courier.receive(data, self._timer_s))

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send a message of the owner's (status, question for the time) once; False when that is not possible now."""
        return self._courier.publish(topic, payload, self._timer_s)

    def take_asked(self) -> "list[tuple[str, bytes]]":
        """Return (topic, payload) of messages that are the owner's: time and update."""
        asked = self._asked
        self._asked = []
        return asked

    def _deliver(self, messages: "list[tuple[str, bytes]]") -> None:
        """Take what the courier brought; (kind, payload), see courier.py."""
        for kind, payload in messages:
            switch = self._switch
            if kind == courier.CLOSED:
                self._say("mqtt " + payload.decode())
                continue
            if kind == courier.READY:
                self._sign_gap()
            elif kind == courier.COMMAND and switch is not None:
                switch.orders.offer(payload, switch.lock.saved.counter, self._now_s, self._quality == "S")
            elif kind in (courier.TIME, courier.UPDATE) and len(self._asked) < ASKED_MAX:
                self._asked.append((kind, payload))
            if switch is not None and kind != courier.READY:
                switch.lock.heard(self._timer_s)

    def _sign_gap(self) -> None:
        """Batches were given up while nobody listened: say which, once."""
        state = self._state
        if state.gap_first:
            first, last = state.gap_first, state.gap_last
            state.gap_first = state.gap_last = 0
            self._signed_events = min(self._signed_events, EVENTS_PER_SLOT - 1)
            self._event(statement.GAP, first, last)

    def _say(self, line: str) -> None:
        if len(self._log) < LOG_MAX:
            self._log.append(line)
