"""Faults found in other energy markets, each as a test of ours."""

from __future__ import annotations

import random

import pytest
from market_world import bid, book_of, offer, random_books, rules, signal
from msgspec import msgpack
from watt_market.book import canonical
from watt_market.engine import Market
from watt_market.lower import grid_cost

FREE = rules(gamma_u_per_ms=0)


@pytest.mark.parametrize(
    ("over_wh", "under_wh", "cost_u"), [(40, 0, 24_000), (0, 40, 20_000), (40, 40, 44_000), (0, 0, 0)]
)
def test_given_two_deviations_then_each_is_priced_by_itself_in_integers(
    over_wh: int, under_wh: int, cost_u: int
) -> None:
    """One market keyed its penalties by area and charged the seller from the buyer's meter, in floats."""
    (cost,) = grid_cost([over_wh], [under_wh], [500], FREE)
    assert (cost.over_wh, cost.under_wh, cost.cost_u) == (over_wh, under_wh, cost_u)
    assert type(cost.cost_u) is int


@pytest.mark.parametrize("seed", range(5))
def test_given_one_slot_and_no_charge_then_the_surplus_is_that_of_the_sorted_merge(seed: int) -> None:
    """One market sorted its offers by falling price: it traded much, and lost half of the surplus."""
    generator = random.Random(seed)
    offers = [offer(n, generator.randint(50, 280), [generator.randint(50, 2_000)]) for n in range(1, 31)]
    bids = [bid(100 + n, generator.randint(80, 320), [generator.randint(50, 2_000)]) for n in range(1, 31)]
    costs = sorted(o.price_u_per_wh for o in offers for _ in range(o.slot_wh[0]))
    worths = sorted((b.price_u_per_wh for b in bids for _ in range(b.slot_wh[0])), reverse=True)
    attainable_u = sum(max(0, worth - cost) for worth, cost in zip(worths, costs, strict=False))
    solution = Market().clear([book_of(offers, bids)], signal([0]), FREE)
    assert solution.value_u == solution.bound_u == attainable_u


def test_given_equal_orders_then_none_of_them_is_lost() -> None:
    """One market merged equal positions and kept the last: 100 of 200 Wh were cleared."""
    twins = [offer(n, 100, [100, 100]) for n in (1, 2)]
    pair = [bid(n, 400, [100, 100]) for n in (11, 12)]
    part = Market().clear([book_of(twins, pair)], signal([0, 0]), FREE).slices[0]
    sold = [[sum(a.slot_wh[t] for a in part.assignments if a.offer == s) for t in range(2)] for s in range(2)]
    bought = [[sum(a.slot_wh[t] for a in part.assignments if a.bid == b) for t in range(2)] for b in range(2)]
    assert sold == bought == [[100, 100], [100, 100]]


@pytest.mark.parametrize("seed", range(4))
def test_given_the_same_orders_in_any_order_then_the_result_is_the_same_to_the_byte(seed: int) -> None:
    """One market shuffled its orders without a seed, so that no auditor could run it again."""
    books, alpha = random_books(seed, 8, 6, areas=2)
    spec = signal(alpha)
    first = msgpack.encode(Market().clear(books, spec, rules()))
    for turn in range(2):
        generator = random.Random(turn)
        shuffled = []
        for book in books:
            offers, bids = list(book.offers), list(book.bids)
            generator.shuffle(offers)
            generator.shuffle(bids)
            shuffled.append(canonical(book.event, book.chain, offers, bids))
        generator.shuffle(shuffled)
        assert msgpack.encode(Market().clear(shuffled, spec, rules())) == first
