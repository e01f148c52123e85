"""The master's own copy of every area: certified blocks in, the same state re-executed, blocks for the main chain out.

Strategy. A station is believed in nothing: every block must carry the commit certificate of its area, must be the next
one, and is executed again here. A block that fails the first two is the station's fault, and the next station is asked.
A block that a quorum certified and that does not execute to its own header is a broken area (or a fault of this
program): the area is *halted* here, shown as an alarm, and that block and what follows it do not go to the main chain.
What came before it does, and then this master says on chain that it refutes the block (CONTRACT.md 17.7); the other
areas go on.

Order for a good block: execute, archive durably, then (and only then) may an Anchor mention it.

`AreaReplica` and `Anchoring` are pure apart from the archive they are given; `watt_master.service` moves the bytes.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from watt_chain import codec
from watt_chain.block import block_hash, check_certificate, decode_certified
from watt_chain.codec import DecodeError
from watt_chain.contract.cross_kinds import Refute
from watt_chain.contract.kinds import Anchor
from watt_chain.contract.objects import KnownList
from watt_chain.genesis import Genesis
from watt_chain.ledger import AppliedBlock, Contract, CorruptionError, Ledger
from watt_chain.snapshot import Manifest
from watt_chain.transaction import VerifiedTransactions
from watt_chain.tree import StateTree
from watt_node.tally import Tally

from watt_master.archive import BlockRow, TransactionRow

ANCHORS_IN_FLIGHT = 16
"Anchor transactions of one area under way at once: some seconds of area blocks; a pool takes 256 of one signer."
STANDBY_MS = 1_500
"""A master waits this long per rank before it stands in for the one before it: three main blocks of 0.5 s. Shorter,
and two masters would anchor the same block in an ordinary delay; longer, and a dead master would slow every event."""
ANSWER_MS = 15_000
"An anchor without an answer for this long is signed anew; the node itself repeats the same bytes after 10 s."


WAITING_MAX = 256
"""Blocks of one area held in memory for anchoring; while the main chain stands, the rest waits in the archive."""


class BlockSink(Protocol):
    """Where verified blocks are kept (watt_master.archive.Archive)."""

    def add(self, block: BlockRow, transactions: list[TransactionRow]) -> bool:
        """Store durably; False when it was there already."""

    def block(self, chain: int, height: int) -> BlockRow | None:
        """A block that was stored."""


class AreaHalted(Exception):
    """A certified block of the area contradicts our execution: alarm, nothing more of this area is taken in."""


def rows_of(applied: AppliedBlock, certified: bytes) -> tuple[BlockRow, list[TransactionRow]]:
    """What the archive stores of an executed block."""
    header = applied.header
    messages = tuple(codec.encode(message) for message in applied.out_messages)
    block = BlockRow(header.chain, header.height, applied.block_hash, header.time_s, certified, messages)
    return block, [
        TransactionRow(tx.txid, header.chain, header.height, position, tx.kind, tx.signer_id, receipt.code)
        for position, (tx, receipt) in enumerate(zip(applied.transactions, applied.receipts, strict=True))
    ]


def is_by_list(certified: bytes, listed: KnownList | None, network: bytes) -> bool:
    """Whether the first block under a list that the main chain knows is certified by it (CONTRACT.md 17.7).

    Later ones follow from that one, and are the ledger's to check. Raises DecodeError.
    """
    _, block, header, certificate = decode_certified(certified)
    if listed is None or header.height != listed.from_height:
        return True
    publics = [validator.public for validator in listed.validators]
    return not check_certificate(certificate, network, header, block_hash(network, block.header), publics)


@dataclass(frozen=True, slots=True)
class Anchorable:
    """An archived area block that the main chain has not taken in yet."""

    chain: int
    height: int
    fields: Anchor
    seen_ms: int


class AreaReplica:
    """One area, re-executed from its certified blocks."""

    def __init__(
        self,
        genesis: Genesis,
        chain: int,
        contract: Contract,
        sink: BlockSink,
        clock_ms: Callable[[], int],
        snapshot_blocks: int = 0,
    ) -> None:
        """At height 0; hand it a snapshot (`install`) and the archived blocks (`restore`), then live ones with `check`.

        snapshot_blocks   heights that are multiples of it leave a state for the next snapshot; 0: none do
        """
        self.chain = chain
        self.ledger = Ledger(genesis, chain, contract, VerifiedTransactions(), freeze_every=snapshot_blocks)
        self.halted = ""
        "Why the area is halted here; empty while all is well."
        self.refutation: Refute | None = None
        "The certified block that does not execute, when that is why."
        self.listed: KnownList | None = None
        "Who certifies the area from a height on, as the main chain says: what others certify there is not taken."
        self.refused = Tally()
        "Blocks of stations that were refused, by reason."
        self.waiting: deque[Anchorable] = deque()
        "Archived blocks above the main chain's anchor, ascending, without a gap; the archive has those that follow."
        self._anchored = 0
        self._sink = sink
        self._clock_ms = clock_ms
        self._hooks: list[Callable[[bytes, AppliedBlock], None]] = []

    def on_block(self, hook: Callable[[bytes, AppliedBlock], None]) -> None:
        """`hook(certified, applied)` after a block is executed and archived."""
        self._hooks.append(hook)

    @property
    def height(self) -> int:
        """Height of the last executed block."""
        return self.ledger.head.height

    def install(self, manifest: Manifest, tree: StateTree) -> None:
        """Go on from a snapshot of our own. DecodeError when it does not prove itself, and nothing has changed."""
        self.ledger.install(manifest, tree)

    def restore(self, certified: bytes) -> None:
        """Execute the next block of our own archive. AreaHalted when it does not check (a damaged archive)."""
        try:
            self.ledger.replay(certified)
        except (DecodeError, CorruptionError) as error:
            raise self._halt(str(error)) from None

    def check(self, certified: bytes) -> str:
        """Take the next block from a station: "" when taken, else why the station is wrong about it.

        Raises AreaHalted when the area's quorum is wrong about it, ArchiveError when it cannot be stored.
        """
        if self.halted:
            raise AreaHalted(self.halted)
        try:
            first = self.listed is not None and self.height + 1 == self.listed.from_height
            if first and not is_by_list(certified, self.listed, self.ledger.network):
                return self.refused.count("old-list")
            applied = self.ledger.apply(certified)
        except DecodeError as error:
            return self.refused.count(str(error))
        except CorruptionError as error:
            parts, bad, _, _ = decode_certified(certified)
            self.refutation = Refute(bad.header, parts.certificate)
            raise self._halt(str(error)) from None
        block, transactions = rows_of(applied, certified)
        self._sink.add(block, transactions)
        self._refill()
        for hook in self._hooks:
            hook(certified, applied)
        return ""

    def _halt(self, text: str) -> AreaHalted:
        self.halted = f"area {self.chain} at height {self.height + 1}: {text}"
        return AreaHalted(self.halted)

    def _refill(self) -> None:
        """Take from the archive what is to be anchored next, as far as there is room."""
        at = self.waiting[-1].height if self.waiting else self._anchored
        while at < self.height and len(self.waiting) < WAITING_MAX:
            at += 1
            stored = self._sink.block(self.chain, at)
            assert stored is not None, "every executed block is archived"
            parts, block, _, _ = decode_certified(stored.certified)
            fields = Anchor(block.header, parts.certificate, list(stored.messages))
            self.waiting.append(Anchorable(self.chain, at, fields, self._clock_ms()))

    def anchored(self, height: int) -> None:
        """The main chain has taken in all blocks up to `height`."""
        self._anchored = max(self._anchored, height)
        while self.waiting and self.waiting[0].height <= height:
            self.waiting.popleft()
        self._refill()

    def status(self) -> dict[str, object]:
        """For status.json."""
        return {
            "height": self.height,
            "block_time_s": self.ledger.head.time_s,
            "to_anchor": max(0, self.height - self._anchored),
            "refused": self.refused.shown(),
            "halted": self.halted,
        }


@dataclass(slots=True)
class Anchoring:
    """Which anchors this master submits now, so that normally each block is anchored by one master only.

    Duty is fixed by area, not by leadership: leaders change with every main block, and what one has pooled the next
    cannot see in the state. Master (area mod n) is on duty; the others stand by in index order, each STANDBY_MS later.
    """

    index: int
    "Of this master in the list of masters."
    masters: int
    _sent: dict[tuple[int, int], int] = field(default_factory=dict)
    _refuted: dict[int, int] = field(default_factory=dict)
    submitted: int = 0

    def rank(self, chain: int) -> int:
        """0 = on duty for this area, 1 = first stand-in, ..."""
        return (self.index - chain) % self.masters

    def due(self, area: AreaReplica, anchored_height: int, now_ms: int) -> list[Anchorable]:
        """Blocks of `area` to submit now, ascending; each is named again only when ANSWER_MS brought no answer."""
        area.anchored(anchored_height)
        for sent in [sent for sent in self._sent if sent[0] == area.chain and sent[1] <= anchored_height]:
            del self._sent[sent]
        wait_ms = self.rank(area.chain) * STANDBY_MS
        found: list[Anchorable] = []
        for block in list(area.waiting)[:ANCHORS_IN_FLIGHT]:
            if now_ms - block.seen_ms < wait_ms:
                break
            sent_ms = self._sent.get((block.chain, block.height))
            if sent_ms is not None and now_ms - sent_ms < ANSWER_MS:
                continue
            self._sent[(block.chain, block.height)] = now_ms
            self.submitted += 1
            found.append(block)
        return found

    def refutes(self, area: AreaReplica, anchored_height: int, now_ms: int) -> Refute | None:
        """What to say now of an area whose next block does not execute: once all before it is anchored."""
        if area.refutation is None or anchored_height != area.height:
            return None
        sent_ms = self._refuted.get(area.chain)
        if sent_ms is not None and now_ms - sent_ms < ANSWER_MS:
            return None
        self._refuted[area.chain] = now_ms
        return area.refutation

    def failed(self, chain: int, height: int) -> None:
        """The submission was refused: it may be tried again at the next step."""
        self._sent.pop((chain, height), None)
