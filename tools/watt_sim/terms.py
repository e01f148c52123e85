"""What nodes of a simulated area do for its elections, and what keeps the chain busy for whole terms (CONSENSUS.md 6).

Honest nodes take tickets and show the shares they committed to, as the daemons do. Bad ones may keep a share back,
show another one, take tickets with wrong nonces or for wrong terms.
"""

from hashlib import sha256
from typing import TYPE_CHECKING

from watt_chain import codec, election
from watt_chain.contract import evidence, tickets

from watt_sim.fakes import CHAIN, make_tx
from watt_sim.plain import signing

if TYPE_CHECKING:
    from watt_chain.pbft.config import Signer

    from watt_sim.station import Station
    from watt_sim.world import World

AGAIN_MS = 1500
"""A call that is not final after this long is handed in again."""
NONCES_MAX = 1 << 22
CHEAT_PPM = 300_000


class Terms:
    """The duties of all nodes."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._handed: dict[tuple[int, str, int], tuple[int, int, bytes]] = {}
        "(place of the station, kind, term or height) -> (nonce, when, call)."
        self._puzzles: dict[tuple[bytes, int], int] = {}
        world.hooks.append(self._block)

    def _block(self, station: "Station", height: int) -> None:
        ledger = station.ledger
        if ledger is None or ledger.head.height != height:
            return
        key = next((key for key in station.keys if key.public in ledger.publics), None)
        if key is None:
            return
        due = tickets.duties(ledger.state, ledger.next_context(), key.public)
        if due.commit is not None:
            share = self._share(key, due.commit)
            account = tickets.account_of(ledger.state, key.public)
            made = election.commitment_of(self._world.id, CHAIN, due.commit, account, share)
            self._hand_in(station, key, "SeedCommit", due.commit, [due.commit, made])
        if due.reveal is not None and not self._cheats(station, "share-kept-back"):
            term = due.reveal[0]
            share = bytes(32) if self._cheats(station, "another-share") else self._share(key, term)
            self._hand_in(station, key, "SeedReveal", term, [term, share])
        if due.ticket is not None:
            term, puzzle, bits = due.ticket
            nonce = self._solve(puzzle, bits)
            if self._cheats(station, "bad-ticket"):
                term, nonce = term + height % 2, nonce ^ 1
            self._hand_in(station, key, "Ticket", term, [term, nonce])
        self._accuse(station, key)

    def _accuse(self, station: "Station", key: "Signer") -> None:
        """Evidence goes on chain where signatures are real: a contract believes no others."""
        world, ledger = self._world, station.ledger
        if not world.config.real or station.replica is None or ledger is None:
            return
        for found in station.replica.evidence:
            if found.kind == "attest" or not station.honest:
                continue
            if not evidence.is_known(ledger.state, found.public, found.height, found.view, found.kind):
                place = found.height << 32 | found.view << 8 | found.sender
                self._hand_in(station, key, "Evidence", place, [found.public, found.first, found.second])

    def _cheats(self, station: "Station", how: str) -> bool:
        if station.honest or not self._world.chance.chance(CHEAT_PPM):
            return False
        self._world.watch.count(how)
        return True

    def _share(self, key: "Signer", term: int) -> bytes:
        """CONSENSUS.md 6.4.5."""
        body = codec.encode([CHAIN, term])
        return sha256(key.sign(signing(b"share", self._world.id, body))).digest()

    def _solve(self, puzzle: bytes, bits: int) -> int:
        """A puzzle is solved once, however many copies of a node ask for it."""
        if (puzzle, bits) not in self._puzzles:
            found = election.search(puzzle, bits, 0, NONCES_MAX)
            self._puzzles[(puzzle, bits)] = 0 if found is None else found
        return self._puzzles[(puzzle, bits)]

    def _hand_in(self, station: "Station", key: "Signer", kind: str, number: int, fields: list[object]) -> None:
        """Submit a call once, and again while it is still due and not final."""
        world, ledger = self._world, station.ledger
        assert ledger is not None
        known = self._handed.get((station.place, kind, number))
        following = ledger.next_nonce(key.public)
        if known is not None and known[0] >= following and world.now_ms - known[1] < AGAIN_MS:
            return
        nonces = [nonce for (place, _, _), (nonce, _, _) in self._handed.items() if place == station.place]
        nonce = known[0] if known is not None and known[0] >= following else max(following, *nonces, 0)
        if nonce in nonces and (known is None or known[0] != nonce):
            nonce += 1
        tx = make_tx(key, world.id, kind, nonce, fields)
        self._handed[(station.place, kind, number)] = (nonce, world.now_ms, tx)
        if kind == "Evidence":
            world.watch.count("evidence-on-chain")
        world.at(world.now_ms + 1, lambda: self._submit(station, tx))

    def _submit(self, station: "Station", tx: bytes) -> None:
        self._world.submit(station, tx)
