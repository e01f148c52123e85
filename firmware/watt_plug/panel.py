"""Button and lamp of a plug: presses and blink codes from levels and milliseconds (DEVICE.md 5 and 7)."""

NOTHING = 0
SHORT = 1
LONG = 2
"What `Button.look` returns; the numbers are those of the signed event (WIRE.md 10.1, kind 7)."

BOUNCE_MS = 50
"A contact bounces for a few milliseconds; a finger needs a tenth of a second."
LONG_MS = 10000
"Ten seconds: nobody forgets a household by leaning on a plug."

CONTACT = 0
ALONE = 1
UNPAIRED = 2
HELD = 3
TRIPPED = 4
SAFE = 5
"What the lamp shows: 1 to 4 are the number of blinks in PERIOD_MS."
PERIOD_MS = 2000
BLINK_MS = 200
FAST_MS = 125


class Button:
    """One button. `look` is to be called at least every 50 ms."""

    def __init__(self) -> None:
        self._since_ms = -1
        self._told = False

    def look(self, pressed: bool, now_ms: int) -> int:
        """Return SHORT when a press ends, LONG once while it lasts ten seconds, else NOTHING."""
        if pressed:
            if self._since_ms < 0:
                self._since_ms = now_ms
            elif not self._told and now_ms - self._since_ms >= LONG_MS:
                self._told = True
                return LONG
            return NOTHING
        lasted_ms = now_ms - self._since_ms if self._since_ms >= 0 else 0
        short = lasted_ms >= BOUNCE_MS and not self._told
        self._since_ms = -1
        self._told = False
        return SHORT if short else NOTHING


def lit(code: int, now_ms: int) -> bool:
    """Tell whether the lamp is on at this instant."""
    if code == CONTACT:
        return True
    if code == SAFE:
        return now_ms // FAST_MS % 2 == 0
    part = now_ms % PERIOD_MS // BLINK_MS
    return part % 2 == 0 and part // 2 < code
