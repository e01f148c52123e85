"""The arithmetic of a chain in its plainest form, for the second implementation: hashlib and msgpack alone."""

import struct
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate

from msgspec import msgpack


def quorum_of(n: int) -> int:
    """ceil((n + f + 1) / 2) with f = floor((n - 1) / 3)."""
    f = (n - 1) // 3
    return -(-(n + f + 1) // 2)


def merkle_root(data: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, by its recursive definition."""
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return sha256(b"\x01" + merkle_root(data[:split]) + merkle_root(data[split:])).digest()


def signing(domain: bytes, network: bytes, body: bytes) -> bytes:
    """The bytes a signature covers."""
    return b"wattpact/1/" + domain + b"\x00" + network + body


def hash_of(network: bytes, header: bytes) -> bytes:
    """What validators vote for."""
    return sha256(signing(b"header", network, header)).digest()


def vote_of(network: bytes, phase: str, chain: int, height: int, view: int, hash_: bytes) -> bytes:
    """What a vote signs."""
    return signing(b"vote", network, msgpack.encode([phase, chain, height, view, hash_]))


def draw(seed: bytes, height: int, weights: Sequence[int]) -> list[int]:
    """Places drawn without replacement, each in proportion to its weight (CONSENSUS.md 6.5.1)."""
    left = list(enumerate(weights))
    found: list[int] = []
    while left:
        step = b"wattpact/1/draw\x00" + seed + struct.pack(">QH", height, len(found))
        bounds = list(accumulate(weight for _, weight in left))
        mark = int(sha256(step).hexdigest(), 16) % bounds[-1]
        found.append(left.pop(sum(bound <= mark for bound in bounds))[0])
    return found
