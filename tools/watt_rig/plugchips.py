"""Fake metering chips on the UART or the pulse pins of a virtual plug, driven by a load model.

Each is written from its data sheet's table, apart from the plug's parser, so that one error does not hide another.
`FakeCse7766` frames come from chip.py. Energy is exact: a chip shows what the load used since the chip got its
supply, so what was used between a checkpoint and a power cut is missing from it, as on a bench with real chips.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from watt_rig.chip import MAINS_MV, FakeCse7766
from watt_rig.load import Load

FRAME_S = 1
"A frame a second of world time at most: a real CSE7766 sends twenty, the firmware measures once a second."
INPUT_MAX = 256
"Bytes a chip keeps of what the plug writes to it; a request has at most 8."
PZEM_UNIT = 1


class PlugChip:
    """What all have: the load, the supply, the noise on the line."""

    def __init__(self, load: Load, seed: int = 0) -> None:
        self.load = load
        self.noise_ppm = 0
        "Chance of each byte to be hit, in parts per million."
        self.noisy_bytes = 0
        self._noise = random.Random(seed)
        self.lives: list[list[int]] = []
        "For each supply: when it came, and when the plug first looked."
        self.resets: list[list[int]] = []
        """The same for each reset of the processor alone, while the chip went on counting, and the energy that its
        counter showed at that look, uJ."""
        self._powered_s = load.profile.start_s
        self._said_s = -1
        self._input = b""

    def power_on(self, time_s: int) -> None:
        """The supply came: volatile counters are zero again."""
        self._powered_s = max(time_s, self.load.profile.start_s)
        self._said_s = -1
        self._input = b""
        self.lives.append([self._powered_s, -1])

    def reset(self, time_s: int) -> None:
        """The plug's processor starts anew; the chip has its supply all the time."""
        self.resets.append([time_s, -1, 0])

    def say(self, uart: int, time_s: int) -> bytes:
        """Bytes on the line by `time_s`, noise included."""
        data = self._frames(max(time_s, self.load.profile.start_s))
        for looks in (self.lives, self.resets):
            if data and looks and looks[-1][1] < 0:
                looks[-1][1] = time_s
                if looks is self.resets:
                    looks[-1][2] = self.energy_uj(time_s)
        if not data or not self.noise_ppm:
            return data
        return self._spoiled(data)

    def hear(self, uart: int, data: bytes) -> None:
        """The plug wrote to the chip."""
        self._input = (self._input + data)[-INPUT_MAX:]

    def pulses(self, pin: int, time_s: int) -> int:
        """Pulses counted on a pin since the supply came."""
        return 0

    def energy_uj(self, time_s: int) -> int:
        """Energy since the supply came."""
        return self.load.energy_uj(max(time_s, self._powered_s)) - self.load.energy_uj(self._powered_s)

    def power_mw(self, time_s: int) -> int:
        """Power over the last ten seconds."""
        before_s = max(self.load.profile.start_s, time_s - 10)
        span_s = max(1, time_s - before_s)
        return (self.load.energy_uj(time_s) - self.load.energy_uj(before_s)) // (span_s * 1000)

    def _frames(self, time_s: int) -> bytes:
        return b""

    def _spoiled(self, data: bytes) -> bytes:
        """Flip, lose or invent bytes."""
        out = bytearray()
        for byte in data:
            if self._noise.randrange(1_000_000) >= self.noise_ppm:
                out.append(byte)
                continue
            self.noisy_bytes += 1
            kind = self._noise.randrange(3)
            if kind == 0:
                out.append(byte ^ 1 << self._noise.randrange(8))
            elif kind == 1:
                out += bytes((byte, self._noise.randrange(256)))
        return bytes(out)


class Cse7766Chip(PlugChip):
    """Speaks by itself, one frame for each second that has passed when the plug looks."""

    def __init__(self, load: Load, seed: int = 0) -> None:
        super().__init__(load, seed)
        self._chip = FakeCse7766()

    def _frames(self, time_s: int) -> bytes:
        if time_s - self._said_s < FRAME_S:
            return b""
        self._said_s = time_s
        return self._chip.frame(self.energy_uj(time_s), self.power_mw(time_s))


class Bl0942Chip(PlugChip):
    """Answers a poll `58 AA` with 23 bytes, little-endian, 1 mOhm shunt and 5 x 390 kOhm / 510 Ohm divider."""

    VOLTAGE_PER_MV = 15.873
    CURRENT_PER_MA = 251.213
    POWER_PER_MW = 0.62373
    UJ_PER_PULSE = 672_460_000
    "1638.4 * 256 / 623.73 J, 0.187 Wh: what one CF pulse means at the power scale above."

    def _frames(self, time_s: int) -> bytes:
        if b"\x58\xaa" not in self._input:
            return b""
        self._input = b""
        power_mw = self.power_mw(time_s)
        current = round(power_mw * 1000 / MAINS_MV * self.CURRENT_PER_MA)
        pulses = self.energy_uj(time_s) // self.UJ_PER_PULSE
        body = b"\x55" + _little(current, 3) + _little(round(MAINS_MV * self.VOLTAGE_PER_MV), 3) + _little(current, 3)
        body += _little(round(power_mw * self.POWER_PER_MW), 3) + _little(pulses & 0xFFFFFF, 3) + _little(20_000, 2)
        body += b"\x00" + b"\x00" + b"\x00\x00"
        return body + bytes((~(0x58 + sum(body)) & 255,))


class Pzem004tChip(PlugChip):
    """Modbus RTU, unit 1, function 4: ten input registers; its energy register survives power cuts, in Wh."""

    def energy_uj(self, time_s: int) -> int:
        return self.load.energy_uj(time_s)

    def _frames(self, time_s: int) -> bytes:
        while len(self._input) >= 8:
            request, self._input = self._input[:8], self._input[8:]
            if crc16(request[:6]) != request[6:] or request[0] not in (PZEM_UNIT, 0xF8) or request[1] != 4:
                continue
            start, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
            words = self.registers(time_s)[start : start + count]
            body = bytes((request[0], 4, 2 * len(words))) + b"".join(word.to_bytes(2, "big") for word in words)
            return body + crc16(body)
        return b""

    def registers(self, time_s: int) -> list[int]:
        """V 0.1, I low high 0.001, P low high 0.1, E low high Wh, f 0.1, power factor 0.01, alarm."""
        power_mw = self.power_mw(time_s)
        current_ma = power_mw * 1000 // MAINS_MV
        tenths_w, energy_wh = power_mw // 100, self.energy_uj(time_s) // 3_600_000_000
        low_high = [current_ma, tenths_w, energy_wh]
        pairs = [part for value in low_high for part in (value & 0xFFFF, value >> 16 & 0xFFFF)]
        return [MAINS_MV // 100, *pairs, 500, 100, 0]


class Bl0937Chip(PlugChip):
    """Pulses on CF: one for each `uj_per_pulse` microjoules (BL0937 at 1 mOhm; an HLW8012 differs in the figure)."""

    def __init__(self, load: Load, seed: int = 0, uj_per_pulse: int = 2_170_000) -> None:
        super().__init__(load, seed)
        self._uj_per_pulse = uj_per_pulse

    def pulses(self, pin: int, time_s: int) -> int:
        return self.energy_uj(time_s) // self._uj_per_pulse


CHIPS: dict[str, Callable[[Load, int], PlugChip]] = {
    "cse7766": Cse7766Chip,
    "bl0942": Bl0942Chip,
    "pzem004t": Pzem004tChip,
    "bl0937": Bl0937Chip,
}


def crc16(data: bytes) -> bytes:
    """The CRC of Modbus RTU (polynomial 0xA001, start 0xFFFF), low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


def _little(value: int, size: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")
