"""Reading the store: what is wanted and nothing else, of old files too, and never changing one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from penstock.telemetry.exporters.sqlite import SqliteExporter
from penstock.telemetry.record import AttemptRecord, CallRecord
from penstock.telemetry.store import StoreError, Wanted, query, read_records
from tests.telemetry.script import example

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = [
    example(request_id="r1", time=100.0, model="claude-a", outcome="complete", duration_ms=50.0, key_name="me"),
    example(request_id="r2", time=200.0, model=None, model_requested="claude-b", outcome="timeout", duration_ms=9000.0),
    example(request_id="r3", time=300.0, model="gpt", target="up:gpt", outcome="complete", duration_ms=None),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a store?.db"
    with closing(SqliteExporter(path, keep_s=None)) as store:
        store.export(RECORDS)
    return path


def test_records_come_back_as_they_were(path: Path):
    assert [record for _, record in read_records(path)] == RECORDS


def test_lists_come_back_as_they_were(tmp_path: Path):
    attempt = AttemptRecord(target="a:b", cause="overloaded")
    record = example(attempts=2, attempted=(attempt,))
    with closing(SqliteExporter(tmp_path / "s.db", keep_s=None)) as store:
        store.export([record])
    assert read_records(tmp_path / "s.db")[0][1] == record


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"model": "claude-*"}, ["r1", "r2"]),
        ({"model": "claude-a"}, ["r1"]),
        ({"model": "' OR 1=1 --"}, []),
        ({"target": "up:*"}, ["r3"]),
        ({"outcome": "timeout"}, ["r2"]),
        ({"key_name": "me"}, ["r1"]),
        ({"request_id": "r2"}, ["r2"]),
        ({"since": 200.0}, ["r2", "r3"]),
        ({"slow_ms": 50.0}, ["r1", "r2"]),
        ({"after_row": 2}, ["r3"]),
        ({"model": "claude-*", "outcome": "complete", "since": 50.0}, ["r1"]),
    ],
)
def test_only_what_is_wanted_comes(wanted: dict[str, Any], ids: list[str], path: Path):
    assert [record.request_id for _, record in read_records(path, Wanted(**wanted))] == ids


def test_the_newest_come_when_there_is_a_limit(path: Path):
    assert [(row, record.request_id) for row, record in read_records(path, limit=2)] == [(2, "r2"), (3, "r3")]


def test_a_file_of_an_older_version_is_read(tmp_path: Path):
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(
            "CREATE TABLE records"
            " (request_id TEXT, time REAL, model_requested TEXT, stream INTEGER, outcome TEXT, gone TEXT)"
        )
        connection.execute("INSERT INTO records VALUES ('r', 1.0, 'm', 1, 'complete', 'x')")
        connection.commit()
    ((_, record),) = read_records(old)
    assert record == CallRecord(request_id="r", time=1.0, model_requested="m", stream=True, outcome="complete")


def test_a_query_of_ones_own(path: Path):
    assert query(path, "SELECT outcome, count(*) AS calls FROM records GROUP BY outcome ORDER BY 1") == (
        ["outcome", "calls"],
        [("complete", 2), ("timeout", 1)],
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM records", "readonly database"),
        ("DROP TABLE records", "readonly database"),
        ("PRAGMA query_only = OFF", "asks for no rows"),
        ("ATTACH '/tmp/other.db' AS o", "asks for no rows"),
        ("SELEC 1", "syntax error"),
        ("SELECT absent FROM records", "no such column"),
        ("", "asks for no rows"),
    ],
)
def test_a_query_changes_nothing(sql: str, said: str, path: Path):
    with pytest.raises(StoreError, match=said):
        query(path, sql)
    assert len(read_records(path)) == 3


def test_what_is_no_store_is_said(tmp_path: Path):
    with pytest.raises(StoreError, match="There is no record store"):
        read_records(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists(), "looking makes no file"
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StoreError, match="is no record store"):
        read_records(tmp_path / "text")
