"""Makes a complete local network in a directory: keys, certificates, signed genesis, enrolments, configurations.

The files are the ones a deployment uses; a demo differs from it only in that all of them lie on one machine and that
the protocol clock runs faster. Layout of DIR:

    network.json            what was made (ports, homes); rewritten never
    clock.json              the protocol clock's mapping; rewritten at every start
    trust/regulator.pub     what a verifier must know from elsewhere
    genesis.bin             signed by the regulator
    keys/ tls/              private; 0600
    area1/node0.toml ...    and area1/node0/ with its stores
    main/node0.toml ...     main/event.toml, main/registrar.bin
    audit.toml              an auditor for whoever wants to run one beside it
    homes/home-001.toml ... homes/home-001/plan.json, stores
    rig/plugs-*.toml        emulated meters and plugs; load profiles
    export/                 written after the run

Invariant: making a network twice in the same directory changes nothing but the clock.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.rules import RULES_1, RULES_2
from watt_chain.crypto import PrivateKey, id8, sha256
from watt_chain.genesis import AreaGenesis, Genesis, Validator, sign_genesis
from watt_chain.transaction import make_transaction

from watt_tools.certificates import Authority, write_private
from watt_tools.scenario import Home, Scenario

NODES_PER_AREA = 4
MASTERS = 4
HOST = "127.0.0.1"
OWN_PROCESS_GATEWAYS = 2
"Homes whose gateway is a process of its own; the others share host processes that run the same code."
GATEWAYS_PER_PROCESS = 16
PLUGS_PER_PROCESS = 40
POOL_POINTS = 1_000_000
"Points the grid's pool starts with: more than an event issues, so that no result depends on the number of blocks."
REPEATABLE = msgspec.structs.replace(RULES_1, version=3, crossings=8, improve_s=300)
"Rule set 1, with trades between the areas and a contest of matchings."
RULES = msgspec.structs.replace(REPEATABLE, rematch_s=1_200)
"... and with a second round for what is refused. Who confirms in time for it depends on how busy the machine is."
DEPOSIT_U = 50_000_000
"Each household's prepayment: above the largest bond and escrow of one evening."
PORT_FIRST, PORT_LAST = 20_000, 32_000


@dataclass(frozen=True)
class Process:
    """One daemon to start: its name, the words after `wattpact`, its log."""

    name: str
    words: tuple[str, ...]
    log: Path


class Network:
    """A made network: everything one needs to start it."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self.homes: list[dict[str, Any]] = description["homes"]
        self.areas: int = description["areas"]
        self.hamlet: int = description.get("hamlet", 0)
        "The small area that the demo halts; 0 = none."

    @property
    def trading_areas(self) -> list[int]:
        """All areas but the hamlet."""
        return [area for area in range(1, self.areas + 1) if area != self.hamlet]

    @property
    def regulator(self) -> bytes:
        return bytes.fromhex((self.folder / "trust/regulator.pub").read_text().strip())

    def processes(self) -> list[Process]:
        """Every daemon but the broker, in the order in which to start them."""
        made: list[Process] = []
        for index in range(MASTERS):
            made.append(self._process(f"main-node{index}", "master", f"main/node{index}.toml"))
        for area in range(1, self.areas + 1):
            for index in range(NODES_PER_AREA):
                made.append(self._process(f"area{area}-node{index}", "station", f"area{area}/node{index}.toml"))
        configs = [str(self.folder / "homes" / f"{home['name']}.toml") for home in self.homes]
        groups = [[config] for config in configs[:OWN_PROCESS_GATEWAYS]]
        rest = configs[OWN_PROCESS_GATEWAYS:]
        groups += [rest[at : at + GATEWAYS_PER_PROCESS] for at in range(0, len(rest), GATEWAYS_PER_PROCESS)]
        for number, group in enumerate(groups):
            words = ["gateway", "run"]
            for config in group:
                words += ["--config", config]
            name = f"gateway{number}"
            made.append(Process(name, tuple(words), self.folder / "logs" / f"{name}.log"))
        for path in sorted((self.folder / "rig").glob("plugs-*.toml")):
            name = f"rig-{path.stem}"
            words = ["rig", "plugs", "--config", str(path)]
            made.append(Process(name, tuple(words), self.folder / "logs" / f"{name}.log"))
        return made

    def _process(self, name: str, role: str, config: str) -> Process:
        words = (role, "run", "--config", str(self.folder / config))
        return Process(name, words, self.folder / "logs" / f"{name}.log")

    # -- clock -----------------------------------------------------------------------------------------------------

    def protocol_now_s(self) -> int:
        """Protocol time of this moment, by the clock the daemons were started with."""
        clock = self.clock
        elapsed_ms = int(time.time() * 1000) - int(clock["machine_start_ms"])
        return int(clock["protocol_start_s"]) + max(0, elapsed_ms) * int(clock["speed"]) // 1000

    @property
    def clock(self) -> dict[str, int]:
        clock: dict[str, int] = json.loads((self.folder / "clock.json").read_text())
        return clock

    def save_clock(self) -> None:
        """Remember where the protocol clock stands, for a later run to go on from."""
        clock = {**self.clock, "stopped_protocol_s": self.protocol_now_s()}
        _write_json(self.folder / "clock.json", clock)

    def start_clock(self, speed: int, lead_ms: int) -> None:
        """Set the mapping anew (protocol time goes on where it stopped) and write every configuration with it.

        lead_ms   the machine time that starting the daemons takes; the protocol clock stands still until then.
        """
        path = self.folder / "clock.json"
        start_s = int(self.description["protocol_start_s"])
        if path.exists():
            old = json.loads(path.read_text())
            start_s = int(old.get("stopped_protocol_s", start_s))
        clock = {"machine_start_ms": int(time.time() * 1000) + lead_ms, "protocol_start_s": start_s, "speed": speed}
        _write_json(path, clock)
        _Configurations(self, clock).write()


def make(folder: Path, scenario: Scenario, *, micropython: str, wasm_node: str, seed: int | None = None) -> Network:
    """Make the network of `scenario` in `folder`, or open the one that is there.

    micropython   path of the MicroPython unix port, "" when this machine has none (the WASM build stands in)
    wasm_node     path of the Node that runs the WASM build
    seed          derive every chain key from this number: benches and tests only, such keys protect nothing
    Raises FileExistsError when the folder holds something else.
    """
    description_path = folder / "network.json"
    if description_path.exists():
        return Network(folder, json.loads(description_path.read_text()))
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no network of ours; choose another --dir")
    (folder / "keys").mkdir(parents=True)
    (folder / "trust").mkdir()
    keys = _Keys(folder / "keys", seed)
    description = _describe(scenario, keys, micropython, wasm_node) | {"seeded": seed is not None}
    _write_genesis(folder, scenario, keys, description)
    _write_enrolments(folder, scenario, keys)
    _write_loads(folder, scenario)
    (folder / "main").mkdir(exist_ok=True)
    _write_event(folder / "main", scenario, measured=seed is None)
    authority = Authority(folder / "tls", "wattpact demo")
    keys["audit"]
    names = ["broker", "regulator", *(f"main-node{i}" for i in range(MASTERS))]
    names += [f"area{a}-node{i}" for a in range(1, scenario.areas + 1) for i in range(NODES_PER_AREA)]
    names += [home.name for home in scenario.homes] + [f"rig-{home.name}" for home in scenario.homes]
    for name in names:
        authority.issue(name)
    _write_json(description_path, description)  # last: a half-made network is not taken for one
    return Network(folder, description)


class _Keys:
    """Chain keys by name, made once, each in a file that only the owner reads."""

    def __init__(self, folder: Path, seed: int | None) -> None:
        self._folder = folder
        self._seed = seed

    def __getitem__(self, name: str) -> PrivateKey:
        path = self._folder / f"{name}.key"
        if not path.exists():
            secret = _fresh_secret() if self._seed is None else sha256(f"wattpact bench {self._seed} {name}".encode())
            write_private(path, secret.hex().encode() + b"\n")
        return PrivateKey.from_bytes(bytes.fromhex(path.read_text().strip()))


def _fresh_secret() -> bytes:
    """32 random bytes that are a P-256 private key (the chance of a miss is 2^-32; then draw again)."""
    while True:
        secret = os.urandom(32)
        try:
            PrivateKey.from_bytes(secret)
        except ValueError:
            continue
        return secret


def _describe(scenario: Scenario, keys: _Keys, micropython: str, wasm_node: str) -> dict[str, Any]:
    count = 1 + MASTERS + scenario.areas * NODES_PER_AREA + len(scenario.homes)
    ports = free_ports(count)
    return {
        "format": 1,
        "areas": scenario.areas,
        "hamlet": scenario.hamlet,
        "protocol_start_s": scenario.start_s,
        "micropython": micropython,
        "wasm_node": wasm_node,
        "broker_port": ports[0],
        "main_ports": ports[1 : 1 + MASTERS],
        "area_ports": {
            str(area): ports[1 + MASTERS + (area - 1) * NODES_PER_AREA :][:NODES_PER_AREA]
            for area in range(1, scenario.areas + 1)
        },
        "event": scenario.spec.event,
        "homes": [
            {
                "name": home.name,
                "area": home.area,
                "node": home.node,
                "user": id8(keys[home.name].public).hex(),
                "plug": id8(keys[f"plug-{home.name}"].public).hex(),
                "plug_public": keys[f"plug-{home.name}"].public.hex(),
                "side": home.side,
                "behaviour": home.behaviour,
                "interpreter": _interpreter(home, micropython),
                "rated_w": home.rated_w,
                "annual_kwh": home.annual_kwh,
                "meter_port": ports[count - len(scenario.homes) + number] if home.main_meter else 0,
            }
            for number, home in enumerate(scenario.homes)
        ],
    }


def _interpreter(home: Home, micropython: str) -> str:
    if home.interpreter == "micropython" and not micropython:
        return "wasm"
    return home.interpreter


def _write_genesis(folder: Path, scenario: Scenario, keys: _Keys, description: dict[str, Any]) -> None:
    def validators(prefix: str, count: int) -> list[Validator]:
        return [Validator(f"{prefix}-node{i}", keys[f"{prefix}-node{i}"].public) for i in range(count)]

    rules = REPEATABLE if description["seeded"] else RULES
    genesis = Genesis(
        name="wattpact-demo",
        protocol_start_s=description["protocol_start_s"],
        regulator=keys["regulator"].public,
        grid=keys["grid"].public,
        aggregator=keys["aggregator"].public,
        main=validators("main", MASTERS),
        areas=[
            AreaGenesis(area, f"area{area}", validators(f"area{area}", NODES_PER_AREA))
            for area in range(1, scenario.areas + 1)
        ],
        rules=[codec.encode(RULES_1), codec.encode(RULES_2), codec.encode(rules)],
        active_rules=rules.version,
        pool_points=POOL_POINTS,
    )
    (folder / "genesis.bin").write_bytes(sign_genesis(genesis, keys["regulator"]))
    (folder / "trust/regulator.pub").write_text(keys["regulator"].public.hex() + "\n")


def _write_enrolments(folder: Path, scenario: Scenario, keys: _Keys) -> None:
    """`main/registrar.bin`: what the regulator and the grid signed once, offline (u32 length, [chain, tx])."""
    from watt_chain.genesis import open_genesis

    _, network = open_genesis((folder / "genesis.bin").read_bytes(), keys["regulator"].public)
    nonces: dict[tuple[str, int], int] = {}
    parts: list[bytes] = []

    def add(signer: str, kind: str, chain: int, fields: object) -> None:
        nonce = nonces[(signer, chain)] = nonces.get((signer, chain), 0) + 1
        tx = make_transaction(keys[signer], network, kind, chain, nonce, fields)
        body = codec.encode([chain, tx])
        parts.append(struct.pack(">I", len(body)) + body)

    for home in scenario.homes:
        plug = kinds.EnrolPlug(keys[f"plug-{home.name}"].public, "plain", home.rated_w)
        enrolment = kinds.Enrol(
            keys[home.name].public, home.node, [plug], home.main_meter, home.annual_kwh, "h25", False
        )
        add("regulator", "Enrol", home.area, enrolment)
    for home in scenario.homes:
        add("grid", "Deposit", home.area, kinds.Deposit(id8(keys[home.name].public), DEPOSIT_U))
    (folder / "main").mkdir(exist_ok=True)
    (folder / "main/registrar.bin").write_bytes(b"".join(parts))


def _write_event(folder: Path, scenario: Scenario, *, measured: bool) -> None:
    """`main/event.toml` for the grid company's office, and the same as JSON for whoever watches.

    measured   leave X and Y of equation (3) to the running network; a seeded run takes the scenario's, to be repeatable
    """
    values: dict[str, Any] = {name: getattr(scenario.spec, name) for name in scenario.spec.__struct_fields__}
    if measured:
        del values["x_ms"], values["y_ms"]
    units = values.pop("units")
    _write_json(folder / "event.json", values)
    lines = [f"announce_s = {scenario.start_s}"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    text = "\n".join(lines) + "\n\n"
    for unit in units:
        about = {"cost_u_per_wh": unit.cost_u_per_wh, "capacity_wh": list(unit.capacity_wh)}
        text += _table("units", about, many=True)
    (folder / "event.toml").write_text(text)


def _write_loads(folder: Path, scenario: Scenario) -> None:
    for home in scenario.homes:
        path = folder / "rig/load" / f"{home.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"start_s": scenario.start_s, "step_s": scenario.step_s, "watts": home.watts}))
        if home.side in ("sell", "buy"):
            plan: dict[str, Any] = {"side": home.side, "price_u_per_wh": home.price_u_per_wh, "slot_wh": home.slot_wh}
            if home.least_wh:
                plan["least_wh"] = home.least_wh
            _write_json(folder / "homes" / home.name / "plan.json", plan)


class _Configurations:
    """Writes every TOML file of a network for one start."""

    def __init__(self, network: Network, clock: dict[str, int]) -> None:
        self._network = network
        self._folder = network.folder.absolute()
        self._about = network.description
        self._clock = clock
        self._regulator = network.regulator.hex()

    def write(self) -> None:
        for index in range(MASTERS):
            self._write(f"main/node{index}.toml", self._master(index))
        for area in range(1, self._network.areas + 1):
            for index in range(NODES_PER_AREA):
                self._write(f"area{area}/node{index}.toml", self._station(area, index))
        self._write("audit.toml", self._audit())
        for home in self._network.homes:
            self._write(f"homes/{home['name']}.toml", self._gateway(home))
        groups: dict[str, list[dict[str, Any]]] = {}
        for number, home in enumerate(self._network.homes):
            real = home["interpreter"] != "cpython"
            groups.setdefault("real" if real else f"host{number // PLUGS_PER_PROCESS}", []).append(home)
        for name, homes in groups.items():
            self._write(f"rig/plugs-{name}.toml", self._rig(homes))

    def _write(self, path: str, text: str) -> None:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def _path(self, path: str) -> str:
        return str(self._folder / path)

    def _common(self) -> str:
        return _table("clock", self._clock_values()) + _table(
            "network", {"genesis": self._path("genesis.bin"), "regulator": self._regulator}
        )

    def _clock_values(self) -> dict[str, Any]:
        return {key: self._clock[key] for key in ("machine_start_ms", "protocol_start_s", "speed")}

    def _node(self, prefix: str, chain: int, index: int, ports: list[int]) -> str:
        name = f"{prefix}-node{index}"
        folder = prefix
        text = self._common()
        text += _table(
            "node",
            {
                "chain": chain,
                "index": index,
                "key": self._path(f"keys/{name}.key"),
                "data": self._path(f"{folder}/node{index}"),
            },
        )
        text += _table("tls", self._tls(name))
        text += _table("listen", {"host": HOST, "port": ports[index]})
        for other, port in enumerate(ports):
            if other != index:
                text += _table("peers", {"index": other, "host": HOST, "port": port}, many=True)
        return text

    def _tls(self, name: str) -> dict[str, str]:
        return {
            "ca": self._path("tls/ca.pem"),
            "cert": self._path(f"tls/{name}.pem"),
            "key": self._path(f"tls/{name}.key"),
        }

    def _broker(self, name: str) -> dict[str, Any]:
        return {"host": HOST, "port": self._about["broker_port"], **self._tls(name)}

    def _station(self, area: int, index: int) -> str:
        text = self._node(f"area{area}", area, index, self._about["area_ports"][str(area)])
        text += _table("mqtt", self._broker(f"area{area}-node{index}"))
        for other, port in enumerate(self._about["main_ports"]):
            text += _table("main", {"chain": 0, "index": other, "host": HOST, "port": port}, many=True)
        for partner, ports in self._about["area_ports"].items():
            for other, port in enumerate(ports) if int(partner) != area else ():
                about = {"chain": int(partner), "index": other, "host": HOST, "port": port}
                text += _table("areas", about, many=True)
        return text

    def _master(self, index: int) -> str:
        text = self._node("main", 0, index, self._about["main_ports"])
        for area, ports in self._about["area_ports"].items():
            for other, port in enumerate(ports):
                text += _table("areas", {"chain": int(area), "index": other, "host": HOST, "port": port}, many=True)
        # The offices of the grid company, the aggregator and the registrar sit at different masters: none of the
        # three can act for another, and a master without an office is an ordinary full node.
        if index == 0:
            grid = {"key": self._path("keys/grid.key"), "event": self._path("main/event.toml")}
            text += _table("services.grid", grid)
        if index == 1:
            text += _table("services.aggregator", {"key": self._path("keys/aggregator.key")})
        if index == 2:
            text += _table("services.registrar", {"file": self._path("main/registrar.bin")})
        return text

    def _audit(self) -> str:
        about = {"key": self._path("keys/audit.key"), "name": "regulator", "data": self._path("audit")}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in about.items()) + "\n"
        text += _table("network", {"genesis": self._path("genesis.bin"), "regulator": self._regulator})
        text += _table("tls", self._tls("regulator"))
        chains = {"0": self._about["main_ports"], **self._about["area_ports"]}
        for chain, ports in chains.items():
            for index, port in enumerate(ports):
                place = {"chain": int(chain), "index": index, "host": HOST, "port": port}
                text += _table("areas" if int(chain) else "main", place, many=True)
        return text

    def _gateway(self, home: dict[str, Any]) -> str:
        name = home["name"]
        text = self._common()
        text += _table("household", {"name": name, "key": self._path(f"keys/{name}.key")})
        text += _table("area", {"chain": home["area"], "nodes": NODES_PER_AREA, "serving": home["node"]})
        text += _table("mqtt.home", self._broker(name)) + _table("mqtt.area", self._broker(name))
        text += _table("store", {"path": self._path(f"homes/{name}")})
        text += _table("plan", {"file": self._path(f"homes/{name}/plan.json")})
        if home["meter_port"]:
            text += _table("modbus", {"host": HOST, "port": home["meter_port"], "unit": 1, "map": "sdm120"})
        plug = {"public": home["plug_public"], "name": "plug-1", "rated_w": home["rated_w"]}
        return text + _table("plugs", plug, many=True)

    def _rig(self, homes: list[dict[str, Any]]) -> str:
        text = _table("clock", self._clock_values())
        text += _table(
            "mqtt", {"host": HOST, "port": self._about["broker_port"], **self._tls("rig-" + homes[0]["name"])}
        )
        for home in homes:
            name = home["name"]
            values: dict[str, Any] = {
                "name": name,
                "gateway": name,
                "key": self._path(f"keys/plug-{name}.key"),
                "interpreter": home["interpreter"],
                "load": self._path(f"rig/load/{name}.json"),
                "rated_w": home["rated_w"],
                "state_dir": self._path(f"rig/{name}"),
                "resident": home["behaviour"] if home["side"] in ("sell", "buy") else "none",
            }
            if home["interpreter"] == "micropython":
                values["interpreter_path"] = self._about["micropython"]
            if home["interpreter"] == "wasm":
                values["interpreter_path"] = self._about["wasm_node"]
            if home["meter_port"]:
                values["sdm120_port"] = home["meter_port"]
            text += _table("plugs", values, many=True)
        return text


def _table(name: str, values: dict[str, Any], *, many: bool = False) -> str:
    lines = [f"[[{name}]]" if many else f"[{name}]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines) + "\n\n"


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(value, indent=1))
    temporary.replace(path)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, below the range that the system hands to outgoing connections.

    They are written down; a later taker is reported by the daemon that finds its port in use.
    """
    found: list[int] = []
    for port in range(PORT_FIRST + os.getpid() % 500 * 20, PORT_LAST):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as handle:
            try:
                handle.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"fewer than {count} free ports between {PORT_FIRST} and {PORT_LAST} on {HOST}")
