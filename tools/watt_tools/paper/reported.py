"""What the paper states about its experiments: settings (its Table 1), the eleven ratios, what it found.

Jiang et al., Frontiers in Physics 11 (2023), section 6. What its figures show beyond its text is not in here.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARDS = (2, 3, 4, 5, 6, 7, 8, 9, 10)
NODES = (2, 3, 4, 5)
FIGURE_9_SHARDS = (2, 3, 4, 5)
FIGURE_9_NODES = (2, 3, 4)
STORAGE_SHARDS = (2, 3, 4)
TRANSACTIONS = (250, 500, 750, 1000)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A number of section 6.2."""

    row: str
    "Acceptance row."
    section: str
    s: int
    n: int
    "0: the paper does not say."
    ppm: int
    "Partial sharding as a part of full sharding (time), or a normal node as a part of a cross-node (storage)."


TIME_RATIOS = (
    Ratio("M18", "6.2.1", 2, 2, 543_000),
    Ratio("M19", "6.2.1", 2, 3, 519_000),
    Ratio("M20", "6.2.1", 2, 4, 543_000),
    Ratio("M21", "6.2.1", 2, 5, 755_000),
    Ratio("M25", "6.2.2", 2, 2, 475_000),
    Ratio("M26", "6.2.2", 3, 2, 287_000),
    Ratio("M27", "6.2.2", 4, 2, 166_000),
    Ratio("M28", "6.2.2", 5, 2, 171_000),
)
STORAGE_RATIOS = (
    Ratio("M30", "6.2.3", 2, 0, 500_000),
    Ratio("M31", "6.2.3", 3, 0, 335_000),
    Ratio("M32", "6.2.3", 4, 0, 250_000),
)
FIGURES = (
    (6, "Time cost vs n (s in 2, 3, 4)", (2, 3, 4)),
    (7, "Time cost vs n (s in 5, 6, 7)", (5, 6, 7)),
    (8, "Time cost vs n (s in 8, 9, 10)", (8, 9, 10)),
)
TABLE_1 = (
    ("s, number of shards", "2 to 10 (Figures 6 to 8), 2 to 5 (Figure 9)", "2, 3, 4"),
    ("n, nodes (of a shard)", "2 to 5 (Figures 6 to 8), 2 to 4 (Figure 9)", "not stated; here 4"),
    ("m, transactions of a shard", "not stated; here 20 trades a repetition", "250, 500, 750, 1000"),
    ("methods", "full and partial sharding", "normal node and cross-node of partial sharding"),
)
