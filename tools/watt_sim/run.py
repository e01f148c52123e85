"""One seed: a safety phase with every fault that was drawn, then a liveness phase on a network that works.

In the second phase a quorum of honest validators is there, the bad ones stay bad, the clients ask again for what is
not final: everything must become final in bounded time, also a new transaction (I13). At the end proofs are tried on a
light client (I11), the books are looked at (I6), and the run has a hash (I16).
"""

from dataclasses import dataclass, field

from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.crypto import id8
from watt_chain.ledger import CorruptionError
from watt_chain.pbft.config import Signer
from watt_wire import checkpoint, merkle

from watt_sim import proofs
from watt_sim.config import HOUSEHOLD, Config, Event
from watt_sim.fakes import START_S, make_signer, make_tx
from watt_sim.station import Station
from watt_sim.violation import Violation
from watt_sim.world import World

RECENT_LINES = 200
"""Lines of the transcript that are kept for the report of a violation."""
HEAL_PATIENCES = 6
"""Longest patience times this, plus f: time for everything to become final after the network works again."""
FRESH_PATIENCES = 4
"""Shortest patience times this, times n: time for one more transaction once all is well; any f leaders may be bad."""
REST_MS = 4000
"""Before that phase: what was lost before is sent again within a second, and checked or attested 1.5 s later."""
FOREVER_MS = 1 << 62
POOL_MAX = 20_000
PUMP_MS = 40
"""Between two transactions that keep a long run going, when no block comes."""
TERMS_MS = 120_000
"""Time that such a run has for its heights, besides that of its faults."""
VIEWS_AFTER_HEAL = 3
"""Views a height that began on a healthy network may go through, plus f."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run."""

    seed: int
    n: int
    violation: str = ""
    "Empty, or invariant and text."
    invariant: str = ""
    hash: str = ""
    events: int = 0
    heights: int = 0
    virtual_ms: int = 0
    coverage: dict[str, int] = field(default_factory=dict)
    tail: tuple[str, ...] = ()
    "Last lines of the transcript."


class Runner:
    """Plays a configuration."""

    def __init__(self, config: Config, lines: list[str] | None = None) -> None:
        """`lines`: takes the transcript; None: no transcript, which is faster."""
        self.config = config
        self.lines = lines
        self.world = World(config, None if lines is None else self._line)
        self._submitted: dict[tuple[int, int], bytes] = {}
        "(user, nonce) -> the first transaction with it."
        self._known: tuple[int, dict[int, int]] = (0, {})
        "What `_expected` found, and for how many transactions."
        self._signers: dict[int, Signer] = {}

    def play(self) -> Result:
        """Both phases; never raises for what the system under test does wrong."""
        world = self.world
        violation = invariant = ""
        try:
            self._faults()
            self._heal()
            self._fresh()
            self._close()
        except Violation as error:
            violation, invariant = str(error), error.invariant
        except CorruptionError as error:
            violation, invariant = f"I3: an honest node stops: {error}", "I3"
        except (AssertionError, DecodeError, LookupError, ValueError, TypeError) as error:
            # The core never raises on what a peer sends or a crash leaves: whatever comes out of it is a finding.
            violation, invariant = f"raised {type(error).__name__}: {error}", "raised"
        heights = max(world.watch.chain, default=0)
        tail = tuple(self.lines[-RECENT_LINES:]) if self.lines is not None else ()
        digest = world.hash.hexdigest()
        ends = (digest, world.events, heights, world.now_ms, world.watch.coverage, tail)
        return Result(self.config.seed, self.config.n, violation, invariant, *ends)

    def _line(self, at_ms: int, text: str) -> None:
        assert self.lines is not None
        self.lines.append(f"{at_ms / 1000:9.3f}  {text}")

    # Safety phase -----------------------------------------------------------------------------------------

    def _faults(self) -> None:
        end_ms = self.world.now_ms
        for event in self.config.schedule:
            end_ms = max(end_ms, event.at_ms)
            self.world.at(event.at_ms, lambda event=event: self._happen(event))  # type: ignore[misc]
        if self.config.terms:
            self._live_through_terms(end_ms)
        self.world.run(end_ms + self.config.settings["timeout_ms"])

    def _live_through_terms(self, end_ms: int) -> None:
        """Keep the chain busy until it has the height that is wanted, or has had enough time for it."""
        world, turn = self.world, 0
        world.at(end_ms, world.mend)
        while max(world.watch.chain, default=0) < self.config.terms and world.now_ms < end_ms + TERMS_MS:
            height = max(world.watch.chain, default=0)
            ledgers = [station.ledger for station in self.core() if station.ledger is not None]
            nonce = max((ledger.next_nonce(world.terms_key.public) for ledger in ledgers), default=1)
            tx, turn = make_tx(world.terms_key, world.id, "Deposit", nonce, [bytes(8), 1]), turn + 1
            for station in world.stations if turn % 8 == 0 else [world.chance.choice(world.stations)]:
                world.submit(station, tx)
            world.run(world.now_ms + PUMP_MS, lambda height=height: max(world.watch.chain, default=0) > height)  # type: ignore[misc]

    def _happen(self, event: Event) -> None:
        world = self.world
        if event.kind not in ("submit", "list", "household"):
            world.strike(event)
            return
        nonce, kind, *rest = event.detail
        user, number = event.node % len(world.users), int(nonce)
        if event.kind == "list":
            what = world.members.propose(str(kind), int(rest[0]), int(rest[1]), number)
            tx, targets = what or self.transaction(user, number, "Add"), [home.node for home in world.homes]
        elif event.kind == "household":
            user, targets = HOUSEHOLD + event.node, [int(target) for target in rest[1:]]
            tx = self._of_household(event.node, number, str(kind), int(rest[0]))
        else:
            tx, targets = self.transaction(user, number, str(kind)), [int(target) for target in rest]
        self._submitted.setdefault((user, number), tx)
        for target in targets:
            world.submit(world.homes[target], tx)

    def _of_household(self, number: int, nonce: int, kind: str, amount_u: int) -> bytes:
        """A withdrawal of more or less than there is, or a checkpoint of its plug; the same ones come again."""
        world = self.world
        if kind == "Withdraw":
            return make_tx(self._signer(HOUSEHOLD + number), world.id, kind, nonce, [amount_u])
        plug = make_signer(f"plug{number}", True)
        counter, time_s, energy_mwh = 1 + nonce // 3, START_S + nonce, 1000 * nonce
        begin = checkpoint.Checkpoint(
            1, id8(plug.public), 1, counter, checkpoint.NO_PREVIOUS, merkle.root([]), 1, 0, time_s, ord("S"),
            energy_mwh, 0, bytes(32), bytes(32), checkpoint.PERIODIC,
        )  # fmt: skip
        body = checkpoint.encode(begin)
        frame = checkpoint.seal(body, plug.sign(checkpoint.signing_message(body)))
        return make_tx(self._signer(HOUSEHOLD + number), world.id, kind, nonce, [frame, -1])

    def _signer(self, user: int) -> Signer:
        """Whoever a number in `_submitted` stands for."""
        if user < HOUSEHOLD:
            return self.world.users[user]
        if user not in self._signers:
            self._signers[user] = make_signer(f"household{user - HOUSEHOLD}", self.config.real, True)
        return self._signers[user]

    def transaction(self, user: int, nonce: int, kind: str) -> bytes:
        """What a user asks for."""
        world = self.world
        if world.config.contract != "area":
            return make_tx(world.users[user], world.id, kind, nonce, [nonce])
        household = self._signer(HOUSEHOLD + nonce).public
        plug = make_signer(f"plug{nonce}", False, True).public
        enrol = [household, nonce % world.config.n, [[plug, "secure", 3000]], False, 2000 + nonce, "h25", False]
        deposit = [id8(household), 1000 + nonce]
        kinds: tuple[tuple[str, object], ...] = (("Enrol", enrol), ("Deposit", deposit), ("Punish", [nonce]))
        return make_tx(world.users[user], world.id, kinds[user][0], nonce, kinds[user][1])

    # Liveness phase ---------------------------------------------------------------------------------------

    def _heal(self) -> None:
        world = self.world
        world.note("the network works again")
        world.network.heal()
        if not world.can_spare():
            world.dead = ()
        for station in world.stations:
            station.trap = None
            if station.node in world.dead and station.honest:
                world.crash(station, "stays-dead")
            else:
                world.restart(station)
        self._settle_within(self._patience_ms())

    def _patience_ms(self) -> int:
        """Everybody may have to sit out the longest patience once, then f bad leaders."""
        return (HEAL_PATIENCES + self.config.f) * self.config.settings["timeout_max_ms"]

    def _settle_within(self, limit_ms: int) -> None:
        """Ask again and again for what is not final, as clients do, until it is final at every honest validator."""
        world = self.world
        end_ms = world.now_ms + limit_ms
        while True:
            self._ask_again()
            step_ms = min(end_ms, world.now_ms + self.config.settings["timeout_max_ms"])
            if world.run(step_ms, self._settled):
                return
            if world.now_ms >= end_ms and not world.can_spare() and world.accept_disks():
                end_ms = world.now_ms + limit_ms
            if world.now_ms >= end_ms:
                status = [station.replica.status() for station in self.core() if station.replica is not None]
                raise Violation("I13", f"not final {limit_ms} ms after the network works: {status}")

    def core(self) -> list[Station]:
        """The honest nodes that are up in the liveness phase."""
        return [s for s in self.world.stations if s.honest and s.node not in self.world.dead and not s.lost]

    def _validators(self) -> list[Station]:
        """Those of them that are on the list of the next height."""
        height = self.world.watch.reference.height + 1
        return [station for station in self.core() if self.world.watch.index(station.node, height) >= 0]

    def _expected(self) -> dict[int, int]:
        """Last nonce of each user without a gap before it."""
        if len(self._submitted) != self._known[0]:
            last: dict[int, int] = {}
            for user, nonce in sorted(self._submitted):
                if nonce == last.get(user, 0) + 1:
                    last[user] = nonce
            self._known = len(self._submitted), last
        return self._known[1]

    def _settled(self) -> bool:
        world = self.world
        for station in self.core():
            if station.ledger is None:
                return False
            for user, nonce in self._expected().items():
                if 0 <= station.ledger.next_nonce(self._signer(user).public) <= nonce:
                    return False
            if station.disk.doubts and world.watch.index(station.node, world.watch.reference.height + 1) >= 0:
                return False
        return len({station.ledger.head.height for station in self.core() if station.ledger is not None}) == 1

    def _ask_again(self) -> None:
        world = self.world
        for station in self.core():
            world.rejoin(station)
        for (user, nonce), tx in sorted(self._submitted.items()):
            for station in self.core():
                if station.ledger is not None and 0 <= station.ledger.next_nonce(self._signer(user).public) <= nonce:
                    world.submit(station, tx)

    def _fresh(self) -> None:
        """Some more transactions, each within the time that bad leaders can cost a healthy area."""
        world, config = self.world, self.config
        n = len(world.watch.reference.publics(world.watch.reference.height + 1))
        f = (n - 1) // 3
        limit_ms = FRESH_PATIENCES * n * config.settings["timeout_ms"]
        if len(self._validators()) < len(self.core()):  # 8.4: who only follows asks one after the other, dead ones too
            limit_ms += world.nodes * config.settings["status_ms"]
        world.run(world.now_ms + REST_MS)
        world.calm = True
        for turn in range(n + 1):
            user = turn % len(world.users)
            for _ in range(turn % 3 + 1):  # also several of one user at once, which are to run in their order
                nonce = self._expected().get(user, 0) + 1
                tx = self._submitted.setdefault((user, nonce), self.transaction(user, nonce, "Add"))
                for station in self._validators()[: f + 1]:
                    world.submit(station, tx)
            if not world.run(world.now_ms + limit_ms, self._settled):
                status = [station.replica.status() for station in self.core() if station.replica is not None]
                raise Violation("I13", f"a new transaction is not final after {limit_ms} ms: {status}")
            self._check_views()

    def _check_views(self) -> None:
        """The height just made began on a healthy network."""
        height = max(self.world.watch.certified)
        certificate = decode_certified(self.world.watch.certified[height])[3]
        f = (len(self.world.watch.reference.publics(height)) - 1) // 3
        if certificate.view > f + VIEWS_AFTER_HEAL:
            raise Violation("I13", f"height {height} went through {certificate.view} views on a healthy network")

    # The end ----------------------------------------------------------------------------------------------

    def _close(self) -> None:
        world = self.world
        world.check_bounds()
        roots = {station.ledger.state.root() for station in self.core() if station.ledger is not None}
        if len(roots) != 1:
            raise Violation("I3", "honest validators at one height have different states")
        for station in self.core():
            self._forgets(station)
        height = max(world.watch.chain, default=0)
        ledgers = [station.ledger for station in self.core() if station.ledger is not None]
        # Who took the state of the last height instead of its block cannot prove what is in the block.
        ledger = next((ledger for ledger in ledgers if ledger.certified(height) is not None), None)
        if world.books is not None and world.books.spent_twice:
            world.watch.count("spent-twice")
        if ledger is None:
            world.watch.count("nobody-has-the-last-block")
        else:
            proofs.check(world, ledger)
        kind = "real" if world.config.real else "fake"
        for name in (world.config.contract, kind, *(["terms"] if world.config.terms else [])):
            world.watch.count(f"run-{name}")

    def _forgets(self, station: Station) -> None:
        """No pool keeps what is final; what still waits (a bad node's call, say) may."""
        if station.replica is None or station.ledger is None:
            return
        for tx in station.replica.pool.waiting(FOREVER_MS, POOL_MAX):
            if tx.nonce < station.ledger.next_nonce(tx.signer):
                raise Violation("I14", f"node{station.node} keeps {tx.kind} {tx.nonce}, which is final")


def run_config(config: Config, transcript: bool = False) -> Result:
    """Play a configuration; with a transcript if one is wanted."""
    return Runner(config, [] if transcript else None).play()


def run_seed(seed: int, n: int, transcript: bool = False) -> Result:
    """Play a seed."""
    from watt_sim.config import draw

    return run_config(draw(seed, n), transcript)
