"""The archive: durable, gapless, of one network only."""

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from watt_master.archive import Archive, ArchiveError, BlockRow, TransactionRow

NETWORK = bytes(range(32))


def block(height: int, chain: int = 1, mark: bytes = b"h") -> BlockRow:
    return BlockRow(chain, height, mark * 32, 1000 + height, b"certified-%d-%d" % (chain, height))


def row(height: int, name: bytes, chain: int = 1, kind: str = "Commit", code: str = "") -> TransactionRow:
    return TransactionRow(name * 32, chain, height, 0, kind, b"signer01", code)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "a.sqlite", NETWORK)


@pytest.mark.row("B16")
def test_given_blocks_when_added_then_they_are_found_by_height_txid_kind_and_signer(archive: Archive) -> None:
    assert archive.add(block(1), [row(1, b"a")])
    assert archive.add(block(2), [row(2, b"b", kind="Reveal", code="late")])
    assert archive.add(block(1, chain=2), [row(1, b"c", chain=2)])
    assert archive.height(1) == 2 and archive.height(2) == 1 and archive.height(3) == 0
    assert archive.block(1, 2) == block(2)
    assert archive.block(1, 3) is None
    found = archive.transaction(b"b" * 32)
    assert found is not None and (found.height, found.code) == (2, "late")
    assert archive.transaction(b"z" * 32) is None
    assert list(archive.blocks(1)) == [b"certified-1-1", b"certified-1-2"]
    assert [one.txid for one in archive.transactions(1, ("Commit", "Reveal"))] == [b"a" * 32, b"b" * 32]
    assert len(archive.transactions_of(b"signer01", 10)) == 3


def test_given_more_rows_than_one_page_when_read_then_none_is_left_out(archive: Archive) -> None:
    for height in range(1, 601):
        archive.add(block(height), [row(height, b"%06d" % height + bytes(26))])
    assert len(list(archive.blocks(1, 2))) == 599
    assert [one.height for one in archive.transactions(1, ("Commit",))] == list(range(1, 601))


def test_given_a_block_when_added_again_then_nothing_changes_and_another_one_of_its_height_is_refused(
    archive: Archive,
) -> None:
    archive.add(block(1), [row(1, b"a")])
    assert not archive.add(block(1), [row(1, b"a")])
    with pytest.raises(ArchiveError, match="two certified blocks at height 1"):
        archive.add(block(1, mark=b"x"), [])
    with pytest.raises(ArchiveError, match="would follow 1"):
        archive.add(block(3), [])
    assert archive.height(1) == 1


def test_given_a_transaction_that_fails_when_a_block_is_added_then_neither_block_nor_rows_stay(
    archive: Archive,
) -> None:
    with pytest.raises(ArchiveError):
        archive.add(block(1), [row(1, b"a"), row(1, b"a")])
    assert archive.height(1) == 0
    assert archive.transaction(b"a" * 32) is None


def test_given_a_file_of_another_network_or_program_when_opened_then_it_is_refused(tmp_path: Path) -> None:
    Archive(tmp_path / "a.sqlite", NETWORK).close()
    with pytest.raises(ArchiveError, match="another network"):
        Archive(tmp_path / "a.sqlite", bytes(32))
    foreign = sqlite3.connect(tmp_path / "b.sqlite")
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    with pytest.raises(ArchiveError, match="not an archive"):
        Archive(tmp_path / "b.sqlite", NETWORK)
    (tmp_path / "c.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(ArchiveError, match="cannot open"):
        Archive(tmp_path / "c.sqlite", NETWORK)


def test_given_a_writer_killed_at_once_when_reopened_then_every_block_it_had_reported_is_there(tmp_path: Path) -> None:
    """The child reports each height after `add` has returned and is killed without any chance to tidy up."""
    path = tmp_path / "a.sqlite"
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from watt_master.archive import Archive, BlockRow
        archive = Archive(Path({str(path)!r}), bytes(range(32)))
        for height in range(1, 9):
            archive.add(BlockRow(1, height, bytes(32), height, b"block"), [])
            print(height, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    reported = int(done.stdout.split()[-1])
    assert done.returncode == -9 and reported == 8
    assert Archive(path, NETWORK).height(1) == reported


def test_given_the_archive_is_open_when_its_settings_are_asked_then_every_commit_is_synced(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a.sqlite", NETWORK)
    assert archive._query("PRAGMA synchronous", ()) == [(2,)]  # 2 = FULL
    assert archive._query("PRAGMA journal_mode", ()) == [("wal",)]


def test_given_a_running_master_when_a_reader_opens_the_file_then_it_sees_what_was_added(tmp_path: Path) -> None:
    writer = Archive(tmp_path / "a.sqlite", NETWORK)
    writer.add(block(1), [])
    reader = Archive(tmp_path / "a.sqlite", NETWORK, read_only=True)
    writer.add(block(2), [])
    assert reader.height(1) == 2
    with pytest.raises(ArchiveError, match="cannot write"):
        reader.add(block(3), [])
