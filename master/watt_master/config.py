"""What a master reads at start: its TOML file, and the grid company's event file.

Sections common to all daemons come from `watt_node.config`; a wrong file is refused there with file, line and key.
Added here: `[[areas]]` (every station this master may follow), `[services]` (which offices this master runs; leave the
section out on a master that only keeps the chain) and `event.toml`.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from watt_chain.contract.event import EventSpec, Unit, check_spec
from watt_chain.crypto import PrivateKey
from watt_node.config import (
    ClockSection,
    ConfigError,
    EndpointSection,
    FieldProblem,
    ListenSection,
    LogSection,
    NetworkSection,
    NodeSection,
    PeerSection,
    Section,
    TlsSection,
    load,
)
from watt_node.keys import read_secret

Whole = Annotated[int, msgspec.Meta(ge=0)]


class GridSection(Section, frozen=True, kw_only=True):
    """`[services] grid`: the grid company's office. `event` is absent when no event is to be announced."""

    key: Path
    event: Path | None = None


class AggregatorSection(Section, frozen=True, kw_only=True):
    """`[services] aggregator`: collects bids, clears the market, settles credit and amounts."""

    key: Path


class RegistrarSection(Section, frozen=True, kw_only=True):
    """`[services] registrar`: submits transactions that were signed elsewhere (enrolments, deposits)."""

    file: Path


class ServicesSection(Section, frozen=True, kw_only=True):
    """`[services]`: the offices that this master runs. One master per office; its key signs with one nonce row."""

    grid: GridSection | None = None
    aggregator: AggregatorSection | None = None
    registrar: RegistrarSection | None = None


class MasterConfig(Section, frozen=True, kw_only=True):
    """The whole file of `wattpact master run --config FILE`."""

    network: NetworkSection
    node: NodeSection
    tls: TlsSection
    listen: ListenSection
    peers: list[PeerSection] = msgspec.field(default_factory=list)
    areas: list[EndpointSection] = msgspec.field(default_factory=list)
    services: ServicesSection = ServicesSection()
    clock: ClockSection = ClockSection()
    log: LogSection = LogSection()

    def __post_init__(self) -> None:
        if self.node.chain != 0:
            raise FieldProblem(
                "node", f"chain {self.node.chain}: a master is a validator of the main chain, allowed is 0"
            )
        if self.node.retention != "archive":
            raise FieldProblem(
                "node", f"retention {self.node.retention}: a master keeps every block, allowed is archive"
            )
        if any(endpoint.chain == 0 for endpoint in self.areas):
            raise FieldProblem("areas", "chain 0 is the main chain; an area has a number from 1 on")
        places = [(endpoint.chain, endpoint.index) for endpoint in self.areas]
        if len({*places}) != len(places):
            raise FieldProblem("areas", "one station is listed twice")
        if any(peer.index == self.node.index for peer in self.peers):
            raise FieldProblem("peers", f"index {self.node.index} is this master itself")

    def endpoints(self) -> dict[int, list[EndpointSection]]:
        """Stations to follow, by area."""
        found: dict[int, list[EndpointSection]] = {}
        for endpoint in self.areas:
            found.setdefault(endpoint.chain, []).append(endpoint)
        return dict(sorted(found.items()))


class UnitSection(Section, frozen=True, kw_only=True):
    """`[[units]]` of event.toml: a generating unit that can cover what defaulters use too much."""

    cost_u_per_wh: Whole
    capacity_wh: list[Whole]


class EventFile(Section, frozen=True, kw_only=True):
    """event.toml: one demand signal. Instants are protocol seconds (Unix, UTC); lists have one value per slot."""

    announce_s: Whole
    "Initial is sent once the protocol clock shows this."
    event: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    kind: Literal["peak", "valley"] = "peak"
    slot_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 900
    slots: Annotated[int, msgspec.Meta(ge=1, le=96)]
    required_ppm: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    open_s: Whole
    commit_close_s: Whole
    reveal_close_s: Whole
    match_by_s: Whole
    confirm_close_s: Whole
    window_start_s: Whole
    meter_close_s: Whole
    settle_by_s: Whole
    alpha_u_per_wh: list[Whole]
    x_ms: Whole | None = None
    "Left out, with y_ms: measured on the running network when the signal is made."
    y_ms: Whole | None = None
    budget_u: Whole
    normal_price_u_per_wh: Whole
    compensation_price_u_per_wh: Whole
    profile_wh_per_mwh: list[Whole]
    units: list[UnitSection]

    def __post_init__(self) -> None:
        if (self.x_ms is None) != (self.y_ms is None):
            raise FieldProblem("x_ms", "x_ms and y_ms are given together, or both are measured")

    def spec(self) -> EventSpec:
        """The signal as it goes on chain; X and Y are 0 where they are still to be measured."""
        values = {name: getattr(self, name) for name in EventSpec.__struct_fields__ if name != "units"}
        values |= {"x_ms": self.x_ms or 0, "y_ms": self.y_ms or 0}
        return EventSpec(units=[Unit(unit.cost_u_per_wh, list(unit.capacity_wh)) for unit in self.units], **values)


def load_config(path: Path | str) -> MasterConfig:
    """Read a master's file; ConfigError when it cannot be used."""
    return load(path, MasterConfig)


def load_event(path: Path, price_cap_u_per_wh: int) -> EventFile:
    """Read an event file and test it by the contract's own rule; ConfigError when a chain would refuse it."""
    file = load(path, EventFile)
    reason = check_spec(file.spec(), price_cap_u_per_wh)
    if reason:
        raise ConfigError(f"{path}:1: the signal would be refused on chain: {reason}")
    if file.announce_s >= file.open_s:
        raise ConfigError(f"{path}:1: announce_s {file.announce_s} must be before open_s {file.open_s}")
    return file


def load_key(path: Path) -> PrivateKey:
    """A service's private key; ConfigError when the file does not hold one."""
    try:
        return PrivateKey(read_secret(path))
    except ValueError:
        raise ConfigError(f"{path}: not a P-256 private key") from None
