"""What a field run does with the plugs' firmware: flash it, take plugs in, ask them what they have made."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from watt_chain import crypto
from watt_rig.bench import Bench
from watt_rig.benchfile import BenchFile

from watt_tools import plug_flash, plug_provision, rig_setup
from watt_tools.field_trials import Trials
from watt_tools.plug_link import Cable
from watt_tools.plug_pair import NewPlug
from watt_tools.rig_setup import Trust

QUIET_S = 6
"Longer than a plug's first repetition of a batch."
MADE = """
import sys, json, os
from watt_boot.slots import Slots
s = Slots("/")
sys.path.insert(0, s.folder(s.active))
from watt_plug.journal import Journal
from watt_plug.storage import DirectoryStorage
j = Journal(DirectoryStorage("/state")).load()
w = [n for n in os.listdir("/state") if n[:1] == "b" and n[1:2].isdigit()]
print("WATTPACT " + json.dumps({"made": j.next_sequence - 1, "signed": j.next_sequence - 1 - len(j.open_records),
 "waiting": len(w), "counter": j.counter, "import_mwh": j.import_mwh, "roll_backs": s.roll_backs,
 "release": s.releases[s.active]}))
"""
"Counts what the plug's own journal says; `waiting` are batches that the gateway has not acknowledged."


class Stages:
    """The firmware's part of a run."""

    def __init__(self, bench: Bench, trust: Trust, file: BenchFile) -> None:
        self._bench = bench
        self._trust = trust
        self._file = file
        self._boots: dict[str, int] = {}
        self._trials: Trials | None = None
        self.peace_s: dict[str, int] = {}
        "World time of each plug when the faults ended."
        self._publics: dict[str, bytes] = {}

    def flash(self, name: str) -> plug_flash.Flashed:
        """Firmware, board, code and release keys over the cable; the plug then waits to be taken in."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for file, data in rig_setup.board_files(self._trust, self._file, name).items():
                (folder / file).write_bytes(data)
            return plug_flash.flash(str(self._bench.plugs[name].port), config=folder)

    async def take_in(self, name: str) -> bytes:
        """Over Bluetooth: the plug makes its keys, proves the printed code and is told its household; return its id."""
        assert self._bench.bus is not None and self._bench.radios is not None
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self._bench.bus.address

        def enrol(plug: NewPlug, told: str) -> None:
            assert self._bench.collector is not None
            self._publics[name] = plug.public
            self._bench.collector.enrol(plug.public, told, plug.rated_w, self._bench.clock.now_s())

        household = rig_setup.household(self._trust, self._bench.airs[name].port)
        kept = self._bench.folder / "enrolments"
        target = plug_provision.Target(household, self._trust.authority.certify, enrol, kept)
        address = self._bench.radios.address_of(name)
        await plug_provision.over_the_air(target, self._trust.code(name), name, address)
        return crypto.id8(self._publics[name])

    def public(self, name: str) -> bytes:
        """The plug's public key."""
        return self._publics[name]

    @property
    def trials(self) -> Trials:
        """Commands and updates."""
        if self._trials is None:
            self._trials = Trials(self._bench, self._trust, self.public)
        return self._trials

    def remember_boots(self) -> None:
        """From here on every plug has to sign one more start."""
        assert self._bench.collector is not None
        tips = self._bench.collector.store.tips()
        self.peace_s = {name: plug.world_s for name, plug in self._bench.plugs.items()}
        self._boots = {name: tips[crypto.id8(self.public(name))].counter for name in self._publics}

    def all_acknowledged(self) -> bool:
        """Every plug has come up since `remember_boots`, knows the time again, and nothing new has come for a while."""
        collector = self._bench.collector
        assert collector is not None
        tips = collector.store.tips()
        for name, counter in self._boots.items():
            plug = crypto.id8(self.public(name))
            if tips[plug].counter <= counter or collector.qualities.get(plug) != ord("S"):
                return False
        return time.monotonic() - collector.stored_at_s > QUIET_S

    def made(self, name: str) -> dict[str, int]:
        """What the plug's journal says, read over the cable."""
        found = Cable(str(self._bench.plugs[name].port)).ask(MADE)
        return {str(what): int(value) for what, value in found.items()}
