"""Between the plug and its broker: one MQTT session, the topics, and what is not acknowledged yet.

`receive` and `tick` return what is not the courier's own business as (kind, payload): see the names below. Acknowledged
batches and events leave the boxes here.
"""

from watt_wire import plug_topics as topics

from watt_plug import mqtt
from watt_plug.outbox import Outbox

COMMAND = "command"
TIME = "time"
UPDATE = "update"
ACK = "ack"
READY = "ready"
"Acknowledgements can come: what waits can be sent, and what was lost can be said."
CLOSED = "closed"


class Courier:
    """One plug's mail. With `listens` it subscribes to commands, time and updates as well as to acknowledgements."""

    def __init__(
        self, gateway: str, plug_id: bytes, keep_alive_s: int, batches: Outbox, events: Outbox, listens: bool
    ) -> None:
        self._client = "plug-" + plug_id.hex()
        self._keep_alive_s = keep_alive_s
        self._batches = batches
        self._events = events
        self._batch_topic = topics.plug_batch(gateway, plug_id)
        self._event_topic = topics.plug_event(gateway, plug_id)
        self._kinds = {topics.plug_ack(gateway, plug_id): ACK}
        if listens:
            self._kinds[topics.plug_command(gateway, plug_id)] = COMMAND
            self._kinds[topics.plug_time(gateway, plug_id)] = TIME
            self._kinds[topics.plug_update(gateway, plug_id)] = UPDATE
        self._session: "mqtt.Session | None" = None
        self._ack_id = 0
        self._in_contact = False

    @property
    def must_close(self) -> bool:
        return self._session is not None and self._session.closed

    @property
    def in_contact(self) -> bool:
        """The broker has accepted the plug, and acknowledgements can come."""
        return self._in_contact and self._session is not None

    def opened(self, timer_s: int) -> None:
        """The transport to the broker is open."""
        self._session = mqtt.Session(self._client, self._keep_alive_s)
        self._session.open(timer_s)

    def closed(self) -> None:
        """The transport is closed, whoever closed it."""
        self._session = None
        self._in_contact = False
        self._batches.forget_connection()
        self._events.forget_connection()

    def take_output(self) -> bytes:
        """Return the network bytes to send and forget them."""
        return self._session.take_output() if self._session is not None else b""

    def take_packet(self) -> bytes:
        """Return the next packet to send and forget it, b"" when there is none."""
        return self._session.take_packet() if self._session is not None else b""

    def receive(self, data: bytes, timer_s: int) -> "list[tuple[str, bytes]]":
        """Take bytes from the transport."""
        if self._session is None:
            return []
        return self._handle(self._session.receive(data, timer_s), timer_s)

    def tick(self, timer_s: int) -> "list[tuple[str, bytes]]":
        """Time passes: keep the connection alive, send again what waited long enough."""
        if self._session is None:
            return []
        found = self._handle(self._session.tick(timer_s), timer_s)
        self.pump(timer_s)
        return found

    def publish(self, topic: str, payload: bytes, timer_s: int) -> bool:
        """Send a message once, without a promise; return whether it is on its way."""
        session = self._session
        return session is not None and session.publish(topic, payload, timer_s, 0) == 0

    def pump(self, timer_s: int) -> None:
        """Publish what is due. What the session cannot take now comes up again by its time-out."""
        session = self._session
        if session is None or not session.connected:
            return
        for box, topic in ((self._batches, self._batch_topic), (self._events, self._event_topic)):
            for _, data in box.due(timer_s):
                session.publish(topic, data, timer_s)

    def _handle(self, events: "list[mqtt.Event]", timer_s: int) -> "list[tuple[str, bytes]]":
        found: list[tuple[str, bytes]] = []
        for event in events:
            if event.kind == mqtt.CONNECTED and self._session is not None:
                for topic in sorted(self._kinds):
                    packet_id = self._session.subscribe(topic, timer_s)
                    if self._kinds[topic] == ACK:
                        self._ack_id = packet_id
            elif event.kind == mqtt.SUBSCRIBED and event.packet_id == self._ack_id:
                self._batches.forget_connection()
                self._events.forget_connection()
                self._in_contact = True
                found.append((READY, b""))
                self.pump(timer_s)
            elif event.kind == mqtt.MESSAGE and event.topic in self._kinds:
                kind = self._kinds[event.topic]
                if kind != ACK:
                    found.append((kind, event.payload))
                elif self._batches.acknowledge(event.payload) or self._events.acknowledge(event.payload):
                    found.append((ACK, b""))
                    self.pump(timer_s)
            elif event.kind == mqtt.CLOSED:
                found.append((CLOSED, event.reason.encode()))
        return found
