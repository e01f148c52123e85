"""ATECC608 secure element on I2C: a key that is made in the chip and never leaves it (data sheet DS40002237).

    to the chip     0x03 | count | opcode | parameter 1 | parameter 2 (LE) | data | CRC (LE)
    from the chip   count | data or one status byte | CRC (LE)

`count` is the length of all but the word address. The chip sleeps between two calls; it is woken by holding the data
line low, which a write to address 0 at 100 kHz does, and does not answer to its address (NACK) while it works. It must
have been configured and locked before, as the preconfigured parts are; slot SLOT holds the signing key.

**Invariant:** an answer counts only with a good CRC; a call is tried ATTEMPTS times and then raises SecureElementError:
a plug whose element is silent signs nothing instead of signing with another key.
"""

import hashlib

from watt_wire import p256, statement

from watt_plug.signer import Signer

ADDRESS = 0x60
"The default; preconfigured parts have 0x35 (Trust&GO) or 0x36 (TrustFLEX)."
SLOT = 0
COUNTER = 0
ATTEMPTS = 3
"A bus beside a relay sees a spike now and then; a chip that fails three times in a row is broken."
WAKE_MS = 2
"1.5 ms from the wake pulse until it listens."
POLL_MS = 5
POLLS_MAX = 200
"A second: making a key takes 0.65 s at most, a signature 0.22 s."

_RESET, _SLEEP, _COMMAND = b"\x00", b"\x01", b"\x03"
_AWAKE = b"\x04\x11\x33\x43"
_READ, _NONCE, _COUNTER, _INFO, _GENKEY, _SIGN = 0x02, 0x16, 0x24, 0x30, 0x40, 0x41
_PASS_THROUGH, _EXTERNAL, _PUBLIC, _CREATE, _INCREMENT = 0x03, 0x80, 0x00, 0x04, 0x01
_LOCK_WORD = 0x15
"Configuration bytes 84..87: the last two are 0 once data zone and configuration zone are locked."
_STATUS = {
    0x01: "miscompare", 0x03: "parse error", 0x05: "ECC fault", 0x07: "self-test error", 0x08: "health-test error",
    0x0F: "execution error", 0xEE: "watchdog", 0xFF: "CRC or communication error",
}  # fmt: skip
_PASSING = (0x05, 0xEE, 0xFF)
"What another attempt can get over."
EXECUTION_ERROR = 0x0F


class SecureElementError(Exception):
    """The element did not do it. `status` is its status byte, 0 when it gave no usable answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def crc16(data: bytes) -> bytes:
    """Return the CRC of the chip's frames: polynomial 0x8005, bits low first, no inversion, little-endian."""
    crc = 0
    for byte in data:
        for bit in range(8):
            crc = (crc << 1 ^ (0x8005 if (byte >> bit ^ crc >> 15) & 1 else 0)) & 0xFFFF
    return bytes((crc & 255, crc >> 8))


class Atecc608:
    """One chip. `bus` is a machine.I2C; `sleep_ms` waits."""

    def __init__(self, bus: object, sleep_ms: object, address: int = ADDRESS) -> None:
        self._bus = bus
        self._sleep_ms = sleep_ms
        self._address = address
        self.retries = 0
        "Attempts beyond the first, for the status."

    def info(self) -> bytes:
        """Return the revision, 4 bytes: 00 00 60 02 or 03."""
        return self._call(((_INFO, 0, 0, b""),), 4)

    def is_locked(self) -> bool:
        """Tell whether configuration and data zone are locked: before that, keys can still be replaced."""
        return self._call(((_READ, 0, _LOCK_WORD, b""),), 4)[2:] == b"\x00\x00"

    def public(self, slot: int = SLOT) -> bytes:
        """Return the public key X||Y of the private key in a slot."""
        return self._call(((_GENKEY, _PUBLIC, slot, b""),), 64)

    def make_key(self, slot: int = SLOT) -> bytes:
        """Make a new private key in a slot, where its configuration allows that; return the public key."""
        return self._call(((_GENKEY, _CREATE, slot, b""),), 64)

    def sign(self, digest: bytes, slot: int = SLOT) -> bytes:
        """Return r||s over a digest of 32 bytes; s may be high."""
        assert len(digest) == 32
        return self._call(((_NONCE, _PASS_THROUGH, 0, digest), (_SIGN, _EXTERNAL, slot, b"")), 64)

    def count(self, increment: bool, counter: int = COUNTER) -> int:
        """Return a monotonic counter, after counting it up if asked."""
        return int.from_bytes(self._call(((_COUNTER, _INCREMENT if increment else 0, counter, b""),), 4), "little")

    def _call(self, commands: "tuple[tuple[int, int, int, bytes], ...]", size: int) -> bytes:
        """Wake the chip, give it commands, return what the last one answers (`size` bytes), let it sleep."""
        problem = SecureElementError("no answer")
        for attempt in range(ATTEMPTS):
            if attempt:
                self.retries += 1
            try:
                self._wake()
                answer = b""
                for opcode, first, second, data in commands:
                    answer = self._command(opcode, first, second, data)
                self._write(_SLEEP)
                if len(answer) == size:
                    return answer
                problem = SecureElementError("answer of %d bytes, expected %d" % (len(answer), size))
            except OSError:
                problem = SecureElementError("no answer on the bus")
            except SecureElementError as error:
                problem = error
            self._rest()
            if problem.status and problem.status not in _PASSING:
                break
        raise problem

    def _rest(self) -> None:
        """Let the chip sleep whatever it was at, so that the next attempt wakes it."""
        try:
            self._write(_SLEEP)
        except OSError:
            pass  # asleep already, or at work for ever

    def _wake(self) -> None:
        try:
            self._bus.writeto(0, b"")  # type: ignore[attr-defined]
        except OSError:
            pass  # nobody acknowledges address 0; the low data line is what counts
        self._sleep_ms(WAKE_MS)  # type: ignore[operator]
        if self._bus.readfrom(self._address, 4) != _AWAKE:  # type: ignore[attr-defined]
            # It was awake, in the middle of something: the next attempt finds it asleep.
            raise SecureElementError("does not wake")

    def _command(self, opcode: int, first: int, second: int, data: bytes) -> bytes:
        body = bytes((7 + len(data), opcode, first, second & 255, second >> 8)) + data
        self._write(_COMMAND + body + crc16(body))
        for _ in range(POLLS_MAX):
            self._sleep_ms(POLL_MS)  # type: ignore[operator]
            try:
                # A write of nothing asks whether it is done; it then gives its whole answer in one read.
                answer = self._bus.readfrom(self._address, 67)  # type: ignore[attr-defined]
            except OSError:
                continue
            return self._checked(answer)
        raise SecureElementError("does not come back from command 0x%02x" % opcode)

    def _checked(self, answer: bytes) -> bytes:
        count = answer[0]
        if not 4 <= count <= len(answer) or crc16(answer[: count - 2]) != answer[count - 2 : count]:
            raise SecureElementError("answer with a wrong CRC", 0xFF)
        data = answer[1 : count - 2]
        if count == 4 and data != b"\x00":
            raise SecureElementError(_STATUS.get(data[0], "status 0x%02x" % data[0]), data[0])
        return data

    def _write(self, data: bytes) -> None:
        self._bus.writeto(self._address, data)  # type: ignore[attr-defined]


class AteccSigner(Signer):
    """The key in slot SLOT. Raises SecureElementError when the chip is not there, not locked, or has no key."""

    key_class = statement.KEY_SECURE

    def __init__(self, chip: Atecc608) -> None:
        if not chip.is_locked():
            raise SecureElementError("not locked: its keys could be replaced; configure and lock it first")
        self._chip = chip
        try:
            self.public = chip.public()
        except SecureElementError as error:
            if error.status != EXECUTION_ERROR:
                raise
            self.public = chip.make_key()  # the slot is empty: the key is made here, once

    def sign(self, message: bytes) -> bytes:
        """Return r||s over SHA-256 of `message`, the smaller s of the two (WIRE.md W2.3)."""
        signature = self._chip.sign(hashlib.sha256(message).digest())
        s = int.from_bytes(signature[32:], "big")
        return signature[:32] + min(s, p256.N - s).to_bytes(32, "big")

    def count_start(self) -> int:
        """Count this start in the chip; a counter at its end stays there."""
        try:
            return self._chip.count(True)
        except SecureElementError as error:
            if error.status != EXECUTION_ERROR:
                raise
            return self._chip.count(False)
