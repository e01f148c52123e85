"""A household as an installer and two offices meet it, by the command line: a plug on a real MicroPython, the real
gateway daemon, the deployed Mosquitto with mutual TLS. No stations: what is tested lies between plug and gateway.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_tools import need, need_dbus
from watt_chain import crypto
from watt_chain.genesis import AreaGenesis, Genesis, Validator, sign_genesis
from watt_gateway.plugs import collect
from watt_rig.benchfile import BenchFile, BlePart, BrokerPart, PlugPart
from watt_rig.mosquitto import Identity, Mosquitto
from watt_tools import plug_bundle, rig_line, rig_setup
from watt_tools.certificates import Authority, write_private
from watt_tools.plug_link import Cable
from watt_tools.plug_pair import fresh_secret

SPEED = 6
CUT_WRITES = 300
"Flash writes until the supply goes: an update of ninety kilobytes takes more than a thousand."
START_S = 1_772_442_000
"2 March 2026, 09:00 UTC: by day, for at night a plug obeys nobody."
ENVIRONMENT = {**os.environ, "WATTPACT_WIFI_PASSWORD": "secret", "PYTHONUNBUFFERED": "1"}
BENCH = f"""
speed = {SPEED}
timer_speed = {SPEED}
start_s = {START_S}
[broker]
kind = "none"
[ble]
enabled = true
[[plugs]]
name = "kettle"
load = "900"
key = "secure"
"""
GATEWAY = """
[household]
name = "home-1"
key = "{base}/home-1.key"
[area]
chain = 1
[network]
genesis = "{base}/genesis.bin"
regulator = "{regulator}"
[clock]
machine_start_ms = {now_ms}
protocol_start_s = {world_s}
speed = {speed}
[mqtt.home]
host = "127.0.0.1"
port = {port}
ca = "{base}/tls/ca.pem"
cert = "{base}/tls/home-1.pem"
key = "{base}/tls/home-1.key"
[mqtt.area]
host = "127.0.0.1"
port = {port}
ca = "{base}/tls/ca.pem"
cert = "{base}/tls/home-1.pem"
key = "{base}/tls/home-1.key"
[store]
path = "{base}/store"
"""


def wattpact(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> str:
    """Run the command; return what it printed."""
    command = [sys.executable, "-m", "watt_tools.cli", *(str(item) for item in arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env={**ENVIRONMENT, **(env or {})},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, (command[3:], done.stdout, done.stderr)
    return done.stdout + done.stderr


class Network:
    """Keys, genesis, certificates and broker of one household."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "tls", "test")
        for name in ("broker", "home-1", "office-grid"):
            self.authority.issue(name)
        self.keys = {}
        for name in ("regulator", "grid", "aggregator", "home-1"):
            key = crypto.PrivateKey(fresh_secret())
            write_private(folder / f"{name}.key", key.to_text().encode())
            self.keys[name] = key
        node = [Validator("n0", crypto.PrivateKey(fresh_secret()).public)]
        offices = [self.keys[name].public for name in ("regulator", "grid", "aggregator")]
        area = AreaGenesis(1, "area-1", [Validator("n1", crypto.PrivateKey(fresh_secret()).public)])
        genesis = Genesis("test", START_S, *offices, node, [area], [], 0, 0)
        (folder / "genesis.bin").write_bytes(sign_genesis(genesis, self.keys["regulator"]))
        tls = folder / "tls"
        self.broker = Mosquitto(folder / "broker", 0, Identity(tls / "ca.pem", tls / "broker.pem", tls / "broker.key"))

    def write_gateway(self, world_s: int) -> Path:
        path = self.folder / "gateway.toml"
        regulator = self.keys["regulator"].public.hex()
        now_ms = time.time_ns() // 10**6
        path.write_text(
            GATEWAY.format(
                base=self.folder,
                regulator=regulator,
                now_ms=now_ms,
                world_s=world_s,
                speed=SPEED,
                port=self.broker.port,
            )
        )
        return path


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    need("micropython")
    need_dbus()
    made = Network(tmp_path)
    made.broker.start()
    yield made
    made.broker.stop()


def plugs(config: Path) -> list[dict[str, Any]]:
    """What `wattpact gateway plugs` shows, without its start-up time."""
    return collect(config, 50)


def until_told(config: Path, timeout_s: float = 90, **wanted: object) -> dict[str, Any]:
    """The plug's last status, once it says what is wanted."""
    end = time.monotonic() + timeout_s
    while True:
        found = plugs(config)
        told = found[0]["told"] if found else {}
        if all(told.get(name) == value for name, value in wanted.items()):
            return dict(told)
        assert time.monotonic() < end, (wanted, told)
        time.sleep(0.5)


def order(network: Network, plug: str, at_s: int, *more: object) -> Path:
    """A command, signed by two offices on their own."""
    path = network.folder / "order.json"
    genesis = ("--genesis", network.folder / "genesis.bin")
    wattpact(
        "command", "draft", "--plug", plug, "--at", at_s, "--reference", "contract 7", "--out", path, *genesis, *more
    )
    assert "not signed yet by grid and aggregator" in wattpact("command", "show", path, *genesis, code=1).replace(
        "aggregator and grid", "grid and aggregator"
    )
    for office in ("grid", "aggregator"):
        wattpact("command", "sign", path, "--key", network.folder / f"{office}.key", "--yes", *genesis)
    assert "complete" in wattpact("command", "show", path, *genesis)
    return path


@pytest.mark.device
@pytest.mark.timeout(600)
@pytest.mark.row("C5", "C9", "C11")
def test_a_plug_is_taken_in_told_the_time_switched_by_two_offices_and_updated(network: Network, tmp_path: Path) -> None:
    rig = tmp_path / "rig"
    (tmp_path / "bench.toml").write_text(BENCH)
    wattpact("rig", "up", "--config", tmp_path / "bench.toml", "--dir", rig, "--detach")
    gateway: subprocess.Popen[bytes] | None = None
    try:
        file = BenchFile(
            plugs=[PlugPart(name="kettle", key="secure")], broker=BrokerPart(kind="none"), ble=BlePart(enabled=True)
        )
        trust = rig_setup.Trust(rig / "trust")
        board = tmp_path / "board"
        board.mkdir()
        for name, data in rig_setup.board_files(trust, file, "kettle").items():
            (board / name).write_bytes(data)
        wattpact("plug", "flash", "--port", rig / "kettle" / "tty", "--config", board)
        status = json.loads(wattpact("rig", "status", "--dir", rig, "--json"))
        config = network.write_gateway(status["world_s"])
        with (tmp_path / "gateway.log").open("wb") as log:
            command = [sys.executable, "-m", "watt_tools.cli", "gateway", "run", "--config", str(config)]
            gateway = subprocess.Popen(command, stderr=log, env=ENVIRONMENT)
        told = wattpact(
            "plug", "provision", "--gateway", config, "--authority", tmp_path / "tls", "--wifi", "home", "--code",
            trust.code("kettle"), "--broker", f"localhost:{network.broker.port}", "--name", "kettle", "--json",
            env={"DBUS_SYSTEM_BUS_ADDRESS": status["bluetooth"]["bus"]},
        )  # fmt: skip
        plug = json.loads(told)["plug"]
        # The key is in the secure element, and the enrolment that it signed says so.
        assert json.loads(told)["key_class"] == "secure"
        # The running gateway takes the new plug by itself, and the plug asks it for the time.
        until_told(config, quality="S", relay=True, release=0)
        now_s = json.loads(wattpact("rig", "status", "--dir", rig, "--json"))["world_s"]
        _switched_by_two_offices(network, config, plug, now_s)
        _updated(config, trust, tmp_path)
        _updated_by_cable(config, trust, tmp_path, rig / "kettle" / "tty")
        events = [event["what"] for event in plugs(config)[0]["events"]]
        assert events[0].startswith("reset: ") and "command accepted: 1 off" in events
        assert any(event.startswith("command refused: 2") for event in events), events
    finally:
        if gateway is not None:
            gateway.terminate()
            gateway.wait(20)
        wattpact("rig", "down", "--dir", rig)


def _switched_by_two_offices(network: Network, config: Path, plug: str, now_s: int) -> None:
    tls = network.folder / "tls"
    broker = f"localhost:{network.broker.port}"
    office = ("--ca", tls / "ca.pem", "--cert", tls / "office-grid.pem", "--tls-key", tls / "office-grid.key")
    genesis = ("--genesis", network.folder / "genesis.bin")
    by_broker = (*genesis, "--broker", broker, "--gateway", "home-1", *office, "--wait", 40)
    good = order(network, plug, now_s - 60, "--action", "off", "--hold", 900, "--counter", 1)
    assert "accepted" in wattpact("command", "send", good, *by_broker)
    assert until_told(config, command=1)["state"] in ("waiting-off", "held-off")
    # The plug itself refuses: no hold that lasts into the night.
    late = order(network, plug, now_s - 60, "--action", "off", "--hold", 14_400, "--spread", 3600, "--counter", 2)
    assert "refused refused-" in wattpact("command", "send", late, *by_broker, code=1)
    stranger = order(network, "00" * 8, now_s - 60, "--action", "release", "--counter", 3)
    assert "not-carried command-plug" in wattpact("command", "send", stranger, *by_broker, code=1)
    back = order(network, plug, now_s - 60, "--action", "release", "--counter", 4)
    wattpact(
        "command", "send", back, "--genesis", network.folder / "genesis.bin", "--tray", network.folder / "store/tray"
    )
    until_told(config, command=4)


def _updated(config: Path, trust: rig_setup.Trust, folder: Path) -> None:
    keys = [item for number in (1, 3) for item in ("--key", trust.folder / f"release-{number}.key")]
    made = folder / "two.bundle"
    wattpact("plug", "bundle", "--out", made, "--release", 2, "--march", "x64", *keys)
    assert "runs release 2 and has confirmed it" in _cut_on_the_way(config, made, folder / "rig")
    assert until_told(config, trial=False)["release"] == 2
    assert "release 2" in wattpact("gateway", "plugs", "--config", config)
    older = ("--bundle", _older(made, folder, trust), "--wait", 60)
    assert "refused update-old" in wattpact("plug", "update", "--gateway", config, "--plug", "kettle", *older, code=1)


def _cut_on_the_way(config: Path, made: Path, rig: Path) -> str:
    """Update over the gateway, the power going once in the middle of a write of it; what the command said."""
    before = _life(rig)
    rig_line.ask(rig, {"do": "fault", "name": "cut-in-write", "plug": "kettle", "value": CUT_WRITES})
    command = [sys.executable, "-m", "watt_tools.cli", "plug", "update", "--gateway", config, "--plug", "kettle"]
    update = subprocess.Popen(
        [str(item) for item in (*command, "--bundle", made, "--wait", 300)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    status = config.parent / "store" / "status.json"
    seen = [0]
    at_cut = -1
    try:
        while update.poll() is None:
            seen += [int(told["bytes"]) for told in json.loads(status.read_text())["updates"].values()]
            if at_cut < 0 and _life(rig)["torn_writes"] > before["torn_writes"]:
                at_cut = seen[-1]
            time.sleep(0.2)
        said, _ = update.communicate()
    finally:
        update.kill()
    assert at_cut >= 0, "the supply went in a flash write"
    assert seen == sorted(seen), "it goes on where the files on the plug end"
    assert 0 < at_cut < seen[-1], (at_cut, seen[-1])
    return said


def _life(rig: Path) -> dict[str, int]:
    return dict(rig_line.ask(rig, {"do": "status"})["plugs"]["kettle"]["life"])


def _updated_by_cable(config: Path, trust: rig_setup.Trust, folder: Path, port: Path) -> None:
    three, strange = folder / "three.bundle", folder / "strange.bundle"
    contents = list(plug_bundle.read(folder / "two.bundle").files())
    three.write_bytes(plug_bundle.seal(3, contents, trust.release_keys[1:]).frame)
    strange.write_bytes(plug_bundle.seal(4, contents, [trust.release_keys[0], trust.gateway_key]).frame)
    assert "update-signature" in wattpact("plug", "update", "--port", port, "--bundle", strange, code=1)
    said = wattpact("plug", "update", "--port", port, "--bundle", three)
    assert "release 3 is staged and starts on trial" in said
    assert until_told(config, release=3, trial=False, quality="S")["roll_backs"] == 0
    status = json.loads(wattpact("plug", "status", "--port", port, "--json"))
    assert (status["slots"]["release"], status["slots"]["other"], status["slots"]["trial"]) == (3, 2, False)
    held = Cable(str(port)).facts().files
    assert "tls.bin" in held and "key.bin" not in held, "the signing key is in the element alone"


def _older(made: Path, folder: Path, trust: rig_setup.Trust) -> Path:
    """The same files as release 1."""
    path = folder / "one.bundle"
    path.write_bytes(plug_bundle.seal(1, list(plug_bundle.read(made).files()), trust.release_keys[:2]).frame)
    return path
