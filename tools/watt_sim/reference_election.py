"""A second implementation of who leads an area (CONSENSUS.md 6), from nothing but its final transactions.

As `reference`: no code shared with watt_chain. The strengths of the nodes are given and do not change; everything else
follows from the tickets, commitments, shares and proofs that the blocks hold, each judged here once more.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from msgspec import msgpack

from watt_sim.plain import draw, signing, vote_of

CHAIN = 1
TERM = 64
HALF = 32
FIRST_DRAWN = 2
VALIDATOR_KINDS = ("Ticket", "SeedCommit", "SeedReveal")
Listed = list[tuple[int, str, bytes]]
VerifyCall = Callable[[bytes, bytes, bytes], bool]


def id8(public: bytes) -> bytes:
    """Id of the account that a key opened."""
    return sha256(public).digest()[:8]


@dataclass
class _Candidate:
    """What a validator has done towards coming terms."""

    ticket: int = 0
    faults: int = 0
    pledges: dict[int, list[bytes]] = field(default_factory=dict)
    "Term -> [commitment, share or empty]."


@dataclass
class _Term:
    """What the orders of a term follow from."""

    number: int
    seed: bytes
    holders: list[tuple[bytes, int]] = field(default_factory=list)
    "(account, weight) of the ticket holders, by index."
    entrants: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    "Account -> (strength, bits) for tickets of the next term."
    struck: list[bytes] = field(default_factory=list)
    demoted: dict[bytes, int] = field(default_factory=dict)
    "Account -> last term at the end of every order."


class Elections:
    """The election of one area, block by block."""

    def __init__(self, network: bytes, listed: Listed, strengths_ppm: Sequence[int], verify: VerifyCall | None) -> None:
        """`strengths_ppm` by number of the node; `verify`: how a contract checks proofs, None: it refuses them all."""
        self._network = network
        self._verify = verify
        self._strengths_ppm = strengths_ppm
        self._accounts: dict[str, tuple[int, bytes]] = {}
        "Name -> (number, account)."
        self._keys: dict[bytes, tuple[bytes, int, int]] = {}
        "Key -> (account, first height, height from which it is dead; 0: alive)."
        self._candidates: dict[bytes, _Candidate] = {}
        self._convicted: dict[tuple[bytes, int, int, str], int] = {}
        self.seat(listed, 0)
        self._now = _Term(0, self._hash(b"seed", [CHAIN, 0]))
        self._now.entrants = dict.fromkeys(self._seated(listed), (0, 16))

    def _hash(self, domain: bytes, body: list[object]) -> bytes:
        return sha256(signing(domain, self._network, msgpack.encode(body))).digest()

    def _seated(self, listed: Listed) -> list[bytes]:
        return [self._accounts[name][1] for _, name, _ in listed]

    def account(self, signer: bytes) -> bytes:
        """The account that a validator's key signs for; any other key stands for itself."""
        known = self._keys.get(signer)
        return signer if known is None else known[0]

    def seat(self, listed: Listed, acting: int) -> None:
        """A new list acts from a height on: keys that are not on it any more are dead, new ones sign."""
        present = [public for _, _, public in listed]
        for key, (account, first, last) in self._keys.items():
            if not last and key not in present:
                self._keys[key] = (account, first, acting)
        for number, name, public in listed:
            account = self._accounts.setdefault(name, (number, id8(public)))[1]
            self._keys.setdefault(public, (account, acting, 0))

    def is_dead(self, signer: bytes) -> bool:
        """Whether a key was a validator's and signs nothing any more."""
        return signer in self._keys and self._keys[signer][2] > 0

    # Blocks -------------------------------------------------------------------------------------------------

    def order(self, height: int, listed: Listed) -> list[int]:
        """Indexes in the order in which they lead the views of the height after the last block."""
        return self._ranked(self._turned(height, listed)[0], height, listed)

    def begin(self, height: int, view: int, listed: Listed, leaders: Sequence[int]) -> None:
        """A block of `view` is executed: the term may turn; who led the views below was skipped."""
        self._now, self._candidates = self._turned(height, listed)
        seated = self._seated(listed)
        proposer = leaders[view % len(leaders)]
        for index in leaders[:view]:
            if index != proposer and seated[index] not in self._now.struck:
                self._now.struck.append(seated[index])

    def _turned(self, height: int, listed: Listed) -> tuple[_Term, dict[bytes, _Candidate]]:
        now, candidates = self._now, self._candidates
        term = (height - 1) // TERM
        if term == now.number:
            return now, candidates
        candidates = deepcopy(candidates)
        demoted = {account: last for account, last in now.demoted.items() if last >= term}
        shares: list[list[bytes]] = []
        following = _Term(term, b"", demoted=demoted)
        seated = self._seated(listed)
        for account in seated:
            mine = candidates.setdefault(account, _Candidate())
            pledge = mine.pledges.pop(term, None)
            if pledge is not None and pledge[1]:
                shares.append([account, pledge[1]])
            elif pledge is not None:
                _put_last(demoted, account, term + 1)
                mine.faults += 1
            mine.pledges = {other: made for other, made in mine.pledges.items() if other > term}
            strength = self._strength(account)
            bits = min(24, 16 - 8 * strength // 1_000_000 + 4 * mine.faults)
            following.entrants[account] = (strength, bits)
            mine.faults = max(0, min(mine.faults, 4) - 1)
        following.seed = self._hash(b"seed", [CHAIN, term, now.seed, shares])
        holders = [account for account in seated if candidates[account].ticket == term]
        weights = [now.entrants.get(account, (0, 0))[0] + 1 for account in holders]
        if weights:
            middle = sorted(weights)
            most = middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]
            following.holders = [(a, min(w, most)) for a, w in zip(holders, weights, strict=True)]
        return following, candidates

    def _strength(self, account: bytes) -> int:
        number = next(number for number, known in self._accounts.values() if known == account)
        return self._strengths_ppm[number] if number < len(self._strengths_ppm) else 0

    def _ranked(self, now: _Term, height: int, listed: Listed) -> list[int]:
        seated = self._seated(listed)
        drawn = [now.holders[at][0] for at in draw(now.seed, height, [weight for _, weight in now.holders])]
        turn = [seated[(height + step) % len(seated)] for step in range(len(seated))]
        ranked = [account for account in drawn if account in seated]
        ranked += [account for account in turn if account not in ranked]
        ranked.sort(key=lambda account: 2 if account in now.demoted else account in now.struck)
        return [seated.index(account) for account in ranked]

    def reached(self) -> list[str]:
        """What is rare about the present term."""
        found = {
            "term-turned": self._now.number > 0,
            "order-drawn": bool(self._now.holders),
            "struck": bool(self._now.struck),
            "demoted": bool(self._now.demoted),
        }
        return [what for what, is_so in found.items() if is_so]

    # Calls --------------------------------------------------------------------------------------------------

    def call(self, height: int, kind: str, signer: bytes, fields: Any, listed: Listed) -> None:
        """A final call in a block of the list; what the contract refuses changes nothing here either."""
        if kind == "Evidence":
            self._convict(height, *fields)
        known = self._keys.get(signer)
        if kind not in VALIDATOR_KINDS or known is None or known[0] not in self._seated(listed):
            return
        account, place = known[0], (height - 1) % TERM
        mine = self._candidates.setdefault(account, _Candidate())
        if kind == "Ticket":
            self._ticket(account, mine, place, *fields)
        elif kind == "SeedCommit":
            term, commitment = fields
            if term == self._now.number + 2 and place < HALF and term not in mine.pledges:
                mine.pledges[term] = [commitment, b""]
        else:
            term, share = fields
            pledge = mine.pledges.get(term)
            made = self._hash(b"share", [CHAIN, term, account, share])
            fits = pledge is not None and not pledge[1] and pledge[0] == made
            if term == self._now.number + 1 and place >= HALF and fits:
                mine.pledges[term][1] = share

    def _ticket(self, account: bytes, mine: _Candidate, place: int, term: int, nonce: int) -> None:
        if term != self._now.number + 1 or term < FIRST_DRAWN or place >= HALF or mine.ticket == term:
            return
        if account not in self._now.entrants:
            return
        puzzle = signing(b"ticket", self._network, msgpack.encode([CHAIN, term, self._now.seed, account]))
        bits = bin(int(sha256(puzzle + nonce.to_bytes(8, "big")).hexdigest(), 16))[2:].zfill(256)
        if bits.startswith("0" * self._now.entrants[account][1]):
            mine.ticket = term

    def _convict(self, height: int, public: bytes, first: bytes, second: bytes) -> None:
        """Two frames of one validator that support different blocks in one height, view and phase."""
        bodies = [msgpack.decode(msgpack.decode(frame)[0]) for frame in (first, second)]
        (name, chain, sender, at, view, what), other = bodies[0][:6], bodies[1]
        known = self._keys.get(public)
        if [name, chain, sender, at, view] != other[:5] or what == other[5] or chain != CHAIN or known is None:
            return
        if name not in ("pre-prepare", "prepare", "commit") or not known[1] <= at < (known[2] or at + 1):
            return
        account, term = known[0], (height - 1) // TERM
        place = (account, at, view, name)
        if place in self._convicted or sum(t == term for p, t in self._convicted.items() if p[0] == account) >= 8:
            return
        if not (self._proves(first, public) and self._proves(second, public)):
            return
        self._convicted[place] = term
        _put_last(self._now.demoted, account, self._now.number + 16)
        mine = self._candidates.setdefault(account, _Candidate())
        mine.faults = min(4, mine.faults + 1)

    def _proves(self, frame: bytes, public: bytes) -> bool:
        """Whether a frame that supports a block is signed by this key."""
        body, signature = msgpack.decode(frame)
        name, chain, _, height, view, what = msgpack.decode(body)[:6]
        message = signing(b"frame", self._network, body)
        if name != "pre-prepare":
            message = vote_of(self._network, name, chain, height, view, what)
        return self._verify is not None and self._verify(public, message, signature)


def _put_last(demoted: dict[bytes, int], account: bytes, term: int) -> None:
    demoted[account] = max(term, demoted.pop(account, 0))
