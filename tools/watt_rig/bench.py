"""A bench: everything that one TOML file describes, running on one asyncio loop, with a socket to steer it.

`wattpact rig up` runs it; `rig status`, `rig fault` and `rig down` speak to DIR/rig.sock: one line of JSON in, one out.

    {"do": "status"}                            everything, as the live view shows it
    {"do": "down"}
    {"do": "fault", "name": ..., "plug": ..., "value": ...}     FAULTS below
    {"do": "enrol", "public": hex, "name": ..., "rated_w": n}   into the collector's registry
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from watt_chain import crypto
from watt_gateway.commands import Offices
from watt_node.config import MqttSection
from watt_node.log import Log

from watt_rig.airline import AirLine
from watt_rig.benchfile import BenchFile, MeterPart, PlugPart
from watt_rig.blemeter import ble_meter
from watt_rig.bluez import FakeBlueZ, PrivateBus
from watt_rig.collector import Collector
from watt_rig.element import Element
from watt_rig.engine import default_micropython
from watt_rig.load import Load
from watt_rig.loads import START_S, load_of
from watt_rig.meters import FakeModbusMeter
from watt_rig.mosquitto import Identity, Mosquitto, free_port
from watt_rig.plugchips import CHIPS, PlugChip
from watt_rig.plugradio import PlugRadios
from watt_rig.ptyline import PtyLine
from watt_rig.vplug import Clock, VirtualPlug

TICK_S = 0.25
"How often watchdogs and faults that end by themselves are looked at."
REQUEST_MAX = 65_536
HOME = "rig-home"
"Name of the bench's household in topics; it has one."
WH_UJ = 3_600_000_000


class BenchError(Exception):
    """The bench cannot do that; the text says why."""


class Identities:
    """Certificates of a bench: made by the caller (watt_tools), who owns the authority."""

    def __init__(self, ca: Path, broker: tuple[Path, Path], gateway: tuple[Path, Path]) -> None:
        self.ca = ca
        self.broker = broker
        self.gateway = gateway


class Household:
    """What the bench's gateway is: its key, the name of its network, who may sign commands in it."""

    def __init__(self, key: crypto.PrivateKey, network: bytes, parties: list[tuple[int, bytes]]) -> None:
        self.key = key
        self.network = network
        self.offices = Offices(parties)


class Bench:
    """Owns plugs, meters, broker and collector."""

    def __init__(self, file: BenchFile, folder: Path, base: Path, identities: Identities, household: Household) -> None:
        """`folder`: where everything is written; `base`: what paths in the file are relative to."""
        self.file = file
        self.folder = folder
        self.log = Log("rig")
        start_s = file.start_s if file.start_s is not None else int(time.time())
        self.clock = Clock(time.time_ns() // 1_000_000, start_s, file.speed, file.timer_speed)
        self.started_s = start_s
        self.stop_wanted = asyncio.Event()
        self.collector: Collector | None = None
        self.broker: Mosquitto | None = None
        self.plugs: dict[str, VirtualPlug] = {}
        self.chips: dict[str, PlugChip] = {}
        self.airs: dict[str, AirLine] = {}
        self.meters: dict[str, FakeModbusMeter] = {}
        self.bus: PrivateBus | None = None
        self.bluez: FakeBlueZ | None = None
        self.radios: PlugRadios | None = None
        self.faults: dict[str, int] = {}
        self._lines: list[PtyLine] = []
        self._identities = identities
        self._household = household
        self._base = base
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Start everything; errors of its parts come out as they are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.file.broker.kind == "mosquitto":
            self._start_broker()
        if self.file.ble.enabled:
            await self._start_bluetooth()
        for part in self.file.plugs:
            await self._start_plug(part)
        for meter in self.file.meters:
            self._start_meter(meter)
        await self._start_socket()

    async def stop(self) -> None:
        """Stop everything that was started."""
        if self._server is not None:
            self._server.close()
        (self.folder / "rig.sock").unlink(missing_ok=True)
        for plug in self.plugs.values():
            plug.stop()
        for meter in self.meters.values():
            meter.stop()
        for line in self._lines:
            line.stop()
        for air in self.airs.values():
            await air.stop()
        if self.bluez is not None:
            self.bluez.stop()
        if self.bus is not None:
            self.bus.stop()
        if self.collector is not None:
            await self.collector.stop()
        if self.broker is not None:
            self.broker.stop()

    async def run(self) -> None:
        """Watch over it until `stop_wanted`."""
        while not self.stop_wanted.is_set():
            self.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop_wanted.wait(), TICK_S)

    def tick(self) -> None:
        """Feed the watchdogs' dog, end what ends by itself."""
        for plug in self.plugs.values():
            plug.watch()
        now_s = time.monotonic()
        due = [entry for entry in self._later if entry[0] <= now_s]
        self._later = [entry for entry in self._later if entry[0] > now_s]
        for _, call in due:
            call()

    # Parts.

    def _start_broker(self) -> None:
        identity = Identity(self._identities.ca, *self._identities.broker)
        self.broker = Mosquitto(self.folder / "broker", self.file.broker.port, identity)
        self.broker.start()
        certificate, key = self._identities.gateway
        section = MqttSection(
            host="127.0.0.1", port=self.broker.port, ca=self._identities.ca, cert=certificate, key=key
        )
        us = self._household
        gateway = self.folder / "gateway"
        self.collector = Collector(HOME, gateway, section, us.key, us.network, us.offices, self.time_of, self.log)
        self.collector.start()

    async def _start_bluetooth(self) -> None:
        """A private bus; bleak in this process and in whoever is given its address uses it."""
        self.bus = PrivateBus(self.folder / "bluetooth")
        await self.bus.start()
        self.bluez = FakeBlueZ(self.bus.address)
        await self.bluez.start()
        self.radios = PlugRadios(self.bluez)
        if self.file.ble.meter:
            self.bluez.advertise(ble_meter(self._reading(self.file.ble.meter)))

    async def _start_plug(self, part: PlugPart) -> None:
        load = load_of(part.load, part.rated_w, self._base)
        chip = CHIPS[part.chip](load, self.file.seed + len(self.plugs))
        if self.broker is not None:
            air = AirLine(self.broker.port)
            await air.start()
            self.airs[part.name] = air
        plug = VirtualPlug(
            part.name,
            self.folder / part.name,
            self.clock,
            chip,
            default_micropython(),
            part.heap_kib,
            part.flash_kib,
            self.radios,
            self._element(part),
        )
        self.chips[part.name] = chip
        self.plugs[part.name] = plug
        plug.start()

    def _element(self, part: PlugPart) -> Element | None:
        if part.key != "secure":
            return None
        (self.folder / part.name).mkdir(parents=True, exist_ok=True)
        return Element(self.folder / part.name)

    def _start_meter(self, part: MeterPart) -> None:
        reading = self._reading(part.load)
        line: Path | None = None
        if part.line == "pty":
            both = PtyLine(self.folder / f"{part.name}.tty", self.folder / f"{part.name}.meter")
            both.start()
            self._lines.append(both)
            line = both.far
        meter = FakeModbusMeter(part.kind, reading, part.port or free_port(), line)
        meter.start()
        self.meters[part.name] = meter

    def _reading(self, name: str) -> Callable[[], tuple[int, int]]:
        if name == "plugs":
            return self._sum_of_plugs
        load = load_of(name, 30_000, self._base)

        def reading() -> tuple[int, int]:
            now_s = self.clock.now_s()
            return load.energy_uj(now_s) - load.energy_uj(self.started_s), _power_mw(load, now_s)

        return reading

    def _sum_of_plugs(self) -> tuple[int, int]:
        energy_uj = power_mw = 0
        for name, plug in self.plugs.items():
            load = self.chips[name].load
            energy_uj += load.energy_uj(plug.world_s) - load.energy_uj(self.started_s)
            power_mw += self.chips[name].power_mw(plug.world_s)
        return energy_uj, power_mw

    def time_of(self, plug_id: bytes) -> int:
        """The time that a plug is told: its own world's, which lags behind the bench's when the plug does."""
        if self.collector is not None:
            entry = self.collector.registry.plugs().get(plug_id)
            if entry is not None and entry.name in self.plugs:
                plug = self.plugs[entry.name]
                return plug.world_s + plug.jump_s
        return self.clock.now_s()

    # Faults.

    def fault(self, name: str, plug_name: str = "", value: int = 0) -> str:
        """Do one thing to the bench; return what was done. BenchError for an unknown one."""
        if name == "broker-death":
            return self._broker_death(value or 3)
        if plug_name not in self.plugs:
            raise BenchError(f"plug {plug_name!r}: the bench has {', '.join(self.plugs) or 'none'}")
        action = {
            "power-cut": self._power_cut,
            "brown-out": self._brown_out,
            "cut-in-write": self._cut_in_write,
            "uart-noise": self._noise,
            "clock-jump": self._clock_jump,
            "wifi-loss": self._wifi_loss,
            "button": self._button,
        }.get(name)
        if action is None:
            raise BenchError(f"fault {name!r}: allowed are {', '.join(FAULTS)}")
        self.faults[name] = self.faults.get(name, 0) + 1
        return f"{plug_name}: {action(plug_name, value)}"

    def _broker_death(self, seconds: int) -> str:
        if self.broker is None:
            raise BenchError("the bench has no broker")
        if self.broker.running:
            self.faults["broker-death"] = self.faults.get("broker-death", 0) + 1
            self.broker.kill()
            self.after(seconds, self.broker.start)
        return f"broker killed, back in {seconds} s"

    def _power_cut(self, name: str, seconds: int) -> str:
        plug = self.plugs[name]
        if not seconds:
            plug.cut()
            return "power cut, back at once"
        plug.life.cuts += 1
        plug.power_off()
        self.after(seconds, plug.power_on)
        return f"no power for {seconds} s"

    def _brown_out(self, name: str, _value: int) -> str:
        self.plugs[name].brown_out()
        return "processor reset, chip goes on"

    def _cut_in_write(self, name: str, writes: int) -> str:
        self.plugs[name].cut_in_write(writes or 1)
        return f"power goes in flash write {writes or 1} from now"

    def _noise(self, name: str, ppm: int) -> str:
        self.chips[name].noise_ppm = ppm
        return f"{ppm} of a million bytes on the UART are hit"

    def _clock_jump(self, name: str, error_s: int) -> str:
        self.plugs[name].jump_clock(error_s)
        return f"clock and its source are off by {error_s} s"

    def _wifi_loss(self, name: str, seconds: int) -> str:
        self._set_air(name, False)
        self.after(seconds or 10, lambda: self._set_air(name, True))
        return f"no Wi-Fi for {seconds or 10} s"

    def _set_air(self, name: str, there: bool) -> None:
        self.plugs[name].set_wifi(there)
        if name in self.airs:
            self.airs[name].set_there(there)

    def _button(self, name: str, milliseconds: int) -> str:
        self.plugs[name].press(milliseconds or 200)
        return f"button held for {milliseconds or 200} ms"

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Do something later."""
        self._later.append((time.monotonic() + seconds, call))

    # What it shows.

    def status(self) -> dict[str, object]:
        """The whole bench as JSON."""
        now_s = self.clock.now_s()
        return {
            "pid": os.getpid(),
            "world_s": now_s,
            "hours": round((now_s - self.started_s) / 3600, 2),
            "speed": self.file.speed,
            "broker": None
            if self.broker is None
            else {"port": self.broker.port, "running": self.broker.running, "deaths": self.broker.deaths},
            "gateway": self._gateway_status(),
            "bluetooth": None if self.bus is None else {"bus": self.bus.address, "meter": self.file.ble.meter},
            "plugs": {name: self._plug_status(name) for name in self.plugs},
            "meters": {
                name: {"kind": meter.kind, "where": self._where(meter), "answers": meter.answers}
                for name, meter in self.meters.items()
            },
            "faults": dict(sorted(self.faults.items())),
        }

    def _where(self, meter: FakeModbusMeter) -> str:
        return meter.where.removesuffix(".meter") + (".tty" if meter.line is not None else "")

    def _gateway_status(self) -> dict[str, object] | None:
        if self.collector is None:
            return None
        counts = self.collector.store.counts()
        return {
            "name": self.collector.name,
            "connected": self.collector.connected,
            "readings": counts.readings,
            "batches": counts.batches,
            "gaps": counts.gaps,
            "refused": dict(sorted(self.collector.intake.refused.items())),
            "events": self.collector.desk.events,
            "times_told": self.collector.desk.times_told,
            "plugs": len(self.collector.registry.plugs()),
        }

    def _plug_status(self, name: str) -> dict[str, object]:
        plug, chip = self.plugs[name], self.chips[name]
        air = self.airs.get(name)
        return {
            "port": str(plug.port),
            "powered": plug.powered,
            "failed": plug.failed,
            "healthy": plug.life.healthy_now,
            "world_s": plug.world_s,
            "hours": round((plug.world_s - self.started_s) / 3600, 2),
            "lag_s": self.clock.now_s() - plug.world_s,
            "power_w": chip.power_mw(plug.world_s) // 1000,
            "energy_wh": (chip.load.energy_uj(plug.world_s) - chip.load.energy_uj(self.started_s)) // WH_UJ,
            "noise_ppm": chip.noise_ppm,
            "wifi": plug.wifi,
            "clock_error_s": plug.jump_s,
            "outputs": {str(pin): value for pin, value in sorted(plug.outputs.items())},
            "connections": 0 if air is None else air.connections,
            "airline_port": 0 if air is None else air.port,
            "life": asdict(plug.life),
            "told": self._told_by(name),
        }

    def _told_by(self, name: str) -> dict[str, object]:
        if self.collector is None:
            return {}
        for plug_id, entry in self.collector.registry.plugs().items():
            if entry.name == name:
                return self.collector.desk.status(plug_id)
        return {}

    # The socket.

    async def _start_socket(self) -> None:
        path = self.folder / "rig.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=REQUEST_MAX)
        path.chmod(0o600)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.LimitOverrunError, ValueError):
            line = await reader.readline()
            try:
                answer = self.handle(json.loads(line))
            except (BenchError, KeyError, TypeError, ValueError) as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

    def handle(self, request: dict[str, object]) -> dict[str, object]:
        """One request of the socket."""
        do = request.get("do")
        if do == "status":
            return self.status()
        if do == "down":
            self.stop_wanted.set()
            return {"done": "the bench stops"}
        if do == "fault":
            value = request.get("value", 0)
            if not isinstance(value, int):
                raise BenchError("value is an integer")
            return {"done": self.fault(str(request.get("name")), str(request.get("plug", "")), value)}
        if do == "enrol" and self.collector is not None:
            public = bytes.fromhex(str(request["public"]))
            rated_w = int(str(request["rated_w"]))
            plug = self.collector.enrol(public, str(request["name"]), rated_w, self.clock.now_s())
            return {"done": f"plug {plug.hex()} enrolled"}
        raise BenchError(f"request {do!r} is not known")


FAULTS = (
    "power-cut", "brown-out", "cut-in-write", "uart-noise", "clock-jump", "wifi-loss", "broker-death", "button",
)  # fmt: skip
"""power-cut [s off], brown-out, cut-in-write [nth write], uart-noise [ppm], clock-jump [s], wifi-loss [s],
broker-death [s], button [ms held]"""


def _power_mw(load: Load, time_s: int) -> int:
    before_s = max(START_S, time_s - 10)
    return (load.energy_uj(time_s) - load.energy_uj(before_s)) // (max(1, time_s - before_s) * 1000)
