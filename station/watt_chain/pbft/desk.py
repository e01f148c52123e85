"""The replica's desk: what it was given, its seat, what it has to hand out, and how often it said no.

Shared by the parts of the replica (agreement, exchange of transactions, catching up); it takes no decisions.
Validators have two numbers: the *index* in the list of the height in flight, by which messages of the agreement and
certificates name them, and the *number*, which stays through every change of the list and names the connection.
"""

from collections.abc import Sequence
from typing import Protocol

from watt_chain import codec
from watt_chain.block import Block, Header
from watt_chain.codec import ZERO32, Structure
from watt_chain.election import Schedule
from watt_chain.genesis import faults_tolerated, quorum
from watt_chain.ledger import AppliedBlock, Head, Waiting
from watt_chain.pbft.config import ReplicaConfig, Signer
from watt_chain.pbft.messages import ATTEST, NO_SEAT, NO_SIGNATURE, TALK, Frame, Message, signed_bytes
from watt_chain.pbft.outputs import EVIDENCE_MAX, Evidence, Output, Record, Rejected
from watt_chain.snapshot import FrozenState, Manifest
from watt_chain.transaction import VerifiedTransactions
from watt_chain.tree import StateTree


class Application(Protocol):
    """What a replica orders blocks for: a `Ledger`, or a simulator's stand-in."""

    chain: int
    network: bytes
    publics: tuple[bytes, ...]
    "Keys of the validators of the next height, by index."
    numbers: tuple[int, ...]
    "Their numbers."
    verified: VerifiedTransactions
    waiting: Waiting
    head: Head

    @property
    def resuming(self) -> bool:
        """Whether the next block begins with the regulator's word."""

    @property
    def schedule(self) -> Schedule:
        """Who leads the views of the height after the head."""

    def build(self, view: int, proposer: int, time_s: int, txs: list[bytes]) -> Block:
        """A block of those `txs` that may be in it, on top of the head."""

    def check(self, block: Block) -> str | None:
        """None when the block may follow the head."""

    def apply(self, certified: bytes, certificate_known: bool = False) -> AppliedBlock:
        """Make a block final; DecodeError when the bytes or the certificate are wrong."""

    def next_nonce(self, signer: bytes) -> int:
        """The nonce a key must use next."""

    def certified(self, height: int) -> bytes | None:
        """A final block with its certificate, to serve a laggard."""

    @property
    def frozen(self) -> Sequence[FrozenState]:
        """States that a laggard can be sent, oldest first."""

    def check_final(self, manifest: Manifest) -> Header:
        """The header of a state that may be installed; DecodeError otherwise."""

    def install(self, manifest: Manifest, tree: StateTree) -> FrozenState:
        """Go on from a final state; DecodeError when it is not one."""


class Desk:
    """In-tray and out-tray of one replica."""

    def __init__(self, config: ReplicaConfig, app: Application) -> None:
        self.config = config
        self.app = app
        self.keys: list[Signer] = [config.key]
        "Keys of ours; the list of a height says which of them votes, if any."
        self.now_ms = 0
        self._listed: tuple[tuple[bytes, ...], tuple[int, ...]] = ((), ())
        self.seat()
        self.counters: dict[str, int] = {}
        "Rejected messages by reason, for ever."
        self.evidence: list[Evidence] = []
        self._persist: list[bytes] = []
        self._send: list[tuple[int, bytes]] = []
        self._commit: list[bytes] = []
        self._applied: list[AppliedBlock] = []
        self._rejected: list[Rejected] = []
        self._parts: list[bytes] = []
        self._installed: FrozenState | None = None

    def seat(self) -> bool:
        """Take the place that the list of the next height gives us (CONSENSUS.md 8.1, 8.3); whether it is another."""
        publics, numbers = self.app.publics, self.app.numbers
        is_new = self._listed != (publics, numbers)
        if is_new:
            self._listed = (publics, numbers)
            self.since = self.app.head.height + 1
            "First height we know of under this list."
        self.index = NO_SEAT
        for key in self.keys:
            if key.public in publics:
                self.index, self._key = publics.index(key.public), key
        self.n = len(publics)
        self.f = faults_tolerated(self.n)
        self.q = quorum(self.n)
        self.peers = tuple(index for index in range(self.n) if index != self.index)
        self.numbers = tuple(numbers[index] for index in self.peers if numbers[index] != self.config.number)
        "Numbers of the other validators."
        self.index_of = {number: index for index, number in enumerate(numbers) if index != self.index}
        "Index of every other validator by its number."
        return is_new

    @property
    def votes(self) -> bool:
        """Whether we are a validator of the height in flight; else we only follow."""
        return self.index != NO_SEAT

    def seal(self, message: Message) -> tuple[bytes, bytes]:
        """(frame, signature) of a message of ours."""
        body = codec.encode(message)
        if isinstance(message, TALK):
            return codec.encode(Frame(body, NO_SIGNATURE)), NO_SIGNATURE
        assert self.votes, "only a validator of the height speaks about it"
        signature = self._key.sign(signed_bytes(self.app.network, message, body))
        return codec.encode(Frame(body, signature)), signature

    def send(self, to: int, frame: bytes) -> None:
        """Hand out a frame for the node with this number."""
        self._send.append((to, frame))

    def broadcast(self, frame: bytes) -> None:
        """Hand out a frame for every other validator of the height in flight."""
        self._send.extend((number, frame) for number in self.numbers)

    def persist(self, kind: str, height: int, view: int, hash_: bytes = ZERO32, payload: bytes = b"") -> None:
        """Write down what is about to be signed; it reaches the disk before anything of this output is sent."""
        self._persist.append(codec.encode(Record(kind, height, view, hash_, payload)))  # type: ignore[arg-type]

    def commit(self, certified: bytes, applied: AppliedBlock) -> None:
        """Hand out a final block."""
        self._commit.append(certified)
        self._applied.append(applied)

    def keep(self, part: Structure) -> None:
        """Hand out a piece of a state that is being fetched."""
        self._parts.append(codec.encode(part))

    def installed(self, state: FrozenState) -> None:
        """Hand out the state the ledger goes on from; blocks handed out before are under it."""
        self._installed = state
        self._commit.clear()
        self._applied.clear()

    def blame(self, reason: str, index: int) -> None:
        """Say that a message of the validator with this index was dropped."""
        self.reject(reason, self.app.numbers[index])

    def reject(self, reason: str, sender: int) -> None:
        """Say that a message of the node with this number was dropped."""
        self.counters[reason] = self.counters.get(reason, 0) + 1
        self._rejected.append(Rejected(reason, sender))

    def accuse(self, kind: str, sender: int, height: int, view: int, first: bytes, second: bytes) -> None:
        """Keep a proof of what no honest validator signs, one per sender (its index), kind, height and view."""
        self.blame("false-attestation" if kind == ATTEST else "equivocation", sender)
        known = any((e.kind, e.sender, e.height, e.view) == (kind, sender, height, view) for e in self.evidence)
        if not known and len(self.evidence) < EVIDENCE_MAX:
            self.evidence.append(Evidence(kind, sender, height, view, first, second, self.app.publics[sender]))

    def take(self) -> Output:
        """Everything handed out since the last call."""
        output = Output(
            tuple(self._persist),
            tuple(self._send),
            tuple(self._parts),
            self._installed,
            tuple(self._commit),
            tuple(self._applied),
            tuple(self._rejected),
        )
        for tray in (self._persist, self._send, self._parts, self._commit, self._applied, self._rejected):
            tray.clear()
        self._installed = None
        return output


class Throttle:
    """Least time between two equal answers to the same peer."""

    __slots__ = ("_interval_ms", "_last")

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self._last: dict[int, tuple[bytes, int]] = {}
        "The last question of each peer, and when it was answered."

    def allows(self, peer: int, question: bytes, now_ms: int) -> bool:
        """Whether the peer may be answered now; if so, this counts as the answer."""
        last = self._last.get(peer)
        if last is not None and last[0] == question and 0 <= now_ms - last[1] < self._interval_ms:
            return False
        self._last[peer] = (question, now_ms)
        return True
