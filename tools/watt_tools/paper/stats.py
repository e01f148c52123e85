"""Medians, their intervals, ranks: no more statistics than the report shows."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Final

RESAMPLES: Final = 1000
"""Bootstrap samples of a ratio: the ends of a 95 % interval are then good to some per cent of its width."""
ENOUGH: Final = 6
"""Values from which the range of all of them covers the median with 95 %."""


def median(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return float(statistics.median(values)) if values else 0.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median without any assumption on the distribution: order statistics (binomial, p = 1/2).

    With 30 values these are the 10th and the 21st (coverage 95.7 %). With fewer than six the whole range covers less.
    """
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return 0.0, 0.0
    tail, below = 0.0, 0
    while tail + math.comb(n, below) / 2**n <= 0.025 and below < n // 2:
        tail += math.comb(n, below) / 2**n
        below += 1
    rank = max(0, below - 1)
    return float(ordered[rank]), float(ordered[n - 1 - rank])


def ratio_interval(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, float]:
    """95 % interval of median(parts) / median(wholes), by bootstrap with a fixed seed."""
    if not parts or not wholes:
        return 0.0, 0.0
    chance = random.Random("wattpact paper bootstrap")
    found = sorted(
        statistics.median(chance.choices(parts, k=len(parts)))
        / statistics.median(chance.choices(wholes, k=len(wholes)))
        for _ in range(RESAMPLES)
    )
    return found[RESAMPLES // 40], found[-1 - RESAMPLES // 40]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, -1 to 1 (no ties expected)."""
    n = len(first)
    ranks = [_ranks(values) for values in (first, second)]
    apart: float = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    return 1.0 - 6 * apart / (n * (n * n - 1))


def _ranks(values: Sequence[float]) -> list[int]:
    order = sorted(range(len(values)), key=lambda at: values[at])
    ranks = [0] * len(values)
    for rank, at in enumerate(order):
        ranks[at] = rank
    return ranks
