"""What a gateway says to its plugs: the time, acknowledgements, carried commands. The plug's end is the firmware's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from desk_tools import (
    AGGREGATOR,
    GRID,
    HOUSEHOLD,
    NAME,
    NOW_S,
    PLUG_ID,
    STRANGER,
    Fixture,
    body_hash,
    event,
    key_of,
    order,
)
from watt_chain import crypto
from watt_gateway import commands as relaying
from watt_gateway import desk as desks
from watt_gateway import plugs as listing
from watt_gateway.commands import COMMANDS_PER_DAY, RESEND_MS, SENDS_MAX
from watt_gateway.desk import EVENTS_QUEUED_MAX
from watt_gateway.plugbook import PlugBook, PlugEvent
from watt_gateway.store import SCHEMA, Store, StoreUnavailable
from watt_gateway.timesource import BEHIND_S_MAX, kernel_is_synchronised, quality
from watt_plug.clock import Clock
from watt_wire import command, statement

READY = json.dumps({"quality": "S", "command": 0}).encode()


def turn(fixture: Fixture) -> list[tuple[str, bytes]]:
    asyncio.run(fixture.desk.turn())
    return fixture.take_sent()


def test_a_plug_that_asks_is_told_the_time_and_believes_it(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    clock = Clock(PLUG_ID, HOUSEHOLD.public, lambda n: bytes(range(n)))
    fixture.take("ask", clock.question(100))
    ((level, frame),) = fixture.take_sent()
    assert level == "time"
    clock.answer(frame, 101)
    while clock.work(101):
        pass
    assert (clock.now_s(101), clock.quality(101)) == (NOW_S, "S")
    fixture.quality = "I"
    fixture.take("ask", bytes(8))
    assert chr(statement.TIME.decode(fixture.take_sent()[0][1]).number("time_quality")) == "I"


def test_questions_that_are_none_get_no_answer(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.take("ask", b"short")
    fixture.take("ask", bytes(8), plug=crypto.id8(STRANGER.public))
    fixture.desk.take("wp/1/home/" + NAME + "/plug/xyz/ask", bytes(8))
    assert fixture.take_sent() == [] and fixture.desk.refused == {"plug-unknown": 1}


def test_an_event_is_acknowledged_when_it_is_on_disk_and_again_when_it_comes_again(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    frame = event(1, statement.RESET, 6, 1)
    for _ in range(2):
        fixture.take("event", frame)
        assert fixture.take_sent() == [], "not before the disk has it"
        assert turn(fixture) == [("ack", (1).to_bytes(4, "big") + body_hash(frame))]
    (kept,) = fixture.book.events(PLUG_ID, 9)
    assert kept.frame == frame and fixture.book.event_count(PLUG_ID) == 1
    fixture.store.close()
    assert PlugBook(Store(tmp_path / "gateway.sqlite")).event_hash(PLUG_ID, 1) == body_hash(frame)


def test_a_forged_or_foreign_event_is_refused_and_a_second_one_under_a_number_is_a_fork(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    good = event(1, statement.RESET, 1, 1)
    for bad in (good[:-1], good[:-1] + b"\x00", event(1, statement.RESET, key=STRANGER), b""):
        fixture.take("event", bad)
    fixture.take("event", event(1, statement.RESET, plug=crypto.id8(STRANGER.public)))
    assert turn(fixture) == []
    assert fixture.desk.refused == {"event-size": 2, "event-signature": 2, "event-plug": 1}
    fixture.take("event", good)
    fixture.take("event", event(1, statement.RESET, 2, 1))
    assert len(turn(fixture)) == 1 and fixture.desk.refused["event-fork"] == 1
    fixture.take("event", event(1, statement.RESET, 3, 1))
    assert turn(fixture) == [], "not acknowledged: two stories under one number"


def test_a_disk_that_refuses_acknowledges_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(tmp_path)
    frame = event(1, statement.RESET, 1, 1)

    def full(events: list[PlugEvent]) -> None:
        raise StoreUnavailable("disk-full", "test")

    with monkeypatch.context() as patch:
        patch.setattr(fixture.book, "add_events", full)
        fixture.take("event", frame)
        assert turn(fixture) == []
    fixture.take("event", frame)
    assert len(turn(fixture)) == 1


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    frame = event(1, statement.RESET, 1, 1)
    for _ in range(EVENTS_QUEUED_MAX + 9):
        fixture.take("event", frame)
    for _ in range(200):
        fixture.desk.take_command(b"x")
    assert len(fixture.desk._events) == EVENTS_QUEUED_MAX
    assert len(fixture.desk._commands) == desks.COMMANDS_QUEUED_MAX


@pytest.mark.row("C5", "C11")
def test_a_command_waits_for_its_plug_and_ends_with_the_plugs_signed_word(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    frame = order(7)
    fixture.desk.take_command(frame)
    assert turn(fixture) == [] and fixture.outcomes == ["waiting"], "nobody has heard of the plug"
    fixture.take("status", json.dumps({"quality": "U"}).encode())
    assert turn(fixture) == [], "a plug without the time would refuse it"
    fixture.take("status", READY)
    assert turn(fixture) == [("command", frame)]
    assert turn(fixture) == [], "not twice in a quarter of a minute"
    fixture.take("event", event(1, statement.COMMAND_ACCEPTED, 7, command.OFF))
    assert [level for level, _ in turn(fixture)] == ["ack"]
    (kept,) = fixture.book.commands(PLUG_ID, 9)
    assert (kept.state, kept.sends, kept.ended_s, fixture.outcomes) == ("accepted", 1, NOW_S, ["waiting", "accepted"])
    fixture.desk.take_command(frame)
    turn(fixture)
    assert fixture.outcomes[-1] == "accepted", "an office that asks again hears the same"


def test_a_command_that_the_plug_refuses_says_why(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.desk.take_command(order(7))
    fixture.take("event", event(1, statement.COMMAND_REFUSED, 6, 3))
    turn(fixture)
    assert fixture.relay.waiting == 1, "another counter"
    fixture.take("event", event(2, statement.COMMAND_REFUSED, 7, 3))
    turn(fixture)
    assert fixture.outcomes == ["waiting", "refused refused-essential"] and fixture.relay.waiting == 0


def test_a_command_that_nobody_heard_lapses_and_one_that_is_early_waits(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.desk.take_command(order(1))
    fixture.desk.take_command(order(2, at_s=NOW_S + 600))
    fixture.take("status", READY)
    sent = turn(fixture)
    assert [command.decode(frame).counter for _, frame in sent] == [1]
    fixture.now_s += 900
    turn(fixture)
    assert fixture.outcomes == ["waiting", "waiting", "expired"]
    fixture.desk._wake.clear()
    assert [command.decode(row.frame).counter for row in fixture.relay.due({PLUG_ID}, 1 << 60)] == [2]


def test_a_restart_goes_on_with_what_waits(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.desk.take_command(order(1))
    turn(fixture)
    fixture.store.close()
    again = Fixture(tmp_path)
    again.take("status", READY)
    assert [level for level, _ in turn(again)] == ["command"]


def test_a_plug_is_given_one_command_at_a_time_a_bounded_number_of_times(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    for counter in (1, 2):
        fixture.relay.take(order(counter))
    given = [fixture.relay.due({PLUG_ID}, number * RESEND_MS) for number in range(SENDS_MAX + 1)]
    counters = [[command.decode(row.frame).counter for row in rows] for rows in given]
    assert counters == [[1]] * SENDS_MAX + [[2]]
    assert fixture.relay.due(set(), 1 << 60) == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (order(1)[:-1], "command-size"),
        (order(1, plug=bytes(8)), "command-plug"),
        (order(1, network=bytes(32)), "command-network"),
        (order(1, at_s=NOW_S - 900), "command-expired"),
        (order(1, keys=(GRID, STRANGER)), "command-signature"),
        (order(1)[:-1] + bytes((order(1)[-1] ^ 1,)), "command-signature"),
    ],
)
def test_a_gateway_does_not_carry_what_two_offices_did_not_sign_for_this_household(
    tmp_path: Path, frame: bytes, reason: str
) -> None:
    fixture = Fixture(tmp_path)
    fixture.desk.take_command(frame)
    fixture.take("status", READY)
    assert turn(fixture) == []
    assert fixture.relay.refused == {reason: 1} and fixture.book.commands(PLUG_ID, 9) == []
    assert fixture.outcomes == ([] if reason == "command-size" else [f"not-carried {reason}"])


def test_two_keys_of_one_office_are_one_voice(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    twin = key_of(9)
    fixture.relay._offices = relaying.Offices([(1, GRID.public), (1, twin.public), (2, AGGREGATOR.public)])
    taken = fixture.relay.take(order(1, keys=(GRID, twin)))
    assert taken is not None and taken.state == "not-carried command-signature"


def test_an_essential_plug_is_given_no_off_but_a_release(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, essential=True)
    states = [fixture.relay.take(order(number, action)) for number, action in ((1, command.OFF), (2, command.RELEASE))]
    assert [state.state for state in states if state] == ["not-carried command-essential", "waiting"]


def test_a_counter_is_one_command_and_a_day_has_a_budget(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    for number in range(1, COMMANDS_PER_DAY + 1):
        taken = fixture.relay.take(order(number, command.RELEASE))
        assert taken is not None and taken.state == "waiting"
    other = fixture.relay.take(order(1, command.ON))
    assert other is not None and other.state == "not-carried command-known"
    over = fixture.relay.take(order(99, command.RELEASE))
    assert over is not None and over.state == "not-carried command-budget"
    fixture.now_s += 86_401
    again = fixture.relay.take(order(99, command.RELEASE, at_s=fixture.now_s))
    assert again is not None and again.state == "waiting"


def test_commands_come_by_the_tray_too_and_each_file_is_read_once(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.tray.mkdir()
    (fixture.tray / "one.command").write_bytes(order(1))
    (fixture.tray / "two.command").write_bytes(b"x" * 10_000)
    (fixture.tray / "half.new").write_bytes(order(2))
    turn(fixture)
    assert fixture.outcomes == ["waiting"] and fixture.relay.refused == {"command-size": 1}
    assert [path.name for path in fixture.tray.iterdir()] == ["half.new"]


def test_a_status_that_is_none_is_passed_over(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    for payload in (b"[1]", b"{", b"\xff", b'{"a":"' + b"x" * 5000 + b'"}'):
        fixture.take("status", payload)
    assert fixture.desk.status(PLUG_ID) == {}


def test_a_clock_is_trusted_by_the_kernels_word_and_never_against_a_final_block() -> None:
    assert quality(False, NOW_S, 0, lambda: True) == "S"
    assert quality(False, NOW_S, 0, lambda: False) == "I"
    assert quality(True, NOW_S, 0, lambda: False) == "S"
    assert quality(True, NOW_S, NOW_S + BEHIND_S_MAX, lambda: True) == "S"
    assert quality(True, NOW_S, NOW_S + BEHIND_S_MAX + 1, lambda: True) == "I"
    assert kernel_is_synchronised() in (True, False)


def test_a_store_of_the_first_version_is_carried_on(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    store = Store(path)
    store.remember("kept", b"value")
    with store.write() as database:
        database.execute("DROP TABLE events")
        database.execute("DROP TABLE commands")
        database.execute("PRAGMA user_version=1")
    store.close()
    assert "events" not in SCHEMA
    again = Store(path)
    assert again.recall("kept") == b"value"
    PlugBook(again).add_events([PlugEvent(PLUG_ID, 1, 6, NOW_S, bytes(32), b"frame")])
    assert PlugBook(again).event_count(PLUG_ID) == 1


def test_what_is_old_is_forgotten_and_a_waiting_command_is_not(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.take("event", event(1, statement.RESET, 1, 1))
    fixture.desk.take_command(order(1, at_s=NOW_S + 600))
    turn(fixture)
    assert fixture.book.prune(NOW_S) == 0
    assert fixture.book.prune(NOW_S + 1) == 1
    assert fixture.book.event_count(PLUG_ID) == 0 and fixture.relay.waiting == 1


def test_every_kind_of_event_has_words(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    for kind in range(1, 11):
        fixture.take("event", event(kind, kind, 2, 3))
    turn(fixture)
    told = {"state": "free", "power_mw": 900_000, "release": 2, "trial": True, "quality": "S"}
    plug = {
        "name": "kettle", "plug": PLUG_ID.hex(), "rated_w": 2000, "import_wh": 7, "told": told,
        "events": [listing._event(row) for row in fixture.book.events(PLUG_ID, 20)], "commands": [],
    }  # fmt: skip
    text = listing.text(plug)
    for words in (
        "appliance on at 0 W", "batches given up: checkpoints 2 to 3", "reset: hard", "button held for ten seconds",
        "update rolled back: 2 failed, 3 runs", "command accepted: 2 release", "command refused: 2 refused-essential",
        "release 2, on trial", "free, 900 W",
    ):  # fmt: skip
        assert words in text, (words, text)
