"""The plug's end of pairing, without I/O: writes of the GATT characteristic in, notifications out (WIRE.md 12).

`ble.py` is the shell. What the tool hands over is collected and given to the owner as a whole by `settings`, once:
there is no half-provisioned plug. Nothing secret leaves it; both private keys stay where `Identity` keeps them.
"""

import hashlib

from watt_wire import p256, pairing, statement
from watt_wire.errors import DecodeError
from watt_wire.fields import HASH_SIZE, PUBLIC_KEY_SIZE

from watt_plug.signer import new_private

GUESSES_MAX = 5
"Wrong proofs until the plug is started again: 80 bits are not guessed anyway, this is for the log."
PARTIES_MAX = 8
NAME_MAX = 64
CERTIFICATE_MAX = 1536
NEEDED = (
    pairing.FIELD_WIFI_SSID,
    pairing.FIELD_GATEWAY,
    pairing.FIELD_BROKER_HOST,
    pairing.FIELD_BROKER_PORT,
    pairing.FIELD_CA,
    pairing.FIELD_CERTIFICATE,
    pairing.FIELD_GATEWAY_KEY,
    pairing.FIELD_NETWORK,
)
SIZES = {
    pairing.FIELD_WIFI_SSID: (1, 32),
    pairing.FIELD_WIFI_PASSWORD: (0, NAME_MAX),
    pairing.FIELD_GATEWAY: (1, 32),
    pairing.FIELD_BROKER_HOST: (1, NAME_MAX),
    pairing.FIELD_BROKER_PORT: (2, 2),
    pairing.FIELD_CA: (1, CERTIFICATE_MAX),
    pairing.FIELD_CERTIFICATE: (1, CERTIFICATE_MAX),
    pairing.FIELD_GATEWAY_KEY: (PUBLIC_KEY_SIZE, PUBLIC_KEY_SIZE),
    pairing.FIELD_NETWORK: (HASH_SIZE, HASH_SIZE),
    pairing.FIELD_PARTY: (1 + PUBLIC_KEY_SIZE, 1 + PUBLIC_KEY_SIZE),
    pairing.FIELD_ESSENTIAL: (1, 1),
    pairing.FIELD_UTC_OFFSET_S: (4, 4),
}
TEXT_NAMES = {
    pairing.FIELD_WIFI_SSID: "wifi_ssid",
    pairing.FIELD_WIFI_PASSWORD: "wifi_password",
    pairing.FIELD_GATEWAY: "gateway",
    pairing.FIELD_BROKER_HOST: "broker_host",
}
HEX_NAMES = {
    pairing.FIELD_CA: "ca",
    pairing.FIELD_CERTIFICATE: "certificate",
    pairing.FIELD_GATEWAY_KEY: "gateway_key",
    pairing.FIELD_NETWORK: "network",
}

OPEN = 0
PROVEN = 1
LOCKED = 2


class Identity:
    """What a plug can say about itself. `enrolment` makes the signed frame of WIRE.md 10.2."""

    public = b""
    tls_public = b""

    def enrolment(self, network: bytes, challenge: bytes) -> bytes:
        raise NotImplementedError


class Provisioner:
    """One plug that waits for a household.

    code      the printed code
    random    random(n) -> n bytes, from the chip's generator
    """

    def __init__(self, code: str, identity: Identity, random: object) -> None:
        assert pairing.is_code(code)
        self._code = code
        self._identity = identity
        self._random = random
        self._assembler = pairing.Assembler()
        self._keys: "pairing.Keys | None" = None
        self._in: "pairing.Sealer | None" = None
        self._out: "pairing.Sealer | None" = None
        self._pending: "dict[str, object] | None" = None
        self._guesses = 0
        self.settings: "dict[str, object] | None" = None
        "What config.json is to hold, once the tool has said `apply`."
        self.rejected: dict[str, int] = {}

    @property
    def state(self) -> int:
        if self._guesses >= GUESSES_MAX:
            return LOCKED
        return PROVEN if self._in is not None else OPEN

    def info(self) -> bytes:
        """Return what the read characteristic shows."""
        return bytes((pairing.VERSION, self.state)) + hashlib.sha256(self._identity.public).digest()[:8]

    def disconnected(self) -> None:
        """The tool is gone: the next one begins from the start. Wrong guesses stay counted."""
        self._assembler = pairing.Assembler()
        self._keys = self._in = self._out = self._pending = None

    def write(self, fragment: bytes) -> "list[bytes]":
        """Take one write; return the notifications to send. Never raises on hostile input."""
        try:
            message = self._assembler.add(fragment)
            if message is None:
                return []
            return pairing.fragments(self._handle(message[0], message[1:]))
        except DecodeError as error:
            self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1
            self.disconnected()
            return pairing.fragments(bytes((pairing.REFUSED,)) + error.reason.encode())

    def _handle(self, kind: int, body: bytes) -> bytes:
        if self.state == LOCKED:
            raise DecodeError("pairing-locked")
        if kind == pairing.HELLO and self._in is None:
            return bytes((pairing.HELLO_REPLY,)) + self._hello(body)
        if kind == pairing.CONFIRM and self._keys is not None and self._in is None:
            keys = self._keys
            self._keys = None  # one proof per exchange of keys
            if not pairing.same(body, keys.tool_proof):
                self._guesses += 1
                raise DecodeError("pairing-proof")
            self._in = pairing.Sealer(keys.to_plug)
            self._out = pairing.Sealer(keys.to_tool)
            return bytes((pairing.CONFIRM_REPLY,)) + keys.plug_proof
        if kind == pairing.SEALED and self._in is not None and self._out is not None:
            plain = self._in.open(body)
            return bytes((pairing.SEALED_REPLY,)) + self._out.seal(self._answer(plain[:1], plain[1:]))
        raise DecodeError("pairing-order")

    def _hello(self, body: bytes) -> bytes:
        size = 1 + PUBLIC_KEY_SIZE + pairing.NONCE_SIZE
        public = body[1 : 1 + PUBLIC_KEY_SIZE]
        if len(body) != size or body[0] != pairing.VERSION or not p256.is_public_key(public):
            raise DecodeError("pairing-hello")
        private = new_private(self._random)
        answer = bytes((pairing.VERSION,)) + p256.public_key(private) + self._random(pairing.NONCE_SIZE)  # type: ignore[operator]
        transcript = hashlib.sha256(body + answer).digest()
        self._keys = pairing.Keys(self._code, p256.shared_secret(private, public), transcript)
        return answer

    def _answer(self, kind: bytes, body: bytes) -> bytes:
        """Return the inner answer to an inner message. What the tool did wrong here does not end the conversation."""
        if kind == bytes((pairing.IDENTIFY,)) and len(body) == HASH_SIZE + statement.CHALLENGE_SIZE:
            frame = self._identity.enrolment(body[:HASH_SIZE], body[HASH_SIZE:])
            return bytes((pairing.IDENTITY,)) + frame + self._identity.tls_public
        if kind == bytes((pairing.SETTINGS,)):
            try:
                self._pending = settings_of(pairing.decode_fields(body))
            except DecodeError as error:
                return bytes((pairing.REJECTED,)) + str(error).encode()
            return bytes((pairing.ACCEPTED,))
        if kind == bytes((pairing.APPLY,)) and self._pending is not None:
            self.settings = self._pending
            return bytes((pairing.APPLIED,))
        return bytes((pairing.REJECTED,)) + b"not due"


def settings_of(fields: "list[tuple[int, bytes]]") -> "dict[str, object]":
    """Return what config.json holds; DecodeError("pairing-field") names the field that is missing or wrong."""
    seen = []
    parties: list[object] = []
    settings: dict[str, object] = {"wifi_password": "", "essential": 0, "utc_offset_s": 0, "parties": parties}
    for tag, value in fields:
        low, high = SIZES[tag]
        if not low <= len(value) <= high or (tag in seen and tag != pairing.FIELD_PARTY):
            raise DecodeError("pairing-field", "field %d has %d bytes or comes twice" % (tag, len(value)))
        seen.append(tag)
        if tag in TEXT_NAMES:
            try:
                settings[TEXT_NAMES[tag]] = value.decode()
            except (UnicodeError, ValueError):
                raise DecodeError("pairing-field", "field %d is not text" % tag)
        elif tag in HEX_NAMES:
            settings[HEX_NAMES[tag]] = value.hex()
        elif tag == pairing.FIELD_PARTY:
            parties.append([value[0], value[1:].hex()])
        elif tag == pairing.FIELD_BROKER_PORT:
            settings["broker_port"] = value[0] << 8 | value[1]
        elif tag == pairing.FIELD_ESSENTIAL:
            settings["essential"] = value[0] & 1
        else:
            number = int.from_bytes(value, "big")
            settings["utc_offset_s"] = number - (1 << 32) if value[0] & 0x80 else number
    for tag in NEEDED:
        if tag not in seen:
            raise DecodeError("pairing-field", "field %d is missing" % tag)
    if len(parties) > PARTIES_MAX:
        raise DecodeError("pairing-field", "%d parties, at most %d" % (len(parties), PARTIES_MAX))
    return settings
