"""Stage 4 begins, SettlementCredit(): performance of every user under contract, credit, and the area's deviation.

Source: paper section 4.1 and 4.4 (+2, -4); model.md 1.5 and rows J16, K1, K2, G7; U15.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from watt_chain.contract import cross_area, metering, orders, standing
from watt_chain.contract.access import Session, largest_remainder, refuse_if
from watt_chain.contract.event import State, Trigger
from watt_chain.contract.kinds import EventCall, Metered
from watt_chain.contract.objects import (
    MAIN_CHAIN,
    NO_REGISTER,
    Account,
    AreaEvent,
    EventMeter,
    Pair,
    Plug,
    Result,
    ResultRow,
    Sealed,
    Side,
    Status,
    plug_key,
    register_key,
    result_key,
    result_row_key,
    sealed_key,
)
from watt_chain.contract.orders import PairState
from watt_chain.contract.rules import PPM, RuleSet, remembers


@dataclass(frozen=True, slots=True)
class Performance:
    """Outcome of one user's test. Energies in Wh."""

    status: Status
    delivered_wh: int
    short_wh: list[int]
    "Per slot, what a defaulter is charged for."


def contracts_of(pairs: list[Pair], across: list[tuple[bytes, Pair]]) -> dict[bytes, list[Pair]]:
    """Confirmed pairs by user, users ascending, pairs by number. `across`: (user of this area, pair); see across_of."""
    found: dict[bytes, list[Pair]] = {}
    for pair in pairs:
        if pair.state == PairState.CONFIRMED:
            found.setdefault(pair.seller, []).append(pair)
            found.setdefault(pair.buyer, []).append(pair)
    for user, pair in across:
        found.setdefault(user, []).append(pair)
    return {user: found[user] for user in sorted(found)}


def across_of(session: Session, event: AreaEvent) -> list[tuple[bytes, Pair]]:
    """Trades across areas that were contracts, each with its user of this area, numbered behind the area's pairs."""
    trades = cross_area.standing_trades(session, event.event)
    return [(trade.user, cross_area.as_pair(trade, event)) for trade in trades]


def delivered_cells(
    rows: dict[bytes, ResultRow], contracts: dict[bytes, list[Pair]], slots: int
) -> dict[int, list[int]]:
    """Delivered Wh per slot of every confirmed pair: the seller's delivered part over its cells, largest remainder."""
    found: dict[int, list[int]] = {}
    for user, pairs in contracts.items():
        if rows[user].side != "sell":
            continue
        shares = largest_remainder(rows[user].delivered_wh, cell_weights(pairs))
        for position, pair in enumerate(pairs):
            found[pair.number] = shares[position * slots : (position + 1) * slots]
    return found


def agreed_per_slot(pairs: list[Pair], slots: int) -> list[int]:
    """Energy of these pairs per slot, Wh."""
    return [sum(pair.slot_wh[slot] for pair in pairs) for slot in range(slots)]


def cell_weights(pairs: list[Pair]) -> list[int]:
    """Contracted energy of every (pair, slot), pairs by number, slots ascending inside a pair."""
    return [wh for pair in pairs for wh in pair.slot_wh]


def seller_performance(
    agreed: list[int], cells: list[int], quota: list[int], load: list[int], eps: int, sign: int = 1
) -> Performance:
    """d = sum of quota - sum of load against w. Performed when d * 10^6 >= (10^6 - eps) * w. sign -1: d is mirrored.

    A defaulter's delivered part max(0, d) is split over its cells by largest remainder; what a cell lacks is short in
    the cell's slot.
    """
    promised = sum(agreed)
    saved = sign * (sum(quota) - sum(load))
    nothing = [0] * len(agreed)
    if saved * PPM >= (PPM - eps) * promised:
        return Performance("performed", promised, nothing)
    delivered = max(0, saved)
    shares = largest_remainder(delivered, cells)
    short = list(nothing)
    for index, (wh, share) in enumerate(zip(cells, shares, strict=True)):
        short[index % len(agreed)] += wh - share
    return Performance("breached", delivered, short)


def buyer_performance(agreed: list[int], quota: list[int], load: list[int], eps: int, sign: int = 1) -> Performance:
    """Quota' = quota + sign * bought. Performed when the load is within (1 +- eps) * Quota' over the window.

    The net deviation of a defaulter is split over the slots that deviate in its direction, by largest remainder.
    """
    allowed = [base + sign * bought for base, bought in zip(quota, agreed, strict=True)]
    deviation = [sign * (used - may) for used, may in zip(load, allowed, strict=True)]
    net, total = sum(deviation), sum(allowed)
    if abs(net) * PPM <= eps * total:
        return Performance("performed", sum(agreed), [0] * len(agreed))
    direction = 1 if net > 0 else -1
    short = largest_remainder(abs(net), [max(0, direction * delta) for delta in deviation])
    return Performance("breached", max(0, sum(agreed) - abs(net)), short)


def credit_after(
    rules: RuleSet,
    before: int,
    performance: Performance,
    agreed_wh: int,
    counted_wh: int | None = None,
    room: int | None = None,
) -> int:
    """New credit, clamped to [0, cap]. Unverified: unchanged.

    counted_wh    energy that earns credit after the discount for repeated partners, at most agreed_wh (the default)
    room          most that may be gained (default: no limit)

    mode paper   floor(reward * counted / agreed) when performed, -penalty when breached.
    mode energy  floor(reward * min(w, full) * (p - e) / (full * (10^6 - e))) with p = 10^6 * delivered // agreed,
                 e = break_even_ppm, w = counted for a gain and agreed for a loss, never below -penalty: p = e changes
                 nothing, whoever delivers all gains reward.
    """
    if performance.status not in ("performed", "breached"):
        return before
    counted = agreed_wh if counted_wh is None else counted_wh
    if rules.mode == "paper":
        performed = performance.status == "performed"
        change = rules.credit_reward * counted // agreed_wh if performed else -rules.credit_penalty
    else:
        reached = PPM * performance.delivered_wh // agreed_wh
        weight = min(counted if reached >= rules.break_even_ppm else agreed_wh, rules.full_weight_wh)
        scale = rules.full_weight_wh * (PPM - rules.break_even_ppm)
        change = rules.credit_reward * weight * (reached - rules.break_even_ppm) // scale
        change = max(change, -rules.credit_penalty)
    if room is not None:
        change = min(change, room)
    return min(max(before + change, 0), rules.credit_cap)


def settle_credit(session: Session, signer: Account, fields: EventCall) -> None:
    """SettlementCredit(): compare terminals' data with contracts; allowed once no register can change any more."""
    event = session.event_in(fields.event, State.DELIVERING)
    refuse_if(cross_area.are_undecided(cross_area.trades_of(session, event.event)), "cross-open")
    contracts = contracts_of(orders.pairs_of(session, event.event, event.pairs), across_of(session, event))
    now_s = session.context.time_s
    complete = now_s >= event.spec.window_end_s and metering.is_complete(session, event, list(contracts))
    refuse_if(now_s < event.spec.meter_close_s and not complete, "early")
    rules = session.rules(event.rules_version)
    over, under = [0] * event.spec.slots, [0] * event.spec.slots
    rows: dict[bytes, ResultRow] = {}
    for user, pairs in contracts.items():
        row = _with_credit(session, event, rules, _row(session, event, rules, user, pairs), pairs)
        rows[user] = row
        session.put(result_row_key(event.event, user), row)
        account = session.account(user)
        session.store_account(replace(account, credit=row.credit_after))
        if row.status == "unverified":
            continue
        for slot in range(event.spec.slots):
            excess = deviation_wh(row, slot, event.spec.sign)
            over[slot] += max(0, excess)
            under[slot] += max(0, -excess)
    session.put(result_key(event.event), Result(list(contracts), bytes(32)))
    cross_area.settle(session, event, rows, delivered_cells(rows, contracts, event.spec.slots))
    session.advance(event, Trigger.SETTLEMENT_CREDIT)
    session.emit(MAIN_CHAIN, "Metered", Metered(event.event, over, under))


def deviation_wh(row: ResultRow, slot: int, sign: int) -> int:
    """delta of model 1.5, Wh: load above what is allowed after trade; in a valley (sign -1) load below it."""
    allowed = row.quota_wh[slot] + sign * (row.bought_wh[slot] - row.sold_wh[slot])
    return sign * (row.metered_wh[slot] - allowed)


def _row(session: Session, event: AreaEvent, rules: RuleSet, user: bytes, pairs: list[Pair]) -> ResultRow:
    """The result row of one user as far as credit goes; money is filled in by settlement."""
    spec = event.spec
    side: Side = "sell" if pairs[0].seller == user else "buy"
    meter = session.get(register_key(event.event, user), EventMeter)
    point = session.user(user)
    rated_w = [session.need(plug_key(plug), Plug).rated_w for plug in point.plugs]
    load = metering.metered_wh(meter, rated_w, spec)
    sealed = session.need(sealed_key(event.event, user), Sealed)
    quota = sealed.quota_wh
    agreed = agreed_per_slot(pairs, spec.slots)
    nothing = [0] * spec.slots
    if NO_REGISTER in load:
        performance = Performance("unverified", 0, nothing)
    elif side == "sell":
        performance = seller_performance(agreed, cell_weights(pairs), quota, load, rules.eps_ppm, spec.sign)
    else:
        performance = buyer_performance(agreed, quota, load, rules.eps_ppm, spec.sign)
    before = session.account(user).credit
    return ResultRow(
        user=user,
        side=side,
        status=performance.status,
        sold_wh=agreed if side == "sell" else nothing,
        bought_wh=agreed if side == "buy" else nothing,
        quota_wh=quota,
        metered_wh=load,
        outside_wh=metering.outside_wh(meter, load),
        agreed_wh=sum(agreed),
        delivered_wh=performance.delivered_wh,
        short_wh=performance.short_wh,
        credit_before=before,
        credit_after=before,
        traded_u=0,
        charge_u=0,
        penalty_u=0,
        arrears_u=0,
        rp_u_per_wh=0,
        notice="none",
        points=0,
    )


def _with_credit(session: Session, event: AreaEvent, rules: RuleSet, row: ResultRow, pairs: list[Pair]) -> ResultRow:
    """The row with the user's new credit; what the limits must remember is noted."""
    if row.status == "unverified":
        return row
    day = event.spec.window_start_s // standing.DAY_S
    known = standing.of(session, row.user)
    counted_wh, partners = standing.count_trades(rules, known, day, standing.trades_of(row.user, pairs))
    performance = Performance(row.status, row.delivered_wh, row.short_wh)
    base = standing.idle_credit(rules, known, row.credit_before, day)
    after = credit_after(rules, base, performance, row.agreed_wh, counted_wh, standing.room(rules, known, day))
    if remembers(rules):
        standing.note(session, row.user, day, max(0, after - base), partners)
    return replace(row, credit_after=after)
