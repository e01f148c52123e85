"""A small network of real processes to ill-treat: one area of four stations, a broker, the gateway of one household.

The daemons are started as `wattpact ... --config FILE`, with the files a deployment has. Three households are enrolled:
"ann" has the gateway process and a plug; "bob" is honest and transacts by hand; "mallory" is a member of the area and
means no good. Everything waits for a state that can be seen from outside: status.json, log lines, answers by MQTT.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
from node_bench import Network, key
from paho.mqtt.enums import CallbackAPIVersion
from watt_chain import codec, crypto
from watt_chain.contract.kinds import Deposit, Enrol, EnrolPlug, Withdraw
from watt_chain.light import LightClient, ReceiptProof
from watt_chain.transaction import make_transaction, txid
from watt_gateway import config as gateway
from watt_master.config import MasterConfig
from watt_node.config import ClockSection, LogSection, MqttSection
from watt_rig.mosquitto import executable
from watt_station.service import StationConfig
from watt_tools.certificates import Authority
from watt_tools.network import free_ports

AREA = 1
STATIONS = tuple(f"area1-node{index}" for index in range(4))
HOUSEHOLDS = ("ann", "bob", "mallory")
DEPOSIT_U = 1_000_000
REPEAT_S = 1.0
PATIENCE_S = 30.0
"The deadline only ends a hopeless test."


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """The first value of `condition` that counts as true."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"still waiting after {seconds} s: {what}")


def toml(value: Any) -> str:
    """A configuration Struct as the TOML a person would write."""
    lines: list[str] = []

    def table(name: str, values: dict[str, Any], mark: str) -> None:
        if name:
            lines.append(mark % name)
        inner = {k: v for k, v in values.items() if isinstance(v, dict) or (isinstance(v, list) and v and _tables(v))}
        lines.extend(f"{k} = {json.dumps(v)}" for k, v in values.items() if k not in inner and v is not None)
        for k, v in inner.items():
            for one in v if isinstance(v, list) else [v]:
                table(f"{name}.{k}" if name else k, one, "[[%s]]" if isinstance(v, list) else "[%s]")

    table("", msgspec.to_builtins(value, enc_hook=str), "")
    return "\n".join(lines) + "\n"


def _tables(values: list[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


class Voice:
    """An MQTT client that says anything to anybody and hears what is answered to the household `name`."""

    def __init__(self, net: Net, name: str, heard: str) -> None:
        self.replies: list[list[Any]] = []
        self.acks: list[bytes] = []
        self._lock = threading.Lock()
        tls = net.network.tls(name)
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.cert, tls.key)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"voice-{name}")
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_connect = self._connected
        self._client.on_message = self._message
        self._topics = [f"wp/1/area/area1/reply/{heard}", "wp/1/home/ann/plug/+/ack"]
        self._client.on_subscribe = lambda *_: self.up.set()
        self._client.on_disconnect = lambda *_: self.up.clear()
        self.up = threading.Event()
        self._client.connect_async("127.0.0.1", net.broker_port, 30)
        self._client.loop_start()

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([(topic, 1) for topic in self._topics])

    def _message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/ack"):
            self.acks.append(bytes(message.payload))
            return
        with self._lock:
            self.replies.append(msgspec.msgpack.decode(message.payload))

    def say(self, topic: str, payload: bytes) -> None:
        assert self.up.wait(PATIENCE_S), "the broker does not answer"
        self._client.publish(topic, payload, qos=1)

    def answers(self, id_: bytes, kind: str) -> list[Any]:
        """What was said about a transaction: reasons of "refused", proofs of "receipt"."""
        with self._lock:
            return [reply[2] for reply in self.replies if reply[0] == kind and reply[1] == id_]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@dataclass
class Daemon:
    """One child process; what it says goes to `log`."""

    name: str
    words: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.alive:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def said(self, text: str, start: int = 0) -> list[str]:
        """Lines with `text`, from the byte `start` of the log on."""
        if not self.log.exists():
            return []
        return [line for line in self.log.read_bytes()[start:].decode(errors="replace").splitlines() if text in line]


@dataclass
class Net:
    """The network. `make` writes everything, `start` starts daemons by name."""

    folder: Path
    daemons: dict[str, Daemon] = field(default_factory=dict)
    voices: list[Voice] = field(default_factory=list)
    nonces: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = Network(self.folder)
        ports = free_ports(6)  # below the range of outgoing connections: a client must not meet itself
        self.network.ports = {(AREA, index): ports[index] for index in range(4)}
        self.network.ports[0, 0] = ports[4]
        self.broker_port = ports[5]
        self.light = LightClient(self.network.genesis, self.network.network)
        for index in range(4):
            self._add(f"area1-node{index}", "station", toml(self.station(index)))
        self._add("main-node0", "master", toml(self.master()))
        for name in HOUSEHOLDS:
            self.secret(name)
        self.plug_public = b""

    # ---- configurations

    def secret(self, name: str) -> Path:
        path = self.folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_text(key(name).to_text())
        return path

    def clock(self) -> ClockSection:
        clock = self.network.clock
        return ClockSection(
            machine_start_ms=clock.machine_start_ms, protocol_start_s=clock.protocol_start_s, speed=clock.speed
        )

    def mqtt(self, name: str) -> MqttSection:
        tls = self.network.tls(name)
        return MqttSection(host="127.0.0.1", port=self.broker_port, ca=tls.ca, cert=tls.cert, key=tls.key)

    def station(self, index: int) -> StationConfig:
        own = self.network.settings(AREA, index)
        return StationConfig(
            network=own.network, node=own.node, tls=own.tls, listen=own.listen, peers=list(own.peers),
            mqtt=self.mqtt(f"area1-node{index}"), clock=self.clock(), log=LogSection(level="info"),
        )  # fmt: skip

    def master(self) -> MasterConfig:
        own = self.network.settings(0, 0)
        return MasterConfig(network=own.network, node=own.node, tls=own.tls, listen=own.listen, clock=self.clock())

    def add_gateway(self, plug_public: bytes) -> None:
        """The gateway of ann, who owns one plug."""
        mqtt = self.mqtt("ann")
        config = gateway.GatewayConfig(
            household=gateway.HouseholdSection(name="ann", key=self.folder / "ann.key"),
            area=gateway.AreaSection(chain=AREA, nodes=4, serving=1),
            network=self.network.settings(AREA, 0).network,
            mqtt=gateway.BrokersSection(home=mqtt, area=mqtt),
            store=gateway.StoreSection(path=self.folder / "ann"),
            clock=self.clock(),
            plugs=[gateway.PlugSection(public=plug_public.hex(), name="plug-1", rated_w=2300)],
        )
        self.plug_public = plug_public
        self._add("ann", "gateway", toml(config))

    def add_broker(self, kind: str = "embedded") -> None:
        tls = self.network.tls("broker")
        if kind == "embedded":
            words = [sys.executable, "-m", "watt_tools.cli", "rig", "broker", "--port", str(self.broker_port)]
            words += ["--ca", str(tls.ca), "--cert", str(tls.cert), "--key", str(tls.key)]
        else:
            path = self.folder / "mosquitto.conf"
            path.write_text(
                f"listener {self.broker_port} 127.0.0.1\ncafile {tls.ca}\ncertfile {tls.cert}\nkeyfile {tls.key}\n"
                "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n"
                f"tls_version tlsv1.3\npersistence false\nuser {pwd.getpwuid(os.getuid()).pw_name}\n"
            )
            words = [executable() or "mosquitto", "-c", str(path)]
        self.daemons["broker"] = Daemon("broker", words, self.folder / "broker.log")

    def _add(self, name: str, role: str, text: str) -> None:
        path = self.config(name)
        path.write_text(text)
        words = [sys.executable, "-m", "watt_tools.cli", role, "run", "--config", str(path)]
        self.daemons[name] = Daemon(name, words, self.folder / f"{name}.log")

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    # ---- life

    def start(self, *names: str) -> None:
        for name in names:
            self.daemons[name].start()

    def start_broker(self, kind: str = "embedded") -> None:
        self.add_broker(kind)
        self.start("broker")
        until(lambda: port_open(self.broker_port), f"the {kind} broker listens")

    def close(self) -> None:
        for voice in self.voices:
            voice.close()
        for daemon in self.daemons.values():
            if daemon.alive:
                daemon.end(signal.SIGKILL)

    def voice(self, name: str, heard: str = "") -> Voice:
        voice = Voice(self, name, heard or name)
        self.voices.append(voice)
        return voice

    # ---- what is shown

    def data(self, name: str) -> Path:
        return self.folder / (f"{name}.data" if "node" in name else name)

    def status(self, name: str) -> dict[str, Any]:
        path = self.data(name) / "status.json"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return dict(json.loads(path.read_text()))
        return {}

    def shown(self, name: str, *path: str) -> Any:
        """A value of status.json; 0 while it is not there."""
        value: Any = self.status(name)
        for part in path:
            value = value.get(part, {}) if isinstance(value, dict) else {}
        return value or 0

    def all_shown(self, *path: str) -> list[Any]:
        return [self.shown(name, *path) for name in STATIONS]

    def connected(self) -> bool:
        return all(self.all_shown("broker", "connected")) and self.shown("ann", "brokers", "area")

    # ---- transactions

    def tx(self, who: str, kind: str, fields: Any, nonce: int | None = None, chain: int = AREA) -> bytes:
        """Signed by `who`; without a nonce, the next one, which is then used up."""
        if nonce is None:
            nonce = self.nonces[who] = self.nonces.get(who, 0) + 1
        return make_transaction(key(who), self.network.network, kind, chain, nonce, fields)

    def send(self, voice: Voice, tx: bytes, name: str) -> None:
        voice.say(f"wp/1/area/area1/tx/{name}", tx)

    def outcome(self, voice: Voice, tx: bytes, name: str, seconds: float = PATIENCE_S) -> str:
        """Send a transaction until a proven receipt says what became of it, as a gateway does."""
        id_ = txid(tx)
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            self.send(voice, tx, name)
            with contextlib.suppress(AssertionError):
                proof = until(lambda: voice.answers(id_, "receipt"), "receipt", REPEAT_S)[0]
                return self.light.check_receipt(codec.decode(proof, ReceiptProof), tx)
        raise AssertionError(f"not final after {seconds} s; refused: {voice.answers(id_, 'refused')}")

    def enrol(self, voice: Voice) -> None:
        """The regulator enrols the households, the grid company takes their deposits."""
        sent = []
        for name in HOUSEHOLDS:
            public = self.plug_public if name == "ann" else key(f"plug of {name}").public
            enrol = Enrol(key(name).public, 1, [EnrolPlug(public, "plain", 2300)], False, 4000, "h25", False)
            sent.append(self.tx("regulator", "Enrol", enrol))
        for tx in sent:
            self.send(voice, tx, "bob")
        until(lambda: min(self.all_shown("height")) > 0, "the households are enrolled")
        deposits = [Deposit(crypto.id8(key(name).public), DEPOSIT_U) for name in HOUSEHOLDS]
        sent += [self.tx("grid", "Deposit", deposit) for deposit in deposits]
        # These two have no serving station: their receipts come to who asks again.
        assert [self.outcome(voice, tx, "bob") for tx in sent[len(HOUSEHOLDS) :]] == [""] * len(HOUSEHOLDS)
        assert [self.outcome(voice, tx, "bob") for tx in sent] == [""] * len(sent)

    def honest(self, bob: Voice) -> None:
        """An honest household's transaction becomes final; at the first attempt, as nothing may be in its way."""
        tx = self.tx("bob", "Withdraw", Withdraw(1))
        self.send(bob, tx, "bob")
        proof = until(lambda: bob.answers(txid(tx), "receipt"), "bob's transaction is final")[0]
        assert self.light.check_receipt(codec.decode(proof, ReceiptProof), tx) == ""
        assert not bob.answers(txid(tx), "refused")

    def all_alive(self) -> bool:
        return all(self.daemons[name].alive for name in (*STATIONS, "ann", "broker"))


def port_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stranger(folder: Path) -> Authority:
    """A certificate authority that is not the network's."""
    folder.mkdir(exist_ok=True)
    return Authority(folder, "somebody else")


@contextlib.contextmanager
def full_disk(daemon: Daemon, limit: int) -> Iterator[None]:
    """No file of a running daemon grows beyond `limit` bytes: what a full disk is to it, whoever runs the test."""
    assert daemon.process is not None
    before = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, before)


def run_once(words: list[str], seconds: float = 40) -> tuple[int, list[str]]:
    """A command that is expected to refuse: exit code and what it says."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    return done.returncode, done.stderr.splitlines()
