"""A switch command on its way through two offices: drafted, read, signed by each, then sealed (firmware/WIRE.md 6).

The file is JSON and small enough for a stick: `body` (the exact bytes that are signed) and one signature per office.
Nothing but the body is believed: what a person is shown is decoded from it each time, and a signature that does not
belong to it is an error.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from watt_chain import crypto
from watt_chain.codec import DecodeError as ChainDecodeError
from watt_chain.genesis import open_genesis
from watt_gateway.commands import OFFICES, Offices
from watt_wire import command
from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import ID_SIZE

FORMAT = 1
FILE_BYTES_MAX = 4096
ACTIONS = {"off": command.OFF, "on": command.ON, "release": command.RELEASE}
WITHIN_S = 900
"""A command that nobody obeyed within a quarter of an hour is void (reliability of the switch: short validity)."""


class OrderError(Exception):
    """The file or the wish cannot be used; the text says why."""


@dataclass(frozen=True)
class Wish:
    """What is to happen: `at_s` Unix s, the other spans in s."""

    plug: bytes
    action: str
    at_s: int
    counter: int
    hold_s: int = 0
    spread_s: int = 0
    within_s: int = WITHIN_S
    reference: str = ""
    "Contract, event or policy that gives the right; its SHA-256 is signed."


@dataclass
class Order:
    """A body with the signatures that it has so far, by signer id."""

    body: bytes
    signatures: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def command(self) -> command.Command:
        """The body's fields."""
        return command.decode(self.body + bytes(2 * 64))

    def sign(self, key: crypto.PrivateKey) -> None:
        """Add an office's signature; OrderError when this office is not one of the two."""
        signer = crypto.id8(key.public)
        if signer not in (self.command.signer_a, self.command.signer_b):
            raise OrderError("this key belongs to neither of the two offices that are to sign")
        self.signatures[signer] = key.sign(command.signing_message(self.body))

    def frame(self, offices: Offices) -> bytes:
        """The sealed command; OrderError when a signature is missing or wrong."""
        said = self.command
        missing = [offices.name(s) or s.hex() for s in (said.signer_a, said.signer_b) if s not in self.signatures]
        if missing:
            raise OrderError(f"not signed yet by {' and '.join(missing)}")
        frame = command.seal(self.body, self.signatures[said.signer_a], self.signatures[said.signer_b])
        if not offices.have_signed(said, frame):
            raise OrderError("the signatures are not those of two different offices of this network over this command")
        return frame

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        signatures = {signer.hex(): value.hex() for signer, value in sorted(self.signatures.items())}
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(
            json.dumps({"format": FORMAT, "body": self.body.hex(), "signatures": signatures}, indent=1) + "\n"
        )
        fresh.replace(path)


def draft(network: bytes, offices: Offices, signers: tuple[str, str], wish: Wish) -> Order:
    """A command that nobody has signed yet. OrderError for what no plug would take."""
    if set(signers) - set(OFFICES) or signers[0] == signers[1]:
        raise OrderError(f"signers {', '.join(signers)}: two different ones of {', '.join(OFFICES)}")
    ids = sorted(crypto.id8(offices.parties[OFFICES.index(name)][1]) for name in signers)
    said = command.Command(
        1,
        network,
        wish.plug,
        wish.counter,
        ACTIONS[wish.action],
        wish.at_s,
        wish.at_s + wish.within_s,
        wish.hold_s,
        wish.spread_s,
        crypto.sha256(wish.reference.encode()),
        ids[0],
        ids[1],
    )
    try:
        return Order(command.encode(said))
    except EncodeError as error:
        raise OrderError(str(error)) from None


def read(path: Path) -> Order:
    """Read a file; OrderError when it is none."""
    data = path.read_bytes()
    try:
        if len(data) > FILE_BYTES_MAX:
            raise ValueError("larger than any order")
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        signatures = {bytes.fromhex(signer): bytes.fromhex(value) for signer, value in found["signatures"].items()}
        order = Order(bytes.fromhex(found["body"]), signatures)
        order.command  # noqa: B018  # decodes, or raises
    except (ValueError, KeyError, TypeError, AttributeError, DecodeError) as error:
        raise OrderError(f"{path}: not an order: {error}") from None
    return order


def read_network(genesis: Path, regulator: str) -> tuple[bytes, Offices]:
    """(network, offices) of a genesis file; `regulator` is the key one trusts, "" takes the file's own word for it."""
    try:
        document, network = open_genesis(genesis.read_bytes(), bytes.fromhex(regulator) if regulator else None)
    except (ValueError, ChainDecodeError) as error:
        raise OrderError(f"{genesis}: {error}") from None
    return network, Offices.of(document)


def plug_id(text: str) -> bytes:
    """A plug's id as people type it: 16 hex digits. OrderError."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != ID_SIZE:
        raise OrderError(f"plug {text!r}: an id is {2 * ID_SIZE} hex digits")
    return found


def text(order: Order, offices: Offices | None, network: bytes = b"") -> str:
    """What a person is to read before signing."""
    said = order.command
    action = next(name for name, number in ACTIONS.items() if number == said.action)
    what = f"switch {action} for {_span(said.hold_s)}" if said.hold_s else "give the relay back"
    lines = [
        f"plug       {said.plug_id.hex()}",
        f"command    {said.counter}: {what}",
        f"valid      {_instant(said.not_before_s)} .. {_instant(said.expires_s)} UTC",
        f"spread     a random delay of 0 .. {max(said.spread_s, 600)} s, drawn by the plug",
        f"reference  {said.reference.hex()}",
    ]
    if network and said.network != network:
        lines.append(f"network    ANOTHER ONE: {said.network.hex()}")
    else:
        lines.append(f"network    {said.network.hex()}")
    for signer in (said.signer_a, said.signer_b):
        name = offices.name(signer) if offices is not None else ""
        state = "signed" if signer in order.signatures else "not signed yet"
        lines.append(f"office     {name or 'unknown'} {signer.hex()}: {state}")
    return "\n".join(lines)


def _instant(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_s))


def _span(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    parts = [
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes else "",
        f"{seconds % 60} s" if seconds % 60 else "",
    ]
    return " ".join(part for part in parts if part)
