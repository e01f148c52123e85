"""The main meter behind Modbus: the one module that imports pymodbus.

What a register means comes from a map file (`maps/<name>.toml`), so another meter is a new file. A single-precision
float on the wire becomes an integer of milli-units by its bits, never through a host float. A main meter is a
witness beside the signed plugs, so a missing one is a counted warning and never stops a reading.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from watt_node.config import ConfigError, Section, load

from watt_gateway.config import ModbusSection

TIMEOUT_S = 2
"""An SDM120 at 2400 baud answers eight registers within 0.2 s; a gateway in between may double that."""
RETRIES = 2
"""Repeats of one request. A longer silence is a missing meter; the next poll tries again."""
POLL_MS_MIN = 500
"""Machine milliseconds between polls at least, whatever the protocol speed: a bus has many masters."""
HISTORY_MAX = 64
"""Polled registers kept for matching with checkpoints: an hour at the default of one a minute."""
MILLI = {"kWh": 1_000_000, "Wh": 1_000, "W": 1_000, "V": 1_000, "A": 1_000}
"""Factor from a unit of a map to our integer sub-unit (mWh, mW, mV, mA)."""


class RegisterEntry(Section, frozen=True, kw_only=True):
    """One value of a map: its first register, how it is written there, its unit."""

    address: Annotated[int, msgspec.Meta(ge=0, le=65534)]
    format: Literal["float32", "uint32"]
    unit: Literal["kWh", "Wh", "W", "V", "A"]


class MeterMap(Section, frozen=True, kw_only=True):
    """A map file."""

    name: str
    function: Literal[3, 4]
    word_order: Literal["high-first", "low-first"]
    import_energy: RegisterEntry
    export_energy: RegisterEntry | None = None
    power: RegisterEntry | None = None
    voltage: RegisterEntry | None = None


class MeterError(Exception):
    """This poll gave nothing; `reason` is what to count."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def load_map(name: str, base: Path) -> MeterMap:
    """Read a map: a name of ours (`sdm120`) or a path relative to `base`. ConfigError when it cannot be used."""
    path = Path(__file__).parents[1] / "maps" / f"{name}.toml"
    if "/" in name or name.endswith(".toml"):
        path = base / name
    elif not path.exists():
        known = sorted(entry.stem for entry in path.parent.glob("*.toml"))
        raise ConfigError(f"modbus.map = {name!r}: allowed is one of {', '.join(known)} or the path of a .toml file")
    return load(path, MeterMap)


def milli_from_float32(bits: int, factor: int) -> int:
    """floor(value * factor) of the IEEE 754 single with these 32 bits, in integers only.

    Raises MeterError("meter-value") for infinities, NaN and negative values: no energy register holds one.
    """
    sign, exponent, fraction = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF or (sign and (exponent or fraction)):
        raise MeterError("meter-value", f"bits {bits:08x}")
    mantissa, shift = (fraction, -149) if exponent == 0 else (fraction | 0x800000, exponent - 150)
    scaled = mantissa * factor
    return scaled << shift if shift >= 0 else scaled >> -shift


def value_of(entry: RegisterEntry, word_order: str, words: list[int]) -> int:
    """The integer in sub-units that two registers hold; MeterError when they hold none."""
    if len(words) != 2 or not all(0 <= word <= 0xFFFF for word in words):
        raise MeterError("meter-answer", f"{len(words)} registers, expected 2")
    high, low = words if word_order == "high-first" else reversed(words)
    bits = high << 16 | low
    if entry.format == "uint32":
        return bits * MILLI[entry.unit]
    return milli_from_float32(bits, MILLI[entry.unit])


class MainMeter:
    """Polls the import register and remembers the last hour of it by protocol time."""

    def __init__(self, section: ModbusSection, meter_map: MeterMap) -> None:
        self._section = section
        self._map = meter_map
        self._client: AsyncModbusTcpClient | None = None
        self._history: deque[tuple[int, int]] = deque(maxlen=HISTORY_MAX)
        self.polls = 0
        self.failures: dict[str, int] = {}
        "Polls that gave nothing, by reason."

    @property
    def last_mwh(self) -> int:
        """The newest import register, mWh; -1 before the first."""
        return self._history[-1][1] if self._history else -1

    async def poll(self, now_s: int) -> int:
        """Read the import register and date it `now_s` (protocol time); MeterError when it cannot be had.

        Bounded: TIMEOUT_S for the connection and (RETRIES + 1) * TIMEOUT_S for the answer.
        """
        self.polls += 1
        try:
            import_mwh = await self.read(self._map.import_energy)
            if self._history and import_mwh < self._history[-1][1]:
                # The register of a meter never falls: another meter, or a reset. Start again from here.
                self._history.clear()
                raise MeterError("meter-register-fell", f"to {import_mwh} mWh")
        except MeterError as error:
            self.failures[error.reason] = self.failures.get(error.reason, 0) + 1
            raise
        self._history.append((now_s, import_mwh))
        return import_mwh

    async def read(self, entry: RegisterEntry) -> int:
        """One value of the map in its sub-unit, now."""
        client = self._client
        if client is None:
            framer = FramerType.RTU if self._section.framing == "rtu" else FramerType.SOCKET
            client = self._client = AsyncModbusTcpClient(
                self._section.host,
                port=self._section.port,
                framer=framer,
                timeout=TIMEOUT_S,
                retries=RETRIES,
                reconnect_delay=0,  # we reconnect at the next poll; a second timer would not be bounded by us
            )
        try:
            if not client.connected and not await client.connect():
                raise MeterError("meter-missing", f"{self._section.host}:{self._section.port}")
            read = client.read_input_registers if self._map.function == 4 else client.read_holding_registers
            answer = await read(entry.address, count=2, device_id=self._section.unit)
        except (ModbusException, OSError, TimeoutError, asyncio.CancelledError) as error:
            self.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise MeterError("meter-timeout", str(error)) from None
        if answer.isError():
            raise MeterError("meter-exception", str(answer))
        return value_of(entry, self._map.word_order, list(answer.registers))

    def at(self, time_s: int, tolerance_s: int) -> int:
        """The register polled nearest to `time_s`, mWh; -1 when none lies within `tolerance_s`."""
        near = min(self._history, key=lambda entry: (abs(entry[0] - time_s), entry[0]), default=None)
        if near is None or abs(near[0] - time_s) > tolerance_s:
            return -1
        return near[1]

    def close(self) -> None:
        """Drop the connection; the next poll opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None
