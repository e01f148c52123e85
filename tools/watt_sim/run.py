"""One seed: a safety phase with every fault that was drawn, then a liveness phase on a network that works.

In the second phase a quorum of honest validators is there, the bad ones stay bad, the clients ask again for what is
not final: everything must become final in bounded time, also a new transaction (I13). At the end proofs are tried on a
light client (I11), the books are looked at (I6), and the run has a hash (I16).
"""

from dataclasses import dataclass, field

from watt_chain import codec
from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.contract.objects import SUPPLY_KEY, Account, Supply
from watt_chain.ledger import CorruptionError

from watt_sim import proofs
from watt_sim.config import Config, Event
from watt_sim.fakes import FakeSigner, make_signer, make_tx
from watt_sim.watch import Violation
from watt_sim.world import Station, World

RECENT_LINES = 200
"""Lines of the transcript that are kept for the report of a violation."""
HEAL_PATIENCES = 6
"""Longest patience times this, plus f: time for everything to become final after the network works again."""
FRESH_PATIENCES = 4
"""Shortest patience times this, times n: time for one more transaction once all is well; any f leaders may be bad."""
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
        self._lost: tuple[str, ...] = ()

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
        self.world.run(end_ms + self.config.settings["timeout_ms"])

    def _happen(self, event: Event) -> None:
        if event.kind != "submit":
            self.world.strike(event)
            return
        nonce, kind, *targets = event.detail
        user, number = event.node % len(self.world.users), int(nonce)
        tx = self.transaction(user, number, str(kind))
        self._submitted.setdefault((user, number), tx)
        for target in targets:
            self.world.submit(self.world.stations[int(target)], tx)

    def transaction(self, user: int, nonce: int, kind: str) -> bytes:
        """What a user asks for."""
        world = self.world
        if world.config.contract != "area":
            return make_tx(world.users[user], world.id, kind, nonce, [nonce])
        household = make_signer(f"household{nonce}", False, True).public
        plug = make_signer(f"plug{nonce}", False, True).public
        enrol = [household, nonce % world.config.n, [[plug, "secure", 3000]], False, 2000 + nonce, "h25", False]
        deposit = [make_household(nonce), 1000 + nonce]
        kinds: tuple[tuple[str, object], ...] = (("Enrol", enrol), ("Deposit", deposit), ("Punish", [nonce]))
        return make_tx(world.users[user], world.id, kinds[user][0], nonce, kinds[user][1])

    # Liveness phase ---------------------------------------------------------------------------------------

    def _heal(self) -> None:
        world, config = self.world, self.config
        world.note("the network works again")
        world.network.heal()
        for station in world.stations:
            station.trap = None
            if station.index in config.dead and station.honest:
                world.crash(station, "stays-dead")
            elif station.replica is None:
                world.start(station)
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
            if world.now_ms >= end_ms:
                status = [station.replica.status() for station in self.core() if station.replica is not None]
                raise Violation("I13", f"not final {limit_ms} ms after the network works: {status}")

    def core(self) -> list[Station]:
        """The honest validators that are up in the liveness phase."""
        return [s for s in self.world.stations if s.honest and s.index not in self.config.dead]

    def _expected(self) -> dict[int, int]:
        """Last nonce of each user without a gap before it."""
        last: dict[int, int] = {}
        for user, nonce in sorted(self._submitted):
            if nonce == last.get(user, 0) + 1:
                last[user] = nonce
        return last

    def _settled(self) -> bool:
        world = self.world
        for station in self.core():
            if station.ledger is None:
                return False
            for user, nonce in self._expected().items():
                if station.ledger.next_nonce(world.users[user].public) <= nonce:
                    return False
        return len({station.ledger.head.height for station in self.core() if station.ledger is not None}) == 1

    def _ask_again(self) -> None:
        world = self.world
        for (user, nonce), tx in sorted(self._submitted.items()):
            for station in self.core():
                if station.ledger is not None and station.ledger.next_nonce(world.users[user].public) <= nonce:
                    world.submit(station, tx)

    def _fresh(self) -> None:
        """Some more transactions, each within the time that bad leaders can cost a healthy area."""
        world, config = self.world, self.config
        limit_ms = FRESH_PATIENCES * config.n * config.settings["timeout_ms"]
        for turn in range(config.n + 1):
            user = turn % len(world.users)
            for _ in range(turn % 3 + 1):  # also several of one user at once, which are to run in their order
                nonce = self._expected().get(user, 0) + 1
                tx = self._submitted.setdefault((user, nonce), self.transaction(user, nonce, "Add"))
                for station in self.core()[: config.f + 1]:
                    world.submit(station, tx)
            if not world.run(world.now_ms + limit_ms, self._settled):
                status = [station.replica.status() for station in self.core() if station.replica is not None]
                raise Violation("I13", f"a new transaction is not final after {limit_ms} ms: {status}")
            self._check_views()

    def _check_views(self) -> None:
        """The height just made began on a healthy network."""
        height = max(self.world.watch.chain)
        certificate = decode_certified(self.world.watch.certified[height])[3]
        if certificate.view > self.config.f + VIEWS_AFTER_HEAL:
            raise Violation("I13", f"height {height} went through {certificate.view} views on a healthy network")

    # The end ----------------------------------------------------------------------------------------------

    def _close(self) -> None:
        world = self.world
        world.check_bounds()
        roots = {station.ledger.state.root() for station in self.core() if station.ledger is not None}
        if len(roots) != 1:
            raise Violation("I3", "honest validators at one height have different states")
        for station in self.core():
            if station.replica is not None and len(station.replica.pool):
                raise Violation("I14", f"node{station.index} keeps {len(station.replica.pool)} final transactions")
        ledger = self.core()[0].ledger
        assert ledger is not None
        if world.config.contract == "area":
            accounts = [codec.decode(ledger.state.get(key) or b"", Account) for key in ledger.state.keys(b"account/")]
            total = sum(account.free_u + account.escrow_u + account.bond_u for account in accounts)
            supply = codec.decode(ledger.state.get(SUPPLY_KEY) or b"", Supply)
            if total != supply.deposited_u - supply.withdrawn_u:
                raise Violation("I6", f"accounts hold {total}, {supply} came in and went out")
        proofs.check(world, ledger)
        for name in (world.config.contract, "real" if world.config.real else "fake"):
            world.watch.count(f"run-{name}")


def make_household(number: int) -> bytes:
    """Account of the household that the regulator's transaction `number` enrols."""
    from watt_chain.crypto import id8

    key = make_signer(f"household{number}", False, True)
    assert isinstance(key, FakeSigner)
    return id8(key.public)


def run_config(config: Config, transcript: bool = False) -> Result:
    """Play a configuration; with a transcript if one is wanted."""
    return Runner(config, [] if transcript else None).play()


def run_seed(seed: int, n: int, transcript: bool = False) -> Result:
    """Play a seed."""
    from watt_sim.config import draw

    return run_config(draw(seed, n), transcript)
