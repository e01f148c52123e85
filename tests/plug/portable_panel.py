"""Button and lamp, and what a factory reset keeps and forgets."""

import gc

gc.collect()
import plug_tools as tools  # noqa: E402  # a small heap wants its garbage out first

gc.collect()
from life_tools import PLUG_ID, START_S, checkpoints, connect, events, frame, make, run, send, work  # noqa: E402
from watt_plug import panel  # noqa: E402
from watt_plug.storage import MemoryStorage  # noqa: E402

gc.collect()
from watt_wire import checkpoint, command, statement, topics  # noqa: E402


def presses(levels: "list[tuple[int, bool]]") -> "list[int]":
    button = panel.Button()
    return [button.look(pressed, now_ms) for now_ms, pressed in levels]


def test_a_press_is_told_when_it_ends_and_a_bounce_is_none() -> None:
    assert presses([(0, False), (10, True), (40, True), (200, False)]) == [0, 0, 0, panel.SHORT]
    assert presses([(0, True), (30, False), (60, True), (80, False)]) == [0, 0, 0, 0]


def test_a_long_press_is_told_once_while_it_lasts_and_is_no_short_one() -> None:
    assert presses([(0, True), (9999, True), (10000, True), (10050, True), (11000, False), (11050, True)]) == [
        0, 0, panel.LONG, 0, 0, 0,
    ]  # fmt: skip


def blinks(code: int) -> int:
    levels = [panel.lit(code, now_ms) for now_ms in range(0, 2000, 10)]
    return len([at for at in range(1, len(levels)) if levels[at] and not levels[at - 1]]) + levels[0]


def test_the_lamp_blinks_as_often_as_the_code_says() -> None:
    assert all(panel.lit(panel.CONTACT, now_ms) for now_ms in range(0, 2000, 50))
    assert [blinks(code) for code in (panel.ALONE, panel.UNPAIRED, panel.HELD, panel.TRIPPED)] == [1, 2, 3, 4]
    assert blinks(panel.SAFE) == 8


def test_the_lamp_follows_contact_commands_and_trips() -> None:
    plug = make(MemoryStorage())
    plug.start(START_S)
    assert plug.lamp == panel.ALONE
    connect(plug)
    assert plug.lamp == panel.CONTACT
    send(plug, topics.plug_command(tools.GATEWAY, PLUG_ID), frame(command.OFF, 1, START_S))
    work(plug)
    assert plug.lamp == panel.HELD
    plug.button()
    assert plug.lamp == panel.CONTACT
    plug.closed()
    assert plug.lamp == panel.ALONE
    small = make(MemoryStorage(), rated_w=100)
    small.start(START_S)
    run(small, START_S, 40)
    assert small.lamp == panel.TRIPPED, "249 W on a plug of 100 W"


def test_a_factory_reset_is_signed_gives_up_the_households_data_and_keeps_the_register() -> None:
    storage = MemoryStorage()
    plug = make(storage)
    plug.start(START_S)
    connect(plug)
    send(plug, topics.plug_command(tools.GATEWAY, PLUG_ID), frame(command.OFF, 9, START_S))
    work(plug)
    plug.button()
    run(plug, START_S, 1000)
    counter, energy_mwh = plug.counter, plug.import_mwh
    assert energy_mwh > 0 and counter > 3
    plug.factory_reset()
    assert checkpoints(storage) == [] and events(storage) == [], "the next household is not told of this one"
    again = make(storage)
    again.start(START_S + 5000)
    assert again.counter == counter + 2 and again.import_mwh == energy_mwh, "shut-down and boot"
    assert checkpoints(storage)[-1][0].reason == checkpoint.BOOT
    connect(again)
    gaps = [item for item in events(storage) if item.number("kind") == statement.GAP]
    assert [(item.number("first"), item.number("last")) for item in gaps] == [(1, counter + 1)]
    send(again, topics.plug_command(tools.GATEWAY, PLUG_ID), frame(command.OFF, 9, START_S + 5000))
    assert again.status()["refused"] == {"command-replayed": 1}
    send(again, topics.plug_command(tools.GATEWAY, PLUG_ID), frame(command.OFF, 10, START_S + 5000))
    work(again)
    assert again.must_wait, "the former household's override is gone"
