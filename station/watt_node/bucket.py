"""A budget that fills with time: how much of something a peer may have of us."""


class Bucket:
    """Holds `most` at first and fills by `rate` a second; times are seconds of one clock that does not go back."""

    __slots__ = ("_left", "_most", "_rate", "_since_s")

    def __init__(self, rate: float, most: float, now_s: float) -> None:
        self._rate, self._most, self._left, self._since_s = rate, most, float(most), now_s

    def left(self, now_s: float) -> float:
        """What is in it now; below zero when more was taken."""
        self._left = min(self._most, self._left + (now_s - self._since_s) * self._rate)
        self._since_s = now_s
        return self._left

    def admits(self, now_s: float) -> bool:
        """Take one if there is one; whether there was."""
        if self.left(now_s) < 1:
            return False
        self.take(now_s)
        return True

    def take(self, now_s: float) -> float:
        """Take one, whether there is one or not; what is left."""
        self._left = self.left(now_s) - 1
        return self._left
