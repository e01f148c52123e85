"""Catching up: who has blocks we lack, asking one of them at a time, serving those who lack ours (CONSENSUS.md 4.6).

A peer's word about its height is never believed, only followed up: what arrives is certified blocks, and a
certificate needs nobody's word. So a liar costs one question and its patience (SYNC_TIMEOUT_MS).
"""

from watt_chain.pbft.config import HELP_INTERVAL_MS, SYNC_DELAY_MS, SYNC_TIMEOUT_MS
from watt_chain.pbft.desk import Desk, Throttle
from watt_chain.pbft.messages import SYNC_BLOCKS_MAX, SYNC_BYTES_MAX, Status, SyncBlocks, SyncRequest


class CatchUp:
    """What we know of our peers' heights, and the one question under way."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._claims: dict[int, int] = {}
        "Greatest height each peer showed or claimed; it never falls, unless the peer sent rubbish."
        self._asked = desk.index
        self._head_ms = 0
        "When our head last moved."
        self._throttle = Throttle(HELP_INTERVAL_MS)
        self.due_ms: int | None = None
        "When to ask next; None when nobody seems to be ahead."

    @property
    def behind(self) -> int:
        """How many heights the most advanced claim is ahead of us."""
        return max(0, max(self._claims.values(), default=0) - self._desk.app.head.height)

    def claims(self) -> dict[int, int]:
        """Heights by peer, as claimed."""
        return dict(self._claims)

    def note(self, peer: int, height: int) -> None:
        """A peer showed that it is done with `height`."""
        if height > self._claims.get(peer, 0):
            self._claims[peer] = height
        if height > self._desk.app.head.height and self.due_ms is None:
            self.due_ms = self._desk.now_ms + SYNC_DELAY_MS

    def distrust(self, peer: int) -> None:
        """What the peer sent did not check: forget its claim."""
        self._claims.pop(peer, None)

    def advanced(self, eager: bool) -> None:
        """The head moved. `eager`: by a peer's answer, so ask for more at once."""
        self._head_ms = self._desk.now_ms
        if not self.behind:
            self.due_ms = None
        elif eager:
            self.due_ms = self._desk.now_ms
        else:
            self.due_ms = self._desk.now_ms + SYNC_DELAY_MS

    def expire(self) -> None:
        """Ask the next peer that claims more than we have."""
        desk = self._desk
        if self.due_ms is None or desk.now_ms < self.due_ms:
            return
        self.due_ms = None
        height = desk.app.head.height
        for step in range(1, desk.n + 1):
            peer = (self._asked + step) % desk.n
            if peer != desk.index and self._claims.get(peer, 0) > height:
                self._asked = peer
                frame, _ = desk.seal(SyncRequest(desk.app.chain, desk.index, height + 1))
                desk.send(peer, frame)
                self.due_ms = desk.now_ms + SYNC_TIMEOUT_MS
                return

    def announce(self, view: int) -> None:
        """Tell everybody where we are."""
        desk = self._desk
        frame, _ = desk.seal(Status(desk.app.chain, desk.index, desk.app.head.height, view))
        desk.broadcast(frame)

    def nudge(self, peer: int, height: int) -> None:
        """A peer still votes on a height that is final here: help it, unless it just hears of it as we did."""
        if self._desk.now_ms - self._head_ms >= SYNC_DELAY_MS:
            self.help(peer, height)

    def help(self, peer: int, height: int) -> None:
        """Send a laggard the final blocks from `height` on; throttled, because its frames may be many."""
        desk = self._desk
        if height > desk.app.head.height or not self._throttle.allows(peer, b"%d" % height, desk.now_ms):
            return
        blocks: list[bytes] = []
        size = 0
        for number in range(max(height, 1), min(height + SYNC_BLOCKS_MAX, desk.app.head.height + 1)):
            certified = desk.app.certified(number)
            if certified is None or (blocks and size + len(certified) > SYNC_BYTES_MAX):
                break
            blocks.append(certified)
            size += len(certified)
        if blocks:
            frame, _ = desk.seal(SyncBlocks(desk.app.chain, desk.index, max(height, 1), blocks))
            desk.send(peer, frame)
