"""The comfort coefficient alpha_t of Eq. (2), from outdoor temperature and hour (U17).

alpha = 20 + 12 max(0, T - 26) + 8 max(0, 18 - T) u/Wh with T in deg C, times 1.2 from 18 to 22 h. Temperatures are
integers in tenths of a degree; the result is rounded down.
"""

from collections.abc import Sequence
from typing import Final

BASE_U_PER_WH: Final = 20
HOT_U_PER_WH: Final = 12
"Per degree above HOT_DC: cooling given up."
COLD_U_PER_WH: Final = 8
"Per degree below COLD_DC: heating given up."
HOT_DC: Final = 260
COLD_DC: Final = 180
EVENING_HOURS: Final = range(18, 22)
EVENING_TENTHS: Final = 12


def alpha_u_per_wh(temperature_dc: int, hour: int) -> int:
    """Comfort coefficient for a temperature in 0.1 deg C at a local hour 0..23, u/Wh."""
    tenths = BASE_U_PER_WH * 10 + HOT_U_PER_WH * max(0, temperature_dc - HOT_DC)
    tenths += COLD_U_PER_WH * max(0, COLD_DC - temperature_dc)
    factor = EVENING_TENTHS if hour % 24 in EVENING_HOURS else 10
    return tenths * factor // 100


def alphas_u_per_wh(temperatures_dc: Sequence[int], hours: Sequence[int]) -> list[int]:
    """Coefficients of consecutive slots."""
    return [alpha_u_per_wh(t, h) for t, h in zip(temperatures_dc, hours, strict=True)]
