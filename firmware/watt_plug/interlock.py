"""What may move the relay: one table of states and events, and the plug's own rules in front of it (DEVICE.md 5).

Strategy. Commands reach this module only after their signatures were verified (orders.py). The rules below refuse
before the table is asked; the table knows every pair of state and event. Holds and waits run on the monotonic timer, so
a clock that is set can neither prolong nor shorten them. What must survive a restart is in `State`, and the owner
writes it before it moves the relay (`dirty`).

**Invariant:** a relay held by a command comes back by itself, whoever is dead; an essential plug is never held off.
"""

from watt_wire import command as commands
from watt_wire.fields import U32_MAX

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import Any

FREE = 0
WAITING_OFF = 1
WAITING_ON = 2
HELD_OFF = 3
HELD_ON = 4
RETURNING = 5
TRIPPED = 6
STATES = ("free", "waiting-off", "waiting-on", "held-off", "held-on", "returning", "tripped")

ORDER_OFF = 0
ORDER_ON = 1
RELEASE = 2
TIMER = 3
BUTTON = 4
DOUBT = 5
TRIP = 6
ESSENTIAL = 7
EVENTS = ("order-off", "order-on", "release", "timer", "button", "doubt", "trip", "essential")

KEEP = 0
SWITCH_OFF = 1
SWITCH_ON = 2
HOME = 3
TOGGLE = 4
REFUSE = 5

TABLE = (
    # order-off, order-on, release, timer, button, doubt, trip, essential
    "w. W. f. f. f~ f. t0 f. "  # free
    "w! w! f. h0 f1 f. t0 f. "  # waiting-off
    "W! W! f. H1 f~ f. t0 W. "  # waiting-on
    "h! h! r. r. f1 r. t. f= "  # held-off
    "H! H! r. r. f~ r. t0 H. "  # held-on
    "r! r! r. f= f1 r. t0 f= "  # returning
    "t! t! t! t. f1 t. t. t. "  # tripped
)
"""For every state a line, for every event the next state (a letter of STATE_LETTERS) and what happens to the relay (a
sign of ACTION_SIGNS). One string: as tuples the table would take two kilobytes of a small heap."""

STATE_LETTERS = "fwWhHrt"
ACTION_SIGNS = ".01=~!"

SPREAD_MIN_S = 600
"Least range of the random delay before a move: a street that switches in one second is a hazard of its own."
START_SPREAD_S = 60
"After a loss of supply a whole area comes back at once; the relay waits 0..60 s, an essential one does not."
OVERRIDE_S = 3600
"The button wins for an hour."
CONTACT_S = 900
"Without a word of the gateway for a quarter-hour, a hold ends: nobody could end it otherwise."
WEEK_OFF_S = 28800
"Eight hours off in seven days, four of them at most in one hold (command.HOLD_S_MAX)."
DAY_S = 86400
WEEK_DAYS = 7
NIGHT_START_S = 79200
NIGHT_END_S = 21600
"22:00 and 06:00 of local time."
ESSENTIAL_DELAY_S = 604800
"Seven days between asking to be no longer essential and being it: nobody talks a household out of it at the door."
RECENT_MAX = 64
"Holds of this life that are remembered by the timer as well, which no set clock can move."


def transition(state: int, event: int) -> "tuple[int, int]":
    """Return (next state, what happens to the relay)."""
    at = (state * len(EVENTS) + event) * 3
    return STATE_LETTERS.index(TABLE[at]), ACTION_SIGNS.index(TABLE[at + 1])


class Rules:
    """What the household and the board set.

    utc_offset_s      local time, for the night
    night_allowed     the household allows holds at night
    min_off_s, min_on_s   of a compressor; 0 for none
    """

    def __init__(
        self, utc_offset_s: int = 0, night_allowed: bool = False, min_off_s: int = 0, min_on_s: int = 0
    ) -> None:
        self.utc_offset_s = utc_offset_s
        self.night_allowed = night_allowed
        self.min_off_s = min_off_s
        self.min_on_s = min_on_s


class State:
    """What survives a restart."""

    def __init__(self) -> None:
        self.counter = 0
        self.home_on = True
        self.essential = False
        self.essential_until_s = 0
        "Unix s from which the plug is no longer essential; 0 while nobody asked for it."
        self.tripped = False
        self.override_until_s = 0
        self.days: list[list[int]] = []
        "[day, seconds off that commands took from it], youngest last, at most WEEK_DAYS."

    def encode(self) -> "list[object]":
        """Return the values, for the owner's journal."""
        return [self.counter, self.home_on, self.essential, self.essential_until_s, self.tripped,
                self.override_until_s, self.days]  # fmt: skip

    def decode(self, values: "list[Any]") -> None:
        """Take the values back; ValueError when they are not what `encode` made."""
        if len(values) != 7:
            raise ValueError("interlock state of %d values" % len(values))
        self.counter, self.home_on, self.essential = int(values[0]), bool(values[1]), bool(values[2])
        self.essential_until_s, self.tripped = int(values[3]), bool(values[4])
        self.override_until_s = int(values[5])
        self.days = [[int(day), int(seconds)] for day, seconds in values[6]]

    def lock(self) -> None:
        """The file is damaged: a counter that is guessed would let an old command in, so none is taken any more."""
        self.counter = U32_MAX


class Interlock:
    """The switch of one plug. `relay` is what the pin should show; `state` one of the numbers above.

    below   below(n) -> random integer in 0..n-1
    """

    def __init__(self, rules: Rules, state: State, below: object) -> None:
        self._rules = rules
        self.saved = state
        self._below = below
        self.state = TRIPPED if state.tripped else FREE
        self.relay = state.home_on and not state.tripped
        self.relay_since_s = -max(rules.min_off_s, rules.min_on_s)
        self._due_s = -1
        self._hold_s = 0
        self._heard_s = 0
        self._override_s = -1
        self._recent: list[tuple[int, int]] = []
        self.dirty = False
        "Something in `saved` changed: write it before the relay is moved."

    def start(self, now_s: int, timer_s: int, clock_good: bool, lost_supply: bool) -> None:
        """A life begins: whatever a command held is over (V5.6)."""
        saved = self.saved
        self._heard_s = timer_s
        if saved.override_until_s:
            # Without a good clock the whole hour is left: the household's word counts more than a command.
            left_s = saved.override_until_s - now_s if clock_good else OVERRIDE_S
            self._override_s = timer_s + min(OVERRIDE_S, left_s)
        if self.state == FREE and lost_supply and self.relay and not self.is_essential(now_s, clock_good):
            self.state = RETURNING
            self.relay = False
            self._due_s = timer_s + self._random(START_SPREAD_S)

    @property
    def name(self) -> str:
        return STATES[self.state]

    @property
    def busy(self) -> bool:
        """A command is at work: not the moment to restart for an update."""
        return self.state in (WAITING_OFF, WAITING_ON, HELD_OFF, HELD_ON, RETURNING)

    def is_essential(self, now_s: int, clock_good: bool) -> bool:
        """Tell whether the plug is essential; with a doubtful clock the seven days have not passed."""
        saved = self.saved
        return saved.essential and not (clock_good and 0 < saved.essential_until_s <= now_s)

    def heard(self, timer_s: int) -> None:
        """The gateway said something."""
        self._heard_s = timer_s

    def order(self, order: commands.Command, now_s: int, timer_s: int, clock_good: bool) -> str:
        """Take a verified command; return "" when it is obeyed, else the reason of the refusal."""
        if order.counter <= self.saved.counter:
            return "command-replayed"
        reason = self._objection(order, now_s, timer_s, clock_good) if order.action != commands.RELEASE else ""
        if reason:
            return reason
        event = {commands.OFF: ORDER_OFF, commands.ON: ORDER_ON, commands.RELEASE: RELEASE}[order.action]
        if transition(self.state, event)[1] == REFUSE:
            return "refused-state"
        self.saved.counter = order.counter
        self.dirty = True
        if order.action == commands.OFF:
            self._charge(now_s, order.hold_s)
            self._recent = self._recent[1 - RECENT_MAX :] + [(timer_s, order.hold_s)]
        self._hold_s = order.hold_s
        before = self.state
        self._apply(event, timer_s)
        if order.action != commands.RELEASE or (self.state == RETURNING and before != RETURNING):
            self._due_s = timer_s + self._random(max(order.spread_s, SPREAD_MIN_S))
        return ""

    def tick(self, now_s: int, timer_s: int, clock_good: bool) -> None:
        """Time passes: waits and holds end, doubts arise."""
        if self.busy and (not clock_good or timer_s - self._heard_s >= CONTACT_S):
            self._event(DOUBT, timer_s)
        if self.saved.essential and not self.is_essential(now_s, clock_good):
            self.saved.essential = False
            self.saved.essential_until_s = 0
            self.dirty = True
        if self._due_s < 0 or timer_s < self._due_s:
            return
        ready_s = self._earliest_move()
        if timer_s < ready_s:
            self._due_s = ready_s
            return
        self._event(TIMER, timer_s)

    def button(self, now_s: int, timer_s: int) -> None:
        """The household presses the button: it wins, at once, and for an hour against commands."""
        held = self.busy
        self._event(BUTTON, timer_s)
        self.saved.home_on = self.relay
        self.saved.tripped = False
        if held:
            self._override_s = timer_s + OVERRIDE_S
            self.saved.override_until_s = now_s + OVERRIDE_S
        self.dirty = True

    def trip(self, timer_s: int) -> None:
        """Too much power: off, until somebody comes and presses the button."""
        self._event(TRIP, timer_s)
        self.saved.tripped = True
        self.dirty = True

    def set_essential(self, essential: bool, now_s: int, timer_s: int, clock_good: bool) -> bool:
        """The household says so: yes at once, no after ESSENTIAL_DELAY_S; False when there is no clock to wait by."""
        saved = self.saved
        if essential:
            saved.essential = True
            saved.essential_until_s = 0
            self._event(ESSENTIAL, timer_s)
        elif not clock_good:
            return False
        elif saved.essential and not saved.essential_until_s:
            saved.essential_until_s = now_s + ESSENTIAL_DELAY_S
        self.dirty = True
        return True

    def forget_household(self) -> None:
        """A factory reset: the hour that the button won is over; counter, essential and hours off stay (V1.2)."""
        self._override_s = -1
        self.saved.override_until_s = 0
        self.dirty = True

    def _objection(self, order: commands.Command, now_s: int, timer_s: int, clock_good: bool) -> str:
        """Return the reason why the household's own rules refuse an order to hold, or ""."""
        if not clock_good:
            return "command-clock"
        if order.action == commands.OFF and self.is_essential(now_s, clock_good):
            return "refused-essential"
        if timer_s < self._override_s:
            return "refused-override"
        if order.action != commands.OFF:
            return ""
        # The longest it can last: wait, hold, wait before on.
        longest_s = order.hold_s + 2 * max(order.spread_s, SPREAD_MIN_S)
        if not self._rules.night_allowed and self._meets_night(now_s, longest_s):
            return "refused-night"
        day = now_s // DAY_S
        by_day_s = sum([seconds for number, seconds in self.saved.days if number > day - WEEK_DAYS])
        by_timer_s = sum([seconds for since_s, seconds in self._recent if since_s > timer_s - WEEK_DAYS * DAY_S])
        return "refused-week" if max(by_day_s, by_timer_s) + order.hold_s > WEEK_OFF_S else ""

    def _meets_night(self, now_s: int, length_s: int) -> bool:
        local_s = (now_s + self._rules.utc_offset_s) % DAY_S
        return local_s < NIGHT_END_S or local_s + length_s > NIGHT_START_S

    def _charge(self, now_s: int, hold_s: int) -> None:
        """Book the whole hold at once: a restart in the middle of it must not give it back."""
        day = now_s // DAY_S
        days = [entry for entry in self.saved.days if entry[0] > day - WEEK_DAYS]
        if days and days[-1][0] == day:
            days[-1][1] += hold_s
        else:
            days.append([day, hold_s])
        self.saved.days = days

    def _event(self, event: int, timer_s: int) -> None:
        before = self.state
        self._apply(event, timer_s)
        if self.state == before:
            return
        if self.state in (HELD_OFF, HELD_ON):
            self._due_s = timer_s + self._hold_s
        elif self.state == RETURNING:
            self._due_s = timer_s + self._random(SPREAD_MIN_S)

    def _apply(self, event: int, timer_s: int) -> None:
        next_state, action = transition(self.state, event)
        if next_state != self.state:
            self._due_s = -1
        self.state = next_state
        relay = self.relay
        if action == SWITCH_OFF:
            relay = False
        elif action == SWITCH_ON:
            relay = True
        elif action == HOME:
            relay = self.saved.home_on
        elif action == TOGGLE:
            relay = not relay
        if relay != self.relay:
            self.relay = relay
            self.relay_since_s = timer_s

    def _earliest_move(self) -> int:
        """Timer second from which a command may move the relay (V5.8)."""
        rules = self._rules
        if self.state == WAITING_OFF or (self.state == RETURNING and self.relay and not self.saved.home_on):
            return self.relay_since_s + rules.min_on_s if self.relay else 0
        if self.state in (WAITING_ON, RETURNING):
            return self.relay_since_s + rules.min_off_s if not self.relay else 0
        return 0

    def _random(self, limit: int) -> int:
        return int(self._below(limit + 1))  # type: ignore[operator]
