"""Assigned verification: f + 1 validators check a transaction's signature and say so, the others believe f + 1 of them.

Whether a signature holds is a fact, so one honest check is enough, and among f + 1 validators one is honest
(CONSENSUS.md 4.9). Nothing here lowers that: a transaction counts as signed when this validator checked it, or when
*every* one of the f + 1 that are assigned to it said in a signed frame that it did. What is not attested in time is
checked here, so a silent or lying validator costs work and never safety; who attests what does not hold has signed its
own conviction. Quorums of prepares prove no signatures: they may hold the liars among the assigned only.
"""

from collections.abc import Iterable

from watt_chain.pbft.desk import Desk
from watt_chain.pbft.messages import ATTEST, ATTEST_DIGESTS_MAX, Attest
from watt_chain.transaction import DecodedTransaction

ATTEST_DELAY_MS = 60
"""Attestations within this time share a frame, which costs each of its receivers one verification."""
ATTEST_WAIT_MS = 1500
"""How long a transaction waits for its attestations before it is checked here. An attester under full load has a second
of work before it; one that is dead is waited for by the first transactions only (MISSES_MAX)."""
ROOM_MAX = 4096
"""Transactions that wait for attestations; when so many do, the next is checked at once."""
ROOM_BYTES_MAX = 4 * 1024 * 1024
SAID_MAX = 8192
"""Attested digests kept of one validator, oldest out first: said of transactions that are still on their way."""
MISSES_MAX = 16
"""After so many waits in vain for a validator its share is checked here at once, until it is heard of again."""
OVERDUE_PER_STEP = 64
"""Transactions checked in one step because their wait is over: some 7 ms of work."""


def assigned_to(digest: bytes, n: int, f: int) -> tuple[int, ...]:
    """The f + 1 validators that check the transaction with this digest (4.9.1): consecutive from a place it names.

    The digest covers the signature, so whoever makes a transaction can choose them: that moves load, not safety.
    """
    return _group(int.from_bytes(digest[:8], "big") % n, n, f)


def _group(first: int, n: int, f: int) -> tuple[int, ...]:
    return tuple((first + step) % n for step in range(f + 1))


class Attestations:
    """Who said what, what waits for it, and what we have to say."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._room: dict[bytes, tuple[DecodedTransaction, int]] = {}
        "Digest -> what waits for attestations, and since when; in order of arrival."
        self._room_bytes = 0
        self._convicted: dict[int, None] = {}
        "Numbers of validators that attested what does not hold: they are not believed any more until we restart."
        self.sit_down()

    def sit_down(self) -> None:
        """Another list of validators: indexes mean others now, so nothing that was said counts any more (8.1)."""
        desk = self._desk
        self._said: dict[int, dict[bytes, bytes]] = {peer: {} for peer in desk.peers}
        "Validator -> digest -> the frame that attests it."
        self._mine: list[bytes] = []
        self._due_ms: int | None = None
        self._misses: dict[int, int] = dict.fromkeys(desk.peers, 0)
        self._groups = tuple(_group(first, desk.n, desk.f) for first in range(desk.n))
        "`assigned_to` by its remainder: asked several times a transaction."

    # Questions --------------------------------------------------------------------------------------------

    def must_check(self, digest: bytes) -> bool:
        """Whether we check this signature ourselves, now (4.9.1, 4.9.3)."""
        desk = self._desk
        if not desk.config.assigned or not desk.votes:
            return True
        assigned = self._assigned(digest)
        return desk.index in assigned or any(self._misses[peer] >= MISSES_MAX for peer in assigned)

    def waits(self, digest: bytes) -> bool:
        """Whether the transaction is here and waits for attestations."""
        return digest in self._room

    def has_room(self, tx: DecodedTransaction) -> bool:
        """Whether one more may wait."""
        return len(self._room) < ROOM_MAX and self._room_bytes + len(tx.raw) <= ROOM_BYTES_MAX

    def is_proven(self, digest: bytes) -> bool:
        """Whether all f + 1 that are assigned to the transaction have attested it (4.9.2)."""
        said = self._said
        return all(digest in said.get(peer, ()) for peer in self._assigned(digest))

    def due_ms(self) -> int | None:
        """When something is to be said, or a wait is over."""
        first = next(iter(self._room.values()), None)
        if first is None:
            return self._due_ms
        over_ms = first[1] + ATTEST_WAIT_MS
        return over_ms if self._due_ms is None else min(over_ms, self._due_ms)

    def sizes(self) -> tuple[int, int]:
        """(transactions that wait, most digests kept of one validator); for whoever watches bounds."""
        return len(self._room), max(map(len, self._said.values()), default=0)

    # In and out -------------------------------------------------------------------------------------------

    def wait(self, tx: DecodedTransaction) -> None:
        """Let a transaction wait. The caller has asked `must_check`, `is_proven` and `has_room`."""
        self._room[tx.digest] = tx, self._desk.now_ms
        self._room_bytes += len(tx.raw)

    def say(self, digest: bytes) -> None:
        """We have checked this signature and it holds: tell the others if it was ours to check."""
        desk = self._desk
        if not desk.config.assigned or desk.n == 1 or desk.index not in self._assigned(digest):
            return
        self._mine.append(digest)
        if len(self._mine) >= ATTEST_DIGESTS_MAX:
            self.speak()
        elif self._due_ms is None:
            self._due_ms = desk.now_ms + ATTEST_DELAY_MS

    def speak(self) -> None:
        """Send what we have to say."""
        mine, self._mine, self._due_ms = self._mine, [], None
        if mine:
            desk = self._desk
            frame, _ = desk.seal(Attest(desk.app.chain, desk.index, desk.app.head.height, mine))
            desk.broadcast(frame)

    def hear(self, message: Attest, frame: bytes) -> list[DecodedTransaction]:
        """A genuine attestation; returns what it proves of those that wait, in the order of the message."""
        desk, sender = self._desk, message.sender
        if not desk.config.assigned or message.height + 1 < desk.since:
            return []
        if any(sender not in self._assigned(digest) for digest in message.digests):
            desk.blame("not-assigned", sender)
            return []
        if desk.app.numbers[sender] in self._convicted:
            desk.blame("convicted", sender)
            return []
        self._misses[sender] = 0
        said = self._said[sender]
        for digest in message.digests:
            said.setdefault(digest, frame)
        while len(said) > SAID_MAX:
            del said[next(iter(said))]
        return [self._leave(digest) for digest in message.digests if digest in self._room and self.is_proven(digest)]

    def overdue(self) -> list[DecodedTransaction]:
        """What has waited long enough and must be checked now (4.9.3); remembers who was waited for."""
        desk = self._desk
        found: list[DecodedTransaction] = []
        for digest, (_, since_ms) in self._room.items():
            if since_ms + ATTEST_WAIT_MS > desk.now_ms or len(found) == OVERDUE_PER_STEP:
                break
            found.append(self._room[digest][0])
        self._give_up(found)
        return found

    def wanted(self, digests: Iterable[bytes]) -> list[DecodedTransaction]:
        """Those that wait here and are wanted now: a proposal has waited for them long enough (4.9.3)."""
        found = [self._room[digest][0] for digest in digests if digest in self._room]
        self._give_up(found)
        return found

    def _give_up(self, txs: list[DecodedTransaction]) -> None:
        desk = self._desk
        for tx in txs:
            self._leave(tx.digest)
            for peer in self._assigned(tx.digest):
                if peer != desk.index and tx.digest not in self._said[peer]:
                    self._misses[peer] += 1

    def convict(self, tx: DecodedTransaction) -> None:
        """The signature does not hold: whoever attested it signed a lie (4.9.4)."""
        for peer, said in self._said.items():
            frame = said.pop(tx.digest, None)
            if frame is not None:
                self._convicted[self._desk.app.numbers[peer]] = None
                self._misses[peer] = MISSES_MAX
                self._desk.accuse(ATTEST, peer, 0, 0, frame, tx.raw)

    def settle(self, txs: Iterable[DecodedTransaction]) -> None:
        """These are final: nothing needs to be known about them any more."""
        if not self._desk.config.assigned:
            return
        for tx in txs:
            if tx.digest in self._room:
                self._leave(tx.digest)
            for said in self._said.values():
                said.pop(tx.digest, None)

    def _assigned(self, digest: bytes) -> tuple[int, ...]:
        return self._groups[int.from_bytes(digest[:8], "big") % len(self._groups)]

    def _leave(self, digest: bytes) -> DecodedTransaction:
        tx, _ = self._room.pop(digest)
        self._room_bytes -= len(tx.raw)
        return tx
