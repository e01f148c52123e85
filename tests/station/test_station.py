"""A whole area: three stations in this process, one in its own, a real broker, a main chain that sends an event."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from msgspec import structs
from node_bench import PROTOCOL_START_S, Network, key, speaks, until
from paho.mqtt.enums import CallbackAPIVersion
from watt_chain import codec, crypto
from watt_chain.contract.event import EventSpec, State, Unit
from watt_chain.contract.kinds import Announced, Enrol, EnrolPlug, Withdraw
from watt_chain.contract.objects import Account, AreaEvent, account_key, event_key
from watt_chain.genesis import sign_genesis
from watt_chain.light import LightClient, ReceiptProof, StateProof
from watt_chain.question import make_question
from watt_chain.transaction import make_transaction, txid
from watt_node.config import EndpointSection, LogSection, MqttSection
from watt_node.disk import RealDisk
from watt_node.log import Log
from watt_node.store import BlockLog, read_blocks
from watt_station.service import Station, StationConfig

RUN = "import sys; from pathlib import Path; from watt_station.service import run; sys.exit(run(Path(sys.argv[1])))"
BROKER = (
    "import sys; from pathlib import Path; from watt_tools.broker import run;"
    "sys.exit(run('127.0.0.1', int(sys.argv[1]), *map(Path, sys.argv[2:5])))"
)
ANN = key("ann")


def spec() -> EventSpec:
    start = PROTOCOL_START_S + 10_000
    return EventSpec(
        event=1, kind="peak", slot_s=900, slots=2, required_ppm=100_000, open_s=start, commit_close_s=start + 600,
        reveal_close_s=start + 1200, match_by_s=start + 1800, confirm_close_s=start + 2400, window_start_s=start + 3600,
        meter_close_s=start + 7200, settle_by_s=start + 9000, alpha_u_per_wh=[20, 30], x_ms=100, y_ms=300,
        budget_u=10**7, units=[Unit(800, [9999, 9999])], normal_price_u_per_wh=550, compensation_price_u_per_wh=900,
        profile_wh_per_mwh=[60, 60],
    )  # fmt: skip


@dataclass
class Area:
    """Broker, master, stations; `replies` and `notices` are what a gateway called "home" hears."""

    network: Network
    broker_port: int
    stations: dict[int, Station] = field(default_factory=dict)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    replies: list[list[object]] = field(default_factory=list)
    notices: list[list[object]] = field(default_factory=list)
    gateway: paho.Client | None = None

    def mqtt(self, name: str) -> MqttSection:
        tls = self.network.tls(name)
        return MqttSection(host="127.0.0.1", port=self.broker_port, ca=tls.ca, cert=tls.cert, key=tls.key)

    def start_broker(self) -> None:
        tls = self.network.tls("broker")
        files = [str(tls.ca), str(tls.cert), str(tls.key)]
        self.children.append(subprocess.Popen([sys.executable, "-c", BROKER, str(self.broker_port), *files]))

    def config(self, index: int) -> StationConfig:
        settings = self.network.settings(1, index)
        main = EndpointSection(chain=0, index=0, host="127.0.0.1", port=self.network.port(0, 0))
        return StationConfig(
            network=settings.network, node=settings.node, tls=settings.tls, listen=settings.listen,
            mqtt=self.mqtt(f"area1-node{index}"), peers=list(settings.peers), main=[main],
            log=LogSection(level="debug"),
        )  # fmt: skip

    async def start_station(self, index: int) -> Station:
        station = Station(self.config(index), Log("bench", "debug", self.network.log))
        # All daemons of a network share the clock; the test's begins with it.
        station.node._time._clock = self.network.clock
        await station.start()
        self.stations[index] = station
        return station

    def write_config(self, index: int) -> Path:
        """The same configuration as a TOML file."""
        path = self.network.folder / f"node{index}.toml"
        clock = self.network.clock
        lines = [
            "[clock]", f"machine_start_ms = {clock.machine_start_ms}", f"protocol_start_s = {clock.protocol_start_s}",
            f"speed = {clock.speed}",
        ]  # fmt: skip
        for name, section in msgspec.to_builtins(self.config(index), enc_hook=str).items():
            if name == "clock":
                continue
            for table in section if isinstance(section, list) else [section]:
                lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
                lines += [f"{field} = {json.dumps(value)}" for field, value in table.items()]
        path.write_text("\n".join(lines) + "\n")
        return path

    def start_process(self, config: Path) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", RUN, str(config)], stderr=subprocess.PIPE)
        self.children.append(child)
        return child

    def connect_gateway(self) -> None:
        tls = self.network.tls("home")
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="home")
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.cert, tls.key)
        client.tls_set_context(context)
        client.on_connect = lambda c, *_: c.subscribe(
            [("wp/1/area/area1/reply/home", 1), ("wp/1/area/area1/notice", 1)]
        )
        client.on_message = lambda _, __, message: (
            self.notices if message.topic.endswith("notice") else self.replies
        ).append(msgspec.msgpack.decode(message.payload))
        client.connect("127.0.0.1", self.broker_port)
        client.loop_start()
        self.gateway = client

    def publish(self, topic: str, payload: bytes) -> None:
        assert self.gateway is not None
        self.gateway.publish("wp/1/area/area1/" + topic, payload, qos=1)

    async def close(self) -> None:
        if self.gateway is not None:
            self.gateway.disconnect()
            self.gateway.loop_stop()
        for station in self.stations.values():
            await station.stop()
        await self.network.close()
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
            if child.stderr is not None:
                child.stderr.close()


def port_open(port: int) -> Callable[[], bool]:
    import socket

    def check() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return check


def status(area: Area, index: int) -> dict[str, object]:
    path = area.network.folder / f"area1-node{index}.data" / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


@pytest.mark.row("B7", "B31")
async def test_given_an_area_when_a_household_transacts_then_proven_receipts_answers_and_notices_reach_it(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    area = Area(network, network.port(9, 0))
    stations = [await area.start_station(index) for index in range(4)]  # before there is a broker
    await until(lambda: all(speaks(station.node) for station in stations))
    await until(lambda: network.log.getvalue().count("broker-away") == 4)
    area.start_broker()
    await until(lambda: all(station.broker is not None and station.broker.connected for station in stations))
    assert network.log.getvalue().count("broker-away") == 4  # one line each, however often it was tried
    assert network.log.getvalue().count("broker-back") == 4
    area.connect_gateway()
    light = LightClient(network.genesis, network.network)

    regulator = key("regulator")
    enrol = Enrol(ANN.public, 2, [EnrolPlug(key("plug").public, "plain", 2300)], False, 4000, "h25", False)
    assert await stations[0].node.submit(make_transaction(regulator, network.network, "Enrol", 1, 1, enrol)) == ""
    await until(lambda: all(station.node.ledger.next_nonce(regulator.public) == 2 for station in stations))

    withdraw = make_transaction(ANN, network.network, "Withdraw", 1, 1, Withdraw(5))
    area.publish("tx/home", withdraw)
    await until(lambda: len(area.replies) == 1, what="receipt")
    name, id_, proof = area.replies.pop()
    assert (name, id_) == ("receipt", txid(withdraw))
    assert light.check_receipt(codec.decode(proof, ReceiptProof), withdraw) == "balance"  # type: ignore[arg-type]
    assert [station.replies.counters["receipts"] for station in stations] == [0, 0, 1, 0]  # by the serving node

    wanted = [account_key(crypto.id8(key.public)) for key in (ANN, regulator)]
    area.publish("node/1/query/home", make_question(ANN, network.network, 1, "home", b"77", wanted))
    await until(lambda: len(area.replies) == 1)
    name, nonce, proof = area.replies.pop()
    assert (name, nonce) == ("state", b"77")
    ((_, value),) = light.check_state(codec.decode(proof, StateProof), 1).items()  # type: ignore[arg-type]
    assert value is not None
    assert codec.decode(value, Account).nonce == 1

    area.publish("tx/home", withdraw)  # the gateway missed the receipt
    await until(lambda: len(area.replies) == 4)
    assert all(reply[:2] == ["receipt", txid(withdraw)] for reply in area.replies)
    area.replies.clear()

    stranger = make_transaction(key("stranger"), network.network, "Withdraw", 1, 1, Withdraw(5))
    area.publish("tx/home", stranger)
    await until(lambda: len(area.replies) == 4)
    assert all(reply == ["refused", txid(stranger), "signer-unknown"] for reply in area.replies)

    master = await network.start(0, 0)
    message = codec.encode(Announced(spec(), 1))
    assert await master.submit(network.transaction("grid", 1, 0, "tell", [1, "Initial", message])) == ""
    await until(lambda: all(station.node.ledger.state.get(event_key(1)) is not None for station in stations))
    await until(lambda: bool(area.notices))
    name, proof = area.notices[0]
    ((_, value),) = light.check_state(codec.decode(proof, StateProof), 1).items()  # type: ignore[arg-type]
    assert name == "event"
    assert value is not None
    assert codec.decode(value, AreaEvent).state == State.ANNOUNCED
    assert sum(station.relay.counters["submitted"] for station in stations if station.relay) <= 2
    await area.close()
    assert not network.failures


async def test_given_a_station_process_when_killed_and_restarted_then_it_catches_up_and_ends_cleanly(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    area = Area(network, network.port(9, 0))
    area.start_broker()
    config = area.write_config(3)
    child = area.start_process(config)
    for index in range(3):
        await area.start_station(index)
    node = area.stations[0].node
    regulator = key("regulator")

    async def commit(nonce: int) -> None:
        plug = EnrolPlug(key(f"plug{nonce}").public, "plain", 2300)
        enrol = Enrol(key(f"user{nonce}").public, 2, [plug], False, 4000, "h25", False)
        assert await node.submit(make_transaction(regulator, network.network, "Enrol", 1, nonce, enrol)) == ""
        await until(lambda: node.ledger.next_nonce(regulator.public) == nonce + 1)

    await until(lambda: status(area, 3).get("replica", {}).get("silent") == "", what="the process takes part")  # type: ignore[attr-defined]
    await commit(1)
    await until(lambda: reached(status(area, 3), node.height()), what="the process has the block")
    child.send_signal(signal.SIGKILL)
    child.wait()
    await commit(2)
    await commit(3)
    child = area.start_process(config)
    await until(lambda: reached(status(area, 3), node.height()), what="caught up")
    assert len(status(area, 3)["peers"]) == 3  # type: ignore[arg-type]
    child.send_signal(signal.SIGTERM)
    _, stderr = await asyncio.to_thread(child.communicate)
    assert child.returncode == 0, stderr
    stored = list(read_blocks(tmp_path / "area1-node3.data" / "blocks.log"))
    assert len(stored) >= node.height()
    await area.close()
    assert not network.failures


def reached(shown: dict[str, object], height: int) -> bool:
    found = shown.get("height", 0)
    assert isinstance(found, int)
    return found >= height


def run_once(config: Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", RUN, str(config)], capture_output=True, timeout=30, check=False)
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("wattpact ")]
    return done.returncode, lines


def test_given_a_bad_configuration_when_run_then_exit_1_with_one_line(tmp_path: Path) -> None:
    area = Area(Network(tmp_path), 1)
    config = area.write_config(0)
    good = config.read_text()
    for old, new, text in (
        ('level = "debug"', 'level = "loud"', "log.level = 'loud': allowed is one of debug, error, info, warning"),
        ("[listen]", "[listn]", "unknown key listn; did you mean 'listen'?"),
        ("chain = 1", "chain = 0", "chain 0 is the main chain"),
    ):
        config.write_text(good.replace(old, new, 1))
        code, lines = run_once(config)
        assert code == 1
        assert len(lines) == 1
        assert lines[0].startswith(f"wattpact station: {config}:")
        assert text in lines[0]


def test_given_a_genesis_with_rules_of_another_version_when_run_then_exit_1_with_one_line(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(1,))
    config = Area(network, 1).write_config(0)
    other = structs.replace(network.genesis, rules=[codec.encode([1, 2])])
    network.genesis_path.write_bytes(sign_genesis(other, key("regulator")))
    code, lines = run_once(config)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"wattpact station: {network.genesis_path}: this version cannot use it: ")


async def test_given_a_port_in_use_or_a_foreign_log_when_run_then_exit_1_with_one_line(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path, areas=(1,))
    area = Area(network, 1)
    config = area.write_config(0)
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", network.port(1, 0))
    code, lines = await asyncio.to_thread(run_once, config)
    assert (code, len(lines)) == (1, 1)
    assert "cannot listen on 127.0.0.1:" in lines[0]
    server.close()
    await server.wait_closed()
    data = tmp_path / "area1-node0.data"
    (data / "blocks.log").unlink()
    BlockLog(RealDisk(data), 1, bytes(32)).close()
    code, lines = await asyncio.to_thread(run_once, config)
    assert (code, len(lines)) == (1, 1)
    assert "blocks.log: belongs to another network or chain" in lines[0]
