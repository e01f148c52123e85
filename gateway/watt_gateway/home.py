"""One household's gateway: its store, machines, connections and tasks, and the status it shows.

Several of them share one process and one loop (a bench, a block of flats); they share nothing else but the light
client's memory of checked signatures.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from watt_chain import crypto
from watt_chain.light import LightClient
from watt_node.clock import ProtocolClock, machine_ms
from watt_node.config import ConfigError
from watt_node.keys import read_secret
from watt_node.log import Log
from watt_node.names import chain_name
from watt_node.status import PERIOD_S, StatusFile
from watt_wire import topics

from watt_gateway.commands import CommandRelay, Offices
from watt_gateway.config import GatewayConfig, PlugSection
from watt_gateway.desk import LEVELS, PlugDesk
from watt_gateway.follow import Follower
from watt_gateway.lightnode import LightNode, ReceiptMessage, RefusedMessage
from watt_gateway.lines import Lines
from watt_gateway.meters.main import POLL_MS_MIN, MainMeter, MeterError
from watt_gateway.meters.source import main_meter
from watt_gateway.mqtt import Link, LinkError, same_endpoint
from watt_gateway.outgoing import Outgoing
from watt_gateway.plugbook import PlugBook, PlugCommand
from watt_gateway.registry import PlugEntry, Registry, RegistryError
from watt_gateway.store import STORE_FILE, Store, StoreError, StoreUnavailable
from watt_gateway.timesource import quality

DAY_S = 86_400
REGISTRY_S = 5
"""Machine seconds between two looks at the registry file: a plug that was just paired must not need a restart."""
TRAY = "tray"
"""Folder in the store for what somebody at this machine hands in (desk.py)."""
QUARTER_S = 900
"""Checkpoints fall on quarter hours; a poll period that divides it puts a poll of the main meter there too."""


class Network(NamedTuple):
    """What a genesis file says to a gateway."""

    light: LightClient
    offices: Offices


class Home:
    """A running gateway of one household. Create (reads and checks everything), `start`, later `stop`."""

    def __init__(self, config: GatewayConfig, base: Path, net: Network, log: Log) -> None:
        """`base`: the folder of the configuration file. ConfigError with one line when anything cannot be used."""
        household, area, light_client = config.household, config.area, net.light
        self.name = household.name
        self._config = config
        self._log = log.bind(self.name)
        self._lines = Lines(self._log)
        self._clock = ProtocolClock(config.clock.machine_start_ms, config.clock.protocol_start_s, config.clock.speed)
        try:
            key = crypto.PrivateKey.from_bytes(read_secret(household.key))
        except ValueError as error:
            raise ConfigError(f"{household.key}: {error}") from None
        self._meter = main_meter(config, base)
        self._folder = config.store.path
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self._folder)
            self._store = Store(self._folder / STORE_FILE)
            self._book = PlugBook(self._store)
            self._registry = Registry(self._folder / "registry.json")
            self._plugs = self._pair_plugs(config.plugs)
        except (StoreError, RegistryError) as error:
            raise ConfigError(str(error)) from None
        except OSError as error:
            raise ConfigError(f"{self._folder}: cannot be written: {error.strerror}") from None
        area_name = chain_name(area.chain)
        self._reply_topic = topics.area_reply(area_name, self.name)
        self._notice_topic = topics.area_notice(area_name)
        self._command_topic = topics.area_command(area_name, self.name)
        self._outcome_topic = topics.area_outcome(area_name, self.name)
        try:
            self._home_link, self._area_link = self._make_links()
        except LinkError as error:
            raise ConfigError(str(error)) from None
        self.light = LightNode(
            light_client, key, area.chain, area.nodes, area.serving, area_name, self.name, self._area_link.publish
        )
        self.outgoing = Outgoing(
            self.name,
            area_name,
            area.chain,
            light_client.network,
            key,
            self._store,
            self._publics(),
            self.light,
            self._home_link.publish,
            self._area_link.publish,
            self._main_meter_at,
            self._lines,
        )
        self.desk = self._make_desk(net, key)
        plan_topic = topics.home_plan(self.name)
        self.follower = Follower(
            self.outgoing,
            self.light,
            self._store,
            self._clock,
            None if config.plan is None else config.plan.file,
            self._folder,
            light_client.network,
            area.chain,
            lambda payload: self._home_link.publish(plan_topic, payload),
            self._lines,
        )
        self.outgoing.on_settled = self.follower.settled
        self._area_link.when_up(self.outgoing.broker_up)
        self._area_link.when_up(self.follower.broker_up)
        self._status_file = StatusFile(self._folder)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> list[asyncio.Task[None]]:
        """Connect and run; returns the tasks, none of which ends unless something of ours is broken."""
        for link in self._links():
            link.start()
        work: list[Coroutine[Any, Any, None]] = [
            self.outgoing.run(),
            self.follower.run(),
            self.desk.run(),
            self._write_status(),
            self._watch_registry(),
            self._prune_daily(),
        ]
        if self._meter is not None:
            work.append(self._poll_meter(self._meter))
        self._tasks = [asyncio.create_task(coroutine, name=f"{self.name}") for coroutine in work]
        return self._tasks

    async def stop(self) -> None:
        """Stop the tasks, disconnect, close the store: whatever was acknowledged is on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Each stop joins a thread of paho, which may sit out a reconnect delay: all at once, or 16 homes wait in a row.
        await asyncio.gather(*(asyncio.to_thread(link.stop) for link in self._links()))
        if self._meter is not None:
            self._meter.close()
        self._status_file.write(self.status(), machine_ms())
        self._store.close()
        self._registry.close()
        os.close(self._lock)

    def status(self) -> dict[str, object]:
        """What `status.json` shows."""
        out, follower = self.outgoing, self.follower
        account, event = follower.account, follower.event
        return {
            "name": self.name,
            "protocol_s": self._clock.now_s(),
            "account_id": None if out.account_id is None else out.account_id.hex(),
            "brokers": {"home": self._home_link.connected, "area": self._area_link.connected},
            "disk": out.disk,
            "readings": {
                "received": out.readings_received,
                "acked": out.readings_acked,
                "batches": out.batches_acked,
                "gaps": out.gaps,
                "refused": dict(sorted(out.intake.refused.items())),
                "dropped": {key: value for link in self._links() for key, value in link.dropped.items()},
            },
            "plugs": {plug.hex(): self._plug_status(plug) for plug in self._plugs},
            "commands": {"waiting": self.desk.relay.waiting, "refused": dict(sorted(self.desk.relay.refused.items()))},
            "updates": self.desk.updates.status(),
            "tx": {
                "pending": len(out.forwarder),
                "in_flight": out.forwarder.in_flight,
                "final": out.final,
                "refused": dict(sorted(out.refused.items())),
                "pool": dict(sorted(out.forwarder.refused.items())),
            },
            "light": {
                "height": self.light.height,
                "time_s": self.light.time_s,
                "node": self.light.node,
                "rejected": dict(sorted(self.light.rejected.items())),
            },
            "main_meter": None
            if self._meter is None
            else {
                "mwh": self._meter.last_mwh,
                "polls": self._meter.polls,
                "failures": dict(sorted(self._meter.failures.items())),
            },
            "event": None
            if event is None
            else {
                "number": event.event,
                "state": event.state.value,
                "side": None if follower.bid is None else follower.bid.side,
                "trades": follower.trades,
                "note": follower.note,
                "outcome": None if follower.row is None else follower.row.status,
            },
            "account": None
            if account is None
            else {
                "free_u": account.free_u,
                "escrow_u": account.escrow_u,
                "bond_u": account.bond_u,
                "arrears_u": account.arrears_u,
                "credit": account.credit,
                "points": account.points,
                "suspended": account.suspended,
            },
        }

    # ---- inside -------------------------------------------------------------------------------------------------

    def _pair_plugs(self, plugs: list[PlugSection]) -> dict[bytes, PlugEntry]:
        """Bring the registry up to the configuration; returns every paired plug by its id."""
        for plug in plugs:
            plug_id = crypto.id8(bytes.fromhex(plug.public))
            self._registry.pair(PlugEntry(plug_id.hex(), plug.public, plug.name, plug.rated_w, self._clock.now_s()))
        if self._registry.restored_from_backup:
            self._log.warning("registry-restored", action="the main file was damaged; its backup is in use")
        return self._registry.plugs()

    def _publics(self) -> dict[bytes, bytes]:
        return {plug_id: bytes.fromhex(entry.public) for plug_id, entry in self._plugs.items()}

    def _make_desk(self, net: Network, key: crypto.PrivateKey) -> PlugDesk:
        essential = {crypto.id8(bytes.fromhex(plug.public)) for plug in self._config.plugs if plug.essential}
        network, now_s = net.light.network, self._clock.now_s
        relay = CommandRelay(network, net.offices, self._plugs, essential, self._book, now_s)
        publish, tray = self._home_link.publish, self._folder / TRAY
        desk = PlugDesk(
            self.name, key, self._plugs, self._book, relay, publish, self._time_of, tray, self._lines, now_s
        )
        desk.on_command = self._tell_offices
        return desk

    def _time_of(self, _plug: bytes) -> tuple[int, str]:
        """What a plug that asks is told: (Unix ms, quality). A protocol clock of a bench is right by definition."""
        clock = self._config.clock
        trusted = self._config.time.trust == "always" or clock.speed > 1 or clock.protocol_start_s > 0
        return self._clock.now_ms(), quality(trusted, self._clock.now_s(), self.light.time_s)

    def _tell_offices(self, done: PlugCommand) -> None:
        """What became of a command, on the area's broker; the plug's own word follows by its checkpoint."""
        outcome = {"plug": done.plug.hex(), "counter": done.counter, "state": done.state, "sends": done.sends}
        self._log.info("command", **outcome)
        self._area_link.publish(self._outcome_topic, json.dumps(outcome).encode())

    def _plug_status(self, plug: bytes) -> dict[str, object]:
        told = self.desk.told.get(plug)
        shown: dict[str, object] = {"name": self._plugs[plug].name, "heard_ms": 0, "told": {}}
        if told is not None:
            shown |= {"heard_ms": told.at_ms, "told": told.status}
        return shown

    def _make_links(self) -> tuple[Link, Link]:
        home, area = self._config.mqtt.home, self._config.mqtt.area
        levels = [topics.plug_level_filter(self.name, level) for level in LEVELS]
        home_topics = [topics.plug_batch_filter(self.name), *levels]
        area_topics = [self._reply_topic, self._notice_topic, self._command_topic]
        if same_endpoint(home, area):
            link = Link("home-and-area", f"gw-{self.name}", home, home_topics + area_topics, self._take, self._lines)
            return link, link
        return (
            Link("home", f"gw-{self.name}-home", home, home_topics, self._take_home, self._lines),
            Link("area", f"gw-{self.name}-area", area, area_topics, self._take_area, self._lines),
        )

    def _links(self) -> list[Link]:
        return [self._home_link] if self._home_link is self._area_link else [self._home_link, self._area_link]

    def _take(self, topic: str, payload: bytes) -> None:
        if topic in (self._reply_topic, self._notice_topic, self._command_topic):
            self._take_area(topic, payload)
        else:
            self._take_home(topic, payload)

    def _take_home(self, topic: str, payload: bytes) -> None:
        if topic.endswith("/batch"):
            self.outgoing.take_batch(topic, payload)
        else:
            self.desk.take(topic, payload)

    def _take_area(self, topic: str, payload: bytes) -> None:
        if topic == self._notice_topic:
            self.follower.take_notice(payload)
            return
        if topic == self._command_topic:
            self.desk.take_command(payload)
            return
        reply = self.light.take(payload)
        if isinstance(reply, ReceiptMessage):
            self.outgoing.take_receipt(reply)
        elif isinstance(reply, RefusedMessage):
            self.outgoing.take_refusal(reply)

    async def _write_status(self) -> None:
        while True:
            self._status_file.write(self.status(), machine_ms())
            await asyncio.sleep(PERIOD_S)

    async def _watch_registry(self) -> None:
        """Take the plugs that `wattpact plug provision` has paired since."""
        path = self._folder / "registry.json"
        seen = _changed_ns(path)
        while True:
            await asyncio.sleep(REGISTRY_S)
            now = _changed_ns(path)
            if now == seen:
                continue
            seen = now
            try:
                fresh = await asyncio.to_thread(self._registry.plugs)
            except RegistryError as error:
                self._lines.warn("registry-unreadable", why=str(error))
                continue
            for plug in fresh.keys() - self._plugs.keys():
                self._log.info("plug-paired", plug=plug, name=fresh[plug].name)
            for plug in self._plugs.keys() - fresh.keys():
                del self._plugs[plug]
            self._plugs.update(fresh)
            self.outgoing.admit(self._publics())

    async def _prune_daily(self) -> None:
        """Once a day of the machine: forget readings that are final and older than the household wants to keep."""
        while True:
            await asyncio.sleep(DAY_S)
            before_s = self._clock.now_s() - self._config.store.retain_days * DAY_S
            try:
                removed = await asyncio.to_thread(self._store.prune, before_s)
                removed += await asyncio.to_thread(self._book.prune, before_s)
            except StoreUnavailable as error:
                self._lines.warn("disk-refuses", reason=error.reason)
                continue
            if removed:
                self._log.info("pruned", batches=removed)

    async def _poll_meter(self, meter: MainMeter) -> None:
        """Poll on the grid of the protocol clock, so that a poll falls on every quarter hour."""
        period_s = self._poll_period_s()
        while True:
            wait_ms = self._clock.delay_ms((self._clock.now_s() // period_s + 1) * period_s)
            await asyncio.sleep(wait_ms / 1000)
            try:
                await meter.poll(self._clock.now_s())
                self._lines.clear("main-meter-missing")
            except MeterError as error:
                self._lines.warn("main-meter-missing", reason=str(error))

    def _poll_period_s(self) -> int:
        section = self._config.modbus or self._config.ble
        assert section is not None
        least_s = max(section.poll_s, -(-POLL_MS_MIN * self._clock.speed // 1000))
        divisors = [seconds for seconds in range(1, QUARTER_S + 1) if QUARTER_S % seconds == 0]
        return next((seconds for seconds in divisors if seconds >= least_s), least_s)

    def _main_meter_at(self, time_s: int) -> int:
        if self._meter is None:
            return -1
        return self._meter.at(time_s, max(1, self._poll_period_s() // 2))


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _lock(folder: Path) -> int:
    """Hold the folder: two gateways on one store would sign with the same nonces. ConfigError when it is held."""
    handle = os.open(folder / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ConfigError(f"{folder}: in use by another gateway process") from None
    return handle
