"""Minimum, mean and maximum over one record interval."""

from watt_plug.meters.sample import VALID_CURRENT, VALID_VOLTAGE, Sample


class Range:
    """Running minimum, sum and maximum of one quantity, in its integer unit."""

    def __init__(self) -> None:
        self.low = 0
        self.high = 0
        self._sum = 0
        self._count = 0

    def add(self, value: int) -> None:
        if not self._count or value < self.low:
            self.low = value
        if not self._count or value > self.high:
            self.high = value
        self._sum += value
        self._count += 1

    def mean(self) -> int:
        """Return the mean rounded down; 0 of nothing. Never outside low..high."""
        return self._sum // self._count if self._count else 0


class Interval:
    """What was measured since the last record; `samples` counts frames whatever they held."""

    def __init__(self) -> None:
        self.voltage_mv = Range()
        self.current_ma = Range()
        self.power_mw = Range()
        self.samples = 0
        self.flags = 0

    def add(self, sample: Sample) -> None:
        """Count a sample. A power or current that the chip could not measure is below its threshold: zero."""
        self.samples += 1
        if sample.valid & VALID_VOLTAGE:
            self.voltage_mv.add(sample.voltage_mv)
        self.current_ma.add(sample.current_ma if sample.valid & VALID_CURRENT else 0)
        self.power_mw.add(sample.power_mw)
