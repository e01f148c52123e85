"""A fake CSE7766: the frame that the chip would send, computed from the energy that flowed.

The frame is that of the chip (firmware/watt_plug/meters/cse7766.py has the table), built here on its own from the
data sheet's table so that an error in the parser does not hide behind the same error here.
"""

from __future__ import annotations

VOLTAGE_COEFFICIENT = 0x02F760
CURRENT_COEFFICIENT = 0x004010
POWER_COEFFICIENT = 0x51A658
"Factory constants of a published frame; one CF pulse is 5,351,000 microjoules."
MAINS_MV = 230_000
CYCLE_MAX = 0xFFFFFF
POWER_MIN_MW = 500
"Below half a watt the power cycle does not end within 24 bits: the chip reports no load."


class FakeCse7766:
    """Stateless: pulses follow from the energy since the chip was powered. `offset` starts the counter elsewhere."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    def frame(self, energy_uj: int, power_mw: int) -> bytes:
        """Return 24 bytes: the counter for `energy_uj`, and the cycles for a resistive load of `power_mw`."""
        pulses = energy_uj // POWER_COEFFICIENT + self.offset
        loaded = power_mw >= POWER_MIN_MW
        current_ma = max(1, power_mw * 1000 // MAINS_MV)
        power_cycle = POWER_COEFFICIENT * 1000 // power_mw if loaded else CYCLE_MAX
        current_cycle = min(CYCLE_MAX, CURRENT_COEFFICIENT * 1000 // current_ma) if loaded else CYCLE_MAX
        state = (0x71 if loaded else 0x61) | (pulses >> 16 & 1) << 7
        values = (
            VOLTAGE_COEFFICIENT,
            VOLTAGE_COEFFICIENT * 1000 // MAINS_MV,
            CURRENT_COEFFICIENT,
            current_cycle,
            POWER_COEFFICIENT,
            power_cycle,
        )
        body = b"".join(value.to_bytes(3, "big") for value in values)
        body += bytes((state,)) + (pulses & 0xFFFF).to_bytes(2, "big")
        return bytes((0x55 if loaded else 0xF2, 0x5A)) + body + bytes((sum(body) & 255,))
