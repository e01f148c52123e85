"""The plug as a whole: records and checkpoints at the right instants, restarts, events, delivery."""

import hashlib

import plug_tools as tools
from watt_plug.storage import MemoryStorage
from watt_wire import batch, checkpoint, p256, record

START_S = tools.START_S
PUBLIC = p256.public_key(tools.KEY)


class FailingStorage(MemoryStorage):
    """Loses its supply before the write number `fail_at`."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self.left = fail_at

    def write(self, name: str, data: bytes) -> None:
        if self.left <= 0:
            raise OSError("no supply")
        self.left -= 1
        super().write(name, data)


def stored(storage: MemoryStorage) -> "list[tuple[checkpoint.Checkpoint, list[record.Record]]]":
    """Every batch in storage, in counter order, not yet checked."""
    found = []
    for name in storage.names():
        if name.startswith("b"):
            frame, records = batch.decode(storage.files[name])
            found.append((checkpoint.decode(frame), [record.decode(item) for item in records]))
    return found


def test_a_quarter_hour_is_fifteen_records_under_one_signature() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    tools.run_plug(plug, START_S, START_S + 900, 40)
    boot, periodic = stored(storage)
    assert (boot[0].reason, boot[0].count, boot[0].counter) == (checkpoint.BOOT, 0, 1)
    head, records = periodic
    assert (head.reason, head.count, head.first_sequence, head.time_s) == (checkpoint.PERIODIC, 15, 1, START_S + 900)
    assert [item.start_s for item in records] == [START_S + 60 * n for n in range(15)]
    accepted, _ = batch.accept(storage.files["b0000000002"], PUBLIC, p256.verify)
    assert accepted.previous == checkpoint.frame_hash(batch.decode(storage.files["b0000000001"])[0])


def test_a_frame_that_arrives_at_the_boundary_belongs_to_the_interval_that_ends_there() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.uart(tools.frame(0))
    plug.start(START_S)
    position = tools.run_plug(plug, START_S, START_S + 890, 40)
    plug.uart(tools.frame(position + 1000))
    plug.tick(START_S + 900)
    head, records = stored(storage)[-1]
    energy_mwh = (position + 1000) * tools.PULSE_UJ // 3600000
    assert head.import_mwh == energy_mwh == records[-1].import_mwh


def test_a_frame_after_a_late_tick_belongs_to_the_next_interval() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.uart(tools.frame(0))
    plug.start(START_S)
    position = tools.run_plug(plug, START_S, START_S + 890, 40)
    plug.uart(tools.frame(position + 1000))
    plug.tick(START_S + 905)
    assert stored(storage)[-1][0].import_mwh == position * tools.PULSE_UJ // 3600000
    assert stored(storage)[-1][0].time_s == START_S + 900


def test_a_record_shows_minimum_mean_and_maximum() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    for number, cycle in enumerate((0x0053E9, 0x00A7D2, 0x0053E9, 0x0053E9, 0x0053E9, 0x0053E9)):
        plug.uart(tools.frame(number, cycle))
        plug.tick(START_S + 10 * (number + 1))
    tools.run_plug(plug, START_S + 60, START_S + 900, 1, 5)
    first, second = stored(storage)[-1][1][:2]
    assert (first.v_min_mv, first.v_mean_mv, first.v_max_mv) == (207028, 207028, 207028)
    assert (first.i_min_ma, first.i_max_ma) == (105, 105)
    assert (first.p_min_mw, first.p_mean_mw, first.p_max_mw) == (124551, 228344, 249103)
    assert second.relay == record.RELAY_ON and second.flags == 0


def test_a_silent_chip_is_flagged_and_not_made_up() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    for now_s in range(START_S + 10, START_S + 910, 10):
        plug.tick(now_s)
    for item in stored(storage)[-1][1]:
        assert item.flags == record.FLAG_NO_SAMPLES | record.FLAG_PARTIAL
        assert item.import_mwh == 0 and item.v_max_mv == 0


def test_a_counter_that_falls_is_signed_at_once() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    tools.run_plug(plug, START_S, START_S + 300, 40)
    tools.run_plug(plug, START_S + 300, START_S + 320, 40, 0)
    head, records = stored(storage)[-1]
    assert (head.reason, head.time_s) == (checkpoint.DISCONTINUITY, START_S + 320)
    assert records[-1].flags & record.FLAG_DISCONTINUITY and records[-1].duration_s == 20
    assert head.import_mwh == (29 * 40 + 40) * tools.PULSE_UJ // 3600000


def test_noise_on_the_counter_cannot_order_more_than_a_few_signatures() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    position = 0
    for number in range(1, 90):
        position = (position + 50000) % 131072 if number % 2 else position
        plug.uart(tools.frame(position))
        plug.tick(START_S + 10 * number)
    assert 4 < plug.counter <= 9


def test_a_clock_that_is_set_is_signed_and_energy_goes_on() -> None:
    for step_s in (7200, -7200):
        storage = MemoryStorage()
        plug = tools.make_plug(storage)
        plug.start(START_S)
        position = tools.run_plug(plug, START_S, START_S + 300, 40)
        tools.run_plug(plug, START_S + 300 + step_s, START_S + 320 + step_s, 40, position)
        head, records = stored(storage)[-1]
        assert (head.reason, head.time_s) == (checkpoint.CLOCK_STEP, START_S + 310 + step_s)
        assert records == [] or records[-1].start_s < START_S + 300
        assert plug.import_mwh == 31 * 40 * tools.PULSE_UJ // 3600000


def test_new_coefficients_need_three_frames_and_a_signature() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    position = tools.run_plug(plug, START_S, START_S + 60, 40)
    before = plug.import_mwh
    for number in range(1, 4):
        assert plug.counter == 1 and plug.import_mwh == before
        plug.uart(tools.frame(position + number, coefficient=tools.PULSE_UJ + 1))
        plug.tick(START_S + 60 + number)
    head, _ = stored(storage)[-1]
    assert head.reason == checkpoint.CALIBRATION
    coefficients = (0x02F760, 0x004010, tools.PULSE_UJ + 1)
    data = b"wattpact/1/cse7766\x00" + b"".join([value.to_bytes(4, "big") for value in coefficients])
    assert head.calibration_hash == hashlib.sha256(data).digest()


def test_a_restart_keeps_register_counter_chain_and_open_records() -> None:
    whole = MemoryStorage()
    plug = tools.make_plug(whole)
    plug.start(START_S)
    tools.run_plug(plug, START_S, START_S + 900, 40)
    cut = MemoryStorage()
    plug = tools.make_plug(cut)
    plug.start(START_S)
    position = tools.run_plug(plug, START_S, START_S + 420, 40)
    plug = tools.make_plug(cut)
    assert plug.resume_s == START_S + 420
    plug.start(plug.resume_s)
    tools.run_plug(plug, START_S + 420, START_S + 900, 40, position)
    boot, rest = stored(cut)[1:]
    assert (boot[0].reason, boot[0].boot_id, boot[0].count) == (checkpoint.BOOT, 2, 7)
    assert boot[1] + rest[1] == stored(whole)[1][1]
    assert rest[0].import_mwh == stored(whole)[1][0].import_mwh
    assert rest[0].previous == checkpoint.frame_hash(batch.decode(cut.files["b0000000002"])[0])
    assert [head.counter for head, _ in stored(cut)] == [1, 2, 3]


def test_a_power_cut_at_any_write_never_signs_two_things_with_one_counter_that_left_the_plug() -> None:
    for fail_at in range(12):
        storage = FailingStorage(fail_at)
        sent = []
        position = 0
        try:
            plug = tools.make_plug(storage, save_records=4)
            plug.start(START_S)
            sent += tools.deliver(plug, tools.connect(plug))
            for number in range(1, 100):
                position = number * 40
                plug.uart(tools.frame(position))
                plug.tick(START_S + 10 * number)
                sent += tools.deliver(plug, plug.take_output())
        except OSError:
            pass
        storage.left = 1000
        plug = tools.make_plug(storage)
        plug.start(max(plug.resume_s, START_S))
        sent += tools.deliver(plug, tools.connect(plug))
        by_counter = {}
        for data in sent:
            head, _ = batch.accept(data, PUBLIC, p256.verify)
            assert by_counter.setdefault(head.counter, data) == data, fail_at
        assert sorted(by_counter) == list(range(1, plug.counter + 1)), fail_at


def test_a_batch_is_stored_before_it_is_sent_and_kept_until_the_gateway_has_it() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(START_S)
    sent = tools.publishes(tools.connect(plug))
    assert [data for _, data in sent] == [storage.files["b0000000001"]]
    plug.network(b"\x40\x02" + sent[0][0])
    assert plug.unacknowledged == [1], "a PUBACK is the broker's word, not the gateway's"
    tools.acknowledge(plug, sent[0][1])
    assert plug.unacknowledged == [] and "b0000000001" not in storage.names()


def test_unacknowledged_batches_are_sent_again_after_a_time_and_after_a_reconnect() -> None:
    plug = tools.make_plug(MemoryStorage())
    plug.start(START_S, timer_s=0)
    assert len(tools.publishes(tools.connect(plug))) == 1
    plug.tick(START_S, 4)
    assert tools.publishes(plug.take_output()) == []
    plug.tick(START_S, 5)
    assert len(tools.publishes(plug.take_output())) == 1
    plug.closed()
    assert len(tools.publishes(tools.connect(plug))) == 1


def test_a_stranger_on_the_broker_changes_nothing() -> None:
    plug = tools.make_plug(MemoryStorage())
    plug.start(START_S)
    tools.connect(plug)
    for topic in (b"wp/1/home/home-2/plug/00/ack", b"x"):
        body = bytes((0, len(topic))) + topic + bytes(36)
        plug.network(b"\x30" + bytes((len(body),)) + body)
    assert plug.unacknowledged == [1] and not plug.must_close
