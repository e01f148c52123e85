"""`wattpact gateway doctor`: looks at everything a gateway needs and says, line by line, what to do.

It changes nothing, may run beside a running gateway (it connects under a client id of its own), and ends with exit
code 0 only when nothing is wrong. The one module of this package that imports cryptography (to read certificates).
"""

from __future__ import annotations

import asyncio
import datetime
import shutil
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID
from watt_chain import codec, crypto
from watt_chain.codec import DecodeError
from watt_chain.contract.objects import Account, Plug, Signer, account_key, plug_key, signer_key
from watt_chain.light import LightClient
from watt_node.clock import ProtocolClock
from watt_node.config import ConfigError, MqttSection
from watt_node.findings import Finding, show
from watt_node.keys import read_secret
from watt_node.log import Log
from watt_node.names import chain_name
from watt_wire import topics

from watt_gateway.config import GatewayConfig, load_config, load_plan
from watt_gateway.lightnode import LightNode, QueryFailed
from watt_gateway.lines import Lines
from watt_gateway.meters.main import MeterError
from watt_gateway.meters.source import main_meter
from watt_gateway.mqtt import Link, LinkError
from watt_gateway.service import open_network
from watt_gateway.store import STORE_FILE, Store, StoreError

CONNECT_S = 5
"""A broker that does not answer within this is not there."""
FREE_BYTES_MIN = 256 << 20
"""Two years of one household's readings."""
CERTIFICATE_DAYS_MIN = 14
"""Time to renew."""
BLOCK_AGE_S_MAX = 3_600
"""Protocol time since the last block above which clocks, or the area, deserve a look."""


def run(config_path: Path) -> int:
    """Print the findings of one configuration; 0 when nothing is bad."""
    return show(asyncio.run(examine(config_path)))


async def examine(config_path: Path) -> list[Finding]:
    """Everything that can be seen from here, in the order in which it is repaired best."""
    findings: list[Finding] = []
    try:
        config = load_config(config_path)
    except ConfigError as error:
        return [Finding("bad", f"configuration: {error}", "correct that line")]
    findings.append(Finding("ok", f"configuration of household {config.household.name}"))
    key = _key(config, findings)
    light = _network(config, findings)
    _store(config, findings)
    _plan(config, findings)
    _certificates(config, findings)
    home_up = await _broker(config, "home", config.mqtt.home, findings)
    area_up = await _broker(config, "area", config.mqtt.area, findings)
    if area_up and key is not None and light is not None:
        await _account(config, key, light, findings)
    if not home_up or not config.plugs:
        findings.append(
            Finding("warn", f"{len(config.plugs)} plugs configured", "add a [[plugs]] section per plug")
            if not config.plugs
            else Finding("warn", "plugs cannot be heard without the home broker")
        )
    await _main_meter(config, config_path.parent, findings)
    return findings


def _key(config: GatewayConfig, findings: list[Finding]) -> crypto.PrivateKey | None:
    try:
        key = crypto.PrivateKey.from_bytes(read_secret(config.household.key))
    except (ConfigError, ValueError) as error:
        findings.append(Finding("bad", f"household key: {error}", "restore it, or run `wattpact gateway init`"))
        return None
    findings.append(Finding("ok", f"household key of account {crypto.id8(key.public).hex()}"))
    return key


def _network(config: GatewayConfig, findings: list[Finding]) -> LightClient | None:
    try:
        light = open_network(config.network).light
    except ConfigError as error:
        findings.append(
            Finding("bad", f"genesis: {error}", "get genesis.bin from the operator and the regulator's key elsewhere")
        )
        return None
    findings.append(Finding("ok", f"genesis of network {light.network.hex()[:16]}"))
    return light


def _store(config: GatewayConfig, findings: list[Finding]) -> None:
    folder = config.store.path
    path = folder / STORE_FILE
    if not path.exists():
        findings.append(Finding("ok", f"store {path}: new, made at the first start"))
    else:
        try:
            store = Store(path)
            counts = store.counts()
            store.close()
            findings.append(
                Finding("ok", f"store: {counts.batches} batches, {counts.pending} transactions pending, integrity ok")
            )
        except StoreError as error:
            findings.append(Finding("bad", f"store: {error}", "move the file away or restore a backup"))
    parent = folder
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    enough = free >= FREE_BYTES_MIN
    findings.append(
        Finding("ok" if enough else "warn", f"disk: {free >> 20} MiB free", "" if enough else "free some space")
    )


def _plan(config: GatewayConfig, findings: list[Finding]) -> None:
    if config.plan is None:
        findings.append(Finding("ok", "no plan: this household takes no part in events"))
        return
    try:
        plan = load_plan(config.plan.file)
    except ConfigError as error:
        findings.append(Finding("bad", f"plan: {error}", "correct the file"))
        return
    if plan is None:
        findings.append(Finding("warn", f"plan {config.plan.file} is not there", "write it before the next event"))
    else:
        findings.append(Finding("ok", f"plan: {plan.side} {sum(plan.slot_wh)} Wh at {plan.price_u_per_wh} u/Wh"))


def _certificates(config: GatewayConfig, findings: list[Finding]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    seen: set[Path] = set()
    for section in (config.mqtt.home, config.mqtt.area):
        for path in (section.ca, section.cert):
            if path is None or path in seen:
                continue
            seen.add(path)
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
            except (OSError, ValueError) as error:
                findings.append(Finding("bad", f"certificate {path}: {error}", "get it from the operator"))
                continue
            days = (certificate.not_valid_after_utc - now).days
            if days < CERTIFICATE_DAYS_MIN:
                level = "bad" if days < 0 else "warn"
                findings.append(Finding(level, f"certificate {path}: {days} days left", "have it renewed"))
            names = [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            if path == section.cert and names != [config.household.name]:
                findings.append(
                    Finding("warn", f"certificate {path} is of {names}", "brokers tie topics to the household's name")
                )


async def _broker(config: GatewayConfig, which: str, section: MqttSection, findings: list[Finding]) -> bool:
    try:
        link = _link(config, which, section, [], lambda topic, payload: None)
    except LinkError as error:
        findings.append(Finding("bad", f"mqtt.{which}: {error}", "correct the paths in the section"))
        return False
    up = await _connected(link)
    link.stop()
    if up:
        findings.append(Finding("ok", f"{which} broker {link.endpoint}"))
    else:
        findings.append(
            Finding("bad", f"{which} broker {link.endpoint} does not take us", "is it running, reachable, our CA?")
        )
    return up


async def _account(
    config: GatewayConfig, key: crypto.PrivateKey, light_client: LightClient, findings: list[Finding]
) -> None:
    area = chain_name(config.area.chain)
    name = config.household.name
    link = _link(config, "account", config.mqtt.area, [topics.area_reply(area, name)], lambda t, p: answer(p))
    where = config.area
    light = LightNode(light_client, key, where.chain, where.nodes, where.serving, area, name, link.publish)

    def answer(payload: bytes) -> None:
        light.take(payload)

    try:
        if await _connected(link):
            await asyncio.sleep(0.2)  # the subscription must be in place before the answer comes
            await _ask_chain(config, key, light, findings)
    except QueryFailed as failure:
        findings.append(
            Finding("bad", f"no station of area {config.area.chain} answers ({failure.reason})", "ask the operator")
        )
    except DecodeError as error:
        findings.append(Finding("bad", f"state of another version: {error}", "update this program"))
    finally:
        link.stop()


async def _ask_chain(config: GatewayConfig, key: crypto.PrivateKey, light: LightNode, findings: list[Finding]) -> None:
    key_id = crypto.id8(key.public)
    proven = await light.state([signer_key(key_id)])
    age_s = _clock(config).now_s() - proven.time_s
    level = "ok" if -60 <= age_s <= BLOCK_AGE_S_MAX else "warn"
    findings.append(
        Finding(
            level,
            f"area {config.area.chain} at height {proven.height}, {age_s} s old",
            "" if level == "ok" else "check the clocks (timedatectl) and [clock]",
        )
    )
    raw = proven.values.get(signer_key(key_id))
    if raw is None:
        findings.append(
            Finding("bad", f"key {key_id.hex()} is not enrolled in area {config.area.chain}", "have it enrolled")
        )
        return
    account = codec.decode(raw, Signer).account
    plugs = [crypto.id8(bytes.fromhex(plug.public)) for plug in config.plugs]
    proven = await light.state([account_key(account), *(plug_key(plug) for plug in plugs[:31])])
    found = proven.values.get(account_key(account))
    if found is not None:
        state = codec.decode(found, Account)
        findings.append(Finding("ok", f"account {account.hex()}: {state.free_u} u free, credit {state.credit}"))
        if state.suspended:
            findings.append(Finding("warn", "the account is suspended", "ask the regulator why"))
    for plug in plugs[:31]:
        value = proven.values.get(plug_key(plug))
        if value is None or codec.decode(value, Plug).owner != account:
            findings.append(Finding("bad", f"plug {plug.hex()} is not enrolled for this account", "have it enrolled"))


async def _main_meter(config: GatewayConfig, base: Path, findings: list[Finding]) -> None:
    try:
        meter = main_meter(config, base)
    except ConfigError as error:
        findings.append(Finding("bad", f"main meter: {error}", "correct the map"))
        return
    if meter is None:
        return
    where = f"main meter {meter.where}"
    try:
        register_mwh = await meter.poll(_clock(config).now_s())
        meter.close()
        findings.append(Finding("ok", f"{where}: {register_mwh} mWh"))
    except MeterError as error:
        findings.append(Finding("warn", f"{where}: {error}", "check wiring, unit and port; plugs work without it"))


def _clock(config: GatewayConfig) -> ProtocolClock:
    return ProtocolClock(config.clock.machine_start_ms, config.clock.protocol_start_s, config.clock.speed)


def _link(
    config: GatewayConfig, which: str, section: MqttSection, names: list[str], take: Callable[[str, bytes], None]
) -> Link:
    client_id = f"gw-{config.household.name}-doctor-{which}"
    return Link(which, client_id, section, names, take, Lines(Log("doctor", "error")))


async def _connected(link: Link) -> bool:
    up = asyncio.Event()
    link.when_up(up.set)
    link.start()
    try:
        await asyncio.wait_for(up.wait(), CONNECT_S)
    except TimeoutError:
        return False
    return True
