"""The household's database: durable, ordered, without doubles, honest about its disk."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from plug_stand_in import PlugStandIn
from watt_gateway import store as stores
from watt_gateway.meters.plug import Fresh, PlugIntake
from watt_gateway.store import (
    Attempt,
    Batch,
    NewItem,
    OutboxFull,
    Store,
    StoredReceipt,
    StoreError,
    StoreUnavailable,
    checkpoint_label,
)


def good_batches(count: int, plug: PlugStandIn | None = None) -> list[Batch]:
    plug = plug or PlugStandIn()
    intake = PlugIntake({plug.id: plug.key.public}, {}, lambda plug_id, counter: None)
    found = []
    for _ in range(count):
        verdict = intake.judge(plug.id, plug.batch())
        assert isinstance(verdict, Fresh)
        intake.stored(verdict.batch)
        found.append(verdict.batch)
    return found


def items_of(batches: list[Batch]) -> list[NewItem]:
    return [NewItem("Checkpoint", checkpoint_label(batch.plug, batch.counter), batch.frame) for batch in batches]


def receipt_of(label: str, code: str = "") -> StoredReceipt:
    return StoredReceipt(label, "Checkpoint", bytes(32), code, 7, 1000, b"tx", b"proof")


def test_a_new_store_is_durable_by_construction(tmp_path: Path) -> None:
    store = Store(tmp_path / "gateway.sqlite")
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    store.close()


def test_a_store_that_cannot_be_durable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="journal memory"):
        Store(Memory())  # type: ignore[arg-type]


class Memory:
    """A path that SQLite takes for a database in memory: it can have no write-ahead log."""

    parent = Path(".")

    def __fspath__(self) -> str:
        return ":memory:"

    def stat(self) -> object:
        return type("Size", (), {"st_size": 0})


def test_what_was_committed_is_there_after_reopening_in_order(tmp_path: Path) -> None:
    batches = good_batches(5)
    store = Store(tmp_path / "gateway.sqlite")
    queued = store.commit(batches, items_of(batches))
    store.close()
    again = Store(tmp_path / "gateway.sqlite")
    assert [item.label for item in again.outbox()] == [item.label for item in queued]
    assert [item.seq for item in again.outbox()] == sorted(item.seq for item in queued)
    assert again.tips() == {batches[-1].plug: batches[-1].tip}
    assert again.records_of(batches[0].plug, 1) == batches[0].records
    assert again.counts().readings == 15


def test_every_image_of_a_crash_opens_and_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    """The write-ahead log cut at any length: what was committed before the cut's frame survives, nothing is torn."""
    batches = good_batches(4)
    live = tmp_path / "live"
    live.mkdir()
    store = Store(live / "gateway.sqlite")
    sizes = []
    for batch in batches:
        store.commit([batch], items_of([batch]))
        sizes.append((live / "gateway.sqlite-wal").stat().st_size)
    log = (live / "gateway.sqlite-wal").read_bytes()
    base = (live / "gateway.sqlite").read_bytes()
    for length in [*sizes, *(size - 1 for size in sizes), *(size + 17 for size in sizes[:-1])]:
        image = tmp_path / f"image{length}"
        image.mkdir()
        (image / "gateway.sqlite").write_bytes(base)
        (image / "gateway.sqlite-wal").write_bytes(log[:length])
        recovered = Store(image / "gateway.sqlite")
        acknowledged = sum(size <= length for size in sizes)
        counters = [int(item.label.rsplit("/", 1)[1]) for item in recovered.outbox()]
        assert counters[:acknowledged] == list(range(1, acknowledged + 1))
        assert len(counters) <= acknowledged + 1
        assert recovered.counts().batches == len(counters), "a reading and its transaction come and go together"
        recovered.close()
        shutil.rmtree(image)
    store.close()


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from test_store import good_batches, items_of
from pathlib import Path
from watt_gateway.store import Store
store = Store(Path(sys.argv[1]))
for batch in good_batches(1000):
    store.commit([batch], items_of([batch]))
    sys.stdout.write(f"{batch.counter}\\n"); sys.stdout.flush()
"""


def test_after_kill_9_every_acknowledged_batch_is_there(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    acknowledged = 0
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged == 20:
            child.kill()
            break
    child.wait()
    child.stdout.close()
    assert acknowledged == 20
    store = Store(path)
    assert len(store.outbox()) >= acknowledged
    assert store.counts().batches == len(store.outbox())


def test_a_batch_that_is_there_already_is_not_queued_twice(tmp_path: Path) -> None:
    batches = good_batches(2)
    store = Store(tmp_path / "gateway.sqlite")
    assert len(store.commit(batches, items_of(batches))) == 2
    assert store.commit(batches, items_of(batches)) == []
    assert len(store.outbox()) == 2


def test_a_commit_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    batches = good_batches(2)
    store = Store(tmp_path / "gateway.sqlite")
    broken = NewItem("Checkpoint", checkpoint_label(batches[1].plug, 2), object())  # type: ignore[arg-type]
    with pytest.raises(sqlite3.Error):
        store.commit(batches, [*items_of(batches[:1]), broken])
    assert store.counts().batches == 0 and store.outbox() == []
    assert len(store.commit(batches, items_of(batches))) == 2


def test_an_item_leaves_the_outbox_only_with_its_receipt(tmp_path: Path) -> None:
    batches = good_batches(2)
    store = Store(tmp_path / "gateway.sqlite")
    first, second = store.commit(batches, items_of(batches))
    store.record_attempts([Attempt(first.seq, 1, b"t" * 32, b"tx")])
    assert [item.nonce for item in store.outbox()] == [1, None]
    store.settle([(first.seq, receipt_of(first.label, "counter"))])
    assert [item.seq for item in store.outbox()] == [second.seq]
    assert store.attempts() == []
    found = store.receipt(first.label)
    assert found is not None and found.code == "counter"
    assert store.commit([], items_of(batches[:1])) == [], "a purpose that is final is not sent again"
    assert store.counts().refused == {"counter": 1}


def test_the_outbox_has_a_bound_and_keeps_places_for_the_household(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "OUTBOX_ITEMS_MAX", 4)
    monkeypatch.setattr(stores, "OUTBOX_RESERVE", 1)
    batches = good_batches(4)
    store = Store(tmp_path / "gateway.sqlite")
    store.commit(batches[:3], items_of(batches[:3]))
    with pytest.raises(OutboxFull):
        store.commit(batches[3:], items_of(batches[3:]))
    assert store.counts().batches == 3, "a batch without its transaction must not be stored"
    assert len(store.commit([], [NewItem("Commit", "commit/1", b"\x90")])) == 1
    with pytest.raises(OutboxFull):
        store.commit([], [NewItem("Reveal", "reveal/1", b"\x90")])


def test_a_full_disk_changes_nothing_and_says_so(tmp_path: Path) -> None:
    batches = good_batches(200)
    store = Store(tmp_path / "gateway.sqlite")
    store.commit(batches[:1], items_of(batches[:1]))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable) as refused:
        store.commit(batches[1:], items_of(batches[1:]))
    assert refused.value.reason == "disk-full"
    assert store.counts().batches == 1 and len(store.outbox()) == 1
    store._db.execute("PRAGMA max_page_count=100000")
    assert len(store.commit(batches[1:], items_of(batches[1:]))) == 199


def test_a_damaged_file_stops_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    store = Store(path)
    batches = good_batches(40)
    store.commit(batches, items_of(batches))
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged") as error:
        Store(path)
    assert "\n" not in str(error.value)


def test_a_foreign_file_and_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    path.write_bytes(b"this is not a database, it is a letter to a friend" * 100)
    with pytest.raises(StoreError):
        Store(path)
    other = tmp_path / "other.sqlite"
    database = sqlite3.connect(other)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(StoreError, match="version 99"):
        Store(other)


def test_old_readings_go_only_when_final_and_never_the_tip(tmp_path: Path) -> None:
    batches = good_batches(3)
    store = Store(tmp_path / "gateway.sqlite")
    queued = store.commit(batches, items_of(batches))
    assert store.prune(2**40) == 0, "nothing is final yet"
    store.settle([(item.seq, receipt_of(item.label)) for item in queued])
    assert store.prune(batches[1].time_s) == 1
    assert store.prune(2**40) == 1
    assert store.tips()[batches[-1].plug].counter == 3


def test_an_export_gets_every_batch_as_the_plug_sent_it(tmp_path: Path) -> None:
    batches = good_batches(4)
    store = Store(tmp_path / stores.STORE_FILE)
    store.commit(batches, items_of(batches))
    found = stores.read_final_batches(tmp_path)  # beside the running gateway, and without writing
    assert [frame for frame, _ in found] == [batch.frame for batch in batches]
    assert [b"".join(records) for _, records in found] == [batch.records for batch in batches]
    assert all(len(records) == 3 for _, records in found)
    assert stores.read_final_batches(tmp_path / "absent") == []
    store.close()
    (tmp_path / stores.STORE_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="cannot read"):
        stores.read_final_batches(tmp_path)


def test_remembered_values_survive(tmp_path: Path) -> None:
    store = Store(tmp_path / "gateway.sqlite")
    assert store.recall("bid/1") is None
    store.remember("bid/1", b"salt")
    store.remember("bid/1", b"pepper")
    store.close()
    assert Store(tmp_path / "gateway.sqlite").recall("bid/1") == b"pepper"
