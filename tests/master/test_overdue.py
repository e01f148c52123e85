"""Masters end trades that are overdue: in turn, not before their time, and not for ever."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from contract_world import DEPOSIT_U, GRID, Home, World, key_of
from cross_world import CROSS_RULES, Across, kill_after_s, streets
from watt_chain.contract import cross_kinds, kinds
from watt_master.grid import Grid
from watt_master.overdue import AGAIN_MS, STANDBY_MS, Overdue
from watt_master.view import View


def test_the_first_master_ends_what_is_overdue_and_the_others_stand_by() -> None:
    play = Across(streets()).matched()
    world = play.world
    view = View(world.ledgers)
    play.take()
    assert (play.op("sell", [1]), play.op("buy", [1])) == ("", "")
    world.relay_up()
    due_s = kill_after_s(play.spec)
    first, second = Overdue(), Overdue()
    assert first.due(view, 0, due_s - 1, 0) == []
    assert (first.due(view, 0, due_s, 1000), second.due(view, 1, due_s, 1000)) == ([1], [])
    assert first.due(view, 0, due_s, 1000 + AGAIN_MS - 1) == []
    assert second.due(view, 1, due_s, 1000 + STANDBY_MS) == [1]
    assert first.due(view, 0, due_s, 1000 + AGAIN_MS) == [1]
    world.now_s = due_s
    node = next(key for key in world.validators[0] if key.public == key_of(10).public)
    assert world.call(0, node, "CrossEnd", cross_kinds.CrossEnd(1)) == ""
    assert first.due(view, 0, due_s, 10**6) == second.due(view, 0, due_s, 10**6) == []
    assert (first.submitted, second.submitted) == (2, 1)


def test_a_trade_that_stands_is_void_only_after_the_last_deadline() -> None:
    play = Across(streets()).matched()
    play.confirm()
    view, overdue = View(play.world.ledgers), Overdue()
    assert overdue.due(view, 0, play.spec.settle_by_s - 1, 0) == []
    assert overdue.due(view, 0, play.spec.settle_by_s, 1) == [1]


def test_the_grid_company_says_what_it_has_paid_into_each_area() -> None:
    """Once when bids are taken, again only if it changed; without it nothing could leave an area."""
    world = World(areas=2, rules=CROSS_RULES, homes=[Home(0, 1), Home(1, 2), Home(2, 2)])
    play, view, grid = Across(world, []), View(world.ledgers), Grid(None)
    play.announce()
    assert grid.due(view, play.spec.open_s - 1) == []
    wishes = grid.due(view, play.spec.open_s)
    assert [(wish.chain, wish.kind, wish.stage) for wish in wishes] == [(0, "Endow", "open")] * 2
    for wish in wishes:
        assert world.call(0, GRID, wish.kind, wish.fields) == ""
    assert (world.position(1).endowed_u, world.position(2).endowed_u) == (DEPOSIT_U, 2 * DEPOSIT_U)
    assert world.position(2).rate_u == DEPOSIT_U
    assert grid.due(view, play.spec.reveal_close_s) == []
    assert world.call(2, world.homes[1].key, "Withdraw", kinds.Withdraw(1000)) == ""
    (again,) = grid.due(view, play.spec.reveal_close_s)
    assert (again.subject, again.stage) == ("event 1 area 2", "closed")
    assert again.fields == cross_kinds.Endow(2, 2 * DEPOSIT_U - 1000, DEPOSIT_U - 500)


def test_where_areas_do_not_trade_nobody_is_endowed() -> None:
    world = World(areas=1, homes=[Home(0, 1)])
    play = Across(world, [])
    play.announce()
    assert Grid(None).due(View(world.ledgers), play.spec.open_s) == []
