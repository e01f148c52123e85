"""Fake curve arithmetic under the product's own signature code, for worlds in which contracts verify signatures.

`crypto.verify` is called deep inside contracts, so it cannot be handed in as for a replica. Within `cheap_signatures`
keys sign with a hash under their *public* key, and a public key checks that; lengths, ranges, the low half of s and
the point of a key are tested by the product's code as ever. As in `fakes`, nobody forges one except on purpose.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from watt_chain import crypto

HALF = 31
"""Bytes of r and of s that are hash; the leading zero keeps both in range."""


def _sign(key: crypto.PrivateKey, message: bytes) -> bytes:
    digest = blake2b(message, key=key.public, digest_size=2 * HALF).digest()
    return b"\0" + digest[:HALF] + b"\0" + digest[HALF:]


class _Public:
    """A point whose signatures are hashes."""

    __slots__ = ("_public",)

    def __init__(self, public: bytes) -> None:
        self._public = public

    def verify(self, signature: bytes, message: bytes, _: object) -> None:
        """As cryptography's: raises InvalidSignature."""
        r, s = decode_dss_signature(signature)
        digest = blake2b(message, key=self._public, digest_size=2 * HALF).digest()
        if r != int.from_bytes(digest[:HALF], "big") or s != int.from_bytes(digest[HALF:], "big"):
            raise InvalidSignature


@contextmanager
def cheap_signatures() -> Iterator[None]:
    """Everything signed and verified in this block is so by hashes. What was signed outside of it does not hold."""
    load, sign = crypto._load, crypto.PrivateKey.sign

    @lru_cache(maxsize=1024)
    def load_cheap(public: bytes) -> _Public | None:
        return None if load(public) is None else _Public(public)

    crypto._load = load_cheap  # type: ignore[assignment]  # what `verify` uses of it is there
    crypto.PrivateKey.sign = _sign  # type: ignore[method-assign, assignment]  # its first argument has another name
    try:
        yield
    finally:
        crypto._load = load
        crypto.PrivateKey.sign = sign  # type: ignore[method-assign]
