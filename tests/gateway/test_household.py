"""The household's app: every state of an event, from facts to a decision."""

from __future__ import annotations

import itertools
import json

import pytest
from contract_world import make_spec
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.cross_kinds import CrossOp
from watt_chain.contract.cross_objects import CrossTerms, CrossTrade
from watt_chain.contract.event import State
from watt_chain.contract.kinds import Commit, Confirm, Confirmtransaction, Reveal
from watt_chain.contract.objects import Account, AreaEvent, Pair, ResultRow, Sealed, User
from watt_chain.contract.orders import PairState
from watt_gateway.config import Plan
from watt_gateway.household import (
    Decision,
    Facts,
    SealedBid,
    decide,
    decode_bid,
    encode_bid,
    problem_of,
    quota_after_trade,
)
from watt_market import schedule

ME, OTHER = b"our-home", b"neighbor"
SPEC = make_spec()
PLAN = Plan("sell", 300, [50, 50, 50, 50])
BID = SealedBid(1, "sell", 300, [50, 50, 50, 50], b"s" * 16)


def event(state: State, pairs: int = 0) -> AreaEvent:
    return AreaEvent(
        1, state, state in (State.COMMIT, State.REVEAL), 1, SPEC, bytes(32), 0, pairs, [], 0, False, False, b"", ""
    )


def account(**changes: object) -> Account:
    return replace(Account(ME, "user", bytes(64), 3, 10**8, 0, 0, 0, 0, 60, 1, 0, False, False), **changes)


def pair(number: int = 1, state: PairState = PairState.PROPOSED, **changes: object) -> Pair:
    whole = Pair(1, number, 0, 0, ME, OTHER, [20, 20, 20, 20], 900, [500] * 4, 70, 0, 0, 0, 0, state.value, 0)
    return replace(whole, **changes)


def sealed(commitment: bytes = bytes(32)) -> Sealed:
    return Sealed(
        ME, commitment, 0, True, "sell", 300, PLAN.slot_wh, "qualified", "open", bytes(16), [160] * 4, "profile"
    )


def row() -> ResultRow:
    return ResultRow(
        ME, "sell", "performed", [20] * 4, [0] * 4, [160] * 4, [110] * 4, -1, 80, 80, [0] * 4, 60, 62, 40_000, 35, 0,
        0, 0, "none", 0,
    )  # fmt: skip


def facts(state: State, **changes: object) -> Facts:
    base: dict[str, object] = {
        "me": ME,
        "now_s": SPEC.open_s,
        "event": event(state),
        "account": account(),
        "user": User([b"p" * 8], False, 4000, "h25", False),
    }
    return Facts(**{**base, **changes})  # type: ignore[arg-type]


def salt() -> bytes:
    return b"s" * 16


def labels(decision: Decision) -> list[str]:
    return [item.label for item in decision.calls]


@pytest.mark.row("L3")
@pytest.mark.parametrize(
    ("state", "bid", "plan"),
    list(itertools.product(State, (None, BID), (None, PLAN))),
    ids=lambda value: str(value)[:9],
)
def test_every_state_gives_a_decision_and_only_the_calls_of_its_stage(
    state: State, bid: SealedBid | None, plan: Plan | None
) -> None:
    allowed = {
        State.COMMIT: {"Commit"},
        State.REVEAL: {"Reveal"},
        State.MATCHED: {"Confirmtransaction", "Confirm"},
    }
    for pairs in ((), (pair(),)):
        for found in (None, sealed()):
            decision = decide(facts(state, pairs=pairs, sealed=found, row=row()), bid, plan, salt)
            assert {item.kind for item in decision.calls} <= allowed.get(state, set())
            assert (decision.plan is not None) <= (state in (State.MATCHED, State.CONFIRMED, State.DELIVERING))
            assert decision.bill == (state in (State.SETTLED, State.CLOSED))
            assert (decision.remember is not None) <= (state in (State.COMMIT, State.REVEAL))


@pytest.mark.row("L2", "L8")
def test_in_commit_the_plan_is_sealed_and_remembered_before_it_is_sent() -> None:
    decision = decide(facts(State.COMMIT), None, PLAN, salt)
    assert decision.remember == BID and labels(decision) == ["commit/1"]
    fields = codec.decode(decision.calls[0].fields, Commit)
    assert fields.commitment == commitment_of(Reveal(1, "sell", 300, PLAN.slot_wh, b"s" * 16), ME)
    assert b"s" * 16 not in decision.calls[0].fields
    assert decode_bid(encode_bid(BID)) == BID


def test_a_second_look_in_commit_sends_the_same_commitment_whatever_the_plan_says_now() -> None:
    first = decide(facts(State.COMMIT), None, PLAN, salt)
    other = Plan("buy", 900, [1, 1, 1, 1])
    again = decide(facts(State.COMMIT, sealed=sealed()), first.remember, other, lambda: b"x" * 16)
    assert again.calls == first.calls


@pytest.mark.parametrize(
    ("note", "changes", "plan"),
    [
        ("no-plan", {}, None),
        ("not-enrolled", {"account": None}, PLAN),
        ("not-enrolled", {"user": None}, PLAN),
        ("suspended", {"account": account(suspended=True)}, PLAN),
        ("plan-slots", {}, Plan("sell", 300, [1, 2])),
        ("plan-empty", {}, Plan("sell", 300, [0, 0, 0, 0])),
        ("bid-of-another-memory", {"sealed": sealed()}, PLAN),
    ],
)
def test_what_cannot_be_bid_is_left_out_with_a_reason(note: str, changes: dict[str, object], plan: Plan | None) -> None:
    decision = decide(facts(State.COMMIT, **changes), None, plan, salt)
    assert decision == Decision(note=note)


def test_the_content_is_opened_only_after_the_commitment_was_accepted() -> None:
    early = facts(State.REVEAL, now_s=SPEC.commit_close_s)
    assert decide(early, BID, None, salt) == Decision(note="not-committed")
    refused = facts(State.REVEAL, now_s=SPEC.commit_close_s, codes={"commit/1": "balance"})
    assert decide(refused, BID, None, salt) == Decision(note="not-committed")
    for good in ({"codes": {"commit/1": ""}}, {"sealed": sealed()}):
        decision = decide(facts(State.REVEAL, now_s=SPEC.commit_close_s, **good), BID, None, salt)
        assert labels(decision) == ["reveal/1"]
        assert codec.decode(decision.calls[0].fields, Reveal).salt == BID.salt
    late = facts(State.REVEAL, now_s=SPEC.reveal_close_s, sealed=sealed())
    assert decide(late, BID, None, salt) == Decision(note="late")
    assert decide(early, None, None, salt) == Decision()


@pytest.mark.parametrize("state", [State.COMMIT, State.REVEAL])
def test_a_gateway_that_lost_its_disk_opens_what_its_plan_and_key_still_give(state: State) -> None:
    fields = Reveal(1, "sell", 300, PLAN.slot_wh, salt())
    on_chain = sealed(commitment=commitment_of(fields, ME))
    found = facts(state, sealed=on_chain)
    decision = decide(found, None, PLAN, salt)
    assert decision.remember == BID
    assert [codec.decode(call.fields, Reveal) for call in decision.calls] == ([fields] if state is State.REVEAL else [])
    for other in (Plan("sell", 301, PLAN.slot_wh), Plan("buy", 300, PLAN.slot_wh)):
        assert decide(found, None, other, salt).remember is None
    assert decide(found, None, PLAN, lambda: b"x" * 16).calls == ()
    assert decide(found, None, None, salt).calls == ()


@pytest.mark.row("J13", "J14")
def test_each_own_pair_is_confirmed_on_our_side_only() -> None:
    pairs = (
        pair(1),
        pair(2, PairState.BUYER_CONFIRMED),
        pair(3, PairState.SELLER_CONFIRMED),
        pair(4, PairState.DROPPED),
    )
    found = facts(State.MATCHED, event=event(State.MATCHED, 4), pairs=tuple(replace(p, slot_wh=[5] * 4) for p in pairs))
    decision = decide(found, BID, None, salt)
    assert labels(decision) == ["choice/1", "confirm/1/1", "confirm/1/2"]
    assert codec.decode(decision.calls[0].fields, Confirmtransaction).accept
    assert codec.decode(decision.calls[1].fields, Confirm) == Confirm(1, 1, True)


@pytest.mark.row("J12")
@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("pair-price", {"price_u_per_wh": [299, 500, 500, 500]}),
        ("pair-energy", {"slot_wh": [51, 0, 0, 0]}),
        ("pair-side", {"seller": OTHER, "buyer": ME}),
        ("pair-slots", {"slot_wh": [20, 20]}),
    ],
)
def test_a_pair_that_the_bid_did_not_allow_is_refused(problem: str, changes: dict[str, object]) -> None:
    found = facts(State.MATCHED, pairs=(pair(**changes),))
    decision = decide(found, BID, None, salt)
    assert decision.note == problem and labels(decision) == ["choice/1"]
    assert not codec.decode(decision.calls[0].fields, Confirmtransaction).accept


@pytest.mark.row("L9", "L11")
def test_a_battery_and_an_own_comfort_are_sealed_opened_and_held_to() -> None:
    """A battery offers what its schedule discharges at the peak, all slots under one total (U23)."""
    car = schedule.Battery(40_000, 20_000, 18_000, 7_000, 950_000, 950_000, 40)
    made = schedule.plan(car, [True, True, False, False], SPEC.slot_s, [540, 540, 220, 220])
    offer = schedule.battery_offer(ME, car, made, 220, 60)
    wish = Plan("sell", offer.price_u_per_wh, offer.slot_wh, total_wh=offer.total_wh, alpha_u_per_wh=[0] * 4)
    bid = decide(facts(State.COMMIT), None, wish, salt).remember
    assert bid is not None and sum(offer.slot_wh) > 0
    opened = codec.decode(decide(facts(State.REVEAL, sealed=sealed()), bid, None, salt).calls[0].fields, Reveal)
    assert (opened.slot_wh, opened.total_wh, opened.alpha_u_per_wh) == (offer.slot_wh, offer.total_wh, [0] * 4)
    assert decode_bid(encode_bid(bid)) == bid
    held = replace(BID, total_wh=79)
    assert problem_of([pair()], held, ME) == "pair-energy"
    assert problem_of([pair()], replace(held, total_wh=80), ME) == ""
    assert (
        decide(facts(State.COMMIT), None, Plan("buy", 9, [1] * 4, alpha_u_per_wh=[0] * 4), salt).note == "plan-comfort"
    )
    assert decide(facts(State.COMMIT), None, Plan("sell", 9, [1] * 4, alpha_u_per_wh=[0]), salt).note == "plan-comfort"


@pytest.mark.row("J12", "J13")
def test_a_result_that_comes_to_too_little_is_refused() -> None:
    """'If users are not satisfied with the matching results, they can choose not to participate'"""
    picky = Plan("sell", 300, [50] * 4, least_wh=81)
    decision = decide(facts(State.MATCHED, pairs=(pair(),)), BID, picky, salt)
    assert decision.note == "too-little" and labels(decision) == ["choice/1"]
    assert not codec.decode(decision.calls[0].fields, Confirmtransaction).accept
    enough = Plan("sell", 300, [50] * 4, least_wh=80)
    assert labels(decide(facts(State.MATCHED, pairs=(pair(),)), BID, enough, salt)) == ["choice/1", "confirm/1/1"]


def test_a_pair_of_a_second_round_is_confirmed_beside_those_of_the_first() -> None:
    first = (pair(1, PairState.CONFIRMED), pair(2, PairState.DROPPED, slot_wh=[40] * 4))
    again = (*first, pair(3, slot_wh=[30] * 4))
    assert labels(decide(facts(State.MATCHED, pairs=again), BID, PLAN, salt)) == ["choice/1", "confirm/1/3"]
    more = (*first, pair(3, slot_wh=[31] * 4))
    assert decide(facts(State.MATCHED, pairs=more), BID, PLAN, salt).note == "pair-energy"


def test_a_buyer_never_pays_more_than_its_price() -> None:
    bid = SealedBid(1, "buy", 400, [50] * 4, b"s" * 16)
    bought = pair(seller=OTHER, buyer=ME)
    assert problem_of([bought], bid, ME) == "pair-price"
    assert problem_of([replace(bought, price_u_per_wh=[400] * 4)], bid, ME) == ""
    assert problem_of([replace(bought, price_u_per_wh=[400, 400, 400, 9_999], slot_wh=[9, 9, 9, 0])], bid, ME) == ""


def test_the_home_gets_its_quota_after_trade() -> None:
    own = (pair(1, PairState.CONFIRMED), pair(2, PairState.DROPPED))
    sold = decide(facts(State.CONFIRMED, pairs=own), BID, None, salt).plan
    assert sold is not None and sold.slots == (140, 140, 140, 140) and sold.trades == 1
    assert json.loads(sold.encode())["slots"] == [140] * 4 and json.loads(sold.encode())["state"] == "CONFIRMED"
    bought = replace(own[0], seller=OTHER, buyer=ME)
    assert quota_after_trade(facts(State.DELIVERING, pairs=(bought,))) == [180] * 4
    assert quota_after_trade(facts(State.DELIVERING, user=None)) is None
    over = facts(State.DELIVERING, pairs=own, now_s=SPEC.window_end_s)
    assert decide(over, BID, None, salt).plan is None


def test_when_all_own_pairs_are_decided_the_home_may_know_before_the_deadline() -> None:
    decision = decide(facts(State.MATCHED, pairs=(pair(1, PairState.CONFIRMED),)), BID, None, salt)
    assert decision.plan is not None and decision.plan.state == "MATCHED" and decision.calls == ()


def test_without_a_result_row_there_is_no_bill() -> None:
    assert not decide(facts(State.SETTLED), BID, None, salt).bill


def test_decisions_repeat_exactly() -> None:
    for state in State:
        found = facts(state, pairs=(pair(),), sealed=sealed(), row=row())
        assert decide(found, BID, PLAN, salt) == decide(found, BID, PLAN, salt)


# Trades with other areas --------------------------------------------------------------------------------------------


def trade(number: int = 1, state: str = "NONE", side: str = "sell") -> CrossTrade:
    ends = (1, ME, 2, OTHER) if side == "sell" else (2, OTHER, 1, ME)
    terms = CrossTerms(1, number, *ends, [20, 20, 20, 20], [500] * 4, 170)
    return CrossTrade(terms, bytes(32), side, state, [], 0, 0, 0, 0)  # type: ignore[arg-type]


@pytest.mark.row("H10", "H14", "H17")
def test_each_side_takes_its_trades_with_other_areas() -> None:
    """H10: the client drives it; H17: by a request to its own area's chain."""
    bought = SealedBid(1, "buy", 900, [50, 50, 50, 50], b"s" * 16)
    cases = [
        (BID, trade(), ["choice/1", "cross/1/1"]),
        (BID, trade(state="ASKED"), ["choice/1", "cross/1/1"]),
        (BID, trade(state="OFFERED"), ["choice/1"]),
        (BID, trade(state="ACCEPTED"), ["choice/1"]),
        (bought, trade(side="buy"), ["choice/1", "cross/1/1"]),
        (bought, trade(side="buy", state="LOCKED"), ["choice/1"]),
    ]
    for bid, one, wanted in cases:
        found = decide(facts(State.MATCHED, trades=(one,)), bid, PLAN, salt)
        assert labels(found) == wanted, one.state
        if "cross/1/1" in wanted:
            assert found.calls[-1].fields == codec.encode(CrossOp(1, [1], True))
    again = facts(State.MATCHED, trades=(trade(),), codes={"cross/1/1": "busy"})
    assert labels(decide(again, BID, PLAN, salt))[-1] == "cross/1/1/again"


def test_a_buyer_that_wants_all_or_nothing_locks_in_one_call() -> None:
    bought = SealedBid(1, "buy", 900, [50, 50, 50, 50], b"s" * 16)
    both = (trade(1, side="buy"), trade(4, side="buy"))
    whole = Plan("buy", 900, [50, 50, 50, 50], together=True)
    found = decide(facts(State.MATCHED, trades=both), bought, whole, salt)
    assert found.calls[-1].fields == codec.encode(CrossOp(1, [1, 4], True))
    apart = decide(facts(State.MATCHED, trades=both), bought, None, salt)
    assert labels(apart) == ["choice/1", "cross/1/1", "cross/1/4"]


def test_a_trade_that_the_bid_did_not_allow_is_refused_with_the_result() -> None:
    cheap = replace(trade(), terms=replace(trade().terms, price_u_per_wh=[299] * 4))
    much = (trade(), trade(2), trade(3))
    for trades, note in (((cheap,), "pair-price"), (much, "pair-energy"), ((trade(side="buy"),), "pair-side")):
        found = decide(facts(State.MATCHED, trades=trades), BID, PLAN, salt)
        assert (found.note, labels(found)) == (note, ["choice/1"])
        assert found.calls[0].fields == codec.encode(Confirmtransaction(1, False))


def test_the_home_keeps_to_what_stands() -> None:
    waiting = facts(State.CONFIRMED, trades=(trade(state="ACCEPTED"),))
    effective = facts(State.CONFIRMED, trades=(trade(state="EFFECTIVE"), trade(2, "RELEASED")))
    bound = facts(State.CONFIRMED, trades=(trade(state="BOUND", side="buy"),))
    assert quota_after_trade(waiting) == [160] * 4
    assert quota_after_trade(effective) == [140] * 4
    assert quota_after_trade(bound) == [180] * 4
    plan = decide(effective, BID, PLAN, salt).plan
    assert plan is not None and plan.trades == 1
    early = decide(facts(State.MATCHED, trades=(trade(state="EFFECTIVE"),)), BID, PLAN, salt)
    assert early.plan is not None and early.calls == ()
