"""The conversation by which a tool takes a new plug into a household: handshake, sealed channel, fields (WIRE.md 12).

Strategy. The code printed on the plug has 80 bits, so an exchange of ephemeral keys on P-256, mixed with the code, is
enough: who does not know the code can neither answer nor listen, and no guess can be tried offline in useful time.
Both sides confirm before anything is said. After that each message is encrypted and authenticated with HMAC-SHA-256
in counter mode, then HMAC: the one primitive that every interpreter here has. Both directions count, so nothing can
be repeated, swapped or left out.

Pure: randomness comes in as an argument. Both ends import this file.
"""

import hashlib

from watt_wire import p256
from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import U16_MAX

SERVICE_UUID = "7a1c0001-5f0e-4f2e-9a54-7761747470c7"
INFO_UUID = "7a1c0002-5f0e-4f2e-9a54-7761747470c7"
WRITE_UUID = "7a1c0003-5f0e-4f2e-9a54-7761747470c7"
NOTIFY_UUID = "7a1c0004-5f0e-4f2e-9a54-7761747470c7"
"""The GATT service and its three characteristics: read, write with response, notify."""

VERSION = 1
CODE_LENGTH = 16
CODE_CHARACTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, no I L O U: 16 characters are 80 bits."""
FRAGMENT_MAX = 180
"""Bytes of one write or notification: what fits an ATT packet of 185 bytes, the size that phones agree to."""
MESSAGE_MAX = 4096
"""Bytes of one message: two certificates of a kilobyte each, and as much again."""
NONCE_SIZE = 16
TAG_SIZE = 16
_INDEX_MAX = 127

HELLO = 0x01
CONFIRM = 0x02
SEALED = 0x03
HELLO_REPLY = 0x81
CONFIRM_REPLY = 0x82
SEALED_REPLY = 0x83
REFUSED = 0xFF

IDENTIFY = 0x11
SETTINGS = 0x12
APPLY = 0x13
IDENTITY = 0x91
ACCEPTED = 0x92
APPLIED = 0x93
REJECTED = 0x9F

FIELD_WIFI_SSID = 1
FIELD_WIFI_PASSWORD = 2
FIELD_GATEWAY = 3
FIELD_BROKER_HOST = 4
FIELD_BROKER_PORT = 5
FIELD_CA = 6
FIELD_CERTIFICATE = 7
FIELD_GATEWAY_KEY = 8
FIELD_NETWORK = 9
FIELD_PARTY = 10
FIELD_ESSENTIAL = 11
FIELD_UTC_OFFSET_S = 12
FIELDS = tuple(range(FIELD_WIFI_SSID, FIELD_UTC_OFFSET_S + 1))


def is_code(text: str) -> bool:
    """Tell whether text is a printed code: CODE_LENGTH characters of CODE_CHARACTERS."""
    return len(text) == CODE_LENGTH and all(c in CODE_CHARACTERS for c in text)


def code_of(random: bytes) -> str:
    """Return the code made of 16 random bytes (five bits of each)."""
    return "".join([CODE_CHARACTERS[byte & 31] for byte in random[:CODE_LENGTH]])


def fragments(message: bytes) -> "list[bytes]":
    """Cut a message into writes: a byte of index with bit 7 on the last one, then up to FRAGMENT_MAX - 1 bytes."""
    if not 0 < len(message) <= MESSAGE_MAX:
        raise EncodeError("message of %d bytes, at most %d" % (len(message), MESSAGE_MAX))
    step = FRAGMENT_MAX - 1
    count = (len(message) + step - 1) // step
    result = []
    for index in range(count):
        last = 0x80 if index == count - 1 else 0
        result.append(bytes((index | last,)) + message[index * step : (index + 1) * step])
    return result


class Assembler:
    """Joins fragments; a gap, a repetition or too much data empties it and raises DecodeError."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, fragment: bytes) -> "bytes | None":
        """Take one fragment; return the message when it was the last. DecodeError("pairing-fragment")."""
        if not 2 <= len(fragment) <= FRAGMENT_MAX:
            self._parts = []
            raise DecodeError("pairing-fragment", "fragment of %d bytes" % len(fragment))
        index = fragment[0] & _INDEX_MAX
        if index == 0:
            self._parts = []
            self._size = 0
        self._size += len(fragment) - 1
        if index != len(self._parts) or self._size > MESSAGE_MAX:
            self._parts = []
            raise DecodeError("pairing-fragment", "fragment %d out of order" % index)
        self._parts.append(bytes(fragment[1:]))
        if not fragment[0] & 0x80:
            return None
        message = b"".join(self._parts)
        self._parts = []
        return message


class Keys:
    """What both ends compute from the exchange and the code: two proofs and one key per direction."""

    def __init__(self, code: str, secret: bytes, transcript: bytes) -> None:
        extracted = p256.hmac_sha256(hashlib.sha256(code.encode()).digest(), secret + transcript)
        self.tool_proof = p256.hmac_sha256(extracted, b"tool proves")
        self.plug_proof = p256.hmac_sha256(extracted, b"plug proves")
        self.to_plug = p256.hmac_sha256(extracted, b"to plug")
        self.to_tool = p256.hmac_sha256(extracted, b"to tool")


def same(first: bytes, second: bytes) -> bool:
    """Compare two byte strings of one size in a time that does not depend on where they differ."""
    if len(first) != len(second):
        return False
    difference = 0
    for index in range(len(first)):
        difference |= first[index] ^ second[index]
    return difference == 0


class Sealer:
    """One direction of the channel. counter 4 | ciphertext | tag 16; the counter must be the next one."""

    def __init__(self, key: bytes) -> None:
        self._cipher = p256.hmac_sha256(key, b"cipher")
        self._tag = p256.hmac_sha256(key, b"tag")
        self._counter = 0

    def seal(self, plain: bytes) -> bytes:
        """Return the sealed bytes of the next message."""
        self._counter += 1
        head = self._counter.to_bytes(4, "big")
        body = head + self._mask(head, plain)
        return body + p256.hmac_sha256(self._tag, body)[:TAG_SIZE]

    def open(self, data: bytes) -> bytes:
        """Return the plain bytes; DecodeError("pairing-seal") when the tag or the counter is wrong."""
        body, tag = data[:-TAG_SIZE], data[-TAG_SIZE:]
        if len(data) < 4 + TAG_SIZE or not same(p256.hmac_sha256(self._tag, body)[:TAG_SIZE], tag):
            raise DecodeError("pairing-seal", "tag is wrong")
        if int.from_bytes(body[:4], "big") != self._counter + 1:
            raise DecodeError("pairing-seal", "counter is not the next")
        self._counter += 1
        return self._mask(body[:4], body[4:])

    def _mask(self, head: bytes, data: bytes) -> bytes:
        out = bytearray(data)
        for start in range(0, len(out), 32):
            block = p256.hmac_sha256(self._cipher, head + start.to_bytes(4, "big"))
            for index in range(min(32, len(out) - start)):
                out[start + index] ^= block[index]
        return bytes(out)


def encode_fields(fields: "list[tuple[int, bytes]]") -> bytes:
    """Return the fields as tag 1, length 2, value; EncodeError for an unknown tag or a long value."""
    parts = []
    for tag, value in fields:
        if tag not in FIELDS or len(value) > U16_MAX:
            raise EncodeError("field %d of %d bytes" % (tag, len(value)))
        parts.append(bytes((tag,)) + len(value).to_bytes(2, "big") + value)
    return b"".join(parts)


def decode_fields(data: bytes) -> "list[tuple[int, bytes]]":
    """Return (tag, value) in order; DecodeError("pairing-field")."""
    fields = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        if at + 3 + length > len(data) or data[at] not in FIELDS:
            raise DecodeError("pairing-field", "field %d is unknown or cut short" % data[at])
        fields.append((data[at], data[at + 3 : at + 3 + length]))
        at += 3 + length
    return fields
