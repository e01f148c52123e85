"""Points() and the close of an event: response strength of the serving nodes, points for users, result root.

Source: paper section 3.3 (response strength, points); model.md rows F3 to F5, F15 to F17, K9; U1, U12.  Points issued
in an event do not depend on how many blocks it took: the amount is a figure of the rule set, the pool only caps it.
"""

from typing import Final

from msgspec.structs import replace
from watt_wire import merkle

from watt_chain import codec
from watt_chain.contract import cross_area, cross_seats, orders, validators
from watt_chain.contract.access import Session, largest_remainder, refuse_if
from watt_chain.contract.event import State, Trigger
from watt_chain.contract.incentive import rows_of
from watt_chain.contract.kinds import EventCall, EventClosed
from watt_chain.contract.objects import (
    MAIN_CHAIN,
    POOL_KEY,
    Account,
    AreaEvent,
    Pair,
    Pool,
    Result,
    ResultRow,
    Strength,
    event_key,
    result_key,
    result_row_key,
    strength_key,
)
from watt_chain.contract.orders import PairState

W_DELIVERY_PPM: Final = 600_000
W_RESPONSE_PPM: Final = 200_000
W_FEEDBACK_PPM: Final = 200_000
"Weights of model.md U1; they sum to 10^6."
MEMORY: Final = 3
"S = (3 * old + new) // 4."


def issue_points(session: Session, signer: Account, fields: EventCall) -> None:
    """Points(): strength, shares of the pool, result root; the event is closed and reported."""
    event = session.event_in(fields.event, State.SETTLED)
    refuse_if(not event.punish_done, "order")
    rows = rows_of(session, event)
    pairs = orders.pairs_of(session, event.event, event.pairs)
    strengths = _update_strengths(session, event, rows, pairs)
    rows = _share_points(session, event, rows, strengths)
    root = result_root(rows, pairs, cross_area.result_leaves(session, event.event))
    session.put(result_key(event.event), Result([row.user for row in rows], root))
    session.put(event_key(event.event), replace(event, result_root=root))
    session.advance(session.event(event.event), Trigger.POINTS)
    cross_seats.turn(session, event)
    session.emit(MAIN_CHAIN, "EventClosed", EventClosed(event.event, root))


def result_root(rows: list[ResultRow], pairs: list[Pair], across: list[bytes]) -> bytes:
    """Merkle root over the encoded rows (users ascending), pairs (by number), and trades across areas (by number)."""
    encoded = [codec.encode(one) for one in (*rows, *pairs)]
    return merkle.root([merkle.leaf_hash(one) for one in (*encoded, *across)])


def strength_now(delivered_wh: int, agreed_wh: int, counts: tuple[int, int], trades: tuple[int, int]) -> int:
    """S_k of one event, ppm: three floors of weight * part // whole; a term whose whole is 0 is 0.

    counts = (users with a valid reveal, enrolled users), trades = (confirmed, matched), one per user and pair.
    """
    total = 0
    terms = (
        (W_DELIVERY_PPM, delivered_wh, agreed_wh),
        (W_RESPONSE_PPM, *counts),
        (W_FEEDBACK_PPM, *trades),
    )
    for weight, part, whole in terms:
        total += weight * part // whole if whole else 0
    return total


def _update_strengths(session: Session, event: AreaEvent, rows: list[ResultRow], pairs: list[Pair]) -> list[int]:
    """Strength of every serving node after this event, by number: also of those that have left and still have users."""
    nodes = validators.own_list(session).given
    delivered, agreed = [0] * nodes, [0] * nodes
    for row in rows:
        node = session.account(row.user).node
        delivered[node] += row.delivered_wh
        agreed[node] += row.agreed_wh
    responding, invited = [0] * nodes, [0] * nodes
    for key in session.state.keys(b"user/"):
        invited[session.account(bytes.fromhex(key[5:].decode())).node] += 1
    for sealed in session.all_sealed(event.event):
        responding[session.account(sealed.user).node] += int(sealed.revealed)
    confirmed, matched = [0] * nodes, [0] * nodes
    for pair in pairs:
        for user in (pair.seller, pair.buyer):
            node = session.account(user).node
            matched[node] += 1
            confirmed[node] += int(pair.state != PairState.DROPPED)
    for trade in cross_area.trades_of(session, event.event):
        node = session.account(trade.user).node
        matched[node] += 1
        confirmed[node] += int(cross_area.stood(trade))
    found: list[int] = []
    for node in range(nodes):
        now = strength_now(
            delivered[node], agreed[node], (responding[node], invited[node]), (confirmed[node], matched[node])
        )
        before = session.get(strength_key(node), Strength)
        if before is not None:
            now = (MEMORY * before.strength_ppm + now) // (MEMORY + 1)
        before_ppm = 0 if before is None else before.strength_ppm
        session.put(strength_key(node), Strength(event.event, now, before_ppm))
        found.append(now)
    return found


def _share_points(session: Session, event: AreaEvent, rows: list[ResultRow], strengths: list[int]) -> list[ResultRow]:
    """Issue points_per_event, capped by the pool, to users that performed: weight = credit * strength of their node."""
    accounts = [session.account(row.user) for row in rows]
    weights = [
        cross_seats.weigh(session, account.node, row.credit_after * strengths[account.node])
        if row.status == "performed"
        else 0
        for row, account in zip(rows, accounts, strict=True)
    ]
    pool = session.pool()
    amount = min(session.rules(event.rules_version).points_per_event, pool.points)
    shares = largest_remainder(amount, weights)
    session.put(POOL_KEY, Pool(pool.points - sum(shares), pool.issued + sum(shares)))
    issued: list[ResultRow] = []
    for row, account, share in zip(rows, accounts, shares, strict=True):
        session.store_account(replace(account, points=account.points + share))
        issued.append(replace(row, points=share))
        session.put(result_row_key(event.event, row.user), issued[-1])
    return issued
