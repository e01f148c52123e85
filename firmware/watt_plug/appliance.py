"""When the appliance behind the plug went on and off, from its power (DEVICE.md V3.5)."""

ON_MW = 5000
"A charger on standby draws less, a lamp draws more."
AGREE = 3
"Samples in a row that must be on the other side: a motor that starts is not three appliances."

NO_CHANGE = 0
WENT_ON = 1
WENT_OFF = 2


class Appliance:
    """Two states with a bounded memory: how many samples in a row disagree with the present one."""

    def __init__(self, on: bool = False, threshold_mw: int = ON_MW) -> None:
        self.on = on
        self._threshold_mw = threshold_mw
        self._other = 0

    def take(self, power_mw: int) -> int:
        """Take a sample; return NO_CHANGE, WENT_ON or WENT_OFF."""
        if (power_mw >= self._threshold_mw) == self.on:
            self._other = 0
            return NO_CHANGE
        self._other += 1
        if self._other < AGREE:
            return NO_CHANGE
        self._other = 0
        self.on = not self.on
        return WENT_ON if self.on else WENT_OFF


class OverPower:
    """Trips after AGREE samples in a row above the limit."""

    def __init__(self, limit_mw: int) -> None:
        self.limit_mw = limit_mw
        self._count = 0

    def take(self, power_mw: int) -> bool:
        """Take a sample; return whether the relay must open."""
        self._count = self._count + 1 if power_mw > self.limit_mw else 0
        return self._count >= AGREE
