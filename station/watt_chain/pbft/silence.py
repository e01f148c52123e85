"""Why a validator signs nothing for now: what it may have forgotten, and when it may speak again (4.7.5 to 4.7.9).

A silent validator follows: it executes, fetches and serves blocks, and counts the votes of others. It proposes, votes
and changes views no more than if it were down, so silence is a fault of its own that the other n - q can make up for.
"""

from watt_chain.block import decode_certified
from watt_chain.ledger import AppliedBlock
from watt_chain.pbft.config import HELP_INTERVAL_MS
from watt_chain.pbft.desk import Desk, Throttle
from watt_chain.pbft.messages import Status
from watt_chain.pbft.outputs import CLEAR, DOUBT
from watt_chain.transaction import DecodedTransaction

PLEDGES_MAX = 1024
"""Transactions of our own that would end the doubt: one is made at a time, again when its number was taken."""


class Silence:
    """The memory of one replica, as far as it can be trusted."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._floor = 0
        "Votes of heights up to this one may be forgotten."
        self._doubt = ""
        "Why any vote may be forgotten; empty when none is."
        self._heard: dict[int, int] | None = {}
        "Heights that others told since the start; None once enough have."
        self._pledges: dict[bytes, None] = {}
        self._throttle = Throttle(HELP_INTERVAL_MS)

    @property
    def doubt(self) -> str:
        """Why this validator does not trust its memory; empty when it does."""
        return self._doubt

    @property
    def asks(self) -> bool:
        """Whether it waits to hear where the others are."""
        return self._heard is not None or (bool(self._doubt) and self._desk.app.head.height == 0)

    def reason(self) -> str:
        """Why nothing may be signed for the height after the head; empty when it may."""
        if not self._desk.votes:  # CONSENSUS.md 8.3: not on the list of the height
            return "following"
        if self._doubt:
            return "doubt"
        if self._desk.app.head.height < self._floor:
            return "below-floor"
        return "asking" if self._heard is not None else ""

    def restore(self, floor: int) -> None:
        """What the shell knows: votes of heights up to `floor` may have been dropped (4.7.5)."""
        self._floor = max(self._floor, floor)
        self._consider()

    def recall(self, kind: str, height: int, text: str) -> None:
        """A record of doubt or of its end."""
        self._doubt = text or "unknown" if kind == DOUBT else ""
        if kind == CLEAR:
            self._floor = max(self._floor, height)

    def pledge(self, txid: bytes) -> None:
        """A transaction that this process has made since its start: a final block with it is younger than our doubt."""
        self._pledges[txid] = None
        if len(self._pledges) > PLEDGES_MAX:
            del self._pledges[next(iter(self._pledges))]

    def hear(self, sender: int, message: Status) -> None:
        """Another validator, by number, tells where it is, since we started (4.7.7, 4.7.8)."""
        if self._heard is not None and sender in self._desk.numbers:
            self._heard[sender] = message.height
            self._consider()

    def may_answer(self, peer: int) -> bool:
        """Whether a peer that asks where we are is told at once; throttled."""
        return self._throttle.allows(peer, b"status", self._desk.now_ms)

    def advanced(self, transactions: tuple[DecodedTransaction, ...]) -> None:
        """A block is final: does it end the doubt? (4.7.6)"""
        if self._doubt and any(tx.txid in self._pledges for tx in transactions):
            # The block is younger than this process, so no vote of the one before is for a height above it.
            self._clear(self._desk.app.head.height)
        self._consider()

    def forgot(self, text: str) -> None:
        """Somebody showed a vote of ours that we do not remember (4.7.9)."""
        if not self._doubt:
            self._desk.persist(DOUBT, 0, 0, payload=text.encode())
            self._doubt = text

    def recognise(self, certified: bytes, applied: AppliedBlock, signed_commits: dict[int, bytes]) -> None:
        """A peer's final block may have a commit of ours in its certificate: do we remember it? (4.7.9)"""
        certificate = decode_certified(certified)[3]
        if not any(vote.index == self._desk.index for vote in certificate.votes):
            return
        height = applied.header.height
        if signed_commits.get(certificate.view) != applied.block_hash and height > self._floor:
            self.forgot(f"block {height} has a commit of ours that is not written down")

    def _consider(self) -> None:
        """Whether enough others were heard, and what they said."""
        if self._heard is None:
            return
        desk = self._desk
        if len(self._heard) < desk.q - 1:
            return
        height = desk.app.head.height
        told = sorted(self._heard.values(), reverse=True)
        if self._doubt and height == 0 and told.count(0) >= desk.q - 1:
            self._clear(0)  # 4.7.7: the network is being founded; a liar that claims to be further cannot prevent it
        # Liars alone cannot hold us back: f + 1 say that they have this block, so an honest one does and will send it.
        caught_up = desk.q == 1 or height >= told[min(desk.f, len(told) - 1)]
        if caught_up and not (self._doubt and height == 0):  # until then every further word may found the network
            self._heard = None

    def _clear(self, height: int) -> None:
        self._desk.persist(CLEAR, height, 0)
        self._doubt = ""
        self._floor = max(self._floor, height)
        self._pledges.clear()
