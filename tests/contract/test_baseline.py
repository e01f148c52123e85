"""The baseline from history: what it is, what it is not, and that an inflated history does not pay (U15)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract_world import START_S, Home, Plan, Play, World, make_spec
from msgspec.structs import replace
from watt_chain.contract import kinds
from watt_chain.contract.baseline import is_weekend
from watt_chain.contract.event import State
from watt_chain.contract.rules import RULES_1

RULES = replace(RULES_1, version=3, baseline_days=10, baseline_high=5, adjust_ppm=200_000, fresh_s=0)
DAY_S = 86_400
EVENT_S = (START_S // DAY_S + 23) * DAY_S + 17 * 3_600
"The signal goes out at 17 h, the window of four quarters begins at 17:15; twenty days of history before."
PROFILE = 200
"Wh per slot of the standard profile; quota is four fifths."


def lived(use: Callable[[int, bool], int], days: int = 20, skip: set[int] | None = None) -> tuple[World, Home]:
    """A home that draws `use(day, before the signal)` Wh per quarter hour; checkpoints only around the window."""
    home = Home(0, 1, rated_w=25_000)
    world = World(areas=1, homes=[home], rules=RULES)
    today = EVENT_S // DAY_S
    for day in [today - back for back in range(days, -1, -1)]:
        last = EVENT_S % DAY_S if day == today else EVENT_S % DAY_S + 2 * 3_600
        for at_s in range(EVENT_S % DAY_S - 2 * 3_600, last + 1, 900):
            world.now_s = day * DAY_S + at_s
            begins = at_s == EVENT_S % DAY_S - 2 * 3_600
            add = 0 if begins else use(day, at_s <= EVENT_S % DAY_S) * 1000
            frame = home.checkpoint(world.now_s, add)
            if skip and day in skip and at_s == EVENT_S % DAY_S + 1_800:
                continue  # lost: the register of one boundary is missing
            assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    return world, home


def quota_of(world: World, home: Home, wh: int = 40, **signal: object) -> tuple[list[int], str]:
    spec = make_spec(1, EVENT_S, **signal)
    Play(world, [Plan(home, "sell", 300, [wh] * 4, [100] * 4)], spec).run(State.QUALIFIED)
    sealed = world.sealed(home)
    return sealed.quota_wh, sealed.baseline


def weekdays(values: list[int]) -> dict[int, int]:
    """The last like days before the event, latest first, with these values."""
    today = EVENT_S // DAY_S
    days = [day for day in range(today - 1, today - 21, -1) if is_weekend(day) == is_weekend(today)]
    return dict(zip(days, values, strict=False))


def test_the_event_is_on_a_working_day_with_enough_history_before_it() -> None:
    assert not is_weekend(EVENT_S // DAY_S)
    assert is_weekend(2) and is_weekend(3) and not is_weekend(4)  # 3 and 4 January 1970 were a weekend
    assert len(weekdays([0] * 99)) == 14


@pytest.mark.row("G7")
def test_the_baseline_is_the_mean_of_the_five_highest_of_the_last_ten_like_days() -> None:
    values = weekdays([100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 999, 999])
    world, home = lived(lambda day, before: 100 if before else values.get(day, 500))
    assert quota_of(world, home) == ([(190 + 180 + 170 + 160 + 150) // 5 * 4 // 5] * 4, "history")


@pytest.mark.parametrize(("share", "wanted"), [(50, 80), (90, 90), (110, 110), (300, 120)])
def test_the_load_before_the_signal_scales_it_by_a_fifth_at_most(share: int, wanted: int) -> None:
    today = EVENT_S // DAY_S
    world, home = lived(lambda day, before: (share if day == today else 100) if before else 100)
    assert quota_of(world, home)[0] == [wanted * 4 // 5] * 4


def test_with_fewer_than_ten_like_days_it_is_the_profile_and_says_so() -> None:
    world, home = lived(lambda day, before: 50, days=9)
    assert quota_of(world, home) == ([PROFILE * 4 // 5] * 4, "profile")


def test_a_day_with_a_missing_register_is_no_day_and_no_breach() -> None:
    values = weekdays([900] * 2 + [100] * 10)
    world, home = lived(lambda day, before: 100 if before else values.get(day, 100), skip=set(weekdays([0, 0])))
    assert quota_of(world, home) == ([80] * 4, "history")


def test_a_day_of_an_event_says_nothing_about_ordinary_use() -> None:
    world, home = lived(lambda day, before: 150)
    quota_of(world, home)
    day = EVENT_S // DAY_S
    from watt_chain import codec
    from watt_chain.contract.baseline import DayRegisters, history_key

    kept = codec.decode(world.ledgers[1].state.get(history_key(home.plug_id, day)) or b"", DayRegisters)
    assert kept.is_event and kept.day == day


# Gaming -------------------------------------------------------------------------------------------------------


def test_an_inflated_history_buys_a_household_of_ordinary_use_nothing() -> None:
    """Who draws as much as the profile gains not a watt-hour of quota by drawing ten times as much."""
    honest = lived(lambda day, before: PROFILE)
    inflated = lived(lambda day, before: 10 * PROFILE)
    assert quota_of(*honest)[0] == quota_of(*inflated)[0] == [PROFILE * 4 // 5] * 4


@pytest.mark.row("K6")
def test_lifting_a_low_history_costs_more_than_the_quota_can_be_sold_for() -> None:
    """The household really draws, and pays, the difference on five days; it sells it once, at the limit at most.

    With the demo's prices: normal price 220, dearest limit 540 u/Wh. Two events still do not pay it back.
    """
    normal, limit = 220, 540
    low, high = 60, 180
    lifted = set(weekdays([0] * 5))
    honest, _ = quota_of(*lived(lambda day, before: low), wh=10)
    gamed, _ = quota_of(*lived(lambda day, before: high if day in lifted and not before else low), wh=10)
    gain_wh = sum(gamed) - sum(honest)
    assert gain_wh > 0
    burnt_wh = (high - low) * 4 * len(lifted)
    assert burnt_wh * normal > 2 * gain_wh * limit


def test_use_after_the_signal_cannot_raise_the_baseline() -> None:
    """The day of the event is no like day, and the hours that scale it end before the collection opens."""
    today = EVENT_S // DAY_S
    calm = quota_of(*lived(lambda day, before: 100))
    wild = quota_of(*lived(lambda day, before: 100 if before or day != today else 2_000))
    assert calm == wild


def test_a_valley_takes_the_larger_of_profile_and_history() -> None:
    """A floor that can be lowered by drawing little beforehand would be sold without any effort."""
    assert quota_of(*lived(lambda day, before: 50), kind="valley")[0] == [PROFILE * 6 // 5] * 4
    assert quota_of(*lived(lambda day, before: 300), kind="valley")[0] == [300 * 6 // 5] * 4


def test_without_the_figure_of_the_rule_set_nothing_is_kept() -> None:
    home = Home(0, 1)
    world = World(areas=1, homes=[home], rules=RULES_1)
    frame = home.checkpoint(START_S + 900)
    world.now_s = START_S + 900
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert not list(world.ledgers[1].state.keys(b"history/"))
