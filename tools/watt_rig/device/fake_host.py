"""The line to the host: one socket, lines of ASCII both ways. Everything the other fakes do goes through here.

    plug to host   U <uart> <world s>     what has the chip on this UART to say by now?    host: U <hex>
                   T <uart> <hex>         bytes written to that UART
                   N <pin> <world s>      pulses counted on this pin since power-on?       host: N <count>
                   I w <address> <hex>    a write on the I2C bus                           host: I ok | I !
                   I r <address> <n>      a read                                           host: I <hex> | I !
                   F <world s>            the watchdog is fed (told a few times a second)
                   P <pin> <0|1>          an output pin has moved
                   R <why>                reset me
                   C                      the power went in the middle of a flash write: kill me now
                   D <ms>                 a watchdog is set to so many milliseconds
                   G ...                  Bluetooth, see fake_bluetooth
                   B <text>               progress of the boot
    host to plug   W <0|1>                Wi-Fi is there
                   J <s>                  the clock is set wrong by so much from now on
                   K <n>                  cut the power inside the nth flash write from now
                   P <pin> <0|1>          an input pin has moved
                   G ...                  Bluetooth

The *world* runs at the bench's speed, and never jumps: a plug that is late catches up in steps of at most STEP_S, so
that every interval is measured. The plug's own clock is the world plus an error that NTP removes.
"""

import select
import time as real

STEP_S = 10
"Longest piece of world time between two looks at the clock: six of them make a record."
STEP_MS = 10
"Machine time that such a step takes at least: a loop that looks at the clock twice must not see it race."
FEED_MS = 200

_control = None
_poll = None
_world_ms = 0
_looked_ms = 0
_start_ms = 0
_protocol_ms = 0
_speed = 1
_fed_ms = 0
error_s = 0
"What the plug's clock shows minus world time."
jump_s = 0
"An error of the time source itself: what NTP would set is wrong by so much."
stepped = False
"Whether the world waits for `step_world`, instead of moving with each look."
wifi = True
cut_after = 0
inputs = {}
on_pin = {}
on_bluetooth = None
settings = {}


def start(values):
    """Open the line and take the clock's settings."""
    global _control, _poll, _world_ms, _looked_ms, _start_ms, _protocol_ms, _speed, error_s, wifi, settings, jump_s
    settings = values
    _control = open(values["line"], "r+b")
    _poll = select.poll()
    _poll.register(_control, select.POLLIN)
    _world_ms = values["world_s"] * 1000
    _start_ms = values["start_ms"]
    _protocol_ms = values["protocol_s"] * 1000
    _speed = values["speed"]
    wifi = values["wifi"]
    jump_s = values["jump_s"]
    _looked_ms = _machine_ms()
    # A supply that came back: the clock of an ESP32 starts at its epoch; any other reset leaves it running.
    error_s = 946684800 - values["world_s"] if values["cause"] in (1, 6) else values["error_s"]


def _machine_ms():
    return real.time_ns() // 1000000


def step_world():
    """One step of a fast bench, taken with each second of the plug's timer: chip and clock then move as one."""
    global _world_ms
    target_ms = _protocol_ms + (_machine_ms() - _start_ms) * _speed
    _world_ms += max(0, min(target_ms - _world_ms, STEP_S * 1000))


def world_s():
    """Return world time, whole seconds, after a step towards where the bench is."""
    global _world_ms, _looked_ms
    if stepped:
        pump()
        return _world_ms // 1000
    now_ms = _machine_ms()
    target_ms = _protocol_ms + (now_ms - _start_ms) * _speed
    passed_ms = now_ms - _looked_ms
    step_ms = min(target_ms - _world_ms, STEP_S * 1000, passed_ms * STEP_S * 1000 // STEP_MS)
    if step_ms > 0:
        _world_ms += step_ms
        _looked_ms = now_ms
    pump()
    return _world_ms // 1000


def send(line):
    _control.write(line + "\n")


def ask(line):
    """Send a question and return the rest of its answer, a line of the same letter."""
    _control.write(line + "\n")
    kind = line[0]
    while True:
        answer = _read()
        if answer[0] == kind and kind in "UNI":
            return answer[2:]
        _handle(answer)


def pump():
    """Take what the host has sent, without waiting."""
    while _poll.poll(0):
        _handle(_read())


def fed():
    """The watchdog was fed: tell the host, not more often than it wants to know."""
    global _fed_ms
    now_ms = _machine_ms()
    if now_ms - _fed_ms >= FEED_MS:
        _fed_ms = now_ms
        send("F %d" % world_s())


def die(line):
    """Tell the host and wait for the end: it kills this process."""
    send(line)
    while True:
        real.sleep(1)


def _read():
    line = _control.readline()
    if not line:
        raise SystemExit  # the host is gone
    return line.decode().rstrip("\n")


def _handle(line):
    global wifi, jump_s, error_s, cut_after
    kind = line[0]
    rest = line[2:]
    if kind == "W":
        wifi = rest == "1"
    elif kind == "J":
        error_s += int(rest) - jump_s
        jump_s = int(rest)
    elif kind == "K":
        cut_after = int(rest)
    elif kind == "P":
        pin, value = rest.split(" ")
        inputs[int(pin)] = int(value)
        if int(pin) in on_pin:
            on_pin[int(pin)]()
    elif kind == "G" and on_bluetooth is not None:
        on_bluetooth(rest)
