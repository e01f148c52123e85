"""How good this machine's clock is, as a letter that a plug can act on (firmware/WIRE.md W1.6).

`S` is told only when the kernel says that a time daemon steers the clock (chrony, systemd-timesyncd), or when the
configuration vouches for it; `I` otherwise, with which a plug dates its records but obeys no command. A certified block
cannot come from the future: a clock that lies behind one is wrong, whatever the kernel says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

TRUSTED, INFORMATIVE = "S", "I"
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""
TIMEX_BYTES = 256
"""Room for `struct timex`, 208 bytes on 64-bit Linux; all zero asks and changes nothing."""
BEHIND_S_MAX = 120
"""A clock that is further behind a final block is set wrong: stations accept two minutes."""


def kernel_is_synchronised() -> bool:
    """Whether the kernel believes its clock; False where it cannot be asked."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        state = int(library.adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)))
    except (OSError, AttributeError):
        return False
    return 0 <= state < TIME_ERROR


def quality(trusted: bool, now_s: int, block_s: int, kernel: Callable[[], bool] = kernel_is_synchronised) -> str:
    """The letter for `now_s`.

    trusted   the configuration vouches for the clock (a bench, a receiver on this machine)
    block_s   time of the newest final block that was proven to us; 0 before the first
    """
    if now_s + BEHIND_S_MAX < block_s:
        return INFORMATIVE
    return TRUSTED if trusted or kernel() else INFORMATIVE
