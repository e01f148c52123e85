"""A run of a network of areas: what a seed does to two trades across areas, and what must hold after every block.

Chains stand still, clocks disagree, carriers keep back, repeat, reorder and forge, households lock what they have not
got, validators change and their old keys are stolen. In some runs one area is bad altogether: more than its f
validators lie, it has two histories, and it certifies whatever helps; one master helps it. In the end everything is
carried, every deadline passes, and whoever has halted for ever stays so: the good areas must come to rest, with no
money locked.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b

from watt_chain import codec
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.cross_objects import kill_after_s
from watt_chain.contract.event import State
from watt_chain.contract.kinds import ListChange
from watt_chain.cross.tables import UNDECIDED, Beacon
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import Validator
from watt_chain.ledger import CorruptionError
from watt_chain.transaction import DecodedTransaction

from watt_sim.areas_check import Judge
from watt_sim.carriers import Carriers
from watt_sim.cheap import cheap_signatures
from watt_sim.drbg import Drbg
from watt_sim.guards import Guards
from watt_sim.recovery import Recovery
from watt_sim.streets import (
    DEPOSIT_U,
    EVENT,
    NOBODY,
    RULES,
    Chain,
    Home,
    Made,
    Network,
    anchor_of,
    anchored_height,
    key_of,
    template,
)
from watt_sim.violation import Violation

STEPS = (20, 45, 80)
"""Things that happen in a run before the end is played."""
REAL_PPM = 20_000
"""Runs with real signatures: they cost three times as much."""
SHORT_PPM, SHORT_U = 120_000, 300_000
"""Households that take most of their money away first, and what they leave at most: a lock needs 60,000 to 250,000."""
REST_ROUNDS = 14
"""Rounds in which all that is due is carried once, until nothing is due; a trade needs seven messages, one after the
other."""
BLOCK_CALLS_MAX = 8


@dataclass(frozen=True, slots=True)
class AreasConfig:
    """What exists in a run."""

    seed: int
    areas: int
    bad: int = 0
    "An area whose validators lie; 0: none."
    halts: tuple[int, ...] = ()
    "Areas that stand still at some time, for ever."
    poor: bool = False
    "Areas may send out next to nothing."
    forgers: bool = False
    "Carriers do not only keep back."
    together: bool = False
    "Buyers lock all their trades at once, so that all come about or none."
    changes: bool = False
    "Areas change their validators."
    steps: int = 45
    real: bool = False
    "P-256 instead of fake signatures."


@dataclass(slots=True)
class AreasResult:
    """What became of a run."""

    seed: int
    violation: str = ""
    invariant: str = ""
    hash: str = ""
    blocks: int = 0
    coverage: dict[str, int] = field(default_factory=dict)
    tail: tuple[str, ...] = ()
    spent_ms: int = 0
    "Processor time, when somebody measured it."


def draw_areas(seed: int) -> AreasConfig:
    """The run of a seed."""
    chance = Drbg("areas", seed)
    areas = chance.choice((2, 2, 3, 3, 4))
    bad = chance.between(1, areas) if chance.chance(300_000) else 0
    halts = tuple(chance.some(range(1, areas + 1), 1 + chance.below(2))) if chance.chance(250_000) else ()
    return AreasConfig(
        seed,
        areas,
        bad,
        halts,
        poor=chance.chance(120_000),
        forgers=chance.chance(500_000),
        together=chance.chance(400_000),
        changes=chance.chance(200_000),
        steps=chance.choice(STEPS),
        real=chance.chance(REAL_PPM),
    )


class Areas:
    """The network of a run."""

    def __init__(self, config: AreasConfig, lines: list[str] | None = None) -> None:
        """`lines` takes the transcript."""
        self.config = config
        self.chance = Drbg("areas-run", config.seed)
        self.network: Network = template(config.areas, config.real).fork()
        self.chains = self.network.chains
        self.lines = lines
        self.coverage: dict[str, int] = {}
        self.hash = blake2b(digest_size=16)
        self.blocks = 0
        self.clocks_s = {number: chain.ledger.head.time_s for number, chain in self.chains.items()}
        self.queues: dict[int, list[DecodedTransaction]] = {number: [] for number in self.chains}
        self.halted: list[int] = []
        self.count(f"run-{config.areas}-areas")
        if config.real:
            self.count("run-real")
        self.delivered: dict[int, int] = {home.number: 0 for home in self.network.homes}
        self.sequences = dict.fromkeys(self.chains, 0)
        "Changes of the list asked for, by chain."
        self.next_keys: dict[int, tuple[int, list[PrivateKey]]] = {}
        "Chain -> (height from which they validate, keys)."
        self.stolen: dict[int, list[PrivateKey]] = {}
        "Keys of validators that have left, by chain."
        self.bad = config.bad or NOBODY
        "The area that is bad now; nobody once it was readmitted."
        self.judge = Judge(self)
        self.carriers = Carriers(self)
        self.guards = Guards(self)
        self.twin: Chain | None = None
        "The other history of the bad area."
        self.mirror: Chain | None = self.chains[config.bad].fork() if config.bad else None
        "The bad area as the masters execute it."
        self.recovery = Recovery(self)
        self.executed: dict[int, dict[int, bytes]] = {area: {} for area in self.network.areas}
        "Area -> height -> header that the masters have executed."
        if config.poor:
            for area in self.network.areas:
                endowed = self.chance.choice((0, 40_000, 130_000))
                rate = self.chance.choice((40_000, 1_000_000))
                self.put(0, key_of("grid"), "Endow", cross_kinds.Endow(area, endowed, rate))

    # Blocks -----------------------------------------------------------------------------------------------

    def put(self, number: int, key: PrivateKey, kind: str, body: object) -> None:
        """Hand a call to a chain; it is in the next block, if it may be."""
        queue, chain = self.queues[number], self.chains[number]
        ahead = sum(tx.signer == key.public for tx in queue)
        queue.append(chain.tx(key, kind, body, ahead))

    def block(self, number: int) -> Made | None:
        """A block of what waits; None when the chain stands still or nothing may be in one."""
        if number in self.halted or not self.queues[number]:
            return None
        chain, queue = self.chains[number], self.queues[number][:BLOCK_CALLS_MAX]
        self.queues[number] = self.queues[number][BLOCK_CALLS_MAX:]
        if number == 0:  # a leader may propose what the others do not support; it comes to nothing
            queue = [tx for tx in queue if self._vouches(tx)]
        made = chain.make(self.clocks_s[number], queue)
        if made is None:
            return None
        self.taken(chain, made)
        return made

    def taken(self, chain: Chain, made: Made) -> None:
        """A block is final: everybody who looks at it does so."""
        number = chain.number
        self.blocks += 1
        self.clocks_s[number] = max(self.clocks_s[number], made.applied.header.time_s)
        self.hash.update(made.header)
        for tx, receipt in zip(made.applied.transactions, made.applied.receipts, strict=True):
            self.note(f"{number}/{made.height} {tx.kind}: {receipt.code or 'accepted'}")
            self.count(f"{tx.kind}-{receipt.code}" if receipt.code else f"{tx.kind}")
        waiting = self.next_keys.get(number)
        if waiting is not None and waiting[0] == made.height + 1:
            self.stolen.setdefault(number, []).extend(key for key in chain.keys if key not in waiting[1])
            chain.keys = waiting[1]
            self.count("list-changed")
        if number and number != self.bad:
            self.executed[number][made.height] = made.header
        if number != self.bad:
            self.judge.said(made.applied)
        if chain is not self.twin:
            self.judge.block(number, made.applied)

    def execute(self, made: Made) -> None:
        """The masters execute a block of the bad area, if it is the next one and is what it says."""
        assert self.mirror is not None
        if made.height != self.mirror.ledger.head.height + 1:
            return
        try:
            self.mirror.ledger.apply(made.certified)
        except (CorruptionError, codec.DecodeError):
            self.count("execution-refused")
            return
        self.executed[self.mirror.number][made.height] = made.header

    def _vouches(self, tx: DecodedTransaction) -> bool:
        """A master supports an anchor of what it has executed itself, and of nothing else."""
        if tx.kind != "Anchor":
            return True
        anchor = codec.decode(tx.fields_raw, kinds.Anchor)
        return self.executed_here(anchor.header)

    # Households -------------------------------------------------------------------------------------------

    def household(self) -> None:
        """Somebody takes its result, locks, consents or declines; perhaps what is not its own."""
        home = self.chance.choice(self.network.homes)
        draw = self.chance.below(10)
        if draw < 3:
            self.put(home.chain, home.key, "Confirmtransaction", kinds.Confirmtransaction(EVENT, draw > 0))
            return
        mine = self.trades_of(home)
        if draw == 9 or not mine:
            mine = [self.chance.choice(self.network.trades)]
        numbers = mine if self.chance.chance(300_000) else [self.chance.choice(mine)]
        accept = not self.chance.chance(100_000)
        self.put(home.chain, home.key, "CrossOp", cross_kinds.CrossOp(EVENT, numbers, accept))

    def trades_of(self, home: Home) -> list[int]:
        """Numbers of the trades of which a household is a side."""
        found = []
        for number in self.network.trades:
            terms = self.judge.main(number).terms
            if home.id in (terms.buyer, terms.seller):
                found.append(number)
        return found

    def deliver(self, home: Home, upto: int) -> None:
        """A household's checkpoints, as far as its area's clock has come and no further than `upto`."""
        clock_s = self.clocks_s[home.chain]
        while self.delivered[home.number] < upto:
            at = self.delivered[home.number]
            if self.network.spec.boundaries_s()[at] > clock_s:
                return
            self.put(home.chain, home.key, "Checkpoint", kinds.Checkpoint(home.frames[at], -1))
            self.delivered[home.number] += 1

    # What happens -----------------------------------------------------------------------------------------

    def play(self) -> None:
        """The whole run. Raises Violation."""
        if self.chance.chance(850_000):
            self.carriers.carry_everything()
        for home in self.network.homes:
            if self.chance.chance(SHORT_PPM):
                left_u = self.chance.between(0, SHORT_U)
                self.put(home.chain, home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U - left_u))
        for home in self.network.homes:
            if self.chance.chance(850_000):
                self.put(home.chain, home.key, "Confirmtransaction", kinds.Confirmtransaction(EVENT, True))
            mine = self.trades_of(home)
            groups = [mine] if home.side == "buy" and self.config.together else [[number] for number in mine]
            for numbers in groups:
                if self.chance.chance(550_000) and numbers:
                    self.put(home.chain, home.key, "CrossOp", cross_kinds.CrossOp(EVENT, numbers, True))
        for number in self.chains:
            self.block(number)
        for step in range(self.config.steps):
            self._step(step)
        self._rest()

    def _step(self, step: int) -> None:
        chance = self.chance
        draw = chance.below(100)
        number = chance.choice(list(self.chains))
        if draw < 28:
            self.household()
            self.block(self.network.homes[0].chain if chance.chance(500_000) else number)
        elif draw < 62:
            self.carriers.carry()
        elif draw < 70:
            self._clock(number)
            self.block(number)
        elif draw < 78:
            self._deliver_some()
        elif draw < 84:
            self._office(number)
            self.block(number)
        elif draw < 88 and self.config.changes:
            self._change_list(chance.choice(self.network.areas))
        elif draw < 95 and self.recovery.is_due():
            self.recovery.readmit()
        elif draw < 95 and self.recovery.is_over:
            self.recovery.show_old_history()
        elif draw < 95 and self.bad != NOBODY:
            what = chance.below(10)
            if what < 5:
                self._fork()
            elif what < 8:
                self.carriers.lie()
            else:
                self.guards.look()
        if self.config.forgers and chance.chance(250_000):
            self.carriers.forge()
        for area in self.config.halts:
            if area not in self.halted and chance.chance(60_000):
                self.halted.append(area)
                self.count("halted")
                self.note(f"area {area} halts")

    def _clock(self, number: int) -> None:
        """One chain's time goes on, a little or to the next instant that means something."""
        spec, now_s = self.network.spec, self.clocks_s[number]
        instants = (
            spec.confirm_close_s,
            kill_after_s(spec),
            spec.window_start_s,
            *spec.boundaries_s(),
            spec.meter_close_s,
            spec.settle_by_s,
        )
        later = [instant for instant in instants if instant > now_s]
        jump = later[0] if later and self.chance.chance(400_000) else now_s + self.chance.between(1, 120)
        self.clocks_s[number] = jump
        self.put(number, key_of("grid"), "Validators", [b""])  # refused: a block that carries the time

    def _deliver_some(self) -> None:
        home = self.chance.choice(self.network.homes)
        self.deliver(home, self.chance.between(1, len(home.frames)))
        self.block(home.chain)

    def _office(self, number: int) -> None:
        """A call of an office or a master that is due, or is not."""
        if number == 0:
            if self.chance.chance(600_000):
                self.put(0, self.chains[0].keys[1], "CrossEnd", cross_kinds.CrossEnd(EVENT))
            else:
                self.put(0, key_of("grid"), "SettlementAmount", kinds.EventCall(EVENT))
        else:
            kind = self.chance.choice(("SettlementCredit", "SettlementAmount"))
            self.put(number, key_of("aggregator"), kind, kinds.EventCall(EVENT))

    def _change_list(self, area: int) -> None:
        """Some validators of an area get other keys; what becomes of the old ones is the thief's affair."""
        chain = self.chains[area]
        waiting = self.next_keys.get(area)
        if waiting is not None and waiting[0] > chain.ledger.head.height + 1:
            return
        self.sequences[area] += 1
        keys = list(chain.keys)
        for index in range(self.chance.between(1, len(keys))):
            keys[index] = key_of(f"node {area} {index} {self.sequences[area]}")
        height = chain.ledger.head.height + 3
        listed = [Validator(f"node{index}", key.public) for index, key in enumerate(keys)]
        self.next_keys[area] = height, keys
        self.put(area, key_of("regulator"), "Validators", ListChange(self.sequences[area], height, listed))
        self.block(area)

    def _fork(self) -> None:
        """The bad area goes on in its other history: valid as well, and certified by the same keys."""
        bad = self.bad
        if self.twin is None:
            self.twin = self.chains[bad].fork()
            self.count("equivocation")
        chain, self.chains[bad] = self.chains[bad], self.twin
        try:
            self.household()
            queue, self.queues[bad] = self.queues[bad], []
            queue = [tx for tx in queue if tx.nonce == chain.ledger.next_nonce(tx.signer)]
            made = self.twin.make(self.clocks_s[bad], queue)
        finally:
            self.chains[bad] = chain
        if made is not None:
            self.taken(self.twin, made)

    # The end ----------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """Everything is carried, every deadline passes; whoever has halted for ever stays so."""
        spec = self.network.spec
        self.note("everything is carried from here on")
        if self.recovery.is_due() and self.chance.chance(500_000):
            self.recovery.readmit()
        if self.chance.chance(700_000):
            self._pass(0)
        self._pass(spec.confirm_close_s)
        self._pass(kill_after_s(spec))
        for home in self.network.homes:
            if self.chance.chance(800_000) and not self.delivered[home.number]:
                for at, boundary_s in enumerate(spec.boundaries_s()):
                    self.clocks_s[home.chain] = max(self.clocks_s[home.chain], boundary_s)
                    self.deliver(home, at + 1)
                self.block(home.chain)
        self._pass(spec.meter_close_s)
        self._pass(spec.settle_by_s)
        self._pass(spec.settle_by_s)
        self.judge.end()

    def _pass(self, time_s: int) -> None:
        """Every clock reaches an instant; whoever has something due does it, and all that follows is carried."""
        for number in self.chains:
            if time_s > self.clocks_s[number]:
                self.clocks_s[number] = time_s
                self.put(number, key_of("grid"), "Validators", [b""])
            self._drain(number)
            if number:
                self._settle(number, State.DELIVERING, "SettlementCredit")
        for turn in range(REST_ROUNDS):
            before = self.blocks
            self.carriers.carry_everything()
            if turn == 0:
                self._main_office()
            elif self.blocks == before:
                break
        else:
            raise Violation("I13", f"messages go round and round after {REST_ROUNDS} rounds")
        for area in self.network.areas:
            self._settle(area, State.METERED, "SettlementAmount")

    def _settle(self, area: int, state: State, kind: str) -> None:
        if self.judge.event(area).state is state and self.clocks_s[area] >= self.network.spec.meter_close_s:
            self.put(area, key_of("aggregator"), kind, kinds.EventCall(EVENT))
            self._drain(area)

    def _main_office(self) -> None:
        spec, now_s = self.network.spec, self.clocks_s[0]
        states = [Beacon(self.judge.main(number).state) for number in self.network.trades]
        undecided = now_s >= kill_after_s(spec) and any(state in UNDECIDED for state in states)
        if undecided or (now_s >= spec.settle_by_s and Beacon.ACCEPT in states):
            self.put(0, self.chains[0].keys[2], "CrossEnd", cross_kinds.CrossEnd(EVENT))
        if now_s >= spec.meter_close_s and self.judge.main_event().state is State.MATCHED:
            self.put(0, key_of("grid"), "SettlementAmount", kinds.EventCall(EVENT))
        self._drain(0)

    def _drain(self, number: int) -> None:
        while self.queues[number] and self.block(number) is not None:
            pass

    # Notes ------------------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        """Something was reached."""
        self.coverage[what] = self.coverage.get(what, 0) + 1

    def note(self, text: str) -> None:
        """A line of the transcript."""
        if self.lines is not None:
            self.lines.append(text)

    def executed_here(self, header: bytes) -> bool:
        """Whether the honest masters have executed the block of this header with this result."""
        return any(header in known.values() for known in self.executed.values())

    def anchorable(self, area: int) -> list[Made]:
        """Blocks of an area that follow what the main chain has, in order; of the bad one those of either history."""
        known = anchored_height(self.chains[0], area)
        chains = [self.chains[area]]
        if area == self.bad and self.twin is not None:
            chains.append(self.twin)
        return [made for chain in chains for made in chain.made if made.height > known]

    def anchor(self, made: Made) -> None:
        """A master hands in an anchor, once it has executed the block."""
        if made.applied.header.chain == self.bad:
            self.execute(made)
        height = made.height
        if self.executed[made.applied.header.chain].get(height) == made.header:
            self.put(0, self.chance.choice(self.chains[0].keys), "Anchor", anchor_of(made))


def run_areas(seed: int, transcript: bool = False) -> AreasResult:
    """Play a seed; never raises for what the system under test does wrong."""
    config = draw_areas(seed)
    violation = invariant = ""
    with nullcontext() if config.real else cheap_signatures():
        world = Areas(config, [] if transcript else None)
        try:
            world.play()
        except Violation as error:
            violation, invariant = str(error), error.invariant
        except (AssertionError, codec.DecodeError, CorruptionError, LookupError, ValueError, TypeError) as error:
            violation, invariant = f"raised {type(error).__name__}: {error}", "raised"
    tail = tuple(world.lines or ())
    return AreasResult(seed, violation, invariant, world.hash.hexdigest(), world.blocks, world.coverage, tail)


__all__ = ["RULES", "Areas", "AreasConfig", "AreasResult", "draw_areas", "run_areas"]
