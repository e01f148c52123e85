"""MQTT 3.1.1 client without I/O: bytes in, events and bytes out.

What a plug needs and no more: clean session, QoS 0 and 1 in both directions, keep-alive. Section numbers are those
of the OASIS standard. The owner opens and closes the transport; after `closed` an object is used up and the
owner makes a new one. Messages are not repeated here: on one TCP connection nothing is lost, and after a
reconnect the owner knows better than this module what is still worth sending.

**Invariant:** `receive` never raises; a peer that breaks the protocol becomes one `closed` event with its reason.
"""

PACKET_MAX = 16384
"Bytes of one packet. A plug receives acknowledgements of 36 bytes; a household's app receives a plan of some KiB."
IN_FLIGHT_MAX = 8
"Unacknowledged publications: bounds the memory that a silent broker can pin."
TOPIC_MAX = 256
CONNECT_WAIT_S = 30
"A broker that has not answered CONNECT by then is not going to."

CONNECT = 1
CONNACK = 2
PUBLISH = 3
PUBACK = 4
SUBSCRIBE = 8
SUBACK = 9
PINGREQ = 12
PINGRESP = 13

CONNECTED = "connected"
MESSAGE = "message"
PUBACKED = "puback"
SUBSCRIBED = "suback"
CLOSED = "closed"


class Event:
    """`kind` is one of the names above; `topic` and `payload` of a message, `packet_id` of an answer, `reason`."""

    def __init__(self, kind: str, packet_id: int = 0, topic: str = "", payload: bytes = b"", reason: str = "") -> None:
        self.kind = kind
        self.packet_id = packet_id
        self.topic = topic
        self.payload = payload
        self.reason = reason


def _u16(value: int) -> bytes:
    assert 0 <= value <= 65535
    return bytes((value >> 8, value & 255))


def _text(value: str) -> bytes:
    data = value.encode()
    return _u16(len(data)) + data


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """Return a control packet: fixed header (2.2) with the remaining length in base 128, then the body."""
    assert len(body) <= PACKET_MAX
    header = [kind << 4 | flags]
    length = len(body)
    while True:
        digit = length & 127
        length >>= 7
        header.append(digit | 128 if length else digit)
        if not length:
            return bytes(header) + body


class Session:
    """One connection's protocol state.

    client_id      unique at the broker
    keep_alive_s   seconds of the machine clock; the broker drops us after one and a half of it
    now_s          in the methods: any monotonic clock in whole seconds
    """

    def __init__(self, client_id: str, keep_alive_s: int = 60) -> None:
        assert 0 < keep_alive_s <= 65535
        self._client_id = client_id
        self._keep_alive_s = keep_alive_s
        self._input = b""
        self._output: list[bytes] = []
        self._next_id = 0
        self._in_flight: list[int] = []
        self._sent_s = 0
        self._ping_s = -1
        self._opened_s = 0
        self.connected = False
        self.closed = False

    def open(self, now_s: int) -> None:
        """The transport is open: say CONNECT (3.1) with a clean session and no will."""
        self._opened_s = now_s
        body = _text("MQTT") + bytes((4, 2)) + _u16(self._keep_alive_s) + _text(self._client_id)
        self._send(packet(CONNECT, 0, body), now_s)

    def publish(self, topic: str, payload: bytes, now_s: int, qos: int = 1) -> int:
        """Send a message; return its packet id (0 for QoS 0), or -1 if not connected or too many are in flight."""
        if not self.connected or (qos and len(self._in_flight) >= IN_FLIGHT_MAX):
            return -1
        name = _text(topic)
        if len(name) + len(payload) + 2 > PACKET_MAX:
            return -1
        if not qos:
            self._send(packet(PUBLISH, 0, name + payload), now_s)
            return 0
        packet_id = self._take_id()
        self._in_flight.append(packet_id)
        self._send(packet(PUBLISH, 2, name + _u16(packet_id) + payload), now_s)
        return packet_id

    def subscribe(self, topic: str, now_s: int) -> int:
        """Ask for a topic at QoS 1; return the packet id that the `suback` event will carry."""
        packet_id = self._take_id()
        self._send(packet(SUBSCRIBE, 2, _u16(packet_id) + _text(topic) + b"\x01"), now_s)
        return packet_id

    def tick(self, now_s: int) -> list[Event]:
        """Ping when quiet for half the keep-alive; give up when the answer to CONNECT or PINGREQ stays away."""
        if self.closed:
            return []
        if not self.connected:
            return self._close("connect-timeout") if now_s - self._opened_s > CONNECT_WAIT_S else []
        if self._ping_s >= 0:
            return self._close("ping-timeout") if now_s - self._ping_s > self._keep_alive_s else []
        if now_s - self._sent_s >= self._keep_alive_s // 2:
            self._send(packet(PINGREQ, 0, b""), now_s)
            self._ping_s = now_s
        return []

    def receive(self, data: bytes, now_s: int) -> list[Event]:
        """Take bytes from the transport and return what they meant."""
        events: list[Event] = []
        self._input += data
        while not self.closed:
            size, offset = _remaining_length(self._input)
            if size < 0:
                break
            if size > PACKET_MAX:
                events += self._close("packet-too-large")
                break
            if len(self._input) < offset + size:
                break
            first = self._input[0]
            # A view, not a copy: a message of two kilobytes must pass through a heap that is nearly full.
            body = memoryview(self._input)[offset : offset + size]
            self._input = self._input[offset + size :]
            events += self._handle(first >> 4, first & 15, body, now_s)
        return events

    def take_output(self) -> bytes:
        """Return the bytes to send and forget them."""
        output = b"".join(self._output)
        self._output = []
        return output

    def take_packet(self) -> bytes:
        """Return the next packet to send and forget it, b"" when there is none: no copy of all of them together."""
        return self._output.pop(0) if self._output else b""

    def _take_id(self) -> int:
        self._next_id = self._next_id % 65535 + 1
        return self._next_id

    def _send(self, data: bytes, now_s: int) -> None:
        self._output.append(data)
        self._sent_s = now_s

    def _close(self, reason: str) -> list[Event]:
        self.closed = True
        self.connected = False
        self._input = b""
        return [Event(CLOSED, reason=reason)]

    def _handle(self, kind: int, flags: int, body: memoryview, now_s: int) -> list[Event]:
        if kind == CONNACK:
            if self.connected or len(body) != 2:
                return self._close("bad-connack")
            if body[1]:
                return self._close("connect-refused-" + str(body[1]))
            self.connected = True
            return [Event(CONNECTED)]
        if not self.connected:
            return self._close("packet-before-connack")
        if kind == PUBLISH:
            return self._handle_publish(flags, body, now_s)
        if kind == PUBACK and len(body) == 2:
            packet_id = body[0] << 8 | body[1]
            if packet_id not in self._in_flight:
                return []
            self._in_flight.remove(packet_id)
            return [Event(PUBACKED, packet_id)]
        if kind == SUBACK and len(body) == 3:
            if body[2] > 2:
                return self._close("subscription-refused")
            return [Event(SUBSCRIBED, body[0] << 8 | body[1])]
        if kind == PINGRESP and not body:
            self._ping_s = -1
            return []
        return self._close("unexpected-packet-" + str(kind))

    def _handle_publish(self, flags: int, body: memoryview, now_s: int) -> list[Event]:
        qos = flags >> 1 & 3
        topic_size = body[0] << 8 | body[1] if len(body) >= 2 else TOPIC_MAX + 1
        offset = 2 + topic_size
        if topic_size > TOPIC_MAX or qos > 1 or len(body) < offset + 2 * qos:
            return self._close("bad-publish")
        try:
            topic = str(body[2:offset], "utf-8")
        except (UnicodeError, ValueError):
            return self._close("bad-publish")
        if not qos:
            return [Event(MESSAGE, 0, topic, bytes(body[offset:]))]
        packet_id = body[offset] << 8 | body[offset + 1]
        self._send(packet(PUBACK, 0, bytes(body[offset : offset + 2])), now_s)
        return [Event(MESSAGE, packet_id, topic, bytes(body[offset + 2 :]))]


def _remaining_length(data: bytes) -> tuple[int, int]:
    """Return (length, offset of the body); length -1 if more bytes are needed, PACKET_MAX + 1 if malformed."""
    length = 0
    for index in range(1, 5):
        if index >= len(data):
            return -1, 0
        length |= (data[index] & 127) << 7 * (index - 1)
        if not data[index] & 128:
            return length, index + 1
    return PACKET_MAX + 1, 5
