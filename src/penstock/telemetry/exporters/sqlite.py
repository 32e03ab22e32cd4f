"""Records in an SQLite file: the store that needs nothing installed.

One table, `records`, a column per field of `CallRecord`, its lists as JSON; `PRAGMA user_version` is the schema's
version, and an older file gets the columns that it lacks. A batch is one
transaction, in WAL mode, so readers and other processes are never in the way. Rows older than `keep_s` are deleted, at
most once a minute. The file is opened with the first batch, in the exporter's own thread, and opened anew after any
failure or when it was replaced: a full disk or an unwritable folder costs the records of that time and no more.

A file that SQLite finds corrupt is moved aside to `<path>.corrupt-<n>`, its contents untouched, and a new one begun. A
file that holds something else, or a newer schema, is left alone and refused.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import types
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_origin

import msgspec

from penstock.telemetry.exporters.base import ExportFailed
from penstock.telemetry.record import CallRecord

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

#: Raise it when a field of `CallRecord` is added: an older file is then given what it lacks. For one that is renamed or
#: retyped, write the step from the last one as well.
#: 2: `attempted`. 3: `queued_ms`. 4: the trace. 5: `recovered`. 6: `pathologies`
SCHEMA_VERSION = 6

THIRTY_DAYS_S = 30 * 86_400.0

#: Deleting is a write of its own: once a minute is often enough for rows that lived for days.
PRUNE_EVERY_S = 60.0

#: How long another process's transaction is waited for. Ours take under a millisecond.
LOCK_WAIT_S = 5.0

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_REASONS = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Free some space, or shorten telemetry.store.keep."),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "See that its folder exists and can be written to."),
    sqlite3.SQLITE_READONLY: ("it cannot be written to", "See whose it is, and that its folder can be written to."),
    sqlite3.SQLITE_BUSY: ("another program keeps it locked", "Close that program, or give each a path of its own."),
    sqlite3.SQLITE_IOERR: ("the disk reports an error", None),
}


def _sql_type(annotation: object) -> str:
    members = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    names = {bool: "INTEGER", int: "INTEGER", float: "REAL"}
    return next((names[member] for member in members if member in names), "TEXT")


#: Column → SQL type, in the record's own order.
COLUMNS = {field.name: _sql_type(field.type) for field in msgspec.structs.fields(CallRecord)}

_CREATE = f"CREATE TABLE records ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"

#: The most rows in one statement, a power of two. Each statement lets go of the interpreter several times and has to
#: win it back from the streams' own thread: that costs more than the rows do, so there are as few as can be.
MAX_BULK_ROWS = 128


def _insert(rows: int) -> str:
    row = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO records ({', '.join(COLUMNS)}) VALUES {', '.join([row] * rows)}"


_INSERTS = {rows: _insert(rows) for rows in (2**power for power in range(MAX_BULK_ROWS.bit_length()))}


def bulks(rows: int, most: int) -> Iterator[int]:
    """So many rows in sizes that there is a statement for, the largest first."""
    size = MAX_BULK_ROWS
    while rows:
        while size > rows or size > most:
            size //= 2
        yield size
        rows -= size


#: SQLite takes "not a number" for NULL. Python's module binds a number at once, and looks for an adapter of its user's
#: for each None and each bool: that was half of what a record cost.
_NULL = float("nan")

_FIELDS = list(enumerate(msgspec.structs.fields(CallRecord)))
_BOOLS = [at for at, field in _FIELDS if field.type is bool]
_LISTS = [at for at, field in _FIELDS if get_origin(field.type) is tuple]


def _row(record: CallRecord) -> list[object]:
    """Its values as SQLite keeps them, all of exact types that need no adapter."""
    row: list[object] = [_NULL if value is None else value for value in msgspec.structs.astuple(record)]
    for at in _BOOLS:
        row[at] = 1 if row[at] else 0
    for at in _LISTS:
        row[at] = msgspec.json.encode(value).decode() if (value := row[at]) else "[]"
    return row


class SqliteExporter:
    """`keep_s` None: rows are kept for ever. `now` is unix time, as in the records."""

    name = "sqlite"
    #: four transactions a second at most: one costs as much as many rows
    gather_s = 0.2

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_s: float | None = THIRTY_DAYS_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._keep_s = keep_s
        self._now = now
        self._pruned_at: float | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._most_rows = 1

    def export(self, records: list[CallRecord]) -> None:
        """Raises `ExportFailed`; then none of these records is in the file."""
        try:
            try:
                self._write(records)
            except sqlite3.DatabaseError as error:
                if _code(error) not in _CORRUPT:
                    raise
                self._set_aside()
                self._write(records)
        except sqlite3.Error as error:
            self.close()
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, records: list[CallRecord]) -> None:
        connection = self._open()
        rows = [_row(record) for record in records]
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._prune(connection)
            at = 0
            for size in bulks(len(rows), self._most_rows):
                connection.execute(_INSERTS[size], list(chain.from_iterable(rows[at : at + size])))
                at += size
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
                connection.execute("ROLLBACK")
            raise

    def _prune(self, connection: sqlite3.Connection) -> None:
        if self._keep_s is None:
            return
        now = self._now()
        # abs: a wall clock that was set back must not stop it for as long.
        if self._pruned_at is None or abs(now - self._pruned_at) >= PRUNE_EVERY_S:
            self._pruned_at = now
            connection.execute("DELETE FROM records WHERE time < ?", (now - self._keep_s,))

    # --- the file ---

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self._path):
                return self._connection
            self.close()  # moved or deleted under us: rows would go to a file that nobody can find
        connection = sqlite3.connect(self._path, timeout=LOCK_WAIT_S, isolation_level=None)
        self._identity = _identity(self._path)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        # 999 values in old builds, 32,766 since 3.32
        self._most_rows = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(COLUMNS)
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # SQLite does not wait here when another process is making the same change.
                if _code(error) not in _LOCKED or time.monotonic() > until:
                    raise
                time.sleep(0.005)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            connection.execute(_CREATE)
            connection.execute("CREATE INDEX records_time ON records (time)")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version > SCHEMA_VERSION:
            raise ExportFailed(
                f"The record store {self._path} was written by a newer version.",
                fix="Give this one a path of its own, or upgrade it.",
            )
        elif version == 0:
            raise ExportFailed(
                f"{self._path} is a database of something else.", fix="Give telemetry.store.path another name."
            )
        elif version < SCHEMA_VERSION:
            there = {row[1] for row in connection.execute("PRAGMA table_info(records)")}
            for name, kind in COLUMNS.items():
                if name not in there:
                    connection.execute(f"ALTER TABLE records ADD COLUMN {name} {kind}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

    def _set_aside(self) -> None:
        """Move the corrupt file away, unless another process has just done it."""
        seen = self._identity
        self.close()
        if seen != _identity(self._path):
            return
        number = 1
        while (aside := Path(f"{self._path}.corrupt-{number}")).exists():
            number += 1
        try:
            # The file last: whoever begins a new one must not find the old one's log beside it.
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
            self._path.rename(aside)
        except FileNotFoundError:
            return  # another process was a moment quicker
        except OSError as error:
            raise ExportFailed(f"The record store {self._path} is corrupt and cannot be moved aside.") from error
        _log.warning("The record store %s was corrupt; it is now %s, and a new one was begun.", self._path, aside)

    def _failed(self, error: sqlite3.Error) -> ExportFailed:
        what, fix = _REASONS.get(_code(error), (f"SQLite says {getattr(error, 'sqlite_errorname', 'no')}", None))
        return ExportFailed(f"The record store {self._path} took no records: {what}.", fix=fix)


def _code(error: sqlite3.Error) -> int:
    """The primary result code; the extended ones have it in their low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
