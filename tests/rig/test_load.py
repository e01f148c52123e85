"""The load of a household: exact energy, and a plan kept to the watt-hour on the plug's own register."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watt_rig.chip import POWER_COEFFICIENT
from watt_rig.load import UJ_PER_J, Load, LoadError, Profile, read_profile

START_S = 1_700_000_100 // 900 * 900
WATTS = st.lists(st.integers(0, 3000), min_size=1, max_size=40)


def metered_wh(load: Load, start_s: int, end_s: int) -> int:
    """Whole watt-hours between two register readings, the register being rounded down to pulses and to mWh."""
    readings = [
        load.energy_uj(time_s) // POWER_COEFFICIENT * POWER_COEFFICIENT // 3_600_000 for time_s in (start_s, end_s)
    ]
    return readings[1] // 1000 - readings[0] // 1000


def test_energy_is_the_sum_of_watts_over_seconds_and_the_profile_repeats() -> None:
    profile = Profile(START_S, 60, [100, 0, 250])
    joules = 0
    for second in range(400):
        assert profile.energy_j(START_S + second) == joules
        joules += [100, 0, 250][second // 60 % 3]


def test_the_peak_of_a_span_is_found_across_the_end_of_the_profile() -> None:
    profile = Profile(START_S, 60, [100, 0, 250])
    assert profile.peak_w(START_S + 60, START_S + 120) == 0
    assert profile.peak_w(START_S + 179, START_S + 181) == 250
    assert profile.peak_w(START_S + 180, START_S + 300) == 100


@given(WATTS, st.lists(st.integers(0, 900), min_size=1, max_size=12), st.integers(0, 20))
def test_a_plan_is_kept_to_the_watt_hour_in_every_slot(watts: list[int], slot_wh: list[int], first: int) -> None:
    load = Load(Profile(START_S, 77, watts), 3680)
    window_s = START_S + 900 * first
    load.plan(window_s, 900, slot_wh)
    metered = [metered_wh(load, window_s + 900 * n, window_s + 900 * (n + 1)) for n in range(len(slot_wh))]
    assert metered == slot_wh


@given(WATTS, st.lists(st.integers(0, 2000), min_size=1, max_size=12))
def test_a_bent_load_never_runs_backwards_nor_beyond_the_rated_power(watts: list[int], slot_wh: list[int]) -> None:
    load = Load(Profile(START_S, 60, watts), 3000)
    load.plan(START_S + 900, 900, slot_wh)
    before_uj = load.energy_uj(START_S)
    for time_s in range(START_S + 10, START_S + 900 * (len(slot_wh) + 2), 10):
        energy_uj = load.energy_uj(time_s)
        assert 0 <= energy_uj - before_uj <= 3000 * 10 * UJ_PER_J + 1
        before_uj = energy_uj


def test_a_plan_that_comes_again_changes_nothing_and_a_restored_one_is_the_same() -> None:
    load = Load(Profile(START_S, 60, [500, 900]), 3680)
    load.plan(START_S + 900, 900, [100, 200, 300])
    slots = list(load.slots)
    load.plan(START_S + 1800, 900, [200, 300])
    assert load.slots == slots
    restored = Load(Profile(START_S, 60, [500, 900]), 3680)
    restored.restore(slots)
    for time_s in range(START_S, START_S + 5400, 130):
        assert restored.energy_uj(time_s) == load.energy_uj(time_s)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"start_s": 1}',
        '{"start_s": 1, "step_s": 0, "watts": [1]}',
        '{"start_s": 1, "step_s": 60, "watts": []}',
    ],
)
def test_a_file_that_is_no_load_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "load.json"
    path.write_text(content)
    with pytest.raises(LoadError, match=r"load\.json"):
        read_profile(path)
    path.write_text(json.dumps({"start_s": START_S, "step_s": 60, "watts": [1, 2]}))
    assert read_profile(path).watts == [1, 2]
