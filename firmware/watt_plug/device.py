"""The ESP32 under the shell: UART, pulse counter, Wi-Fi, TLS. No rule of measuring or signing lives here."""

# ruff: noqa: E402  # the collector is told first how to load what follows
import gc

LOADING_BYTES = 8192
"""The collector runs after so many allocated bytes while code is loaded, so that what stays lies close together: else
the largest free piece is too small for a batch although a fifth of the heap is free (`make device`)."""
UPDATING_BYTES = 2048
"And while a bundle comes in, until the restart at its end: what waits for the flash is a tenth of what is free."
gc.threshold(LOADING_BYTES)

import asyncio
import binascii
import json
import os
import ssl
import time

import machine
import network
from watt_wire import p256, plug_topics

from watt_plug import panel, release
from watt_plug.app import Plug
from watt_plug.board import WATCHDOG_MS, below, calibration, make_signer, output, private_key, read, reset_cause
from watt_plug.clock import Clock, not_before_s, plug_id_of
from watt_plug.config import Config
from watt_plug.interlock import Rules
from watt_plug.meters.sample import Parser
from watt_plug.shell import Board, Shell
from watt_plug.storage import DirectoryStorage
from watt_plug.switch import Switch

POLL_MS = 1000
UART_BUFFER = 256
EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0
"The ESP32 port counts from 2000; records count from 1970. The one place where the two meet."
HEADER_SEC1 = b"\x30\x77\x02\x01\x01\x04\x20"
MIDDLE_SEC1 = b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00\x04"
"RFC 5915: an EC private key in DER is these bytes around the two numbers."


class Esp32(Board):
    """Pins and counters of one board (board.json)."""

    def __init__(self, board: "dict[str, object]", slots: object, parser: object, cause: int) -> None:
        self._watchdog = machine.WDT(timeout=WATCHDOG_MS)
        self._slots = slots
        self._request = b""
        self._uart = None
        self._pulses = None
        self._next_ms = 0
        self._last_ms = time.ticks_ms()
        self._timer_ms = 0
        self.boots = slots.boots  # type: ignore[attr-defined]
        self._cause = cause
        self._on = int(str(board.get("relay_on", 1)))
        self._relay = output(board, "relay")
        self._lamp_on = int(str(board.get("led_on", 1)))
        self._lamp = output(board, "led")
        self._button = panel.Button()
        self._button_pin = None
        if "button_pin" in board:
            self._button_pin = machine.Pin(int(str(board["button_pin"])), machine.Pin.IN, machine.Pin.PULL_UP)
        if "cf_pin" in board:
            from watt_plug.meters import pulses

            self._pulses = pulses.Pulses(str(board["chip"]))
            self._cf = machine.Counter(0, machine.Pin(int(str(board["cf_pin"])), machine.Pin.IN))  # type: ignore[attr-defined]
            self._cf1 = machine.Counter(1, machine.Pin(int(str(board["cf1_pin"])), machine.Pin.IN))  # type: ignore[attr-defined]
            self._select = machine.Pin(int(str(board["sel_pin"])), machine.Pin.OUT)
        else:
            slow = board["chip"] in ("cse7766", "hlw8032", "bl0942")
            self._request = parser.request  # type: ignore[attr-defined]
            self._uart = machine.UART(
                int(str(board.get("uart", 1))),
                baudrate=4800 if slow else 9600,
                bits=8,
                parity=0 if board["chip"] in ("cse7766", "hlw8032") else None,
                stop=1,
                rx=int(str(board["rx_pin"])),
                tx=int(str(board["tx_pin"])),
                rxbuf=UART_BUFFER,
            )

    def timer_ms(self) -> int:
        # ticks_ms turns round after twelve days: count on, instead of keeping one start.
        now_ms = time.ticks_ms()
        self._timer_ms += time.ticks_diff(now_ms, self._last_ms)
        self._last_ms = now_ms
        return self._timer_ms

    def measure(self, plug: object, timer_ms: int) -> None:
        self._look_at_button(plug, timer_ms)
        if self._uart is not None:
            data = self._uart.read()
            if data:
                plug.uart(data)  # type: ignore[attr-defined]
        if timer_ms < self._next_ms:
            return
        self._next_ms = timer_ms + POLL_MS
        if self._uart is not None and self._request:
            self._uart.write(self._request)
        if self._pulses is not None:
            sample = self._pulses.read(self._cf.value(), self._cf1.value(), timer_ms)
            self._select.value(self._pulses.select)
            if sample is not None:
                plug.sample(sample)  # type: ignore[attr-defined]

    def _look_at_button(self, plug: object, timer_ms: int) -> None:
        if self._button_pin is None:
            return
        press = self._button.look(self._button_pin.value() == 0, timer_ms)
        if press == panel.SHORT:
            plug.button()  # type: ignore[attr-defined]
        elif press == panel.LONG:
            plug.factory_reset()  # type: ignore[attr-defined]
            os.remove("/config.json")
            machine.reset()

    def relay(self, on: bool) -> None:
        if self._relay is not None:
            self._relay.value(self._on if on else 1 - self._on)

    def lamp(self, code: int, timer_ms: int) -> None:
        if self._lamp is not None:
            self._lamp.value(self._lamp_on if panel.lit(code, timer_ms) else 1 - self._lamp_on)

    def feed(self) -> None:
        self._watchdog.feed()

    def healthy(self) -> None:
        self._slots.healthy()  # type: ignore[attr-defined]

    def status(self) -> "dict[str, object]":
        slots = self._slots
        shown: dict[str, object] = {"release": slots.releases[slots.active], "boots": self.boots}  # type: ignore[attr-defined]
        shown["trial"] = slots.trial  # type: ignore[attr-defined]
        shown["roll_backs"] = slots.roll_backs  # type: ignore[attr-defined]
        shown["reset"] = self._cause
        shown["heap_free"] = gc.mem_free()
        return shown


def parser_of(board: "dict[str, object]") -> "tuple[object, int]":
    """Return (parser, span of the counter) of the board's chip."""
    # One chip a board: the others' modules would only take heap.
    chip = board["chip"]
    if chip == "bl0942":
        from watt_plug.meters import bl0942

        return bl0942.Parser(), bl0942.PULSE_SPAN
    if chip == "pzem004t":
        from watt_plug.meters import pzem004t

        return pzem004t.Parser(), pzem004t.PULSE_SPAN
    if chip in ("hlw8012", "bl0937"):
        from watt_plug.meters import pulses

        return Parser(), pulses.PULSE_SPAN
    from watt_plug.meters import cse7766

    ppm = cse7766.VOLTAGE_PPM_HLW8032 if chip == "hlw8032" else 1000000
    return cse7766.Parser(int(str(board.get("voltage_ppm", ppm)))), cse7766.PULSE_SPAN


def opener_of(settings: "dict[str, object]", tls_key: bytes) -> object:
    """Return the coroutine function that opens the TLS connection to the broker, joining Wi-Fi first."""
    # Bytes, and only what is needed: the settings with their hexadecimal certificates do not stay in the heap.
    authority = binascii.unhexlify(str(settings["ca"]))
    certificate = binascii.unhexlify(str(settings["certificate"]))
    wifi = str(settings["wifi_ssid"]), str(settings["wifi_password"])
    host, port = str(settings["broker_host"]), int(str(settings["broker_port"]))
    station = network.WLAN(network.STA_IF)
    station.active(True)
    key = HEADER_SEC1 + tls_key + MIDDLE_SEC1 + p256.public_key(tls_key)
    asked: list[bool] = []

    async def open_stream() -> object:
        if not station.isconnected():
            station.connect(*wifi)
            while not station.isconnected():
                await asyncio.sleep(1)  # the shell's time-out ends it
        if not asked:
            asked.append(True)
            ask_network_time(host)
        gc.collect()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # MicroPython's default checks nothing.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority)
        context.load_cert_chain(certificate, key)
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=host)  # type: ignore[call-arg]

    return open_stream


def set_year(known_s: int) -> None:
    """Move the ESP32's clock up to a time that has certainly come: TLS judges certificates by it, nothing else."""
    if known_s > int(time.time()) + EPOCH_S:
        year, month, day, hour, minute, second, weekday, _ = time.gmtime(known_s - EPOCH_S)[:8]
        machine.RTC().datetime((year, month, day, weekday, hour, minute, second, 0))


def ask_network_time(host: str) -> None:
    """Ask the gateway's machine for the time, for the handshake alone: the plug may have been without supply long."""
    import ntptime

    ntptime.host = host
    try:
        set_year(ntptime.time() + EPOCH_S)
    except OSError:
        pass  # no time server there: the floor is all that is known


def run_safe(seconds: int) -> None:
    """Safe mode, as main.py knows it."""
    from watt_plug import unpaired

    unpaired.run_safe(seconds)


def run(slots: object) -> None:
    """Be a plug: pair if that was never done, then meter until an update asks for a restart."""
    board = json.loads(read("board.json"))
    root = release.root_of(release.__file__)
    settings = json.loads(read("config.json") or b"null")
    if settings is None:
        from watt_plug import unpaired

        slots.healthy()  # type: ignore[attr-defined]
        unpaired.pair(board, root, 0)
        return
    network.WLAN(network.STA_IF).active(True)  # before a key is made: the radio feeds the generator
    signer = make_signer(board)
    plug_id = plug_id_of(signer.public)
    parties = [(number, bytes(binascii.unhexlify(key))) for number, key in settings["parties"]]
    rules = Rules(int(settings["utc_offset_s"]), False, int(board.get("min_off_s", 0)), int(board.get("min_on_s", 0)))
    network_hash = bytes(binascii.unhexlify(settings["network"]))
    switch = Switch(network_hash, parties, rules, below, bool(settings["essential"]))
    parser, span = parser_of(board)
    config = Config(
        settings["gateway"],
        int(board["rated_w"]),
        release.firmware_hash(root),
        sample_s=1,
        parser=parser,  # type: ignore[arg-type]
        span=span,
        calibration=calibration(),
        switch=switch,
        appliances=True,
    )
    plug = Plug(config, signer, DirectoryStorage("/state"))
    set_year(max(plug.resume_s, not_before_s(bytes(binascii.unhexlify(settings["certificate"])))))
    cause = reset_cause()
    here = Esp32(board, slots, parser, cause)
    clock = Clock(plug_id, bytes(binascii.unhexlify(settings["gateway_key"])), os.urandom)
    # Pulses are counted by the processor itself. A supply that was bad for it may have been bad for the chip as well.
    kept = cause in (machine.WDT_RESET, machine.SOFT_RESET) and "cf_pin" not in board
    running = slots.releases[slots.active]  # type: ignore[attr-defined]
    roll_back = (slots.roll_backs, slots.rolled_back, running)  # type: ignore[attr-defined]
    plug.start(0, kept, 0, cause, here.boots, "U", roll_back, signer.count_start())
    gateway = settings["gateway"]
    topics = {
        "ask": plug_topics.plug_ask(gateway, plug_id),
        "status": plug_topics.plug_status(gateway, plug_id),
    }

    def make_updater() -> object:
        gc.collect()
        gc.threshold(UPDATING_BYTES)
        from watt_plug.update import Updater

        keys = read("release.bin")
        return Updater(slots, [keys[at : at + 64] for at in range(0, len(keys), 64)])

    opener = opener_of(settings, private_key("tls.bin"))
    settings = None
    gc.collect()
    # From here on rarely: each collection costs 10 ms, and a signature leaves 300 KB behind.
    gc.threshold(gc.mem_free() * 3 // 4)
    shell = Shell(plug, clock, here, opener, below, make_updater, topics)
    asyncio.run(supervised(shell, plug, clock, here))


async def supervised(shell: Shell, plug: Plug, clock: Clock, board: Board) -> None:
    """Run the shell; once a new bundle is in its slot and no command holds the relay, end the books and restart."""
    running = asyncio.create_task(shell.run())
    while not running.done():
        await asyncio.sleep(1)
        if shell.staged and not plug.must_wait:
            plug.stop(clock.now_s(board.timer_ms() // 1000))
            machine.reset()
    await running
