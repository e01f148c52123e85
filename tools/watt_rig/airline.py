"""The air between one plug and the broker: a TCP relay that can fall silent, as Wi-Fi does.

A radio that is gone resets no connection: bytes simply stop. So while the air is gone, connections stay open and
nothing moves; what was on its way is lost with them when the plug or the broker gives up.
"""

from __future__ import annotations

import asyncio
import contextlib

CHUNK = 16_384
CONNECTIONS_MAX = 64
"Half-dead connections of one plug that are kept; a plug opens one at a time."


class AirLine:
    """Listens on 127.0.0.1:`port` for one plug and relays to the broker."""

    def __init__(self, broker_port: int) -> None:
        self.port = 0
        self.there = asyncio.Event()
        self.there.set()
        self.connections = 0
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()

    def set_there(self, there: bool) -> None:
        """Let the air carry, or not."""
        if there:
            self.there.set()
        else:
            self.there.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if len(self._tasks) > CONNECTIONS_MAX:
            next(iter(self._tasks)).cancel()
        self.connections += 1
        far_writer: asyncio.StreamWriter | None = None
        try:
            await self.there.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
            both = [
                asyncio.create_task(self._relay(reader, far_writer)),
                asyncio.create_task(self._relay(far_reader, writer)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
        except (OSError, asyncio.CancelledError):
            pass  # the broker is not there, or the bench ends: the plug sees a closed connection
        finally:
            self._tasks.discard(task)
            for end in (writer, far_writer):
                if end is not None:
                    with contextlib.suppress(OSError, RuntimeError):
                        end.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self.there.wait()
                writer.write(data)
                await writer.drain()
