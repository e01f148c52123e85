"""Switch command: asks one plug to change its relay, signed by two different parties (WIRE.md section 6).

Frame = 109 bytes of body + the two signatures over b"wattpact/1/command" 0x00 body, in the order of the signer ids
that the body names. The format carries what a plug needs to refuse: who asked, for whom, when it starts and lapses,
for how long, and a counter that makes each command good for one use. Whether a plug obeys is not decided here.
"""

import hashlib
import struct

from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import (
    HASH_SIZE,
    ID_SIZE,
    SIGNATURE_SIZE,
    SUITE_P256_SHA256,
    U32_MAX,
    bytes_problem,
    integer_problem,
    size_problem,
)

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable

    Verify = Callable[[bytes, bytes, bytes], bool]

VERSION = 1
DOMAIN = b"wattpact/1/command\x00"
_FORMAT = ">BB32s8sIBIIIH32s8s8s"
BODY_SIZE = 109
SIZE = BODY_SIZE + 2 * SIGNATURE_SIZE

OFF = 1
ON = 2
RELEASE = 3  # gives the relay back to the household; ends an OFF or ON before its time

WINDOW_S_MAX = 86400
"""Longest time from not_before_s to expires_s, s: a command stolen today is worth nothing tomorrow."""

HOLD_S_MAX = 14400
"""Longest time a relay is held, s: four hours, the longest event; afterwards the plug returns to its own state."""

SPREAD_S_MAX = 3600
"""Longest random delay, s: spreads many plugs so that a street does not switch in one second."""


class Command:
    """One command body.

    suite          1 = P-256 with SHA-256
    network        SHA-256 of the genesis file: a command of one network means nothing in another
    plug_id        8 bytes
    counter        rises with every command for this plug, from 1; a plug refuses what is not above its last one
    action         OFF, ON or RELEASE
    not_before_s   Unix s
    expires_s      Unix s, after not_before_s, at most WINDOW_S_MAX later
    hold_s         how long the relay is held, 1..HOLD_S_MAX; 0 for RELEASE
    spread_s       upper end of the random delay that the plug adds
    reference      32 bytes: hash of the contract, event or policy that gives the right
    signer_a       8 bytes, id of the first signer; below signer_b, so that one command has one encoding
    signer_b       8 bytes, id of the second signer
    """

    FIELDS = (
        "suite",
        "network",
        "plug_id",
        "counter",
        "action",
        "not_before_s",
        "expires_s",
        "hold_s",
        "spread_s",
        "reference",
        "signer_a",
        "signer_b",
    )

    def __init__(
        self,
        suite: int,
        network: bytes,
        plug_id: bytes,
        counter: int,
        action: int,
        not_before_s: int,
        expires_s: int,
        hold_s: int,
        spread_s: int,
        reference: bytes,
        signer_a: bytes,
        signer_b: bytes,
    ) -> None:
        self.suite = suite
        self.network = network
        self.plug_id = plug_id
        self.counter = counter
        self.action = action
        self.not_before_s = not_before_s
        self.expires_s = expires_s
        self.hold_s = hold_s
        self.spread_s = spread_s
        self.reference = reference
        self.signer_a = signer_a
        self.signer_b = signer_b

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Command) and all(getattr(self, n) == getattr(other, n) for n in self.FIELDS)

    def __hash__(self) -> int:
        return hash((self.plug_id, self.counter))

    def __repr__(self) -> str:
        return "Command(" + ", ".join("%s=%r" % (n, getattr(self, n)) for n in self.FIELDS) + ")"


def encode(command: Command) -> bytes:
    """Return the BODY_SIZE bytes to be signed (see signing_message); EncodeError outside the limits."""
    text = problem(command)
    if text:
        raise EncodeError(text)
    return struct.pack(
        _FORMAT,
        VERSION,
        command.suite,
        command.network,
        command.plug_id,
        command.counter,
        command.action,
        command.not_before_s,
        command.expires_s,
        command.hold_s,
        command.spread_s,
        command.reference,
        command.signer_a,
        command.signer_b,
    )


def seal(body: bytes, signature_a: bytes, signature_b: bytes) -> bytes:
    """Return the frame: body, signature of signer_a, signature of signer_b."""
    text = (
        bytes_problem("body", body, BODY_SIZE)
        or bytes_problem("signature_a", signature_a, SIGNATURE_SIZE)
        or bytes_problem("signature_b", signature_b, SIGNATURE_SIZE)
    )
    if text:
        raise EncodeError(text)
    return body + signature_a + signature_b


def decode(frame: bytes) -> Command:
    """Return the command in a frame of exactly SIZE bytes; the signatures are NOT checked here.

    Raises DecodeError("command-...").
    """
    text = size_problem(frame, SIZE)
    if text:
        raise DecodeError("command-size", text)
    values = struct.unpack(_FORMAT, frame[:BODY_SIZE])
    if values[0] != VERSION:
        raise DecodeError("command-version", "command version %d, expected %d" % (values[0], VERSION))
    if values[1] != SUITE_P256_SHA256:
        raise DecodeError("command-suite", "suite %d, expected %d" % (values[1], SUITE_P256_SHA256))
    command = Command(*values[1:])
    text = problem(command)
    if text:
        raise DecodeError("command-field", text)
    return command


def signing_message(body: bytes) -> bytes:
    """Return what both keys sign: the domain, then the body."""
    return DOMAIN + body


def verify(frame: bytes, public_a: bytes, public_b: bytes, verify_signature: "Verify") -> bool:
    """Tell whether a frame holds a command with good signatures of both keys, in the order the body names.

    public_a, public_b   64 bytes X||Y; the caller has made sure that they belong to different parties
    verify_signature     verify(public, message, signature) -> bool, strict (low s)
    Never raises on hostile frames.
    """
    try:
        command = decode(frame)
    except DecodeError:
        return False
    if hashlib.sha256(public_a).digest()[:ID_SIZE] != command.signer_a:
        return False
    if hashlib.sha256(public_b).digest()[:ID_SIZE] != command.signer_b:
        return False
    message = signing_message(frame[:BODY_SIZE])
    middle = BODY_SIZE + SIGNATURE_SIZE
    if not verify_signature(public_a, message, frame[BODY_SIZE:middle]):
        return False
    return verify_signature(public_b, message, frame[middle:])


def refusal(command: Command, network: bytes, plug_id: bytes, last_counter: int, now_s: int) -> str:
    """Return "" when the command is meant for this plug and fresh, else why not (counted by the plug).

    last_counter   counter of the last command that was not refused, 0 when there was none
    now_s          the plug's clock, Unix s; a plug whose clock is unsynchronised must not ask
    """
    if command.network != network:
        return "command-network"
    if command.plug_id != plug_id:
        return "command-plug"
    if command.counter <= last_counter:
        return "command-replayed"
    if now_s >= command.expires_s:
        return "command-expired"
    if now_s < command.not_before_s:
        return "command-early"
    return ""


def problem(command: Command) -> str:
    """Return "" when every field keeps its limits (WIRE.md section 6), else what is wrong first."""
    text = (
        integer_problem("suite", command.suite, SUITE_P256_SHA256, SUITE_P256_SHA256)
        or bytes_problem("network", command.network, HASH_SIZE)
        or bytes_problem("plug_id", command.plug_id, ID_SIZE)
        or integer_problem("counter", command.counter, 1, U32_MAX)
        or integer_problem("action", command.action, OFF, RELEASE)
        or integer_problem("not_before_s", command.not_before_s, 0, U32_MAX)
        or integer_problem("expires_s", command.expires_s, 0, U32_MAX)
        or integer_problem("hold_s", command.hold_s, 0, HOLD_S_MAX)
        or integer_problem("spread_s", command.spread_s, 0, SPREAD_S_MAX)
        or bytes_problem("reference", command.reference, HASH_SIZE)
        or bytes_problem("signer_a", command.signer_a, ID_SIZE)
        or bytes_problem("signer_b", command.signer_b, ID_SIZE)
    )
    if text:
        return text
    window_s = command.expires_s - command.not_before_s
    if not 0 < window_s <= WINDOW_S_MAX:
        return "window of %d s is outside 1..%d" % (window_s, WINDOW_S_MAX)
    if (command.hold_s == 0) != (command.action == RELEASE):
        return "hold_s is 0 for RELEASE and only for RELEASE"
    if command.signer_a >= command.signer_b:
        return "signer_a is not below signer_b"
    return ""
