"""The disk of a simulated validator: two logs with a mark up to which they are durable.

As in watt_node's store: records are appended and synced before anything is sent, blocks are appended and synced after.
A crash keeps all that was synced and any beginning of the rest; a record cut in the middle is cut off at start.
"""

from dataclasses import dataclass, field

from msgspec import msgpack

from watt_sim.drbg import Drbg

Place = tuple[str, int, int, bytes]
"""(kind, height, view, block hash) of a record."""


def place_of(record: bytes) -> Place:
    """What a record is about; read without the core's own types."""
    kind, height, view, hash_, _ = msgpack.decode(record)
    return kind, height, view, hash_


@dataclass(slots=True)
class Disk:
    """Votes and blocks of one validator."""

    votes: list[bytes] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    durable_votes: int = 0
    written: dict[Place, int] = field(default_factory=dict)
    "Places of the durable records and their order, for ever: what may be sent."

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
        self.sync()
        return lost

    def store(self, certified: bytes, trim: bool) -> None:
        """Store a final block; `trim`: drop the records of final heights as the shell does when its log grows."""
        self.blocks.append(certified)
        if trim:
            self.votes = [record for record in self.votes if place_of(record)[1] > len(self.blocks)]
            self.durable_votes = len(self.votes)

    def snapshot(self) -> "Disk":
        """A copy, as a backup makes one."""
        return Disk(list(self.votes), list(self.blocks), self.durable_votes, dict(self.written))
