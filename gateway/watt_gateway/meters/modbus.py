"""The main meter behind Modbus: the one module that imports pymodbus.

What a register means comes from a map file (`maps/<name>.toml`), so another meter is a new file. A single-precision
float on the wire becomes an integer of milli-units by its bits, never through a host float. The meter is read only:
no function but 3 and 4 is ever sent (a PZEM-004T would clear its energy at function 0x42).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from watt_node.config import ConfigError, Section, load

from watt_gateway.config import ModbusSection
from watt_gateway.meters.main import MILLI, MainMeter, MeterError

TIMEOUT_S = 2
"""An SDM120 at 2400 baud answers eight registers within 0.2 s; a gateway in between may double that."""
RETRIES = 2
"""Repeats of one request. A longer silence is a missing meter; the next poll tries again."""
WORDS = {"float32": 2, "uint32": 2, "uint16": 1}


class RegisterEntry(Section, frozen=True, kw_only=True):
    """One value of a map: its first register, how it is written there, its unit; `divisor` 10 means tenths of it."""

    address: Annotated[int, msgspec.Meta(ge=0, le=65534)]
    format: Literal["float32", "uint32", "uint16"]
    unit: Literal["kWh", "Wh", "W", "V", "A"]
    divisor: Literal[1, 10, 100, 1000] = 1


class MeterMap(Section, frozen=True, kw_only=True):
    """A map file."""

    name: str
    function: Literal[3, 4]
    word_order: Literal["high-first", "low-first"]
    import_energy: RegisterEntry
    export_energy: RegisterEntry | None = None
    power: RegisterEntry | None = None
    voltage: RegisterEntry | None = None


def map_path(name: str, base: Path) -> Path:
    """The file of a map: one of ours by its name (`sdm120`), or a path relative to `base`. ConfigError if unknown."""
    path = Path(__file__).parents[1] / "maps" / f"{name}.toml"
    if "/" in name or name.endswith(".toml"):
        return base / name
    if not path.exists():
        known = sorted(entry.stem for entry in path.parent.glob("*.toml"))
        raise ConfigError(f"modbus.map = {name!r}: allowed is one of {', '.join(known)} or the path of a .toml file")
    return path


def load_map(name: str, base: Path) -> MeterMap:
    """Read a Modbus map. ConfigError when it cannot be used."""
    return load(map_path(name, base), MeterMap)


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
    """The integer in sub-units that the entry's registers hold; MeterError when they hold none."""
    if len(words) != WORDS[entry.format] or not all(0 <= word <= 0xFFFF for word in words):
        raise MeterError("meter-answer", f"{len(words)} registers, expected {WORDS[entry.format]}")
    bits = 0
    for word in words if word_order == "high-first" else reversed(words):
        bits = bits << 16 | word
    if entry.format == "float32":
        return milli_from_float32(bits, MILLI[entry.unit]) // entry.divisor
    return bits * MILLI[entry.unit] // entry.divisor


class ModbusMeter(MainMeter):
    """A meter on Modbus TCP, on RTU over TCP, or on a serial line."""

    def __init__(self, section: ModbusSection, meter_map: MeterMap) -> None:
        super().__init__()
        self._section = section
        self._map = meter_map
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None

    @property
    def where(self) -> str:
        return f"{self._section.where} unit {self._section.unit}"

    async def read_import(self) -> int:
        """Bounded: TIMEOUT_S for the connection and (RETRIES + 1) * TIMEOUT_S for the answer."""
        return await self.read(self._map.import_energy)

    async def read(self, entry: RegisterEntry) -> int:
        """One value of the map in its sub-unit, now."""
        client = self._client
        if client is None:
            client = self._client = _client_of(self._section)
        try:
            if not client.connected and not await client.connect():
                raise MeterError("meter-missing", self._section.where)
            read = client.read_input_registers if self._map.function == 4 else client.read_holding_registers
            answer = await read(entry.address, count=WORDS[entry.format], device_id=self._section.unit)
        except (ModbusException, OSError, TimeoutError, asyncio.CancelledError) as error:
            self.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise MeterError("meter-timeout", str(error)) from None
        if answer.isError():
            raise MeterError("meter-exception", str(answer))
        return value_of(entry, self._map.word_order, list(answer.registers))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _client_of(section: ModbusSection) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
    # reconnect_delay 0: we reconnect at the next poll; a second timer would not be bounded by us.
    if section.serial:
        return AsyncModbusSerialClient(
            section.serial,
            framer=FramerType.RTU,
            baudrate=section.baud,
            timeout=TIMEOUT_S,
            retries=RETRIES,
            reconnect_delay=0,
        )
    framer = FramerType.RTU if section.framing == "rtu" else FramerType.SOCKET
    return AsyncModbusTcpClient(
        section.host, port=section.port, framer=framer, timeout=TIMEOUT_S, retries=RETRIES, reconnect_delay=0
    )
