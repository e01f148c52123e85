"""Makes a failing run small: leaves out events of the schedule, then whole kinds of faults, while it still fails alike.

"Alike" means the same invariant. The halves, quarters, ... of the schedule are tried first (delta debugging), so a run
of a hundred events needs some tens of replays.
"""

from collections.abc import Callable
from dataclasses import replace

from watt_sim.config import Config, Event
from watt_sim.run import Result, run_config

CALM: tuple[dict[str, object], ...] = (
    {"loss_ppm": 0},
    {"double_ppm": 0},
    {"corrupt_ppm": 0},
    {"jitter_ppm": 0},
    {"dead": ()},
    {"skew_ms": (), "drift_ppm": ()},
    {"trim": False},
    {"founding": False},
    {"freeze": 0},
    {"assigned": False},
    {"terms": 0},
    {"bad": ()},
)
"""What may be switched off as a whole."""


def shrink(config: Config, tell: Callable[[str], None]) -> tuple[Config, Result]:
    """The smallest run found that breaks the same invariant. Raises ValueError when `config` breaks none."""
    result = run_config(config)
    if not result.violation:
        raise ValueError(f"seed {config.seed} with {config.n} validators breaks nothing")
    invariant = result.invariant

    def fails(candidate: Config) -> bool:
        return run_config(candidate).invariant == invariant

    for calm in CALM:
        candidate = replace(config, **calm)  # type: ignore[arg-type]  # names are those of Config
        if candidate != config and fails(candidate):
            config = candidate
            tell(f"without {', '.join(calm)}")
    config = replace(config, schedule=_fewer(list(config.schedule), lambda e: fails(replace(config, schedule=e)), tell))
    return config, run_config(config, transcript=True)


def _fewer(
    events: list[Event], fails: Callable[[tuple[Event, ...]], bool], tell: Callable[[str], None]
) -> tuple[Event, ...]:
    """Leave out parts of the schedule, large ones first."""
    size = len(events) // 2
    while size:
        start = 0
        while start < len(events):
            rest = events[:start] + events[start + size :]
            if fails(tuple(rest)):
                events = rest
                tell(f"{len(events)} events left")
            else:
                start += size
        size //= 2
    return tuple(events)
