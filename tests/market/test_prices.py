"""Contract price, comfort coefficient, reward and penalty prices, and Eq. (1) as an indicator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_world import random_books, rules, signal, terms_of
from watt_market.comfort import alpha_u_per_wh, alphas_u_per_wh
from watt_market.engine import Market
from watt_market.incentive import incentive_price, mean_price_u_per_wh
from watt_market.report import Contract, delivered_income, matched_income, sum_income

RULES, SPEC = rules(), signal([10])
CREDIT = st.integers(-5, 120)
PRICE = st.integers(0, 6_000)


@pytest.mark.row("I7")
@pytest.mark.parametrize(
    ("temperature_dc", "hour", "alpha"),
    [
        (200, 12, 20),
        (260, 12, 20),
        (300, 12, 68),
        (180, 12, 20),
        (80, 12, 100),
        (200, 18, 24),
        (200, 22, 20),
        (-20, 21, 216),
    ],
)
def test_the_comfort_coefficient_follows_temperature_and_time(temperature_dc: int, hour: int, alpha: int) -> None:
    assert alpha_u_per_wh(temperature_dc, hour) == alpha
    assert alphas_u_per_wh([temperature_dc] * 2, [hour] * 2) == [alpha, alpha]


@pytest.mark.row("J18", "I26")
def test_given_the_bounds_of_credit_then_reward_and_penalty_are_the_paper_s_proportions() -> None:
    # p_N 300, mean real-time price 500: a tenth of it at full credit, a fifth of it at the bar.
    assert incentive_price(100, True, SPEC, 500, RULES) == 250
    assert incentive_price(50, True, SPEC, 500, RULES) == 300
    assert incentive_price(50, False, SPEC, 500, RULES) == 400
    assert incentive_price(100, False, SPEC, 500, RULES) == 350
    assert incentive_price(100, True, SPEC, 10**6, RULES) == 150  # floor: half of the normal price
    assert incentive_price(0, False, SPEC, 10**6, RULES) == 450  # top: one and a half


@pytest.mark.row("I5")
@given(low=CREDIT, high=CREDIT, mean=PRICE, dearer=PRICE)
def test_incentives_fall_with_credit_rise_with_the_price_and_never_swap_sides(
    low: int, high: int, mean: int, dearer: int
) -> None:
    low, high = sorted((low, high))
    mean, dearer = sorted((mean, dearer))
    for performed in (True, False):
        assert incentive_price(high, performed, SPEC, mean, RULES) <= incentive_price(low, performed, SPEC, mean, RULES)
    reward, penalty = (incentive_price(low, performed, SPEC, mean, RULES) for performed in (True, False))
    assert reward <= SPEC.normal_price_u_per_wh <= penalty
    assert penalty <= incentive_price(low, False, SPEC, dearer, RULES)
    assert reward >= incentive_price(low, True, SPEC, dearer, RULES)
    assert incentive_price(low, True, SPEC, 0, RULES) == SPEC.normal_price_u_per_wh


def test_the_mean_price_weighs_energy() -> None:
    assert mean_price_u_per_wh([400, 500], [300, 100]) == 425
    assert mean_price_u_per_wh([400, 500], [0, 0]) == 450
    assert mean_price_u_per_wh([], []) == 0


@pytest.mark.row("I6", "I33", "I35", "I37", "I38", "I46")
@pytest.mark.parametrize("seed", range(4))
def test_given_a_matching_then_equation_1_is_its_value(seed: int) -> None:
    books, alpha = random_books(seed, 5, 4, areas=2)
    solution = Market().clear(books, signal(alpha), RULES)
    income = sum_income([matched_income(book, part) for book, part in zip(books, solution.slices, strict=True)])
    assert income.income_u == income.contract_u - income.response_u - income.cost_u == solution.value_u
    assert income.comfort_u > 0
    assert income.charge_u > 0


@pytest.mark.row("I15", "I34", "I36")
def test_given_delivery_then_equation_1_is_minus_the_cost_less_what_was_breached() -> None:
    full = [Contract(300, 100, 100), Contract(310, 50, 50)]
    assert delivered_income(full, comfort_u=4_000, charge_u=200).income_u == -4_200
    breached = [Contract(300, 100, 60), Contract(310, 50, 50)]
    assert delivered_income(breached, comfort_u=4_000, charge_u=200).income_u == 300 * 40 - 4_200


@pytest.mark.row("I4")
def test_the_contract_price_is_the_midpoint_rounded_down() -> None:
    books, alpha = random_books(3, 4, 4)
    seller, buyer = books[0].offers[0], books[0].bids[0]
    terms = terms_of(seller, buyer, [1] * 4, signal(alpha), RULES)
    assert terms.price_u_per_wh == [(buyer.price_u_per_wh + seller.price_u_per_wh + a) // 2 for a in alpha]
    assert terms.charge_u == 5 * 2 * 20
