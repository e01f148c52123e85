"""Taking a plug into a household: the tool's side of WIRE.md 12, whatever carries it.

Order: prove the printed code, hear who the plug is (an enrolment signed by its own key over our challenge), certify
the TLS key it made, hand the household's settings over, let it apply them. What the plug says is believed only after
its signature was checked, and only for the plug whose id its read characteristic showed.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from watt_chain import crypto
from watt_wire import pairing, statement
from watt_wire.errors import DecodeError
from watt_wire.fields import PUBLIC_KEY_SIZE
from watt_wire.initiator import Initiator

ANSWER_S = 30
"An ESP32 makes two multiplications on P-256 for a handshake, half a second each; a radio repeats for seconds."
ANSWERS_MAX = 256
"Notifications of one plug that wait to be read: a message has at most 35 fragments."
STATES = ("open", "proven", "locked")


class PairingError(Exception):
    """The plug was not taken in; the text says why and what to do. Nothing on the plug has changed."""


class Carrier(Protocol):
    """A way to a plug's pairing service."""

    async def info(self) -> bytes: ...
    async def write(self, fragment: bytes) -> None: ...
    async def notification(self) -> bytes: ...


@dataclass(frozen=True)
class Household:
    """What a plug is told. `parties`: (number, public key) of those who may sign commands."""

    wifi_ssid: str
    wifi_password: str
    gateway: str
    broker_host: str
    broker_port: int
    ca_der: bytes
    gateway_public: bytes
    network: bytes
    parties: list[tuple[int, bytes]] = field(default_factory=list)
    essential: bool = False
    utc_offset_s: int = 0


@dataclass(frozen=True)
class NewPlug:
    """What a plug has said, checked. `enrolment` is the frame that the household's EnrolPlug copies from."""

    plug_id: bytes
    public: bytes
    key_class: str
    rated_w: int
    firmware_hash: bytes
    enrolment: bytes


Certify = Callable[[str, bytes], bytes]
"(common name, public key X || Y) -> certificate, DER"


async def pair(carrier: Carrier, code: str, household: Household, certify: Certify) -> NewPlug:
    """Take one plug in. PairingError, with the plug unchanged, when anything is not as it must be."""
    if not pairing.is_code(code):
        raise PairingError(f"a printed code has {pairing.CODE_LENGTH} characters of {pairing.CODE_CHARACTERS}")
    talk = _Talk(carrier, code)
    try:
        plug_id = _checked_info(await carrier.info())
        await talk.prove()
        plug, tls_public = await _identify(talk, plug_id, household.network)
        certificate = certify(plug_id.hex(), tls_public)
        await talk.ask(pairing.SETTINGS, _settings(household, certificate), pairing.ACCEPTED)
        await talk.ask(pairing.APPLY, b"", pairing.APPLIED)
    except TimeoutError:
        raise PairingError(f"the plug did not answer within {ANSWER_S} s") from None
    except DecodeError as error:
        raise PairingError(_explained(error)) from None
    return plug


def code_of_label(text: str) -> str:
    """A code as people type it: groups and small letters allowed, I and L read as 1, O as 0."""
    code = "".join(text.split()).replace("-", "").upper()
    return code.replace("I", "1").replace("L", "1").replace("O", "0")


class _Talk:
    """One conversation."""

    def __init__(self, carrier: Carrier, code: str) -> None:
        self._carrier = carrier
        self._initiator = Initiator(code, fresh_secret(), secrets.token_bytes(pairing.NONCE_SIZE))

    async def prove(self) -> None:
        """Both sides show that they know the code."""
        await self._write(self._initiator.hello())
        kind = 0
        while kind != pairing.CONFIRM_REPLY:
            kind, _ = await self._next()

    async def ask(self, kind: int, body: bytes, expected: int) -> bytes:
        """Send one sealed message and return the answer's body; PairingError when the plug rejects it."""
        await self._write(self._initiator.write(kind, body))
        got, answer = await self._next()
        if got == pairing.REJECTED:
            raise PairingError(f"the plug rejects the settings: {answer.decode(errors='replace')}")
        if got != expected:
            raise PairingError(f"the plug answered {got:#x}, expected {expected:#x}")
        return answer

    async def _write(self, fragments: list[bytes]) -> None:
        for fragment in fragments:
            await asyncio.wait_for(self._carrier.write(fragment), ANSWER_S)

    async def _next(self) -> tuple[int, bytes]:
        """The next whole message; what it calls for is written."""
        while True:
            heard = self._initiator.receive(await asyncio.wait_for(self._carrier.notification(), ANSWER_S))
            if heard is not None:
                fragments, kind, body = heard
                await self._write(fragments)
                return kind, body


async def _identify(talk: _Talk, plug_id: bytes, network: bytes) -> tuple[NewPlug, bytes]:
    challenge = secrets.token_bytes(statement.CHALLENGE_SIZE)
    answer = await talk.ask(pairing.IDENTIFY, network + challenge, pairing.IDENTITY)
    frame, tls_public = answer[:-PUBLIC_KEY_SIZE], answer[-PUBLIC_KEY_SIZE:]
    said = statement.ENROLMENT.decode(frame)
    public = said.data("public")
    body = statement.ENROLMENT.body_of(frame)
    if not crypto.verify(public, statement.ENROLMENT.message(body), statement.ENROLMENT.signature_of(frame)):
        raise PairingError("the plug's enrolment is not signed by the key that it names")
    if said.data("network") != network or said.data("challenge") != challenge:
        raise PairingError("the plug's enrolment answers another question: a replay?")
    if hashlib.sha256(public).digest()[:8] != plug_id:
        raise PairingError(f"the plug showed the id {plug_id.hex()} and has another key")
    key_class = statement.KEY_CLASSES[said.number("key_class")]
    plug = NewPlug(plug_id, public, key_class, said.number("rated_w"), said.data("firmware_hash"), frame)
    return plug, tls_public


def _settings(household: Household, certificate: bytes) -> bytes:
    fields = [
        (pairing.FIELD_WIFI_SSID, household.wifi_ssid.encode()),
        (pairing.FIELD_WIFI_PASSWORD, household.wifi_password.encode()),
        (pairing.FIELD_GATEWAY, household.gateway.encode()),
        (pairing.FIELD_BROKER_HOST, household.broker_host.encode()),
        (pairing.FIELD_BROKER_PORT, household.broker_port.to_bytes(2, "big")),
        (pairing.FIELD_CA, household.ca_der),
        (pairing.FIELD_CERTIFICATE, certificate),
        (pairing.FIELD_GATEWAY_KEY, household.gateway_public),
        (pairing.FIELD_NETWORK, household.network),
        (pairing.FIELD_ESSENTIAL, bytes((household.essential,))),
        (pairing.FIELD_UTC_OFFSET_S, household.utc_offset_s.to_bytes(4, "big", signed=True)),
    ]
    fields += [(pairing.FIELD_PARTY, bytes((number,)) + public) for number, public in household.parties]
    return pairing.encode_fields(fields)


def _checked_info(info: bytes) -> bytes:
    """The plug id; PairingError for another version or a locked plug."""
    if len(info) != 10 or info[0] != pairing.VERSION:
        raise PairingError(f"this plug speaks another version of pairing ({info[:1].hex() or 'none'})")
    if info[1] >= len(STATES) or STATES[info[1]] == "locked":
        raise PairingError("the plug is locked after wrong codes: unplug it and plug it in again")
    return info[2:]


def fresh_secret() -> bytes:
    """A new private key of P-256."""
    while True:
        secret = secrets.token_bytes(32)
        if 0 < int.from_bytes(secret, "big") < crypto.ORDER:
            return secret


def _explained(error: DecodeError) -> str:
    if error.reason in ("pairing-proof", "pairing-refused") and "proof" in str(error):
        return "the printed code is not that of this plug"
    return f"the conversation broke off: {error}"
