"""A bundle's way to a plug: the gateway's sender against the firmware's updater, over a line that loses and repeats."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from desk_tools import PLUG_ID, Fixture, event, key_of
from watt_boot.slots import Slots
from watt_chain import crypto
from watt_gateway import bundles
from watt_gateway.bundles import BEGIN_MS, PIECE, SILENT_MS, STALL_MS, TRANSFERS_MAX, WINDOW, Updates
from watt_plug.update import Updater
from watt_tools import plug_bundle
from watt_wire import statement
from watt_wire.errors import DecodeError

RELEASE_KEYS = sorted((key_of(number) for number in (20, 21, 22)), key=lambda key: crypto.id8(key.public))
FILES = [("watt_wire/a.py", bytes(range(256)) * 30), ("watt_plug/b.mpy", b"\x07" * 9_001), ("watt_plug/c.py", b"")]


def bundle(release: int, keys: list[crypto.PrivateKey] = RELEASE_KEYS[:2]) -> bytes:
    return plug_bundle.seal(release, FILES, keys).frame


class Plug:
    """The firmware's updater on a folder, and the status that its shell would send."""

    def __init__(self, folder: Path) -> None:
        (folder / "a/watt_wire").mkdir(parents=True, exist_ok=True)
        (folder / "a/watt_plug").mkdir(exist_ok=True)
        self.slots = Slots(f"{folder}/")
        self.slots.choose()
        self.slots.healthy()
        self.updater = Updater(self.slots, [key.public for key in RELEASE_KEYS])

    def take(self, piece: bytes) -> None:
        self.updater.take(piece)
        while self.updater.work():
            pass

    def status(self) -> dict[str, object]:
        updater, slots = self.updater, self.slots
        running = 1 - slots.active if updater.ready else slots.active
        return {
            "release": slots.releases[running], "trial": slots.trial and not updater.ready, "update": updater.received,
            "update_state": updater.state, "update_error": updater.error, "update_name": updater.name,
        }  # fmt: skip


def carry(updates: Updates, plug: Plug, lose: random.Random | None = None, limit: int = 3000) -> int:
    """Turns of half a second until the bundle is staged or the transfer is over; returns how many."""
    now_ms = 0
    for turns in range(limit):
        now_ms += 500
        for target, piece in updates.due({PLUG_ID}, now_ms):
            assert target == PLUG_ID and len(piece) <= 1 + max(PIECE + 4, 4000)
            copies = lose.choice((0, 1, 1, 1, 2)) if lose else 1
            for _ in range(copies):
                plug.take(piece)
        if lose is None or lose.random() < 0.7:
            updates.heard(PLUG_ID, plug.status(), now_ms)
        if plug.updater.ready or updates.ended():
            return turns
    raise AssertionError(updates.status())


def test_a_bundle_arrives_whole_runs_on_trial_and_is_confirmed(tmp_path: Path) -> None:
    plug, updates = Plug(tmp_path), Updates()
    assert updates.offer(PLUG_ID, bundle(2), 0) == ""
    assert carry(updates, plug) < 20
    for name, data in FILES:
        assert (tmp_path / "b" / name).read_bytes() == data
    plug = Plug(tmp_path)
    plug.slots.trial = True
    updates.heard(PLUG_ID, plug.status(), 0)
    assert updates.status()[PLUG_ID.hex()]["state"] == "trial"
    plug.slots.healthy()
    updates.heard(PLUG_ID, plug.status(), 0)
    assert updates.status()[PLUG_ID.hex()]["state"] == bundles.CONFIRMED and updates.ended() == [PLUG_ID]


@pytest.mark.parametrize("seed", range(8))
def test_a_line_that_loses_and_repeats_only_costs_time(tmp_path: Path, seed: int) -> None:
    plug, updates = Plug(tmp_path), Updates()
    updates.offer(PLUG_ID, bundle(2), 0)
    carry(updates, plug, random.Random(seed))
    assert plug.updater.ready and (tmp_path / "b" / FILES[0][0]).read_bytes() == FILES[0][1]


def test_a_plug_that_restarts_in_the_middle_goes_on_where_it_was(tmp_path: Path) -> None:
    plug, updates = Plug(tmp_path), Updates()
    updates.offer(PLUG_ID, bundle(2), 0)
    now_ms = 0
    while plug.updater.received < 3 * PIECE:
        now_ms += 500
        for _, piece in updates.due({PLUG_ID}, now_ms):
            plug.take(piece)
        updates.heard(PLUG_ID, plug.status(), now_ms)
    plug = Plug(tmp_path)
    sent = 0
    while not plug.updater.ready:
        now_ms += 500
        updates.heard(PLUG_ID, plug.status(), now_ms)
        for _, piece in updates.due({PLUG_ID}, now_ms):
            sent += piece[:1] == b"\x02"
            plug.take(piece)
    assert sent * PIECE <= len(b"".join(data for _, data in FILES)) - 3 * PIECE + PIECE


def test_no_more_than_a_window_is_on_its_way_and_silence_repeats_it(tmp_path: Path) -> None:
    plug, updates = Plug(tmp_path), Updates()
    updates.offer(PLUG_ID, bundle(2), 0)
    ((_, begin),) = updates.due({PLUG_ID}, 1000)
    assert updates.due({PLUG_ID}, 1001) == [] and len(updates.due({PLUG_ID}, 1000 + BEGIN_MS)) == 1
    plug.take(begin)
    updates.heard(PLUG_ID, plug.status(), 1001)
    first = updates.due({PLUG_ID}, 17_000)
    assert len(first) == WINDOW and updates.due({PLUG_ID}, 17_001) == []
    assert updates.due({PLUG_ID}, 17_000 + STALL_MS) == first
    assert updates.due(set(), 90_000) == [], "a plug that is not there is sent nothing"


def test_a_roll_back_that_the_plug_has_signed_ends_the_transfer_of_that_release(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    updates = fixture.desk.updates
    updates.offer(PLUG_ID, bundle(2), 0)
    for number, failed in ((1, 7), (2, 2)):
        fixture.take("event", event(number, statement.ROLL_BACK, failed, 1))
        asyncio.run(fixture.desk.turn())
        assert bool(updates.ended()) == (failed == 2)
    assert updates.status()[PLUG_ID.hex()]["state"] == bundles.ROLLED_BACK


def test_a_bundle_that_the_plug_refuses_is_not_sent_again(tmp_path: Path) -> None:
    stranger = sorted((key_of(30), RELEASE_KEYS[0]), key=lambda key: crypto.id8(key.public))
    for keys, release, reason in ((stranger, 2, "update-signature"), (RELEASE_KEYS[:2], 0, "update-old")):
        plug, updates = Plug(tmp_path / reason), Updates()
        plug.slots.releases[0] = 1
        frame = bundle(max(release, 1), keys)
        updates.offer(PLUG_ID, frame, 0)
        if reason == "update-old":
            plug.slots.releases[0] = 5
        carry(updates, plug)
        assert updates.status()[PLUG_ID.hex()]["state"] == f"refused {reason}"


def test_what_a_plug_says_of_another_bundle_is_not_said_of_ours(tmp_path: Path) -> None:
    plug, updates = Plug(tmp_path), Updates()
    plug.take(b"\x01" + plug_bundle.read(_written(tmp_path, bundle(3, [key_of(30), RELEASE_KEYS[0]]))).manifest)
    assert plug.updater.error == "update-signature"
    updates.offer(PLUG_ID, bundle(2), 0)
    updates.heard(PLUG_ID, plug.status(), 1)
    assert updates.status()[PLUG_ID.hex()]["state"] == "waiting"
    carry(updates, plug)
    assert plug.updater.ready


def test_a_plug_on_trial_and_a_staged_one_take_no_other_bundle(tmp_path: Path) -> None:
    plug, updates = Plug(tmp_path), Updates()
    updates.offer(PLUG_ID, bundle(2), 0)
    carry(updates, plug)
    manifest = plug_bundle.read(_written(tmp_path, bundle(3))).manifest
    plug.take(b"\x01" + manifest)
    assert (plug.updater.error, plug.updater.ready) == ("update-staged", True)
    again = Plug(tmp_path)
    again.slots.trial = True
    again.take(b"\x01" + manifest)
    assert again.updater.error == "update-trial" and again.slots.hashes[0] != bytes(32)


def test_files_that_are_no_bundle_are_refused(tmp_path: Path) -> None:
    whole = bundle(2)
    for bad in (b"", whole[:57], whole[:-1], whole + b"\x00", b"WPM\x02" + whole[4:], bytes(200)):
        with pytest.raises(DecodeError):
            bundles.split(bad)
    updates = Updates()
    assert updates.offer(PLUG_ID, whole[:-1], 0) == "bundle-size" and updates.status() == {}


def test_transfers_are_bounded_and_end_after_a_day_of_silence() -> None:
    updates = Updates()
    for number in range(TRANSFERS_MAX):
        assert updates.offer(bytes((number,)) * 8, bundle(2), 0) == ""
    assert updates.offer(b"\xff" * 8, bundle(2), 0) == "update-crowd"
    assert updates.due(set(), SILENT_MS) == []
    assert updates.due(set(), SILENT_MS + 1) == [] and len(updates.ended()) == TRANSFERS_MAX
    assert {row["state"] for row in updates.status().values()} == {bundles.SILENT}


def test_a_bundle_in_the_tray_is_taken_and_goes_when_it_is_over(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path)
    fixture.tray.mkdir()
    path = fixture.tray / f"{PLUG_ID.hex()}.bundle"
    path.write_bytes(bundle(2))
    fixture.take("status", b'{"update_state": "none", "release": 1}')
    asyncio.run(fixture.desk.turn())
    assert [level for level, _ in fixture.take_sent()] == ["update"] and path.exists()
    fixture.take("status", b'{"update_state": "none", "release": 2, "trial": false}')
    asyncio.run(fixture.desk.turn())
    assert not path.exists() and fixture.desk.updates.status()[PLUG_ID.hex()]["state"] == bundles.CONFIRMED


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "x.bundle"
    path.write_bytes(data)
    return path
