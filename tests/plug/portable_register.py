"""The register: exact energy, wraps, resets, and what it refuses to guess."""

from watt_plug import register
from watt_plug.register import STEP_COUNTED, STEP_DISCONTINUITY, STEP_HELD, Register

PULSE_UJ = 5351000


def started(rated_w: int = 3680, position: int = 0) -> Register:
    made = Register(rated_w)
    assert made.count(position, PULSE_UJ, 0) == STEP_COUNTED
    return made


def test_energy_is_exact_and_its_remainder_is_carried() -> None:
    made = started()
    for step in range(1, 1001):
        assert made.count(step * 7, PULSE_UJ, step) == STEP_COUNTED
    total_uj = 7000 * PULSE_UJ
    assert made.import_mwh == total_uj // 3600000
    assert made.remainder_uj == total_uj % 3600000


def test_a_wrap_of_the_counter_is_counted() -> None:
    made = started(position=register.PULSE_SPAN - 10)
    assert made.count(5, PULSE_UJ, 1) == STEP_COUNTED
    assert made.import_mwh == 15 * PULSE_UJ // 3600000


def test_a_carry_of_the_16_bit_counter_is_no_wrap() -> None:
    made = started(position=65530)
    assert made.count(65540, PULSE_UJ, 1) == STEP_COUNTED
    assert made.import_mwh == 10 * PULSE_UJ // 3600000


def test_a_reset_is_a_discontinuity_and_adds_nothing_it_does_not_know() -> None:
    made = started()
    made.count(1000, PULSE_UJ, 10)
    before_mwh = made.import_mwh
    assert made.count(3, PULSE_UJ, 11) == STEP_HELD
    assert made.import_mwh == before_mwh
    assert made.count(5, PULSE_UJ, 12) == STEP_DISCONTINUITY
    # Only the two pulses between the two frames that agree are known.
    assert made.import_mwh * 3600000 + made.remainder_uj == 1002 * PULSE_UJ
    assert made.count(9, PULSE_UJ, 13) == STEP_COUNTED


def test_one_damaged_frame_is_passed_over_without_a_discontinuity() -> None:
    made = started()
    made.count(100, PULSE_UJ, 1)
    assert made.count(90000, PULSE_UJ, 2) == STEP_HELD
    assert made.count(120, PULSE_UJ, 3) == STEP_COUNTED
    assert made.import_mwh * 3600000 + made.remainder_uj == 120 * PULSE_UJ


def test_a_step_beyond_the_rated_power_is_not_consumption() -> None:
    # 2300 W for 10 s, a quarter overload, 2 s of grace: 34.5 kJ is 6447 pulses.
    for pulses, outcome in ((6447, STEP_COUNTED), (6448, STEP_HELD)):
        made = started(rated_w=2300)
        assert made.count(pulses, PULSE_UJ, 10) == outcome


def test_a_gap_in_which_the_counter_could_turn_round_is_a_discontinuity() -> None:
    made = started()
    made.count(10, PULSE_UJ, 10)
    assert made.count(20, PULSE_UJ, 400) == STEP_HELD
    assert made.count(21, PULSE_UJ, 401) == STEP_DISCONTINUITY


def test_time_that_runs_backwards_counts_nothing() -> None:
    made = started()
    made.count(10, PULSE_UJ, 10)
    assert made.count(20, PULSE_UJ, 5) == STEP_HELD


def test_a_resumed_register_goes_on_to_the_pulse() -> None:
    first = started()
    first.count(777, PULSE_UJ, 10)
    second = Register(3680, first.import_mwh, first.remainder_uj)
    second.resume(first.position, first.position_s)
    second.count(800, PULSE_UJ, 20)
    assert second.import_mwh * 3600000 + second.remainder_uj == 800 * PULSE_UJ
