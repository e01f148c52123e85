"""The durable memory of one household's gateway: SQLite, write-ahead log, synchronous=FULL.

    batches   one row per checkpoint: the signed frame and its records, exactly as the plug sent them
    outbox    transactions that are not final yet, in the order they were made
    attempts  every signed form of an outbox item (a nonce may have to be replaced; the old form may still win)
    receipts  what became of each item: the transaction, its code and the proof
    memory    small values of the household's app (salts of sealed bids, the last event seen)
    events    what happened to the plugs, signed by them (plugbook.py, as the next one)
    commands  switch commands of the offices for the plugs, and what became of each

A method that returns has reached the disk: an acknowledged reading survives `kill -9` and a power cut. FULL is
asserted at start because NORMAL loses acknowledged commits when power fails. Invariant: an outbox row disappears
only in the transaction that writes its receipt.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from watt_node.store import StoreError as NodeStoreError
from watt_wire.record import SIZE as RECORD_SIZE

from watt_gateway.config import PLUGS_MAX

STORE_FILE = "gateway.sqlite"
"""Name of the database in a household's folder."""

OUTBOX_ITEMS_MAX = PLUGS_MAX * 96 * 3
"""Three days without uplink: 64 plugs, one checkpoint a quarter of an hour. Beyond it plugs keep their readings."""
OUTBOX_RESERVE = 256
"""Places kept for the household's own calls (bids, confirmations) when readings have filled the rest."""
MEMORY_VALUE_MAX = 1 << 20
"""Bytes of one remembered value; the largest is an event's specification, some 10 kB."""
FULL_CHECK_BYTES = 64 << 20
"""Up to this size the boot check reads every index too (about a second); above it the quick form runs."""
BUSY_MS = 5_000
"""How long a second reader (doctor, backup) may hold the file before a commit gives up."""

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE batches(
    plug BLOB NOT NULL, counter INTEGER NOT NULL, frame_hash BLOB NOT NULL, frame BLOB NOT NULL,
    records BLOB NOT NULL, first_sequence INTEGER NOT NULL, record_count INTEGER NOT NULL,
    time_s INTEGER NOT NULL, import_mwh INTEGER NOT NULL, export_mwh INTEGER NOT NULL,
    gap INTEGER NOT NULL, main_meter_mwh INTEGER NOT NULL,
    UNIQUE(plug, counter)
);
CREATE INDEX batches_time ON batches(time_s);
CREATE TABLE outbox(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, label TEXT NOT NULL UNIQUE, fields BLOB NOT NULL,
    nonce INTEGER, txid BLOB, tx BLOB, state TEXT NOT NULL CHECK(state IN ('queued', 'signed'))
);
CREATE TABLE attempts(txid BLOB PRIMARY KEY, seq INTEGER NOT NULL, nonce INTEGER NOT NULL, tx BLOB NOT NULL);
CREATE TABLE receipts(
    label TEXT PRIMARY KEY, kind TEXT NOT NULL, txid BLOB NOT NULL, code TEXT NOT NULL, height INTEGER NOT NULL,
    time_s INTEGER NOT NULL, tx BLOB NOT NULL, proof BLOB NOT NULL
);
CREATE TABLE memory(key TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
SCHEMA_ADDED = """
CREATE TABLE events(
    plug BLOB NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL, taken_s INTEGER NOT NULL,
    body_hash BLOB NOT NULL, frame BLOB NOT NULL, UNIQUE(plug, number)
);
CREATE TABLE commands(
    plug BLOB NOT NULL, counter INTEGER NOT NULL, frame BLOB NOT NULL, taken_s INTEGER NOT NULL,
    state TEXT NOT NULL, sends INTEGER NOT NULL, ended_s INTEGER NOT NULL, UNIQUE(plug, counter)
);
"""
"""What version 2 added; a store of version 1 gets it at its next start."""


class StoreError(NodeStoreError):
    """The database cannot be used at all: damaged, foreign, or unable to be durable. Stop and tell the operator."""


class StoreUnavailable(Exception):
    """This write did not happen (`disk-full`, `disk-error`); nothing changed and it may be tried again."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class OutboxFull(Exception):
    """The outbox holds its bound; nothing was written."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The last checkpoint of a plug that is on this disk: what the next one must continue."""

    counter: int
    frame_hash: bytes
    next_sequence: int
    time_s: int
    import_mwh: int
    export_mwh: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A verified checkpoint with its records, ready to be stored. Fields stand as the columns of `batches`."""

    plug: bytes
    counter: int
    frame_hash: bytes
    frame: bytes
    records: bytes
    "The record frames one after the other, all of the same size."
    first_sequence: int
    record_count: int
    time_s: int
    import_mwh: int
    export_mwh: int
    gap: bool
    main_meter_mwh: int = -1

    @property
    def tip(self) -> Tip:
        """The tip of the plug once this batch is stored."""
        return Tip(
            self.counter,
            self.frame_hash,
            self.first_sequence + self.record_count,
            self.time_s,
            self.import_mwh,
            self.export_mwh,
        )


@dataclass(frozen=True, slots=True)
class NewItem:
    """A transaction to be made: `label` is its purpose and unique, so that a purpose is never sent twice."""

    kind: str
    label: str
    fields: bytes


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A transaction on its way. `nonce`, `txid`, `tx` are None until it was signed for the first time."""

    seq: int
    kind: str
    label: str
    fields: bytes
    nonce: int | None = None
    txid: bytes | None = None
    tx: bytes | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed form of an outbox item."""

    seq: int
    nonce: int
    txid: bytes
    tx: bytes


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """What became of an item. `code` is "" when it was accepted, else the contract's reason. Columns of `receipts`."""

    label: str
    kind: str
    txid: bytes
    code: str
    height: int
    time_s: int
    tx: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """For the status line."""

    batches: int
    readings: int
    gaps: int
    pending: int
    final: int
    refused: dict[str, int]


_UNAVAILABLE = {
    "SQLITE_FULL": "disk-full",
    "SQLITE_READONLY": "disk-error",
    "SQLITE_CANTOPEN": "disk-error",
    "SQLITE_BUSY": "disk-busy",
    "SQLITE_LOCKED": "disk-busy",
}


def _unavailable(error: sqlite3.Error) -> StoreUnavailable | None:
    name = getattr(error, "sqlite_errorname", None) or ""
    for prefix, reason in _UNAVAILABLE.items():
        if name.startswith(prefix):
            return StoreUnavailable(reason, str(error))
    if name.startswith("SQLITE_IOERR"):
        # On most file systems a full disk reaches SQLite as a failed write.
        return StoreUnavailable("disk-error", str(error))
    return None


class Store:
    """One household's database. Methods may be called from any thread; each takes the lock for one transaction."""

    def __init__(self, path: Path) -> None:
        """Open or create; StoreError when the file is damaged, foreign, or cannot be made durable."""
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: cannot open the store: {error}") from None
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            unavailable = _unavailable(error)
            if unavailable is not None:
                raise StoreError(f"{path}: cannot open the store: {unavailable}") from None
            raise StoreError(f"{path}: damaged ({error}); keep the file, restore a backup or move it away") from None
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        size = self.path.stat().st_size
        self._db.execute("PRAGMA trusted_schema=OFF")
        mode = self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        self._db.execute("PRAGMA synchronous=FULL")
        level = self._db.execute("PRAGMA synchronous").fetchone()[0]
        if mode != "wal" or level != 2:
            raise StoreError(
                f"{self.path}: journal {mode}, synchronous {level}; needs wal and 2 (FULL) to keep promises"
            )
        check = "integrity_check" if size <= FULL_CHECK_BYTES else "quick_check"
        verdict = " ".join(self._db.execute(f"PRAGMA {check}(1)").fetchone()[0].split())
        if verdict != "ok":
            raise StoreError(f"{self.path}: damaged ({verdict}); keep the file, restore a backup or move it away")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version in (0, 1):
            wanted = SCHEMA_ADDED if version else SCHEMA + SCHEMA_ADDED
            self._db.executescript(f"BEGIN IMMEDIATE; {wanted} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise StoreError(f"{self.path}: store version {version}; this program knows {SCHEMA_VERSION}")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; StoreUnavailable when the disk refuses it, with nothing changed."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:  # whatever it is, the transaction must not stay open
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    unavailable = _unavailable(error)
                    if unavailable is not None:
                        raise unavailable from None
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The database for a question; close what it returns before leaving."""
        with self._lock:
            yield self._db

    # ---- readings ---------------------------------------------------------------------------------------------

    def tips(self) -> dict[bytes, Tip]:
        """The last stored checkpoint of each plug."""
        with self._lock:
            rows = self._db.execute(
                "SELECT plug, counter, frame_hash, first_sequence + record_count, time_s, import_mwh, export_mwh"
                " FROM batches AS b WHERE counter = (SELECT MAX(counter) FROM batches WHERE plug = b.plug)"
            ).fetchall()
        return {row[0]: Tip(*row[1:]) for row in rows}

    def frame_hash(self, plug: bytes, counter: int) -> bytes | None:
        """The hash of a stored checkpoint; None when that counter is not here."""
        with self._lock:
            row = self._db.execute(
                "SELECT frame_hash FROM batches WHERE plug = ? AND counter = ?", (plug, counter)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def frames_at(self, time_s: int) -> list[tuple[bytes, bytes, str]]:
        """(plug, frame, outbox label) of every checkpoint whose register is dated `time_s`."""
        with self._lock:
            rows = self._db.execute(
                "SELECT plug, frame, counter FROM batches WHERE time_s = ? ORDER BY plug, counter", (time_s,)
            ).fetchall()
        return [(row[0], row[1], checkpoint_label(row[0], row[2])) for row in rows]

    def records_of(self, plug: bytes, counter: int) -> bytes | None:
        """The record frames under one checkpoint, one after the other; None when it is not here."""
        with self._lock:
            row = self._db.execute(
                "SELECT records FROM batches WHERE plug = ? AND counter = ?", (plug, counter)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def commit(self, batches: Sequence[Batch], items: Sequence[NewItem]) -> list[OutboxItem]:
        """Store batches and queue items in one durable transaction; returns the queued items.

        A batch that is already here (same plug and counter) is left as it is and queues nothing; `items` pairs with
        nothing, the caller gives one per batch and more. Raises OutboxFull or StoreUnavailable with nothing changed.
        """
        queued: list[OutboxItem] = []
        with self.write() as db:
            bound = OUTBOX_ITEMS_MAX - (OUTBOX_RESERVE if batches else 0)
            if db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0] + len(items) > bound:
                raise OutboxFull(f"the outbox holds its bound of {bound} transactions")
            db.executemany(
                "INSERT OR IGNORE INTO batches VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
                [astuple(batch) for batch in batches],
            )
            for item in items:
                if db.execute("SELECT 1 FROM receipts WHERE label = ?", (item.label,)).fetchone() is not None:
                    continue  # that purpose is final already
                cursor = db.execute(
                    "INSERT OR IGNORE INTO outbox(kind, label, fields, state) VALUES(?,?,?,'queued')",
                    (item.kind, item.label, item.fields),
                )
                if cursor.rowcount == 1 and cursor.lastrowid is not None:
                    queued.append(OutboxItem(cursor.lastrowid, item.kind, item.label, item.fields))
        return queued

    # ---- the outbox -------------------------------------------------------------------------------------------

    def outbox(self) -> list[OutboxItem]:
        """Everything that is not final, oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT seq, kind, label, fields, nonce, txid, tx FROM outbox ORDER BY seq"
            ).fetchall()
        return [OutboxItem(*row) for row in rows]

    def attempts(self) -> list[Attempt]:
        """Every signed form of an item that is not final."""
        with self._lock:
            rows = self._db.execute("SELECT seq, nonce, txid, tx FROM attempts ORDER BY seq, nonce").fetchall()
        return [Attempt(*row) for row in rows]

    def record_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Make signatures durable before the first byte of them is sent: a restart must send the same bytes."""
        with self.write() as db:
            for attempt in attempts:
                db.execute(
                    "INSERT OR IGNORE INTO attempts VALUES(?,?,?,?)",
                    (attempt.txid, attempt.seq, attempt.nonce, attempt.tx),
                )
                db.execute(
                    "UPDATE outbox SET nonce = ?, txid = ?, tx = ?, state = 'signed' WHERE seq = ?",
                    (attempt.nonce, attempt.txid, attempt.tx, attempt.seq),
                )

    def settle(self, settled: Sequence[tuple[int, StoredReceipt]]) -> None:
        """Write verified receipts and drop their items, in one transaction: the only way out of the outbox."""
        with self.write() as db:
            for seq, receipt in settled:
                db.execute(
                    "INSERT OR REPLACE INTO receipts VALUES(?,?,?,?,?,?,?,?)",
                    astuple(receipt),
                )
                db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
                db.execute("DELETE FROM attempts WHERE seq = ?", (seq,))

    def receipt(self, label: str) -> StoredReceipt | None:
        """The receipt of a purpose; None while it is not final."""
        with self._lock:
            row = self._db.execute("SELECT * FROM receipts WHERE label = ?", (label,)).fetchone()
        return None if row is None else StoredReceipt(*row)

    def receipts_like(self, prefix: str) -> list[StoredReceipt]:
        """Receipts whose label begins with `prefix`, by height."""
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM receipts WHERE substr(label, 1, ?) = ? ORDER BY height, label", (len(prefix), prefix)
            ).fetchall()
        return [StoredReceipt(*row) for row in rows]

    # ---- small things -----------------------------------------------------------------------------------------

    def remember(self, key: str, value: bytes) -> None:
        """Keep a small value durably."""
        assert len(value) <= MEMORY_VALUE_MAX, f"{key}: {len(value)} bytes"
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO memory VALUES(?,?)", (key, value))

    def recall(self, key: str) -> bytes | None:
        """The remembered value; None when there is none."""
        with self._lock:
            row = self._db.execute("SELECT value FROM memory WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def counts(self) -> Counts:
        """Sums over the whole store. Reads every batch row once: call it at start, count on from there."""
        with self._lock:
            batches, readings, gaps = self._db.execute(
                "SELECT COUNT(*), COALESCE(SUM(record_count), 0), COALESCE(SUM(gap), 0) FROM batches"
            ).fetchone()
            pending = self._db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0]
            codes = dict(self._db.execute("SELECT code, COUNT(*) FROM receipts GROUP BY code").fetchall())
        final = codes.pop("", 0)
        return Counts(batches, readings, gaps, pending, final, codes)

    def prune(self, before_s: int) -> int:
        """Forget readings dated before `before_s` that are final, but never the tip of a plug; returns how many.

        Receipts go with them. Readings whose transaction is still on its way stay whatever their age.
        """
        with self.write() as db:
            rows = db.execute(
                "SELECT plug, counter FROM batches AS b WHERE time_s < ?"
                " AND counter < (SELECT MAX(counter) FROM batches WHERE plug = b.plug)",
                (before_s,),
            ).fetchall()
            removed = 0
            for plug, counter in rows:
                label = checkpoint_label(plug, counter)
                if db.execute("DELETE FROM receipts WHERE label = ?", (label,)).rowcount == 1:
                    db.execute("DELETE FROM batches WHERE plug = ? AND counter = ?", (plug, counter))
                    removed += 1
        return removed

    def close(self) -> None:
        """Write the log back and release the file."""
        with self._lock:
            self._db.close()


def checkpoint_label(plug: bytes, counter: int) -> str:
    """The purpose "this checkpoint of this plug is on chain"."""
    return f"checkpoint/{plug.hex()}/{counter}"


def read_final_batches(folder: Path) -> list[tuple[bytes, list[bytes]]]:
    """(checkpoint frame, record frames) of every stored batch, by plug and counter, read-only, for an export.

    Every final reading of the household is among them; which checkpoints are final the caller sees on the chain,
    since a receipt may still be on its way. An absent store gives []; StoreError when it cannot be read.
    """
    path = folder / STORE_FILE
    if not path.exists():
        return []
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
        rows = db.execute("SELECT frame, records FROM batches ORDER BY plug, counter").fetchall()
        db.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot read the store: {error}") from None
    return [
        (frame, [records[at : at + RECORD_SIZE] for at in range(0, len(records), RECORD_SIZE)])
        for frame, records in rows
    ]
