"""Who leads: the order in which the validators of a chain propose (CONSENSUS.md 6).

Until response strength and tickets decide (a later part of the project), the schedule of every term is the
list of validators in the order of genesis, and view `v` of height `h` is led by index (h + v) mod n. Both
callers, replica and ledger, ask `Schedule` only, so a drawn order can replace the fixed one here.
"""

TERM_BLOCKS = 64
"""Blocks of one term: short enough that a bad leader order passes soon, long enough to draw the next one."""


def term_of(height: int) -> int:
    """The term a block belongs to; heights 1 ... 64 are term 0."""
    return (height - 1) // TERM_BLOCKS if height > 0 else 0


def leader(height: int, view: int, ranking: tuple[int, ...]) -> int:
    """Index of the validator that leads `view` of `height`; `ranking` is the schedule of that height's term."""
    return ranking[(height + view) % len(ranking)]


class Schedule:
    """The leader order of one chain. `ranking(term)` is the only thing an election has to replace."""

    __slots__ = ("_order",)

    def __init__(self, validator_count: int) -> None:
        self._order = tuple(range(validator_count))

    def ranking(self, term: int) -> tuple[int, ...]:
        """Validator indices of a term, first leader first; the same for every term until tickets exist."""
        return self._order

    def leader(self, height: int, view: int) -> int:
        """Index of the validator that leads `view` of `height`."""
        return leader(height, view, self.ranking(term_of(height)))
