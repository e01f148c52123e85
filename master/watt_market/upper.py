"""The upper level, program (P-U): which pairs may trade and what a pair is worth, as integer arrays.

Symbols of the paper, their names here, units, and equations (BIDDING.md has the full table):

    W_st     offer_caps[s, t]      Wh        quota that seller s gives up at most in slot t
    D_bt     bid_caps[b, t]        Wh        quota that buyer b takes over at most, after the escrow trim
    E_s D_b  offer_totals bid_...  Wh        most over all slots
    v_b c_s  values, costs         u/Wh      limit price of a bid; ask of an offer plus its default risk r_s
    alpha_st alpha[s, t]           u/Wh      comfort coefficient, Eq. (2): the event's or the household's own
    f        charge_u              u         gamma * 2X, Eq. (3), same station

Everything is an integer. The admissible pairs follow from the book alone: neither the solver nor the master can leave
one out, and the bound covers all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Bid, Book, Offer, PairTerms, Slice, pair_charge_u
from watt_chain.contract.rules import PPM, RuleSet, risk_u_per_wh

from watt_market.options import Options, options_of
from watt_market.prices import reduced_caps, slot_prices

Integers = NDArray[Any]
"int64, or object (Python integers) where a product could leave 64 bits."
NO_TOTAL: Final = 2**40
"Wh; stands for 'only the slots limit this row': a thousand times what SLOTS_MAX slots can carry."


@dataclass(frozen=True, slots=True)
class AreaProblem:
    """(P-U) restricted to one area, derived from its book by rule. Axes: S offers, N bids, T slots."""

    chain: int
    charge_u: int
    offer_caps: Integers
    "(S, T)"
    bid_caps: Integers
    "(N, T)"
    offer_totals: Integers
    "(S,); NO_TOTAL where there is none."
    bid_totals: Integers
    costs: Integers
    "(S,): c_s + r_s."
    values: Integers
    "(N,): v_b."
    alpha: Integers
    "(S, T)"
    allowed: Integers
    "(S, N) of bool: admissible pairs."
    prices: tuple[int, ...]
    "One price per slot where the price rule has one, otherwise empty."
    k_ppm: int

    @property
    def slots(self) -> int:
        return int(self.offer_caps.shape[1])

    def rooms(self, slot: int) -> Integers:
        """M_sbt of a slot, (S, N); 0 for pairs that are not admissible."""
        room: Integers = np.minimum(self.offer_caps[:, slot, None], self.bid_caps[None, :, slot]) * self.allowed
        return room


def across_charge_u(spec: EventSpec, rules: RuleSet) -> int:
    """Eq. (3) between two stations: gamma * (2X + Y); inside one it is `pair_charge_u`."""
    return rules.gamma_u_per_ms * (2 * spec.x_ms + spec.y_ms)


def admissible(book: Book, rules: RuleSet) -> list[tuple[int, int]]:
    """Pairs (offer, bid) of different households that share a slot and where the limit price exceeds the ask.

    A price over the cap of the rule set never pairs: the bonds of both sides are computed from that cap.
    """
    if not book.offers or not book.bids:
        return []
    return [(int(s), int(b)) for s, b in np.argwhere(_allowed(book.offers, book.bids, rules))]


def _allowed(offers: Sequence[Offer], bids: Sequence[Bid], rules: RuleSet) -> Integers:
    asks = np.array([offer.price_u_per_wh for offer in offers], dtype=np.int64)
    limits = np.array([bid.price_u_per_wh for bid in bids], dtype=np.int64)
    sells = np.array([[wh > 0 for wh in offer.slot_wh] for offer in offers], dtype=np.int64)
    buys = np.array([[wh > 0 for wh in bid.slot_wh] for bid in bids], dtype=np.int64)
    priced = (asks[:, None] < limits[None, :]) & (limits <= rules.price_cap_u_per_wh)[None, :]
    numbers: dict[bytes, int] = {}
    sellers = np.array([numbers.setdefault(offer.user, len(numbers)) for offer in offers])
    buyers = np.array([numbers.setdefault(bid.user, len(numbers)) for bid in bids])
    found: Integers = priced & (sells @ buys.T > 0) & (sellers[:, None] != buyers[None, :])
    return found


def trimmed_bid_wh(bid: Bid, pair_count: int, charge_u: int) -> list[int]:
    """Cut a bid to what its escrow limit pays for, earliest slots first.

    Reserving the buyer's half of every charge it could owe makes the escrow row of (P-U) hold by construction, so the
    certificate needs no multiplier for it and a poor bidder cannot widen the gap.
    """
    money_u = bid.limit_u - pair_count * ((charge_u + 1) // 2)
    left_wh = max(money_u, 0) // max(bid.price_u_per_wh, 1)
    caps = []
    for wh in bid.slot_wh:
        taken = min(wh, left_wh)
        left_wh -= taken
        caps.append(taken)
    return caps


def problem(book: Book, spec: EventSpec, rules: RuleSet, options: Options | None = None) -> AreaProblem:
    """Derive the program of one area from its (checked) book; `options` default to those of the rule set."""
    options = options or options_of(spec, rules)
    charge_u = pair_charge_u(spec, rules)
    shape = (len(book.offers), len(book.bids))
    allowed = _allowed(book.offers, book.bids, rules) if min(shape) else np.zeros(shape, dtype=bool)
    partners = allowed.sum(axis=0).tolist()
    if options.across:  # every seller of another area may be a partner too; the escrow must cover the dearer charge
        charge_most, partners = across_charge_u(spec, rules), [count + PARTNERS_ACROSS_MAX for count in partners]
    else:
        charge_most = charge_u
    bid_caps = [trimmed_bid_wh(bid, count, charge_most) for bid, count in zip(book.bids, partners, strict=True)]
    costs = [offer.price_u_per_wh + risk_u_per_wh(rules, offer.credit) for offer in book.offers]
    alpha = [offer.alpha_u_per_wh or spec.alpha_u_per_wh for offer in book.offers]
    area = AreaProblem(
        chain=book.chain,
        charge_u=charge_u,
        offer_caps=_table([offer.slot_wh for offer in book.offers], spec.slots),
        bid_caps=_table(bid_caps, spec.slots),
        offer_totals=np.array([offer.total_wh or NO_TOTAL for offer in book.offers], dtype=np.int64),
        bid_totals=np.array([bid.total_wh or NO_TOTAL for bid in book.bids], dtype=np.int64),
        costs=np.array(costs, dtype=np.int64),
        values=np.array([bid.price_u_per_wh for bid in book.bids], dtype=np.int64),
        alpha=_table(alpha, spec.slots),
        allowed=allowed,
        prices=(),
        k_ppm=options.k_ppm,
    )
    return area if options.price_rule == "k-double" else _priced(area, options)


PARTNERS_ACROSS_MAX: Final = 8
"Pairs across areas that one bid's escrow reserves charges for; a bid has no more of them."


def _table(rows: Sequence[Sequence[int]], slots: int) -> Integers:
    return np.array(rows, dtype=np.int64).reshape(len(rows), slots)


def _priced(area: AreaProblem, options: Options) -> AreaProblem:
    """The area under a rule with one price per slot; trade reduction also takes the marginal rows out."""
    costs = area.costs[:, None] + area.alpha
    offers, bids = area.offer_caps, area.bid_caps
    if options.price_rule == "reduction":
        prices, offers, bids = reduced_caps(costs, area.values, offers, bids)
    else:
        prices = slot_prices(costs, area.values, offers, bids)
    return AreaProblem(
        area.chain, area.charge_u, offers, bids, area.offer_totals, area.bid_totals, area.costs, area.values,
        area.alpha, area.allowed, tuple(prices), area.k_ppm,
    )  # fmt: skip


def pair_prices(area: AreaProblem, offers: Integers, bids: Integers) -> Integers:
    """Contract price of the pairs (offers[i], bids[i]) in every slot, (P, T).

    k-double auction: a + (v - a) k, rounded down, with a = c_s + r_s + alpha_st: at k = 1/2 the midpoint. With one
    price per slot: that price, moved into [a, v] where a pair lies beside it.
    """
    floors = area.costs[offers, None] + area.alpha[offers]
    ceilings = area.values[bids, None]
    if area.prices:
        moved: Integers = np.minimum(np.maximum(np.array(area.prices, dtype=np.int64), floors), ceilings)
        return moved
    split: Integers = floors + (ceilings - floors) * area.k_ppm // PPM
    return split


def pair_terms(offer: Offer, bid: Bid, slot_wh: Sequence[int], spec: EventSpec, rules: RuleSet) -> PairTerms:
    """Contract price of each slot under the k-double auction, and the charge of the pair.

    Price of slot t at k = 1/2: (v_b + c_s + r_s + alpha_t) // 2. `slot_wh` does not enter it: the price is linear in
    nothing but the two declarations, the credit and the weather.
    """
    floor_u = offer.price_u_per_wh + risk_u_per_wh(rules, offer.credit)
    alphas = (offer.alpha_u_per_wh or spec.alpha_u_per_wh)[: len(slot_wh)]
    k_ppm = options_of(spec, rules).k_ppm
    prices = [floor_u + alpha + (bid.price_u_per_wh - floor_u - alpha) * k_ppm // PPM for alpha in alphas]
    return PairTerms(price_u_per_wh=prices, charge_u=pair_charge_u(spec, rules))


def slice_terms(book: Book, part: Slice, spec: EventSpec, rules: RuleSet) -> list[PairTerms]:
    """Contract prices and charge of every assignment of a slice, in its order, by the price rule of the rule set."""
    if not part.assignments:
        return []
    area = problem(book, spec, rules)
    offers = np.array([one.offer for one in part.assignments])
    bids = np.array([one.bid for one in part.assignments])
    return [PairTerms([int(one) for one in row], area.charge_u) for row in pair_prices(area, offers, bids)]


@dataclass(frozen=True, slots=True)
class Figures:
    """What the pairs of a matching are worth; each array has one entry per pair."""

    values_u: Integers
    "sum (v - c - r - alpha) w, less the charge."
    comforts_u: Integers
    "Eq. (2) without the communication cost: sum alpha w."
    buyer_gains_u: Integers
    "sum (v - price) w - ceil(f / 2)."
    seller_gains_u: Integers
    "sum (price - c - r - alpha) w - floor(f / 2)."


def figures(area: AreaProblem, offers: Integers, bids: Integers, energies: Integers) -> Figures:
    """Figures of the pairs (offers[i], bids[i]) with energies (P, T)."""
    comfort = area.alpha[offers]
    floors = area.costs[offers, None] + comfort
    prices = pair_prices(area, offers, bids)
    ceilings = area.values[bids, None]
    return Figures(
        ((ceilings - floors) * energies).sum(axis=1) - area.charge_u,
        (comfort * energies).sum(axis=1),
        ((ceilings - prices) * energies).sum(axis=1) - (area.charge_u + 1) // 2,
        ((prices - floors) * energies).sum(axis=1) - area.charge_u // 2,
    )
