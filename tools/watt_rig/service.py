"""`wattpact rig plugs --config FILE`: many emulated plugs in one process.

    [clock]      machine_start_ms, protocol_start_s, speed     as in every daemon of the network
    until_s      optional, top level: protocol time after which no plug measures any more
    [mqtt]       host, port, ca, cert, key                     the home broker
    [[plugs]]
      name, gateway                                            of the plug in logs; of the household in topics
      key                                                      file of the plug's private key, 64 hex digits
      interpreter = "micropython" | "wasm" | "cpython"
      interpreter_path                                         the micropython binary, or Node for wasm
      wasm_module                                              micropython.mjs; absent = the one npm put below tools/
      load                                                     JSON: start_s, step_s, watts
      rated_w, state_dir
      resident = "cooperative" | "defaulter" | "none"
      sdm120_port                                              optional: an emulated main meter on 127.0.0.1

Next to each FILE a FILE.status.json shows, every second: plugs, last counter signed, unacknowledged, lag.
One thread and one selector serve everything but the Modbus meters. Exit code 0 after SIGTERM or SIGINT, 1 with one
line on standard error when it cannot run.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from watt_node.clock import ProtocolClock, machine_ms
from watt_node.config import ClockSection, ConfigError, FieldProblem, MqttSection, Section, load
from watt_node.keys import read_secret
from watt_node.log import Log

from watt_rig import engine as engines
from watt_rig.link import Link, tls_context
from watt_rig.load import Load, LoadError, read_profile
from watt_rig.meters import FakeModbusMeter, MeterPortError
from watt_rig.plughost import TICK_S, HostError, PlugHost
from watt_rig.resident import Home, Resident

PLUGS_MAX = 200
"Plugs of one file: one thread serves 30 plugs at 240-fold speed with a third of a core."
SLEEP_MIN_MS = 80
"Ticks that fall due within this time are handed over together."
SLEEP_MAX_MS = 250
STATUS_MS = 1_000
KEEP_ALIVE_S = 60
RECORDS_PER_SAVE = 15
"""The rig's power fails together with its host, so it needs no journal between checkpoints."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class PlugSection(Section, frozen=True, kw_only=True):
    """`[[plugs]]`."""

    name: Name
    gateway: Name
    key: Path
    interpreter: Literal["micropython", "wasm", "cpython"]
    load: Path
    rated_w: Annotated[int, msgspec.Meta(ge=1, le=30_000)]
    state_dir: Path
    interpreter_path: str = ""
    wasm_module: str = ""
    resident: Literal["cooperative", "defaulter", "none"] = "none"
    sdm120_port: Port | None = None


class RigConfig(Section, frozen=True, kw_only=True):
    """A file of the rig."""

    mqtt: MqttSection
    plugs: Annotated[list[PlugSection], msgspec.Meta(min_length=1, max_length=PLUGS_MAX)]
    clock: ClockSection = ClockSection()
    until_s: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        names = [plug.name for plug in self.plugs]
        if len(set(names)) != len(names):
            raise FieldProblem("plugs", "two plugs have the same name")


class Bench:
    """Everything of one configuration file."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, log: Log) -> None:
        self._config = load(path, RigConfig)
        self._selector = selector
        self._log = log
        self._status_path = path.with_suffix(".status.json")
        self._status_ms = 0
        clock = self._config.clock
        self.clock = ProtocolClock(clock.machine_start_ms, clock.protocol_start_s, clock.speed)
        mqtt = self._config.mqtt
        try:
            self._context = tls_context(mqtt.ca, mqtt.cert, mqtt.key)
        except OSError as error:
            raise ConfigError(f"{path}: cannot use the certificates of [mqtt]: {error}") from None
        self.hosts = [self._host(plug) for plug in self._config.plugs]
        self._residents: list[tuple[Resident, Link]] = []
        self._links: list[Link] = []
        self._meters: list[FakeModbusMeter] = []

    def start(self) -> None:
        """Start interpreters, connections and meters."""
        for host in self.hosts:
            host.link = self._link(host)
            host.start()
        self._start_residents()
        for plug in self._config.plugs:
            if plug.sdm120_port is not None:
                meter = FakeModbusMeter("sdm120", self._meter_reading(plug.gateway), plug.sdm120_port)
                meter.start()
                self._meters.append(meter)

    def stop(self) -> None:
        """Stop everything that `start` started."""
        for link in self._links:
            link.stop()
        for host in self.hosts:
            host.stop()
        for meter in self._meters:
            meter.stop()
        self._write_status(machine_ms())

    def now_s(self, now_ms: int) -> int:
        """Protocol time that the plugs may reach."""
        now_s = self.clock.at(now_ms)
        return now_s if self._config.until_s is None else min(now_s, self._config.until_s)

    def step(self, now_ms: int) -> int:
        """Do what is due; return after how many milliseconds there is more to do."""
        now_s = self.now_s(now_ms)
        for link in self._links:
            link.poll(now_ms)
        for host in self.hosts:
            host.advance(now_s, now_ms)
        for resident, link in self._residents:
            if not resident.tick(now_ms // 1000):
                link.close(now_ms, "resident gave up")
            link.flush(now_ms)
        if now_ms - self._status_ms >= STATUS_MS:
            self._status_ms = now_ms
            self._write_status(now_ms)
        if any(host.has_backlog(now_s) for host in self.hosts):
            return 0
        due_ms = min(self.clock.delay_ms(host.next_s()) for host in self.hosts)
        return max(SLEEP_MIN_MS, min(due_ms, SLEEP_MAX_MS))

    def _host(self, plug: PlugSection) -> PlugHost:
        plug.state_dir.mkdir(parents=True, exist_ok=True)
        profile = read_profile(plug.load)
        settings: dict[str, object] = {
            "key": read_secret(plug.key).hex(),
            "gateway": plug.gateway,
            "rated_w": plug.rated_w,
            "sample_s": TICK_S,
            "save_records": RECORDS_PER_SAVE,
            "keep_alive_s": KEEP_ALIVE_S,
            "flash": str(plug.state_dir / "flash"),
        }
        first_s = max(profile.start_s, self._config.clock.protocol_start_s)
        rated_load = Load(profile, plug.rated_w)
        return PlugHost(plug.name, settings, rated_load, plug.state_dir, first_s, self._engine(plug), self._say)

    def _engine(self, plug: PlugSection) -> Callable[[Callable[[str], None]], engines.Engine]:
        if plug.interpreter == "cpython":
            return engines.LocalEngine
        if plug.interpreter == "micropython":
            command = engines.micropython_command(plug.interpreter_path or engines.default_micropython())
        else:
            flash = plug.state_dir / "flash"
            command = engines.wasm_command(plug.interpreter_path or "node", plug.wasm_module, flash)
        log = plug.state_dir / "interpreter.log"
        return lambda answer: engines.ChildEngine(self._selector, command, log, answer)

    def _link(self, peer: PlugHost | Resident) -> Link:
        mqtt = self._config.mqtt
        link = Link(self._selector, mqtt.host, mqtt.port, self._context, peer)
        self._links.append(link)
        return link

    def _start_residents(self) -> None:
        """One resident per household that keeps to its plan; a plan saved before is taken up by it as well."""
        homes: dict[str, list[Home]] = {}
        for plug, host in zip(self._config.plugs, self.hosts, strict=True):
            if plug.resident == "cooperative":
                homes.setdefault(plug.gateway, []).append(host)
        for gateway, members in homes.items():
            resident = Resident(gateway, members, machine_ms() // 1000)
            link = self._link(resident)
            resident.link = link
            self._residents.append((resident, link))

    def _meter_reading(self, gateway: str) -> Callable[[], tuple[int, int]]:
        members = [host for plug, host in zip(self._config.plugs, self.hosts, strict=True) if plug.gateway == gateway]

        def reading() -> tuple[int, int]:
            values = [host.reading() for host in members]
            return sum(value[0] for value in values), sum(value[1] for value in values)

        return reading

    def _say(self, name: str, line: str) -> None:
        self._log.warning("plug", name=name, said=line)

    def _write_status(self, now_ms: int) -> None:
        now_s = self.now_s(now_ms)
        status = {
            "pid": os.getpid(),
            "written_ms": now_ms,
            "protocol_s": now_s,
            "lag_s": max(max(0, now_s - host.virtual_s) for host in self.hosts),
            "signed": sum(host.counter for host in self.hosts),
            "unacknowledged": sum(host.unacknowledged for host in self.hosts),
            "plans": sum(resident.plans for resident, _ in self._residents),
            "plugs": {host.name: host.status(now_s) for host in self.hosts},
        }
        fresh = self._status_path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk is no reason to stop measuring
            fresh.write_text(json.dumps(status, indent=1))
            fresh.replace(self._status_path)


def run(config_paths: Iterable[Path | str]) -> int:
    """Run the plugs of the given files until SIGTERM or SIGINT; return the exit code."""
    selector = selectors.DefaultSelector()
    log = Log("rig")
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    benches: list[Bench] = []
    try:
        for path in config_paths:
            bench = Bench(Path(path), selector, log)
            benches.append(bench)
            bench.start()
        while not stopped:
            _turn(benches, selector)
    except (ConfigError, LoadError, HostError, engines.EngineError, MeterPortError, OSError) as error:
        print(f"wattpact rig: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        for bench in benches:
            bench.stop()
        selector.close()
    return 0


def _turn(benches: list[Bench], selector: selectors.BaseSelector) -> None:
    """One round: what is due, then what comes in until more is due."""
    now_ms = machine_ms()
    wait_ms = min(bench.step(now_ms) for bench in benches)
    for key, _ in selector.select(wait_ms / 1000):
        key.data(machine_ms())
