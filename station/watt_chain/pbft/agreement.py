"""Agreement on one block: proposal, votes, decision, and the change of views (CONSENSUS.md 4.3 to 4.5, 4.7)."""

from collections.abc import Iterable

from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Block, Certificate, CertifiedBlock, Header
from watt_chain.codec import DecodeError
from watt_chain.ledger import AppliedBlock
from watt_chain.pbft.config import RESEND_BACKOFF_MAX
from watt_chain.pbft.desk import Desk
from watt_chain.pbft.exchange import Exchange
from watt_chain.pbft.inclusion import is_lacking
from watt_chain.pbft.messages import (
    Bodies,
    Commit,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    ViewChange,
    open_frame,
    vote_frame,
)
from watt_chain.pbft.outputs import CLEAR, DOUBT, ProposalRecord, Record
from watt_chain.pbft.round import Proposal, Round, encode_block, judge_proposal, proposal_of, recall_block
from watt_chain.pbft.silence import Silence
from watt_chain.pbft.sync import CatchUp
from watt_chain.pbft.viewchange import Place, check_prepared, judge_new_view, view_to_join
from watt_chain.snapshot import FrozenState


class Agreement:
    """The height in flight."""

    def __init__(self, desk: Desk, exchange: Exchange, catch_up: CatchUp) -> None:
        self._desk = desk
        self._app = desk.app
        self._exchange = exchange
        self._catch_up = catch_up
        self.silence = Silence(desk)
        self._records: dict[int, list[Record]] = {}
        "Records read at start, by height, until that height is over."
        self.round = Round(self._app.head.height + 1, desk.now_ms)
        self._retry_ms = 0
        "Until when nothing is proposed, because we support none of what waits (4.3.7)."
        self.height_began = False
        "Set when a new height starts; cleared by the replica once it looked at the frames that waited for it."

    # Questions --------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """When the patience with the current view ends; None while nothing is pending (CONSENSUS.md 4.5.1)."""
        round_ = self.round
        if self.silence.reason():
            return None
        if not round_.active:
            return round_.escalate_ms
        pending = self._ready_since()
        if round_.proposal is not None:
            pending = round_.proposal.since_ms if pending is None else min(pending, round_.proposal.since_ms)
        if round_.required is not None:
            pending = round_.started_ms
        if pending is None:
            return None
        return max(pending, round_.started_ms) + self._desk.config.timeout_of(round_.view)

    def _ready_since(self) -> int | None:
        """Since when something waits that we support; nobody waits for anything else (4.3.7)."""
        return self._exchange.pool.ready_since(self._app.next_nonce, self._desk.config.vouch)

    def batch_due_ms(self) -> int | None:
        """When we, as leader, should propose."""
        round_ = self.round
        if not self._may_propose() or round_.required is not None:
            return None
        ready_ms = self._ready_since()
        return None if ready_ms is None else max(ready_ms + self._desk.config.batch_ms, self._retry_ms)

    def resend_interval_ms(self) -> int:
        """Time to the next repetition; longer with each, up to a limit."""
        return self._desk.config.resend_ms << min(self.round.resends, RESEND_BACKOFF_MAX)

    # Normal case (CONSENSUS.md 4.3) -------------------------------------------------------------------------

    def propose(self) -> None:
        """As leader of an active view with nothing proposed: propose what is required, or what waits."""
        if not self._may_propose():
            return
        round_, desk = self.round, self._desk
        if round_.required is not None:
            hash_ = blocks.block_hash(self._app.network, round_.required.header)
            known = round_.proposals.get(hash_)
            if known is not None:  # otherwise it is being fetched
                self._send_proposal(known)
            return
        due_ms = self.batch_due_ms()
        if due_ms is None or (desk.now_ms < due_ms and len(self._exchange.pool) < desk.config.transactions_max):
            return
        limits = desk.config.transactions_max, desk.config.bytes_max
        chosen = self._exchange.pool.select(self._app.next_nonce, *limits, desk.config.vouch)
        if not chosen:
            self._retry_ms = desk.now_ms + desk.config.resend_ms
            return
        time_s = max(self._app.head.time_s, desk.config.protocol_time(desk.now_ms))
        block = self._app.build(round_.view, desk.index, time_s, [tx.raw for tx in chosen])
        if len(block.transactions) < len(chosen):
            built = dict.fromkeys(block.transactions)
            for tx in chosen:
                if tx.raw not in built:
                    self._exchange.pool.forget(tx.txid)
        if not block.transactions:  # CONSENSUS.md 4.3.1: no empty blocks
            return
        header = codec.decode(block.header, Header, blocks.HEADER_SIZE_MAX)
        hash_ = blocks.block_hash(self._app.network, block.header)
        self._exchange.flush()  # what only we have goes out before the proposal that names it
        self._send_proposal(proposal_of(block, header, hash_, desk.now_ms))

    def handle_pre_prepare(self, message: PrePrepare, data: bytes) -> None:
        """A leader's proposal for our height."""
        round_, desk = self.round, self._desk
        if message.sender != self._leader(message.view):
            desk.blame("not-leader", message.sender)
            return
        if message.view < round_.view or not round_.is_near(message.view):
            return
        if message.view > round_.view or not round_.active:
            round_.early.setdefault(message.view, (message.sender, data))
            return
        hash_ = blocks.block_hash(self._app.network, message.header)
        if round_.proposal is not None:
            if round_.proposal.hash == hash_:
                round_.proposal.frame = round_.proposal.frame or data
            elif round_.proposal.frame:  # CONSENSUS.md 4.3.2, 4.8: one proposal per view; a second is evidence
                frames = (round_.proposal.frame, data)
                desk.accuse("pre-prepare", message.sender, message.height, message.view, *frames)
            else:  # after a restart the block is known and the leader's frame is not: nothing to convict it with
                desk.blame("equivocation", message.sender)
            return
        try:
            proposal = judge_proposal(message, hash_, round_, desk)
        except DecodeError as error:
            desk.blame(str(error), message.sender)
            return
        proposal.frame = data
        round_.proposal = proposal
        if proposal.waiting:
            self._exchange.fill(proposal)
        if proposal.waiting:
            self._fetch((message.sender,))
        else:
            self._complete()

    def refill(self, wanted: bool = False) -> None:
        """Transactions arrived that the proposal may wait for; `wanted`: it has waited for attestations long enough."""
        proposal = self.round.proposal
        if proposal is not None and (proposal.waiting or proposal.checked is None):
            self._exchange.fill(proposal, wanted)
            if not proposal.waiting:
                self._complete()

    def reconsider(self) -> None:
        """We may support more than before (4.3.7): look again at what is proposed, or propose."""
        self._retry_ms = 0
        self._exchange.pool.reconsider()
        self.refill()
        self.propose()

    def handle_bodies(self, sender: int, message: Bodies) -> None:
        """Transactions we asked for, from the node with the number `sender`."""
        round_ = self.round
        if message.height != round_.height:
            return
        proposal = round_.proposal
        if proposal is not None and proposal.hash == message.block_hash:
            if proposal.waiting:
                self._exchange.receive_bodies(sender, message, proposal)
                if not proposal.waiting:
                    self._complete()
            return
        if round_.required is not None and self._may_propose():
            self._adopt_required(sender, message, round_.required)

    def handle_vote(self, message: Prepare | Commit, signature: bytes, data: bytes) -> None:
        """A prepare or commit of our height; a commit may come from any view."""
        round_ = self.round
        if not round_.is_near(message.view):
            return
        book = round_.prepares if isinstance(message, Prepare) else round_.commits
        before = book.seen(message.view, message.sender)
        if before is not None:
            if before[0] != message.block_hash:
                first = vote_frame(message, before)
                kind = "prepare" if isinstance(message, Prepare) else "commit"
                self._desk.accuse(kind, message.sender, message.height, message.view, first, data)
            return
        book.add(message.view, message.sender, message.block_hash, signature)
        if isinstance(message, Prepare):
            self._maybe_prepared()
        else:
            self._maybe_final()

    def adopt(self, certified: bytes) -> None:
        """A final block from a peer. Raises DecodeError when it is not the next one or not final."""
        applied = self._app.apply(certified)
        self.silence.recognise(certified, applied, self.round.signed_commits)
        self._finish(certified, applied)

    def jump(self, state: FrozenState) -> None:
        """The ledger went on from a final state: the blocks before it are not asked for any more."""
        self._desk.installed(state)
        self._exchange.pool.expire(self._app.next_nonce)
        self._catch_up.advanced(eager=True)
        self.silence.advanced(())
        self._begin_height()

    def speak(self) -> None:
        """The silence is over: say for the height in flight what was held back (4.7.8)."""
        round_ = self.round
        round_.started_ms = self._desk.now_ms
        if not round_.active:
            self._say_view_change()
            self._consider_views()
        elif round_.proposal is not None and round_.proposal.checked and not round_.proposal.waiting:
            self._support(round_.proposal, b"")
        self.propose()

    # View change (CONSENSUS.md 4.4) -------------------------------------------------------------------------

    def handle_view_change(self, message: ViewChange, data: bytes) -> None:
        """Somebody left a view."""
        round_ = self.round
        before = round_.view_changes.get(message.sender)
        mine = round_.my_new_view
        if mine is not None and round_.active and message.view <= round_.view == mine[0]:
            self._desk.send(self._app.numbers[message.sender], mine[1])  # it missed our new view, which is over for us
        if message.view == 0 or (before is not None and before[0].view >= message.view):
            return
        if message.prepared is not None:
            reason = check_prepared(message.prepared, message.view, self._place())
            if reason:
                self._set_aside(reason, message.sender)
                return
        if round_.note_view_change(message, data):
            self._consider_views()

    def handle_new_view(self, message: NewView) -> None:
        """A leader shows that it may lead."""
        round_ = self.round
        if message.sender != self._leader(message.view) or message.view == 0:
            self._desk.blame("not-leader", message.sender)
            return
        if message.view < round_.view or (message.view == round_.view and round_.active):
            return
        reason, prepared = judge_new_view(message, self._place(), round_.known_votes)
        if reason:
            self._set_aside(reason, message.sender)
            return
        self._enter_view(message.view, prepared)

    def expire(self) -> None:
        """Give up the current view when its time is over."""
        due_ms = self.deadline_ms()  # None for a silent validator
        if due_ms is not None and self._desk.now_ms >= due_ms:
            self._leave_view(self.round.view + 1)

    def resend(self) -> None:
        """Say again what the height may still need from us: messages get lost (CONSENSUS.md 4.3.6)."""
        round_, desk = self.round, self._desk
        round_.resends += 1
        if self.silence.reason():
            self._fetch(desk.peers)
            return
        if not round_.active and round_.my_view_change is not None:
            desk.broadcast(round_.my_view_change)
        if round_.active:
            for mine in (round_.my_new_view, round_.my_proposal):
                if mine is not None and mine[0] == round_.view:
                    desk.broadcast(mine[1])
            if (hash_ := round_.signed_prepares.get(round_.view)) is not None:
                self._send_vote(Prepare(self._app.chain, desk.index, round_.height, round_.view, hash_))
            self.refill(wanted=True)
            if self.round is not round_:  # that made the height final: the next list may have us elsewhere or nowhere
                return
            self._fetch(desk.peers)
        if round_.signed_commits:
            view = max(round_.signed_commits)
            self._send_vote(Commit(self._app.chain, desk.index, round_.height, view, round_.signed_commits[view]))

    # Restart (CONSENSUS.md 4.7) -----------------------------------------------------------------------------

    def restore(self, records: Iterable[bytes], floor: int) -> None:
        """Read back what we signed; of heights up to `floor` it may be incomplete. Raises DecodeError."""
        for data in records:
            record = codec.decode(data, Record)
            if record.kind in (DOUBT, CLEAR):
                self.silence.recall(record.kind, record.height, record.payload.decode("utf-8", "replace"))
            elif record.height > self._app.head.height:
                self._records.setdefault(record.height, []).append(record)
        self.silence.restore(floor)
        self._begin_height()

    def sit_down(self) -> None:
        """We only followed and have a further key: take part from here if the list of this height has it."""
        self._begin_height()

    # Inside -------------------------------------------------------------------------------------------------

    def _set_aside(self, reason: str, index: int) -> None:
        """A validator signed what no honest one signs (4.4.7)."""
        self.round.set_aside[index] = None
        self._desk.blame(reason, index)

    def _leader(self, view: int) -> int:
        return self._app.schedule.leader(self.round.height, view)

    def _place(self) -> Place:
        head = self._app.head
        return Place(
            self._app.network,
            self._app.chain,
            self.round.height,
            head.block_hash,
            self._app.publics,
            self._desk.config.verify,
        )

    def _may_propose(self) -> bool:
        round_ = self.round
        return (
            round_.active
            and not self.silence.reason()
            and round_.proposal is None
            and self._leader(round_.view) == self._desk.index
            and (round_.my_proposal is None or round_.my_proposal[0] < round_.view)
            and round_.view not in round_.signed_prepares
        )

    def _complete(self) -> None:
        """All transactions of the proposal are here: execute it, and support it when it is right."""
        round_ = self.round
        proposal = round_.proposal
        assert proposal is not None and not proposal.waiting
        if proposal.checked is None and self._exchange.vouches(proposal, round_.required is not None):
            reason = self._app.check(proposal.block())
            proposal.checked = reason is None
            if reason is not None:
                self._desk.blame("block-" + reason, self._leader(round_.view))
        if proposal.checked:
            round_.proposals[proposal.hash] = proposal
            self._support(proposal, b"")

    def _support(self, proposal: Proposal, frame: bytes) -> None:
        """Sign prepare for the block; `frame` is our own proposal of it, if it is ours."""
        round_, desk = self.round, self._desk
        view, hash_ = round_.view, proposal.hash
        if round_.signed_prepares.get(view, hash_) != hash_:
            return  # CONSENSUS.md 4.7.2: we supported another block in this view; stay silent
        if self.silence.reason():
            self._maybe_final()  # 4.7.5: we follow, and sign nothing
            return
        if view not in round_.signed_prepares:
            if not frame and is_lacking(proposal, view, self._exchange.pool, desk):
                self._maybe_final()
                return
            stored = hash_ in round_.signed_prepares.values()
            if frame:
                payload = codec.encode(ProposalRecord(frame, encode_block(proposal)))
                desk.persist("proposal", round_.height, view, hash_, payload)
            else:
                desk.persist("prepare", round_.height, view, hash_, b"" if stored else encode_block(proposal))
            round_.signed_prepares[view] = hash_
        if frame:
            desk.broadcast(frame)
        vote = Prepare(self._app.chain, desk.index, round_.height, view, hash_)
        signature = self._send_vote(vote)
        if round_.prepares.seen(view, desk.index) is None:
            round_.prepares.add(view, desk.index, hash_, signature)
        self._maybe_prepared()
        self._maybe_final()  # commits may have been here before the block was

    def _send_proposal(self, proposal: Proposal) -> None:
        round_, desk = self.round, self._desk
        message = PrePrepare(
            self._app.chain, desk.index, round_.height, round_.view, proposal.header_bytes, list(proposal.digests)
        )
        frame, _ = desk.seal(message)
        proposal.frame = frame
        proposal.checked = True
        proposal.since_ms = desk.now_ms
        round_.proposal = proposal
        round_.proposals[proposal.hash] = proposal
        round_.my_proposal = (round_.view, frame)
        self._support(proposal, frame)

    def _send_vote(self, vote: Prepare | Commit) -> bytes:
        frame, signature = self._desk.seal(vote)
        self._desk.broadcast(frame)
        return signature

    def _maybe_prepared(self) -> None:
        """With q prepares for the block we support in this view: keep the certificate, then sign commit (4.3.4)."""
        round_, desk = self.round, self._desk
        view, proposal = round_.view, round_.proposal
        if not round_.active or proposal is None or round_.signed_prepares.get(view) != proposal.hash:
            return
        if self.silence.reason():
            return
        if view in round_.signed_commits or round_.prepares.count(view, proposal.hash) < desk.q:
            return
        prepared = Prepared(view, proposal.header_bytes, round_.prepares.votes(view, proposal.hash, desk.q))
        round_.prepared = prepared
        desk.persist("commit", round_.height, view, proposal.hash, codec.encode(prepared))
        round_.signed_commits[view] = proposal.hash
        signature = self._send_vote(Commit(self._app.chain, desk.index, round_.height, view, proposal.hash))
        round_.commits.add(view, desk.index, proposal.hash, signature)
        self._maybe_final()

    def _maybe_final(self) -> None:
        """A block with q commits of one view, any view, is final, once we have it (4.3.5)."""
        round_, desk = self.round, self._desk
        for view, hash_ in round_.commits.winners(desk.q):
            proposal = round_.proposals.get(hash_)
            if proposal is None or not proposal.checked or view < proposal.header.view:
                continue
            certificate = Certificate(view, round_.commits.votes(view, hash_, desk.q))
            certified = codec.encode(CertifiedBlock(encode_block(proposal), codec.encode(certificate)))
            # Every vote in the certificate was verified when it came in.
            self._finish(certified, self._app.apply(certified, certificate_known=True))
            return

    def _finish(self, certified: bytes, applied: AppliedBlock) -> None:
        """The height is over."""
        self._desk.commit(certified, applied)
        self._exchange.pool.settle(applied.transactions)
        self._exchange.attest.settle(applied.transactions)
        self._catch_up.advanced(eager=False)
        self.silence.advanced(applied.transactions)
        self._begin_height()

    def _begin_height(self) -> None:
        """Start the height after the head, with whatever we signed in it before a restart."""
        height = self._app.head.height + 1
        if self._desk.seat():
            self._exchange.attest.sit_down()
        self.round = Round(height, self._desk.now_ms)
        self.height_began = True
        for old in [number for number in self._records if number < height]:
            del self._records[old]
        for record in self._records.pop(height, []):
            if self._desk.votes:  # CONSENSUS.md 8.3: who is not on the list of the height has said nothing about it
                self._recall(record)
        round_ = self.round
        if not round_.active and not self.silence.reason():
            self._say_view_change()

    def _recall(self, record: Record) -> None:
        """Put one record back into the round. Raises DecodeError when its content does not read."""
        round_, desk = self.round, self._desk
        view, hash_ = record.view, record.block_hash
        match record.kind:
            case "view-change":
                self._move_to(view, active=False)
            case "new-view":
                round_.my_new_view = (view, record.payload)
            case "commit":
                round_.prepared = codec.decode(record.payload, Prepared)
                round_.signed_commits[view] = hash_
                vote = Commit(self._app.chain, desk.index, round_.height, view, hash_)
                round_.commits.add(view, desk.index, hash_, desk.seal(vote)[1])
            case "proposal" | "prepare":
                data = record.payload
                if record.kind == "proposal":
                    mine = codec.decode(record.payload, ProposalRecord)
                    round_.my_proposal, data = (view, mine.frame), mine.block
                recall_block(round_, data, hash_, self._app, desk.now_ms)
                round_.signed_prepares[view] = hash_
                self._move_to(view, active=True)
                round_.proposal = round_.proposals.get(hash_)
                vote_ = Prepare(self._app.chain, desk.index, round_.height, view, hash_)
                round_.prepares.add(view, desk.index, hash_, desk.seal(vote_)[1])
                if round_.proposal is not None and round_.proposal.header.view < view:
                    round_.required = Prepared(view, round_.proposal.header_bytes, [])

    def _fetch(self, peers: tuple[int, ...]) -> None:
        """Ask for what the current view's block lacks."""
        round_ = self.round
        proposal = round_.proposal
        if proposal is not None and proposal.waiting:
            # What waits for attestations is here: it is proven or checked within their bound.
            missing = tuple(digest for digest in proposal.waiting if not self._exchange.attest.waits(digest))
            if missing:
                self._exchange.fetch(round_.height, proposal.hash, missing, peers)
        elif proposal is None and round_.required is not None and self._may_propose():
            hash_ = blocks.block_hash(self._app.network, round_.required.header)
            if hash_ not in round_.proposals:
                holders = tuple(vote.index for vote in round_.required.votes)
                self._exchange.fetch(round_.height, hash_, (), holders or peers)

    def _adopt_required(self, sender: int, message: Bodies, required: Prepared) -> None:
        """As new leader: the whole block that we must propose, from one who had prepared it."""
        hash_ = blocks.block_hash(self._app.network, required.header)
        if message.block_hash != hash_ or hash_ in self.round.proposals:
            return
        block = Block(required.header, list(message.transactions))
        header = codec.decode(required.header, Header, blocks.HEADER_SIZE_MAX)
        if len(block.transactions) != header.tx_count:
            return  # a late answer to an earlier question for a part of it
        if blocks.transactions_root(block.transactions) != header.tx_root or self._app.check(block) is not None:
            self._desk.reject("bodies-root", sender)
            return
        self._send_proposal(proposal_of(block, header, hash_, self._desk.now_ms))

    def wanted_view(self, index: int) -> int:
        """The view a validator says it is in, as far as its view changes tell."""
        if index == self._desk.index:
            return self.round.view
        found = self.round.view_changes.get(index)
        return 0 if found is None else found[0].view

    def _move_to(self, view: int, active: bool) -> None:
        """Be in a view, with nothing proposed in it yet."""
        round_, now_ms = self.round, self._desk.now_ms
        round_.view = view
        round_.active = active
        round_.proposal = None
        round_.required = None
        round_.started_ms = now_ms
        round_.escalate_ms = None
        round_.resends = 0
        round_.prepares.prune(view)
        round_.commits.prune(view)

    def _leave_view(self, view: int) -> None:
        """Stop voting below `view` and say so (4.4.1)."""
        self._desk.persist("view-change", self.round.height, view)
        self._move_to(view, active=False)
        self._say_view_change()
        self._consider_views()

    def _say_view_change(self) -> None:
        round_, desk = self.round, self._desk
        message = ViewChange(self._app.chain, desk.index, round_.height, round_.view, round_.prepared)
        round_.my_view_change, _ = desk.seal(message)
        round_.note_view_change(message, round_.my_view_change)
        desk.broadcast(round_.my_view_change)

    def _consider_views(self) -> None:
        """Join others, lead a view, or start its clock: whatever the known view changes allow."""
        round_, desk = self.round, self._desk
        if self.silence.reason():
            return
        others = [self.wanted_view(peer) for peer in desk.peers]
        target = view_to_join(others, round_.view, desk.n)
        if target is not None:
            self._leave_view(target)
            return
        if round_.active:
            return
        if round_.escalate_ms is None and sum(view >= round_.view for view in others) + 1 >= desk.q:
            # CONSENSUS.md 4.5.3: the clock of a view starts once q have left the view before, not earlier.
            round_.escalate_ms = desk.now_ms + desk.config.timeout_of(round_.view)
        if self._leader(round_.view) == desk.index:
            self._maybe_lead()

    def _maybe_lead(self) -> None:
        """With q view changes for exactly this view: show them, and enter it (4.4.4)."""
        round_, desk = self.round, self._desk
        frames = [frame for _, (vote, frame) in sorted(round_.view_changes.items()) if vote.view == round_.view]
        if len(frames) < desk.q:
            return
        message = NewView(self._app.chain, desk.index, round_.height, round_.view, frames[: desk.q])
        frame, _ = desk.seal(message)
        desk.persist("new-view", round_.height, round_.view, payload=frame)
        desk.broadcast(frame)
        reason, prepared = judge_new_view(message, self._place(), round_.known_votes)
        assert not reason, "our own new view is not accepted by ourselves"
        round_.my_new_view = (message.view, frame)
        self._enter_view(round_.view, prepared)

    def _enter_view(self, view: int, prepared: Prepared | None) -> None:
        """A view has its leader: vote in it, on the required block or on a new one."""
        self._move_to(view, active=True)
        round_ = self.round
        round_.required = prepared
        early = round_.early.pop(view, None)
        for old in [number for number in round_.early if number <= view]:
            del round_.early[old]
        if self._leader(view) == self._desk.index:
            self.propose()
            self._fetch(self._desk.peers)
        elif early is not None:
            _, message = open_frame(early[1], self._app.chain, early[0])
            assert isinstance(message, PrePrepare)  # verified when it was put aside
            self.handle_pre_prepare(message, early[1])
