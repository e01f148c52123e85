"""The plug on an ESP32: real UART, Wi-Fi, clock, TLS and flash around `watt_plug.app.Plug`.

Thin on purpose: no rule of measuring or signing lives here. Files it reads (README.md says how they get there):
config.json, key.hex, ca.der, client.der, client-key.der. Anything that goes wrong ends in a reset by the watchdog
or by `machine.reset`; the journal makes the next boot go on where this one stopped.
"""

import gc
import hashlib
import json
import os
import socket
import ssl
import time

import machine
import network
import ntptime
from watt_plug import release
from watt_plug.app import Plug
from watt_plug.config import Config
from watt_plug.signer import SoftwareSigner
from watt_plug.storage import DirectoryStorage

EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0
"The ESP32 port counts from 2000; records count from 1970. The one place where the two meet."
WATCHDOG_MS = 60000
"Longer than Wi-Fi, NTP and a TLS handshake together on a bad evening; a hung loop is back within a minute."
WIFI_WAIT_S = 20
CONNECT_WAIT_S = 10
RECONNECT_FIRST_S = 2
RECONNECT_MAX_S = 300
POLL_MS = 50
"The chip sends a frame every 50 ms; the UART buffer holds ten."
UART_BUFFER = 256
READ_MAX = 1024
RESYNC_S = 21600
"NTP again every six hours: the crystal drifts half a second in that time."


class Transport:
    """The TLS socket to the broker, non-blocking once it is open; reconnects with a bounded back-off."""

    def __init__(self, host, port, context):
        self._host = host
        self._port = port
        self._context = context
        self._socket = None
        self._output = b""
        self._retry_s = 0
        self._wait_s = RECONNECT_FIRST_S

    def poll(self, plug, timer_s):
        """Move bytes both ways between socket and plug."""
        if self._socket is None:
            if timer_s >= self._retry_s:
                self._open(plug, timer_s)
            return
        try:
            data = self._socket.read(READ_MAX)
            if data == b"":
                raise OSError("closed by the broker")
            if data:
                plug.network(data)
            self._output += plug.take_output()
            if self._output:
                written = self._socket.write(self._output)
                if written:
                    self._output = self._output[written:]
        except OSError as error:
            print("broker:", error)
            self.close(plug, timer_s)
        if plug.must_close:
            self.close(plug, timer_s)

    def close(self, plug, timer_s):
        """Give the connection up and plan the next one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            plug.closed()
        self._output = b""
        self._retry_s = timer_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, RECONNECT_MAX_S)

    def _open(self, plug, timer_s):
        raw = socket.socket()
        try:
            raw.settimeout(CONNECT_WAIT_S)
            raw.connect(socket.getaddrinfo(self._host, self._port)[0][-1])
            gc.collect()
            self._socket = self._context.wrap_socket(raw, server_hostname=self._host)
            raw.setblocking(False)
        except OSError as error:
            print("broker:", error)
            raw.close()
            self._socket = None
            self.close(plug, timer_s)
            return
        self._wait_s = RECONNECT_FIRST_S
        plug.opened()


def read_file(name):
    with open(name, "rb") as file:
        return file.read()


def tls_context():
    """Both sides show a certificate. MicroPython's default checks nothing: verify_mode must be set."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=read_file("ca.der"))
    context.load_cert_chain(read_file("client.der"), read_file("client-key.der"))
    return context


def connect_wifi(settings, watchdog):
    """Join the network; reset when that does not work, because a fresh radio often does."""
    station = network.WLAN(network.STA_IF)
    station.active(True)
    station.connect(settings["wifi_ssid"], settings["wifi_password"])
    deadline = time.ticks_add(time.ticks_ms(), WIFI_WAIT_S * 1000)
    while not station.isconnected():
        if time.ticks_diff(deadline, time.ticks_ms()) < 0:
            machine.reset()
        watchdog.feed()
        time.sleep_ms(200)


def set_clock():
    """Return True if the clock is set. TLS and every record need it: without it the plug does not start."""
    try:
        ntptime.settime()
        return True
    except OSError as error:
        print("ntp:", error)
        return False


def firmware_hash():
    """Return the hash of the files that run; of the build's version string where they are frozen into the image."""
    try:
        return release.firmware_hash(release.root_of(release.__file__))
    except (OSError, AttributeError):
        return hashlib.sha256(b"frozen " + os.uname().version.encode()).digest()


def now_s():
    return int(time.time()) + EPOCH_S


def run():
    settings = json.loads(read_file("config.json"))
    watchdog = machine.WDT(timeout=WATCHDOG_MS)
    connect_wifi(settings, watchdog)
    while not set_clock():
        time.sleep(2)  # the watchdog is not fed: after a minute without a clock the plug starts over
    uart = machine.UART(
        settings.get("uart", 1),
        baudrate=4800,
        bits=8,
        parity=0,
        stop=1,
        rx=settings["rx_pin"],
        tx=settings["tx_pin"],
        rxbuf=UART_BUFFER,
    )
    config = Config(settings["gateway"], settings["rated_w"], firmware_hash(), sample_s=1)
    signer = SoftwareSigner(bytes.fromhex(read_file("key.hex").decode().strip()))
    plug = Plug(config, signer, DirectoryStorage("state"))
    transport = Transport(settings["broker_host"], settings["broker_port"], tls_context())
    timer_s = 0
    started_ms = time.ticks_ms()
    plug.start(now_s(), machine.reset_cause() != machine.PWRON_RESET, timer_s)
    last_s = now_s()
    while True:
        data = uart.read()
        if data:
            plug.uart(data)
        if now_s() != last_s:
            last_s = now_s()
            # ticks_ms wraps after 12 days: count whole seconds instead of keeping one start.
            elapsed_s = time.ticks_diff(time.ticks_ms(), started_ms) // 1000
            started_ms = time.ticks_add(started_ms, elapsed_s * 1000)
            timer_s += elapsed_s
            plug.tick(last_s, timer_s)
            if timer_s % RESYNC_S == 0:
                set_clock()
            for line in plug.take_log():
                print(line)
        transport.poll(plug, timer_s)
        watchdog.feed()
        time.sleep_ms(POLL_MS)


if __name__ == "__main__":
    try:
        run()
    except Exception as error:  # the one supervisor of the device: say why, then start over from the journal
        print("fatal:", error)
        time.sleep(5)
        machine.reset()
