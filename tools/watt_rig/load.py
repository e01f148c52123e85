"""What a household consumes: a profile of watts, and the plan that a cooperative household bends it to.

Energy is an exact integer function of time, in microjoules since the start of the profile, so that nothing depends
on when it is asked, how often, or on a restart. A planned slot ends at an absolute energy, half a watt-hour above a
whole one: the register's rounding to pulses (1.5 mWh) then cannot move a slot's whole watt-hours.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from watt_rig.chip import POWER_COEFFICIENT

UJ_PER_J = 1_000_000
UJ_PER_WH = 3_600_000_000
STEPS_MAX = 200_000
"Values of a profile: a week of 10 s steps is 60,480; more is a wrong file."
WATTS_MAX = 30_000
"More than any household connection that a plug rig stands for."
SHAPED_MAX = 10_000
"Planned slots kept: a hundred events of a hundred slots."


class LoadError(Exception):
    """A load file that cannot be used; the text names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class ShapedSlot:
    """One slot of a plan: from `start_s` to `end_s`, when the meter must stand at `end_uj` (or have stood still)."""

    start_s: int
    end_s: int
    end_uj: int


class Profile:
    """Watts in steps of `step_s` from `start_s`; after the last step it begins again."""

    def __init__(self, start_s: int, step_s: int, watts: list[int]) -> None:
        self.start_s = start_s
        self.step_s = step_s
        self.watts = watts
        self._joules = [0]
        for value in watts:
            self._joules.append(self._joules[-1] + value * step_s)

    def energy_j(self, time_s: int) -> int:
        """Joules from `start_s` to `time_s` >= start_s."""
        turns, rest_s = divmod(time_s - self.start_s, self.step_s * len(self.watts))
        index, part_s = divmod(rest_s, self.step_s)
        return turns * self._joules[-1] + self._joules[index] + self.watts[index % len(self.watts)] * part_s

    def peak_w(self, start_s: int, end_s: int) -> int:
        """The largest value that holds anywhere in [start_s, end_s)."""
        first = (start_s - self.start_s) // self.step_s
        last = (end_s - 1 - self.start_s) // self.step_s
        if last - first >= len(self.watts):
            return max(self.watts)
        return max(self.watts[index % len(self.watts)] for index in range(first, last + 1))


def read_profile(path: Path) -> Profile:
    """Read {"start_s", "step_s", "watts": [...]}; LoadError when it is not that."""
    try:
        data = json.loads(path.read_text())
        start_s, step_s, watts = data["start_s"], data["step_s"], data["watts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path}: not a load file with start_s, step_s and watts: {error}") from None
    if not (isinstance(start_s, int) and isinstance(step_s, int) and isinstance(watts, list)):
        raise LoadError(f"{path}: start_s and step_s are integers, watts is a list")
    if start_s < 0 or not 1 <= step_s <= 86_400 or not 1 <= len(watts) <= STEPS_MAX:
        raise LoadError(f"{path}: allowed are start_s >= 0, step_s 1..86400 and 1..{STEPS_MAX} watts")
    if not all(isinstance(value, int) and 0 <= value <= WATTS_MAX for value in watts):
        raise LoadError(f"{path}: every value of watts is an integer 0..{WATTS_MAX}")
    return Profile(start_s, step_s, watts)


class Bend:
    """Planned slots with what the meter shows beyond the bare profile after each. Never changed once made."""

    def __init__(self, profile: Profile, rated_w: int, slots: list[ShapedSlot]) -> None:
        self._profile = profile
        self._rated_w = rated_w
        self.slots = tuple(slots[-SHAPED_MAX:])
        self._starts = [slot.start_s for slot in self.slots]
        self._offsets = [0]
        for slot in self.slots:
            start_uj = self._base_uj(slot.start_s) + self._offsets[-1]
            most_uj = start_uj + rated_w * (slot.end_s - slot.start_s) * UJ_PER_J
            end_uj = min(max(slot.end_uj, start_uj), most_uj)
            self._offsets.append(end_uj - self._base_uj(slot.end_s))

    def energy_uj(self, time_s: int) -> int:
        index = bisect_right(self._starts, time_s)
        if index and time_s < self.slots[index - 1].end_s:
            return self._inside(index - 1, time_s)
        return self._base_uj(time_s) + self._offsets[index]

    def _base_uj(self, time_s: int) -> int:
        return self._profile.energy_j(time_s) * UJ_PER_J

    def _inside(self, index: int, time_s: int) -> int:
        """Keep the profile's shape where the rated power allows it, else run flat."""
        slot = self.slots[index]
        start_base_uj = self._base_uj(slot.start_s)
        span_uj = self._base_uj(slot.end_s) - start_base_uj
        start_uj = start_base_uj + self._offsets[index]
        use_uj = self._base_uj(slot.end_s) + self._offsets[index + 1] - start_uj
        if span_uj and self._profile.peak_w(slot.start_s, slot.end_s) * use_uj <= self._rated_w * span_uj:
            return start_uj + use_uj * (self._base_uj(time_s) - start_base_uj) // span_uj
        return start_uj + use_uj * (time_s - slot.start_s) // (slot.end_s - slot.start_s)


class Load:
    """A profile bent by planned slots. `rated_w` is the most that ever flows.

    A main meter reads it from another thread: a plan is swapped in as a whole, never half made.
    """

    def __init__(self, profile: Profile, rated_w: int) -> None:
        self.profile = profile
        self.rated_w = rated_w
        self._bend = Bend(profile, rated_w, [])

    @property
    def slots(self) -> list[ShapedSlot]:
        """The planned slots, ascending."""
        return list(self._bend.slots)

    def energy_uj(self, time_s: int) -> int:
        """Microjoules since the start of the profile; never falls with time."""
        return self._bend.energy_uj(time_s)

    def plan(self, start_s: int, slot_s: int, slot_wh: list[int]) -> None:
        """Bend consecutive slots from `start_s` so that slot i uses slot_wh[i] whole watt-hours on the meter.

        Slots planned before from `start_s` on are replaced; what lies before stays. A slot may not exceed the
        rated power over its length, and a meter does not run backwards.
        """
        kept = [slot for slot in self.slots if slot.end_s <= start_s]
        # A register counts whole pulses: what it shows at the start may be a watt-hour below what flowed.
        pulses = Bend(self.profile, self.rated_w, kept).energy_uj(start_s) // POWER_COEFFICIENT
        whole_wh = pulses * POWER_COEFFICIENT // UJ_PER_WH
        planned = []
        for number, energy_wh in enumerate(slot_wh):
            whole_wh += energy_wh
            at_s = start_s + number * slot_s
            planned.append(ShapedSlot(at_s, at_s + slot_s, whole_wh * UJ_PER_WH + UJ_PER_WH // 2))
        self.restore(kept + planned)

    def restore(self, slots: list[ShapedSlot]) -> None:
        """Take over ascending, disjoint slots, from `plan` or from a state file."""
        self._bend = Bend(self.profile, self.rated_w, slots)
