"""The simulated area: stations with real replicas and ledgers, one queue of events, one virtual clock.

A station is one running copy of a validator; twins are two stations with one key. Times are milliseconds of true time;
every station has a clock of its own with an error and a drift, and sees only that one. The order of events at the same
millisecond is drawn from the seed too.
"""

import contextlib
import heapq
from collections.abc import Callable
from hashlib import blake2b

from watt_chain import codec, crypto
from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.contract import AreaContract
from watt_chain.contract.rules import RULES_1
from watt_chain.genesis import network_of
from watt_chain.ledger import Contract, Ledger
from watt_chain.light import LightClient
from watt_chain.pbft import Output, Replica, ReplicaConfig
from watt_chain.pbft.messages import Commit, Message, Prepare, PrePrepare, is_genuine, open_frame
from watt_market.engine import Market

from watt_sim.config import USERS, Config, Event
from watt_sim.disk import Disk, place_of
from watt_sim.drbg import Drbg
from watt_sim.fakes import CHAIN, START_S, TallyContract, fake_verify, found_network, make_signer
from watt_sim.liars import Liar, make_liars
from watt_sim.network import Cut, Network
from watt_sim.reference import Reference
from watt_sim.watch import Violation, Watch

STEPS_MAX = 300_000
"""Events of a run; a world that does not come to rest within them has a loop."""
BOUNDS_EVERY = 512
"""Events between two looks at the sizes of everything."""
BEGIN_MS = 1000
SKEW_MAX_MS = 2500
"""Error of an honest clock: half of what CONSENSUS.md 3.3 forgives, because two clocks are compared."""
OFFICES = ("regulator", "grid", "aggregator")


class Station:
    """One running copy of a validator."""

    def __init__(self, number: int, index: int, honest: bool, skew_ms: int, drift_ppm: int) -> None:
        self.number = number
        "Place in World.stations; the copy of a twin has one of its own."
        self.index = index
        "Which validator."
        self.honest = honest
        self.disk = Disk()
        self.old: Disk | None = None
        "A backup that a `rollback` puts back."
        self.replica: Replica | None = None
        self.ledger: Ledger | None = None
        self.liars: list[Liar] = []
        self.trap: tuple[str, str, int] | None = None
        "(kind of record, point, downtime in ms): dies at the next output that writes such a record."
        self.timer_ms: int | None = None
        self._skew_ms = skew_ms
        self._drift_ppm = drift_ppm

    def clock(self, true_ms: int) -> int:
        """What the station's clock shows."""
        return true_ms + self._skew_ms + true_ms * self._drift_ppm // 1_000_000

    def true_of(self, clock_ms: int, now_ms: int) -> int:
        """The first true time at which the clock shows at least `clock_ms`."""
        at_ms = max(now_ms, (clock_ms - self._skew_ms) * 1_000_000 // (1_000_000 + self._drift_ppm) - 2)
        while self.clock(at_ms) < clock_ms:
            at_ms += 1
        return at_ms

    def jump(self, by_ms: int) -> None:
        """The clock is set forward, within the error that an honest clock may have."""
        self._skew_ms = max(self._skew_ms, min(self._skew_ms + by_ms, SKEW_MAX_MS))


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
        self._order = 0
        self._queue: list[tuple[int, int, int, Callable[[], None]]] = []
        self._opened: tuple[bytes, Message] | None = None
        area = config.contract == "area"
        self.keys = [make_signer(f"node{index}", config.real, area) for index in range(config.n)]
        self.offices = [make_signer(name, config.real, True) for name in OFFICES]
        self.users = self.offices if area else [make_signer(f"user{i}", config.real) for i in range(USERS)]
        self.publics = tuple(key.public for key in self.keys)
        self.user_publics = tuple(key.public for key in self.users)
        self.verify = crypto.verify if config.real else fake_verify
        self.genesis = found_network(self.keys, self.offices, [codec.encode(RULES_1)])
        self.id = network_of(self.genesis)
        followed = None if area else self.user_publics
        seats = [validator.name for validator in self.genesis.validators(CHAIN)]
        reference = Reference(self.id, self.publics, self.verify, START_S, followed, seats)
        client = LightClient(self.genesis, self.id, self.verify)
        self.guilty = tuple(index for index, _ in config.bad)
        self.watch = Watch(self.id, self.publics, self.verify, reference, client, self.guilty)
        self.network = Network(config, Drbg("network", config.seed, config.n))
        self.stations: list[Station] = []
        for index in range(config.n):
            self._settle(index, index not in self.guilty)
        for index, names in config.bad:
            self.stations[index].liars = make_liars(self, index, names)
        for index, names in config.bad:
            if "twin" in names:
                self._settle(index, False)
        for station in self.stations:
            self.start(station)

    def _settle(self, index: int, honest: bool) -> None:
        config = self.config
        skew_ms = config.skew_ms[index] if config.skew_ms else 0
        drift_ppm = config.drift_ppm[index] if config.drift_ppm else 0
        self.stations.append(Station(len(self.stations), index, honest, skew_ms, drift_ppm))

    # Stations ---------------------------------------------------------------------------------------------

    def contract(self) -> Contract:
        """The contract of the chain, new."""
        return AreaContract(Market()) if self.config.contract == "area" else TallyContract(self.user_publics)

    def new_ledger(self) -> Ledger:
        """A ledger at height 0."""
        return Ledger(self.genesis, CHAIN, self.contract(), verify=self.verify)

    def start(self, station: Station) -> None:
        """Start a station from its disk."""
        ledger = self.new_ledger()
        for certified in station.disk.blocks:
            ledger.replay(certified)
        config = ReplicaConfig(
            number=station.index,
            others=(),
            key=self.keys[station.index],
            protocol_time=lambda clock_ms: START_S + clock_ms // 1000,
            verify=self.verify,
            assigned=self.config.assigned,
            **self.config.settings,  # type: ignore[arg-type]  # numbers by name
        )
        station.ledger, station.replica = ledger, Replica(config, ledger)
        station.trap = None
        now_ms = station.clock(self.now_ms)
        heights = [place_of(record)[1] for record in station.disk.votes]
        if any(height > ledger.head.height for height in heights):
            self.watch.count("restart-with-votes")
        station.replica.restore(station.disk.votes, now_ms)
        self.carry_out(station)

    def crash(self, station: Station, why: str) -> None:
        """Stop at once; what was not synced is partly lost, frames on their way still arrive."""
        if station.replica is None:
            return
        self._take_evidence(station)
        if station.disk.crash(self.chance):
            self.watch.count("torn-tail")
        self.watch.count(why)
        self.note(f"node{station.index} stops: {why}")
        station.replica = station.ledger = None
        station.timer_ms = None

    def carry_out(self, station: Station) -> None:
        """What a shell does: persist, send, store; with a crash at the trapped point."""
        assert station.replica is not None
        output = station.replica.take_output()
        if output:
            point = self._sprung(station, output)
            if self._persist_and_send(station, output, point):
                self._store(station, output, point)
        if station.replica is not None:
            self._set_timer(station)

    def _sprung(self, station: Station, output: Output) -> str:
        """The point at which this output kills the station; empty when it does not."""
        if station.trap is None or not any(place_of(record)[0] == station.trap[0] for record in output.persist):
            return ""
        point, down_ms = station.trap[1], station.trap[2]
        self.at(self.now_ms + down_ms, lambda: self._restart(station))
        return point

    def _restart(self, station: Station) -> None:
        if station.replica is None:
            self.note(f"node{station.index} starts again")
            self.start(station)

    def _persist_and_send(self, station: Station, output: Output, point: str) -> bool:
        """False when the station died on the way."""
        station.disk.append(output.persist)
        if point == "before-sync":
            self.crash(station, "crash-before-sync")
            return False
        station.disk.sync()
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
        if point == "before-store":
            self.crash(station, "crash-before-store")
            return
        for certified in output.commit:
            station.disk.store(certified, self.config.trim)
            if self.log is not None:
                self.note(f"node{station.index} stores height {len(station.disk.blocks)}")
            if station.honest:
                self.watch.final(station.index, certified, START_S + self.now_ms // 1000)
        if point == "after-store":
            self.crash(station, "crash-after-store")

    def _take_evidence(self, station: Station) -> None:
        if station.honest and station.replica is not None:
            self.watch.evidence(station.index, station.replica.evidence)

    # Frames -----------------------------------------------------------------------------------------------

    def opened(self, frame: bytes, sender: int) -> Message:
        """The content of a frame that a station made itself; a broadcast is opened once."""
        if self._opened is None or self._opened[0] is not frame:
            self._opened = frame, open_frame(frame, CHAIN, sender)[1]
        return self._opened[1]

    def _send(self, station: Station, peer: int, frame: bytes) -> None:
        fresh = self._opened is None or self._opened[0] is not frame
        message = self.opened(frame, station.index)
        if fresh:
            self.watch.sent(station.index, message, station.honest, station.disk)
            for liar in self._liars():
                for to, extra in liar.hear(message, frame, station):
                    self.post(self.stations[liar.index], to, extra)
        kind = _kind(message)
        frames = [frame]
        for liar in station.liars:
            frames = [out for data in frames for out in liar.spoil(peer, data)]
        for data in frames:
            self.post(station, peer, data, kind, getattr(message, "view", -1))

    def _liars(self) -> list[Liar]:
        return [liar for index in self.guilty for liar in self.stations[index].liars]

    def post(self, station: Station, to: int, frame: bytes, kind: str = "forged", view: int = -1) -> None:
        """Give a frame to the network."""
        if not station.honest:
            self._register(station.index, frame)
        for target in self.stations:
            if target.index != to or target.index == station.index:
                continue
            for delay_ms, data in self.network.carry(station.number, target.number, kind, view, frame):
                self._deliver_at(self.now_ms + delay_ms, station.index, target, data, kind)

    def _register(self, index: int, frame: bytes) -> None:
        """A bad validator's votes count for others when they are its own."""
        try:
            opened, message = open_frame(frame, CHAIN, index)
        except DecodeError:
            return
        if isinstance(message, Prepare | Commit) and is_genuine(
            opened, message, self.id, self.publics[index], self.verify
        ):
            self.watch.voted(index, message)
        elif isinstance(message, PrePrepare):
            with contextlib.suppress(DecodeError):
                self.watch.proposed(message)

    def _deliver_at(self, at_ms: int, sender: int, target: Station, data: bytes, kind: str) -> None:
        self.at(at_ms, lambda: self._deliver(sender, target, data, kind))

    def _deliver(self, sender: int, target: Station, data: bytes, kind: str) -> None:
        if target.replica is None:
            return
        self.hash.update(b"%d %d %d " % (self.now_ms, sender, target.number))
        self.hash.update(data[-24:])
        if self.log is not None:
            self.note(f"node{sender} -> node{target.index}  {describe(data, sender) or kind}")
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
        self.hash.update(b"%d t%d " % (self.now_ms, station.number))
        station.replica.expire(station.clock(self.now_ms))
        self.carry_out(station)

    def run(self, until_ms: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `done` says so (True) or until the given time."""
        while self._queue and self._queue[0][0] <= until_ms:
            if done is not None and done():
                return True
            self.now_ms, _, _, action = heapq.heappop(self._queue)
            self.events += 1
            if self.events > STEPS_MAX:
                raise Violation("I14", "the world does not come to rest")
            action()
            if self.events % BOUNDS_EVERY == 0:
                self.check_bounds()
        self.now_ms = until_ms
        return done is not None and done()

    def check_bounds(self) -> None:
        """Sizes of everything at every honest station, and its evidence."""
        for station in self.stations:
            if station.honest and station.replica is not None:
                self.watch.bounded(station.index, station.replica)
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
                self._restart(station)
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
                    self.at(self.now_ms + int(event.detail[0]), lambda each=each: self._restart(each))  # type: ignore[misc]
            case "snapshot":
                station.old = station.disk.snapshot()
            case "rollback":
                if station.old is not None:
                    self.crash(station, "rollback")
                    station.disk = station.old.snapshot()
                    self._restart(station)

    def note(self, text: str) -> None:
        """One line of the transcript."""
        if self.log is not None:
            self.log(self.now_ms, text)


def _kind(message: Message) -> str:
    tag: str = message.__struct_config__.tag  # type: ignore[assignment]  # every message has a name
    return tag


def describe(frame: bytes, sender: int) -> str:
    """A frame in a line of text; empty when it does not read."""
    try:
        message = open_frame(frame, CHAIN, sender)[1]
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
