"""Faults found in other systems that take readings and settle trades, each as a test of ours."""

from __future__ import annotations

import pytest
from contract_world import STRANGER, Home, Plan, Play, World, make_spec
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_wire import checkpoint as wire

KEPT, SOLD = [220] * 4, [100] * 4


@pytest.mark.parametrize("buyer_more", [0, 40, -40])
@pytest.mark.parametrize("seller_more", [0, 40])
def test_given_two_parties_then_each_is_penalised_by_its_own_meter_and_place(seller_more: int, buyer_more: int) -> None:
    """One market kept penalties by area and looked up the buyer's for both: its shortfall was the seller's fine."""
    world = World(areas=1, homes=[Home(0, 1), Home(1, 1)])
    loads = [wh + seller_more for wh in SOLD], [wh + buyer_more for wh in KEPT]
    plans = [
        Plan(world.homes[0], "sell", 300, [60] * 4, loads[0]),
        Plan(world.homes[1], "buy", 900, [60] * 4, loads[1]),
    ]
    Play(world, plans, make_spec()).run(State.SETTLED)
    seller, buyer = (world.row(home) for home in world.homes)
    assert (seller.penalty_u > 0, buyer.penalty_u > 0) == (seller_more != 0, buyer_more != 0)
    assert (sum(seller.short_wh), sum(buyer.short_wh)) == (4 * seller_more, 4 * abs(buyer_more))
    assert all(type(amount) is int for row in (seller, buyer) for amount in (row.penalty_u, row.traded_u))


def test_given_a_reading_without_the_plug_s_signature_then_it_is_refused_by_name() -> None:
    """One market took orders, trades and measurements of anybody: no signature, no key."""
    world = World(areas=1, homes=[Home(0, 1), Home(1, 1)])
    home = world.homes[0]
    frame = home.checkpoint(world.now_s + 60, add_mwh=1_000)
    body = frame[: wire.BODY_SIZE]
    forged = wire.seal(body, STRANGER.sign(wire.signing_message(body)))
    unsigned = body + bytes(64)
    for wrong in (forged, unsigned):
        assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(wrong, -1)) == "signature"
    stranger = world.tx(1, STRANGER, "Checkpoint", kinds.Checkpoint(frame, -1))
    assert len(world.block(1, [stranger]).receipts) == 0  # nobody known signed it: it is in no block at all
    assert world.call(1, world.homes[1].key, "Checkpoint", kinds.Checkpoint(frame, -1)) == "not-yours"
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""


def test_given_a_reading_that_comes_late_or_again_then_its_counter_decides_and_not_a_clock() -> None:
    """One protocol refused reports older than 5 s, and knew of repeated ones only what its memory held."""
    world = World(areas=1, homes=[Home(0, 1)])
    home = world.homes[0]
    frame = home.checkpoint(world.now_s + 60, add_mwh=1_000)
    world.tick_all(world.now_s + 30 * 86_400)
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == "counter"


def test_given_two_readings_of_one_instant_then_both_count_in_their_order() -> None:
    """One gateway stored by time: of two values of one millisecond the later took the place of the earlier."""
    world = World(areas=1, homes=[Home(0, 1)])
    home, at_s = world.homes[0], world.now_s + 60
    first, second = home.checkpoint(at_s, add_mwh=1_000), home.checkpoint(at_s, add_mwh=2_000)
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(second, -1)) == ""
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(first, -1)) == "counter"
    world = World(areas=1, homes=[Home(0, 1)])
    home = world.homes[0]
    for add_mwh in (1_000, 2_000):
        frame = home.checkpoint(at_s, add_mwh=add_mwh)
        assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""
    assert home.register_mwh == 5_003_000
