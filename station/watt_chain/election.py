"""Who leads: seed, tickets and the weighted draw that orders the validators of a height (CONSENSUS.md 6).

Strategy. A term is 64 heights. What a term's order follows from is fixed before anybody can know the order: response
strength comes from settled events of an earlier epoch, tickets close before the first share of the seed is shown, and
the shares were committed to a term before that. Every height then draws its own order from the term's seed, so one
dead or censoring leader costs its own heights and not a term. A validator that failed is moved behind the others and
never taken out of the draw: a fault reshuffles nobody else, so no fault is worth committing for the sake of the order.

Everything here is a pure function of what the replicated state holds; `contract/tickets.py` reads and writes it.
Source: paper section 3.3 (response strength + PoW + PBFT), model.md U1 to U4.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from watt_chain import codec, crypto
from watt_chain.codec import U32, U63, Hash32, Id8, Structure

TERM_BLOCKS = 64
"""Blocks of one term: short enough that a bad leader order passes soon, long enough to draw the next one."""
ENTRY_BLOCKS = 32
"""Heights of a term in which tickets and commitments are taken; in the rest the shares are shown. Whoever decides about
a ticket must not know a share yet, and whoever commits must not know the seed before."""
FIRST_DRAWN_TERM = 2
"""The seed of an earlier term could have no committed share in it: until then validators lead in rotation."""
PPM = 1_000_000
BITS_MIN = 8
"""Puzzle of a validator with full strength: 256 hashes on average."""
BITS_MAX = 16
"""Puzzle of a validator without strength: 65,536 hashes, a tenth of a second. It brakes spam and shows a sign of life;
what keeps invented validators out is membership (model.md U2)."""
FAULT_BITS = 4
"""Added per detected fault that is not forgotten yet."""
BITS_LIMIT = 24
"""No puzzle is harder, 16.8 million hashes: a minute on a small board, so that a ticket stays in reach of everybody."""
FAULTS_MAX = 4
"""Faults remembered; every turn forgets one, after it has set the puzzles."""
MISSED_TERMS = 2
"""Terms that a validator stands at the end which committed to a share and did not show it: the term whose seed it left
alone, and one more."""
CONVICTED_TERMS = 16
"""Terms that a validator stands at the end after proven equivocation: a thousand blocks."""


class Entrant(Structure, frozen=True):
    """A validator that may take a ticket for the next term."""

    validator: Id8
    strength_ppm: U32
    bits: U32


class Eligible(Structure, frozen=True):
    """A validator with a ticket for the running term, and its weight in the draw."""

    validator: Id8
    weight: U63


class Demotion(Structure, frozen=True):
    """A validator that stands at the end of every order up to the end of a term."""

    validator: Id8
    to_term: U63


class Election(Structure, frozen=True):
    """What the order of every height of a term follows from."""

    term: U63
    seed: Hash32
    eligible: list[Eligible]
    "In the order of their indexes when the term began."
    entrants: list[Entrant]
    struck: list[Id8]
    "Skipped as leaders in this term."
    demoted: list[Demotion]


class Pledge(Structure, frozen=True):
    """A validator's part in the seed of a term: the commitment, and once shown the share (empty before)."""

    term: U63
    commitment: Hash32
    share: Annotated[bytes, Meta(max_length=32)]


class Candidate(Structure, frozen=True):
    """What a validator has done towards coming terms."""

    ticket: U63
    "The last term it has a ticket for; 0 = none."
    faults: U32
    pledges: list[Pledge]
    "For the next term and the one after it, ascending."


NEW_CANDIDATE = Candidate(0, 0, [])


def term_of(height: int) -> int:
    """The term a block belongs to; heights 1 ... 64 are term 0."""
    return (height - 1) // TERM_BLOCKS if height > 0 else 0


def place_of(height: int) -> int:
    """Position of a height in its term, from 0."""
    return (height - 1) % TERM_BLOCKS


# Seed --------------------------------------------------------------------------------------------------------


def first_seed(network: bytes, chain: int) -> bytes:
    """Seed of term 0."""
    return crypto.sha256(codec.signing_bytes(b"seed", network, codec.encode([chain, 0])))


def commitment_of(network: bytes, chain: int, term: int, validator: bytes, share: bytes) -> bytes:
    """What a validator puts on chain before it shows its share (32 bytes); nobody else can show the same one."""
    return crypto.sha256(codec.signing_bytes(b"share", network, codec.encode([chain, term, validator, share])))


def next_seed(network: bytes, chain: int, term: int, before: bytes, shares: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Seed of `term` from the seed before and (validator, share) of those that showed one, in order of index.

    With no share at all it is a hash chain: foreseeable, and still not of anybody's choosing.
    """
    body = codec.encode([chain, term, before, [list(share) for share in shares]])
    return crypto.sha256(codec.signing_bytes(b"seed", network, body))


# Tickets -----------------------------------------------------------------------------------------------------


def bits_for(strength_ppm: int, faults: int) -> int:
    """Difficulty of a ticket: b_max - floor((b_max - b_min) * S), 4 more per fault (model.md U2)."""
    eased = (BITS_MAX - BITS_MIN) * min(strength_ppm, PPM) // PPM
    return min(BITS_MAX - eased + FAULT_BITS * faults, BITS_LIMIT)


def puzzle(network: bytes, chain: int, term: int, seed: bytes, validator: bytes) -> bytes:
    """The bytes that a ticket's nonce (8 bytes, big-endian) is hashed behind. `seed` is that of the term before."""
    return codec.signing_bytes(b"ticket", network, codec.encode([chain, term, seed, validator]))


def is_solved(puzzle_bytes: bytes, nonce: int, bits: int) -> bool:
    """Whether SHA-256(puzzle || nonce) begins with `bits` zero bits."""
    hash_ = crypto.sha256(puzzle_bytes + nonce.to_bytes(8, "big"))
    return int.from_bytes(hash_, "big") >> (256 - bits) == 0


def search(puzzle_bytes: bytes, bits: int, start: int, count: int) -> int | None:
    """The first nonce in start ... start + count - 1 that solves the puzzle; None when none does."""
    for nonce in range(start, start + count):
        if is_solved(puzzle_bytes, nonce, bits):
            return nonce
    return None


# The turn of a term --------------------------------------------------------------------------------------------


def turn(
    network: bytes, chain: int, before: Election, candidates: Sequence[tuple[bytes, Candidate, int]]
) -> tuple[Election, list[Candidate]]:
    """The election of the next term, and the candidates as they are from then on.

    candidates   (validator, its record, its strength in ppm of the epoch before the last settled one), by index
    """
    term = before.term + 1
    shares: list[tuple[bytes, bytes]] = []
    demoted = [one for one in before.demoted if one.to_term >= term]
    after: list[Candidate] = []
    entrants: list[Entrant] = []
    for validator, candidate, strength in candidates:
        faults = candidate.faults
        for pledge in candidate.pledges:
            if pledge.term == term and pledge.share:
                shares.append((validator, pledge.share))
            elif pledge.term == term:  # CONSENSUS.md 6.4.4: a share kept back costs rank
                demoted = demote(demoted, validator, term + MISSED_TERMS - 1)
                faults += 1
        entrants.append(Entrant(validator, strength, bits_for(strength, faults)))
        later = [pledge for pledge in candidate.pledges if pledge.term > term]
        after.append(Candidate(candidate.ticket, max(0, min(faults, FAULTS_MAX) - 1), later))
    strengths = {entrant.validator: entrant.strength_ppm for entrant in before.entrants}
    holders = [validator for validator, candidate, _ in candidates if candidate.ticket == term]
    weights = capped([strengths.get(validator, 0) + 1 for validator in holders])
    seed = next_seed(network, chain, term, before.seed, shares)
    eligible = [Eligible(validator, weight) for validator, weight in zip(holders, weights, strict=True)]
    return Election(term, seed, eligible, entrants, [], demoted), after


def capped(weights: Sequence[int]) -> list[int]:
    """No weight above twice the median (of an even number: the sum of the middle two)."""
    if not weights:
        return []
    ordered = sorted(weights)
    cap = ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]
    return [min(weight, cap) for weight in weights]


def demote(demoted: Sequence[Demotion], validator: bytes, to_term: int) -> list[Demotion]:
    """The list with `validator` at the end of every order up to the end of `to_term`, or longer if it was."""
    longest = max([to_term, *(one.to_term for one in demoted if one.validator == validator)])
    return [*(one for one in demoted if one.validator != validator), Demotion(validator, longest)]


def strike(election: Election, order: Sequence[bytes], view: int) -> Election:
    """The election after a final block of `view`: those that led the views below it were skipped (6.5.3).

    order   validators in the order of that height. The block's own proposer is never struck.
    """
    proposer = order[view % len(order)]
    skipped = [one for one in order[:view] if one != proposer and one not in election.struck]
    return replace(election, struck=[*election.struck, *skipped]) if skipped else election


# The order of a height ------------------------------------------------------------------------------------------


def draw(seed: bytes, height: int, weights: Sequence[int]) -> list[int]:
    """Positions of `weights` in the order drawn without replacement, each in proportion to its weight.

    Step i takes the position into whose share SHA-256(signing("draw", ...)) mod the remaining weight falls.
    """
    left = list(range(len(weights)))
    total = sum(weights)
    prefix = b"wattpact/1/draw\x00" + seed + height.to_bytes(8, "big")
    found: list[int] = []
    while left:
        mark = int.from_bytes(crypto.sha256(prefix + len(found).to_bytes(2, "big")), "big") % total
        at = 0
        while mark >= weights[left[at]]:
            mark -= weights[left[at]]
            at += 1
        total -= weights[left[at]]
        found.append(left.pop(at))
    return found


def order(election: Election, height: int, validators: Sequence[bytes]) -> tuple[int, ...]:
    """Indexes of `validators` in the order in which they lead the views of `height`: first view 0.

    Holders of a ticket as drawn, the others in rotation by height; then, in the same order, who was skipped in this
    term; then who stands at the end for a fault. The draw is over all holders whoever has failed or left since.
    """
    place = {validator: index for index, validator in enumerate(validators)}
    drawn = draw(election.seed, height, [one.weight for one in election.eligible])
    ahead = [place[one] for one in (election.eligible[at].validator for at in drawn) if one in place]
    n = len(validators)
    ranked = [*ahead, *(index for index in ((height + step) % n for step in range(n)) if index not in ahead)]
    demoted = [one.validator for one in election.demoted]
    groups: tuple[list[int], list[int], list[int]] = ([], [], [])
    for index in ranked:
        validator = validators[index]
        groups[2 if validator in demoted else 1 if validator in election.struck else 0].append(index)
    return (*groups[0], *groups[1], *groups[2])


class Schedule:
    """The leaders of one height, as the final state before it orders them."""

    __slots__ = ("_order", "height")

    def __init__(self, height: int, order: tuple[int, ...]) -> None:
        self.height = height
        self._order = order

    def leader(self, height: int, view: int) -> int:
        """Index of the validator that leads `view` of `height`. Only the height after the head has an order yet."""
        assert height == self.height, "the order of another height is not known here"
        return self._order[view % len(self._order)]


def rotation(height: int, n: int) -> tuple[int, ...]:
    """The order of a height before anything was drawn: index height mod n first, then the next one, and so on."""
    return tuple((height + step) % n for step in range(n))
