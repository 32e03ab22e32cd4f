"""Reading the record store: which calls, since when, how slow. It opens the file for reading alone, whatever is asked.

Files of older versions are read as well: what they have no column for is the record's default. Records come oldest
first, with their row's number, by which a reader goes on.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from penstock.canon.errors import PenstockError
from penstock.telemetry.record import CallRecord

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_LISTS = frozenset({"attempted", "pathologies"})
#: another process's transaction takes under a millisecond
_LOCK_WAIT_S = 5.0


class StoreError(PenstockError):
    """The store cannot be read, or not so."""

    kind = "store_unreadable"


class Wanted(Struct, frozen=True, kw_only=True):
    """Which records. Patterns are as in the shell; `since` is unix seconds; what is None asks for nothing."""

    model: str | None = None
    target: str | None = None
    outcome: str | None = None
    key_name: str | None = None
    request_id: str | None = None
    since: float | None = None
    slow_ms: float | None = None
    after_row: int = 0


def read_records(
    path: str | os.PathLike[str], wanted: Wanted | None = None, *, limit: int | None = None
) -> list[tuple[int, CallRecord]]:
    """The newest `limit` of those that are wanted, oldest first, each with its row's number."""
    where, values = _conditions(wanted or Wanted())
    # A number for all of them: SQLite's word for no limit is -1.
    query = f"SELECT rowid, * FROM records WHERE {where} ORDER BY rowid DESC LIMIT {-1 if limit is None else limit}"
    with _opened(path) as connection:
        cursor = connection.execute(query, values)
        names = [column[0] for column in cursor.description][1:]
        known = [(at, name) for at, name in enumerate(names, 1) if name in CallRecord.__struct_fields__]
        rows = [(row[0], _record({name: row[at] for at, name in known})) for row in cursor]
    return rows[::-1]


def query(path: str | os.PathLike[str], sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The columns and the rows of a query of the reader's own. It can change nothing."""
    with _opened(path) as connection:
        cursor = connection.execute(sql)
        if cursor.description is None:
            raise StoreError("That asks for no rows.", fix="Write a SELECT; the table is called records.")
        return [column[0] for column in cursor.description], cursor.fetchall()


def _conditions(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    terms = {
        "model": "(model GLOB :model OR model_requested GLOB :model)",
        "target": "target GLOB :target",
        "outcome": "outcome = :outcome",
        "key_name": "key_name GLOB :key_name",
        "request_id": "request_id = :request_id",
        "since": "time >= :since",
        "slow_ms": "duration_ms >= :slow_ms",
        "after_row": "rowid > :after_row",
    }
    values = {name: value for name, value in asdict(wanted).items() if value is not None}
    return " AND ".join(terms[name] for name in values), values


def _record(row: dict[str, Any]) -> CallRecord:
    given = {name: msgspec.json.decode(value) if name in _LISTS and value else value for name, value in row.items()}
    # An older file has no such column for rows of its time, or null in it.
    told = {name: value for name, value in given.items() if value is not None}
    return msgspec.convert(told, CallRecord, strict=False)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[sqlite3.Connection]:
    place = Path(path)
    if not place.exists():
        raise StoreError(
            f"There is no record store {place}.",
            fix="The gateway writes one where it is started (telemetry.store.path); name it with --store.",
        )
    try:
        with closing(_connect(place)) as connection:
            connection.execute("PRAGMA query_only = ON")
            yield connection
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
            raise StoreError(f"{place} is no record store.", fix="Name another with --store.") from error
        raise StoreError(f"SQLite says of {place}: {error}.") from error


def _connect(place: Path) -> sqlite3.Connection:
    # `mode=ro` still reads what lies in the write-ahead log beside the file.
    return sqlite3.connect(
        f"file:{quote(str(place.resolve()))}?mode=ro", uri=True, timeout=_LOCK_WAIT_S, isolation_level=None
    )
