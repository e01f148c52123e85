"""The demo's evening, built from measured data: homes, their loads and wishes, and the demand signal.

Strategy.  Nothing is invented that could be measured. The evening is Tuesday 8 January 2013 in the United Kingdom,
17:00 to 19:00 UTC, eight quarter hours. Every home is a *home-day*: one of seven measured homes on one of its own
winter working days, laid on that evening by the clock. No home-day is used twice. How each number follows:

    annual_kwh        the measured year of the source home: the calendar year 2013 of the two UK homes, the year of
                      the five CityLearn homes
    base load         half-hourly (UK) or hourly (CityLearn) energy of that day as constant power; it is not flexible
    flexible load     one run of a measured dishwasher or washing machine (10 s steps) that begins up to half an hour
                      after the window opens; on top of the base load, and only in homes that sell or buy
    profile           H25, working day in January: Wh per quarter hour and 1000 kWh a year, rounded
    quota             profile * annual_kwh // 1000, less REQUIRED_PPM: the contract's own rule
    sell              a home whose base load leaves quota free: per slot four fifths of what is free, in all no more
                      than the run it can put off; it keeps its quota after a full sale by not running the machine
    buy               a home whose load exceeds its quota: what it lacks per slot
    watch             a home that takes no part
    ask               between the two prices of the EMHASS tariff (142 and 191 u/Wh), limit price between the lowest
                      and the highest evening price of the CityLearn tariff (400 and 540 u/Wh)
    alpha             model point U17 from the outdoor temperature at the UK homes
    budget            model point U18: a quarter of the bids at their limit prices
    generating units  the evening prices 400, 500 and 540 u/Wh; each may add a twentieth of the sum of quotas per slot,
                      the last one a fifth
    normal price      the CityLearn price outside the evening in winter, 220 u/Wh

One buyer takes all that it asked for or nothing; where it gets less, it refuses, and what that frees is matched again.

Home-days are drawn with a seeded generator, so `build` gives the same scenario everywhere. The first home is the
defaulter: it asks the least of its area, so every clearing matches it, and its load is above its quota, so that it
cannot have saved what it sold.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Literal

from watt_chain.contract.event import EventSpec, Unit
from watt_market.comfort import alphas_u_per_wh

DATA = Path(__file__).parent / "data"
UK, MIT, ODBL = DATA / "apache-2.0", DATA / "mit", DATA / "odbl-1.0"

WINDOW_START = datetime(2013, 1, 8, 17, tzinfo=UTC)
"A Tuesday; 9.8 deg C, mild enough that the comfort budget leaves room to trade."
PROFILE_COLUMN = 3
"H25: January, working day."
STEP_S = 10
"The chip of a plug is fed one frame per 10 s, and tracebase has one value per 10 s."
HOURS_BEFORE, HOURS_AFTER = 3, 4
"Measured hours laid before and after the start of the window."
HOUR_S = 3_600
RATED_W = 3_680
"A 16 A circuit at 230 V; home-days that need more are not chosen."
REQUIRED_PPM = 200_000
"A fifth off the baseline; some homes then lack quota and others have it to spare."
OFFERED_FIFTHS = 4
"A seller keeps a fifth of its free quota in hand."
TRADE_WH_MIN = 150
"Over the window; less is not worth an offer or a bid."
BUDGET_PERCENT = 25
X_MS, Y_MS = 20, 60
"Fixed by configuration, so that the outcome does not depend on the machine."
HOMES_MAX, AREAS_MAX = 200, 8
"There are about 300 winter working days of the seven homes; each is used once."
NODES_PER_AREA = 4
HOLIDAYS = ((12, 25), (12, 26), (1, 1))
"Of the United Kingdom, fixed in winter; CityLearn marks its own with day type 8."
ROLES: tuple[Literal["sell", "buy", "watch"], ...] = ("sell", "buy", "sell", "buy", "buy", "sell", "watch")
"Roles of an area's homes in order, again and again."
CHOOSY_HOME = 16
"Index of a buyer that takes all it asked for or nothing: what it refuses is matched a second time."
MICROPYTHON_HOMES = 4
WASM_HOME = 3
MAIN_METER_HOMES = 2
HAMLET_ROLES: tuple[Literal["sell", "watch"], ...] = ("sell", "watch")
"Homes of the small area that the demo halts: one that sells to other areas and one that looks on."


class ScenarioError(Exception):
    """No scenario of that size; the text says which limit."""


@dataclass(frozen=True, slots=True)
class Home:
    """One household of the demo."""

    name: str
    area: int
    "Chain of its area, from 1."
    node: int
    "Index of its serving node."
    annual_kwh: int
    rated_w: int
    side: Literal["sell", "buy", "watch"]
    price_u_per_wh: int
    slot_wh: list[int]
    "What it offers or bids per slot; zeros when it watches."
    behaviour: Literal["cooperative", "defaulter"]
    interpreter: Literal["micropython", "cpython"]
    is_wasm_capable: bool
    "Runs on the WASM interpreter just as well, where no MicroPython wheel exists."
    watts: list[int]
    "Load it would have without the event, one value per STEP_S from Scenario.start_s."
    flexible_w: list[int]
    "The part of `watts` that can be put off."
    main_meter: bool
    source: str
    "Measured home and day, for the curious."
    least_wh: int = 0
    "A matching result with less than this in all is refused."


@dataclass(frozen=True, slots=True)
class Scenario:
    """Homes and the signal of one evening."""

    start_s: int
    "Protocol time at which the network starts; the signal is announced then."
    step_s: int
    areas: int
    homes: list[Home]
    spec: EventSpec
    hamlet: int = 0
    "Chain of the small area that the demo halts; 0 = there is none."


@dataclass(frozen=True, slots=True)
class Timeline:
    """Instants of an event, protocol seconds."""

    open_s: int
    commit_close_s: int
    reveal_close_s: int
    match_by_s: int
    confirm_close_s: int
    window_start_s: int
    meter_close_s: int
    settle_by_s: int


def timeline(start_s: int, slot_s: int = 900, slots: int = 8) -> Timeline:
    """Instants of an event announced at `start_s`: three hours to agree, the window, half an hour to meter.

    Most of the three hours is for the clearing: some seconds of one core that 30 other processes share.
    """
    window_start_s = start_s + 10_800
    window_end_s = window_start_s + slots * slot_s
    return Timeline(
        open_s=start_s + 300,
        commit_close_s=start_s + 2_400,
        reveal_close_s=start_s + 3_900,
        match_by_s=start_s + 7_200,
        confirm_close_s=start_s + 9_000,
        window_start_s=window_start_s,
        meter_close_s=window_end_s + 1_800,
        settle_by_s=window_end_s + 5_400,
    )


def build(homes: int = 28, areas: int = 2, seed: int = 0, *, hamlet: bool = False) -> Scenario:
    """Build the scenario; the same arguments give the same scenario. Raises ScenarioError on a size out of range.

    hamlet   add one more area with HAMLET_ROLES: its seller asks the least but one, so it trades with another area
    """
    if not 1 <= areas <= AREAS_MAX or not areas <= homes <= HOMES_MAX:
        raise ScenarioError(f"{homes} homes in {areas} areas; allowed are {AREAS_MAX} areas and {HOMES_MAX} homes")
    slot_s, slots = 900, 8
    start_s = int(WINDOW_START.timestamp()) - 10_800
    times = timeline(start_s, slot_s, slots)
    profile = _profile_wh(slots)
    chooser = _Chooser(random.Random(seed), profile, times.window_start_s - start_s, slot_s)
    built = [chooser.home(index, areas) for index in range(homes)]
    if hamlet:
        built += [chooser.hamlet(homes + place, areas + 1, place) for place in range(len(HAMLET_ROLES))]
    total_quota = [sum(quota(profile, home.annual_kwh)[slot] for home in built) for slot in range(slots)]
    prices = _evening_prices()
    spec = EventSpec(
        event=1,
        kind="peak",
        slot_s=slot_s,
        slots=slots,
        required_ppm=REQUIRED_PPM,
        open_s=times.open_s,
        commit_close_s=times.commit_close_s,
        reveal_close_s=times.reveal_close_s,
        match_by_s=times.match_by_s,
        confirm_close_s=times.confirm_close_s,
        window_start_s=times.window_start_s,
        meter_close_s=times.meter_close_s,
        settle_by_s=times.settle_by_s,
        alpha_u_per_wh=_alphas(slot_s, slots),
        x_ms=X_MS,
        y_ms=Y_MS,
        budget_u=sum(h.price_u_per_wh * sum(h.slot_wh) for h in built if h.side == "buy") * BUDGET_PERCENT // 100,
        units=[
            Unit(price, [quota_wh // (5 if price == prices[-1] else 20) for quota_wh in total_quota])
            for price in prices
        ],
        normal_price_u_per_wh=_normal_price(),
        compensation_price_u_per_wh=_ask_prices()[1],
        profile_wh_per_mwh=profile,
    )
    total = areas + hamlet
    return Scenario(start_s, STEP_S, total, built, spec, total if hamlet else 0)


def quota(profile_wh_per_mwh: list[int], annual_kwh: int) -> list[int]:
    """Peak quota per slot, Wh: the contract's rule (CONTRACT.md), here to choose who can sell and who must buy."""
    keep = 1_000_000 - REQUIRED_PPM
    return [value * annual_kwh // 1000 * keep // 1_000_000 for value in profile_wh_per_mwh]


@dataclass(frozen=True, slots=True)
class _HomeDay:
    source: str
    annual_kwh: int
    watts: list[int]
    "Base load per STEP_S over the hours laid around the window."


class _Chooser:
    """Draws home-days and machine runs; a home-day is used once."""

    def __init__(self, generator: random.Random, profile: list[int], lead_s: int, slot_s: int) -> None:
        self._random = generator
        self._profile = profile
        self._lead = lead_s // STEP_S
        self._steps = slot_s // STEP_S
        self._left = list(_home_days())
        generator.shuffle(self._left)
        self._runs = _runs()

    def home(self, index: int, areas: int) -> Home:
        """Draw the first home-day left that suits the role of home `index`."""
        place = index // areas
        return self._draw(index, index % areas + 1, place % NODES_PER_AREA, ROLES[place % len(ROLES)])

    def hamlet(self, index: int, area: int, place: int) -> Home:
        """Draw home `place` of the hamlet."""
        home = self._draw(index, area, place, HAMLET_ROLES[place])
        return replace(home, price_u_per_wh=min(home.price_u_per_wh, _ask_prices()[0] + 1))

    def _draw(self, index: int, area: int, node: int, role: Literal["sell", "buy", "watch"]) -> Home:
        low, high = _ask_prices()
        bids = _evening_prices()
        price = 0
        if role == "sell":
            price = low if index == 0 else self._random.randrange(low + 1, high + 1)
        elif role == "buy":
            price = self._random.randrange(bids[0], bids[-1] + 1)
        name, run = self._random.choice(self._runs)
        shift = self._random.randrange(0, 1_800 // STEP_S)
        for day in self._left:
            flexible = [0] * len(day.watts)
            if role != "watch":
                begin = self._lead + shift
                flexible[begin : begin + len(run)] = run[: len(flexible) - begin]
            slot_wh = self._trade(role, day, flexible, must_default=index == 0)
            if slot_wh is None:
                continue
            self._left.remove(day)
            return Home(
                name=f"home-{index + 1:03d}",
                area=area,
                node=node,
                annual_kwh=day.annual_kwh,
                rated_w=RATED_W,
                side=role,
                price_u_per_wh=price,
                slot_wh=slot_wh,
                behaviour="defaulter" if index == 0 else "cooperative",
                interpreter="micropython" if index < MICROPYTHON_HOMES else "cpython",
                is_wasm_capable=index == WASM_HOME,
                watts=[base + extra for base, extra in zip(day.watts, flexible, strict=True)],
                flexible_w=flexible,
                main_meter=index < MAIN_METER_HOMES,
                source=day.source if role == "watch" else f"{day.source} + {name}",
                least_wh=sum(slot_wh) if index == CHOOSY_HOME and role == "buy" else 0,
            )
        raise ScenarioError(f"no measured home-day left that could {role} as home {index + 1}")

    def _trade(self, role: str, day: _HomeDay, flexible: list[int], *, must_default: bool) -> list[int] | None:
        """What the home offers or bids per slot; None when this home-day does not suit the role."""
        if max(base + extra for base, extra in zip(day.watts, flexible, strict=True)) > RATED_W:
            return None
        base_wh, run_wh = self._slots_wh(day.watts), self._slots_wh(flexible)
        quotas = quota(self._profile, day.annual_kwh)
        if role == "watch":
            return [0] * len(quotas)
        rows = list(zip(quotas, base_wh, run_wh, strict=True))
        if role == "buy":
            slot_wh = [max(0, base + run - own) for own, base, run in rows]
            return slot_wh if sum(slot_wh) >= TRADE_WH_MIN else None
        if any(base > own for own, base, _ in rows):
            return None  # its base load alone breaks the quota: it could not keep what it sells
        if must_default and sum(base_wh) + sum(run_wh) < sum(quotas):
            return None
        slot_wh, left = [], sum(run_wh)
        for own, base, _ in rows:
            slot_wh.append(min((own - base) * OFFERED_FIFTHS // 5, left))
            left -= slot_wh[-1]
        return slot_wh if sum(slot_wh) >= TRADE_WH_MIN else None

    def _slots_wh(self, watts: list[int]) -> list[int]:
        """Energy of each slot of the window, rounded up: a household must not count on a watt-hour it may lack."""
        starts = [self._lead + number * self._steps for number in range(len(self._profile))]
        return [-(-sum(watts[at : at + self._steps]) * STEP_S // HOUR_S) for at in starts]


def _home_days() -> Iterator[_HomeDay]:
    """All winter working days of the seven homes, in a fixed order."""
    first_hour = WINDOW_START.hour - HOURS_BEFORE
    for number in (1, 2):
        readings = _uk_kwh(number)
        annual_kwh = round(sum(kwh for at, kwh in readings.items() if at.year == WINDOW_START.year))
        for day in sorted({at.date() for at in readings}):
            if day.month not in (12, 1, 2) or day.weekday() >= 5 or (day.month, day.day) in HOLIDAYS:
                continue
            first = datetime(day.year, day.month, day.day, first_hour, tzinfo=UTC)
            halves = [first + timedelta(minutes=30 * n) for n in range(2 * (HOURS_BEFORE + HOURS_AFTER))]
            if all(at in readings for at in halves):
                watts = [round(readings[at] * 2_000) for at in halves]
                yield _HomeDay(f"uk-{number} {day}", annual_kwh, _steps(watts, HOUR_S // 2))
    for number in range(1, 6):
        rows = _citylearn(number)
        annual_kwh = sum(load_wh for _, _, _, load_wh in rows) // 1000
        for at, (month, hour, day_type, _) in enumerate(rows):
            # Row `hour` is the hour that ends then; day types 1..5 are Monday to Friday.
            if month not in (12, 1, 2) or not 1 <= day_type <= 5 or hour != first_hour + 1:
                continue
            watts = [load_wh for _, _, _, load_wh in rows[at : at + HOURS_BEFORE + HOURS_AFTER]]
            yield _HomeDay(f"citylearn-{number} day {at // 24}", annual_kwh, _steps(watts, HOUR_S))


def _steps(watts: list[int], each_s: int) -> list[int]:
    return [value for value in watts for _ in range(each_s // STEP_S)]


@cache
def _uk_kwh(number: int) -> dict[datetime, float]:
    path = UK / f"uk-electricity-hdd-only-hourly-sample-{number}.csv.gz"
    with gzip.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))
    return {datetime.fromisoformat(r["start"]).replace(tzinfo=UTC): float(r["value"]) for r in rows if r["value"]}


@cache
def _citylearn(number: int) -> list[tuple[int, int, int, int]]:
    with gzip.open(MIT / f"citylearn-building-{number}.csv.gz", "rt") as lines:
        return [(int(r["month"]), int(r["hour"]), int(r["day_type"]), int(r["load_wh"])) for r in csv.DictReader(lines)]


@cache
def _runs() -> list[tuple[str, list[int]]]:
    """One run of each machine: from its first to its last sample above IDLE_W inside its busiest two hours."""
    idle_w, span = 10, 2 * HOUR_S // STEP_S
    runs = []
    for path in sorted(ODBL.glob("*.txt")):
        watts: list[int] = []
        for line in path.read_text().splitlines():
            for token in [] if line.startswith("#") else line.split():
                value, _, count = token.partition("*")
                watts += [int(value)] * int(count or 1)
        at = max(range(0, len(watts) - span, 30), key=lambda begin: sum(watts[begin : begin + span]))
        busy = watts[at : at + span]
        on = [n for n, value in enumerate(busy) if value > idle_w]
        runs.append((path.stem, busy[on[0] : on[-1] + 1]))
    return runs


@cache
def _profile_wh(slots: int) -> list[int]:
    with (MIT / "h25.csv").open(newline="") as lines:
        rows = {row[0][:5]: row for row in csv.reader(lines)}
    starts = [WINDOW_START + timedelta(minutes=15 * n) for n in range(slots)]
    return [round(float(rows[f"{at:%H:%M}"][PROFILE_COLUMN])) for at in starts]


def _alphas(slot_s: int, slots: int) -> list[int]:
    """Comfort coefficients; a slot has the temperature of the hour in which it begins."""
    with gzip.open(UK / "uk-tempC-sample-1_2.csv.gz", "rt") as lines:
        temperature = {row["dt"]: row["tempC"] for row in csv.DictReader(lines)}
    starts = [WINDOW_START + timedelta(seconds=slot_s * n) for n in range(slots)]
    return alphas_u_per_wh(
        [round(float(temperature[f"{at:%Y-%m-%d %H:00:00}"]) * 10) for at in starts], [at.hour for at in starts]
    )


@cache
def _tou_u_per_wh() -> tuple[list[int], list[int]]:
    """CityLearn's evening prices (the hours from 16 to 20) and its other prices, each ascending, u/Wh."""
    with (MIT / "citylearn-tou.csv").open(newline="") as lines:
        rows = [(int(r["hour_index"]) % 24, round(float(r["price_usd_per_kwh"]) * 1000)) for r in csv.DictReader(lines)]
    evening = sorted({price for hour, price in rows if 16 <= hour <= 20})
    return evening, sorted({price for hour, price in rows if not 16 <= hour <= 20})


def _evening_prices() -> list[int]:
    return _tou_u_per_wh()[0]


def _normal_price() -> int:
    return _tou_u_per_wh()[1][-1]


@cache
def _ask_prices() -> tuple[int, int]:
    """EMHASS's lower and higher price, u/Wh."""
    with (MIT / "emhass-load-cost.csv").open(newline="") as lines:
        prices = [round(float(row[1]) * 1000) for row in csv.reader(lines)]
    return min(prices), max(prices)
