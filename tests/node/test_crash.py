"""Power cuts at every operation on the disk, and bytes flipped in every file (reliability.md, G4 and G7).

`WATTPACT_CRASH=all` tries every operation with six images, and every byte of every file (`make crash`); without it the
tests take a share.
"""

from __future__ import annotations

import os
import random

import pytest
from fake_disk import FakeDisk, Inode, PowerCut
from vault_world import VaultWorld
from watt_node.disk import StoreError
from watt_node.vault import ARCHIVE, Keeping

EVERYTHING = os.environ.get("WATTPACT_CRASH") == "all"
HEIGHT = 9
IMAGES = ("none", "all", "1", "2", "3", "4")
"""What of the unsynced is there: nothing, everything, or by a seed."""


def keeping(retain: int) -> Keeping:
    return Keeping(retain=retain, snapshot_blocks=3, segment_blocks=2)


def returned(disk: FakeDisk, image: str, seed: int) -> FakeDisk:
    keep = image if image in ("none", "all") else ""
    return disk.after_crash(random.Random(f"{image}/{seed}"), keep)


def cut_once(stop_at: int, image: str, retain: int, again: int = 0) -> bool:
    """Run until operation `stop_at`, lose the power, go on from the image; False when the run ends before it.

    again   during the restart the power goes a second time, at that operation
    """
    disk = FakeDisk(stop_at)
    world = VaultWorld(disk, keeping(retain))
    try:
        world.start()
        world.run_to(HEIGHT)
        return False
    except PowerCut:
        world.stop()
    answered, height = dict(world.answered), max(world.answered, default=0)
    world.disk = returned(disk, image, stop_at)
    if again:
        world.disk.stop_at = again
        try:
            world.start()
            world.disk.stop_at = 0
        except PowerCut:
            world.stop()
            world.disk = returned(world.disk, image, stop_at + again)
            world.start()
    else:
        world.start()
    assert world.height() >= height, f"{height} was answered for, {world.height()} is left"
    assert world.vault is not None
    for number, hash_ in answered.items():
        if number > world.vault.base and world.vault.block(number) is not None:
            assert world.chain[number] == hash_
    world.away = {3}  # now every quorum needs the one that fell
    world.run_to(max(world.height(index) for index in range(3)) + 3)
    return True


def points(total: int, share: int) -> range:
    return range(1, total, 1 if EVERYTHING else share)


def operations(retain: int) -> int:
    disk = FakeDisk()
    world = VaultWorld(disk, keeping(retain))
    world.start()
    world.run_to(HEIGHT)
    return disk.steps


@pytest.mark.parametrize("retain", [ARCHIVE, 2])
@pytest.mark.parametrize("image", IMAGES)
def test_given_a_power_cut_at_any_operation_when_restarted_then_nothing_is_lost_and_nothing_signed_twice(
    image: str, retain: int
) -> None:
    total = operations(retain)
    assert total > 80
    for stop_at in points(total, 4 if image in ("none", "all") else 9):
        assert cut_once(stop_at, image, retain), stop_at


@pytest.mark.parametrize("again", points(14, 3))
def test_given_a_second_cut_while_starting_when_started_again_then_the_same_holds(again: int) -> None:
    for stop_at in points(operations(2), 23):
        cut_once(stop_at, "1", 2, again)


def grown(retain: int = ARCHIVE, height: int = HEIGHT) -> VaultWorld:
    world = VaultWorld(FakeDisk(), keeping(retain))
    world.start()
    world.run_to(height)
    world.stop()
    return world


def restart_on(world: VaultWorld, image: dict[str, bytes]) -> None:
    """The same folder with other content."""
    disk = FakeDisk()
    disk._inodes = 1000
    for name, content in image.items():
        disk.entries[name] = Inode(world.disk.entries[name].number, content)
    disk.certain = dict(disk.entries)
    world.disk = disk
    world.reports.clear()
    world.start()


def flips(size: int, chance: random.Random) -> list[int]:
    return list(range(size)) if EVERYTHING else sorted(chance.sample(range(size), min(size, 24)))


def kinds_of(names: list[str]) -> list[str]:
    """One closed segment stands for all, and so on; every file when everything is tried."""
    if EVERYTHING:
        return names
    first = {name.split("-")[0] + name[-4:]: name for name in names}
    return list(first.values())


def test_given_any_flipped_byte_in_any_file_when_started_then_it_is_named_and_healed_and_nothing_is_signed_over() -> (
    None
):
    world = grown()
    whole = world.disk.image()
    signed, answered = dict(world.signed), dict(world.answered)
    chance = random.Random(7)
    found: dict[str, int] = {}
    for name in kinds_of(sorted(whole)):
        for at in flips(len(whole[name]), chance):
            damaged = dict(whole)
            data = bytearray(whole[name])
            data[at] ^= 1 << chance.randrange(8)
            damaged[name] = bytes(data)
            try:
                restart_on(world, damaged)
            except StoreError as error:
                assert name in str(error), error
                found["refused"] = found.get("refused", 0) + 1
                continue
            reports = [event for event, _ in world.reports]
            if name == "votes.log":
                assert world.replicas[0].doubt or name in str(world.reports), (at, world.reports)
            elif name.endswith(".idx"):
                assert world.vault is not None and world.vault.find(b"x" * 32) is None  # made again from the segment
            elif name.startswith("snapshot"):
                newest = name == max(other for other in whole if other.startswith("snapshot"))
                assert ("snapshot-damaged" in reports) == newest, (name, at)
            else:
                assert reports, (name, at)
            for event in reports:
                found[event] = found.get(event, 0) + 1
            world.run_to(HEIGHT)  # healed from the others, who have what is missing
            assert world.vault is not None
            for height in answered:
                assert world.vault.block(height) is not None, (name, at, height)
            assert world.signed == signed or set(world.signed) >= set(signed)
            world.stop()
    assert {"blocks-damaged", "snapshot-damaged", "votes-damaged", "torn-tail-cut"} <= set(found), found


def test_given_any_file_cut_anywhere_when_started_then_what_is_missing_is_fetched_again() -> None:
    world = grown()
    whole = world.disk.image()
    chance = random.Random(8)
    for name in kinds_of(sorted(whole)):
        for size in flips(len(whole[name]), chance):
            cut = dict(whole)
            cut[name] = whole[name][:size]
            restart_on(world, cut)
            world.run_to(HEIGHT)
            world.stop()


@pytest.mark.parametrize("lost", ["votes.log", "blocks.log", "both", "everything"])
def test_given_lost_files_when_started_then_the_validator_is_silent_until_a_block_is_younger_than_its_loss(
    lost: str,
) -> None:
    world = grown()
    image = world.disk.image()
    gone = {"votes.log": ["votes.log"], "blocks.log": ["blocks.log"], "both": ["votes.log", "blocks.log"]}
    kept = {} if lost == "everything" else {k: v for k, v in image.items() if k not in gone[lost]}
    signed = dict(world.signed)
    restart_on(world, kept)
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
    world.disk = old
    world.start()
    assert not world.replicas[0].doubt and world.replicas[0].status()["silent"] == "asking"
    world.run_to(HEIGHT + 4)
    assert world.pledges == 1, "a certificate showed a commit that the old disk does not know"


def test_given_a_doubt_that_was_not_cleared_when_started_again_then_it_is_still_there() -> None:
    world = grown()
    image = {name: data for name, data in world.disk.image().items() if name != "votes.log"}
    restart_on(world, image)
    reason = world.replicas[0].doubt
    world.stop()
    world.start()
    assert world.replicas[0].doubt == reason == "missing"
