"""A non-blocking connection to the broker: TCP, TLS 1.3 with a client certificate, reconnect with bounded back-off.

Bytes pass through untouched; MQTT is spoken by the plug behind it. Owned by one thread, driven by `selectors`.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import ssl
from pathlib import Path
from typing import Protocol

OUTPUT_MAX = 262_144
"Bytes waiting for a slow broker: fifteen of a plug's largest batches; beyond it the connection is given up."
CHUNK = 16_384
WAIT_FIRST_MS = 300
WAIT_MAX_MS = 10_000
CONNECT_MAX_MS = 10_000
"A TCP and TLS handshake that takes longer than this on a loaded machine starts over."


class Peer(Protocol):
    """Who uses the link."""

    def link_opened(self) -> None: ...
    def link_closed(self) -> None: ...
    def link_received(self, data: bytes) -> None: ...


def tls_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the context for a broker; None without `ca` (plain TCP, which the configuration allows on loopback)."""
    if ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    if cert is not None and key is not None:
        context.load_cert_chain(cert, key)
    return context


class Link:
    """One connection that comes back after every loss until `stop`."""

    def __init__(
        self, selector: selectors.BaseSelector, host: str, port: int, context: ssl.SSLContext | None, peer: Peer
    ) -> None:
        self._selector = selector
        self._address = (host, port)
        self._context = context
        self._peer = peer
        self._socket: socket.socket | None = None
        self._output = b""
        self._mask = 0
        self._wants_write = False
        self._wait_ms = WAIT_FIRST_MS
        self._retry_ms = 0
        self._deadline_ms = 0
        self._handshaking = False
        self._jitter = random.Random(f"{host}:{port}:{id(self)}")
        self.is_open = False
        self.opened_count = 0
        self.last_error = ""

    def poll(self, now_ms: int) -> None:
        """Begin a connection when it is time to, give one up that never got through."""
        if self._socket is None:
            if now_ms >= self._retry_ms:
                self._begin(now_ms)
        elif not self.is_open and now_ms > self._deadline_ms:
            self._lose(now_ms, "connect timeout")

    def send(self, data: bytes) -> None:
        """Queue bytes; dropped when there is no connection, for the plug repeats on the next one."""
        if self.is_open:
            self._output += data

    def flush(self, now_ms: int) -> None:
        """Write what is queued as far as the socket takes it."""
        if not self.is_open or self._socket is None:
            return
        if len(self._output) > OUTPUT_MAX:
            self._lose(now_ms, "broker does not read")
            return
        try:
            while self._output:
                self._output = self._output[self._socket.send(self._output[:CHUNK]) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._lose(now_ms, str(error))
            return
        self._watch()

    def ready(self, now_ms: int) -> None:
        """The selector says that something can be done."""
        if self._socket is None:
            return
        try:
            if not self.is_open:
                self._advance()
            if self.is_open:
                self._read(now_ms)
        except OSError as error:
            self._lose(now_ms, str(error))
        self.flush(now_ms)
        self._watch()

    def close(self, now_ms: int, reason: str) -> None:
        """End this connection (the plug asked for it); another one follows."""
        if self._socket is not None:
            self._lose(now_ms, reason)

    def stop(self) -> None:
        """End for good."""
        self._release()
        self._retry_ms = 1 << 62

    def _begin(self, now_ms: int) -> None:
        self._deadline_ms = now_ms + CONNECT_MAX_MS
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        raw.setblocking(False)
        self._socket = raw
        self._handshaking = False
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.connect_ex(self._address)
        except OSError as error:
            self._lose(now_ms, str(error))
            return
        self._wants_write = True
        self._watch()

    def _advance(self) -> None:
        """One step of the handshake."""
        handle = self._socket
        assert handle is not None
        if not self._handshaking:
            error = handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connect failed")
            self._handshaking = True
            if self._context is not None:
                self._selector.unregister(handle)
                self._mask = 0
                self._socket = handle = self._context.wrap_socket(
                    handle, server_hostname=self._address[0], do_handshake_on_connect=False
                )
        if isinstance(handle, ssl.SSLSocket):
            try:
                handle.do_handshake()
            except ssl.SSLWantReadError:
                self._wants_write = False
                return
            except ssl.SSLWantWriteError:
                self._wants_write = True
                return
        self.is_open = True
        self.opened_count += 1
        self._wants_write = False
        self._wait_ms = WAIT_FIRST_MS
        self._peer.link_opened()

    def _read(self, now_ms: int) -> None:
        while self.is_open and self._socket is not None:
            try:
                data = self._socket.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                self._lose(now_ms, "closed by the broker")
                return
            self._peer.link_received(data)

    def _watch(self) -> None:
        if self._socket is None:
            return
        mask = selectors.EVENT_READ
        if self._wants_write or self._output:
            mask |= selectors.EVENT_WRITE
        if mask != self._mask:
            if self._mask:
                self._selector.modify(self._socket, mask, self.ready)
            else:
                self._selector.register(self._socket, mask, self.ready)
            self._mask = mask

    def _lose(self, now_ms: int, reason: str) -> None:
        was_open = self.is_open
        self.last_error = reason
        self._release()
        self._retry_ms = now_ms + self._wait_ms + self._jitter.randrange(self._wait_ms)
        self._wait_ms = min(2 * self._wait_ms, WAIT_MAX_MS)
        if was_open:
            self._peer.link_closed()

    def _release(self) -> None:
        if self._socket is not None:
            if self._mask:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(self._socket)
            self._socket.close()
        self._socket = None
        self._mask = 0
        self._output = b""
        self.is_open = False
