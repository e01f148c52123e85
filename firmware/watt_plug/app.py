"""The plug: a step machine from chip frames and a clock to signed batches on MQTT.

Strategy. The owner feeds bytes (`uart`, `network`) and time (`tick`), and sends what `take_output` returns. Records
end at multiples of `record_s`; a checkpoint closes every slot at a multiple of `slot_s` with the register of exactly
that instant: a frame that arrives at t belongs to the interval that ends at t. Boot, a counter discontinuity, a
clock step and a change of the chip's coefficients close the record at once with a checkpoint of their own.

What is signed and stored, and in which order, is in books.py; what is signed leaves only after that.

Two clocks: `now_s` (Unix seconds, what records are about) and `timer_s` (any monotonic seconds, what MQTT timers
need). They differ only where the first one runs faster, in a demonstration.

Without a `Switch` it obeys no command and subscribes to its own acknowledgements alone.
"""

import hashlib

from watt_wire import checkpoint, record, statement

from watt_plug import courier, interlock, panel
from watt_plug.appliance import NO_CHANGE, WENT_ON, Appliance, OverPower
from watt_plug.books import Books
from watt_plug.config import Config
from watt_plug.courier import Courier
from watt_plug.interval import Interval
from watt_plug.journal import CALIBRATION_SIZE, OPEN_RECORDS_MAX
from watt_plug.meters.sample import Sample
from watt_plug.register import OVERLOAD_PPM, STEP_COUNTED, STEP_DISCONTINUITY
from watt_plug.signer import Signer
from watt_plug.storage import Storage

CLOCK_STEP_S = 120
"A tick this far from the one before is a clock that was set (or a plug that hung): signed, not smoothed over."
SAMPLES_MAX = 512
"Frames between two ticks: 20 a second for 25 s. More means a loop that hangs; the oldest go, the counter heals."
EVENTS_PER_SLOT = 8
"Event checkpoints per slot: noise on the counter must not become a stream of signatures; the flags still tell."
COMMAND_EVENTS_PER_SLOT = 8
"Events beyond those that tell what became of commands: two offices signed each of these, no noise makes them."
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
        self._books = Books(config, signer, storage)
        self._state = self._books.state
        self._register = self._books.register
        self.plug_id = self._books.plug_id
        self.resume_s = self._state.time_s
        "Time of the last journal; 0 for a plug that never ran. An emulated chip goes on from here."
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
        self._candidate = (0, 0, 0)
        self._candidate_count = 0
        boxes = self._books.batches, self._books.events
        self._courier = Courier(config.gateway, self.plug_id, config.keep_alive_s, *boxes, config.switch is not None)
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
        return self._books.batches.counters()

    @property
    def must_close(self) -> bool:
        """The session is over: close the transport, then call `closed`."""
        return self._courier.must_close

    def take_output(self) -> bytes:
        """Return the network bytes to send and forget them."""
        return self._courier.take_output()

    def take_packet(self) -> bytes:
        """Return the next packet for the broker, b"" when there is none; for a heap that cannot hold all at once."""
        return self._courier.take_packet()

    @property
    def relay(self) -> bool:
        """What the relay's pin should show now; what it stands for is saved already."""
        return self._switch is None or self._switch.lock.relay

    @property
    def lamp(self) -> int:
        """What the lamp shows (panel.py)."""
        if self._switch is not None:
            if self._switch.lock.state == interlock.TRIPPED:
                return panel.TRIPPED
            if self._switch.lock.busy:
                return panel.HELD
        return panel.CONTACT if self._courier.in_contact else panel.ALONE

    @property
    def must_wait(self) -> bool:
        """A command is at work: a restart for an update has to wait (V6.3)."""
        return self._switch is not None and self._switch.lock.busy

    @property
    def dropped(self) -> int:
        """Batches given up since the start because the store was full."""
        return self._books.batches.dropped

    def status(self) -> "dict[str, object]":
        """Return what the status topic shows (DEVICE.md 7); the owner adds what it knows."""
        shown: dict[str, object] = {
            "counter": self._state.counter,
            "import_mwh": self._register.import_mwh,
            "power_mw": self._power_mw,
            "relay": self.relay,
            "quality": self._quality,
            "unacknowledged": len(self._books.batches.counters()),
            "dropped": self._books.batches.dropped,
            "rejected": self._parser.rejected,
        }
        if self._switch is not None:
            shown["state"] = self._switch.lock.name
            shown["command"] = self._switch.lock.saved.counter
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
        roll_back: "tuple[int, int, int]" = (0, 0, 0),
        boot_floor: int = 0,
    ) -> None:
        """Begin a life: count the boot and sign it.

        chip_running   False unless the processor alone was reset: the chip may have begun at zero
        reset, boots   cause of the reset and starts since the last healthy one, signed as an event (WIRE.md 10.1)
        quality        of `now_s`; as configured without it
        roll_back      roll-backs in the life of the plug, release that failed, release that runs; signed when new
        boot_floor     starts that a secure element has counted: flash that was copied back does not take them back
        """
        assert not self._started
        self._started = True
        self._now_s = now_s
        self._timer_s = now_s if timer_s < 0 else timer_s
        self._start_s = now_s
        self._quality = quality or self._quality
        state = self._state
        state.boot_id = max(state.boot_id + 1, boot_floor)
        if state.position >= 0:
            timed = self._quality != "U"
            if chip_running and timed:
                self._register.resume(state.position, state.position_s)
            else:
                self._register.recover(state.position, state.position_s, boots, chip_running, now_s, timed)
        if self._switch is not None:
            self._switch.lock.start(now_s, self._timer_s, self._quality == "S", not chip_running)
        self._checkpoint(now_s, checkpoint.BOOT)
        if reset:
            self._event(statement.RESET, reset, boots)
        self._sign_roll_back(*roll_back)
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
                self._event(statement.COMMAND_REFUSED, order.counter, statement.COMMAND_REASONS.index(reason))
            else:
                switch.save()
                self._close(self._now_s, checkpoint.COMMAND)
                self._event(statement.COMMAND_ACCEPTED, order.counter, order.action)
        return switch.orders.busy

    def button(self) -> None:
        """The household pressed the button, short."""
        if self._switch is not None:
            self._switch.lock.button(self._now_s, self._timer_s)
            self._move()
            self._event(statement.BUTTON, panel.SHORT, 1 if self.relay else 0)

    def factory_reset(self) -> None:
        """The household held the button down: sign it, end the books, forget what is the household's (V1.2)."""
        self._event(statement.BUTTON, panel.LONG, 1 if self.relay else 0)
        self.stop(self._now_s)
        if self._switch is not None:
            self._switch.lock.forget_household()
            self._switch.save()
        self._books.forget_household(self._now_s)

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

    def _sign_roll_back(self, count: int, failed: int, runs: int) -> None:
        """An update was tried and taken back since the last life: say so once, whenever the plug hears of it."""
        if count > self._state.roll_backs:
            self._state.roll_backs = count
            self._event(statement.ROLL_BACK, failed, runs)

    def _event(self, kind: int, first: int, last: int) -> None:
        """Sign, store and send an event, a bounded number in each slot."""
        limit = EVENTS_PER_SLOT
        if kind in (statement.COMMAND_ACCEPTED, statement.COMMAND_REFUSED):
            limit += COMMAND_EVENTS_PER_SLOT
        if self._signed_events >= limit:
            return
        self._signed_events += 1
        self._books.event(kind, self._now_s, self._quality, first, last)
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
        was_unknown = self._quality == "U" and quality != "U"
        self._quality = quality
        self._register.shift(now_s - self._now_s)
        self._now_s = now_s
        self._start_s = now_s
        self._checkpoint(now_s, checkpoint.CLOCK_STEP)
        if was_unknown and self._register.settle() == STEP_DISCONTINUITY:
            self._say("discontinuity over the restart")
            self._interval.flags |= record.FLAG_DISCONTINUITY
            self._checkpoint(now_s, checkpoint.DISCONTINUITY)

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
        elif self._books.unsaved >= self._config.save_records:
            self._books.save(end_s)

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
        relay = record.RELAY_ON if self._switch is None else self._switch.record_relay
        self._books.record(self._interval, self._start_s, end_s, self._quality, relay)
        self._interval = Interval()
        self._start_s = end_s

    def _checkpoint(self, time_s: int, reason: int) -> None:
        self._books.checkpoint(time_s, self._quality, reason)
        self._courier.pump(self._timer_s)

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
