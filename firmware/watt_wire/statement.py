"""Small signed statements: a plug's event, a plug's enrolment, a gateway's answer to "what time is it" (WIRE.md 10).

A frame is the body followed by one signature over domain and body. The three share this one codec: a layout is a
table of fields, a statement holds the values by name. Checks are those of every other frame: one size, one encoding
per value, limits enforced on the way out and on the way in.
"""

from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import (
    HASH_SIZE,
    ID_SIZE,
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    SUITE_P256_SHA256,
    TIME_QUALITIES,
    U32_MAX,
    bytes_problem,
    integer_problem,
    quality_problem,
)

VERSION = 1
NONCE_SIZE = 8
CHALLENGE_SIZE = 16
U53_MAX = (1 << 53) - 1

APPLIANCE_ON = 1
APPLIANCE_OFF = 2
GAP = 3
TRIP = 4
REFUSALS = 5
RESET = 6
BUTTON = 7
ROLL_BACK = 8
COMMAND_ACCEPTED = 9
COMMAND_REFUSED = 10
COMMAND_REASONS = (
    "", "command-replayed", "command-clock", "refused-essential", "refused-override", "refused-night", "refused-week",
    "refused-state",
)  # fmt: skip
"""By the number in `last` of COMMAND_REFUSED: why a plug does not obey a command whose signatures are good."""

KEY_SECURE = 1
KEY_ENCRYPTED = 2
KEY_PLAIN = 3
KEY_CLASSES = ("", "secure", "encrypted", "plain")
"""Names that the chain uses for the three classes (station/CONTRACT.md, EnrolPlug)."""


class Statement:
    """Values of one frame: integers and byte strings by field name."""

    def __init__(self, numbers: "dict[str, int]", octets: "dict[str, bytes]") -> None:
        self.numbers = numbers
        self.octets = octets

    def number(self, name: str) -> int:
        """Return an integer field."""
        return self.numbers[name]

    def data(self, name: str) -> bytes:
        """Return a field of bytes."""
        return self.octets[name]


class Layout:
    """One kind of statement.

    name     prefix of the reasons of its DecodeErrors
    domain   what stands before the body when it is signed (W2.5)
    fields   (name, size) for bytes, (name, size, low, high) for integers, after version and suite
    """

    def __init__(self, name: str, domain: bytes, fields: "tuple[tuple[str, int, int, int], ...]") -> None:
        self.name = name
        self.domain = domain
        self.fields = fields
        self.body_size = 2 + sum([field[1] for field in fields])
        self.size = self.body_size + SIGNATURE_SIZE

    def encode(self, statement: Statement) -> bytes:
        """Return the body; EncodeError when a value is outside its limits."""
        parts = [bytes((VERSION, SUITE_P256_SHA256))]
        for name, size, low, high in self.fields:
            if high < 0:
                text = bytes_problem(name, statement.octets[name], size)
                parts.append(statement.octets[name])
            else:
                text = _problem(name, statement.numbers[name], low, high)
                # A wrong value is refused below, before it is packed.
                parts.append(b"" if text else statement.numbers[name].to_bytes(size, "big"))
            if text:
                raise EncodeError(text)
        return b"".join(parts)

    def message(self, body: bytes) -> bytes:
        """Return what the key signs."""
        return self.domain + body

    def seal(self, body: bytes, signature: bytes) -> bytes:
        """Return the frame; EncodeError when a part has the wrong size."""
        text = bytes_problem("body", body, self.body_size) or bytes_problem("signature", signature, SIGNATURE_SIZE)
        if text:
            raise EncodeError(text)
        return body + signature

    def decode(self, frame: bytes) -> Statement:
        """Return the statement of a frame; the signature is NOT checked here. DecodeError("<name>-...")."""
        text = bytes_problem("frame", frame, self.size)
        if text:
            raise DecodeError(self.name + "-size", text)
        if frame[0] != VERSION:
            raise DecodeError(self.name + "-version", "version %d, expected %d" % (frame[0], VERSION))
        if frame[1] != SUITE_P256_SHA256:
            raise DecodeError(self.name + "-suite", "suite %d, expected %d" % (frame[1], SUITE_P256_SHA256))
        statement = Statement({}, {})
        offset = 2
        for name, size, low, high in self.fields:
            value = frame[offset : offset + size]
            offset += size
            if high < 0:
                statement.octets[name] = value
                continue
            number = int.from_bytes(value, "big")
            text = _problem(name, number, low, high)
            if text:
                raise DecodeError(self.name + "-field", text)
            statement.numbers[name] = number
        return statement

    def body_of(self, frame: bytes) -> bytes:
        """Return the signed bytes of a frame that `decode` took."""
        return frame[: self.body_size]

    def signature_of(self, frame: bytes) -> bytes:
        """Return the signature of a frame that `decode` took."""
        return frame[self.body_size :]


def _problem(name: str, value: object, low: int, high: int) -> str:
    if name == "time_quality":
        return quality_problem(value)
    return integer_problem(name, value, low, high)


_BYTES = -1  # stands for "high" of a field of bytes
_QUALITY = ("time_quality", 1, 0, max(TIME_QUALITIES))

EVENT = Layout(
    "event",
    b"wattpact/1/event\x00",
    (
        ("plug_id", ID_SIZE, 0, _BYTES),
        ("boot_id", 4, 0, U32_MAX),
        ("number", 4, 1, U32_MAX),
        ("kind", 1, APPLIANCE_ON, COMMAND_REFUSED),
        ("time_s", 4, 0, U32_MAX),
        _QUALITY,
        ("checkpoint", 4, 0, U32_MAX),
        ("import_mwh", 8, 0, U53_MAX),
        ("first", 8, 0, U53_MAX),
        ("last", 8, 0, U53_MAX),
    ),
)
"""Something that happened to a plug. `first` and `last` depend on `kind`; WIRE.md 10.1 has the table."""

ENROLMENT = Layout(
    "enrolment",
    b"wattpact/1/enrolment\x00",
    (
        ("network", HASH_SIZE, 0, _BYTES),
        ("public", PUBLIC_KEY_SIZE, 0, _BYTES),
        ("key_class", 1, KEY_SECURE, KEY_PLAIN),
        ("rated_w", 4, 1, 100000),
        ("firmware_hash", HASH_SIZE, 0, _BYTES),
        ("calibration_hash", HASH_SIZE, 0, _BYTES),
        ("challenge", CHALLENGE_SIZE, 0, _BYTES),
    ),
)
"""What a new plug says about itself, signed by its own key; `challenge` is the tool's, so that it is not a replay."""

TIME = Layout(
    "time",
    b"wattpact/1/time\x00",
    (
        ("plug_id", ID_SIZE, 0, _BYTES),
        ("nonce", NONCE_SIZE, 0, _BYTES),
        ("time_s", 4, 0, U32_MAX),
        ("time_ms", 2, 0, 999),
        _QUALITY,
    ),
)
"""A gateway's answer to a plug's nonce, signed by the gateway's key: the time, and how good the gateway's clock is."""
