"""The MQTT session: bytes of the standard, bounds, and a broker that misbehaves."""

from watt_plug import mqtt

CONNACK = b"\x20\x02\x00\x00"


def connected() -> mqtt.Session:
    session = mqtt.Session("plug-1", 60)
    session.open(0)
    session.take_output()
    assert [event.kind for event in session.receive(CONNACK, 0)] == [mqtt.CONNECTED]
    return session


def test_connect_has_the_bytes_of_the_standard() -> None:
    session = mqtt.Session("a", 60)
    session.open(0)
    assert session.take_output() == bytes.fromhex("100d00044d51545404 02003c000161".replace(" ", ""))


def test_a_publication_waits_for_its_puback() -> None:
    session = connected()
    packet_id = session.publish("t", b"xyz", 1)
    assert packet_id == 1
    assert session.take_output() == b"\x32\x08\x00\x01t\x00\x01xyz"
    assert [(e.kind, e.packet_id) for e in session.receive(b"\x40\x02\x00\x01", 1)] == [(mqtt.PUBACKED, 1)]
    assert session.receive(b"\x40\x02\x00\x01", 1) == []


def test_publications_in_flight_are_bounded() -> None:
    session = connected()
    for _ in range(mqtt.IN_FLIGHT_MAX):
        assert session.publish("t", b"", 1) > 0
    assert session.publish("t", b"", 1) == -1
    session.receive(b"\x40\x02\x00\x01", 1)
    assert session.publish("t", b"", 1) > 0


def test_a_message_at_qos_1_is_acknowledged_in_any_split() -> None:
    data = b"\x32\x09\x00\x02ab\x00\x07xyz"
    for size in (1, 3, 20):
        session = connected()
        events = []
        for offset in range(0, len(data), size):
            events += session.receive(data[offset : offset + size], 1)
        assert [(e.kind, e.topic, e.payload) for e in events] == [(mqtt.MESSAGE, "ab", b"xyz")]
        assert session.take_output() == b"\x40\x02\x00\x07"


def test_the_session_pings_when_quiet_and_gives_up_without_an_answer() -> None:
    session = connected()
    assert session.tick(29) == [] and session.take_output() == b""
    assert session.tick(30) == [] and session.take_output() == b"\xc0\x00"
    session.receive(b"\xd0\x00", 31)
    assert session.tick(60) == [] and session.take_output() == b"\xc0\x00"
    assert [event.reason for event in session.tick(121)] == ["ping-timeout"]
    assert session.closed


def test_a_broker_that_breaks_the_protocol_closes_the_session_and_raises_nothing() -> None:
    cases = (
        (b"\x20\x02\x00\x05", "connect-refused-5"),
        (b"\x30\x03\x00\x01t", "packet-before-connack"),
        (CONNACK + CONNACK, "bad-connack"),
        (CONNACK + b"\x34\x05\x00\x01t\x00\x01", "bad-publish"),
        (CONNACK + b"\x30\x03\x00\x09t", "bad-publish"),
        (CONNACK + b"\x30\xff\xff\xff\xff\x01", "packet-too-large"),
        (CONNACK + b"\x30\xff\xff\x7f", "packet-too-large"),
        (CONNACK + b"\x90\x03\x00\x01\x80", "subscription-refused"),
        (CONNACK + b"\x82\x00", "unexpected-packet-8"),
    )
    for data, reason in cases:
        session = mqtt.Session("a", 60)
        session.open(0)
        assert session.receive(data, 0)[-1].reason == reason
        assert session.closed and session.receive(data, 0) == []


def test_no_answer_to_connect_closes_the_session() -> None:
    session = mqtt.Session("a", 60)
    session.open(0)
    assert session.tick(30) == []
    assert [event.reason for event in session.tick(31)] == ["connect-timeout"]
