"""The life of a matched pair, as a table, and what each side locks for it.

                      buyer-accepts     seller-accepts    refused   lapsed    settled   returned
    PROPOSED          BUYER_CONFIRMED   SELLER_CONFIRMED  DROPPED   DROPPED
    BUYER_CONFIRMED                     CONFIRMED         DROPPED   DROPPED
    SELLER_CONFIRMED  CONFIRMED                           DROPPED   DROPPED
    CONFIRMED                                                       .         SETTLED   RETURNED
    DROPPED, SETTLED, RETURNED: over

Invariant: an account's escrow and bond are the sums of what its pairs that are not over (and its sealed bids) hold.
"""

from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.market import Assignment, Book, PairTerms
from watt_chain.contract.objects import AreaEvent, Pair, pair_key
from watt_chain.contract.rules import PPM, RuleSet


class PairState(StrEnum):
    """Life of a pair; the value is what stands in the chain state."""

    PROPOSED = "PROPOSED"
    BUYER_CONFIRMED = "BUYER_CONFIRMED"
    SELLER_CONFIRMED = "SELLER_CONFIRMED"
    CONFIRMED = "CONFIRMED"
    DROPPED = "DROPPED"
    SETTLED = "SETTLED"
    RETURNED = "RETURNED"


class PairStep(StrEnum):
    """What can happen to a pair."""

    BUYER_ACCEPTS = "buyer-accepts"
    SELLER_ACCEPTS = "seller-accepts"
    REFUSED = "refused"
    LAPSED = "lapsed"
    SETTLED = "settled"
    RETURNED = "returned"


_UNDECIDED: Final = {PairStep.REFUSED: PairState.DROPPED, PairStep.LAPSED: PairState.DROPPED}

PAIR_TRANSITIONS: Final[dict[PairState, dict[PairStep, PairState]]] = {
    PairState.PROPOSED: {
        PairStep.BUYER_ACCEPTS: PairState.BUYER_CONFIRMED,
        PairStep.SELLER_ACCEPTS: PairState.SELLER_CONFIRMED,
        **_UNDECIDED,
    },
    PairState.BUYER_CONFIRMED: {PairStep.SELLER_ACCEPTS: PairState.CONFIRMED, **_UNDECIDED},
    PairState.SELLER_CONFIRMED: {PairStep.BUYER_ACCEPTS: PairState.CONFIRMED, **_UNDECIDED},
    PairState.CONFIRMED: {PairStep.SETTLED: PairState.SETTLED, PairStep.RETURNED: PairState.RETURNED},
    PairState.DROPPED: {},
    PairState.SETTLED: {},
    PairState.RETURNED: {},
}


def bond_u(rules: RuleSet, energy_wh: int) -> int:
    """Penalty deposit of one side for `energy_wh`: floor((10^6 + beta) * price cap * Wh / 10^6)."""
    return (PPM + rules.beta_ppm) * rules.price_cap_u_per_wh * energy_wh // PPM


def pairs_of(session: Session, event: int, count: int) -> list[Pair]:
    """All pairs of an event, by number."""
    return [session.need(pair_key(event, number), Pair) for number in range(1, count + 1)]


def make_pair(event: AreaEvent, book: Book, number: int, part: Assignment, terms: PairTerms) -> Pair | None:
    """The pair of an assignment; None when a price leaves what the two sides bid (the escrow would not cover it)."""
    offer, bid = book.offers[part.offer], book.bids[part.bid]
    if sum(part.slot_wh) == 0:
        return None
    used = [price for price, wh in zip(terms.price_u_per_wh, part.slot_wh, strict=True) if wh > 0]
    if any(not offer.price_u_per_wh <= price <= bid.price_u_per_wh for price in used):
        return None
    return Pair(
        event.event,
        number,
        offer.index,
        bid.index,
        offer.user,
        bid.user,
        part.slot_wh,
        bid.price_u_per_wh,
        terms.price_u_per_wh,
        terms.charge_u,
        0,
        0,
        0,
        0,
        PairState.PROPOSED.value,
        0,
    )


def step(session: Session, pair: Pair, what: PairStep) -> Pair:
    """Store the pair in the state that the table gives. Refuses "decided" when the table has no such step."""
    target = PAIR_TRANSITIONS[PairState(pair.state)].get(what)
    if target is None:
        refuse("decided")
    moved = replace(pair, state=target.value)
    session.put(pair_key(pair.event, pair.number), moved)
    return moved


def accept(session: Session, pair: Pair, account: bytes, rules: RuleSet) -> Pair:
    """One side confirms: its money is locked. Refuses "decided" and "balance".

    Buyer: escrow = sum of limit price * w + (charge + 1) // 2. Seller: escrow = charge // 2. Both: bond.
    """
    energy_wh = sum(pair.slot_wh)
    bond = bond_u(rules, energy_wh)
    if account == pair.buyer:
        escrow = pair.limit_u_per_wh * energy_wh + (pair.charge_u + 1) // 2
        locked = replace(pair, buyer_escrow_u=escrow, buyer_bond_u=bond)
        moved = step(session, locked, PairStep.BUYER_ACCEPTS)
    else:
        escrow = pair.charge_u // 2
        locked = replace(pair, seller_escrow_u=escrow, seller_bond_u=bond)
        moved = step(session, locked, PairStep.SELLER_ACCEPTS)
    refuse_if(session.account(account).free_u < escrow + bond, "balance")
    session.move(account, free_u=-escrow - bond, escrow_u=escrow, bond_u=bond)
    return moved


def release(session: Session, pair: Pair, what: PairStep) -> Pair:
    """The pair is over without effect: both sides get back all that they locked."""
    moved = step(session, pair, what)
    session.move(
        pair.buyer,
        free_u=pair.buyer_escrow_u + pair.buyer_bond_u,
        escrow_u=-pair.buyer_escrow_u,
        bond_u=-pair.buyer_bond_u,
    )
    session.move(
        pair.seller,
        free_u=pair.seller_escrow_u + pair.seller_bond_u,
        escrow_u=-pair.seller_escrow_u,
        bond_u=-pair.seller_bond_u,
    )
    emptied = replace(moved, buyer_escrow_u=0, seller_escrow_u=0, buyer_bond_u=0, seller_bond_u=0)
    session.put(pair_key(pair.event, pair.number), emptied)
    return emptied
