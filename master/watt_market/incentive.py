"""RP, the reward-penalty price of normal electricity after an event (paper section 5, `PriceIncentives()`; U13).

    phi(kappa) = (kappa - bar) / (cap - bar), clamped to [0, 1]
    performed   max(floor, p_N - rho_max   * phi             * p_RT)
    breached    min(top,   p_N + sigma_max * (1 - phi / 2)   * p_RT)

p_N is the normal price, p_RT the energy-weighted mean real-time price. Reward and penalty never swap sides, both fall
with credit, and the price depends on credit, not on the volume traded.
"""

from collections.abc import Sequence

from watt_chain.contract.event import EventSpec
from watt_chain.contract.rules import PPM, RuleSet


def phi_ppm(credit: int, rules: RuleSet) -> int:
    """Standing of a household between the bar (0) and the cap (10^6)."""
    span = rules.credit_cap - rules.credit_bar
    if span <= 0:
        return PPM if credit >= rules.credit_cap else 0
    return min(max(credit - rules.credit_bar, 0), span) * PPM // span


def incentive_price(credit: int, performed: bool, spec: EventSpec, mean_price_u_per_wh: int, rules: RuleSet) -> int:
    """Price of normal use for the later period, u/Wh; differences are rounded down, towards the normal price."""
    normal, mean = spec.normal_price_u_per_wh, max(0, mean_price_u_per_wh)
    phi = phi_ppm(credit, rules)
    if performed:
        reduction = rules.rho_max_ppm * phi * mean // PPM**2
        return max(min(normal * rules.price_floor_ppm // PPM, normal), normal - reduction)
    surcharge = rules.sigma_max_ppm * (2 * PPM - phi) * mean // (2 * PPM**2)
    return min(max(normal * rules.price_top_ppm // PPM, normal), normal + surcharge)


def mean_price_u_per_wh(prices_u_per_wh: Sequence[int], weights_wh: Sequence[int]) -> int:
    """Energy-weighted mean of the slots' real-time prices, rounded down; the plain mean when no energy weighs."""
    total = sum(weights_wh)
    if total <= 0:
        return sum(prices_u_per_wh) // len(prices_u_per_wh) if prices_u_per_wh else 0
    return sum(price * wh for price, wh in zip(prices_u_per_wh, weights_wh, strict=True)) // total
