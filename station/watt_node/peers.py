"""The server of a node and its links to the other validators of its chain.

One listening port serves seven purposes, named in the Hello of the connection:

    consensus   replica frames both ways; only the other validators of the chain; the higher index dials the lower
    follow      request [from_height] -> CertifiedBlocks from there on, for ever, a HEAD frame as heartbeat
    messages    request [target_chain, from_sequence] -> Inbox batches from there on, for ever, same heartbeat
    submit      each SUBMIT frame (a transaction) is answered by one ANSWER frame ("" or the reason)
    deliver     SUBMIT frames that the sender gives to every validator of the chain; no answer: the receipt is one
    probe       each PROBE frame is answered at once by one that carries this node's own figures (probe.py)
    status      each STATUS frame is answered by one with what a doctor asks for (report.py), in JSON

An Inbox batch is the encoding of [header, certificate, size, [[index, OutMessage, path], ...]]: all messages of one
block for the target, with their proofs under the block's outbox_root. The client side is `remote.py`.
"""

import asyncio
import contextlib
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from watt_node import probe
from watt_node.channel import (
    HANDSHAKE_S,
    READ_BUFFER,
    Channel,
    ChannelError,
    Hello,
    Kind,
    accept,
    dial,
    tls_context,
)
from watt_node.config import ConfigError, ListenSection, PeerSection, TlsSection
from watt_node.links import Blame, Budget, Link
from watt_node.log import Log
from watt_node.names import node_name, parse_node_name
from watt_node.remote import Remote
from watt_node.tally import Tally

HEARTBEAT_S = 5.0
"""A follower hears at least this often; also when a gone follower is noticed at the latest."""
CONNECTIONS = 96
"""Open connections at most: 63 validators of the chain, and the followers of one more chain of four areas."""
CONNECTIONS_PER_NAME = 8
"""A certified peer gone wild must not use up the places of the others."""
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 3.0
"""Bounds of the pause between two dials of a peer: a restarted validator is back in the quorum within seconds."""
DELIVERY_RUN = 128
"""Transactions taken from a delivering connection at a time: two jobs for the verification threads."""
DELIVERY_FRAME = 64 * 1024
"""As for households by MQTT: the largest transaction of one has under 2 KiB."""
STATUS_LEAST_S = 0.5
"""Between two reports to one end: a person looks at them."""
PROBE_LEAST_S = 0.1
"""Between two answers to one end: nobody measures more often, and a flood of probes costs nothing."""
FRAMES_PER_TURN = 16
"""Frames of one peer handled before others get a turn."""

__all__ = ["ChannelError", "Remote", "Served", "Peers", "tls_context"]


class Served(Protocol):
    """What the server asks of its node."""

    def receive(self, sender: int, frame: bytes) -> None:
        """A consensus frame of validator `sender`."""

    async def submit(self, tx: bytes) -> str:
        """Take a transaction: "" or the reason; "signature" and "undecodable" are the sender's fault."""

    async def deliver(self, txs: Sequence[bytes]) -> int:
        """Take transactions that every validator hears; how many had a bad form or signature, when all are judged."""

    def height(self) -> int:
        """Height of the last final block."""

    def block(self, height: int) -> bytes | None:
        """CertifiedBlock of a height."""

    def messages(self, target_chain: int, from_sequence: int) -> list[tuple[int, bytes]]:
        """(last sequence in it, Inbox batch) per block, ascending, from a sequence on."""

    async def next_block(self) -> None:
        """Returns when another block has become final."""

    def report(self) -> dict[str, object]:
        """What another node's doctor may know."""


class _Arrival(asyncio.StreamReaderProtocol):
    """A connection that is `known` once its TLS handshake has succeeded."""

    known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.known = True
        super().connection_made(transport)


class Peers:
    """Everything of a node that touches the network."""

    def __init__(
        self,
        served: Served,
        hello: Hello,
        index: int,
        listen: ListenSection,
        peers: list[PeerSection],
        tls: TlsSection,
        log: Log,
    ) -> None:
        """`hello` carries network, chain and own name; its purpose is filled in per connection."""
        self._served = served
        self._hello = hello
        self._index = index
        self._listen = listen
        self._log = log
        self._server_context = tls_context(tls, server=True)
        self.client_context: ssl.SSLContext = tls_context(tls, server=False)
        self._blame = Blame()
        self._channels: dict[int, Channel] = {}
        "The live connection to each validator."
        self._links = {peer.index: Link(peer.index, peer) for peer in peers}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[str, int] = {}
        self.figures: Callable[[], probe.Figures] = lambda: (0, 0)
        "What this node tells whoever probes it."
        self.port = 0
        self.refused = Tally()
        "Connections that were not taken or were ended, by reason."

    async def start(self) -> None:
        """Listen and begin to dial. Raises ConfigError with one line when the address cannot be had."""
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._arrival,
                self._listen.host,
                self._listen.port,
                ssl=self._server_context,
                ssl_handshake_timeout=HANDSHAKE_S,
                backlog=CONNECTIONS,
            )
        except OSError as error:
            why = (error.strerror or str(error)).split(":")[-1].strip().lower()
            raise ConfigError(f"cannot listen on {self._listen.host}:{self._listen.port}: {why}") from None
        self.port = self._server.sockets[0].getsockname()[1]
        for link in self._links.values():
            if link.index < self._index and link.address is not None:
                self._spawn(self._keep_dialling(link, link.address))

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, index: int, frame: bytes) -> None:
        """Queue a consensus frame for a validator; never waits, never raises."""
        link = self._links.get(index)
        if link is not None:
            link.put(frame)

    def connected(self) -> list[int]:
        """Validators there is a live connection to, ascending."""
        return sorted(self._channels)

    def blame(self, index: int, faults: int = 1) -> None:
        """A validator sent what no honest one sends; at last it is cut off for a while."""
        if self._blame.note(node_name(self._hello.chain, index), asyncio.get_running_loop().time(), faults):
            self._refuse("faulty")
            channel = self._channels.get(index)
            if channel is not None:
                channel.close()

    def look(self) -> dict[str, dict[str, object]]:
        """Every other validator by name: connected or not, for how long (s; None: never), and why not, if known."""
        now_s = asyncio.get_running_loop().time()
        found: dict[str, dict[str, object]] = {}
        for index in sorted(self._links):
            link = self._links[index]
            since = None if link.changed_s is None else round(now_s - link.changed_s)
            found[node_name(self._hello.chain, index)] = {
                "connected": link.connected,
                "for_s": since,
                "problem": link.last_problem,
                "dials": index > self._index,
                "queued": len(link),
            }
        return found

    def dropped(self) -> int:
        """Frames dropped because a queue was full."""
        return sum(link.dropped for link in self._links.values())

    def ignored(self) -> int:
        """Frames of other validators that were beyond the share of their kind."""
        return sum(link.ignored for link in self._links.values())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]  # a fault of ours: the loop's handler stops the daemon

    def _refuse(self, reason: str) -> None:
        self.refused.count(reason)

    # --- links to the other validators

    async def _keep_dialling(self, link: Link, address: PeerSection) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        name = node_name(self._hello.chain, link.index)
        while True:
            try:
                if self._blame.is_banned(name, loop.time()):
                    raise ChannelError("faulty")
                mine = msgspec.structs.replace(self._hello, purpose="consensus")
                channel = await dial(address.host, address.port, self.client_context, mine, name)
                since = loop.time()
                try:
                    await self._run_link(link, channel)
                finally:
                    if loop.time() - since > RETRY_MOST_S:  # not when it is dropped as soon as it is made
                        failures = 0
            except ChannelError as error:
                if str(error) != link.last_problem:
                    link.last_problem = str(error)
                    self._log.info("peer-away", peer=name, reason=link.last_problem)
            pause = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(failures, 10))
            failures += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _run_link(self, link: Link, channel: Channel) -> None:
        """Carry frames both ways until the connection ends."""
        loop = asyncio.get_running_loop()
        before = self._channels.get(link.index)
        if before is not None:
            before.close()  # the newer connection is the live one
        self._channels[link.index] = channel
        link.connected, link.changed_s = True, loop.time()
        (self._log.info if link.last_problem else self._log.debug)("peer-here", peer=channel.peer)
        link.last_problem = ""
        budget = Budget(loop.time())
        sender = asyncio.ensure_future(self._drain_queue(link, channel))
        try:
            while True:
                pause_s = 0.0
                for kind, payload in await channel.read_some(FRAMES_PER_TURN):
                    if kind != Kind.CONSENSUS:
                        raise ChannelError("unexpected-frame")
                    now_s = loop.time()
                    if budget.admits(payload, now_s):
                        self._served.receive(link.index, payload)
                    else:
                        link.ignored += 1
                    pause_s = budget.spend(now_s)
                await asyncio.sleep(pause_s)
        finally:
            sender.cancel()
            channel.close()
            if self._channels.get(link.index) is channel:
                del self._channels[link.index]
                link.connected, link.changed_s = False, loop.time()

    async def _drain_queue(self, link: Link, channel: Channel) -> None:
        link.wake.set()
        with contextlib.suppress(ChannelError):  # the reading side notices the end and cleans up
            while True:
                await link.wake.wait()
                link.wake.clear()
                while frames := link.take():
                    channel.put_all(Kind.CONSENSUS, frames)
                    await channel.drain()
        channel.close()

    # --- what is served

    def _arrival(self) -> asyncio.StreamReaderProtocol:
        """Somebody connects. asyncio does not tell when a handshake fails, only when one succeeds."""
        arrival = _Arrival(asyncio.StreamReader(READ_BUFFER), self._accepted)

        def look() -> None:
            if not arrival.known:
                self._refuse("tls")

        asyncio.get_running_loop().call_later(HANDSHAKE_S + 1, look)
        return arrival

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        # start_server's own task would log an exception of ours as "unhandled": keep it in our set instead.
        self._spawn(self._serve(channel))

    async def _serve(self, channel: Channel) -> None:
        name = channel.peer
        try:
            if sum(self._open.values()) >= CONNECTIONS or self._open.get(name, 0) >= CONNECTIONS_PER_NAME:
                raise ChannelError("too-many-connections")
            self._open[name] = self._open.get(name, 0) + 1
            try:
                if self._blame.is_banned(name, asyncio.get_running_loop().time()):
                    raise ChannelError("faulty")
                theirs = await accept(channel, self._hello)
                await self._serve_purpose(channel, theirs)
            finally:
                self._open[name] -= 1
                if not self._open[name]:
                    del self._open[name]
        except ChannelError as error:
            if str(error) != "closed":
                self._refuse(str(error))
                self._log.debug("connection-ended", peer=name or "nobody", reason=error)
        finally:
            channel.close()

    async def _serve_purpose(self, channel: Channel, theirs: Hello) -> None:
        if theirs.purpose == "consensus":
            who = parse_node_name(channel.peer)
            # A node that joins later is in nobody's configuration: its certificate says who it is, and it dials the
            # others. What it may say is for the list of each height to decide (CONSENSUS.md 8).
            if who is None or who[0] != self._hello.chain or who[1] <= self._index:
                await channel.send(Kind.ERROR, b"not-your-place")
                raise ChannelError("not-your-place")
            await self._run_link(self._links.setdefault(who[1], Link(who[1])), channel)
        elif theirs.purpose == "submit":
            while True:
                kind, tx = await channel.read()
                if kind != Kind.SUBMIT:
                    raise ChannelError("unexpected-frame")
                reason = await self._served.submit(tx)
                await channel.send(Kind.ANSWER, reason.encode())
                self._judge_client(channel, int(reason in ("signature", "undecodable")))
                await asyncio.sleep(0)  # a flood that is refused at once must not keep the others waiting
        elif theirs.purpose == "deliver":
            await self._serve_delivery(channel)
        elif theirs.purpose == "probe":
            await self._serve_probes(channel)
        elif theirs.purpose == "status":
            await self._serve_reports(channel)
        elif theirs.purpose == "follow":
            (height,) = await _request(channel, Kind.FOLLOW, 1)
            await self._serve_blocks(channel, height)
        else:
            target, sequence = await _request(channel, Kind.MESSAGES, 2)
            await self._serve_messages(channel, target, sequence)

    async def _serve_probes(self, channel: Channel) -> None:
        while True:
            kind, _ = await channel.read(16)
            if kind != Kind.PROBE:
                raise ChannelError("unexpected-frame")
            await channel.send(Kind.PROBE, probe.encode(self.figures()))
            await asyncio.sleep(PROBE_LEAST_S)

    async def _serve_reports(self, channel: Channel) -> None:
        while True:
            kind, _ = await channel.read(16)
            if kind != Kind.STATUS:
                raise ChannelError("unexpected-frame")
            await channel.send(Kind.STATUS, msgspec.json.encode(self._served.report()))
            await asyncio.sleep(STATUS_LEAST_S)

    async def _serve_delivery(self, channel: Channel) -> None:
        """One run is verified while the next is read: no more waits of one source."""
        runs: deque[asyncio.Future[int]] = deque()
        try:
            while True:
                frames = await channel.read_some(DELIVERY_RUN, DELIVERY_FRAME)
                if any(kind != Kind.SUBMIT for kind, _ in frames):
                    raise ChannelError("unexpected-frame")
                runs.append(asyncio.ensure_future(self._served.deliver([tx for _, tx in frames])))
                if len(runs) > 1:
                    self._judge_client(channel, await runs.popleft())
        finally:
            await asyncio.gather(*runs)

    def _judge_client(self, channel: Channel, faults: int) -> None:
        """Cut off a client that sent too much of what no honest one sends; ChannelError."""
        if faults and self._blame.note(channel.peer, asyncio.get_running_loop().time(), faults):
            raise ChannelError("faulty")

    async def _serve_blocks(self, channel: Channel, height: int) -> None:
        while True:
            block = self._served.block(height)
            if block is None:
                await self._wait(channel)
                continue
            await channel.send(Kind.BLOCK, block)
            height += 1
            if height % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _serve_messages(self, channel: Channel, target: int, sequence: int) -> None:
        while True:
            for last, batch in self._served.messages(target, sequence):
                await channel.send(Kind.BATCH, batch)
                sequence = last + 1
            await self._wait(channel)

    async def _wait(self, channel: Channel) -> None:
        """Until the next block, with heartbeats."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._served.next_block()
                return
            except TimeoutError:
                await channel.send(Kind.HEAD, msgspec.msgpack.encode(self._served.height()))


async def _request(channel: Channel, expected: Kind, numbers: int) -> list[int]:
    """The request's non-negative integers; ChannelError when it is anything else."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            kind, payload = await channel.read(64)
    except TimeoutError:
        raise ChannelError("handshake-timeout") from None
    try:
        values = msgspec.msgpack.decode(payload, type=list[int])
    except msgspec.MsgspecError:
        raise ChannelError("request") from None
    if kind != expected or len(values) != numbers or any(not 0 <= value < 1 << 63 for value in values):
        raise ChannelError("request")
    return values
