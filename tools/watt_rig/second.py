"""The second implementation of ECDSA on the bench: the one module of it that imports `ecdsa`.

What it signs and verifies was never near the plug's arithmetic or the gateway's OpenSSL, so one error does not hide
another.
"""

from __future__ import annotations

import hashlib

import ecdsa

CURVE = ecdsa.NIST256p


def new_secret() -> bytes:
    """A private key, 32 bytes."""
    return bytes(ecdsa.SigningKey.generate(CURVE).to_string())


def public_of(secret: bytes) -> bytes:
    """X || Y of a private key."""
    return bytes(ecdsa.SigningKey.from_string(secret, CURVE).verifying_key.to_string())


def sign_digest(secret: bytes, digest: bytes) -> bytes:
    """r || s over a digest, with a random nonce; s may be high."""
    return bytes(ecdsa.SigningKey.from_string(secret, CURVE).sign_digest(digest))


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature over SHA-256 of the message is good."""
    try:
        return bool(ecdsa.VerifyingKey.from_string(public, CURVE, hashlib.sha256).verify(signature, message))
    except Exception:  # the library raises more than its own class for some hostile signatures
        return False
