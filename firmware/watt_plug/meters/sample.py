"""One measured sample, whatever chip it came from, and the bounds that every sample keeps."""

VOLTAGE_MIN_MV = 50000
"Below this the plug's own supply does not run: such a value is damage, not mains (published case: 0.40 V)."
VOLTAGE_MAX_MV = 300000
PPM = 1000000
INPUT_MAX = 4096
"Bytes looked at per call: a UART buffer is 256..1024 bytes; more than this at once is noise, the oldest go."

VALID_VOLTAGE = 1
VALID_CURRENT = 2
VALID_POWER = 4
VALID_ALL = 7


class Sample:
    """One measured frame. `voltage_mv`, `current_ma`, `power_mw` are zero where `valid` lacks the bit.

    pulses         the chip's own counter of energy, modulo `span`
    coefficients   three u32 that name the constants in use; the third is the energy of one pulse, microjoules
    """

    def __init__(
        self,
        valid: int,
        voltage_mv: int,
        current_ma: int,
        power_mw: int,
        pulses: int,
        coefficients: tuple[int, int, int],
        span: int,
    ) -> None:
        self.valid = valid
        self.voltage_mv = voltage_mv
        self.current_ma = current_ma
        self.power_mw = power_mw
        self.pulses = pulses
        self.coefficients = coefficients
        self.span = span


class Parser:
    """What the application needs of a chip that talks over a UART.

    request    bytes to send before each answer; empty for a chip that talks by itself
    rejected   counts of refused frames and skipped bytes by reason
    """

    request = b""
    accepted = 0
    rejected: "dict[str, int]" = {}

    def feed(self, data: bytes) -> "list[Sample]":
        """Take bytes, return the samples of every whole good frame in them, oldest first."""
        raise NotImplementedError
