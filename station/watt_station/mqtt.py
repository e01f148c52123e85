"""The broker connection of a station: the one module that knows paho.

paho runs the socket in a thread of its own; every message crosses to the event loop by `call_soon_threadsafe`, and no
more than MAX_INBOUND of them are on the way at a time: beyond that they are dropped and counted (a gateway sends a
transaction again until it holds a receipt). A broker that is not there is tried again for ever, with one warning when
it goes and one line when it is back.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from watt_node.config import ConfigError, MqttSection
from watt_node.log import Log

QOS = 1
"""At least once: everything is deduplicated by transaction id or by content."""
KEEPALIVE_S = 30
RETRY_FIRST_S = 1
RETRY_MOST_S = 15
"""Bounds of paho's doubling pause between two attempts."""
MAX_INBOUND = 2000
"""Messages handed to the event loop and not yet handled: about a second of work."""
MAX_OUTBOUND = 2000
"""Replies queued in paho; beyond it they are dropped, and the gateway asks again."""
MAX_PAYLOAD = 256 * 1024
"""Nothing a household sends is larger; checked before the payload crosses to the loop."""

Handler = Callable[[str, bytes], None]


class Broker:
    """One MQTT 3.1.1 connection (what every broker speaks), with TLS when the section names a CA."""

    def __init__(
        self, section: MqttSection, client_id: str, filters: Sequence[str], handler: Handler, log: Log
    ) -> None:
        """`handler(topic, payload)` runs on the event loop. ConfigError when the TLS files do not fit."""
        self._section = section
        self._filters = list(filters)
        self._handler = handler
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._on_the_way = 0
        self._warned = False
        self.connected = False
        self.counters = {"inbound_dropped": 0, "outbound_dropped": 0, "oversized": 0}
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311)
        if section.ca is not None:
            try:
                context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(section.ca))
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                if section.cert is not None:
                    context.load_cert_chain(section.cert, section.key)
            except OSError as error:  # ssl.SSLError is one
                raise ConfigError(f"mqtt: {section.ca}, {section.cert}, {section.key}: {error}") from None
            client.tls_set_context(context)
        client.reconnect_delay_set(RETRY_FIRST_S, RETRY_MOST_S)
        client.max_queued_messages_set(MAX_OUTBOUND)
        client.max_inflight_messages_set(100)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._client = client

    def start(self) -> None:
        """Begin to connect, in the background; call from the event loop."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._section.host, self._section.port, KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect and end the thread; waits at most for one turn of its loop."""
        self._loop = None
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> bool:
        """Queue a message; False (and counted) when there is no connection or no room."""
        if self.connected:
            info = self._client.publish(topic, payload, qos=QOS)
            if info.rc in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
                return True
        self.counters["outbound_dropped"] += 1
        return False

    # --- paho's thread

    def _on_connect(
        self, client: paho.Client, _: object, __: paho.ConnectFlags, code: ReasonCode, ___: Properties | None
    ) -> None:
        if code.is_failure:
            self._away(f"refused: {code}")
            return
        client.subscribe([(name, QOS) for name in self._filters])
        self.connected = True
        if self._warned:
            self._warned = False
            self._log.info("broker-back", host=self._section.host, port=self._section.port)

    def _on_connect_fail(self, _: paho.Client, __: object) -> None:
        self._away("cannot connect")

    def _on_disconnect(
        self, _: paho.Client, __: object, ___: paho.DisconnectFlags, code: ReasonCode, ____: Properties | None
    ) -> None:
        self.connected = False
        if code.is_failure:
            self._away(str(code).lower())

    def _away(self, reason: str) -> None:
        self.connected = False
        if not self._warned:  # one line, however often it is tried
            self._warned = True
            self._log.warning(
                "broker-away",
                host=self._section.host,
                port=self._section.port,
                reason=reason,
                next=f"retried every {RETRY_FIRST_S} to {RETRY_MOST_S} s",
            )

    def _on_message(self, _: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        loop = self._loop
        if len(message.payload) > MAX_PAYLOAD:
            self.counters["oversized"] += 1
            return
        with self._lock:
            if loop is None or self._on_the_way >= MAX_INBOUND:
                self.counters["inbound_dropped"] += 1
                return
            self._on_the_way += 1
        try:
            loop.call_soon_threadsafe(self._deliver, message.topic, bytes(message.payload))
        except RuntimeError:  # the loop closed while the message was on its way
            return

    # --- event loop

    def _deliver(self, topic: str, payload: bytes) -> None:
        with self._lock:
            self._on_the_way -= 1
        self._handler(topic, payload)
