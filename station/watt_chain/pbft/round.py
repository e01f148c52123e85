"""Everything a replica knows about the one height in flight."""

from watt_wire import merkle

from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Block, Header, VoteSignature
from watt_chain.codec import DecodeError
from watt_chain.pbft.config import VIEW_WINDOW
from watt_chain.pbft.desk import Application, Desk
from watt_chain.pbft.messages import Prepared, PrePrepare, ViewChange
from watt_chain.tree import root_of


class Proposal:
    """A block on its way: the header and digests are here, the transactions may still be missing."""

    __slots__ = (
        "bodies",
        "checked",
        "digests",
        "frame",
        "hash",
        "header",
        "header_bytes",
        "lacks",
        "places",
        "since_ms",
        "waiting",
    )

    def __init__(
        self, header_bytes: bytes, header: Header, hash_: bytes, digests: tuple[bytes, ...], since_ms: int
    ) -> None:
        self.header_bytes = header_bytes
        self.header = header
        self.hash = hash_
        self.digests = digests
        self.since_ms = since_ms
        self.bodies: list[bytes | None] = [None] * len(digests)
        self.places: dict[bytes, int] = {digest: index for index, digest in enumerate(digests)}
        "Digest to position."
        self.waiting: dict[bytes, None] = dict.fromkeys(digests)
        "Digests of the transactions still missing, in order."
        self.checked: bool | None = None
        "None: not executed yet; False: refused, we stay silent; True: may be voted for."
        self.lacks = b""
        "Id of a transaction that it leaves out, for which we do not support it (4.10); empty when there is none."
        self.frame = b""
        "The leader's frame, for evidence."

    def fill(self, digest: bytes, tx: bytes) -> bool:
        """Put a transaction in its place, if it is missing; False when the block has no such transaction."""
        index = self.places.get(digest)
        if index is None:
            return False
        self.bodies[index] = tx
        self.waiting.pop(digest, None)
        return True

    def block(self) -> Block:
        """The whole block. Only when nothing is missing."""
        assert not self.waiting
        return Block(self.header_bytes, [tx for tx in self.bodies if tx is not None])


def proposal_of(block: Block, header: Header, hash_: bytes, since_ms: int) -> Proposal:
    """A proposal whose transactions are all at hand."""
    proposal = Proposal(block.header, header, hash_, tuple(merkle.leaf_hash(tx) for tx in block.transactions), since_ms)
    proposal.bodies = list(block.transactions)
    proposal.waiting = {}
    return proposal


class VoteBook:
    """Votes of one phase: one per sender and view, in a window of views; remembers who voted what."""

    __slots__ = ("_by_sender", "_votes")

    def __init__(self) -> None:
        self._by_sender: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        "(view, sender) -> (block hash, signature)"
        self._votes: dict[tuple[int, bytes], dict[int, bytes]] = {}
        "(view, block hash) -> sender -> signature"

    def seen(self, view: int, sender: int) -> tuple[bytes, bytes] | None:
        """(block hash, signature) of the sender's vote in a view."""
        return self._by_sender.get((view, sender))

    def add(self, view: int, sender: int, hash_: bytes, signature: bytes) -> None:
        """Count a vote; the caller has looked at `seen` first."""
        self._by_sender[(view, sender)] = (hash_, signature)
        self._votes.setdefault((view, hash_), {})[sender] = signature

    def count(self, view: int, hash_: bytes) -> int:
        """Votes for a block in a view."""
        return len(self._votes.get((view, hash_), ()))

    def votes(self, view: int, hash_: bytes, count: int) -> list[VoteSignature]:
        """The first `count` votes by index of the voter."""
        votes = self._votes[(view, hash_)]
        return [VoteSignature(sender, votes[sender]) for sender in sorted(votes)[:count]]

    def winners(self, needed: int) -> list[tuple[int, bytes]]:
        """(view, block hash) of every block with enough votes."""
        return [place for place, votes in self._votes.items() if len(votes) >= needed]

    def prune(self, view: int) -> None:
        """Forget views outside the window around `view`."""
        for key in [key for key in self._by_sender if abs(key[0] - view) > VIEW_WINDOW]:
            del self._by_sender[key]
        for place in [place for place in self._votes if abs(place[0] - view) > VIEW_WINDOW]:
            del self._votes[place]


class Round:
    """The state of one height: a view, at most one proposal in it, votes, and what we have signed."""

    __slots__ = (
        "active",
        "commits",
        "early",
        "escalate_ms",
        "height",
        "known_votes",
        "my_new_view",
        "my_proposal",
        "my_view_change",
        "prepared",
        "prepares",
        "proposal",
        "proposals",
        "required",
        "resends",
        "set_aside",
        "signed_commits",
        "signed_prepares",
        "started_ms",
        "view",
        "view_changes",
    )

    def __init__(self, height: int, now_ms: int) -> None:
        self.height = height
        self.view = 0
        self.active = True
        "False between our view change and the new view: nothing is prepared or committed then."
        self.started_ms = now_ms
        "When the view began."
        self.escalate_ms: int | None = None
        "When to give up a view that q replicas entered but nobody leads."
        self.resends = 0
        self.proposal: Proposal | None = None
        "The one accepted in the current view."
        self.proposals: dict[bytes, Proposal] = {}
        "Complete, executed blocks of this height by hash; at most one per view."
        self.required: Prepared | None = None
        "What the new view must propose."
        self.prepares = VoteBook()
        self.commits = VoteBook()
        self.prepared: Prepared | None = None
        "Our best prepared certificate."
        self.view_changes: dict[int, tuple[ViewChange, bytes]] = {}
        "Highest view change of each sender, with its frame."
        self.known_votes: dict[bytes, ViewChange] = {}
        "Frames in `view_changes`, verified; the same content by frame."
        self.early: dict[int, tuple[int, bytes]] = {}
        "Proposals for views we have not entered: view -> (sender, frame)."
        self.my_proposal: tuple[int, bytes] | None = None
        "(view, frame) of our proposal as leader."
        self.my_new_view: tuple[int, bytes] | None = None
        self.my_view_change: bytes | None = None
        self.set_aside: dict[int, None] = {}
        "Validators that signed a view change or new view whose proof does not hold: no further one of theirs is read."
        self.signed_prepares: dict[int, bytes] = {}
        self.signed_commits: dict[int, bytes] = {}

    def is_near(self, view: int) -> bool:
        """Whether votes of a view are kept."""
        return abs(view - self.view) <= VIEW_WINDOW

    def is_busy(self) -> bool:
        """Whether something of ours may have to be sent again."""
        return self.proposal is not None or not self.active or bool(self.signed_prepares) or self.required is not None

    def note_view_change(self, message: ViewChange, frame: bytes) -> bool:
        """Keep a genuine view change when it is the sender's highest; False when it is not news."""
        before = self.view_changes.get(message.sender)
        if before is not None:
            if before[0].view >= message.view:
                return False
            self.known_votes.pop(before[1], None)
        self.view_changes[message.sender] = (message, frame)
        self.known_votes[frame] = message
        return True


def encode_block(proposal: Proposal) -> bytes:
    """Block bytes of a complete proposal."""
    return codec.encode(proposal.block())


def recall_block(round_: Round, data: bytes, hash_: bytes, app: Application, now_ms: int) -> None:
    """Execute a block we had executed before a restart, unless it is here already. Raises DecodeError."""
    if not data or hash_ in round_.proposals:
        return
    block = codec.decode(data, Block)
    header = codec.decode(block.header, Header, blocks.HEADER_SIZE_MAX)
    if blocks.block_hash(app.network, block.header) == hash_ and app.check(block) is None:
        proposal = proposal_of(block, header, hash_, now_ms)
        proposal.checked = True
        round_.proposals[hash_] = proposal


def judge_proposal(message: PrePrepare, hash_: bytes, round_: Round, desk: Desk) -> Proposal:
    """A proposal that may be considered; what its transactions are is checked later. Raises DecodeError."""
    known = round_.proposals.get(hash_)
    signed = round_.signed_prepares.get(message.view)
    if signed is not None and signed != hash_:
        raise DecodeError("signed-other")  # before a restart we supported another block in this view
    if round_.required is not None and round_.required.header != message.header:
        raise DecodeError("not-required")  # 4.4.5
    try:
        header = codec.decode(message.header, Header, blocks.HEADER_SIZE_MAX)
    except DecodeError:
        raise DecodeError("header-form") from None
    if len(message.digests) != header.tx_count or len(dict.fromkeys(message.digests)) != header.tx_count:
        raise DecodeError("tx-count")
    if root_of(message.digests) != header.tx_root:
        raise DecodeError("tx-root")
    if round_.required is None:
        if header.view != message.view or header.proposer != message.sender:
            raise DecodeError("header-view")
        # CONSENSUS.md 3.3: time is judged here, once; a required block was judged in the view it comes from.
        now_ms, bound_ms, clock = desk.now_ms, desk.config.time_bound_ms, desk.config.protocol_time
        before_s = desk.app.head.time_s
        if not max(before_s, clock(now_ms - bound_ms)) <= header.time_s <= max(before_s, clock(now_ms + bound_ms)):
            raise DecodeError("time")
    if known is not None:
        known.since_ms = desk.now_ms
        return known
    return Proposal(message.header, header, hash_, tuple(message.digests), desk.now_ms)
