"""Stage 4 ends, SettlementAmount() of an area: pairs are paid, charges and penalties go to the grid company.

The prices lambda come from the main chain's SettlementAmount (lower level, model.md 1.5).  Every amount moves between
two accounts; the sum over all accounts does not change.  Order: pairs by number, then users ascending, so that a
defaulter's receipts are there before its penalty is taken.
"""

from msgspec.structs import replace

from watt_chain.contract import cross_area, orders
from watt_chain.contract.access import Session, refuse_if
from watt_chain.contract.credit import across_of, agreed_per_slot, contracts_of, delivered_cells, deviation_wh
from watt_chain.contract.event import EventSpec, State, Trigger
from watt_chain.contract.kinds import EventCall
from watt_chain.contract.objects import (
    Account,
    Pair,
    Result,
    ResultRow,
    event_key,
    result_key,
    result_row_key,
)
from watt_chain.contract.orders import PairState, PairStep
from watt_chain.contract.rules import PPM, RuleSet


def settle_amount(session: Session, signer: Account, fields: EventCall) -> None:
    """SettlementAmount(): pay by the table of model.md 1.5."""
    event = session.event_in(fields.event, State.METERED)
    refuse_if(len(event.lambda_u_per_wh) != event.spec.slots, "no-prices")
    rules = session.rules(event.rules_version)
    pairs = orders.pairs_of(session, event.event, event.pairs)
    across = across_of(session, event)
    contracts = contracts_of(pairs, across)
    users = session.need(result_key(event.event), Result).users
    rows = {user: session.need(result_row_key(event.event, user), ResultRow) for user in users}
    delivered = delivered_cells(rows, contracts, event.spec.slots)
    grid = session.office("grid").id
    for pair in pairs:
        if pair.state != PairState.CONFIRMED:
            continue
        if rows[pair.seller].status == "unverified":
            orders.release(session, pair, PairStep.RETURNED)
            continue
        paid_u = sum(price * wh for price, wh in zip(pair.price_u_per_wh, delivered[pair.number], strict=True))
        _pay_pair(session, pair, paid_u, grid)
        seller, buyer = rows[pair.seller], rows[pair.buyer]
        rows[pair.seller] = replace(
            seller, traded_u=seller.traded_u + paid_u, charge_u=seller.charge_u + pair.charge_u // 2
        )
        rows[pair.buyer] = replace(
            buyer, traded_u=buyer.traded_u - paid_u, charge_u=buyer.charge_u + (pair.charge_u + 1) // 2
        )
    cross_area.close(session, event, rows, grid)
    for user in users:
        owed_u = penalty_u(rows[user], event.lambda_u_per_wh, event.spec, rules)
        paid_u, arrears_u = _take_penalty(session, user, owed_u, grid)
        row = replace(rows[user], penalty_u=paid_u, arrears_u=arrears_u)
        session.put(result_row_key(event.event, user), row)
    mean = mean_price_u_per_wh([*pairs, *(pair for _, pair in across)], event.lambda_u_per_wh, event.spec, rules)
    session.put(event_key(event.event), replace(event, mean_price_u_per_wh=mean))
    session.advance(session.event(event.event), Trigger.SETTLEMENT_AMOUNT)


def _pay_pair(session: Session, pair: Pair, paid_u: int, grid: bytes) -> None:
    """Buyer's escrow: payment to the seller, its half of the charge to the grid, the rest back. Bonds move to free."""
    buyer_charge, seller_charge = (pair.charge_u + 1) // 2, pair.charge_u // 2
    back_u = pair.buyer_escrow_u - paid_u - buyer_charge
    assert back_u >= 0, "the escrow at the limit price covers price and charge"
    session.move(
        pair.buyer,
        free_u=back_u + pair.buyer_bond_u,
        escrow_u=-pair.buyer_escrow_u,
        bond_u=-pair.buyer_bond_u,
    )
    session.move(
        pair.seller,
        free_u=paid_u + pair.seller_escrow_u - seller_charge + pair.seller_bond_u,
        escrow_u=-pair.seller_escrow_u,
        bond_u=-pair.seller_bond_u,
    )
    session.move(grid, free_u=pair.charge_u)
    orders.step(
        session,
        replace(pair, paid_u=paid_u, buyer_escrow_u=0, seller_escrow_u=0, buyer_bond_u=0, seller_bond_u=0),
        PairStep.SETTLED,
    )


def penalty_u(row: ResultRow, lambda_u_per_wh: list[int], spec: EventSpec, rules: RuleSet) -> int:
    """What a defaulter owes the grid, u; 0 for everybody else.

    Excess of a buyer, missing energy of a seller: reading A floor((10^6 + beta) * sum of lambda_t * short_t / 10^6),
    reading C sum of max(0, lambda_t - normal price) * short_t: the bill of that energy already paid the normal price.
    Under-use of a buyer: floor(sigma * sum of lambda_t * short_t / 10^6) in both. Source: model.md 1.2, 1.5.
    """
    if row.status != "breached":
        return 0
    under_use = row.side == "buy" and sum(deviation_wh(row, slot, spec.sign) for slot in range(spec.slots)) < 0
    recovered = spec.normal_price_u_per_wh if rules.reading == "C" and not under_use else 0
    rate = rules.sigma_ppm if under_use else PPM + (rules.beta_ppm if rules.reading == "A" else 0)
    prices = [max(0, price - recovered) for price in lambda_u_per_wh]
    return rate * sum(price * short for price, short in zip(prices, row.short_wh, strict=True)) // PPM


def _take_penalty(session: Session, user: bytes, owed_u: int, grid: bytes) -> tuple[int, int]:
    """Take a penalty from free money (which now holds the bond again). Returns (paid, recorded as arrears)."""
    account = session.account(user)
    paid_u = min(owed_u, account.free_u)
    session.store_account(
        replace(account, free_u=account.free_u - paid_u, arrears_u=account.arrears_u + owed_u - paid_u)
    )
    session.move(grid, free_u=paid_u)
    return paid_u, owed_u - paid_u


def mean_price_u_per_wh(pairs: list[Pair], lambda_u_per_wh: list[int], spec: EventSpec, rules: RuleSet) -> int:
    """Energy-weighted mean real-time price of the event in this area (U13), floor; unweighted without any trade.

    ((10^6 + beta) * sum of lambda_t * W_t) // (10^6 * sum of W_t), W_t = confirmed energy of slot t.
    """
    confirmed = [pair for pair in pairs if pair.state == PairState.CONFIRMED]
    weights = agreed_per_slot(confirmed, spec.slots)
    if sum(weights) == 0:
        weights = [1] * spec.slots
    value = sum(price * weight for price, weight in zip(lambda_u_per_wh, weights, strict=True))
    return (PPM + rules.beta_ppm) * value // (PPM * sum(weights))
