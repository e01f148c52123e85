"""What a field run does with the plugs' firmware: flash it, take plugs in, ask them what they have made."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

from watt_chain import crypto
from watt_rig.bench import HOME, Bench
from watt_rig.benchfile import BenchFile
from watt_rig.vplug import HERE, PWRON

from watt_tools import plug_flash, plug_provision, rig_setup
from watt_tools.certificates import der_of
from watt_tools.plug_link import Cable
from watt_tools.plug_pair import NewPlug
from watt_tools.rig_setup import Trust, key_of

PAIR_SHELL = HERE / "device" / "pair_shell.py"

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
        self._boots: dict[str, int] = {}
        self._publics: dict[str, bytes] = {}

    def flash(self, name: str) -> plug_flash.Flashed:
        """The firmware over the cable; the plug stays at its prompt, without a household."""
        return plug_flash.flash(str(self._bench.plugs[name].port), start=False)

    async def take_in(self, name: str, over_the_air: bool) -> bytes:
        """Take the plug into the household and start it; return its id."""
        if over_the_air:
            await self._pair(name)
        else:
            await asyncio.to_thread(self._settle, name)
            self._enrol(name, self._publics[name], self._parts[name].rated_w)
            self._bench.plugs[name].restart(PWRON)
        return crypto.id8(self._publics[name])

    async def _pair(self, name: str) -> None:
        """Over Bluetooth: the plug makes its keys, proves the printed code and is told its household."""
        assert self._bench.bus is not None
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self._bench.bus.address
        cable = Cable(str(self._bench.plugs[name].port))
        await asyncio.to_thread(self._start_pairing, cable, name)

        def enrol(plug: NewPlug, told: str) -> None:
            self._publics[name] = plug.public
            self._enrol(told, plug.public, plug.rated_w)

        household = rig_setup.household(self._trust, self._bench.airs[name].port)
        target = plug_provision.Target(
            household, self._trust.authority.certify, enrol, self._bench.folder / "enrolments"
        )
        await plug_provision.over_the_air(target, self._trust.code(name), name)

    def _start_pairing(self, cable: Cable, name: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "board.json").write_text(json.dumps(self._board(name)))
            (folder / "code.txt").write_text(self._trust.code(name))
            files = [(folder / "board.json", "board.json"), (folder / "code.txt", "code.txt"), (PAIR_SHELL, "pair.py")]
            cable.write(files, lambda _path: None)
        cable.start("import pair")

    def _settle(self, name: str) -> None:
        """Over the cable: keys, certificates and settings as files."""
        key = key_of(self._trust.folder / f"{name}.key")
        self._publics[name] = key.public
        certificate, tls_key = self._trust.authority.issue(crypto.id8(key.public).hex())
        config = {
            "wifi_ssid": "rig",
            "wifi_password": "rig",
            "gateway": HOME,
            "broker_host": "localhost",
            "broker_port": self._bench.airs[name].port,
            **self._board(name),
        }
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "key.hex").write_text(key.to_text())
            (folder / "ca.der").write_bytes(self._trust.authority.ca_der)
            (folder / "client.der").write_bytes(der_of(certificate))
            (folder / "client-key.der").write_bytes(der_of(tls_key))
            files = [(path, path.name) for path in sorted(folder.iterdir())]
            Cable(str(self._bench.plugs[name].port)).write(files, lambda _path: None)

    def _board(self, name: str) -> dict[str, object]:
        """Rated power and pins."""
        part = self._parts[name]
        return {"rated_w": part.rated_w, **{k: v for k, v in rig_setup.PINS[part.chip].items() if k != "chip"}}

    def _enrol(self, name: str, public: bytes, rated_w: int) -> None:
        assert self._bench.collector is not None
        self._bench.collector.enrol(public, name, rated_w, self._bench.clock.now_s())

    def public(self, name: str) -> bytes:
        """The plug's public key."""
        return self._publics[name]

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
