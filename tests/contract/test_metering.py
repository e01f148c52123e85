"""Checkpoints of plugs and registers at slot boundaries."""

from __future__ import annotations

import pytest
from contract_world import START_S, Home, Play, World, make_spec, usual_plans
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_chain.contract.metering import LATE_S_MAX, SKEW_S, metered_wh
from watt_chain.contract.objects import NO_REGISTER, EventMeter, Plug, PlugRegisters, plug_key, register_key
from watt_wire import checkpoint as wire


def plug_of(world: World, home: Home) -> Plug:
    return codec.decode(world.ledgers[1].state.get(plug_key(home.plug_id)) or b"", Plug)


def send(world: World, home: Home, frame: bytes, main: int = -1) -> str:
    return world.dry(1, home.key, "Checkpoint", kinds.Checkpoint(frame, main))[0]


@pytest.fixture
def world() -> World:
    world = World(areas=1)
    world.now_s = START_S + 1000
    return world


def test_a_checkpoint_moves_the_plugs_chain_forward(world: World) -> None:
    home = world.homes[0]
    frame = home.checkpoint(START_S + 900, 150_000)
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    plug = plug_of(world, home)
    assert (plug.counter, plug.previous, plug.time_s) == (2, wire.frame_hash(frame), START_S + 900)
    assert plug.import_mwh == 5_150_000
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == "counter"


def test_a_checkpoint_is_refused_by_name(world: World) -> None:
    home, other = world.homes[0], world.homes[1]
    home.checkpoint(START_S + 900)
    home.counter, home.previous = 1, plug_of(world, home).previous
    at = START_S + 900

    def made(**changes: object) -> bytes:
        keep = home.counter, home.previous
        frame = home.checkpoint(int(changes.pop("time_s", at)), **changes)  # type: ignore[call-overload]
        home.counter, home.previous = keep
        return frame

    assert send(world, home, made()) == ""
    cases = {
        "frame": made()[:-1],
        "counter": made(counter=1),
        "previous": made(previous=bytes(32)),
        "register-fell": made(import_mwh=4_999_999),
        "time-future": made(time_s=world.now_s + SKEW_S + 1),
        "time-backwards": made(time_s=START_S - 1),
        "signature": made()[:-1] + bytes([made()[-1] ^ 1]),
    }
    for reason, frame in cases.items():
        assert send(world, home, frame) == reason
    assert send(world, other, made()) == "not-yours"
    stranger = Home(99, 1)
    assert send(world, home, stranger.checkpoint(at)) == "unknown-plug"
    world.now_s += LATE_S_MAX + 2000
    assert send(world, home, made()) == "time-past"


def test_every_flipped_byte_of_a_frame_is_refused(world: World) -> None:
    home = world.homes[0]
    frame = home.checkpoint(START_S + 900)
    for position in range(len(frame)):
        flipped = frame[:position] + bytes([frame[position] ^ 1]) + frame[position + 1 :]
        assert send(world, home, flipped) != "", position


def test_a_skipped_counter_is_accepted_and_counted(world: World) -> None:
    home = world.homes[0]
    home.checkpoint(START_S + 300)
    home.checkpoint(START_S + 600)
    frame = home.checkpoint(START_S + 900)
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert plug_of(world, home).gaps == 2


def test_an_unsynchronised_clock_is_accepted_and_gives_no_time(world: World) -> None:
    home = world.homes[0]
    frame = home.checkpoint(17, time_quality=ord("U"))
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert plug_of(world, home).time_s == START_S


def test_a_stepped_clock_may_go_back_and_a_register_may_fall_only_when_the_plug_says_so(world: World) -> None:
    home = world.homes[0]
    frame = home.checkpoint(START_S - 50, reason=wire.CLOCK_STEP)
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    home.register_mwh = 10
    frame = home.checkpoint(START_S + 20, reason=wire.DISCONTINUITY)
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert plug_of(world, home).discontinuities == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "unverified"),
        ("discontinuity", "unverified"),
        ("unsynchronised", "unverified"),
        ("late", "performed"),
    ],
)
def test_a_boundary_counts_only_when_the_plug_vouches_for_it(name: str, expected: str) -> None:
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.DELIVERING)
    seller = play.plans[0]
    for position, time_s in enumerate(play.spec.boundaries_s()):
        world.now_s = time_s + (600 if name == "late" else 0)
        for plan in play.plans:
            change: dict[str, object] = {}
            add = plan.load_wh[position - 1] * 1000 if position else 0
            if plan is seller and position == 2 and name == "missing":
                plan.home.register_mwh += add
                continue
            if plan is seller and position == 2 and name == "unsynchronised":
                change = {"time_quality": ord("U")}
            if plan is seller and position == 3 and name == "discontinuity":
                change = {"reason": wire.DISCONTINUITY}
            frame = plan.home.checkpoint(time_s, add, **change)
            assert world.call(1, plan.home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    play.plans, plans = [], play.plans
    play.deliver()
    assert world.row(seller.home).status == expected
    assert all(world.row(plan.home).status != "unverified" for plan in plans[1:])


@pytest.mark.row("C12")
def test_only_registers_of_qualified_users_are_kept_and_only_at_boundaries() -> None:
    world = World(areas=1)
    plans = usual_plans(world)
    play = Play(world, plans[1:]).run(State.DELIVERING)
    world.now_s = play.spec.window_start_s + 10
    for plan in plans:
        for time_s in (play.spec.window_start_s, play.spec.window_start_s + 7):
            frame = plan.home.checkpoint(time_s)
            assert world.call(1, plan.home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    state = world.ledgers[1].state
    assert state.get(register_key(1, plans[0].home.id)) is None
    meter = codec.decode(state.get(register_key(1, plans[1].home.id)) or b"", EventMeter)
    assert [value != NO_REGISTER for value in meter.plugs[0].import_mwh] == [True, False, False, False, False]


def test_metered_load_floors_each_register_and_sees_what_cannot_be() -> None:
    spec = make_spec()

    def load(registers: list[int], rated_w: int = 2000) -> list[int]:
        row = PlugRegisters(b"12345678", registers, [False] * 4)
        return metered_wh(EventMeter([row], [-1] * 5), [rated_w], spec)

    assert load([999, 1000, 2999, 3000, 3000]) == [1, 1, 1, 0]
    assert load([0, 500_000, NO_REGISTER, 700_000, 800_000]) == [500, -1, -1, 100]
    assert load([0, 1_000_000, 2_000_001, 2_000_001, 2_000_000]) == [1000, -1, 0, -1]
    two = [PlugRegisters(b"a" * 8, [0, 1999, 1999, 1999, 1999], [False] * 4)] * 2
    assert metered_wh(EventMeter(two, [-1] * 5), [9, 9], spec)[0] == 2
