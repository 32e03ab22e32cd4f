"""A trace goes through the gateway: from the client, to the upstream, and to the collector."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest

from penstock.testing import Pace, Reply, Upstream
from tests.gateways import serving
from tests.telemetry.collector import Collector, attributes, over_http

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def ask(url: str, **headers: str) -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    given = {"content-type": "application/json", **headers}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), given)
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def test_a_clients_trace_reaches_the_upstream_and_the_collector(tmp_path: Path):
    collected = Collector()
    with Upstream(Reply(text="Hello")) as upstream, over_http(collected) as endpoint:
        config = {
            "upstreams": {"chat": {"url": upstream.url}},
            "telemetry": {"opentelemetry": {"endpoint": endpoint}},
        }
        with serving(config, tmp_path) as gateway:
            ask(gateway.url, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
            ask(gateway.url)
        stored = gateway.stored()  # all of it, once the gateway has ended
    ours, other = sorted(collected.spans, key=lambda span: span.trace_id.hex() != TRACE)
    assert (ours.trace_id.hex(), ours.parent_span_id.hex()) == (TRACE, PARENT)
    assert (other.parent_span_id, len(other.trace_id)) == (b"", 16)
    for span, seen in zip((ours, other), upstream.seen, strict=True):
        assert seen.headers["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
    assert upstream.seen[0].headers["tracestate"] == "vendor=1"
    assert "tracestate" not in upstream.seen[1].headers
    assert [row["trace_id"] for row in stored] == [span.trace_id.hex() for span in (ours, other)]


def test_without_a_collector_nothing_is_traced(tmp_path: Path):
    with Upstream(Reply(text="Hello")) as upstream:
        with serving({"upstreams": {"chat": {"url": upstream.url}}}, tmp_path) as gateway:
            ask(gateway.url, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert "traceparent" not in upstream.seen[0].headers


@pytest.mark.parametrize("wanted", [False, True])
def test_c13_what_was_asked_and_answered_is_on_a_span_only_where_its_owner_wants_it(wanted: bool, tmp_path: Path):
    collected = Collector()
    reply = Reply(text=("Ne", "ver ", "mind"), pace=Pace(fixed=0.05))
    with Upstream(reply) as upstream, over_http(collected) as endpoint:
        config = {
            "upstreams": {"chat": {"url": upstream.url}},
            "telemetry": {"opentelemetry": {"endpoint": endpoint, **({"content": True} if wanted else {})}},
        }
        with serving(config, tmp_path) as gateway:
            ask(gateway.url)
        stored = gateway.stored()
    (span,) = collected.spans
    told = attributes(span)
    assert ("gen_ai.input.messages" in told, "gen_ai.output.messages" in told) == (wanted, wanted)
    if wanted:
        (asked,), (answered,) = (json.loads(told[f"gen_ai.{way}.messages"]) for way in ("input", "output"))
        assert asked == {"role": "user", "parts": [{"type": "text", "content": "Hi"}]}
        assert answered["parts"] == [{"type": "text", "content": "Never mind"}]
    assert "Never" not in json.dumps(stored)
    (chunks,) = collected.numbers["gen_ai.client.operation.time_per_output_chunk"]
    assert chunks.count in (1, 2)  # a busy machine may read two at once
