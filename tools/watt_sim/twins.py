"""Twins: one validator runs twice under one key, and for every view somebody else can hear somebody else.

Nobody programs an attack: two honest copies with one key equivocate by themselves as soon as they hear different
things (Bano et al., "Twins: BFT Systems Made Robust", 2020). A scenario is a number: which validator is doubled, and a
split in two of all stations for each of the first three views. With four validators these are 4 x 16^3 scenarios, and
they come in an order that spreads any part of them over the whole. Numbers beyond repeat them with a crash of an honest
validator right after it wrote down what it was about to send.
"""

from watt_sim.config import RECORD_KINDS, Config, Event
from watt_sim.drbg import Drbg
from watt_sim.run import Result, Runner

VIEWS = 3
STRIDE = 7919
"""A prime that divides no count of scenarios, so multiplying by it reaches every number once."""
SETTINGS = {
    "timeout_ms": 100,
    "timeout_max_ms": 400,
    "resend_ms": 60,
    "status_ms": 150,
    "batch_ms": 2,
    "transactions_max": 8,
}
HEAL_MS = 1000 + 100 * (1 + 2 + 4) + 150
"""When the views with sides have run out of patience, and a little later."""


def scenario_count(n: int) -> int:
    """Scenarios without crashes: the doubled validator times the splits of all stations in two, for each view."""
    return int(n * 2 ** (n * VIEWS))


def configure(number: int, n: int = 4) -> Config:
    """The run of a scenario."""
    count = scenario_count(n)
    rest = number % count * STRIDE % count
    rest, doubled = divmod(rest, n)
    sides: list[int] = []
    for _ in range(VIEWS):
        rest, split = divmod(rest, 2**n)
        # The first station is on side 0: naming the sides the other way round is the same split.
        sides += [0, *(split >> bit & 1 for bit in range(n))]
    chance = Drbg("twins", number, n)
    events = [Event(1000, "cut", 0, ("views", "", *sides))]
    events += [Event(1001, "submit", user, (1, "Add", user)) for user in range(min(n, 5))]
    if number >= count:
        for _ in range(2):
            node = chance.choice([index for index in range(n) if index != doubled])
            trap = (chance.choice(RECORD_KINDS[:4]), "after-sync", chance.choice((1, 20)))
            events.append(Event(1000 + chance.choice((0, 5, 110, 320)), "trap", node, trap))
    events.append(Event(HEAL_MS, "cut", 0, ("heal", "")))
    schedule = tuple(sorted(events, key=lambda event: event.at_ms))
    return Config(number, n, delay_ms=(1, 3), settings=SETTINGS, bad=((doubled, ("twin",)),), schedule=schedule)


def run_scenario(number: int, n: int = 4, transcript: bool = False) -> Result:
    """Play a scenario."""
    return Runner(configure(number, n), [] if transcript else None).play()
