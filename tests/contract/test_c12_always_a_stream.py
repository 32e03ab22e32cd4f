"""C12: who asks for a stream gets a valid one, whatever the upstream can do; who asks for a document gets that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.simulated import USAGE, at_once, each_form
from tests.contract.simulated import check_whole as check_told
from tests.gateways import a_model
from tests.upstreams import Answer, Gate, document, sse
from tests.wires import CHAT, STOPPED, each_pair

if TYPE_CHECKING:
    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.contract.simulated import Pair as AnyPair
    from tests.gateways import Gateway
    from tests.upstreams import Upstream
    from tests.wires import Pair

pytestmark = pytest.mark.process

CALLED = {"openai-chat": "tool_calls", "anthropic-messages": "tool_use"}


def check_order(pair: Pair, frames: list[tuple[str | None, Any]]) -> None:
    """A stream that strict clients take: opened, filled and closed in the wire's own order."""
    if pair.client is CHAT:
        assert frames[-1][1] == "[DONE]"
        assert frames[0][1]["choices"][0]["delta"]["role"] == "assistant"
        assert {chunk["object"] for _, chunk in frames[:-1]} == {"chat.completion.chunk"}
        return
    names = [name for name, _ in frames if name != "ping"]
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    open_block = None
    for name, data in frames:
        if name == "content_block_start":
            assert open_block is None
            open_block = data["index"]
        elif name in ("content_block_delta", "content_block_stop"):
            assert data["index"] == open_block
            open_block = None if name == "content_block_stop" else open_block
    assert open_block is None


@each_pair
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain", None])
def test_c12_a_document_becomes_a_stream(
    content_type: str | None, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(Answer((pair.upstream.document("Hello you"),), content_type=content_type))
    asked = gateway.ask(pair, model=a_model(pair))
    said = asked.said()
    assert asked.headers["content-type"] == "text/event-stream"
    assert asked.headers.get("x-penstock-synthetic") == "true"
    assert (said.text, said.usage, said.terminators, said.errors) == ("Hello you", (9, 2), 1, [])
    assert said.stops == [STOPPED[pair.client.name]]
    check_order(pair, said.frames)
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["synthetic"], record["prompt_tokens"]) == ("complete", True, 9)


@each_pair
def test_c12_a_document_with_a_call_becomes_a_stream(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(document(pair.upstream.document(calls=True)))
    said = gateway.ask(pair, model=a_model(pair)).said()
    ((name, arguments),) = said.calls
    assert (name, json.loads(arguments)) == ("look", {"at": "sea"})
    assert said.stops == [CALLED[pair.client.name]]
    check_order(pair, said.frames)


@each_pair
def test_c12_a_stream_becomes_a_document_for_who_asked_for_one(
    pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    wire = pair.upstream
    calls = wire.call("look", ['{"at":', ' "sea"}'])
    upstream.answers(sse(*wire.opening(), wire.text("One "), *calls, *wire.closing((9, 7), stop="tool_calls")))
    asked = gateway.ask(pair, stream=False)
    said = asked.said()
    assert asked.headers["content-type"] == "application/json"
    assert (said.text, said.usage, said.stops) == ("One ", (9, 7), [CALLED[pair.client.name]])
    ((name, arguments),) = said.calls
    assert (name, json.loads(arguments)) == ("look", {"at": "sea"})
    assert "x-penstock-synthetic" not in asked.headers
    assert gateway.record(asked.request_id)["synthetic"] is False


@each_pair
def test_c12_heartbeats_fill_the_time_in_which_the_upstream_thinks(
    pair: Pair, upstream: Upstream, beating: Gateway
) -> None:
    gate = Gate()
    upstream.answers(Answer((pair.upstream.document("Hello"),), content_type="application/json", before=gate))
    asked = beating.ask(pair, model=a_model(pair))
    for _ in range(2):
        asked.frame()
    gate.open()
    said = asked.said()
    assert said.heartbeats >= 2
    assert (said.text, said.terminators, said.errors) == ("Hello", 1, [])
    check_order(pair, [frame for frame in said.frames if frame[0] not in ("ping", ":")])
    assert beating.record(asked.request_id)["synthetic"] is True


@each_pair
def test_c12_a_stream_that_is_one_is_not_called_synthetic(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    wire = pair.upstream
    upstream.answers(sse(*wire.opening(), wire.text("One"), *wire.closing()))
    asked = gateway.ask(pair)
    asked.body()
    assert "x-penstock-synthetic" not in asked.headers
    assert gateway.record(asked.request_id)["synthetic"] is False


# --- every form of client before every upstream -----------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("kind", ["text", "call"])
def test_c12_in_every_pair_a_document_becomes_a_stream(kind: str, client: Client, bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        said = kind if pair.can(kind) else "text"
        told = bench.tell(pair, "json", said)
        check_told(pair, told, said)
        assert told.said.terminators == 1
        assert told.asked.headers.get("x-penstock-synthetic") == "true"
        record = bench.record(told.model)
        assert (record["outcome"], record["synthetic"]) == ("complete", True)
        assert record["finish_reason"] == ("tool_calls" if said == "call" else "stop")

    at_once(check, client)


@each_form
@pytest.mark.parametrize("kind", ["text", "call"])
def test_c12_in_every_pair_a_stream_becomes_a_document(kind: str, client: Client, bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        said = kind if pair.can(kind) else "text"
        told = bench.tell(pair, "sse", said, stream=False)
        # Nobody asks for usage in a document: a stream of OpenAI's that comes instead has none.
        has_usage = pair.upstream not in ("openai-chat", "openai-completions")
        check_told(pair, told, said, usage=USAGE if has_usage else told.said.usage)
        assert "x-penstock-synthetic" not in told.asked.headers
        assert bench.record(told.model)["synthetic"] is False

    at_once(check, client)


def test_c12_in_every_pair_heartbeats_fill_the_time_in_which_the_upstream_thinks(beating_bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        told = beating_bench.tell(pair, "slow-head-175+json", "text")
        check_told(pair, told, "text")
        assert told.said.heartbeats >= (1 if pair.client.heartbeat else 0)
        assert beating_bench.record(told.model)["synthetic"] is True

    at_once(check, is_timed=True)
