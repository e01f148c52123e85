"""Power cuts and refusals at every operation on the disk, and bytes changed in every file.

The tests take a share that touches every operation; `wattpact bench stores --faults` tries every image.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest
from watt_node.vault import ARCHIVE, Keeping
from watt_sim.power import RECORDS, STORES, PowerDisk
from watt_sim.storecrash import SCENARIOS, Scenario, cuts, second_cuts, steps_of
from watt_sim.storefaults import FAULTS, hunt_all
from watt_sim.storeflips import SMALL_BYTES, flip, stopped
from watt_sim.storeworld import StoreWorld
from watt_tools.bench_stores import ways_table

HEIGHT = 9
CONSENSUS = Path(__file__).parents[2] / "station/CONSENSUS.md"
ASKING = {"sync", "truncate", "replace", "remove"}
WRITING = {"write", "append"}
WRITERS = {"_log", "log", "fresh", "record", "file"}
"""What a file of records is called in the stores."""


def asking_places(module: str) -> set[tuple[str, int]]:
    """Lines of a store that ask the disk for something that a crash may come before."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(Path(str(import_module(module).__file__)).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if node.func.attr in ASKING or (node.func.attr in WRITING and name in WRITERS):
                found.add((module, node.lineno))
    return found


def test_every_line_of_the_stores_that_changes_the_disk_is_crashed_at() -> None:
    asked = set().union(*(asking_places(module) for module in (*STORES, RECORDS)))
    assert len(asked) > 40
    reached = {place for scenario in SCENARIOS for step in steps_of(scenario) for place in step.places}
    assert asked <= reached, f"no scenario comes by {sorted(asked - reached)}: a crash there is not tried"


def test_the_order_of_operations_is_what_the_document_says() -> None:
    from watt_sim.storecrash import sequences

    lines = CONSENSUS.read_text().splitlines()
    missing = [line for line in ways_table(sequences()).splitlines() if line not in lines]
    assert not missing, "CONSENSUS.md 9 lacks: " + "\n".join(missing)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_given_a_crash_at_any_operation_when_restarted_then_nothing_is_lost_and_nothing_signed_twice(
    scenario: Scenario,
) -> None:
    # Eleven variants: with a stride of ten every operation comes up, and every variant too. Of repairs: a third.
    tried = list(cuts(31 if scenario.damaged else 10, scenarios=(scenario,)))
    steps = len({found.step for _, found in tried})
    assert steps == len(steps_of(scenario)) or (scenario.damaged and steps > len(steps_of(scenario)) // 3)
    assert [found for _, found in tried if found.outcome] == []


def test_given_a_second_cut_while_starting_when_started_again_then_the_same_holds() -> None:
    tried = list(second_cuts(97))
    assert len(tried) > 15
    assert [found for _, found in tried if found.outcome] == []


def test_given_any_byte_changed_or_the_end_gone_when_started_then_it_is_noticed_healed_and_never_signed_over() -> None:
    tallies = {tally.kind: tally for tally in flip(61)}
    assert set(tallies) == {"vote log", "block log", "block index", "snapshot", "state transfer"}
    assert [wrong for tally in tallies.values() for wrong in tally.wrong] == []
    for tally in tallies.values():
        assert tally.flips and tally.cuts
        assert tally.noticed + tally.like_a_crash == tally.flips + tally.cuts
    assert tallies["vote log"].doubted >= tallies["vote log"].flips


def test_every_byte_of_every_file_is_among_the_changes() -> None:
    for base in stopped():
        tried = list(base.changes())
        for name in base.names:
            size = len(base.image[name])
            bits = size * 8 if size <= SMALL_BYTES else size
            assert sum(one.name == name and one.bit >= 0 for one in tried) == bits
            assert {one.at for one in tried if one.name == name and one.bit < 0} == set(range(size))


@pytest.mark.parametrize(
    "name",
    [
        "sends before it writes",
        "the folder is not synced after the votes' rename",
        "a snapshot takes its name before it is whole",
        "pruning does not wait for the older snapshot",
    ],
)
def test_a_planted_fault_is_found(name: str) -> None:
    (found,) = hunt_all([name])
    assert found.by, found


def test_the_planted_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


# --- memory that is gone, copied or old -------------------------------------------------------------------


def keeping(retain: int = ARCHIVE) -> Keeping:
    return Keeping(retain=retain, snapshot_blocks=3, segment_blocks=2)


def grown(height: int = HEIGHT) -> StoreWorld:
    world = StoreWorld(PowerDisk(), keeping())
    world.start()
    world.run_to(height)
    world.stop()
    return world


@pytest.mark.parametrize("lost", ["votes.log", "blocks.log", "both", "everything"])
def test_given_lost_files_when_started_then_the_validator_is_silent_until_a_block_is_younger_than_its_loss(
    lost: str,
) -> None:
    world = grown()
    image = world.disk.image()
    gone = {"votes.log": ["votes.log"], "blocks.log": ["blocks.log"], "both": ["votes.log", "blocks.log"]}
    kept = {} if lost == "everything" else {k: v for k, v in image.items() if k not in gone[lost]}
    signed = dict(world.signed)
    world.disk = world.disk.with_content(kept)
    world.start()
    doubt = world.replicas[0].doubt
    assert bool(doubt) == (lost != "blocks.log")
    for _ in range(20):
        world.step()
    assert world.signed == signed or lost == "blocks.log"
    world.run_to(HEIGHT + 4)
    assert not world.replicas[0].doubt and world.pledges == (1 if doubt else 0)
    first = min(height for _, height, _ in set(world.signed) - set(signed))
    assert first > max(height for _, height, _ in signed)
    world.away = {3}
    world.run_to(HEIGHT + 8)


def test_given_a_copy_of_the_folder_when_started_then_the_copy_is_noticed_and_stays_silent_at_first() -> None:
    world = grown(height=4)
    old = world.disk.copy(same_place=False)
    world.start()
    world.run_to(HEIGHT)
    world.stop()
    world.disk = old
    world.start()
    assert "copied" in world.replicas[0].doubt
    world.run_to(HEIGHT + 4)  # a vote for a height it had voted in would fail the world's check
    assert not world.replicas[0].doubt and world.pledges == 1


def test_given_an_old_image_of_the_whole_disk_when_started_then_it_asks_first_and_knows_its_own_votes_again() -> None:
    world = grown(height=4)
    old = world.disk.copy(same_place=True)
    world.start()
    world.run_to(HEIGHT)
    world.stop()
    world.disk, world.signed = old, {}
    world.start()
    assert not world.replicas[0].doubt and world.replicas[0].status()["silent"] == "asking"
    world.run_to(HEIGHT + 8)
    assert world.pledges == 1, "a certificate showed a commit that the old disk does not know"


def test_given_a_doubt_that_was_not_cleared_when_started_again_then_it_is_still_there() -> None:
    world = grown()
    image = {name: data for name, data in world.disk.image().items() if name != "votes.log"}
    world.disk = world.disk.with_content(image)
    world.start()
    reason = world.replicas[0].doubt
    world.stop()
    world.start()
    assert world.replicas[0].doubt == reason == "missing"


def test_given_an_archive_that_lost_its_newest_blocks_when_started_then_no_gap_is_left() -> None:
    """A newer snapshot is there and would be quicker; an archive keeps every block and fetches them instead."""
    world = grown()
    image = world.disk.image()
    for name in [name for name in image if name.startswith("blocks") and "000000000000" not in name]:
        del image[name]
    world.disk = world.disk.with_content(image)
    world.answered.clear()
    world.start()
    world.run_to(HEIGHT + 2)
    assert world.vault is not None and world.vault.base == 0
    assert all(world.vault.block(height) for height in range(1, HEIGHT + 3))
