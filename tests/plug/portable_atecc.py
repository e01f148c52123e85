"""The secure element's driver against a fake chip: frames, faults of the bus, bounded retries, the key class."""

import hashlib

from fake_atecc import COUNTER_MAX, FakeAtecc608, checksum
from watt_plug import atecc
from watt_plug.atecc import ATTEMPTS, Atecc608, AteccSigner, SecureElementError
from watt_plug.signer import SoftwareSigner
from watt_wire import p256, statement


class Keys:
    """Keys of a fake chip: signatures with nonces of their own, every other one with a high s."""

    def __init__(self, slots: "list[int]", may_make: bool = False) -> None:
        self.slots = slots
        self.may_make = may_make
        self.signed = 0

    def public(self, slot: int) -> "bytes | None":
        return p256.public_key(bytes((slot + 1,)) * 32) if slot in self.slots else None

    def make(self, slot: int) -> "bytes | None":
        if self.may_make:
            self.slots.append(slot)
        return self.public(slot)

    def sign(self, slot: int, digest: bytes) -> bytes:
        self.signed += 1
        private = int.from_bytes(bytes((slot + 1,)) * 32, "big")
        k = int.from_bytes(hashlib.sha256(digest + bytes((self.signed,))).digest(), "big") % p256.N
        point = p256.public_key(k.to_bytes(32, "big"))
        r = int.from_bytes(point[:32], "big") % p256.N
        s = pow(k, p256.N - 2, p256.N) * (int.from_bytes(digest, "big") + r * private) % p256.N
        high = max(s, p256.N - s) if self.signed % 2 else min(s, p256.N - s)
        return r.to_bytes(32, "big") + high.to_bytes(32, "big")


class Clock:
    """Counts what the driver waits."""

    def __init__(self) -> None:
        self.ms = 0

    def sleep_ms(self, milliseconds: int) -> None:
        self.ms += milliseconds


def chip(**options: object) -> "tuple[Atecc608, FakeAtecc608, Clock]":
    fake = FakeAtecc608(Keys([0]), **options)
    clock = Clock()
    return Atecc608(fake, clock.sleep_ms), fake, clock


def test_the_crc_is_that_of_the_data_sheet_at_both_ends() -> None:
    assert atecc.crc16(b"\x04\x11") == b"\x33\x43", "the answer to a wake pulse, as published"
    for data in (b"", b"\x00", b"\x07\x30\x00\x00\x00", bytes(range(64))):
        assert atecc.crc16(data) == checksum(data)


def test_revision_lock_public_key_and_counter_are_read() -> None:
    driver, fake, _ = chip()
    assert driver.info() == b"\x00\x00\x60\x03" and driver.is_locked()
    assert driver.public() == p256.public_key(b"\x01" * 32)
    assert [driver.count(True), driver.count(True), driver.count(False), driver.count(False, 1)] == [1, 2, 2, 0]
    assert fake.commands == [0x30, 0x02, 0x40, 0x24, 0x24, 0x24, 0x24] and driver.retries == 0


def test_a_signature_is_made_in_the_chip_and_has_a_low_s() -> None:
    driver, fake, clock = chip()
    signer = AteccSigner(driver)
    for number in range(4):
        message = b"message %d" % number
        signature = signer.sign(message)
        assert p256.verify(signer.public, message, signature), "strict: low s"
    assert fake.commands[2:4] == [0x16, 0x41] and fake.keys.signed == 4
    assert clock.ms < 4 * 100


def test_what_a_spike_on_the_bus_does_is_got_over() -> None:
    for fault in ("nack", "crc", 0xFF, 0xEE, 0x05):
        driver, fake, _ = chip()
        signer = AteccSigner(driver)
        fake.faults = [None, fault]
        assert p256.verify(signer.public, b"m", signer.sign(b"m")), fault
        assert driver.retries == 1


def test_a_chip_that_was_left_awake_is_found_asleep_by_the_next_attempt() -> None:
    driver, fake, _ = chip()
    try:
        fake.writeto(0, b"")
    except OSError:
        pass
    fake.readfrom(0x60, 4)
    assert driver.info() == b"\x00\x00\x60\x03" and driver.retries == 1


def test_a_broken_chip_is_given_up_after_a_bounded_time() -> None:
    for fault, status in (("nack", 0), ("crc", 0xFF), (0xEE, 0xEE), ("silent", 0)):
        driver, fake, clock = chip()
        fake.faults = [fault] * 9
        assert refused(driver.info) == status, fault
        assert driver.retries == ATTEMPTS - 1
        assert clock.ms <= ATTEMPTS * (atecc.POLLS_MAX * atecc.POLL_MS + atecc.WAKE_MS)


def test_what_a_repetition_cannot_help_is_not_repeated() -> None:
    for status in (0x03, 0x07, 0x08, 0x0F):
        driver, fake, _ = chip()
        fake.faults = [status] * 9
        assert refused(driver.info) == status and driver.retries == 0


def test_no_chip_and_an_unlocked_one_sign_nothing() -> None:
    driver, _, _ = chip(address=0x61)
    assert refused(driver.info) == 0
    driver, fake, _ = chip(locked=False)
    try:
        AteccSigner(driver)
        raise AssertionError("an unlocked chip was taken")
    except SecureElementError as error:
        assert "lock" in str(error)
    assert 0x41 not in fake.commands and 0x40 not in fake.commands


def test_an_empty_slot_gets_its_key_once_and_one_that_may_not_is_an_error() -> None:
    fake = FakeAtecc608(Keys([], True))
    first = AteccSigner(Atecc608(fake, lambda ms: None))
    assert first.public == p256.public_key(b"\x01" * 32)
    made = fake.commands.count(0x40)
    assert AteccSigner(Atecc608(fake, lambda ms: None)).public == first.public
    assert fake.commands.count(0x40) == made + 1, "read, not made anew"
    driver = Atecc608(FakeAtecc608(Keys([])), lambda ms: None)
    try:
        AteccSigner(driver)
        raise AssertionError("a key out of nowhere")
    except SecureElementError as error:
        assert error.status == atecc.EXECUTION_ERROR


def test_starts_are_counted_in_the_chip_until_its_counter_ends() -> None:
    driver, fake, _ = chip()
    signer = AteccSigner(driver)
    assert [signer.count_start() for _ in range(3)] == [1, 2, 3]
    fake.counters[0] = COUNTER_MAX - 1
    assert [signer.count_start() for _ in range(3)] == [COUNTER_MAX] * 3


def test_the_key_class_follows_from_the_signer() -> None:
    driver, _, _ = chip()
    assert AteccSigner(driver).key_class == statement.KEY_SECURE
    assert SoftwareSigner(b"\x01" * 32).key_class == statement.KEY_PLAIN
    assert SoftwareSigner(b"\x01" * 32, statement.KEY_ENCRYPTED).key_class == statement.KEY_ENCRYPTED
    try:
        SoftwareSigner(b"\x01" * 32, statement.KEY_SECURE)
        raise SystemError("a key in flash calls itself secure")
    except AssertionError:
        pass
    assert SoftwareSigner(b"\x01" * 32).count_start() == 0


def refused(call: object) -> int:
    """The status with which a call fails."""
    try:
        call()
    except SecureElementError as error:
        return error.status
    raise AssertionError("it did not fail")
