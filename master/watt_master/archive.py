"""The master's archive: every certified block of every chain it has re-executed, in one SQLite file.

The one module that imports sqlite3. Write-ahead log with `synchronous=FULL`: when `add` returns, the block survives a
power cut, and only then may the master say anything about it on the main chain. `wattpact trace` and the export read
the same file while the master runs.

    meta   key, value                                       network hash: a file of another network is refused
    block  chain, height, hash, time_s, certified,          CertifiedBlock bytes exactly as a quorum signed them
           messages, sum, tx_sum                            what it sent (an anchor carries it); checksums: row, tx rows
    tx     txid, chain, height, position, kind, signer, code   one row per transaction, code "" = accepted

SQLite notices a crash, not a bad disk: so every row is under a checksum, which is looked at whenever a block is read
and by `check`, which reads everything. An archive that does not check is *repaired* by the next start (`open_archive`):
what is sound of each chain from its first block on is copied into a new file, and the rest is fetched again.
"""

import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

APPLICATION_ID = 0x57505431
"ASCII WPT1: `file` and this module recognise an archive by it."
VERSION = 2
"Of the schema, in the file's user_version."
BUSY_MS = 5_000
"A reader (trace, export) may hold the file for a moment; a writer waits this long before it reports."
READ_ROWS = 256
"Rows fetched at once while a whole chain is read: bounds memory to a few blocks of 4 MiB at worst."
CHECK_BLOCKS = 64
"Blocks looked at in one go by `check`; between two goes the writer gets its turn."
CHECK_STEPS = 10_000
"Instructions of SQLite between two questions whether `check` is to end: some milliseconds."
DAMAGED = ".damaged"
"What is added to the name of an archive that was set aside."
MARK = ".repair"
"A file with this ending beside the archive says why it is to be repaired at the next start."

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    chain INTEGER NOT NULL, height INTEGER NOT NULL, hash BLOB NOT NULL, time_s INTEGER NOT NULL,
    certified BLOB NOT NULL, messages BLOB NOT NULL, sum INTEGER NOT NULL, tx_sum INTEGER NOT NULL,
    PRIMARY KEY (chain, height));
CREATE TABLE IF NOT EXISTS tx (
    txid BLOB NOT NULL, chain INTEGER NOT NULL, height INTEGER NOT NULL, position INTEGER NOT NULL,
    kind TEXT NOT NULL, signer BLOB NOT NULL, code TEXT NOT NULL, PRIMARY KEY (txid, chain)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tx_place ON tx (chain, height, position);
CREATE INDEX IF NOT EXISTS tx_signer ON tx (signer, chain, height);
CREATE INDEX IF NOT EXISTS tx_kind ON tx (chain, kind, height);
"""
_BLOCK = "chain, height, hash, time_s, certified, messages, sum, tx_sum"
_TX = "txid, chain, height, position, kind, signer, code"


class ArchiveError(Exception):
    """The archive cannot be used or written; the text is one line for the operator."""


class ArchiveDamage(ArchiveError):
    """What was stored does not check: `mark` the file, start again, and it is repaired."""


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A certified block as stored."""

    chain: int
    height: int
    block_hash: bytes
    time_s: int
    certified: bytes
    messages: tuple[bytes, ...] = ()
    "Encoded messages to other chains, in order."


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


_Row = tuple[object, ...]
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Result codes of a file that is not as it was written; the last one, because our statements fit our schema."""


_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""The second one comes instead of the first when the text of an error has bytes of a damaged file in it."""


def _is_damage(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _sum(values: Sequence[object]) -> int:
    return zlib.crc32(msgspec.msgpack.encode(values))


def _block_values(block: BlockRow) -> _Row:
    """The stored columns but the sums."""
    messages = msgspec.msgpack.encode(block.messages)
    return block.chain, block.height, block.block_hash, block.time_s, block.certified, messages


def _tx_values(row: TransactionRow) -> _Row:
    return row.txid, row.chain, row.height, row.position, row.kind, row.signer_id, row.code


class Archive:
    """Open, add blocks in height order per chain, look up. Safe to call from one thread at a time or several."""

    def __init__(self, path: Path, network: bytes, read_only: bool = False) -> None:
        """Open or create. ArchiveError: locked, of another network or version; ArchiveDamage: not a whole database."""
        self._path = path
        self._lock = threading.Lock()
        db: sqlite3.Connection | None = None
        try:
            if read_only:
                db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            else:
                db = sqlite3.connect(path, check_same_thread=False)
            self._db = db
            # Text that is none is damage, and the checksum says so.
            self._db.text_factory = lambda data: data.decode("utf-8", "replace")
            self._db.isolation_level = None  # transactions are written out below, none is opened behind our back
            self._db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            self._open(network, read_only)
        except ArchiveError:
            assert db is not None
            db.close()
            raise
        except _ERRORS as error:
            if db is not None:
                db.close()
            kind = ArchiveDamage if _is_damage(error) else ArchiveError
            raise kind(f"{path}: cannot open the archive: {error}") from None

    def _open(self, network: bytes, read_only: bool) -> None:
        (mark,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (tables or read_only) and mark != APPLICATION_ID:
            raise ArchiveError(f"{self._path}: not an archive of this program")
        if (tables or read_only) and version != VERSION:
            raise ArchiveError(f"{self._path}: version {version} of the archive; move it away, it is fetched again")
        if not read_only:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")  # a crash leaves an archive or an empty file, nothing between
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version={VERSION}")
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('network', ?)", (network,))
            self._db.execute("COMMIT")
        stored = self._db.execute("SELECT value FROM meta WHERE key = 'network'").fetchone()
        if stored is None or bytes(stored[0]) != network:
            raise ArchiveError(f"{self._path}: belongs to another network")

    # --- writing

    def add(self, block: BlockRow, transactions: Sequence[TransactionRow]) -> bool:
        """Store one block and its transactions durably; False when it is already there.

        ArchiveError when the disk refuses, when a height would be left out, or when another block already stands at
        this height (two certified blocks of one height are evidence of a broken quorum, never overwritten).
        """
        with self._lock:
            try:
                return self._add(block, transactions)
            except _ERRORS as error:
                raise self._failure("write", error) from None

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
            values, rows = _block_values(block), [_tx_values(row) for row in transactions]
            self._db.execute(
                f"INSERT INTO block ({_BLOCK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, _sum(values), _sum(rows))
            )
            self._db.executemany(f"INSERT INTO tx ({_TX}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
            return True
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def forget(self, chain: int, from_height: int) -> None:
        """Drop a chain's blocks from a height on; whoever asks has them elsewhere. ArchiveError."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for table in ("tx", "block"):
                    self._db.execute(f"DELETE FROM {table} WHERE chain = ? AND height >= ?", (chain, from_height))
                self._db.execute("COMMIT")
            except _ERRORS as error:
                raise self._failure("write", error) from None
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    # --- reading

    def height(self, chain: int) -> int:
        """Height of the last stored block of a chain, 0 when there is none."""
        rows = self._query("SELECT coalesce(max(height), 0) FROM block WHERE chain = ?", (chain,))
        return int(str(rows[0][0]))

    def block(self, chain: int, height: int) -> BlockRow | None:
        """One block. ArchiveDamage when it does not check."""
        rows = self._query(f"SELECT {_BLOCK} FROM block WHERE chain = ? AND height = ?", (chain, height))
        return self._block_of(rows[0]) if rows else None

    def hash_of(self, chain: int, height: int) -> bytes | None:
        """Hash of a stored block; None when it is not here."""
        rows = self._query("SELECT hash FROM block WHERE chain = ? AND height = ?", (chain, height))
        found = rows[0][0] if rows else None
        assert found is None or isinstance(found, bytes)
        return found

    def blocks(self, chain: int, from_height: int = 1) -> Iterator[bytes]:
        """CertifiedBlock bytes in height order. ArchiveDamage when one is missing or does not check."""
        at = from_height
        while rows := self._query(
            f"SELECT {_BLOCK} FROM block WHERE chain = ? AND height >= ? ORDER BY height LIMIT ?",
            (chain, at, READ_ROWS),
        ):
            for row in rows:
                block = self._block_of(row)
                if block.height != at:
                    raise self._damage(f"chain {chain} has no block {at}")
                yield block.certified
                at += 1

    def _block_of(self, row: _Row) -> BlockRow:
        *values, total, _ = row
        if _sum(values) != total:
            raise self._damage(f"block {values[1]} of chain {values[0]} does not check")
        chain, height, hash_, time_s, certified, messages = values
        sent = tuple(msgspec.msgpack.decode(messages, type=list[bytes]))  # type: ignore[call-overload]  # by the sum
        return BlockRow(chain, height, hash_, time_s, certified, sent)  # type: ignore[arg-type]  # as above

    def transaction(self, txid: bytes) -> TransactionRow | None:
        """Where a transaction stands; None when no archived block holds it."""
        rows = self._query(f"SELECT {_TX} FROM tx WHERE txid = ? ORDER BY chain", (txid,))
        return TransactionRow(*rows[0]) if rows else None  # type: ignore[arg-type]  # column types are the schema's

    def transactions(self, chain: int, kinds: Sequence[str]) -> Iterator[TransactionRow]:
        """All transactions of the given kinds, in chain order."""
        marks = ", ".join("?" for _ in kinds)
        at: tuple[object, object] = (0, 0)
        while rows := self._query(
            f"SELECT {_TX} FROM tx "
            f"WHERE chain = ? AND kind IN ({marks}) AND (height, position) > (?, ?) ORDER BY height, position LIMIT ?",
            (chain, *kinds, *at, READ_ROWS),
        ):
            for row in rows:
                yield TransactionRow(*row)  # type: ignore[arg-type]  # column types are fixed by the schema
            at = (rows[-1][2], rows[-1][3])

    def transactions_of(self, signer_id: bytes, limit: int) -> list[TransactionRow]:
        """Up to `limit` transactions that one key has signed, in chain order."""
        rows = self._query(
            f"SELECT {_TX} FROM tx WHERE signer = ? ORDER BY chain, height, position LIMIT ?", (signer_id, limit)
        )
        return [TransactionRow(*row) for row in rows]  # type: ignore[arg-type]  # as above

    def _query(self, sql: str, values: _Row) -> list[_Row]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except _ERRORS as error:
                raise self._failure("read", error) from None

    # --- damage

    def check(self, going_on: Callable[[], bool] = lambda: True) -> Iterator[int]:
        """Read everything: structure, every row, every checksum. Yields blocks looked at so far; ArchiveDamage.

        For a thread of its own, on an archive of its own that is open read-only; ends early when not `going_on()`.
        """
        self._db.set_progress_handler(lambda: int(not going_on()), CHECK_STEPS)
        looked = 0
        try:
            for (text,) in self._db.execute("PRAGMA integrity_check(1)"):
                if text != "ok":
                    raise self._damage(str(text))
            for (chain,) in self._query("SELECT DISTINCT chain FROM block ORDER BY chain", ()):
                at = 1
                while going_on() and (rows := self._page(chain, at)):
                    for block, txs in rows:
                        if self._block_of(block).height != at or _sum(txs) != block[-1]:
                            raise self._damage(f"block {at} of chain {chain}, or its transactions, do not check")
                        at += 1
                    looked += len(rows)
                    yield looked
            (stray,) = self._query(
                "SELECT count(*) FROM tx LEFT JOIN block USING (chain, height) WHERE block.hash IS NULL", ()
            )[0]
            if stray:
                raise self._damage(f"{stray} transactions belong to no block")
        except _ERRORS as error:
            if going_on():
                raise self._failure("read", error) from None
        finally:
            self._db.set_progress_handler(None, 0)

    def _page(self, chain: object, from_height: int) -> list[tuple[_Row, list[_Row]]]:
        """Some blocks of a chain with the rows of their transactions."""
        blocks = self._query(
            f"SELECT {_BLOCK} FROM block WHERE chain = ? AND height >= ? ORDER BY height LIMIT ?",
            (chain, from_height, CHECK_BLOCKS),
        )
        if not blocks:
            return []
        txs: dict[object, list[_Row]] = {}
        for row in self._query(
            f"SELECT {_TX} FROM tx WHERE chain = ? AND height BETWEEN ? AND ? ORDER BY height, position",
            (chain, from_height, blocks[-1][1]),
        ):
            txs.setdefault(row[2], []).append(row)
        return [(block, txs.get(block[1], [])) for block in blocks]

    def _damage(self, text: str) -> ArchiveDamage:
        return ArchiveDamage(f"{self._path}: damaged: {text}")

    def _failure(self, doing: str, error: Exception) -> ArchiveError:
        """Damage, or a disk or a lock that refuses."""
        if _is_damage(error):
            return self._damage(str(error))
        return ArchiveError(f"{self._path}: cannot {doing} the archive: {error}")

    def close(self) -> None:
        """Close the file; everything `add` returned for is already on disk."""
        with self._lock:
            self._db.close()


# --- repair at start


def mark(path: Path, why: str) -> None:
    """Have the archive repaired by the next start. Not synced: what is lost of it is found again."""
    path.with_name(path.name + MARK).write_text(why)


def open_archive(path: Path, network: bytes) -> tuple[Archive, str]:
    """(the archive for writing, what was repaired or ""). ArchiveError when it cannot be used."""
    why = ""
    marked = path.with_name(path.name + MARK)
    if marked.exists():
        why = marked.read_text(errors="replace").strip() or "marked"
    else:
        try:
            return Archive(path, network), ""
        except ArchiveDamage as damage:
            why = str(damage)
    _repair(path, network)
    marked.unlink(missing_ok=True)
    return Archive(path, network), why


def _repair(path: Path, network: bytes) -> None:
    """Copy what is sound into a new file, which takes the place of the old one; that is kept under another name."""
    fresh = path.with_name(path.name + ".new")
    for name in (fresh, *_beside(fresh)):
        name.unlink(missing_ok=True)
    copy = Archive(fresh, network)
    try:
        old = Archive(path, network, read_only=True)
    except ArchiveError:
        old = None  # nothing of it can be read
    if old is not None:
        for chain in _chains_of(old):
            _copy_chain(old, copy, chain)
        old.close()
    copy.close()  # its log is in the file now, and gone
    damaged = path.with_name(path.name + DAMAGED)
    damaged.unlink(missing_ok=True)
    if path.exists():
        os.link(path, damaged)
    for name, kept_as in zip(_beside(path), _beside(damaged), strict=True):
        kept_as.unlink(missing_ok=True)
        if name.exists():  # a log must never stand beside a file that it is not of
            os.replace(name, kept_as)
    os.replace(fresh, path)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path) -> tuple[Path, Path]:
    """The files that SQLite keeps beside a database."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def _chains_of(old: Archive) -> list[object]:
    try:
        return [row[0] for row in old._query("SELECT DISTINCT chain FROM block ORDER BY chain", ())]
    except ArchiveError:
        return []


def _copy_chain(old: Archive, copy: Archive, chain: object) -> None:
    """The blocks of a chain up to the first that does not check."""
    at = 1
    try:
        while rows := old._page(chain, at):
            for block, txs in rows:
                found = old._block_of(block)
                if found.height != at or _sum(txs) != block[-1]:
                    return
                copy.add(found, [TransactionRow(*row) for row in txs])  # type: ignore[arg-type]  # under the sum
                at += 1
    except ArchiveError:
        return
