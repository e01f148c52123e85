"""What a master starts from: snapshots of its areas, an archive that is looked through and repaired."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from watt_chain.block import decode_certified
from watt_chain.contract import AreaContract
from watt_market.engine import Market
from watt_master import areas
from watt_master.archive import DAMAGED, Archive, ArchiveDamage, ArchiveError, mark, open_archive
from watt_master.areas import Anchoring, AreaReplica
from watt_master.config import MasterConfig
from watt_master.restart import AreaSnapshots, Inspection, restore, rows_of_stored
from watt_node.blocklog import StoredBlock
from watt_node.config import ConfigError, parse
from watt_sim import archivecrash
from watt_sim.storefaults import ARCHIVE_FAULTS, hunt_all

EVERY = 3
"Heights between two snapshots."


@pytest.fixture
def stations(world: Any) -> list[bytes]:
    """The certified blocks of area 1 after a while, as honest stations would send them."""
    world.run(world.genesis.protocol_start_s + 4500)
    return [certified for certified, _ in world.chains[1].applied]


def replica_on(world: Any, archive: Archive) -> AreaReplica:
    return AreaReplica(world.genesis, 1, AreaContract(Market()), archive, lambda: 0, EVERY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A master's data folder; the world keeps an archive of its own beside it."""
    path = tmp_path / "master"
    path.mkdir()
    return path


def followed(world: Any, folder: Path, blocks: list[bytes]) -> Archive:
    """A master that has taken in these blocks and stored its snapshots."""
    archive = Archive(folder / "archive.sqlite", world.network)
    replica, snapshots = replica_on(world, archive), AreaSnapshots(folder, 1, world.network)
    for block in blocks:
        assert replica.check(block) == ""
        state = snapshots.due(replica)
        if state is not None:
            snapshots.write(state)
    assert snapshots.written == len(blocks) // EVERY * EVERY
    return archive


def restarted(world: Any, folder: Path, archive: Archive) -> tuple[AreaReplica, AreaSnapshots, int]:
    """(replica, snapshots, how many blocks it executed)."""
    replica, snapshots = replica_on(world, archive), AreaSnapshots(folder, 1, world.network)
    executed: list[bytes] = []
    usual = replica.ledger.replay
    replica.ledger.replay = lambda one: (executed.append(one), usual(one))[1]  # type: ignore[method-assign]
    for _ in restore(replica, archive, snapshots):
        pass
    return replica, snapshots, len(executed)


def test_given_snapshots_when_a_master_restarts_then_it_executes_only_what_came_after(
    world: Any, stations: list[bytes], folder: Path
) -> None:
    archive = followed(world, folder, stations[:-1])
    again, _, executed = restarted(world, folder, archive)
    assert executed == (len(stations) - 1) % EVERY
    assert again.height == len(stations) - 1
    assert again.check(stations[-1]) == ""
    assert again.ledger.state.root() == world.chains[1].ledger.state.root()
    # What the main chain has not taken in yet is anchored with the same words as by a master that never stopped.
    again.anchored(2)
    whole = replica_on(world, Archive(folder / "other.sqlite", world.network))
    for block in stations:
        whole.check(block)
    whole.anchored(2)
    assert [one.fields for one in again.waiting] == [one.fields for one in whole.waiting] != []


def test_given_damaged_snapshots_when_a_master_restarts_then_it_says_so_and_executes_more(
    world: Any, stations: list[bytes], folder: Path
) -> None:
    archive = followed(world, folder, stations)
    newest, older = sorted((folder / "area1").glob("*.state"), reverse=True)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    replica, snapshots, executed = restarted(world, folder, archive)
    assert [event for event, _ in snapshots.reports] == ["snapshot-damaged"]
    assert executed == len(stations) - snapshots.written > EVERY - 1 and replica.height == len(stations)
    older.unlink()
    replica, _, executed = restarted(world, folder, archive)
    assert executed == replica.height == len(stations)


def test_given_a_main_chain_that_stands_when_area_blocks_wait_then_memory_holds_a_bounded_number(
    world: Any, stations: list[bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(areas, "WAITING_MAX", 3)
    replica = replica_on(world, Archive(folder / "a.sqlite", world.network))
    seen: list[int] = []
    for block in stations:
        replica.check(block)
        assert len(replica.waiting) <= 3
    assert replica.status()["to_anchor"] == len(stations)
    duty = Anchoring(1, 4)
    for height in range(len(stations) + 1):
        seen += [one.height for one in duty.due(replica, height, 10**9 + height)]
    assert seen == list(range(1, len(stations) + 1)), "each is anchored once, in order"


def test_given_a_block_of_the_log_when_archived_then_the_rows_are_those_of_its_execution(
    world: Any, stations: list[bytes]
) -> None:
    from watt_chain import codec

    for certified, applied in world.chains[1].applied:
        codes = [receipt.code for receipt in applied.receipts]
        stored = StoredBlock(certified, codes, [codec.encode(message) for message in applied.out_messages])
        assert rows_of_stored(stored, world.network) == areas.rows_of(applied, certified)
    assert len(stations) > EVERY


# --- damage


def changed(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 5] ^= 1
    path.write_bytes(data)


def test_given_a_changed_block_when_looked_through_then_the_next_start_keeps_what_is_sound(
    world: Any, stations: list[bytes], folder: Path
) -> None:
    path = folder / "archive.sqlite"
    followed(world, folder, stations).close()
    header = decode_certified(stations[3])[1].header
    changed(path, header)
    with pytest.raises(ArchiveDamage, match="block 4 of chain 1"):
        asyncio.run(Inspection(path, world.network).run())
    archive, repaired = open_archive(path, world.network)
    assert (repaired, archive.height(1)) == ("", len(stations)), "nobody has asked for a repair yet"
    with pytest.raises(ArchiveDamage):
        archive.block(1, 4)
    archive.close()
    mark(path, "block 4 does not check")
    archive, repaired = open_archive(path, world.network)
    assert (repaired, archive.height(1)) == ("block 4 does not check", 3)
    assert list(archive.blocks(1)) == stations[:3] and len(list(archive.transactions(1, ("Enrol",)))) > 0
    assert path.with_name(path.name + DAMAGED).exists()
    replica = replica_on(world, archive)
    for block in stations:  # from the first on, as after a start; what is there is not stored again
        assert replica.check(block) == ""
    archive.close()
    inspection = Inspection(path, world.network)
    asyncio.run(inspection.run())
    assert inspection.done and inspection.blocks == len(stations)


def test_given_a_killed_master_with_its_log_when_repaired_then_no_block_of_the_log_is_lost(folder: Path) -> None:
    """The log holds blocks that the file does not have yet, and must not stand beside the new file."""
    killed = list(archivecrash._images(folder))[1]
    assert len(killed) == 2
    for name, content in killed.items():
        (folder / name).write_bytes(content)
    path = folder / archivecrash.NAME
    mark(path, "asked for")
    archive, _ = open_archive(path, archivecrash.NETWORK)
    last = archivecrash.BEFORE + archivecrash.AFTER
    assert [archive.height(chain) for chain in archivecrash.CHAINS] == [last, last]
    archive.close()
    assert path.with_name(path.name + DAMAGED + "-wal").exists()
    assert archivecrash.look(folder, dict.fromkeys(archivecrash.CHAINS, last))[0] == ""


def test_given_an_archive_of_an_older_program_when_opened_then_it_is_refused_with_what_to_do(folder: Path) -> None:
    archive = Archive(folder / "a.sqlite", bytes(32))
    archive._db.execute("PRAGMA user_version=1")
    archive.close()
    with pytest.raises(ArchiveError, match="version 1 of the archive; move it away"):
        open_archive(folder / "a.sqlite", bytes(32))


def test_given_a_crash_or_a_refusal_at_any_operation_when_reopened_then_every_acknowledged_block_is_there() -> None:
    tried = list(archivecrash.cuts(7))
    assert {found.step for _, found in tried} == set(range(1, archivecrash.operations() + 1))
    assert [found for _, found in tried if found.outcome] == []


def test_given_changed_bytes_when_opened_then_they_are_noticed_or_change_no_answer() -> None:
    *_, tally = archivecrash.flip(211)
    assert tally.wrong == []
    assert tally.flips > 200 and tally.noticed > 20 and tally.harmless > 20
    assert tally.flips + tally.cuts == tally.noticed + tally.harmless + tally.like_a_crash


@pytest.mark.parametrize("name", [ARCHIVE_FAULTS[0].name, ARCHIVE_FAULTS[2].name])
def test_a_planted_fault_is_found(name: str) -> None:
    (found,) = hunt_all([name])
    assert found.by == "crash", found


def test_a_master_that_would_drop_blocks_is_refused() -> None:
    text = """
[network]
genesis = "g"
regulator = "%s"
[node]
chain = 0
index = 0
key = "k"
data = "d"
retention = "light"
[tls]
ca = "c"
cert = "c"
key = "k"
[listen]
host = "h"
port = 1
"""
    with pytest.raises(ConfigError, match="a master keeps every block"):
        parse(text % ("0" * 128), MasterConfig, Path("m.toml"))
