"""A gateway that is full, before every client's dialect and every kind of call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Asked, Gateway, serving, until
from tests.upstreams import Answer, Exchange, Gate, Upstream, sse
from tests.wires import CHAT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

MESSAGES = [{"role": "user", "content": "Hi"}]
CONTENTS = [{"role": "user", "parts": [{"text": "Hi"}]}]

#: route → a request, and what its dialect says of a 429: where, and what
CALLS: dict[str, tuple[dict[str, Any], tuple[str, ...], Any]] = {
    "/v1/chat/completions": ({"model": "m", "messages": MESSAGES}, ("error", "code"), "rate_limit_exceeded"),
    "/v1/completions": ({"model": "m", "prompt": "Hi"}, ("error", "type"), "rate_limit_error"),
    "/v1/responses": ({"model": "m", "input": "Hi"}, ("error", "code"), "rate_limit_exceeded"),
    "/v1/messages": (
        {"model": "m", "messages": MESSAGES, "max_tokens": 9},
        ("error", "type"),
        "rate_limit_error",
    ),
    "/v1beta/models/m:generateContent": ({"contents": CONTENTS}, ("error", "status"), "RESOURCE_EXHAUSTED"),
    "/v1beta/models/m:streamGenerateContent?alt=sse": ({"contents": CONTENTS}, ("error", "code"), 429),
    "/api/chat": ({"model": "m", "messages": MESSAGES}, ("error",), None),
    "/api/generate": ({"model": "m", "prompt": "Hi"}, ("error",), None),
    "/v1/embeddings": ({"model": "m", "input": "Hi"}, ("error", "code"), "rate_limit_exceeded"),
    "/api/embed": ({"model": "m", "input": "Hi"}, ("error",), None),
    "/upstreams/chat/v1/anything": ({}, ("error", "type"), "rate_limit_error"),
}

#: route → a request for a stream
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "m", "prompt": "Hi", "stream": True},
    "/v1/responses": {"model": "m", "input": "Hi", "stream": True},
    "/v1beta/models/m:streamGenerateContent?alt=sse": {"contents": CONTENTS},
    "/v1beta/models/m:streamGenerateContent": {"contents": CONTENTS},
    "/api/chat": {"model": "m", "messages": MESSAGES},
}


class Upstreams:
    """Calls are held at `gate` while there is one."""

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self.server = Upstream()
        self.server.answers(self._answer)

    def _answer(self, exchange: Exchange) -> Answer:
        held = [self.gate] if self.gate is not None else []
        return sse(*CHAT.opening(), CHAT.text("One"), *held, *CHAT.closing())


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    made = Upstreams()
    yield made
    made.server.close()


def config(upstreams: Upstreams, **limits: Any) -> dict[str, Any]:
    entries = {"chat": {"url": upstreams.server.url("/v1")}}
    return {"upstreams": entries, "limits": limits, "heartbeat": {"interval": "50ms"}}


@pytest.fixture(scope="module")
def single(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(config(upstreams, concurrency=1), tmp_path_factory.mktemp("single")) as running:
        yield running


@pytest.fixture(scope="module")
def queueing(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(config(upstreams, concurrency=1, queue=1), tmp_path_factory.mktemp("queueing")) as running:
        yield running


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    Asked.close_all()


def held(gateway: Gateway, upstreams: Upstreams) -> tuple[Asked, Gate]:
    gate = upstreams.gate = Gate()
    asked = gateway.post(CHAT, CHAT.request("m"))
    while b"One" not in asked.frame():
        pass
    upstreams.gate = None
    return asked, gate


@pytest.mark.parametrize("route", CALLS)
def test_one_too_many_is_429_in_the_callers_dialect(route: str, single: Gateway, upstreams: Upstreams) -> None:
    request, where, what = CALLS[route]
    running, gate = held(single, upstreams)
    asked = single.send("POST", route, json.dumps(request).encode())
    assert (asked.status, int(asked.headers["retry-after"]) >= 1) == (429, True)
    told = json.loads(asked.body())
    assert "The gateway answers 1 call at the same time" in json.dumps(told)
    for step in where:
        told = told[step]
    assert told == what or what is None
    assert single.record(asked.request_id)["error_type"] == "saturated"
    gate.open()
    running.said()


@pytest.mark.parametrize("route", STREAMS)
def test_who_waits_in_line_gets_its_stream(route: str, queueing: Gateway, upstreams: Upstreams) -> None:
    """Where a dialect's streams have comments, they say meanwhile where it stands."""
    running, gate = held(queueing, upstreams)
    asked = queueing.send("POST", route, json.dumps(STREAMS[route]).encode())
    until(lambda: b'waiting{limit="whole",name=""} 1.0' in queueing.send("GET", "/metrics").body(), "one in line")
    if route not in ("/api/chat", "/v1beta/models/m:streamGenerateContent"):
        while b": queued, 1 of 1" not in asked.frame():
            pass
    gate.open()
    running.said()
    body = asked.body()
    assert asked.status == 200
    assert b"One" in body
    assert queueing.record(asked.request_id)["queued_ms"] >= 1
