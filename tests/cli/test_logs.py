"""`penstock logs` and `penstock top`, on a store that the exporter wrote."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from penstock.telemetry.exporters.sqlite import SqliteExporter
from tests.processes import command, run
from tests.telemetry.script import example

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.telemetry.record import CallRecord

pytestmark = pytest.mark.process


def write(folder: Path, *records: CallRecord) -> None:
    with closing(SqliteExporter(folder / "penstock.db", keep_s=None)) as store:
        store.export(list(records))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    now = time.time()
    write(
        tmp_path,
        example(request_id="r1", time=now - 7200, model="claude-a", outcome="complete", duration_ms=50.0),
        example(request_id="r2", time=now - 60, model="claude-b", outcome="timeout", error_type="timeout_idle"),
        example(request_id="r3", time=now - 1, model="gpt\n\x1b[31m", outcome="complete", duration_ms=9000.0),
    )
    return tmp_path


def ids(*arguments: str, cwd: Path) -> list[str]:
    ended = run("logs", "--json", *arguments, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [json.loads(line)["request_id"] for line in ended.stdout.splitlines()]


def test_lines_for_people_steer_no_terminal(folder: Path):
    ended = run("logs", cwd=folder)
    lines = ended.stdout.splitlines()
    assert len(lines) == 3
    assert "claude-b" in lines[1]
    assert "timeout_idle" in lines[1]
    assert "\x1b" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["r1", "r2", "r3"]),
        (("--since", "1h"), ["r2", "r3"]),
        (("--since", "2020-01-01"), ["r1", "r2", "r3"]),
        (("--model", "claude-*", "--outcome", "timeout"), ["r2"]),
        (("--slow", "9s"), ["r3"]),
        (("--limit", "1"), ["r3"]),
        (("--request", "r1"), ["r1"]),
    ],
)
def test_only_what_was_asked_for(arguments: tuple[str, ...], expected: list[str], folder: Path):
    assert ids(*arguments, cwd=folder) == expected


def test_comma_separated_values(folder: Path):
    rows = list(csv.DictReader(io.StringIO(run("logs", "--csv", cwd=folder).stdout, newline="")))
    assert [row["request_id"] for row in rows] == ["r1", "r2", "r3"]
    assert rows[2]["model"] == "gpt\n\x1b[31m"
    assert rows[1]["attempted"] == "[]"


def test_a_query(folder: Path):
    asked = "SELECT outcome, count(*) FROM records GROUP BY outcome ORDER BY 1"
    assert run("logs", "--sql", asked, cwd=folder).stdout == "complete\t2\ntimeout\t1\n"
    ended = run("logs", "--sql", "SELECT max(time) AS t, NULL AS n FROM records WHERE 0", "--json", cwd=folder)
    assert json.loads(ended.stdout) == {"t": None, "n": None}


def test_it_follows_what_comes(folder: Path):
    following = subprocess.Popen(
        command("logs", "--follow", "--json", "--limit", "1"), cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["request_id"] == "r3"
    for number in (4, 5):
        write(folder, example(request_id=f"r{number}"))
        assert json.loads(following.stdout.readline())["request_id"] == f"r{number}"
    following.send_signal(signal.SIGINT)
    assert following.wait(10) == 130
    following.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--store", "absent.db"), 1, "There is no record store absent.db."),
        (("--outcome", "finished"), 2, "No call ends as `finished`."),
        (("--since", "yesterday"), 2, "Write 10m, 2h or 3d"),
        (("--slow", "long"), 2, "`long` is no duration"),
        (("--sql", "DELETE FROM records"), 1, "readonly database"),
        (("--sql", "SELECT 1", "--follow"), 2, "--sql asks once."),
        (("--json", "--csv"), 2, "two forms of one thing"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(arguments: tuple[str, ...], code: int, said: str, folder: Path):
    ended = run("logs", *arguments, cwd=folder)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_top_shows_models_once_where_there_is_no_terminal(folder: Path):
    ended = run("top", "--window", "10m", cwd=folder)
    rows = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("claude-b", "1", "1"),
        ("gpt  [31m", "1", "0"),
        ("all", "2", "1"),
    ]
    told = json.loads(run("top", "--json", cwd=folder).stdout)
    assert told[-1]["outcomes"] == {"timeout": 1, "complete": 1}


def test_top_on_a_terminal_goes_on_until_it_is_stopped(folder: Path):
    screen, end = pty.openpty()
    watching = subprocess.Popen(
        command("top"), cwd=folder, stdin=end, stdout=end, stderr=end, env={**os.environ, "TERM": "xterm"}
    )
    os.close(end)
    shown = b""
    while b"claude-b" not in shown or b"calls in 5m" not in shown:
        shown += os.read(screen, 65536)
    watching.send_signal(signal.SIGINT)
    try:
        while os.read(screen, 65536):
            pass
    except OSError:  # the other end of a terminal is closed
        pass
    os.close(screen)
    assert watching.wait(10) == 130
