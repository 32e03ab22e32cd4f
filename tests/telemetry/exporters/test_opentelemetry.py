"""Spans and metrics as a collector reads them, over HTTP and gRPC, by both sets of names; a collector that is away."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConfigError
from penstock.telemetry.exporters.base import ExportFailed
from penstock.telemetry.exporters.opentelemetry import OpenTelemetryExporter, names_of, operation
from penstock.telemetry.record import AttemptRecord
from tests.telemetry.collector import Collector, attributes, over_grpc, over_http
from tests.telemetry.script import example

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
    assert operation(example(route=route)) == name
