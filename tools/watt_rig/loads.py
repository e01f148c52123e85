"""Loads of a bench by name: measured appliance cycles and households of the package's data, files, plain watts.

"dishwasher-1" .. "washingmachine-5"     a measured day, 10 s a value (watt_tools/data/odbl-1.0)
"building-1" .. "building-5"             a household of the CityLearn data, hourly
"fridge"                                 a model: 90 W for 12 minutes, 2 W for 28
"kettle"                                 a model: 2 kW for 3 minutes every hour
1500                                     watts, always
"file.json"                              {"start_s", "step_s", "watts"}
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from watt_rig.load import Load, LoadError, Profile, read_profile

MINUTE_S = 60
TRACE_STEP_S = 10
START_S = 1_600_000_000
"Profiles begin long before any bench and repeat, so that a chip's counter never starts before its load."
MODELS = {
    "fridge": [90] * 12 + [2] * 28,
    "kettle": [2000] * 3 + [0] * 57,
}
DATA = Path(__file__).resolve().parents[1] / "watt_tools" / "data"


def load_of(name: str, rated_w: int, base: Path) -> Load:
    """Make the load; LoadError names what is wrong with it."""
    if name.isdigit():
        return Load(Profile(START_S, MINUTE_S, [min(int(name), rated_w)]), rated_w)
    if name.endswith(".json"):
        return Load(read_profile(base / name), rated_w)
    if name in MODELS:
        return Load(Profile(START_S, MINUTE_S, [min(value, rated_w) for value in MODELS[name]]), rated_w)
    cycle = DATA / "odbl-1.0" / f"{name}.txt"
    if cycle.exists():
        watts = _cycle(cycle)
        return Load(Profile(START_S, TRACE_STEP_S, [min(value, rated_w) for value in watts]), rated_w)
    building = DATA / "mit" / f"citylearn-{name}.csv.gz"
    if building.exists():
        return Load(Profile(START_S, 3600, [min(value, rated_w) for value in _building(building)]), rated_w)
    raise LoadError(f"load {name!r}: allowed are watts, a .json file, {', '.join(MODELS)}, dishwasher-N, building-N")


def _cycle(path: Path) -> list[int]:
    """Watts step by step, `w` or `w*steps`; comment lines begin with #."""
    try:
        watts: list[int] = []
        for word in " ".join(line for line in path.read_text().splitlines() if not line.startswith("#")).split():
            value, _, count = word.partition("*")
            watts += [max(0, int(value))] * int(count or 1)
    except (OSError, ValueError) as error:
        raise LoadError(f"{path}: not a list of watts: {error}") from None
    return watts


def _building(path: Path) -> list[int]:
    """Column load_wh, Wh in an hour, which are watts."""
    try:
        with gzip.open(path, "rt", newline="") as file:
            rows = list(csv.DictReader(file))
        return [max(0, round(float(row["load_wh"]))) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise LoadError(f"{path}: no column load_wh: {error}") from None
