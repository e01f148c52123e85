"""The plug's own energy register: monotonic, in software, from the chip's pulse counter.

Strategy. The chip counts pulses of some microjoules modulo its span; the counter may wrap, and electrical noise may
reset it. A wrap and a reset can look alike, so the register accepts a step, taken modulo the span, only if the rated
power could have made it in the time that passed. A single pulse is always possible, however coarse. Any other step must
be seen twice (one damaged frame in 256 passes the chip's checksum); then the register keeps its value, starts
counting from the new position and reports a discontinuity, which the plug signs. Nothing is guessed: the energy
in between is missing, and every reader of the chain can see that it is.

**Invariant:** `import_mwh` never falls; `import_mwh * 3600 + remainder` microjoule-thousands is exact.
"""

PULSE_SPAN = 131072
"Span of a CSE7766: 17 bits, 16 of the counter and its carry."
UJ_PER_MWH = 3600000
OVERLOAD_PPM = 1250000
"A plug carries a quarter more than its rating before its own protection opens; more is not consumption."
GRACE_S = 2
"Time stamps are whole seconds and a frame may be one second late: both ends of a step are uncertain by one."

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
        self._held = -1
        self._held_s = 0

    def resume(self, position: int, position_s: int) -> None:
        """Go on from a journal: the chip kept its supply, so its counter went on counting."""
        self.position = position
        self.position_s = position_s
        self._held = -1

    def count(self, pulses: int, pulse_uj: int, now_s: int) -> int:
        """Take the chip's counter at `now_s`; return one of STEP_COUNTED, STEP_HELD, STEP_DISCONTINUITY."""
        if self.position < 0:
            # The first frame of a life: what the counter held before is not ours to count.
            self._begin(pulses, now_s)
            return STEP_COUNTED
        step = (pulses - self.position) % self.span
        if self._is_possible(step, pulse_uj, now_s - self.position_s):
            self._add(step * pulse_uj)
            self._begin(pulses, now_s)
            return STEP_COUNTED
        if self._held >= 0:
            step = (pulses - self._held) % self.span
            if self._is_possible(step, pulse_uj, now_s - self._held_s):
                # Two frames agree on the new position; between them the counter is trusted again.
                self._add(step * pulse_uj)
                self._begin(pulses, now_s)
                return STEP_DISCONTINUITY
        self._held = pulses
        self._held_s = now_s
        return STEP_HELD

    def shift(self, step_s: int) -> None:
        """The clock was set by `step_s`: the time since the last frame stays what it was."""
        self.position_s += step_s
        self._held_s += step_s

    def _begin(self, pulses: int, now_s: int) -> None:
        self.position = pulses
        self.position_s = now_s
        self._held = -1

    def _is_possible(self, step: int, pulse_uj: int, elapsed_s: int) -> bool:
        """True if the rated power explains the step, and no whole turn of the counter can hide in it."""
        if elapsed_s < 0:
            return False
        bound_uj = self.rated_w * OVERLOAD_PPM * (elapsed_s + GRACE_S)
        return step * pulse_uj <= max(bound_uj, pulse_uj) and bound_uj < self.span * pulse_uj

    def _add(self, energy_uj: int) -> None:
        total = self.remainder_uj + energy_uj
        self.import_mwh += total // UJ_PER_MWH
        self.remainder_uj = total % UJ_PER_MWH
