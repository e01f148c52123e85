"""The frame of every daemon: signals, status file, watchdog, one supervisor, exit codes.

Exit code 0 after SIGTERM or SIGINT, 1 when the daemon cannot run (bad configuration, port in use, damaged store, a
fault of ours), with exactly one line on standard error that says why.
"""

import asyncio
import contextlib
import gc
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from watt_node.clock import machine_ms
from watt_node.config import ConfigError
from watt_node.log import Log
from watt_node.notify import notify, watchdog_ms
from watt_node.status import PERIOD_S, StatusFile
from watt_node.store import StoreError

STOP_S = 10.0
"""A daemon that does not close within this time is left as it is: its stores are safe at any instant."""


class Service(Protocol):
    """What a daemon provides."""

    @property
    def folder(self) -> Path:
        """Where `status.json` goes; exists after `start`."""

    async def start(self) -> None:
        """Begin; an exception ends the daemon."""

    async def stop(self) -> None:
        """Close everything."""

    def status(self) -> dict[str, object]:
        """What `status.json` shows."""


class Fatal(Exception):
    """A condition found while running that ends the daemon; the text is the operator's line."""


def run_service(name: str, create: Callable[[], tuple[Service, Log]]) -> int:
    """Run a daemon until a signal; `create` reads the configuration and opens nothing. Returns the exit code."""
    try:
        service, log = create()
        asyncio.run(_supervise(service, log))
    except (ConfigError, StoreError, Fatal) as error:
        print(f"wattpact {name}: {error}", file=sys.stderr, flush=True)
        return 1
    except Exception as error:  # the one supervisor: a fault of ours stops the daemon with a line, never half alive
        where = traceback.extract_tb(error.__traceback__)
        place = f"{Path(where[-1].filename).name}:{where[-1].lineno}" if where else "?"
        print(
            f"wattpact {name}: internal error at {place}: {type(error).__name__}: {error}", file=sys.stderr, flush=True
        )
        return 1
    return 0


async def _supervise(service: Service, log: Log) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None = None) -> None:
        if not ended.done():
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

    def handler(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and not isinstance(error, OSError):
            finish(error)
        else:  # the world's fault (a socket, a handshake): the part concerned has already dealt with it
            log.warning("loop", message=context.get("message", ""), error=error or "")

    loop.set_exception_handler(handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, finish)
    ticker: asyncio.Task[None] | None = None
    try:
        starting = asyncio.ensure_future(service.start())
        await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        gc.collect()
        gc.freeze()  # what start-up built lives as long as the daemon: no need to walk over it again
        if not ended.done():
            notify("READY=1")
            log.info("ready")
        ticker = asyncio.ensure_future(_tick(service))
        ticker.add_done_callback(lambda task: None if task.cancelled() else finish(task.exception()))
        await ended
    finally:
        notify("STOPPING=1")
        if ticker is not None:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await service.stop()
        log.info("stopped")


async def _tick(service: Service) -> None:
    """status.json and the watchdog, once a period."""
    file = StatusFile(service.folder)
    feed = watchdog_ms() > 0
    while True:
        file.write(service.status(), machine_ms())
        if feed:
            notify("WATCHDOG=1")
        await asyncio.sleep(PERIOD_S)
