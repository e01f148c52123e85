"""The invariants: what must hold at every step, whatever happens to the network, the disks and f validators.

I1 one block per height, a quorum behind every commit; I2 nothing signed twice and no promise broken, over any number
of restarts; I3 every final block re-executes to its roots (reference.py); I7 nothing leaves before its record is
durable; I10 evidence names only guilty validators; I11 a light client accepts what is final; I14 everything is bounded.
I13 (progress) and I16 (determinism) are looked at by `run`.
"""

import contextlib
from collections.abc import Sequence
from hashlib import sha256

from msgspec import msgpack
from watt_chain import codec
from watt_chain.block import Change, Header, decode_certified
from watt_chain.light import LightClient, ProofError
from watt_chain.pbft import Evidence, Replica
from watt_chain.pbft.messages import (
    Commit,
    Frame,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    is_genuine,
    open_frame,
)
from watt_chain.snapshot import FrozenState

from watt_sim.disk import Disk
from watt_sim.fakes import CHAIN
from watt_sim.plain import hash_of, merkle_root, quorum_of, signing, vote_of
from watt_sim.reference import Listed, Reference, VerifyCall
from watt_sim.violation import Violation

PROPOSALS_MAX = 40
"""Complete blocks a height may keep: one for each view it went through, and runs end long before so many views."""
VOTES_MAX = 17
"""Views around its own for which a replica keeps votes, both ways, and its own."""
COUNTERS_MAX = 100
"""Different reasons of rejection there can be: they are words in the code, never text of a peer."""
SLOTS_MAX = 2000
"""Entries of the states of these worlds, amply."""
TIME_BOUND_S = 5 + 3
"""How far a final block may be ahead of true time: the bound of CONSENSUS.md 3.3 and the honest clocks' error."""


class Watch:
    """Sees every frame sent and every block stored, and raises Violation. Nodes are told by their numbers."""

    def __init__(
        self,
        network: bytes,
        owners: dict[bytes, int],
        verify: VerifyCall,
        reference: Reference,
        client: LightClient,
        guilty: tuple[int, ...],
    ) -> None:
        """`owners`: key -> number of the node; more may be added to it later."""
        self._network = network
        self._owners = owners
        self._verify = verify
        self.reference = reference
        self.client = client
        self.guilty = guilty
        self.chain: dict[int, bytes] = {}
        "Height -> hash of the final block."
        self.certified: dict[int, bytes] = {}
        self.coverage: dict[str, int] = {}
        self._signed: dict[tuple[int, str, int, int], bytes] = {}
        self._promised: dict[tuple[int, int], int] = {}
        "(node, height) -> view it said it moved to."
        self._committed: dict[tuple[int, int], int] = {}
        "(node, height) -> highest view in which it sent commit."
        self._voters: dict[tuple[str, int, int, bytes], dict[int, None]] = {}
        self._headers: dict[bytes, int] = {}
        "Block hash -> view of the header, of every proposal seen."
        self._supported: dict[int, dict[tuple[int, bytes], int]] = {}
        "Height -> (view, block) that an honest validator prepared -> which one."
        self._locked: dict[int, tuple[int, bytes]] = {}
        "Height -> (view, block) on which so many honest validators committed that it must stay."
        self._view: dict[int, int] = {}
        "Height -> highest view an honest validator asked for."
        self._early: dict[int, list[tuple[int, bytes]]] = {}
        "Height whose validators are not known yet -> (node, frame) of bad ones."
        self._places: dict[int, dict[int, int]] = {}
        "Height -> node -> index."
        self.forks: list[tuple[int, bytes, bytes]] = []
        self.forks_allowed = False
        "In the negative control more than f validators lie, and forks are expected: noted, not raised."

    def quorum(self, height: int) -> int:
        """Votes that decide at a height."""
        return quorum_of(len(self.reference.publics(height)))

    def index(self, node: int, height: int) -> int:
        """Place of a node on the list of a height; -1 when it is not on it."""
        places = self._places.get(height)
        if places is None:
            publics = self.reference.publics(height)
            places = {self._owners.get(public, -1): index for index, public in enumerate(publics)}
            if publics:
                self._places[height] = places
        return places.get(node, -1)

    def count(self, what: str) -> None:
        """Something rare was reached."""
        self.coverage[what] = self.coverage.get(what, 0) + 1

    # Frames -----------------------------------------------------------------------------------------------

    def sent(self, node: int, message: Message, honest: bool, disk: Disk) -> None:
        """A station is about to send a message of its own."""
        of_list = isinstance(message, PrePrepare | Prepare | Commit | ViewChange | NewView)
        place = self.index(node, message.height) if honest and of_list and not self.forks_allowed else message.sender
        if message.sender != place:  # in a forked chain a height has no one list
            raise Violation("I2", f"node{node} speaks as validator {message.sender} of {message.height}")
        match message:
            case PrePrepare():
                header = codec.decode(message.header, Header)
                hash_ = hash_of(self._network, message.header)
                self.proposed(message)
                if header.view < message.view:
                    self.count("prepared-reproposal")
                if honest:
                    self._once(node, "pre-prepare", message.height, message.view, hash_, disk)
            case Prepare() | Commit():
                phase = "prepare" if isinstance(message, Prepare) else "commit"
                if message.view > 0:
                    self.count(f"{phase}-in-later-view")
                if honest:
                    self.voted(node, message)
                    self._carried(node, message)
                    self._once(node, phase, message.height, message.view, message.block_hash, disk)
                    self._behind(node, message, phase)
            case ViewChange():
                self.count("view-change" if message.prepared is None else "view-change-with-certificate")
                if message.view > 2:
                    self.count("view-above-2")
                if honest:
                    self._moved(node, message, disk)
            case NewView():
                self.count("new-view")
                if honest:
                    self._durable(node, ("new-view",), message.height, message.view, bytes(32), disk)
            case _:
                self.count(type(message).__name__.lower())

    def heard(self, node: int, frame: bytes) -> None:
        """A frame of a bad validator: its votes count for others when they are its own."""
        try:
            opened, message = open_frame(frame, CHAIN)
        except codec.DecodeError:
            return
        if isinstance(message, PrePrepare):
            with contextlib.suppress(codec.DecodeError):
                self.proposed(message)
        if not isinstance(message, Prepare | Commit):
            return
        publics = self.reference.publics(message.height)
        if not publics and message.height == self.reference.height + 2:  # it knows a block that nobody honest has yet
            self._early.setdefault(message.height, []).append((node, frame))
        if self._listed(message.sender, message.height) == node and is_genuine(
            opened, message, self._network, publics[message.sender], self._verify
        ):
            self.voted(node, message)

    def voted(self, node: int, message: Prepare | Commit) -> None:
        """A genuine vote exists."""
        phase = "prepare" if isinstance(message, Prepare) else "commit"
        self._voters.setdefault((phase, message.height, message.view, message.block_hash), {})[node] = None

    def proposed(self, message: PrePrepare) -> None:
        """A proposal exists, whoever made it."""
        self._headers[hash_of(self._network, message.header)] = codec.decode(message.header, Header).view

    def _carried(self, node: int, message: Prepare | Commit) -> None:
        """I1 before it is too late: what may be final is carried on, and only what a quorum prepared is carried."""
        height, view, hash_ = message.height, message.view, message.block_hash
        if self.forks_allowed:
            return
        if isinstance(message, Commit):
            voters = self._voters[("commit", height, view, hash_)]
            n = len(self.reference.publics(height))
            if sum(voter not in self.guilty for voter in voters) > n - quorum_of(n):
                # Every quorum of view changes now has an honest one among them that reports this block.
                self._locked.setdefault(height, (view, hash_))
        elif self._headers.get(hash_, view) < view:
            earlier = max(len(self._voters.get(("prepare", height, v, hash_), ())) for v in range(view))
            if earlier < self.quorum(height) - 1:  # one vote may be durable and not yet sent, its voter having crashed
                raise Violation("I1", f"node{node} prepares in view {view} of {height} what no quorum had prepared")
        if isinstance(message, Prepare):
            self._supported.setdefault(height, {})[(view, hash_)] = node
        locked = self._locked.get(height)
        for (later, other), voter in self._supported.get(height, {}).items() if locked else ():
            if locked is not None and later > locked[0] and other != locked[1]:
                raise Violation("I1", f"node{voter} prepares another block of {height} than view {locked[0]} fixed")

    def _once(self, node: int, phase: str, height: int, view: int, hash_: bytes, disk: Disk) -> None:
        """I2: one value per place, and none below a promised view; I7: written down before."""
        kinds = {"pre-prepare": ("proposal",), "prepare": ("proposal", "prepare"), "commit": ("commit",)}[phase]
        written = self._durable(node, kinds, height, view, hash_, disk)
        place = (node, phase, height, view)
        known = self._signed.setdefault(place, hash_)
        if known != hash_:
            raise Violation("I2", f"node{node} sends two {phase} in view {view} of height {height}")
        promised = self._promised.get((node, height), 0)
        # What was written down before the promise may leave after it: a crash can lie between.
        if view < promised and written > disk.written[("view-change", height, promised, bytes(32))]:
            raise Violation("I2", f"node{node} sends {phase} in view {view} of {height}, which it had left")

    def _durable(self, node: int, kinds: tuple[str, ...], height: int, view: int, hash_: bytes, disk: Disk) -> int:
        """I7: when the record of this message was written; it must have been."""
        for kind in kinds:
            if (kind, height, view, hash_) in disk.written:
                return disk.written[(kind, height, view, hash_)]
        raise Violation("I7", f"node{node} sends what only {kinds[0]} {height}/{view} could repeat after a crash")

    def _behind(self, node: int, message: Prepare | Commit, phase: str) -> None:
        """A quorum prepared what is committed."""
        if phase == "prepare":
            return
        voters = self._voters.get(("prepare", message.height, message.view, message.block_hash), {})
        # Its own prepare counts from the moment it is durable: a crash may have come before it was sent.
        if len({*voters, node}) < self.quorum(message.height) and not self.forks_allowed:
            raise Violation("I1", f"node{node} sends commit with the prepares of {sorted(voters)} only")
        place = (node, message.height)
        self._committed[place] = max(self._committed.get(place, 0), message.view)

    def _moved(self, node: int, message: ViewChange, disk: Disk) -> None:
        """A view change tells what its sender committed on, and stands for ever."""
        place = (node, message.height)
        self._durable(node, ("view-change",), message.height, message.view, bytes(32), disk)
        self._promised[place] = max(self._promised.get(place, 0), message.view)
        if message.view > self._view.get(message.height, 0) + 1:
            raise Violation("I13", f"node{node} jumps to view {message.view} of {message.height}, led by liars")
        self._view[message.height] = max(self._view.get(message.height, 0), message.view)
        committed = self._committed.get(place)
        if committed is not None and (message.prepared is None or message.prepared.view < committed):
            raise Violation("I2", f"node{node} hides that it committed in view {committed} of {message.height}")

    # Blocks -----------------------------------------------------------------------------------------------

    def final(self, node: int, certified: bytes, true_s: int, changes: Sequence[Change]) -> None:
        """A block is final for an honest node, whose ledger knows these `changes` of the list."""
        parts, block, header, certificate = decode_certified(certified)
        hash_ = hash_of(self._network, block.header)
        height = header.height
        if certificate.view > header.view:
            self.count("final-in-later-view")
        if height <= self.reference.height and height not in self.certified and not self.forks_allowed:
            self._agreed(node, height, hash_, certified)  # somebody honest went on from a state before this block
            return
        problem = self.reference.check_certificate(certified)
        if problem and not self.forks_allowed:
            raise Violation("I3", f"node{node}, height {height}: {problem}")
        self._agreed(node, height, hash_, certified)
        if height in self.certified:
            return
        self.certified[height] = certified
        if self.forks_allowed:
            return
        problem = self.reference.follow(certified)
        if problem:
            raise Violation("I3", f"node{node}, height {height}: {problem}")
        for what in self.reference.reached():
            self.count(what)
        if header.time_s > true_s + TIME_BOUND_S:
            raise Violation("I3", f"height {height} has a time {header.time_s - true_s} s ahead")
        for other, frame in self._early.pop(height + 1, ()):
            self.heard(other, frame)
        try:
            self.client.check_header(CHAIN, block.header, parts.certificate)
            if self.reference.lists[height] != self.reference.lists[height + 1]:
                self.count("list-changed")
                self.client.follow(CHAIN, changes)
        except ProofError as error:
            raise Violation("I11", f"a light client refuses the final block {height}: {error.reason}") from error

    def _agreed(self, node: int, height: int, hash_: bytes, certified: bytes) -> None:
        """I1."""
        known = self.chain.setdefault(height, hash_)
        if known != hash_:
            if not self.forks_allowed:
                raise Violation("I1", f"node{node} has another block at height {height} than the first to decide it")
            self.forks.append((height, self.certified[height], certified))

    def installed(self, node: int, state: FrozenState, ahead: Sequence[Listed]) -> None:
        """An honest node went on from a state instead of from the blocks before it.

        `ahead`: lists that may validate heights whose predecessor nobody honest has seen.
        """
        self.count("state-installed")
        height = state.height
        possible = ahead if height > self.reference.height + 1 else [self.reference.lists[height]]
        sealed = state.header, state.certificate
        problem = min((self.reference.check_header(*sealed, listed) for listed in possible), key=len)
        if problem:
            raise Violation("I3", f"node{node} installs the state of {height}: {problem}")
        self._agreed(node, height, hash_of(self._network, state.header), b"")
        if height > self.reference.height:  # the block before it was never seen by anybody honest
            self.count("state-before-block")
            problem = self.reference.jump(state.header, list(state.entries()))
        elif merkle_root([msgpack.encode([key, value]) for key, value in state.entries()]) != _root_of(state):
            problem = "it is not the one of its header"
        if problem:
            raise Violation("I3", f"node{node} installs the state of {height}: {problem}")

    # Evidence ---------------------------------------------------------------------------------------------

    def evidence(self, node: int, found: tuple[Evidence, ...]) -> None:
        """I10: what an honest node holds against others is true, and only against the guilty."""
        for item in found:
            self.count(f"evidence-{item.kind}")
            accused = self._owners.get(item.public, -1)
            if accused not in self.guilty:
                raise Violation("I10", f"node{node} accuses node{accused}, which is honest, of two {item.kind}")
            of_list = item.kind != "attest" and not self.forks_allowed  # in a forked chain a height has no one list
            if of_list and accused != self._listed(item.sender, item.height):
                raise Violation("I10", f"node{node} accuses node{accused} under a key of another height")
            if not proves(item, self._network, self._verify):
                raise Violation("I10", f"what node{node} holds against node{accused} proves nothing")

    def _listed(self, index: int, height: int) -> int:
        """The node at a place of the list of a height."""
        publics = self.reference.publics(height)
        return self._owners.get(publics[index], -1) if index < len(publics) else -1

    # Bounds -----------------------------------------------------------------------------------------------

    def bounded(self, node: int, replica: Replica) -> None:
        """I14: no peer makes a replica's memory grow without limit."""
        round_ = replica._agreement.round
        sizes = {
            "blocks of a height": (len(round_.proposals), PROPOSALS_MAX),
            "votes": (len(round_.prepares._by_sender) + len(round_.commits._by_sender), 2 * VOTES_MAX * 64),
            "early proposals": (len(round_.early), VOTES_MAX),
            "view changes": (len(round_.view_changes), replica._desk.n),
            "known view changes": (len(round_.known_votes), replica._desk.n),
            "claims": (len(replica._catch_up._claims), 128),
            "parts of a state": (_parts_of(replica), 1 + 2 * SLOTS_MAX),
            "pledges": (len(replica._agreement.silence._pledges), 1024),
            "frames of the next height": (max(map(len, replica._future.values()), default=0), 16),
            "evidence": (len(replica.evidence), 64),
            "reasons": (len(replica._desk.counters), COUNTERS_MAX),
            "unattested transactions": (replica._exchange.attest.sizes()[0], 4096),
            "attestations of one": (replica._exchange.attest.sizes()[1], 8192),
            "waiting transactions": (len(replica.pool), 20_000),
        }
        for name, (size, limit) in sizes.items():
            if size > limit:
                raise Violation("I14", f"node{node} keeps {size} {name}, more than {limit}")


def _root_of(state: FrozenState) -> bytes:
    return codec.decode(state.header, Header).state_root


def _parts_of(replica: Replica) -> int:
    transfer = replica._catch_up.transfer
    return 0 if transfer is None else transfer.slots


def proves(item: Evidence, network: bytes, verify: VerifyCall) -> bool:
    """Whether two frames show that one validator signed two blocks at one place; from the bytes alone.

    Of kind "attest": whether it attested the signature of this transaction, and that does not hold.
    """
    if item.kind == "attest":
        return _attested_falsely(item, network, verify)
    seen: list[bytes] = []
    for data in (item.first, item.second):
        frame = codec.decode(data, Frame)
        body = msgpack.decode(frame.body)
        if [body[0], body[2], body[3], body[4]] != [item.kind, item.sender, item.height, item.view]:
            return False
        if item.kind == "pre-prepare":
            message, hash_ = signing(b"frame", network, frame.body), hash_of(network, body[5])
        else:
            message, hash_ = vote_of(network, item.kind, body[1], body[3], body[4], body[5]), body[5]
        if not verify(item.public, message, frame.signature):
            return False
        seen.append(hash_)
    return seen[0] != seen[1]


def _attested_falsely(item: Evidence, network: bytes, verify: VerifyCall) -> bool:
    frame = codec.decode(item.first, Frame)
    name, _, sender, _, digests = msgpack.decode(frame.body)
    payload, signer, signature = msgpack.decode(item.second)
    return (
        (name, sender) == ("attest", item.sender)
        and sha256(b"\x00" + item.second).digest() in digests
        and verify(item.public, signing(b"frame", network, frame.body), frame.signature)
        and not verify(signer, signing(b"tx", network, payload), signature)
    )
