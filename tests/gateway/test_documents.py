"""C12, through a running gateway: an upstream that cannot stream, before the official SDK of each client dialect.

Straico is the case that never streams. What a proxy before it got wrong is here, test by test: heartbeats that were
content and changed the reply's id, a status that nobody looked at, an ending after an error, a second role chunk, calls
that nobody cancelled, questions that were paid for.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway.sdk_clients import CLIENTS, STOPS
from tests.gateways import Gateway, serving
from tests.upstreams import Answer, Gate, Upstream, sse
from tests.wires import CHAT, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gateways import Asked
    from tests.wires import Wire

pytestmark = pytest.mark.process

each_client = pytest.mark.parametrize("client", CLIENTS)

#: how long the upstream thinks: some heartbeats of 50 ms
THINKS_S = 0.2

PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:streamGenerateContent?alt=sse",
    "ollama": "/api/chat",
}
HI = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "openai-chat": {"messages": HI, "stream": True},
    "openai-responses": {"input": "Hi", "stream": True},
    "anthropic-messages": {"messages": HI, "stream": True, "max_tokens": 9},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "ollama": {"messages": HI},
}

#: the two that cannot stream: by their dialect, and by their owner's word
each_upstream = pytest.mark.parametrize("name", ["straico", "whole"])


def completion(text: str, *, calls: bool = False, **more: Any) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}
        message["tool_calls"] = [call]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    head = {"id": "chatcmpl-7", "object": "chat.completion", "created": 7, "model": "real-1"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return json.dumps({**head, "choices": [choice], "usage": usage, **more}).encode()


def told(name: str, text: str = "Hello you", *, calls: bool = False) -> bytes:
    """The reply, in the upstream's own form."""
    if name == "whole":
        return completion(text, calls=calls)
    if calls:
        text += '\n<tool_calls>[{"name": "look", "arguments": {"at": "sea"}}]</tool_calls>'
    paid = {"price": {"input": 1, "output": 2, "total": 3}, "words": {"input": 1, "output": 2, "total": 3}}
    return json.dumps({"success": True, "data": {"completion": json.loads(completion(text)), **paid}}).encode()


def thinking(body: bytes, before: Gate | float | None = THINKS_S, **more: Any) -> Answer:
    return Answer((body,), content_type="application/json", before=before, **more)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    assert scripted.errors == []


def configuration(scripted: Upstream, **more: Any) -> dict[str, Any]:
    return {
        "upstreams": {
            "straico": {"url": scripted.url("/v2"), "provider": "straico", "key_env": "CHAT_KEY"},
            "whole": {"url": scripted.url("/v1"), "capabilities": {"stream": False}},
            "plain": {"url": scripted.url("/v1")},
        },
        "models": {"straico": "straico:real-1", "whole": "whole:real-1", "plain": "plain:real-1", "*": "plain"},
        "heartbeat": {"interval": "50ms"},
        "retry": {"attempts": 1},
        "telemetry": {"store": {"path": None}},
        **more,
    }


@pytest.fixture(scope="module")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(configuration(scripted), tmp_path_factory.mktemp("documents")) as running:
        yield running


@pytest.fixture(scope="module")
def forced(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = configuration(scripted, streaming={"force_non_streaming": True})
    with serving(config, tmp_path_factory.mktemp("forced")) as running:
        yield running


@pytest.fixture(scope="module")
def unwilling(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = configuration(scripted, streaming={"fallback": False})
    with serving(config, tmp_path_factory.mktemp("unwilling")) as running:
        yield running


def ask(gateway: Gateway, client: str, model: str, wire: Wire = CHAT) -> Asked:
    path = PATHS[client].format(model=model)
    body = BODIES[client] if client == "gemini" else {"model": model, **BODIES[client]}
    return gateway.send("POST", path, json.dumps(body).encode(), wire=wire)


def known(gateway: Gateway) -> dict[tuple[str, str | None], dict[str, tuple[bool, str]]]:
    found = json.loads(gateway.send("GET", "/api/capabilities").body())["targets"]
    return {
        (each["upstream"], each["model"]): {
            name: (fact["value"], fact["source"]) for name, fact in each["capabilities"].items()
        }
        for each in found
    }


# --- a valid stream, for each client ---------------------------------------------------------------------------------


@each_upstream
@each_client
def test_c12_a_text(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(thinking(told(name)))
    heard = CLIENTS[client](gateway.url, name, False)
    assert heard.failed is None
    assert (heard.text, heard.stop, heard.usage) == ("Hello you", STOPS[client][0], (9, 2))
    (exchange,) = upstream.exchanges
    assert not json.loads(exchange.body).get("stream")
    assert "stream_options" not in json.loads(exchange.body)


@each_upstream
@each_client
def test_c12_a_tool_call(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(thinking(told(name, "I look.", calls=True)))
    heard = CLIENTS[client](gateway.url, name, True)
    assert heard.failed is None
    assert (heard.text, heard.calls, heard.stop) == ("I look.", [("look", {"at": "sea"})], STOPS[client][1])


@each_client
def test_c12_force_non_streaming_changes_nothing_that_a_client_sees(
    client: str, forced: Gateway, upstream: Upstream
) -> None:
    upstream.answers(thinking(completion("Hello you")))
    heard = CLIENTS[client](forced.url, "plain", False)
    assert (heard.failed, heard.text, heard.stop) == (None, "Hello you", STOPS[client][0])
    assert not json.loads(upstream.exchanges[0].body).get("stream")


@each_client
def test_c12_it_is_said_to_be_synthetic_as_soon_as_anything_is_said(
    client: str, gateway: Gateway, upstream: Upstream
) -> None:
    """With the first heartbeat, long before the reply; a client of Ollama's wire, which has none, with the reply."""
    gate = Gate()
    upstream.answers(thinking(told("straico"), gate))
    asked = ask(gateway, client, "straico")
    if client == "ollama":
        upstream.wait_for()
        gate.open()
    assert asked.headers.get("x-penstock-synthetic") == "true"
    gate.open()
    asked.body()
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["synthetic"], record["stream"]) == ("complete", True, True)
    assert (record["attempts"], record["heartbeats"] > 0) == (1, client != "ollama")


def test_c12_one_id_one_model_one_moment_one_role_and_heartbeats_that_are_none_of_it(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.answers(thinking(told("straico", "Hello\u200byou")))
    asked = ask(gateway, "openai-chat", "straico")
    body = asked.body()
    frames = body.decode().split("\n\n")[:-1]
    beats = [frame for frame in frames if frame.startswith(":")]
    assert len(beats) >= 2
    assert frames[: len(beats)] == beats, "all of them while it thought"
    *chunks, done = frames[len(beats) :]
    assert done == "data: [DONE]"
    found = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in found} == {
        ("chatcmpl-7", "straico", "chat.completion.chunk")
    }
    assert len({chunk["created"] for chunk in found}) == 1
    deltas = [choice["delta"] for chunk in found for choice in chunk["choices"]]
    assert ["role" in delta for delta in deltas].count(True) == 1
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello\u200byou", "what is said stays as it is"


def test_c12_anthropics_order_holds_with_pings_before_it(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(thinking(told("straico", "I look.", calls=True)))
    said = ask(gateway, "anthropic-messages", "straico", MESSAGES).said()
    names = [name for name, _ in said.frames]
    kept = [name for name in names if name != "ping"]
    assert len(names) - len(kept) >= 2
    assert (kept[0], kept[-1]) == ("message_start", "message_stop")
    assert kept.count("message_start") == kept.count("message_stop") == 1


# --- failures --------------------------------------------------------------------------------------------------------


REFUSALS = [
    (401, {"error": {"message": "Bad key.", "type": "authentication_error", "code": "invalid_api_key"}}),
    (429, {"error": {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}),
    (503, {"error": "Busy."}),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS, ids=[status for status, _ in REFUSALS])
@each_client
def test_c9_a_refusal_before_the_first_heartbeat_is_a_status(
    client: str, status: int, body: Any, gateway: Gateway, upstream: Upstream
) -> None:
    """The proxy did not look at it: a 401 became a JSON error in a stream of 200."""
    upstream.answers(thinking(json.dumps(body).encode(), None, status=status))
    asked = ask(gateway, client, "straico")
    assert asked.status == status
    asked.body()
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["http_status"]) == ("upstream_error", status)


@pytest.mark.parametrize("status", [429, 200], ids=["a status", "success: false"])
@each_client
def test_c4_a_failure_after_heartbeats_is_an_error_in_the_stream_and_nothing_follows(
    client: str, status: int, gateway: Gateway, upstream: Upstream
) -> None:
    gate = Gate()
    body = {"success": False, "error": "No coins."} if status == 200 else REFUSALS[1][1]
    upstream.answers(thinking(json.dumps(body).encode(), gate, status=status))
    asked = ask(gateway, client, "straico")
    if client != "ollama":
        assert asked.frame()
    upstream.wait_for()
    gate.open()
    text = asked.body().decode()
    assert ("No coins." if status == 200 else "Slow down.") in text
    assert not any(word in text for word in ("[DONE]", "message_stop", "response.completed", '"STOP"', '"done":true'))
    assert gateway.record(asked.request_id)["outcome"] == "upstream_error"


@pytest.mark.parametrize("end", ["cut", "reset"])
def test_c4_a_document_that_is_cut_is_no_reply(end: Any, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(Answer((told("straico")[:-30],), content_type="application/json", end=end))
    asked = ask(gateway, "openai-chat", "straico")
    assert asked.status == 502
    asked.body()
    assert gateway.record(asked.request_id)["outcome"] == "truncated"


def test_c7_a_client_that_leaves_while_it_thinks_cancels_what_it_would_have_paid_for(
    gateway: Gateway, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.answers(thinking(told("straico"), gate))
    asked = ask(gateway, "openai-chat", "straico")
    assert asked.frame().startswith(b":")
    request_id = asked.request_id
    asked.leave()
    assert upstream.wait_for().wait_over().closed_at is not None
    record = gateway.record(request_id)
    assert (record["outcome"], record["synthetic"]) == ("cancelled", False)
    gate.open()


# --- what is known ---------------------------------------------------------------------------------------------------


def test_c1_nobody_is_asked_for_the_sake_of_knowing(gateway: Gateway, upstream: Upstream) -> None:
    """Not at the start, and not by the first calls, which come all at once."""
    assert upstream.exchanges == []
    upstream.answers(thinking(completion("Hello you")))
    with ThreadPoolExecutor(10) as pool:
        heard = list(pool.map(lambda _: CLIENTS["openai-chat"](gateway.url, "at-once", False), range(10)))
    assert {each.text for each in heard} == {"Hello you"}
    assert len(upstream.exchanges) == 10
    assert all(exchange.headers.get("authorization") is None for exchange in upstream.exchanges)
    assert known(gateway)["plain", "at-once"] == {"stream": (False, "reply")}


def test_c12_what_is_known_can_be_seen(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(thinking(completion("Hello"), None))
    ask(gateway, "openai-chat", "seen").body()
    ask(gateway, "openai-chat", "seen").body()
    wire = CHAT
    upstream.answers(sse(*wire.opening(), wire.text("One"), *wire.closing()))
    ask(gateway, "openai-chat", "streaming").body()
    facts = known(gateway)
    assert facts["straico", None]["stream"] == (False, "configured"), "as the catalogue has it"
    assert facts["plain", "seen"] == {"stream": (False, "reply")}
    assert facts["plain", "streaming"] == {"stream": (True, "reply")}
    assert [json.loads(each.body)["stream"] for each in upstream.exchanges] == [True, False, True]


def test_c12_a_failed_call_teaches_nothing(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(thinking(b'{"error": {"message": "Broken."}}', None, status=500))
    assert ask(gateway, "openai-chat", "failing").status == 500
    assert ("plain", "failing") not in known(gateway)


def test_c1_a_refusal_that_names_a_member_is_one_more_attempt_on_the_record(
    gateway: Gateway, upstream: Upstream
) -> None:
    """As OpenAI's own models refuse `max_tokens`; a client of Anthropic's cannot leave it out."""

    def answer(exchange: Any) -> Answer:
        if "max_completion_tokens" in json.loads(exchange.body):
            return sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing())
        refusal = {"message": "No.", "type": "invalid_request_error", "param": "max_tokens"}
        return thinking(json.dumps({"error": {**refusal, "code": "unsupported_parameter"}}).encode(), None, status=400)

    upstream.answers(answer)
    for attempts in (2, 1):
        asked = ask(gateway, "anthropic-messages", "reasoning", MESSAGES)
        assert asked.said().text == "One"
        assert asked.headers["x-penstock-attempts"] == str(attempts)
        assert gateway.record(asked.request_id)["attempts"] == attempts
    assert known(gateway)["plain", "reasoning"]["max_tokens"] == (False, "refusal")


def test_without_fallback_a_stream_that_cannot_be_had_is_an_error(unwilling: Gateway, upstream: Upstream) -> None:
    upstream.answers(thinking(completion("Hello"), None))
    asked = ask(unwilling, "openai-chat", "plain")
    assert asked.status == 502
    assert "streaming.fallback" in json.loads(asked.body())["error"]["message"]
    for _ in range(2):
        asked = ask(unwilling, "openai-chat", "whole")
        assert (asked.status, json.loads(asked.body())["error"]["param"]) == (400, "stream")
    assert len(upstream.exchanges) == 1
    body = {"model": "whole", "messages": HI}
    assert unwilling.post(CHAT, body).said().text == "Hello"
