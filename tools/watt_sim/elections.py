"""How often attackers lead: elections by the real arithmetic, term after term, with somebody who tries to gain.

An election is the draw of one height's first leader; 64 of them make a term. A player's ratio is its number of wins
over its fair share, the sum of weight / all weights over the elections; 1.00 means the attempt was worth nothing.
Chi-squared compares all validators' wins with their fair shares. Rows called `control` run a rule that the chain does
not have, and must show an advantage: they prove that the measure would.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations

from msgspec.structs import replace
from watt_chain import codec, crypto, election
from watt_chain.contract import AreaContract, kinds, tickets
from watt_chain.contract.access import Session, read
from watt_chain.contract.objects import ELECTION_KEY, Account, account_key
from watt_chain.contract.rules import RULES_1
from watt_chain.election import TERM_BLOCKS, Candidate, Election, Entrant, Pledge
from watt_chain.ledger import BlockContext
from watt_chain.state import State
from watt_chain.tree import StateTree
from watt_market.engine import Market

from watt_sim.drbg import Drbg
from watt_sim.fakes import START_S, found_network, make_signer

CHAIN = 1
NETWORK = bytes(32)
EPOCH_TERMS = 4
"""Terms between two settled events: an area that settles one event a day makes some hundred blocks in between."""
FULL = election.PPM
NONCES = 16
"""Solutions that a nonce grinder compares."""
CONTROL_SHARE = 4
"""Controls play so many times fewer elections: their advantage is large, and choosing among outcomes is slow."""
P_MIN = 0.001
"""Below this, the wins of honest play are not those of fair elections."""
AIM = 1.05
"""Largest ratio that is taken for no advantage."""
EXEMPT = ("chosen-height",)
"""Stated, not bounded: what commit and reveal cannot prevent (CONSENSUS.md 6.6)."""
STRENGTHS = (950_000, 900_000, 850_000, 800_000, 920_000, 870_000, 780_000, 830_000, 910_000, 860_000)
"""Response strengths of validators that do their work, ppm; from the eleventh on they repeat."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one kind of play comes to."""

    name: str
    players: int
    elections: int
    wins: int
    fair: float
    ratio: float
    error: float
    "Standard error of the ratio."
    chi_squared: float
    freedom: int
    p: float
    note: str


class Term:
    """The validators' records between two terms, and what everybody will do."""

    def __init__(self, name: str, n: int) -> None:
        self.n = n
        self.chance = Drbg("elections", name, n)
        self.ids = [crypto.sha256(b"validator %d" % at)[:8] for at in range(n)]
        self.strengths = [STRENGTHS[at % len(STRENGTHS)] for at in range(n)]
        entrants = [Entrant(one, strength, 8) for one, strength in zip(self.ids, self.strengths, strict=True)]
        self.now = Election(1, bytes(32), [], entrants, [], [])
        self.shares: list[bytes] = []
        self.deal()

    def deal(self) -> None:
        """The shares that everybody has committed to for the next term."""
        words = [b"".join(self.chance.word().to_bytes(4, "big") for _ in range(8)) for _ in self.ids]
        self.shares = words

    def turned(self, kept_back: Sequence[int] = ()) -> Election:
        """The next term, if these validators keep their shares back."""
        rows = [
            (one, _record(self.now.term + 1, b"" if at in kept_back else self.shares[at]), self.strengths[at])
            for at, one in enumerate(self.ids)
        ]
        return election.turn(NETWORK, CHAIN, self.now, rows)[0]

    def go(self, chosen: Election) -> None:
        """This is the next term."""
        self.now = chosen
        self.deal()

    def heights(self) -> range:
        """Of the term."""
        first = self.now.term * TERM_BLOCKS + 1
        return range(first, first + TERM_BLOCKS)


def _record(term: int, share: bytes) -> Candidate:
    """A validator that holds a ticket for `term` and has committed to a share of its seed."""
    return Candidate(term, 0, [Pledge(term, bytes(32), share)])


def firsts(now: Election, term: Term, heights: Sequence[int] | None = None) -> list[int]:
    """The first leader of every height of a term."""
    first = now.term * TERM_BLOCKS + 1
    asked = range(first, first + TERM_BLOCKS) if heights is None else heights
    return [election.order(now, height, term.ids)[0] for height in asked]


def fair_shares(now: Election, n: int) -> list[float]:
    """Weight over all weights, by index: everybody holds a ticket."""
    total = sum(one.weight for one in now.eligible)
    assert len(now.eligible) == n
    return [one.weight / total for one in now.eligible]


Choice = Callable[[Term], Election]


def play(name: str, n: int, count: int, players: Sequence[int], choose: Choice, note: str = "") -> Row:
    """`count` elections, in which `choose` decides what becomes of each next term."""
    term = Term(name, n)
    wins, fair = [0] * n, [0.0] * n
    for _ in range(-(-count // TERM_BLOCKS)):
        term.go(choose(term))
        for winner in firsts(term.now, term):
            wins[winner] += 1
        for at, share in enumerate(fair_shares(term.now, n)):
            fair[at] += share * TERM_BLOCKS
    return _row(name, players, wins, fair, note)


def _row(name: str, players: Sequence[int], wins: Sequence[int], fair: Sequence[float], note: str) -> Row:
    total = sum(wins)
    expected = sum(fair[at] for at in players)
    won = sum(wins[at] for at in players)
    chi_squared = sum((won_ - fair_) ** 2 / fair_ for won_, fair_ in zip(wins, fair, strict=True))
    freedom = len(wins) - 1
    error = math.sqrt(max(0.0, expected * (1 - expected / total))) / expected
    figures = (won / expected, error, chi_squared, freedom, upper_tail(freedom, chi_squared))
    return Row(name, len(players), total, won, expected, *figures, note)


def upper_tail(freedom: int, chi_squared: float) -> float:
    """Probability that fair elections give a chi-squared at least this large: Q(freedom / 2, chi_squared / 2)."""
    x = chi_squared / 2
    a, tail = (1.0, math.exp(-x)) if freedom % 2 == 0 else (0.5, math.erfc(math.sqrt(x)))
    while a < freedom / 2:
        tail += math.exp(a * math.log(x) - x - math.lgamma(a + 1)) if x > 0 else 0.0
        a += 1
    return min(1.0, tail)


# Plays ---------------------------------------------------------------------------------------------------------------


def honest(n: int, count: int) -> Row:
    """Everybody does what it should."""
    return play("honest", n, count, range(n), Term.turned)


def whale(n: int, count: int) -> Row:
    """One validator with all the strength there is, and the others with almost none."""
    top = 0.0

    def choose(term: Term) -> Election:
        nonlocal top
        term.strengths = [1_000_000, *[10_000] * (term.n - 1)]
        made = term.turned()
        top = made.eligible[0].weight / made.eligible[1].weight
        return made

    row = play("whale", n, count, [0], choose)
    return Row(**{**asdict(row), "note": f"100 times the strength of the others weighs {top:.2f} times as much"})


def nonce_grinder(n: int, count: int) -> Row:
    """Solves its puzzle again and again and takes the solution it likes best: the real contract makes one of all."""
    outcomes = len({*nonce_outcomes(NONCES)})
    row = play("nonce-grinder", n, count, _players(n), Term.turned)
    return Row(**{**asdict(row), "note": f"{NONCES} solutions lead to {outcomes} different states of the election"})


def nonce_outcomes(count: int) -> Iterator[bytes]:
    """What `count` different good tickets of one validator make of the state, through the contract."""
    offices = [make_signer(name, False, True) for name in ("regulator", "grid", "aggregator")]
    signers = [make_signer(f"node{at}", False, True) for at in range(4)]
    genesis = found_network(signers, offices, [codec.encode(RULES_1)])
    network = crypto.sha256(b"elections")
    contract = AreaContract(Market())
    height = 5 * TERM_BLOCKS + 2
    context = BlockContext(network, CHAIN, height, START_S, 0, genesis.validators(CHAIN))
    base = State(StateTree(), CHAIN)
    contract.genesis(base, genesis, CHAIN)
    before = read(base, ELECTION_KEY, Election)
    assert before is not None
    base.put(ELECTION_KEY, codec.encode(replace(before, term=5)))
    me = crypto.id8(signers[0].public)
    bits = next(one.bits for one in before.entrants if one.validator == me)
    puzzle = election.puzzle(network, CHAIN, 6, before.seed, me)
    nonce = -1
    for _ in range(count):
        found = election.search(puzzle, bits, nonce + 1, 1 << 24)
        assert found is not None
        nonce = found
        mark = base.savepoint()
        signer = read(base, account_key(me), Account)
        assert signer is not None
        tickets.take_ticket(Session(base, context, Market()), signer, kinds.Ticket(6, nonce))
        yield base.root()
        base.rollback(mark)


def last_revealer(n: int, count: int, patient: bool) -> Row:
    """f players see all other shares and show what is best for them, at the price of the demotion.

    patient   they weigh the demotion in the term after the next as well; else they look one term ahead
    """
    players = _players(n)
    kept = 0

    def choose(term: Term) -> Election:
        nonlocal kept
        best, made = -1.0, term.now
        cost = TERM_BLOCKS / term.n if patient else 0.0
        for subset in _subsets(players):
            option = term.turned(subset)
            worth = sum(winner in players for winner in firsts(option, term)) - cost * len(subset)
            if worth > best:
                best, made, chosen = worth, option, len(subset)
        kept += chosen > 0
        return made

    row = play("last-revealer-patient" if patient else "last-revealer", n, count, players, choose)
    return Row(**{**asdict(row), "note": f"kept a share back in {kept} of {-(-count // TERM_BLOCKS)} terms"})


def chosen_height(n: int, count: int) -> Row:
    """As last revealer, f players want one height of each term, whatever it costs them in the others."""
    players = _players(n)
    term = Term("chosen-height", n)
    wins = [0] * n
    fair = [0.0] * n
    everywhere, terms = 0, -(-count // TERM_BLOCKS)
    for _ in range(terms):
        height = (term.now.term + 1) * TERM_BLOCKS + 1 + term.chance.below(TERM_BLOCKS)
        options = [term.turned(subset) for subset in _subsets(players)]
        won = [option for option in options if firsts(option, term, [height])[0] in players]
        term.go((won or options)[0])
        wins[firsts(term.now, term, [height])[0]] += 1
        everywhere += sum(winner in players for winner in firsts(term.now, term))
        for at, share in enumerate(fair_shares(term.now, n)):
            fair[at] += share
    overall = everywhere / (sum(fair[at] for at in players) * TERM_BLOCKS)
    return _row("chosen-height", players, wins, fair, f"one height of a term; {overall:.2f} of the fair share of all")


def late_farmer(n: int, count: int, control: bool = False) -> Row:
    """One player serves its users in every second pair of epochs only, and wants to lead in the one it serves in last.

    Its fair share is that of a validator that does as much work evenly. `control`: elections go by the running epoch.
    """
    term = Term("late-farmer", n)
    even = Term("late-farmer-even", n)
    even.strengths[0] = FULL // 2
    even.go(even.turned())
    even.go(even.turned())
    share = fair_shares(even.now, n)
    settled = [FULL // 2, FULL // 2]
    wins, fair = [0] * n, [0.0] * n
    everywhere = 0
    terms = max(-(-count // TERM_BLOCKS), 4 * EPOCH_TERMS)  # one whole round of its plan at least
    for _ in range(terms):
        epoch, first = divmod(term.now.term, EPOCH_TERMS)
        served = FULL if epoch % 4 >= 2 else 0
        if not first:
            settled.append((3 * settled[-1] + (FULL if (epoch - 1) % 4 >= 2 else 0)) // 4)
        term.strengths[0] = (3 * settled[-1] + served) // 4 if control else settled[-2]
        term.go(term.turned())
        found = firsts(term.now, term)
        everywhere += found.count(0)
        if term.now.term // EPOCH_TERMS % 4 != 3:
            continue
        for winner in found:
            wins[winner] += 1
        for at in range(n):
            fair[at] += share[at] * TERM_BLOCKS
    note = f"in the epochs it wants; {everywhere / (share[0] * terms * TERM_BLOCKS):.2f} over all terms"
    return _row("control-running-epoch" if control else "late-farmer", [0], wins, fair, note)


def two_seats(n: int, count: int) -> Row:
    """One operator spreads its users over f seats: strength is a rate, so each weighs as one with all of them would."""
    return play("several-seats", n, count, _players(n), Term.turned, "fair share per seat; who gets seats is not voted")


def control_nonce(n: int, count: int) -> Row:
    """What grinding would bring if the solution were part of the seed."""
    player = n - 1

    def choose(term: Term) -> Election:
        made = term.turned()
        seeds = [crypto.sha256(made.seed + bytes([nonce])) for nonce in range(NONCES)]
        options = [replace(made, seed=seed) for seed in seeds]
        return max(options, key=lambda option: firsts(option, term).count(player))

    return play("control-nonce-in-seed", n, count, [player], choose, f"best of {NONCES} solutions")


def control_no_demotion(n: int, count: int) -> Row:
    """What keeping shares back would bring if it cost nothing."""
    players = _players(n)

    def choose(term: Term) -> Election:
        options = [replace(term.turned(subset), demoted=[]) for subset in _subsets(players)]
        return max(options, key=lambda option: sum(winner in players for winner in firsts(option, term)))

    return play("control-no-demotion", n, count, players, choose, "shares kept back at no price")


def _players(n: int) -> range:
    """The last f validators, at least one."""
    return range(n - max(1, (n - 1) // 3), n)


def _subsets(players: Sequence[int]) -> list[tuple[int, ...]]:
    return [subset for size in range(len(players) + 1) for subset in combinations(players, size)]


PLAYS: dict[str, Callable[[int, int], Row]] = {
    "honest": honest,
    "whale": whale,
    "several-seats": two_seats,
    "nonce-grinder": nonce_grinder,
    "last-revealer": lambda n, count: last_revealer(n, count, patient=False),
    "last-revealer-patient": lambda n, count: last_revealer(n, count, patient=True),
    "chosen-height": chosen_height,
    "late-farmer": late_farmer,
    "control-nonce-in-seed": control_nonce,
    "control-no-demotion": control_no_demotion,
    "control-running-epoch": lambda n, count: late_farmer(n, count, control=True),
}


def play_one(task: tuple[str, int, int]) -> Row:
    """(name, validators, elections) -> its row; a worker's task."""
    name, n, count = task
    share = CONTROL_SHARE if name.startswith("control-") else 1
    return PLAYS[name](n, max(1, count // share))


def play_all(n: int, count: int, jobs: int) -> Iterator[Row]:
    """Every play in the order of PLAYS, as each is done."""
    work = [(name, n, count) for name in PLAYS]
    if jobs == 1:
        yield from map(play_one, work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(play_one, work)


def failures(rows: Sequence[Row]) -> list[str]:
    """What the rows show that they must not: an attack that pays, or a control that does not."""
    found = []
    for row in rows:
        control = row.name.startswith("control-")
        if control and row.ratio <= AIM:
            found.append(f"{row.name}: the control shows no advantage, so the measure proves nothing")
        elif not control and row.name not in EXEMPT and row.ratio - 3 * row.error > AIM:
            found.append(f"{row.name}: {row.ratio:.3f} of the fair share, more than {AIM}")
        if row.name == "honest" and row.p < P_MIN:
            found.append(f"honest: chi-squared {row.chi_squared:.1f} is not that of fair elections (p = {row.p:.2g})")
    return found
