"""The plug's shell on a real MicroPython against Mosquitto and amqtt with mutual TLS, which die on the way."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography.hazmat.primitives import serialization
from watt_rig.mosquitto import executable
from watt_tools.certificates import Authority, der_of
from watt_wire import batch, checkpoint, command, p256, plug_topics, statement

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MICROPYTHON = ROOT / ".venv-mpy" / "bin" / "micropython"
PLUG = p256.public_key(b"\x11" * 32)
PLUG_ID = hashlib.sha256(PLUG).digest()[:8]
GATEWAY_KEY = b"\x51" * 32
PARTIES = sorted((b"\x01" * 32, b"\x02" * 32), key=lambda key: hashlib.sha256(p256.public_key(key)).digest())
NETWORK = b"\x22" * 32
WAIT_S = 150
"For one step on a machine that does other things as well; on a quiet one each takes a few seconds."

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine"),
]
without_mosquitto = pytest.mark.skipif(
    not executable() and os.environ.get("CI") != "true", reason="no Mosquitto: tools/need-mosquitto.sh"
)


class Gateway:
    """What a gateway does for one plug: acknowledge batches and events, tell the time."""

    def __init__(self, folder: Path, port: int) -> None:
        self.batches: dict[int, bytes] = {}
        self.status: dict[str, object] = {}
        self.asked = 0
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "gateway", reconnect_on_failure=True)
        self._client.tls_set(str(folder / "ca.pem"), str(folder / "gw.pem"), str(folder / "gw.key"), ssl.CERT_REQUIRED)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("wp/1/home/home-1/plug/+/#", 1)
        self._client.on_message = self._take
        self._client.connect("localhost", port)
        self._client.loop_start()

    def send(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        kind = message.topic.rsplit("/", 1)[1]
        if kind == "batch":
            head, _ = batch.accept(message.payload, PLUG, p256.verify)
            frame_hash = checkpoint.frame_hash(batch.decode(message.payload)[0])
            assert self.batches.setdefault(head.counter, message.payload) == message.payload
            self.send(plug_topics.plug_ack("home-1", PLUG_ID), batch.encode_ack(head.counter, frame_hash))
        elif kind == "ask":
            self.asked += 1
            numbers = {"time_s": int(time.time()), "time_ms": 0, "time_quality": ord("S")}
            body = statement.TIME.encode(statement.Statement(numbers, {"plug_id": PLUG_ID, "nonce": message.payload}))
            frame = statement.TIME.seal(body, p256.sign(GATEWAY_KEY, statement.TIME.message(body)))
            self.send(plug_topics.plug_time("home-1", PLUG_ID), frame)
        elif kind == "status":
            self.status = json.loads(message.payload)


def mosquitto(folder: Path, port: int) -> subprocess.Popen[bytes]:
    (folder / "mosquitto.conf").write_text(
        f"user {getpass.getuser()}\nlistener {port} localhost\ncafile {folder}/ca.pem\n"
        f"certfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
        "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n"
    )
    return started([executable() or "mosquitto", "-c", str(folder / "mosquitto.conf")], folder, port)


def amqtt(folder: Path, port: int) -> subprocess.Popen[bytes]:
    files = ["--ca", folder / "ca.pem", "--cert", folder / "broker.pem", "--key", folder / "broker.key"]
    command = [sys.executable, "-m", "watt_tools.cli", "rig", "broker", "--host", "localhost", "--port", port, *files]
    return started([str(item) for item in command], folder, port)


def started(command: list[str], folder: Path, port: int) -> subprocess.Popen[bytes]:
    log = (folder / "broker.log").open("ab")
    running = subprocess.Popen(command, stdout=log, stderr=log)

    def listens() -> bool:
        assert running.poll() is None, (folder / "broker.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("localhost", port)) == 0

    until("the broker listens", listens)
    return running


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def order(action: int, counter: int) -> bytes:
    ids = [hashlib.sha256(p256.public_key(key)).digest()[:8] for key in PARTIES]
    now_s = int(time.time())
    hold_s = 0 if action == command.RELEASE else 600
    item = command.Command(
        1, NETWORK, PLUG_ID, counter, action, now_s - 5, now_s + 600, hold_s, 0, bytes(32), ids[0], ids[1]
    )
    body = command.encode(item)
    message = command.signing_message(body)
    return command.seal(body, p256.sign(PARTIES[0], message), p256.sign(PARTIES[1], message))


Broker = Callable[[Path, int], subprocess.Popen[bytes]]


@pytest.mark.row("C4", "C5", "C6")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", [pytest.param(mosquitto, marks=without_mosquitto), amqtt])
def test_a_plug_over_mutual_tls_gets_its_time_delivers_obeys_and_survives_the_brokers_death(
    broker: Broker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca", "test")
    shutil.copy(authority.ca_path, tmp_path / "ca.pem")
    for name, short in (("localhost", "broker"), ("gateway", "gw"), ("plug", "plug")):
        certificate, key = authority.issue(name)
        shutil.copy(certificate, tmp_path / f"{short}.pem")
        shutil.copy(key, tmp_path / f"{short}.key")
    (tmp_path / "ca.der").write_bytes(der_of(tmp_path / "ca.pem"))
    (tmp_path / "client.der").write_bytes(der_of(tmp_path / "plug.pem"))
    private = serialization.load_pem_private_key((tmp_path / "plug.key").read_bytes(), None)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    der = private.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
    (tmp_path / "key.der").write_bytes(der)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = broker(tmp_path, port)
    lines: list[str] = []
    gateway = Gateway(tmp_path, port)
    arguments = [tmp_path, "localhost", port, p256.public_key(GATEWAY_KEY).hex()]
    arguments += [p256.public_key(key).hex() for key in PARTIES] + [NETWORK.hex()]
    child = subprocess.Popen(
        [MICROPYTHON, "-X", "heapsize=512K", HERE / "shell_child.py", *(str(item) for item in arguments)],
        env={**os.environ, "MICROPYPATH": f"{ROOT / 'firmware'}:.frozen"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    thread = threading.Thread(target=lambda stream: lines.extend(iter(stream.readline, "")), args=(child.stdout,))
    thread.start()
    try:
        until("a batch with the gateway's time", lambda: any(
            checkpoint.decode(batch.decode(data)[0]).time_quality == ord("S") for data in gateway.batches.values()
        ))  # fmt: skip
        gateway.send(plug_topics.plug_command("home-1", PLUG_ID), order(command.OFF, 1))
        until("the relay opens", lambda: "relay 0\n" in lines)
        gateway.send(plug_topics.plug_command("home-1", PLUG_ID), order(command.OFF, 1))
        until("the status counts the replay", lambda: gateway.status.get("relay") is False)
        before = max(gateway.batches)
        running.kill()
        running.wait()
        time.sleep(12)
        running = broker(tmp_path, port)
        # The plug may be back before the gateway: what nobody received then, it sends again later.
        until("batches after the broker's death, none missing", lambda: (
            max(gateway.batches) > before + 1
            and sorted(gateway.batches) == list(range(1, max(gateway.batches) + 1))
        ))  # fmt: skip
        gateway.send(plug_topics.plug_command("home-1", PLUG_ID), order(command.RELEASE, 2))
        until("the relay closes", lambda: lines[-1] == "relay 1\n" or "relay 1\n" in lines[lines.index("relay 0\n") :])
    finally:
        (tmp_path / "stop").write_bytes(b"")
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
        thread.join()
        gateway.close()
        running.kill()
        running.wait()
    assert lines[-1].startswith("end ") and "fed\n" in lines, lines
    assert int(lines[-1].split()[2]) >= 2, "connected again"
