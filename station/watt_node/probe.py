"""How long a message takes to other nodes: X and Y of equation (3), measured on the running network.

A probe is one small frame that the other end answers at once; half of the round trip is the time of one communication.
A station probes the other validators of its area (X) and whatever stations of other areas it knows (Y). Each answer
carries what the answering node has measured itself, so a master that probes the stations learns the figures of all
areas. A figure is a median over the last SAMPLES probes of every end: an hour, in which one slow minute counts little.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from statistics import median_low

import msgspec

from watt_node.channel import PROTOCOL, Channel, ChannelError, Hello, Kind, dial
from watt_node.config import EndpointSection
from watt_node.names import node_name

PROBE_S = 5.0
"""Between two probes of one end: a few bytes, and dozens of samples before an event is announced."""
FIRST_PROBES = 5
"""At the start every PROBE_FIRST_S, so that a network that has just started has figures."""
PROBE_FIRST_S = 0.5
SAMPLES = 720
"""Kept of each end: one hour."""
ANSWER_S = 10.0
"""An end that needs longer is left and dialled again; what is kept of it stays."""
RETRY_S = 5.0

Figures = tuple[int, int]
"(X, Y) in microseconds, one way; 0 = not measured."


def encode(figures: Figures) -> bytes:
    """What an answer carries."""
    return msgspec.msgpack.encode(figures)


class Prober:
    """Probes of some nodes, each over a connection of its own."""

    def __init__(
        self, endpoints: Sequence[EndpointSection], context: ssl.SSLContext, name: str, network: bytes
    ) -> None:
        self._endpoints = endpoints
        self._context = context
        self._hello = (name, network)
        self._tasks: list[asyncio.Task[None]] = []
        self._samples: dict[tuple[int, int], deque[int]] = {}
        self.told: dict[tuple[int, int], Figures] = {}
        "What each end, (chain, index), says it has measured."

    def start(self) -> None:
        """Begin to probe."""
        self._tasks = [asyncio.ensure_future(self._keep(endpoint)) for endpoint in self._endpoints]

    async def stop(self) -> None:
        """End all probes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def one_way_us(self, chains: Sequence[int]) -> int:
        """Median time of one communication with the ends of these chains, microseconds; 0 before the first answer."""
        ends = [median_low(taken) for (chain, _), taken in sorted(self._samples.items()) if chain in chains and taken]
        return median_low(ends) if ends else 0

    async def _keep(self, endpoint: EndpointSection) -> None:
        key = (endpoint.chain, endpoint.index)
        name, network = self._hello
        mine = Hello(PROTOCOL, "probe", network, endpoint.chain, name)
        while True:
            channel: Channel | None = None
            try:
                channel = await dial(
                    endpoint.host, endpoint.port, self._context, mine, node_name(endpoint.chain, endpoint.index)
                )
                await self._probe(channel, key)
            except (ChannelError, TimeoutError):
                pass  # an end that is away is no fault of ours, and the links of the node tell of it
            finally:
                if channel is not None:
                    channel.close()
            await asyncio.sleep(RETRY_S)

    async def _probe(self, channel: Channel, key: tuple[int, int]) -> None:
        clock = asyncio.get_running_loop().time
        taken = self._samples.setdefault(key, deque(maxlen=SAMPLES))
        while True:
            begun = clock()
            async with asyncio.timeout(ANSWER_S):
                await channel.send(Kind.PROBE, b"")
                kind, payload = await channel.read(64)
            if kind != Kind.PROBE:
                raise ChannelError("unexpected-frame")
            taken.append(round((clock() - begun) * 500_000))
            try:
                x_us, y_us = msgspec.msgpack.decode(payload, type=Figures)
            except msgspec.MsgspecError:
                raise ChannelError("answer") from None
            self.told[key] = (max(x_us, 0), max(y_us, 0))
            await asyncio.sleep(PROBE_FIRST_S if len(taken) < FIRST_PROBES else PROBE_S)


class AreaTimes:
    """X and Y of a whole network, as a master hears and measures them; for the grid company's signal (model U18)."""

    def __init__(self, prober: Prober, chains: Sequence[int]) -> None:
        self._prober, self._chains = prober, chains

    def figures_ms(self) -> tuple[int, int] | None:
        """(X, Y) in whole milliseconds, rounded up, at least 1; None until some station of every area has told its X.

        X: the median over the areas of the median of what their stations tell, so that a minority of an area cannot
        move it. Y: likewise, where stations know stations of other areas; else a message goes by a master: the median
        over pairs of areas of the way in and the way out, as measured here.
        """
        told: list[list[Figures]] = [
            [figures for (chain, _), figures in sorted(self._prober.told.items()) if chain == area]
            for area in self._chains
        ]
        inside = [[x for x, _ in area if x] for area in told]
        if not all(inside) or not inside:
            return None
        between = [median_low(ys) for ys in ([y for _, y in area if y] for area in told) if ys]
        if not between:
            ways = [self._prober.one_way_us([chain]) for chain in self._chains]
            between = [one + other for at, one in enumerate(ways) for other in ways[:at]] or [0]
        x_us, y_us = median_low([median_low(area) for area in inside]), median_low(between)
        return max(1, -(-x_us // 1_000)), max(1, -(-y_us // 1_000))
