"""ECDSA over NIST P-256 with SHA-256, for devices that have no C library for it (WIRE.md section 2).

Strategy
Signing multiplies the generator by a fixed-base comb (Lim and Lee): the scalar is cut into 6 rows of 43 bits, the 63
sums of 2^(43 j) G lie in p256_table, and 43 doublings with at most 43 additions give the point. Verification
interleaves the doublings of u1 G and u2 Q (Straus, "Shamir's trick"): u2 as a non-adjacent form over 257 doublings,
the comb of u1 riding on the last 43 of them. Reduction is the interpreter's own `%`, which beats any reduction
written in Python; inverses are the extended Euclid, several times faster than a power.

Side channels   Python integers are not constant in time. Three blinds, drawn from the nonce generator and therefore
secret, keep the visible work apart from the secret: a multiple of n on the scalar, a random Z in the accumulator, and a
factor on the nonce while it is inverted. This raises the price of a timing attack; it is no proof.
"""

import hashlib

from watt_wire.errors import EncodeError
from watt_wire.p256_table import TABLE

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5
HALF_N = N >> 1

COMB_ROWS = 6
COMB_COLUMNS = 43
SCALAR_BITS = 258
"""Doublings of a whole verification, at most: a non-adjacent form is one digit longer than its number."""

_INFINITY = (1, 1, 0)  # Jacobian X, Y, Z; x = X / Z^2, y = Y / Z^3


def public_key(private: bytes) -> bytes:
    """Return X||Y (64 bytes) of a 32-byte private key; EncodeError when the key is not in 1..n-1."""
    x, y = _affine(_multiply_base(_private_scalar(private), 1))
    return _bytes32(x) + _bytes32(y)


def sign(private: bytes, message: bytes) -> bytes:
    """Return r||s (64 bytes) with s <= n/2 over SHA-256(message); the nonce is that of RFC 6979 section 3.2.

    EncodeError when the private key is not 32 bytes in 1..n-1.
    """
    scalar = _private_scalar(private)
    digest = hashlib.sha256(message).digest()
    z = int.from_bytes(digest, "big")
    nonces = _Nonces(private, digest)
    while True:
        k = nonces.next()
        point = _multiply_base(k + (nonces.blind(0) & 3) * N, nonces.blind(1) % P or 1)
        r = _affine(point)[0] % N
        mask = nonces.blind(2) % N or 1
        s = _inverse(k * mask % N, N) * mask * ((z + r * scalar) % N) % N
        if r and s:
            return _bytes32(r) + _bytes32(s if s <= HALF_N else N - s)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature is good AND has s <= n/2: the check of this wire. Never raises on hostile input."""
    return is_low_s(signature) and verify_ecdsa(public, message, signature)


def is_low_s(signature: bytes) -> bool:
    """Tell whether the s of a 64-byte signature is at most n/2 (of s and n - s, which both verify, the smaller)."""
    return len(signature) == 64 and int.from_bytes(signature[32:], "big") <= HALF_N


def verify_ecdsa(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature is good under plain ECDSA, high s allowed (FIPS 186-5 section 6.4.2).

    For known-answer tests; the wire uses `verify`. Never raises on hostile input.
    """
    work = Verification(public, message, signature)
    while not work.step(SCALAR_BITS):
        pass
    return work.good


class Verification:
    """Plain ECDSA verification in slices, so that a slow processor can feed its watchdog in between.

    `step` does up to `positions` of about 257 doublings and returns True when it is done; `good` is the verdict,
    False until then. Never raises on hostile input. The strict rule of the wire asks for `is_low_s` as well.
    """

    def __init__(self, public: bytes, message: bytes, signature: bytes) -> None:
        self.good = False
        self.done = True
        if len(signature) != 64 or not is_public_key(public):
            return
        self._r = int.from_bytes(signature[:32], "big")
        s = int.from_bytes(signature[32:], "big")
        if not 0 < self._r < N or not 0 < s < N:
            return
        inverse = _inverse(s, N)
        u1 = int.from_bytes(hashlib.sha256(message).digest(), "big") * inverse % N
        public_x, public_y = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
        self._product = _Product(u1, self._r * inverse % N, public_x, public_y)
        self.done = False

    def step(self, positions: int) -> bool:
        """Go on by some doublings; return whether the verdict stands."""
        if not self.done and self._product.step(positions):
            self.done = True
            self.good = _is_x_of(self._product.point, self._r)
        return self.done


def _is_x_of(point: tuple[int, int, int], r: int) -> bool:
    x, _, z = point
    if z == 0:
        return False
    # x / z^2 mod p, taken mod n, equals r when it is r or r + n; both sides are compared times z^2, with no inverse.
    zz = z * z % P
    return (x - r * zz) % P == 0 or (r + N < P and (x - (r + N) * zz) % P == 0)


def shared_secret(private: bytes, public: bytes) -> bytes:
    """Return the x coordinate (32 bytes) of private * public: Diffie and Hellman's exchange (NIST SP 800-56A 5.7.1.2).

    For ephemeral keys: the time it takes tells something about `private`. EncodeError for keys that are none.
    """
    if not is_public_key(public):
        raise EncodeError("not a point of the curve")
    product = _Product(
        0, _private_scalar(private), int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
    )
    product.step(SCALAR_BITS)
    # The order is prime and the scalar is below it, so the product is never the point at infinity.
    return _bytes32(_affine(product.point)[0])


def is_public_key(public: bytes) -> bool:
    """Tell whether 64 bytes X||Y are a point of the curve (the cofactor is 1, so on the curve is in the group)."""
    if not isinstance(public, bytes) or len(public) != 64:
        return False
    x = int.from_bytes(public[:32], "big")
    y = int.from_bytes(public[32:], "big")
    return x < P and y < P and (y * y - (x * x - 3) * x - B) % P == 0


class _Nonces:
    """The generator of RFC 6979 section 3.2, steps b to h, for SHA-256 and a 256-bit order."""

    def __init__(self, private: bytes, digest: bytes) -> None:
        seed = private + _bytes32(int.from_bytes(digest, "big") % N)
        self._v = b"\x01" * 32
        self._k = hmac_sha256(b"\x00" * 32, self._v + b"\x00" + seed)
        self._v = hmac_sha256(self._k, self._v)
        self._k = hmac_sha256(self._k, self._v + b"\x01" + seed)
        self._v = hmac_sha256(self._k, self._v)

    def next(self) -> int:
        """Return the next nonce in 1..n-1; a second call gives the one to use when the first led to r or s of 0."""
        while True:
            self._v = hmac_sha256(self._k, self._v)
            k = int.from_bytes(self._v, "big")
            # Step h.3 for the call after this one. Doing it now changes no nonce and needs no flag.
            blind_key = self._k
            self._k = hmac_sha256(self._k, self._v + b"\x00")
            self._v = hmac_sha256(self._k, self._v)
            if 0 < k < N:
                self._blind_key = blind_key
                return k

    def blind(self, number: int) -> int:
        """Return a secret 256-bit integer that no nonce depends on; a label keeps it apart from the V values."""
        return int.from_bytes(hmac_sha256(self._blind_key, b"wattpact blind" + bytes([number])), "big")


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA-256 (RFC 2104) for keys up to 64 bytes; EncodeError for longer ones."""
    if len(key) > 64:
        raise EncodeError("key has %d bytes, at most 64" % len(key))
    padded = key + b"\x00" * (64 - len(key))
    inner = hashlib.sha256(bytes([b ^ 0x36 for b in padded]) + message).digest()
    return hashlib.sha256(bytes([b ^ 0x5C for b in padded]) + inner).digest()


def _private_scalar(private: bytes) -> int:
    if not isinstance(private, bytes) or len(private) != 32:
        raise EncodeError("a private key is 32 bytes")
    scalar = int.from_bytes(private, "big")
    if not 0 < scalar < N:
        raise EncodeError("private key is outside 1..n-1")
    return scalar


def _bytes32(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _inverse(value: int, modulus: int) -> int:
    """Return 1 / value mod a prime modulus by the extended Euclid; value mod modulus is not 0.

    Not pow(value, -1, modulus): MicroPython answers 0 to that.
    """
    low, high = value % modulus, modulus
    a, b = 1, 0
    while low > 1:
        quotient = high // low
        low, high, a, b = high - quotient * low, low, b - quotient * a, a
    return a % modulus


def _affine(point: tuple[int, int, int]) -> tuple[int, int]:
    x, y, z = point
    inverse = _inverse(z, P)
    square = inverse * inverse % P
    return x * square % P, y * square * inverse % P


def _double(point: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return 2 P in Jacobian coordinates for a = -3 (dbl-2001-b of the Explicit-Formulas Database)."""
    x, y, z = point
    if z == 0:
        return point
    delta = z * z % P
    gamma = y * y % P
    beta = x * gamma % P
    alpha = 3 * (x - delta) * (x + delta) % P
    x3 = (alpha * alpha - 8 * beta) % P
    return x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % P, 2 * y * z % P


def _add(point: tuple[int, int, int], qx: int, qy: int) -> tuple[int, int, int]:
    """Return P + Q, Q affine and not infinity; complete: equal and opposite points are met in verification."""
    x, y, z = point
    if z == 0:
        return qx, qy, 1
    zz = z * z % P
    h = (qx * zz - x) % P
    slope = (qy * zz * z - y) % P
    if h == 0:
        return _double(point) if slope == 0 else _INFINITY
    hh = h * h % P
    hhh = h * hh % P
    v = x * hh % P
    x3 = (slope * slope - hhh - 2 * v) % P
    return x3, (slope * (v - x3) - y * hhh) % P, z * h % P


def _table_entry(index: int) -> tuple[int, int]:
    """Return entry 1..63 of the comb table: the sum of 2^(43 j) G over the bits j set in index."""
    at = (index - 1) * 64
    return int.from_bytes(TABLE[at : at + 32], "big"), int.from_bytes(TABLE[at + 32 : at + 64], "big")


def _comb_index(scalar: int, column: int) -> int:
    index = 0
    for row in range(COMB_ROWS - 1, -1, -1):
        index = (index << 1) | ((scalar >> (row * COMB_COLUMNS + column)) & 1)
    return index


def _multiply_base(scalar: int, blind: int) -> tuple[int, int, int]:
    """Return scalar * G for 0 <= scalar < 2^258; blind, in 1..p-1, is the Z that the accumulator starts with."""
    point = _INFINITY
    for column in range(COMB_COLUMNS - 1, -1, -1):
        point = _double(point)
        index = _comb_index(scalar, column)
        if index:
            x, y = _table_entry(index)
            if point[2] == 0:
                square = blind * blind % P
                point = x * square % P, y * square * blind % P, blind
            else:
                point = _add(point, x, y)
    return point


class _Product:
    """u1 * G + u2 * Q by one chain of doublings, in slices; `point` is the result once `step` returned True."""

    def __init__(self, u1: int, u2: int, qx: int, qy: int) -> None:
        self._u1 = u1
        self._qx = qx
        self._qy = qy
        self._digits = _signed_digits(u2)
        self._position = len(self._digits)
        self.point = _INFINITY

    def step(self, positions: int) -> bool:
        point = self.point
        while self._position and positions:
            positions -= 1
            self._position -= 1
            point = _double(point)
            digit = self._digits[self._position]
            if digit:
                point = _add(point, self._qx, self._qy if digit == 1 else P - self._qy)
            if self._position < COMB_COLUMNS:
                index = _comb_index(self._u1, self._position)
                if index:
                    x, y = _table_entry(index)
                    point = _add(point, x, y)
        self.point = point
        return not self._position


def _signed_digits(scalar: int) -> bytearray:
    """Return the non-adjacent form, lowest digit first: 0, 1, or 2 for -1; at least COMB_COLUMNS digits."""
    digits = bytearray()
    while scalar or len(digits) < COMB_COLUMNS:
        if scalar & 1:
            digit = scalar & 3  # 1 or 3; 3 means -1
            scalar += 1 if digit == 3 else -1
            digits.append(2 if digit == 3 else 1)
        else:
            digits.append(0)
        scalar >>= 1
    return digits
