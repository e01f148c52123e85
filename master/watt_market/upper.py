"""The upper level, program (P-U): which pairs may trade, what a pair is worth, and an upper bound of the optimum.

Symbols of the paper, their names here, units, and equations (BIDDING.md has the full table):

    W_st     offer_caps[s][t]      Wh        quota that seller s gives up at most in slot t
    D_bt     bid_caps[b][t]        Wh        quota that buyer b takes over at most, after the escrow trim
    v_b c_s  price_u_per_wh        u/Wh      limit price of a bid, ask of an offer
    r_s      risk_u_per_wh()       u/Wh      default risk, falls to 0 at full credit
    alpha_t  alpha_u_per_wh        u/Wh      comfort coefficient, Eq. (2)
    f        charge_u              u         gamma * 2X, Eq. (3), same station
    u q rho  multipliers           10^-6     any integers >= 0 give a valid bound

Everything is an integer; multipliers are scaled by SCALE (10^6). The admissible pairs follow from the book
alone: neither the solver nor the master can leave one out, and the bound covers all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Bid, Book, Offer, PairTerms, pair_charge_u
from watt_chain.contract.rules import RuleSet, risk_u_per_wh


@dataclass(frozen=True, slots=True)
class Pair:
    """One admissible pair of an offer and a bid."""

    offer: int
    bid: int
    margin_u_per_wh: int
    "v_b - c_s - r_s: worth of one Wh before comfort."
    room_wh: tuple[int, ...]
    "M_sbt = min(W_st, D_bt) per slot."


@dataclass(frozen=True, slots=True)
class AreaProblem:
    """(P-U) restricted to one area, derived from its book by rule."""

    chain: int
    alpha_u_per_wh: tuple[int, ...]
    charge_u: int
    offer_caps: tuple[tuple[int, ...], ...]
    bid_caps: tuple[tuple[int, ...], ...]
    offer_costs_u_per_wh: tuple[int, ...]
    "c_s + r_s of each offer."
    bid_values_u_per_wh: tuple[int, ...]
    "v_b of each bid."
    pairs: tuple[Pair, ...]
    "In (offer, bid) order."

    @property
    def slots(self) -> int:
        return len(self.alpha_u_per_wh)

    def pairs_of_offers(self) -> list[list[int]]:
        """Positions of the pairs of each offer."""
        found: list[list[int]] = [[] for _ in self.offer_caps]
        for position, pair in enumerate(self.pairs):
            found[pair.offer].append(position)
        return found

    def pairs_of_bids(self) -> list[list[int]]:
        """Positions of the pairs of each bid."""
        found: list[list[int]] = [[] for _ in self.bid_caps]
        for position, pair in enumerate(self.pairs):
            found[pair.bid].append(position)
        return found


def admissible(book: Book, rules: RuleSet) -> list[tuple[int, int]]:
    """Pairs (offer, bid) of different households that share a slot and where the limit price exceeds the ask.

    A price over the cap of the rule set never pairs: the bonds of both sides are computed from that cap.
    """
    cap = rules.price_cap_u_per_wh
    return [
        (offer.index, bid.index)
        for offer in book.offers
        for bid in book.bids
        if offer.user != bid.user
        and offer.price_u_per_wh < bid.price_u_per_wh <= cap
        and any(map(min, offer.slot_wh, bid.slot_wh))
    ]


def trimmed_bid_wh(bid: Bid, pair_count: int, charge_u: int) -> tuple[int, ...]:
    """Cut a bid to what its escrow limit pays for, earliest slots first.

    Reserving the buyer's half of every charge it could owe makes the escrow row of (P-U) hold by construction, so the
    certificate needs no multiplier for it and a poor bidder cannot widen the gap.
    """
    left_wh = _affordable_wh(bid.limit_u - pair_count * ((charge_u + 1) // 2), bid.price_u_per_wh)
    caps = []
    for wh in bid.slot_wh:
        taken = min(wh, left_wh)
        left_wh -= taken
        caps.append(taken)
    return tuple(caps)


def _affordable_wh(money_u: int, price_u_per_wh: int) -> int:
    return max(money_u, 0) // max(price_u_per_wh, 1)


def problem(book: Book, spec: EventSpec, rules: RuleSet) -> AreaProblem:
    """Derive the program of one area from its (checked) book."""
    charge_u = pair_charge_u(spec, rules)
    keys = admissible(book, rules)
    counts = [0] * len(book.bids)
    for _, b in keys:
        counts[b] += 1
    bid_caps = tuple(trimmed_bid_wh(bid, counts[bid.index], charge_u) for bid in book.bids)
    offer_caps = tuple(tuple(offer.slot_wh) for offer in book.offers)
    costs = tuple(offer.price_u_per_wh + risk_u_per_wh(rules, offer.credit) for offer in book.offers)
    values = tuple(bid.price_u_per_wh for bid in book.bids)
    pairs = tuple(Pair(s, b, values[b] - costs[s], tuple(map(min, offer_caps[s], bid_caps[b]))) for s, b in keys)
    return AreaProblem(book.chain, tuple(spec.alpha_u_per_wh), charge_u, offer_caps, bid_caps, costs, values, pairs)


def pair_terms(offer: Offer, bid: Bid, slot_wh: Sequence[int], spec: EventSpec, rules: RuleSet) -> PairTerms:
    """Contract price of each slot, the midpoint of model 1.4, and the charge of the pair.

    Price of slot t: (v_b + c_s + r_s + alpha_t) // 2. `slot_wh` does not enter it: the price is linear in nothing
    but the two declarations, the credit and the weather.
    """
    floor_u = offer.price_u_per_wh + risk_u_per_wh(rules, offer.credit)
    prices = [(bid.price_u_per_wh + floor_u + alpha) // 2 for alpha in spec.alpha_u_per_wh[: len(slot_wh)]]
    return PairTerms(price_u_per_wh=prices, charge_u=pair_charge_u(spec, rules))


def value_u(area: AreaProblem, pair: Pair, slot_wh: Sequence[int]) -> int:
    """Net value of a contracted pair: sum of (margin - alpha_t) w_t, less its charge."""
    gross = sum((pair.margin_u_per_wh - alpha) * wh for alpha, wh in zip(area.alpha_u_per_wh, slot_wh, strict=True))
    return gross - area.charge_u


def comfort_u(area: AreaProblem, slot_wh: Sequence[int]) -> int:
    """Eq. (2) of one pair, without the communication cost: sum of alpha_t w_t."""
    return sum(alpha * wh for alpha, wh in zip(area.alpha_u_per_wh, slot_wh, strict=True))


def gains_u(area: AreaProblem, pair: Pair, slot_wh: Sequence[int]) -> tuple[int, int]:
    """What buyer and seller each keep after price, comfort, risk and their half of the charge.

    Buyer: sum (v_b - price_t) w_t - ceil(f/2); seller: sum (price_t - c_s - r_s - alpha_t) w_t - floor(f/2).
    With net_t = margin - alpha_t the price's floor leaves the buyer (net_t + 1) // 2 and the seller net_t // 2 per Wh.
    """
    buyer = -((area.charge_u + 1) // 2)
    seller = -(area.charge_u // 2)
    for alpha, wh in zip(area.alpha_u_per_wh, slot_wh, strict=True):
        net = pair.margin_u_per_wh - alpha
        buyer += (net + 1) // 2 * wh
        seller += net // 2 * wh
    return buyer, seller


def reduced_scaled(
    area: AreaProblem, pair: Pair, slot: int, rho_scaled: int, offer_multiplier: int, bid_multiplier: int
) -> int:
    """Scaled reduced value of one Wh of `pair` in `slot`; may be negative."""
    comfort = (SCALE + rho_scaled) * area.alpha_u_per_wh[slot]
    return SCALE * pair.margin_u_per_wh - comfort - offer_multiplier - bid_multiplier


def bound_scaled(
    area: AreaProblem,
    rho_scaled: int,
    offer_multipliers: Sequence[Sequence[int]],
    bid_multipliers: Sequence[Sequence[int]],
) -> int:
    """This area's terms of the Lagrangian bound, times SCALE; valid for any multipliers >= 0 (model 1.4).

    sum W u + sum D q + sum over pairs of max(0, sum_t M [reduced]^+ - (1 + rho) f); rho * B is added once by the
    solution. No trust in the solver enters: a poor multiplier only makes the bound larger.
    """
    total = _priced_caps(area.offer_caps, offer_multipliers) + _priced_caps(area.bid_caps, bid_multipliers)
    charge = (SCALE + rho_scaled) * area.charge_u
    for pair in area.pairs:
        u, q = offer_multipliers[pair.offer], bid_multipliers[pair.bid]
        gain = -charge
        for slot, room in enumerate(pair.room_wh):
            if room:
                gain += room * max(0, reduced_scaled(area, pair, slot, rho_scaled, u[slot], q[slot]))
        total += max(0, gain)
    return total


def _priced_caps(caps: Sequence[Sequence[int]], multipliers: Sequence[Sequence[int]]) -> int:
    return sum(
        cap * multiplier
        for row, prices in zip(caps, multipliers, strict=True)
        for cap, multiplier in zip(row, prices, strict=True)
    )
