"""The bench's end of the line: a household gateway without a chain behind it.

Intake, store and MQTT connection are the gateway's own (`PlugIntake`, `Store`, `Link`), so what counts here as stored
once would count there. What is missing is forwarding: a bench has no stations. It answers the plugs' question for the
time, keeps their events and their last status, and sends commands and updates when told to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from watt_chain import crypto
from watt_gateway.lines import Lines
from watt_gateway.meters.plug import Fresh, Known, PlugIntake
from watt_gateway.mqtt import Link
from watt_gateway.registry import PlugEntry, Registry
from watt_gateway.store import Batch, Store, StoreUnavailable
from watt_node.config import MqttSection
from watt_node.log import Log
from watt_wire import statement, topics
from watt_wire.errors import DecodeError

GROUP_S = 0.02
"How long a commit waits for company: one sync for a burst of batches."
EVENTS_MAX = 4096
"Events kept of one plug; a day of the bench makes a few hundred."
QUALITY_OFFSET = 92
"Of the time quality in a checkpoint (WIRE.md 4)."
STATUS_MAX = 4096
"Bytes of a status that are read."


class Collector:
    """Takes batches, events and status of the plugs of one household named `name`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        section: MqttSection,
        key: crypto.PrivateKey,
        now_s: Callable[[bytes], int],
        log: Log,
    ) -> None:
        """`now_s(plug)`: the time to tell a plug that asks."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.store = Store(folder / "gateway.sqlite")
        self.registry = Registry(folder / "registry.json")
        self.events: dict[bytes, dict[int, statement.Statement]] = {}
        self.status: dict[bytes, dict[str, object]] = {}
        self.offered = 0
        "Batches that came, repetitions included."
        self.repeated = 0
        self.refused_events: dict[str, int] = {}
        self.times_told = 0
        self.qualities: dict[bytes, int] = {}
        "Time quality of the last stored checkpoint, as its ASCII number (WIRE.md W1.6)."
        self.stored_at_s = time.monotonic()
        "Machine time of the last commit."
        self._key = key
        self._now_s = now_s
        self._fresh: list[Batch] = []
        self._commit: asyncio.TimerHandle | None = None
        wanted = [topics.plug_level_filter(name, level) for level in ("batch", "event", "status", "ask")]
        self._link = Link("home", f"gw-{name}", section, wanted, self._take, Lines(log))
        self._publics: dict[bytes, bytes] = {}
        self.intake = PlugIntake({}, self.store.tips(), self.store.frame_hash)
        self.reload()

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._link.connected

    def reload(self) -> None:
        """Take the plugs of the registry: one may have been enrolled since."""
        known = {plug: bytes.fromhex(entry.public) for plug, entry in self.registry.plugs().items()}
        if known != self._publics:
            self._publics = known
            self.intake = PlugIntake(known, self.store.tips(), self.store.frame_hash)

    def enrol(self, public: bytes, name: str, rated_w: int, now_s: int) -> bytes:
        """Put a plug into the registry; return its id."""
        plug = hashlib.sha256(public).digest()[:8]
        self.registry.pair(PlugEntry(plug.hex(), public.hex(), name, rated_w, now_s))
        self.reload()
        return plug

    def start(self) -> None:
        self._link.start()

    def stop(self) -> None:
        """Leave the broker and close the files; what is not committed is not acknowledged either."""
        self._link.stop()
        self.store.close()
        self.registry.close()

    def send(self, topic: str, payload: bytes) -> bool:
        """Publish to a plug."""
        return self._link.publish(topic, payload)

    def _take(self, topic: str, payload: bytes) -> None:
        level = topic.rpartition("/")[2]
        try:
            _, plug = topics.parse_plug_level(topic, level)
        except DecodeError:
            return
        if level == "batch":
            self._take_batch(plug, payload)
        elif plug not in self._publics:
            return
        elif level == "event":
            self._take_event(plug, payload)
        elif level == "ask":
            self._tell_time(plug, payload)
        elif level == "status" and len(payload) <= STATUS_MAX:
            self._take_status(plug, payload)

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

    def _take_event(self, plug: bytes, payload: bytes) -> None:
        try:
            event = statement.EVENT.decode(payload)
        except DecodeError as error:
            self._refuse(error.reason)
            return
        body = statement.EVENT.body_of(payload)
        signature = statement.EVENT.signature_of(payload)
        if event.data("plug_id") != plug:
            self._refuse("event-plug")
        elif not crypto.verify(self._publics[plug], statement.EVENT.message(body), signature):
            self._refuse("event-signature")
        else:
            kept = self.events.setdefault(plug, {})
            if len(kept) < EVENTS_MAX:
                kept[event.number("number")] = event
            self._acknowledge(plug, event.number("number"), hashlib.sha256(body).digest())

    def _refuse(self, reason: str) -> None:
        self.refused_events[reason] = self.refused_events.get(reason, 0) + 1

    def _tell_time(self, plug: bytes, nonce: bytes) -> None:
        if len(nonce) != statement.NONCE_SIZE:
            return
        answer = statement.Statement(
            {"time_s": self._now_s(plug), "time_ms": 0, "time_quality": ord("S")}, {"plug_id": plug, "nonce": nonce}
        )
        body = statement.TIME.encode(answer)
        self.times_told += 1
        signature = self._key.sign(statement.TIME.message(body))
        self._link.publish(topics.plug_time(self.name, plug), statement.TIME.seal(body, signature))

    def _take_status(self, plug: bytes, payload: bytes) -> None:
        try:
            told = json.loads(payload)
        except ValueError:
            return
        if isinstance(told, dict):
            self.status[plug] = told
