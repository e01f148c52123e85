"""Ordinary offers and bids built from schedules: electric vehicles and batteries, photovoltaics, the grid itself (U23).

The matching knows nothing about them; a household's own program decides what to offer and signs it.

    SoC_{t+1} = SoC_t + eta_c ch_t - dis_t / eta_d,   0 <= SoC <= capacity,   SoC_end >= departure

Energies are Wh at the socket, efficiencies ppm, every figure an integer; the state of charge is kept in mWh and rounded
against the battery, so that a schedule never promises what is not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import Bid, Offer
from watt_chain.contract.rules import PPM

MILLI: Final = 1_000
GRID_USER: Final = b"\0" * 8
"The grid company as a buyer: an id that no key hashes to in practice, lower than every household's."


class ScheduleError(ValueError):
    """A battery that cannot do what is asked; the text names the figure and the limit."""


@dataclass(frozen=True, slots=True)
class Battery:
    """A vehicle or home battery while it is plugged in."""

    capacity_wh: int
    stored_wh: int
    "At the start of the window."
    departure_wh: int
    "Least charge at the end of the window."
    power_w: int
    "Of the charger, both ways."
    charge_ppm: int
    "eta_c"
    discharge_ppm: int
    "eta_d"
    wear_u_per_wh: int
    "Cost of one Wh through the battery."


@dataclass(frozen=True, slots=True)
class Plan:
    """What a battery does in each slot, Wh at the socket, and its state of charge after each."""

    charge_wh: list[int]
    discharge_wh: list[int]
    stored_mwh: list[int]


def check_battery(battery: Battery) -> None:
    """Raise ScheduleError on a figure out of range."""
    if not 0 <= battery.stored_wh <= battery.capacity_wh:
        raise ScheduleError(f"stored {battery.stored_wh} Wh, capacity {battery.capacity_wh} Wh")
    if not 0 <= battery.departure_wh <= battery.capacity_wh:
        raise ScheduleError(f"departure {battery.departure_wh} Wh, capacity {battery.capacity_wh} Wh")
    if not 0 < battery.charge_ppm <= PPM or not 0 < battery.discharge_ppm <= PPM:
        raise ScheduleError(f"efficiencies {battery.charge_ppm}, {battery.discharge_ppm} ppm; allowed are 1..{PPM}")
    if battery.power_w < 0 or battery.wear_u_per_wh < 0:
        raise ScheduleError(f"power {battery.power_w} W and wear {battery.wear_u_per_wh} u/Wh must not be negative")


def plan(battery: Battery, peak: Sequence[bool], slot_s: int, dearness: Sequence[int]) -> Plan:
    """Discharge in peak slots, dearest first, and charge in the others, cheapest first (L9), within all bounds.

    `dearness` ranks the slots (prices, forecasts; ties: earlier). Each discharge is kept only if the battery still
    reaches its departure charge. Raises ScheduleError when even charging in every other slot does not reach it.
    """
    check_battery(battery)
    most = battery.power_w * slot_s // 3_600
    slots = range(len(peak))
    charge, discharge = [0] * len(peak), [0] * len(peak)
    for slot in sorted((t for t in slots if not peak[t]), key=lambda t: (dearness[t], t)):
        if _end_mwh(battery, charge, discharge) >= battery.departure_wh * MILLI:
            break
        charge[slot] = _most(battery, charge, discharge, charge, slot, most, 0)
    if _end_mwh(battery, charge, discharge) < battery.departure_wh * MILLI:
        raise ScheduleError(f"departure {battery.departure_wh} Wh cannot be reached from {battery.stored_wh} Wh")
    for slot in sorted((t for t in slots if peak[t]), key=lambda t: (-dearness[t], t)):
        discharge[slot] = _most(battery, charge, discharge, discharge, slot, most, battery.departure_wh)
    return Plan(charge, discharge, _states(battery, charge, discharge))


def _most(
    battery: Battery, charge: list[int], discharge: list[int], row: list[int], slot: int, most: int, floor_wh: int
) -> int:
    """The largest energy of `row[slot]` that keeps every state within bounds and the end above `floor_wh`."""
    low, high = 0, most
    while low < high:
        row[slot] = middle = (low + high + 1) // 2
        states = _states(battery, charge, discharge)
        fits = min(states) >= 0 and max(states) <= battery.capacity_wh * MILLI and states[-1] >= floor_wh * MILLI
        low, high = (middle, high) if fits else (low, middle - 1)
    row[slot] = 0
    return low


def _states(battery: Battery, charge: Sequence[int], discharge: Sequence[int]) -> list[int]:
    found, state = [], battery.stored_wh * MILLI
    for taken, given in zip(charge, discharge, strict=True):
        state += taken * MILLI * battery.charge_ppm // PPM
        state -= -(-given * MILLI * PPM // battery.discharge_ppm)
        found.append(state)
    return found


def _end_mwh(battery: Battery, charge: Sequence[int], discharge: Sequence[int]) -> int:
    return _states(battery, charge, discharge)[-1]


def least_ask_u_per_wh(battery: Battery, charge_price_u_per_wh: int) -> int:
    """What one discharged Wh costs: charge price / (eta_c eta_d) + wear, rounded up. Asking less would lose money."""
    through = -(-charge_price_u_per_wh * PPM * PPM // (battery.charge_ppm * battery.discharge_ppm))
    return through + battery.wear_u_per_wh


def battery_offer(user: bytes, battery: Battery, made: Plan, charge_price_u_per_wh: int, credit: int) -> Offer:
    """The discharge of a plan as an offer at its least ask; the total is what the plan holds."""
    ask = least_ask_u_per_wh(battery, charge_price_u_per_wh)
    return Offer(0, user, ask, list(made.discharge_wh), credit, total_wh=sum(made.discharge_wh))


def battery_bid(user: bytes, made: Plan, limit_price_u_per_wh: int, limit_u: int) -> Bid:
    """The charging of a plan as a bid."""
    return Bid(0, user, limit_price_u_per_wh, list(made.charge_wh), limit_u, total_wh=sum(made.charge_wh))


def pv_surplus_wh(generated_wh: Sequence[int], load_wh: Sequence[int]) -> list[int]:
    """What is left of generation after the household's own use (L11), per slot."""
    return [max(0, made - used) for made, used in zip(generated_wh, load_wh, strict=True)]


def pv_offer(
    user: bytes,
    generated_wh: Sequence[int],
    load_wh: Sequence[int],
    feed_in_u_per_wh: int,
    ask_u_per_wh: int,
    credit: int,
    *,
    into_pool: bool,
) -> Offer | None:
    """The surplus as an offer; None when the household keeps to the feed-in tariff (L12) or has no surplus.

    The ask is never below the tariff: feeding in would pay more.
    """  # fmt: skip
    surplus = pv_surplus_wh(generated_wh, load_wh)
    if not into_pool or not any(surplus):
        return None
    return Offer(0, user, max(ask_u_per_wh, feed_in_u_per_wh), surplus, credit)


def grid_bid(spec: EventSpec, missing_wh: Sequence[int], limit_u: int) -> Bid:
    """The grid as a special buyer (U24): the reduction it still lacks per slot, at the compensation price."""
    return Bid(0, GRID_USER, spec.compensation_price_u_per_wh, [max(0, wh) for wh in missing_wh], limit_u)
