"""Block and vote logs: what survives a crash, and what stops the node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watt_node import store
from watt_node.store import BlockLog, StoreError, VoteLog, read_blocks

NETWORK = bytes(range(32))
BLOCKS = [b"first", b"second" * 50, b"third" * 9]


def written(folder: Path) -> Path:
    log = BlockLog(folder, 1, NETWORK)
    for block in BLOCKS:
        log.add(block)
    log.close()
    return folder / "blocks.log"


def reopened(folder: Path) -> list[bytes]:
    log = BlockLog(folder, 1, NETWORK)
    blocks = [log.read(height) for height in range(1, len(log) + 1)]
    log.close()
    return [block for block in blocks if block is not None]


def test_given_stored_blocks_when_reopened_then_all_are_there(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert reopened(tmp_path) == BLOCKS
    assert list(read_blocks(path)) == BLOCKS
    assert path.stat().st_mode & 0o777 == 0o600


def test_given_a_file_torn_at_any_byte_when_reopened_then_whole_blocks_stay_and_appending_goes_on(
    tmp_path: Path,
) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    title_end = len(whole) - sum(12 + len(block) for block in BLOCKS)
    for cut in range(title_end, len(whole)):
        path.write_bytes(whole[:cut])
        kept = reopened(tmp_path)
        assert kept == BLOCKS[: len(kept)]
        expected = sum(cut >= title_end + sum(12 + len(b) for b in BLOCKS[: n + 1]) for n in range(3))
        assert len(kept) == expected
    path.write_bytes(whole[:-1])
    log = BlockLog(tmp_path, 1, NETWORK)
    assert log.cut_bytes == 12 + len(BLOCKS[2]) - 1
    log.add(b"other third")
    log.close()
    assert reopened(tmp_path) == [*BLOCKS[:2], b"other third"]


@pytest.mark.parametrize("tail", [bytes(1), bytes(4096), b"\x00\x00\x00"])
def test_given_a_tail_of_zeros_when_reopened_then_it_is_cut(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    assert reopened(tmp_path) == BLOCKS


def test_given_any_damaged_byte_before_the_last_block_when_reopened_then_the_node_stops(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole) - 12 - len(BLOCKS[2])):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"blocks\.log: (damaged at byte \d+|belongs to another)"):
            BlockLog(tmp_path, 1, NETWORK)
        assert path.read_bytes() == bytes(damaged)


def test_given_damage_while_running_when_a_block_is_read_then_it_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    log = BlockLog(tmp_path, 1, NETWORK)
    with (tmp_path / "blocks.log").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    with pytest.raises(StoreError, match="height 3 does not check"):
        log.read(3)
    log.close()


@pytest.mark.parametrize(("chain", "network"), [(2, NETWORK), (1, bytes(32))])
def test_given_a_folder_of_another_network_or_chain_when_opened_then_it_is_refused(
    tmp_path: Path, chain: int, network: bytes
) -> None:
    written(tmp_path)
    with pytest.raises(StoreError, match="another network or chain"):
        BlockLog(tmp_path, chain, network)


def test_given_a_running_process_when_a_second_opens_the_folder_then_it_is_refused(tmp_path: Path) -> None:
    log = BlockLog(tmp_path, 1, NETWORK)
    with pytest.raises(StoreError, match="in use by another process"):
        BlockLog(tmp_path, 1, NETWORK)
    log.close()


def test_given_votes_when_reopened_then_only_those_of_the_open_height_come_back(tmp_path: Path) -> None:
    log = VoteLog(tmp_path, 1, NETWORK)
    log.add((b"prepare 5",), 4)
    log.add((b"commit 5",), 4)
    log.add((b"prepare 6, in one output with the block of 5",), 5)
    log.close()
    log = VoteLog(tmp_path, 1, NETWORK)
    assert log.records(5) == [b"prepare 6, in one output with the block of 5"]
    log.close()
    log = VoteLog(tmp_path, 1, NETWORK)
    # the block of height 5 did not reach the disk: every vote of height 5 still counts
    assert log.records(4) == [b"prepare 5", b"commit 5", b"prepare 6, in one output with the block of 5"]
    log.close()


def test_given_many_heights_when_votes_are_settled_then_the_file_stays_bounded_and_keeps_the_open_height(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "COMPACT_BYTES", 4000)
    log = VoteLog(tmp_path, 1, NETWORK)
    for height in range(100):
        log.add((b"vote" * 50, b"%d" % height), height)
        log.settle(height)
    log.add((b"last",), 99)
    with pytest.raises(StoreError, match="in use"):  # the rewritten file is locked like the old one
        VoteLog(tmp_path, 1, NETWORK)
    log.close()
    assert (tmp_path / "votes.log").stat().st_size < 5000
    log = VoteLog(tmp_path, 1, NETWORK)
    assert log.records(99) == [b"vote" * 50, b"99", b"last"]
    log.close()
