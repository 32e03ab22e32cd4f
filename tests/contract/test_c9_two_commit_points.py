"""C9: before the headers a failure is a status; after them it is told in the stream, and nothing is said twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.contract.simulated import ERROR_FAULTS, WORDS, at_once, check_failed, each_form
from tests.upstreams import Answer, Gate, document, sse
from tests.wires import CHAT, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.contract.simulated import Pair as AnyPair
    from tests.gateways import Gateway
    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process


FIRST: dict[str, Callable[[Wire], Answer]] = {
    "nothing": lambda wire: sse(end="cut"),
    "an error frame": lambda wire: sse(wire.error("overloaded_error", "Too many cooks")),
    "a comment and an error frame": lambda wire: sse(
        b": working on it\n\n", 0.02, wire.error("overloaded_error", "Too many cooks")
    ),
    "an error right behind the opening": lambda wire: sse(
        b"".join([*wire.opening(), wire.error("overloaded_error", "Too many cooks")])
    ),
    "an error document with 200": lambda wire: document(wire.error_body("overloaded_error", "Too many cooks")),
    "a page": lambda wire: document(b"<!doctype html><p>Log in", content_type="text/html"),
    "garbage": lambda wire: sse(b"data: {]\n\n"),
}


@each_pair
@pytest.mark.parametrize("first", FIRST)
def test_c9_a_failure_before_the_stream_is_a_status(
    first: str, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(FIRST[first](pair.upstream))
    asked = gateway.ask(pair)
    body = asked.body()
    assert asked.status >= 500
    assert asked.headers["content-type"] == "application/json"
    (error,) = pair.client.read_document(body).errors
    if "error" in first:
        assert (error["type"], error["message"]) == ("overloaded_error", "Too many cooks")
    if pair.client is CHAT:
        assert set(error) >= {"message", "type", "param", "code"}
    else:
        assert json.loads(body)["request_id"] == asked.request_id
    assert gateway.record(asked.request_id)["http_status"] == asked.status


@each_pair
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
def test_c9_a_status_of_the_upstream_stays_one(status: int, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    body = pair.upstream.error_body("some_error", "Not today")
    upstream.answers(document(body, status=status, retry_after="3"))
    asked = gateway.ask(pair)
    (error,) = asked.said().errors
    assert (asked.status, error["message"], asked.headers["retry-after"]) == (status, "Not today", "3")


@each_pair
def test_c9_after_content_it_is_in_the_stream_and_nothing_is_repeated(
    pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    wire, gate = pair.upstream, Gate()
    upstream.answers(sse(*wire.opening(), wire.text("One "), gate, wire.error("overloaded_error", "Too many cooks")))
    asked = gateway.ask(pair)
    while b"One" not in asked.frame():
        pass
    gate.open()
    said = asked.said()
    assert (asked.status, said.text, said.terminators) == (200, "One ", 0)
    assert said.errors[0]["message"] == "Too many cooks"
    assert len(upstream.exchanges) == 1


@each_pair
@pytest.mark.parametrize("failure", ["a status", "a first error frame", "a cut"])
def test_c9_after_a_heartbeat_it_is_in_the_stream(
    failure: str, pair: Pair, upstream: Upstream, beating: Gateway
) -> None:
    """The headers have left with the heartbeat, long before the upstream said anything."""
    gate = Gate()
    body = pair.upstream.error_body("overloaded_error", "Too many cooks")
    upstream.answers(
        {
            "a status": Answer((body,), status=529, content_type="application/json", before=gate),
            "a first error frame": Answer((pair.upstream.error("overloaded_error", "Too many cooks"),), before=gate),
            "a cut": Answer(has_head=False, end="cut", before=gate),
        }[failure]
    )
    asked = beating.ask(pair)
    for _ in range(2):
        assert asked.frame() == heartbeat(pair.client)
    assert (asked.status, asked.headers["content-type"]) == (200, "text/event-stream")
    gate.open()
    said = asked.said()
    assert said.heartbeats >= 2
    (error,) = said.errors
    assert error["message"] == "Too many cooks" or failure == "a cut"
    assert (said.terminators, said.stops, said.text) == (0, [], "")
    record = beating.record(asked.request_id)
    assert (record["outcome"], record["http_status"]) == ("upstream_error", 200)
    assert record["heartbeats"] == said.heartbeats


def heartbeat(wire: Wire) -> bytes:
    return b": keep-alive\n\n" if wire is CHAT else b'event: ping\ndata: {"type": "ping"}\n\n'


@each_pair
def test_c9_heartbeats_fall_between_events_and_change_no_stream(
    pair: Pair, upstream: Upstream, beating: Gateway
) -> None:
    wire, gate = pair.upstream, Gate()
    upstream.answers(sse(*wire.opening(), wire.text("One "), gate, wire.text("two"), *wire.closing()))
    asked = beating.ask(pair)
    frames: list[bytes] = []
    while len(frames) < 3 or frames[-2:] != [heartbeat(pair.client)] * 2:
        frames.append(asked.frame())
    gate.open()
    said = asked.said()
    assert (said.text, said.terminators, said.errors) == ("One two", 1, [])
    assert said.heartbeats >= 2
    record = beating.record(asked.request_id)
    assert (record["outcome"], record["chunks"]) == ("complete", 2)
    assert record["heartbeats"] == said.heartbeats


@each_client
def test_c9_a_document_has_no_heartbeats(wire: Wire, upstream: Upstream, beating: Gateway) -> None:
    upstream.answers(Answer((wire.document(),), content_type="application/json", before=0.2))
    asked = beating.ask(Pair(wire, wire), stream=False)
    assert asked.body() == wire.document()
    assert beating.record(asked.request_id)["heartbeats"] == 0


# --- every form of client before every upstream -----------------------------------------------------------------------


#: what happens before the reply → the status
REFUSALS = {"status-400": 400, "status-429": 429, "status-503": 503, "no-answer": 502, "html": 502}


@each_form
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c9_in_every_pair_a_failure_before_the_stream_is_a_status(stream: bool, client: Client, bench: Bench) -> None:
    """In the client's dialect, whosever words they are."""

    def check(pair: AnyPair) -> None:
        for fault, told in [(fault, bench.tell(pair, fault, stream=stream)) for fault in REFUSALS]:
            assert (told.status, told.asked.headers["content-type"]) == (REFUSALS[fault], "application/json"), fault
            (error,) = told.said.errors
            assert error["message"]
            assert "retry-after" in told.asked.headers or fault not in ("status-429", "status-503")
            record = bench.record(told.model)
            assert (record["outcome"], record["http_status"]) == ("upstream_error", told.status)

    at_once(check, client)


@each_form
def test_c9_in_every_pair_what_fails_after_content_is_said_in_the_stream_and_not_repeated(
    client: Client, bench: Bench
) -> None:
    def check(pair: AnyPair) -> None:
        told = bench.tell(pair, f"{ERROR_FAULTS[pair.upstream]}-1")
        assert told.status == 200
        check_failed(told.said, WORDS[0])
        assert len(bench.seen(told.model)) == 1

    at_once(check, client)


@pytest.mark.parametrize("fault", ["status-503", "no-answer", "html"])
def test_c9_in_every_pair_what_fails_after_a_heartbeat_is_said_in_the_stream(fault: str, beating_bench: Bench) -> None:
    """Where the client's dialect has heartbeats. Ollama's has none: there it is a status, however late."""

    def check(pair: AnyPair) -> None:
        told = beating_bench.tell(pair, f"slow-head-175+{fault}")
        record = beating_bench.record(told.model)
        assert (record["outcome"], record["http_status"]) == ("upstream_error", told.status)
        if not pair.client.heartbeat:
            assert (told.status, len(told.said.errors)) == (REFUSALS[fault], 1)
            return
        assert told.status == 200
        check_failed(told.said, "")
        assert told.said.heartbeats >= 1
        assert told.said.heartbeats - record["heartbeats"] in (0, 1)  # one may be on its way when the failure comes

    at_once(check, is_timed=True)
