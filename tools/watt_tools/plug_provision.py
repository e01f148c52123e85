"""`wattpact plug provision`: find a plug, take it into a household, enrol it in the gateway's registry.

The household comes from its gateway's own configuration (name, key, network, home broker), so that nothing is typed
twice; for a plug of a bench it comes from the bench. What the plug signed about itself is kept as DIR/enrolments/ID.bin
for the EnrolPlug transaction.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watt_chain import crypto
from watt_chain.genesis import open_genesis
from watt_gateway.commands import Offices
from watt_gateway.config import GatewayConfig, load_config
from watt_gateway.registry import PlugEntry, Registry
from watt_node.config import ConfigError
from watt_node.keys import read_secret

from watt_tools import plug_ble, rig_setup
from watt_tools.certificates import Authority
from watt_tools.plug_pair import Certify, Household, NewPlug, PairingError, pair
from watt_tools.rig_line import ask

RIG_WIFI = "rig"


@dataclass(frozen=True)
class Target:
    """A household, who certifies for it, and how a plug is enrolled there."""

    household: Household
    certify: Certify
    enrol: Callable[[NewPlug, str], None]
    enrolments: Path


def of_gateway(
    config_path: Path, authority: Path, wifi: tuple[str, str], broker: str, parties: list[tuple[int, bytes]], now_s: int
) -> Target:
    """The household of a gateway's TOML file. ConfigError, OSError or PairingError when something is missing."""
    config = load_config(config_path)
    base = config_path.resolve().parent
    if not (authority / "ca.key").exists():
        raise PairingError(f"{authority}: no authority here (ca.pem and ca.key): it certifies the plug's TLS key")
    certifying = Authority(authority, config.household.name)
    host, _, port = broker.partition(":")
    home = config.mqtt.home
    key = crypto.PrivateKey(read_secret(base / config.household.key))
    genesis, network = open_genesis(
        (base / config.network.genesis).read_bytes(), bytes.fromhex(config.network.regulator)
    )
    household = Household(
        wifi[0],
        wifi[1],
        config.household.name,
        host or home.host,
        int(port) if port else home.port,
        certifying.ca_der,
        key.public,
        network,
        parties or Offices.of(genesis).parties,
    )
    folder = base / config.store.path

    def enrol(plug: NewPlug, name: str) -> None:
        _pair_in_registry(folder, config, plug, name, now_s)

    return Target(household, certifying.certify, enrol, folder / "enrolments")


def of_rig(folder: Path, plug_name: str) -> Target:
    """The household of a running bench; also points bleak at the bench's own D-Bus."""
    try:
        status = ask(folder, {"do": "status"})
    except (OSError, ValueError):
        raise PairingError(f"no bench runs in {folder}") from None
    if plug_name not in status["plugs"]:
        raise PairingError(f"plug {plug_name!r}: the bench has {', '.join(status['plugs'])}")
    if status["bluetooth"]:
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = status["bluetooth"]["bus"]
    trust = rig_setup.Trust(folder.resolve() / "trust")

    def enrol(plug: NewPlug, name: str) -> None:
        ask(folder, {"do": "enrol", "public": plug.public.hex(), "name": name, "rated_w": plug.rated_w})

    household = rig_setup.household(trust, status["plugs"][plug_name]["airline_port"])
    return Target(household, trust.authority.certify, enrol, folder / "enrolments")


async def over_the_air(target: Target, code: str, name: str, address: str = "") -> NewPlug:
    """Pair over Bluetooth with the plug at `address`, or with the only one in the air."""
    if not address:
        found = await plug_ble.scan()
        if len(found) != 1:
            seen = ", ".join(f"{plug.address} ({plug.name}, {plug.rssi} dBm)" for plug in found) or "none"
            raise PairingError(f"plugs in the air: {seen}; name one with --address")
        address = found[0].address
    async with plug_ble.connected(address) as carrier:
        plug = await pair(carrier, code, target.household, target.certify)
    keep(target, plug, name)
    return plug


def keep(target: Target, plug: NewPlug, name: str) -> None:
    """Enrol a plug that has been paired, and keep what it signed."""
    target.enrolments.mkdir(parents=True, exist_ok=True)
    (target.enrolments / f"{plug.plug_id.hex()}.bin").write_bytes(plug.enrolment)
    target.enrol(plug, name)


def find(rig: Path | None) -> list[plug_ble.Found]:
    """Every plug that waits to be paired."""
    if rig is not None:
        try:
            bus = ask(rig, {"do": "status"})["bluetooth"]
        except (OSError, ValueError):
            raise PairingError(f"no bench runs in {rig}") from None
        if bus:
            os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = bus["bus"]
    return asyncio.run(plug_ble.scan())


def _pair_in_registry(folder: Path, config: GatewayConfig, plug: NewPlug, name: str, now_s: int) -> None:
    known = {entry.name for entry in config.plugs}
    if name in known:
        raise ConfigError(f"plug name {name!r}: the configuration has a plug of this name")
    registry = Registry(folder / "registry.json")
    try:
        registry.pair(PlugEntry(plug.plug_id.hex(), plug.public.hex(), name, plug.rated_w, now_s))
    finally:
        registry.close()
