"""Transactions on their way: into the pool, to the peers, and into proposals that lack them (CONSENSUS.md 4.1, 4.3)."""

from watt_wire import merkle

from watt_chain.codec import DecodeError
from watt_chain.pbft.attest import Attestations
from watt_chain.pbft.config import (
    GOSSIP_DELAY_MS,
    GOSSIP_REPEAT_COUNT,
    GOSSIP_REPEAT_MS,
    HELP_INTERVAL_MS,
    POOL_AGE_MAX_MS,
)
from watt_chain.pbft.desk import Desk, Throttle
from watt_chain.pbft.inclusion import wanted
from watt_chain.pbft.messages import GOSSIP_BYTES_MAX, GOSSIP_TRANSACTIONS_MAX, Attest, Bodies, Fetch, Gossip
from watt_chain.pbft.round import Proposal, Round
from watt_chain.pool import Pool
from watt_chain.resume import RESUME
from watt_chain.transaction import DecodedTransaction, decode_transaction, is_signed


class Exchange:
    """The pool and its traffic."""

    def __init__(self, desk: Desk, pool: Pool) -> None:
        self._desk = desk
        self.pool = pool
        self.attest = Attestations(desk)
        self._fresh: list[bytes] = []
        "Handed to us only, not yet sent to the peers."
        self._throttle = Throttle(HELP_INTERVAL_MS)
        self._asked = 0
        self.due_ms: int | None = None
        "When the fresh ones are to be sent."
        self.repeat_ms: int | None = None
        "When what waits is to be sent again; on a clock of its own, because heights may be short."

    def take(self, tx: bytes, verified: bool, shared: bool) -> str:
        """Let a transaction wait for a block; "" or the reason why not. Cheap reasons come before the signature."""
        try:
            decoded = decode_transaction(tx)
        except DecodeError:
            return "tx-form"
        return self.take_decoded(decoded, verified, shared)

    def take_decoded(self, tx: DecodedTransaction, verified: bool, shared: bool) -> str:
        """As `take`, for one taken apart before."""
        desk, known = self._desk, self._desk.app.verified
        if tx.chain != desk.app.chain:
            return "tx-chain"
        if tx.kind == RESUME and not desk.app.resuming:  # CONSENSUS.md 8.8: no leader could put it into a block
            return self.pool.refuse("not-first")
        next_nonce = desk.app.next_nonce(tx.signer)
        reason = self.pool.refusal(tx, next_nonce)
        if reason:
            return self.pool.refuse(reason)
        if not verified and tx.digest not in known:
            if self.attest.waits(tx.digest):
                return self.pool.refuse("duplicate")
            if not self._may_believe(tx, shared):
                if not is_signed(tx, desk.app.network, desk.config.verify):
                    self.attest.convict(tx)
                    return "tx-signature"
            elif not self.attest.is_proven(tx.digest):
                self.attest.wait(tx)
                return ""
        known.add(tx.digest)
        self.attest.say(tx.digest)
        if not shared:
            self._fresh.append(tx.raw)
            if self.due_ms is None:
                self.due_ms = desk.now_ms + GOSSIP_DELAY_MS
        self.pool.insert(tx, desk.now_ms, next_nonce)
        if self.repeat_ms is None:
            self.repeat_ms = desk.now_ms + GOSSIP_REPEAT_MS
        return ""

    def _may_believe(self, tx: DecodedTransaction, shared: bool) -> bool:
        """Whether others check this signature for us; never that of one we alone were given, and would pass on."""
        return shared and not self.attest.must_check(tx.digest) and self.attest.has_room(tx)

    def receive_attest(self, message: Attest, frame: bytes) -> None:
        """What others have checked: whatever waited for that may be proposed and voted for."""
        for tx in self.attest.hear(message, frame):
            self.take_decoded(tx, verified=True, shared=True)

    def check_overdue(self) -> None:
        """Check what nobody attested in time."""
        self._check(self.attest.overdue())

    def _check(self, txs: list[DecodedTransaction]) -> None:
        for tx in txs:
            if is_signed(tx, self._desk.app.network, self._desk.config.verify):
                self.take_decoded(tx, verified=True, shared=True)
            else:
                self.attest.convict(tx)
                self.pool.refuse("signature")

    def flush(self) -> None:
        """Send the fresh transactions to everybody, in frames of bounded size."""
        fresh, self._fresh = self._fresh, []
        self.due_ms = None
        self._gossip(fresh)

    def repeat(self) -> None:
        """Send again what waits too long (its first copy may be lost), and forget what waits for ever."""
        now_ms = self._desk.now_ms
        for tx in self.pool.waiting(now_ms - POOL_AGE_MAX_MS, GOSSIP_TRANSACTIONS_MAX):
            self.pool.forget(tx.txid)
        urgent = [tx.raw for tx in wanted(self.pool, self._desk)]
        waiting = [tx.raw for tx in self.pool.waiting(now_ms - GOSSIP_REPEAT_MS, GOSSIP_REPEAT_COUNT)]
        self._gossip(list(dict.fromkeys(urgent + waiting)))
        self.repeat_ms = now_ms + GOSSIP_REPEAT_MS if len(self.pool) else None

    def receive_gossip(self, sender: int, message: Gossip) -> None:
        """Take a peer's transactions; what is wrong with them is held against the peer only if it must have seen it."""
        for tx in message.transactions:
            reason = self.take(tx, verified=False, shared=True)
            if reason in ("tx-form", "tx-chain", "tx-signature"):
                self._desk.reject(reason, sender)

    def fill(self, proposal: Proposal, wanted: bool = False) -> None:
        """Put what the pool has into a proposal; when `wanted`, first check what nobody has attested yet."""
        if wanted:
            self._check(self.attest.wanted(tuple(proposal.waiting)))
        for digest in list(proposal.waiting):
            tx = self.pool.find(digest)
            if tx is not None:
                proposal.fill(digest, tx)

    def vouches(self, proposal: Proposal, required: bool) -> bool:
        """CONSENSUS.md 4.3.7: whether we support what is in a complete proposal. A required block was supported by a
        quorum before: it is not for us to hold it up."""
        return required or all(self._desk.config.vouch(tx) for tx in proposal.bodies if tx is not None)

    def fetch(self, height: int, hash_: bytes, digests: tuple[bytes, ...], peers: tuple[int, ...]) -> None:
        """Ask one of `peers` (indices) for transactions of a block; another one each time."""
        desk = self._desk
        others = [peer for peer in peers if peer != desk.index]
        if others:
            frame, _ = desk.seal(Fetch(desk.app.chain, desk.index, height, hash_, list(digests)))
            desk.send(desk.app.numbers[others[self._asked % len(others)]], frame)
            self._asked += 1

    def serve(self, sender: int, message: Fetch, round_: Round) -> None:
        """Answer the node with the number `sender` that lacks transactions of a block of this height."""
        desk = self._desk
        if not self._throttle.allows(sender, message.block_hash, desk.now_ms):
            return
        known = round_.proposals.get(message.block_hash)
        if not message.digests:
            found = [tx for tx in known.bodies if tx is not None] if known is not None else []
        else:
            bodies = dict(zip(known.digests, known.bodies, strict=True)) if known is not None else {}
            candidates = [bodies.get(digest) or self.pool.find(digest) for digest in message.digests]
            found = [tx for tx in candidates if tx is not None]
        if found:
            frame, _ = desk.seal(Bodies(desk.app.chain, desk.index, message.height, message.block_hash, found))
            desk.send(sender, frame)

    def receive_bodies(self, sender: int, message: Bodies, proposal: Proposal) -> None:
        """Fill a proposal from a peer's answer; anything not asked for is dropped."""
        for tx in message.transactions:
            if not proposal.fill(merkle.leaf_hash(tx), tx):
                self._desk.reject("body-unasked", sender)
                return

    def _gossip(self, transactions: list[bytes]) -> None:
        desk = self._desk
        part: list[bytes] = []
        size = 0
        for tx in [*transactions, b""]:
            full = len(part) == GOSSIP_TRANSACTIONS_MAX or size + len(tx) > GOSSIP_BYTES_MAX
            if part and (full or not tx):
                frame, _ = desk.seal(Gossip(desk.app.chain, desk.index, desk.app.head.height, part))
                desk.broadcast(frame)
                part, size = [], 0
            if tx:
                part.append(tx)
                size += len(tx)
