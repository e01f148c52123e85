"""The plug with a switch: commands end to end, events, qualities of time, a full store, calibration at the start."""

import gc

gc.collect()
import plug_tools as tools  # noqa: E402  # a small heap wants its garbage out first

gc.collect()
from watt_plug import calibration, outbox  # noqa: E402
from watt_plug.app import Plug  # noqa: E402
from watt_plug.config import Config  # noqa: E402
from watt_plug.interlock import Rules  # noqa: E402
from watt_plug.signer import SoftwareSigner  # noqa: E402
from watt_plug.storage import MemoryStorage  # noqa: E402
from watt_plug.switch import Switch  # noqa: E402

gc.collect()
from watt_wire import batch, checkpoint, command, p256, record, statement, topics  # noqa: E402

START_S = 1700000000 // 86400 * 86400 + 43200
NETWORK = b"\x22" * 32
KEYS = sorted([b"\x01" * 32, b"\x02" * 32], key=lambda key: p256.hashlib.sha256(p256.public_key(key)).digest())
PUBLICS = [p256.public_key(key) for key in KEYS]
PUBLIC = p256.public_key(tools.KEY)
PLUG_ID = p256.hashlib.sha256(PUBLIC).digest()[:8]
WATTS = 0x0053E9
"Power cycle of 249 W."
NO_LOAD = 0xFFFFFF


def make(storage: MemoryStorage, rated_w: int = 3680, **options: object) -> Plug:
    parties = [(1, PUBLICS[0]), (2, PUBLICS[1])]
    switch = Switch(NETWORK, parties, Rules(), lambda n: 0)
    config = Config(tools.GATEWAY, rated_w, bytes(32), switch=switch, appliances=True, **options)
    return Plug(config, SoftwareSigner(tools.KEY), storage)


def frame(action: int, counter: int, now_s: int, hold_s: int = 600) -> bytes:
    ids = [p256.hashlib.sha256(public).digest()[:8] for public in PUBLICS]
    hold_s = 0 if action == command.RELEASE else hold_s
    order = command.Command(
        1, NETWORK, PLUG_ID, counter, action, now_s, now_s + 900, hold_s, 0, bytes(32), ids[0], ids[1]
    )
    body = command.encode(order)
    message = command.signing_message(body)
    return command.seal(body, p256.sign(KEYS[0], message), p256.sign(KEYS[1], message))


def send(plug: Plug, topic: str, payload: bytes) -> None:
    name = topic.encode()
    body = bytes((0, len(name))) + name + payload
    size = len(body)
    head = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    plug.network(b"\x30" + head + body)


def connect(plug: Plug) -> None:
    """Answer as a broker does, to CONNECT and to every SUBSCRIBE."""
    plug.opened()
    plug.take_output()
    plug.network(b"\x20\x02\x00\x00")
    data = plug.take_output()
    while data:
        assert data[0] == 0x82
        plug.network(b"\x90\x03" + data[2:4] + b"\x01")
        data = data[2 + data[1] :]


def run(plug: Plug, start_s: int, seconds: int, position: int = 0, cycle: int = WATTS) -> int:
    for now_s in range(start_s + 10, start_s + seconds + 1, 10):
        position += 40 if cycle == WATTS else 0
        plug.uart(tools.frame(position, cycle))
        plug.tick(now_s)
    return position


def checkpoints(storage: MemoryStorage) -> "list[tuple[checkpoint.Checkpoint, list[record.Record]]]":
    found = []
    for name in storage.names():
        if name[0] == "b":
            head, records = batch.accept(storage.files[name], PUBLIC, p256.verify)
            found.append((head, records))
    return found


def events(storage: MemoryStorage) -> "list[statement.Statement]":
    found = []
    for name in storage.names():
        if name[0] == "e":
            data = storage.files[name]
            message = statement.EVENT.message(statement.EVENT.body_of(data))
            assert p256.verify(PUBLIC, message, statement.EVENT.signature_of(data))
            found.append(statement.EVENT.decode(data))
    return found


def work(plug: Plug) -> int:
    slices = 1
    while plug.work():
        slices += 1
    return slices


def test_a_command_is_verified_in_slices_signed_as_accepted_and_moves_the_relay_into_the_record() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    connect(plug)
    topic = topics.plug_command(tools.GATEWAY, PLUG_ID)
    send(plug, topic, frame(command.OFF, 1, START_S))
    assert plug.relay and work(plug) > 30, "about 17 slices a signature"
    assert [head.reason for head, _ in checkpoints(storage)] == [checkpoint.BOOT, checkpoint.COMMAND]
    assert plug.must_wait
    position = run(plug, START_S, 60)
    assert not plug.relay and plug.status()["state"] == "held-off"
    head, records = checkpoints(storage)[-1]
    assert head.reason == checkpoint.RELAY and records[-1].relay == record.RELAY_OFF
    assert records[-1].flags & record.FLAG_RELAY_CHANGED
    for second in range(START_S + 60, START_S + 700, 60):
        send(plug, topic, b"noise")
        position = run(plug, second, 60, position, NO_LOAD)
    assert plug.relay and not plug.must_wait
    reasons = [head.reason for head, _ in checkpoints(storage)]
    assert reasons.count(checkpoint.RELAY) == 2


def test_refusals_are_counted_by_reason_shown_and_signed_once_a_slot() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    connect(plug)
    topic = topics.plug_command(tools.GATEWAY, PLUG_ID)
    for _ in range(3):
        send(plug, topic, b"short")
    bad = bytearray(frame(command.OFF, 1, START_S))
    bad[-1] ^= 1
    send(plug, topic, bytes(bad))
    work(plug)
    assert plug.status()["refused"] == {"command-size": 3, "command-signature": 1}
    run(plug, START_S, 900)
    found = [item for item in events(storage) if item.number("kind") == statement.REFUSALS]
    assert [(item.number("first"), item.number("last")) for item in found] == [(4, 4)]
    again = make(storage)
    again.start(START_S + 900)
    assert again.status()["refused"] == {}


def test_a_counter_survives_a_restart_and_a_damaged_file_locks_commands_out() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    connect(plug)
    topic = topics.plug_command(tools.GATEWAY, PLUG_ID)
    data = frame(command.OFF, 5, START_S)
    send(plug, topic, data)
    work(plug)
    assert plug.must_wait
    again = make(storage)
    again.start(START_S + 10)
    assert again.relay and not again.must_wait, "a restart ends what was held"
    connect(again)
    send(again, topic, data)
    assert again.status()["refused"] == {"command-replayed": 1}
    saved = storage.files["interlock"]
    for bad in (saved[:-1], saved[:20] + b"9" + saved[21:], b"", b"{}" * 20):
        storage.files["interlock"] = bad
        broken = make(storage)
        broken.start(START_S + 20)
        connect(broken)
        send(broken, topic, frame(command.OFF, 99, START_S))
        assert broken.status()["refused"] == {"command-replayed": 1}, bad
        assert broken.relay


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


def test_over_power_opens_the_relay_at_once_and_the_button_closes_it() -> None:
    storage = MemoryStorage()
    plug = make(storage, rated_w=100)
    plug.start(START_S)
    run(plug, START_S, 30)
    assert not plug.relay
    kinds = [item.number("kind") for item in events(storage)]
    assert statement.TRIP in kinds and checkpoints(storage)[-1][0].reason == checkpoint.RELAY
    plug.button()
    assert plug.relay and events(storage)[-1].number("kind") == statement.BUTTON


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


def test_without_a_good_clock_only_a_release_is_taken() -> None:
    plug = make(MemoryStorage())
    plug.start(5, quality="U")
    connect(plug)
    topic = topics.plug_command(tools.GATEWAY, PLUG_ID)
    send(plug, topic, frame(command.OFF, 1, START_S))
    assert plug.status()["refused"] == {"command-clock": 1}
    send(plug, topic, frame(command.RELEASE, 2, START_S))
    work(plug)
    assert plug.status()["refused"] == {"command-clock": 1}


def test_a_full_store_gives_up_the_oldest_and_says_so_in_a_signed_gap() -> None:
    kept = outbox.PENDING_MAX
    outbox.PENDING_MAX = 3
    try:
        storage = MemoryStorage()
        plug = make(storage)
        plug._outbox._pending_max = 3
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
    assert order == list(range(1, 8)) and rounds <= 3, "more than one batch a round trip"


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


def test_essential_can_be_set_at_the_plug_and_undoes_a_hold() -> None:
    plug = make(MemoryStorage())
    plug.start(START_S)
    connect(plug)
    topic = topics.plug_command(tools.GATEWAY, PLUG_ID)
    send(plug, topic, frame(command.OFF, 1, START_S))
    work(plug)
    run(plug, START_S, 20)
    assert not plug.relay
    assert plug.set_essential(True) and plug.relay
    send(plug, topic, frame(command.OFF, 2, START_S))
    work(plug)
    assert plug.status()["refused"] == {"refused-essential": 1}
