"""The certificate: sound for any multipliers, exact, and no number of it can be altered unnoticed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_world import bid, book_of, offer, random_books, rules, signal
from msgspec.structs import replace
from watt_chain.contract.market import MULTIPLIER_SCALE, Across, Assignment, Slice, Solution
from watt_market.border import Multipliers
from watt_market.bound import Bound
from watt_market.certificate import check_slice, check_solution
from watt_market.dual import polish
from watt_market.engine import Market
from watt_market.upper import AreaProblem, problem

RULES = rules()
Path = tuple[int, ...]

SLICE_FIELDS = Slice.__struct_fields__


def integers(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of all integers of a tree of lists."""
    if isinstance(tree, int):
        yield path
    else:
        for index, branch in enumerate(tree):
            yield from integers(branch, (*path, index))


def changed(part: Slice, path: Path, by: int) -> Slice:
    tree = copy.deepcopy(msgspec.to_builtins(part))
    branch = tree
    for index in path[:-1]:
        branch = branch[index]
    branch[path[-1]] += by
    return msgspec.convert(tree, Slice)


@pytest.mark.parametrize(("seed", "binding"), [(0, False), (1, True), (2, True)])
def test_given_any_integer_of_a_slice_changed_then_a_row_fails_and_is_named(seed: int, binding: bool) -> None:
    books, alpha = random_books(seed, 5, 4)
    spec = signal(alpha)
    if binding:
        free = Market().clear(books, spec, RULES)
        spec = signal(alpha, budget_u=(free.slices[0].comfort_u + free.slices[0].charge_u) * 7 // 10)
    solution = Market().clear(books, spec, RULES)
    part = solution.slices[0]
    assert check_slice(books[0], part, solution.rho_scaled, spec, RULES) == ""
    count = 0
    for path in integers(msgspec.to_builtins(part)):
        for by in (1, -1, 1_000, MULTIPLIER_SCALE):
            reason = check_slice(books[0], changed(part, path, by), solution.rho_scaled, spec, RULES)
            assert reason.startswith("slice-"), f"{SLICE_FIELDS[path[0]]}{path[1:]} {by:+d} passed"
            count += 1
    assert count > 150


def test_given_any_integer_of_a_solution_changed_then_a_row_fails_and_is_named() -> None:
    books, alpha = random_books(1, 5, 4, areas=2)
    free = Market().clear(books, signal(alpha), RULES)
    spec = signal(alpha, budget_u=sum(p.comfort_u + p.charge_u for p in free.slices) * 8 // 10)
    solution = Market().clear(books, spec, RULES)
    assert Market().check(solution, books, spec, RULES) == ""
    for field in ("event", "rho_scaled", "value_u", "bound_u"):
        for by in (1, -1, 1_000):
            broken = replace(solution, **{field: getattr(solution, field) + by})
            assert Market().check(broken, books, spec, RULES), f"{field} {by:+d} passed"
    assert Market().check(replace(solution, slices=solution.slices[::-1]), books, spec, RULES) == "solution-slices"
    assert Market().check(replace(solution, slices=solution.slices[:1]), books, spec, RULES) == "solution-slices"


def drawn(area: AreaProblem, seed: int, spread: int) -> Multipliers:
    generator, at = random.Random(seed), Multipliers.zeros(area)
    for table in (at.u, at.q):
        table[:] = np.array([[generator.randint(0, spread) for _ in row] for row in table.tolist()])
    return at


@given(seed=st.integers(0, 50), rho=st.integers(0, 5 * MULTIPLIER_SCALE), spread=st.integers(0, 10**9))
def test_the_bound_holds_for_any_multipliers(seed: int, rho: int, spread: int) -> None:
    books, alpha = random_books(seed, 3, 3)
    spec = signal(alpha, budget_u=10**6)
    area = problem(books[0], spec, RULES)
    at = drawn(area, seed, spread)
    value_u = Market().clear(books, spec, RULES).value_u
    for bound in (Bound(area, rho, at), polish(area, rho, at)):
        assert bound.scaled() + rho * spec.budget_u >= value_u * MULTIPLIER_SCALE


@given(seed=st.integers(0, 200), spread=st.integers(0, 10**9))
def test_polished_multipliers_are_least_and_never_worse(seed: int, spread: int) -> None:
    books, alpha = random_books(seed, 3, 3)
    area = problem(books[0], signal(alpha), RULES)
    at = drawn(area, seed, spread)
    polished = polish(area, 0, at)
    assert polished.scaled() <= Bound(area, 0, at).scaled()
    assert polished.not_least() == ""
    for name in ("u", "q"):
        table = getattr(polished.at, name)
        for index, slot in np.argwhere(table > 0):
            lowered = polished.at.copy()
            getattr(lowered, name)[index, slot] -= 1
            assert Bound(area, 0, lowered).scaled() > polished.scaled()


def bound_in_plain_integers(area: AreaProblem, rho: int, at: Multipliers) -> int:
    """The formula of model 1.4, term by term."""
    w, d, alpha = area.offer_caps.tolist(), area.bid_caps.tolist(), area.alpha.tolist()
    u, q, c, v = at.u.tolist(), at.q.tolist(), area.costs.tolist(), area.values.tolist()
    slots = range(area.slots)
    found = sum(w[s][t] * u[s][t] for s in range(len(w)) for t in slots)
    found += sum(d[b][t] * q[b][t] for b in range(len(d)) for t in slots)
    for s, b in np.argwhere(area.allowed).tolist():
        gain = -(MULTIPLIER_SCALE + rho) * area.charge_u
        for t in slots:
            worth = MULTIPLIER_SCALE * (v[b] - c[s]) - (MULTIPLIER_SCALE + rho) * alpha[s][t] - u[s][t] - q[b][t]
            gain += min(w[s][t], d[b][t]) * max(0, worth)
        found += max(0, gain)
    return int(found)


@given(seed=st.integers(0, 30), rho=st.integers(0, 10**7), shift=st.integers(0, 58))
def test_the_bound_is_the_formula_where_64_bits_do_and_where_they_would_not(seed: int, rho: int, shift: int) -> None:
    books, alpha = random_books(seed, 3, 3)
    area = problem(books[0], signal(alpha), RULES)
    at = drawn(area, seed, 10**8)
    at.u = at.u.astype(object) + (1 << shift)
    expected = bound_in_plain_integers(area, rho, at)
    bound = Bound(area, rho, at)
    assert bound.scaled() == expected
    assert (bound.kind is object) == (shift > 48) or 44 <= shift <= 52


def cleared() -> tuple[Any, Any, Solution]:
    book = book_of(
        [offer(1, 200, [100, 100]), offer(2, 250, [100, 0])], [bid(11, 500, [120, 50]), bid(12, 450, [60, 70])]
    )
    spec = signal([40, 50])
    return book, spec, Market().clear([book], spec, RULES)


def test_given_hostile_shapes_then_each_is_refused_by_name() -> None:
    book, spec, solution = cleared()
    part = solution.slices[0]
    first = part.assignments[0]
    hostile = {
        "slice-chain": replace(part, chain=9),
        "slice-pair-0-inadmissible": replace(part, assignments=[replace(first, offer=7)]),
        "slice-pair-1-order": replace(part, assignments=[first, first]),
        "slice-pair-0-energy": replace(part, assignments=[Assignment(first.offer, first.bid, [])]),
        "slice-offer-multipliers": replace(part, offer_multipliers=[]),
        "slice-offer-0-multipliers": replace(part, offer_multipliers=[[1], *part.offer_multipliers[1:]]),
        "slice-bid-1-multipliers": replace(part, bid_multipliers=[part.bid_multipliers[0], [0, -1]]),
        "slice-value": replace(part, assignments=[]),
    }
    for reason, broken in hostile.items():
        assert check_slice(book, broken, solution.rho_scaled, spec, RULES) == reason
    huge = replace(part, offer_multipliers=[[10**30, 0], [0, 0]])
    assert check_slice(book, huge, 0, spec, RULES) == "slice-offer-0-multipliers"
    assert check_slice(book, part, -1, spec, RULES) == "slice-rho"


def test_given_energy_over_a_cap_or_below_comfort_then_it_is_refused_even_with_matching_sums() -> None:
    book = book_of([offer(1, 200, [100, 100])], [bid(11, 260, [100, 100])])
    spec = signal([40, 70], x_ms=0)
    none = Slice(1, [], [[0, 0]], [[0, 0]], 0, 0, 0, 0)
    over = replace(none, assignments=[Assignment(0, 0, [101, 0])], value_u=20 * 101, comfort_u=40 * 101)
    assert check_slice(book, over, 0, spec, RULES) == "slice-offer-0-slot-0-over-cap"
    cold = replace(none, assignments=[Assignment(0, 0, [50, 1])], value_u=20 * 50 - 10, comfort_u=40 * 50 + 70)
    assert check_slice(book, cold, 0, spec, RULES) == "slice-pair-0-slot-1-below-comfort"


def test_given_a_pair_that_does_not_earn_its_charge_then_it_is_refused() -> None:
    book = book_of([offer(1, 200, [100])], [bid(11, 260, [100])])
    spec = signal([40], x_ms=20)  # charge 200 u; 9 Wh earn 180 u
    part = Slice(1, [Assignment(0, 0, [9])], [[0]], [[0]], 180 - 200, 360, 200, 0)
    assert check_slice(book, part, 0, spec, RULES) == "slice-pair-0-loses"


def test_given_a_slice_over_the_budget_then_the_solution_is_refused() -> None:
    _, _, solution = cleared()
    spent_u = sum(part.comfort_u + part.charge_u for part in solution.slices)
    assert check_solution(solution, signal([40, 50], budget_u=spent_u), RULES) == ""
    assert check_solution(solution, signal([40, 50], budget_u=spent_u - 1), RULES) == "solution-budget"


def test_given_a_poor_matching_with_a_true_bound_then_the_gap_refuses_it() -> None:
    book, spec, solution = cleared()
    part = solution.slices[0]
    empty = replace(part, assignments=[], value_u=0, comfort_u=0, charge_u=0)
    assert check_slice(book, empty, solution.rho_scaled, spec, RULES) == ""
    lazy = replace(solution, slices=[empty], value_u=0)
    assert check_solution(lazy, spec, RULES) == "solution-gap"
    assert check_solution(replace(solution, slices=[part, part]), spec, RULES) == "solution-slices"


def test_given_pairs_across_areas_then_they_are_refused_where_the_rules_know_none() -> None:
    _, spec, solution = cleared()
    free = Across([], [], [], 1_000, 0, 0, 1_000, 0)
    richer = replace(solution, across=free, value_u=solution.value_u + 1_000, bound_u=solution.bound_u + 1_000)
    assert check_solution(richer, spec, RULES) == "solution-across"


def test_given_a_value_above_its_bound_then_the_solution_is_refused() -> None:
    _, spec, solution = cleared()
    part = solution.slices[0]
    lie = replace(part, bound_u=part.value_u - 1)
    bound_u = solution.bound_u - part.bound_u + lie.bound_u
    assert check_solution(replace(solution, slices=[lie], bound_u=bound_u), spec, RULES) == "solution-gap"
