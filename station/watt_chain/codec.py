"""The one byte format of the chain: msgpack arrays, one encoding per value (CONSENSUS.md 2.1).

Everything that is hashed or signed on a chain is a `Structure`: an array with a fixed order of fields, no
names, no optional tail. msgpack allows several spellings of the same value (a 1 in five bytes, a string
where bytes were meant); `decode` therefore encodes what it read again and refuses anything that does not
come back as the same bytes. So a hash names one value, and a value has one hash.
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

MESSAGE_SIZE_MAX = 4 * 1024 * 1024
"""Largest structure anybody may send: the length limit of one peer frame (4 MiB)."""

Hash32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Signature64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Id8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
U63 = Annotated[int, Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
Name = Annotated[str, Meta(min_length=1, max_length=32, pattern="^[a-z0-9-]+$")]

ZERO32 = bytes(32)


class Structure(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Base of everything that has bytes on the chain: a msgpack array, fields in the order written."""


class DecodeError(Exception):
    """The bytes are not what the format says: the sender's fault; drop them."""


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(value: Any) -> bytes:
    """The only bytes of a value. Integers must fit 64 bits; a `float` or a `set` is our bug, not checked here."""
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T], size_max: int = MESSAGE_SIZE_MAX) -> T:
    """Read `kind` from `data`.

    Raises DecodeError when `data` is longer than `size_max`, is not msgpack, does not fit `kind`, or is
    not the canonical spelling of what it says.
    """
    if len(data) > size_max:
        raise DecodeError(f"expected at most {size_max} bytes, got {len(data)}")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value: T = decoder.decode(data)
        again = _encoder.encode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise DecodeError(str(error)[:200]) from None
    if again != data:  # CONSENSUS.md 2.1: one value, one encoding
        raise DecodeError("not the canonical encoding")
    return value


class Memo:
    """Reads bytes to values and remembers them: the same bytes are taken apart once.

    Only for kinds whose fields are all bytes, text and numbers: a value is handed out many times, and must not have a
    list inside that somebody changes. Bounded like `VerifiedTransactions`: two generations, the older is forgotten.
    """

    __slots__ = ("_max", "_old", "_young")

    def __init__(self, max_entries: int) -> None:
        self._max = max_entries
        self._young: dict[tuple[Any, bytes], Any] = {}
        self._old: dict[tuple[Any, bytes], Any] = {}

    def decode(self, data: bytes, kind: type[T]) -> T:
        """As the module's `decode`."""
        name = (kind, data)
        found: T | None = self._young.get(name)
        if found is None:
            found = self._old.get(name)
            if found is None:
                found = decode(data, kind)
            self._keep(name, found)
        return found

    def encode(self, value: Any) -> bytes:
        """As the module's `encode`; the value will be read back."""
        data = _encoder.encode(value)
        self._keep((type(value), data), value)
        return data

    def _keep(self, name: tuple[Any, bytes], value: Any) -> None:
        self._young[name] = value
        if len(self._young) >= self._max:
            self._old, self._young = self._young, {}


def signing_bytes(domain: bytes, network: bytes, body: bytes) -> bytes:
    """What a signature covers: purpose, network, then the body, so that no signature serves two purposes."""
    return b"wattpact/1/" + domain + b"\x00" + network + body
