"""The bench's end of the line: a household gateway without a chain behind it.

Intake, store, MQTT connection and desk are the gateway's own (`PlugIntake`, `Store`, `Link`, `PlugDesk`), so what
counts here as stored once would count there, and time, events, commands and updates go the way they go in a household.
What is missing is forwarding: a bench has no stations.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from watt_chain import crypto
from watt_gateway.commands import CommandRelay, Offices
from watt_gateway.desk import LEVELS, PlugDesk
from watt_gateway.lines import Lines
from watt_gateway.meters.plug import Fresh, Known, PlugIntake
from watt_gateway.mqtt import Link
from watt_gateway.plugbook import PlugBook
from watt_gateway.registry import PlugEntry, Registry
from watt_gateway.store import Batch, Store, StoreUnavailable
from watt_node.config import MqttSection
from watt_node.log import Log
from watt_wire import topics
from watt_wire.errors import DecodeError

GROUP_S = 0.02
"How long a commit waits for company: one sync for a burst of batches."
QUALITY_OFFSET = 92
"Of the time quality in a checkpoint (WIRE.md 4)."


class Collector:
    """Takes what the plugs of one household named `name` say, and says what a gateway would."""

    def __init__(
        self,
        name: str,
        folder: Path,
        section: MqttSection,
        key: crypto.PrivateKey,
        network: bytes,
        offices: Offices,
        now_s: Callable[[bytes], int],
        log: Log,
    ) -> None:
        """`now_s(plug)`: the time to tell a plug that asks; `now_s(b"")` that of the household."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.tray = folder / "tray"
        self.store = Store(folder / "gateway.sqlite")
        self.registry = Registry(folder / "registry.json")
        self.book = PlugBook(self.store)
        self.offered = 0
        "Batches that came, repetitions included."
        self.repeated = 0
        self.qualities: dict[bytes, int] = {}
        "Time quality of the last stored checkpoint, as its ASCII number (WIRE.md W1.6)."
        self.stored_at_s = time.monotonic()
        "Machine time of the last commit."
        self._plugs = self.registry.plugs()
        self._fresh: list[Batch] = []
        self._commit: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        wanted = [topics.plug_level_filter(name, level) for level in ("batch", *LEVELS)]
        lines = Lines(log)
        self._link = Link("home", f"gw-{name}", section, wanted, self._take, lines)
        relay = CommandRelay(network, offices, self._plugs, set(), self.book, lambda: now_s(b""))
        self.desk = PlugDesk(
            name,
            key,
            self._plugs,
            self.book,
            relay,
            self._link.publish,
            lambda plug: (now_s(plug) * 1000, "S"),
            self.tray,
            lines,
            lambda: now_s(b""),
        )
        self.intake = PlugIntake(self._publics(), self.store.tips(), self.store.frame_hash)

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._link.connected

    def enrol(self, public: bytes, name: str, rated_w: int, now_s: int) -> bytes:
        """Put a plug into the registry; return its id."""
        plug = hashlib.sha256(public).digest()[:8]
        self.registry.pair(PlugEntry(plug.hex(), public.hex(), name, rated_w, now_s))
        self._plugs.update(self.registry.plugs())
        self.intake.admit(self._publics())
        return plug

    def start(self) -> None:
        """Connect and run; call on the running loop."""
        self._link.start()
        self._task = asyncio.create_task(self.desk.run())

    async def stop(self) -> None:
        """Leave the broker and close the files; what is not committed is not acknowledged either."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._link.stop()
        self.store.close()
        self.registry.close()

    def send(self, topic: str, payload: bytes) -> bool:
        """Publish straight to a plug, past the desk: what a broker in the wrong hands could send."""
        return self._link.publish(topic, payload)

    def _publics(self) -> dict[bytes, bytes]:
        return {plug: bytes.fromhex(entry.public) for plug, entry in self._plugs.items()}

    def _take(self, topic: str, payload: bytes) -> None:
        if not topic.endswith("/batch"):
            self.desk.take(topic, payload)
            return
        with contextlib.suppress(DecodeError):
            self._take_batch(topics.parse_plug_batch(topic)[1], payload)

    def _take_batch(self, plug: bytes, payload: bytes) -> None:
        self.offered += 1
        verdict = self.intake.judge(plug, payload)
        if isinstance(verdict, Fresh):
            self._fresh.append(verdict.batch)
            if self._commit is None:
                self._commit = asyncio.get_running_loop().call_later(GROUP_S, self._store)
        elif isinstance(verdict, Known):
            self.repeated += 1
            self._acknowledge(verdict.plug, verdict.counter, verdict.frame_hash)

    def _store(self) -> None:
        self._commit = None
        fresh, self._fresh = self._fresh, []
        try:
            self.store.commit(fresh, [])
        except StoreUnavailable:
            self.intake.not_stored()
            return
        self.stored_at_s = time.monotonic()
        for batch in fresh:
            self.intake.stored(batch)
            self.qualities[batch.plug] = batch.frame[QUALITY_OFFSET]
            self._acknowledge(batch.plug, batch.counter, batch.frame_hash)

    def _acknowledge(self, plug: bytes, counter: int, digest: bytes) -> None:
        self._link.publish(topics.plug_ack(self.name, plug), counter.to_bytes(4, "big") + digest)
