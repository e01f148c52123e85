"""One replica of PBFT as a pure machine: frames and the time in, `Output` out (CONSENSUS.md 4).

Strategy. One height is in flight; everything about it is in `Round`. A height starts in view 0 with the
leader its schedule names; a view change replaces the leader; a block that any honest replica may hold for
final is carried into every later view by prepared certificates. A replica signs at most one proposal, one
prepare and one commit per height and view, and writes each down before it leaves (persist, send, commit).

The parts: `Agreement` (agreement.py) votes and changes views, `Exchange` moves transactions, `CatchUp` moves
final blocks. This module is the door and the clock: every frame is opened and verified here, every timer ends here.

`CorruptionError` (watt_chain.ledger) is the one thing an input may raise: a quorum certified what we cannot
execute. The shell stops; the records say what was signed.
"""

from collections.abc import Iterable, Sequence

from watt_chain.codec import DecodeError
from watt_chain.pbft.agreement import Agreement
from watt_chain.pbft.config import FUTURE_FRAMES_MAX, ReplicaConfig, Signer
from watt_chain.pbft.desk import Application, Desk
from watt_chain.pbft.diagnosis import missing_in, phase_of
from watt_chain.pbft.exchange import Exchange
from watt_chain.pbft.messages import (
    TALK,
    Attest,
    Bodies,
    Commit,
    Fetch,
    Frame,
    Gossip,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    StateOffer,
    StatePart,
    StateRequest,
    Status,
    SyncBlocks,
    SyncRequest,
    ViewChange,
    is_genuine,
    open_frame,
)
from watt_chain.pbft.outputs import Evidence, Output
from watt_chain.pbft.sync import CatchUp
from watt_chain.pool import Pool
from watt_chain.snapshot import Manifest, StateRange
from watt_chain.transaction import DecodedTransaction

__all__ = ["Application", "Replica", "ReplicaConfig"]


class Replica:
    """A validator's part in ordering the blocks of one chain. Call `restore` first, then feed it."""

    def __init__(self, config: ReplicaConfig, app: Application, pool: Pool | None = None) -> None:
        """`app` is at its last stored block. Whether the key votes is for the list of each height to say."""
        self._desk = Desk(config, app)
        self._app = app
        self.pool = Pool() if pool is None else pool
        app.waiting = self.pool.find_decoded
        self._exchange = Exchange(self._desk, self.pool)
        self._catch_up = CatchUp(self._desk)
        self._agreement = Agreement(self._desk, self._exchange, self._catch_up)
        self._future: dict[int, dict[tuple[str, int], bytes]] = {}
        "Frames for the height after ours, per number of a validator of ours, one of each kind and view."
        self._status_ms: int | None = None
        self._resend_ms: int | None = None
        self._silent = True
        "Whether we were silent after the last input."

    # In ---------------------------------------------------------------------------------------------------

    def restore(
        self,
        records: Iterable[bytes],
        now_ms: int,
        floor: int = 0,
        manifest: Manifest | None = None,
        parts: Sequence[StateRange] = (),
    ) -> None:
        """Take back what was signed before a restart; records of final heights are ignored.

        floor      votes of heights up to this one may have been dropped from the records
        manifest, parts   of a state that was being fetched

        Raises DecodeError for a record that does not read: the log is damaged, and the shell must not start.
        """
        self._begin(now_ms)
        self._agreement.restore(records, floor)
        state = None if manifest is None else self._catch_up.resume(manifest, list(parts))
        if state is not None:
            self._agreement.jump(state)
        self._status_ms = now_ms
        self._end()

    def pledge(self, txid: bytes) -> None:
        """A transaction that this process made and hands in: once it is final, a doubt is over (4.7.6)."""
        self._agreement.silence.pledge(txid)

    @property
    def doubt(self) -> str:
        """Why this validator does not trust what it remembers to have signed; empty when it does."""
        return self._agreement.silence.doubt

    def submit(self, tx: bytes, now_ms: int, verified: bool = False, shared: bool = False) -> str:
        """A transaction from outside; "" when it now waits for a block, else the reason why not.

        verified   its signature was checked by the caller
        shared     every validator hears it by itself (one broker for all), so it is not sent on at once
        """
        self._begin(now_ms)
        reason = self._exchange.take(tx, verified, shared)
        if not reason:
            self._go_on()
        self._end()
        return reason

    def submit_all(
        self, txs: Sequence[DecodedTransaction], now_ms: int, verified: bool = True, shared: bool = False
    ) -> list[str]:
        """As `submit`, for transactions taken apart by the caller: one answer each, one step for all."""
        self._begin(now_ms)
        reasons = [self._exchange.take_decoded(tx, verified, shared) for tx in txs]
        self._go_on()
        self._end()
        return reasons

    def must_check(self, digest: bytes) -> bool:
        """Whether the signature of a transaction that everybody hears is ours to check (CONSENSUS.md 4.9)."""
        return self._exchange.attest.must_check(digest)

    def refuse_signature(self, tx: DecodedTransaction, now_ms: int) -> None:
        """The caller found a signature that does not hold: whoever attested it is convicted."""
        self._begin(now_ms)
        self._exchange.attest.convict(tx)
        self._end()

    def receive(self, sender: int, frame: bytes, now_ms: int) -> None:
        """A frame from the peer that the connection proved to be the node with the number `sender`."""
        self._begin(now_ms)
        self._receive(sender, frame)
        self._end()

    def add_key(self, key: Signer, now_ms: int) -> None:
        """A further key of ours, for the heights whose list has it (CONSENSUS.md 8.2); it has signed nothing yet."""
        self._begin(now_ms)
        self._desk.keys.append(key)
        if not self._desk.votes:
            self._agreement.sit_down()
        self._end()

    def reconsider(self, now_ms: int) -> None:
        """What `config.vouch` answers may have changed: what was held back is looked at again."""
        self._begin(now_ms)
        self._agreement.reconsider()
        self._end()

    def expire(self, now_ms: int) -> None:
        """Do whatever is due at `now_ms`; harmless when nothing is."""
        self._begin(now_ms)
        if self._exchange.due_ms is not None and now_ms >= self._exchange.due_ms:
            self._exchange.flush()
        due_ms = self._exchange.attest.due_ms()
        if due_ms is not None and now_ms >= due_ms:
            self._exchange.attest.speak()
            self._exchange.check_overdue()
            self._agreement.refill()
        self._catch_up.expire()
        if self._resend_ms is not None and now_ms >= self._resend_ms:
            self._resend_ms = None
            self._agreement.resend()
        if self._exchange.repeat_ms is not None and now_ms >= self._exchange.repeat_ms:
            self._exchange.repeat()
        if self._status_ms is None or now_ms >= self._status_ms:
            self._status_ms = now_ms + self._desk.config.status_ms
            self._catch_up.announce(self._agreement.round.view, self._agreement.silence.asks)
        self._agreement.expire()
        self._agreement.propose()
        self._end()

    # Out --------------------------------------------------------------------------------------------------

    def next_deadline_ms(self) -> int | None:
        """When `expire` has something to do, if nothing else happens before."""
        candidates = (
            self._exchange.due_ms,
            self._exchange.repeat_ms,
            self._exchange.attest.due_ms(),
            self._catch_up.due_ms,
            self._resend_ms,
            self._status_ms,
            self._agreement.deadline_ms(),
            self._agreement.batch_due_ms(),
        )
        known = [due for due in candidates if due is not None]
        return min(known) if known else None

    def take_output(self) -> Output:
        """What the shell must do now: persist, then send, then commit."""
        return self._desk.take()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Proofs of equivocation seen since the start."""
        return tuple(self._desk.evidence)

    def status(self) -> dict[str, object]:
        """Where this replica stands and whose votes it waits for; for status files and the doctor."""
        desk, round_ = self._desk, self._agreement.round
        silence, transfer = self._agreement.silence, self._catch_up.transfer
        phase = phase_of(round_, self._agreement.deadline_ms() is not None) if desk.votes else "following"
        leader = self._app.schedule.leader(round_.height, round_.view)
        return {
            "chain": self._app.chain,
            "number": desk.config.number,
            "index": desk.index if desk.votes else None,
            "n": desk.n,
            "f": desk.f,
            "q": desk.q,
            "crashes_survived": desk.n - desk.q,
            "height": self._app.head.height,
            "view": round_.view,
            "leader": leader,
            "phase": phase,
            "silent": silence.reason(),
            "doubt": silence.doubt,
            "missing": missing_in(round_, phase, desk.n, leader, self._agreement.wanted_view),
            "pool": len(self.pool),
            "behind": self._catch_up.behind,
            "fetching": None if transfer is None else [transfer.height, transfer.slots, transfer.manifest.size],
            "peer_heights": self._catch_up.claims(),
            "evidence": len(desk.evidence),
            "rejected": dict(desk.counters),
            "refused": dict(self.pool.refused),
        }

    # Inside -----------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Transactions arrived: they may complete a proposal, or make one."""
        self._agreement.refill()
        self._agreement.propose()

    def _begin(self, now_ms: int) -> None:
        self._desk.now_ms = now_ms

    def _end(self) -> None:
        """After every input: go on with frames that waited for this height, then set the re-send timer."""
        silent = bool(self._agreement.silence.reason())
        if self._silent and not silent:
            self._silent = False
            self._agreement.speak()
        while self._agreement.height_began:
            self._agreement.height_began = False
            self._resend_ms = None
            kept, self._future = self._future, {}
            for peer in [peer for peer in self._desk.numbers if peer in kept]:
                for frame in kept[peer].values():
                    self._receive(peer, frame)
            self._agreement.propose()
        self._silent = bool(self._agreement.silence.reason())
        round_ = self._agreement.round
        if not round_.is_busy() and not len(self.pool):
            self._resend_ms = None
        elif self._resend_ms is None:
            self._resend_ms = self._desk.now_ms + self._agreement.resend_interval_ms()

    def _receive(self, sender: int, data: bytes) -> None:
        desk = self._desk
        if sender == desk.config.number:
            desk.reject("unknown-sender", sender)
            return
        try:
            frame, message = open_frame(data, self._app.chain)
        except DecodeError as error:
            desk.reject(str(error), sender)
            return
        if isinstance(message, TALK):
            self._hear(sender, message)
        elif (isinstance(message, Attest) or self._is_current(sender, message, data)) and desk.votes:
            self._agree(sender, frame, message, data)

    def _agree(self, sender: int, frame: Frame, message: Message, data: bytes) -> None:
        """What a validator says as one; only from who is on the list in force (CONSENSUS.md 4.2.3, 8.1)."""
        desk = self._desk
        index = desk.index_of.get(sender)
        if index is None:
            desk.reject("unknown-sender", sender)
        elif message.sender != index:
            # An attestation is of no height: around a change it may name its sender's index in another list.
            if not isinstance(message, Attest) or message.height == self._app.head.height:
                desk.reject("wrong-sender", sender)
        elif isinstance(message, ViewChange | NewView) and index in self._agreement.round.set_aside:
            desk.reject("set-aside", sender)
        elif not is_genuine(frame, message, self._app.network, self._app.publics[index], desk.config.verify):
            desk.reject("frame-signature", sender)
        else:
            self._dispatch(message, frame, data)

    def _is_current(self, sender: int, message: Message, data: bytes) -> bool:
        """Whether a message of the agreement is about our height; notes who is ahead, helps who is behind.

        Not verified yet: the connection vouches for the sender, and all that follows is a question, a
        throttled answer or a bounded buffer.
        """
        height = self._app.head.height + 1
        if message.height == height:
            return True
        if message.height < height:
            self._catch_up.nudge(sender, message.height)
            return False
        self._catch_up.note(sender, message.height - 1)
        if message.height == height + 1 and sender in self._desk.numbers:
            waiting = self._future.setdefault(sender, {})
            view: int = message.view  # type: ignore[union-attr]  # every message of the agreement has a view
            if len(waiting) < FUTURE_FRAMES_MAX:
                waiting.setdefault((type(message).__name__, view), data)
        return False

    def _dispatch(self, message: Message, frame: Frame, data: bytes) -> None:
        agreement = self._agreement
        match message:
            case Prepare() | Commit():
                agreement.handle_vote(message, frame.signature, data)
            case PrePrepare():
                agreement.handle_pre_prepare(message, data)
            case ViewChange():
                agreement.handle_view_change(message, data)
            case NewView():
                agreement.handle_new_view(message)
            case Attest():
                self._exchange.receive_attest(message, data)
                self._go_on()

    def _hear(self, sender: int, message: Message) -> None:
        """Talk (CONSENSUS.md 4.2.5): from any node at the other end of a connection, on the list or not."""
        agreement = self._agreement
        match message:
            case Fetch():
                if message.height <= self._app.head.height:
                    self._catch_up.help(sender, message.height)
                elif message.height == agreement.round.height:
                    self._exchange.serve(sender, message, agreement.round)
            case Bodies():
                agreement.handle_bodies(sender, message)
            case Gossip():
                self._exchange.receive_gossip(sender, message)
                self._go_on()
            case Status():
                self._take_status(sender, message)
            case SyncRequest():
                self._catch_up.help(sender, message.height)
            case SyncBlocks():
                self._handle_blocks(sender, message)
            case StateOffer():
                self._catch_up.consider_offer(sender, message)
            case StateRequest():
                self._catch_up.serve_state(sender, message)
            case StatePart():
                state = self._catch_up.take_part(sender, message)
                if state is not None:
                    agreement.jump(state)

    def _take_status(self, sender: int, message: Status) -> None:
        """Where a peer is; one that has just started, or that no validator tells, is told where we are."""
        self._catch_up.note(sender, message.height)
        silence = self._agreement.silence
        silence.hear(sender, message)
        left_behind = message.height < self._app.head.height and sender not in self._desk.numbers
        if (message.asks or left_behind) and silence.may_answer(sender):
            self._catch_up.tell(sender, self._agreement.round.view, False)
        if left_behind:  # CONSENSUS.md 8.4
            self._catch_up.help(sender, message.height + 1)

    def _handle_blocks(self, sender: int, message: SyncBlocks) -> None:
        """Apply certified blocks that follow our head; the rest is old news or not ours to check yet."""
        if not self._catch_up.is_trusted(sender):
            self._desk.reject("sync-distrusted", sender)
            return
        before = self._app.head.height
        for offset, certified in enumerate(message.blocks):
            if message.height + offset != self._app.head.height + 1:
                continue
            try:
                self._agreement.adopt(certified)
            except DecodeError:
                self._desk.reject("sync-block", sender)
                self._catch_up.distrust(sender)
                return
            self._catch_up.note(sender, message.height + offset)
        if self._app.head.height > before:
            self._catch_up.advanced(eager=True)
