"""The faults of a field run: what happens to which plug at which hour, drawn from one seed.

Times are world seconds from the beginning. A power cut waits for the plug it is meant for, so that every cut hits a
plug that had come up, except for one in six, which comes while it is still starting.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

HOUR_S = 3600
CUTS = 216
"Of a day with three plugs: a dozen more than must be survived, because a torn write may need a second one."
EARLY = 6
"One cut in so many comes before the plug has come up."
WIFI_LOSSES = 5
NOISE_HOURS = 3
NOISE_PPM = 4_000
"One byte in 250: a frame of 24 bytes in ten is damaged."
BROKER_DEATHS = 4
CLOCK_JUMPS = ((6, 3_600), (7, 0), (14, -1_800), (15, 0))
"(hour, error of the time source in s)"


@dataclass(frozen=True, order=True)
class Event:
    """One fault at `at_s`. `early`: do not wait for the plug to have come up."""

    at_s: int
    plug: str
    name: str
    value: int = 0
    early: bool = False


def plan(plugs: list[str], hours: int, seed: int) -> list[Event]:
    """All faults of a run, in order of time. A shorter run has fewer in proportion."""
    rng = random.Random(seed)
    end_s = hours * HOUR_S
    events = _cuts(plugs, hours, rng)
    for plug in plugs:
        for _ in range(max(1, WIFI_LOSSES * hours // 24)):
            events.append(Event(rng.randrange(end_s * 9 // 10), plug, "wifi-loss", rng.randrange(2, 9)))
        for _ in range(max(1, NOISE_HOURS * hours // 24)):
            start_s = rng.randrange(end_s * 8 // 10)
            events.append(Event(start_s, plug, "uart-noise", NOISE_PPM))
            events.append(Event(start_s + HOUR_S, plug, "uart-noise", 0))
    for hour, error_s in CLOCK_JUMPS:
        if hour < hours:
            events.append(Event(hour * HOUR_S + rng.randrange(600), rng.choice(plugs), "clock-jump", error_s))
    for _ in range(max(1, BROKER_DEATHS * hours // 24)):
        events.append(Event(rng.randrange(end_s * 9 // 10), "", "broker-death", rng.randrange(1, 5)))
    return sorted(events)


def _cuts(plugs: list[str], hours: int, rng: random.Random) -> list[Event]:
    """Power cuts, brown-outs and cuts inside a write, spread evenly with jitter over the plugs' days."""
    events = []
    for plug in plugs:
        count = max(1, CUTS * hours // 24 // len(plugs))
        step_s = hours * HOUR_S * 97 // 100 // count
        for number in range(count):
            at_s = 300 + number * step_s + rng.randrange(step_s // 2)
            name = rng.choice(("power-cut", "brown-out", "cut-in-write"))
            value = rng.randrange(1, 30) if name == "cut-in-write" else 0
            events.append(Event(at_s, plug, name, value, rng.randrange(EARLY) == 0))
    return events
