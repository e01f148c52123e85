"""A byte changed, or the end gone, at every place of every file that a validator keeps (G7).

The validator ran for a while and was stopped. Then one file is other than it was written. At the next start that must
be noticed (a report, a refusal to start that names the file, or doubt), nothing may be signed against what was
signed before, and all that was told must be there again once the others have helped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from watt_node.disk import StoreError
from watt_node.records import HEAD, MAGIC
from watt_node.snapshots import PART
from watt_node.vault import ARCHIVE, Keeping
from watt_node.votelog import NAME as VOTES

from watt_sim.drbg import Drbg
from watt_sim.power import PowerDisk
from watt_sim.storecrash import (
    HEIGHT,
    SCENARIOS,
    SEGMENT_BLOCKS,
    SNAPSHOT_BLOCKS,
    VOTES_BYTES,
    interrupt,
    make_world,
    steps_of,
    store_of,
    take_a_state,
)
from watt_sim.storeworld import Broken, StoreWorld

SMALL_BYTES = 512
"""Files up to this size have every bit of every byte flipped; of longer ones one bit of each byte."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file with one thing wrong: `bit` of byte `at` flipped, or (bit < 0) everything from byte `at` on gone."""

    name: str
    at: int
    bit: int


@dataclass(slots=True)
class Tally:
    """What came of the changes of one kind of file."""

    kind: str
    flips: int = 0
    cuts: int = 0
    noticed: int = 0
    harmless: int = 0
    "Where nothing is stored: every answer is as before."
    like_a_crash: int = 0
    "Cut just behind a record: so looks a file whose last record a power cut took, and nobody can tell."
    refused: int = 0
    "The validator did not start, and said which file to look at."
    doubted: int = 0
    wrong: list[str] = field(default_factory=list)
    "Unnoticed, contradicted, lost or stuck."

    def add(self, change: Change, how: str, text: str) -> None:
        """Count one change; `how` and `text` as `Stopped.try_one` gives them."""
        if change.bit < 0:
            self.cuts += 1
        else:
            self.flips += 1
        self.noticed += how in ("noticed", "doubted", "refused")
        self.doubted += how == "doubted"
        self.refused += how == "refused"
        self.harmless += how == "harmless"
        self.like_a_crash += how == "like-a-crash"
        if how == "wrong":
            self.wrong.append(f"{change.name}, byte {change.at}, bit {change.bit}: {text[:200]}")


class Stopped:
    """A validator that was stopped; one file is changed, it is started, gets on, and is stopped again."""

    def __init__(self, world: StoreWorld, names: str, height: int, keeps: bool) -> None:
        """`names`: how the files begin that are changed here; `height`: how far it must come after each start.

        keeps   whether every block that was told must be there again, and not only the state after it
        """
        self.world, self.height = world, height
        self.disk = world.disk
        self.image = self.disk.image()
        self.names = [name for name in sorted(self.image) if name.startswith(names)]
        self._signed, self._answered = dict(world.signed), dict(world.answered) if keeps else {}

    def changes(self) -> Iterator[Change]:
        """Every change that is tried."""
        chance = Drbg("flips")
        for name in self.names:
            size = len(self.image[name])
            for at in range(size):
                for bit in range(8) if size <= SMALL_BYTES else (chance.below(8),):
                    yield Change(name, at, bit)
            yield from (Change(name, at, -1) for at in range(size))

    def try_one(self, change: Change) -> tuple[str, str]:
        """("noticed" | "doubted" | "refused" | "like-a-crash" | "wrong", what is wrong)."""
        world, data = self.world, bytearray(self.image[change.name])
        if change.bit < 0:
            del data[change.at :]
        else:
            data[change.at] ^= 1 << change.bit
        world.disk = self.disk.with_content({**self.image, change.name: bytes(data)})
        world.reports.clear()
        world.signed, world.answered = dict(self._signed), {}
        try:
            world.start()
            how = self._noticed(change)
            doubt = world.replicas[world.index].doubt
            world.stop()
            world.start()  # what was noticed, and healed, must outlive a second start
            if doubt and not world.replicas[world.index].doubt:
                return "wrong", "the doubt is forgotten by the next start"
            world.run_to(self.height)
            assert world.vault is not None
            for height, hash_ in self._answered.items():
                if world.vault.block(height) is None or world.chain[height] != hash_:
                    return "wrong", f"block {height} is not there again"
        except StoreError as error:
            named = change.name in str(error)
            return ("refused", "") if named else ("wrong", f"does not start, and does not say why: {error}")
        except Broken as broken:
            return "wrong", str(broken)
        finally:
            world.stop()
        return (how, "") if how else ("wrong", "unnoticed")

    def _noticed(self, change: Change) -> str:
        world = self.world
        if change.name == VOTES and world.replicas[world.index].doubt:
            return "doubted"
        if change.name == VOTES and change.bit >= 0:
            return ""  # a line in the log does not keep a validator from signing
        if world.reports:
            return "noticed"
        data = self.image[change.name]
        return "like-a-crash" if change.bit < 0 and change.at in _ends(data) else ""


def _ends(data: bytes) -> set[int]:
    """Where records end (and the beginning, where an empty file ends)."""
    found, at = {0}, 0
    while data[at : at + len(MAGIC)] == MAGIC:
        at += HEAD.size + HEAD.unpack_from(data, at)[1]
        found.add(at)
    return found


def stopped() -> list[Stopped]:
    """A validator that ran to HEIGHT, and one that was in the middle of fetching a state."""
    keeping = Keeping(ARCHIVE, SNAPSHOT_BLOCKS, SEGMENT_BLOCKS, VOTES_BYTES)
    grown = StoreWorld(PowerDisk(), keeping, takes_states=False)
    grown.start()
    grown.run_to(HEIGHT)
    grown.stop()
    laggard = next(scenario for scenario in SCENARIOS if scenario.prepare is take_a_state)
    at = [step.name.startswith("snapshot") for step in steps_of(laggard)].index(True) + 1
    fetching = make_world(laggard)
    interrupt(fetching, laggard, at, "kept")
    return [Stopped(grown, "", HEIGHT, True), Stopped(fetching, PART, laggard.height, False)]


def flip(every: int = 1, first: int = 0) -> Iterator[Tally]:
    """The tallies of all kinds of file, the same objects again and again as they grow.

    every, first   as in storecrash.cuts
    """
    tallies: dict[str, Tally] = {}
    number = 0
    for base in stopped():
        for change in base.changes():
            number += 1
            if number % every != first % every:
                continue
            kind = store_of(change.name)
            tally = tallies.setdefault(kind, Tally(kind))
            tally.add(change, *base.try_one(change))
            yield tally
