"""One evening of two households of different areas: their gateways find, check, take and account for a trade."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from contract_world import GRID, Home, World
from cross_world import CROSS_RULES, Across
from test_evening import Gateway, Station, _every_changed_number_is_found, check
from watt_chain.contract import cross_kinds
from watt_chain.contract.event import State
from watt_gateway import bill


class Street(Across):
    """The parts of an event that no household does."""

    def __init__(self, world: World) -> None:
        super().__init__(world, [])


async def evening(tmp_path: Path, seller_load: int) -> tuple[World, Street, list[Gateway]]:
    """A buyer in area 1, a seller in area 2, until the event is closed everywhere."""
    world = World(areas=2, rules=CROSS_RULES, homes=[Home(0, 1), Home(1, 2)])
    for chain in world.areas:
        assert world.call(0, GRID, "Endow", cross_kinds.Endow(chain, 10**9, 10**9)) == ""
    stations = [Station(world, chain) for chain in world.areas]
    plans = [
        {"side": "buy", "price_u_per_wh": 900, "slot_wh": [40] * 4},
        {"side": "sell", "price_u_per_wh": 300, "slot_wh": [50] * 4},
    ]
    gateways = [
        Gateway(world, station, home, tmp_path / f"home{home.number}", plan)
        for station, home, plan in zip(stations, world.homes, plans, strict=True)
    ]
    for gateway in gateways:
        gateway.outgoing.intake._patience_is_over = lambda plug, counter, frame: True  # type: ignore[method-assign]
    steps, loads = Street(world), [200, seller_load]

    async def look(times: int = 1) -> None:
        for _ in range(times):
            for station, gateway in zip(stations, gateways, strict=True):
                station.notice()
                await gateway.look()
            world.relay_all()

    for step in (steps.announce, steps.open, steps.commit, steps.reveal, steps.match):
        step()
        await look()
    await look(3)
    world.tick_all(steps.spec.confirm_close_s)
    await look()
    steps.window()
    await look()
    for position, time_s in enumerate(steps.spec.boundaries_s()):
        world.now_s = time_s
        for gateway, load in zip(gateways, loads, strict=True):
            gateway.reading(time_s, load * 1000 if position else 0)
            await gateway.turn()
    for step in (steps.deliver, steps.settle, steps.close):
        step()
        await look(2)
    return world, steps, gateways


@pytest.mark.row("H10", "H14", "H26", "L5")
def test_a_trade_with_another_area_stands_in_both_bills(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, steps, (buyer, seller) = await evening(tmp_path, 120)
        assert {world.event(chain).state for chain in world.areas} == {State.CLOSED}
        assert steps.states() == ("PAID", "CREDITED", "PAID")
        paid_u = world.main_trade().paid_u
        assert paid_u > 0
        for gateway, state, sign in ((buyer, "PAID", -1), (seller, "CREDITED", 1)):
            document = bill.read(gateway.folder / "bill.json")
            assert check(world, gateway.folder) == []
            assert [trade["state"] for trade in document["trades"]] == [state]
            assert document["trades"][0]["other_area"] == (2 if gateway is buyer else 1)
            assert document["summary"]["traded_u"] == sign * paid_u
            assert gateway.plans[-1]["trades"] == 1
            _every_changed_number_is_found(world, document)
        assert buyer.plans[-1]["slots"] == [160 + 40] * 4
        assert seller.plans[-1]["slots"] == [160 - 40] * 4

    asyncio.run(scenario())


def test_a_seller_that_delivers_half_is_paid_for_half(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, _, (buyer, seller) = await evening(tmp_path, 140)
        price = sum(wh_price * 20 for wh_price in world.main_trade().terms.price_u_per_wh)
        assert world.main_trade().paid_u == price
        for gateway in (buyer, seller):
            assert check(world, gateway.folder) == []
        assert bill.read(seller.folder / "bill.json")["summary"]["penalty_u"] > 0

    asyncio.run(scenario())
