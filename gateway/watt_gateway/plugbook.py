"""The durable memory of what plugs told and were told beside their readings: signed events, and switch commands.

Two tables of the household's store. Invariant: an event that is on disk under a number is never replaced by another
one; a command keeps its row, with what became of it, for as long as readings are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from watt_gateway.store import Store

WAITING = "waiting"
ACCEPTED = "accepted"
EXPIRED = "expired"
REFUSED = "refused"
NOT_CARRIED = "not-carried"
"""States of a command. The last two, a refusal by the plug and by the gateway, have a reason behind a blank; what is
not carried is not kept."""


@dataclass(frozen=True, slots=True)
class PlugEvent:
    """One signed event, as the plug sent it (WIRE.md 10.1). Columns of `events`."""

    plug: bytes
    number: int
    kind: int
    taken_s: int
    "Protocol time at which it came; the plug's own time is in the frame."
    body_hash: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class PlugCommand:
    """One switch command. `sends`: how often the plug was given it. Columns of `commands`."""

    plug: bytes
    counter: int
    frame: bytes
    taken_s: int
    "Protocol time at which it came."
    state: str = WAITING
    sends: int = 0
    ended_s: int = 0
    "Protocol time at which its state became final; 0 before."


class PlugBook:
    """Events and commands of one household, in its store. Methods may be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add_events(self, events: Sequence[PlugEvent]) -> None:
        """Make events durable; one that is there already stays as it is. StoreUnavailable with nothing changed."""
        with self._store.write() as db:
            db.executemany(
                "INSERT OR IGNORE INTO events VALUES(?,?,?,?,?,?)",
                [(e.plug, e.number, e.kind, e.taken_s, e.body_hash, e.frame) for e in events],
            )

    def event_hash(self, plug: bytes, number: int) -> bytes | None:
        """The hash of the event under this number; None when it is not here."""
        with self._store.read() as db:
            row = db.execute("SELECT body_hash FROM events WHERE plug = ? AND number = ?", (plug, number)).fetchone()
        return None if row is None else bytes(row[0])

    def events(self, plug: bytes, limit: int) -> list[PlugEvent]:
        """The newest events of a plug, oldest first."""
        with self._store.read() as db:
            rows = db.execute(
                "SELECT * FROM events WHERE plug = ? ORDER BY number DESC LIMIT ?", (plug, limit)
            ).fetchall()
        return [PlugEvent(*row) for row in reversed(rows)]

    def event_count(self, plug: bytes) -> int:
        """How many events of a plug are here."""
        with self._store.read() as db:
            return int(db.execute("SELECT COUNT(*) FROM events WHERE plug = ?", (plug,)).fetchone()[0])

    def add_command(self, command: PlugCommand) -> None:
        """Make a command durable; there is none of this plug and counter yet."""
        with self._store.write() as db:
            db.execute(
                "INSERT INTO commands VALUES(?,?,?,?,?,?,?)",
                (command.plug, command.counter, command.frame, command.taken_s, command.state, command.sends, 0),
            )

    def command(self, plug: bytes, counter: int) -> PlugCommand | None:
        """One command; None when it is not here."""
        with self._store.read() as db:
            row = db.execute("SELECT * FROM commands WHERE plug = ? AND counter = ?", (plug, counter)).fetchone()
        return None if row is None else PlugCommand(*row)

    def mark_command(self, command: PlugCommand) -> None:
        """Write state, sends and end of a command."""
        with self._store.write() as db:
            db.execute(
                "UPDATE commands SET state = ?, sends = ?, ended_s = ? WHERE plug = ? AND counter = ?",
                (command.state, command.sends, command.ended_s, command.plug, command.counter),
            )

    def waiting(self) -> list[PlugCommand]:
        """Commands that are not final, by plug and counter."""
        with self._store.read() as db:
            rows = db.execute("SELECT * FROM commands WHERE state = ? ORDER BY plug, counter", (WAITING,)).fetchall()
        return [PlugCommand(*row) for row in rows]

    def commands(self, plug: bytes, limit: int) -> list[PlugCommand]:
        """The newest commands of a plug, oldest first."""
        with self._store.read() as db:
            rows = db.execute(
                "SELECT * FROM commands WHERE plug = ? ORDER BY counter DESC LIMIT ?", (plug, limit)
            ).fetchall()
        return [PlugCommand(*row) for row in reversed(rows)]

    def commands_since(self, plug: bytes, taken_s: int) -> int:
        """How many commands for a plug came since a protocol time."""
        with self._store.read() as db:
            query = "SELECT COUNT(*) FROM commands WHERE plug = ? AND taken_s >= ?"
            return int(db.execute(query, (plug, taken_s)).fetchone()[0])

    def prune(self, before_s: int) -> int:
        """Forget events that came, and commands that ended, before `before_s`; returns how many."""
        with self._store.write() as db:
            removed = db.execute("DELETE FROM events WHERE taken_s < ?", (before_s,)).rowcount
            removed += db.execute("DELETE FROM commands WHERE ended_s < ? AND ended_s > 0", (before_s,)).rowcount
        return removed
