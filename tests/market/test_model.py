"""The parts of the full model one by one: totals, own comfort, comfort steps, batteries, photovoltaics, the grid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_world import RICH, bid, book_of, brute_force_u, offer, random_books, rules, signal, terms_of, user
from msgspec.structs import replace
from watt_chain.contract.market import Assignment, Book, Offer, Slice, Solution
from watt_market.book import check_book, stepped
from watt_market.engine import Market
from watt_market.options import STEPS_THREE
from watt_market.schedule import (
    GRID_USER,
    Battery,
    ScheduleError,
    battery_bid,
    battery_offer,
    grid_bid,
    least_ask_u_per_wh,
    plan,
    pv_offer,
    pv_surplus_wh,
)
from watt_market.upper import problem

RULES = rules(gap_ppm=1_000_000)
CAR = Battery(40_000, 20_000, 18_000, 7_000, 950_000, 950_000, 30)


def clear(book: Book, alpha: list[int], **changes: int) -> tuple[Slice, Solution]:
    solution = Market().clear([book], signal(alpha, **changes), RULES)
    return solution.slices[0], solution


@pytest.mark.parametrize("seed", range(6))
def test_given_totals_then_they_hold_and_the_matching_is_the_best_of_all(seed: int) -> None:
    books, alpha = random_books(seed, 2, 2, most_wh=16)
    book = replace(
        books[0],
        offers=[replace(row, total_wh=2 + seed % 2, slot_wh=[2, 2]) for row in books[0].offers],
        bids=[replace(row, total_wh=3, slot_wh=[2, 2], limit_u=RICH) for row in books[0].bids],
    )
    spec = signal(alpha, x_ms=1)
    part, solution = clear(book, alpha, x_ms=1)
    for index, row in enumerate(book.offers):
        assert sum(sum(a.slot_wh) for a in part.assignments if a.offer == index) <= row.total_wh
    for index, row in enumerate(book.bids):
        assert sum(sum(a.slot_wh) for a in part.assignments if a.bid == index) <= row.total_wh
    best_u = brute_force_u(problem(book, spec, RULES), RICH)
    assert solution.value_u <= best_u <= solution.bound_u
    assert solution.value_u == best_u


def test_given_a_total_then_its_multiplier_closes_the_bound() -> None:
    book = book_of([replace(offer(1, 200, [1_000, 1_000]), total_wh=1_000)], [bid(11, 500, [1_000, 1_000])])
    part, solution = clear(book, [10, 40])
    assert part.assignments == [Assignment(0, 0, [1_000, 0])]
    assert sum(part.offer_totals + part.bid_totals + [row[0] for row in part.offer_multipliers]) > 0
    assert (solution.bound_u - solution.value_u) * 1_000 <= solution.bound_u


def test_given_energy_over_a_total_then_the_row_is_named() -> None:
    book = book_of([replace(offer(1, 200, [100, 100]), total_wh=120)], [bid(11, 500, [100, 100])])
    part, solution = clear(book, [10, 10])
    (pair,) = part.assignments
    more = replace(part, assignments=[replace(pair, slot_wh=[100, 21])])
    reason = Market().check_slice(book, more, solution.rho_scaled, signal([10, 10]), RULES)
    assert reason == "slice-offer-0-over-total"


@pytest.mark.row("I8")
def test_given_a_household_that_minds_more_then_its_own_comfort_coefficient_decides() -> None:
    """U17: per-household override."""
    easy, hard = offer(1, 200, [100]), replace(offer(2, 190, [100]), alpha_u_per_wh=[150])
    part, _ = clear(book_of([easy, hard], [bid(11, 500, [100])]), [40])
    assert [a.offer for a in part.assignments] == [0]
    assert part.comfort_u == 40 * 100
    terms = terms_of(hard, bid(11, 500, [100]), [100], signal([40]), RULES)
    assert terms.price_u_per_wh == [(500 + 190 + 150) // 2]


@pytest.mark.row("I7")
def test_given_comfort_steps_then_the_last_third_is_given_up_last() -> None:
    """U17: quadratic in the amount given up, by three price steps per offer."""
    spec = signal([90])
    rows = stepped(offer(1, 200, [301]), spec, STEPS_THREE)
    assert [(row.slot_wh, row.alpha_u_per_wh) for row in rows] == [([101], [60]), ([100], [90]), ([100], [119])]
    part, _ = clear(book_of(rows, [bid(11, 310, [1_000])]), [90])
    assert [(a.offer, a.slot_wh) for a in part.assignments] == [(0, [101]), (1, [100])]


def test_given_one_step_or_the_wrong_order_then_rows_stay_and_strangers_are_refused() -> None:
    spec, row = signal([90]), offer(1, 200, [300])
    assert stepped(row, spec, (1_000_000,)) == [row]
    rows = stepped(row, spec, STEPS_THREE)
    book = book_of(rows, [])
    assert check_book(book, spec) == ""
    cheaper = replace(book, offers=[book.offers[0], replace(book.offers[1], price_u_per_wh=100), book.offers[2]])
    assert check_book(cheaper, spec) == "book-offer-1-order"
    twice = replace(book, offers=[book.offers[0], replace(book.offers[0], index=1)])
    assert check_book(twice, spec) == "book-offer-1-order"


@pytest.mark.row("L9")
def test_a_battery_discharges_at_the_peak_and_charges_at_low_load() -> None:
    """'select discharge at the peak load and charge at the low load'."""
    peak = [False, True, True, False]
    made = plan(CAR, peak, 3_600, [100, 500, 400, 120])
    assert made.discharge_wh[0] == made.discharge_wh[3] == 0
    assert made.charge_wh[1] == made.charge_wh[2] == 0
    assert made.discharge_wh[1] > 0
    assert made.stored_mwh[-1] >= CAR.departure_wh * 1_000
    sale = battery_offer(user(1), CAR, made, 220, 60)
    part, _ = clear(book_of([sale], [bid(11, 900, [5_000] * 4)]), [0] * 4)
    assert [a.slot_wh for a in part.assignments] == [[min(5_000, wh) for wh in made.discharge_wh]]
    thirsty = replace_battery(CAR, stored_wh=5_000)
    need = plan(thirsty, peak, 3_600, [100, 500, 400, 120])
    purchase = battery_bid(user(2), need, 400, RICH)
    assert purchase.slot_wh == need.charge_wh
    assert purchase.slot_wh[0] == 7_000


def replace_battery(battery: Battery, **changes: int) -> Battery:
    import dataclasses

    return dataclasses.replace(battery, **changes)


@given(
    stored=st.integers(0, 40_000),
    departure=st.integers(0, 40_000),
    power=st.integers(0, 11_000),
    peak=st.lists(st.booleans(), min_size=1, max_size=8),
    eta=st.integers(500_000, 1_000_000),
)
def test_a_battery_never_promises_what_is_not_in_it(
    stored: int, departure: int, power: int, peak: list[bool], eta: int
) -> None:
    battery = Battery(40_000, stored, departure, power, eta, eta, 10)
    try:
        made = plan(battery, peak, 900, list(range(len(peak))))
    except ScheduleError:
        return
    assert all(0 <= state <= 40_000_000 for state in made.stored_mwh)
    assert made.stored_mwh[-1] >= departure * 1_000
    assert max(made.charge_wh + made.discharge_wh) <= power * 900 // 3_600
    assert not any(c and d for c, d in zip(made.charge_wh, made.discharge_wh, strict=True))


@pytest.mark.row("L10")
def test_a_battery_s_least_ask_covers_losses_and_wear_so_that_selling_never_loses() -> None:
    """'in combination with the incentive compatibility demand in the new energy electric vehicle Internet'."""
    ask = least_ask_u_per_wh(CAR, 220)
    assert ask == -(-220 * 10**12 // (950_000 * 950_000)) + 30 == 274
    made = plan(CAR, [False, True], 3_600, [0, 1])
    book = book_of([battery_offer(user(1), CAR, made, 220, 60)], [bid(11, 300, [9_000, 9_000])])
    part, _ = clear(book, [0, 0])
    (pair,) = part.assignments
    prices = terms_of(book.offers[0], book.bids[0], pair.slot_wh, signal([0, 0]), RULES).price_u_per_wh
    assert min(prices) >= ask
    part, _ = clear(book_of([battery_offer(user(1), CAR, made, 220, 60)], [bid(11, 273, [9_000, 9_000])]), [0, 0])
    assert part.assignments == []


@pytest.mark.row("L11")
def test_photovoltaics_serve_the_own_home_first() -> None:
    """'photovoltaic new energy technology is used to realize the self-use of photovoltaic power generation'."""
    assert pv_surplus_wh([0, 500, 900, 100], [200, 300, 1_000, 100]) == [0, 200, 0, 0]
    row = pv_offer(user(1), [0, 500, 900], [200, 300, 1_000], 80, 120, 60, into_pool=True)
    assert row is not None
    assert (row.slot_wh, row.price_u_per_wh) == ([0, 200, 0], 120)


@pytest.mark.row("L12")
def test_surplus_goes_to_the_grid_at_the_user_s_discretion() -> None:
    """'Excess electricity can be sold to grid companies at the discretion of low-voltage users'."""
    assert pv_offer(user(1), [500], [300], 80, 120, 60, into_pool=False) is None
    cheap = pv_offer(user(1), [500], [300], 80, 10, 60, into_pool=True)
    assert isinstance(cheap, Offer)
    assert cheap.price_u_per_wh == 80
    part, _ = clear(book_of([cheap], [grid_bid(signal([0]), [150], RICH)]), [0])
    assert part.assignments == [Assignment(0, 0, [150])]


def test_the_grid_buys_missing_reduction_at_the_compensation_price() -> None:
    spec = signal([10, 10])
    row = grid_bid(spec, [300, -5], RICH)
    assert (row.user, row.price_u_per_wh, row.slot_wh) == (GRID_USER, spec.compensation_price_u_per_wh, [300, 0])
    part, _ = clear(book_of([offer(1, 100, [500, 500])], [row, bid(11, 400, [300, 300])]), [10, 10])
    bought = {a.bid: a.slot_wh for a in part.assignments}
    assert bought == {0: [200, 0], 1: [300, 300]}


@pytest.mark.parametrize(
    ("figure", "words"),
    [({"stored_wh": 50_000}, "stored 50000"), ({"departure_wh": -1}, "departure -1"), ({"charge_ppm": 0}, "efficienc"),
     ({"power_w": -1}, "power -1"), ({"departure_wh": 39_000, "power_w": 100}, "cannot be reached")],
)  # fmt: skip
def test_given_an_impossible_battery_then_the_figure_is_named(figure: dict[str, int], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        plan(replace_battery(CAR, **figure), [False, True], 3_600, [0, 1])


@pytest.mark.parametrize(
    ("row", "reason"),
    [(replace(offer(1, 100, [5, 5]), total_wh=-1), "total"), (replace(offer(1, 100, [5, 5]), total_wh=10**9), "total"),
     (replace(offer(1, 100, [5, 5]), alpha_u_per_wh=[1]), "comfort"),
     (replace(offer(1, 100, [5, 5]), alpha_u_per_wh=[1, -1]), "comfort"),
     (offer(1, -5, [5, 5]), "price"), (offer(1, 10**9, [5, 5]), "price"), (offer(1, 100, [5, -5]), "slot-1-energy"),
     (offer(1, 100, [5, 10**9]), "slot-1-energy"), (offer(1, 100, [5]), "slots"),
     (offer(1, 100, [5, 5], credit=-1), "credit")],
)  # fmt: skip
def test_given_a_bad_row_then_the_book_names_it(row: Offer, reason: str) -> None:
    assert check_book(book_of([row], []), signal([0, 0])) == f"book-offer-0-{reason}"
