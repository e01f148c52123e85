"""Nodes of our mode: areas whose cross-nodes carry certified messages; masters that execute again, anchor, decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from watt_chain import codec
from watt_chain.block import OutMessage, decode_certified
from watt_chain.codec import DecodeError
from watt_chain.genesis import faults_tolerated
from watt_chain.ledger import AppliedBlock, CorruptionError
from watt_chain.transaction import Verify

from watt_tools.paper import product
from watt_tools.paper.actors import RELAY_MS, Actor, AreaNode, Inbox, Kind, Member, Settings
from watt_tools.paper.certified import MAIN, Anchored
from watt_tools.paper.network import Network
from watt_tools.paper.objects import AnchorCall, Bundle, Bundler, InboxCall

KEPT_MAX: Final = 64
"""Blocks a normal node keeps in case it has to carry them: many bursts' worth."""


class CertifiedNode(AreaNode):
    """A node of an area under certified receipts."""

    def __init__(self, network: Network, area: int, index: int, verify: Verify, settings: Settings) -> None:
        super().__init__(network, area, index, verify, settings)
        self._inbox = self.make_inbox()
        self._open: dict[int, None] = {}
        "Trades that this area has spoken of, without outcome."
        self._kept: dict[int, tuple[bytes, AppliedBlock]] = {}
        "Normal nodes: the last blocks. The main chain takes all in order, so whoever carries one carries those before."
        self._carry_ms: int | None = None

    def make_inbox(self) -> Inbox:
        """The way in for messages of other chains."""
        return Inbox(self.member)

    def receive_more(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """Certified messages, from anybody."""
        if kind == Kind.BUNDLE:
            self._inbox.take(payload, now_ms)

    def deadline_ms(self) -> int | None:
        """The replica's, the inbox's, and that of carrying what others should have carried."""
        dues = [super().deadline_ms(), self._inbox.deadline_ms(), self._carry_ms]
        return min((due for due in dues if due is not None), default=None)

    def expire(self, now_ms: int) -> None:
        """As deadline_ms."""
        if self._carry_ms is not None and now_ms >= self._carry_ms:
            self._carry_ms = None
            for certified, applied in self._kept.values():
                self.carry(certified, applied)
            self._kept.clear()
        super().expire(now_ms)

    def follow_up(self, now_ms: int) -> bool:
        """Hand in messages that wait."""
        return self._inbox.propose(now_ms)

    def on_block(self, certified: bytes, applied: AppliedBlock, now_ms: int) -> None:
        """Carry the block, or see to it that somebody does."""
        self._inbox.settled()
        self.note(applied)
        if self.is_cross:
            self.carry(certified, applied)
            return
        self._kept[applied.header.height] = certified, applied
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        if not self._open:
            self._carry_ms = None
        elif self._carry_ms is None:
            self._carry_ms = now_ms + RELAY_MS

    def note(self, applied: AppliedBlock) -> None:
        """Steps of trades: what this area says, and what the main chain has said to it."""
        super().note(applied)
        for number, _ in self.steps:
            self._open[number] = None
        for message in self.taken_in(applied):
            if message.source_chain == MAIN:
                outcomes = self.network.spoken(message)
                self.steps += outcomes
                for number, _ in outcomes:
                    self._open.pop(number, None)

    def taken_in(self, applied: AppliedBlock) -> list[OutMessage]:
        """Messages that the block has taken from other chains."""
        return [
            codec.decode(entry.message, OutMessage)
            for tx, receipt in zip(applied.transactions, applied.receipts, strict=True)
            if tx.kind == "Inbox" and not receipt.code
            for entry in codec.decode(tx.fields_raw, InboxCall).bundle.entries
        ]

    def carry(self, certified: bytes, applied: AppliedBlock) -> None:
        """The block to every master, its messages to every node of the areas they are for."""
        self.send(self.network.addresses(MAIN), Kind.BLOCK, certified)
        if applied.out_messages:
            carry_messages(self, self.area, certified, applied.out_messages)


class ProductInbox(Inbox):
    """For the product's contract, which checks certificates itself."""

    def believes(self, bundle: Bundle) -> bool:
        """The contract will see."""
        return True

    def call(self, bundle: Bundle) -> Struct:
        """The product's `Inbox`."""
        return product.inbox_fields(bundle)

    def cursor(self, source: int) -> int:
        """As in the product's state."""
        return product.cursor_of(self._member.ledger.state.get(product.inbox_key(source)))


class ProductNode(CertifiedNode):
    """A node of an area that runs the product's contract."""

    def make_inbox(self) -> Inbox:
        """As the contract wants it."""
        return ProductInbox(self.member)

    def taken_in(self, applied: AppliedBlock) -> list[OutMessage]:
        """As the contract's calls have it."""
        return product.taken_in(applied)


class Master(Actor):
    """A node of the main chain: executes every area's blocks again, anchors them, carries the outcomes."""

    def __init__(self, network: Network, index: int, verify: Verify, settings: Settings) -> None:
        super().__init__(network.address(MAIN, index))
        self.network = network
        self.index = index
        self.settings = settings
        self.member = Member(network, MAIN, index, network.keys[MAIN][index], verify, settings)
        self._areas = {area: network.ledger(area, verify) for area in network.areas}
        self._early: dict[int, dict[int, bytes]] = {area: {} for area in network.areas}
        self._waiting: dict[int, dict[int, tuple[AnchorCall, int]]] = {area: {} for area in network.areas}
        "Area -> height -> (anchor to hand in, since when)."
        self._taken: dict[int, int] = dict.fromkeys(network.areas, 0)
        "Area -> last height handed in here or final."
        masters = len(network.keys[MAIN])
        self._carriers = faults_tolerated(masters) + 1

    def start(self, now_ms: int) -> None:
        """Begin, with nothing signed before."""
        self.member.replica.restore([], now_ms)
        self._settle(now_ms)

    def receive(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """Frames of masters, blocks of areas, calls of clients."""
        if kind == Kind.FRAME:
            self.member.replica.receive(self.member.number_of[sender], payload, now_ms)
        elif kind == Kind.SUBMIT:
            self.member.submit(payload, now_ms, shared=True)
        elif kind == Kind.BLOCK:
            self._take_block(payload, now_ms)
        self._settle(now_ms)

    def deadline_ms(self) -> int | None:
        """The replica's, and that of standing in for a leader who anchors nothing."""
        replica, stand_in = self.member.replica.next_deadline_ms(), self._stand_in_ms()
        return stand_in if replica is None or (stand_in is not None and stand_in < replica) else replica

    def expire(self, now_ms: int) -> None:
        """As deadline_ms."""
        self.member.replica.expire(now_ms)
        self._settle(now_ms)

    def executed(self, area: int) -> bytes:
        """Hash of the last block of an area that this master has executed again."""
        return self._areas[area].head.block_hash

    def _take_block(self, certified: bytes, now_ms: int) -> None:
        """Execute the next block of an area; one that came early waits for those before it."""
        try:
            header = decode_certified(certified)[2]
        except DecodeError:
            return
        ledger = self._areas.get(header.chain)
        if ledger is None or header.height <= ledger.head.height:
            return
        early = self._early[header.chain]
        if len(early) < KEPT_MAX:
            early[header.height] = certified
        while (found := early.pop(ledger.head.height + 1, None)) is not None:
            try:
                applied = ledger.apply(found)
            except (DecodeError, CorruptionError):
                return  # never anchored: the area cannot make the main chain believe what does not execute
            parts, block, _, _ = decode_certified(found)
            call = AnchorCall(block.header, parts.certificate, [codec.encode(one) for one in applied.out_messages])
            self._waiting[header.chain][ledger.head.height] = call, now_ms

    def _stand_in_ms(self) -> int | None:
        oldest = min((since for waiting in self._waiting.values() for _, since in waiting.values()), default=None)
        places = self.member.places_from_lead() or len(self.member.ledger.publics)
        return None if oldest is None else oldest + places * RELAY_MS

    def _settle(self, now_ms: int) -> None:
        while True:
            blocks = self.member.flush(self, Kind.FRAME)
            for certified, applied in blocks:
                self._on_block(certified, applied)
            if not blocks and not self._anchor(now_ms):
                return

    def _anchor(self, now_ms: int) -> bool:
        """Hand in the next block of every area, if that is ours to do."""
        due = self._stand_in_ms()
        if due is None or (now_ms < due and not self.member.leads()):
            return False
        done = False
        for area, waiting in self._waiting.items():
            while (found := waiting.pop(self._taken[area] + 1, None)) is not None:
                self._taken[area] += 1
                self.member.submit(self.member.make("Anchor", found[0]), now_ms, shared=False)
                done = True
        return done

    def _on_block(self, certified: bytes, applied: AppliedBlock) -> None:
        """Note the outcomes and carry them to their areas; f + 1 masters do, in turn."""
        for area, waiting in self._waiting.items():
            value = self.member.ledger.state.get(b"anchor/%d" % area)
            self._taken[area] = 0 if value is None else codec.decode(value, Anchored).height
            for height in [height for height in waiting if height <= self._taken[area]]:
                del waiting[height]
        told = [number for message in applied.out_messages for number, _ in self.network.spoken(message)]
        self.steps += [(number, "anchored") for number in dict.fromkeys(told)]
        masters = len(self.network.keys[MAIN])
        if (self.index - applied.header.height) % masters < self._carriers:
            carry_messages(self, MAIN, certified, applied.out_messages)


def carry_messages(actor: CertifiedNode | Master, chain: int, certified: bytes, messages: Sequence[OutMessage]) -> None:
    """Messages to all nodes of their areas; without overlap to the client of the first, who passes them on."""
    places: dict[int, list[int]] = {}
    for at, message in enumerate(messages):
        if message.target_chain != MAIN:
            places.setdefault(message.target_chain, []).append(at)
    bundler = Bundler(chain, certified, messages)
    for target, wanted in places.items():
        bundle = codec.encode(bundler.bundle(wanted))
        if actor.settings.overlap:
            actor.send(actor.network.addresses(target), Kind.BUNDLE, bundle)
        else:
            actor.send([actor.network.client(actor.network.spoken(messages[wanted[0]])[0][0])], Kind.ANSWER, bundle)
