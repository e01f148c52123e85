"""Using another chain: several of its validators, one after the other when one fails.

Nothing that arrives is believed here: `follow` and `messages` hand every item to the caller's check, and an end that
gives a wrong one is left for the next. An end can also withhold: when nothing new came for ROTATE_S the next one is
asked, so that one silent validator delays but never blinds.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.light import LightClient, ProofError

from watt_node.channel import PROTOCOL, Channel, ChannelError, Hello, Kind, dial
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.names import chain_name, node_name

SILENT_S = 15.0
"""Three times the server's heartbeat: an end that is not even heard is left."""
ROTATE_S = 45.0
"""Without anything new for this long another end is asked, in case this one withholds."""
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 5.0
"""Bounds of the pause after all ends failed in a row; jittered, so that nodes do not return in step."""
SUBMIT_S = 10.0


def certified_under(light: LightClient, chain: int) -> Callable[[bytes], str]:
    """A check for `Remote.follow`: "", or why this is no block of `chain` that the light client believes."""

    def check(certified: bytes) -> str:
        try:
            parts, block, _, _ = decode_certified(certified)
            light.check_header(chain, block.header, parts.certificate)
        except (DecodeError, ProofError) as error:
            return f"wrong-block: {error}"
        return ""

    return check


class Remote:
    """The validators of one other chain."""

    def __init__(
        self,
        endpoints: Sequence[EndpointSection],
        context: ssl.SSLContext,
        name: str,
        network: bytes,
        log: Log,
        first: int | None = None,
    ) -> None:
        """All endpoints are of one chain; at least one is given.

        `context` comes from `channel.tls_context(section, server=False)` or is a node's `peers.client_context`; `name`
        is the common name of its certificate; `first` (modulo their number) the endpoint to begin with, else any.
        """
        chains = sorted({endpoint.chain for endpoint in endpoints})
        if len(chains) != 1:
            raise ValueError(f"endpoints of chains {chains}: exactly one chain is meant")
        self.chain = chains[0]
        self.connected = ""
        self._endpoints = list(endpoints)
        self._context = context
        self._hello = (name, network)
        self._log = log
        self._next = random.randrange(len(self._endpoints)) if first is None else first
        self._channel: Channel | None = None
        self._lock = asyncio.Lock()

    async def follow(self, from_height: int, check: Callable[[bytes], str]) -> AsyncIterator[bytes]:
        """CertifiedBlocks from a height on, without a gap, for ever. `check(block)` is "" or why it is wrong."""
        have = [from_height]
        async for block in self._stream("follow", Kind.BLOCK, lambda: have, check):
            have[0] += 1
            yield block

    async def messages(
        self, target_chain: int, from_sequence: Callable[[], int], check: Callable[[bytes], str]
    ) -> AsyncIterator[bytes]:
        """Inbox batches for `target_chain` for ever. A new connection starts at `from_sequence()` of that moment."""
        async for batch in self._stream("messages", Kind.BATCH, lambda: [target_chain, from_sequence()], check):
            yield batch

    async def submit(self, tx: bytes) -> str:
        """Hand a transaction to the chain: "" when a validator took it, "unreachable" or its reason otherwise."""
        async with self._lock:
            for _ in self._endpoints:
                try:
                    async with asyncio.timeout(SUBMIT_S):
                        if self._channel is None:
                            self._channel = await self._dial("submit")
                        await self._channel.send(Kind.SUBMIT, tx)
                        kind, payload = await self._channel.read()
                    if kind == Kind.ANSWER:
                        return payload.decode("ascii", "replace")
                    raise ChannelError("unexpected-frame")
                except (ChannelError, TimeoutError):
                    self.close()
                    self._next += 1
            return "unreachable"

    def close(self) -> None:
        """Drop the connection that `submit` keeps."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def _dial(self, purpose: str) -> Channel:
        endpoint = self._endpoints[self._next % len(self._endpoints)]
        name, network = self._hello
        mine = Hello(PROTOCOL, purpose, network, self.chain, name)
        return await dial(endpoint.host, endpoint.port, self._context, mine, node_name(self.chain, endpoint.index))

    async def _stream(
        self, purpose: str, wanted: Kind, request: Callable[[], list[int]], check: Callable[[bytes], str]
    ) -> AsyncIterator[bytes]:
        failures = 0
        while True:
            channel: Channel | None = None
            reason = ""
            try:
                channel = await self._dial(purpose)
                self.connected = channel.peer
                await channel.send(
                    Kind.FOLLOW if wanted == Kind.BLOCK else Kind.MESSAGES, msgspec.msgpack.encode(request())
                )
                async for item in self._items(channel, wanted):
                    reason = check(item)
                    if reason:
                        raise ChannelError(reason)
                    failures = 0
                    yield item
            except ChannelError as error:
                reason = str(error)
            finally:
                self.connected = ""
                if channel is not None:
                    channel.close()
            left = self._endpoints[self._next % len(self._endpoints)]
            self._next += 1
            if reason == "nothing-new":
                continue
            failures += 1
            if failures <= len(self._endpoints):  # one line per end and outage, however long it lasts
                self._log.info(
                    "remote-left", chain=chain_name(self.chain), node=left.index, purpose=purpose, reason=reason
                )
            if failures >= len(self._endpoints):
                rounds = min(failures // len(self._endpoints), 6)
                await asyncio.sleep(min(RETRY_MOST_S, RETRY_FIRST_S * 2**rounds) * random.uniform(0.5, 1.0))

    async def _items(self, channel: Channel, wanted: Kind) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        rotate_at = loop.time() + ROTATE_S
        while True:
            try:
                async with asyncio.timeout(SILENT_S):
                    kind, payload = await channel.read()
            except TimeoutError:
                raise ChannelError("silent") from None
            if kind == wanted:
                yield payload
                rotate_at = loop.time() + ROTATE_S
            elif kind == Kind.ERROR:
                raise ChannelError("refused-" + payload[:40].decode("ascii", "replace"))
            elif kind != Kind.HEAD:
                raise ChannelError("unexpected-frame")
            elif loop.time() >= rotate_at and len(self._endpoints) > 1:
                raise ChannelError("nothing-new")
