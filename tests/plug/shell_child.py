"""A plug in its shell, for test_shell.py: real asyncio, real mbedTLS, a made-up chip and board.

    micropython shell_child.py FOLDER HOST PORT GATEWAY_KEY PARTY_A PARTY_B NETWORK      (keys and network in hex)

Prints "relay 0|1" at every move, "healthy", and "fed" once. Ends when FOLDER holds a file `stop`.
"""

import asyncio
import os
import ssl
import sys
import time

from plug_tools import KEY, frame
from watt_plug.app import Plug
from watt_plug.clock import Clock, plug_id_of
from watt_plug.config import Config
from watt_plug.interlock import Rules
from watt_plug.shell import Board, Shell
from watt_plug.signer import SoftwareSigner
from watt_plug.storage import DirectoryStorage
from watt_plug.switch import Switch
from watt_wire import plug_topics

folder, host, port, gateway_key, party_a, party_b, network = sys.argv[1:]
GATEWAY = "home-1"


class FakeBoard(Board):
    def __init__(self) -> None:
        self._relay = None
        self._position = 0
        self._last_s = -1
        self._fed = False

    def timer_ms(self) -> int:
        return int(time.time() * 1000) - started

    def measure(self, plug: Plug, timer_ms: int) -> None:
        if timer_ms // 1000 != self._last_s:
            self._last_s = timer_ms // 1000
            self._position += 4
            plug.uart(frame(self._position))
            if "stop" in os.listdir(folder):
                shell.stopped = True

    def relay(self, on: bool) -> None:
        if on != self._relay:
            self._relay = on
            print("relay", 1 if on else 0)

    def feed(self) -> None:
        if not self._fed:
            self._fed = True
            print("fed")

    def healthy(self) -> None:
        print("healthy")


def read(name: str) -> bytes:
    with open(folder + "/" + name, "rb") as file:
        return file.read()


async def opener() -> object:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=read("ca.der"))
    context.load_cert_chain(read("client.der"), read("key.der"))
    return await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)


started = int(time.time() * 1000)
signer = SoftwareSigner(KEY)
plug_id = plug_id_of(signer.public)
parties = [(1, bytes.fromhex(party_a)), (2, bytes.fromhex(party_b))]
switch = Switch(bytes.fromhex(network), parties, Rules(night_allowed=True), lambda n: 0)
config = Config(GATEWAY, 3680, bytes(32), record_s=5, slot_s=10, sample_s=1, switch=switch)
plug = Plug(config, signer, DirectoryStorage(folder + "/state"))
clock = Clock(plug_id, bytes.fromhex(gateway_key), os.urandom)
topics = {"ask": plug_topics.plug_ask(GATEWAY, plug_id), "status": plug_topics.plug_status(GATEWAY, plug_id)}
plug.start(0, True, 0, quality="U")
shell = Shell(plug, clock, FakeBoard(), opener, lambda n: 0, None, topics)
asyncio.run(shell.run())
print("end", plug.counter, shell.connections)
