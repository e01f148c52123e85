"""The switch: every pair of state and event, the household's rules, and attacks Q1-Q12 as far as a plug meets them."""

import gc

gc.collect()
from watt_wire import command, p256  # noqa: E402  # a small heap wants its garbage out before each import

gc.collect()
from watt_plug import interlock  # noqa: E402

gc.collect()
from watt_plug.orders import Orders  # noqa: E402

NOON_S = 1700000000 // 86400 * 86400 + 43200
NETWORK = b"\x22" * 32
PLUG = b"\x33" * 8
KEYS = sorted(
    [bytes([number]) * 32 for number in (1, 2, 3, 4)],
    key=lambda key: p256.hashlib.sha256(p256.public_key(key)).digest(),
)
PUBLICS = [p256.public_key(key) for key in KEYS]
IDS = [p256.hashlib.sha256(public).digest()[:8] for public in PUBLICS]
PARTIES = [(1, PUBLICS[0]), (2, PUBLICS[1]), (2, PUBLICS[2])]
"Key 0 is of one organisation, 1 and 2 of another, 3 of nobody."

EXPECTED = (
    ("free", "waiting-off .", "waiting-on .", "free .", "free .", "free toggle", "free .", "tripped off", "free ."),
    ("waiting-off", "refuse", "refuse", "free .", "held-off off", "free on", "free .", "tripped off", "free ."),
    ("waiting-on", "refuse", "refuse", "free .", "held-on on", "free toggle", "free .", "tripped off", "waiting-on ."),
    ("held-off", "refuse", "refuse", "returning .", "returning .", "free on", "returning .", "tripped .", "free home"),
    ("held-on", "refuse", "refuse", "returning .", "returning .", "free toggle", "returning .", "tripped off",
     "held-on ."),
    ("returning", "refuse", "refuse", "returning .", "free home", "free on", "returning .", "tripped off", "free home"),
    ("tripped", "refuse", "refuse", "refuse", "tripped .", "free on", "tripped .", "tripped .", "tripped ."),
)  # fmt: skip


class World:
    """An interlock with its clocks; `below` draws the most that it may."""

    def __init__(self, rules: "interlock.Rules | None" = None, state: "interlock.State | None" = None) -> None:
        self.now_s = NOON_S
        self.timer_s = 0
        self.counter = 0
        self.lock = interlock.Interlock(rules or interlock.Rules(), state or interlock.State(), lambda n: n - 1)
        self.lock.start(self.now_s, 0, True, False)

    def order(self, action: int, hold_s: int = 3600, spread_s: int = 0) -> str:
        self.counter += 1
        return self.lock.order(self.make(action, self.counter, hold_s, spread_s), self.now_s, self.timer_s, True)

    def make(self, action: int, counter: int, hold_s: int = 3600, spread_s: int = 0) -> command.Command:
        if action == command.RELEASE:
            hold_s = 0
        end_s = self.now_s + 900
        return command.Command(
            1, NETWORK, PLUG, counter, action, self.now_s, end_s, hold_s, spread_s, bytes(32), IDS[0], IDS[1]
        )

    def run(self, seconds: int, heard: bool = True, clock_good: bool = True) -> None:
        for _ in range(seconds // 10):
            self.now_s += 10
            self.timer_s += 10
            if heard:
                self.lock.heard(self.timer_s)
            self.lock.tick(self.now_s, self.timer_s, clock_good)


def world_in(name: str) -> World:
    """A world whose interlock came to a state by what may happen to a plug."""
    world = World()
    if name == "tripped":
        world.lock.trip(0)
    elif name != "free":
        world.order(command.ON if name.endswith("-on") else command.OFF)
        if not name.startswith("waiting"):
            world.run(600)
        if name == "returning":
            world.run(3600)
    assert world.lock.name == name, world.lock.name
    return world


def happen(world: World, event: str) -> str:
    """Let one event happen through the public way in; return the reason when an order was refused."""
    lock = world.lock
    if event.startswith("order") or event == "release":
        action = {"order-off": command.OFF, "order-on": command.ON, "release": command.RELEASE}[event]
        return world.order(action)
    if event == "timer":
        lock.tick(world.now_s, world.timer_s + 4000, True) if not lock.heard(world.timer_s + 4000) else None
    elif event == "button":
        lock.button(world.now_s, world.timer_s)
    elif event == "doubt":
        lock.tick(world.now_s, world.timer_s, False)
    elif event == "trip":
        lock.trip(world.timer_s)
    else:
        lock.set_essential(True, world.now_s, world.timer_s, True)
    return ""


def test_every_pair_of_state_and_event() -> None:
    pairs = 0
    for row in EXPECTED:
        for event, outcome in [(interlock.EVENTS[index], row[index + 1]) for index in range(8)]:
            world = world_in(row[0])
            before = world.lock.relay
            reason = happen(world, event)
            pairs += 1
            if outcome == "refuse":
                assert reason == "refused-state" and world.lock.name == row[0], (row[0], event)
                continue
            state, relay = outcome.split(" ")
            expected = {".": before, "on": True, "off": False, "toggle": not before, "home": True}[relay]
            assert (reason, world.lock.name, world.lock.relay) == ("", state, expected), (row[0], event)
    assert pairs == 56 == len(interlock.STATES) * len(interlock.EVENTS)


def test_a_hold_begins_after_its_spread_and_ends_by_itself_after_another() -> None:
    world = World()
    assert world.order(command.OFF, 3600, 1200) == ""
    world.run(1190)
    assert world.lock.relay and world.lock.dirty
    world.run(10)
    assert not world.lock.relay
    world.run(3590)
    assert not world.lock.relay
    world.run(10 + 590)
    assert not world.lock.relay, "on is spread as well"
    world.run(10)
    assert world.lock.relay and world.lock.name == "free"


def test_the_spread_is_drawn_for_each_plug_and_no_command_can_take_it_away() -> None:
    drawn = []
    lock = interlock.Interlock(interlock.Rules(), interlock.State(), lambda n: drawn.append(n) or 0)
    lock.start(NOON_S, 0, True, False)
    lock.order(World().make(command.OFF, 1), NOON_S, 0, True)
    lock.order(World().make(command.RELEASE, 2), NOON_S, 0, True)
    lock.order(World().make(command.OFF, 3, 60, 3600), NOON_S, 0, True)
    assert drawn == [601, 3601]


def test_the_button_wins_for_an_hour() -> None:
    world = world_in("held-off")
    world.lock.button(world.now_s, world.timer_s)
    assert world.lock.relay
    assert world.order(command.OFF, 60) == "refused-override" and world.order(command.ON, 60) == "refused-override"
    world.run(3590)
    assert world.order(command.OFF, 60) == "refused-override"
    world.run(10)
    assert world.order(command.OFF, 60) == ""


def test_the_button_wins_across_a_restart_even_without_a_clock() -> None:
    world = world_in("held-off")
    world.lock.button(world.now_s, world.timer_s)
    for clock_good, now_s in ((True, world.now_s + 600), (False, 5)):
        state = interlock.State()
        state.decode(world.lock.saved.encode())
        lock = interlock.Interlock(interlock.Rules(), state, lambda n: n - 1)
        lock.start(now_s, 0, clock_good, False)
        assert lock.order(world.make(command.OFF, 90), world.now_s, 1000, True) == "refused-override"
        assert lock.order(world.make(command.OFF, 91), world.now_s, 3600, True) == ""


def test_an_essential_plug_is_never_held_off_and_stays_so_for_seven_days() -> None:
    world = World()
    world.lock.set_essential(True, world.now_s, 0, True)
    assert world.order(command.OFF) == "refused-essential" and world.order(command.ON, 60) == ""
    world.order(command.RELEASE)
    assert not world.lock.set_essential(False, 5, 0, False), "without a clock there are no seven days"
    world.lock.set_essential(False, world.now_s, 0, True)
    for day in (1, 6):
        later_s = world.now_s + day * 86400
        assert world.lock.is_essential(later_s, True)
    world.lock.tick(world.now_s + 7 * 86400 - 1, 10, True)
    assert world.order(command.OFF) == "refused-essential"
    world.lock.tick(world.now_s + 7 * 86400, 20, True)
    assert world.order(command.OFF) == ""


def test_no_more_than_eight_hours_in_seven_days_whatever_the_clock_says() -> None:
    world = World()
    for _ in range(2):
        assert world.order(command.OFF, 14400) == ""
        world.order(command.RELEASE)
    assert world.order(command.OFF, 1) == "refused-week", "what was ended early is not given back"
    world.now_s += 365 * 86400
    assert world.order(command.OFF, 1) == "refused-week", "a clock that was set on by a year"
    world.timer_s += 8 * 86400
    world.lock.heard(world.timer_s)
    assert world.order(command.OFF, 1) == ""


def test_no_hold_meets_the_night_unless_the_household_allows_it() -> None:
    for hour, hold_s, reason in ((3, 60, "refused-night"), (5, 60, "refused-night"), (6, 14400, ""), (17, 14400, ""),
                                 (18, 14400, "refused-night"), (21, 60, ""), (21, 3000, "refused-night"),
                                 (23, 1, "refused-night")):  # fmt: skip
        world = World(interlock.Rules(utc_offset_s=3600))
        world.now_s = NOON_S - 43200 + (hour - 1) * 3600
        assert world.order(command.OFF, hold_s) == reason, (hour, hold_s)
    world = World(interlock.Rules(night_allowed=True))
    world.now_s = NOON_S + 43200
    assert world.order(command.OFF, 14400) == ""


def test_a_compressor_keeps_its_minimum_times() -> None:
    world = World(interlock.Rules(min_off_s=300, min_on_s=900))
    world.run(300)
    world.lock.button(world.now_s, world.timer_s)
    world.lock.button(world.now_s, world.timer_s)
    assert world.lock.relay, "off and on again by hand, at 300 s"
    world.order(command.OFF, 60)
    world.run(890)
    assert world.lock.relay, "the spread of 600 s is over, 900 s on are not"
    world.run(10)
    assert not world.lock.relay
    world.lock.tick(world.now_s, world.timer_s + 60, True)
    assert world.lock.name == "returning"
    lock = interlock.Interlock(interlock.Rules(min_off_s=1200), interlock.State(), lambda n: 0)
    lock.start(NOON_S, 0, True, False)
    lock.order(world.make(command.OFF, 1, 60), NOON_S, 0, True)
    for timer_s in range(0, 1200, 10):
        lock.heard(timer_s)
        lock.tick(NOON_S, timer_s, True)
        assert not lock.relay, timer_s
    lock.tick(NOON_S, 1200, True)
    assert lock.relay


def test_over_power_opens_the_relay_until_somebody_presses_the_button() -> None:
    world = World()
    world.lock.trip(0)
    state = interlock.State()
    state.decode(world.lock.saved.encode())
    again = interlock.Interlock(interlock.Rules(), state, lambda n: 0)
    again.start(NOON_S, 0, True, True)
    again.tick(NOON_S, 100, True)
    assert not again.relay and again.name == "tripped", "a restart is nobody"
    again.button(NOON_S, 100)
    assert again.relay and not state.tripped


def test_after_a_loss_of_supply_homes_come_back_spread_out_and_essential_ones_at_once() -> None:
    for essential in (False, True):
        state = interlock.State()
        state.essential = essential
        lock = interlock.Interlock(interlock.Rules(), state, lambda n: n - 1)
        lock.start(NOON_S, 0, False, True)
        assert lock.relay == essential
        lock.tick(NOON_S, 60, False)
        assert lock.relay


def test_a_state_that_is_not_one_is_refused_and_a_locked_one_takes_no_command() -> None:
    state = interlock.State()
    try:
        state.decode([1, 2])
        raise AssertionError("taken")
    except ValueError:
        pass
    state.lock()
    world = World(None, state)
    assert world.order(command.OFF) == "command-replayed" and world.order(command.ON) == "command-replayed"


# The attacks of the threat model. `frame` signs with two of KEYS by index.


def frame(order: command.Command, first: int = 0, second: int = 1) -> bytes:
    order.signer_a, order.signer_b = IDS[first], IDS[second]
    body = command.encode(order)
    message = command.signing_message(body)
    return command.seal(body, p256.sign(KEYS[first], message), p256.sign(KEYS[second], message))


def obey(world: World, orders: Orders, data: bytes, clock_good: bool = True) -> str:
    """Bring a frame in as the application does; return "" when it is obeyed, else the reason counted."""
    before = dict(orders.refused)
    orders.offer(data, world.lock.saved.counter, world.now_s, clock_good)
    while orders.busy:
        order = orders.step()
        if order is not None:
            reason = world.lock.order(order, world.now_s, world.timer_s, clock_good)
            if reason:
                orders.refuse(reason)
    changed = [reason for reason in orders.refused if orders.refused[reason] != before.get(reason, 0)]
    assert len(changed) <= 1
    return changed[0] if changed else ""


def scene() -> "tuple[World, Orders]":
    return World(), Orders(NETWORK, PLUG, PARTIES)


def test_q1_one_stolen_key_moves_nothing() -> None:
    world, orders = scene()
    order = world.make(command.OFF, 1)
    body = command.encode(order)
    one = p256.sign(KEYS[0], command.signing_message(body))
    assert obey(world, orders, command.seal(body, one, one)) == "command-signature"
    assert obey(world, orders, frame(world.make(command.OFF, 1), 0, 3)) == "command-party"
    assert world.lock.relay and world.lock.name == "free" and world.lock.saved.counter == 0


def test_q2_two_organisations_together_stay_within_the_households_rules() -> None:
    world, orders = scene()
    assert obey(world, orders, frame(world.make(command.OFF, 1, 14400))) == ""
    world.run(600 + 14400 + 610)
    assert world.lock.relay, "four hours, then it is over"
    world.now_s = NOON_S + 86400
    assert obey(world, orders, frame(world.make(command.OFF, 2, 14400))) == ""
    world.run(600 + 14400 + 610)
    world.now_s = NOON_S + 2 * 86400
    assert obey(world, orders, frame(world.make(command.OFF, 3, 60))) == "refused-week"


def test_q3_every_key_of_one_organisation_is_one_voice() -> None:
    world, orders = scene()
    assert obey(world, orders, frame(world.make(command.OFF, 1), 1, 2)) == "command-party"
    assert world.lock.name == "free"


def test_q4_an_old_order_is_worth_nothing_also_after_a_restart() -> None:
    world, orders = scene()
    data = frame(world.make(command.OFF, 7))
    assert obey(world, orders, data) == "" and obey(world, orders, data) == "command-replayed"
    state = interlock.State()
    state.decode(world.lock.saved.encode())
    again = World(None, state)
    assert obey(again, Orders(NETWORK, PLUG, PARTIES), data) == "command-replayed"
    assert obey(again, Orders(bytes(32), PLUG, PARTIES), data) == "command-network"
    assert obey(again, Orders(NETWORK, bytes(8), PARTIES), data) == "command-plug"


def test_q5_a_flood_of_orders_is_one_move_and_one_verification_at_a_time() -> None:
    world, orders = scene()
    frames = [frame(world.make(command.OFF, number, 60)) for number in (1, 2, 3)]
    for number in range(300):
        orders.offer(frames[number % 3], 0, NOON_S, True)
    assert orders.refused == {"command-busy": 299}
    while orders.busy:
        order = orders.step()
    assert order is not None and world.lock.order(order, NOON_S, 0, True) == ""
    assert obey(world, orders, frames[1]) == "refused-state"
    assert world.lock.name == "waiting-off"


def test_q6_a_clock_that_is_a_year_wrong_revives_nothing_and_prolongs_nothing() -> None:
    world, orders = scene()
    old = frame(world.make(command.OFF, 1, 3600))
    world.now_s += 365 * 86400
    assert obey(world, orders, old) == "command-expired"
    world.now_s -= 2 * 365 * 86400
    assert obey(world, orders, old) == "command-early"
    world.now_s = NOON_S
    assert obey(world, orders, old) == ""
    world.run(600)
    world.now_s -= 365 * 86400
    world.run(3600 + 600)
    assert world.lock.relay
    assert obey(world, orders, frame(world.make(command.OFF, 2, 60)), clock_good=False) == "command-clock"


def test_q7_another_areas_parties_are_strangers() -> None:
    world, orders = scene()
    theirs = Orders(NETWORK, PLUG, [(1, PUBLICS[2]), (2, PUBLICS[3])])
    assert obey(world, theirs, frame(world.make(command.OFF, 1))) == "command-party"
    assert obey(world, orders, frame(world.make(command.OFF, 1), 2, 3)) == "command-party"


def test_q8_an_order_during_an_update_keeps_the_plug_from_restarting() -> None:
    world, orders = scene()
    assert not world.lock.busy
    assert obey(world, orders, frame(world.make(command.OFF, 1))) == ""
    for _ in range(40):
        assert world.lock.busy == (world.lock.name != "free")
        world.run(120)
    assert world.lock.name == "free" and not world.lock.busy


def test_q9_essential_set_while_an_order_is_under_way_wins() -> None:
    for seconds in (0, 300, 600, 2000):
        world, orders = scene()
        orders.offer(frame(world.make(command.OFF, 1)), 0, world.now_s, True)
        if seconds == 0:
            world.lock.set_essential(True, world.now_s, 0, True)
        while orders.busy:
            order = orders.step()
        reason = world.lock.order(order, world.now_s, 0, True)
        assert reason == ("refused-essential" if seconds == 0 else "")
        world.run(seconds)
        world.lock.set_essential(True, world.now_s, world.timer_s, True)
        assert world.lock.relay and world.lock.name == "free", seconds
        world.run(7200)
        assert world.lock.relay


def test_q10_mass_on_after_an_outage_is_spread_by_each_plug() -> None:
    seen = []
    for number in range(61):
        lock = interlock.Interlock(interlock.Rules(), interlock.State(), lambda n, number=number: number % n)
        lock.start(NOON_S, 0, False, True)
        seconds = 0
        while not lock.relay:
            seconds += 1
            lock.tick(NOON_S, seconds, False)
        seen.append(seconds)
    assert min(seen) <= 1 and max(seen) == 60 and len(set(seen)) >= 60


def test_q11_an_expired_order_is_refused_to_the_second() -> None:
    world, orders = scene()
    data = frame(world.make(command.OFF, 1))
    world.now_s = NOON_S + 900
    assert obey(world, orders, data) == "command-expired"
    world.now_s = NOON_S + 899
    assert obey(world, orders, data) == ""


def test_q12_a_release_needs_no_clock_and_harms_nobody_and_the_dead_hold_nobody() -> None:
    world, orders = scene()
    assert obey(world, orders, frame(world.make(command.OFF, 1))) == ""
    world.run(600)
    assert not world.lock.relay
    release = world.make(command.RELEASE, 2)
    assert obey(world, orders, frame(release), clock_good=False) == ""
    world.run(610)
    assert world.lock.relay
    assert obey(world, orders, frame(world.make(command.OFF, 3))) == ""
    world.run(600)
    assert not world.lock.relay
    world.run(890 + 620, heard=False)
    assert world.lock.relay, "every server dead: back on within 900 s and the spread"


def test_a_changed_byte_of_a_frame_is_refused_whatever_it_says() -> None:
    world, orders = scene()
    data = frame(world.make(command.OFF, 1))
    for position in range(0, len(data), 13):
        changed = bytearray(data)
        changed[position] ^= 1
        assert obey(world, orders, bytes(changed)) != "", position
    for size in (0, 1, 100, 236, 238):
        assert obey(world, orders, (data + data)[:size]) == "command-size"
    assert world.lock.name == "free" and orders.total == sum(orders.refused.values())
