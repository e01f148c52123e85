"""A plug's life: events, qualities of time, a full store, a backlog, calibration at the start, an orderly end."""

import gc

gc.collect()
import plug_tools as tools  # noqa: E402  # a small heap wants its garbage out first

gc.collect()
from life_tools import NO_LOAD, PLUG_ID, START_S, WATTS, checkpoints, connect, events, make, run, send  # noqa: E402
from watt_plug import calibration, outbox  # noqa: E402
from watt_plug.storage import MemoryStorage  # noqa: E402

gc.collect()
from watt_wire import batch, checkpoint, p256, statement, topics  # noqa: E402


def test_an_appliance_that_goes_on_and_off_is_signed_with_its_energy_and_cuts_the_record() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    position = run(plug, START_S, 100, 0, NO_LOAD)
    position = run(plug, START_S + 100, 200, position)
    run(plug, START_S + 300, 300, position, NO_LOAD)
    on, off = events(storage)
    assert (on.number("kind"), on.number("time_s"), on.number("first")) == (
        statement.APPLIANCE_ON,
        START_S + 130,
        249103,
    )
    assert (off.number("kind"), off.number("time_s"), off.number("last")) == (
        statement.APPLIANCE_OFF,
        START_S + 330,
        200,
    )
    assert off.number("first") == off.number("import_mwh") - on.number("import_mwh") > 0
    run(plug, START_S + 600, 300, position, NO_LOAD)
    edges = [item.start_s for item in checkpoints(storage)[-1][1]]
    assert START_S + 130 in edges and START_S + 330 in edges


def test_appliances_that_flicker_cannot_order_more_than_a_few_signatures() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    position = 0
    for number in range(14):
        position = run(plug, START_S + 60 * number, 60, position, WATTS if number % 2 else NO_LOAD)
    assert len(events(storage)) == 8


def test_time_that_gets_better_is_a_signed_step_and_what_came_before_keeps_its_quality() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(5, quality="U")
    position = run(plug, 5, 60)
    plug.tick(START_S, 66, "I")
    plug.tick(START_S + 10, 76, "S")
    run(plug, START_S + 10, 890, position)
    found = checkpoints(storage)
    assert [(head.reason, chr(head.time_quality)) for head, _ in found] == [
        (checkpoint.BOOT, "U"),
        (checkpoint.CLOCK_STEP, "I"),
        (checkpoint.CLOCK_STEP, "S"),
        (checkpoint.PERIODIC, "S"),
    ]
    assert [chr(item.time_quality) for item in found[1][1]] == ["U"] * len(found[1][1])
    assert found[1][0].time_s == START_S and found[-1][0].import_mwh > 0


def test_a_full_store_gives_up_the_oldest_and_says_so_in_a_signed_gap() -> None:
    kept = outbox.PENDING_MAX
    outbox.PENDING_MAX = 3
    try:
        storage = MemoryStorage()
        plug = make(storage)
        plug._books.batches._pending_max = 3
        plug.start(START_S)
        now_s = START_S
        for number in range(5):
            now_s += 900
            run(plug, now_s - 900, 900, 40 * 90 * number)
        assert plug.unacknowledged == [4, 5, 6] and plug.dropped == 3
        again = make(storage)
        again.start(now_s)
        connect(again)
    finally:
        outbox.PENDING_MAX = kept
    gaps = [item for item in events(storage) if item.number("kind") == statement.GAP]
    assert [(item.number("first"), item.number("last")) for item in gaps] == [(1, 3)]
    again.closed()
    connect(again)
    assert len([item for item in events(storage) if item.number("kind") == statement.GAP]) == 1, "once"


def test_a_backlog_drains_in_a_window_and_in_order() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    position = 0
    for slot in range(6):
        position = run(plug, START_S + 900 * slot, 900, position)
    plug.opened()
    plug.take_output()
    plug.network(b"\x20\x02\x00\x00")
    data = plug.take_output()
    while data:
        plug.network(b"\x90\x03" + data[2:4] + b"\x01")
        data = data[2 + data[1] :]
    rounds = 0
    order = []
    while plug.unacknowledged:
        sent = []
        for packet_id, payload in tools.publishes(plug.take_output()):
            plug.network(b"\x40\x02" + packet_id)
            if payload[:3] == b"WPB":
                sent.append(payload)
        assert 1 <= len(sent) <= outbox.WINDOW
        assert sum([len(item) for item in sent]) <= outbox.WINDOW_BYTES
        rounds += 1
        for item in sent:
            order.append(checkpoint.decode(batch.decode(item)[0]).counter)
        for item in sent:
            head = batch.decode(item)[0]
            ack = batch.encode_ack(checkpoint.decode(head).counter, checkpoint.frame_hash(head))
            send(plug, topics.plug_ack(tools.GATEWAY, PLUG_ID), ack)
    assert order == list(range(1, 8)) and rounds <= 4, "more than one batch a round trip"


def test_events_are_kept_until_they_are_acknowledged() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S, reset=3, boots=2)
    (event,) = events(storage)
    assert (event.number("kind"), event.number("first"), event.number("last")) == (statement.RESET, 3, 2)
    connect(plug)
    data = storage.files["e0000000001"]
    digest = p256.hashlib.sha256(statement.EVENT.body_of(data)).digest()
    send(plug, topics.plug_ack(tools.GATEWAY, PLUG_ID), batch.encode_ack(1, bytes(32)))
    assert events(storage) != []
    send(plug, topics.plug_ack(tools.GATEWAY, PLUG_ID), batch.encode_ack(1, digest))
    assert events(storage) == [] and plug.unacknowledged == [1], "the batch with that counter is still there"


def test_a_life_that_ends_in_order_is_signed() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    run(plug, START_S, 130)
    plug.stop(START_S + 135)
    head, records = checkpoints(storage)[-1]
    assert (head.reason, head.time_s, len(records)) == (checkpoint.SHUTDOWN, START_S + 135, 4)


def test_a_new_calibration_is_a_signed_event_and_the_same_one_is_none() -> None:
    values = {"voltage_ppm": 1000000, "current_ppm": 1000000, "power_ppm": 1010000, "voltage_mv": 0, "current_ma": 0}
    values["power_mw"] = 0
    values["reference"] = values["operator"] = values["date"] = "x"
    storage = MemoryStorage()
    reasons = []
    for number in range(3):
        made = calibration.Calibration(values) if number else None
        plug = make(storage, calibration=made)
        plug.start(START_S + 10 * number)
        reasons = [head.reason for head, _ in checkpoints(storage)]
    assert reasons == [checkpoint.BOOT, checkpoint.BOOT, checkpoint.CALIBRATION, checkpoint.BOOT]
    heads = [head.calibration_hash for head, _ in checkpoints(storage)]
    assert heads[0] != heads[1] == heads[2] == heads[3]
