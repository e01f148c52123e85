"""Sealed bids, deposits, qualification."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, DEPOSIT_U, GRID, REGULATOR, Home, Plan, Play, World
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.bidding import book_root, commitment_of
from watt_chain.contract.event import State
from watt_chain.contract.market import Book
from watt_chain.contract.objects import book_key
from watt_chain.contract.rules import RULES_1

LOAD = [0] * 4


def one(side: str = "sell", wh: int = 10, price: int = 300, **home: object) -> tuple[World, Play, Plan]:
    world = World(areas=1, homes=[Home(0, 1, **home)])  # type: ignore[arg-type]
    plan = Plan(world.homes[0], side, price, [wh] * 4, LOAD)
    return world, Play(world, [plan]), plan


def qualified_as(world: World, play: Play, plan: Plan) -> str:
    play.run(State.QUALIFIED)
    status = world.sealed(plan.home).status
    book = codec.decode(world.ledgers[1].state.get(book_key(1)) or b"", Book)
    assert (len(book.offers) + len(book.bids) == 1) == (status == "qualified")
    return status


def test_a_bid_that_is_never_opened_loses_its_deposit_to_the_grid() -> None:
    world, play, plan = one()
    plan.reveal = False
    assert qualified_as(world, play, plan) == "no-reveal"
    assert world.account(1, plan.home.key.public).free_u == DEPOSIT_U - RULES_1.commit_deposit_u
    assert world.account(1, plan.home.key.public).bond_u == 0
    assert world.account(1, GRID.public).free_u == RULES_1.commit_deposit_u


def test_a_valid_reveal_gets_its_deposit_back_when_the_book_closes() -> None:
    world, play, plan = one()
    play.run(State.REVEAL)
    account = world.account(1, plan.home.key.public)
    assert (account.free_u, account.bond_u) == (DEPOSIT_U - RULES_1.commit_deposit_u, RULES_1.commit_deposit_u)
    play.reveal()
    account = world.account(1, plan.home.key.public)
    assert (account.free_u, account.bond_u) == (DEPOSIT_U, 0)


@pytest.mark.row("J10")
@pytest.mark.parametrize(
    ("status", "case"),
    [
        ("qualified", {}),
        ("qualified", {"wh": 160}),
        ("over-quota", {"wh": 161}),
        ("above-rated", {"wh": 26, "rated_w": 100}),
        ("qualified", {"side": "buy", "wh": 500}),
        ("above-rated", {"side": "buy", "wh": 501}),
        ("balance", {"side": "buy", "wh": 500, "annual_kwh": 1_000_000, "rated_w": 25_000, "price": 6000}),
    ],
)
def test_qualification_names_why_a_bid_is_not_in_the_book(status: str, case: dict[str, object]) -> None:
    """J10: "it is necessary to ensure that the seller is qualified to provide demand response quantity"."""
    world, play, plan = one(**case)  # type: ignore[arg-type]
    if status == "balance":
        keep = RULES_1.commit_deposit_u
        assert world.call(1, plan.home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U - keep)) == ""
    assert qualified_as(world, play, plan) == status


def test_a_seller_without_money_for_its_bond_is_not_qualified() -> None:
    world, play, plan = one(wh=160)
    needed = 7200 * 640 + 35
    assert world.call(1, plan.home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U - needed + 1)) == ""
    assert qualified_as(world, play, plan) == "balance"
    world, play, plan = one(wh=160)
    assert world.call(1, plan.home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U - needed)) == ""
    assert qualified_as(world, play, plan) == "qualified"


def test_a_seller_whose_plug_is_silent_is_stale_and_a_revoked_plug_is_out() -> None:
    world = World(areas=1, homes=[Home(0, 1)], rules=replace(RULES_1, version=3, fresh_s=299))
    plan = Plan(world.homes[0], "sell", 300, [10] * 4, LOAD)
    assert qualified_as(world, Play(world, [plan]), plan) == "stale"
    world, play, plan = one()
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("plug", plan.home.plug_id)) == ""
    assert qualified_as(world, play, plan) == "plug-revoked"


def test_a_key_class_that_the_rules_exclude_is_not_settled() -> None:
    world = World(areas=1, homes=[Home(0, 1, key_class="plain")], rules=replace(RULES_1, version=3))
    plan = Plan(world.homes[0], "sell", 300, [10] * 4, LOAD)
    assert qualified_as(world, Play(world, [plan]), plan) == "qualified"
    excluding = replace(RULES_1, version=3, excluded_classes=["plain"])
    world = World(areas=1, homes=[Home(0, 1, key_class="plain")], rules=excluding)
    plan = Plan(world.homes[0], "sell", 300, [10] * 4, LOAD)
    assert qualified_as(world, Play(world, [plan]), plan) == "class"


@pytest.mark.row("K4")
def test_credit_below_the_threshold_does_not_qualify() -> None:
    world = World(areas=1, homes=[Home(0, 1)], rules=replace(RULES_1, version=3, credit_start=49))
    plan = Plan(world.homes[0], "sell", 300, [10] * 4, LOAD)
    assert qualified_as(world, Play(world, [plan]), plan) == "credit"
    world = World(areas=1, homes=[Home(0, 1)], rules=replace(RULES_1, version=3, credit_start=50))
    plan = Plan(world.homes[0], "sell", 300, [10] * 4, LOAD)
    assert qualified_as(world, Play(world, [plan]), plan) == "qualified"


def test_a_reveal_is_refused_by_name() -> None:
    world, play, plan = one()
    play.run(State.COMMIT)
    bid = plan.bid()
    for wrong, reason in (
        (replace(bid, slot_wh=[10] * 3), "slots"),
        (replace(bid, slot_wh=[0] * 4), "empty"),
        (replace(bid, price_u_per_wh=RULES_1.price_cap_u_per_wh + 1), "price"),
    ):
        world, play, plan = one()
        play.run(State.COMMIT)
        fields = kinds.Commit(1, commitment_of(wrong, plan.home.id))
        assert world.call(1, plan.home.key, "Commit", fields) == ""
        world.tick_all(play.spec.commit_close_s)
        assert world.call(1, plan.home.key, "Reveal", wrong) == reason
        assert world.call(1, plan.home.key, "Reveal", bid) == "commitment"


def test_a_user_cannot_open_the_bid_of_another() -> None:
    world = World(areas=1)
    plans = [Plan(home, "sell", 300, [10] * 4, LOAD) for home in world.homes[:2]]
    Play(world, plans[:1]).run(State.REVEAL)
    assert world.call(1, plans[1].home.key, "Reveal", plans[0].bid()) == "no-commitment"
    world = World(areas=1)
    play = Play(world, plans[:1]).run(State.COMMIT)
    copied = kinds.Commit(1, commitment_of(plans[0].bid(), plans[0].home.id))
    assert world.call(1, plans[1].home.key, "Commit", copied) == ""
    world.tick_all(play.spec.commit_close_s)
    assert world.call(1, plans[1].home.key, "Reveal", plans[0].bid()) == "commitment"


def test_a_commitment_needs_money_for_its_deposit() -> None:
    world, play, plan = one()
    play.run(State.COMMIT)
    assert world.call(1, plan.home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U - RULES_1.commit_deposit_u + 1)) == ""
    fields = kinds.Commit(1, bytes(32))
    assert world.call(1, plan.home.key, "Commit", fields) == "balance"


def test_the_book_does_not_depend_on_the_order_of_arrival() -> None:
    roots = []
    for order in (1, -1):
        world = World(areas=1)
        plans = [Plan(home, "sell" if n % 2 else "buy", 400 + n, [10] * 4, LOAD) for n, home in enumerate(world.homes)]
        Play(world, plans[::order]).run(State.QUALIFIED)
        book = codec.decode(world.ledgers[1].state.get(book_key(1)) or b"", Book)
        assert [offer.user for offer in book.offers] == sorted(offer.user for offer in book.offers)
        roots.append(book_root(book))
    assert roots[0] == roots[1]


def test_a_deadline_that_nobody_used_gives_an_empty_book() -> None:
    world = World(areas=1, homes=[])
    Play(world, []).run(State.CLOSED)
    assert world.event(1).pairs == 0
    assert world.main_event().state is State.CLOSED
    assert world.call(1, AGGREGATOR, "Qualify", kinds.EventCall(1)) == "stage"
