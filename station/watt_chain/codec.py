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


def signing_bytes(domain: bytes, network: bytes, body: bytes) -> bytes:
    """What a signature covers: purpose, network, then the body, so that no signature serves two purposes."""
    return b"wattpact/1/" + domain + b"\x00" + network + body
