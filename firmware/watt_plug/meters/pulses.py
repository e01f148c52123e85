"""HLW8012 and BL0937: two pulse outputs, counted by the ESP32's hardware counter; counts in, integers out.

    CF    one pulse per portion of energy
    CF1   a frequency in proportion to the voltage or the current, as SEL says; unstable for a cycle after SEL moves

    HLW8012 (2.43 V reference, 3.579 MHz)   J per CF pulse = Vref^2 * divider / shunt * 64 / 24 / clock
                                            V per Hz = Vref * divider * 256 / clock
                                            A per Hz = Vref * 512 / 24 / clock / shunt
    BL0937 (1.218 V reference)              J per CF pulse = Vref^2 * divider / shunt / 1721506
                                            V per Hz = Vref * divider / 15397, A per Hz = Vref / shunt / 94638

Source: chip data sheets. The counter is the ESP32's own and begins at zero with every start: after a restart the
register goes on from the journal, and what flowed in between is missing (DEVICE.md V3.4).
"""

from watt_plug.meters.sample import VALID_CURRENT, VALID_POWER, VALID_VOLTAGE, VOLTAGE_MAX_MV, VOLTAGE_MIN_MV, Sample

PULSE_SPAN = 1 << 32
WINDOW = 8
"Readings over which power is averaged: at 5 W an HLW8012 makes one pulse in two seconds."
TURN = 3
"Readings between two moves of SEL; the first after a move is not used."
SHUNT_UOHM = 1000
DIVIDER_MILLI = 2351000
"The usual board: 1 milliohm, five 470 k resistors over 1 k."


class Pulses:
    """One pulse chip.

    chip           "hlw8012" or "bl0937"
    shunt_uohm     shunt, micro-ohm
    divider_milli  voltage divider, times 1000
    select         what SEL should be now: 0 current, 1 voltage (the board says which level that is)
    """

    def __init__(self, chip: str, shunt_uohm: int = SHUNT_UOHM, divider_milli: int = DIVIDER_MILLI) -> None:
        assert chip in ("hlw8012", "bl0937")
        if chip == "hlw8012":
            pulse_uj = 2430 * 2430 * divider_milli * 64000 // (shunt_uohm * 24 * 3579000)
            volt_uv = 2430 * divider_milli * 256 // 3579000
            ampere_ua = 2430 * 512 * 1000000000 // (24 * 3579000 * shunt_uohm)
        else:
            pulse_uj = 1218 * 1218 * divider_milli * 1000 // (shunt_uohm * 1721506)
            volt_uv = 1218 * divider_milli // 15397
            ampere_ua = 1218 * 1000000000 // (94638 * shunt_uohm)
        self._volt_uv = volt_uv
        self._ampere_ua = ampere_ua
        self.coefficients = (volt_uv, ampere_ua, pulse_uj)
        self.select = 1
        self.rejected = {"voltage": 0}
        self._turn = 0
        self._cf1 = -1
        self._history: list[tuple[int, int]] = []
        self._voltage_mv = -1
        self._current_ma = -1

    def read(self, cf: int, cf1: int, now_ms: int) -> "Sample | None":
        """Take both counters at a time, about once a second; None until power and voltage are known."""
        self._turn += 1
        before_ms = self._history[-1][1] if self._history else now_ms
        if self._turn > 1 and self._cf1 >= 0 and now_ms > before_ms:
            self._measure((cf1 - self._cf1) % PULSE_SPAN, now_ms - before_ms)
        self._cf1 = cf1
        if self._turn >= TURN:
            self._turn = 0
            self.select = 1 - self.select
        self._history = self._history[1 - WINDOW :] + [(cf, now_ms)]
        first_cf, first_ms = self._history[0]
        if now_ms <= first_ms or self._voltage_mv < 0:
            return None
        # Microjoules per millisecond are milliwatts.
        power_mw = (cf - first_cf) % PULSE_SPAN * self.coefficients[2] // (now_ms - first_ms)
        valid = VALID_VOLTAGE | VALID_POWER | (VALID_CURRENT if self._current_ma >= 0 else 0)
        current_ma = max(0, self._current_ma)
        return Sample(valid, self._voltage_mv, current_ma, power_mw, cf % PULSE_SPAN, self.coefficients, PULSE_SPAN)

    def _measure(self, pulses: int, elapsed_ms: int) -> None:
        """Take the pulses of CF1 in a window in which SEL did not move. Micro per Hz times pulses per ms is milli."""
        if not self.select:
            self._current_ma = pulses * self._ampere_ua // elapsed_ms
            return
        voltage_mv = pulses * self._volt_uv // elapsed_ms
        if VOLTAGE_MIN_MV <= voltage_mv <= VOLTAGE_MAX_MV:
            self._voltage_mv = voltage_mv
        else:
            self.rejected["voltage"] += 1
