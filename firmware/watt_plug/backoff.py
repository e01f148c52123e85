"""Waiting longer after each failure, by a random part: plugs of one street must not knock together."""

FIRST_S = 1
MAX_S = 300


class Backoff:
    """Full jitter: after the k-th failure a wait of 0..min(MAX_S, FIRST_S * 2^k). below(n) gives 0..n-1."""

    def __init__(self, below: object) -> None:
        self._below = below
        self._limit_s = FIRST_S

    def failed(self) -> int:
        """Return the seconds to wait now."""
        self._limit_s = min(2 * self._limit_s, MAX_S)
        return int(self._below(self._limit_s + 1))  # type: ignore[operator]

    def worked(self) -> None:
        """Begin again with short waits."""
        self._limit_s = FIRST_S
