"""The switches of the market's model, and what they are when nobody sets them.

A rule set of the regulator fixes them for an event; `options_of` is the one place that translates a rule set and a
signal. Everything below the engine takes `Options`, so that a study can turn one switch without a rule set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from watt_chain.contract.event import EventSpec
from watt_chain.contract.rules import PPM, RuleSet

PriceRule = Literal["k-double", "uniform", "reduction"]
"Contract price: between the two declarations, one dual price per slot, or trade reduction (BIDDING.md section 5)."
Reading = Literal["A", "C"]
"Of Eq. (9): the marginal price with a surcharge (A), or less what the user's own price recovers (C)."
STEPS_ONE: Final = (PPM,)
"One comfort step: the cost is linear in the energy given up."
STEPS_THREE: Final = (666_667, 1_000_000, 1_333_333)
"Three steps whose mean is 1: alpha w (1/2 + w / 2W) + ..., a quadratic in the energy given up, in thirds (U17)."


@dataclass(frozen=True, slots=True)
class Options:
    """Switches of the upper and the lower level; the defaults are the rule sets as they stand."""

    crossings: int = 0
    "Most pairs of one bid with offers of other areas, at 2X + Y (3); 0: every pair stays inside its area, at 2X."
    comfort_steps_ppm: tuple[int, ...] = STEPS_ONE
    "Factors on alpha of equal parts of an offer, ascending: the convex comfort cost in steps."
    headroom_wh: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    "Per area (chain) and slot: most Wh that may flow in net of what flows out. Only pairs across areas count."
    price_rule: PriceRule = "k-double"
    k_ppm: int = PPM // 2
    "Share of a pair's surplus per Wh that the price gives to the seller."
    reading: Reading = "A"


def options_of(spec: EventSpec, rules: RuleSet) -> Options:
    """Switches of an event under a rule set."""
    return Options(
        crossings=rules.crossings,
        price_rule=rules.price_rule,
        comfort_steps_ppm=tuple(rules.comfort_steps_ppm) or STEPS_ONE,
        headroom_wh={chain: (watts * spec.slot_s // 3_600,) * spec.slots for chain, watts in rules.headroom_w},
        reading=rules.reading,
    )
