"""Section 5 of the paper, row by row: each test quotes the words it holds up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "market"))

from market_world import bid, book_of, offer, random_books, rules, signal, terms_of
from msgspec.structs import replace
from watt_chain.contract.market import Assignment
from watt_market.book import check_book
from watt_market.certificate import check_slice
from watt_market.engine import Market
from watt_market.lower import check_dispatch, dispatch, grid_cost
from watt_market.report import matched_income

RULES = rules()


@pytest.mark.row("I1", "I45")
def test_two_levels_in_sequence() -> None:
    """'the upper level corresponds to the transaction matching stage': the lower level prices what was not kept."""
    book = book_of([offer(1, 200, [100])], [bid(11, 500, [100])])
    spec = signal([40])
    (part,) = Market().clear([book], spec, RULES).slices
    assert part.assignments == [Assignment(0, 0, [100])]
    kept_wh = 60
    (slot,) = Market().dispatch(spec.units, [sum(part.assignments[0].slot_wh) - kept_wh], RULES)
    assert slot.g_wh == [40, 0, 0, 0]
    assert grid_cost([40], [0], [slot.lambda_u_per_wh], RULES)[0].cost_u == 40 * 350 * 12 // 10


@pytest.mark.row("I8")
def test_the_comfort_cost_falls_on_the_side_that_gives_energy_up() -> None:
    """'the comfort cost of low-voltage users equivalent to the power supply side in demand response is mainly
    considered': the price repays the seller half of alpha, and never leaves it below ask plus alpha."""
    seller, buyer = offer(1, 200, [100]), bid(11, 500, [100])
    mild, cold = (terms_of(seller, buyer, [100], signal([a]), RULES).price_u_per_wh[0] for a in (0, 100))
    assert (mild, cold) == (350, 400)
    (part,) = Market().clear([book_of([seller], [buyer])], signal([100]), RULES).slices
    assert matched_income(book_of([seller], [buyer]), part).comfort_u == 100 * 100


@pytest.mark.row("I9", "I11")
def test_the_charge_inside_a_station_is_two_communications() -> None:
    """'the communication time cost is twice the time cost of a single communication, that is, 2X'."""
    for x_ms in (0, 1, 20, 35):
        terms = terms_of(offer(1, 200, [1]), bid(11, 500, [1]), [1], signal([0], x_ms=x_ms), RULES)
        assert terms.charge_u == RULES.gamma_u_per_ms * 2 * x_ms


@pytest.mark.row("I13", "I39")
def test_loads_are_not_negative_in_any_slot() -> None:
    """'Eq. 4 makes the constraint that the total load signed by sellers must be non-negative', each of them here."""
    book = book_of([offer(1, 200, [100, 100])], [bid(11, 500, [100, 100])])
    spec = signal([40, 40])
    solution = Market().clear([book], spec, RULES)
    part = solution.slices[0]
    below = replace(part, assignments=[Assignment(0, 0, [100, -1])])
    assert check_slice(book, below, solution.rho_scaled, spec, RULES) == "slice-pair-0-energy"


@pytest.mark.row("I40", "I41")
def test_prices_are_not_negative() -> None:
    """'Eq. 6 makes the constraint that the total price of the seller's contracted electricity must be
    non-negative'."""
    asks, limits = offer(1, -1, [100]), bid(11, -500, [100])
    assert check_book(book_of([asks], [bid(11, 500, [100])]), signal([40])) == "book-offer-0-price"
    assert check_book(book_of([offer(1, 200, [100])], [limits]), signal([40])) == "book-bid-0-price"


@pytest.mark.row("I14")
def test_the_comfort_budget_is_an_upper_limit() -> None:
    """'we use B to denote the comfort budget, representing the upper limit of the comfort cost in the system'."""
    books, alpha = random_books(4, 5, 4)
    for budget_u in (0, 5_000, 20_000, 60_000):
        (part,) = Market().clear(books, signal(alpha, budget_u=budget_u), rules(gap_ppm=1_000_000)).slices
        assert part.comfort_u + part.charge_u <= budget_u


@pytest.mark.row("I28")
def test_the_upper_level_knows_communication_cost_load_and_price() -> None:
    """'under the constraints of communication cost, signing and actual power load, signing and actual power
    price': each one alone can end the trade."""
    spec = signal([40])

    def pairs(price: int = 500, wh: int = 100, x_ms: int = 20) -> int:
        book = book_of([offer(1, 200, [100])], [bid(11, price, [wh])])
        spec = signal([40], x_ms=x_ms)
        return len(Market().clear([book], spec, RULES).slices[0].assignments)

    assert spec.x_ms == 20
    assert (pairs(), pairs(price=239), pairs(wh=0), pairs(x_ms=2_601)) == (1, 0, 0, 0)


@pytest.mark.row("I24", "I25", "I30")
def test_the_pool_is_volume_and_price_and_matching_follows_each_slot() -> None:
    """'the response volume and expected price provided by users during bidding form a low-voltage side adjustable
    capacity resource pool'."""
    book = book_of(
        [offer(1, 200, [100, 0, 50]), offer(2, 300, [0, 80, 50])],
        [bid(11, 600, [100, 80, 0]), bid(12, 550, [0, 0, 70])],
    )
    (part,) = Market().clear([book], signal([10, 10, 10]), RULES).slices
    assert [(a.offer, a.bid, a.slot_wh) for a in part.assignments] == [
        (0, 0, [100, 0, 0]),
        (0, 1, [0, 0, 50]),
        (1, 0, [0, 80, 0]),
        (1, 1, [0, 0, 20]),
    ]


@pytest.mark.row("I19", "I29")
def test_the_generation_price_is_not_negative_and_is_the_marginal_cost() -> None:
    """'it should also ensure that the grid generation price is non negative'."""
    units = signal([0]).units
    for need in (0, 299, 300, 301, 5_000):
        slots = dispatch(units, [need], RULES)
        assert slots[0].lambda_u_per_wh >= 0
        assert check_dispatch(units, [need], [replace(slots[0], lambda_u_per_wh=-1)], RULES)


@pytest.mark.row("I32", "I33")
def test_with_the_declared_labels_users_income_is_what_the_matching_maximises() -> None:
    """'We use a and b to denote the buyer and seller of point-to-point transactions, respectively': with a the
    buyer, Eq. (1) is the value of the matching to the last unit; with the labels turned round it is its opposite."""
    books, alpha = random_books(2, 5, 4)
    (part,) = Market().clear(books, signal(alpha), RULES).slices
    income = matched_income(books[0], part)
    assert income.income_u == part.value_u > 0
    turned = income.response_u - income.contract_u - income.cost_u
    assert turned < 0


@pytest.mark.row("J27")
def test_what_is_listed_is_the_best_of_all_listings_or_within_the_gap_that_the_rules_name() -> None:
    """'under the condition of maximizing the benefits': a listing that leaves value behind is refused."""
    books, alpha = random_books(3, 5, 4)
    rule_set = replace(RULES, gap_ppm=5_000)
    spec = signal(alpha)
    best = Market().clear(books, spec, rule_set)
    assert Market().check(best, books, spec, rule_set) == ""
    part = best.slices[0]
    figures_of = matched_income(books[0], replace(part, assignments=part.assignments[1:]))
    first = part.assignments[0]
    comfort = sum(a * wh for a, wh in zip(alpha, first.slot_wh, strict=True))
    kept = part.comfort_u - comfort, part.charge_u - 200
    value = figures_of.contract_u - figures_of.response_u - sum(kept)
    less = replace(part, assignments=part.assignments[1:], value_u=value, comfort_u=kept[0], charge_u=kept[1])
    poorer = replace(best, slices=[less], value_u=value)
    assert Market().check_slice(books[0], less, best.rho_scaled, spec, rule_set) == ""  # honest in itself ...
    assert Market().check(poorer, books, spec, rule_set) == "solution-gap"  # ... and not the best
