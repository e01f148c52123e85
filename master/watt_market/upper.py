"""The upper level, program (P-U): which pairs may trade and what a pair is worth, as integer arrays.

Symbols of the paper, their names here, units, and equations (BIDDING.md has the full table):

    W_st     offer_caps[s, t]      Wh        quota that seller s gives up at most in slot t
    D_bt     bid_caps[b, t]        Wh        quota that buyer b takes over at most, after the escrow trim
    E_s D_b  offer_totals bid_...  Wh        most over all slots
    v_b c_s  values, costs         u/Wh      limit price of a bid; ask of an offer plus its default risk r_s
    alpha_st alpha[s, t]           u/Wh      comfort coefficient, Eq. (2): the event's or the household's own
    f        charge_u              u         gamma * 2X, Eq. (3), same station
    f_x      across_u              u         gamma * (2X + Y), Eq. (3), different stations

Everything is an integer. The admissible pairs follow from the book alone: neither the solver nor the master can leave
one out, and the bound covers all of them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Bid, Book, Crossing, Offer, PairTerms, Slice, across_charge_u, pair_charge_u
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
    asks: Integers
    "(S,): c_s."
    costs: Integers
    "(S,): c_s + r_s."
    values: Integers
    "(N,): v_b."
    alpha: Integers
    "(S, T)"
    allowed: Integers
    "(S, N) of bool: admissible pairs."
    offer_prices: Integers | None
    "(S, T): price of the slot where the price rule has one, in the seller's area; otherwise None."
    bid_prices: Integers | None
    "(N, T): the same in the buyer's area."
    k_ppm: int
    across_u: int
    crossings: int
    "Most crossings of one bid; 0 where every pair stays inside its area."
    offer_crosses: Integers
    "(S,) of bool: rows that a row of another area may pair with, whatever it declares."
    bid_crosses: Integers
    "(N,) of bool."

    @property
    def slots(self) -> int:
        return int(self.offer_caps.shape[1])

    def rooms(self, slot: int) -> Integers:
        """M_sbt of a slot, (S, N); 0 for pairs that are not admissible."""
        room: Integers = np.minimum(self.offer_caps[:, slot, None], self.bid_caps[None, :, slot]) * self.allowed
        return room


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
    charge_u, across_u = pair_charge_u(spec, rules), across_charge_u(spec, rules)
    shape = (len(book.offers), len(book.bids))
    allowed = _allowed(book.offers, book.bids, rules) if min(shape) else np.zeros(shape, dtype=bool)
    partners = (allowed.sum(axis=0) + options.crossings).tolist()
    charge_most = max(charge_u, across_u) if options.crossings else charge_u
    bid_caps = [trimmed_bid_wh(bid, count, charge_most) for bid, count in zip(book.bids, partners, strict=True)]
    costs = [offer.price_u_per_wh + risk_u_per_wh(rules, offer.credit) for offer in book.offers]
    alpha = [offer.alpha_u_per_wh or spec.alpha_u_per_wh for offer in book.offers]
    cap = rules.price_cap_u_per_wh
    area = AreaProblem(
        chain=book.chain,
        charge_u=charge_u,
        offer_caps=_table([offer.slot_wh for offer in book.offers], spec.slots),
        bid_caps=_table(bid_caps, spec.slots),
        offer_totals=np.array([offer.total_wh or NO_TOTAL for offer in book.offers], dtype=np.int64),
        bid_totals=np.array([bid.total_wh or NO_TOTAL for bid in book.bids], dtype=np.int64),
        asks=np.array([offer.price_u_per_wh for offer in book.offers], dtype=np.int64),
        costs=np.array(costs, dtype=np.int64),
        values=np.array([bid.price_u_per_wh for bid in book.bids], dtype=np.int64),
        alpha=_table(alpha, spec.slots),
        allowed=allowed,
        offer_prices=None,
        bid_prices=None,
        k_ppm=options.k_ppm,
        across_u=across_u,
        crossings=options.crossings,
        # An ask below the cap, a limit not over it: whatever other areas declare, no other row can pair.
        offer_crosses=np.array([offer.price_u_per_wh < cap for offer in book.offers], dtype=bool),
        bid_crosses=np.array([bid.price_u_per_wh <= cap for bid in book.bids], dtype=bool),
    )
    return area if options.price_rule == "k-double" else _priced(area, options)


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
    row = np.array(prices, dtype=np.int64)
    return dataclasses.replace(
        area,
        offer_caps=offers,
        bid_caps=bids,
        offer_prices=np.tile(row, (len(offers), 1)),
        bid_prices=np.tile(row, (len(bids), 1)),
    )


def pair_prices(area: AreaProblem, offers: Integers, bids: Integers) -> Integers:
    """Contract price of the pairs (offers[i], bids[i]) in every slot, (P, T).

    k-double auction: a + (v - a) k, rounded down, with a = c_s + r_s + alpha_st: at k = 1/2 the midpoint. With one
    price per slot: that price, moved into [a, v] where a pair lies beside it; between two areas the midpoint of theirs.
    """
    floors = area.costs[offers, None] + area.alpha[offers]
    ceilings = area.values[bids, None]
    if area.offer_prices is not None and area.bid_prices is not None:
        slot = (area.offer_prices[offers] + area.bid_prices[bids]) // 2
        moved: Integers = np.minimum(np.maximum(slot, floors), ceilings)
        return moved
    split: Integers = floors + (ceilings - floors) * area.k_ppm // PPM
    return split


def slice_terms(book: Book, part: Slice, spec: EventSpec, rules: RuleSet) -> list[PairTerms]:
    """Contract prices and charge of every assignment of a slice, in its order, by the price rule of the rule set."""
    if not part.assignments:
        return []
    area = problem(book, spec, rules)
    offers = np.array([one.offer for one in part.assignments])
    bids = np.array([one.bid for one in part.assignments])
    return [PairTerms([int(one) for one in row], area.charge_u) for row in pair_prices(area, offers, bids)]


def crossing_terms(offers: Book, bids: Book, crossing: Crossing, spec: EventSpec, rules: RuleSet) -> PairTerms:
    """Contract prices and charge of a crossing from the books of the seller's and of the buyer's area."""
    area = union([problem(offers, spec, rules), problem(bids, spec, rules)])
    row = pair_prices(area, np.array([crossing.offer]), np.array([len(offers.bids) + crossing.bid]))[0]
    return PairTerms([int(one) for one in row], area.charge_u)


def union(areas: Sequence[AreaProblem]) -> AreaProblem:
    """The rows of all areas, one area after another, at the charge between areas; `allowed` is left empty.

    Row r of areas[n] is row r + (rows of areas[0] ... areas[n-1]) of the union. At least one area.
    """

    def stacked(name: str) -> Integers:
        return np.concatenate([getattr(area, name) for area in areas])

    priced = areas[0].offer_prices is not None
    stacked_rows: dict[str, Any] = {name: stacked(name) for name in (*OFFER_ROWS, *BID_ROWS)}
    return dataclasses.replace(
        areas[0],
        chain=0,
        charge_u=areas[0].across_u,
        allowed=np.zeros((0, 0), dtype=bool),
        offer_prices=stacked("offer_prices") if priced else None,
        bid_prices=stacked("bid_prices") if priced else None,
        **stacked_rows,
    )


OFFER_ROWS: Final = ("offer_caps", "offer_totals", "asks", "costs", "alpha", "offer_crosses")
BID_ROWS: Final = ("bid_caps", "bid_totals", "values", "bid_crosses")
"Arrays of an area with one entry per offer, and with one per bid."


def rows_of(area: AreaProblem, offers: Integers, bids: Integers, **changes: Any) -> AreaProblem:
    """Some rows of an area, numbered anew in the order given; `changes` replace whole fields."""
    picked = {name: getattr(area, name)[offers] for name in OFFER_ROWS}
    picked |= {name: getattr(area, name)[bids] for name in BID_ROWS}
    if area.offer_prices is not None and area.bid_prices is not None:
        picked |= {"offer_prices": area.offer_prices[offers], "bid_prices": area.bid_prices[bids]}
    return dataclasses.replace(area, **(picked | changes))


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


def figures(
    area: AreaProblem, offers: Integers, bids: Integers, energies: Integers, charges_u: Integers | None = None
) -> Figures:
    """Figures of the pairs (offers[i], bids[i]) with energies (P, T); `charges_u` (P,) where they differ."""
    charge_u = area.charge_u if charges_u is None else charges_u
    comfort = area.alpha[offers]
    floors = area.costs[offers, None] + comfort
    prices = pair_prices(area, offers, bids)
    ceilings = area.values[bids, None]
    return Figures(
        ((ceilings - floors) * energies).sum(axis=1) - charge_u,
        (comfort * energies).sum(axis=1),
        ((ceilings - prices) * energies).sum(axis=1) - (charge_u + 1) // 2,
        ((prices - floors) * energies).sum(axis=1) - charge_u // 2,
    )
