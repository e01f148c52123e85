"""Branch trees in a certificate: they tighten the bound, must cover everything, and no integer of them can change."""

from __future__ import annotations

import os
import random

import msgspec
import numpy as np
import pytest
from market_world import any_shift, paths_of, random_books, rules, shifted, signal
from msgspec.structs import replace
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE, Book, Leaf, Slice, Solution
from watt_market.bound import ceil_div
from watt_market.certificate import check_slice
from watt_market.dual import polish
from watt_market.engine import Market
from watt_market.greedy import priced, start_at
from watt_market.upper import problem

RULES = rules(gap_ppm=1_000_000)
MUTATIONS = int(os.environ.get("MUTATIONS", "1000"))
"A share of the 100,000 of `make mutations`."


def with_tree(seed: int) -> tuple[Book, EventSpec, Solution, Slice]:
    """A matching whose bound is a tree of three leaves: a pair out; in with another one out; both in."""
    books, alpha = random_books(seed + 1, 5, 4)
    spec = signal(alpha, x_ms=400)
    solution = Market().clear(books, spec, RULES)
    area, part, rho = problem(books[0], spec, RULES), solution.slices[0], solution.rho_scaled
    first, second = [(int(s), int(b)) for s, b in np.argwhere(area.allowed)[:2]]
    paths = [[(*first, 0)], [(*first, 1), (*second, 0)], [(*first, 1), (*second, 1)]]
    leaves = []
    for path in paths:
        bound = polish(area, rho, start_at(area, rho, priced(area, rho).prices), path)
        scaled, at = bound.scaled(), bound.at
        bound_u = ceil_div(scaled, MULTIPLIER_SCALE)
        leaves.append(Leaf(path, at.u.tolist(), at.q.tolist(), [], [], bound_u, bound_u * MULTIPLIER_SCALE - scaled))
    tree = replace(
        part, offer_multipliers=[], bid_multipliers=[], spare_scaled=0, leaves=leaves,
        bound_u=max(leaf.bound_u for leaf in leaves),
    )  # fmt: skip
    return books[0], spec, solution, tree


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_of_leaves_bounds_the_matching(seed: int) -> None:
    book, spec, solution, tree = with_tree(seed)
    assert check_slice(book, tree, solution.rho_scaled, spec, RULES) == ""
    assert tree.bound_u >= solution.value_u


def test_given_a_tree_that_leaves_something_out_then_it_is_refused() -> None:
    book, spec, solution, tree = with_tree(0)
    a, b, c = tree.leaves
    for leaves in ([a], [a, b], [b, c], [a, c, b], [a, b, c, c], [c, b, a], [a, b, replace(c, fixed=c.fixed[:1])]):
        broken = replace(tree, leaves=leaves)
        assert check_slice(book, broken, solution.rho_scaled, spec, RULES) in ("slice-leaves", "slice-leaf-0-bound")
    strange = replace(tree, leaves=[replace(leaf, fixed=[(99, 0, v)]) for v, leaf in enumerate((a, b))])
    assert check_slice(book, strange, solution.rho_scaled, spec, RULES) == "slice-leaf-0-fixed"
    both = replace(tree, offer_totals=[1, 0, 0, 0])
    assert check_slice(book, both, solution.rho_scaled, spec, RULES) == "slice-leaves-beside-a-root"


@pytest.mark.timeout(3600)
def test_given_many_mutations_then_no_station_accepts_one() -> None:
    """10^5 certificates with one integer changed, whole matchings with and without a tree: each is refused."""
    generator, accepted = random.Random(7), []
    cases = []
    for seed in range(3):
        book, spec, solution, tree = with_tree(seed)
        for part in (solution.slices[0], tree):
            plain = msgspec.json.decode(msgspec.json.encode(part))  # lists all the way down
            cases.append((book, spec, solution.rho_scaled, plain, paths_of(plain)))
    for _ in range(MUTATIONS):
        book, spec, rho, plain, paths = generator.choice(cases)
        path = generator.choice(paths)
        changed = shifted(plain, path, any_shift(generator))
        reason = check_slice(book, msgspec.convert(changed, Slice), rho, spec, RULES)
        if not reason.startswith("slice-"):
            accepted.append((path, reason))
    assert accepted == []
