"""What a program learns of its calls beside them: hooks, and records in the exporters of the gateway."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.telemetry.bus import Bus
from penstock.telemetry.exporters.sqlite import SqliteExporter
from penstock.testing import Reply, Upstream
from tests.client.simulated import ENDLESS, MODEL, TEXT, client_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.telemetry.record import CallRecord


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text=TEXT)) as upstream:
        yield upstream


class Told:
    """Hooks that note what they are told, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Any]] = []
        self.hooks = penstock.Hooks(
            on_request=lambda told: self.all.append(("request", told)),
            on_response=lambda told: self.all.append(("response", told)),
            on_end=lambda told: self.all.append(("end", told)),
        )

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.all]


def test_hooks_see_a_calls_three_moments(upstream: Upstream) -> None:
    told = Told()
    response = client_of(upstream, hooks=told.hooks).generate(MODEL, "Hi")
    assert told.names == ["request", "response", "end"]
    (_, request), (_, started), (_, end) = told.all
    assert {request.request_id, started.request_id, end.request_id} == {response.request_id}
    assert (request.model, request.target) == ("m", "sim:m")
    assert request.request.messages == (penstock.Message.of("user", "Hi"),)
    assert (started.target, started.status, started.attempt, started.synthetic) == ("sim:m", 200, 1, False)
    assert end.response == response
    assert (end.record.outcome, end.error) == ("complete", None)


def test_a_call_that_fails_before_its_reply_has_a_request_and_an_end(upstream: Upstream) -> None:
    upstream.says(Reply(faults=("status-401",)))
    told = Told()
    with pytest.raises(penstock.StatusError) as caught:
        client_of(upstream, hooks=told.hooks).stream(MODEL, "Hi")
    assert told.names == ["request", "end"]
    end = told.all[-1][1]
    assert end.error is caught.value
    assert (end.response.outcome, end.record.error_type) == ("upstream_error", "key_rejected")


def test_c5_what_a_hook_raises_reaches_no_call(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    def fail(told: object) -> None:
        raise ZeroDivisionError

    hooks = penstock.Hooks(on_request=fail, on_response=fail, on_end=fail)
    with caplog.at_level(logging.ERROR, "penstock.hooks"):
        assert client_of(upstream, hooks=hooks).generate(MODEL, "Hi").text == TEXT
    assert [record.message for record in caplog.records] == ["A hook raised."] * 3


def rows(path: Path) -> list[tuple[Any, ...]]:
    store = sqlite3.connect(path)
    try:
        return store.execute("SELECT outcome, dialect_in, concurrent, completion_tokens FROM records").fetchall()
    finally:
        store.close()


def test_c6_a_clients_records_are_in_the_store_when_its_block_ends(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with client_of(upstream, telemetry=SqliteExporter(path)) as client:
        client.generate(MODEL, "Hi")
        upstream.says(ENDLESS)
        with client.stream(MODEL, "Hi") as stream:
            next(iter(stream.text))
    assert rows(path) == [("complete", None, 1, 3), ("cancelled", None, 1, None)]


async def test_calls_in_flight_are_counted_over_the_whole_client(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    async with client_of(upstream, telemetry=[SqliteExporter(path)]) as client:
        await asyncio.gather(*(client.agenerate(MODEL, "Hi") for _ in range(3)))
    assert sorted(row[2] for row in rows(path)) == [1, 2, 3]


class Kept:
    """An exporter that keeps what it is given."""

    name = "kept"

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.is_closed = False

    def export(self, records: list[CallRecord]) -> None:
        self.records += records

    def close(self) -> None:
        self.is_closed = True


def test_a_bus_of_the_programs_own_outlives_the_client(upstream: Upstream) -> None:
    kept = Kept()
    bus = Bus([kept])
    for _ in range(2):
        with client_of(upstream, telemetry=bus) as client:
            client.generate(MODEL, "Hi")
        assert not kept.is_closed
    assert bus.close()
    assert [record.outcome for record in kept.records] == ["complete"] * 2


@pytest.mark.process
def test_a_program_that_never_closes_its_client_finds_its_records(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    code = (
        "import penstock\nfrom penstock.telemetry.exporters.sqlite import SqliteExporter\n"
        f"client = penstock.Client(upstreams={{'sim': {upstream.url!r}}}, telemetry=SqliteExporter({str(path)!r}))\n"
        f"print(client.generate({MODEL!r}, 'Hi').text)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout.strip() == TEXT
    assert [row[0] for row in rows(path)] == ["complete"]


def test_what_is_no_exporter_is_refused() -> None:
    with pytest.raises(penstock.ConfigError, match="telemetry holds a str"):
        penstock.Client(telemetry="calls.db")  # type: ignore[arg-type]
