"""The master's archive: every certified block of every chain it has re-executed, in one SQLite file.

The one module that imports sqlite3. Write-ahead log with `synchronous=FULL`: when `add` returns, the block survives a
power cut, and only then may the master say anything about it on the main chain. `wattpact trace` and the export read
the same file while the master runs.

    meta   key, value                                       network hash: a file of another network is refused
    block  chain, height, hash, time_s, certified           CertifiedBlock bytes exactly as a quorum signed them
    tx     txid, chain, height, position, kind, signer, code   one row per transaction, code "" = accepted
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

APPLICATION_ID = 0x57505431
"ASCII WPT1: `file` and this module recognise an archive by it."
BUSY_MS = 5_000
"A reader (trace, export) may hold the file for a moment; a writer waits this long before it reports."
READ_ROWS = 256
"Rows fetched at once while a whole chain is read: bounds memory to a few blocks of 4 MiB at worst."

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    chain INTEGER NOT NULL, height INTEGER NOT NULL, hash BLOB NOT NULL, time_s INTEGER NOT NULL,
    certified BLOB NOT NULL, PRIMARY KEY (chain, height));
CREATE TABLE IF NOT EXISTS tx (
    txid BLOB NOT NULL, chain INTEGER NOT NULL, height INTEGER NOT NULL, position INTEGER NOT NULL,
    kind TEXT NOT NULL, signer BLOB NOT NULL, code TEXT NOT NULL, PRIMARY KEY (txid, chain)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tx_place ON tx (chain, height, position);
CREATE INDEX IF NOT EXISTS tx_signer ON tx (signer, chain, height);
CREATE INDEX IF NOT EXISTS tx_kind ON tx (chain, kind, height);
"""


class ArchiveError(Exception):
    """The archive cannot be used or written; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A certified block as stored."""

    chain: int
    height: int
    block_hash: bytes
    time_s: int
    certified: bytes


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """Where a transaction stands and what became of it."""

    txid: bytes
    chain: int
    height: int
    position: int
    kind: str
    signer_id: bytes
    code: str


class Archive:
    """Open, add blocks in height order per chain, look up. Safe to call from one thread at a time or several."""

    def __init__(self, path: Path, network: bytes, read_only: bool = False) -> None:
        """Open or create; ArchiveError when the file is damaged, locked or of another network."""
        self._path = path
        self._lock = threading.Lock()
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            else:
                self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.isolation_level = None  # transactions are written out below, none is opened behind our back
            self._db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            self._open(network, read_only)
        except sqlite3.Error as error:
            raise ArchiveError(f"{path}: cannot open the archive: {error}") from None

    def _open(self, network: bytes, read_only: bool) -> None:
        (mark,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (tables or read_only) and mark != APPLICATION_ID:
            raise ArchiveError(f"{self._path}: not an archive of this program")
        if not read_only:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('network', ?)", (network,))
        stored = self._db.execute("SELECT value FROM meta WHERE key = 'network'").fetchone()
        if stored is None or bytes(stored[0]) != network:
            raise ArchiveError(f"{self._path}: belongs to another network")

    def add(self, block: BlockRow, transactions: Sequence[TransactionRow]) -> bool:
        """Store one block and its transactions durably; False when it is already there.

        ArchiveError when the disk refuses, when a height would be left out, or when another block already stands at
        this height (two certified blocks of one height are evidence of a broken quorum, never overwritten).
        """
        with self._lock:
            try:
                return self._add(block, transactions)
            except sqlite3.Error as error:
                raise ArchiveError(f"{self._path}: cannot write the archive: {error}") from None

    def _add(self, block: BlockRow, transactions: Sequence[TransactionRow]) -> bool:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            held = self._db.execute(
                "SELECT hash FROM block WHERE chain = ? AND height = ?", (block.chain, block.height)
            ).fetchone()
            if held is not None:
                if bytes(held[0]) != block.block_hash:
                    raise ArchiveError(
                        f"{self._path}: chain {block.chain} has two certified blocks at height {block.height}: "
                        f"{bytes(held[0]).hex()} and {block.block_hash.hex()}"
                    )
                return False
            (top,) = self._db.execute(
                "SELECT coalesce(max(height), 0) FROM block WHERE chain = ?", (block.chain,)
            ).fetchone()
            if block.height != top + 1:
                raise ArchiveError(f"{self._path}: chain {block.chain} height {block.height} would follow {top}")
            self._db.execute(
                "INSERT INTO block VALUES (?, ?, ?, ?, ?)",
                (block.chain, block.height, block.block_hash, block.time_s, block.certified),
            )
            self._db.executemany(
                "INSERT INTO tx VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(t.txid, t.chain, t.height, t.position, t.kind, t.signer_id, t.code) for t in transactions],
            )
            self._db.execute("COMMIT")
            return True
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def height(self, chain: int) -> int:
        """Height of the last stored block of a chain, 0 when there is none."""
        rows = self._query("SELECT coalesce(max(height), 0) FROM block WHERE chain = ?", (chain,))
        return int(str(rows[0][0]))

    def block(self, chain: int, height: int) -> BlockRow | None:
        """One block."""
        rows = self._query(
            "SELECT chain, height, hash, time_s, certified FROM block WHERE chain = ? AND height = ?", (chain, height)
        )
        return BlockRow(*rows[0]) if rows else None  # type: ignore[arg-type]  # column types are fixed by the schema

    def blocks(self, chain: int, from_height: int = 1) -> Iterator[bytes]:
        """CertifiedBlock bytes in height order."""
        at = from_height
        while rows := self._query(
            "SELECT certified FROM block WHERE chain = ? AND height >= ? ORDER BY height LIMIT ?",
            (chain, at, READ_ROWS),
        ):
            for (certified,) in rows:
                assert isinstance(certified, bytes)
                yield certified
            at += len(rows)

    def transaction(self, txid: bytes) -> TransactionRow | None:
        """Where a transaction stands; None when no archived block holds it."""
        rows = self._query(
            "SELECT txid, chain, height, position, kind, signer, code FROM tx WHERE txid = ? ORDER BY chain", (txid,)
        )
        return TransactionRow(*rows[0]) if rows else None  # type: ignore[arg-type]  # as above

    def transactions(self, chain: int, kinds: Sequence[str]) -> Iterator[TransactionRow]:
        """All transactions of the given kinds, in chain order."""
        marks = ", ".join("?" for _ in kinds)
        at: tuple[object, object] = (0, 0)
        while rows := self._query(
            "SELECT txid, chain, height, position, kind, signer, code FROM tx "
            f"WHERE chain = ? AND kind IN ({marks}) AND (height, position) > (?, ?) ORDER BY height, position LIMIT ?",
            (chain, *kinds, *at, READ_ROWS),
        ):
            for row in rows:
                yield TransactionRow(*row)  # type: ignore[arg-type]  # column types are fixed by the schema
            at = (rows[-1][2], rows[-1][3])

    def transactions_of(self, signer_id: bytes, limit: int) -> list[TransactionRow]:
        """Up to `limit` transactions that one key has signed, in chain order."""
        rows = self._query(
            "SELECT txid, chain, height, position, kind, signer, code FROM tx "
            "WHERE signer = ? ORDER BY chain, height, position LIMIT ?",
            (signer_id, limit),
        )
        return [TransactionRow(*row) for row in rows]  # type: ignore[arg-type]  # as above

    def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise ArchiveError(f"{self._path}: cannot read the archive: {error}") from None

    def close(self) -> None:
        """Close the file; everything `add` returned for is already on disk."""
        with self._lock:
            self._db.close()
