"""InfluxDB: what each version is sent, and what becomes of records while it is away, full, slow or refuses.

The server here answers as a script says: no InfluxDB 2 or 3 can be had from a registry. Real servers stand in
`tests/integration/test_influxdb.py`.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConfigError
from penstock.telemetry.bus import Bus
from penstock.telemetry.exporters.base import ExportFailed
from penstock.telemetry.exporters.influxdb import PROBE_POINTS, InfluxDBExporter
from penstock.telemetry.line_protocol import points
from penstock.telemetry.record import CallRecord
from tests.telemetry.script import Clock, example

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Answer = tuple[int, dict[str, str], bytes]
TAKEN: Answer = (204, {}, b"")


class Receiver:
    """Answers by `answers`, one after the other, and 204 from then on. `taken` holds the lines of what it took."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.taken: list[str] = []
        self.limit: int | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.asked.append((self.path, headers, body))
                answer = receiver.answers.pop(0) if receiver.answers else TAKEN
                if receiver.limit is not None and len(body) > receiver.limit:
                    answer = (413, {}, b"")
                status, said, told = answer
                if 200 <= status < 300:
                    receiver.taken += body.decode().splitlines()
                self.send_response(status)
                for name, value in {"content-length": str(len(told)), **said}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def exporter(receiver: Receiver | int, spool: Path | None = None, **options: Any) -> InfluxDBExporter:
    port = receiver if isinstance(receiver, int) else receiver.port
    return InfluxDBExporter(f"http://127.0.0.1:{port}", database="llm", spool=spool, **options)


def numbered(*numbers: int) -> list[CallRecord]:
    return [example(request_id=f"r{number}") for number in numbers]


def order(lines: list[str]) -> list[str]:
    return [line.partition('request_id="')[2].partition('"')[0] for line in lines]


# --- what each version is sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path", "auth"),
    [
        ({"version": 1}, "/write?db=llm&precision=ns", None),
        ({"version": 1, "token": "me:secret"}, "/write?db=llm&precision=ns", "Basic bWU6c2VjcmV0"),
        ({"version": 1, "precision": "us"}, "/write?db=llm&precision=u", None),
        ({"version": 2, "org": "o", "token": "t"}, "/api/v2/write?org=o&bucket=llm&precision=ns", "Token t"),
        ({"version": 3, "token": "t"}, "/api/v3/write_lp?db=llm&precision=nanosecond", "Bearer t"),
    ],
)
def test_each_version_has_its_own_path_and_key(
    options: dict[str, Any], path: str, auth: str | None, receiver: Receiver
):
    sent = exporter(receiver, **options)
    sent.export([example()])
    sent.close()
    ((asked, headers, body),) = receiver.asked
    assert (asked, headers.get("authorization")) == (path, auth)
    assert body == points([example()], precision=options.get("precision", "ns"))


def test_much_is_compressed_and_one_connection_is_enough(receiver: Receiver):
    sent = exporter(receiver)
    for _ in range(3):
        sent.export(numbered(*range(50)))
    sent.close()
    assert len(receiver.taken) == 150
    assert {headers.get("content-encoding") for _, headers, _ in receiver.asked} == {"gzip"}
    assert len(receiver.asked) == 3


def test_a_request_that_is_too_large_is_cut_in_two(receiver: Receiver):
    receiver.limit = len(points(numbered(1))) * 3
    sent = exporter(receiver)
    sent.export(numbered(*range(10)))
    assert order(receiver.taken) == [f"r{number}" for number in range(10)]
    receiver.limit = 10
    with pytest.raises(ExportFailed, match="no request as large as one point"):
        sent.export(numbered(1))
    sent.close()


def test_c13_the_token_is_in_no_error_and_no_state(receiver: Receiver, tmp_path: Path):
    receiver.answers = [(401, {}, b'{"message":"unauthorized access"}')]
    sent = exporter(receiver, tmp_path / "s", token="very-secret")
    sent.export([example()])
    assert "unauthorized access" in (sent.kept.error or "")
    assert "very-secret" not in f"{sent.kept} {sent!r}"
    assert all(b"very-secret" not in path.read_bytes() for path in (tmp_path / "s").iterdir())
    sent.close()


def test_a_url_that_is_none_is_said():
    with pytest.raises(ConfigError, match="is no URL of an InfluxDB"):
        InfluxDBExporter("influx:8086", database="llm")


# --- what it cannot take now ------------------------------------------------------------------------------------------

AWAY: list[tuple[Answer, float]] = [
    ((503, {}, b""), 1.0),
    ((500, {}, b'{"error":"engine is closed"}'), 1.0),
    ((429, {"retry-after": "7"}, b""), 7.0),
    ((429, {"retry-after": "9999"}, b""), 600.0),
    ((503, {"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, b""), 10.0),
    ((401, {}, b'{"message":"unauthorized access"}'), 1.0),
    ((404, {}, b'{"error":"database not found: \\"llm\\""}'), 1.0),
]


@pytest.mark.parametrize(("answer", "wait_s"), AWAY)
def test_what_it_cannot_take_now_is_sent_later_and_in_order(
    answer: Answer, wait_s: float, receiver: Receiver, tmp_path: Path
):
    clock = Clock()
    receiver.answers = [answer]
    sent = exporter(receiver, tmp_path / "s", now=clock)
    sent.export(numbered(1, 2))
    sent.export(numbered(3))
    assert len(receiver.asked) == 1, "while it waits it does not ask"
    assert (sent.kept.now, sent.kept.deferred) == (3, 3)
    assert f"answered {answer[0]}" in (sent.kept.error or "")
    assert sent.resume() == pytest.approx(wait_s)
    clock.at += wait_s
    assert sent.resume() is None
    sent.export(numbered(4))
    assert order(receiver.taken) == ["r1", "r2", "r3", "r4"]
    assert (sent.kept.now, sent.kept.recovered, sent.kept.lost, sent.kept.error) == (0, 3, 0, None)
    sent.close()


def test_the_wait_doubles_up_to_a_minute_and_begins_anew(receiver: Receiver, tmp_path: Path):
    clock = Clock()
    receiver.answers = [(503, {}, b"")] * 9
    sent = exporter(receiver, tmp_path / "s", now=clock)
    sent.export(numbered(1))
    waits = []
    while (wait_s := sent.resume()) is not None:
        waits.append(wait_s)
        clock.at += wait_s
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    receiver.answers = [(503, {}, b"")]
    sent.export(numbered(2))
    assert sent.resume() == 1
    sent.close()


def test_a_server_that_is_not_there_costs_no_record_and_no_restart_does(receiver: Receiver, tmp_path: Path):
    clock = Clock()
    absent = Receiver()
    port = absent.port
    absent.close()
    sent = exporter(port, tmp_path / "s", now=clock)
    sent.export(numbered(1))
    assert "cannot be reached: Connection refused" in (sent.kept.error or "")
    sent.export(numbered(2))
    sent.close()
    later = exporter(receiver, tmp_path / "s", now=clock)
    later.export(numbered(3))
    assert order(receiver.taken) == ["r1", "r2", "r3"]
    assert (later.kept.now, later.kept.recovered) == (0, 3)
    later.close()


def test_a_connection_that_was_closed_meanwhile_is_made_anew(tmp_path: Path):
    first = Receiver()
    sent = exporter(first, tmp_path / "s")
    sent.export(numbered(1))
    first.answers = [(204, {"connection": "close"}, b"")]
    sent.export(numbered(2))
    sent.export(numbered(3))
    assert order(first.taken) == ["r1", "r2", "r3"]
    assert sent.kept.deferred == 0
    sent.close()
    first.close()


def test_c11_the_spool_is_bounded_and_says_what_it_lost(tmp_path: Path):
    absent = Receiver()
    absent.close()
    sent = exporter(absent.port, tmp_path / "s", spool_bytes=4 * len(points(numbered(1))), now=Clock())
    for number in range(9):
        sent.export(numbered(number))
    kept = sent.kept
    assert kept.now + kept.lost == 9
    assert 2 <= kept.now <= 4
    assert sum(path.stat().st_size for path in (tmp_path / "s").iterdir()) <= 4 * len(points(numbered(1)))
    sent.close()


def test_without_a_spool_what_cannot_be_sent_is_lost_and_said(receiver: Receiver):
    clock = Clock()
    receiver.answers = [(503, {}, b"")]
    sent = exporter(receiver, now=clock)
    with pytest.raises(ExportFailed, match="answered 503"):
        sent.export(numbered(1))
    with pytest.raises(ExportFailed, match="answered 503"):
        sent.export(numbered(2))
    assert len(receiver.asked) == 1, "while it waits it does not ask"
    clock.at += 1.0
    sent.export(numbered(3))
    assert order(receiver.taken) == ["r3"]
    sent.export(numbered(4))
    assert order(receiver.taken) == ["r3", "r4"]
    sent.close()


def test_without_a_spool_one_that_took_nothing_is_asked_with_a_few_and_soon(receiver: Receiver):
    clock = Clock()
    receiver.answers = [(503, {}, b"")] * 6
    sent = exporter(receiver, now=clock)
    many = numbered(*range(3 * PROBE_POINTS))
    for wait_s in (1.0, 2.0, 4.0, 5.0, 5.0, 5.0):
        with pytest.raises(ExportFailed):
            sent.export(many)
        clock.at += wait_s
    assert len(receiver.asked) == 6
    sent.export(many)
    assert order(receiver.taken) == [record.request_id for record in many]
    assert len(receiver.asked) == 8, "a few, and then the rest"
    sent.close()


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path):
    (tmp_path / "s").write_bytes(b"a file where the folder should be")
    absent = Receiver()
    absent.close()
    sent = exporter(absent.port, tmp_path / "s")
    with pytest.raises(ExportFailed, match=r"Connection refused\. Nor could it be kept on disk: File exists\."):
        sent.export(numbered(1))
    sent.close()


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_what_is_refused_for_good_is_named_and_not_tried_again(receiver: Receiver, tmp_path: Path):
    receiver.answers = [(400, {}, b'{"error":"unable to parse \'llm_request\': missing fields"}')]
    sent = exporter(receiver, tmp_path / "s")
    with pytest.raises(ExportFailed, match=r"refused points \(400\): unable to parse"):
        sent.export(numbered(1))
    assert sent.kept.now == 0
    sent.close()


PARTIAL = [
    b'{"error":"partial write: field type conflict: input field is type float dropped=2"}',
    json.dumps(
        {
            "error": "partial write of line protocol occurred",
            "data": [
                {"line_number": number, "error_message": "invalid column type", "original_line": "llm_request secret=1"}
                for number in (1, 3)
            ],
        }
    ).encode(),
]


@pytest.mark.parametrize("answer", PARTIAL)
def test_a_partial_write_counts_what_was_not_taken(answer: bytes, receiver: Receiver):
    receiver.answers = [(400, {}, answer)]
    bus = Bus([exporter(receiver)])  # which gathers them, and is closed before it has
    for record in numbered(1, 2, 3, 4, 5):
        bus.publish(record)
    assert bus.close()
    (state,) = bus.states()
    assert (state.sent, state.failed, state.dropped) == (3, 2, 0)
    assert "partial write" in (state.last_error or "")
    assert "secret" not in (state.last_error or "")


def test_one_that_is_refused_holds_up_nobody_behind_it(receiver: Receiver, tmp_path: Path):
    clock = Clock()
    receiver.answers = [(503, {}, b""), (400, {}, b"")]
    sent = exporter(receiver, tmp_path / "s", now=clock)
    sent.export(numbered(1))
    sent.export(numbered(2))
    clock.at += 1
    assert sent.resume() is None
    assert order(receiver.taken) == ["r2"]
    assert (sent.kept.now, sent.kept.lost) == (0, 1)
    sent.close()


# --- behind the bus ---------------------------------------------------------------------------------------------------


def test_the_bus_sends_what_was_kept_though_nothing_new_comes(receiver: Receiver, tmp_path: Path):
    receiver.answers = [(503, {"retry-after": "0.05"}, b"")]
    bus = Bus([exporter(receiver, tmp_path / "s")], gather_s=0)
    bus.publish(example(request_id="r1"))
    until = time.monotonic() + 10
    while not receiver.taken and time.monotonic() < until:
        time.sleep(0.01)
    assert order(receiver.taken) == ["r1"]
    assert bus.close()
    (state,) = bus.states()
    assert (state.sent, state.spooled, state.dropped, state.failed) == (1, 0, 0, 0)


def test_c5_a_server_that_hangs_loses_nothing_when_the_bus_closes(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        bus = Bus([exporter(hanging.getsockname()[1], tmp_path / "s")], gather_s=0)
        bus.publish(example(request_id="r1"))
        assert bus.close(10)
    (state,) = bus.states()
    assert (state.sent, state.spooled) == (0, 1)
    assert "it does not answer" in (state.last_error or "")
