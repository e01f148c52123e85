"""What bad validators do (`liar` says what they can): one class for each kind of lie."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import msgpack
from msgspec.structs import replace as replace_fields
from watt_chain import codec
from watt_chain.block import Certificate, Header, VoteSignature, decode_certified
from watt_chain.codec import DecodeError
from watt_chain.pbft.messages import (
    Bodies,
    Commit,
    Fetch,
    Frame,
    Gossip,
    Message,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    Status,
    SyncBlocks,
    ViewChange,
    open_frame,
)
from watt_wire import merkle

from watt_sim.censor import Censor
from watt_sim.fakes import CHAIN, make_tx
from watt_sim.liar import Extra, Liar, certify, place_of, replaced, sender_of
from watt_sim.plain import hash_of, quorum_of, vote_of
from watt_sim.rotten import Rotten
from watt_sim.vouch import Vouch

if TYPE_CHECKING:
    from watt_sim.station import Station
    from watt_sim.world import World

HABITS, STALE = 6, 9
"""Forgeries of a prepared certificate that a forger may try; the habit of reporting true locks too late."""
HISTORY_MAX = 400
"""Old frames a liar keeps to play back."""


class Split(Liar):
    """Tells some of one valid block and the rest of another, and each that it agrees."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._side = [self.chance.below(2) for _ in range(self.world.nodes)]
        self._other: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        "(height, view) -> the other block's (header, hash)."

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        if not self._side[peer]:
            return [frame]
        if isinstance(message, PrePrepare):
            header = codec.decode(message.header, Header)
            place = (message.height, message.view)
            if place not in self._other and header.view == message.view:
                other = self.build(header, message.digests, 1)
                if other is not None:
                    self._other[place] = other, hash_of(self.world.id, other)
            if place in self._other:
                return [self.seal(PrePrepare(*place_of(message), self._other[place][0], message.digests))]
        if isinstance(message, Prepare | Commit) and (message.height, message.view) in self._other:
            return [self.seal(type(message)(*place_of(message), self._other[(message.height, message.view)][1]))]
        return [frame]


class Echo(Liar):
    """Votes for everything, in every view, at once."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._voted: dict[tuple[int, int, bytes], None] = {}

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        if isinstance(message, PrePrepare):
            hash_ = hash_of(self.world.id, message.header)
        elif isinstance(message, Prepare | Commit):
            hash_ = message.block_hash
        else:
            return []
        place = (message.height, message.view, hash_)
        if place in self._voted:
            return []
        self._voted[place] = None
        vote = (CHAIN, self.index, *place)
        return self.everybody(self.seal(Prepare(*vote))) + self.everybody(self.seal(Commit(*vote)))


class Forgetful(Liar):
    """Never admits that anything was prepared; leads new views with the reports that admit nothing."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._reports: dict[tuple[int, int], dict[int, bytes]] = {}
        "(height, view) -> sender -> view change without a certificate."
        self._freed: dict[tuple[int, int], bytes | None] = {}

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        if isinstance(message, ViewChange) and message.prepared is None:
            self._reports.setdefault((message.height, message.view), {})[message.sender] = frame
        return []

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        if isinstance(message, ViewChange) and message.prepared is not None:
            return [self.seal(ViewChange(*place_of(message), None))]
        if isinstance(message, NewView):
            place = (message.height, message.view)
            free = self._reports.setdefault(place, {})
            free[self.index] = self.seal(ViewChange(*place_of(message), None))
            self._freed.setdefault(place, None)
            # As many reports without a certificate as there are; the rest as they came.
            senders = sorted(free)
            votes = [free[sender] for sender in senders]
            votes += [vote for vote in message.votes if sender_of(vote) not in senders]
            return [self.seal(NewView(*place_of(message), votes[: quorum_of(self.n)]))]
        if isinstance(message, PrePrepare) and (message.height, message.view) in self._freed:
            return [self._fresh(message) or frame]
        return [frame]

    def _fresh(self, message: PrePrepare) -> bytes | None:
        """A new block of ours in place of the required one."""
        place = (message.height, message.view)
        header = codec.decode(message.header, Header)
        if self._freed[place] is None and header.view < message.view:
            other = self.build(replaced(header, view=message.view), message.digests, 1)
            if other is not None:
                self._freed[place] = self.seal(PrePrepare(*place_of(message), other, message.digests))
        return self._freed[place]


class Forge(Liar):
    """Brings proofs that prove nothing: certificates, new views, final blocks, heights."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._prepares: dict[tuple[int, int, bytes], dict[int, bytes]] = {}
        self._headers: dict[bytes, bytes] = {}
        "Block hash -> header."
        self._changes: dict[tuple[int, int], dict[int, bytes]] = {}
        self._habit = self.chance.below(10)
        "The forgery it always tries; above the last, a different one each time."

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        match message:
            case PrePrepare():
                self._headers[hash_of(self.world.id, message.header)] = message.header
                if self.chance.chance(150_000):
                    return self._forged_blocks(message)
            case Prepare():
                signature = codec.decode(frame, Frame).signature
                place = (message.height, message.view, message.block_hash)
                self._prepares.setdefault(place, {})[message.sender] = signature
            case ViewChange():
                place_ = (message.height, message.view)
                self._changes.setdefault(place_, {})[message.sender] = frame
                if self.leads(*place_) and self.chance.chance(300_000):
                    return self._early_new_view(message)
        return []

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        if isinstance(message, ViewChange):
            return [self.seal(ViewChange(*place_of(message), self._certificate(message)))]
        if isinstance(message, Status):
            return [self.seal(replace_fields(message, height=message.height + self.chance.choice((0, 1, 1000))))]
        return [frame]

    def _certificate(self, message: ViewChange) -> Prepared | None:
        """A prepared certificate with one thing wrong."""
        quorum = quorum_of(self.n)
        if self._habit == STALE:
            return self._stale(message)
        old = [
            (place, votes)
            for place, votes in self._prepares.items()
            if place[2] in self._headers and (self._habit or (len(votes) >= quorum and place[0] < message.height))
        ]
        if not old:
            return message.prepared
        (height, view, hash_), votes = self.chance.choice(old)
        header = self._headers[hash_]
        signatures = [VoteSignature(sender, votes[sender]) for sender in sorted(votes)][:quorum]
        match self._habit if self._habit < HABITS else self.chance.below(HABITS):
            case 0:  # of another height, or of one view and complete: what it is, but not where
                return Prepared(view, header, signatures)
            case 1:  # votes of nobody
                fake = [VoteSignature(sender, bytes(64)) for sender in range(quorum)]
                return Prepared(max(message.view - 1, 0), header, fake)
            case 2:  # our own vote under every name
                vote = vote_of(self.world.id, "prepare", CHAIN, height, view, hash_)
                return Prepared(view, header, [VoteSignature(i, self.key.sign(vote)) for i in range(quorum)])
            case 3:  # our own vote several times
                vote = vote_of(self.world.id, "prepare", CHAIN, message.height, view, hash_)
                return Prepared(view, header, [VoteSignature(self.index, self.key.sign(vote))] * quorum)
            case 4:  # the votes of an earlier view in a later one, to outbid a true certificate
                return Prepared(message.view + 3, header, signatures)
        return Prepared(view, header, signatures[:-1])

    def _stale(self, message: ViewChange) -> Prepared | None:
        """A true certificate that a later one of another block has overtaken; until there is one, nothing at all."""
        quorum = quorum_of(self.n)
        full = {
            view: (hash_, votes)
            for (height, view, hash_), votes in self._prepares.items()
            if height == message.height and view < message.view and len(votes) >= quorum and hash_ in self._headers
        }
        if not full:
            return None
        view = min(full)
        hash_, votes = full[view]
        if all(other == hash_ for other, _ in full.values()):
            return None
        chosen = [VoteSignature(sender, votes[sender]) for sender in sorted(votes)][:quorum]
        return Prepared(view, self._headers[hash_], chosen)

    def _early_new_view(self, message: ViewChange) -> Extra:
        """Leads a view that too few have asked for."""
        height, view = message.height, message.view
        votes = list(self._changes[(height, view)].values())
        mine = self.seal(ViewChange(CHAIN, self.index, height, view, None))
        votes = [*votes, mine, mine, *(self._changes.get((height, view - 1), {}).values())]
        return self.everybody(self.seal(NewView(CHAIN, self.index, height, view, votes[: quorum_of(self.n)])))

    def _forged_blocks(self, message: PrePrepare) -> Extra:
        """A final block that is not: certified by us alone, or a true certificate with another body."""
        header = codec.decode(message.header, Header)
        other = self.build(header, message.digests, 2) or message.header
        station = self.station
        assert station.replica is None or station.ledger is not None
        bodies = [station.replica.pool.find(digest) or b"" for digest in message.digests] if station.replica else []
        hash_ = hash_of(self.world.id, other)
        vote = vote_of(self.world.id, "commit", CHAIN, message.height, message.view, hash_)
        mine = self.key.sign(vote)
        indices = self.chance.choice(([self.index] * self.n, list(range(self.n))))
        count = self.chance.choice((1, quorum_of(self.n) - 1, quorum_of(self.n)))
        votes = [VoteSignature(index, mine) for index in indices[:count]]
        certified = certify(other, bodies, Certificate(message.view, votes))
        found = self.world.watch.certified.get(message.height - 1)
        extras = self.everybody(self.seal(SyncBlocks(CHAIN, self.index, message.height, [certified])))
        if found is not None:
            _, block, _, certificate = decode_certified(found)
            wrong = certify(block.header, [*block.transactions, *bodies], certificate)
            extras += self.everybody(self.seal(SyncBlocks(CHAIN, self.index, message.height - 1, [wrong])))
        return extras


class Usurper(Liar):
    """Waits until somebody commits, then takes the next view it leads, with whatever passes for leave to do so."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._changes: dict[tuple[int, int], dict[int, bytes]] = {}
        self._took: dict[tuple[int, int], bytes] = {}
        "(height, view) -> hash of the block of ours."
        self._waiting: dict[int, PrePrepare] = {}
        "Height -> a proposal to copy the transactions from."

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        match message:
            case PrePrepare():
                self._waiting.setdefault(message.height, message)
            case ViewChange():
                self._changes.setdefault((message.height, message.view), {})[message.sender] = frame
                asked = len(self._changes[(message.height, message.view)])
                if self.leads(message.height, message.view) and asked >= quorum_of(self.n) - 1:
                    return self._take(message.height, message.view, forged=True)
            case Commit() if message.sender != self.index:
                views = range(message.view + 1, message.view + 1 + self.n)
                view = next((view for view in views if self.leads(message.height, view)), 0)
                extras = self._take(message.height, view, forged=False) if view else []
                if self.chance.chance(200_000):  # and wants everybody far away
                    far = ViewChange(CHAIN, self.index, message.height, message.view + self.chance.between(1, 6), None)
                    extras += self.everybody(self.seal(far))
                return extras
        return []

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        place = (getattr(message, "height", 0), getattr(message, "view", -1))
        if place in self._took and isinstance(message, PrePrepare | NewView | Prepare | Commit):
            return []
        return [frame]

    def _take(self, height: int, view: int, forged: bool) -> Extra:
        """A new view, a block of ours in it, and our votes for that."""
        copied = self._waiting.get(height)
        if copied is None or (height, view) in self._took:
            return []
        header = codec.decode(copied.header, Header)
        made_in = view - 1 if forged else view
        made = replaced(header, view=made_in)
        block = self.build(made, copied.digests, 1, self.leader(height, made_in))
        if block is None:
            return []
        hash_ = hash_of(self.world.id, block)
        self._took[(height, view)] = hash_
        votes = self._votes(height, view, block if forged else None)
        frames = [
            self.seal(NewView(CHAIN, self.index, height, view, votes)),
            self.seal(PrePrepare(CHAIN, self.index, height, view, block, copied.digests)),
            self.seal(Prepare(CHAIN, self.index, height, view, hash_)),
            self.seal(Commit(CHAIN, self.index, height, view, hash_)),
        ]
        return [extra for frame in frames for extra in self.everybody(frame)]

    def _votes(self, height: int, view: int, block: bytes | None) -> list[bytes]:
        quorum = quorum_of(self.n)
        mine = self.seal(ViewChange(CHAIN, self.index, height, view, None))
        if block is not None:
            unsigned = [VoteSignature(index, bytes(64)) for index in range(quorum)]
            lie = self.seal(ViewChange(CHAIN, self.index, height, view, Prepared(view - 1, block, unsigned)))
            others = [vote for sender, vote in sorted(self._changes[(height, view)].items()) if sender != self.index]
            return [*others[: quorum - 1], lie]
        match self.chance.below(3):
            case 0:
                return [mine]
            case 1:
                return [mine] * quorum
        # What others said when they asked for other views.
        old = [frames for (at, _), frames in sorted(self._changes.items()) if at == height]
        return [mine, *{sender: vote for frames in old for sender, vote in frames.items()}.values()][:quorum]


class BadBlock(Liar):
    """As leader proposes blocks with one thing wrong."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._made: dict[tuple[int, int], tuple[bytes, bytes, list[bytes]]] = {}
        "(height, view) -> (frame, hash, bodies)."

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        if isinstance(message, Prepare | Commit):
            made = self._made.get((message.height, message.view))
            return [frame if made is None else self.seal(type(message)(*place_of(message), made[1]))]
        if not isinstance(message, PrePrepare):
            return [frame]
        place = (message.height, message.view)
        header = codec.decode(message.header, Header)
        if place not in self._made and header.view == message.view:
            made_ = self._make(message, header)
            if made_ is not None:
                self._made[place] = made_
        if place not in self._made:
            return [frame]
        bad, hash_, bodies = self._made[place]
        return [bad, self.seal(Bodies(CHAIN, self.index, message.height, hash_, bodies))]

    def receive(self, sender: int, frame: bytes) -> Extra:
        try:
            message = open_frame(frame, CHAIN)[1]
        except DecodeError:
            return []
        if isinstance(message, Fetch):
            for _, hash_, bodies in self._made.values():
                if hash_ == message.block_hash:
                    return [(sender, self.seal(Bodies(CHAIN, self.index, message.height, hash_, bodies)))]
        return []

    def _make(self, message: PrePrepare, header: Header) -> tuple[bytes, bytes, list[bytes]] | None:
        station = self.station
        if station.replica is None or station.ledger is None:
            return None
        bodies = [tx for digest in message.digests if (tx := station.replica.pool.find(digest)) is not None]
        wrong = self.chance.choice((self.chance.below(8), 5, 8, 9, 10, 11, 12, 13, 14))
        ahead_s = self.chance.choice((4, 3600))
        fields: dict[int, dict[str, Any]] = {
            0: {"state_root": bytes(32)},
            1: {"receipt_root": bytes(32)},
            2: {"outbox_root": bytes(32)},
            3: {"proposer": (self.index + 1) % self.n},
            4: {"previous": bytes(32)},
            6: {"rules_version": 9},
            7: {"term": header.term + 1},
            14: {"next_validators": bytes(32)},
        }
        if wrong == 5:
            head, station.ledger.head = station.ledger.head, replace(station.ledger.head, time_s=0)
            bad = station.ledger.build(header.view, self.index, header.time_s - 3, bodies).header
            station.ledger.head = head
        elif wrong in fields:
            bad = codec.encode(replaced(header, **fields[wrong]))
        elif wrong == 8:
            bad = station.ledger.build(header.view, self.index, header.time_s + ahead_s, bodies).header
        else:
            tx = self._bad_transaction(wrong, header, bodies)
            bodies = bodies[:-1] if wrong == 11 else bodies
            bodies = [*bodies, tx]
            built = station.ledger.build(header.view, self.index, header.time_s, bodies)
            bad = built.header
            if built.transactions != bodies:
                root = merkle.root([merkle.leaf_hash(body) for body in bodies])
                bad = codec.encode(replaced(header, tx_root=root, tx_count=len(bodies)))
        digests = [merkle.leaf_hash(body) for body in bodies]
        frame = self.seal(PrePrepare(*place_of(message), bad, digests))
        return frame, hash_of(self.world.id, bad), bodies

    def _bad_transaction(self, wrong: int, header: Header, bodies: list[bytes]) -> bytes:
        """One that may not be in this block, whatever else is in it."""
        world = self.world
        user = world.users[self.chance.below(len(world.users))]
        if wrong == 9 and world.watch.certified:  # what is final already
            height = self.chance.choice(sorted(world.watch.certified))
            return decode_certified(world.watch.certified[height])[1].transactions[0]
        nonce = 1
        for tx in bodies:
            payload, signer, _ = msgpack.decode(tx)
            nonce = msgpack.decode(payload)[2] + 1 if signer == user.public else nonce
        if wrong == 10 or not bodies:  # nobody signed it
            payload = codec.encode(["Add", CHAIN, nonce, [7]])
            return codec.encode([payload, user.public, bytes(64)])
        if wrong == 11:  # a known payload with another signature
            payload, signer, signature = msgpack.decode(bodies[-1])
            return codec.encode([payload, signer, bytes([signature[0] ^ 1]) + signature[1:]])
        if wrong == 12:  # meant for another chain
            return make_tx(user, world.id, "Add", nonce, [7], chain=0)
        return make_tx(self.key, world.id, "Add", 1, [7])  # by a stranger


class Impersonate(Liar):
    """Speaks in the name of others, with its own signature, theirs, or none."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._done: dict[tuple[int, int, bytes], None] = {}

    def hear(self, message: Message, frame: bytes, station: "Station") -> Extra:
        if isinstance(message, PrePrepare):
            hash_ = hash_of(self.world.id, message.header)
        elif isinstance(message, Prepare):
            hash_ = message.block_hash
        else:
            return []
        place = (message.height, message.view, hash_)
        if place in self._done:
            return []
        self._done[place] = None
        extras: Extra = []
        for name in (index for index in range(self.n) if index != self.index):
            for vote in (Prepare(CHAIN, name, *place), Commit(CHAIN, name, *place)):
                extras += self.everybody(self.seal(vote))
                extras += self.everybody(codec.encode(Frame(codec.encode(vote), bytes(64))))
        return extras


class Mutate(Liar):
    """Sends what honest code made, with a field or a byte changed, mostly signed anew."""

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        if not self.chance.chance(250_000):
            return [frame]
        body = list(msgpack.decode(msgpack.decode(frame)[0]))
        place = self.chance.between(1, len(body) - 1)
        value = body[place]
        if isinstance(value, int):
            body[place] = max(0, self.chance.choice((value - 1, value + 1, value + 7, 2**16 - 1, 0)))
        elif isinstance(value, bytes) and value:
            at = self.chance.below(len(value))
            body[place] = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        elif isinstance(value, list):
            body[place] = value[:-1] if self.chance.chance(500_000) else value * 2
        data = msgpack.encode(body)
        try:
            message: Message = codec.decode(data, Message)  # type: ignore[arg-type]  # a union
        except DecodeError:
            signature = self.key.sign(codec.signing_bytes(b"frame", self.world.id, data))
            return [codec.encode(Frame(data, signature))]
        return [self.seal(message)]


class Withhold(Liar):
    """Gives nobody a transaction, and its proposals to a few only."""

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        message = self.open(frame)
        if isinstance(message, Bodies | Gossip):
            return []
        if isinstance(message, PrePrepare | NewView) and (peer + message.height) % self.n >= self.n - self.n // 3 - 1:
            return []
        return [frame]


class Mute(Liar):
    """Is there and says nothing; plays back old frames of its own now and then."""

    def __init__(self, world: "World", node: int) -> None:
        super().__init__(world, node)
        self._old: list[bytes] = []

    def spoil(self, peer: int, frame: bytes) -> list[bytes]:
        if len(self._old) < HISTORY_MAX:
            self._old.append(frame)
        return [self.chance.choice(self._old)] if self.chance.chance(100_000) else []


_CLASSES: dict[str, type[Liar]] = {
    "split": Split,
    "echo": Echo,
    "forgetful": Forgetful,
    "forge": Forge,
    "badblock": BadBlock,
    "usurper": Usurper,
    "impersonate": Impersonate,
    "mutate": Mutate,
    "withhold": Withhold,
    "mute": Mute,
    "rotten": Rotten,
    "vouch": Vouch,
    "censor": Censor,
}


def make_liars(world: "World", node: int, names: tuple[str, ...]) -> list[Liar]:
    """The strategies of a bad validator; twins and rolled back disks need none, their code is honest."""
    return [_CLASSES[name](world, node) for name in names if name in _CLASSES]
