"""The replica's desk: what it was given, what it has to hand out, and how often it said no.

Shared by the parts of the replica (agreement, exchange of transactions, catching up); it takes no decisions.
"""

from collections.abc import Sequence
from typing import Protocol

from watt_chain import codec
from watt_chain.block import Block, Header
from watt_chain.codec import ZERO32, Structure
from watt_chain.election import Schedule
from watt_chain.genesis import faults_tolerated, quorum
from watt_chain.ledger import AppliedBlock, Head, Waiting
from watt_chain.pbft.config import ReplicaConfig
from watt_chain.pbft.messages import ATTEST, Frame, Message, signed_bytes
from watt_chain.pbft.outputs import EVIDENCE_MAX, Evidence, Output, Record, Rejected
from watt_chain.snapshot import FrozenState, Manifest
from watt_chain.transaction import VerifiedTransactions
from watt_chain.tree import StateTree


class Application(Protocol):
    """What a replica orders blocks for: a `Ledger`, or a simulator's stand-in."""

    chain: int
    network: bytes
    publics: tuple[bytes, ...]
    verified: VerifiedTransactions
    waiting: Waiting
    head: Head

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
        if not 0 <= config.index < len(app.publics) or app.publics[config.index] != config.key.public:
            raise ValueError(f"the key is not that of validator {config.index} of chain {app.chain}")
        self.config = config
        self.app = app
        self.index = config.index
        self.n = len(app.publics)
        self.f = faults_tolerated(self.n)
        self.q = quorum(self.n)
        self.peers = tuple(index for index in range(self.n) if index != config.index)
        self.now_ms = 0
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

    def seal(self, message: Message) -> tuple[bytes, bytes]:
        """(frame, signature) of a message of ours."""
        body = codec.encode(message)
        signature = self.config.key.sign(signed_bytes(self.app.network, message, body))
        return codec.encode(Frame(body, signature)), signature

    def send(self, to: int, frame: bytes) -> None:
        """Hand out a frame for one peer."""
        self._send.append((to, frame))

    def broadcast(self, frame: bytes) -> None:
        """Hand out a frame for every peer."""
        self._send.extend((peer, frame) for peer in self.peers)

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

    def reject(self, reason: str, sender: int) -> None:
        """Say that a message was dropped."""
        self.counters[reason] = self.counters.get(reason, 0) + 1
        self._rejected.append(Rejected(reason, sender))

    def accuse(self, kind: str, sender: int, height: int, view: int, first: bytes, second: bytes) -> None:
        """Keep a proof of what no honest validator signs, one per sender, kind, height and view."""
        self.reject("false-attestation" if kind == ATTEST else "equivocation", sender)
        known = any((e.kind, e.sender, e.height, e.view) == (kind, sender, height, view) for e in self.evidence)
        if not known and len(self.evidence) < EVIDENCE_MAX:
            self.evidence.append(Evidence(kind, sender, height, view, first, second))

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
