"""One running copy of a node: its disk, its clock, its keys; twins are two stations of one node."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from watt_chain import codec
from watt_chain.ledger import Ledger
from watt_chain.pbft import Replica
from watt_chain.snapshot import Manifest, StateRange
from watt_chain.tree import build_tree

from watt_sim.disk import Disk

if TYPE_CHECKING:
    from watt_chain.pbft.config import Signer

    from watt_sim.liar import Liar

SKEW_MAX_MS = 2500
"""Error of an honest clock: half of what CONSENSUS.md 3.3 forgives, because two clocks are compared."""
MANIFEST = bytes([0x90 + len(Manifest.__struct_fields__)])
"""First byte of an encoded Manifest; a StateRange has fewer fields."""


class Station:
    """A copy of a node."""

    def __init__(self, place: int, node: int, honest: bool, skew_ms: int, drift_ppm: int) -> None:
        self.place = place
        "In World.stations; the copy of a twin has one of its own."
        self.node = node
        "Number of the node, for life (CONSENSUS.md 1)."
        self.honest = honest
        self.keys: list[Signer] = []
        "What it can sign with; the list of a height says which of them counts, if any."
        self.disk = Disk()
        self.prunes = False
        "Drops blocks that a state stands for."
        self.old: Disk | None = None
        "A backup that a `rollback` puts back."
        self.replica: Replica | None = None
        self.ledger: Ledger | None = None
        self.liars: list[Liar] = []
        self.trap: tuple[str, str, int] | None = None
        "(kind of record, point, downtime in ms): dies at the next output that writes such a record."
        self.lost = False
        "Its key is gone; it comes back when a list has its new one."
        self.wiped = False
        "Its memory was lost at least once."
        self.rejoined = b"", -1
        "(key, nonce) of the transaction that is to end its doubt."
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

    def load(self, ledger: Ledger) -> bool:
        """Bring a new ledger to the last stored block; whether it began at a state."""
        fitting = [state for state in self.disk.states if self.disk.base <= state.height <= self.disk.end]
        if fitting:
            newest = fitting[-1]
            ledger.install(codec.decode(newest.manifest, Manifest), build_tree(iter(newest.entries)))
        for height in range(ledger.head.height + 1, self.disk.end + 1):
            certified = self.disk.block(height)
            assert certified is not None, "a state is kept for every block that was dropped"
            ledger.replay(certified)
        return bool(fitting)

    def interrupted(self) -> tuple[Manifest | None, Sequence[StateRange]]:
        """The state that was being fetched when it stopped."""
        manifest: Manifest | None = None
        parts: list[StateRange] = []
        for data in self.disk.parts:
            if data[:1] == MANIFEST:
                manifest, parts = codec.decode(data, Manifest), []
            else:
                parts.append(codec.decode(data, StateRange))
        return manifest, parts


class StoredLedger(Ledger):
    """A ledger that serves the blocks on its station's disk and no others: a run is too short to outgrow the memory."""

    disk: Disk

    def certified(self, height: int) -> bytes | None:
        """As `Ledger.certified`."""
        return self.disk.block(height)
