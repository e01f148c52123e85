"""Every state of two trades on one offer across three areas and the main chain (CONTRACT.md, trades across areas).

The tables are those of the product (`watt_chain.cross.tables`); this module adds what surrounds them at small scope:
areas 0 and 1 have a buyer each, area 2 has the seller, whose one offer both buyers want. Each pair of chains has an
outbox with running numbers; the reader takes what its cursor names next. So a message may be late for ever (its cursor
does not move), which is loss; a replay is a message the cursor has passed. Any area may halt for ever at any moment,
the seller's deadline and the main chain's pass at any moment, and an area may be bad: its validators sign whatever
helps, which means that any message of it reaches the other chains in any order and any number of times.

Checked in every state: both halves of a trade end alike; the offer is effective for one trade at most; money is paid
once, and only what was in escrow; a buyer in a good area loses nothing although other areas are bad. From every
state: the good areas that still run, with the main chain, can bring every locked sum to an end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from watt_chain.cross.tables import BEACON, BUYER, SELLER, Beacon, Buyer, Effect, Seller, Trigger

TRADES = (0, 1)
SELLER_AREA = 2
MAIN = 3
STATES_MAX = 5_000_000

Message = tuple[str, int]
"(kind, trade)."


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol, or one deliberate fault in it."""

    name: str = "as specified"
    bad_area: int = -1
    "An area whose validators lie; -1: none."
    halting: bool = True
    word_of_a_relayer: bool = False
    "A relayer's claim of an acceptance counts in the buyer's area (the paper read literally)."
    own_clock: bool = False
    "The buyer's area refunds when its own time is over."
    unanchored_end: bool = False
    "The buyer's area refunds on a rejection that is certified by the seller's area and not anchored."
    unanchored_accept: bool = False
    "Both areas act on a certified acceptance while the main chain may still kill it."
    no_cursor: bool = False
    "Messages are not counted: each may be taken again."
    no_kill: bool = False
    "The main chain has no way to end a trade."
    many_outcomes: bool = False
    "The main chain records whatever comes, again and again."
    offer_not_consumed: bool = False


SOUND = (
    Rules(),
    Rules("the seller's area is bad", bad_area=SELLER_AREA),
    Rules("a buyer's area is bad", bad_area=0),
)
UNSAFE = (
    Rules("the word of a relayer", word_of_a_relayer=True),
    Rules("refund by the own clock", own_clock=True),
    Rules("refund on a rejection not anchored", bad_area=SELLER_AREA, unanchored_end=True),
    Rules("acting before the anchor", unanchored_accept=True),
    Rules("no cursor", no_cursor=True),
    Rules("no end by the main chain", no_kill=True),
    Rules("more than one outcome", bad_area=SELLER_AREA, many_outcomes=True),
    Rules("an offer is not consumed", offer_not_consumed=True),
)


@dataclass(frozen=True, slots=True)
class World:
    """Everything the chains hold: lives, boxes, deadlines, who has halted."""

    buyers: tuple[Buyer, ...] = (Buyer.NONE, Buyer.NONE)
    sellers: tuple[Seller, ...] = (Seller.NONE, Seller.NONE)
    beacons: tuple[Beacon, ...] = (Beacon.NONE, Beacon.NONE)
    offer_open: bool = True
    sent: tuple[tuple[Message, ...], ...] = ((),) * 16
    "Outbox from chain a to chain b at 4 a + b."
    cursors: tuple[int, ...] = (0,) * 16
    seller_late: bool = False
    main_late: bool = False
    halted: tuple[bool, ...] = (False, False, False)
    paid: tuple[int, ...] = (0, 0)
    "How often the buyer's money left escrow towards the seller."
    refunded: tuple[int, ...] = (0, 0)
    credited: tuple[int, ...] = (0, 0)


def _set(items: tuple, at: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:at], value, *items[at + 1 :])


class Protocol:
    """The steps of the world under some rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    # Steps --------------------------------------------------------------------------------------------------

    def steps(self, world: World, faults: bool = True) -> Iterator[tuple[str, World]]:
        """Every step; without `faults` no area halts and no bad area speaks."""
        if not world.seller_late:
            yield "the seller's deadline passes", replace(world, seller_late=True)
        elif not world.main_late:
            yield "the main chain's deadline passes", replace(world, main_late=True)
        for trade in TRADES:
            yield from self._calls(world, trade)
        yield from self._deliveries(world)
        if faults:
            yield from self._faults(world)

    def _runs(self, world: World, area: int) -> bool:
        return area == MAIN or not (world.halted[area] or area == self.rules.bad_area)

    def _calls(self, world: World, trade: int) -> Iterator[tuple[str, World]]:
        rules = self.rules
        if self._runs(world, trade):
            if not world.seller_late:
                yield from self._buyer(world, trade, Trigger.LOCK)
            if rules.own_clock and world.seller_late and world.buyers[trade] is Buyer.LOCKED:
                yield f"{trade} refunds itself", self._refund(world, trade)
            if rules.word_of_a_relayer and world.buyers[trade] is Buyer.LOCKED:
                bound = replace(world, buyers=_set(world.buyers, trade, Buyer.BOUND))
                yield f"a relayer says {trade} was accepted", bound
        if self._runs(world, SELLER_AREA):
            if world.seller_late:
                yield from self._seller(world, trade, Trigger.EXPIRE)
            yield from self._seller(world, trade, Trigger.SETTLE)
        if world.main_late and not rules.no_kill:
            yield from self._beacon(world, trade, Trigger.KILL)

    def _deliveries(self, world: World) -> Iterator[tuple[str, World]]:
        for box in range(16):
            source, target = divmod(box, 4)
            at = world.cursors[box]
            known = world.sent[box]
            if not self._runs(world, target):
                continue
            first = 0 if self.rules.no_cursor else at
            for number in range(first, min(len(known), at + 1)):
                moved = replace(world, cursors=_set(world.cursors, box, max(at, number + 1)))
                kind, trade = known[number]
                for line, reached in self._take(moved, source, target, kind, trade):
                    yield f"{target} takes {kind} {trade} of {source}: {line}", reached

    def _take(self, world: World, source: int, target: int, kind: str, trade: int) -> Iterator[tuple[str, World]]:
        """A message; one that no longer fits is consumed without effect."""
        done: list[tuple[str, World]] = []
        if target == MAIN:
            if kind in (Trigger.ACCEPT, Trigger.REJECT) and source == SELLER_AREA:
                done = list(self._beacon(world, trade, Trigger(kind)))
        elif target == SELLER_AREA:
            if kind == Trigger.LOCKED and source == trade:
                fits = world.offer_open and not world.seller_late
                done = list(self._seller(world, trade, Trigger.LOCKED if fits else Trigger.LOCKED_LATE))
            elif kind in (Trigger.ANCHORED_ACCEPT, Trigger.ANCHORED_END) and source == MAIN:
                done = list(self._seller(world, trade, Trigger(kind)))
            elif kind == Trigger.PAY and source == trade:
                done = list(self._seller(world, trade, Trigger.PAY, replayed=self.rules.no_cursor))
        elif target == trade:
            from_main = source == MAIN and kind in (Trigger.ANCHORED_ACCEPT, Trigger.ANCHORED_END)
            if from_main or (kind == Trigger.SETTLED and source == SELLER_AREA):
                done = list(self._buyer(world, trade, Trigger(kind)))
            elif source == SELLER_AREA and kind == Trigger.REJECT and self.rules.unanchored_end:
                done = list(self._buyer(world, trade, Trigger.ANCHORED_END))
            elif source == SELLER_AREA and kind == Trigger.ACCEPT and self.rules.unanchored_accept:
                done = list(self._buyer(world, trade, Trigger.ANCHORED_ACCEPT))
        yield from done or [("nothing", world)]

    def _faults(self, world: World) -> Iterator[tuple[str, World]]:
        for area in range(3):
            if self.rules.halting and not world.halted[area] and area != self.rules.bad_area:
                yield f"{area} halts", replace(world, halted=_set(world.halted, area, True))
        bad = self.rules.bad_area
        if bad < 0:
            return
        for trade in TRADES:
            if bad == SELLER_AREA:
                for kind in (Trigger.ACCEPT, Trigger.REJECT):
                    yield from self._said(world, MAIN, kind, trade)
                for kind in (Trigger.SETTLED, Trigger.REJECT):
                    if self._runs(world, trade):
                        yield from self._said(world, trade, kind, trade)
            elif bad == trade and self._runs(world, SELLER_AREA):
                for kind in (Trigger.LOCKED, Trigger.PAY):
                    yield from self._said(world, SELLER_AREA, kind, trade)

    def _said(self, world: World, target: int, kind: Trigger, trade: int) -> Iterator[tuple[str, World]]:
        for line, reached in self._take(world, self.rules.bad_area, target, kind, trade):
            if reached != world:
                yield f"bad area says {kind} {trade} to {target}: {line}", reached

    # The tables ---------------------------------------------------------------------------------------------

    def _buyer(self, world: World, trade: int, trigger: Trigger) -> Iterator[tuple[str, World]]:
        step = BUYER[world.buyers[trade]].get(trigger)
        if step is not None:
            world = replace(world, buyers=_set(world.buyers, trade, step[0]))
            yield f"buyer {trade} {step[0]}", self._apply(world, trade, trade, step[1])

    def _seller(
        self, world: World, trade: int, trigger: Trigger, replayed: bool = False
    ) -> Iterator[tuple[str, World]]:
        state = world.sellers[trade]
        if replayed and state is Seller.CREDITED:  # without a cursor only the box stood between a payment and its twin
            yield f"seller {trade} again", self._apply(world, trade, SELLER_AREA, (Effect.CREDIT,))
            return
        step = SELLER[state].get(trigger)
        if step is None:
            return
        goal = step[0]
        if goal is Seller.ACCEPTED and self.rules.unanchored_accept:
            goal = Seller.EFFECTIVE
        world = replace(world, sellers=_set(world.sellers, trade, goal))
        yield f"seller {trade} {goal}", self._apply(world, trade, SELLER_AREA, step[1])

    def _beacon(self, world: World, trade: int, trigger: Trigger) -> Iterator[tuple[str, World]]:
        state = Beacon.NONE if self.rules.many_outcomes else world.beacons[trade]
        step = BEACON[state].get(trigger)
        if step is not None and step[0] is not world.beacons[trade]:
            world = replace(world, beacons=_set(world.beacons, trade, step[0]))
            yield f"main records {trade} {step[0]}", self._apply(world, trade, MAIN, step[1])

    def _refund(self, world: World, trade: int) -> World:
        world = replace(world, buyers=_set(world.buyers, trade, Buyer.REFUNDED))
        return self._apply(world, trade, trade, (Effect.REFUND,))

    def _apply(self, world: World, trade: int, chain: int, effects: tuple[Effect, ...]) -> World:
        for effect in effects:
            world = self._effect(world, trade, chain, effect)
        return world

    def _effect(self, world: World, trade: int, chain: int, effect: Effect) -> World:
        match effect:
            case Effect.REFUND:
                return replace(world, refunded=_set(world.refunded, trade, min(2, world.refunded[trade] + 1)))
            case Effect.SPEND:
                return replace(world, paid=_set(world.paid, trade, min(2, world.paid[trade] + 1)))
            case Effect.CREDIT:
                return replace(world, credited=_set(world.credited, trade, min(2, world.credited[trade] + 1)))
            case Effect.CONSUME:
                return world if self.rules.offer_not_consumed else replace(world, offer_open=False)
            case Effect.RELEASE:
                return replace(world, offer_open=True)
            case Effect.SEND_LOCKED:
                return self._send(world, chain, SELLER_AREA, Trigger.LOCKED, trade)
            case Effect.SEND_ACCEPT | Effect.SEND_REJECT:
                kind = Trigger.ACCEPT if effect is Effect.SEND_ACCEPT else Trigger.REJECT
                world = self._send(world, chain, MAIN, kind, trade)
                direct = self.rules.unanchored_accept or self.rules.unanchored_end
                return self._send(world, chain, trade, kind, trade) if direct else world
            case Effect.SEND_OUTCOME:
                ended = world.beacons[trade] is not Beacon.ACCEPT
                kind = Trigger.ANCHORED_END if ended else Trigger.ANCHORED_ACCEPT
                world = self._send(world, MAIN, trade, kind, trade)
                return self._send(world, MAIN, SELLER_AREA, kind, trade)
            case Effect.SEND_SETTLED:
                return self._send(world, chain, trade, Trigger.SETTLED, trade)
            case Effect.SEND_PAY:
                return self._send(world, chain, SELLER_AREA, Trigger.PAY, trade)
            case Effect.ESCROW:
                return world

    def _send(self, world: World, source: int, target: int, kind: Trigger, trade: int) -> World:
        box = 4 * source + target
        if len(world.sent[box]) >= 6:
            return world  # only the variant that records many outcomes ever sends so much
        return replace(world, sent=_set(world.sent, box, (*world.sent[box], (str(kind), trade))))

    # What must hold -----------------------------------------------------------------------------------------

    def fault(self, world: World) -> str:
        """Empty, or what is wrong with a state."""
        effective = (Seller.EFFECTIVE, Seller.SETTLED, Seller.CREDITED)
        over = (Seller.REJECTED, Seller.RELEASED)
        for trade in TRADES:
            buyer, seller = world.buyers[trade], world.sellers[trade]
            if self.rules.bad_area not in (trade, SELLER_AREA):
                if buyer is Buyer.REFUNDED and seller in effective:
                    return "money back although the contract stands"
                if buyer in (Buyer.BOUND, Buyer.PAID) and seller in over:
                    return "money bound although there is no contract"
                if world.credited[trade] > world.paid[trade]:
                    return "paid out what was not paid in"
            if world.paid[trade] + world.refunded[trade] > 1 or world.credited[trade] > 1:
                return "one sum moved twice"
            if self.rules.bad_area != trade:
                recorded = world.beacons[trade]
                if buyer in (Buyer.BOUND, Buyer.PAID) and recorded is not Beacon.ACCEPT:
                    return "money bound without an anchored acceptance"
                if buyer is Buyer.REFUNDED and recorded is Beacon.ACCEPT:
                    return "money back although the acceptance is anchored"
        if self.rules.bad_area != SELLER_AREA and sum(seller in effective for seller in world.sellers) > 1:
            return "one offer sold twice"
        return ""

    def open_sums(self, world: World) -> bool:
        """Whether a running good area still holds locked money of an undecided trade."""
        return any(world.buyers[trade] is Buyer.LOCKED and self._runs(world, trade) for trade in TRADES)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exploration found."""

    states: int
    fault: str
    path: tuple[str, ...]


def explore(rules: Rules, progress: Callable[[int], None] | None = None) -> Outcome:
    """Every state, then whether locked money can always come free. Raises MemoryError above STATES_MAX."""
    protocol = Protocol(rules)
    start = World()
    parents: dict[World, tuple[World, str]] = {start: (start, "")}
    frontier = [start]
    while frontier:
        following: list[World] = []
        for world in frontier:
            for line, reached in protocol.steps(world):
                if reached in parents:
                    continue
                parents[reached] = (world, line)
                fault = protocol.fault(reached)
                if fault:
                    return Outcome(len(parents), fault, _path(parents, reached))
                following.append(reached)
        if len(parents) > STATES_MAX:
            raise MemoryError(f"more than {STATES_MAX} states")
        if progress is not None:
            progress(len(parents))
        frontier = following
    stuck = _stuck(protocol, parents)
    if stuck is not None:
        return Outcome(len(parents), "money stuck for ever", _path(parents, stuck))
    return Outcome(len(parents), "", ())


def _stuck(protocol: Protocol, states: dict[World, tuple[World, str]]) -> World | None:
    """A state whose locked money no good step can bring to an end, the first found; None: there is none."""
    before: dict[World, list[World]] = {}
    free: list[World] = []
    for world in states:
        if not protocol.open_sums(world):
            free.append(world)
            continue
        for _, reached in protocol.steps(world, faults=False):
            before.setdefault(reached, []).append(world)
    saved = dict.fromkeys(free)
    while free:
        for earlier in before.get(free.pop(), ()):
            if earlier not in saved:
                saved[earlier] = None
                free.append(earlier)
    return next((world for world in states if world not in saved), None)


def _path(parents: dict[World, tuple[World, str]], last: World) -> tuple[str, ...]:
    lines: list[str] = []
    while parents[last][0] != last:
        last, line = parents[last]
        lines.append(line)
    return tuple(reversed(lines))
