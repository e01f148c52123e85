"""Every state of two trades on one offer across three areas and the main chain (CONTRACT.md, trades across areas).

The tables are those of the product (`watt_chain.cross.tables`); this module adds what surrounds them at small scope.
Areas 0 and 1 have a buyer each, area 2 has the seller, whose one offer both buyers want. Or (`together`) a buyer of
area 0 locks two trades that stand or fall together, with sellers in areas 1 and 2, and the main chain decides. Each
pair of chains has an outbox with running numbers; the reader takes what its cursor names next. So a message may be late
for ever (its cursor does not move), which is loss; a replay is a message the cursor has passed. The deadlines of the
areas and of the main chain pass at any moment, and an area may be bad: its validators sign whatever helps, which means
that any message of it reaches the other chains in any order and any number of times (`executed`: the masters execute
its blocks again, so that its lies reach other areas only).

Checked in every state: both halves of a trade end alike; the offer is effective for one trade at most; trades locked
together have one fate; money is paid once, and only what was in escrow; nobody in a good area loses anything although
other areas are bad. From every state, whichever of the areas halt there for ever: the good ones that still run, with
the main chain, can bring every sum that they hold to an end. (An area that halts takes no step; what it could not have
done is no new state.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from watt_chain.cross.tables import (
    BEACON,
    BUYER,
    BUYER_STOOD,
    SELLER,
    SELLER_STOOD,
    Beacon,
    Buyer,
    Effect,
    Seller,
    Trigger,
)

TRADES = (0, 1)
SELLER_AREA = 2
MAIN = 3
TIME = 4
STATES_MAX = 5_000_000

Message = tuple[str, int]
"(kind, trade)."


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol, or one deliberate fault in it."""

    name: str = "as specified"
    bad_area: int = -1
    "An area whose validators lie; -1: none."
    executed: bool = False
    "The masters execute blocks again: a bad area can lie to other areas, and not to the main chain."
    word_of_a_relayer: bool = False
    "A relayer's claim of an acceptance counts in the buyer's area (the paper read literally)."
    own_clock: bool = False
    "The buyer's area refunds when its own time is over."
    unanchored_end: bool = False
    "The buyer's area refunds on a rejection that is certified by the seller's area and not anchored."
    unanchored_accept: bool = False
    "Both areas act on a certified acceptance while the main chain may still kill it."
    lock_unseen: bool = False
    "The main chain records an acceptance whose lock it has not seen anchored."
    no_cursor: bool = False
    "Messages are not counted, each may be taken again; and no trade remembers that it was paid."
    no_kill: bool = False
    "The main chain has no way to end a trade."
    together: bool = False
    "One buyer in area 0 for both trades, which stand or fall together; the sellers are in areas 1 and 2."
    each_alone: bool = False
    "The main chain decides each of several trades that were locked together by itself."
    many_outcomes: bool = False
    "The main chain records whatever comes, again and again."
    offer_not_consumed: bool = False


SOUND = (
    Rules(),
    Rules("the seller's area is bad", bad_area=SELLER_AREA),
    Rules("a buyer's area is bad", bad_area=0),
    Rules("a buyer's area is bad, and executed again", bad_area=0, executed=True),
    Rules("locked together", together=True),
    Rules("locked together, a seller's area is bad", together=True, bad_area=1),
    Rules("locked together, the buyer's area is bad", together=True, bad_area=0),
    Rules("locked together, it is executed again", together=True, bad_area=0, executed=True),
)
UNSAFE = (
    Rules("the word of a relayer", word_of_a_relayer=True),
    Rules("refund by the own clock", own_clock=True),
    Rules("refund on a rejection not anchored", bad_area=SELLER_AREA, unanchored_end=True),
    Rules("acting before the anchor", unanchored_accept=True),
    Rules("an acceptance whose lock is not anchored", bad_area=0, executed=True, lock_unseen=True),
    Rules("no cursor", no_cursor=True),
    Rules("no end by the main chain", no_kill=True),
    Rules("more than one outcome", bad_area=SELLER_AREA, many_outcomes=True),
    Rules("an offer is not consumed", offer_not_consumed=True),
    Rules("locked together and decided alone", together=True, each_alone=True),
)


@dataclass(frozen=True, slots=True)
class World:
    """Everything the chains hold: lives, boxes, deadlines."""

    buyers: tuple[Buyer, ...] = (Buyer.NONE, Buyer.NONE)
    sellers: tuple[Seller, ...] = (Seller.NONE, Seller.NONE)
    beacons: tuple[Beacon, ...] = (Beacon.NONE, Beacon.NONE)
    offer_open: bool = True
    waiting: tuple[tuple[Message, ...], ...] = ((),) * 16
    "What chain a sent to chain b and b has not taken, oldest first, at 4 a + b."
    late: int = 0
    "Deadlines that have passed: 1 confirmations, 2 the main chain's for an outcome, 3 its last."
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
        self.buyer_of = (0, 0) if rules.together else (0, 1)
        self.seller_of = (1, 2) if rules.together else (SELLER_AREA, SELLER_AREA)
        "Areas, by trade."

    # Steps --------------------------------------------------------------------------------------------------

    def steps(self, world: World) -> Iterator[tuple[int, str, World]]:
        """Every step: (who acts, what happens, the world after it). Time acts as TIME, a bad area as itself."""
        if world.late < 3:
            yield TIME, f"deadline {world.late + 1} passes", replace(world, late=world.late + 1)
        for trade in TRADES:
            yield from self._calls(world, trade)
        for box in range(16):
            for line, reached in self._deliveries(world, *divmod(box, 4)):
                yield box % 4, line, reached
        if self.rules.bad_area >= 0:
            for line, reached in self._lies(world, self.rules.bad_area):
                yield self.rules.bad_area, line, reached

    def _calls(self, world: World, trade: int) -> Iterator[tuple[int, str, World]]:
        rules = self.rules
        if rules.bad_area != self.buyer_of[trade]:
            for line, reached in self._buyers_calls(world, trade):
                yield self.buyer_of[trade], line, reached
        if rules.bad_area != self.seller_of[trade]:
            calls = [Trigger.CONSENT] if world.offer_open else []
            for trigger in (Trigger.LAPSE, Trigger.SETTLE, Trigger.SETTLE_EMPTY) if world.late else calls:
                for line, reached in self._seller(world, trade, trigger):
                    yield self.seller_of[trade], line, reached
        for deadline, trigger in ((2, Trigger.KILL), (3, Trigger.VOID)):
            if world.late >= deadline and not rules.no_kill:
                for line, reached in self._beacon(world, trade, trigger):
                    yield MAIN, line, reached

    def _buyers_calls(self, world: World, trade: int) -> Iterator[tuple[str, World]]:
        # The areas' clocks differ: a lock after the seller's deadline is possible, and must do no harm.
        if not self.rules.together:
            yield from self._buyer(world, trade, Trigger.LOCK)
        elif trade == 0 and world.buyers == (Buyer.NONE, Buyer.NONE):  # one call: both or neither
            for first, once in self._buyer(world, 0, Trigger.LOCK):
                for second, twice in self._buyer(once, 1, Trigger.LOCK):
                    yield f"{first}, {second}", twice
        if world.buyers[trade] is not Buyer.LOCKED:
            return
        if self.rules.own_clock and world.late:
            refunded = replace(world, buyers=_set(world.buyers, trade, Buyer.REFUNDED))
            yield f"{trade} refunds itself", self._apply(refunded, trade, self.buyer_of[trade], (Effect.REFUND,))
        if self.rules.word_of_a_relayer:
            bound = replace(world, buyers=_set(world.buyers, trade, Buyer.BOUND))
            yield f"a relayer says {trade} was accepted", bound

    def _deliveries(self, world: World, source: int, target: int) -> Iterator[tuple[str, World]]:
        box = 4 * source + target
        known = world.waiting[box]
        for number in range(len(known) if self.rules.no_cursor else min(1, len(known))):
            left = known if self.rules.no_cursor else known[1:]
            moved = replace(world, waiting=_set(world.waiting, box, left))
            kind, trade = known[number]
            for line, reached in self._take(moved, source, target, kind, trade):
                yield f"{target} takes {kind} {trade} of {source}: {line}", reached

    def _take(self, world: World, source: int, target: int, kind: str, trade: int) -> Iterator[tuple[str, World]]:
        """A message; one that no longer fits is consumed without effect."""
        done: list[tuple[str, World]] = []
        buyer, seller = self.buyer_of[trade], self.seller_of[trade]
        if target == MAIN:
            if source == (seller if kind in _OF_SELLERS else buyer):
                done = list(self._beacon(world, trade, Trigger(kind)))
        elif target == seller:
            if source == (buyer if kind == Trigger.LOCKED else MAIN):
                again = kind == Trigger.PAY and self.rules.no_cursor
                done = list(self._seller(world, trade, Trigger(kind), replayed=again))
        elif target == buyer:
            if source == MAIN:
                done = list(self._buyer(world, trade, Trigger(kind)))
            elif kind == Trigger.REJECT and self.rules.unanchored_end:
                done = list(self._buyer(world, trade, Trigger.ANCHORED_END))
            elif kind == Trigger.ACCEPT and self.rules.unanchored_accept:
                done = list(self._buyer(world, trade, Trigger.ANCHORED_ACCEPT))
        yield from done or [("nothing", world)]

    def _lies(self, world: World, bad: int) -> Iterator[tuple[str, World]]:
        """Whatever a bad area says, whenever it likes."""
        for trade in TRADES:
            if bad == self.seller_of[trade]:
                for kind in _OF_SELLERS:
                    yield from self._said(world, MAIN, kind, trade)
                yield from self._said(world, self.buyer_of[trade], Trigger.REJECT, trade)
            elif bad == self.buyer_of[trade]:
                yield from self._said(world, self.seller_of[trade], Trigger.LOCKED, trade)
                if not self.rules.executed:
                    yield from self._said(world, MAIN, Trigger.LOCKED, trade)
                    yield from self._said(world, MAIN, Trigger.PAY, trade)

    def _said(self, world: World, target: int, kind: Trigger, trade: int) -> Iterator[tuple[str, World]]:
        for line, reached in self._take(world, self.rules.bad_area, target, kind, trade):
            if reached != world:
                yield f"bad area says {kind} {trade} to {target}: {line}", reached

    # The tables ---------------------------------------------------------------------------------------------

    def _buyer(self, world: World, trade: int, trigger: Trigger) -> Iterator[tuple[str, World]]:
        step = BUYER[world.buyers[trade]].get(trigger)
        if step is not None:
            world = replace(world, buyers=_set(world.buyers, trade, step[0]))
            yield f"buyer {trade} {step[0]}", self._apply(world, trade, self.buyer_of[trade], step[1])

    def _seller(
        self, world: World, trade: int, trigger: Trigger, replayed: bool = False
    ) -> Iterator[tuple[str, World]]:
        state = world.sellers[trade]
        if replayed and state is Seller.CREDITED:  # without a cursor only the box stood between a payment and its twin
            yield f"seller {trade} again", self._apply(world, trade, self.seller_of[trade], (Effect.CREDIT,))
            return
        step = SELLER[state].get(trigger)
        if step is None:
            return
        goal = step[0]
        if goal is Seller.ACCEPTED and self.rules.unanchored_accept:
            goal = Seller.EFFECTIVE
        world = replace(world, sellers=_set(world.sellers, trade, goal))
        yield f"seller {trade} {goal}", self._apply(world, trade, self.seller_of[trade], step[1])

    def _beacon(self, world: World, trade: int, trigger: Trigger) -> Iterator[tuple[str, World]]:
        state = Beacon.NONE if self.rules.many_outcomes else world.beacons[trade]
        if self.rules.together and not self.rules.each_alone:
            second = {Trigger.LOCKED: Beacon.ACCEPTED, Trigger.ACCEPT: Beacon.LOCKED}
            trigger = Trigger.JOIN if second.get(trigger) is state else trigger
        step = BEACON[state].get(trigger)
        if step is not None and trigger is Trigger.ACCEPT and (self.rules.lock_unseen or self.rules.many_outcomes):
            step = (Beacon.ACCEPT, (Effect.SEND_OUTCOME,))
        if step is not None and step[0] is not world.beacons[trade]:
            reached = self._record(world, trade, step)
            if self.rules.together and not self.rules.each_alone:
                reached = self._with_the_others(reached, trade, state)
            yield f"main records {trade} {step[0]}", reached

    def _record(self, world: World, trade: int, step: tuple[Beacon, tuple[Effect, ...]]) -> World:
        return self._apply(replace(world, beacons=_set(world.beacons, trade, step[0])), trade, MAIN, step[1])

    def _with_the_others(self, world: World, trade: int, before: Beacon) -> World:
        """What one of two trades that were locked together means for both. That they were so is in the lock: the end of
        one whose lock is not anchored ends no other."""
        if world.beacons[trade] in (Beacon.REJECT, Beacon.KILL) and before in (Beacon.LOCKED, Beacon.READY):
            other = 1 - trade
            step = BEACON[world.beacons[other]].get(Trigger.KILL)
            return world if step is None else self._record(world, other, step)
        if all(state is Beacon.READY for state in world.beacons):
            for number in TRADES:
                world = self._record(world, number, BEACON[Beacon.READY][Trigger.ALL_READY])
        return world

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
                own = self.rules.together  # each trade has an offer of its own
                return world if own or self.rules.offer_not_consumed else replace(world, offer_open=False)
            case Effect.RELEASE:
                return replace(world, offer_open=True)
            case Effect.SEND_LOCKED:
                world = self._send(world, chain, self.seller_of[trade], Trigger.LOCKED, trade)
                return self._send(world, chain, MAIN, Trigger.LOCKED, trade)
            case Effect.SEND_ACCEPT | Effect.SEND_REJECT:
                kind = Trigger.ACCEPT if effect is Effect.SEND_ACCEPT else Trigger.REJECT
                world = self._send(world, chain, MAIN, kind, trade)
                direct = self.rules.unanchored_accept or self.rules.unanchored_end
                return self._send(world, chain, self.buyer_of[trade], kind, trade) if direct else world
            case Effect.SEND_OUTCOME:
                return self._both(world, trade, _OUTCOMES.get(world.beacons[trade], Trigger.ANCHORED_END))
            case Effect.SEND_SETTLED | Effect.SEND_RETURNED:
                kind = Trigger.SETTLED if effect is Effect.SEND_SETTLED else Trigger.RETURNED
                return self._send(world, chain, self.buyer_of[trade] if chain == MAIN else MAIN, kind, trade)
            case Effect.SEND_PAY:
                target = self.seller_of[trade] if chain == MAIN else MAIN
                return self._send(world, chain, target, Trigger.PAY, trade)
            case Effect.ESCROW | Effect.RESERVE | Effect.UNRESERVE | Effect.TRANSFER:
                return world  # amounts are the contract's tests' matter

    def _both(self, world: World, trade: int, kind: Trigger) -> World:
        world = self._send(world, MAIN, self.buyer_of[trade], kind, trade)
        return self._send(world, MAIN, self.seller_of[trade], kind, trade)

    def _send(self, world: World, source: int, target: int, kind: Trigger, trade: int) -> World:
        box = 4 * source + target
        if self.rules.bad_area == target or len(world.waiting[box]) >= 6:
            return world  # nobody reads it; only the variant that records many outcomes ever sends so much
        return replace(world, waiting=_set(world.waiting, box, (*world.waiting[box], (str(kind), trade))))

    # What must hold -----------------------------------------------------------------------------------------

    def fault(self, world: World) -> str:
        """Empty, or what is wrong with a state."""
        over = (Seller.REJECTED, Seller.RELEASED)
        for trade in TRADES:
            buyer, seller = world.buyers[trade], world.sellers[trade]
            bad_buyer, bad_seller = (self.rules.bad_area == of[trade] for of in (self.buyer_of, self.seller_of))
            if not bad_buyer and not bad_seller:
                if buyer is Buyer.REFUNDED and seller in SELLER_STOOD:
                    return "money back although the contract stands"
                if buyer in BUYER_STOOD and seller in over:
                    return "money bound although there is no contract"
                if world.credited[trade] > world.paid[trade]:
                    return "paid out what was not paid in"
            if world.paid[trade] + world.refunded[trade] > 1 or world.credited[trade] > 1:
                return "one sum moved twice"
            if not bad_buyer:
                recorded = world.beacons[trade]
                if buyer in BUYER_STOOD and recorded not in _ACCEPTED:
                    return "money bound without an anchored acceptance"
                if buyer is Buyer.REFUNDED and recorded in _ACCEPTED:
                    return "money back although the acceptance is anchored"
            elif self.rules.executed and seller in SELLER_STOOD:
                return "a seller bound by money that is not there"  # a bad area that is executed again never locks
            if not bad_seller and seller in SELLER_STOOD and world.beacons[trade] not in _ACCEPTED:
                return "a seller bound without an anchored acceptance"
        if self.rules.together:
            fates = [state in _ACCEPTED for state in world.beacons]
            return "locked together, and one alone came about" if fates[0] != fates[1] else ""
        if self.rules.bad_area != SELLER_AREA and sum(seller in SELLER_STOOD for seller in world.sellers) > 1:
            return "one offer sold twice"
        return ""

    def open_sums(self, world: World, halted: frozenset[int]) -> bool:
        """Whether a good area that runs still holds money of a trade that is not over."""
        away = halted | {self.rules.bad_area}
        for trade in TRADES:
            if world.buyers[trade] in (Buyer.LOCKED, Buyer.BOUND) and self.buyer_of[trade] not in away:
                return True
            held = (Seller.OFFERED, Seller.ACCEPTED, Seller.EFFECTIVE)
            if world.sellers[trade] in held and self.seller_of[trade] not in away:
                return True
        return False


_OF_SELLERS = (Trigger.ACCEPT, Trigger.REJECT, Trigger.SETTLED, Trigger.RETURNED)
"What the seller's area reports to the main chain."
_OUTCOMES = {Beacon.ACCEPT: Trigger.ANCHORED_ACCEPT, Beacon.VOID: Trigger.VOID}
_ACCEPTED = (Beacon.ACCEPT, Beacon.SETTLED, Beacon.PAID, Beacon.RETURNED, Beacon.VOID)
"States of the main chain's trade that lie behind an acceptance."


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
    back: dict[World, list[tuple[int, World]]] = {start: []}
    frontier = [start]
    while frontier:
        following: list[World] = []
        for world in frontier:
            for actor, line, reached in protocol.steps(world):
                back.setdefault(reached, []).append((actor, world))
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
    for size in range(4):
        for halted in combinations(range(3), size):
            stuck = _stuck(protocol, back, frozenset(halted))
            if stuck is not None:
                who = "".join(f", area {area} halted" for area in halted)
                return Outcome(len(parents), "money stuck for ever" + who, _path(parents, stuck))
    return Outcome(len(parents), "", ())


def _stuck(protocol: Protocol, back: dict[World, list[tuple[int, World]]], halted: frozenset[int]) -> World | None:
    """A state from which no step of others than the halted and the bad ends what is held; None: there is none."""
    away = halted | {protocol.rules.bad_area}
    free = [world for world in back if not protocol.open_sums(world, halted)]
    saved = dict.fromkeys(free)
    while free:
        for actor, earlier in back[free.pop()]:
            if actor not in away and earlier not in saved:
                saved[earlier] = None
                free.append(earlier)
    return next((world for world in back if world not in saved), None)


def _path(parents: dict[World, tuple[World, str]], last: World) -> tuple[str, ...]:
    lines: list[str] = []
    while parents[last][0] != last:
        last, line = parents[last]
        lines.append(line)
    return tuple(reversed(lines))
