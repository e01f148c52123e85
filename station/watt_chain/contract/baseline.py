"""The performance baseline: what a metering point would have drawn (model.md U15).

Rule.  With `baseline_days` 0 it is the standard profile, scaled by the declared annual consumption.  Otherwise, per
slot, it is the mean over the `baseline_high` days with most energy among the last `baseline_days` like days (working
day or weekend, no event of this user, every register there) of the same slots, scaled by how the load before the
signal compares with those days, at most `adjust_ppm` up or down -- and in a peak never above the scaled profile, in a
valley never below it.  With fewer like days in the last DAYS_BACK it is the profile, and the bid says so.

Why the last clause: history can then only take away what the profile gives, so an inflated history buys nothing that
a household without history would not have; and to lift a low history it must really draw, and pay, the energy on
`baseline_high` days for every Wh of quota.  Nothing is read from an absence: a missing register drops the day.
"""

from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from watt_chain.contract.access import Session
from watt_chain.contract.event import EventSpec
from watt_chain.contract.objects import NO_REGISTER, User
from watt_chain.contract.rules import PPM, RuleSet

DAY_S: Final = 86_400
QUARTER_S: Final = 900
"Plugs sign a checkpoint every quarter of an hour."
QUARTERS: Final = DAY_S // QUARTER_S
DAYS_BACK: Final = 31
"Days looked back: ten working days with two weeks of holidays or events between them."
RING: Final = 32
"Days kept of a plug; one more than are looked at."

Source = Literal["profile", "history"]


class DayRegisters(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """history/<plug>/<day mod 32>: import registers of one day at its quarter hours."""

    day: int
    "Unix day."
    is_event: bool
    "The owner had a qualified bid for a window of this day."
    import_mwh: list[int]
    "97 values; NO_REGISTER where missing."


def history_key(plug: bytes, day: int) -> bytes:
    """history/<id8>/<day mod 32>: DayRegisters."""
    return b"history/" + plug.hex().encode() + b"/%d" % (day % RING)


def note_register(session: Session, plug: bytes, time_s: int, import_mwh: int) -> None:
    """Keep a register of a quarter hour while the active rule set makes baselines from history."""
    if not session.rules().baseline_days or time_s % QUARTER_S:
        return
    day, quarter = time_s // DAY_S, time_s % DAY_S // QUARTER_S
    _put(session, plug, day, quarter, import_mwh)
    if quarter == 0:
        _put(session, plug, day - 1, QUARTERS, import_mwh)


def _put(session: Session, plug: bytes, day: int, quarter: int, import_mwh: int) -> None:
    kept = _day(session, plug, day)
    if kept.import_mwh[quarter] == NO_REGISTER:  # the first checkpoint of an instant stands
        values = [*kept.import_mwh[:quarter], import_mwh, *kept.import_mwh[quarter + 1 :]]
        session.put(history_key(plug, day), replace(kept, import_mwh=values))


def _day(session: Session, plug: bytes, day: int) -> DayRegisters:
    kept = session.get(history_key(plug, day), DayRegisters)
    if kept is None or kept.day != day:
        return DayRegisters(day, False, [NO_REGISTER] * (QUARTERS + 1))
    return kept


def mark_event(session: Session, user: User, spec: EventSpec, rules: RuleSet) -> None:
    """An event's day tells nothing about ordinary use."""
    if not rules.baseline_days:
        return
    for plug in user.plugs:
        day = spec.window_start_s // DAY_S
        session.put(history_key(plug, day), replace(_day(session, plug, day), is_event=True))


def profile_wh(user: User, spec: EventSpec) -> list[int]:
    """The standard profile, Wh per slot: profile * annual kWh // 1000."""
    return [value * user.annual_kwh // 1000 for value in spec.profile_wh_per_mwh]


def baseline_wh(session: Session, user: User, spec: EventSpec, rules: RuleSet) -> tuple[list[int], Source]:
    """Baseline of a metering point, Wh per slot, and what it was made from."""
    profile = profile_wh(user, spec)
    days = _like_days(session, user, spec, rules) if rules.baseline_days else []
    if not days or len(days) < rules.baseline_days:
        return profile, "profile"
    # sorted() is stable and days come latest first: of equal totals the later day is taken.
    chosen = sorted(days, key=lambda one: -sum(one[1]))[: rules.baseline_high]
    factor = _adjustment(session, user, spec, rules, [day for day, _ in chosen])
    means = [sum(load[slot] for _, load in chosen) * factor // (len(chosen) * PPM) for slot in range(spec.slots)]
    bound = min if spec.kind == "peak" else max
    return [bound(own, known) for own, known in zip(profile, means, strict=True)], "history"


def _like_days(session: Session, user: User, spec: EventSpec, rules: RuleSet) -> list[tuple[int, list[int]]]:
    """(day, Wh per slot) of the last like days, latest first, at most baseline_days."""
    today = spec.window_start_s // DAY_S
    found: list[tuple[int, list[int]]] = []
    for day in range(today - 1, today - 1 - DAYS_BACK, -1):
        if is_weekend(day) != is_weekend(today) or len(found) == rules.baseline_days:
            continue
        if any(_day(session, plug, day).is_event for plug in user.plugs):
            continue
        load = _load_wh(session, user, day, spec.window_start_s % DAY_S, spec.slot_s, spec.slots)
        if load is not None:
            found.append((day, load))
    return found


def _adjustment(session: Session, user: User, spec: EventSpec, rules: RuleSet, days: list[int]) -> int:
    """Load before the signal against the same hours of the chosen days, ppm; 10^6 where it is not known.

    The hours end when the collection opens: until then nobody but the grid company knows of the event.
    """
    end_s = spec.open_s // QUARTER_S * QUARTER_S
    begin_s = end_s - spec.slots * spec.slot_s
    before = _load_wh(session, user, begin_s // DAY_S, begin_s % DAY_S, spec.slot_s, spec.slots)
    others = [_load_wh(session, user, day, begin_s % DAY_S, spec.slot_s, spec.slots) for day in days]
    known = [sum(load) for load in others if load is not None]
    if before is None or len(known) < len(days) or sum(known) == 0:
        return PPM
    factor = PPM * sum(before) * len(known) // sum(known)
    return min(max(factor, PPM - rules.adjust_ppm), PPM + rules.adjust_ppm)


def _load_wh(session: Session, user: User, day: int, begin_s: int, slot_s: int, slots: int) -> list[int] | None:
    """Wh per slot from `begin_s` of a day on; None when a register is missing, fell, or no quarter hour fits."""
    if begin_s % QUARTER_S or slot_s % QUARTER_S or begin_s + slots * slot_s > DAY_S:
        return None
    load = [0] * slots
    for plug in user.plugs:
        registers = _day(session, plug, day).import_mwh
        at = [registers[(begin_s + k * slot_s) // QUARTER_S] for k in range(slots + 1)]
        for slot in range(slots):
            if NO_REGISTER in (at[slot], at[slot + 1]) or at[slot + 1] < at[slot]:
                return None
            load[slot] += at[slot + 1] // 1000 - at[slot] // 1000
    return load


def is_weekend(day: int) -> bool:
    """Saturday or Sunday, UTC; Unix day 0 was a Thursday."""
    return (day + 3) % 7 >= 5
