"""Parsers of the other chips against published frames, damage and arithmetic of their data sheets; calibration."""

import hashlib

from watt_plug import calibration, constants
from watt_plug.meters import bl0942, cse7766, pulses, pzem004t
from watt_plug.meters.sample import VALID_ALL, Sample
from watt_plug.register import STEP_COUNTED, STEP_DISCONTINUITY, STEP_HELD, Register

BULB = bytes.fromhex("55A3B9009E4C36934300F498FF99000016 4E00010100".replace(" ", ""))
"Published with a 40 W bulb at 230 V: U 3558558, I 47523, P -26380, CF 153. The checksum was not published with it."
PZEM = bytes.fromhex("01041408D1006C000000F40000002600000 1F40064000051 34".replace(" ", ""))
"Published: 225.7 V, 0.108 A, 24.4 W, 38 Wh, 50 Hz."
TASMOTA = (15187000, 251213000, 596000)
"The references with which the bulb's frame was published."


def sealed(body: bytes) -> bytes:
    """A BL0942 frame with its checksum, computed here and not by the parser's own function."""
    return body + bytes(((0x58 + sum(body)) & 255 ^ 255,))


def test_the_published_bl0942_frame_gives_the_published_values() -> None:
    (sample,) = bl0942.Parser(*TASMOTA).feed(sealed(BULB))
    assert (sample.voltage_mv, sample.current_ma, sample.power_mw) == (234316, 189, 44261)
    assert (sample.pulses, sample.valid, sample.span) == (153, VALID_ALL, 1 << 24)
    (sample,) = bl0942.Parser().feed(sealed(BULB))
    assert (sample.voltage_mv, sample.power_mw) == (224043, 42341), "the data sheet's circuit"


def test_a_bl0942_pulse_is_the_energy_of_the_data_sheet() -> None:
    """5347.48 pulses are a kWh with the data sheet's p_ref, as published by another project."""
    (sample,) = bl0942.Parser().feed(sealed(BULB))
    assert abs(sample.coefficients[2] * 534748 - 3600000000000 * 100) < 3600000000000 // 1000
    assert bl0942.Parser().request == b"\x58\xaa" and bl0942.Parser(address=2).request == b"\x5a\xaa"


def test_every_changed_byte_of_every_chip_is_refused() -> None:
    for parser, data in ((bl0942.Parser(), sealed(BULB)), (pzem004t.Parser(), PZEM)):
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 0x10
            assert parser.feed(bytes(changed)) == [], position
            assert len(parser.feed(data + data)) >= 1, "and the next good frames are found again"


def test_frames_are_found_in_noise_and_across_pieces() -> None:
    for parser, data in ((bl0942.Parser(), sealed(BULB)), (pzem004t.Parser(), PZEM)):
        found = []
        stream = b"\x00\x55\x01" + data + b"\x55\x55" + data[:10]
        for byte in stream:
            found += parser.feed(bytes((byte,)))
        found += parser.feed(data[10:] + data)
        assert len(found) == 3
        parser.feed(bytes(9000))
        assert parser.rejected["noise"] > 4000


def test_impossible_voltages_are_refused() -> None:
    low = bytearray(BULB)
    low[4:7] = b"\x10\x00\x00"
    parser = bl0942.Parser()
    assert parser.feed(sealed(bytes(low))) == [] and parser.rejected["voltage"] == 1
    meter = pzem004t.Parser()
    body = PZEM[:3] + b"\x00\x10" + PZEM[5:23]
    crc = pzem004t.crc16(body)
    assert meter.feed(body + bytes((crc & 255, crc >> 8))) == [] and meter.rejected["voltage"] == 1


def test_the_published_pzem_frame_gives_the_published_values() -> None:
    (sample,) = pzem004t.Parser().feed(PZEM)
    assert (sample.voltage_mv, sample.current_ma, sample.power_mw) == (225700, 108, 24400)
    assert (sample.pulses, sample.coefficients[2]) == (38, 3600000000)
    assert pzem004t.request() == bytes.fromhex("01040000000A700D"), "published read request"
    assert pzem004t.Parser(2).feed(PZEM) == [], "another address"


def test_pulse_chips_have_the_constants_of_their_data_sheets() -> None:
    """10.34 J a pulse and 2.03 J a pulse on the usual board: 1 milliohm, 2351 to 1."""
    assert pulses.Pulses("hlw8012").coefficients == (408636, 14484, 10343611)
    assert pulses.Pulses("bl0937").coefficients == (185978, 12870, 2025996)


def test_pulses_become_volts_amperes_watts_and_pulses() -> None:
    for chip in ("hlw8012", "bl0937"):
        source = pulses.Pulses(chip)
        volt_uv, ampere_ua, pulse_uj = source.coefficients
        cf = cf1 = 0
        sample = None
        for second in range(1, 41):
            cf = second * 1000000000 // pulse_uj
            # 1000 W at 230 V and 4.348 A; one cycle after a move of SEL the frequency is anything.
            rate = 230000000 // volt_uv if source.select else 4348000 // ampere_ua
            cf1 += rate
            sample = source.read(cf, cf1, second * 1000)
        assert sample is not None
        assert abs(sample.power_mw - 1000000) < 12000, (chip, sample.power_mw)
        assert abs(sample.voltage_mv - 230000) < 500 and abs(sample.current_ma - 4348) < 20
        assert sample.pulses == cf and source.rejected["voltage"] == 0


def test_the_reading_after_a_move_of_select_is_not_used() -> None:
    source = pulses.Pulses("bl0937")
    cf1 = 0
    seen = []
    for second in range(1, 30):
        before = source.select
        cf1 += 1230 if source.select else 340
        if second % 3 == 1 and second > 1:
            cf1 += 5000
        sample = source.read(second * 10, cf1, second * 1000)
        if sample is not None:
            seen.append(sample.voltage_mv)
        assert before in (0, 1)
    assert len(seen) > 20 and min(seen) > 220000 and max(seen) < 235000, seen


def test_the_register_takes_each_chips_span_and_never_guesses_a_reset() -> None:
    for span, unit_uj in ((1 << 24, 673213632), (1 << 32, 3600000000), (1 << 32, 2025983)):
        register = Register(3680, span=span)
        register.count(span - 2, unit_uj, 1000)
        assert register.count(1, unit_uj, 1010) == STEP_COUNTED, "round its end"
        counted = register.import_mwh * 3600000 + register.remainder_uj
        assert counted == 3 * unit_uj
        register.count(5000, unit_uj, 1020 + 5000 * unit_uj // 3680000000)
        before = register.import_mwh
        now_s = register.position_s
        assert register.count(0, unit_uj, now_s + 1) == STEP_HELD
        assert register.count(0, unit_uj, now_s + 2) == STEP_DISCONTINUITY
        assert register.import_mwh == before, "nothing is added for a counter that fell"


def test_one_coarse_pulse_is_always_possible() -> None:
    register = Register(100, span=1 << 32)
    register.count(5, 3600000000, 1000)
    assert register.count(6, 3600000000, 1001) == STEP_COUNTED
    assert register.import_mwh == 1000
    assert register.count(8, 3600000000, 1002) == STEP_HELD


VALUES = {
    "voltage_ppm": 1010000,
    "current_ppm": 990000,
    "power_ppm": 1005000,
    "voltage_mv": -100,
    "current_ma": 2,
    "power_mw": -50,
    "reference": "meter 4711",
    "operator": "bench 1",
    "date": "2026-11-22",
}


def sample_of(voltage_mv: int, current_ma: int, power_mw: int, valid: int = VALID_ALL) -> Sample:
    return Sample(valid, voltage_mv, current_ma, power_mw, 7, (100, 200, 5351000), cse7766.PULSE_SPAN)


def test_a_calibration_corrects_values_and_energy() -> None:
    made = calibration.Calibration(VALUES)
    sample = made.apply(sample_of(230000, 1000, 230000))
    assert (sample.voltage_mv, sample.current_ma, sample.power_mw) == (232200, 992, 231100)
    assert sample.coefficients == (101, 198, 5377755) and sample.pulses == 7
    nothing = made.apply(sample_of(230000, 0, 0))
    assert (nothing.current_ma, nothing.power_mw) == (0, 0)
    assert made.apply(sample_of(0, 0, 20)).power_mw == 0, "never below nothing"


def test_a_calibration_without_provenance_or_out_of_range_is_refused() -> None:
    for name, value in (
        ("reference", ""), ("operator", None), ("date", "a\nb"), ("voltage_ppm", 1100001), ("power_ppm", 899999),
        ("power_mw", 5001), ("current_ma", "2"), ("reference", "x" * 65),
    ):  # fmt: skip
        values = dict(VALUES)
        values[name] = value
        try:
            calibration.Calibration(values)
            raise AssertionError(name)
        except ValueError:
            pass


def test_the_hash_names_constants_and_provenance() -> None:
    made = calibration.Calibration(VALUES)
    plain = constants.calibration_hash((1, 2, 3))
    assert plain == hashlib.sha256(b"wattpact/1/cse7766\x00" + bytes((0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3))).digest()
    text = (
        b"voltage_ppm=1010000\ncurrent_ppm=990000\npower_ppm=1005000\nvoltage_mv=-100\ncurrent_ma=2\npower_mw=-50\n"
        b"reference=meter 4711\noperator=bench 1\ndate=2026-11-22\n"
    )
    expected = hashlib.sha256(b"wattpact/1/calibration\x00" + plain + text).digest()
    assert constants.calibration_hash((1, 2, 3), made) == expected
