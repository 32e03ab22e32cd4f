"""Real servers take our points and give them back: InfluxDB 1 by its own API, VictoriaMetrics by that of version 2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from penstock.telemetry.exporters.influxdb import InfluxDBExporter
from penstock.telemetry.line_protocol import FIELDS, TAGS
from penstock.testing import Counts, Reply, Upstream
from tests.gateways import serving
from tests.processes import server
from tests.telemetry.script import example

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.telemetry.record import CallRecord

pytestmark = pytest.mark.process

INFLUXD = """
reporting-disabled = true
bind-address = "127.0.0.1:{other}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def get(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data, timeout=10) as answer:
        body: bytes = answer.read()
        return body


@contextmanager
def started(command: list[str], ready: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        until = time.monotonic() + 30
        while True:
            try:
                get(ready)
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                assert time.monotonic() < until, f"{command[0]} does not answer"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program, folder, port = server("influxd"), tmp_path_factory.mktemp("influxd"), free_port()
    config = folder / "influxdb.conf"
    config.write_text(INFLUXD.format(folder=folder, port=port, other=free_port()))
    url = f"http://127.0.0.1:{port}"
    with started([program, "run", "-config", str(config)], f"{url}/ping"):
        get(f"{url}/query", urlencode({"q": "CREATE DATABASE llm"}).encode())
        yield url


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program, folder, port = server("victoria-metrics"), tmp_path_factory.mktemp("victoria"), free_port()
    url = f"http://127.0.0.1:{port}"
    options = [f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}", "-loggerLevel=ERROR"]
    with started([program, *options, "-search.latencyOffset=0s"], f"{url}/health"):
        yield url


def selected(url: str, where: str = "") -> list[dict[str, Any]]:
    """The points of InfluxDB 1: fields and tags by name, `time` in nanoseconds."""
    query = urlencode({"db": "llm", "epoch": "ns", "q": f"SELECT * FROM llm_request {where} ORDER BY time"})
    (result,) = json.loads(get(f"{url}/query?{query}"))["results"]
    if "series" not in result:
        return []
    (series,) = result["series"]
    return [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]


def told(record: CallRecord) -> dict[str, Any]:
    tags = {tag: getattr(record, name) for tag, name in TAGS.items()}
    tags["streaming"] = str(record.stream).lower()
    return {**tags, **{name: getattr(record, name) for name in FIELDS if getattr(record, name) != ()}}


def fresh(**fields: Any) -> CallRecord:
    return example(time=round(time.time(), 3), **fields)


HOSTILE = ['m",outcome=x', "a b,c=d", "l\nllm_request forged=1", "🙂", "end\\"]


def test_influxdb_gives_back_every_field(influxdb: str):
    records = [fresh(request_id="every"), *(fresh(request_id=f"every-{i}", model=m) for i, m in enumerate(HOSTILE))]
    sent = InfluxDBExporter(influxdb, version=1, database="llm")
    sent.export(records)
    sent.close()
    rows = {row["request_id"]: row for row in selected(influxdb) if row["request_id"].startswith("every")}
    for number, record in enumerate(records):
        row = rows.pop(record.request_id)
        assert row.pop("time") == int(record.time * 10**6) * 1000 + number
        expected = told(record)
        expected["model"] = expected["model"].replace("\n", "\ufffd").replace("\\", "/")
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in expected.items() if value is not None
        }
    assert rows == {}


def test_influxdb_that_has_no_such_database_is_asked_again_later(influxdb: str, tmp_path: Path):
    sent = InfluxDBExporter(influxdb, version=1, database="absent", spool=tmp_path / "s")
    sent.export([fresh()])
    assert "answered 404: database not found" in (sent.kept.error or "")
    assert sent.kept.now == 1
    sent.close()


def test_influxdb_names_the_points_that_it_does_not_take(influxdb: str):
    get(f"{influxdb}/query", urlencode({"q": "CREATE DATABASE typed"}).encode())
    get(f"{influxdb}/write?db=typed", b"llm_request,outcome=complete chunks=1.5")
    sent = InfluxDBExporter(influxdb, version=1, database="typed")
    with pytest.raises(Exception, match=r"refused points \(400\): partial write: field type conflict"):
        sent.export([fresh()])
    sent.close()


def test_victoriametrics_takes_the_writes_of_version_2(victoria: str):
    record = fresh(prompt_tokens=125, completion_tokens=42, ttft_ms=38.5, model="a b,c=d")
    sent = InfluxDBExporter(victoria, version=2, org="o", database="llm")
    sent.export([record])
    sent.close()
    numbers = {name: getattr(record, name) for name in FIELDS if isinstance(getattr(record, name), int | float)}
    assert len(numbers) > 12
    found: dict[str, Any] = {}
    until = time.monotonic() + 20
    while not found.keys() >= {f"llm_request_{name}" for name in numbers} and time.monotonic() < until:
        get(f"{victoria}/internal/force_flush")
        query = urlencode({"match[]": '{__name__=~"llm_request_.*"}'})
        lines = get(f"{victoria}/api/v1/export?{query}").splitlines()
        found = {series["metric"].pop("__name__"): series for series in map(json.loads, lines)}
    # Every number; texts are none there, and are told as 0.
    assert {name: found[f"llm_request_{name}"]["values"] for name in numbers} == {
        name: [value] for name, value in numbers.items()
    }
    assert found["llm_request_prompt_tokens"]["timestamps"] == [int(record.time * 1000)]
    labels = found["llm_request_completion_tokens"]["metric"]
    assert {name: labels[name] for name in ("model", "outcome")} == {"model": "a b,c=d", "outcome": record.outcome}


def test_c6_a_gateways_points_are_what_the_upstream_reported(influxdb: str, tmp_path: Path):
    reply = Reply(text=("one ", "two ", "three"), usage=Counts(input=125, output=42, cached=2))
    with Upstream(reply) as upstream:
        config = {
            "upstreams": {"chat": {"url": upstream.url}},
            "telemetry": {"influxdb": {"url": influxdb, "version": 1, "database": "llm"}},
        }
        with serving(config, tmp_path) as gateway:
            asked = {}
            for model in ("whole", "fault:cut-after-2", "fault:status-503"):
                body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
                request = urllib.request.Request(
                    f"{gateway.url}/v1/chat/completions",
                    json.dumps(body).encode(),
                    {"content-type": "application/json"},
                )
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        answer.read()
                        asked[model] = answer.headers["x-request-id"]
                except urllib.error.HTTPError as error:
                    asked[model] = error.headers["x-request-id"]
    rows = {row["request_id"]: row for row in selected(influxdb)}
    whole, cut, refused = (rows[asked[model]] for model in asked)
    assert (whole["prompt_tokens"], whole["completion_tokens"], whole["cached_tokens"]) == (125, 42, 2)
    assert (whole["outcome"], whole["finish_reason"], whole["chunks"]) == ("complete", "stop", 3)
    assert (cut["outcome"], cut["error_type"], cut["prompt_tokens"], cut["chunks"]) == (
        "truncated", "truncated", None, 2
    )  # fmt: skip
    assert (refused["outcome"], refused["http_status"], refused["chunks"]) == ("upstream_error", 503, 0)
