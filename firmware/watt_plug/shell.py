"""The asyncio shell of a plug: one loop that measures and works, one that keeps the connection to the broker.

Runs on MicroPython and on CPython with the same lines: only streams, sleep and tasks of asyncio are used. The transport
is behind `opener`, so that another MQTT stack or a test can stand in. What lives here is order and time-outs; every
rule is in the machines it drives (app.py, clock.py, update.py).
"""

import asyncio

from watt_plug.backoff import Backoff
from watt_plug.courier import TIME, UPDATE

TICK_MS = 50
READ_MAX = 512
CONNECT_S = 20
STATUS_S = 300
HEALTHY_S = 60
"V2.6: that long in the loop with the journal written is healthy."
STALL_S = 5
"V2.7: a round that took longer does not feed the watchdog."


class Board:
    """What the shell needs of the hardware; main.py has the ESP32's, tests have theirs."""

    def timer_ms(self) -> int:
        """Milliseconds of a clock that only rises."""
        raise NotImplementedError

    def measure(self, plug: object, timer_ms: int) -> None:
        """Bring what the chip has sent to the plug."""

    def relay(self, on: bool) -> None:
        """Move the relay's pin if it is not there yet."""

    def lamp(self, code: int, timer_ms: int) -> None:
        """Show a code (panel.py) on the lamp."""

    def feed(self) -> None:
        """Feed the watchdog."""

    def healthy(self) -> None:
        """The loop ran long enough: confirm the bundle."""

    def status(self) -> "dict[str, object]":
        """What the board adds to the status."""
        return {}


class Shell:
    """One plug with its clock, its connection and its board.

    make_updater   gives an update.Updater when the first piece of a bundle comes; None where there are no updates
    """

    def __init__(
        self,
        plug: object,
        clock: object,
        board: Board,
        opener: object,
        below: object,
        make_updater: object,
        topics: object,
    ) -> None:
        self._plug = plug
        self._clock = clock
        self._board = board
        self._opener = opener
        self._backoff = Backoff(below)
        self._make_updater = make_updater
        self._updater: object = None
        self._topics = topics
        self._status_s = 0
        self.connections = 0
        self.stopped = False
        self.last_error = ""

    async def run(self) -> None:
        """Run until `stopped`."""
        link = asyncio.create_task(self._link())
        timer_s = -1
        healthy = False
        start_ms = self._board.timer_ms()
        try:
            while not self.stopped:
                began_ms = self._board.timer_ms()
                self._board.measure(self._plug, began_ms)
                if began_ms // 1000 != timer_s:
                    timer_s = began_ms // 1000
                    self._second(timer_s)
                busy = self._plug.work() or self._clock.work(timer_s)  # type: ignore[attr-defined]
                if self._updater is not None:
                    busy = self._updater.work() or busy  # type: ignore[attr-defined]
                self._board.relay(self._plug.relay)  # type: ignore[attr-defined]
                self._board.lamp(self._plug.lamp, began_ms)  # type: ignore[attr-defined]
                now_ms = self._board.timer_ms()
                if now_ms - began_ms < STALL_S * 1000:
                    self._board.feed()
                if not healthy and now_ms - start_ms >= HEALTHY_S * 1000:
                    healthy = True
                    self._board.healthy()
                    self._status_s = 0  # a trial may be over: say so
                # A slice of work is 60 ms: others get their turn either way.
                await asyncio.sleep(0.001 if busy else TICK_MS / 1000)
        finally:
            link.cancel()

    def _second(self, timer_s: int) -> None:
        plug, clock, topics = self._plug, self._clock, self._topics
        plug.tick(clock.now_s(timer_s), timer_s, clock.quality(timer_s))  # type: ignore[attr-defined]
        for kind, payload in plug.take_asked():  # type: ignore[attr-defined]
            if kind == TIME:
                clock.answer(payload, timer_s)  # type: ignore[attr-defined]
            elif kind == UPDATE and self._make_updater is not None:
                # Code for something that happens twice a year does not live in a small heap.
                self._updater = self._updater or self._make_updater()  # type: ignore[operator]
                self._updater.take(payload)  # type: ignore[attr-defined]
        question = clock.question(timer_s)  # type: ignore[attr-defined]
        if question:
            plug.publish(topics["ask"], question)  # type: ignore[attr-defined, index]
        for line in plug.take_log():  # type: ignore[attr-defined]
            print(line)
        shown = (plug.relay, plug.lamp, clock.quality(timer_s), self._update())  # type: ignore[attr-defined]
        if timer_s >= self._status_s or shown != self._shown:
            if plug.publish(topics["status"], self._status()):  # type: ignore[attr-defined, index]
                self._status_s = timer_s + STATUS_S
                self._shown = shown

    _shown: object = None

    @property
    def staged(self) -> bool:
        """A new bundle is recorded: end the books and restart as soon as no command holds the relay (V6.3)."""
        return self._update()[2] == "staged"

    def _update(self) -> "tuple[int, str, str, str]":
        updater = self._updater
        if updater is None:
            return 0, "", "none", ""
        return updater.received, updater.error, updater.state, updater.name  # type: ignore[attr-defined]

    def _status(self) -> bytes:
        import json

        shown = self._plug.status()  # type: ignore[attr-defined]
        shown.update(self._board.status())
        shown["update"], shown["update_error"], shown["update_state"], shown["update_name"] = self._update()
        return json.dumps(shown).encode()

    async def _link(self) -> None:
        """Connect, carry bytes, and after every loss wait a random while and begin again."""
        plug = self._plug
        while not self.stopped:
            writer = None
            try:
                reader, writer = await asyncio.wait_for(self._opener(), CONNECT_S)  # type: ignore[operator]
                self.connections += 1
                plug.opened()  # type: ignore[attr-defined]
                reading = asyncio.create_task(self._read(reader))
                try:
                    await self._write(writer, reading)
                finally:
                    reading.cancel()
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                self.last_error = str(error) or "time-out"
            if writer is not None:
                plug.closed()  # type: ignore[attr-defined]
                try:
                    writer.close()
                    await asyncio.wait_for(writer.wait_closed(), CONNECT_S)
                except (OSError, asyncio.TimeoutError):
                    pass  # it was broken already
            await asyncio.sleep(self._backoff.failed())

    async def _read(self, reader: object) -> None:
        while True:
            data = await reader.read(READ_MAX)  # type: ignore[attr-defined]
            if not data:
                return
            self._backoff.worked()
            self._plug.network(data)  # type: ignore[attr-defined]

    async def _write(self, writer: object, reading: object) -> None:
        """Send what the plug has to say until one side ends it."""
        while not reading.done() and not self._plug.must_close and not self.stopped:  # type: ignore[attr-defined]
            data = self._plug.take_packet()  # type: ignore[attr-defined]
            while data:
                writer.write(data)  # type: ignore[attr-defined]
                await writer.drain()  # type: ignore[attr-defined]
                data = self._plug.take_packet()  # type: ignore[attr-defined]
            await asyncio.sleep(TICK_MS / 1000)
