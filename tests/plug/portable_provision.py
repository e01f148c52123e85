"""Provisioning on any interpreter: the real tool's end against the plug's end, and everybody who is not the tool."""

import gc

gc.collect()
from watt_wire import p256, pairing, statement  # noqa: E402  # a small heap wants its garbage out first
from watt_wire.errors import DecodeError  # noqa: E402
from watt_wire.initiator import Initiator  # noqa: E402

gc.collect()
from watt_plug import clock, provision  # noqa: E402

CODE = "0123456789ABCDEF"
KEY = b"\x11" * 32
NETWORK = b"\x22" * 32
TLS = p256.public_key(b"\x12" * 32)
FIELDS = [
    (pairing.FIELD_WIFI_SSID, b"net"),
    (pairing.FIELD_GATEWAY, b"home-1"),
    (pairing.FIELD_BROKER_HOST, b"gateway.local"),
    (pairing.FIELD_BROKER_PORT, b"\x22\xb3"),
    (pairing.FIELD_CA, bytes(450)),
    (pairing.FIELD_CERTIFICATE, bytes(400)),
    (pairing.FIELD_GATEWAY_KEY, bytes(64)),
    (pairing.FIELD_NETWORK, NETWORK),
]


class Card(provision.Identity):
    def __init__(self) -> None:
        self.public = p256.public_key(KEY)
        self.tls_public = TLS

    def enrolment(self, network: bytes, challenge: bytes) -> bytes:
        octets = {"network": network, "public": self.public, "firmware_hash": bytes(32)}
        octets["calibration_hash"] = bytes(32)
        octets["challenge"] = challenge
        numbers = {"key_class": statement.KEY_PLAIN, "rated_w": 3680}
        body = statement.ENROLMENT.encode(statement.Statement(numbers, octets))
        return statement.ENROLMENT.seal(body, p256.sign(KEY, statement.ENROLMENT.message(body)))


class Random:
    """Bytes that are all different and the same in every run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return bytes([self._count]) * size


def converse(plug: provision.Provisioner, tool: Initiator, writes: "list[bytes]") -> "tuple[int, bytes]":
    """Carry fragments both ways until nobody has more to say; return the last (kind, body) the tool got."""
    last = (0, b"")
    while writes:
        notifications = []
        for fragment in writes:
            notifications += plug.write(fragment)
        writes = []
        for notification in notifications:
            step = tool.receive(notification)
            if step is not None:
                writes += step[0]
                last = (step[1], step[2])
    return last


def pair(code: str = CODE) -> "tuple[provision.Provisioner, Initiator]":
    plug = provision.Provisioner(CODE, Card(), Random())
    tool = Initiator(code, b"\x33" * 32, b"\x44" * 16)
    assert converse(plug, tool, tool.hello())[0] == pairing.CONFIRM_REPLY
    return plug, tool


def test_a_plug_is_taken_into_a_household() -> None:
    plug, tool = pair()
    assert plug.info()[:2] == bytes((1, provision.PROVEN))
    kind, body = converse(plug, tool, tool.write(pairing.IDENTIFY, NETWORK + bytes(16)))
    assert kind == pairing.IDENTITY and body[statement.ENROLMENT.size :] == TLS
    frame = body[: statement.ENROLMENT.size]
    found = statement.ENROLMENT.decode(frame)
    message = statement.ENROLMENT.message(statement.ENROLMENT.body_of(frame))
    assert p256.verify(found.data("public"), message, statement.ENROLMENT.signature_of(frame))
    assert found.data("network") == NETWORK and found.number("key_class") == statement.KEY_PLAIN
    party = (pairing.FIELD_PARTY, b"\x01" + bytes(64))
    extra = [party, party, (pairing.FIELD_UTC_OFFSET_S, b"\xff\xff\xf1\xf0"), (pairing.FIELD_ESSENTIAL, b"\x01")]
    assert converse(plug, tool, tool.write(pairing.SETTINGS, pairing.encode_fields(FIELDS + extra)))[0] == 0x92
    assert plug.settings is None, "not before the tool says apply"
    assert converse(plug, tool, tool.write(pairing.APPLY))[0] == pairing.APPLIED
    assert plug.settings is not None
    assert plug.settings["broker_port"] == 8883 and plug.settings["gateway"] == "home-1"
    assert plug.settings["utc_offset_s"] == -3600 and plug.settings["essential"] == 1
    assert plug.settings["network"] == NETWORK.hex() and len(plug.settings["parties"]) == 2


def test_a_tool_without_the_code_is_refused_and_locked_out() -> None:
    plug = provision.Provisioner(CODE, Card(), Random())
    for attempt in range(provision.GUESSES_MAX):
        tool = Initiator("1" * 16, b"\x33" * 32, bytes(16))
        try:
            converse(plug, tool, tool.hello())
            raise AssertionError("taken")
        except DecodeError as error:
            assert "pairing-proof" in str(error), attempt
    assert plug.info()[1] == provision.LOCKED
    tool = Initiator(CODE, b"\x33" * 32, bytes(16))
    try:
        converse(plug, tool, tool.hello())
        raise AssertionError("taken")
    except DecodeError as error:
        assert "pairing-locked" in str(error)
    assert plug.settings is None and plug.rejected["pairing-proof"] == provision.GUESSES_MAX


def test_nothing_can_be_said_before_the_proof_or_repeated_after_it() -> None:
    plug = provision.Provisioner(CODE, Card(), Random())
    for kind in (pairing.CONFIRM, pairing.SEALED, pairing.HELLO_REPLY, 0x77):
        answer = plug.write(pairing.fragments(bytes((kind,)) + bytes(40))[0])
        assert answer[0][1] == pairing.REFUSED
    plug, tool = pair()
    writes = tool.write(pairing.IDENTIFY, NETWORK + bytes(16))
    converse(plug, tool, writes)
    assert plug.write(writes[0])[0][1] == pairing.REFUSED, "the same bytes again"
    assert plug.state == provision.OPEN, "and the conversation is over"


def test_a_guess_costs_a_new_exchange_of_keys() -> None:
    plug = provision.Provisioner(CODE, Card(), Random())
    tool = Initiator(CODE, b"\x33" * 32, bytes(16))
    notifications = []
    for fragment in tool.hello():
        notifications += plug.write(fragment)
    plug.write(pairing.fragments(bytes((pairing.CONFIRM,)) + bytes(32))[0])
    step = tool.receive(notifications[0])
    assert step is not None
    assert plug.write(step[0][0])[0][1] == pairing.REFUSED, "even the right proof, for the old keys"


def test_settings_that_are_missing_wrong_or_double_are_rejected_and_may_be_sent_again() -> None:
    plug, tool = pair()
    assert converse(plug, tool, tool.write(pairing.APPLY))[0] == pairing.REJECTED
    party = (pairing.FIELD_PARTY, b"\x01" + bytes(64))
    for fields in (
        FIELDS[:-1],
        FIELDS + FIELDS[:1],
        FIELDS[1:] + [(pairing.FIELD_WIFI_SSID, b"\xff\xfe")],
        FIELDS[1:] + [(pairing.FIELD_WIFI_SSID, bytes(33))],
        FIELDS + [party] * 9,
        [],
    ):
        kind, body = converse(plug, tool, tool.write(pairing.SETTINGS, pairing.encode_fields(fields)))
        assert (kind == pairing.REJECTED and b"field" in body) or b"parties" in body
    assert converse(plug, tool, tool.write(pairing.SETTINGS, b"\x63\x00\x00"))[0] == pairing.REJECTED
    assert converse(plug, tool, tool.write(0x55))[0] == pairing.REJECTED
    assert converse(plug, tool, tool.write(pairing.SETTINGS, pairing.encode_fields(FIELDS)))[0] == pairing.ACCEPTED
    assert plug.settings is None


def test_noise_changes_nothing() -> None:
    plug = provision.Provisioner(CODE, Card(), Random())
    for size in range(0, 200, 3):
        for first in (0, 1, 0x80, 0x81, 0xFF):
            plug.write(bytes([first]) + bytes([size & 255]) * size)
    assert plug.settings is None and plug.state == provision.OPEN


CERTIFICATE = "30820159300aa0030201020206170d6b65793030301e170d3236313132393131353530375a170d3237303232373131353530375a"
"The beginning of a certificate: a serial number that looks like a date and is none, then 29 November 2026, 11:55:07."


def test_a_certificate_says_from_when_it_is_valid_and_dates_need_no_epoch() -> None:
    assert clock.not_before_s(bytes.fromhex(CERTIFICATE)) == 1795953307
    assert clock.not_before_s(b"") == clock.not_before_s(bytes(400)) == clock.not_before_s(b"\x17\x0d261129115507") == 0
    for date, days in (((1970, 1, 1), 0), ((2000, 2, 29), 11016), ((2000, 3, 1), 11017), ((2026, 3, 2), 20514)):
        assert clock.days_from_civil(*date) == days
