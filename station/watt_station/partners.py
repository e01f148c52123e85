"""Carries locks of trades from partner areas into this one, and looks after this node's seat as a cross-node.

A cross-node holds streams to all partner areas that the main chain has introduced; so does everybody while an area has
no cross-nodes yet. A normal node opens one when a trade with the partner has waited OVERDUE_S for its lock, so nobody
who withholds a message can hold up a household. Streams go to the partner's stations, beginning with different ones at
different stations of ours, and only what the main chain says about the partner's validators counts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from watt_chain import codec
from watt_chain.block import OutMessage, decode_certified
from watt_chain.codec import DecodeError, T
from watt_chain.contract.cross_kinds import CrossLocked, CrossReady, PartnerBlock
from watt_chain.contract.cross_objects import CrossTrade, source_key
from watt_chain.contract.cross_seats import NOBODY, NODES_KEY, CrossNodes
from watt_chain.contract.event import BEFORE_MATCH, State
from watt_chain.contract.kinds import Inbox
from watt_chain.contract.objects import (
    OPEN_KEY,
    AreaEvent,
    InboxCursor,
    KnownList,
    OpenEvents,
    event_key,
    known_list_key,
)
from watt_chain.cross.tables import Seller
from watt_chain.genesis import faults_tolerated
from watt_chain.light import LightClient
from watt_chain.state import StateReader
from watt_node.clock import monotonic_ms
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.remote import Remote, certified_under

from watt_station.inbox import TURN_S, InboxRelay, prover

MakeRemote = Callable[[Sequence[EndpointSection], int], Remote]
"""(endpoints of one area, which of them to begin with) -> the client."""

OVERDUE_S = 5.0
"""T_r: a normal node carries a message itself when the cross-nodes have had this long; they take a fraction of it."""
LOOK_S = 1.0
"""How often streams and seats are looked after."""
READY_S = 30.0
"""A proof of readiness that did not make it into a block is given again after this long."""


@dataclass(slots=True)
class Lane:
    """One partner area: its relay, while there is one, and since when a trade waits for a lock of it."""

    endpoints: list[EndpointSection]
    relay: InboxRelay | None = None
    waits_since_ms: int | None = None


class Partners:
    """The relays of one station, by partner area."""

    def __init__(
        self,
        chain: int,
        number: int,
        state: StateReader,
        endpoints: Sequence[EndpointSection],
        remote: MakeRemote,
        light: LightClient,
        turn: Callable[[], int],
        submit: Callable[[str, object], Awaitable[str]],
        log: Log,
    ) -> None:
        """`number` is this node's; `turn()` how many live stations come before it; `submit(kind, fields)` signs."""
        self._chain = chain
        self._number = number
        self._state = state
        self._remote = remote
        self._light = light
        self._turn = turn
        self._submit = submit
        self._log = log
        self._lanes: dict[int, Lane] = {}
        for endpoint in sorted(endpoints, key=lambda one: (one.chain, one.index)):
            self._lanes.setdefault(endpoint.chain, Lane([])).endpoints.append(endpoint)
        self._missing: set[int] = set()
        self._looking: asyncio.Task[None] | None = None
        self._showing: asyncio.Task[None] | None = None
        self._shown = (0, -int(READY_S * 1000))
        "(event, when) of the last proof of readiness."

    def start(self) -> None:
        """Begin with the partners that are known already."""
        self._looking = asyncio.ensure_future(self._look_for_ever())

    async def stop(self) -> None:
        """End all streams."""
        tasks = [task for task in (self._looking, self._showing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            if lane.relay is not None:
                await lane.relay.stop()

    def advanced(self) -> None:
        """The ledger has a new block: cursors may have moved."""
        for lane in self._lanes.values():
            if lane.relay is not None:
                lane.relay.advanced()

    def status(self) -> dict[str, object]:
        """For status.json, by partner."""
        nodes = self._nodes()
        return {
            "cross_nodes": [seat.number for seat in nodes.seats],
            "chosen": list(nodes.chosen),
            "portfolio": list(nodes.portfolio),
            "lanes": {str(source): lane.relay.status() for source, lane in sorted(self._lanes.items()) if lane.relay},
        }

    def turn_s(self, source: int) -> float:
        """How long others that are due before us with the next message of a partner are waited for."""
        seats = [seat.number for seat in self._nodes().seats]
        if not seats:
            return self._turn() * TURN_S
        if self._number in seats:
            first = (self._cursor(source) + 1) % len(seats)
            return (seats.index(self._number) - first) % len(seats) * TURN_S
        return OVERDUE_S + self._turn() * TURN_S

    # Streams ----------------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            for source in self._introduced():
                await self._look(source)
            self._look_after_seat()
            await asyncio.sleep(LOOK_S)

    def _introduced(self) -> list[int]:
        """Areas whose validators the main chain has named to this one."""
        found = [int(key.rsplit(b"/", 1)[1]) for key in self._state.keys(b"validators/")]
        return sorted(source for source in found if source)

    async def _look(self, source: int) -> None:
        """Open or close the stream of one partner."""
        lane = self._lanes.get(source)
        if lane is None:
            if source not in self._missing:
                self._missing.add(source)
                self._log.warning(
                    "partner-unknown", area=source, action=f"name stations of area {source} in [[areas]] of the config"
                )
            return
        seats = [seat.number for seat in self._nodes().seats]
        wanted = not seats or self._number in seats or self._is_overdue(lane, source)
        if wanted and lane.relay is None:
            lane.relay = self._make_relay(source, lane.endpoints)
            lane.relay.start()
            self._log.info("partner", area=source, duty="cross-node" if self._number in seats else "stands in")
        elif not wanted and lane.relay is not None:
            relay, lane.relay = lane.relay, None
            await relay.stop()

    def _is_overdue(self, lane: Lane, source: int) -> bool:
        if not self._waits(source):
            lane.waits_since_ms = None
            return False
        lane.waits_since_ms = lane.waits_since_ms if lane.waits_since_ms is not None else monotonic_ms()
        return monotonic_ms() - lane.waits_since_ms >= OVERDUE_S * 1000

    def _waits(self, source: int) -> bool:
        """Whether some seller here still waits for a lock of the partner area."""
        opened = self._object(OPEN_KEY, OpenEvents)
        for number in [] if opened is None else opened.numbers:
            event = self._object(event_key(number), AreaEvent)
            if event is None or event.state is not State.MATCHED:
                continue
            for key in self._state.keys(b"cross/%d/" % number):
                trade = self._object(key, CrossTrade)
                if trade is not None and trade.terms.buyer_chain == source and trade.state in _UNLOCKED:
                    return True
        return False

    def _make_relay(self, source: int, endpoints: list[EndpointSection]) -> InboxRelay:
        streams = min(len(endpoints), faults_tolerated(len(endpoints)) + 1)
        return InboxRelay(
            self._chain,
            [self._remote(endpoints, at) for at in range(streams)],
            prover(self._state, self._light, source),
            lambda: self._cursor(source),
            lambda: self.turn_s(source),
            self._submit_inbox,
            self._log.bind(f"area{source}"),
            self._ripe,
        )

    def _ripe(self, inbox: Inbox) -> bool:
        """Locks are of use when the matching is here (CONTRACT.md 17.2): sooner they would be refused."""
        for entry in inbox.entries:
            try:
                locked = codec.decode(codec.decode(entry.message, OutMessage).body, CrossLocked)
            except DecodeError:
                return True  # the partner's fault: the contract says so
            event = self._object(event_key(locked.event), AreaEvent)
            if event is None or event.state in BEFORE_MATCH:
                return False
        return True

    def _submit_inbox(self, inbox: Inbox) -> Awaitable[str]:
        return self._submit("Inbox", inbox)

    # The seat ---------------------------------------------------------------------------------------------------

    def _look_after_seat(self) -> None:
        """Drawn and not seated: show that we follow the partners."""
        nodes = self._nodes()
        if self._number not in nodes.chosen or any(seat.number == self._number for seat in nodes.seats):
            return
        event, shown_ms = self._shown
        busy = self._showing is not None and not self._showing.done()
        if busy or (event == nodes.event and monotonic_ms() - shown_ms < READY_S * 1000):
            return
        self._shown = (nodes.event, monotonic_ms())
        self._showing = asyncio.ensure_future(self._show(nodes))

    async def _show(self, nodes: CrossNodes) -> None:
        try:
            async with asyncio.timeout(READY_S):
                known = self._introduced()
                blocks = [await self._block_of(source) for source in nodes.portfolio if source in known]
        except (TimeoutError, KeyError) as error:
            self._log.warning("not-ready", event_number=nodes.event, reason=type(error).__name__, action="tried again")
            return
        reason = await self._submit("CrossReady", CrossReady(nodes.event, blocks))
        self._log.info("cross-node-ready", event_number=nodes.event, partners=len(blocks), reason=reason or "taken")

    async def _block_of(self, source: int) -> PartnerBlock:
        """A certified block of a partner that is not behind what this area has consumed."""
        known = self._object(known_list_key(source), KnownList)
        assert known is not None, "only introduced partners are asked"
        height = max(known.from_height, self._height(source))
        self._light.trust(source, known.from_height, [validator.public for validator in known.validators])
        remote = self._remote(self._lanes[source].endpoints, 0)
        stream = remote.follow(height, certified_under(self._light, source))
        certified = await anext(aiter(stream))
        parts, block, _, _ = decode_certified(certified)
        return PartnerBlock(block.header, parts.certificate)

    # Reading ----------------------------------------------------------------------------------------------------

    def _nodes(self) -> CrossNodes:
        return self._object(NODES_KEY, CrossNodes) or NOBODY

    def _cursor(self, source: int) -> int:
        cursor = self._object(source_key(source), InboxCursor)
        return 0 if cursor is None else cursor.sequence

    def _height(self, source: int) -> int:
        cursor = self._object(source_key(source), InboxCursor)
        return 0 if cursor is None else cursor.height

    def _object(self, key: bytes, kind: type[T]) -> T | None:
        value = self._state.get(key)
        return None if value is None else codec.decode(value, kind)


_UNLOCKED = (Seller.NONE, Seller.OFFERED)
