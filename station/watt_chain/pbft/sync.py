"""Catching up: who has blocks we lack, asking one of them at a time, serving those who lack ours (CONSENSUS.md 4.6).

A peer's word about its height is never believed, only followed up: what arrives is certified blocks, or a certified
state, and a certificate needs nobody's word. So a liar costs one question and its patience (SYNC_TIMEOUT_MS).
"""

from watt_chain.codec import DecodeError
from watt_chain.pbft.config import CLAIMS_MAX, HELP_INTERVAL_MS, SYNC_DELAY_MS, SYNC_TIMEOUT_MS
from watt_chain.pbft.desk import Desk, Throttle
from watt_chain.pbft.messages import (
    SYNC_BLOCKS_MAX,
    SYNC_BYTES_MAX,
    StateOffer,
    StatePart,
    StateRequest,
    Status,
    SyncBlocks,
    SyncRequest,
)
from watt_chain.pbft.transfer import Transfer
from watt_chain.snapshot import FrozenState, Manifest, StateRange


class CatchUp:
    """What we know of our peers' heights, and the questions under way."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._claims: dict[int, int] = {}
        "Greatest height each peer, by number, showed or claimed; it never falls, unless the peer sent rubbish."
        self._distrusted: dict[int, int] = {}
        "Who sent what did not check, and when; the last few."
        self._asked = desk.config.number
        self._told = desk.config.number
        "Who heard of our height last, while we only follow."
        self._head_ms = 0
        "When our head last moved."
        self._throttle = Throttle(HELP_INTERVAL_MS)
        self._offers = Throttle(HELP_INTERVAL_MS)
        self._next_ms: int | None = None
        self.transfer: Transfer | None = None
        "The state being fetched."

    @property
    def due_ms(self) -> int | None:
        """When to ask next; None when nobody seems to be ahead."""
        overdue = None if self.transfer is None else self.transfer.due_ms()
        known = [due for due in (self._next_ms, overdue) if due is not None]
        return min(known) if known else None

    @property
    def behind(self) -> int:
        """How many heights the most advanced claim is ahead of us."""
        return max(0, max(self._claims.values(), default=0) - self._desk.app.head.height)

    def claims(self) -> dict[int, int]:
        """Heights by peer, as claimed."""
        return dict(self._claims)

    def note(self, peer: int, height: int) -> None:
        """A peer showed that it is done with `height`."""
        if height > self._claims.get(peer, 0) and (peer in self._claims or len(self._claims) < CLAIMS_MAX):
            self._claims[peer] = height
        if height > self._desk.app.head.height and self._next_ms is None:
            self._next_ms = self._desk.now_ms + SYNC_DELAY_MS

    def distrust(self, peer: int) -> None:
        """What the peer sent did not check: forget its claim, and look at no block of it for a while."""
        self._claims.pop(peer, None)
        self._distrusted.pop(peer, None)
        self._distrusted[peer] = self._desk.now_ms
        if len(self._distrusted) > CLAIMS_MAX:
            del self._distrusted[next(iter(self._distrusted))]

    def is_trusted(self, peer: int) -> bool:
        """Whether blocks of this peer are looked at: not right after it sent a bad one or a bad state."""
        since_ms = self._distrusted.get(peer)
        return since_ms is None or self._desk.now_ms - since_ms >= SYNC_TIMEOUT_MS

    def advanced(self, eager: bool) -> None:
        """The head moved. `eager`: by a peer's answer, so ask for more at once."""
        self._head_ms = self._desk.now_ms
        if self.transfer is not None and self.transfer.height <= self._desk.app.head.height:
            self.transfer = None
        if not self.behind:
            self._next_ms = None
        elif eager:
            self._next_ms = self._desk.now_ms
        else:
            self._next_ms = self._desk.now_ms + SYNC_DELAY_MS

    def expire(self) -> None:
        """Ask the next peer that claims more than we have, and for what a state under way still lacks."""
        desk = self._desk
        if self.transfer is not None:
            self._ask_for_state()
        if self._next_ms is None or desk.now_ms < self._next_ms:
            return
        self._next_ms = None
        height = desk.app.head.height
        ahead = sorted(peer for peer, claim in self._claims.items() if claim > height)
        if ahead:
            self._asked = next((peer for peer in ahead if peer > self._asked), ahead[0])
            frame, _ = desk.seal(SyncRequest(desk.app.chain, desk.index, height + 1))
            desk.send(self._asked, frame)
            self._next_ms = desk.now_ms + SYNC_TIMEOUT_MS

    def announce(self, view: int, asks: bool) -> None:
        """Tell everybody where we are; who only follows tells one at a time, and is answered (CONSENSUS.md 8.4)."""
        desk = self._desk
        known = self._known()
        if desk.votes:
            for peer in known:
                self.tell(peer, view, asks)
        elif known:
            self._told = next((peer for peer in known if peer > self._told), known[0])
            self.tell(self._told, view, asks)

    def tell(self, peer: int, view: int, asks: bool) -> None:
        """Tell one where we are."""
        desk = self._desk
        frame, _ = desk.seal(Status(desk.app.chain, desk.index, desk.app.head.height, view, asks))
        desk.send(peer, frame)

    def _known(self) -> list[int]:
        """Numbers of the other validators, and of the nodes we were told of."""
        return sorted({*self._desk.numbers, *self._desk.config.others})

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
        else:
            self._offer(peer, height)

    # States (CONSENSUS.md 4.6.4 to 4.6.8) ------------------------------------------------------------------

    def _offer(self, peer: int, height: int) -> None:
        """The block is gone here: say what state there is instead."""
        desk = self._desk
        newest = desk.app.frozen[-1] if desk.app.frozen else None
        if newest is not None and newest.height >= height and self._offers.allows(peer, b"offer", desk.now_ms):
            frame, _ = desk.seal(StateOffer(desk.app.chain, desk.index, newest.height, newest.manifest()))
            desk.send(peer, frame)

    def serve_state(self, sender: int, message: StateRequest) -> None:
        """A peer fetches a state."""
        desk = self._desk
        for state in desk.app.frozen:
            if state.height == message.height:
                part = state.range(message.slot)
                question = b"s%d/%d" % (message.height, message.slot)
                if part is not None and self._throttle.allows(sender, question, desk.now_ms):
                    frame, _ = desk.seal(StatePart(desk.app.chain, desk.index, state.height, part))
                    desk.send(sender, frame)
                return
        self._offer(sender, message.height)

    def consider_offer(self, sender: int, message: StateOffer) -> None:
        """A peer offers a state for want of blocks."""
        desk, running = self._desk, self.transfer
        if not desk.config.takes_states or message.height <= desk.app.head.height:
            return
        if running is not None and not running.hopeless:  # else this offer is as good a beginning as any, also the same
            if message.manifest.header == running.manifest.header:
                return
            running.drop(sender)  # it has another state now
            if not running.hopeless:
                self._ask_for_state()
                return
        try:
            header = desk.app.check_final(message.manifest)
        except DecodeError:
            desk.reject("state-offer", sender)
            self.distrust(sender)
            return
        self._begin(header.height, message.manifest, sender)

    def _begin(self, height: int, manifest: Manifest, offerer: int) -> None:
        desk, before = self._desk, self.transfer
        self.transfer = Transfer(height, manifest, offerer, tuple(self._known()))
        desk.keep(manifest)
        if before is not None:
            self.transfer.reuse(before)
            for part in self.transfer.parts():
                desk.keep(part)
        self._ask_for_state()

    def resume(self, manifest: Manifest, parts: list[StateRange]) -> FrozenState | None:
        """Go on with a transfer that a restart interrupted; what does not check is fetched again.

        The state, when every part of it had come and it was installed now.
        """
        try:
            header = self._desk.app.check_final(manifest)
            self.transfer = Transfer(header.height, manifest, -1, tuple(self._known()))
            for part in parts:
                self.transfer.take(part)
        except DecodeError:
            return None
        return self._go_on(self.transfer, self._desk.config.number)

    def take_part(self, sender: int, message: StatePart) -> FrozenState | None:
        """A range of the state being fetched; the state, once it was installed."""
        desk, running = self._desk, self.transfer
        if running is None or message.height != running.height:
            return None
        running.answered(sender)
        try:
            if running.take(message.part):
                desk.keep(message.part)
        except DecodeError:
            desk.reject("state-part", sender)
            running.drop(sender)
        return self._go_on(running, sender)

    def _go_on(self, running: Transfer, sender: int) -> FrozenState | None:
        """Ask for what is missing, or install what is whole; the state, once it was."""
        if not running.complete:
            self._ask_for_state()
            return None
        self.transfer = None
        try:
            return self._desk.app.install(running.manifest, running.tree())
        except DecodeError:
            self._desk.reject("state-whole", sender)
            return None

    def _ask_for_state(self) -> None:
        """The next questions; a transfer that nobody answers is given up, and blocks or another offer come instead."""
        desk, running = self._desk, self.transfer
        if running is None:
            return
        for peer, slot in running.questions(desk.now_ms):
            frame, _ = desk.seal(StateRequest(desk.app.chain, desk.index, running.height, slot))
            desk.send(peer, frame)
        if running.hopeless:
            self._next_ms = desk.now_ms
