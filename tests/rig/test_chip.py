"""The fake chip speaks as the published frames do: what the plug's parser makes of it is what flowed."""

from __future__ import annotations

import pytest
from watt_plug.meters import cse7766
from watt_rig.chip import MAINS_MV, POWER_COEFFICIENT, FakeCse7766


@pytest.mark.parametrize("power_mw", [500, 1_000, 20_862, 115_880, 999_999, 3_680_000])
def test_a_load_is_measured_within_the_resolution_of_the_cycle(power_mw: int) -> None:
    (sample,) = cse7766.Parser().feed(FakeCse7766().frame(0, power_mw))
    assert sample.valid == cse7766.VALID_VOLTAGE | cse7766.VALID_CURRENT | cse7766.VALID_POWER
    # One step of a cycle of coefficient / power counts is the chip's resolution.
    assert abs(sample.power_mw - power_mw) <= 1 + power_mw * power_mw // (POWER_COEFFICIENT * 1000)
    assert abs(sample.voltage_mv - MAINS_MV) <= 300
    assert abs(sample.current_ma - power_mw * 1000 // MAINS_MV) <= 1 + sample.current_ma // 50


def test_no_load_is_reported_as_the_chip_does() -> None:
    frame = FakeCse7766().frame(POWER_COEFFICIENT * 3, 0)
    (sample,) = cse7766.Parser().feed(frame)
    assert frame[0] == 0xF2 and sample.valid == cse7766.VALID_VOLTAGE
    assert (sample.power_mw, sample.current_ma, sample.pulses) == (0, 0, 3)


def test_the_counter_wraps_at_16_bits_and_flips_its_carry() -> None:
    chip = FakeCse7766()
    frames = [chip.frame(POWER_COEFFICIENT * pulses, 100_000) for pulses in (65_535, 65_536, 131_072)]
    assert [(frame[20] >> 7, frame[21] << 8 | frame[22]) for frame in frames] == [(0, 65_535), (1, 0), (0, 0)]
    assert FakeCse7766(offset=5).frame(POWER_COEFFICIENT, 0)[22] == 6
