"""Rule sets: the figures of the market, signed by the regulator, versioned, all integers.

Normative text: station/CONTRACT.md, "Rule sets".  Rule set 1 is the paper literally (+2, -4, bar 50); rule set 2
weights credit by energy so that 90 % of the promised energy is break-even.  An event is bound to one version from
its announcement to its close (the version travels with the Initial message).
"""

from itertools import pairwise
from typing import Final, Literal

import msgspec

PPM: Final = 1_000_000
"Denominator of every field that ends in `_ppm`."

RULE_FIELD_MAX: Final = 10**12
"No figure of a rule set is larger; keeps every product of three figures within 128 bits and 64-bit sums safe."
PRICE_MAX: Final = 10**6
"Bound of prices (1 currency unit per Wh), of the credit scale and of gamma: no amount of an event can reach 2^63."
COMFORT_STEPS: Final = 3
"Price steps of one offer; three make a quadratic preference visible and keep the program linear (U17)."
BASELINE_DAYS_MAX: Final = 10
"Like days of a baseline; two working weeks."
DAYS_MAX: Final = 1_000
"Bound of spans in days, of daily points and of the energy factor."
CROSSINGS_MAX: Final = 16
"Of one bid: its escrow reserves a charge for each."
CLASSES: Final = ("encrypted", "plain", "secure")
"Key classes of a plug, in the order in which `excluded_classes` must list them."


class RuleSet(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One version of the trading rules (A13, U29). Field order is normative."""

    version: int
    credit_start: int
    credit_cap: int
    credit_reward: int
    credit_penalty: int
    credit_bar: int
    "A user strictly below is suspended from the market (K3, K4)."
    warn_below: int
    mode: Literal["paper", "energy"]
    eps_ppm: int
    "Tolerance of a performance test, as a fraction of what was agreed."
    beta_ppm: int
    "Equation (10): surcharge on the marginal price for excess."
    sigma_ppm: int
    "Share of the marginal price that is paid for under-use."
    gamma_u_per_ms: int
    "Money per millisecond of communication, equation (3)."
    price_cap_u_per_wh: int
    "No bid, ask or unit cost is higher; the bond is computed with it."
    commit_deposit_u: int
    gap_ppm: int
    "Largest accepted distance between a matching and its certified bound, as a fraction of the bound."
    risk_u_per_wh: int
    "Default-risk term of an offer at credit 0; falls linearly to 0 at `credit_cap`."
    rho_max_ppm: int
    sigma_max_ppm: int
    price_floor_ppm: int
    price_top_ppm: int
    block_points: int
    points_per_event: int
    excluded_classes: list[str]
    "Key classes that may not be settled; ascending, without repeats."
    break_even_ppm: int
    "Mode `energy`: the delivered fraction at which credit stays level."
    full_weight_wh: int
    "Mode `energy`: energy from which on a trade counts in full; smaller trades earn proportionally less."
    fresh_s: int
    "A seller's plugs must have a checkpoint not older than this when the book is closed (U16); 0 switches it off."
    price_rule: Literal["k-double", "uniform", "reduction"]
    "Contract price (U20): midpoint of each pair, one dual price per slot, or trade reduction."
    charge_rule: Literal["2x", "2x+y"]
    "Equation (3): the pair's messages stay in the station, or cross the main chain too."
    budget_ppm: int
    "Equation (8), U18: B is at most this share of the value of all bids; 0 = the signal's budget alone."
    headroom_w: list[tuple[int, int]]
    "Transformer headroom [chain, W], ascending: net quota that may flow into an area; one not listed has no limit."
    comfort_steps_ppm: list[int]
    "Convex comfort (U17): alpha of the first, second, last third of an offer's energy; empty = alpha for all of it."
    reading: Literal["A", "C"]
    "Price of excess and of a seller's shortfall (model 1.2): A (1 + beta) lambda; C lambda less the normal price."
    valley: bool
    "Whether events of low load (mirrored signs, I22) may be announced."
    escrow_cap_u: int
    "Most money that a bid may come to, price and charges together; 0 = what the account can pay."
    improve_s: int
    "After the first accepted matching a better one replaces it for so long (U28); 0 = the first stands."
    baseline_days: int
    "U15: like days a baseline is made of; 0 = the standard profile alone."
    baseline_high: int
    "How many of them, the highest, are averaged."
    adjust_ppm: int
    "Most that the load before the signal may scale that mean, up or down."
    partner_days: int
    "The k-th trade with one partner within so many days earns a k-th part (U30); 0 = every trade in full."
    daily_gain_max: int
    "Most credit that a user can gain on one day of delivery; 0 = no cap."
    decay_days: int
    "Credit above the start falls by one point for so many days without a trade; 0 = never."
    rehab_per_day: int
    "Points per day without violation that the regulator can restore, up to the bar (U14); 0 = no way back."
    rp_days: int
    "H of U13: an incentive price holds for so many days ..."
    rp_energy_factor: int
    "... and for at most so many times the energy that the user had agreed to trade."
    response_budget_u: int
    "What reduced prices may cost the grid company in one area and event beyond the penalties it took (U13)."
    crossings: int
    "Most contracts of one bid with sellers of other areas, at 2X + Y (3); 0 = every pair stays inside its area."
    rematch_s: int
    "Length of the second round of a matching (U25), before the confirmations of an event end; 0 = one round."


RULES_1: Final = RuleSet(
    version=1,
    credit_start=60,
    credit_cap=100,
    credit_reward=2,
    credit_penalty=4,
    credit_bar=50,
    warn_below=54,
    mode="paper",
    eps_ppm=50_000,
    beta_ppm=200_000,
    sigma_ppm=1_000_000,
    gamma_u_per_ms=5,
    price_cap_u_per_wh=6_000,
    commit_deposit_u=1_000_000,
    gap_ppm=50_000,
    risk_u_per_wh=0,
    rho_max_ppm=100_000,
    sigma_max_ppm=200_000,
    price_floor_ppm=500_000,
    price_top_ppm=1_500_000,
    block_points=1_000,
    points_per_event=100_000,
    excluded_classes=[],
    break_even_ppm=900_000,
    full_weight_wh=1_000,
    fresh_s=3_600,
    price_rule="k-double",
    charge_rule="2x",
    budget_ppm=250_000,
    headroom_w=[],
    comfort_steps_ppm=[],
    reading="A",
    valley=True,
    escrow_cap_u=0,
    improve_s=0,
    baseline_days=0,
    baseline_high=0,
    adjust_ppm=0,
    partner_days=0,
    daily_gain_max=0,
    decay_days=0,
    rehab_per_day=0,
    rp_days=30,
    rp_energy_factor=10,
    response_budget_u=RULE_FIELD_MAX,
    crossings=0,
    rematch_s=0,
)
"The paper literally; the default of the demo."

RULES_2: Final = msgspec.structs.replace(
    RULES_1,
    version=2,
    mode="energy",
    credit_penalty=18,
    excluded_classes=["plain"],
    improve_s=600,
    baseline_days=10,
    baseline_high=5,
    adjust_ppm=200_000,
    partner_days=30,
    daily_gain_max=2,
    decay_days=30,
    rehab_per_day=1,
    response_budget_u=1_000_000_000,
)
"Ours: credit follows energy, 90 % delivered is break-even, plain-key plugs are not settled, farming does not pay."


def risk_u_per_wh(rules: RuleSet, credit: int) -> int:
    """Default-risk term r_s of an offer, micro-currency per Wh (model U-points: price falls with credit, I5).

    risk * (cap - credit) // cap, with credit clamped to [0, cap]; 0 in rule sets 1 and 2.
    """
    held = min(max(credit, 0), rules.credit_cap)
    return rules.risk_u_per_wh * (rules.credit_cap - held) // rules.credit_cap


def remembers(rules: RuleSet) -> bool:
    """Whether anything of a user is remembered beyond one event (standing/<id8>)."""
    return bool(rules.partner_days or rules.daily_gain_max or rules.decay_days)


def headroom_wh(rules: RuleSet, chain: int, slot_s: int) -> int | None:
    """Most quota that may flow into an area, net of what flows out, in one slot, Wh; None = no limit."""
    for listed, watts in rules.headroom_w:
        if listed == chain:
            return watts * slot_s // 3_600
    return None


def check_rule_set(rules: RuleSet) -> str:
    """ "" when every figure is in range, otherwise the reason `rule-<what>`."""
    numbers = [value for value in msgspec.structs.astuple(rules) if isinstance(value, int)]
    if any(value < 0 or value > RULE_FIELD_MAX for value in numbers):
        return "rule-range"
    if max(rules.price_cap_u_per_wh, rules.credit_cap, rules.gamma_u_per_ms, rules.risk_u_per_wh) > PRICE_MAX:
        return "rule-range"
    if rules.beta_ppm > 10 * PPM or rules.sigma_max_ppm > 10 * PPM or rules.price_top_ppm > 10 * PPM:
        return "rule-range"
    if rules.version >= 2**31:  # a header carries it in 32 bits
        return "rule-range"
    if rules.version < 1 or rules.credit_cap < 1 or rules.full_weight_wh < 1 or rules.price_cap_u_per_wh < 1:
        return "rule-zero"
    if not rules.credit_bar <= rules.warn_below <= rules.credit_cap or rules.credit_start > rules.credit_cap:
        return "rule-credit"
    fractions = (rules.eps_ppm, rules.sigma_ppm, rules.gap_ppm, rules.rho_max_ppm, rules.price_floor_ppm)
    if any(value > PPM for value in fractions) or rules.break_even_ppm >= PPM or rules.price_top_ppm < PPM:
        return "rule-fraction"
    listed = rules.excluded_classes
    if any(name not in CLASSES for name in listed) or any(a >= b for a, b in pairwise(listed)):
        return "rule-class"
    return _check_switches(rules)


def _check_switches(rules: RuleSet) -> str:
    if any(chain < 1 or not 0 <= watts <= RULE_FIELD_MAX for chain, watts in rules.headroom_w):
        return "rule-headroom"
    if any(early[0] >= late[0] for early, late in pairwise(rules.headroom_w)):
        return "rule-headroom"
    steps = rules.comfort_steps_ppm
    if (
        len(steps) not in (0, COMFORT_STEPS)
        or any(not 0 <= step <= 10 * PPM for step in steps)
        or steps != sorted(steps)
    ):
        return "rule-comfort"  # a falling step would make the program not convex
    if not rules.baseline_high <= rules.baseline_days <= BASELINE_DAYS_MAX or rules.adjust_ppm > PPM:
        return "rule-baseline"
    if bool(rules.baseline_days) != bool(rules.baseline_high):
        return "rule-baseline"
    days = (rules.partner_days, rules.decay_days, rules.rp_days, rules.rehab_per_day, rules.daily_gain_max)
    if rules.crossings > CROSSINGS_MAX:
        return "rule-crossings"
    if max(*days, rules.rp_energy_factor) > DAYS_MAX or rules.budget_ppm > PPM:
        return "rule-range"
    if max(rules.improve_s, rules.rematch_s) > 86_400:
        return "rule-range"
    return ""
