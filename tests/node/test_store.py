"""Block and vote logs, snapshots: what survives a crash, what is healed, what stops the node."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from watt_chain import codec
from watt_chain.block import Block, CertifiedBlock, OutMessage
from watt_chain.codec import ZERO32
from watt_chain.pbft.outputs import CLEAR, DOUBT, Record
from watt_chain.transaction import txid
from watt_node import votelog
from watt_node.disk import RealDisk, StoreError
from watt_node.snapshots import SnapshotError, Snapshots
from watt_node.store import BlockLog, VoteLog, read_blocks, read_stored

sys.path.insert(0, str(Path(__file__).parents[1] / "chain"))

from chain_world import FalseKey, make_tx

NETWORK = bytes(range(32))
USER = FalseKey("user")


def block_of(*nonces: int) -> bytes:
    """What a log stores: it looks at the transactions only."""
    txs = [make_tx(USER, NETWORK, nonce) for nonce in nonces]
    return codec.encode(CertifiedBlock(codec.encode(Block(b"header", txs)), b"certificate"))


BLOCKS = [block_of(1), block_of(2, 3, 4), block_of(5)]


def vote(kind: str, height: int, payload: bytes = b"") -> bytes:
    return codec.encode(Record(kind, height, 0, ZERO32, payload))  # type: ignore[arg-type]


def block_log(folder: Path, chain: int = 1, network: bytes = NETWORK, segment: int = 100) -> BlockLog:
    return BlockLog(RealDisk(folder), chain, network, segment)


def vote_log(folder: Path, machine: bytes = b"m", compact_bytes: int = votelog.COMPACT_BYTES) -> VoteLog:
    return VoteLog(RealDisk(folder), 1, NETWORK, machine, compact_bytes)


def written(folder: Path, segment: int = 100) -> Path:
    log = block_log(folder, segment=segment)
    for block in BLOCKS:
        log.add(block, ["", "code"], [])
    log.close()
    return folder / "blocks.log"


def reopened(folder: Path, segment: int = 100) -> list[bytes]:
    log = block_log(folder, segment=segment)
    blocks = [log.read(height) for height in range(log.base + 1, log.end + 1)]
    log.close()
    return [block for block in blocks if block is not None]


@pytest.mark.parametrize("segment", [1, 2, 100])
def test_given_stored_blocks_when_reopened_then_all_are_there(tmp_path: Path, segment: int) -> None:
    path = written(tmp_path, segment)
    assert reopened(tmp_path, segment) == BLOCKS
    assert list(read_blocks(path)) == BLOCKS
    assert [stored.codes for stored in read_stored(path)] == [["", "code"]] * 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_given_a_file_torn_at_any_byte_when_reopened_then_whole_blocks_stay_and_appending_goes_on(
    tmp_path: Path,
) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    ends = [whole.index(block) for block in BLOCKS]  # a block ends somewhere behind where it begins
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        kept = reopened(tmp_path)
        assert kept == BLOCKS[: len(kept)] and len(kept) <= sum(cut > at for at in ends)
    path.write_bytes(whole[:-1])
    log = block_log(tmp_path)
    assert log.reports[0][0] == "torn-tail-cut" and log.end == 2
    log.add(block_of(9))
    log.close()
    assert reopened(tmp_path) == [*BLOCKS[:2], block_of(9)]


@pytest.mark.parametrize("tail", [bytes(1), bytes(4096), b"\x00\x00\x00"])
def test_given_a_tail_of_zeros_when_reopened_then_it_is_cut(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    assert reopened(tmp_path) == BLOCKS


@pytest.mark.parametrize("segment", [2, 100])
def test_given_any_damaged_byte_when_reopened_then_it_is_named_the_file_kept_and_the_blocks_before_it_stay(
    tmp_path: Path, segment: int
) -> None:
    written(tmp_path, segment)
    for path in sorted(tmp_path.glob("blocks*.log")):
        whole = path.read_bytes()
        for at in range(0, len(whole), 5):
            for other in tmp_path.iterdir():
                other.unlink()
            written(tmp_path, segment)
            damaged = bytearray(whole)
            damaged[at] ^= 0x5A
            path.write_bytes(damaged)
            log = block_log(tmp_path, segment=segment)
            events = [event for event, _ in log.reports]
            assert events, (path.name, at)
            kept = [log.read(height) for height in range(1, log.end + 1)]
            assert kept == BLOCKS[: len(kept)] and len(kept) < 3
            if "blocks-damaged" in events:
                assert (tmp_path / f"{path.name}.damaged").read_bytes() == bytes(damaged)
            for block in BLOCKS[len(kept) :]:
                log.add(block)
            log.close()
            assert reopened(tmp_path, segment) == BLOCKS


def test_given_damage_while_running_when_a_block_is_read_then_it_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    log = block_log(tmp_path)
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
    vote_log(tmp_path).close()
    with pytest.raises(StoreError, match="another network or chain"):
        block_log(tmp_path, chain, network)
    with pytest.raises(StoreError, match="another network or chain"):
        VoteLog(RealDisk(tmp_path), chain, network)


def test_given_a_running_process_when_a_second_opens_the_folder_then_it_is_refused(tmp_path: Path) -> None:
    log = block_log(tmp_path)
    with pytest.raises(StoreError, match="in use by another process"):
        block_log(tmp_path)
    log.close()


@pytest.mark.parametrize("segment", [2, 100])
def test_given_transactions_and_messages_when_asked_for_then_the_index_names_their_blocks(
    tmp_path: Path, segment: int
) -> None:
    log = block_log(tmp_path, segment=segment)
    for number in range(1, 8):
        messages = [codec.encode(OutMessage(1, 0, number // 2, "Told", b""))] if number % 2 == 0 else []
        log.add(block_of(number, 100 + number), ["", ""], messages)
    for again in (log, None):
        if again is None:
            log.close()
            again = block_log(tmp_path, segment=segment)
        assert [again.find(txid(make_tx(USER, NETWORK, 100 + n))) for n in range(1, 8)] == list(range(1, 8))
        assert again.find(bytes(32)) is None
        assert again.senders(0, 1, 10) == [(1, 2), (2, 4), (3, 6)]
        assert again.senders(0, 2, 1) == [(2, 4)] and again.senders(9, 1, 5) == []
        last = again
    last.close()
    for index in tmp_path.glob("*.idx"):
        index.unlink()
    log = block_log(tmp_path, segment=segment)
    assert log.find(txid(make_tx(USER, NETWORK, 101))) == 1 and log.senders(0, 3, 1) == [(3, 6)]
    log.close()


def test_given_full_segments_when_pruned_then_whole_ones_below_the_height_go_and_the_rest_is_served(
    tmp_path: Path,
) -> None:
    log = block_log(tmp_path, segment=2)
    for number in range(1, 8):
        log.add(block_of(number))
    assert log.prune(3) == 1 and (log.base, log.end) == (2, 7)
    assert log.read(2) is None and log.read(3) == block_of(3)
    assert log.find(txid(make_tx(USER, NETWORK, 1))) is None
    log.close()
    log = block_log(tmp_path, segment=2)
    assert (log.base, log.end) == (2, 7) and log.read(7) == block_of(7)
    assert log.prune(100) == 2 and (log.base, log.end) == (6, 7)  # the segment being written stays
    log.restart_at(50)
    log.add(block_of(51))
    log.close()
    log = block_log(tmp_path, segment=2)
    assert (log.base, log.end) == (50, 51) and log.read(51) == block_of(51)
    log.close()


def test_given_votes_when_reopened_then_only_those_of_the_open_height_come_back(tmp_path: Path) -> None:
    prepare, commit, later = vote("prepare", 5), vote("commit", 5), vote("prepare", 6)
    log = vote_log(tmp_path)
    log.add([vote(CLEAR, 0)], 0)
    log.add([prepare], 4)
    log.add([commit], 4)
    log.add([later], 5)  # in one output with the block of 5
    log.close()
    log = vote_log(tmp_path)
    assert log.records(5) == [later] and not log.doubt and log.floor == 0
    # the block of height 5 did not reach the disk: every vote of height 5 still counts
    assert log.records(4) == [prepare, commit, later]
    log.close()


def test_given_many_heights_when_votes_are_settled_then_the_file_stays_bounded_and_keeps_the_open_height(
    tmp_path: Path,
) -> None:
    log = vote_log(tmp_path, compact_bytes=4000)
    log.add([vote(CLEAR, 0)], 0)
    for height in range(100):
        log.add([vote("prepare", height + 1, b"vote" * 50), vote("commit", height + 1)], height)
        log.settle(height)
    log.add([vote("view-change", 100)], 99)
    with pytest.raises(StoreError, match="in use"):  # the rewritten file is locked like the old one
        vote_log(tmp_path)
    log.close()
    assert (tmp_path / "votes.log").stat().st_size < 5000
    log = vote_log(tmp_path)
    assert log.records(99) == [vote("prepare", 100, b"vote" * 50), vote("commit", 100), vote("view-change", 100)]
    assert 50 < log.floor <= 99 and not log.doubt, "what was dropped is known, the rest is trusted"
    log.close()


def test_given_votes_of_a_new_folder_another_machine_or_a_copy_when_opened_then_they_are_doubted_until_cleared(
    tmp_path: Path,
) -> None:
    log = vote_log(tmp_path)
    assert log.doubt == "missing" and log.records(0) == [vote(DOUBT, 0, b"missing")]
    log.add([vote(CLEAR, 7)], 7)
    assert not log.doubt and log.floor == 7
    log.close()
    copied = tmp_path / "copy"
    copied.mkdir()
    (copied / "votes.log").write_bytes((tmp_path / "votes.log").read_bytes())
    for folder, machine in ((copied, b"m"), (tmp_path, b"another")):
        log = vote_log(folder, machine)
        assert "copied" in log.doubt
        log.close()
        log = vote_log(folder, machine)
        assert "copied" in log.doubt, "it is where it was, and still in doubt"
        log.close()


def test_given_any_damaged_byte_of_the_votes_when_opened_then_they_are_doubted(tmp_path: Path) -> None:
    log = vote_log(tmp_path)
    log.add([vote(CLEAR, 0)], 0)
    for height in range(1, 4):
        log.add([vote("prepare", height, b"block")], height - 1)
    log.close()
    path = tmp_path / "votes.log"
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        with path.open("r+b") as file:  # the same file: its place is not what is noticed
            file.write(damaged)
            file.truncate()
        log = vote_log(tmp_path)
        assert log.doubt, at
        log.close()
        (tmp_path / "votes.log.damaged").unlink(missing_ok=True)


def test_given_no_snapshot_or_a_damaged_one_when_read_then_it_says_so(tmp_path: Path) -> None:
    snapshots = Snapshots(RealDisk(tmp_path), 1, NETWORK)
    assert snapshots.heights() == []
    (tmp_path / "snapshot-000000000007.state").write_bytes(b"rubbish")
    with pytest.raises(SnapshotError, match="cut"):
        snapshots.read(7)
    assert snapshots.set_aside(7).endswith(".damaged") and snapshots.heights() == []
