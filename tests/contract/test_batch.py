"""Several calls under one signature: all of them or none, and nothing that one call could not do."""

import msgspec
import pytest
from contract_world import GRID, Home, World
from watt_chain import codec, crypto
from watt_chain.contract import kinds

DEPOSIT_U = 1000


def world_of(home: Home) -> World:
    world = World(1, homes=[home])
    if world.ledgers[1].next_nonce(home.key.public) < 0:
        raise AssertionError("the home is enrolled by the world")
    assert world.call(1, GRID, "Deposit", kinds.Deposit(home.id, DEPOSIT_U)) == ""
    return world


def batch(*calls: tuple[str, object]) -> kinds.Batch:
    return kinds.Batch([kinds.Call(kind, msgspec.Raw(codec.encode(fields))) for kind, fields in calls])


def free_u(world: World, home: Home) -> int:
    return world.account(1, home.key.public).free_u


@pytest.fixture
def home() -> Home:
    return Home(1, 1)


def test_the_calls_of_a_batch_act_in_order_under_one_nonce(home: Home) -> None:
    world = world_of(home)
    nonce, before_u = world.ledgers[1].next_nonce(home.key.public), free_u(world, home)
    take = ("Withdraw", kinds.Withdraw(300))
    assert world.call(1, home.key, "Batch", batch(take, take)) == ""
    assert free_u(world, home) == before_u - 600
    assert world.ledgers[1].next_nonce(home.key.public) == nonce + 1
    world.check_money(1)


def test_one_refused_call_undoes_the_whole_batch(home: Home) -> None:
    world = world_of(home)
    before_u = free_u(world, home)
    too_much = ("Withdraw", kinds.Withdraw(before_u))
    assert world.call(1, home.key, "Batch", batch(("Withdraw", kinds.Withdraw(1)), too_much)) == "balance"
    assert free_u(world, home) == before_u
    world.check_money(1)


def test_a_batch_may_carry_checkpoints_and_each_keeps_its_own_signature(home: Home) -> None:
    world = world_of(home)
    now_s = world.ledgers[1].head.time_s
    frames = [home.checkpoint(now_s + step, 10) for step in range(4)]
    calls = [("Checkpoint", kinds.Checkpoint(frame, -1)) for frame in frames]
    assert world.call(1, home.key, "Batch", batch(*calls)) == ""
    forged = frames[3][:-1] + bytes([frames[3][-1] ^ 1])
    assert world.call(1, home.key, "Batch", batch(("Checkpoint", kinds.Checkpoint(forged, -1)))) in (
        "counter",
        "signature",
    )


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ([("Batch", batch(("Withdraw", kinds.Withdraw(1))))], "nested"),
        ([("Deposit", kinds.Deposit(crypto.id8(bytes(64)), 1))], "role"),
        ([("Nonsense", [1])], "unknown-kind"),
        ([("Withdraw", [0])], "malformed"),
        ([("Withdraw", [1, 2])], "malformed"),
        ([], "malformed"),
        ([("Withdraw", kinds.Withdraw(1))] * 33, "malformed"),
    ],
)
def test_a_batch_can_do_nothing_that_a_call_cannot(home: Home, calls: list[tuple[str, object]], reason: str) -> None:
    world = world_of(home)
    before_u = free_u(world, home)
    assert world.call(1, home.key, "Batch", batch(*calls)) == reason
    assert free_u(world, home) == before_u


def test_a_call_in_another_spelling_is_malformed(home: Home) -> None:
    world = world_of(home)
    wide = kinds.Batch([kinds.Call("Withdraw", msgspec.Raw(b"\x91\xcc\x01"))])  # a 1 in two bytes
    assert world.call(1, home.key, "Batch", wide) == "malformed"
