"""The negative control: with one liar more than the protocol bears, forks must show, and name who lied (I10).

f + 1 validators run twice, the honest ones are kept apart, so each side has its quorum. Afterwards the two certificates
of a height and what the liars had sent are enough to name at least f + 1 of them, and nobody else. Without this the
thousands of runs in which no fork appears would prove little: a simulator that cannot fork finds no fork.
"""

from dataclasses import dataclass

from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.ledger import CorruptionError
from watt_chain.pbft.messages import Commit, Message, Prepare, ViewChange, is_genuine, open_frame

from watt_sim.config import Config, Event
from watt_sim.drbg import Drbg
from watt_sim.fakes import CHAIN, make_tx
from watt_sim.station import Station
from watt_sim.twins import SETTINGS
from watt_sim.world import World

ROUNDS = 12
ROUND_MS = 150


@dataclass(frozen=True, slots=True)
class Fork:
    """Two final blocks at one height."""

    height: int
    views: tuple[int, int]
    "Of the two certificates."
    named: tuple[int, ...]
    "Validators that the proof convicts."


@dataclass(frozen=True, slots=True)
class Control:
    """A run with f + 1 liars."""

    seed: int
    n: int
    liars: tuple[int, ...]
    forks: tuple[Fork, ...]


class _Listener(World):
    """A world that keeps what bad validators send."""

    def __init__(self, config: Config) -> None:
        self.said: list[tuple[int, bytes]] = []
        super().__init__(config)

    def post(self, station: Station, to: int, frame: bytes, kind: str = "forged", view: int = -1) -> None:
        """As World.post."""
        if not station.honest:
            self.said.append((station.node, frame))
        super().post(station, to, frame, kind, view)


def run_control(seed: int, n: int) -> Control:
    """Play a seed with f + 1 doubled validators."""
    chance = Drbg("control", seed, n)
    liars = tuple(chance.some(range(n), (n - 1) // 3 + 1))
    honest = [index for index in range(n) if index not in liars]
    first = chance.some(honest, len(honest) // 2)
    sides = [0 if index in first else 1 for index in range(n)]
    for index in liars:
        sides[index] = 0
    sides += [1] * len(liars)
    config = Config(seed, n, delay_ms=(1, 20), settings=SETTINGS, bad=tuple((index, ("twin",)) for index in liars))
    world = _Listener(config)
    world.watch.forks_allowed = True
    apart = Event(world.now_ms, "cut", 0, ("split", "", *sides))
    one_way = Event(world.now_ms, "cut", chance.choice(honest), ("isolate", ""))
    try:
        for turn in range(ROUNDS):
            # Apart all the time, or joined with one validator left out now and then: forks of one view and of two.
            world.strike(one_way if chance.chance(200_000) else apart)
            for user, key in enumerate(world.users):
                side = [station for station in world.stations if sides[station.place] == user % 2]
                world.submit(chance.choice(side), make_tx(key, world.id, "Add", turn + 1, [user]))
            world.run(world.now_ms + ROUND_MS)
    except CorruptionError:
        pass  # an honest validator saw two certified histories and stopped, as it must (CONSENSUS.md 3.4)
    return Control(seed, n, liars, tuple(_judge(world, *fork) for fork in world.watch.forks))


def _judge(world: _Listener, height: int, first: bytes, second: bytes) -> Fork:
    """Who must have lied for both blocks to be final. Looks at nothing but signed bytes."""
    certificates = sorted((decode_certified(block)[3] for block in (first, second)), key=lambda found: found.view)
    early, late = certificates
    voters = [[vote.index for vote in certificate.votes] for certificate in certificates]
    named: dict[int, None] = {}
    if early.view == late.view:
        named = {index: None for index in voters[0] if index in voters[1]}
    seen: dict[tuple[int, str, int], bytes] = {}
    for index, frame in world.said:
        message = _genuine(world, index, frame)
        if message is None or message.height != height:
            continue
        if isinstance(message, Prepare | Commit):
            place = (index, type(message).__name__, message.view)
            if seen.setdefault(place, message.block_hash) != message.block_hash:
                named[index] = None
        elif isinstance(message, ViewChange) and index in voters[0] and early.view < message.view <= late.view:
            denied = message.prepared is None or message.prepared.view < early.view
            named.update({index: None} if denied else {})
    return Fork(height, (early.view, late.view), tuple(sorted(named)))


def _genuine(world: World, index: int, frame: bytes) -> Message | None:
    try:
        opened, message = open_frame(frame, CHAIN, index)
    except DecodeError:
        return None
    return message if is_genuine(opened, message, world.id, world.keys[index].public, world.verify) else None
