"""A fake `machine` (and `esp`, `esp32`) of an ESP32: UART, pins, pulse counter, I2C, watchdog, reset."""

import io
import time as real

import fake_host
import fake_time

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5
BROWN_OUT = 6
"The bench's number for it: stock firmware shows a power-on, the chip's own register says more."
RESET_STATE = 0x3FF48034
STREAM_POLL = 3
POLL_IN = 1
POLL_OUT = 4


def reset_cause():
    cause = fake_host.settings["cause"]
    return PWRON_RESET if cause == BROWN_OUT else cause


class Registers:
    """Registers of an ESP32: why it was reset, and zero elsewhere (no flash encryption)."""

    def __getitem__(self, address):
        if address != RESET_STATE:
            return 0
        return 15 if fake_host.settings["cause"] == BROWN_OUT else 1


mem32 = Registers()


def reset():
    fake_host.die("R reset")


def soft_reset():
    fake_host.die("R soft")


def unique_id():
    return bytes.fromhex(fake_host.settings["unique_id"])


def freq(_hz=None):
    return 160000000


def idle():
    real.sleep_ms(1)


def disable_irq():
    return 0


def enable_irq(_state):
    return None


class UART(io.IOBase):
    """The metering chip is at the other end: what it says is asked for at the plug's time."""

    INV_TX = 1
    INV_RX = 2

    def __init__(self, number, *_args, **_options):
        self._number = number
        self._input = b""

    def init(self, *_args, **_options):
        return None

    def deinit(self):
        return None

    def _fill(self):
        if not self._input:
            self._input = bytes.fromhex(fake_host.ask("U %d %d" % (self._number, fake_host.world_s())))

    def any(self):
        self._fill()
        return len(self._input)

    def read(self, size=-1):
        self._fill()
        if not self._input:
            return None
        if size < 0:
            size = len(self._input)
        data = self._input[:size]
        self._input = self._input[size:]
        return data

    def readinto(self, buffer, size=-1):
        data = self.read(len(buffer) if size < 0 else min(size, len(buffer)))
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    def write(self, data):
        fake_host.send("T %d %s" % (self._number, bytes(data).hex()))
        return len(data)

    def flush(self):
        return None

    def txdone(self):
        return True

    def ioctl(self, operation, flags):
        if operation == STREAM_POLL:
            return flags & (POLL_OUT | (POLL_IN if self.any() else 0))
        return 0


class Pin:
    """A pin: an output tells the host, an input is what the host last said (pulled up: 1)."""

    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_UP = 2
    PULL_DOWN = 1
    IRQ_FALLING = 2
    IRQ_RISING = 1

    def __init__(self, number, mode=-1, pull=-1, value=None, **_options):
        self._number = number
        self._mode = mode
        if value is not None:
            self.value(value)

    def init(self, mode=-1, pull=-1, value=None, **_options):
        self._mode = mode
        if value is not None:
            self.value(value)

    def value(self, value=None):
        if value is None:
            fake_host.pump()
            return fake_host.inputs.get(self._number, 1)
        value = 1 if value else 0
        if fake_host.inputs.get(self._number) != value:
            fake_host.inputs[self._number] = value
            fake_host.send("P %d %d" % (self._number, value))
        return None

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def irq(self, handler=None, trigger=0, **_options):
        if handler is not None:
            fake_host.on_pin[self._number] = lambda: handler(self)


class Counter:
    """The pulse counter of the ESP32, on a pin of the metering chip."""

    RISING = 1
    FALLING = 2

    def __init__(self, number, src=None, **_options):
        self._pin = src._number if src is not None else number
        self._offset = 0

    def value(self, value=None):
        count = int(fake_host.ask("N %d %d" % (self._pin, fake_host.world_s()))) - self._offset
        if value is not None:
            self._offset += count - value
        return count


class I2C:
    """The bus of a secure element, which is on the host; a plug that has none finds nobody there."""

    def __init__(self, *_args, **_options):
        return None

    def scan(self):
        return []

    def writeto(self, address, data, _stop=True):
        if fake_host.ask("I w %d %s" % (address, bytes(data).hex() or "-")) != "ok":
            raise OSError(19)
        return len(data)

    def readfrom(self, address, size, _stop=True):
        answer = fake_host.ask("I r %d %d" % (address, size))
        if answer == "!":
            raise OSError(19)
        return bytes.fromhex(answer)

    def readfrom_into(self, address, buffer, stop=True):
        buffer[:] = self.readfrom(address, len(buffer), stop)


SoftI2C = I2C


class WDT:
    """Feeding is told to the host, which resets a plug that stops (after `timeout` of machine time)."""

    def __init__(self, id=0, timeout=5000):
        fake_host.send("D %d" % timeout)
        fake_time.follow_world()

    def feed(self):
        fake_host.fed()


class RTC:
    """The clock: setting it removes or makes an error."""

    def datetime(self, value=None):
        if value is None:
            now = real.gmtime(fake_host.world_s() + fake_host.error_s)
            return (now[0], now[1], now[2], now[6], now[3], now[4], now[5], 0)
        seconds = real.mktime((value[0], value[1], value[2], value[4], value[5], value[6], 0, 0))
        fake_host.error_s = int(seconds) - fake_host.world_s()
        return None

    def memory(self, data=None):
        return b""


class Esp:
    @staticmethod
    def osdebug(*_args):
        return None


class Esp32:
    """Names of the module `esp32` that the firmware uses."""

    WAKEUP_ANY_HIGH = 1

    @staticmethod
    def raw_temperature():
        """In the firmware of the classic ESP32 alone."""
        return 106

    @staticmethod
    def idf_heap_info(_capabilities):
        return ()

    class NVS:
        def __init__(self, _namespace):
            return None

        def get_i32(self, _name):
            raise OSError(0x1102)

        def get_blob(self, _name, _buffer):
            raise OSError(0x1102)
