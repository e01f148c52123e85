"""One validator of one chain: ledger, replica, stores and peers wired together.

A station runs one for its area, a master one for the main chain; what differs between them is handed in (the
contract) or hooked on (`on_commit`). Every output of the replica is carried out in the order of its
type: what is to persist is on disk before anything is sent, and a block is on disk before it is applied and told.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from watt_chain import codec
from watt_chain.block import decode_certified, message_proofs
from watt_chain.codec import DecodeError
from watt_chain.contract.kinds import INBOX_MESSAGES_MAX
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import Genesis, Validator, faults_tolerated, open_genesis, quorum
from watt_chain.ledger import AppliedBlock, Contract, CorruptionError, Ledger
from watt_chain.pbft import Evidence, Output, Replica, ReplicaConfig
from watt_chain.pbft.messages import GOSSIP, kind_of
from watt_chain.snapshot import FrozenState
from watt_chain.transaction import (
    DecodedTransaction,
    VerifiedTransactions,
    decode_transaction,
    make_transaction,
)

from watt_node import resumption
from watt_node.arrivals import Arrivals
from watt_node.blocklog import StoredBlock
from watt_node.channel import PROTOCOL, Hello
from watt_node.clock import ProtocolClock, ReplicaTime, monotonic_ms
from watt_node.config import (
    ConfigError,
    ListenSection,
    NetworkSection,
    NodeSection,
    PeerSection,
    TlsSection,
)
from watt_node.disk import RealDisk, StoreError
from watt_node.elector import Elector
from watt_node.keys import read_secret
from watt_node.links import FAULTS
from watt_node.log import Log
from watt_node.names import chain_name, node_name
from watt_node.peers import Peers
from watt_node.proofs import receipt_proof_of
from watt_node.report import reported
from watt_node.service import Fatal
from watt_node.tally import Tally
from watt_node.vault import ARCHIVE, Keeping, Vault
from watt_node.verify import VerifyPool

T = TypeVar("T")

MAX_PROOF_KEYS = 64
"""Keys of one state proof: a household asks for a handful."""
BATCHES_PER_CALL = 16
"""Inbox batches read and proven in one go, before others get a turn."""
BATCH_MESSAGES_MAX = INBOX_MESSAGES_MAX
"""Messages of one batch: what fits in one Inbox transaction; a block that sent more makes several batches."""
OWN_RETRY_S = 10
"""A transaction of our own that is not final after this long is handed in again (it may have left a full pool)."""
REPLAY_YIELD = 50
"""Blocks replayed at start before signals get a turn."""
DOUBT_LOOK_S = 1.0
"""How often a validator that does not trust its memory looks whether it can do something about that."""
REJOIN = "Rejoin"
"""Kind of the transaction that ends a doubt once it is final (CONSENSUS.md 4.7.6)."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The sections of the configuration that every validator has."""

    network: NetworkSection
    node: NodeSection
    tls: TlsSection
    listen: ListenSection
    peers: Sequence[PeerSection]


def load_genesis(section: NetworkSection) -> tuple[Genesis, bytes]:
    """The genesis document and the network's name; ConfigError when the file is not one by this regulator."""
    try:
        return open_genesis(section.genesis.read_bytes(), bytes.fromhex(section.regulator))
    except OSError as error:
        raise ConfigError(f"{section.genesis}: cannot read the genesis file: {error.strerror}") from None
    except DecodeError as error:
        raise ConfigError(f"{section.genesis}: {error}") from None


class Node:
    """A running validator. Create, hook callbacks on, `start`, later `stop`; all within one event loop."""

    def __init__(self, settings: NodeSettings, contract: Contract, clock: ProtocolClock, log: Log) -> None:
        """Reads genesis and key; ConfigError when they do not fit together. Opens no port and no log file yet."""
        section = settings.node
        self.chain = section.chain
        self.index = section.index
        self.name = node_name(section.chain, section.index)
        self.clock = clock
        self.data: Path = section.data
        self.log = log.bind(self.name)
        self.genesis, self.network = load_genesis(settings.network)
        try:
            self.key = PrivateKey.from_bytes(read_secret(section.key))
        except ValueError as error:
            raise ConfigError(f"{section.key}: {error}") from None
        _check_membership(self.genesis, settings, self.key)
        self.verified = VerifiedTransactions()
        self.keeping = keeping_of(section)
        every = self.keeping.snapshot_blocks
        try:
            self.ledger = Ledger(
                self.genesis, self.chain, contract, self.verified, archive=self.block, freeze_every=every
            )
        except (ValueError, DecodeError) as error:  # its rules are of another version, or rule out what they must not
            raise ConfigError(f"{settings.network.genesis}: this version cannot use it: {error}") from None
        self.pool_of_threads = VerifyPool()
        self._settings = settings
        self._vault: Vault | None = None
        self._writing: asyncio.Task[None] | None = None
        "The snapshot being written."
        self._doubting: asyncio.Task[None] | None = None
        self._replica: Replica | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None
        self._new_block = asyncio.Event()
        self._commit_hooks: list[Callable[[bytes, AppliedBlock], None]] = []
        self._own: dict[int, tuple[bytes, int]] = {}
        self._word = b""
        self._listed = self.ledger.validators
        self._time = ReplicaTime(clock)
        self._failed: Exception | None = None
        self.vouch: Callable[[bytes], bool] = lambda _: True
        "Whether we support a new block with this transaction now; set before `start` (ReplicaConfig.vouch)."
        self.arrivals = Arrivals(self.ledger, self.pool_of_threads, self, self._count)
        self.counters = Tally()
        self._faults: dict[int, Tally] = {}
        "Messages of each validator, by number, that the replica rejected."
        self.outcomes: dict[str, int] = {}
        "Transactions in blocks since the start, by the contract's code; the codes are a fixed list."
        self.elector = Elector(self.ledger, self.key, self.evidence, self.submit_own, self.log.bind("elector"))
        hello = Hello(PROTOCOL, "serve", self.network, self.chain, self.name)
        self.peers = Peers(self, hello, self.index, settings.listen, list(settings.peers), settings.tls, self.log)

    # --- life

    @property
    def validators(self) -> tuple[Validator, ...]:
        """The list of the next height."""
        return self.ledger.validators

    def on_commit(self, hook: Callable[[bytes, AppliedBlock], None]) -> None:
        """`hook(certified_block_bytes, applied)` after each final block is on disk and applied; not during replay."""
        self._commit_hooks.append(hook)

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.data

    async def start(self) -> None:
        """Replay the block log, restore the votes, listen and connect; StoreError / ConfigError when it cannot."""
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.data}: cannot use the data folder: {error.strerror}") from None
        self._vault = Vault(RealDisk(self.data), self.chain, self.network, self.keeping)
        for number, _ in enumerate(self._vault.load(self.ledger)):
            if number % REPLAY_YIELD == 0:
                await asyncio.sleep(0)
        self._word = resumption.begin(self.data, self.ledger)
        self._find_key()
        self._replica = self._make_replica(self._vault)
        self._tell_reports()
        await self.peers.start()
        self.log.info("listening", port=self.peers.port, height=self.ledger.head.height)
        self._expire()
        self.elector.start()
        self._write_snapshot()
        self._doubting = asyncio.ensure_future(self._end_doubt())

    async def stop(self) -> None:
        """Close connections and files; nothing is lost that was answered."""
        await self.elector.stop()
        await self.peers.stop()
        if self._timer is not None:
            self._timer.cancel()
        await self.arrivals.stop()
        self.pool_of_threads.close()
        self._replica = None
        if self._doubting is not None:
            self._doubting.cancel()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._vault is not None:
            self._vault.close()
        self._vault = None

    def _tell_reports(self) -> None:
        """What the stores found, for the log."""
        assert self._vault is not None
        for event, fields in self._vault.reports:
            level = {"torn-tail-cut": self.log.warning, "state-installed": self.log.info}.get(event, self.log.error)
            level(event, **fields)
        self._vault.reports.clear()

    async def _end_doubt(self) -> None:
        """While this validator does not trust its memory: hand in a transaction of its own, until one is final.

        The transaction is new (32 random bytes), so a block that holds it is younger than this process.
        """
        told = ""
        handed = (b"", -1)
        while True:
            doubt = "" if self._replica is None else self._replica.doubt
            if doubt != told:
                event, fields = ("silent", {"reason": doubt}) if doubt else ("speaks-again", {})
                self.log.warning(event, **fields)
                told = doubt
            # Nobody has a block yet: the network is being founded, and the others' word is what counts (4.7.7).
            next_nonce = self.ledger.next_nonce(self.key.public)
            # A call under a key that the list has replaced since is never final: the new key makes another.
            is_out = handed[0] == self.key.public and handed[1] >= next_nonce
            if doubt and self.ledger.head.height and next_nonce >= 0 and not is_out:
                handed = (self.key.public, next_nonce)
                tx = make_transaction(self.key, self.network, REJOIN, self.chain, next_nonce, [os.urandom(32)])
                decoded = decode_transaction(tx)
                self.verified.add(decoded.digest)
                self._step(lambda replica, _, decoded=decoded: replica.pledge(decoded.txid))  # type: ignore[misc]
                self._own[next_nonce] = (tx, monotonic_ms())
                await self.submit(tx)
            self._retry_own()
            if self._word and self.ledger.resuming:  # a pool forgets; the others' may never have had it
                await self.submit(self._word)
            await asyncio.sleep(DOUBT_LOOK_S)

    # --- transactions

    async def submit(self, tx: bytes, shared: bool = False) -> str:
        """Verify and pool a transaction; `shared` says that every validator has heard it by itself (one broker).

        "" when taken; "duplicate" when it waits already, "final" when it is in a block, "busy" when there is too much
        to verify; any other reason means that it cannot be taken as it is.
        """
        if self._replica is None:
            return self._count("starting")
        return await self.arrivals.take(tx, shared)

    async def deliver(self, txs: Sequence[bytes]) -> int:
        """Transactions that every validator hears by itself; how many had a bad form or signature."""
        return 0 if self._replica is None else await self.arrivals.take_all(txs, shared=True)

    async def submit_own(self, kind: str, fields: object) -> str:
        """Sign `kind` with the validator key at the next free nonce and submit it; "" or the reason.

        It is handed in again until it is in a block, so that a lost one leaves no gap in the nonces.
        """
        nonce = max(self.ledger.next_nonce(self.key.public), max(self._own, default=-1) + 1)
        if nonce < 0:
            return "signer-unknown"
        tx = make_transaction(self.key, self.network, kind, self.chain, nonce, fields)
        self.verified.add(decode_transaction(tx).digest)
        self._own[nonce] = (tx, monotonic_ms())
        reason = await self.submit(tx)
        if reason not in ("", "duplicate"):
            self._own.pop(nonce, None)
        return reason

    def evidence(self) -> tuple[Evidence, ...]:
        """Proofs of equivocation that the replica has seen since the start."""
        return () if self._replica is None else self._replica.evidence

    def own_pending(self) -> int:
        """Transactions of the validator key that are not in a block yet."""
        return len(self._own)

    def hand_in(self, txs: Sequence[DecodedTransaction], shared: bool = False) -> list[str]:
        """`arrivals.Door`: what is not known to be signed waits for attestations."""
        reasons = self._step(lambda replica, now_ms: replica.submit_all(txs, now_ms, False, shared))
        return ["stopping"] * len(txs) if reasons is None else reasons

    def may_wait(self, digest: bytes) -> bool:
        """`arrivals.Door`."""
        return self._replica is not None and not self._replica.must_check(digest)

    def blame(self, sender: int, faults: int) -> None:
        """`arrivals.Door`."""
        self.peers.blame(sender, faults)

    def bad_signature(self, tx: DecodedTransaction) -> None:
        """`arrivals.Door`."""
        self._step(lambda replica, now_ms: replica.refuse_signature(tx, now_ms))

    def _retry_own(self) -> None:
        """Hand in again what is not final after OWN_RETRY_S; forget what is."""
        if not self._own:
            return
        next_nonce = self.ledger.next_nonce(self.key.public)
        now = monotonic_ms()
        for nonce in sorted(self._own):
            tx, handed_ms = self._own[nonce]
            if nonce < next_nonce:
                del self._own[nonce]
            elif now - handed_ms > OWN_RETRY_S * 1000:
                self._own[nonce] = (tx, now)
                self.hand_in([decode_transaction(tx)])

    def _count(self, reason: str) -> str:
        return self.counters.count(reason)

    # --- questions

    def height(self) -> int:
        """Height of the last final block."""
        return self.ledger.head.height

    def block(self, height: int) -> bytes | None:
        """CertifiedBlock bytes of a height from the block log."""
        return None if self._vault is None else self._vault.block(height)

    def stored(self, height: int) -> StoredBlock | None:
        """A block of the log with its outcome."""
        return None if self._vault is None else self._vault.stored(height)

    async def next_block(self) -> None:
        """Returns when another block has become final."""
        await self._new_block.wait()

    def receipt_proof(self, txid: bytes) -> bytes | None:
        """Encoded ReceiptProof of a final transaction; None when no block that is kept here holds it."""
        height = self.ledger.find_receipt(txid)
        proof = None if height is None else self.ledger.receipt_proof(height, txid)
        if proof is None and self._vault is not None:
            found = self._vault.find(txid)
            stored = None if found is None else self._vault.stored(found)
            proof = None if stored is None else receipt_proof_of(stored, txid)
        return None if proof is None else codec.encode(proof)

    def state_proof(self, keys: Sequence[bytes]) -> bytes | None:
        """Encoded StateProof of at most MAX_PROOF_KEYS keys at the head; None before the first block."""
        proof = self.ledger.state_proof(list(keys)[:MAX_PROOF_KEYS])
        return None if proof is None else codec.encode(proof)

    def messages(self, target_chain: int, from_sequence: int) -> list[tuple[int, bytes]]:
        """(last sequence, Inbox batch) of up to BATCHES_PER_CALL blocks that sent to `target_chain`, ascending."""
        if self._vault is None:
            return []
        found: list[tuple[int, bytes]] = []
        for last_sequence, height in self._vault.senders(target_chain, from_sequence, BATCHES_PER_CALL):
            stored = self._vault.stored(height)
            assert stored is not None, "the index names only blocks that are kept"
            parts, block, _, _ = decode_certified(stored.certified)
            size, entries = message_proofs(stored.out_messages(), target_chain)
            first_sequence = last_sequence - len(entries) + 1
            for start in range(0, len(entries), BATCH_MESSAGES_MAX):
                part = entries[start : start + BATCH_MESSAGES_MAX]
                last = first_sequence + start + len(part) - 1
                if last >= from_sequence:
                    found.append((last, codec.encode([block.header, parts.certificate, size, part])))
        return found

    def status(self) -> dict[str, object]:
        """What `status.json` shows; also the moment to look after our own waiting transactions."""
        self._retry_own()
        self._time.refresh()
        n = len(self.validators)
        head = self.ledger.head
        replica = {} if self._replica is None else self._replica.status()
        return {
            "node": self.name,
            "chain": self.chain,
            "height": head.height,
            "block": head.block_hash.hex()[:16],
            "block_time_s": head.time_s,
            "n": n,
            "f": faults_tolerated(n),
            "q": quorum(n),
            "crashes_survived": n - quorum(n),
            "validators": [validator.name for validator in self.validators],
            "votes": self.key.public in self.ledger.publics,
            "peers": [node_name(self.chain, index) for index in self.peers.connected()],
            "key": self.key.public.hex()[:16],
            "links": self.peers.look(),
            "rejected_from": {
                node_name(self.chain, sender): tally.shown() for sender, tally in sorted(self._faults.items())
            },
            "refused": self.counters.shown(),
            "outcomes": dict(sorted(self.outcomes.items())),
            "connections_refused": self.peers.refused.shown(),
            "frames_dropped": self.peers.dropped(),
            "frames_ignored": self.peers.ignored(),
            "own_pending": len(self._own),
            "election": self.elector.status(),
            "stores": {} if self._vault is None else self._vault.status(),
            "replica": replica,
        }

    def report(self) -> dict[str, object]:
        """What another node's doctor may know (report.py)."""
        return reported(self.status(), self.clock.now_s())

    # --- the replica

    def receive(self, sender: int, frame: bytes) -> None:
        """A consensus frame of validator `sender`; transactions are verified before the replica sees them."""
        if kind_of(frame) == GOSSIP:
            self.arrivals.take_gossip(sender, frame)
            return
        self._step(lambda replica, now_ms: replica.receive(sender, frame, now_ms))

    def _make_replica(self, vault: Vault) -> Replica:
        node = self._settings.node
        try:
            config = ReplicaConfig(
                self.index,
                self.key,
                self._time,
                batch_ms=node.batch_ms,
                transactions_max=node.transactions_max,
                others=tuple(peer.index for peer in self._settings.peers),
                assigned=node.verifiers == "assigned",
                timeout_ms=node.timeout_ms,
                takes_states=self.keeping.retain != ARCHIVE,
                vouch=self.vouch,
            )
            replica = Replica(config, self.ledger)
            replica.restore(vault.records(), monotonic_ms(), vault.floor, *vault.interrupted())
        except (ValueError, DecodeError) as error:
            raise StoreError(f"{self.data / 'votes.log'}: cannot restore: {error}") from None
        return replica

    def _expire(self) -> None:
        self._timer = None
        self._step(lambda replica, now_ms: replica.expire(now_ms))

    def _step(self, act: Callable[[Replica, int], T]) -> T | None:
        """Feed the replica, carry out what it wants, set the timer. None when the node signs nothing (any more)."""
        replica = self._replica
        if replica is None or self._failed is not None:
            return None
        try:
            result = act(replica, monotonic_ms())
            while output := replica.take_output():
                self._carry_out(output)
        except (StoreError, CorruptionError) as error:
            # Disk or ledger can no longer be trusted: sign nothing more, and let the supervisor end the daemon.
            self._failed = error
            failure = error if isinstance(error, StoreError) else Fatal(f"{self.name}: {error}")
            context = {"message": "node stopped", "exception": failure}
            asyncio.get_running_loop().call_exception_handler(context)
            return None
        self._arm(replica)
        return result

    def _carry_out(self, output: Output) -> None:
        vault = self._vault
        assert vault is not None
        vault.carry_out(output, self.peers.send, self._commit)
        if output.commit or output.installed:
            self._tell_reports()
            self._write_snapshot()
        for rejected in output.rejected:
            self._count(rejected.reason)
            self._faults.setdefault(rejected.sender, Tally()).count(rejected.reason)
            if rejected.reason in FAULTS:
                self.peers.blame(rejected.sender)

    def reconsider(self) -> None:
        """What `vouch` answers may have changed."""
        self._step(lambda replica, now_ms: replica.reconsider(now_ms))

    def _find_key(self) -> bool:
        """Use the key in `<key>.next` once the list has it (CONSENSUS.md 8.2); whether that is news."""
        if self.key.public in self.ledger.publics:
            return False
        path = self._settings.node.key.with_name(self._settings.node.key.name + ".next")
        try:
            following = PrivateKey.from_bytes(read_secret(path)) if path.exists() else None
        except (ConfigError, ValueError) as error:
            self.log.error("next-key", reason=error)
            return False
        if following is None or following.public not in self.ledger.publics:
            return False
        self.key = following
        self.elector.use_key(following)
        self._own.clear()  # signed with the old key, which signs nothing any more
        self.log.info("next-key-used", key=path, height=self.ledger.head.height + 1)
        return True

    def _note_list(self) -> None:
        """The list of the chain may have changed with the last block: who is on it, and whether a key of ours is."""
        if self.ledger.validators == self._listed:
            return
        self._listed = self.ledger.validators
        if self._find_key() and self._replica is not None:
            self._replica.add_key(self.key, monotonic_ms())
        votes = self.key.public in self.ledger.publics
        names = " ".join(validator.name for validator in self._listed)
        self.log.info("validators", height=self.ledger.head.height + 1, names=names, votes=votes)

    def _commit(self, certified: bytes, applied: AppliedBlock) -> None:
        self._note_list()
        for tx in applied.transactions:
            if tx.signer == self.key.public:
                self._own.pop(tx.nonce, None)
        self._new_block.set()
        self._new_block = asyncio.Event()
        header = applied.header
        for receipt in applied.receipts:
            code = receipt.code or "accepted"
            self.outcomes[code] = self.outcomes.get(code, 0) + 1
        refused = sum(1 for receipt in applied.receipts if receipt.code)
        self.log.debug("block", height=header.height, txs=header.tx_count, refused=refused, proposer=header.proposer)
        self.elector.advanced()
        for hook in self._commit_hooks:
            hook(certified, applied)

    def _write_snapshot(self) -> None:
        """Store the newest frozen state in a thread, then drop blocks that nobody here needs."""
        vault = self._vault
        if vault is None or (self._writing is not None and not self._writing.done()):
            return
        state = vault.snapshot_due(self.ledger)
        if state is not None:
            self._writing = asyncio.ensure_future(self._write(vault, state))

    async def _write(self, vault: Vault, state: FrozenState) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, vault.write_snapshot, state)
            dropped = vault.prune()
        except StoreError as error:
            self._failed = error
            context = {"message": "node stopped", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            return
        self.log.debug("snapshot", height=state.height, slots=len(state), dropped=dropped)

    def _arm(self, replica: Replica) -> None:
        """A timer for the replica's deadline; one that is later than the timer already set waits for that one."""
        deadline = replica.next_deadline_ms()
        if deadline is None:
            return
        if self._timer is not None:
            if self._timer_ms is not None and self._timer_ms <= deadline:
                return
            self._timer.cancel()
        self._timer_ms = deadline
        delay_s = max(0, deadline - monotonic_ms()) / 1000
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._expire)


def keeping_of(section: NodeSection) -> Keeping:
    """What the configuration says about retention."""
    retain = {"archive": ARCHIVE, "normal": section.retain_blocks, "light": 0}[section.retention]
    return Keeping(retain, section.snapshot_blocks)


def _check_membership(genesis: Genesis, settings: NodeSettings, key: PrivateKey) -> None:
    """Whether the settings describe a validator of genesis, or one that says that it joins; ConfigError otherwise.

    Whether a key is on the list of the chain today is known only once its blocks are.
    """
    section = settings.node
    try:
        validators = genesis.validators(section.chain)
    except KeyError:
        allowed = ", ".join(str(chain) for chain in genesis.chains())
        raise ConfigError(f"node.chain = {section.chain}: allowed is one of {allowed} (genesis)") from None
    n = len(validators)
    name = chain_name(section.chain)
    later = "; with node.joins = true it follows until the list of the chain has it"
    if section.index >= n and not section.joins:
        raise ConfigError(f"node.index = {section.index}: allowed is 0..{n - 1} ({name} has {n} validators){later}")
    if not section.joins and validators[section.index].public != key.public:
        raise ConfigError(
            f"node.key = {section.key}: not the key that genesis names for {name} validator {section.index}{later}"
        )
    wanted = [index for index in range(n) if index != section.index]
    given = sorted(peer.index for peer in settings.peers)
    twice = section.index in given or len({*given}) != len(given)
    if twice or (not section.joins and any(index not in given for index in wanted)):
        raise ConfigError(f"peers: indexes {given}: allowed is each other validator of {name} once: {wanted}")
    if 2 * section.batch_ms > section.timeout_ms:
        raise ConfigError(
            f"node.batch_ms = {section.batch_ms}: allowed is at most half of timeout_ms {section.timeout_ms}"
        )
