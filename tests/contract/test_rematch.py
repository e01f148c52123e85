"""The second round of a matching (U25): what refusals and silence set free finds other partners, once."""

from __future__ import annotations

import pytest
from contract_world import AGGREGATOR, GRID, Play, World, usual_plans
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_chain.contract.market import Solution
from watt_chain.contract.rematch import Rebook, ends_s, opens_s, rebook_key, terms_of
from watt_chain.contract.rematch_kinds import Rematch, Reopen
from watt_chain.contract.rules import RULES_1, RuleSet, check_rule_set

RULES = replace(RULES_1, version=3, rematch_s=100, gap_ppm=1_000_000)


def matched(rules: RuleSet = RULES) -> tuple[World, Play]:
    """Two sellers and two buyers in each area; the dearer buyer gets nearly all there is."""
    world = World(areas=2, rules=rules)
    plans = usual_plans(world)
    for position, plan in enumerate(plans):
        if position % 4 == 3:
            plan.slot_wh = [60] * 4
    return world, Play(world, plans).run(State.MATCHED)


def answer(world: World, play: Play, but: int) -> None:
    """All households of area 1 take their result and confirm their pairs, but one, which refuses."""
    for position, plan in enumerate(play.plans[:4]):
        mine = [pair for pair in world.pairs(1) if plan.home.id in (pair.seller, pair.buyer)]
        if not mine:
            continue
        choice = kinds.Confirmtransaction(1, position != but)
        assert world.call(1, plan.home.key, "Confirmtransaction", choice) == ""
        for pair in world.pairs(1):
            if position != but and pair.state != "DROPPED" and plan.home.id in (pair.seller, pair.buyer):
                assert world.call(1, plan.home.key, "Confirm", kinds.Confirm(1, pair.number, True)) == ""


def rebook(world: World) -> Rebook:
    return codec.decode(world.ledgers[1].state.get(rebook_key(1)) or b"", Rebook)


def second(world: World, play: Play) -> Solution:
    found = rebook(world)
    spec, rules = terms_of(world.event(1), found, play.rules())
    return world.market.clear([found.book], spec, rules)


def refused(rules: RuleSet = RULES) -> tuple[World, Play]:
    """The dearer buyer of area 1 has refused, and the event is reopened."""
    world, play = matched(rules)
    answer(world, play, but=2)
    assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == "early"
    world.now_s = opens_s(play.spec, rules) or 0
    assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == ""
    return world, play


@pytest.mark.row("J14", "J15")
def test_what_a_refusal_frees_is_matched_again_confirmed_and_settled() -> None:
    world, play = refused()
    first = world.pairs(1)
    buyer, other = play.plans[2].home, play.plans[3].home
    assert {pair.state for pair in first if pair.buyer == buyer.id} == {"DROPPED"}
    found = rebook(world)
    assert [bid.user for bid in found.book.bids] == [other.id]  # who refused has no row any more
    kept = sum(sum(pair.slot_wh) for pair in first if pair.state != "DROPPED")
    assert sum(found.book.bids[0].slot_wh) == 240 - kept
    cost_u = sum(
        pair.charge_u + sum(alpha * wh for alpha, wh in zip(play.spec.alpha_u_per_wh, pair.slot_wh, strict=True))
        for pair in first
        if pair.state == "DROPPED"
    )
    assert found.budget_u == cost_u
    assert world.call(1, AGGREGATOR, "Rematch", Rematch(1, second(world, play))) == ""
    fresh = world.pairs(1)[len(first) :]
    assert fresh and all((pair.buyer, pair.state) == (other.id, "PROPOSED") for pair in fresh)
    assert [pair.number for pair in fresh] == [len(first) + 1 + k for k in range(len(fresh))]
    for pair in fresh:
        seller = next(plan.home for plan in play.plans if plan.home.id == pair.seller)
        if world.sealed(other).choice == "open":
            assert world.call(1, other.key, "Confirmtransaction", kinds.Confirmtransaction(1, True)) == ""
        for home in (seller, other):
            assert world.call(1, home.key, "Confirm", kinds.Confirm(1, pair.number, True)) == ""
    world.tick_all(play.spec.confirm_close_s)
    for step in (play.window, play.deliver, play.settle, play.close):
        step()
    assert world.event(1).state is State.CLOSED
    settled = [pair for pair in world.pairs(1) if pair.state == "SETTLED"]
    assert [pair.number for pair in settled if pair.number > len(first)]
    assert world.row(other).agreed_wh == sum(sum(pair.slot_wh) for pair in settled) > kept
    assert world.row(buyer).user == buyer.id if any(pair.buyer == buyer.id for pair in settled) else True
    account = world.account(1, buyer.key.public)
    assert (account.credit, account.escrow_u, account.bond_u) == (RULES.credit_start, 0, 0)  # A17


def test_the_energy_of_both_rounds_keeps_within_each_bid() -> None:
    world, play = refused()
    assert world.call(1, AGGREGATOR, "Rematch", Rematch(1, second(world, play))) == ""
    for plan in play.plans[:4]:
        live = [pair for pair in world.pairs(1) if pair.state != "DROPPED"]
        mine = [pair for pair in live if plan.home.id in (pair.seller, pair.buyer)]
        for slot, wh in enumerate(plan.slot_wh):
            assert sum(pair.slot_wh[slot] for pair in mine) <= wh
    book = codec.decode(world.ledgers[1].state.get(b"book/1") or b"", type(rebook(world).book))
    for pair in world.pairs(1):  # a pair names the rows of the first book, in either round
        assert (book.offers[pair.offer].user, book.bids[pair.bid].user) == (pair.seller, pair.buyer)


def test_who_does_not_answer_is_dropped_and_not_asked_again() -> None:
    world, play = matched()
    world.now_s = opens_s(play.spec, RULES) or 0
    assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == ""
    asked = {home for pair in world.pairs(1) for home in (pair.seller, pair.buyer)}
    assert asked and all(pair.state == "DROPPED" for pair in world.pairs(1))
    rows = rebook(world).book
    assert not asked & {row.user for row in (*rows.offers, *rows.bids)}
    for plan in play.plans:
        account = world.account(plan.home.area, plan.home.key.public)
        assert (account.escrow_u, account.bond_u, account.credit) == (0, 0, RULES.credit_start)


def test_a_wrong_second_matching_is_refused_with_the_failing_row() -> None:
    world, play = refused()
    good = second(world, play)

    def code(solution: Solution, event: int = 1) -> str:
        return world.dry(1, AGGREGATOR, "Rematch", Rematch(event, solution))[0]

    part = good.slices[0]
    assert code(replace(good, value_u=good.value_u + 1)) == "solution-value"
    assert code(replace(good, slices=[replace(part, chain=2)])) == "solution-slices"
    assert code(replace(good, slices=[])) == "solution-slices"
    assert code(replace(good, slices=[replace(part, bound_u=part.bound_u - 1)])) == "chain-1-slice-bound"
    assert code(replace(good, event=2)) == "solution-event"
    assert code(play.solution()) != ""  # the first one, of all books
    more = replace(part, assignments=[replace(one, slot_wh=[9 * wh for wh in one.slot_wh]) for one in part.assignments])
    assert code(replace(good, slices=[more])).startswith("chain-1-slice-")
    assert code(good) == ""


def test_the_round_is_opened_once_matched_once_and_in_time() -> None:
    world, play = refused()
    assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == "done"
    solution = second(world, play)
    late_s = ends_s(play.spec, RULES)
    world.now_s = late_s
    assert world.dry(1, AGGREGATOR, "Rematch", Rematch(1, solution))[0] == "late"
    world.now_s = late_s - 1
    assert world.call(1, AGGREGATOR, "Rematch", Rematch(1, solution)) == ""
    assert world.call(1, AGGREGATOR, "Rematch", Rematch(1, solution)) == "no-round"
    assert world.dry(2, AGGREGATOR, "Rematch", Rematch(1, solution))[0] == "no-round"  # not reopened
    world.now_s = late_s
    assert world.call(2, AGGREGATOR, "Reopen", Reopen(1)) == "late"
    assert world.dry(1, GRID, "Reopen", Reopen(1))[0] == "role"


def test_rules_without_a_second_round_have_none() -> None:
    world, play = matched(replace(RULES, rematch_s=0))
    world.now_s = play.spec.confirm_close_s - 1
    assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == "rule-off"


def test_a_slice_that_comes_late_is_confirmed_in_one_round() -> None:
    # 300 s from match_by to confirm_close: with 160 s for a second round a first one would have less than that.
    world, play = matched(replace(RULES, rematch_s=260))
    assert rebook(world).over
    world.now_s = opens_s(play.spec, replace(RULES, rematch_s=260)) or 0
    assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == "done"
    assert all(pair.state == "PROPOSED" for pair in world.pairs(1))


def test_an_event_that_is_reopened_and_gets_no_second_matching_goes_on() -> None:
    world, play = refused()
    world.tick_all(play.spec.confirm_close_s)
    assert world.event(1).state is State.CONFIRMED
    for step in (play.window, play.deliver, play.settle, play.close):
        step()
    assert world.event(1).state is State.CLOSED


def test_the_length_of_the_round_is_at_most_a_day() -> None:
    assert check_rule_set(replace(RULES, rematch_s=86_401)) == "rule-range"
    assert check_rule_set(replace(RULES, rematch_s=86_400)) == ""
