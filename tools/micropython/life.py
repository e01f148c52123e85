"""A plug that lives for an hour of its time, for heap.mjs: everything that device.py puts together, without its pins.

The broker is a few answers; the gateway acknowledges nothing, so that what waits waits. A step is a minute.
"""

# ruff: noqa: E402  # the collector is told first how to load what follows
import gc
import sys

WIDE = 3
"Words of the 64-bit port are twice as wide, what is made of them about half as much again: WIDE / 2."
gc.threshold(8192 * WIDE // 2)

from watt_plug.app import Plug
from watt_plug.clock import Clock
from watt_plug.config import Config
from watt_plug.interlock import Rules
from watt_plug.meters import bl0942
from watt_plug.shell import Board, Shell
from watt_plug.signer import SoftwareSigner
from watt_plug.storage import DirectoryStorage
from watt_plug.switch import Switch
from watt_wire import p256

STEPS = 60
FOLDER = "/state"
START_S = 1772442000
KEYS = (b"\x01" * 32, b"\x02" * 32, b"\x03" * 32)
REFERENCE_MILLI = 15883341
made = []


def frame(pulses):
    """An answer of the chip: 230 V, 4 A, 900 W, the counter at `pulses`."""
    body = bytes((0x55,)) + (1004262).to_bytes(3, "little") + (230 * REFERENCE_MILLI // 1000).to_bytes(3, "little")
    body += bytes(3) + (900 * 623).to_bytes(3, "little") + pulses.to_bytes(3, "little") + bytes(6)
    return body + bytes((~(0x58 + sum(body)) & 255,))


def begin():
    """Make a plug as device.run does."""
    parties = [(number, p256.public_key(key)) for number, key in enumerate(KEYS)]
    switch = Switch(bytes(32), parties, Rules(), lambda n: 0)
    parser = bl0942.Parser()
    config = Config(
        "home-1", 3680, bytes(32), sample_s=1, parser=parser, span=bl0942.PULSE_SPAN, switch=switch, appliances=True
    )
    plug = Plug(config, SoftwareSigner(KEYS[0]), DirectoryStorage(FOLDER))
    clock = Clock(plug.plug_id, parties[0][1], lambda n: bytes(n))
    topics = {
        "ask": "wp/1/home/home-1/plug/0000000000000000/ask",
        "status": "wp/1/home/home-1/plug/0000000000000000/status",
    }
    shell = Shell(plug, clock, Board(), None, lambda n: 0, None, topics)
    plug.start(START_S, False, 0, 1, 1, "S")
    plug.opened()
    plug.take_output()
    plug.network(b"\x20\x02\x00\x00")
    data = plug.take_output()
    while data:
        plug.network(b"\x90\x03" + data[2:4] + b"\x01")
        data = data[2 + data[1] :]
    made.append((plug, clock, shell, parser))


def step(number):
    """One minute, a frame a second; what the plug sends is taken away."""
    plug = made[0][0]
    for second in range(1, 61):
        timer_s = 60 * number + second
        plug.uart(frame(timer_s * 2 % (1 << 24)))
        plug.tick(START_S + timer_s, timer_s, "S")
        plug.take_output()
        plug.status()


if len(sys.argv) > 1:
    # On the Unix port: the folder for the flash, then the modules to load first, as a plug has them.
    FOLDER = sys.argv[1]
    for name in sys.argv[2:]:
        __import__(name)
    begin()
    gc.collect()
    gc.threshold(gc.mem_free() * 3 // 4)
    for number in range(STEPS):
        step(number)
    gc.collect()
    print(gc.mem_alloc(), "live")
