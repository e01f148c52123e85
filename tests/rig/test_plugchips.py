"""The fake chips speak as the real ones: what the firmware's parsers make of them is what flowed."""

from __future__ import annotations

import pytest
from bench_plug import PlugUnderTest
from watt_plug.meters import bl0942, pzem004t
from watt_plug.meters.sample import VALID_ALL, Parser, Sample
from watt_rig.load import Load, Profile
from watt_rig.plugchips import Bl0942Chip, Cse7766Chip, PlugChip, Pzem004tChip
from watt_tools import plug_calibrate, plug_flash
from watt_tools.plug_link import Cable

START_S = 1_600_000_000
RATED_W = 3680
Made = tuple[PlugChip, Parser]


def load_of(watts: int) -> Load:
    return Load(Profile(START_S, 60, [watts]), RATED_W)


def asked(chip: PlugChip, parser: Parser, time_s: int) -> Sample:
    chip.hear(1, parser.request)
    (sample,) = parser.feed(chip.say(1, time_s))
    return sample


@pytest.mark.parametrize("watts", [60, 900, 3000])
@pytest.mark.parametrize("kind", ["bl0942", "pzem004t"])
def test_a_load_is_read_within_one_per_cent(kind: str, watts: int) -> None:
    chip, parser = _made(kind, watts)
    chip.power_on(START_S)
    sample = asked(chip, parser, START_S + 3600)
    assert sample.valid == VALID_ALL
    assert abs(sample.power_mw - watts * 1000) <= watts * 10 + 100
    assert abs(sample.voltage_mv - 230_000) <= 2300
    assert abs(sample.current_ma - watts * 1_000_000 // 230_000) <= watts * 1000 // 230 // 100 + 2


@pytest.mark.parametrize("kind", ["bl0942", "pzem004t"])
def test_an_hour_of_energy_is_counted_within_one_per_cent(kind: str) -> None:
    chip, parser = _made(kind, 900)
    chip.power_on(START_S)
    first = asked(chip, parser, START_S + 10)
    last = asked(chip, parser, START_S + 3610)
    energy_wh = (last.pulses - first.pulses) % last.span * last.coefficients[2] // 3_600_000_000
    assert abs(energy_wh - 900) <= 9


def test_a_chip_that_lost_its_supply_counts_from_zero_and_a_reset_one_goes_on() -> None:
    chip = Cse7766Chip(load_of(1000))
    chip.power_on(START_S)
    assert chip.energy_uj(START_S + 3600) == 1000 * 3_600_000_000
    chip.reset(START_S + 3600)
    assert chip.energy_uj(START_S + 3601) > 1000 * 3_600_000_000
    chip.power_on(START_S + 3602)
    assert chip.energy_uj(START_S + 3602) == 0
    assert [looks[0] for looks in chip.lives] == [START_S, START_S + 3602] and len(chip.resets) == 1


def test_noise_hits_bytes_and_no_damaged_frame_is_believed() -> None:
    """A tenth of all bytes hit: what the parser still accepts is right, or one of the few that the sum lets pass."""
    chip, parser = _made("bl0942", 900)
    chip.power_on(START_S)
    chip.noise_ppm = 100_000
    good = 0
    for second in range(1, 400):
        chip.hear(1, parser.request)
        for sample in parser.feed(chip.say(1, START_S + second * 10)):
            good += abs(sample.power_mw - 900_000) <= 9_000
    assert chip.noisy_bytes > 500 and 20 < good < 200


@pytest.mark.device
@pytest.mark.row("C3")
def test_a_plug_is_calibrated_against_a_reference(plug: PlugUnderTest) -> None:
    """The plug's own parser on its own UART; the reference shows two per cent more."""
    plug_flash.flash(plug.port, start=False)
    cable = Cable(plug.port)
    board = '{"chip": "cse7766", "uart": 1, "rx_pin": 3, "tx_pin": 1}'
    cable.run(f"f = open('board.json', 'w'); f.write({board!r}); f.close()")
    measured = plug_calibrate.measure(cable, 5)
    assert abs(measured.power_mw - 900_000) <= 2_000
    reference = plug_calibrate.Measured(
        measured.voltage_mv * 102 // 100, measured.current_ma, measured.power_mw * 102 // 100
    )
    made = plug_calibrate.calibrate(plug.port, reference, ("REF-1", "bench", "2026-01-01"))
    assert abs(made.power_ppm - 1_020_000) < 3_000 and abs(made.current_ppm - 1_000_000) < 3_000
    kept = Cable(plug.port).ask("import json; print('WATTPACT ' + json.dumps(json.load(open('/calibration.json'))))")
    assert (kept["power_ppm"], kept["reference"]) == (made.power_ppm, "REF-1")


def test_a_reference_that_is_far_off_is_refused() -> None:
    plug = plug_calibrate.Measured(230_000, 4_000, 920_000)
    with pytest.raises(plug_calibrate.CalibrationError, match="outside"):
        plug_calibrate.gains(plug, plug_calibrate.Measured(230_000, 4_000, 1_100_000), ("r", "o", "d"))


def _made(kind: str, watts: int) -> Made:
    if kind == "bl0942":
        return Bl0942Chip(load_of(watts)), bl0942.Parser()
    return Pzem004tChip(load_of(watts)), pzem004t.Parser()
