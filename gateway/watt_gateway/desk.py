"""What a gateway and its plugs say to each other beside batches: the time, events, status, commands, updates.

A plug asks for the time with a nonce and gets it signed by the household's key. Its events are acknowledged when they
are on disk. Its status is shown and tells when it can take a command; it proves nothing. Commands come from the offices
over the area's broker, or as files in the tray (a folder of the store); firmware bundles come by the tray alone. Both
go on as the plug can take them.

Messages are taken on the loop and only sorted there; one task per household does all writing, in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from watt_chain import crypto
from watt_node.clock import monotonic_ms
from watt_wire import command, statement, topics
from watt_wire.errors import DecodeError

from watt_gateway.bundles import BUNDLE_BYTES_MAX, Updates
from watt_gateway.commands import CommandRelay
from watt_gateway.lines import Lines
from watt_gateway.plugbook import PlugBook, PlugCommand, PlugEvent
from watt_gateway.registry import PlugEntry
from watt_gateway.store import StoreUnavailable

LEVELS = ("event", "status", "ask")
"""Last levels of the topics of a plug that this module takes."""
TURN_S = 1.0
"""A turn at least this often: commands come due, files appear in the tray."""
EVENTS_QUEUED_MAX = 1024
COMMANDS_QUEUED_MAX = 64
"""What waits for the disk at most; a plug offers an event again, an office a command."""
STATUS_BYTES_MAX = 4096
READY_MS = 660_000
"""Machine time after which a status is too old to say that its plug is there: it comes every five minutes."""
COMMAND_SUFFIX, BUNDLE_SUFFIX = ".command", ".bundle"
"""Files of the tray: a command's frame; a firmware bundle, whose name is the plug's id in hex."""
TRAY_FILES_MAX = 64
"""Files looked at in one turn."""

Publish = Callable[[str, bytes], bool]


@dataclass(slots=True)
class Told:
    """The last status of a plug, and when it came (machine time)."""

    status: dict[str, object] = field(default_factory=dict)
    at_ms: int = 0


class PlugDesk:
    """One household's desk."""

    def __init__(
        self,
        name: str,
        key: crypto.PrivateKey,
        plugs: Mapping[bytes, PlugEntry],
        book: PlugBook,
        relay: CommandRelay,
        publish: Publish,
        time_of: Callable[[bytes], tuple[int, str]],
        tray: Path,
        lines: Lines,
        now_s: Callable[[], int],
    ) -> None:
        """Names of what it uses.

        plugs    by id; the owner keeps it up to date
        publish  to the plugs' broker
        time_of  (Unix ms, quality) to tell a plug that asks
        """
        self._name = name
        self._key = key
        self._plugs = plugs
        self._book = book
        self.relay = relay
        self._publish = publish
        self._time_of = time_of
        self._tray = tray
        self._lines = lines
        self._now_s = now_s
        self.updates = Updates()
        self._bundles: dict[str, int] = {}
        "Bundles of the tray that were looked at, and when they were changed."
        self.told: dict[bytes, Told] = {}
        self.refused: dict[str, int] = {}
        "Events not taken, by reason."
        self.events = 0
        "Events taken since the start."
        self.times_told = 0
        self.on_command: Callable[[PlugCommand], None] = lambda done: None
        "Called on the loop with every command that came or has ended."
        self._events: list[PlugEvent] = []
        self._commands: list[bytes] = []
        self._wake = asyncio.Event()

    # ---- what comes in (on the loop, never blocks) ------------------------------------------------------------

    def take(self, topic: str, payload: bytes) -> None:
        """A message under one of the LEVELS."""
        level = topic.rpartition("/")[2]
        try:
            _, plug = topics.parse_plug_level(topic, level)
        except DecodeError:
            return
        if plug not in self._plugs:
            self._refuse("plug-unknown")
        elif level == "ask":
            self._tell_time(plug, payload)
        elif level == "event":
            self._take_event(plug, payload)
        elif level == "status" and len(payload) <= STATUS_BYTES_MAX:
            self._take_status(plug, payload)

    def take_command(self, frame: bytes) -> None:
        """A command from an office, however it came."""
        if len(self._commands) < COMMANDS_QUEUED_MAX:
            self._commands.append(frame)
            self._wake.set()

    def status(self, plug: bytes) -> dict[str, object]:
        """The last status of a plug; empty before the first."""
        told = self.told.get(plug)
        return {} if told is None else told.status

    def _tell_time(self, plug: bytes, nonce: bytes) -> None:
        if len(nonce) != statement.NONCE_SIZE:
            return
        now_ms, quality = self._time_of(plug)
        numbers = {"time_s": now_ms // 1000, "time_ms": now_ms % 1000, "time_quality": ord(quality)}
        body = statement.TIME.encode(statement.Statement(numbers, {"plug_id": plug, "nonce": nonce}))
        self.times_told += 1
        frame = statement.TIME.seal(body, self._key.sign(statement.TIME.message(body)))
        self._publish(topics.plug_time(self._name, plug), frame)

    def _take_event(self, plug: bytes, payload: bytes) -> None:
        try:
            event = statement.EVENT.decode(payload)
        except DecodeError as error:
            self._refuse(error.reason)
            return
        body = statement.EVENT.body_of(payload)
        public = bytes.fromhex(self._plugs[plug].public)
        if event.data("plug_id") != plug:
            self._refuse("event-plug")
        elif not crypto.verify(public, statement.EVENT.message(body), statement.EVENT.signature_of(payload)):
            self._refuse("event-signature")
        elif len(self._events) < EVENTS_QUEUED_MAX:
            number, kind = event.number("number"), event.number("kind")
            digest = hashlib.sha256(body).digest()
            self._events.append(PlugEvent(plug, number, kind, self._now_s(), digest, payload))
            self._wake.set()

    def _take_status(self, plug: bytes, payload: bytes) -> None:
        try:
            found = json.loads(payload)
        except ValueError:
            return
        if isinstance(found, dict):
            self.told[plug] = Told(found, monotonic_ms())
            self.updates.heard(plug, found, monotonic_ms())
            self._wake.set()

    # ---- the one writing task ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Turn for ever; cancelled at stop. What is not on disk then was not acknowledged either."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TURN_S)
            self._wake.clear()
            await self.turn()

    async def turn(self) -> None:
        """One turn. A disk that refuses loses nothing: plugs and offices offer what they have again."""
        events, self._events = self._events, []
        frames, self._commands = self._commands, []
        try:
            kept, changed, sends = await asyncio.to_thread(self._write, events, frames, self._heard("S"))
            offers = await asyncio.to_thread(self._look_for_bundles)
        except StoreUnavailable as error:
            self._lines.warn("disk-refuses-events", reason=error.reason)
            return
        self._lines.clear("disk-refuses-events")
        for _ in range(len(events) - len(kept)):
            self._refuse("event-fork")
        for event in kept:
            self.events += 1
            ack = event.number.to_bytes(4, "big") + event.body_hash
            self._publish(topics.plug_ack(self._name, event.plug), ack)
        for done in changed:
            self.on_command(done)
        for order in sends:
            self._publish(topics.plug_command(self._name, order.plug), order.frame)
        for plug, data in offers:
            reason = self.updates.offer(plug, data, monotonic_ms())
            if reason:
                self._lines.warn("bundle-not-sent", plug=plug, reason=reason)
        for event in kept:
            self.updates.event(statement.EVENT.decode(event.frame))
        for plug, piece in self.updates.due(self._heard(), monotonic_ms()):
            self._publish(topics.plug_update(self._name, plug), piece)

    def _write(
        self, events: list[PlugEvent], frames: list[bytes], ready: set[bytes]
    ) -> tuple[list[PlugEvent], list[PlugCommand], list[PlugCommand]]:
        """In a thread: (events to acknowledge, commands taken or ended, commands to send)."""
        fresh = {(event.plug, event.number): event for event in events if not self._is_known(event)}
        if fresh:
            self._book.add_events(list(fresh.values()))
        kept = [event for event in events if self._is_known(event)]
        changed = [done for event in kept if (done := self.relay.told(statement.EVENT.decode(event.frame)))]
        for frame in [*frames, *self._from_tray()]:
            taken = self.relay.take(frame)
            if taken is not None:
                changed.append(taken)
            else:
                self._lines.warn("command-unreadable", refused=self.relay.refused)
        changed += self.relay.lapse()
        return kept, changed, self.relay.due(ready, monotonic_ms())

    def _is_known(self, event: PlugEvent) -> bool:
        return self._book.event_hash(event.plug, event.number) == event.body_hash

    def _heard(self, quality: str = "") -> set[bytes]:
        """Plugs that were heard of lately; with `quality`, those whose time is that good."""
        since_ms = monotonic_ms() - READY_MS
        found = {plug for plug, told in self.told.items() if told.at_ms >= since_ms}
        return {plug for plug in found if not quality or self.told[plug].status.get("quality") == quality}

    def _from_tray(self) -> list[bytes]:
        """Frames that somebody put into the tray; each file is read once and removed."""
        found: list[bytes] = []
        try:
            names = sorted(name for name in os.listdir(self._tray) if name.endswith(COMMAND_SUFFIX))
            for name in names[:TRAY_FILES_MAX]:
                path = self._tray / name
                with path.open("rb") as file:
                    found.append(file.read(command.SIZE + 1))
                path.unlink()
        except FileNotFoundError:
            pass  # no tray, or somebody took a file back
        except OSError as error:
            self._lines.warn("tray-unreadable", folder=self._tray, why=error.strerror)
        return found

    def _look_for_bundles(self) -> list[tuple[bytes, bytes]]:
        """(plug, bundle) of files that are new in the tray; a file stays until its transfer is over, then it goes."""
        for plug in self.updates.ended():
            path = self._tray / f"{plug.hex()}{BUNDLE_SUFFIX}"
            changed_ns = self._bundles.pop(path.name, 0)
            with contextlib.suppress(OSError):
                if path.stat().st_mtime_ns == changed_ns:
                    path.unlink()
        found = []
        for plug in list(self._plugs):
            path = self._tray / f"{plug.hex()}{BUNDLE_SUFFIX}"
            try:
                changed_ns = path.stat().st_mtime_ns
                if self._bundles.get(path.name) == changed_ns:
                    continue
                with path.open("rb") as file:
                    found.append((plug, file.read(BUNDLE_BYTES_MAX + 1)))
            except OSError:
                continue  # the usual case: there is none
            self._bundles[path.name] = changed_ns
        return found

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
