from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.telemetry.bus import Bus
from penstock.telemetry.exporters.base import ExportFailed
from penstock.telemetry.exporters.sqlite import COLUMNS, MAX_BULK_ROWS, SCHEMA_VERSION, SqliteExporter, bulks
from penstock.telemetry.record import AttemptRecord, CallRecord
from tests.telemetry.script import example

NOW = 1_763_683_500.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "penstock.db"


def opened(path: Path, **options: Any) -> SqliteExporter:
    return SqliteExporter(path, **{"now": lambda: NOW, **options})


def write(path: Path, *records: CallRecord) -> None:
    with closing(opened(path)) as exporter:
        exporter.export(list(records))


def rows(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM records ORDER BY rowid")]


def ids(path: Path) -> list[str]:
    return [row["request_id"] for row in rows(path)]


def test_what_is_written_can_be_read(path: Path) -> None:
    records = [
        example(),
        CallRecord(request_id="r2", time=NOW, model_requested="é\0", stream=False, outcome="cancelled"),
        example(prompt_tokens=2**53 - 1, cost=0.1, synthetic=True, pathologies=("after_end", "no_terminator")),
        example(attempted=(AttemptRecord(target="a:m", status=503, cause="overloaded", wasted_ms=1.5),) * 2),
    ]
    write(path, *records)
    found = [{**row, **{name: json.loads(row[name]) for name in ("attempted", "pathologies")}} for row in rows(path)]
    assert [msgspec.convert(row, CallRecord, strict=False) for row in found] == records


def test_c6_unknown_is_null_in_the_store(path: Path) -> None:
    write(path, example(prompt_tokens=None, cost=None))
    assert (rows(path)[0]["prompt_tokens"], rows(path)[0]["cost"]) == (None, None)


@pytest.mark.parametrize("count", [1, 7, MAX_BULK_ROWS - 1, MAX_BULK_ROWS + 1, 3 * MAX_BULK_ROWS])
def test_a_batch_of_any_size_is_written_once_and_in_order(path: Path, count: int) -> None:
    write(path, *(example(request_id=f"r{number}") for number in range(count)))
    assert ids(path) == [f"r{number}" for number in range(count)]


def test_what_a_record_did_not_say_is_null_and_nothing_else_is(path: Path) -> None:
    """Whatever was bound in its place: columns of text and of whole numbers included."""
    bare = CallRecord(request_id="r", time=NOW, model_requested="", stream=False, outcome="cancelled")
    write(path, bare)
    (row,) = rows(path)
    told = {name: value for name, value in msgspec.structs.asdict(bare).items() if value is not None}
    assert {name for name, value in row.items() if value is not None} == set(told)
    assert {name: row[name] for name in told if told[name] != ()} == {n: v for n, v in told.items() if v != ()}


@pytest.mark.parametrize(
    ("rows", "most", "sizes"),
    [(1, 128, [1]), (300, 128, [128, 128, 32, 8, 4]), (50, 20, [16, 16, 16, 2]), (3, 1, [1, 1, 1]), (0, 128, [])],
)
def test_few_statements_hold_a_batch_whatever_sqlite_takes_at_once(rows: int, most: int, sizes: list[int]) -> None:
    assert list(bulks(rows, most)) == sizes


def test_constructing_opens_nothing(path: Path) -> None:
    opened(path).close()
    assert not path.exists()


def test_the_file_says_its_version_and_is_in_wal_mode(path: Path) -> None:
    write(path, example())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        columns = [(row[1], row[2]) for row in connection.execute("PRAGMA table_info(records)")]
    assert columns == list(COLUMNS.items())


def test_a_changed_record_needs_a_new_schema_version() -> None:
    columns = " ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    assert (SCHEMA_VERSION, zlib.crc32(columns.encode())) == (6, 0x4750F2E4)


def test_a_file_of_an_older_version_is_given_what_it_lacks(path: Path) -> None:
    """As version 1 wrote it: without `attempted`, `recovered` and `pathologies`."""
    kept = {name: kind for name, kind in COLUMNS.items() if name not in ("attempted", "recovered", "pathologies")}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE records ({', '.join(f'{name} {kind}' for name, kind in kept.items())})")
        connection.execute("INSERT INTO records (request_id, time, attempts) VALUES ('old', ?, 2)", (NOW,))
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    write(path, example(request_id="new", time=NOW, attempted=(AttemptRecord(target="a"),)))
    assert ids(path) == ["old", "new"]
    old, new = rows(path)
    assert (old["attempts"], old["attempted"]) == (2, None)
    assert json.loads(new["attempted"])[0]["target"] == "a"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    write(path, example(request_id="newer", time=NOW))
    assert ids(path) == ["old", "new", "newer"]


def test_a_later_batch_and_a_later_run_add_to_it(path: Path) -> None:
    with closing(opened(path)) as exporter:
        exporter.export([example(request_id="a")])
        exporter.export([example(request_id="b")])
    write(path, example(request_id="c"))
    assert ids(path) == ["a", "b", "c"]


def test_c11_old_rows_are_deleted_once_a_minute(path: Path) -> None:
    now = NOW
    with closing(opened(path, keep_s=100.0, now=lambda: now)) as exporter:
        exporter.export([example(request_id="old", time=NOW - 99), example(request_id="new", time=NOW)])
        now = NOW + 59
        exporter.export([example(request_id="newer", time=now)])
        assert ids(path) == ["old", "new", "newer"]
        now = NOW + 61
        exporter.export([])
        assert ids(path) == ["new", "newer"]


def test_a_clock_that_is_set_back_deletes_nothing_and_does_not_stop_the_deleting(path: Path) -> None:
    at = NOW
    with closing(SqliteExporter(path, keep_s=3600.0, now=lambda: at)) as exporter:
        exporter.export([example(request_id="now", time=NOW)])
        at = NOW - 86_400
        exporter.export([example(request_id="before", time=at)])
        assert ids(path) == ["now", "before"]
        at = NOW + 60
        exporter.export([example(request_id="again", time=at)])
        assert ids(path) == ["now", "again"], "what is old by then went within a minute of it"


def test_rows_are_kept_for_ever_when_told(path: Path) -> None:
    with closing(opened(path, keep_s=None)) as exporter:
        exporter.export([example(time=0.0)])
        exporter.export([example(time=1.0)])
    assert len(rows(path)) == 2


def test_garbage_is_moved_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"this is no database " * 100)
    write(path, example())
    assert ids(path) == ["r1"]
    assert Path(f"{path}.corrupt-1").read_bytes() == b"this is no database " * 100
    assert "was corrupt" in caplog.text

    path.write_bytes(b"neither is this " * 100)
    write(path, example(request_id="r2"))
    assert ids(path) == ["r2"]
    assert Path(f"{path}.corrupt-2").exists()


def test_a_store_that_breaks_while_open_is_moved_aside(path: Path) -> None:
    with closing(opened(path)) as exporter:
        exporter.export([example(request_id=str(number)) for number in range(200)])
        exporter.close()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096 * 4)
        exporter.export([example(request_id="after")])
    assert ids(path) == ["after"]
    assert Path(f"{path}.corrupt-1").exists()


def test_a_store_that_was_moved_or_deleted_is_begun_anew(path: Path) -> None:
    with closing(opened(path)) as exporter:
        exporter.export([example(request_id="a")])
        path.rename(path.with_name("kept.db"))
        exporter.export([example(request_id="b")])
        assert ids(path) == ["b"]
        path.unlink()
        exporter.export([example(request_id="c")])
    assert ids(path) == ["c"]


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    exporter = opened(tmp_path / "file" / "penstock.db")
    with pytest.raises(ExportFailed, match=r"penstock\.db took no records: it cannot be opened\. See that its folder"):
        exporter.export([example()])
    tmp_path.joinpath("file").unlink()
    tmp_path.joinpath("file").mkdir()
    exporter.export([example()])  # as soon as it can
    exporter.close()
    assert ids(tmp_path / "file" / "penstock.db") == ["r1"]


def test_a_full_disk_costs_the_records_of_that_time_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def connect_small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 8")  # SQLite's own way to be full
        return connection

    with closing(opened(path)) as exporter:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", connect_small)
            exporter.export([example(request_id="before")])
            with pytest.raises(ExportFailed, match="the disk is full"):
                exporter.export([example(request_id=str(number)) for number in range(500)])
        exporter.export([example(request_id="after")])
    assert ids(path) == ["before", "after"]


def test_a_batch_is_all_or_nothing(path: Path) -> None:
    with closing(opened(path)) as exporter:
        exporter.export([example(request_id="before")])
        with pytest.raises(OverflowError):
            exporter.export([example(request_id="good"), example(prompt_tokens=2**70)])
        exporter.export([example(request_id="after")])
    assert ids(path) == ["before", "after"]


def test_a_newer_store_is_left_alone(path: Path) -> None:
    write(path, example())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(ExportFailed, match="newer version"):
        write(path, example())
    assert ids(path) == ["r1"]


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(ExportFailed, match="something else"):
        write(path, example())


def test_behind_the_bus_only_its_thread_touches_the_file(path: Path) -> None:
    # sqlite3 itself refuses a connection that is used in another thread than the one that made it.
    bus = Bus([opened(path)])
    for number in range(50):
        bus.publish(example(request_id=str(number)))
    assert bus.close(10.0)
    assert bus.states()[0].sent == 50
    assert ids(path) == [str(number) for number in range(50)]


WRITER = """
import sys
from penstock.telemetry.exporters.sqlite import SqliteExporter
from penstock.telemetry.record import AttemptRecord, CallRecord

exporter = SqliteExporter(sys.argv[1], keep_s=None)
records = [CallRecord(request_id=sys.argv[2], time=0.0, model_requested="m", stream=True, outcome="complete")] * 10
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    exporter.export(records)
exporter.close()
"""


@pytest.mark.process
def test_two_processes_write_to_one_store(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")  # both create the file at once
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=30)
        assert writer.returncode == 0
    assert sorted(ids(path)) == ["a"] * 200 + ["b"] * 200
