"""Spans and metrics as a collector reads them, over HTTP and gRPC, by both sets of names; a collector that is away."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConfigError
from penstock.canon.trace import Trace
from penstock.telemetry.exporters.base import ExportFailed
from penstock.telemetry.exporters.opentelemetry import OpenTelemetryExporter
from penstock.telemetry.gen_ai import names_of, operation
from penstock.telemetry.record import AttemptRecord
from penstock.telemetry.tally import Tally
from tests.telemetry.collector import Collector, attributes, over_grpc, over_http
from tests.telemetry.script import Clock as ScriptClock
from tests.telemetry.script import example, new_call

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACE, PARENT, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


@pytest.fixture
def collected() -> Collector:
    return Collector()


@pytest.fixture
def http(collected: Collector) -> Iterator[str]:
    with over_http(collected) as endpoint:
        yield endpoint


@pytest.fixture
def grpc(collected: Collector) -> Iterator[str]:
    with over_grpc(collected) as endpoint:
        yield endpoint


RECORD = example(
    time=1_763_683_500.25,
    duration_ms=1200.0,
    ttft_ms=38.5,
    model_requested="fast",
    model="qwen3",
    provider="mistral",
    route="/v1/chat/completions",
    stream=True,
    outcome="complete",
    error_type=None,
    finish_reason="stop",
    prompt_tokens=125,
    completion_tokens=42,
    cached_tokens=5,
    reasoning_tokens=None,
    attempts=2,
    attempted=(AttemptRecord(target="a:m", status=503, cause="overloaded", wasted_ms=3.0), AttemptRecord(target="b:m")),
    trace_id=TRACE,
    span_id=SPAN,
    parent_span_id=PARENT,
    sampled=True,
)


def check_span(span: Any) -> None:
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert (span.name, span.kind) == ("chat fast", 3)
    assert span.start_time_unix_nano == 1_763_683_500_250_000_000
    assert span.end_time_unix_nano == 1_763_683_501_450_000_000
    told = attributes(span)
    assert told["gen_ai.provider.name"] == "mistral_ai"
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["gen_ai.response.time_to_first_chunk"] == 0.0385
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.cache_read.input_tokens"]) == (125, 5)
    assert "gen_ai.usage.reasoning.output_tokens" not in told, "unknown is left out"
    assert "error.type" not in told
    assert [attributes(event).get("penstock.attempt.cause") for event in span.events] == ["overloaded", None]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_call_is_a_span_and_numbers(protocol: Any, collected: Collector, request: pytest.FixtureRequest):
    endpoint = request.getfixturevalue(protocol)
    exporter = OpenTelemetryExporter(endpoint, protocol=protocol, version="1.2")
    exporter.export([RECORD])
    exporter.close()
    (span,) = collected.spans
    check_span(span)
    assert attributes(collected.traces[0].resource_spans[0].resource)["service.name"] == "penstock"
    numbers = collected.numbers
    (duration,) = numbers["gen_ai.client.operation.duration"]
    assert (duration.count, duration.sum) == (1, 1.2)
    assert duration.explicit_bounds[0] == 0.01
    assert {attributes(point)["gen_ai.token.type"]: point.sum for point in numbers["gen_ai.client.token.usage"]} == {
        "input": 125,
        "output": 42,
    }
    assert "gen_ai.client.inference.duration" not in numbers


@pytest.mark.parametrize(
    ("opt_in", "known", "new"),
    [
        (None, True, False),
        ("http", True, False),
        ("http,gen_ai_latest_experimental", False, True),
        ("gen_ai_latest_experimental/dup", True, True),
    ],
)
def test_both_sets_of_names(opt_in: str | None, known: bool, new: bool, http: str, collected: Collector):
    exporter = OpenTelemetryExporter(http, names=names_of(opt_in))
    exporter.export([RECORD])
    exporter.close()
    assert ("gen_ai.client.operation.time_to_first_chunk" in collected.numbers) is known
    assert ("gen_ai.client.inference.time_to_first_chunk" in collected.numbers) is new
    assert ("gen_ai.client.inference.usage.cache_read.input_tokens" in collected.numbers) is new


def test_a_failed_call_is_an_error_and_has_numbers(http: str, collected: Collector):
    exporter = OpenTelemetryExporter(http)
    exporter.export([example(outcome="timeout", error_type="timeout_idle", trace_id=TRACE, span_id=SPAN, sampled=True)])
    exporter.close()
    (span,) = collected.spans
    assert (span.status.code, span.status.message) == (2, "timeout_idle")
    assert attributes(span)["error.type"] == "timeout_idle"
    (duration,) = collected.numbers["gen_ai.client.operation.duration"]
    assert attributes(duration)["error.type"] == "timeout_idle"


def test_a_trace_that_is_not_sampled_has_numbers_and_no_span(http: str, collected: Collector):
    exporter = OpenTelemetryExporter(http)
    exporter.export([example(trace_id=TRACE, span_id=SPAN, sampled=False), example()])
    exporter.close()
    assert collected.spans == []
    assert collected.numbers["gen_ai.client.operation.duration"][0].count == 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_collector_that_is_away_is_a_sentence(protocol: Any):
    exporter = OpenTelemetryExporter("http://127.0.0.1:9", protocol=protocol)
    with pytest.raises(ExportFailed, match="took no spans"):
        exporter.export([RECORD])
    exporter.close()


class Clock:
    at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_collector_that_is_away_is_asked_now_and_then_and_costs_nothing_between():
    """And what was counted meanwhile is not lost."""
    collected, clock = Collector(), Clock()
    with over_http(collected) as endpoint:
        pass  # its port is nobody's now
    exporter = OpenTelemetryExporter(endpoint, now=clock)
    made: list[int] = []
    exporter.resume()
    sdk = exporter._opened()
    send = sdk.send
    sdk.send = lambda spans: made.append(len(spans)) or send(spans)  # type: ignore[func-returns-value,method-assign]
    for waited_s, tried in ((0.0, 1), (0.9, 1), (0.2, 2), (1.9, 2), (0.2, 3)):
        clock.at += waited_s
        with pytest.raises(ExportFailed, match="took no spans"):
            exporter.export([RECORD])
        assert len(made) == tried
    port = int(endpoint.rpartition(":")[2])
    with over_http(collected, port):
        clock.at += 4.1
        exporter.export([RECORD])
        exporter.close()
    assert len(collected.spans) == 1
    assert collected.numbers["gen_ai.client.operation.duration"][0].count == 6


def test_metrics_are_sent_each_minute(http: str, collected: Collector):
    clock = Clock()
    exporter = OpenTelemetryExporter(http, now=clock)
    assert exporter.resume() == 60.0
    exporter.export([example()])
    clock.at += 59.0
    assert exporter.resume() == 1.0
    assert collected.metrics == []
    clock.at += 1.0
    assert exporter.resume() == 60.0
    assert collected.numbers["gen_ai.client.operation.duration"][0].count == 1
    assert exporter.kept.error is None
    exporter.close()


def test_metrics_that_are_not_taken_are_a_state():
    clock = Clock()
    exporter = OpenTelemetryExporter("http://127.0.0.1:9", now=clock)
    exporter.resume()
    exporter.export([example()])
    clock.at += 60.0
    exporter.resume()
    assert exporter.kept.error == "The collector at http://127.0.0.1:9 took no metrics."
    exporter.close()


@pytest.mark.parametrize(("opt_in", "prefix"), [(None, "operation"), ("gen_ai_latest_experimental", "inference")])
def test_each_chunk_after_the_first_is_counted(opt_in: str | None, prefix: str, http: str, collected: Collector):
    exporter = OpenTelemetryExporter(http, names=names_of(opt_in))
    call = new_call(ScriptClock())
    call.trace = Trace(TRACE, SPAN)
    tally = Tally(call, concurrent=1)
    for gap_s in (0.015, 0.015, 0.5):
        tally.gaps.add(gap_s)
    exporter.ended(tally)
    exporter.export([RECORD, example(stream=True)])
    exporter.close()
    (point,) = collected.numbers[f"gen_ai.client.{prefix}.time_per_output_chunk"]
    assert (point.count, point.sum) == (3, pytest.approx(0.53))
    assert dict(zip(point.explicit_bounds, point.bucket_counts, strict=False))[0.02] == 2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[opentelemetry\]'"):
        OpenTelemetryExporter("http://127.0.0.1:4318")


def test_an_endpoint_that_is_none_is_said():
    with pytest.raises(ConfigError, match="is no URL of a collector"):
        OpenTelemetryExporter("127.0.0.1:4317")


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/api/embed", "embeddings"),
        ("/v1beta/models/m:streamGenerateContent", "generate_content"),
        (None, "chat"),
    ],
)
def test_operations(route: str | None, name: str):
    assert operation(route) == name
