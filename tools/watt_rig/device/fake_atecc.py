"""A fake ATECC608 on an I2C bus: it sleeps, wakes, takes frames, is busy, answers, and can be made to fail.

Written from the data sheet's tables, apart from the driver. It runs on MicroPython and on CPython: the portable tests
use it in the interpreter, the bench on the host. Keys and signatures are the caller's.
"""

POLYNOMIAL = 0xA001
"0x8005 with its bits reversed: the register of this end shifts the other way."
EMPTY, LOCKED, UNLOCKED = 0x0F, 0x00, 0x55
COUNTER_MAX = 2097151


def checksum(data):
    """CRC of a frame, with the register reversed; the bits of the result are turned back at the end."""
    register = 0
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    turned = 0
    for bit in range(16):
        turned |= (register >> bit & 1) << (15 - bit)
    return bytes((turned & 255, turned >> 8))


class FakeAtecc608:
    """One chip.

    keys      makes, names and uses keys: `public(slot)`, `make(slot)` (None: that slot cannot), `sign(slot, digest)`
    busy      reads that find the chip at work, after each command
    faults    what goes wrong next: "nack", "crc", "silent" (never comes back) or a status byte; one for each command
    """

    def __init__(self, keys, address=0x60, locked=True, busy=2):
        self.keys = keys
        self.address = address
        self.locked = locked
        self.busy = busy
        self.faults = []
        self.commands = []
        self.counters = [0, 0]
        self._awake = False
        self._left = 0
        self._answer = b""
        self._temporary = b""

    def writeto(self, address, data):
        if address == 0:
            # The wake pulse. Nobody acknowledges it; a chip that is awake takes no notice.
            if not self._awake:
                self._awake = True
                self._left = 0
                self._answer = b"\x04\x11\x33\x43"
            raise OSError(19)
        if address != self.address or not self._awake or self._left:
            raise OSError(19)
        if data[:1] == b"\x01":
            self._awake = False
            self._temporary = b""
        elif data[:1] == b"\x02":
            self._awake = False
        elif data[:1] == b"\x03":
            self._take(data[1:])
        return len(data)

    def readfrom(self, address, size):
        if address != self.address or not self._awake:
            raise OSError(19)
        if self._left:
            self._left -= 1
            raise OSError(19)
        answer = self._answer + b"\xff" * size
        self._answer = b""
        return answer[:size]

    def _take(self, frame):
        count = frame[0]
        fault = self.faults.pop(0) if self.faults else None
        if fault == "nack":
            raise OSError(19)
        if count != len(frame) or checksum(frame[:-2]) != frame[-2:]:
            self._say(b"\xff")
            return
        self.commands.append(frame[1])
        self._left = 1 << 30 if fault == "silent" else self.busy
        if isinstance(fault, int):
            self._say(bytes((fault,)))
            return
        self._say(self._run(frame[1], frame[2], frame[3] | frame[4] << 8, frame[5:-2]))
        if fault == "crc":
            self._answer = self._answer[:-1] + bytes((self._answer[-1] ^ 1,))

    def _say(self, data):
        body = bytes((len(data) + 3,)) + data
        self._answer = body + checksum(body)

    def _run(self, opcode, first, second, data):
        if opcode == 0x30 and first == 0:
            return b"\x00\x00\x60\x03"
        if opcode == 0x02 and (first, second) == (0, 0x15):
            lock = LOCKED if self.locked else UNLOCKED
            return bytes((0, 0, lock, lock))
        if opcode == 0x16 and first == 0x03 and len(data) == 32:
            self._temporary = data
            return b"\x00"
        if opcode == 0x40 and first in (0x00, 0x04):
            return (self.keys.make(second) if first else self.keys.public(second)) or bytes((EMPTY,))
        if opcode == 0x41 and first == 0x80:
            digest, self._temporary = self._temporary, b""
            return self.keys.sign(second, digest) if digest else bytes((EMPTY,))
        if opcode == 0x24 and first in (0, 1) and second in (0, 1):
            if first and self.counters[second] >= COUNTER_MAX:
                return bytes((EMPTY,))
            self.counters[second] += first
            return self.counters[second].to_bytes(4, "little")
        return b"\x03"
