"""A crash before every operation that a validator's stores do on the disk, with everything it may leave (G4, G12).

A scenario is a run of `StoreWorld` that takes the stores through all they ever do: it is played once to count the
operations, and once more for every operation and image. After each crash the validator starts from the image; it must
know what it signed, hold what it told, have replayed few blocks, and get on with the others, all of them if the image
made it doubt its memory, otherwise with just so many that none can be missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from watt_node.disk import StoreError
from watt_node.records import HEAD
from watt_node.vault import ARCHIVE, Keeping

from watt_sim.power import VARIANTS, PowerCut, PowerDisk, Step
from watt_sim.storeworld import Broken, StoreWorld

SNAPSHOT_BLOCKS = 3
SEGMENT_BLOCKS = 2
VOTES_BYTES = 1500
"""votes.log is rewritten every two or three heights."""
HEIGHT = 9
FAILURES = ("fails", "fails-ever")
"""Besides the images of a power cut: the operation is refused by the disk, once, or with all that follow it."""
REPLAY_MAX = 2 * SNAPSHOT_BLOCKS
"""Blocks that a start may execute again: the newest snapshot was not durable, the one before is used."""
OUTCOMES = ("lost", "signed-twice", "stuck", "ignored", "slow-start", "does-not-start")
"""What can go wrong; "ignored": the disk refused an operation and the validator went on."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run: what is kept, and what happens before the validator on the disk is started."""

    name: str
    retain: int
    prepare: Callable[[StoreWorld], None]
    height: int = HEIGHT
    damaged: bool = False
    "Snapshots may be gone: how much a start replays is not bounded by them."


def _nothing(_: StoreWorld) -> None:
    """The network is founded with everybody."""


def _hears_late(world: StoreWorld) -> None:
    """The next height begins with the end of this one: its first votes are written with the block."""
    world.late_steps = 6


def take_a_state(world: StoreWorld) -> None:
    """The validator was off while the others went on and dropped old blocks: only a state helps."""
    world.start()
    world.run_to(HEIGHT - 4)
    world.stop()
    world.run_to(HEIGHT + 1)
    world.oldest = HEIGHT - 1


def _hurt(world: StoreWorld, change: Callable[[dict[str, bytes]], None]) -> None:
    """The validator ran until HEIGHT - 1; then `change` was done to its files. What they lost, the others have."""
    world.start()
    world.run_to(HEIGHT - 1)
    world.stop()
    image = world.disk.image()
    change(image)
    world.disk = world.disk.with_content(image)
    world.answered.clear()


def _flip(image: dict[str, bytes], name: str, record: int) -> None:
    """Change a byte in the content of a record of a file."""
    data = bytearray(image[name])
    at = 0
    for _ in range(record):
        at += HEAD.size + HEAD.unpack_from(data, at)[1]
    data[at + HEAD.size + 3] ^= 1
    image[name] = bytes(data)


def _closed(image: dict[str, bytes]) -> list[str]:
    return sorted(name for name in image if name.startswith("blocks-") and name.endswith(".log"))


def _damaged(world: StoreWorld) -> None:
    """Votes, the newest snapshot, the second block of the first segment, and an index."""

    def change(image: dict[str, bytes]) -> None:
        _flip(image, "votes.log", 1)
        _flip(image, max(name for name in image if name.endswith(".state")), 1)
        _flip(image, _closed(image)[0], 2)
        _flip(image, max(name for name in image if name.endswith(".idx")), 0)

    _hurt(world, change)


def _open_damaged(world: StoreWorld) -> None:
    """The first block of the open segment, and what two crashes left lying about."""

    def change(image: dict[str, bytes]) -> None:
        _flip(image, "blocks.log", 1)
        for name in ("votes.log.new", "blocks-000000000006.idx.new", "snapshot-000000000009.state.new"):
            image[name] = b"half a fi"
        image["blocks-000000000040.idx"] = b"of a segment that is gone"
        image["transfer.part"] = b"of another time"
        image["votes.log"] += b"WPR1"
        image["blocks.log"] += bytes(20)

    _hurt(world, change)


def _beginning_lost(world: StoreWorld) -> None:
    """Snapshots and the first segment are gone; the second one does not check."""

    def change(image: dict[str, bytes]) -> None:
        for name in [name for name in image if name.endswith(".state")]:
            del image[name]
        first, second = _closed(image)[:2]
        del image[first]
        _flip(image, second, 1)

    _hurt(world, change)


def _titles_lost(world: StoreWorld) -> None:
    """The titles of the open segment and of the votes do not check, and a closed segment is missing in the middle."""

    def change(image: dict[str, bytes]) -> None:
        _flip(image, "blocks.log", 0)
        _flip(image, "votes.log", 0)
        del image[_closed(image)[1]]

    _hurt(world, change)


SCENARIOS = (
    Scenario("keeps all", ARCHIVE, _nothing),
    Scenario("keeps little", 2, _nothing),
    Scenario("hears late", ARCHIVE, _hears_late),
    Scenario("takes a state", 2, take_a_state, HEIGHT + 4),
    Scenario("repairs itself", ARCHIVE, _damaged, HEIGHT + 2, damaged=True),
    Scenario("repairs the open segment", ARCHIVE, _open_damaged, HEIGHT + 2, damaged=True),
    Scenario("lost its beginning", 4, _beginning_lost, HEIGHT + 2, damaged=True),
    Scenario("lost its titles", 4, _titles_lost, HEIGHT + 2, damaged=True),
)


def make_world(scenario: Scenario) -> StoreWorld:
    """The world just before the validator on the disk starts."""
    keeping = Keeping(scenario.retain, SNAPSHOT_BLOCKS, SEGMENT_BLOCKS, VOTES_BYTES)
    world = StoreWorld(PowerDisk(), keeping)
    scenario.prepare(world)
    return world


def steps_of(scenario: Scenario) -> list[Step]:
    """Every operation of an undisturbed run, in order."""
    world = make_world(scenario)
    begun = len(world.disk.steps)
    world.start()
    world.run_to(scenario.height)
    return world.disk.steps[begun:]


@dataclass(frozen=True, slots=True)
class Cut:
    """What came of one crash."""

    scenario: str
    step: int
    variant: str
    outcome: str = ""
    "One of OUTCOMES, empty when all held; `text` says what."
    text: str = ""
    replayed: int = 0
    operations: int = 0
    "On the disk, by the start after the crash."
    doubted: bool = False


def cut(scenario: Scenario, step: int, variant: str, again: int = 0) -> Cut:
    """Crash before operation `step` (from 1) of the run, or let it fail (FAILURES), and go on from what is left.

    again   the power goes a second time, before that operation of the start after the crash
    """
    world = make_world(scenario)
    try:
        interrupt(world, scenario, step, variant, again)
        told = dict(world.answered)
        world.start()
        operations = len(world.disk.steps)
        vault = world.vault
        assert vault is not None
        doubted, replayed = bool(vault.doubt), world.replayed
        world.look()
    except StoreError as error:
        return Cut(scenario.name, step, variant, "does-not-start", str(error))
    except Broken as broken:
        return Cut(scenario.name, step, variant, _outcome_of(str(broken)), str(broken))
    found = Cut(scenario.name, step, variant, "", "", replayed, operations, doubted)
    if replayed > REPLAY_MAX and not scenario.damaged:
        return Cut(scenario.name, step, variant, "slow-start", f"{replayed} blocks replayed", replayed, operations)
    if not doubted and not world.oldest and told:
        world.away = {3}  # now every quorum needs the one that fell
    try:
        world.run_to(max(world.height(index) for index in world.replicas if index not in world.away) + 3)
    except (Broken, StoreError) as broken:
        return Cut(scenario.name, step, variant, _outcome_of(str(broken)), str(broken))
    return found


def interrupt(world: StoreWorld, scenario: Scenario, step: int, variant: str, again: int = 0) -> None:
    """Play until the crash, and put in the disk that is left."""
    disk = world.disk
    begun = len(disk.steps)
    if variant in FAILURES:
        disk.fail_at, disk.fails = begun + step, "ever" if variant == "fails-ever" else "once"
    else:
        disk.stop_at = begun + step
    try:
        world.start()
        world.run_to(scenario.height)
        raise Broken("ignored: the run went on" if variant in FAILURES else f"there is no operation {step}")
    except (PowerCut, StoreError):
        world.stop()
    # After a refusal the machine goes on: what the process wrote is there.
    world.disk = disk.after_crash("kept" if variant in FAILURES else variant, scenario.name, step)
    if again:
        world.disk.stop_at = again
        with contextlib.suppress(PowerCut):
            world.start()
        world.stop()
        world.disk = world.disk.after_crash(variant, scenario.name, step, again)


def _outcome_of(text: str) -> str:
    if text.startswith(("stuck", "ignored")):
        return text.split(":")[0]
    return "signed-twice" if text.startswith(("signed twice", "two blocks")) or "forgotten" in text else "lost"


def store_of(name: str) -> str:
    """Which store a file belongs to."""
    if name.startswith("votes"):
        return "vote log"
    if name.startswith("snapshot"):
        return "snapshot"
    if name.startswith("transfer"):
        return "state transfer"
    return "block index" if ".idx" in name else "block log"


def sequences() -> list[tuple[str, str, str]]:
    """(store, act, operations) for every different way in which a call of a store goes, in order.

    Writes to one file that follow each other count as one, and so do passages that repeat: how often is up to the data.
    """
    found: dict[tuple[str, str, str], None] = {}
    for scenario in SCENARIOS:
        calls: dict[tuple[str, int], list[Step]] = {}
        for step in steps_of(scenario):
            calls.setdefault((step.act, step.call), []).append(step)
        for (act, _), done in calls.items():
            kinds = [step.kind for number, step in enumerate(done) if not number or _differs(step, done[number - 1])]
            found[store_of(done[0].name), act, ", ".join(_once(kinds))] = None
    return sorted(found)


def _once(kinds: list[str]) -> list[str]:
    """Without passages that repeat themselves."""
    for width in range(1, len(kinds) // 2 + 1):
        at = 0
        while at + 2 * width <= len(kinds):
            if kinds[at : at + width] == kinds[at + width : at + 2 * width]:
                del kinds[at : at + width]
            else:
                at += 1
    return kinds


def _differs(step: Step, before: Step) -> bool:
    return (step.kind, step.name) != (before.kind, before.name) or step.kind != "write"


@dataclass
class Row:
    """One store's line of the table."""

    store: str
    steps: int = 0
    images: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    doubted: int = 0
    replayed_max: int = 0
    operations_max: int = 0
    first: str = ""
    "The first image that went wrong, for a person."

    def add(self, found: Cut) -> None:
        """Count one crash."""
        self.images += 1
        self.doubted += found.doubted
        self.replayed_max = max(self.replayed_max, found.replayed)
        self.operations_max = max(self.operations_max, found.operations)
        if found.outcome:
            self.outcomes[found.outcome] += 1
            self.first = self.first or f"{found.scenario}, step {found.step}, {found.variant}: {found.text[:200]}"

    @property
    def bad(self) -> int:
        """Images that went wrong in any way."""
        return sum(self.outcomes.values())


def cuts(every: int = 1, first: int = 0, scenarios: tuple[Scenario, ...] = SCENARIOS) -> Iterator[tuple[str, Cut]]:
    """(store, what came of it) for every operation of every scenario and every variant.

    every, first   1 tries all (operation, variant); n tries those whose running number is `first` modulo n, so that n
                   different calls together try all
    """
    number = 0
    for scenario in scenarios:
        for at, step in enumerate(steps_of(scenario), start=1):
            for variant in (*VARIANTS, *FAILURES):
                number += 1
                if number % every == first % every:
                    yield store_of(step.name), cut(scenario, at, variant)


def second_cuts(every: int = 1, first: int = 0) -> Iterator[tuple[str, Cut]]:
    """A second power cut at every operation of the start after the first; one variant for each, in turn."""
    number = 0
    for scenario in SCENARIOS:
        for at in range(1, len(steps_of(scenario)) + 1):
            variant = VARIANTS[at % len(VARIANTS)]
            if (number := number + 1) % every != first % every:
                continue
            for again in range(1, cut(scenario, at, variant).operations + 1):
                yield "a second cut while starting", cut(scenario, at, variant, again)
