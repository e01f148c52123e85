"""The TOML file that describes a bench; read through `watt_node.config` (errors name file, line and key).

speed = 1                  world seconds per second
timer_speed = 1            of the plugs' own ticks and sleeps: round trips are real, so a fast bench keeps it low
seed = 1                   of everything random: noise, faults
start_s                    world time at the beginning; absent = now

[broker]                   a real Mosquitto with mutual TLS, or none
kind = "mosquitto" | "none"
port = 0                   0 = a free one

[[plugs]]                  virtual plugs: a real MicroPython behind a pseudo-terminal DIR/NAME/tty
name = "kettle"
chip = "cse7766" | "bl0942" | "pzem004t" | "bl0937"
load = "dishwasher-1"      watt_rig/loads.py: measured days, models, a .json file, "1500" watts
rated_w = 3680
key = "plain" | "secure"   in the plug's flash, or in a fake secure element on its I2C bus
heap_kib = 320
flash_kib = 2048

[[meters]]                 Modbus meters; what they show is one load, or the sum of all plugs ("plugs")
name = "main"
kind = "sdm120" | "sdm630" | "pzem004t"
line = "tcp" | "pty"       a pty is DIR/NAME.tty
port = 0
load = "plugs"

[ble]                      a private D-Bus with a fake BlueZ, the plugs' radios and a meter on it
enabled = false
meter = "plugs"            a load, or the sum of the plugs; absent = no Bluetooth meter
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from watt_node.config import FieldProblem, Section, load

PLUGS_MAX = 16
"Interpreters of one bench: each takes a twentieth of a core at rest."
METERS_MAX = 8

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,24}$")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class BrokerPart(Section, frozen=True, kw_only=True):
    """`[broker]`."""

    kind: Literal["mosquitto", "none"] = "mosquitto"
    port: Port = 0


class PlugPart(Section, frozen=True, kw_only=True):
    """`[[plugs]]`."""

    name: Name
    chip: Literal["cse7766", "bl0942", "pzem004t", "bl0937"] = "cse7766"
    load: str = "100"
    rated_w: Annotated[int, msgspec.Meta(ge=1, le=30_000)] = 3680
    key: Literal["plain", "secure"] = "plain"
    heap_kib: Annotated[int, msgspec.Meta(ge=128, le=65_536)] = 384
    flash_kib: Annotated[int, msgspec.Meta(ge=256, le=16_384)] = 2048


class MeterPart(Section, frozen=True, kw_only=True):
    """`[[meters]]`."""

    name: Name
    kind: Literal["sdm120", "sdm630", "pzem004t"]
    line: Literal["tcp", "pty"] = "tcp"
    port: Port = 0
    load: str = "plugs"


class BlePart(Section, frozen=True, kw_only=True):
    """`[ble]`."""

    enabled: bool = False
    meter: str = ""


class BenchFile(Section, frozen=True, kw_only=True):
    """The whole file."""

    plugs: Annotated[list[PlugPart], msgspec.Meta(max_length=PLUGS_MAX)] = msgspec.field(default_factory=list)
    meters: Annotated[list[MeterPart], msgspec.Meta(max_length=METERS_MAX)] = msgspec.field(default_factory=list)
    broker: BrokerPart = BrokerPart()
    ble: BlePart = BlePart()
    speed: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    timer_speed: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    start_s: Annotated[int, msgspec.Meta(ge=1_000_000_000, le=4_000_000_000)] | None = None

    def __post_init__(self) -> None:
        names = [part.name for part in self.plugs] + [part.name for part in self.meters]
        if len(set(names)) != len(names):
            raise FieldProblem("plugs", "two parts of the bench have the same name")


def read(path: Path) -> BenchFile:
    """Read a bench; ConfigError with one complete line when it cannot be used."""
    return load(path, BenchFile)
