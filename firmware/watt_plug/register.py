"""The plug's own energy register: monotonic, in software, from the chip's pulse counter.

Strategy. The chip counts pulses of some microjoules modulo its span; the counter may wrap, and electrical noise may
reset it. A wrap and a reset can look alike, so the register accepts a step, taken modulo the span, only if the rated
power could have made it in the time that passed. A single pulse is always possible, however coarse. Any other step must
be seen twice (one damaged frame in 256 passes the chip's checksum); then the register keeps its value, starts
counting from the new position and reports a discontinuity, which the plug signs. Nothing is guessed: the energy
in between is missing, and every reader of the chain can see that it is.

After a restart the question is whether the chip began anew too. Two frames that agree answer it (`recover`): a counter
no higher than a chip could have made since the starts began says nothing and counts nothing, which is the stated
error of a loss of supply; a higher one has gone on counting, and the step from the journal's position is real if the
rated power explains it in the time that passed. A plug that does not know the time yet keeps the step until it does
(`settle`).

**Invariant:** `import_mwh` never falls; `import_mwh * 3600 + remainder` microjoule-thousands is exact.
"""

PULSE_SPAN = 131072
"Span of a CSE7766: 17 bits, 16 of the counter and its carry."
UJ_PER_MWH = 3600000
OVERLOAD_PPM = 1250000
"A plug carries a quarter more than its rating before its own protection opens; more is not consumption."
GRACE_S = 2
"Time stamps are whole seconds and a frame may be one second late: both ends of a step are uncertain by one."
FRESH_S = 10
"From the supply's return to the first frame, for each start since the last healthy one."
CALENDAR_S = 1000000000
"An instant below it counts seconds since a start: no plug runs for thirty years without one."

STEP_COUNTED = 0
STEP_HELD = 1
STEP_DISCONTINUITY = 2


class Register:
    """Energy imported since the plug was made, mWh, with the unspent part of a mWh in microjoules.

    rated_w      rated power of the plug; bounds every accepted step
    span         the chip's counter turns round at it
    """

    def __init__(self, rated_w: int, import_mwh: int = 0, remainder_uj: int = 0, span: int = PULSE_SPAN) -> None:
        assert rated_w > 0 and 0 <= remainder_uj < UJ_PER_MWH
        self.rated_w = rated_w
        self.span = span
        self.import_mwh = import_mwh
        self.remainder_uj = remainder_uj
        self.position = -1
        "Pulse counter at the last counted frame; -1 before the first one."
        self.position_s = 0
        self.pending_uj = 0
        self.pending_from_s = 0
        "A step that waits for the time: its energy, and when it began; 0 while nothing waits."
        self._pending_to_s = -1
        self._pulse_uj = 0
        self._held = -1
        self._held_s = 0
        self._restarts = 0
        self._kept = False
        self._start_s = 0
        self._timed = True

    def resume(self, position: int, position_s: int) -> None:
        """Go on from a journal: the chip kept its supply, so its counter went on counting."""
        self.position = position
        self.position_s = position_s
        self._held = -1

    def recover(self, position: int, position_s: int, restarts: int, kept: bool, now_s: int, timed: bool) -> None:
        """Go on from a journal after a restart in which the chip may have begun anew.

        restarts   starts since the last one that was healthy, this one included
        kept       the chip cannot have begun anew: the processor alone was reset
        timed      `now_s` is a time of the calendar
        """
        self.resume(position, position_s)
        self._restarts = max(1, restarts)
        self._kept = kept
        self._start_s = now_s
        self._timed = timed

    def count(self, pulses: int, pulse_uj: int, now_s: int) -> int:
        """Take the chip's counter at `now_s`; return one of STEP_COUNTED, STEP_HELD, STEP_DISCONTINUITY."""
        self._pulse_uj = pulse_uj
        if self.position < 0:
            # The first frame of a life: what the counter held before is not ours to count.
            self._begin(pulses, now_s)
            return STEP_COUNTED
        step = (pulses - self.position) % self.span
        if not self._restarts and self._is_possible(step, pulse_uj, now_s - self.position_s):
            self._add(step * pulse_uj)
            self._begin(pulses, now_s)
            return STEP_COUNTED
        if self._held >= 0:
            step = (pulses - self._held) % self.span
            if self._is_possible(step, pulse_uj, now_s - self._held_s):
                if self._restarts:
                    return self._recovered(pulses, pulse_uj, now_s)
                # Two frames agree on the new position; between them the counter is trusted again.
                self._add(step * pulse_uj)
                self._begin(pulses, now_s)
                return STEP_DISCONTINUITY
        self._held = pulses
        self._held_s = now_s
        return STEP_HELD

    def settle(self) -> int:
        """The time has become known: judge the step that waited for it. STEP_DISCONTINUITY when nothing explains it."""
        self._timed = True
        from_s, energy_uj, to_s = self.pending_from_s, self.pending_uj, self._pending_to_s
        if not from_s or to_s < 0:
            return STEP_COUNTED
        self.pending_from_s = self.pending_uj = 0
        if from_s >= CALENDAR_S:
            limit_uj = self._limit_uj(to_s - from_s)
            known = to_s >= from_s and limit_uj < self.span * self._pulse_uj
            if known and energy_uj <= max(limit_uj, self._pulse_uj):
                self._add(energy_uj)
                return STEP_COUNTED
        return STEP_DISCONTINUITY

    def shift(self, step_s: int) -> None:
        """The clock was set by `step_s`: the time since the last frame stays what it was."""
        if self.position >= 0 and not self._restarts:
            self.position_s += step_s
        self._held_s += step_s
        self._start_s += step_s
        if self._pending_to_s >= 0:
            self._pending_to_s += step_s

    def _recovered(self, pulses: int, pulse_uj: int, now_s: int) -> int:
        """Two frames agree for the first time after a restart: decide what the chip did meanwhile."""
        restarts, run_s = self._restarts, max(0, now_s - self._start_s)
        before, before_s = self.position, self.position_s
        self._restarts = 0
        self._begin(pulses, now_s)
        step = (pulses - before) % self.span
        if not self._kept and pulses * pulse_uj <= self._limit_uj(restarts * FRESH_S + run_s):
            step = 0
        # What has waited since an earlier life is judged with this one's.
        self._pending_to_s = now_s
        if self._timed:
            outcome = STEP_DISCONTINUITY
            if not step or self._is_possible(step, pulse_uj, now_s - before_s):
                self._add(step * pulse_uj)
                outcome = STEP_COUNTED
            return max(outcome, self.settle())
        if step:
            self.pending_from_s = self.pending_from_s or before_s or 1
            self.pending_uj += step * pulse_uj
        return STEP_COUNTED

    def _begin(self, pulses: int, now_s: int) -> None:
        self.position = pulses
        self.position_s = now_s
        self._held = -1

    def _limit_uj(self, elapsed_s: int) -> int:
        return self.rated_w * OVERLOAD_PPM * (elapsed_s + GRACE_S)

    def _is_possible(self, step: int, pulse_uj: int, elapsed_s: int) -> bool:
        """True if the rated power explains the step, and no whole turn of the counter can hide in it."""
        if elapsed_s < 0:
            return False
        bound_uj = self._limit_uj(elapsed_s)
        return step * pulse_uj <= max(bound_uj, pulse_uj) and bound_uj < self.span * pulse_uj

    def _add(self, energy_uj: int) -> None:
        total = self.remainder_uj + energy_uj
        self.import_mwh += total // UJ_PER_MWH
        self.remainder_uj = total % UJ_PER_MWH
