"""Credit of a user beyond one event: idle decay, trades with one partner, the cap of a day, the way back.

Every limit is a figure of the rule set and 0 switches it off; rule set 1 has none of them, as the paper has none.  Days
are those of an event's window, so the outcome does not depend on how many blocks an event took; only `rehabilitate`,
a call of its own, counts in block time.  Source: model.md rows K1, K2, K6; U14, U30.
"""

from typing import Final

from msgspec.structs import replace

from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.kinds import Rehabilitate
from watt_chain.contract.objects import Account, Pair, Standing, account_key, standing_key
from watt_chain.contract.rules import RuleSet

DAY_S: Final = 86_400
NO_DAY: Final = -1


def of(session: Session, account: bytes) -> Standing:
    """What is remembered of a user; nothing at first."""
    return session.get(standing_key(account), Standing) or Standing(NO_DAY, 0, [], 0)


def idle_credit(rules: RuleSet, standing: Standing, credit: int, day: int) -> int:
    """Credit above the start falls towards it by one point for every decay_days since the last trade."""
    if not rules.decay_days or standing.day == NO_DAY or credit <= rules.credit_start:
        return credit
    return max(rules.credit_start, credit - max(0, day - standing.day) // rules.decay_days)


def room(rules: RuleSet, standing: Standing, day: int) -> int:
    """Credit that may still be gained on this day."""
    if not rules.daily_gain_max:
        return rules.credit_cap
    return max(0, rules.daily_gain_max - (standing.gained if standing.day == day else 0))


def count_trades(
    rules: RuleSet, standing: Standing, day: int, trades: list[tuple[bytes, int]]
) -> tuple[int, list[tuple[bytes, int, int]]]:
    """Energy that earns credit, Wh, and the runs of trades after this event.

    trades    (partner, Wh), one per confirmed pair
    The k-th trade of a run counts wh // k; a run begins anew partner_days after its first trade.
    """
    if not rules.partner_days:
        return sum(wh for _, wh in trades), []
    runs = {partner: (first, count) for partner, first, count in standing.partners if day - first < rules.partner_days}
    counted = 0
    for partner, wh in trades:
        first, count = runs.get(partner, (day, 0))
        runs[partner] = (first, count + 1)
        counted += wh // (count + 1)
    return counted, [(partner, *runs[partner]) for partner in sorted(runs)]


def trades_of(user: bytes, pairs: list[Pair]) -> list[tuple[bytes, int]]:
    """(partner, Wh) of a user's confirmed pairs."""
    return [(pair.buyer if pair.seller == user else pair.seller, sum(pair.slot_wh)) for pair in pairs]


def note(session: Session, user: bytes, day: int, gained: int, partners: list[tuple[bytes, int, int]]) -> None:
    """Remember what an event gave a user."""
    before = of(session, user)
    today = before.gained if before.day == day else 0
    session.put(standing_key(user), replace(before, day=day, gained=today + gained, partners=partners))


def suspend(session: Session, user: bytes, since_s: int) -> None:
    """From now on days without violation count."""
    session.put(standing_key(user), replace(of(session, user), since_s=since_s))


def rehabilitate(session: Session, signer: Account, fields: Rehabilitate) -> None:
    """The regulator lets a suspended user come back: rehab_per_day points per whole day, up to the bar (U14).

    At the bar the suspension ends. Days that were counted once are not counted again.
    """
    account = session.get(account_key(fields.user), Account)
    if account is None or account.role != "user":
        refuse("unknown-user")
    rules = session.rules()
    refuse_if(rules.rehab_per_day == 0, "rule-off")
    refuse_if(not account.suspended, "not-suspended")
    standing = of(session, account.id)
    days = max(0, session.context.time_s - standing.since_s) // DAY_S
    refuse_if(days == 0, "early")
    credit = max(account.credit, min(rules.credit_bar, account.credit + days * rules.rehab_per_day))
    session.put(standing_key(account.id), replace(standing, since_s=standing.since_s + days * DAY_S))
    session.store_account(replace(account, credit=credit, suspended=credit < rules.credit_bar))
