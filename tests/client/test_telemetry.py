"""A client's calls as OpenTelemetry spans and numbers, as a collector reads them; and its embeddings, told of alike."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import penstock
from penstock.telemetry.bus import Bus
from penstock.telemetry.exporters.opentelemetry import OpenTelemetryExporter
from penstock.telemetry.exporters.sqlite import SqliteExporter
from penstock.testing import Pace, Reply, Upstream
from tests.client.simulated import MODEL, TEXT, client_of
from tests.telemetry.collector import Collector, attributes, over_http

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.telemetry.record import CallRecord

#: the program's own spans; nobody collects them here
own = TracerProvider().get_tracer("program")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text=TEXT)) as upstream:
        yield upstream


@pytest.fixture
def collected() -> Collector:
    return Collector()


@pytest.fixture
def exporter(collected: Collector) -> Iterator[OpenTelemetryExporter]:
    with over_http(collected) as endpoint:
        yield OpenTelemetryExporter(endpoint)


def test_a_stream_is_a_span_and_numbers(
    upstream: Upstream, collected: Collector, exporter: OpenTelemetryExporter
) -> None:
    with client_of(upstream, telemetry=exporter) as client, client.stream(MODEL, "Hi") as stream:
        usage = stream.response.usage
    (span,) = collected.spans
    assert usage is not None
    assert (span.name, span.kind, span.parent_span_id) == ("chat m", 3, b"")
    told = attributes(span)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "sim"
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("m", "m")
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (usage.input, usage.output)
    assert 0 < told["gen_ai.response.time_to_first_chunk"] * 1e9 <= span.end_time_unix_nano - span.start_time_unix_nano
    assert upstream.seen[0].headers["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
    assert [point.count for point in collected.numbers["gen_ai.client.operation.duration"]] == [1]
    assert not any(TEXT in str(value) for value in told.values())


@pytest.mark.parametrize("is_async", [False, True])
def test_it_is_a_child_of_the_span_that_the_program_is_in(
    is_async: bool, upstream: Upstream, collected: Collector, exporter: OpenTelemetryExporter
) -> None:
    async def both(client: penstock.Client) -> None:
        async with client:
            await asyncio.gather(client.agenerate(MODEL, "Hi"), client.agenerate(MODEL, "Hi"))

    with own.start_as_current_span("answer") as parent:
        client = client_of(upstream, telemetry=exporter)
        if is_async:
            asyncio.run(both(client))
        else:
            with client:
                client.generate(MODEL, "Hi")
                client.generate(MODEL, "Hi")
    context = parent.get_span_context()
    assert {int.from_bytes(span.trace_id) for span in collected.spans} == {context.trace_id}
    assert {int.from_bytes(span.parent_span_id) for span in collected.spans} == {context.span_id}
    assert len({span.span_id for span in collected.spans}) == 2


def test_a_call_that_fails_is_an_error_with_every_attempt(
    upstream: Upstream, collected: Collector, exporter: OpenTelemetryExporter
) -> None:
    upstream.says(Reply(faults=("status-500",)))
    with client_of(upstream, telemetry=exporter) as client, pytest.raises(penstock.NoTargetLeft):
        client.generate([MODEL, "sim:n"], "Hi")
    (span,) = collected.spans
    assert (span.status.code, attributes(span)["error.type"]) == (2, "no_target_left")
    assert [attributes(event)["penstock.attempt.target"] for event in span.events] == ["sim:m", "sim:n"]


def test_embeddings_are_spans_of_their_own(
    upstream: Upstream, collected: Collector, exporter: OpenTelemetryExporter
) -> None:
    with client_of(upstream, telemetry=exporter) as client:
        client.embed(MODEL, ["a b", "c"], batch_size=1)
    assert [span.name for span in collected.spans] == ["embeddings m"] * 2
    assert sorted(attributes(span)["gen_ai.usage.input_tokens"] for span in collected.spans) == [1, 2]
    assert "gen_ai.usage.output_tokens" not in attributes(collected.spans[0])
    told = {seen.headers["traceparent"].split("-")[2] for seen in upstream.seen}
    assert told == {span.span_id.hex() for span in collected.spans}


def test_another_librarys_stream_is_a_span(collected: Collector, exporter: OpenTelemetryExporter) -> None:
    chunks = [{"content": "Hi", "model": "their-model"}, {"content": "!", "finish_reason": "stop"}]
    bus = Bus([exporter])
    assert penstock.Client(telemetry=bus).adapt(chunks, provider="theirs").response.text == "Hi!"
    assert bus.close()
    (span,) = collected.spans
    assert (span.name, attributes(span)["gen_ai.provider.name"]) == ("chat their-model", "theirs")
    assert "gen_ai.request.model" not in attributes(span)


def test_the_service_is_called_as_the_program_says(
    upstream: Upstream, collected: Collector, exporter: OpenTelemetryExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "story-teller")
    with client_of(upstream, telemetry=exporter) as client:
        client.generate(MODEL, "Hi")
    assert attributes(collected.traces[0].resource_spans[0].resource)["service.name"] == "story-teller"


def test_without_an_exporter_of_spans_no_upstream_is_told_of_a_trace(upstream: Upstream, tmp_path: Path) -> None:
    with own.start_as_current_span("answer"), client_of(upstream, telemetry=SqliteExporter(tmp_path / "db")) as client:
        client.generate(MODEL, "Hi")
    assert "traceparent" not in upstream.seen[0].headers


# --- embeddings and hooks ---------------------------------------------------------------------------------------------


def test_c6_every_portion_of_texts_is_told_to_the_hooks_and_has_a_record(upstream: Upstream) -> None:
    told: list[Any] = []
    records: list[CallRecord] = []
    hooks = penstock.Hooks(on_request=told.append, on_response=told.append, on_end=told.append)

    class Kept:
        name = "kept"

        def export(self, given: list[CallRecord]) -> None:
            records.extend(given)

        def close(self) -> None: ...

    with client_of(upstream, hooks=hooks, telemetry=Kept()) as client:
        found = client.embed(MODEL, ["a", "b", "c"], batch_size=2, concurrency=1)
    sent, started, end, *again = told
    assert (sent.target, sent.request.inputs) == ("sim:m", ("a", "b"))
    assert (started.status, started.synthetic) == (200, False)
    assert {sent.request_id, started.request_id, end.request_id} == {records[0].request_id}
    assert (end.error, end.record.outcome, end.response.usage.input) == (None, "complete", 2)
    assert [type(each).__name__ for each in again] == ["RequestSent", "ResponseStarted", "StreamEnd"]
    assert [(record.route, record.stream, record.prompt_tokens) for record in records] == [
        ("embed", False, 2),
        ("embed", False, 1),
    ]
    assert len(found.vectors) == 3


def test_c6_embeddings_that_fail_have_one_end(upstream: Upstream) -> None:
    ends: list[Any] = []
    client = penstock.Client(hooks=penstock.Hooks(on_end=ends.append))
    with pytest.raises(penstock.StatusError) as caught:
        client.embed(MODEL, "a", base_url=f"{upstream.root}/nowhere", dialect="cohere")
    (end,) = ends
    assert (end.error, end.record.outcome, end.record.attempted[0].status) == (caught.value, "upstream_error", 404)


def test_the_time_of_each_chunk_is_counted(collected: Collector, exporter: OpenTelemetryExporter) -> None:
    reply = Reply(text=("a", "b", "c"), pace=Pace(fixed=0.05))
    with (
        Upstream(reply) as upstream,
        client_of(upstream, telemetry=exporter) as client,
        client.stream(MODEL, "Hi") as stream,
    ):
        assert stream.response.text == "abc"
    (chunks,) = collected.numbers["gen_ai.client.operation.time_per_output_chunk"]
    assert chunks.count in (1, 2)  # a busy machine may read two at once
    assert chunks.sum >= 0.04
