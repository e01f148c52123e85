"""Pairs across areas: worth what they bring, certified without a book that is not one's own, and not alterable."""

from __future__ import annotations

import os
import random
from itertools import product
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_world import RICH, any_shift, bid, book_of, offer, paths_of, random_books, rules, shifted, signal
from msgspec.structs import replace
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Book, Border, Crossing, PairTerms, Slice, Solution
from watt_chain.contract.rules import RULES_1, RuleSet, check_rule_set
from watt_market import engine
from watt_market.across import inflow_wh
from watt_market.certificate import check_slice
from watt_market.engine import Market, Search
from watt_market.solver import SolverError
from watt_market.upper import problem

MUTATIONS = int(os.environ.get("MUTATIONS", "400")) // 4
"A share of the 25,000 of `make mutations`: each checks three areas and what ties them together."
ACROSS = rules(crossings=8)
LOOSE = rules(crossings=8, gap_ppm=1_000_000)


def two_streets() -> list[Book]:
    """One area with sellers only, one with buyers only: nothing inside either, everything between them."""
    sellers = [offer(1, 200, [100, 100]), offer(2, 300, [50, 0])]
    buyers = [bid(11, 500, [80, 120]), bid(12, 450, [60, 60])]
    return [book_of(sellers, [], 1), book_of([], buyers, 2)]


@pytest.mark.row("I10", "I12")
def test_a_pair_of_two_areas_pays_for_the_way_between_them() -> None:
    """'the communication time cost is ... 2X + Y': 5 * (2 * 20 + 60) for each contract."""
    books, spec = two_streets(), signal([40, 40])
    inside = Market().clear(books, spec, rules())
    assert (inside.value_u, inside.across) == (0, None)
    solution = Market().clear(books, spec, ACROSS)
    assert Market().check(solution, books, spec, ACROSS) == ""
    assert solution.across is not None and solution.slices[0].assignments == solution.slices[1].assignments == []
    crossings = solution.across.crossings
    assert solution.across.charge_u == 500 * len(crossings)
    worth_u = 0
    for one in crossings:
        seller, buyer = books[0].offers[one.offer], books[1].bids[one.bid]
        worth_u += (buyer.price_u_per_wh - seller.price_u_per_wh - 40) * sum(one.slot_wh) - 500
        terms = Market().crossing_terms(books[0], books[1], one, spec, ACROSS)
        middle = (buyer.price_u_per_wh + seller.price_u_per_wh + 40) // 2
        assert terms == PairTerms([middle, middle], 500)
    assert solution.value_u == worth_u > 0


@pytest.mark.row("I9")
def test_a_pair_inside_an_area_pays_less_and_is_preferred() -> None:
    books = [
        book_of([offer(1, 200, [100])], [bid(11, 500, [100])], 1),
        book_of([offer(2, 200, [100])], [bid(12, 500, [100])], 2),
    ]
    solution = Market().clear(books, signal([0]), ACROSS)
    assert solution.across is not None and solution.across.crossings == []
    assert [part.charge_u for part in solution.slices] == [200, 200]


def brute_force_u(books: list[Book], spec: EventSpec, rule_set: RuleSet) -> int:
    """The best of all matchings of one-slot books of a few Wh, inside and across."""
    areas = [problem(book, spec, rule_set) for book in books]
    sells = [(n, s) for n, area in enumerate(areas) for s in range(len(area.costs))]
    buys = [(n, b) for n, area in enumerate(areas) for b in range(len(area.values))]
    pairs = [(seller, buyer) for seller in sells for buyer in buys if books[seller[0]].offers[seller[1]].user !=
             books[buyer[0]].bids[buyer[1]].user]  # fmt: skip
    rooms = [
        int(min(areas[i].offer_caps[s, 0], areas[j].bid_caps[b, 0])) if areas[i].asks[s] < areas[j].values[b] else 0
        for (i, s), (j, b) in pairs
    ]
    best = 0
    for chosen in product(*(range(room + 1) for room in rooms)):
        value, spent = 0, 0
        left_s = {key: int(areas[key[0]].offer_caps[key[1], 0]) for key in sells}
        left_b = {key: int(areas[key[0]].bid_caps[key[1], 0]) for key in buys}
        for ((i, s), (j, b)), wh in zip(pairs, chosen, strict=True):
            if wh:
                charge, alpha = (areas[i].charge_u if i == j else areas[i].across_u), int(areas[i].alpha[s, 0])
                margin = int(areas[j].values[b] - areas[i].costs[s]) - alpha
                half = (margin + 1) // 2 * wh - charge // 2, margin // 2 * wh - (charge + 1) // 2
                value += margin * wh - charge if min(half) >= 0 else -(10**9)
                spent += alpha * wh + charge
                left_s[i, s] -= wh
                left_b[j, b] -= wh
        if min([*left_s.values(), *left_b.values()]) >= 0 and spent <= spec.budget_u:
            best = max(best, value)
    return best


@pytest.mark.parametrize("seed", range(16))
def test_given_tiny_books_then_the_matching_is_the_best_of_all_and_the_bound_is_above(seed: int) -> None:
    generator = random.Random(seed)

    def rows(first: int) -> tuple[list[Any], list[Any]]:
        sells = [offer(first, generator.randint(10, 90), [generator.randint(0, 4)])]
        return sells, [bid(first + 10 + n, generator.randint(20, 160), [generator.randint(0, 4)]) for n in range(2)]

    books = [book_of(*rows(1), 1), book_of(*rows(100), 2)]
    rule_set = rules(crossings=4, gap_ppm=1_000_000, gamma_u_per_ms=1)
    spec = replace(signal([generator.randint(0, 9)], x_ms=generator.randint(0, 9)), y_ms=generator.randint(0, 30))
    solution = Market().clear(books, spec, rule_set)
    best_u = brute_force_u(books, spec, rule_set)
    assert Market().check(solution, books, spec, rule_set) == ""
    assert solution.value_u == best_u <= solution.bound_u


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("budget_percent", [100, 70])
def test_given_several_areas_then_crossings_add_value_within_a_certified_gap(seed: int, budget_percent: int) -> None:
    books, alpha = random_books(seed, 7, 8, areas=3)
    free = Market().clear(books, signal(alpha), rules())
    budget_u = RICH if budget_percent == 100 else sum(p.comfort_u + p.charge_u for p in free.slices) * 7 // 10
    spec = signal(alpha, budget_u=budget_u)
    inside, solution = Market().clear(books, spec, rules()), Market().clear(books, spec, ACROSS)
    assert Market().check(solution, books, spec, ACROSS) == ""
    assert solution.across is not None and solution.across.crossings
    assert solution.value_u * 100 > inside.value_u * 105
    spent_u = sum(part.comfort_u + part.charge_u for part in [*solution.slices, solution.across])
    assert spent_u <= budget_u
    assert (solution.bound_u - solution.value_u) * 1_000 <= (4 if budget_u == RICH else 12) * solution.bound_u


def told(books: list[Book], spec: EventSpec, rule_set: RuleSet) -> tuple[Solution, list[Border]]:
    solution = Market().clear(books, spec, rule_set)
    borders = Market().borders(solution, books, spec, rule_set)
    return solution, [border for border in borders if border is not None]


def test_an_area_checks_its_slice_with_its_own_book_and_its_legs_alone() -> None:
    books, alpha = random_books(3, 4, 3, areas=3)
    spec = signal(alpha)
    solution, borders = told(books, spec, ACROSS)
    assert len(borders) == 3 and any(border.legs for border in borders)
    for book, part, border in zip(books, solution.slices, borders, strict=True):
        assert Market().check_slice(book, part, solution.rho_scaled, spec, ACROSS, border) == ""
        assert Market().check_slice(book, part, solution.rho_scaled, spec, ACROSS, None) == "slice-border"
        assert Market().check_slice(book, part, solution.rho_scaled, spec, rules(), border) == "slice-border"
        for leg in border.legs:
            row = (book.offers if leg.side == "sell" else book.bids)[leg.row]
            assert all(wh <= most for wh, most in zip(leg.slot_wh, row.slot_wh, strict=True))
    legs = [leg for border in borders for leg in border.legs]
    assert sorted(leg.number for leg in legs) == sorted(2 * [*range(1, len(legs) // 2 + 1)])


def test_given_a_wrong_leg_then_the_area_refuses_it_by_name() -> None:
    books, spec = two_streets(), signal([40, 40])
    solution, (border, _) = told(books, spec, ACROSS)
    part, first = solution.slices[0], border.legs[0]
    wrong = {
        "slice-leg-0-inadmissible": replace(first, row=7),
        "slice-leg-0-order": replace(first, number=0),
        "slice-leg-0-energy": replace(first, slot_wh=[0, 0]),
        "slice-leg-0-terms": replace(first, charge_u=499),
        "slice-leg-0-loses": replace(first, price_u_per_wh=[239, 239]),
        "slice-offer-0-slot-0-over-cap": replace(first, slot_wh=[101, 0], price_u_per_wh=[400, 400]),
    }
    for reason, leg in wrong.items():
        changed = replace(border, legs=[leg, *border.legs[1:]])
        assert check_slice(books[0], part, solution.rho_scaled, spec, ACROSS, changed) == reason
    own = replace(first, chain=1)
    assert check_slice(books[0], part, 0, spec, ACROSS, replace(border, legs=[own])) == "slice-leg-0-order"
    few = replace(ACROSS, crossings=1)
    solution, (_, border) = told(books, spec, ACROSS)
    by_bid = [leg for leg in border.legs if leg.row == border.legs[0].row]
    if len(by_bid) > 1:
        reason = check_slice(books[1], solution.slices[1], solution.rho_scaled, spec, few, border)
        assert reason == f"slice-bid-{by_bid[0].row}-crossings"


def test_given_a_bid_that_may_cross_once_then_it_has_one_partner_elsewhere() -> None:
    sellers = [offer(1, 200, [100]), offer(2, 210, [100]), offer(3, 220, [100])]
    books = [book_of(sellers, [], 1), book_of([], [bid(11, 500, [250])], 2)]
    for most in (1, 2, 3):
        solution = Market().clear(books, signal([0]), rules(crossings=most, gap_ppm=1_000_000))
        assert solution.across is not None and len(solution.across.crossings) == most


@pytest.mark.parametrize(("seed", "headroom_w"), [(1, []), (2, [(1, 200), (3, 400)])])
def test_given_any_integer_of_a_matching_changed_then_the_masters_name_a_row(
    seed: int, headroom_w: list[tuple[int, int]]
) -> None:
    books, alpha = random_books(seed, 4, 3, areas=3)
    rule_set = replace(LOOSE, headroom_w=headroom_w)
    free = Market().clear(books, signal(alpha), rule_set)
    spec = signal(alpha, budget_u=sum(p.comfort_u + p.charge_u for p in free.slices) * 9 // 10)
    solution = Market().clear(books, spec, rule_set)
    assert solution.across is not None and solution.across.crossings
    plain = msgspec.json.decode(msgspec.json.encode(solution))
    count = 0
    for path in paths_of(plain):
        for by in (1, -1, 1_000_000):
            changed = shifted(plain, path, by)
            reason = Market().check(msgspec.convert(changed, Solution), books, spec, rule_set)
            assert reason.startswith(("chain-", "across-", "solution-")), f"{path} {by:+d} passed"
            count += 1
    assert count > 150


@pytest.mark.timeout(7_200)
def test_given_many_mutations_of_whole_matchings_then_no_master_and_no_area_accepts_one() -> None:
    """One integer of a matching with crossings, with and without headroom, or of what an area is told: refused."""
    generator, accepted, cases = random.Random(11), [], []
    for seed, headroom_w in ((1, []), (2, [(1, 200), (3, 400)])):
        books, alpha = random_books(seed, 3, 3, areas=3)
        rule_set, spec = replace(LOOSE, headroom_w=headroom_w), signal(alpha, budget_u=400_000)
        solution = Market().clear(books, spec, rule_set)
        plain = msgspec.json.decode(msgspec.json.encode(solution))
        cases.append((books, spec, rule_set, plain, paths_of(plain)))
    for _ in range(MUTATIONS):
        books, spec, rule_set, plain, paths = generator.choice(cases)
        path = generator.choice(paths)
        changed = shifted(plain, path, any_shift(generator))
        reason = Market().check(msgspec.convert(changed, Solution), books, spec, rule_set)
        if not reason.startswith(("chain-", "across-", "solution-")):
            accepted.append((path, reason))
    assert accepted == []


def test_given_hostile_crossings_then_each_is_refused_by_name() -> None:
    books, spec = two_streets(), signal([40, 40])
    solution = Market().clear(books, spec, ACROSS)
    across = solution.across
    assert across is not None
    first = across.crossings[0]
    hostile: dict[str, dict[str, Any]] = {
        "across-crossing-1-areas": {"crossings": [replace(first, bid_chain=1)]},
        "across-crossing-1-inadmissible": {"crossings": [replace(first, bid=99)]},
        "across-crossing-1-energy": {"crossings": [replace(first, slot_wh=[1])]},
        "across-order": {"crossings": [first, first]},
        "across-prices": {"prices_scaled": [1]},
        "across-headroom": {"headroom_multipliers": []},
        "across-area-1-headroom": {"headroom_multipliers": [[0, 0], []]},
        "across-bound": {"bound_u": 1},
    }
    for reason, changes in hostile.items():
        broken = replace(solution, across=replace(across, **changes))
        assert Market().check(broken, books, spec, ACROSS) == reason
    assert Market().check(replace(solution, across=None), books, spec, ACROSS) == "solution-across"
    assert Market().check(solution, books, spec, rules()) == "solution-across"
    unknown = Crossing(1, 0, 7, 0, [1, 1])
    broken = replace(solution, across=replace(across, crossings=[unknown]))
    assert Market().check(broken, books, spec, ACROSS) == "across-crossing-1-areas"


def test_the_bound_holds_for_what_other_prices_would_match() -> None:
    """Soundness from outside: no matching found under any budget of the same books is worth more than the bound."""
    for seed in range(4):
        books, alpha = random_books(seed, 4, 3, areas=2)
        free = Market().clear(books, signal(alpha), LOOSE)
        for percent in (30, 60, 90):
            budget_u = sum(p.comfort_u + p.charge_u for p in free.slices) * percent // 100
            tight = Market().clear(books, signal(alpha, budget_u=budget_u), LOOSE)
            assert tight.value_u <= min(tight.bound_u, free.bound_u)


@pytest.mark.parametrize("watts", [0, 300, 10_000])
def test_transformer_headroom_limits_what_flows_in(watts: int) -> None:
    books, spec = two_streets(), signal([40, 40])
    rule_set = rules(crossings=8, headroom_w=[(2, watts)], gap_ppm=1_000_000)
    solution = Market().clear(books, spec, rule_set)
    assert solution.across is not None and Market().check(solution, books, spec, rule_set) == ""
    areas = [problem(book, spec, rule_set) for book in books]
    most = watts * spec.slot_s // 3_600
    flows = inflow_wh(solution.across.crossings, areas)[1]
    assert flows.max(initial=0) <= most
    if watts == 300:
        assert flows.tolist() == [most, most] and solution.across.bound_u > 0
        over = [replace(one, slot_wh=[one.slot_wh[0] + 1, *one.slot_wh[1:]]) for one in solution.across.crossings[:1]]
        broken = replace(solution.across, crossings=[*over, *solution.across.crossings[1:]])
        assert Market().check(replace(solution, across=broken), books, spec, rule_set).startswith("across-")


@given(
    seed=st.integers(0, 10_000),
    areas=st.integers(1, 4),
    x_ms=st.integers(0, 40),
    y_ms=st.integers(0, 200),
    headroom=st.lists(st.integers(0, 2_000), max_size=4),
    budget_u=st.sampled_from([0, 50_000, 400_000, RICH]),
    price_rule=st.sampled_from(["k-double", "uniform", "reduction"]),
    steps=st.booleans(),
)
def test_any_books_clear_to_a_certified_rational_and_affordable_matching(
    seed: int, areas: int, x_ms: int, y_ms: int, headroom: list[int], budget_u: int, price_rule: Any, steps: bool
) -> None:
    books, alpha = random_books(seed, 3, 3, areas)
    if steps:  # rows with totals
        books = [replace(b, offers=[replace(o, total_wh=max(1, sum(o.slot_wh) // 2)) for o in b.offers]) for b in books]
    limits = [(chain, watts) for chain, watts in enumerate(headroom[:areas], start=1)]
    rule_set = replace(LOOSE, headroom_w=limits, price_rule=price_rule)
    spec = replace(signal(alpha, x_ms=x_ms, budget_u=budget_u), y_ms=y_ms)
    solution = Market().clear(books, spec, rule_set)
    assert Market().check(solution, books, spec, rule_set) == ""
    borders = Market().borders(solution, books, spec, rule_set)
    for book, part, border in zip(books, solution.slices, borders, strict=True):
        assert Market().check_slice(book, part, solution.rho_scaled, spec, rule_set, border) == ""


def test_given_no_solver_then_the_search_is_certified_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise SolverError("none")

    monkeypatch.setattr(engine, "solve", fails)
    for seed in range(4):
        books, alpha = random_books(seed, 7, 8, areas=3)
        solution = Market().clear(books, signal(alpha), ACROSS)
        assert (solution.bound_u - solution.value_u) * 1_000 <= 6 * solution.bound_u


def test_given_a_search_stopped_after_any_step_then_what_it_has_is_certified() -> None:
    books, alpha = random_books(5, 5, 4, areas=3)
    spec, rule_set = signal(alpha, budget_u=600_000), replace(LOOSE, headroom_w=[(2, 500)])
    search = Search(books, spec, rule_set)
    assert Market().check(search.solution(), books, spec, rule_set) == ""
    for _ in search.steps():
        assert Market().check(search.solution(), books, spec, rule_set) == ""


def test_the_order_of_the_books_does_not_matter() -> None:
    books, alpha = random_books(6, 3, 3, areas=3)
    once = Market().clear(books, signal(alpha), ACROSS)
    assert Market().clear(books[::-1], signal(alpha), ACROSS) == once


def test_the_slices_of_rule_sets_without_crossings_carry_no_border() -> None:
    books, alpha = random_books(6, 5, 4, areas=2)
    solution = Market().clear(books, signal(alpha), rules())
    assert Market().borders(solution, books, signal(alpha), rules()) == [None, None]
    assert isinstance(solution.slices[0], Slice)


def test_given_too_many_crossings_then_the_rule_set_is_refused() -> None:
    assert check_rule_set(replace(RULES_1, crossings=16)) == ""
    assert check_rule_set(replace(RULES_1, crossings=17)) == "rule-crossings"
    assert np.array_equal([RULES_1.crossings], [0])
