"""The household's app: from what is proven about an event to what this household does next.

Strategy. One pure function, `decide`, from facts (all proven by the light node) to a decision. Calls carry labels
(`commit/7`, `confirm/7/3`) that the outbox keeps unique, so deciding the same thing again does nothing, and a restart
needs no memory but the sealed bid, which must be on disk before its commitment leaves the house.

    event state             what the household does
    ANNOUNCED               nothing
    COMMIT                  seals a bid from its plan, sends Commit
    REVEAL                  sends Reveal, if its commitment was accepted
    QUALIFIED               nothing
    MATCHED                 looks at its pairs and trades: Confirmtransaction, then Confirm for its side of each pair,
                            and CrossOp for its side of each trade with another area
    CONFIRMED, DELIVERING   publishes the quota after trade to the home
    METERED                 nothing; the quota is over
    SETTLED, CLOSED         writes the bill
    ABORTED                 nothing more
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from watt_chain import codec
from watt_chain.codec import Structure
from watt_chain.contract.bidding import commitment_of, quota_wh
from watt_chain.contract.cross_area import stood
from watt_chain.contract.cross_kinds import CrossOp
from watt_chain.contract.cross_objects import TOGETHER_MAX, CrossTerms, CrossTrade, cross_key, index_key
from watt_chain.contract.event import State
from watt_chain.contract.kinds import Commit, Confirm, Confirmtransaction, Reveal
from watt_chain.contract.objects import (
    Account,
    AreaEvent,
    Pair,
    ResultRow,
    Sealed,
    User,
    account_key,
    pair_key,
    plug_key,
    result_row_key,
    sealed_key,
    user_key,
)
from watt_chain.contract.orders import PairState
from watt_chain.cross.tables import Buyer, Seller

from watt_gateway.config import Plan
from watt_gateway.store import NewItem

SALT_SIZE = 16
"""Bytes only we know in a sealed bid: nobody can try out likely bids against the commitment."""
PAIRS_LOOKED_AT_MAX = 2048
"""Pairs of one event that are searched for our own: 64 questions at worst, in a whole area's largest event."""
REPUBLISH_S = 300
"""Protocol seconds between publications of the plan: a third of a slot, so that a late listener loses little."""

Salt = Callable[[], bytes]


class SealedBid(Structure, frozen=True):
    """The content of our sealed bid, remembered until the event is over."""

    event: int
    side: str
    price_u_per_wh: int
    slot_wh: list[int]
    salt: bytes
    total_wh: int = 0
    alpha_u_per_wh: list[int] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is proven about one event and this household, at one height or later ones."""

    me: bytes
    "Our account id, 8 bytes."
    now_s: int
    "Protocol clock."
    event: AreaEvent
    account: Account | None = None
    user: User | None = None
    sealed: Sealed | None = None
    pairs: tuple[Pair, ...] = ()
    "Our own pairs, by number."
    trades: tuple[CrossTrade, ...] = ()
    "Our own trades with other areas, by number."
    row: ResultRow | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    "Outcome of our calls that are final, by label."


@dataclass(frozen=True, slots=True)
class HomePlan:
    """What the home must keep to: Wh per slot after trade."""

    event: int
    state: str
    slots: tuple[int, ...]
    trades: int
    "Confirmed pairs and trades of ours; 0 = the plain quota."
    window_start_s: int
    slot_s: int

    def encode(self) -> bytes:
        """The JSON that is published; `slots` and `state` are what the home's automation reads."""
        return msgspec.json.encode(self)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order. Nothing in it is harmful when done twice."""

    remember: SealedBid | None = None
    "Make durable before anything below."
    calls: tuple[NewItem, ...] = ()
    plan: HomePlan | None = None
    bill: bool = False
    note: str = ""
    "Why nothing is done although something could be: a short word for the status."


def encode_bid(bid: SealedBid) -> bytes:
    """Bytes to remember."""
    return codec.encode(bid)


def decode_bid(data: bytes) -> SealedBid:
    """The remembered bid. Raises DecodeError when the disk gives something else."""
    return codec.decode(data, SealedBid)


def decide(facts: Facts, bid: SealedBid | None, plan: Plan | None, salt: Salt) -> Decision:
    """What this household does about an event now. Pure but for `salt`, which is asked once per sealed bid.

    bid    what was remembered of this event; None when no commitment was ever made
    plan   what the household wants, read from its plan file; None = sit this one out
    """
    assert bid is None or bid.event == facts.event.event
    return _HANDLERS[facts.event.state](facts, bid, plan, salt)


def keys_of_interest(event: AreaEvent, me: bytes) -> list[bytes]:
    """State keys to ask for beside the event itself, without the pairs."""
    keys = [account_key(me), user_key(me)]
    if event.state is not State.ANNOUNCED:
        keys.append(sealed_key(event.event, me))
    if event.state not in _BEFORE_MATCHING:
        keys.append(index_key(event.event, me))
    if event.state in (State.METERED, State.SETTLED, State.CLOSED):
        keys.append(result_row_key(event.event, me))
    return keys


def pair_keys(event: AreaEvent) -> list[bytes]:
    """Keys of the event's pairs, up to the bound."""
    return [pair_key(event.event, number) for number in range(1, min(event.pairs, PAIRS_LOOKED_AT_MAX) + 1)]


def trade_keys(event: AreaEvent, numbers: Sequence[int]) -> list[bytes]:
    """Keys of our trades with other areas."""
    return [cross_key(event.event, number) for number in numbers]


def plug_keys(user: User) -> list[bytes]:
    """Keys of the plugs of a metering point."""
    return [plug_key(plug) for plug in user.plugs]


def quota_after_trade(facts: Facts) -> list[int] | None:
    """Wh per slot: quota, less what is sold, plus what is bought in confirmed pairs and in trades with other areas that
    stand; None before we are enrolled."""
    if facts.user is None:
        return None
    slots = quota_wh(facts.user, facts.event.spec)
    for pair in facts.pairs:
        if pair.state in (PairState.CONFIRMED, PairState.SETTLED):
            sign = -1 if pair.seller == facts.me else 1
            slots = [quota + sign * wh for quota, wh in zip(slots, pair.slot_wh, strict=True)]
    for trade in facts.trades:
        if stood(trade):
            sign = -1 if trade.side == "sell" else 1
            slots = [quota + sign * wh for quota, wh in zip(slots, trade.terms.slot_wh, strict=True)]
    return [max(0, quota) for quota in slots]


def problem_of(pairs: Sequence[Pair], bid: SealedBid, me: bytes, trades: Sequence[CrossTrade] = ()) -> str:
    """ "" or why these pairs and trades are not what the bid allowed. The contract checks it too; we look ourselves."""
    total = [0] * len(bid.slot_wh)
    deals: list[Pair | CrossTerms] = [*pairs, *(trade.terms for trade in trades)]
    for pair in deals:
        if len(pair.slot_wh) != len(total) or len(pair.price_u_per_wh) != len(total):
            return "pair-slots"
        if (pair.seller if bid.side == "sell" else pair.buyer) != me:
            return "pair-side"
        total = [sum_wh + wh for sum_wh, wh in zip(total, pair.slot_wh, strict=True)]
        for wh, price in zip(pair.slot_wh, pair.price_u_per_wh, strict=True):
            if wh > 0 and (price < bid.price_u_per_wh if bid.side == "sell" else price > bid.price_u_per_wh):
                return "pair-price"
    if any(wh > offered for wh, offered in zip(total, bid.slot_wh, strict=True)):
        return "pair-energy"
    if bid.total_wh and sum(total) > bid.total_wh:
        return "pair-energy"
    return ""


# ---- one function per state -------------------------------------------------------------------------------------


def _wait(_facts: Facts, _bid: SealedBid | None, _plan: Plan | None, _salt: Salt) -> Decision:
    return Decision()


def _commit(facts: Facts, bid: SealedBid | None, plan: Plan | None, salt: Salt) -> Decision:
    event = facts.event
    if bid is None:
        bid = _regained(facts, plan, salt)
        if bid is not None:
            return Decision(bid)
        note = _why_not(facts, plan)
        if note or plan is None:
            return Decision(note=note)
        bid = _sealed(event.event, plan, salt)
        assert len(bid.salt) == SALT_SIZE
    fields = Commit(event.event, commitment_of(_reveal_fields(bid), facts.me))
    return Decision(bid, (NewItem("Commit", f"commit/{event.event}", codec.encode(fields)),))


def _why_not(facts: Facts, plan: Plan | None) -> str:
    if facts.account is None or facts.user is None:
        return "not-enrolled"
    if facts.account.suspended:
        return "suspended"
    if facts.sealed is not None:
        return "bid-of-another-memory"  # committed before, by another plan: nothing can be revealed
    if plan is None:
        return "no-plan"
    if len(plan.slot_wh) != facts.event.spec.slots:
        return "plan-slots"
    if sum(plan.slot_wh) == 0:
        return "plan-empty"
    if plan.alpha_u_per_wh and (plan.side == "buy" or len(plan.alpha_u_per_wh) != len(plan.slot_wh)):
        return "plan-comfort"
    return ""


def _regained(facts: Facts, plan: Plan | None, salt: Salt) -> SealedBid | None:
    """The bid behind a commitment on chain that a lost disk forgot, if the plan is still the one it was made from."""
    if facts.sealed is None or plan is None:
        return None
    bid = _sealed(facts.event.event, plan, salt)
    return bid if commitment_of(_reveal_fields(bid), facts.me) == facts.sealed.commitment else None


def _reveal(facts: Facts, bid: SealedBid | None, plan: Plan | None, salt: Salt) -> Decision:
    number = facts.event.event
    remembered, bid = bid, bid or _regained(facts, plan, salt)
    if bid is None:
        return Decision()
    if facts.sealed is None and facts.codes.get(f"commit/{number}") != "":
        # Not committed (yet): a content sent now would be open to all and bind nobody.
        return Decision(note="not-committed")
    if facts.now_s >= facts.event.spec.reveal_close_s:
        return Decision(note="late")
    item = NewItem("Reveal", f"reveal/{number}", codec.encode(_reveal_fields(bid)))
    return Decision(None if remembered else bid, calls=(item,))


def _confirm(facts: Facts, bid: SealedBid | None, plan: Plan | None, _salt: Salt) -> Decision:
    number = facts.event.event
    ours = bool(facts.pairs or facts.trades)
    undecided = any(pair.state not in _PAIR_OVER for pair in facts.pairs) or any(map(is_open, facts.trades))
    if ours and not undecided:
        return Decision(plan=_home_plan(facts))  # what both sides confirmed stands: the home may know early
    if not ours or bid is None:
        return Decision(note="" if bid is None else "no-pairs")
    live = [pair for pair in facts.pairs if pair.state != PairState.DROPPED]  # those of a first round may be there too
    problem = problem_of(live, bid, facts.me, facts.trades)
    deals: list[Pair | CrossTerms] = [*live, *(trade.terms for trade in facts.trades)]
    if not problem and plan is not None and sum(sum(one.slot_wh) for one in deals) < plan.least_wh:
        problem = "too-little"
    choice = NewItem("Confirmtransaction", f"choice/{number}", codec.encode(Confirmtransaction(number, not problem)))
    if problem:
        return Decision(calls=(choice,), note=problem)
    calls = [choice]
    for pair in facts.pairs:
        mine = PairState.SELLER_CONFIRMED if pair.seller == facts.me else PairState.BUYER_CONFIRMED
        if pair.state not in _PAIR_OVER and pair.state != mine:
            fields = codec.encode(Confirm(number, pair.number, True))
            calls.append(NewItem("Confirm", f"confirm/{number}/{pair.number}", fields))
    return Decision(calls=(*calls, *_take_trades(facts, plan)))


def _take_trades(facts: Facts, plan: Plan | None) -> list[NewItem]:
    """Our side of each trade with another area: consent, or the lock; one call for all where the plan says so."""
    waiting = [trade.terms.number for trade in facts.trades if trade.state in _TRADE_OURS]
    buys = bool(facts.trades) and facts.trades[0].side == "buy"
    whole = plan is not None and plan.together and buys and 1 < len(waiting) <= TOGETHER_MAX
    number = facts.event.event
    calls: list[NewItem] = []
    for names in [waiting] if whole else [[name] for name in waiting]:
        fields = codec.encode(CrossOp(number, names, True))
        label = f"cross/{number}/{names[0]}"
        if facts.codes.get(label) == "busy":  # the block was full of messages: once more, in another one
            label += "/again"
        calls.append(NewItem("CrossOp", label, fields))
    return calls


def is_open(trade: CrossTrade) -> bool:
    """Whether a trade with another area still waits for a side or for the main chain's word."""
    return trade.state in _TRADE_OPEN


def is_owed(trade: CrossTrade) -> bool:
    """Whether the payment for what we delivered to another area is still on its way."""
    return trade.state == Seller.SETTLED


def _deliver(facts: Facts, _bid: SealedBid | None, _plan: Plan | None, _salt: Salt) -> Decision:
    if facts.now_s >= facts.event.spec.window_end_s:
        return Decision()
    return Decision(plan=_home_plan(facts))


def _account_for(facts: Facts, _bid: SealedBid | None, _plan: Plan | None, _salt: Salt) -> Decision:
    return Decision(bill=facts.row is not None)


_BEFORE_MATCHING = (State.ANNOUNCED, State.COMMIT, State.REVEAL, State.QUALIFIED)
_TRADE_OURS = (Buyer.NONE, Seller.ASKED)
"The other side's move or none has been made: it is ours (NONE is spelt the same on both sides)."
_TRADE_OPEN = (Buyer.NONE, Buyer.LOCKED, Seller.OFFERED, Seller.ASKED, Seller.ACCEPTED)
_PAIR_OVER = (PairState.CONFIRMED, PairState.DROPPED, PairState.SETTLED, PairState.RETURNED)
_HANDLERS: dict[State, Callable[[Facts, SealedBid | None, Plan | None, Salt], Decision]] = {
    State.ANNOUNCED: _wait,
    State.COMMIT: _commit,
    State.REVEAL: _reveal,
    State.QUALIFIED: _wait,
    State.MATCHED: _confirm,
    State.CONFIRMED: _deliver,
    State.DELIVERING: _deliver,
    State.METERED: _wait,
    State.SETTLED: _account_for,
    State.CLOSED: _account_for,
    State.ABORTED: _wait,
}


def _sealed(event: int, plan: Plan, salt: Salt) -> SealedBid:
    return SealedBid(event, plan.side, plan.price_u_per_wh, plan.slot_wh, salt(), plan.total_wh, plan.alpha_u_per_wh)


def _reveal_fields(bid: SealedBid) -> Reveal:
    assert bid.side in ("sell", "buy")
    side: Literal["sell", "buy"] = "sell" if bid.side == "sell" else "buy"
    return Reveal(bid.event, side, bid.price_u_per_wh, bid.slot_wh, bid.salt, bid.total_wh, bid.alpha_u_per_wh)


def _home_plan(facts: Facts) -> HomePlan | None:
    slots = quota_after_trade(facts)
    if slots is None:
        return None
    trades = sum(pair.state in (PairState.CONFIRMED, PairState.SETTLED) for pair in facts.pairs)
    trades += sum(map(stood, facts.trades))
    spec = facts.event.spec
    return HomePlan(facts.event.event, facts.event.state.value, tuple(slots), trades, spec.window_start_s, spec.slot_s)
