"""What a seed means: first which faults exist at all, then the schedule of everything that will happen (swarm testing).

A seed without any fault is as possible as one with all of them: bugs hide behind each other. The schedule is a plain
list of events, so that `shrink` can leave some out.
"""

from dataclasses import dataclass, field, replace

from watt_sim.drbg import Drbg
from watt_sim.fakes import KINDS

STRATEGIES = (
    "split",
    "echo",
    "forgetful",
    "forge",
    "badblock",
    "usurper",
    "impersonate",
    "mutate",
    "withhold",
    "mute",
    "rotten",
    "twin",
    "rollback",
)
"""What a bad validator does; `liars` has all but the last two, which are copies and old disks of honest code."""
OPERATIONS = ("join", "join", "leave", "rotate", "lose", "shuffle", "replace")
"""Changes of the list of validators (`members`)."""
RECORD_KINDS = ("proposal", "prepare", "commit", "view-change", "new-view")
CRASH_POINTS = ("before-sync", "after-sync", "mid-send", "before-store", "after-store")
CUTS = ("split", "isolate", "one-way", "kind", "heal")
REAL_PPM = 10_000
"""One seed in a hundred has P-256 signatures: the fake ones must not hide a fault of the real path."""
AREA_PPM = 100_000
"""One in ten runs the real contract of an area."""
ASSIGNED_PPM = 300_000
"""Three in ten let f + 1 assigned validators check each signature."""
CENSOR_PPM = 250_000
"""A quarter of the bad validators keep somebody's transactions out, besides what else they do."""
MEMBERS_PPM = 300_000
"""Three in ten change their list of validators now and then."""
FOUNDING_PPM = 500_000
"""Half begin on disks on which nothing was ever written, as networks do; the others with a memory that is trusted."""
TERMS_PPM = 15_000
"""Three in two hundred live through whole terms, with tickets, shares and a draw."""
TERM_REAL_PPM = 350_000
"""A third of these with P-256 signatures, so that evidence can go on chain."""
EQUIVOCATORS = (("split",), ("echo",), ("split", "mutate"), ("twin",))
TERM_HEIGHTS = 200
"""Heights of such a run: the first draw is that of height 129, the next turn that of 193."""
FREEZE = (0, 0, 4, 8)
"""Heights between two states; 0: none are made."""
USERS = 5
HOUSEHOLD = 100
"""Number of the user that household 0 is."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at `at_ms`, whatever the validators do."""

    at_ms: int
    kind: str
    "submit, list, household, crash, start, trap, cut, outage, jump, lose-disk, snapshot or rollback."
    node: int = 0
    "A node; for `submit` the user."
    detail: tuple[int | str, ...] = ()

    def text(self) -> str:
        """One line."""
        return f"{self.kind} {self.node} {' '.join(map(str, self.detail))}".strip()


@dataclass(frozen=True, slots=True)
class Config:
    """One run."""

    seed: int
    n: int
    contract: str = "tally"
    real: bool = False
    loss_ppm: int = 0
    double_ppm: int = 0
    corrupt_ppm: int = 0
    delay_ms: tuple[int, int] = (1, 20)
    jitter_ppm: int = 0
    "Chance that a frame takes ten times as long."
    settings: dict[str, int] = field(default_factory=dict)
    "Timing of the replicas, by the names of ReplicaConfig."
    bad: tuple[tuple[int, tuple[str, ...]], ...] = ()
    "(validator, strategies)."
    dead: tuple[int, ...] = ()
    "Honest validators that stay down after the network heals: only a quorum has to come back."
    skew_ms: tuple[int, ...] = ()
    "Clock error of each validator at the start."
    drift_ppm: tuple[int, ...] = ()
    trim: bool = False
    assigned: bool = False
    "Whether f + 1 assigned validators check a signature for all (CONSENSUS.md 4.9)."
    spare: int = 0
    "Further nodes that follow and may join."
    founding: bool = False
    "Whether nobody's disk has ever been written on."
    freeze: int = 0
    "Heights between two states that are kept; 0: none are."
    prunes: tuple[int, ...] = ()
    "Nodes that drop the blocks for which a state stands."
    terms: int = 0
    "Heights to reach under the elections' own duties; 0: nobody stands for anything."
    strengths_ppm: tuple[int, ...] = ()
    "Response strength by number of the node."
    schedule: tuple[Event, ...] = ()

    @property
    def f(self) -> int:
        """Bad validators the protocol promises to bear."""
        return (self.n - 1) // 3

    @property
    def quorum(self) -> int:
        """Votes that decide."""
        return -(-(self.n + self.f + 1) // 2)

    def strategies(self, index: int) -> tuple[str, ...]:
        """What the validator does wrong."""
        return next((names for number, names in self.bad if number == index), ())


def draw(seed: int, n: int) -> Config:
    """The run of a seed."""
    chance = Drbg("config", seed, n)
    f = (n - 1) // 3
    quorum = -(-(n + f + 1) // 2)
    quiet = chance.chance(50_000)
    real = chance.chance(REAL_PPM)
    contract = "area" if chance.chance(AREA_PPM) else "tally"
    bad_count = 0 if quiet or real else chance.choice((0, f, f))
    bad = []
    for index in chance.some(range(n), bad_count):
        names = tuple(chance.some(STRATEGIES[:-2], chance.between(1, 3)))
        if chance.chance(250_000):
            names = (chance.choice(STRATEGIES[-2:]),)
        bad.append((index, names))
    # Drawn apart, so that the rest of a seed is what it was before this existed.
    assigned = Drbg("assigned", seed, n)
    with_assigned = assigned.chance(ASSIGNED_PPM)
    if with_assigned:
        bad = [(index, (*names, "vouch") if assigned.chance(500_000) else names) for index, names in bad]
    censors = Drbg("censor", seed, n)
    bad = [(index, (*names, "censor") if censors.chance(CENSOR_PPM) else names) for index, names in bad]
    more = Drbg("more", seed, n)
    terms = more.chance(TERMS_PPM)
    if terms:
        contract, real, with_assigned = "area", more.chance(TERM_REAL_PPM), False
        if real and bad:  # where evidence goes on chain there should be some
            bad = [(index, more.choice(EQUIVOCATORS)) for index, _ in bad]
    spare = more.between(1, 2) if more.chance(MEMBERS_PPM) and n > 1 else 0
    freeze = more.choice(FREEZE)
    if freeze and not real:
        bad = [(index, (*names, "rotten") if more.chance(400_000) else names) for index, names in bad]
    bad_set = [index for index, _ in bad]
    honest = [index for index in range(n) if index not in bad_set]
    dead = chance.some(honest, chance.below(len(honest) - quorum + 1)) if len(honest) > quorum else []
    timeout_ms = chance.choice((300, 600))
    settings = {
        "timeout_ms": timeout_ms,
        "timeout_max_ms": timeout_ms * 8,
        "resend_ms": chance.choice((80, 200)),
        "status_ms": chance.choice((400, 1000)),
        "batch_ms": chance.choice((0, 20, 50)),
        "transactions_max": chance.choice((2, 8, 100)),
    }
    config = Config(
        seed=seed,
        n=n,
        contract=contract,
        real=real,
        loss_ppm=0 if quiet else chance.choice((0, 20_000, 100_000, 300_000)),
        double_ppm=0 if quiet else chance.choice((0, 0, 200_000)),
        corrupt_ppm=0 if quiet else chance.choice((0, 0, 0, 10_000)),
        delay_ms=(1, chance.choice((5, 20, 100))),
        jitter_ppm=0 if quiet else chance.choice((0, 50_000)),
        settings=settings,
        bad=tuple(bad),
        dead=tuple(dead),
        skew_ms=tuple(chance.between(0, 2000) for _ in range(n)),
        drift_ppm=tuple(chance.between(-500, 500) for _ in range(n)),
        trim=chance.chance(500_000),
        assigned=with_assigned,
        spare=spare,
        founding=more.chance(FOUNDING_PPM),
        freeze=freeze,
        prunes=tuple(node for node in range(n + spare) if more.chance(700_000)),
        terms=TERM_HEIGHTS if terms else 0,
        strengths_ppm=tuple(more.choice((0, 600_000, 900_000, 1_000_000)) for _ in range(n)),
    )
    return _with_schedule(_calmed(config) if terms else config, chance, more, quiet)


def _calmed(config: Config) -> Config:
    """For a run of many heights: a network that loses little, and impatient replicas."""
    settings = {**config.settings, "timeout_ms": 300, "timeout_max_ms": 1200, "batch_ms": 0, "transactions_max": 100}
    calm = {"loss_ppm": min(config.loss_ppm, 20_000), "double_ppm": 0, "corrupt_ppm": 0, "jitter_ppm": 0}
    return replace(config, **calm, delay_ms=(1, 5), settings=settings)  # type: ignore[arg-type]  # names of Config


def _with_schedule(config: Config, chance: Drbg, more: Drbg, quiet: bool) -> Config:
    """Choose which kinds of faults the run has, then when they happen."""
    n, timeout_ms = config.n, config.settings["timeout_ms"]
    steps = chance.choice((8, 16, 24))
    losing = not quiet and more.chance(300_000)
    faults = (
        [] if quiet else [kind for kind in ("crash", "trap", "trap", "cut", "cut", "jump") if chance.chance(500_000)]
    )
    if not quiet and chance.chance(100_000):
        faults.append("outage")
    nonces = [0] * USERS
    events: list[Event] = []
    at_ms = 1000
    for _ in range(steps):
        at_ms += chance.choice((1, 30, timeout_ms // 2, 2 * timeout_ms))
        for _ in range(chance.choice((1, 1, 3))):
            events.append(_submission(chance, at_ms, nonces, n))
        if faults and chance.chance(600_000):
            events += _fault(chance, chance.choice(faults), at_ms + chance.below(timeout_ms), config)
        if config.spare and more.chance(250_000):
            nonces[0] += 1
            what = (nonces[0], more.choice(OPERATIONS), more.below(n), more.between(2, 6))
            events.append(Event(at_ms + more.below(timeout_ms), "list", 0, what))
        if losing and more.chance(150_000):
            lost = more.choice(("votes", "disk", "blocks"))
            events.append(Event(at_ms + more.below(timeout_ms), "lose-disk", more.below(n), (lost,)))
    for index, names in config.bad:
        if "rollback" in names:
            for _ in range(3):
                taken_ms = chance.between(1000, at_ms)
                events.append(Event(taken_ms, "snapshot", index))
                events.append(Event(taken_ms + chance.between(50, 3 * timeout_ms), "rollback", index))
    if config.contract == "area":
        events += _households(more, nonces[0], at_ms, n)
    return replace(config, schedule=tuple(sorted(events, key=lambda event: event.at_ms)))


def _households(more: Drbg, count: int, end_ms: int, n: int) -> list[Event]:
    """What households do with their money and their plugs' checkpoints: also what they may not."""
    events = []
    for number in range(1, min(count, 4) + 1):
        for nonce in range(1, more.between(1, 4) + 1):
            what = more.choice(("Withdraw", "Withdraw", "Checkpoint"))
            targets = more.some(range(n), more.between(1, n))
            detail: tuple[int | str, ...] = (nonce, what, more.choice((600, 1200)), *targets)
            events.append(Event(more.between(1000, end_ms), "household", number, detail))
    return events


def _submission(chance: Drbg, at_ms: int, nonces: list[int], n: int) -> Event:
    """A user asks one or several validators; now and then two things under one number."""
    user = chance.below(USERS)
    if not nonces[user] or not chance.chance(60_000):
        nonces[user] += 1
    targets = chance.some(range(n), chance.choice((1, 1, 2, n)))
    return Event(at_ms, "submit", user, (nonces[user], chance.choice(KINDS), *targets))


def _fault(chance: Drbg, kind: str, at_ms: int, config: Config) -> list[Event]:
    """One fault and, mostly, its end."""
    n, timeout_ms = config.n, config.settings["timeout_ms"]
    node = chance.below(n)
    back = Event(at_ms + chance.choice((1, 50, timeout_ms, 4 * timeout_ms)), "start", node)
    match kind:
        case "crash":
            return [Event(at_ms, "crash", node), back]
        case "trap":  # dies while it carries out an output that writes such a record; comes back at once or later
            point = chance.choice(CRASH_POINTS)
            record = chance.choice(RECORD_KINDS)
            return [Event(at_ms, "trap", node, (record, point, chance.choice((1, 40, 2 * timeout_ms))))]
        case "cut":
            mode = chance.choice(CUTS)
            stations = n + len(config.bad) + config.spare
            sides = tuple(chance.below(2 if config.n < 7 else 3) for _ in range(stations))
            which = chance.choice(("pre-prepare", "prepare", "commit", "view-change", "new-view", "bodies", "gossip"))
            return [Event(at_ms, "cut", node, (mode, which, *sides))]
        case "jump":
            return [Event(at_ms, "jump", node, (chance.between(1, 300),))]
    return [Event(at_ms, "outage", 0, (chance.choice((1, 200, timeout_ms)),))]
