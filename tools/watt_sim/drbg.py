"""Randomness of the simulator: a keyed hash in counter mode, so a seed gives the same run everywhere and for ever."""

from collections.abc import Sequence
from hashlib import blake2b
from struct import unpack
from typing import TypeVar

T = TypeVar("T")

MILLION = 1_000_000
"""Chances are given in parts per million: the simulator has no floats."""


class Drbg:
    """A stream of numbers named by what it is for; streams of different names are independent."""

    __slots__ = ("_count", "_key", "_words")

    def __init__(self, *names: object) -> None:
        self._key = blake2b("/".join(map(str, names)).encode(), digest_size=32).digest()
        self._count = 0
        self._words: list[int] = []

    def word(self) -> int:
        """0 ... 2^32 - 1."""
        if not self._words:
            self._count += 1
            block = blake2b(self._count.to_bytes(8, "big"), key=self._key).digest()
            self._words = list(unpack("<16I", block))
        return self._words.pop()

    def below(self, limit: int) -> int:
        """0 ... limit - 1; limits are small, so the bias of the multiplication does not matter."""
        return (self.word() * limit) >> 32

    def between(self, low: int, high: int) -> int:
        """low ... high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, ppm: int) -> bool:
        """True in `ppm` of a million cases; costs nothing when that is never."""
        return ppm > 0 and self.below(MILLION) < ppm

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items, in the order of `items`."""
        left = list(range(len(items)))
        while len(left) > count:
            left.pop(self.below(len(left)))
        return [items[index] for index in left]
