"""The programs of an experiment as machines without clock or socket: nodes of every mode.

A shell (`virtual.py`: a virtual clock) hands an actor what arrives and the time, and takes from it what it sends,
what it wants on disk, and which trades came to a new step on its chain. All modes use the same `Member`, that is the
product's replica and ledger, with the same settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from msgspec import Struct
from watt_chain import codec
from watt_chain.codec import DecodeError
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import faults_tolerated
from watt_chain.ledger import AppliedBlock
from watt_chain.pbft.config import ReplicaConfig
from watt_chain.pbft.messages import kind_of
from watt_chain.pbft.replica import Replica
from watt_chain.transaction import Verify, make_transaction

from watt_tools.paper.certified import Cursor, bundle_order, cursor_key
from watt_tools.paper.network import START_S, Network
from watt_tools.paper.objects import Bundle, Bundler, InboxCall

BATCH_MS: Final = 5
"""A leader waits this long for company, in every mode. Stations wait 100 ms by default, which would hide all else."""
RELAY_MS: Final = 1000
"""T_r: after this long without an outcome any node carries, or hands in, what others should have."""
QUIET_MS: Final = 600_000
"""Heights are announced so rarely that no repetition sees it: idle talk is the same in all modes."""
ANSWERS_MAX: Final = 4096
"""Answers a node keeps for clients that ask again: those of some bursts."""
BUNDLES_MAX: Final = 256
"""Bundles kept per source until their turn comes: some bursts' worth."""


class Kind(IntEnum):
    """What a message between addresses is."""

    FRAME = 1
    "Of the area's or the main chain's replicas."
    JOINT_FRAME = 2
    SUBMIT = 3
    JOINT_SUBMIT = 4
    BUNDLE = 5
    "Certified messages for a chain, carried by anybody."
    BLOCK = 6
    "A certified block of an area, for the masters."
    ANSWER = 7
    "Certified messages for a client."
    DECISION = 8
    "A joint decision, for the nodes of an area."
    JOINT_BUNDLE = 9
    "As BUNDLE, for the joint committee's chain."
    ASK = 10
    "A client has waited too long for an answer about its trade: whoever has one sends it."


@dataclass(frozen=True, slots=True)
class Settings:
    """What an experiment may vary; the same for all modes of a comparison."""

    batch_ms: int = BATCH_MS
    timeout_ms: int = 2000
    overlap: bool = True
    "certified: cross-nodes carry messages, and all nodes check them on arrival. Without: the client carries them."


class Actor:
    """Common to nodes and clients."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.sent: list[tuple[int, int, bytes]] = []
        "(address, kind, payload)."
        self.records: list[bytes] = []
        "To be on disk before anything of `sent` leaves."
        self.blocks: list[bytes] = []
        "Final blocks, to be stored after that."
        self.steps: list[tuple[int, str]] = []
        "(number of a trade, step that is final here now)."

    def receive(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """A message."""
        raise NotImplementedError

    def deadline_ms(self) -> int | None:
        """When `expire` wants to be called."""
        return None

    def expire(self, now_ms: int) -> None:
        """Whatever is due."""

    def send(self, to: Iterable[int], kind: int, payload: bytes) -> None:
        """Hand out one message for several addresses."""
        self.sent.extend((address, kind, payload) for address in to)


class Member:
    """One seat in one chain: replica, ledger, and the nonce of the transactions that the node makes itself."""

    def __init__(
        self, network: Network, chain: int, index: int, key: PrivateKey, verify: Verify, settings: Settings
    ) -> None:
        self.chain = chain
        self.index = index
        self._network = network
        self._key = key
        self.proofs = network.proofs(verify)
        self.ledger = network.ledger(chain, verify, self.proofs)
        config = ReplicaConfig(
            number=index,
            key=key,
            protocol_time=lambda now_ms: START_S + now_ms // 1000,
            verify=verify,
            batch_ms=settings.batch_ms,
            timeout_ms=settings.timeout_ms,
            status_ms=QUIET_MS,
        )
        self.replica = Replica(config, self.ledger)
        self.others = [
            (peer, network.address(chain, peer)) for peer in range(len(network.keys[chain])) if peer != index
        ]
        self.number_of = {address: peer for peer, address in self.others}
        self._address_of = dict(self.others)
        self._nonce = 0
        self._proposed = 0
        "Last height at which this node has proposed."

    def submit(self, tx: bytes, now_ms: int, shared: bool) -> None:
        """Take a transaction; `shared`: everybody was sent it."""
        self.replica.submit(tx, now_ms, shared=shared)

    def make(self, kind: str, fields: Struct) -> bytes:
        """A transaction of this node."""
        self._nonce = max(self._nonce + 1, self.ledger.next_nonce(self._key.public))
        return make_transaction(self._key, self._network.id, kind, self.chain, self._nonce, fields)

    @property
    def height(self) -> int:
        """The height in flight."""
        return self.ledger.head.height + 1

    def places_from_lead(self) -> int:
        """0: the next proposal of this height is ours; k: we would be the k-th to stand in."""
        leader = self.ledger.schedule.leader(self.height, 0)
        return (self.index - leader) % len(self.ledger.publics)

    def leads(self) -> bool:
        """Whether this node proposes next: it leads view 0 of the height and has proposed nothing yet."""
        return self._proposed < self.height and self.places_from_lead() == 0

    def flush(self, actor: Actor, kind: int) -> list[tuple[bytes, AppliedBlock]]:
        """Move the replica's output to the actor's trays; the blocks that became final, with their bytes."""
        output = self.replica.take_output()
        if output.persist:
            actor.records += output.persist
        if output.commit:
            actor.blocks += output.commit
        for number, frame in output.send:
            if self._proposed < self.height and kind_of(frame) == "pre-prepare":
                self._proposed = self.height
            actor.sent.append((self._address_of[number], kind, frame))
        return list(zip(output.commit, output.applied, strict=True)) if output.commit else []


class Inbox:
    """Certified messages on their way into a chain: checked when they come, handed in by the one who proposes next."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._waiting: dict[int, dict[int, tuple[Bundle, int]]] = {}
        "Source -> number of its first message -> (bundle, when it came)."
        self._taken: dict[int, int] = {}
        "Source -> last message handed in here or final."

    def take(self, payload: bytes, now_ms: int) -> None:
        """A bundle from anybody. Its certificate is checked now, while nothing waits for it (pre-validation)."""
        try:
            bundle = codec.decode(payload, Bundle)
            first = bundle_order(bundle)
        except DecodeError:
            return
        waiting = self._waiting.setdefault(bundle.chain, {})
        if first <= self._taken.get(bundle.chain, 0) or first in waiting or len(waiting) >= BUNDLES_MAX:
            return
        if self.believes(bundle):
            waiting[first] = bundle, now_ms

    def deadline_ms(self) -> int | None:
        """When we stand in for a leader who has handed in nothing."""
        oldest = min((came for waiting in self._waiting.values() for _, came in waiting.values()), default=None)
        places = self._member.places_from_lead() or len(self._member.ledger.publics)
        return None if oldest is None else oldest + places * RELAY_MS

    def propose(self, now_ms: int) -> bool:
        """Hand in what is next in sequence, if that is ours to do; whether anything was."""
        if not any(self._waiting.values()):
            return False
        due = self.deadline_ms()
        if not self._member.leads() and (due is None or now_ms < due):
            return False
        done = False
        for source, waiting in self._waiting.items():
            while (found := waiting.pop(self._taken.get(source, 0) + 1, None)) is not None:
                self._taken[source] = self._taken.get(source, 0) + len(found[0].entries)
                self._member.submit(self._member.make("Inbox", self.call(found[0])), now_ms, shared=False)
                done = True
        return done

    def believes(self, bundle: Bundle) -> bool:
        """Whether the certificate holds."""
        return self._member.proofs.believes(bundle)

    def call(self, bundle: Bundle) -> Struct:
        """The fields of the transaction that hands a bundle in."""
        return InboxCall(bundle)

    def cursor(self, source: int) -> int:
        """Last message of a source that the chain has taken."""
        value = self._member.ledger.state.get(cursor_key(source))
        return 0 if value is None else codec.decode(value, Cursor).sequence

    def settled(self) -> None:
        """A block is final: what it took needs no handing in, what it refused needs it again."""
        for source, waiting in self._waiting.items():
            self._taken[source] = self.cursor(source)
            for first in [first for first in waiting if first <= self._taken[source]]:
                del waiting[first]


class AreaNode(Actor):
    """A node of an area's chain under full sharding: it orders, and answers clients. The other modes add to it."""

    def __init__(self, network: Network, area: int, index: int, verify: Verify, settings: Settings) -> None:
        super().__init__(network.address(area, index))
        self.network = network
        self.area = area
        self.index = index
        self.settings = settings
        self.verify = verify
        self.member = Member(network, area, index, network.keys[area][index], verify, settings)
        self.is_cross = index in network.crossers[area]
        self._answers: dict[int, list[tuple[Bundler, int]]] = {}
        "Number of a trade -> what its client was or could have been told: a block's messages and a place among them."

    def start(self, now_ms: int) -> None:
        """Begin, with nothing signed before."""
        self.member.replica.restore([], now_ms)
        self.settle(now_ms)

    def receive(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """Frames of peers, transactions of clients; what else comes is for the modes."""
        if kind == Kind.FRAME:
            self.member.replica.receive(self.member.number_of[sender], payload, now_ms)
        elif kind == Kind.SUBMIT:
            self.member.submit(payload, now_ms, shared=True)
        elif kind == Kind.ASK:
            for bundler, position in self._answers.get(int.from_bytes(payload, "big"), ()):
                self.send([sender], Kind.ANSWER, codec.encode(bundler.bundle([position])))
        else:
            self.receive_more(sender, kind, payload, now_ms)
        self.settle(now_ms)

    def receive_more(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """What only some modes know."""

    def deadline_ms(self) -> int | None:
        """The replica's."""
        return self.member.replica.next_deadline_ms()

    def expire(self, now_ms: int) -> None:
        """The replica's timers."""
        self.member.replica.expire(now_ms)
        self.settle(now_ms)

    def settle(self, now_ms: int) -> None:
        """Whatever follows from the last input, until nothing does."""
        while True:
            blocks = self.member.flush(self, Kind.FRAME)
            for certified, applied in blocks:
                self.on_block(certified, applied, now_ms)
            if not blocks and not self.follow_up(now_ms):
                return

    def follow_up(self, now_ms: int) -> bool:
        """What a mode does when the replica has nothing more to say; whether it did anything."""
        return False

    def on_block(self, certified: bytes, applied: AppliedBlock, now_ms: int) -> None:
        """A final block: note the trades, answer their clients."""
        self.note(applied)
        self.answer(certified, applied)

    def note(self, applied: AppliedBlock) -> None:
        """Steps of trades that the block brought."""
        for message in applied.out_messages:
            self.steps += self.network.spoken(message)

    def answer(self, certified: bytes, applied: AppliedBlock) -> None:
        """Send clients their messages with proofs; f + 1 nodes answer each, in turn, the others when they are asked."""
        n = self.network.plan.n
        turns = faults_tolerated(n) + 1
        bundler = Bundler(self.area, certified, applied.out_messages)
        for position, message in enumerate(applied.out_messages):
            number = self.network.spoken(message)[0][0]
            self._answers.setdefault(number, []).append((bundler, position))
            if (self.index - number) % n < turns:
                self.send([self.network.client(number)], Kind.ANSWER, codec.encode(bundler.bundle([position])))
        while len(self._answers) > ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]
