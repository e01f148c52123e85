"""The ledger of one chain: executes blocks, keeps the state and what is needed to prove it (CONSENSUS.md 3).

Strategy. A block is executed once, on an overlay of the final state, when it is built or checked; the
outcome is kept by block hash. When the block becomes final the kept overlay is merged. Any other block at
that height simply loses its overlay. So being voted on costs a block nothing twice, and a query never sees
a state that is not final.

A block that is final but does not execute to its own header is a fault of ours or of a quorum: `apply`
raises CorruptionError, and the shell must stop the node rather than sign anything more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from watt_wire import merkle

from watt_chain import codec, crypto
from watt_chain.application import BlockContext as BlockContext
from watt_chain.application import Contract as Contract
from watt_chain.block import (
    BLOCK_SIZE_MAX,
    BLOCK_TRANSACTIONS_MAX,
    CHANGES_MAX,
    HEADER_SIZE_MAX,
    HEADER_VERSION,
    Block,
    Change,
    Header,
    OutMessage,
    Receipt,
    block_hash,
    check_certificate,
    decode_certified,
    follow,
    messages_root,
)
from watt_chain.codec import DecodeError
from watt_chain.election import Schedule, term_of
from watt_chain.genesis import Genesis, Seat, list_hash, network_of
from watt_chain.light import ReceiptProof, StateProof
from watt_chain.resume import RESUME, word_of
from watt_chain.snapshot import FrozenState, Manifest, open_manifest
from watt_chain.state import FinalState, State, StateReader
from watt_chain.transaction import DecodedTransaction, VerifiedTransactions, Verify, decode_transaction, is_signed
from watt_chain.tree import StateTree, root_of

RECENT_BLOCKS_MAX = 4096
"""Blocks whose receipts can be proven from memory: over an hour at one block a second; 500 kB per 1,000."""
RECENT_BYTES_MAX = 32 * 1024 * 1024
"""Bytes of those blocks: a busy area (150 kB a block) keeps the last minutes, and memory stays flat."""
FROZEN_MAX = 2
"""Frozen states kept: the newest, and the one before, which somebody may be in the middle of fetching."""
SPECULATIVE_MAX = 8
"""Executed blocks kept per height: one per view that got as far as a proposal."""
REASON_LENGTH_MAX = 64
"""A reject reason is a short word in a receipt, not a text."""


class CorruptionError(Exception):
    """A certified block contradicts our own execution: stop, do not sign."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last final block. Height 0 is genesis: the hash is the network's name, there is no header."""

    height: int
    block_hash: bytes
    header: Header | None
    time_s: int


@dataclass(frozen=True, slots=True)
class AppliedBlock:
    """What became final with a block."""

    header: Header
    receipts: tuple[Receipt, ...]
    out_messages: tuple[OutMessage, ...]
    block_hash: bytes = b""
    transactions: tuple[DecodedTransaction, ...] = ()


@dataclass(frozen=True, slots=True)
class _Executed:
    """A block's outcome before it is final."""

    header: Header
    state: State
    transactions: tuple[DecodedTransaction, ...]
    receipts: tuple[Receipt, ...]
    receipt_bytes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Recent:
    """What proofs about a final block need."""

    header_bytes: bytes
    certificate_bytes: bytes
    receipt_bytes: tuple[bytes, ...]
    txids: tuple[bytes, ...]
    size: int


Waiting = Callable[[bytes], DecodedTransaction | None]
"""Digest -> that transaction, taken apart when it came into a pool; None when it is in none."""


def _nothing_waits(_: bytes) -> DecodedTransaction | None:
    """A ledger without a pool."""
    return None


class _Invalid(Exception):
    """A transaction that may not be in a block."""


class Ledger:
    """One chain from genesis on. See the module text for what is executed when."""

    def __init__(
        self,
        genesis: Genesis,
        chain: int,
        contract: Contract,
        verified: VerifiedTransactions | None = None,
        verify: Verify = crypto.verify,
        archive: Callable[[int], bytes | None] | None = None,
        freeze_every: int = 0,
    ) -> None:
        """Start at height 0.

        verified   signatures known to hold, shared with the shell's threads
        archive    gives CertifiedBlock bytes by height once they left memory; None: only recent ones are served
        freeze_every  heights that are multiples of it leave a frozen state, the last FROZEN_MAX are kept; 0: none do
        """
        self.genesis = genesis
        self.chain = chain
        self.network = network_of(genesis)
        self.verified = VerifiedTransactions() if verified is None else verified
        self.contract = contract
        self.waiting: Waiting = _nothing_waits
        self._verify = verify
        self._archive = archive
        self._freeze_every = freeze_every
        self.frozen: list[FrozenState] = []
        "States that can be stored and sent to laggards, oldest first."
        self._tree = StateTree()
        self.state = FinalState(self._tree)
        state = State(self._tree, chain)
        contract.genesis(state, genesis, chain)
        assert not state.messages(), "genesis sends nothing"
        self._tree.merge(state.overlay)
        self.changes: list[Change] = []
        "Of the validators of this chain, the last CHANGES_MAX, ascending: what a light client follows by."
        self._seat(self._seats_after(self.state))
        self.head = Head(0, self.network, None, genesis.protocol_start_s)
        self._word: DecodedTransaction | None = None
        "The regulator's Resume that the next block begins with (CONSENSUS.md 8.8)."
        self._schedule: Schedule | None = None
        self._executed: dict[bytes, _Executed] = {}
        self._blocks: dict[int, bytes] = {}
        self._recent: dict[int, _Recent] = {}
        self._recent_bytes = 0
        self._where: dict[bytes, tuple[int, int]] = {}
        "txid -> (height, index), for the heights in `_recent`."

    # Building and checking -------------------------------------------------------------------------------

    def build(self, view: int, proposer: int, time_s: int, txs: Sequence[bytes]) -> Block:
        """Execute `txs` on top of the head and return the block of those that may be in one.

        Transactions that may not (nonce, signature, chain, form) are left out; the caller forgets them. The
        block may be empty: then there is nothing to propose. `time_s` is raised to the previous block's time.
        """
        context = self._context(max(time_s, self.head.time_s), proposer, view)
        state = self._opened(context)
        if self._word is not None:
            txs = [self._word.raw, *txs]
        kept: list[DecodedTransaction] = []
        receipts: list[Receipt] = []
        size = 0
        for raw in txs:
            try:
                tx = self._admit(raw, merkle.leaf_hash(raw))
                if tx.kind == RESUME and not self._is_word(tx):
                    continue  # nobody goes on under it here
                receipts.append(self._execute(state, context, tx))
            except _Invalid:
                continue
            size += len(raw)
            if size > BLOCK_SIZE_MAX or len(kept) == BLOCK_TRANSACTIONS_MAX:
                raise ValueError("more transactions than a block can hold")
            kept.append(tx)
        root = root_of([tx.digest for tx in kept])
        executed, header_bytes = self._close(state, context, view, kept, receipts, root)
        self._keep(block_hash(self.network, header_bytes), executed)
        return Block(header_bytes, [tx.raw for tx in kept])

    def check(self, block: Block) -> str | None:
        """None when the block may follow the head; otherwise the first reason why not (CONSENSUS.md 3.2)."""
        hash_ = block_hash(self.network, block.header)
        if hash_ in self._executed:
            # The hash covers the header only; the transactions are compared by their root.
            known = self._executed[hash_]
            return None if block.transactions == [tx.raw for tx in known.transactions] else "tx-root"
        try:
            header = codec.decode(block.header, Header, HEADER_SIZE_MAX)
        except DecodeError:
            return "header-form"
        digests = [merkle.leaf_hash(tx) for tx in block.transactions]
        reason = self._check_place(header) or self._check_transactions(header, block, digests)
        if reason:
            return reason
        word = self._word_in(block)
        if (word is None) != (self._word is None) or not (word is None or self._is_word(word[0])):
            return "resume"
        context = self._context(header.time_s, header.proposer, header.view)
        state = self._opened(context)
        decoded: list[DecodedTransaction] = []
        receipts: list[Receipt] = []
        for raw, digest in zip(block.transactions, digests, strict=True):
            try:
                tx = self._admit(raw, digest)
                receipts.append(self._execute(state, context, tx))
            except _Invalid as invalid:
                return str(invalid)
            decoded.append(tx)
        executed, ours = self._close(state, context, header.view, decoded, receipts, header.tx_root)
        if ours != block.header:
            return _difference(header, executed.header)
        self._keep(hash_, executed)
        return None

    def apply(self, certified: bytes, certificate_known: bool = False) -> AppliedBlock:
        """Make the next block final. `certificate_known`: its votes were checked by the caller.

        Raises DecodeError when the bytes, the height or the certificate are wrong (the sender's fault,
        nothing changed) and CorruptionError when the certificate holds but the block does not.
        """
        parts, block, header, certificate = decode_certified(certified)
        if header.height != self.head.height + 1 or header.chain != self.chain:
            raise DecodeError(f"expected height {self.head.height + 1}, got {header.height}")
        hash_ = block_hash(self.network, block.header)
        word = self._word_in(block)
        if not certificate_known:
            publics = self.publics if word is None else [seat.validator.public for seat in word[1]]
            reason = check_certificate(certificate, self.network, header, hash_, publics, self._verify)
            if reason:
                raise DecodeError(reason)
        known = self._executed.get(hash_)
        if (known is None or block.transactions != [tx.raw for tx in known.transactions]) and root_of(
            [merkle.leaf_hash(tx) for tx in block.transactions]
        ) != header.tx_root:
            raise DecodeError("tx-root")  # the certificate covers the header only: a forged body is the sender's fault
        if word is not None and not self._is_word(word[0]):
            self._go_on(*word)
        refused = self.check(block)
        if refused is not None:
            raise CorruptionError(f"certified block {header.height} is refused: {refused}")
        executed = self._executed[hash_]
        self._tree.merge(executed.state.overlay)
        self._executed.clear()
        self.head = Head(header.height, hash_, header, header.time_s)
        seats = self._seats_after(self.state)
        if word is not None or tuple(seat.validator for seat in seats) != self.validators:
            raw = b"" if word is None else word[0].raw
            change = Change(block.header, parts.certificate, [seat.validator for seat in seats], raw)
            self.changes = [*self.changes, change][-CHANGES_MAX:]
        self._word = None
        self._seat(seats)
        self._remember(header.height, certified, block.header, parts.certificate, executed)
        if self._freeze_every and header.height % self._freeze_every == 0:
            # Every validator freezes at the same heights, so that a laggard can be sent one state by several.
            state = FrozenState(self._tree, block.header, parts.certificate, self.changes)
            self.frozen = [*self.frozen, state][-FROZEN_MAX:]
        messages = executed.state.messages()
        return AppliedBlock(header, executed.receipts, messages, hash_, executed.transactions)

    def resume(self, raw: bytes) -> str:
        """Make the next block under the list that the regulator's Resume names (CONSENSUS.md 8.8); "" or why not."""
        try:
            tx = self._admit(raw, merkle.leaf_hash(raw))
        except _Invalid as invalid:
            return str(invalid)
        reason, seats = self._named_by(tx)
        if not reason:
            self._go_on(tx, seats)
        return reason

    @property
    def resuming(self) -> bool:
        """Whether the next block begins with the regulator's word that this ledger was told."""
        return self._word is not None

    def replay(self, certified: bytes) -> AppliedBlock:
        """Apply a block of our own log at start; everything is checked as if it came from a peer."""
        return self.apply(certified)

    @property
    def schedule(self) -> Schedule:
        """Who leads the views of the height after the head; from the final state alone (CONSENSUS.md 6.1)."""
        height = self.head.height + 1
        if self._schedule is None or self._schedule.height != height:
            context = self.next_context()
            state = self.state if self._word is None else self._resumed(context, self._word)
            self._schedule = Schedule(height, self.contract.order(state, context))
        return self._schedule

    def next_context(self) -> BlockContext:
        """Of the height after the head, before anybody has proposed: network, chain, height and validators."""
        return self._context(self.head.time_s, 0, 0)

    def check_final(self, manifest: Manifest) -> Header:
        """The header of a state that may be installed here: final, of this chain, above the head. Raises DecodeError.

        CONSENSUS.md 4.6.5: the certificate is what is believed, whoever sent it.
        """
        header, certificate = open_manifest(manifest)
        if header.version != HEADER_VERSION or header.chain != self.chain:
            raise DecodeError("manifest-chain")
        if header.height <= self.head.height:
            raise DecodeError("manifest-old")
        hash_ = block_hash(self.network, manifest.header)
        publics = self._publics_at(header.height, manifest.changes)
        reason = check_certificate(certificate, self.network, header, hash_, publics, self._verify)
        if reason:
            raise DecodeError(reason)
        return header

    def _publics_at(self, height: int, changes: Sequence[Change]) -> tuple[bytes, ...]:
        """Keys of the validators of a height above the head, as far as these changes lead. Raises DecodeError."""
        publics, at = self.publics, self.head.height
        for change in changes:
            before = codec.decode(change.header, Header, HEADER_SIZE_MAX).height
            if before <= self.head.height:
                continue
            if not at < before <= height:
                raise DecodeError("change-height")
            regulator = self.genesis.regulator
            from_height, _ = follow(change, self.network, self.chain, publics, regulator, self._verify)
            at = before
            if from_height <= height:  # the header of the state itself may be the last one under the old list
                publics = tuple(validator.public for validator in change.validators)
        return publics

    def install(self, manifest: Manifest, tree: StateTree) -> FrozenState:
        """Go on from a final state instead of from the blocks before it. Raises DecodeError, and nothing has changed.

        `tree` is used up. What blocks below say (receipts, messages) is not known here afterwards.
        """
        header = self.check_final(manifest)
        if len(tree) != manifest.size or tree.root() != header.state_root:
            raise DecodeError("state-root")
        self._tree.adopt(tree)
        self._executed.clear()
        self._blocks.clear()
        self._recent.clear()
        self._where.clear()
        self._recent_bytes = 0
        self._schedule = self._word = None
        self.head = Head(header.height, block_hash(self.network, manifest.header), header, header.time_s)
        self._recent[header.height] = _Recent(manifest.header, manifest.certificate, (), (), 0)
        self.changes = list(manifest.changes)
        self._seat(self._seats_after(self.state))
        self.frozen = [FrozenState(self._tree, manifest.header, manifest.certificate, self.changes)]
        return self.frozen[0]

    # Questions --------------------------------------------------------------------------------------------

    def next_nonce(self, signer: bytes) -> int:
        """The nonce a key must use next in the final state; negative when the key is unknown."""
        return self.contract.next_nonce(self.state, signer)

    def certified(self, height: int) -> bytes | None:
        """CertifiedBlock bytes of a final height, from memory or from the archive."""
        found = self._blocks.get(height)
        if found is None and self._archive is not None and 0 < height <= self.head.height:
            found = self._archive(height)
        return found

    def state_proof(self, keys: Sequence[bytes]) -> StateProof | None:
        """Proof of these keys at the head; keys never written are left out. None at height 0 (no certificate)."""
        recent = self._recent.get(self.head.height)
        if recent is None:
            return None
        entries: list[tuple[int, bytes, bytes, list[bytes]]] = []
        for key in dict.fromkeys(keys):
            value = self.state.get(key)
            if value is not None:
                slot, path = self.state.proof(key)
                entries.append((slot, key, value, path))
        return StateProof(recent.header_bytes, recent.certificate_bytes, self.state.size(), entries)

    def find_receipt(self, txid: bytes) -> int | None:
        """Height at which a transaction became final, if that is recent enough to prove."""
        where = self._where.get(txid)
        return None if where is None else where[0]

    def receipt_proof(self, height: int, txid: bytes) -> ReceiptProof | None:
        """Proof of a transaction's outcome; None when it is not in a recent block at `height`."""
        where = self._where.get(txid)
        if where is None or where[0] != height:
            return None
        recent = self._recent[height]
        index = where[1]
        leaves = [merkle.leaf_hash(data) for data in recent.receipt_bytes]
        return ReceiptProof(
            recent.header_bytes,
            recent.certificate_bytes,
            recent.receipt_bytes[index],
            index,
            len(leaves),
            merkle.proof(leaves, index),
        )

    # Inside -----------------------------------------------------------------------------------------------

    def _context(self, time_s: int, proposer: int, view: int) -> BlockContext:
        return BlockContext(self.network, self.chain, self.head.height + 1, time_s, proposer, self.validators, view)

    def _seats_after(self, state: StateReader) -> tuple[Seat, ...]:
        """Whose votes make the block after `state` final."""
        return self.contract.seats(state) or self.genesis.seats(self.chain)

    def _seat(self, seats: tuple[Seat, ...]) -> None:
        """CONSENSUS.md 8.1: the list of the next height, and nobody else, proposes it, votes on it and certifies it."""
        self.validators = tuple(seat.validator for seat in seats)
        self.publics = tuple(validator.public for validator in self.validators)
        self.numbers = tuple(seat.number for seat in seats)

    def _named_by(self, tx: DecodedTransaction) -> tuple[str, tuple[Seat, ...]]:
        """("", the list that a Resume names for the next height), or why it names none."""
        state = State(self._tree, self.chain)
        reason = self.contract.resume(state, self.next_context(), self.head.block_hash, tx)
        if not reason and tx.nonce != self.contract.next_nonce(state, tx.signer):
            reason = "nonce"
        return reason, () if reason else self._seats_after(state)

    def _word_in(self, block: Block) -> tuple[DecodedTransaction, tuple[Seat, ...]] | None:
        """The Resume that a block begins with, if it holds at this head, and the list that must certify the block."""
        raw = word_of(block.transactions)
        if not raw:
            return None
        try:
            tx = self._admit(raw, merkle.leaf_hash(raw))
        except _Invalid:
            return None
        reason, seats = self._named_by(tx)
        return None if reason else (tx, seats)

    def _go_on(self, word: DecodedTransaction, seats: tuple[Seat, ...]) -> None:
        self._word = word
        self._executed.clear()
        self._schedule = None
        self._seat(seats)

    def _is_word(self, tx: DecodedTransaction) -> bool:
        return self._word is not None and tx.digest == self._word.digest

    def _resumed(self, context: BlockContext, word: DecodedTransaction) -> State:
        state = State(self._tree, self.chain)
        refused = self.contract.resume(state, context, self.head.block_hash, word)
        assert not refused, refused
        return state

    def _opened(self, context: BlockContext) -> State:
        """The state in which a block's transactions begin."""
        state = State(self._tree, self.chain) if self._word is None else self._resumed(context, self._word)
        self.contract.begin(state, context)
        return state

    def _check_place(self, header: Header) -> str:
        """The header's fields that do not depend on execution."""
        head = self.head
        if header.version != HEADER_VERSION:
            return "version"
        if header.chain != self.chain:
            return "chain"
        if header.height != head.height + 1:
            return "height"
        if header.previous != head.block_hash:
            return "previous"
        if header.term != term_of(header.height):
            return "term"
        if header.proposer != self.schedule.leader(header.height, header.view):
            return "proposer"
        if header.time_s < head.time_s:  # CONSENSUS.md 3.2: time never runs backwards
            return "time"
        return ""

    def _check_transactions(self, header: Header, block: Block, digests: Sequence[bytes]) -> str:
        """Number, size and root of the transactions."""
        if header.tx_count != len(block.transactions) or not 0 < header.tx_count <= BLOCK_TRANSACTIONS_MAX:
            return "tx-count"
        if sum(len(tx) for tx in block.transactions) > BLOCK_SIZE_MAX:
            return "block-size"
        if root_of(digests) != header.tx_root:
            return "tx-root"
        return ""

    def _admit(self, raw: bytes, digest: bytes) -> DecodedTransaction:
        """Decode a transaction and make sure of its chain and signature. Raises _Invalid."""
        try:
            tx = self.waiting(digest) or decode_transaction(raw)
        except DecodeError:
            raise _Invalid("tx-form") from None
        if tx.chain != self.chain:
            raise _Invalid("tx-chain")
        if tx.digest not in self.verified:
            if not is_signed(tx, self.network, self._verify):
                raise _Invalid("tx-signature")
            self.verified.add(tx.digest)
        return tx

    def _execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> Receipt:
        """Run one transaction; a refusal leaves only its nonce behind. Raises _Invalid for a wrong nonce."""
        if not self.contract.consume_nonce(state, tx.signer, tx.nonce):
            raise _Invalid("nonce")
        mark = state.savepoint()
        code = "" if self._is_word(tx) else self.contract.execute(state, context, tx)
        if code:
            state.rollback(mark)
        return Receipt(tx.txid, code[:REASON_LENGTH_MAX])

    def _close(
        self,
        state: State,
        context: BlockContext,
        view: int,
        txs: list[DecodedTransaction],
        receipts: list[Receipt],
        tx_root: bytes,
    ) -> tuple[_Executed, bytes]:
        """The header over what was executed, and its bytes. `tx_root`: that of `txs`."""
        receipt_bytes = tuple(codec.encode(receipt) for receipt in receipts)
        header = Header(
            HEADER_VERSION,
            self.chain,
            context.height,
            self.head.block_hash,
            term_of(context.height),
            view,
            context.time_s,
            context.proposer,
            tx_root,
            root_of([merkle.leaf_hash(data) for data in receipt_bytes]),
            state.root(),
            messages_root(state.messages()),
            self.contract.inbox_cursor(state),
            self.contract.rules_version(state),
            len(txs),
            list_hash([seat.validator for seat in self._seats_after(state)]),
        )
        return _Executed(header, state, tuple(txs), tuple(receipts), receipt_bytes), codec.encode(header)

    def _keep(self, hash_: bytes, executed: _Executed) -> None:
        """Remember an outcome until its height is final; the oldest goes when a height has too many."""
        if len(self._executed) >= SPECULATIVE_MAX:
            del self._executed[next(iter(self._executed))]
        self._executed[hash_] = executed

    def _remember(
        self, height: int, certified: bytes, header_bytes: bytes, certificate_bytes: bytes, executed: _Executed
    ) -> None:
        """Keep what proofs about this block need; forget the oldest block beyond the limit."""
        txids = tuple(tx.txid for tx in executed.transactions)
        self._blocks[height] = certified
        self._recent[height] = _Recent(header_bytes, certificate_bytes, executed.receipt_bytes, txids, len(certified))
        self._recent_bytes += len(certified)
        for index, txid in enumerate(txids):
            self._where[txid] = (height, index)
        while len(self._recent) > RECENT_BLOCKS_MAX or (
            self._recent_bytes > RECENT_BYTES_MAX and len(self._recent) > 1
        ):
            first = next(iter(self._recent))
            old = self._recent.pop(first)
            self._recent_bytes -= old.size
            self._blocks.pop(first, None)
            for txid in old.txids:
                self._where.pop(txid, None)


def _difference(theirs: Header, ours: Header) -> str:
    """Name of the first root or counter in which a block differs from its execution."""
    names = ("tx_root", "receipt_root", "state_root", "outbox_root", "inbox_cursor", "rules_version", "next_validators")
    for name in names:
        if getattr(theirs, name) != getattr(ours, name):
            return name.replace("_", "-")
    return "header"
