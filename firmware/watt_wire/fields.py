"""Range checks shared by every frame, and the clock-quality letters.

MicroPython's struct.pack wraps an integer that is too large or negative without an error, so nothing is packed that
did not pass `integer_problem` first. The checks return a text instead of raising: encode turns it into EncodeError,
decode into DecodeError, and both refuse exactly the same set of values (one value, one encoding).
"""

U8_MAX = 0xFF
U16_MAX = 0xFFFF
U32_MAX = 0xFFFFFFFF
I32_MAX = 0x7FFFFFFF

REGISTER_MWH_MAX = (1 << 53) - 1
"""Largest energy register, mWh: every JSON reader keeps integers up to here exact; 9 * 10^9 kWh outlives any meter."""

ID_SIZE = 8
HASH_SIZE = 32
SIGNATURE_SIZE = 64
PUBLIC_KEY_SIZE = 64

QUALITY_UNSYNCHRONISED = 0x55  # "U": never set since boot; the time counts seconds since boot
QUALITY_INFORMATIVE = 0x49  # "I": set from a source that is not trusted
QUALITY_SYNCHRONISED = 0x53  # "S": set from a trusted source and within its tolerance
QUALITY_RELATIVE = 0x52  # "R": kept by the own oscillator since an informative time
TIME_QUALITIES = (QUALITY_UNSYNCHRONISED, QUALITY_INFORMATIVE, QUALITY_SYNCHRONISED, QUALITY_RELATIVE)

SUITE_P256_SHA256 = 1
"""ECDSA P-256, SHA-256, RFC 6979 nonce, raw r||s, s <= n/2. The only suite of version 1."""


def integer_problem(name: str, value: object, low: int, high: int) -> str:
    """Return "" when value is an integer in low..high, else a text with the value and the limits."""
    if not isinstance(value, int) or isinstance(value, bool):
        return name + " is not an integer"
    if value < low or value > high:
        return "%s %d is outside %d..%d" % (name, value, low, high)
    return ""


def bytes_problem(name: str, value: object, size: int) -> str:
    """Return "" when value is bytes of exactly that size, else a text with both sizes."""
    if not isinstance(value, bytes):
        return name + " is not bytes"
    if len(value) != size:
        return "%s has %d bytes, expected %d" % (name, len(value), size)
    return ""


def quality_problem(value: object) -> str:
    """Return "" when value is ord of one of U I S R."""
    if value not in TIME_QUALITIES:
        return "time_quality is not one of U I S R"
    return ""


def size_problem(frame: object, size: int) -> str:
    """Return "" when frame is bytes of exactly that size, else a text with both sizes."""
    return bytes_problem("frame", frame, size)
