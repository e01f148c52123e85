"""MQTT connections: the one module that imports paho.

Each `Link` is one connection, run by paho's own thread. Messages cross to the asyncio loop through one bounded deque
and one wake-up per burst. Invariant: a PUBACK of a broker means nothing to anybody here; a broker that crashes loses
what it acknowledged, so every sender repeats until the *application* answers (plug acks, receipts). That is also why
a message dropped at a bound loses nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from watt_node.config import MqttSection

from watt_gateway.lines import Lines

INBOX_MESSAGES_MAX = 1024
"""Messages between the network thread and the loop: 64 plugs that all send their backlog of a dozen batches."""
MESSAGE_BYTES_MAX = 256 << 10
"""A batch is at most some 20 kB, a reply with state proofs some 100 kB."""
OUT_MESSAGES_MAX = 256
"""Messages paho may hold for the broker; senders repeat, so a longer queue would only age."""
INFLIGHT_MAX = 64
"""QoS 1 messages without PUBACK at a time."""
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
"""Back-off of the reconnect: quick after a restart of the broker, calm while it is away."""
KEEPALIVE_S = 30
"""Seconds until either side notices a dead connection (1.5 times this)."""
QOS = 1

OnMessage = Callable[[str, bytes], None]


class LinkError(Exception):
    """A broker section that cannot work (a certificate that cannot be read); complete text for the operator."""


def tls_context(section: MqttSection) -> ssl.SSLContext | None:
    """The TLS side of a broker section; None for plain TCP (loopback only, the config sees to it)."""
    if section.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(section.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if section.cert is not None and section.key is not None:
            context.load_cert_chain(str(section.cert), str(section.key))
    except (OSError, ssl.SSLError) as error:
        raise LinkError(f"broker {section.host}:{section.port}: cannot use ca, cert or key: {error}") from None
    return context


def same_endpoint(one: MqttSection, other: MqttSection) -> bool:
    """Whether two sections mean one broker under one identity, so that one connection serves both."""
    return one == other


class Link:
    """One connection to one broker. Everything but the paho callbacks runs on the loop."""

    def __init__(
        self, name: str, client_id: str, section: MqttSection, topics: Sequence[str], take: OnMessage, lines: Lines
    ) -> None:
        """`topics` are subscribed at every connect; `take(topic, payload)` is called on the loop."""
        self.name = name
        self.endpoint = f"{section.host}:{section.port}"
        self.dropped: dict[str, int] = {}
        "Messages not taken, by reason."
        self._topics = list(topics)
        self._take = take
        self._lines = lines
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._lock = threading.Lock()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connected = False
        self._on_up: list[Callable[[], None]] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, protocol=MQTTProtocolVersion.MQTTv311
        )
        self._client.max_queued_messages_set(OUT_MESSAGES_MAX)
        self._client.max_inflight_messages_set(INFLIGHT_MAX)
        self._client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        context = tls_context(section)
        if context is not None:
            self._client.tls_set_context(context)
        self._client.on_connect = self._paho_connect
        self._client.on_connect_fail = self._paho_connect_fail
        self._client.on_disconnect = self._paho_disconnect
        self._client.on_message = self._paho_message
        self._host, self._port = section.host, section.port

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and our subscriptions were sent."""
        return self._connected

    def when_up(self, call: Callable[[], None]) -> None:
        """Call `call` on the loop after every connect."""
        self._on_up.append(call)

    def start(self) -> None:
        """Connect in the background, for ever. Call on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect and join paho's thread."""
        self._loop = None
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand a message to the broker; False when there is no connection or no room. Never a promise of delivery."""
        if not self._connected:
            return False
        try:
            answer = self._client.publish(topic, payload, qos=QOS)
        except ValueError:
            return False
        return bool(answer.rc == paho.MQTT_ERR_SUCCESS)

    # ---- on paho's thread: only hand over ---------------------------------------------------------------------

    def _paho_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        reason = ""
        with self._lock:
            if len(message.payload) > MESSAGE_BYTES_MAX:
                reason = "message-too-large"
            elif len(self._inbox) >= INBOX_MESSAGES_MAX:
                reason = "inbox-full"
            if reason:
                self.dropped[reason] = self.dropped.get(reason, 0) + 1
                return
            self._inbox.append((message.topic, bytes(message.payload)))
            if self._woken:
                return
            self._woken = True
        self._call(self._drain)

    def _paho_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._call(self._say_down, f"refused: {reason}")
            return
        if self._topics:
            client.subscribe([(topic, QOS) for topic in self._topics])
        self._call(self._say_up)

    def _paho_connect_fail(self, _client: paho.Client, _data: Any) -> None:
        self._call(self._say_down, "no connection")

    def _paho_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._call(self._say_down, str(reason))

    def _call(self, call: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop closed while we were stopping

    # ---- on the loop ------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        with self._lock:
            burst = list(self._inbox)
            self._inbox.clear()
            self._woken = False
        for topic, payload in burst:
            self._take(topic, payload)

    def _say_up(self) -> None:
        self._connected = True
        self._lines.clear(f"broker-{self.name}-missing", endpoint=self.endpoint)
        for call in self._on_up:
            call()

    def _say_down(self, why: str) -> None:
        self._connected = False
        if self._loop is not None:
            self._lines.warn(
                f"broker-{self.name}-missing", endpoint=self.endpoint, why=why, retry_s_max=RECONNECT_MAX_S
            )


class Stub:
    """A link that goes nowhere: what `Link` looks like to those who publish (tests, doctor)."""

    connected = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes) -> bool:
        """Keep the message."""
        self.sent.append((topic, payload))
        return True
