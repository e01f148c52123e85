"""One TLS connection between two nodes: framing, limits, and who is at the other end.

A frame is a 4-byte big-endian length, one byte of kind and the payload; the length counts kind and payload. Both ends
show a certificate of the network's CA over TLS 1.3, and their first frame is a Hello; the name in it must be the
common name of the certificate. Invariant: nothing of a frame is acted on before the Hello of both ends was accepted.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec

from watt_node.config import ConfigError, TlsSection
from watt_node.names import is_client_name, parse_node_name

PROTOCOL = 1
"""Version of this protocol; ends with different versions part with the reason "version"."""
MAX_FRAME = 4 << 20
"""A block of the largest size and its certificate fit twice."""
MAX_HELLO = 1024
"""The first frame comes from somebody not yet known."""
HANDSHAKE_S = 8.0
"""TLS and Hello together; generous, because a dozen nodes may start at once on two cores."""
WRITE_STALL_S = 30.0
"""A peer that takes nothing for this long is cut off: its queue would only grow stale."""
READ_BUFFER = 1 << 16
KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 12_000))
"""A peer whose machine or cable died is noticed by the kernel after some 14 s, without traffic of our own."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    CONSENSUS = 2
    FOLLOW = 3
    BLOCK = 4
    HEAD = 5
    MESSAGES = 6
    BATCH = 7
    SUBMIT = 8
    ANSWER = 9
    ERROR = 10
    PROBE = 11
    STATUS = 12


PURPOSES = ("consensus", "follow", "messages", "submit", "deliver", "probe", "status")


class Hello(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """First frame of each end: protocol version, what the connection is for, network, chain served, own name."""

    version: int
    purpose: str
    network: bytes
    chain: int
    name: str


class ChannelError(Exception):
    """The connection cannot be used any further; the text is a short reason."""


def tls_context(section: TlsSection, *, server: bool) -> ssl.SSLContext:
    """Mutual TLS 1.3 with the network's CA; ConfigError when the files do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Identity is the common name, checked after the handshake: addresses change, nodes do not.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    for name, path in (("ca", section.ca), ("cert", section.cert), ("key", section.key)):
        if not Path(path).is_file():
            raise ConfigError(f"tls.{name}: no such file: {path}")
    try:
        context.load_verify_locations(section.ca)
        context.load_cert_chain(section.cert, section.key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"tls: {section.cert}, {section.key}, {section.ca}: {error}") from None
    if server:
        context.num_tickets = 0  # no resumption: every connection proves its key
    return context


class Channel:
    """A connection after its Hello."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        "What arrived and was not asked for yet."
        self.peer = _common_name(writer)
        self.hello: Hello | None = None
        link = writer.get_extra_info("socket")
        if link is not None:
            with contextlib.suppress(OSError):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in KEEPALIVE:
                    if hasattr(socket, option):
                        link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    async def read(self, limit: int = MAX_FRAME) -> tuple[int, bytes]:
        """(kind, payload) of the next frame; ChannelError at the end or when the frame breaks a limit."""
        return (await self.read_some(1, limit))[0]

    async def read_some(self, most: int, limit: int = MAX_FRAME) -> list[tuple[int, bytes]]:
        """The next frames that are here, at least one and at most `most`; ChannelError as in `read`.

        Whoever reads many small frames saves a turn of the event loop for each of them.
        """
        while True:
            frames = self._take(most, limit)
            if frames:
                return frames
            try:
                data = await self._reader.read(READ_BUFFER)
            except (OSError, ssl.SSLError):
                raise ChannelError("closed") from None
            if not data:
                raise ChannelError("closed")
            self._buffer += data

    def _take(self, most: int, limit: int) -> list[tuple[int, bytes]]:
        """Whole frames at the start of the buffer, removed from it."""
        buffer, at = self._buffer, 0
        frames: list[tuple[int, bytes]] = []
        while len(frames) < most and len(buffer) - at >= 4:
            length = int.from_bytes(buffer[at : at + 4], "big")
            if not 1 <= length <= limit:
                if frames:
                    break  # first what came before it
                raise ChannelError("frame-length")
            end = at + 4 + length
            if end > len(buffer):
                break
            frames.append((buffer[at + 4], bytes(memoryview(buffer)[at + 5 : end])))
            at = end
        if at:
            del buffer[:at]
        return frames

    def put(self, kind: int, payload: bytes) -> None:
        """Hand a frame to the socket without waiting."""
        self.put_all(kind, (payload,))

    def put_all(self, kind: int, payloads: Sequence[bytes]) -> None:
        """As `put`, several frames in one TLS record."""
        parts: list[bytes] = []
        for payload in payloads:
            if len(payload) >= MAX_FRAME:
                raise ChannelError("frame-length")
            parts += ((len(payload) + 1).to_bytes(4, "big"), bytes((kind,)), payload)
        self._writer.write(b"".join(parts))

    async def drain(self) -> None:
        """Wait until the socket has room again; ChannelError when the peer takes nothing."""
        try:
            if self._writer.transport.get_write_buffer_size() == 0:
                if self._writer.is_closing():
                    raise ChannelError("closed")
                return
            async with asyncio.timeout(WRITE_STALL_S):
                await self._writer.drain()
        except TimeoutError:
            raise ChannelError("stalled") from None
        except (OSError, ssl.SSLError):
            raise ChannelError("closed") from None

    async def send(self, kind: int, payload: bytes) -> None:
        """`put` and `drain`."""
        self.put(kind, payload)
        await self.drain()

    def close(self) -> None:
        """Close now; data not yet sent is dropped."""
        if not self._writer.transport.is_closing():
            self._writer.transport.abort()


async def accept(channel: Channel, mine: Hello) -> Hello:
    """Server end: read the Hello, check it against the certificate, answer; ChannelError(reason) when refused."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            theirs = await _read_hello(channel)
            reason = _objection(theirs, channel.peer, mine)
            if not reason and theirs.purpose not in PURPOSES:
                reason = "purpose"
            if reason:
                await channel.send(Kind.ERROR, reason.encode())
                raise ChannelError(reason)
            await channel.send(Kind.HELLO, msgspec.msgpack.encode(mine))
    except TimeoutError:
        raise ChannelError("handshake-timeout") from None
    channel.hello = theirs
    return theirs


async def dial(host: str, port: int, context: ssl.SSLContext, mine: Hello, expected: str) -> Channel:
    """Client end: connect, say Hello, check that `expected` answers; ChannelError(reason) otherwise."""
    channel: Channel | None = None
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=READ_BUFFER)
            channel = Channel(reader, writer)
            if channel.peer != expected:
                raise ChannelError(f"certificate-of-{channel.peer or 'nobody'}")
            await channel.send(Kind.HELLO, msgspec.msgpack.encode(mine))
            theirs = await _read_hello(channel)
            reason = _objection(theirs, channel.peer, mine)
            if reason:
                raise ChannelError(reason)
            channel.hello = theirs
            return channel
    except (TimeoutError, OSError, ssl.SSLError, ChannelError) as error:
        if channel is not None:
            channel.close()
        if isinstance(error, ChannelError):
            raise
        raise ChannelError(_why(error)) from None


async def _read_hello(channel: Channel) -> Hello:
    kind, payload = await channel.read(MAX_HELLO)
    if kind == Kind.ERROR:
        raise ChannelError("refused-" + payload[:40].decode("ascii", "replace"))
    if kind != Kind.HELLO:
        raise ChannelError("no-hello")
    try:
        return msgspec.msgpack.decode(payload, type=Hello)
    except msgspec.MsgspecError:
        raise ChannelError("no-hello") from None


def _objection(theirs: Hello, peer: str, mine: Hello) -> str:
    """Why a Hello is not acceptable, "" when it is."""
    if theirs.version != PROTOCOL:
        return "version"
    if theirs.network != mine.network:
        return "network"
    if theirs.chain != mine.chain:
        return "chain"
    if theirs.name != peer:
        return "name"
    if parse_node_name(peer) is None and not is_client_name(peer):
        return "name"
    return ""


def _common_name(writer: asyncio.StreamWriter) -> str:
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return str(names[0]) if len(names) == 1 else ""


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection-refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionError):
        return "closed"
    return (getattr(error, "strerror", None) or "unreachable").lower().replace(" ", "-")
