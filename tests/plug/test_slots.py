"""The choice of the bundle: trial, roll-back, safe mode, a damaged slot, a record that is torn."""

from __future__ import annotations

from pathlib import Path

import pytest
from watt_boot import slots
from watt_boot.slots import RUN, SAFE, SAFE_STARTS, TRIAL_STARTS, Slots


def plug(folder: Path) -> str:
    """A flash with a bundle in slot a; return its root."""
    for package in ("watt_wire", "watt_plug"):
        (folder / "a" / package).mkdir(parents=True)
        (folder / "a" / package / "x.py").write_text(package)
    return f"{folder}/"


def updated(folder: Path) -> str:
    root = plug(folder)
    record = Slots(root)
    record.choose()
    record.healthy()
    assert record.begin_update() == 1
    for package in ("watt_wire", "watt_plug"):
        (folder / "b" / package).mkdir(parents=True)
        (folder / "b" / package / "x.py").write_text("new")
    record.finish_update(7, slots.tree_hash(f"{root}b"))
    return root


def test_the_first_start_runs_what_the_cable_put_there(tmp_path: Path) -> None:
    root = plug(tmp_path)
    assert Slots(root).choose() == (RUN, 0)
    assert Slots(root).choose() == (RUN, 0) and Slots(root).boots == 2


def test_a_trial_that_reports_health_stays_and_one_power_cut_is_no_reason_to_go_back(tmp_path: Path) -> None:
    root = updated(tmp_path)
    for _ in range(TRIAL_STARTS):
        assert Slots(root).choose() == (RUN, 1)
    Slots(root).healthy()
    for _ in range(TRIAL_STARTS + 1):
        assert Slots(root).choose() == (RUN, 1)
    assert Slots(root).roll_backs == 0


def test_a_trial_that_never_reports_goes_back_and_is_not_tried_again(tmp_path: Path) -> None:
    root = updated(tmp_path)
    seen = [Slots(root).choose() for _ in range(TRIAL_STARTS + 3)]
    assert seen == [(RUN, 1)] * TRIAL_STARTS + [(RUN, 0)] * 3
    record = Slots(root)
    assert (record.roll_backs, record.rolled_back, record.trial) == (1, 7, False)


def test_many_starts_without_health_are_safe_mode_with_half_the_patience_afterwards(tmp_path: Path) -> None:
    root = plug(tmp_path)
    seen = [Slots(root).choose()[0] for _ in range(SAFE_STARTS + 1)]
    assert seen == [RUN] * SAFE_STARTS + [SAFE]
    Slots(root).leave_safe_mode()
    seen = [Slots(root).choose()[0] for _ in range(6)]
    assert seen == [RUN] * 5 + [SAFE]


def test_a_slot_whose_files_changed_does_not_run(tmp_path: Path) -> None:
    root = updated(tmp_path)
    (tmp_path / "b" / "watt_plug" / "x.py").write_text("bad")
    assert Slots(root).choose() == (RUN, 0)
    (tmp_path / "a" / "watt_plug" / "more.py").write_text("bad")
    assert Slots(root).choose()[0] == SAFE


@pytest.mark.parametrize("name", slots.FILES)
def test_a_record_that_is_torn_gives_way_to_the_other(tmp_path: Path, name: str) -> None:
    root = updated(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for data in (whole[:-1], b"", whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]):
        (tmp_path / name).write_bytes(data)
        mode, slot = Slots(root).choose()
        assert mode == RUN and slot in (0, 1)
        (tmp_path / name).write_bytes(whole)
