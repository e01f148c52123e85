"""The simulated area: stations with real replicas and ledgers, one queue of events, one virtual clock.

A station is one running copy of a validator; twins are two stations with one key. Times are milliseconds of true time;
every station has a clock of its own with an error and a drift, and sees only that one. The order of events at the same
millisecond is drawn from the seed too.
"""

import heapq
from collections.abc import Callable
from hashlib import blake2b

from watt_chain import codec, crypto
from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.contract.rules import RULES_1
from watt_chain.genesis import network_of
from watt_chain.ledger import Contract
from watt_chain.light import LightClient
from watt_chain.pbft import Output, Replica, ReplicaConfig
from watt_chain.pbft.config import Signer
from watt_chain.pbft.messages import Message, open_frame
from watt_chain.transaction import decode_transaction

from watt_sim.books import Books
from watt_sim.config import USERS, Config, Event
from watt_sim.disk import Disk, place_of
from watt_sim.drbg import Drbg
from watt_sim.fakes import CHAIN, START_S, StrongArea, TallyContract, fake_verify, found_network, make_signer, make_tx
from watt_sim.liar import Liar
from watt_sim.liars import make_liars
from watt_sim.members import Members
from watt_sim.network import Cut, Network
from watt_sim.plain import quorum_of
from watt_sim.reference import Reference
from watt_sim.station import Station, StoredLedger
from watt_sim.terms import Terms
from watt_sim.violation import Violation
from watt_sim.watch import Watch

STEPS_MAX = 600_000
"""Events of a run; a world that does not come to rest within them has a loop."""
BOUNDS_EVERY = 512
"""Events between two looks at the sizes of everything."""
BEGIN_MS = 1000
OFFICES = ("regulator", "grid", "aggregator")
SLOTS = 300
"""Entries of the first state where states are transferred: two chunks."""
REJOIN = "Rejoin"
"""What a node in doubt asks for (CONSENSUS.md 4.7.6); the contracts refuse it, and it is in a block all the same."""


class World:
    """A run in progress."""

    def __init__(self, config: Config, log: Callable[[int, str], None] | None = None) -> None:
        """`log` is told (true time in ms, line) of everything that happens: the transcript."""
        self.config = config
        self.log = log
        self.chance = Drbg("world", config.seed, config.n)
        self.now_ms = BEGIN_MS
        self.hash = blake2b(digest_size=16)
        self.events = 0
        self.moves = 0
        "Blocks and states taken, doubts cleared, stations started and stopped, by all stations together."
        self.calm = False
        "Whether everything works and nothing old waits any more: nobody has grounds to object to a good leader."
        self._order = 0
        self._queue: list[tuple[int, int, int, Callable[[], None]]] = []
        self._opened: tuple[bytes, Message] | None = None
        self.hooks: list[Callable[[Station, int], None]] = []
        "Told of every final block: (station, height)."
        area = config.contract == "area"
        self.nodes = config.n + config.spare
        "Numbers of all nodes are below this; those from n on only follow at first."
        self.keys = [make_signer(f"node{node}", config.real, area) for node in range(self.nodes)]
        "Of each node its newest key."
        self.owners = {key.public: node for node, key in enumerate(self.keys)}
        self.offices = [make_signer(name, config.real, True) for name in OFFICES]
        self.users = self.offices if area else [make_signer(f"user{i}", config.real) for i in range(USERS)]
        self.terms_key = self.offices[1]
        "The grid's, whose calls keep a long run going."
        self.user_publics = tuple(key.public for key in self.users)
        self.verify = crypto.verify if config.real else fake_verify
        self.genesis = found_network(self.keys[: config.n], self.offices, [codec.encode(RULES_1)])
        self.id = network_of(self.genesis)
        self.slots = SLOTS if config.freeze and not area else 0
        listed = [(node, one.name, one.public) for node, one in enumerate(self.genesis.validators(CHAIN))]
        followed = None if area else self.user_publics
        about = (listed, followed, self.slots, config.strengths_ppm, config.real)
        reference = Reference(self.id, self.verify, START_S, *about)
        client = LightClient(self.genesis, self.id, self.verify)
        self.guilty = tuple(node for node, _ in config.bad)
        self.dead = config.dead
        "Honest nodes that stay down after the network heals."
        self.watch = Watch(self.id, self.owners, self.verify, reference, client, self.guilty)
        self.books = Books() if area else None
        self.network = Network(config, Drbg("network", config.seed, config.n))
        self.members = Members(self)
        self.stations: list[Station] = []
        for node in range(config.n):
            self._settle(node, node not in self.guilty)
        for node, names in config.bad:
            self.stations[node].liars = make_liars(self, node, names)
        for node, names in config.bad:
            if "twin" in names:
                self._settle(node, False)
        for node in range(config.n, self.nodes):
            self._settle(node, True)
        self.homes = [next(one for one in self.stations if one.node == node) for node in range(self.nodes)]
        "The first station of each node."
        if config.terms:
            Terms(self)
        for station in self.stations:
            self.start(station)

    def _settle(self, node: int, honest: bool) -> None:
        config = self.config
        skew_ms = config.skew_ms[node] if node < len(config.skew_ms) else 0
        drift_ppm = config.drift_ppm[node] if node < len(config.drift_ppm) else 0
        station = Station(len(self.stations), node, honest, skew_ms, drift_ppm)
        station.keys = [self.keys[node]]
        station.prunes = node in config.prunes
        if config.founding:
            station.disk.lose_votes()  # a disk on which nothing was ever written
        self.stations.append(station)

    # Stations ---------------------------------------------------------------------------------------------

    def contract(self) -> Contract:
        """The contract of the chain, new."""
        if self.config.contract == "area":
            return StrongArea(self.config.strengths_ppm)
        return TallyContract(self.user_publics, self.slots)

    def start(self, station: Station) -> None:
        """Start a station from its disk."""
        ledger = StoredLedger(self.genesis, CHAIN, self.contract(), verify=self.verify, freeze_every=self.config.freeze)
        ledger.disk = station.disk
        if station.load(ledger):
            self.watch.count("start-from-state")
        first, *others = station.keys
        config = ReplicaConfig(
            number=station.node,
            others=tuple(node for node in range(self.config.n) if node != station.node),
            key=first,
            protocol_time=lambda clock_ms: START_S + clock_ms // 1000,
            verify=self.verify,
            assigned=self.config.assigned,
            **self.config.settings,  # type: ignore[arg-type]  # numbers by name
        )
        self.moves += 1
        station.ledger, station.replica = ledger, Replica(config, ledger)
        station.trap = None
        station.rejoined = b"", -1
        now_ms = station.clock(self.now_ms)
        for key in others:
            station.replica.add_key(key, now_ms)
        heights = [place_of(record)[1] for record in station.disk.votes]
        if any(height > ledger.head.height for height in heights):
            self.watch.count("restart-with-votes")
        if station.disk.floor > ledger.head.height:
            self.watch.count("below-floor")
        manifest, parts = station.interrupted()
        if parts:
            self.watch.count("restart-within-a-transfer")
        station.replica.restore(station.disk.votes, now_ms, station.disk.floor, manifest, parts)
        self.carry_out(station)

    def crash(self, station: Station, why: str) -> None:
        """Stop at once; what was not synced is partly lost, frames on their way still arrive."""
        if station.replica is None:
            return
        self._take_evidence(station)
        if station.disk.crash(self.chance):
            self.watch.count("torn-tail")
        self.watch.count(why)
        self.note(f"node{station.node} stops: {why}")
        station.replica = station.ledger = None
        station.timer_ms = None
        self.moves += 1

    def carry_out(self, station: Station) -> None:
        """What a shell does: persist, send, store; with a crash at the trapped point."""
        replica = station.replica
        assert replica is not None
        output = replica.take_output()
        if output:
            if station.honest:
                self._judge(station, output)
            point = self._sprung(station, output)
            if self._persist_and_send(station, output, point):
                self._store(station, output, point)
        if station.replica is None:
            return
        self._set_timer(station)
        if output.commit or output.installed or output.persist:
            self.moves += 1
        for rejected in output.rejected:
            if rejected.reason == "left-out":
                self.watch.count("left-out")
                if self.calm and station.honest and self.stations[rejected.sender].honest:
                    raise Violation("I13", f"node{station.node} objects to a good leader, node{rejected.sender}")
        if output.commit or output.installed:
            self._advanced(station, output)

    def _judge(self, station: Station, output: Output) -> None:
        """What is final for an honest node, whether it lives to write it down or not."""
        assert station.ledger is not None
        if output.installed is not None:
            known = self.watch.reference.height
            self.watch.installed(station.node, output.installed, self.members.lists_ahead())
            if self.watch.reference.height > known:
                self.books = None  # nobody honest has seen the blocks before: what was spent in them is not known
        for certified, applied in zip(output.commit, output.applied, strict=True):
            known = self.watch.reference.height
            self.watch.final(station.node, certified, START_S + self.now_ms // 1000, station.ledger.changes)
            if self.books is not None and self.watch.reference.height > known:
                self.books.take(applied)
        if self.books is not None and self.books.height == station.ledger.head.height:
            self.books.compare(station.ledger)

    def _advanced(self, station: Station, output: Output) -> None:
        """The ledger has moved: a lost key may be replaced, a doubt ended, duties of the election done."""
        self.rejoin(station)
        for height in (applied.header.height for applied in output.applied):
            for hook in self.hooks:
                hook(station, height)

    def rejoin(self, station: Station) -> None:
        """While a node does not trust its memory, it hands in a transaction of its own until one is final."""
        if station.replica is None or station.ledger is None or not station.replica.doubt:
            return
        self.watch.count("doubt")
        key = next((key for key in station.keys if key.public in station.ledger.publics), station.keys[-1])
        nonce = station.ledger.next_nonce(key.public)
        is_out = station.rejoined[0] == key.public and station.rejoined[1] >= nonce
        if station.ledger.head.height and nonce >= 0 and not is_out:
            station.rejoined = key.public, nonce
            salt = self.chance.word() << 32 | self.chance.word()
            tx = make_tx(key, self.id, REJOIN, nonce, [salt.to_bytes(32, "big")])
            station.replica.pledge(decode_transaction(tx).txid)
            self.submit(station, tx)

    def _sprung(self, station: Station, output: Output) -> str:
        """The point at which this output kills the station; empty when it does not."""
        if station.trap is None or not any(place_of(record)[0] == station.trap[0] for record in output.persist):
            return ""
        point, down_ms = station.trap[1], station.trap[2]
        self.at(self.now_ms + down_ms, lambda: self.restart(station))
        return point

    def restart(self, station: Station) -> None:
        """Start a station that is down, unless its key is lost."""
        if station.replica is None and not station.lost:
            self.note(f"node{station.node} starts again")
            self.start(station)

    def _persist_and_send(self, station: Station, output: Output, point: str) -> bool:
        """False when the station died on the way."""
        station.disk.append(output.persist)
        if point == "before-sync":
            self.crash(station, "crash-before-sync")
            return False
        station.disk.sync()
        if any(place_of(record)[0] == "clear" for record in output.persist):
            self.watch.count("doubt-cleared")
        if point == "after-sync":
            self.crash(station, "crash-after-record")
            return False
        last = self.chance.below(len(output.send)) if point == "mid-send" and output.send else -1
        for number, (peer, frame) in enumerate(output.send):
            self._send(station, peer, frame)
            if number == last:
                self.crash(station, "crash-while-sending")
                return False
        return True

    def _store(self, station: Station, output: Output, point: str) -> None:
        disk = station.disk
        disk.parts.extend(output.parts)
        if point == "before-store":
            self.crash(station, "crash-before-store")
            return
        if output.installed is not None:
            disk.install(output.installed)
            self.note(f"node{station.node} goes on from the state of height {disk.end}")
        for certified in output.commit:
            disk.store(certified, self.config.trim)
            if self.log is not None:
                self.note(f"node{station.node} stores height {disk.end}")
        if point == "after-store":
            self.crash(station, "crash-after-store")
            return
        assert station.ledger is not None
        frozen = station.ledger.frozen
        if output.commit and frozen and frozen[-1].height <= disk.end:
            newest = disk.states[-1].height if disk.states else 0
            if frozen[-1].height > newest:
                disk.freeze(frozen[-1])
            if station.prunes and disk.prune():
                self.watch.count("blocks-dropped")

    def _take_evidence(self, station: Station) -> None:
        if station.honest and station.replica is not None:
            self.watch.evidence(station.node, station.replica.evidence)

    # Frames -----------------------------------------------------------------------------------------------

    def opened(self, frame: bytes) -> Message:
        """The content of a frame that a station made itself; a broadcast is opened once."""
        if self._opened is None or self._opened[0] is not frame:
            self._opened = frame, open_frame(frame, CHAIN)[1]
        return self._opened[1]

    def _send(self, station: Station, peer: int, frame: bytes) -> None:
        fresh = self._opened is None or self._opened[0] is not frame
        message = self.opened(frame)
        if fresh:
            self.watch.sent(station.node, message, station.honest, station.disk)
            for liar in self._liars():
                if liar.index >= 0:
                    for to, extra in liar.hear(message, frame, station):
                        self.post(liar.station, to, extra)
        kind = _kind(message)
        frames = [frame]
        for liar in station.liars:
            frames = [out for data in frames for out in liar.spoil(peer, data)]
        for data in frames:
            self.post(station, peer, data, kind, getattr(message, "view", -1))

    def _liars(self) -> list[Liar]:
        return [liar for node in self.guilty for liar in self.stations[node].liars]

    def post(self, station: Station, to: int, frame: bytes, kind: str = "forged", view: int = -1) -> None:
        """Give a frame to the network."""
        if not station.honest:
            self.watch.heard(station.node, frame)
        for target in self.stations:
            if target.node != to or target.node == station.node:
                continue
            for delay_ms, data in self.network.carry(station.place, target.place, kind, view, frame):
                self._deliver_at(self.now_ms + delay_ms, station.node, target, data, kind)

    def _deliver_at(self, at_ms: int, sender: int, target: Station, data: bytes, kind: str) -> None:
        self.at(at_ms, lambda: self._deliver(sender, target, data, kind))

    def _deliver(self, sender: int, target: Station, data: bytes, kind: str) -> None:
        if target.replica is None:
            return
        self.hash.update(b"%d %d %d " % (self.now_ms, sender, target.place))
        self.hash.update(data[-24:])
        if self.log is not None:
            self.note(f"node{sender} -> node{target.node}  {describe(data) or kind}")
        target.replica.receive(sender, data, target.clock(self.now_ms))
        for liar in target.liars:
            for to, extra in liar.receive(sender, data):
                self.post(target, to, extra)
        self.carry_out(target)

    def submit(self, station: Station, tx: bytes) -> str:
        """Hand a transaction to a running station; "" or why it was not taken."""
        if station.replica is None:
            return "down"
        reason = station.replica.submit(tx, station.clock(self.now_ms))
        self.carry_out(station)
        return reason

    # Time -------------------------------------------------------------------------------------------------

    def at(self, at_ms: int, action: Callable[[], None]) -> None:
        """Do something later; the order at the same millisecond is drawn."""
        self._order += 1
        heapq.heappush(self._queue, (at_ms, self.chance.word(), self._order, action))

    def _set_timer(self, station: Station) -> None:
        assert station.replica is not None
        due_ms = station.replica.next_deadline_ms()
        at_ms = None if due_ms is None else station.true_of(due_ms, self.now_ms)
        if at_ms is not None and at_ms != station.timer_ms:
            self.at(at_ms, lambda: self._expire(station, at_ms))
        station.timer_ms = at_ms

    def _expire(self, station: Station, at_ms: int) -> None:
        if station.replica is None or station.timer_ms != at_ms:
            return
        station.timer_ms = None
        self.hash.update(b"%d t%d " % (self.now_ms, station.place))
        station.replica.expire(station.clock(self.now_ms))
        self.carry_out(station)

    def run(self, until_ms: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `done` says so (True) or until the given time."""
        moved = -1
        while self._queue and self._queue[0][0] <= until_ms:
            if done is not None and moved != self.moves:  # nothing else makes anything final
                moved = self.moves
                if done():
                    return True
            self.now_ms, _, _, action = heapq.heappop(self._queue)
            self.events += 1
            if self.events > STEPS_MAX:
                raise Violation("I14", "the world does not come to rest")
            action()
            if self.events % BOUNDS_EVERY == 0:
                self.check_bounds()
        self.now_ms = max(self.now_ms, until_ms)
        return done is not None and done()

    def check_bounds(self) -> None:
        """Sizes of everything at every honest station, and its evidence."""
        for station in self.stations:
            if station.honest and station.replica is not None:
                self.watch.bounded(station.node, station.replica)
                self._take_evidence(station)

    # Faults -----------------------------------------------------------------------------------------------

    def strike(self, event: Event) -> None:
        """A fault of the schedule."""
        station = self.stations[event.node] if event.kind != "submit" else self.stations[0]
        self.note(event.text())
        match event.kind:
            case "crash":
                self.crash(station, "crash")
            case "start":
                self.restart(station)
            case "trap":
                record, point, down_ms = event.detail
                station.trap = (str(record), str(point), int(down_ms))
            case "cut":
                mode, kind, *sides = event.detail
                self.network.cut = Cut(str(mode), event.node, str(kind), tuple(map(int, sides)), len(self.stations))
                self.watch.count(f"cut-{mode}")
            case "jump":
                station.jump(int(event.detail[0]))
                if station.replica is not None:
                    self._set_timer(station)
            case "outage":
                for each in self.stations:
                    self.crash(each, "outage")
                    self.at(self.now_ms + int(event.detail[0]), lambda each=each: self.restart(each))  # type: ignore[misc]
            case "lose-disk":
                self._lose_disk(station, str(event.detail[0]))
            case "snapshot":
                station.old = station.disk.snapshot()
            case "rollback":
                if station.old is not None:
                    self.crash(station, "rollback")
                    station.disk = station.old.snapshot()
                    self.restart(station)

    def mend(self) -> None:
        """Everybody can hear everybody, and whoever is down starts; frames still get lost."""
        self.network.cut = Cut()
        for station in self.stations:
            self.restart(station)

    def _lose_disk(self, station: Station, what: str) -> None:
        """An honest node loses votes, blocks or all of it, if the others can go on until it trusts itself again."""
        knowing = sum(one.honest and one.disk.end > 0 for one in self.homes if one.node != station.node)
        n = len(self.watch.reference.lists[self.watch.reference.height + 1])
        # While fewer know a block it might take part in founding the network again (CONSENSUS.md 4.7, (d)).
        if not station.honest or station.lost or knowing <= n - quorum_of(n) or not self.can_spare(station.node):
            return
        self.crash(station, f"{what}-lost")
        disk = station.disk
        if what != "votes":
            station.disk = Disk(written=disk.written, votes=disk.votes, durable_votes=len(disk.votes), floor=disk.floor)
        if what != "blocks":
            station.disk.lose_votes()
            station.wiped = True
        self.restart(station)

    def accept_disks(self) -> bool:
        """The operator, who knows that a new network's disks were never written on, says so; whether it helped anybody.

        CONSENSUS.md 4.7, (b) and (e): who hears of the first block before it has heard that there is none is in doubt,
        and with f liars the others cannot make the block that would end that.
        """
        helped = False
        for home in self.homes:
            if home.honest and home.disk.doubts and not home.wiped and home.replica is not None:
                self.crash(home, "disk-accepted")
                home.disk.votes.append(codec.encode(("clear", 0, 0, bytes(32), b"")))
                home.disk.sync()
                self.restart(home)
                helped = True
        return helped

    def reliable(self, node: int) -> bool:
        """Whether a node is honest, to stay, and trusts its memory."""
        home = self.homes[node]
        if node in self.guilty or node in self.dead or home.lost:
            return False
        return not home.disk.doubts and (home.ledger is None or home.ledger.head.height >= home.disk.floor)

    def signer(self, public: bytes) -> Signer | None:
        """Whatever key of a node has this public half; None when nobody has it any more."""
        held = [key for station in self.stations for key in station.keys]
        return next((key for key in held if key.public == public), None)

    def can_spare(self, *nodes: int) -> bool:
        """Whether every list that acts or is to act has a quorum of reliable nodes without these."""
        return all(
            sum(self.reliable(node) and node not in nodes for node, _, _ in listed) >= quorum_of(len(listed))
            for listed in self.members.lists_ahead()
        )

    def note(self, text: str) -> None:
        """One line of the transcript."""
        if self.log is not None:
            self.log(self.now_ms, text)


def _kind(message: Message) -> str:
    tag: str = message.__struct_config__.tag  # type: ignore[assignment]  # every message has a name
    return tag


def describe(frame: bytes) -> str:
    """A frame in a line of text; empty when it does not read."""
    try:
        message = open_frame(frame, CHAIN)[1]
    except DecodeError:
        return ""
    parts = [_kind(message), f"height {message.height}"]
    view = getattr(message, "view", None)
    if view is not None:
        parts.append(f"view {view}")
    hash_ = getattr(message, "block_hash", None)
    if hash_ is not None:
        parts.append(f"block {hash_.hex()[:8]}")
    return " ".join(parts)


def height_of(certified: bytes) -> int:
    """Height of a certified block."""
    return decode_certified(certified)[2].height
