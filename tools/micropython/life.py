"""A plug that lives for an hour of its time, for heap.mjs: everything that device.py puts together, without its pins.

The broker is a few answers; the gateway acknowledges nothing, so that what waits waits. A step is a minute. On the Unix
port the hour ends with an update of the whole firmware, as the gateway sends one (watt_gateway/bundles.py).
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
UPDATE = "update"
READ_MAX = 512
"Bytes that the shell reads at a time."
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


def connect(plug):
    """The broker accepts the plug and its subscriptions."""
    plug.opened()
    plug.take_output()
    plug.network(b"\x20\x02\x00\x00")
    data = plug.take_output()
    while data:
        plug.network(b"\x90\x03" + data[2:4] + b"\x01")
        data = data[2 + data[1] :]


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
    connect(plug)
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


def send(plug):
    """The shell's writer has its turn, twenty times a second."""
    while plug.take_packet():
        pass


def second(timer_s):
    """What Shell._second does around an update."""
    plug, _, shell, _ = made[0]
    plug.uart(frame(timer_s * 2 % (1 << 24)))
    plug.tick(START_S + timer_s, timer_s, "S")
    plug.network(b"\xd0\x00")  # the answer to a ping, if there was one
    send(plug)
    for kind, payload in plug.take_asked():
        if kind == UPDATE:
            shell._updater.take(payload)
    while shell._updater.work():
        pass
    plug.publish("wp/1/home/home-1/plug/0000000000000000/status", shell._status())
    send(plug)


def take_update(root, path):
    """An update into the other slot of `root`. `path` has what the broker sends: size (4) and bytes for each second."""
    plug, _, shell, _ = made[0]
    plug.closed()  # nobody answered its pings for an hour
    connect(plug)
    gc.collect()
    from watt_boot.slots import Slots
    from watt_plug.update import Updater

    gc.threshold(2048 * WIDE // 2)  # as device.py
    shell._updater = Updater(Slots(root + "/"), [p256.public_key(key) for key in KEYS])
    timer_s = 60 * STEPS + 60
    with open(path, "rb") as file:
        size = file.read(4)
        while size and not shell._updater.error:
            left = int.from_bytes(size, "big")
            while left:
                data = file.read(min(left, READ_MAX))
                left -= len(data)
                plug.network(data)
                send(plug)
            timer_s += 1
            second(timer_s)
            size = file.read(4)
    assert shell._updater.ready, (shell._updater.error, shell._updater.received)


if len(sys.argv) > 1:
    # On the Unix port: the folder for the flash, the update or "", then the modules to load first, as a plug has them.
    FOLDER = sys.argv[1] + "/state"
    for name in sys.argv[3:]:
        __import__(name)
    begin()
    gc.collect()
    gc.threshold(gc.mem_free() * 3 // 4)
    for number in range(STEPS):
        step(number)
    gc.collect()
    live = gc.mem_alloc()
    if sys.argv[2]:
        take_update(sys.argv[1], sys.argv[2])
    print(live, "live")
