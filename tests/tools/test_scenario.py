"""The demo's evening: from measured data, the same every time, tradable, and with one home that must default."""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace
from watt_chain.contract.event import check_spec
from watt_chain.contract.market import Bid, Book, Offer
from watt_chain.contract.rules import RULES_1
from watt_market.book import canonical
from watt_market.engine import Market
from watt_tools.scenario import DATA, RATED_W, STEP_S, Home, Scenario, ScenarioError, build, quota, timeline

LIMIT_U = 40_000_000


@cache
def evening() -> Scenario:
    return build()


def books(scenario: Scenario) -> list[Book]:
    found = []
    for area in range(1, scenario.areas + 1):
        homes = [home for home in scenario.homes if home.area == area]
        sells = [Offer(0, h.name.encode(), h.price_u_per_wh, h.slot_wh, 60) for h in homes if h.side == "sell"]
        buys = [Bid(0, h.name.encode(), h.price_u_per_wh, h.slot_wh, LIMIT_U) for h in homes if h.side == "buy"]
        found.append(canonical(scenario.spec.event, area, sells, buys))
    return found


def window_wh(scenario: Scenario, watts: list[int]) -> list[int]:
    spec = scenario.spec
    first = (spec.window_start_s - scenario.start_s) // STEP_S
    steps = spec.slot_s // STEP_S
    return [-(-sum(watts[first + n * steps :][:steps]) * STEP_S // 3600) for n in range(spec.slots)]


def test_given_the_same_arguments_then_the_scenario_is_the_same() -> None:
    assert build(28, 2, 0) == evening()
    assert build(28, 2, 1) != evening()


def test_the_signal_is_well_formed_and_its_instants_are_those_of_the_timeline() -> None:
    scenario = evening()
    assert check_spec(scenario.spec, RULES_1.price_cap_u_per_wh) == ""
    times = timeline(scenario.start_s)
    assert times.window_start_s == scenario.spec.window_start_s == 1_357_664_400  # Tue 8 Jan 2013, 17:00 UTC
    assert times.settle_by_s - times.window_start_s == 7_200 + 5_400
    assert scenario.spec.alpha_u_per_wh == [85] * 4 + [105] * 4  # 9.8 and 9.0 deg C at the homes
    assert scenario.spec.profile_wh_per_mwh == [35, 37, 38, 40, 41, 42, 42, 42]


def test_given_the_default_size_then_the_homes_are_those_the_demo_promises() -> None:
    homes = evening().homes
    assert [home.name for home in homes] == [f"home-{n:03d}" for n in range(1, 29)]
    assert {home.area for home in homes} == {1, 2}
    assert {home.node for home in homes} == {0, 1, 2, 3}
    assert sum(home.interpreter == "micropython" for home in homes) == 4
    assert [home.interpreter for home in homes if home.is_wasm_capable] == ["micropython"]
    assert sum(home.main_meter for home in homes) == 2
    assert [home.name for home in homes if home.behaviour == "defaulter"] == ["home-001"]
    assert [home.name for home in homes if home.least_wh] == ["home-017"]
    assert len({home.source.split(" + ")[0] for home in homes}) == 28


def test_loads_cover_the_evening_and_fit_the_circuit() -> None:
    scenario = evening()
    for home in scenario.homes:
        assert scenario.start_s + len(home.watts) * STEP_S >= scenario.spec.settle_by_s
        assert 0 <= min(home.watts) <= max(home.watts) <= home.rated_w == RATED_W
        assert all(0 <= extra <= watts for extra, watts in zip(home.flexible_w, home.watts, strict=True))


def sides(scenario: Scenario, side: str) -> list[Home]:
    return [home for home in scenario.homes if home.side == side]


def test_sellers_can_save_what_they_offer_and_buyers_lack_what_they_bid() -> None:
    scenario = evening()
    for home in scenario.homes:
        own = quota(scenario.spec.profile_wh_per_mwh, home.annual_kwh)
        assert len(home.slot_wh) == scenario.spec.slots
        assert max(home.slot_wh) <= home.rated_w * scenario.spec.slot_s // 3600
        load_wh, flexible_wh = window_wh(scenario, home.watts), window_wh(scenario, home.flexible_w)
        if home.side == "sell":
            base = [load - extra for load, extra in zip(home.watts, home.flexible_w, strict=True)]
            for own_wh, offered_wh, base_wh in zip(own, home.slot_wh, window_wh(scenario, base), strict=True):
                assert 0 <= offered_wh <= own_wh
                assert base_wh <= own_wh - offered_wh
            assert sum(home.slot_wh) <= sum(flexible_wh)
        if home.side == "buy":
            for own_wh, bid_wh, wh in zip(own, home.slot_wh, load_wh, strict=True):
                assert bid_wh <= max(0, wh + 1 - own_wh)
    assert len(sides(scenario, "sell")) >= 8
    assert len(sides(scenario, "buy")) >= 8


@pytest.mark.parametrize(("homes", "areas", "trades"), [(28, 2, 20), (24, 2, 15), (2, 1, 1), (4, 2, 2), (40, 4, 20)])
def test_given_the_scenario_then_it_clears_and_the_defaulter_is_matched(homes: int, areas: int, trades: int) -> None:
    scenario = build(homes, areas)
    ordered = books(scenario)
    solution = Market().clear(ordered, scenario.spec, RULES_1)
    assert sum(len(part.assignments) for part in solution.slices) >= trades
    assert (solution.bound_u - solution.value_u) * 1_000 <= 5 * solution.bound_u
    sold_wh = sum(
        sum(a.slot_wh)
        for a in solution.slices[0].assignments
        if ordered[0].offers[a.offer].user == scenario.homes[0].name.encode()
    )
    assert sold_wh > 0
    # Metered above the quota it started with: it saved nothing of what it sold.
    own_wh = sum(quota(scenario.spec.profile_wh_per_mwh, scenario.homes[0].annual_kwh))
    assert sum(window_wh(scenario, scenario.homes[0].watts)) - scenario.spec.slots > own_wh


def test_given_a_hamlet_then_its_seller_trades_with_another_area_and_no_other_home_changes() -> None:
    plain, scenario = build(28, 2), build(28, 2, hamlet=True)
    assert scenario.homes[:28] == plain.homes and plain.hamlet == 0
    assert (scenario.areas, scenario.hamlet) == (3, 3)
    assert [(home.area, home.side) for home in scenario.homes[28:]] == [(3, "sell"), (3, "watch")]
    rules = replace(RULES_1, crossings=8)
    across = Market().clear(books(scenario), scenario.spec, rules).across
    assert across is not None and any(one.offer_chain == 3 != one.bid_chain for one in across.crossings)


@pytest.mark.parametrize(("homes", "areas"), [(0, 1), (1, 2), (28, 0), (28, 9), (201, 2)])
def test_given_a_size_out_of_range_then_it_is_refused(homes: int, areas: int) -> None:
    with pytest.raises(ScenarioError, match="allowed are"):
        build(homes, areas)


def test_each_folder_of_data_has_its_notice() -> None:
    folders = sorted(path.name for path in DATA.iterdir() if path.is_dir())
    assert folders == ["apache-2.0", "mit", "odbl-1.0"]
    for folder in folders:
        text = (DATA / folder / "NOTICE").read_text()
        assert "icense" in text
    assert "Contains information from the tracebase data set" in (DATA / "odbl-1.0/NOTICE").read_text()
