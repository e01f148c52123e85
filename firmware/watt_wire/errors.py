"""The only two exceptions that leave watt_wire.

EncodeError   our own fault: a value that has no encoding was passed in
DecodeError   the sender's fault: count it by `reason`, drop the frame, go on
"""


class EncodeError(ValueError):
    """A value outside the limits of WIRE.md was to be encoded."""


class DecodeError(ValueError):
    """A frame, a topic or a payload breaks a rule of WIRE.md.

    reason   short kebab-case word to count rejections by; the message carries the value and the limit
    """

    reason = "malformed"

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message if message else reason)
        self.reason = reason
