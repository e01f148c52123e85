"""The plug with a switch: commands end to end, refusals, over-power, essential."""

import gc

gc.collect()
import plug_tools as tools  # noqa: E402  # a small heap wants its garbage out first

gc.collect()
from life_tools import NO_LOAD, PLUG_ID, START_S, checkpoints, connect, events, frame, make, run, send, work  # noqa: E402
from watt_plug.storage import MemoryStorage  # noqa: E402

gc.collect()
from watt_wire import checkpoint, command, record, statement, topics  # noqa: E402


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
