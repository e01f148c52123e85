"""Carries locks of trades from partner areas into this one: one relay per area that the main chain has introduced.

An area that no household here sells to is not followed at all. Streams go to the partner's stations, beginning with
different ones at different stations of ours, and only what the main chain says about the partner's validators counts.
"""

from collections.abc import Awaitable, Callable, Sequence

from watt_chain import codec
from watt_chain.contract.cross_objects import source_key
from watt_chain.contract.kinds import Inbox
from watt_chain.contract.objects import InboxCursor
from watt_chain.genesis import faults_tolerated
from watt_chain.light import LightClient
from watt_chain.state import StateReader
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.remote import Remote

from watt_station.inbox import InboxRelay, prover

MakeRemote = Callable[[Sequence[EndpointSection], int], Remote]
"""(endpoints of one area, which of them to begin with) -> the client."""


class Partners:
    """The relays of one station, by partner area."""

    def __init__(
        self,
        chain: int,
        state: StateReader,
        endpoints: Sequence[EndpointSection],
        remote: MakeRemote,
        light: LightClient,
        turn_s: Callable[[int], float],
        submit: Callable[[Inbox], Awaitable[str]],
        log: Log,
    ) -> None:
        """`turn_s(source)` is how long others are waited for that are due before us with messages of `source`."""
        self._chain = chain
        self._state = state
        self._remote = remote
        self._light = light
        self._turn_s = turn_s
        self._submit = submit
        self._log = log
        self._endpoints: dict[int, list[EndpointSection]] = {}
        for endpoint in sorted(endpoints, key=lambda one: (one.chain, one.index)):
            self._endpoints.setdefault(endpoint.chain, []).append(endpoint)
        self._relays: dict[int, InboxRelay] = {}
        self._running = False
        self._missing: set[int] = set()

    def start(self) -> None:
        """Begin with the partners that are known already."""
        self._running = True
        self.advanced()

    async def stop(self) -> None:
        """End all streams."""
        self._running = False
        for relay in self._relays.values():
            await relay.stop()

    def advanced(self) -> None:
        """The ledger has a new block: a partner may be new, a cursor may have moved."""
        if not self._running:
            return
        for key in self._state.keys(b"validators/"):
            source = int(key.rsplit(b"/", 1)[1])
            if source and source not in self._relays:
                self._begin(source)
        for relay in self._relays.values():
            relay.advanced()

    def status(self) -> dict[str, object]:
        """For status.json, by partner."""
        return {str(source): relay.status() for source, relay in sorted(self._relays.items())}

    def _begin(self, source: int) -> None:
        endpoints = self._endpoints.get(source)
        if endpoints is None:
            if source not in self._missing:
                self._missing.add(source)
                self._log.warning(
                    "partner-unknown", area=source, action=f"name stations of area {source} in [[areas]] of the config"
                )
            return
        streams = min(len(endpoints), faults_tolerated(len(endpoints)) + 1)
        remotes = [self._remote(endpoints, at) for at in range(streams)]
        self._relays[source] = relay = InboxRelay(
            self._chain,
            remotes,
            prover(self._state, self._light, source),
            lambda: self._cursor(source),
            lambda: self._turn_s(source),
            self._submit,
            self._log.bind(f"area{source}"),
        )
        relay.start()
        self._log.info("partner", area=source)

    def _cursor(self, source: int) -> int:
        value = self._state.get(source_key(source))
        return 0 if value is None else codec.decode(value, InboxCursor).sequence
