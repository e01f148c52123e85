"""Books: canonical order, and every malformed one refused by name."""

from __future__ import annotations

import random

import pytest
from market_world import bid, book_of, offer, rules, signal, terms_of, user
from msgspec.structs import replace
from watt_chain.contract.market import Bid, Offer
from watt_market.book import canonical, check_book
from watt_market.engine import Market
from watt_market.upper import admissible

SPEC = signal([10, 10])


def good() -> tuple[list[Offer], list[Bid]]:
    return (
        [offer(n, 100 + n, [50, 60]) for n in (3, 1, 2)],
        [bid(n, 400 + n, [70, 20]) for n in (12, 13, 11)],
    )


def test_given_any_order_of_arrival_then_the_book_is_the_same() -> None:
    offers, bids = good()
    books = []
    for seed in range(6):
        random.Random(seed).shuffle(offers)
        random.Random(seed + 1).shuffle(bids)
        books.append(canonical(1, 1, offers, bids))
    assert all(book == books[0] for book in books)
    assert [row.index for row in books[0].offers] == [0, 1, 2]
    assert [row.user for row in books[0].bids] == [user(11), user(12), user(13)]
    assert check_book(books[0], SPEC) == ""


def test_given_a_malformed_book_then_the_row_is_named() -> None:
    book = book_of(*good())
    first, second = book.offers[0], book.offers[1]
    buyer = book.bids[2]
    broken = {
        "book-event": replace(book, event=2),
        "book-offer-0-index": replace(book, offers=[replace(first, index=1)]),
        "book-offer-1-order": replace(book, offers=[first, replace(first, index=1)]),
        "book-offer-1-slots": replace(book, offers=[first, replace(second, slot_wh=[1])]),
        "book-offer-0-price": replace(book, offers=[replace(first, price_u_per_wh=-1)]),
        "book-offer-0-slot-1-energy": replace(book, offers=[replace(first, slot_wh=[1, -1])]),
        "book-offer-0-credit": replace(book, offers=[replace(first, credit=-1)]),
        "book-bid-2-limit": replace(book, bids=[*book.bids[:2], replace(buyer, limit_u=-1)]),
        "book-bid-2-also-sells": replace(book, offers=[replace(first, user=buyer.user)]),
    }
    for reason, case in broken.items():
        assert check_book(case, SPEC) == reason


def test_pairs_follow_the_rule_alone() -> None:
    book = book_of(
        [offer(1, 100, [50, 0]), offer(2, 400, [50, 50]), offer(3, 100, [0, 0])],
        [bid(11, 400, [0, 70]), bid(12, 401, [70, 0]), bid(13, 7_000, [9, 9])],
    )
    # 0-0 shares no slot; 1-0 has no margin; 2 offers nothing; bid 2 is over the price cap of 6,000.
    assert admissible(book, rules()) == [(0, 1), (1, 1)]


@pytest.mark.row("I5", "J10")
def test_given_less_credit_then_the_default_risk_raises_the_price_and_can_close_a_pair() -> None:
    rule_set, buyer = rules(risk_u_per_wh=100), bid(11, 300, [100, 100])
    prices = []
    for credit in (100, 80, 60, 50):
        terms = terms_of(offer(1, 200, [100, 100], credit), buyer, [100, 100], SPEC, rule_set)
        prices.append(terms.price_u_per_wh[0])
    assert prices == [255, 265, 275, 280]
    sold = []
    for credit in (100, 5):
        book = book_of([offer(1, 200, [100, 100], credit)], [buyer])
        sold.append(len(Market().clear([book], SPEC, rule_set).slices[0].assignments))
    assert sold == [1, 0]
