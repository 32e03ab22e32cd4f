"""The library learns of servers as the gateway does, and remembers it for as long as its client lives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import penstock
from tests.gateway import frames
from tests.scripted_upstream import Exchange, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    yield upstream
    upstream.close()


def test_c12_what_one_call_learnt_the_next_one_knows(upstream: ScriptedUpstream) -> None:
    def script(exchange: Exchange) -> None:
        if "max_tokens" in json.loads(exchange.body):
            error = {"message": "No.", "param": "max_tokens", "code": "unsupported_parameter"}
            exchange.begin("application/json", "400 Bad Request")
            exchange.chunk(json.dumps({"error": error}).encode())
        else:
            exchange.begin()
            exchange.chunk(frames.whole("openai-chat", "Hello"))
        exchange.end()

    upstream.script = script
    client = penstock.Client(upstreams={"mine": upstream.url})
    attempts = [client.generate("mine:m", "Hi", max_tokens=9).attempts for _ in range(2)]
    assert attempts == [2, 1]
    asked = [json.loads(body) for body in upstream.executions]
    assert ["max_completion_tokens" in body for body in asked] == [False, True, True]


def test_c12_a_server_that_gives_documents_is_a_stream_to_read(upstream: ScriptedUpstream) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin("application/json")
        exchange.chunk(frames.document("openai-chat", "Hello"))
        exchange.end()

    upstream.script = script
    client = penstock.Client(upstreams={"mine": upstream.url})
    for _ in range(2):
        assert "".join(client.stream("mine:m", "Hi").text) == "Hello"
    assert [json.loads(body).get("stream", False) for body in upstream.executions] == [True, False]
