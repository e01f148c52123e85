"""The recount of a household's store finds what is planted in it; the plan of faults keeps its promises."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from bench_tools import Bench, decoded
from small_broker import SmallBroker
from test_bench import HOUR_BATCHES, HOUR_S, public_of
from watt_chain import crypto
from watt_gateway.meters.plug import Fresh, PlugIntake
from watt_gateway.store import Store
from watt_rig.recount import Recount, recount
from watt_tools import field_plan


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """An hour of a plug."""
    broker = SmallBroker()
    with Bench(tmp_path_factory.mktemp("hour"), broker.port, [{"name": "one"}], HOUR_S) as bench:
        found = broker.wait(HOUR_BATCHES)
        bench.stop()
    broker.close()
    assert len(decoded(found)) == HOUR_BATCHES
    return [data for _, data in sorted(set(found), key=lambda entry: entry[1][6 + 14 : 6 + 18])]


@pytest.fixture
def database(tmp_path: Path, batches: list[bytes]) -> Path:
    """A store that holds that hour."""
    store = Store(tmp_path / "gateway.sqlite")
    public = public_of("one")
    plug = crypto.id8(public)
    intake = PlugIntake({plug: public}, {}, lambda _plug, _counter: None)
    for data in batches:
        verdict = intake.judge(plug, data)
        assert isinstance(verdict, Fresh)
        store.commit([verdict.batch], [])
        intake.stored(verdict.batch)
    store.close()
    return tmp_path / "gateway.sqlite"


def spoilt(database: Path, statement: str, *values: object) -> Recount:
    """Change the store behind everybody's back and count again."""
    connection = sqlite3.connect(database)
    connection.execute(statement, values)
    connection.commit()
    connection.close()
    return recount(database, public_of("one"))


def test_a_whole_store_has_no_fault(database: Path) -> None:
    found = recount(database, public_of("one"))
    assert (found.checkpoints, found.counter, found.records, found.sequence) == (HOUR_BATCHES, HOUR_BATCHES, 60, 60)
    faults = (found.missing_checkpoints, found.broken_links, found.bad_signatures, found.missing_records)
    assert faults == (0, 0, 0, 0) and (found.duplicate_records, found.fallen_registers) == (0, 0)
    assert found.boots == 1 and found.reasons == {"boot": 1, "periodic": 4}


def test_a_lost_batch_is_missed(database: Path) -> None:
    found = spoilt(database, "DELETE FROM batches WHERE counter = 3")
    assert (found.missing_checkpoints, found.missing_records) == (1, 15)


def test_a_batch_that_came_in_twice_is_counted(database: Path) -> None:
    found = spoilt(
        database, "UPDATE batches SET records = (SELECT records FROM batches WHERE counter = 2) WHERE counter = 3"
    )
    assert found.duplicate_records == 15 and found.missing_records == 15


def test_a_changed_checkpoint_is_found_by_its_signature_and_by_the_next_link(database: Path) -> None:
    connection = sqlite3.connect(database)
    frame = bytearray(connection.execute("SELECT frame FROM batches WHERE counter = 3").fetchone()[0])
    connection.close()
    frame[100] ^= 1
    found = spoilt(database, "UPDATE batches SET frame = ? WHERE counter = 3", bytes(frame))
    assert (found.bad_signatures, found.broken_links) == (1, 1)


def test_a_register_that_fell_is_found(database: Path) -> None:
    connection = sqlite3.connect(database)
    records = bytearray(connection.execute("SELECT records FROM batches WHERE counter = 4").fetchone()[0])
    connection.close()
    records[20:28] = bytes(8)
    assert spoilt(database, "UPDATE batches SET records = ? WHERE counter = 4", bytes(records)).fallen_registers == 1


def test_a_day_has_its_power_cuts_and_ends_in_peace() -> None:
    plugs = ["a", "b", "c"]
    events = field_plan.plan(plugs, 24, 1)
    assert events == field_plan.plan(plugs, 24, 1) != field_plan.plan(plugs, 24, 2)
    cuts = [event for event in events if event.name in ("power-cut", "brown-out", "cut-in-write")]
    assert len(cuts) >= 200 and {event.plug for event in cuts} == set(plugs)
    assert all(0 <= event.at_s <= 24 * 3600 for event in events)
    for plug in plugs:
        noise = [event.value for event in events if event.plug == plug and event.name == "uart-noise"]
        assert noise.count(0) == noise.count(field_plan.NOISE_PPM) == field_plan.NOISE_HOURS
    assert {"wifi-loss", "broker-death", "clock-jump"} <= {event.name for event in events}
