"""A service's desk: signs what the service wants, one transaction per chain at a time, until a block answers.

Strategy. A service looks at the state of the ledgers and says each time what is due (`want`); it keeps no memory of
its own. The desk turns that into at most one transaction in flight per chain and key: the stages of an event follow
one another, so nothing is lost by waiting, and the nonce is always the one the replicated state names. A transaction
that no block answered in ANSWER_MS is signed again from the state of that moment: with the same nonce and fields it
is the same bytes (RFC 6979), so a repetition can never act twice. A refusal waits with growing pauses and gives up
after REFUSALS_MAX, unless the state that caused the wish changes (`stage` of the wish).

Pure: no clock, no socket; `now_ms` is an argument (machine clock, monotonic).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from watt_chain.block import Receipt
from watt_chain.crypto import PrivateKey
from watt_chain.transaction import make_transaction, txid

ANSWER_MS = 6_000
"A block every few hundred ms and one view change of 4 s: no answer after that means the transaction was lost."
REFUSED_FIRST_MS = 1_000
"First pause after a refusal; doubles. A stage that is refused now may be open one block later."
REFUSED_MOST_MS = 30_000
REFUSALS_MAX = 8
"About a minute of trying (1 + 2 + ... + 30 s); then only a change of the ledger's stage starts it again."

WAITING_CODES = ("duplicate", "final", "unreachable")
"""Answers to a submission that leave the transaction in flight: it waits already, it is in a block that this master
has not seen yet, or no station could be reached (then ANSWER_MS repeats it)."""


class NonceSource(Protocol):
    """What the desk must know of a ledger."""

    def next_nonce(self, chain: int, signer: bytes) -> int:
        """The nonce that the next transaction of this key must carry on this chain."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One transaction a service wants to see in a block."""

    chain: int
    kind: str
    subject: str
    "What it is about, as event 1; with chain and kind the identity of the wish."
    fields: object
    stage: str = ""
    "The ledger state that makes it due; a refusal counts only while this stays the same."

    @property
    def name(self) -> tuple[int, str, str]:
        """Identity: two wishes of one name are the same wish."""
        return (self.chain, self.kind, self.subject)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A signed transaction to be submitted to a chain."""

    chain: int
    tx: bytes
    txid: bytes
    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a wish, for the log: code "" = accepted in a block."""

    chain: int
    kind: str
    subject: str
    code: str
    final: bool
    "False: refused before a block (pool); may still come true later."


@dataclass(slots=True)
class _InFlight:
    wish: Wish
    txid: bytes
    sent_ms: int


@dataclass(slots=True)
class _Refused:
    stage: str
    code: str
    count: int
    again_ms: int
    final: bool
    "By a block. A pool's refusal (full, busy) says nothing about the wish and never ends the trying."


@dataclass(slots=True)
class _Lane:
    """One chain of one key."""

    flight: _InFlight | None = None
    refused: dict[tuple[int, str, str], _Refused] = field(default_factory=dict)


class Desk:
    """All transactions of one service key."""

    def __init__(self, key: PrivateKey, network: bytes, nonces: NonceSource) -> None:
        self.public = key.public
        self._key = key
        self._network = network
        self._nonces = nonces
        self._lanes: dict[int, _Lane] = {}
        self._out: list[Outgoing] = []
        self._answers: list[Answer] = []
        self.accepted = 0
        self.refusals: dict[str, int] = {}
        "Count of refusals by reason, for the status file."

    def _lane(self, chain: int) -> _Lane:
        return self._lanes.setdefault(chain, _Lane())

    def want(self, wish: Wish, now_ms: int) -> bool:
        """Ask for a transaction; True when it was signed now. Asking again for what is under way does nothing."""
        lane = self._lane(wish.chain)
        if lane.flight is not None:
            if now_ms - lane.flight.sent_ms < ANSWER_MS:
                return False
            lane.flight = None  # lost, or refused without a word: sign again from the state of now
        held = lane.refused.get(wish.name)
        if held is not None:
            if held.stage != wish.stage:
                del lane.refused[wish.name]
            elif (held.final and held.count >= REFUSALS_MAX) or now_ms < held.again_ms:
                return False
        nonce = self._nonces.next_nonce(wish.chain, self._key.public)
        if nonce < 0:
            return False  # the chain does not know this key; the status shows that nothing moves
        tx = make_transaction(self._key, self._network, wish.kind, wish.chain, nonce, wish.fields)
        lane.flight = _InFlight(wish, txid(tx), now_ms)
        self._out.append(Outgoing(wish.chain, tx, lane.flight.txid, wish.kind, wish.subject))
        return True

    def refused(self, chain: int, txid_: bytes, code: str, now_ms: int) -> None:
        """A pool answered with something else than "taken"."""
        lane = self._lane(chain)
        if code in WAITING_CODES:
            return
        if lane.flight is not None and lane.flight.txid == txid_:
            self._settle(lane, code, False, now_ms)

    def on_block(self, chain: int, receipts: Sequence[Receipt], now_ms: int) -> None:
        """A block of `chain` was applied; call after the ledger shows its state."""
        lane = self._lane(chain)
        for receipt in receipts:
            if lane.flight is not None and lane.flight.txid == receipt.txid:
                self._settle(lane, receipt.code, True, now_ms)

    def _settle(self, lane: _Lane, code: str, final: bool, now_ms: int) -> None:
        assert lane.flight is not None
        wish = lane.flight.wish
        lane.flight = None
        self._answers.append(Answer(wish.chain, wish.kind, wish.subject, code, final))
        if code == "":
            self.accepted += 1
            lane.refused.pop(wish.name, None)
            return
        self.refusals[code] = self.refusals.get(code, 0) + 1
        held = lane.refused.get(wish.name)
        count = held.count + 1 if held is not None else 1
        pause = min(REFUSED_MOST_MS, REFUSED_FIRST_MS << min(count - 1, 8))
        lane.refused[wish.name] = _Refused(wish.stage, code, count, now_ms + pause, final)

    def busy(self, chain: int) -> bool:
        """Whether a transaction of this key is in flight on this chain."""
        lane = self._lanes.get(chain)
        return lane is not None and lane.flight is not None

    def take_output(self) -> tuple[Outgoing, ...]:
        """Transactions to submit now, each once."""
        out, self._out = tuple(self._out), []
        return out

    def take_answers(self) -> tuple[Answer, ...]:
        """What became of earlier transactions since the last call."""
        answers, self._answers = tuple(self._answers), []
        return answers

    def status(self) -> dict[str, object]:
        """For status.json."""
        waiting: Mapping[int, _Lane] = self._lanes
        return {
            "accepted": self.accepted,
            "refused": dict(sorted(self.refusals.items())),
            "in_flight": [
                {"chain": chain, "kind": lane.flight.wish.kind, "subject": lane.flight.wish.subject}
                for chain, lane in sorted(waiting.items())
                if lane.flight is not None
            ],
        }
