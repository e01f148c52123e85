"""The connection to a broker: a real Mosquitto with the deployed configuration, and a broker that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from watt_gateway import mqtt
from watt_gateway.lines import QUIET_MS, Lines
from watt_gateway.mqtt import Link, LinkError, same_endpoint
from watt_node.config import MqttSection
from watt_node.log import Log
from watt_rig.mosquitto import executable
from watt_tools.certificates import Authority
from watt_wire import topics

DEPLOY = Path(__file__).parents[2] / "gateway" / "deploy"
MOSQUITTO = executable()
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None and os.environ.get("CI") != "true", reason="needs Mosquitto (apt-get install mosquitto)"
)
PLUG = bytes(range(8))


class KeptLines(Lines):
    """Keeps the events instead of writing them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        super().__init__(Log("test", "error"))

    def warn(self, event: str, **fields: object) -> bool:
        self.events.append(event)
        return True

    def clear(self, event: str, **fields: object) -> None:
        self.events.append(event + "-over")


@contextlib.contextmanager
def mosquitto(folder: Path, authority: Authority) -> Iterator[int]:
    """Mosquitto with our deployed configuration; only paths, port and user are those of the test."""
    assert MOSQUITTO is not None, "mosquitto is missing"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    certificate, key = authority.issue("broker")
    text = (DEPLOY / "mosquitto.conf").read_text()
    for old, new in (
        ("listener 8883", f"listener {port} 127.0.0.1"),
        ("/etc/wattpact/tls/ca.pem", str(authority.ca_path)),
        ("/etc/wattpact/tls/broker.pem", str(certificate)),
        ("/etc/wattpact/tls/broker.key", str(key)),
        ("/etc/mosquitto/wattpact.acl", str(DEPLOY / "wattpact.acl")),
    ):
        assert old in text
        text = text.replace(old, new)
    config = folder / "mosquitto.conf"
    config.write_text(text + f"\nuser {pwd.getpwuid(os.getuid()).pw_name}\n")
    child = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for _ in range(200):
            assert child.poll() is None, child.stdout.read().decode() if child.stdout else ""
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield port
    finally:
        child.terminate()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def section(authority: Authority, port: int, name: str) -> MqttSection:
    certificate, key = authority.issue(name)
    return MqttSection(host="127.0.0.1", port=port, ca=authority.ca_path, cert=certificate, key=key)


async def until(condition: Callable[[], bool], limit_s: float = 10) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


@needs_mosquitto
def test_through_the_deployed_broker_a_batch_comes_in_and_its_acknowledgement_goes_out(tmp_path: Path) -> None:
    async def scenario(port: int, authority: Authority) -> None:
        batch, ack = topics.plug_batch("home-17", PLUG), topics.plug_ack("home-17", PLUG)
        heard: list[tuple[str, bytes]] = []
        acks: list[tuple[str, bytes]] = []
        lines = KeptLines()
        gateway = Link(
            "home",
            "gw-home-17",
            section(authority, port, "home-17"),
            [topics.plug_batch_filter("home-17")],
            lambda topic, payload: heard.append((topic, payload)),
            lines,
        )
        plug = Link(
            "plug",
            "plug",
            section(authority, port, PLUG.hex()),
            [ack],
            lambda topic, payload: acks.append((topic, payload)),
            lines,
        )
        stranger = Link(
            "other",
            "gw-home-18",
            section(authority, port, "home-18"),
            [topics.plug_batch_filter("home-17")],
            lambda topic, payload: heard.append(("stranger", payload)),
            lines,
        )
        links = (gateway, plug, stranger)
        assert not gateway.publish(ack, b"x"), "nothing is promised without a connection"
        for link in links:
            link.start()
        await until(lambda: all(link.connected for link in links))
        await asyncio.sleep(0.1)  # subscriptions
        stranger.publish(ack, b"forged")
        stranger.publish(batch, b"forged")
        assert plug.publish(batch, b"reading")
        await until(lambda: bool(heard))
        assert gateway.publish(ack, b"stored")
        await until(lambda: bool(acks))
        await asyncio.sleep(0.2)
        assert heard == [(batch, b"reading")], "the stranger neither hears nor speaks for others"
        assert acks == [(ack, b"stored")]
        for link in links:
            link.stop()

    authority = Authority(tmp_path / "tls", "test")
    with mosquitto(tmp_path, authority) as port:
        asyncio.run(scenario(port, authority))


@needs_mosquitto
def test_offices_send_commands_to_gateways_and_nobody_else_does(tmp_path: Path) -> None:
    async def scenario(port: int, authority: Authority) -> None:
        command, outcome = topics.area_command("area-1", "home-17"), topics.area_outcome("area-1", "home-17")
        heard: dict[str, list[tuple[str, bytes]]] = {}
        links = {}
        for name in ("home-17", "home-18", "office-grid", "office-aggregator", PLUG.hex()):
            kept = heard.setdefault(name, [])
            wanted = [command, outcome, "wp/1/#"]
            links[name] = Link(
                name, name, section(authority, port, name), wanted,
                lambda topic, payload, kept=kept: kept.append((topic, payload)), KeptLines(),
            )  # fmt: skip
            links[name].start()
        await until(lambda: all(link.connected for link in links.values()))
        await asyncio.sleep(0.1)  # subscriptions
        for name in ("home-18", PLUG.hex(), "home-17"):
            links[name].publish(command, b"forged by " + name.encode())
        links["office-grid"].publish(command, b"order")
        await until(lambda: bool(heard["home-17"]))
        links["home-18"].publish(outcome, b"forged")
        links["home-17"].publish(outcome, b"accepted")
        await until(lambda: bool(heard["office-grid"]) and bool(heard["office-aggregator"]))
        await asyncio.sleep(0.2)
        said = (outcome, b"accepted")
        assert {name: set(kept) for name, kept in heard.items()} == {
            "home-17": {(command, b"order")}, "home-18": set(), "office-grid": {said}, "office-aggregator": {said},
            PLUG.hex(): set(),
        }  # fmt: skip
        for link in links.values():
            link.stop()

    authority = Authority(tmp_path / "tls", "test")
    with mosquitto(tmp_path, authority) as port:
        asyncio.run(scenario(port, authority))


@needs_mosquitto
def test_a_client_without_our_certificate_is_not_let_in(tmp_path: Path) -> None:
    async def scenario(port: int, authority: Authority) -> None:
        lines = KeptLines()
        plain = MqttSection(host="127.0.0.1", port=port, ca=authority.ca_path)
        link = Link("home", "x", plain, [], lambda topic, payload: None, lines)
        link.start()
        await until(lambda: "broker-home-missing" in lines.events)
        assert not link.connected
        link.stop()

    authority = Authority(tmp_path / "tls", "test")
    with mosquitto(tmp_path, authority) as port:
        asyncio.run(scenario(port, authority))


@needs_mosquitto
def test_a_broker_that_comes_back_is_found_and_said_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "RECONNECT_MIN_S", 1)

    async def scenario(authority: Authority) -> None:
        lines, ups = KeptLines(), []
        with mosquitto(tmp_path, authority) as port:
            link = Link("home", "gw", section(authority, port, "home-17"), [], lambda topic, payload: None, lines)
            link.when_up(lambda: ups.append(1))
            link.start()
            await until(lambda: link.connected)
        await until(lambda: not link.connected)
        assert "broker-home-missing" in lines.events
        link.stop()
        assert ups == [1]

    asyncio.run(scenario(Authority(tmp_path / "tls", "test")))


def test_an_absent_broker_is_one_line_a_minute() -> None:
    class Stream:
        text = ""

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None:
            pass

    now, stream = [0], Stream()
    lines = Lines(Log("gateway", "info", stream), lambda: now[0])  # type: ignore[arg-type]
    for now[0] in range(0, 3 * QUIET_MS, 1000):
        lines.warn("broker-home-missing", endpoint="127.0.0.1:1")
    assert stream.text.count("broker-home-missing") == 3 and "repeated=59" in stream.text
    lines.clear("broker-home-missing")
    lines.clear("broker-home-missing")
    assert stream.text.count("broker-home-missing-over") == 1


def test_a_refused_connection_is_told_and_tried_again() -> None:
    async def scenario() -> None:
        lines = KeptLines()
        link = Link("home", "x", MqttSection(host="127.0.0.1", port=1), [], lambda topic, payload: None, lines)
        link.start()
        await until(lambda: len(lines.events) >= 2)
        link.stop()
        assert set(lines.events) == {"broker-home-missing"}

    asyncio.run(scenario())


def test_the_hand_over_to_the_loop_is_bounded_and_drops_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        taken: list[bytes] = []
        link = Link(
            "home",
            "x",
            MqttSection(host="127.0.0.1", port=1),
            [],
            lambda topic, payload: taken.append(payload),
            KeptLines(),
        )
        link._loop = asyncio.get_running_loop()

        def arrive(payload: bytes) -> None:
            message = paho.MQTTMessage(topic=b"t")
            message.payload = payload
            link._paho_message(link._client, None, message)

        for number in range(5):
            arrive(b"%d" % number)
        arrive(b"x" * (mqtt.MESSAGE_BYTES_MAX + 1))
        assert taken == [], "nothing runs on the network thread"
        await asyncio.sleep(0)
        assert taken == [b"0", b"1", b"2"]
        assert link.dropped == {"inbox-full": 2, "message-too-large": 1}
        arrive(b"later")
        await asyncio.sleep(0)
        assert taken[-1] == b"later"

    monkeypatch.setattr(mqtt, "INBOX_MESSAGES_MAX", 3)
    asyncio.run(scenario())


def test_certificates_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    broken = MqttSection(host="127.0.0.1", port=1, ca=tmp_path / "absent.pem")
    with pytest.raises(LinkError, match=r"127\.0\.0\.1:1: cannot use ca"):
        Link("home", "x", broken, [], lambda topic, payload: None, KeptLines())


def test_one_endpoint_under_one_identity_is_one_connection(tmp_path: Path) -> None:
    one = MqttSection(host="127.0.0.1", port=1)
    assert same_endpoint(one, MqttSection(host="127.0.0.1", port=1))
    assert not same_endpoint(one, MqttSection(host="127.0.0.1", port=2))
    assert not same_endpoint(one, MqttSection(host="127.0.0.1", port=1, ca=tmp_path / "ca.pem"))
