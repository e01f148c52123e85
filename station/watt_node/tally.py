"""Counting by reason, where the reason may come from outside: bounded, whatever is sent."""

from collections.abc import Iterator, Mapping

REASONS_MAX = 64
"""Different reasons counted apart; there are some forty of our own, and a peer must not be able to fill memory."""
LENGTH_MAX = 80
"""Characters of a reason; it is a word or a short sentence."""
OTHER = "other"


class Tally(Mapping[str, int]):
    """Reason -> how often."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, reason: str, times: int = 1) -> str:
        """Note a reason and return it, shortened; beyond REASONS_MAX different ones all are `other`."""
        reason = reason[:LENGTH_MAX]
        if reason not in self._counts and len(self._counts) >= REASONS_MAX:
            self._counts[OTHER] = self._counts.get(OTHER, 0) + times
        else:
            self._counts[reason] = self._counts.get(reason, 0) + times
        return reason

    def __getitem__(self, reason: str) -> int:
        return self._counts[reason]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def shown(self) -> dict[str, int]:
        """For status.json, sorted."""
        return dict(sorted(self._counts.items()))
