"""Stage 5, price incentive: PriceIncentives() (the RP model) and Punish().

Source: paper section 4.1 and 4.4; model.md rows J18, J19, K3, K4, K10, I26, I31; U13, U14, U26.  Power-off exists in
the paper only as the last step of Punish(); here it needs a policy object signed by the regulator, which no kind of
transaction can create yet: so nothing is ever switched, and the penalty is the loss of market rights.
"""

from typing import Final, Literal

from msgspec.structs import replace

from watt_chain.contract import standing
from watt_chain.contract.access import Session, refuse_if
from watt_chain.contract.event import State
from watt_chain.contract.kinds import EventCall
from watt_chain.contract.objects import (
    Account,
    AreaEvent,
    Incentive,
    Result,
    ResultRow,
    event_key,
    incentive_key,
    result_key,
    result_row_key,
)

DAY_S: Final = 86_400

Notice = Literal["none", "warned", "suspended"]


def rows_of(session: Session, event: AreaEvent) -> list[ResultRow]:
    """The result rows of an event, users ascending."""
    users = session.need(result_key(event.event), Result).users
    return [session.need(result_row_key(event.event, user), ResultRow) for user in users]


def price_incentives(session: Session, signer: Account, fields: EventCall) -> None:
    """PriceIncentives(): the price of later normal use, from credit and the mean real-time price."""
    event = session.event_in(fields.event, State.SETTLED)
    refuse_if(event.incentives_done, "done")
    rules = session.rules(event.rules_version)
    # The end counts from a deadline of the signal, not from this block: the outcome must not depend on block times.
    until_s = event.spec.settle_by_s + rules.rp_days * DAY_S
    normal = event.spec.normal_price_u_per_wh
    rows = rows_of(session, event)
    prices = {
        row.user: session.market.incentive_price(
            row.credit_after, row.status == "performed", event.spec, event.mean_price_u_per_wh, rules
        )
        for row in rows
        if row.status in ("performed", "breached")
    }
    # What the grid company gives up at most, against what it took and what the regulator lets it spend (U13).
    given_u = sum(
        max(0, normal - prices[r.user]) * rules.rp_energy_factor * r.agreed_wh for r in rows if r.user in prices
    )
    allowed_u = rules.response_budget_u + sum(row.penalty_u for row in rows)
    for row in rows:
        if row.user not in prices:
            continue
        price = prices[row.user]
        if given_u > allowed_u and price < normal:
            price = normal - (normal - price) * allowed_u // given_u
        energy_wh = rules.rp_energy_factor * row.agreed_wh
        session.put(incentive_key(row.user), Incentive(event.event, price, until_s, energy_wh))
        session.put(result_row_key(event.event, row.user), replace(row, rp_u_per_wh=price))
    session.put(event_key(event.event), replace(event, incentives_done=True))


def punish(session: Session, signer: Account, fields: EventCall) -> None:
    """Punish(): strictly below the bar a user loses its market rights; below the warning line it is warned."""
    event = session.event_in(fields.event, State.SETTLED)
    refuse_if(event.punish_done, "done")
    refuse_if(not event.incentives_done, "order")
    rules = session.rules(event.rules_version)
    for row in rows_of(session, event):
        notice: Notice = "none"
        if row.credit_after < rules.credit_bar:
            notice = "suspended"
        elif row.credit_after < rules.warn_below:
            notice = "warned"
        account = session.account(row.user)
        if notice == "suspended" and not account.suspended:
            standing.suspend(session, row.user, event.spec.settle_by_s)
        session.store_account(
            replace(account, suspended=account.suspended or notice == "suspended", warned=notice == "warned")
        )
        session.put(result_row_key(event.event, row.user), replace(row, notice=notice))
    session.put(event_key(event.event), replace(event, punish_done=True))
