"""Nodes of the paper's partial sharding: cross-nodes that sit in the joint committee, normal nodes that append."""

from __future__ import annotations

from typing import Final

from watt_chain import codec
from watt_chain.block import COMMIT, HEADER_SIZE_MAX, Header, VoteSignature, block_hash, decode_certified, vote_bytes
from watt_chain.codec import DecodeError
from watt_chain.crypto import id8
from watt_chain.genesis import quorum
from watt_chain.ledger import AppliedBlock
from watt_chain.pbft.messages import Commit, kind_of, open_frame
from watt_chain.transaction import Verify

from watt_tools.paper.actors import AreaNode, Inbox, Kind, Member, Settings
from watt_tools.paper.joint import (
    JOINT_CHAIN,
    Appendix,
    Committee,
    Decision,
    check_decision,
    related_to,
    trade_in,
)
from watt_tools.paper.network import Network
from watt_tools.paper.objects import Bundler, Handed, Trade

TAPPED_MAX: Final = 64
"""Votes on blocks kept for certificates; one height is in flight, and the next may have begun elsewhere."""


class Pending:
    """A final joint block for which votes of some part are still awaited."""

    def __init__(self, certified: bytes, applied: AppliedBlock, committee: Committee) -> None:
        _, self.block, self.header, certificate = decode_certified(certified)
        self.applied = applied
        self.view = certificate.view
        self.votes: dict[int, bytes] = {}
        self._part_of = committee.part_of
        self._lacking = [quorum(count) for _, count in committee.parts]
        self.open_parts = len(self._lacking)
        "Parts without their quorum."
        for vote in certificate.votes:
            self.add(vote.index, vote.signature)

    def add(self, index: int, signature: bytes) -> None:
        """Count a good vote."""
        if index not in self.votes:
            part = self._part_of[index]
            self.votes[index] = signature
            self._lacking[part] -= 1
            self.open_parts -= self._lacking[part] == 0

    def wants(self, index: int) -> bool:
        """Whether a vote of this index would bring a part nearer to its quorum."""
        return index < len(self._part_of) and index not in self.votes and self._lacking[self._part_of[index]] > 0


class JointNode(AreaNode):
    """A node of an area under the paper's partial sharding."""

    def __init__(self, network: Network, area: int, index: int, verify: Verify, settings: Settings) -> None:
        super().__init__(network, area, index, verify, settings)
        self.seat = network.seat_of(area, index)
        self.joint: Member | None = None
        if self.seat is not None:
            key = network.keys[area][index]
            self.joint = Member(network, JOINT_CHAIN, self.seat, key, verify, settings)
            self._inbox = Inbox(self.joint)
        locked = [(id8(one.public), one.account) for one in network.parties(area)] if network.plan.handed else []
        self.appendix = Appendix(area, locked)
        self.decided = 0
        "Height of the last joint block that this node has acted on."
        self._pending: dict[bytes, Pending] = {}
        self._tapped: dict[bytes, dict[int, tuple[int, bytes]]] = {}
        "Block hash -> index -> (view, signature): commit votes not yet checked."

    def start(self, now_ms: int) -> None:
        """Begin, with nothing signed before."""
        if self.joint is not None:
            self.joint.replica.restore([], now_ms)
        super().start(now_ms)

    def receive_more(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """Frames and requests for the committee; decisions for normal nodes."""
        if kind == Kind.DECISION and self.joint is None:
            self._append(payload)
        if self.joint is None:
            return
        if kind == Kind.JOINT_FRAME:
            if kind_of(payload) == COMMIT:
                self._tap(payload)
            self.joint.replica.receive(self.joint.number_of[sender], payload, now_ms)
        elif kind == Kind.JOINT_SUBMIT:
            self.joint.submit(payload, now_ms, shared=True)
        elif kind == Kind.JOINT_BUNDLE:
            self._inbox.take(payload, now_ms)

    def deadline_ms(self) -> int | None:
        """That of both replicas."""
        dues = [super().deadline_ms()]
        if self.joint is not None:
            dues += [self.joint.replica.next_deadline_ms(), self._inbox.deadline_ms()]
        return min((due for due in dues if due is not None), default=None)

    def expire(self, now_ms: int) -> None:
        """Both replicas' timers."""
        if self.joint is not None:
            self.joint.replica.expire(now_ms)
        super().expire(now_ms)

    def follow_up(self, now_ms: int) -> bool:
        """The committee's chain."""
        if self.joint is None:
            return False
        blocks = self.joint.flush(self, Kind.JOINT_FRAME)
        for certified, applied in blocks:
            self._inbox.settled()
            pending = Pending(certified, applied, self.network.committee)
            self._pending[block_hash(self.network.id, pending.block.header)] = pending
        for hash_ in list(self._pending):
            self._decide(hash_, self._pending[hash_])
        return self._inbox.propose(now_ms) or bool(blocks)

    def on_block(self, certified: bytes, applied: AppliedBlock, now_ms: int) -> None:
        """A block of the area: accounts that it has locked go to the committee."""
        for message in applied.out_messages:
            if message.kind == "Handed":
                self.appendix.hand(codec.decode(message.body, Handed))
        if self.is_cross and applied.out_messages:
            places = [at for at, one in enumerate(applied.out_messages) if one.target_chain == JOINT_CHAIN]
            if places:
                bundle = Bundler(self.area, certified, applied.out_messages).bundle(places)
                self.send(self.network.addresses(JOINT_CHAIN), Kind.JOINT_BUNDLE, codec.encode(bundle))
        super().on_block(certified, applied, now_ms)

    # The committee ------------------------------------------------------------------------------------------

    def _tap(self, frame: bytes) -> None:
        """Keep a commit vote: the replica stops counting at its quorum, a decision needs one of every part."""
        try:
            opened, message = open_frame(frame, JOINT_CHAIN)
        except DecodeError:
            return
        if isinstance(message, Commit):
            if message.block_hash not in self._tapped and len(self._tapped) >= TAPPED_MAX:
                del self._tapped[next(iter(self._tapped))]
            self._tapped.setdefault(message.block_hash, {})[message.sender] = message.view, opened.signature

    def _decide(self, hash_: bytes, pending: Pending) -> None:
        """Act on a joint block once every part has its quorum, and tell the normal nodes."""
        committee, header = self.network.committee, pending.header
        message = vote_bytes(self.network.id, COMMIT, JOINT_CHAIN, header.height, pending.view, hash_)
        tapped = self._tapped.get(hash_, {})
        for index in sorted(tapped):
            view, signature = tapped.pop(index)
            good = view == pending.view and pending.wants(index)
            if good and self.verify(committee.publics[index], message, signature):
                pending.add(index, signature)
        if pending.open_parts:
            return
        del self._pending[hash_]
        self._tapped.pop(hash_, None)
        self.decided = header.height
        chosen = committee.needed(list(pending.votes))
        votes = [VoteSignature(index, pending.votes[index]) for index in chosen]
        applied = pending.applied
        related = related_to(self.area, [tx.raw for tx in applied.transactions], applied.receipts)
        decision = Decision(pending.block.header, pending.view, votes, related)
        for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
            trade = trade_in(tx.raw)
            if trade is not None and not receipt.code:
                self.stands(trade)
        if related:
            self.tell(decision)

    def tell(self, decision: Decision) -> None:
        """Broadcast a decision to the normal nodes of the area."""
        crossers = self.network.crossers[self.area]
        normal = [self.network.address(self.area, i) for i in range(self.network.plan.n) if i not in crossers]
        self.send(normal, Kind.DECISION, codec.encode(decision))

    def stands(self, trade: Trade) -> None:
        """A trade is concluded, as far as this node knows."""
        if self.area in trade.chains:
            self.steps.append((trade.number, "committed"))

    # Normal nodes -------------------------------------------------------------------------------------------

    def _append(self, payload: bytes) -> None:
        """Check a decision and append it: no vote of our own."""
        try:
            decision = codec.decode(payload, Decision)
            height = codec.decode(decision.header, Header, HEADER_SIZE_MAX).height
        except DecodeError:
            return
        if height <= self.appendix.height:
            return  # another cross-node was first; on each connection decisions come in order
        if check_decision(decision, self.network.committee, self.network.id, self.verify):
            return
        for trade in self.appendix.append(decision):
            self.stands(trade)
        self.decided = self.appendix.height
