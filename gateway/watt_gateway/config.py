"""The gateway's TOML file, one per household, read through `watt_node.config` (errors name file, line and key).

[household]  name, key                      the name in topics; file of the household's signing key
[area]       chain, nodes, serving          the area chain, how many stations it has, which one serves us first
[network]    genesis, regulator             what the light client trusts
[clock]      machine_start_ms, ...          absent = real time
[time]       trust                          whose word the plugs are told the time on
[mqtt.home]  host, port, ca, cert, key      the broker of the plugs
[mqtt.area]  host, port, ca, cert, key      the broker of the stations
[store]      path, retain_days              folder of database, registry, status and bills
[[plugs]]    public, name, rated_w, essential   the plugs this household owns
[modbus]     host or serial, unit, map, ... the main meter; optional
[ble]        address, map                   the main meter over Bluetooth instead; optional
[plan]       file                           what to offer or bid; optional
[log]        level
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from watt_chain.contract.event import ALPHA_MAX, SLOTS_MAX
from watt_node.config import (
    ClockSection,
    ConfigError,
    FieldProblem,
    LogSection,
    MqttSection,
    NetworkSection,
    Section,
    load,
)

PLUGS_MAX = 64
"""Plugs of one household. The outbox bound is computed from it (store.OUTBOX_ITEMS_MAX)."""
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
NodeIndex = Annotated[int, msgspec.Meta(ge=0, le=99)]


class HouseholdSection(Section, frozen=True, kw_only=True):
    """`[household]`: the name it has in topics, and the file of its signing key (64 hex digits, mode 0600)."""

    name: Name
    key: Path


class AreaSection(Section, frozen=True, kw_only=True):
    """`[area]`: chain id, number of station nodes, and the index of the node asked first."""

    chain: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    nodes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    serving: NodeIndex = 0

    def __post_init__(self) -> None:
        if self.serving >= self.nodes:
            raise FieldProblem("serving", f"an area of {self.nodes} nodes has the indexes 0..{self.nodes - 1}")


class BrokersSection(Section, frozen=True, kw_only=True):
    """`[mqtt.home]` and `[mqtt.area]`; the same endpoint in both means one connection."""

    home: MqttSection
    area: MqttSection


class StoreSection(Section, frozen=True, kw_only=True):
    """`[store]`: the folder everything is written to, and how long readings that are final stay at home."""

    path: Path
    retain_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 400
    """A year of bills can be recomputed, plus a month to dispute the last one."""


class PlugSection(Section, frozen=True, kw_only=True):
    """`[[plugs]]`: the plug's public key (128 hex digits), a name for the household, its rated power."""

    public: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}$")]
    name: Name
    rated_w: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    essential: bool = False
    """Never switched off by a command: this gateway carries none to it, whatever the plug itself would do."""


class TimeSection(Section, frozen=True, kw_only=True):
    """`[time]`: plugs are told quality S while the kernel says that a time daemon steers the clock, or `always`."""

    trust: Literal["kernel", "always"] = "kernel"


class ModbusSection(Section, frozen=True, kw_only=True):
    """`[modbus]`: a main meter behind Modbus TCP, RTU frames over TCP (`framing = "rtu"`, as ser2net gives), or a line.

    `host` or `serial` (`/dev/ttyUSB0`, RTU, 8N1 at `baud`), one of them.
    """

    host: str = ""
    serial: str = ""
    baud: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 9600
    port: Port = 502
    unit: Annotated[int, msgspec.Meta(ge=0, le=247)] = 1
    map: str = "sdm120"
    framing: Literal["socket", "rtu"] = "socket"
    poll_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60

    def __post_init__(self) -> None:
        if bool(self.host) == bool(self.serial):
            raise FieldProblem("host", "give host (a network) or serial (a line), one of the two")

    @property
    def where(self) -> str:
        """Its address, for people."""
        return self.serial or f"{self.host}:{self.port}"


class BleSection(Section, frozen=True, kw_only=True):
    """`[ble]`: a main meter that shows its register over Bluetooth; its address and the map of its characteristics."""

    address: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{2}(:[0-9A-F]{2}){5}$")]
    map: str = "ble-energy"
    adapter: str = ""
    poll_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60


class PlanSection(Section, frozen=True, kw_only=True):
    """`[plan]`: the JSON file with what this household offers or bids; read afresh at every event."""

    file: Path


class GatewayConfig(Section, frozen=True, kw_only=True):
    """The whole file."""

    household: HouseholdSection
    area: AreaSection
    network: NetworkSection
    mqtt: BrokersSection
    store: StoreSection
    clock: ClockSection = ClockSection()
    time: TimeSection = TimeSection()
    plugs: Annotated[list[PlugSection], msgspec.Meta(max_length=PLUGS_MAX)] = msgspec.field(default_factory=list)
    modbus: ModbusSection | None = None
    ble: BleSection | None = None
    plan: PlanSection | None = None
    log: LogSection = LogSection()

    def __post_init__(self) -> None:
        publics = [plug.public for plug in self.plugs]
        if len(set(publics)) != len(publics):
            raise FieldProblem("plugs", "the same public key stands there twice")
        if self.modbus is not None and self.ble is not None:
            raise FieldProblem("ble", "a household has one main meter: [modbus] or [ble]")
        names = [plug.name for plug in self.plugs]
        if len(set(names)) != len(names):
            raise FieldProblem("plugs", "two plugs have the same name")


def load_config(path: Path) -> GatewayConfig:
    """Read one household's file; ConfigError with one complete line when it cannot be used."""
    return load(path, GatewayConfig)


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`plan.json`: what the household wants. Prices u/Wh; energy Wh per slot of the event window."""

    side: Literal["sell", "buy"]
    price_u_per_wh: Annotated[int, msgspec.Meta(ge=0, le=10**9)]
    slot_wh: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=10**6)]], msgspec.Meta(max_length=SLOTS_MAX)]
    together: bool = False
    "A buyer's trades with other areas come about all or not at all."
    total_wh: Annotated[int, msgspec.Meta(ge=0, le=10**8)] = 0
    "Most Wh over all slots, as a battery or a car has it; 0 = only the slots limit it."
    alpha_u_per_wh: Annotated[
        list[Annotated[int, msgspec.Meta(ge=0, le=ALPHA_MAX)]], msgspec.Meta(max_length=SLOTS_MAX)
    ] = []
    "A seller's own comfort coefficient per slot (U17); empty = the event's."
    least_wh: Annotated[int, msgspec.Meta(ge=0, le=10**8)] = 0
    "A matching result that comes to less is not worth it: it is refused, without harm to the credit (A17)."


def load_plan(path: Path) -> Plan | None:
    """Read the plan; None when there is no file (the household sits this event out); ConfigError when it is wrong."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the plan: {error.strerror}") from None
    try:
        return msgspec.json.decode(raw, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a plan: {error}") from None
