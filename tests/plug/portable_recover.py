"""What a restart does to the register: recovered, left out within the stated error, or signed as a discontinuity."""

import gc

gc.collect()
import plug_tools as tools  # noqa: E402  # a small heap wants its garbage out first

gc.collect()
from life_tools import START_S, checkpoints, events, make, run  # noqa: E402
from watt_plug.register import (  # noqa: E402
    FRESH_S,
    GRACE_S,
    STEP_COUNTED,
    STEP_DISCONTINUITY,
    STEP_HELD,
    Register,
)
from watt_plug.storage import MemoryStorage  # noqa: E402

gc.collect()
from watt_wire import checkpoint, statement  # noqa: E402

PULSE_UJ = 5351000
COARSE_UJ = 3600000000
RATED_W = 2300
POSITION = 60000


def recovering(
    position_s: int = START_S, restarts: int = 1, kept: bool = False, now_s: int = 0, timed: bool = False
) -> Register:
    made = Register(RATED_W)
    made.recover(POSITION, position_s, restarts, kept, now_s, timed)
    return made


def energy_uj(made: Register) -> int:
    return made.import_mwh * 3600000 + made.remainder_uj


def settled(made: Register, away_s: int) -> int:
    """The time becomes known: `away_s` lie between the journal and the start."""
    made.shift(START_S + away_s)
    return made.settle()


def test_a_chip_that_went_on_counting_makes_the_energy_good_once_the_time_is_known() -> None:
    made = recovering()
    assert made.count(POSITION + 4000, PULSE_UJ, 3) == STEP_HELD, "one frame says nothing"
    assert made.count(POSITION + 4010, PULSE_UJ, 4) == STEP_COUNTED
    assert made.count(POSITION + 4020, PULSE_UJ, 9) == STEP_COUNTED and energy_uj(made) == 10 * PULSE_UJ
    assert made.pending_uj == 4010 * PULSE_UJ
    assert settled(made, 60) == STEP_COUNTED, "a minute explains it"
    assert energy_uj(made) == 4020 * PULSE_UJ and not made.pending_from_s
    assert made.count(POSITION + 4030, PULSE_UJ, START_S + 75) == STEP_COUNTED
    assert energy_uj(made) == 4030 * PULSE_UJ


def test_a_chip_that_began_anew_adds_nothing_and_is_no_discontinuity() -> None:
    made = recovering()
    assert [made.count(pulses, PULSE_UJ, 2 + pulses) for pulses in (1, 3)] == [STEP_HELD, STEP_COUNTED]
    assert energy_uj(made) == 0 and made.position == 3
    assert made.count(13, PULSE_UJ, 15) == STEP_COUNTED and energy_uj(made) == 10 * PULSE_UJ


def test_what_cannot_be_told_from_a_chip_that_began_anew_is_left_out() -> None:
    """2300 W, a quarter overload: in 10 s, one second of life and 2 s of grace at most 6984 pulses."""
    for pulses, counted in ((6984, 0), (6985, 6985 + 131072 - 125000)):
        made = Register(RATED_W)
        made.recover(125000, START_S, 1, False, 0, False)
        made.count(pulses, PULSE_UJ, 1)
        assert made.count(pulses, PULSE_UJ, 1) == STEP_COUNTED and settled(made, 30) == STEP_COUNTED
        assert energy_uj(made) == counted * PULSE_UJ, pulses


def test_every_start_since_the_last_healthy_one_widens_what_cannot_be_told() -> None:
    for restarts, counted in ((1, 12100), (3, 0)):
        made = Register(RATED_W)
        made.recover(0, START_S, restarts, False, 0, False)
        made.count(12100, PULSE_UJ, 1)
        made.count(12100, PULSE_UJ, 1)
        assert settled(made, 90) == STEP_COUNTED and energy_uj(made) == counted * PULSE_UJ


def test_a_processor_that_alone_was_reset_leaves_nothing_out() -> None:
    made = Register(RATED_W)
    made.recover(100, START_S, 1, True, 0, False)
    made.count(150, PULSE_UJ, 1)
    assert made.count(151, PULSE_UJ, 2) == STEP_COUNTED
    assert settled(made, 5) == STEP_COUNTED and energy_uj(made) == 51 * PULSE_UJ


def test_a_meter_on_a_supply_of_its_own_makes_an_hour_good() -> None:
    made = Register(RATED_W, span=1 << 32)
    made.recover(5000, START_S, 1, False, 0, False)
    made.count(7000, COARSE_UJ, 1)
    assert made.count(7000, COARSE_UJ, 2) == STEP_COUNTED
    assert energy_uj(made) == 0 and made.pending_uj == 2000 * COARSE_UJ
    assert made.count(7001, COARSE_UJ, 8) == STEP_COUNTED and energy_uj(made) == COARSE_UJ, "and goes on meanwhile"
    assert settled(made, 3600) == STEP_COUNTED and energy_uj(made) == 2001 * COARSE_UJ


def test_a_step_that_the_time_does_not_explain_is_a_discontinuity() -> None:
    for away_s in (600, -600):
        made = Register(RATED_W, span=1 << 32)
        made.recover(5000, START_S, 1, False, 0, False)
        made.count(7000, COARSE_UJ, 1)
        made.count(7000, COARSE_UJ, 2)
        assert settled(made, away_s) == STEP_DISCONTINUITY and energy_uj(made) == 0
        assert made.settle() == STEP_COUNTED, "said once"


def test_a_counter_that_may_have_turned_round_is_a_discontinuity() -> None:
    made = recovering()
    made.count(POSITION + 10, PULSE_UJ, 1)
    assert made.count(POSITION + 10, PULSE_UJ, 2) == STEP_COUNTED
    assert settled(made, 3600) == STEP_DISCONTINUITY


def test_a_known_time_judges_at_once() -> None:
    for away_s, outcome in ((20, STEP_COUNTED), (5, STEP_DISCONTINUITY), (-5, STEP_DISCONTINUITY)):
        made = recovering(now_s=START_S + away_s, timed=True)
        made.count(POSITION + 9000, PULSE_UJ, START_S + away_s)
        assert made.count(POSITION + 9000, PULSE_UJ, START_S + away_s) == outcome, away_s
        assert energy_uj(made) == (9000 * PULSE_UJ if outcome == STEP_COUNTED else 0)


def test_a_journal_without_a_calendar_explains_nothing() -> None:
    made = recovering(position_s=500)
    made.count(POSITION + 100, PULSE_UJ, 1)
    assert made.count(POSITION + 100, PULSE_UJ, 2) == STEP_COUNTED
    assert settled(made, 600) == STEP_DISCONTINUITY and energy_uj(made) == 0


def test_a_damaged_first_frame_after_a_restart_does_no_harm() -> None:
    made = recovering()
    outcomes = [made.count(pulses, PULSE_UJ, now_s) for pulses, now_s in ((131000, 1), (60010, 2), (60011, 3))]
    assert outcomes == [STEP_HELD, STEP_HELD, STEP_COUNTED] and made.pending_uj == 11 * PULSE_UJ


def lived(seconds: int = 330) -> "tuple[MemoryStorage, int]":
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    return storage, run(plug, START_S, seconds, 60000)


def test_a_brown_out_is_a_boot_with_its_cause_and_the_register_is_exact() -> None:
    storage, position = lived()
    plug = make(storage)
    plug.start(0, False, 0, reset=6, boots=1, quality="U")
    run(plug, 0, 60, position + 40)
    plug.tick(START_S + 400, 61, "S")
    run(plug, START_S + 400, 500, position + 40 * 7)
    reasons = [head.reason for head, _ in checkpoints(storage) if head.reason != checkpoint.RELAY]
    assert reasons == [checkpoint.BOOT, checkpoint.BOOT, checkpoint.CLOCK_STEP, checkpoint.PERIODIC]
    assert [item.number("first") for item in events(storage) if item.number("kind") == statement.RESET] == [6]
    counted = (position + 40 * 57 - 60040) * tools.PULSE_UJ // 3600000
    assert plug.import_mwh == counted, "from the first frame of the first life on"


def test_a_loss_of_supply_leaves_out_at_most_what_was_not_journalled() -> None:
    storage, position = lived(355)
    plug = make(storage)
    before_mwh = plug.import_mwh
    plug.start(0, False, 0, reset=1, quality="U")
    run(plug, 0, 60, 0)
    plug.tick(START_S + 500, 61, "S")
    assert [head.reason for head, _ in checkpoints(storage)].count(checkpoint.DISCONTINUITY) == 0
    # Journalled at 300 s; 50 s were flowing, six frames later 200 pulses have been counted.
    left_out_mwh = (position - 60040) * tools.PULSE_UJ // 3600000 - before_mwh
    assert 0 < left_out_mwh <= 6 * 40 * tools.PULSE_UJ // 3600000
    assert plug.import_mwh - before_mwh - 160 * tools.PULSE_UJ // 3600000 in (0, 1)


def test_a_counter_that_nothing_explains_is_signed_once_the_time_is_known() -> None:
    storage, position = lived()
    plug = make(storage)
    plug.start(0, False, 0, reset=1, quality="U")
    run(plug, 0, 30, position - 3000)
    plug.tick(START_S + 400, 31, "S")
    reasons = [head.reason for head, _ in checkpoints(storage)]
    assert reasons[-2:] == [checkpoint.CLOCK_STEP, checkpoint.DISCONTINUITY]


def test_a_step_that_waits_survives_another_restart() -> None:
    storage, position = lived()
    plug = make(storage)
    plug.start(0, False, 0, reset=1, quality="U")
    run(plug, 0, 70, position - 3000)
    again = make(storage)
    assert again._books.register.pending_uj > 0
    again.start(0, False, 0, reset=1, boots=2, quality="U")
    run(again, 0, 30, position - 3000 + 400)
    again.tick(START_S + 500, 31, "S")
    assert checkpoints(storage)[-1][0].reason == checkpoint.DISCONTINUITY


def test_a_step_that_waits_is_explained_after_a_loss_of_supply_too() -> None:
    storage, position = lived()
    plug = make(storage)
    plug.start(0, False, 0, reset=6, quality="U")
    run(plug, 0, 70, position + 40)
    waiting_uj = plug._books.register.pending_uj
    again = make(storage)
    again.start(0, False, 0, reset=1, boots=2, quality="U")
    run(again, 0, 30, 0)
    before_mwh = again.import_mwh
    again.tick(START_S + 440, 31, "S")
    assert waiting_uj > 0 and again.import_mwh - before_mwh - waiting_uj // 3600000 in (0, 1)


def test_a_secure_elements_count_of_starts_is_a_floor() -> None:
    storage, _ = lived()
    plug = make(storage)
    plug.start(0, False, 0, quality="U", boot_floor=40)
    assert checkpoints(storage)[-1][0].boot_id == 40
    again = make(storage)
    again.start(0, False, 0, quality="U", boot_floor=3)
    assert checkpoints(storage)[-1][0].boot_id == 41


def test_a_roll_back_is_signed_once() -> None:
    storage, _ = lived()
    for _ in range(2):
        plug = make(storage)
        plug.start(0, True, 0, reset=5, quality="U", roll_back=(1, 7, 6))
    found = [item for item in events(storage) if item.number("kind") == statement.ROLL_BACK]
    assert [(item.number("first"), item.number("last")) for item in found] == [(7, 6)]
    plug = make(storage)
    plug.start(0, True, 0, reset=5, quality="U", roll_back=(2, 8, 6))
    assert len([item for item in events(storage) if item.number("kind") == statement.ROLL_BACK]) == 2


def test_the_constants_are_those_of_the_page() -> None:
    assert (FRESH_S, GRACE_S) == (10, 2)
