"""The parser against published frames of real chips, and against damage."""

from watt_plug.meters import cse7766

# Frames that people published with what their meters showed; voltage mV, current mA, power mW, 17-bit counter.
PUBLISHED = (
    ("F25A02F76000036100401005724051A65863101BE17F4D4E", 224739, 0, 0, 98125),
    ("555A02F76000035A004010048B9F51A65818727561ACA130", 226573, 55, 0, 44193),
    ("555A02F7600003AB00401002605D51A65803E9EF710B7A36", 207028, 105, 20862, 2938),
    ("555A02F1E800079D003F3E0035F850DB3800B2A2F1D6973E", 99025, 1171, 115875, 120471),
    ("555A02E9500003310 03E9E000D304F44F8001265F1817672", 233537, 4748, 1103206, 98678),
    ("F25A02E95000032B003E9E02D77C4F44F8CFA55DE1B32AB4", 235265, 0, 0, 111402),
    ("555A02DB40000325003D18038ECD4F0A602A56856101021A", 232546, 67, 0, 258),
)
HLW8032 = (
    ("F25A02E18000065 2003EA803A6C84F9AE85E790B61000127", 219372, 0, 0, 1),
    ("555A02DCD00005FF003CD70020514DE56800624371023C24", 229764, 1882, 202941, 572),
)
BAD_CHECKSUM = "555A02D5000005A9003C3800FD5C4DB2A002957C71482 3AD"
WRONG_VOLTAGE = "555A02DB4007171D003D18038ECD4F0A602BEFEA6101022C"


def data_of(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def values(sample: cse7766.Sample) -> tuple[int, int, int, int]:
    return (sample.voltage_mv, sample.current_ma, sample.power_mw, sample.pulses)


def test_published_frames_give_the_published_values() -> None:
    for text, voltage_mv, current_ma, power_mw, pulses in PUBLISHED:
        samples = cse7766.Parser().feed(data_of(text))
        assert [values(sample) for sample in samples] == [(voltage_mv, current_ma, power_mw, pulses)], text


def test_frames_of_a_module_with_another_divider_are_scaled() -> None:
    for text, voltage_mv, current_ma, power_mw, pulses in HLW8032:
        samples = cse7766.Parser(cse7766.VOLTAGE_PPM_HLW8032).feed(data_of(text))
        assert [values(sample) for sample in samples] == [(voltage_mv, current_ma, power_mw, pulses)], text


def test_a_published_capture_with_a_bad_checksum_is_refused() -> None:
    parser = cse7766.Parser()
    assert parser.feed(data_of(BAD_CHECKSUM)) == []
    assert parser.rejected["checksum"] == 1


def test_a_frame_with_a_good_checksum_and_an_impossible_voltage_is_refused() -> None:
    parser = cse7766.Parser()
    assert parser.feed(data_of(WRONG_VOLTAGE)) == []
    assert parser.rejected["voltage"] == 1


def test_validity_bits_follow_the_state_byte_and_the_error_bits() -> None:
    parser = cse7766.Parser()
    assert parser.feed(data_of(PUBLISHED[0][0]))[0].valid == cse7766.VALID_VOLTAGE
    assert parser.feed(data_of(PUBLISHED[1][0]))[0].valid == cse7766.VALID_VOLTAGE | cse7766.VALID_CURRENT
    assert parser.feed(data_of(PUBLISHED[2][0]))[0].valid == 7


def test_a_chip_that_is_not_calibrated_or_damaged_is_refused() -> None:
    good = bytearray(data_of(PUBLISHED[2][0]))
    for header, reason in ((0xAA, "not-calibrated"), (0xF1, "coefficient")):
        parser = cse7766.Parser()
        good[0] = header
        assert parser.feed(bytes(good)) == []
        assert parser.rejected[reason] == 1


def test_frames_are_found_across_any_split_and_after_noise() -> None:
    stream = b"\x55\x5a\x00" + data_of(PUBLISHED[2][0]) + b"\x5a\x55" + data_of(PUBLISHED[4][0]) + b"\x55"
    whole = [values(sample) for sample in cse7766.Parser().feed(stream)]
    assert whole == [PUBLISHED[2][1:], PUBLISHED[4][1:]]
    for size in (1, 2, 7, 23, 25):
        parser = cse7766.Parser()
        found = []
        for offset in range(0, len(stream), size):
            found += [values(sample) for sample in parser.feed(stream[offset : offset + size])]
        assert found == whole, size


def test_every_changed_byte_of_the_body_is_refused_or_changes_nothing_measured() -> None:
    frame = data_of(PUBLISHED[2][0])
    for index in range(2, 24):
        damaged = bytearray(frame)
        damaged[index] ^= 0x10
        assert cse7766.Parser().feed(bytes(damaged)) == [], index


def test_endless_noise_is_bounded() -> None:
    parser = cse7766.Parser()
    assert parser.feed(b"\x55\x5a" * 3000) == []
    assert parser.feed(data_of(PUBLISHED[2][0]) * 2) != []
