"""A whole event in memory: the offices of a master drive real ledgers from Initial to CLOSED."""

from typing import Any

import pytest
from watt_chain.contract.event import State

END_S = 9000
OFFICE_CALLS = ("Qualify", "SettlementCredit", "SettlementAmount", "PriceIncentives", "Punish", "Points")


def finish(world: Any, before: Any = None) -> None:
    world.run(world.genesis.protocol_start_s + END_S, before)


@pytest.mark.row("B16", "H24", "J1", "J2", "J4", "J6", "J10", "J11", "J15", "J16", "J17", "J18", "J20", "K1", "K2")
def test_given_two_areas_when_the_clock_runs_then_the_offices_bring_the_event_from_initial_to_closed(world: Any) -> None:
    finish(world)
    main = world.view.main_event(1)
    assert main.state is State.CLOSED, (main.state, [(r.chain, r.state, r.reason) for r in main.areas])
    assert [report.state for report in main.areas] == ["closed", "closed"]
    for area in (1, 2):
        assert world.view.area_event(area, 1).state is State.CLOSED
        assert all(world.calls(kind, area) == [""] for kind in OFFICE_CALLS)
        assert main.areas[area - 1].result_root == world.root(area)
        assert world.view.anchor_height(area) == world.chains[area].ledger.head.height
        assert world.money_u(area) == 4 * 50_000_000
    assert world.calls("Initial", 0) == world.calls("Match", 0) == world.calls("SettlementAmount", 0) == [""]
    statuses = {home.number: world.row(home).status for home in world.homes if home.area == 1}
    assert statuses == {1: "performed", 2: "breached", 3: "performed", 4: "performed"}
    changes = {home.number: world.row(home).credit_after - world.row(home).credit_before for home in world.homes}
    assert changes == {1: 2, 2: -4, 3: 2, 4: 2}
