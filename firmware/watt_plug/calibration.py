"""Gain and offset of a plug against a reference meter, with their provenance; hashed into checkpoints (DEVICE.md 4)."""

from watt_plug.meters.sample import PPM, VALID_CURRENT, VALID_POWER, VALID_VOLTAGE, Sample

GAIN_MIN_PPM = 900000
GAIN_MAX_PPM = 1100000
"Shunts and dividers of these boards are within two per cent; more than ten is a wrong board, not a calibration."
OFFSET_MAX = 5000
"mV, mA or mW: an offset corrects the zero, it does not replace a gain."
TEXT_MAX = 64
NUMBERS = ("voltage_ppm", "current_ppm", "power_ppm", "voltage_mv", "current_ma", "power_mw")
TEXTS = ("reference", "operator", "date")


class Calibration:
    """Six numbers and three texts; see DEVICE.md section 4. ValueError when one is missing or out of range."""

    def __init__(self, values: "dict[str, object]") -> None:
        for name in NUMBERS:
            low, high = (GAIN_MIN_PPM, GAIN_MAX_PPM) if name.endswith("_ppm") else (-OFFSET_MAX, OFFSET_MAX)
            number = values.get(name)
            if not isinstance(number, int) or not low <= number <= high:
                raise ValueError(name + " is not an integer in " + str(low) + ".." + str(high))
        for name in TEXTS:
            text = values.get(name)
            if not isinstance(text, str) or not 0 < len(text) <= TEXT_MAX or "\n" in text:
                raise ValueError(name + " is not a line of 1.." + str(TEXT_MAX) + " characters")
        self._values = values
        self._numbers = [values[name] for name in NUMBERS]

    def apply(self, sample: Sample) -> Sample:
        """Return the corrected sample and constants. Energy follows the power gain; an offset never makes energy."""
        gain_v, gain_i, gain_p, offset_v, offset_i, offset_p = self._numbers
        first, second, pulse_uj = sample.coefficients
        return Sample(
            sample.valid,
            _corrected(sample.voltage_mv, gain_v, offset_v) if sample.valid & VALID_VOLTAGE else 0,
            _corrected(sample.current_ma, gain_i, offset_i) if sample.valid & VALID_CURRENT else 0,
            _corrected(sample.power_mw, gain_p, offset_p) if sample.valid & VALID_POWER else 0,
            sample.pulses,
            (first * gain_v // PPM, second * gain_i // PPM, pulse_uj * gain_p // PPM),  # type: ignore[operator]
            sample.span,
        )

    def text(self) -> bytes:
        """Return the fields as `name=value` lines in their order: what is hashed."""
        lines = [name + "=" + str(self._values[name]) + "\n" for name in NUMBERS + TEXTS]
        return "".join(lines).encode()


def _corrected(value: int, gain_ppm: object, offset: object) -> int:
    # Nothing measured stays nothing: an offset must not light a lamp that is off.
    return max(0, value * gain_ppm // PPM + offset) if value else 0  # type: ignore[operator]
