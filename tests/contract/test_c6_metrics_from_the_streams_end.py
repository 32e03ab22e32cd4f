"""C6: one record per request, made at the stream's own end, with what was reported and nothing that was not."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.clients import CLIENTS
from tests.contract.simulated import ERROR_FAULTS, USAGE, at_once, each_form
from tests.contract.simulated import Pair as AnyPair
from tests.gateways import a_model, until
from tests.upstreams import Answer, Gate, Piece, document, sse
from tests.wires import CHAT, Pair, each_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.gateways import Gateway
    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process


def begun(wire: Wire) -> list[bytes]:
    return [*wire.opening(), wire.text("One "), wire.text("two")]


#: what the upstream does → (answer, outcome, error_type, http_status of a stream)
ENDINGS: dict[str, tuple[Callable[[Wire], Answer], str, str | None, int]] = {
    "complete": (lambda wire: sse(*begun(wire), *wire.closing()), "complete", None, 200),
    "a document": (lambda wire: document(wire.document()), "complete", None, 200),
    "cut": (lambda wire: sse(*begun(wire), 0.01, end="cut"), "truncated", "truncated", 200),
    "error": (
        lambda wire: sse(*begun(wire), 0.01, wire.error("api_error", "no")), "upstream_error", "streamed_error", 200
    ),
    "fault": (
        lambda wire: document(wire.error_body("api_error", "no"), status=500), "upstream_error", "server_fault", 500
    ),
    "rate limit": (
        lambda wire: document(wire.error_body("rate_limit_error", "no"), status=429),
        "upstream_error", "rate_limited", 429,
    ),
    "page": (lambda wire: document(b"<html>", content_type="text/html"), "upstream_error", "not_a_stream", 502),
    "malformed": (lambda wire: sse(*begun(wire), 0.01, b"data: {]\n\n"), "upstream_error", "malformed_frame", 200),
}  # fmt: skip


@each_pair
@pytest.mark.parametrize("ending", ENDINGS)
def test_c6_every_ending_leaves_one_record(ending: str, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    answer, outcome, error_type, status = ENDINGS[ending]
    upstream.answers(answer(pair.upstream))
    model = a_model(pair)
    asked = gateway.ask(pair, model=model)
    body = asked.body()
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"], record["http_status"]) == (outcome, error_type, status)
    assert asked.status == status
    assert (record["dialect_in"], record["dialect_out"]) == (pair.client.name, pair.upstream.name)
    assert (record["route"], record["stream"], record["attempts"]) == (pair.client.route, True, 1)
    assert (record["model_requested"], record["target"].partition(":")[0]) == (model, pair.upstream.mount[1:5])
    assert record["synthetic"] == (ending == "a document")
    assert record["duration_ms"] > 0
    if status == 200:
        assert record["bytes_out"] == len(body)
        assert 0 < record["ttfb_ms"] <= record["ttft_ms"] <= record["duration_ms"]
        assert record["chunks"] == (1 if ending == "a document" else 2)
        assert record["model"] == "real-1"
    rows = until(lambda: [row for row in gateway.stored() if row["request_id"] == asked.request_id])
    assert len(rows) == 1
    assert len([line for line in gateway.records() if line["model_requested"] == model]) == 1


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c6_usage_that_comes_after_the_finish_counts(
    stream: bool, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    """The client is told as well, and in its own dialect."""
    wire = pair.upstream
    upstream.answers(sse(*begun(wire), *wire.closing((123, 45))))
    asked = gateway.ask(pair, stream=stream)
    assert asked.said().usage == (123, 45)
    record = gateway.record(asked.request_id)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (123, 45)
    assert (record["usage_source"], record["context_used"]) == ("reported", 168)


@each_pair
def test_c6_usage_that_the_client_did_not_ask_for_is_on_the_record(
    pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    """Gateways that do not ask for it themselves meter nothing."""
    upstream.answers(sse(*begun(pair.upstream), *pair.upstream.closing((123, 45))))
    asked = gateway.ask(pair, stream_options=None) if pair.client is CHAT else gateway.ask(pair)
    said = asked.said()
    assert said.usage == (None if pair.client is CHAT else (123, 45))
    assert gateway.record(asked.request_id)["prompt_tokens"] == 123
    if pair.upstream is CHAT:
        assert json.loads(upstream.wait_for().body).get("stream_options") == {"include_usage": True}


@each_pair
def test_c6_what_nobody_reported_is_null(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    unknown = [
        "cached_tokens",
        "reasoning_tokens",
        "prompt_tps",
        "context_total",
        "context_percent",
        "cost",
        "key_name",
    ]
    if pair.upstream is CHAT:
        unknown += ["prompt_tokens", "completion_tokens", "usage_source", "context_used", "generation_tps"]
    upstream.answers(sse(*begun(pair.upstream), *pair.upstream.closing(usage=None)))
    asked = gateway.ask(pair)
    asked.body()
    record = gateway.record(asked.request_id)
    assert record["outcome"] == "complete"
    assert {name: record[name] for name in unknown} == dict.fromkeys(unknown)


@each_pair
def test_c6_usage_of_a_stream_that_broke_is_what_had_been_reported(
    pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    wire = pair.upstream
    upstream.answers(sse(*begun(wire), wire.usage((123, 45)), end="cut"))
    asked = gateway.ask(pair)
    asked.body()
    record = gateway.record(asked.request_id)
    assert record["outcome"] == "truncated"
    assert (record["prompt_tokens"], record["completion_tokens"]) == (123, 45)


@each_pair
def test_c6_moments_are_those_of_the_network_reads(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    wire = pair.upstream
    slow: list[Piece] = [0.08, wire.text("One "), 0.15, wire.text("two ")]
    upstream.answers(sse(*wire.opening(), *slow, *wire.closing((9, 3))))
    asked = gateway.ask(pair)
    asked.body()
    record = gateway.record(asked.request_id)
    # Each pause less what a read may have come late, on a machine that does other things as well.
    assert record["ttfb_ms"] + 40 <= record["ttft_ms"]
    assert record["itl_max_ms"] >= 100
    assert record["ttft_ms"] + record["itl_max_ms"] <= record["duration_ms"] + 1
    # Two tokens came after the first content: nobody's clock but ours, over the time that they took.
    assert record["timings_source"] == "client"
    assert record["generation_tps"] == pytest.approx(2000 / record["itl_max_ms"], rel=0.01)


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c6_a_client_that_left_is_on_the_record(stream: bool, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    gate = Gate()
    upstream.answers(sse(*begun(pair.upstream), gate, *pair.upstream.closing()))
    model = a_model(pair)
    asked = gateway.ask(pair, stream=stream, model=model)
    gate.wait_reached()
    gateway.pass_through()
    asked.leave()
    record = gateway.record_of(model)
    assert (record["outcome"], record["chunks"]) == ("cancelled", 2 if stream else record["chunks"])
    rows: list[Any] = until(lambda: [row for row in gateway.stored() if row["model_requested"] == model])
    assert len(rows) == 1


@each_pair
def test_c6_calls_in_flight_are_counted(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    gates: list[Gate] = []

    def choose(exchange: object) -> Answer:
        gates.append(Gate())
        return sse(*begun(pair.upstream), gates[-1], *pair.upstream.closing())

    upstream.answers(choose)
    all_asked = []
    for number in (1, 2, 3):
        all_asked.append(gateway.ask(pair))
        assert all_asked[-1].status == 200
        upstream.wait_for(number)
    for gate in gates:
        gate.open()
    ids = []
    for asked in all_asked:
        asked.body()
        ids.append(asked.request_id)
    assert [gateway.record(one)["concurrent"] for one in ids] == [1, 2, 3]


@each_form
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c6_every_client_that_left_before_an_answer_is_on_the_record(
    stream: bool, client: Client, bench: Bench
) -> None:
    pair = AnyPair(client, client.dialect)
    model = bench.model(pair.upstream, "silent")
    asked = bench.ask(pair, model, stream=stream)
    bench.wait_seen(model)
    asked.leave()
    record = bench.record(model)
    assert (record["outcome"], record["attempts"], record["chunks"]) == ("cancelled", 1, 0)
    assert (record["prompt_tokens"], record["ttfb_ms"], record["ttft_ms"]) == (None, None, None)
    assert bench.records(model) == 1


def test_c6_a_record_is_made_at_the_streams_end_and_not_later(bench: Bench) -> None:
    """Its duration is less than what the client saw of it, and it is written when the client has the last byte: in the
    best of three rounds, within what records wait for each other."""
    pair = AnyPair(CLIENTS[0], "openai-chat")
    took_s = []
    for _ in range(3):
        told = bench.tell(pair)
        ended_at = time.monotonic()
        record = bench.record(told.model)
        took_s.append(time.monotonic() - ended_at)
        assert 0 < record["duration_ms"] < told.took_s * 1000
        if took_s[-1] < 0.3:
            break
    assert min(took_s) < 0.3, took_s


# --- every form of client before every upstream -----------------------------------------------------------------------


@each_form
def test_c6_every_pair_leaves_one_record_of_what_was_reported(client: Client, bench: Bench) -> None:
    """The usage, wherever in the reply it stood; null where nobody told it; one record per request and ending."""

    def check(pair: AnyPair) -> None:
        faults = ("", "usage-never", f"{ERROR_FAULTS[pair.upstream]}-2", "status-429")
        asked = [
            (fault, stream, bench.tell(pair, fault, stream=stream)) for fault in faults for stream in (True, False)
        ]
        for fault, stream, told in asked:
            record = bench.record(told.model)
            assert (record["dialect_in"], record["dialect_out"]) == (pair.client.dialect, pair.upstream)
            assert (record["stream"], record["http_status"]) == (stream, told.status)
            assert bench.records(told.model) == 1
            if fault == "":
                assert (record["prompt_tokens"], record["completion_tokens"]) == USAGE
                assert (record["usage_source"], record["outcome"]) == ("reported", "complete")
                assert told.said.usage == USAGE
            elif fault == "usage-never":
                assert (record["prompt_tokens"], record["completion_tokens"]) == (None, None)
                assert (record["usage_source"], record["context_used"]) == (None, None)

    at_once(check, client)
