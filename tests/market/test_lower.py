"""The lower level: dispatch, its dual, the check of both, and Eq. (9'), (10)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_world import rules
from msgspec.structs import replace
from watt_chain.contract.event import Unit
from watt_chain.contract.market import Dispatch
from watt_market.lower import check_dispatch, dispatch, grid_cost

RULES = rules()
UNITS = [Unit(350, [300]), Unit(520, [500]), Unit(900, [800])]


@pytest.mark.row("I3", "I29", "A8")
def test_given_the_example_then_cost_and_dual_agree() -> None:
    (found,) = dispatch(UNITS, [620], RULES)
    assert found == Dispatch([300, 320, 0, 0], 520, [170, 0, 0, 0], 271_400)
    assert 520 * 620 - 170 * 300 == 271_400
    assert check_dispatch(UNITS, [620], [found], RULES) == ""


@pytest.mark.parametrize(
    ("need_wh", "price"),
    [(-5, 350), (0, 350), (1, 350), (300, 350), (301, 520), (800, 520), (1_600, 900), (1_601, 900)],
)
def test_the_price_is_the_cost_of_the_dearest_unit_that_runs(need_wh: int, price: int) -> None:
    (found,) = dispatch(UNITS, [need_wh], RULES)
    assert found.lambda_u_per_wh == price
    assert sum(found.g_wh) == max(0, need_wh)
    assert check_dispatch(UNITS, [need_wh], [found], RULES) == ""


def test_given_no_unit_then_there_is_a_dispatch_at_price_zero() -> None:
    found = dispatch([], [7, 0], RULES)
    assert [slot.lambda_u_per_wh for slot in found] == [0, 0]
    assert check_dispatch([], [7, 0], found, RULES) == ""


units = st.lists(st.tuples(st.integers(0, 40), st.lists(st.integers(0, 5), min_size=2, max_size=2)), max_size=3)


@given(units=units, need=st.lists(st.integers(-2, 14), min_size=2, max_size=2))
def test_no_other_dispatch_is_cheaper(units: list[tuple[int, list[int]]], need: list[int]) -> None:
    stack = [Unit(cost, room) for cost, room in units]
    found = dispatch(stack, need, RULES)
    assert check_dispatch(stack, need, found, RULES) == ""
    last = max((cost for cost, _ in units), default=0)
    for slot, wanted in enumerate(need):
        costs = [
            sum(unit.cost_u_per_wh * g for unit, g in zip(stack, run, strict=True)) + last * (max(0, wanted) - sum(run))
            for run in product(*(range(unit.capacity_wh[slot] + 1) for unit in stack))
            if sum(run) <= max(0, wanted)
        ]
        assert found[slot].cost_u == min(costs)
        assert found[slot].lambda_u_per_wh >= 0


@pytest.mark.row("I19")
def test_given_any_integer_of_a_dispatch_changed_then_a_row_fails_and_is_named() -> None:
    stack = [*UNITS, Unit(520, [100])]
    for need in (0, 300, 620, 850, 2_000):
        (found,) = dispatch(stack, [need], RULES)
        assert check_dispatch(stack, [need], [found], RULES) == ""
        broken = [
            replace(found, lambda_u_per_wh=found.lambda_u_per_wh + by) for by in (1, -1, -found.lambda_u_per_wh - 1)
        ]
        broken += [replace(found, cost_u=found.cost_u + by) for by in (1, -1)]
        for field in ("g_wh", "mu_u_per_wh"):
            for k, by in product(range(len(stack) + 1), (1, -1)):
                values = list(getattr(found, field))
                values[k] += by
                broken.append(replace(found, **{field: values}))
        for case in broken:
            assert check_dispatch(stack, [need], [case], RULES).startswith("dispatch-slot-0-"), case
    moved = replace(dispatch(stack, [620], RULES)[0], g_wh=[300, 319, 0, 1, 0])
    assert check_dispatch(stack, [620], [moved], RULES) == "dispatch-slot-0-unit-3-before-1"
    assert check_dispatch(stack, [620], [], RULES) == "dispatch-slots"
    assert check_dispatch(stack, [620], [replace(moved, g_wh=[])], RULES) == "dispatch-slot-0-units"


@pytest.mark.row("I17", "I18", "I42", "I43", "I44", "I16")
def test_excess_costs_the_surcharge_under_use_does_not_and_they_never_net_off() -> None:
    costs = grid_cost([100, 0, 100, 0], [0, 100, 100, 0], [500, 500, 500, 500], RULES)
    assert [c.beta_ppm for c in costs] == [200_000, 0, 200_000, 0]
    assert [c.cost_u for c in costs] == [60_000, 50_000, 110_000, 0]


@pytest.mark.row("I20")
def test_given_full_performance_then_the_grid_pays_nothing_beyond_the_settlement() -> None:
    assert sum(c.cost_u for c in grid_cost([0] * 8, [0] * 8, [900] * 8, RULES)) == 0
