"""Slices, confirmations, escrow."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, DEPOSIT_U, Play, World, usual_plans
from msgspec.structs import replace
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_chain.contract.market import Solution
from watt_chain.contract.orders import PairState


def matched(areas: int = 1) -> tuple[World, Play]:
    world = World(areas=areas)
    return world, Play(world, usual_plans(world)).run(State.MATCHED)


def test_confirming_locks_exactly_the_escrow_and_the_bond() -> None:
    world, play = matched()
    pair = world.pairs(1)[0]
    energy = sum(pair.slot_wh)
    bond = 1_200_000 * 6_000 * energy // 1_000_000
    for plan in play.plans:
        world.call(1, plan.home.key, "Confirmtransaction", kinds.Confirmtransaction(1, True))
    for plan in play.plans:
        if plan.home.id not in (pair.seller, pair.buyer):
            continue
        before = world.account(1, plan.home.key.public)
        assert world.call(1, plan.home.key, "Confirm", kinds.Confirm(1, 1, True)) == ""
        after = world.account(1, plan.home.key.public)
        is_buyer = plan.home.id == pair.buyer
        escrow = pair.limit_u_per_wh * energy + 35 if is_buyer else 35
        assert (after.escrow_u, after.bond_u) == (escrow, bond)
        assert after.free_u == before.free_u - escrow - bond
        assert world.call(1, plan.home.key, "Confirm", kinds.Confirm(1, 1, True)) == "decided"
        assert world.call(1, plan.home.key, "Confirm", kinds.Confirm(1, 1, False)) == "decided"
    assert world.pairs(1)[0].state == PairState.CONFIRMED


@pytest.mark.row("J14", "E19")
def test_one_confirmation_does_not_speak_for_the_other_side() -> None:
    """E19: "the confirmation function Confirm() needs to be confirmed by the buyer and the seller respectively"."""
    world, play = matched()
    for plan in play.plans:
        if plan.side == "sell":
            world.call(1, plan.home.key, "Confirmtransaction", kinds.Confirmtransaction(1, True))
            for pair in world.pairs(1):
                if pair.seller == plan.home.id:
                    world.call(1, plan.home.key, "Confirm", kinds.Confirm(1, pair.number, True))
    assert {pair.state for pair in world.pairs(1)} == {PairState.SELLER_CONFIRMED}
    world.tick_all(play.spec.confirm_close_s)
    assert {pair.state for pair in world.pairs(1)} == {PairState.DROPPED}
    for plan in play.plans:
        account = world.account(1, plan.home.key.public)
        assert (account.free_u, account.escrow_u, account.bond_u) == (DEPOSIT_U, 0, 0)
        assert account.credit == 60


@pytest.mark.row("J12", "J13", "A17")
def test_a_user_may_refuse_its_matching_result_and_loses_nothing() -> None:
    """J12: "the user can decide whether to choose the trading matching result"."""
    world, play = matched()
    seller = next(plan for plan in play.plans if plan.side == "sell")
    buyer = next(plan for plan in play.plans if plan.side == "buy")
    pair = next(one for one in world.pairs(1) if (one.seller, one.buyer) == (seller.home.id, buyer.home.id))
    yes, no = kinds.Confirmtransaction(1, True), kinds.Confirmtransaction(1, False)
    assert world.call(1, buyer.home.key, "Confirmtransaction", yes) == ""
    assert world.call(1, buyer.home.key, "Confirm", kinds.Confirm(1, pair.number, True)) == ""
    assert world.account(1, buyer.home.key.public).escrow_u > 0
    assert world.call(1, seller.home.key, "Confirmtransaction", no) == ""
    assert world.call(1, seller.home.key, "Confirmtransaction", yes) == "decided"
    assert world.call(1, seller.home.key, "Confirm", kinds.Confirm(1, pair.number, True)) == "no-choice"
    assert world.account(1, buyer.home.key.public).escrow_u == 0
    assert all(one.state == PairState.DROPPED for one in world.pairs(1) if one.seller == seller.home.id)


def test_confirmation_is_refused_by_name() -> None:
    world, play = matched()
    by_id = {plan.home.id: plan for plan in play.plans}
    pair = world.pairs(1)[0]
    seller, buyer = by_id[pair.seller], by_id[pair.buyer]
    stranger = next(plan for plan in play.plans if plan.home.id not in (pair.seller, pair.buyer))
    assert world.call(1, buyer.home.key, "Confirm", kinds.Confirm(1, 99, True)) == "unknown-pair"
    assert world.call(1, buyer.home.key, "Confirm", kinds.Confirm(1, 1, True)) == "no-choice"
    assert world.call(1, stranger.home.key, "Confirm", kinds.Confirm(1, 1, True)) == "not-yours"
    assert world.call(1, buyer.home.key, "Confirmtransaction", kinds.Confirmtransaction(1, True)) == ""
    assert world.call(1, buyer.home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U)) == ""
    assert world.call(1, buyer.home.key, "Confirm", kinds.Confirm(1, 1, True)) == "balance"
    assert world.pairs(1)[0].state == PairState.PROPOSED
    assert world.call(1, buyer.home.key, "Confirm", kinds.Confirm(1, 1, False)) == ""
    assert world.call(1, seller.home.key, "Confirmtransaction", kinds.Confirmtransaction(1, True)) == ""
    assert world.call(1, seller.home.key, "Confirm", kinds.Confirm(1, 1, True)) == "decided"


def test_a_user_without_a_pair_has_nothing_to_choose() -> None:
    world = World(areas=1)
    plans = usual_plans(world)
    plans[0].price_u_per_wh = 5_000
    Play(world, plans).run(State.MATCHED)
    assert world.call(1, plans[0].home.key, "Confirmtransaction", kinds.Confirmtransaction(1, True)) == "not-matched"


def bad_solutions(good: Solution) -> dict[str, Solution]:
    part = good.slices[0]
    greedier = replace(part.assignments[0], slot_wh=[wh + 1 for wh in part.assignments[0].slot_wh])
    return {
        "slices": replace(good, slices=[]),
        "chain-1-slice-": replace(good, slices=[replace(part, value_u=part.value_u + 1)]),
        "chain-1-slice-oversell": replace(good, slices=[replace(part, assignments=[greedier, *part.assignments[1:]])]),
        "chain-1-slice-bound": replace(good, slices=[replace(part, bound_u=part.bound_u - 1)]),
        "solution-": replace(good, value_u=good.value_u + 1),
        "solution-bound": replace(good, bound_u=good.bound_u + 1),
        "unknown-event": replace(good, event=5),
    }


@pytest.mark.row("J11")
def test_a_matching_without_a_valid_certificate_never_enters_the_main_chain() -> None:
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.QUALIFIED)
    for name, wrong in bad_solutions(play.solution()).items():
        code = world.call(0, AGGREGATOR, "Match", kinds.Match(wrong))
        assert code.split("-")[0] == name.split("-")[0], (name, code)
    assert world.main_event().state is State.ANNOUNCED
    play.match()
    assert world.event(1).state is State.MATCHED


class Blind:
    """A market that checks nothing: what an area would face if every master lied."""

    def __init__(self, world: World) -> None:
        self._market = world.market

    def check(self, *arguments: object) -> str:
        return ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._market, name)


def test_an_area_refuses_a_bad_slice_although_the_main_chain_took_it() -> None:
    world = World(areas=2)
    play = Play(world, usual_plans(world)).run(State.QUALIFIED)
    good = play.solution()
    part = good.slices[0]
    wrong = replace(good, slices=[replace(part, value_u=part.value_u + 1), good.slices[1]])
    world.ledgers[0].contract._market = Blind(world)  # type: ignore[attr-defined]
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(wrong)) == ""
    world.relay_down()
    assert world.event(1).state is State.ABORTED
    assert world.event(1).reason.startswith("slice-")
    assert world.event(2).state is State.MATCHED
    world.relay_up()
    assert [report.state for report in world.main_event().areas] == ["refused", "matched"]
    for home in world.homes:
        account = world.account(home.area, home.key.public)
        assert (account.free_u, account.bond_u, account.escrow_u) == (DEPOSIT_U, 0, 0)
    play.plans = [plan for plan in play.plans if plan.home.area == 2]
    play.confirm()
    play.window()
    areas, world.anchored = world.anchored, {2: world.anchored[2]}
    world.ledgers, kept = {chain: one for chain, one in world.ledgers.items() if chain != 1}, world.ledgers
    play.deliver()
    play.settle()
    play.close()
    world.ledgers, world.anchored = kept, {**areas, **world.anchored}
    assert world.main_event().state is State.CLOSED
