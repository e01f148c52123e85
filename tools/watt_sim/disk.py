"""The disk of a simulated node: votes, blocks, frozen states, and the parts of a state that is being fetched.

As in watt_node's vault: records are appended and synced before anything is sent, blocks and states are durable before
they are told. A crash keeps all that was synced and any beginning of the rest; a record cut in the middle is cut off at
start. Blocks under the older of two states may be dropped; a disk that lost its votes says so by a doubt.
"""

from dataclasses import dataclass, field

from msgspec import msgpack
from watt_chain import codec
from watt_chain.snapshot import FrozenState

from watt_sim.drbg import Drbg

Place = tuple[str, int, int, bytes]
"""(kind, height, view, block hash) of a record."""
STATES_KEPT = 2
"""The newest state, and the one before it."""
DOUBT = ("doubt", 0, 0, bytes(32), b"the votes are missing")
"""The record of a node whose votes may be incomplete (CONSENSUS.md 4.7.6)."""


def place_of(record: bytes) -> Place:
    """What a record is about; read without the core's own types."""
    kind, height, view, hash_, _ = msgpack.decode(record)
    return kind, height, view, hash_


@dataclass(frozen=True, slots=True)
class Stored:
    """A frozen state as its file holds it."""

    height: int
    manifest: bytes
    entries: tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Disk:
    """What one station keeps."""

    votes: list[bytes] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    "Of the heights base + 1, base + 2, ..."
    durable_votes: int = 0
    written: dict[Place, int] = field(default_factory=dict)
    "Places of the durable records and their order, for ever: what may be sent."
    base: int = 0
    states: list[Stored] = field(default_factory=list)
    "The last STATES_KEPT, ascending."
    parts: list[bytes] = field(default_factory=list)
    "Manifest and ranges of a state that is being fetched; never synced."
    floor: int = 0
    "Votes of heights up to this one may have been dropped."

    @property
    def end(self) -> int:
        """Height of the last block."""
        return self.base + len(self.blocks)

    def block(self, height: int) -> bytes | None:
        """The certified block of a height; None when it is not kept."""
        return self.blocks[height - self.base - 1] if self.base < height <= self.end else None

    def append(self, records: tuple[bytes, ...]) -> None:
        """Write; not durable yet."""
        self.votes.extend(records)

    def sync(self) -> None:
        """Make everything written durable."""
        for record in self.votes[self.durable_votes :]:
            self.written.setdefault(place_of(record), len(self.written))
        self.durable_votes = len(self.votes)

    def crash(self, chance: Drbg) -> int:
        """Lose a random tail of what was not synced; how many records were lost."""
        kept = chance.between(self.durable_votes, len(self.votes))
        lost = len(self.votes) - kept
        del self.votes[kept:]
        if self.parts:
            del self.parts[chance.between(0, len(self.parts)) :]
        self.sync()
        return lost

    def store(self, certified: bytes, trim: bool) -> None:
        """Store a final block; `trim`: drop the records of final heights as the shell does when its log grows."""
        self.blocks.append(certified)
        if trim:
            self._trim()

    def _trim(self) -> None:
        places = [(place_of(record), record) for record in self.votes]
        memory = [(place[0], record) for place, record in places if place[0] in ("doubt", "clear")]
        kept = [record for place, record in places if place[1] > self.end and place[0] != "clear"]
        if memory and memory[-1][0] == "doubt":
            kept.insert(0, memory[-1][1])
        self.votes, self.floor = kept, max(self.floor, self.end)
        self.durable_votes = len(self.votes)

    def install(self, state: FrozenState) -> None:
        """A state that was fetched takes the place of the blocks."""
        self.freeze(state)
        self.blocks, self.base, self.parts = [], state.height, []

    def freeze(self, state: FrozenState) -> None:
        """Write a state."""
        stored = Stored(state.height, codec.encode(state.manifest()), tuple(state.entries()))
        self.states = [*(old for old in self.states if old.height < stored.height), stored][-STATES_KEPT:]

    def prune(self) -> int:
        """Drop the blocks under the oldest state that is kept; how many."""
        count = max(0, self.states[0].height - self.base) if self.states else 0
        del self.blocks[:count]
        self.base += count
        return count

    @property
    def doubts(self) -> bool:
        """Whether the votes say that some of them may be missing."""
        memory = [kind for kind in (place_of(record)[0] for record in self.votes) if kind in ("doubt", "clear")]
        return bool(memory) and memory[-1] == "doubt"

    def lose_votes(self) -> None:
        """The votes are gone; the node notices at its next start."""
        self.votes, self.floor = [codec.encode(DOUBT)], 0
        self.sync()

    def snapshot(self) -> "Disk":
        """A copy, as a backup makes one."""
        votes, blocks, states, parts = (list(each) for each in (self.votes, self.blocks, self.states, self.parts))
        return Disk(votes, blocks, self.durable_votes, dict(self.written), self.base, states, parts, self.floor)  # type: ignore[arg-type]  # lists of their own kinds
