"""What a field run does with the plugs' firmware: flash it, take plugs in, ask them what they have made."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from watt_chain import crypto
from watt_rig.bench import HOME, Bench
from watt_rig.benchfile import BenchFile
from watt_rig.vplug import PWRON

from watt_tools import plug_flash
from watt_tools.certificates import der_of
from watt_tools.plug_link import Cable
from watt_tools.rig_setup import PINS, Trust, key_of

MADE = """
import sys, json, os
from watt_plug.journal import Journal
from watt_plug.storage import DirectoryStorage
s = Journal(DirectoryStorage("state")).load()
w = [n for n in os.listdir("state") if n[:1] == "b" and n[1:2].isdigit()]
print("WATTPACT " + json.dumps({"made": s.next_sequence - 1, "signed": s.next_sequence - 1 - len(s.open_records),
 "waiting": len(w), "counter": s.counter, "import_mwh": s.import_mwh}))
"""
"Counts what the plug's own journal says; `waiting` are batches that the gateway has not acknowledged."


class Stages:
    """The firmware's part of a run."""

    def __init__(self, bench: Bench, trust: Trust, file: BenchFile) -> None:
        self._bench = bench
        self._trust = trust
        self._parts = {part.name: part for part in file.plugs}
        self._first_s: dict[str, int] = {}
        self._boots: dict[str, int] = {}

    def flash(self, name: str) -> plug_flash.Flashed:
        """Firmware and settings over the cable; the plug stays at its prompt."""
        key = self._key(name)
        certificate, tls_key = self._trust.authority.issue(crypto.id8(key.public).hex())
        pins = {what: value for what, value in PINS[self._parts[name].chip].items() if what != "chip"}
        config = {
            "wifi_ssid": "rig",
            "wifi_password": "rig",
            "gateway": HOME,
            "broker_host": "localhost",
            "broker_port": self._bench.airs[name].port,
            "rated_w": self._parts[name].rated_w,
            **pins,
        }
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "key.hex").write_text(key.to_text())
            (folder / "ca.der").write_bytes(self._trust.authority.ca_der)
            (folder / "client.der").write_bytes(der_of(certificate))
            (folder / "client-key.der").write_bytes(der_of(tls_key))
            return plug_flash.flash(str(self._bench.plugs[name].port), config=folder, start=False)

    async def take_in(self, name: str) -> bytes:
        """Enrol the plug and start it; return its id."""
        assert self._bench.collector is not None
        plug = self._bench.plugs[name]
        self._first_s[name] = plug.world_s
        public = self.public(name)
        plug_id = self._bench.collector.enrol(public, name, self._parts[name].rated_w, self._bench.clock.now_s())
        plug.restart(PWRON)
        return plug_id

    def first_s(self, name: str) -> int:
        """World time at which the plug began to measure."""
        return self._first_s[name]

    def public(self, name: str) -> bytes:
        """The plug's public key."""
        return self._key(name).public

    def remember_boots(self) -> None:
        """From here on every plug has to sign one more start."""
        assert self._bench.collector is not None
        tips = self._bench.collector.store.tips()
        self._boots = {name: tips[crypto.id8(self.public(name))].counter for name in self._parts}

    def all_acknowledged(self) -> bool:
        """Every plug has come up since `remember_boots`, and what it signed then is stored."""
        assert self._bench.collector is not None
        tips = self._bench.collector.store.tips()
        return all(
            tips[crypto.id8(self.public(name))].counter > counter and self._bench.plugs[name].life.healthy_now
            for name, counter in self._boots.items()
        )

    def made(self, name: str) -> dict[str, int]:
        """What the plug's journal says, read over the cable."""
        found = Cable(str(self._bench.plugs[name].port)).ask(MADE)
        return {str(what): int(value) for what, value in found.items()}

    def _key(self, name: str) -> crypto.PrivateKey:
        return key_of(self._trust.folder / f"{name}.key")
