"""Signatures and hashes of the chain: ECDSA P-256 with SHA-256, 64 raw bytes r || s (CONSENSUS.md 2.2).

The only module that knows the `cryptography` package. Nonces are those of RFC 6979, so signing the same
message twice gives the same bytes. Of the two valid values of s only the lower one is made and accepted:
otherwise anybody could turn one valid signature into another.
"""

import hashlib
import hmac
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order n of the P-256 group (FIPS 186-5 / SEC 2 section 2.4.2)."""
HALF_ORDER = ORDER // 2

LOADED_KEYS_MAX = 8192
"""Parsed public keys kept: about 500 households an area with plugs and peers; some 1 kB each."""

_CURVE = ec.SECP256R1()
_SIGNING = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_VERIFYING = ec.ECDSA(hashes.SHA256())


class PrivateKey:
    """A P-256 private key. `public` is X || Y, 64 bytes."""

    __slots__ = ("_key", "_secret", "public")

    def __init__(self, secret: bytes) -> None:
        """`secret` is the scalar, 32 bytes big-endian, 1 ... n-1. Raises ValueError for anything else."""
        scalar = int.from_bytes(secret, "big")
        if len(secret) != 32 or not 0 < scalar < ORDER:
            raise ValueError("a private key is 32 bytes, 1 to the group order")
        self._secret = secret
        self._key = ec.derive_private_key(scalar, _CURVE)
        numbers = self._key.public_key().public_numbers()
        self.public: bytes = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    @classmethod
    def from_bytes(cls, secret: bytes) -> "PrivateKey":
        """The key whose scalar is `secret` (32 bytes). Raises ValueError."""
        return cls(secret)

    @classmethod
    def from_text(cls, text: str) -> "PrivateKey":
        """The key in a key file: 64 hexadecimal characters and a newline. Raises ValueError."""
        return cls(bytes.fromhex(text.strip()))

    def to_bytes(self) -> bytes:
        """The scalar, 32 bytes. For key files only."""
        return self._secret

    def to_text(self) -> str:
        """The content of a key file."""
        return self._secret.hex() + "\n"

    def sign(self, message: bytes) -> bytes:
        """64 bytes r || s over SHA-256(message), s in the lower half."""
        r, s = decode_dss_signature(self._key.sign(message, _SIGNING))
        if s > HALF_ORDER:
            s = ORDER - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def derive(self, label: bytes) -> bytes:
        """32 secret bytes that only this key can make, the same for the same label: HMAC-SHA256(scalar, label).

        For what must be secret now and reproducible after a lost disk, as the salt of a sealed bid. Labels of different
        purposes start with different words, so no derived secret serves twice.
        """
        return hmac.digest(self._secret, label, "sha256")

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.hex()[:16]})"


@lru_cache(maxsize=LOADED_KEYS_MAX)
def _load(public: bytes) -> ec.EllipticCurvePublicKey | None:
    """Parsed key, or None when the 64 bytes are no point of the curve. Parsing costs a third of a verification."""
    if len(public) != 64:
        return None
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x04" + public)
    except ValueError:
        return None


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the low-s signature of `message` by `public`. Never raises on bytes."""
    if len(signature) != 64:
        return False
    key = _load(bytes(public))
    if key is None:
        return False
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (0 < r < ORDER and 0 < s <= HALF_ORDER):
        return False
    try:
        key.verify(encode_dss_signature(r, s), message, _VERIFYING)
    except InvalidSignature:
        return False
    return True


def sha256(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def id8(public: bytes) -> bytes:
    """The identity of a key: the first 8 bytes of its SHA-256."""
    return hashlib.sha256(public).digest()[:8]


def is_public_key(public: bytes) -> bool:
    """Whether the 64 bytes are a point of the curve."""
    return _load(bytes(public)) is not None
