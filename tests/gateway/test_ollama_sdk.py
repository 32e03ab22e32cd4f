"""Ollama's SDK through a running gateway, before an upstream of each dialect: both paths, streamed and not.

What its streams of `/api/chat` hear is `test_every_pair.py`; here is the rest, and what comes of its own history.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import ollama
import pytest

from tests.gateway.upstream_wires import ARGUMENTS, PIECES, UPSTREAM_WIRES, USAGE
from tests.gateways import Gateway, serving
from tests.upstreams import Upstream, document

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

TEXT = "".join(PIECES)
ASKED: Any = [{"role": "user", "content": "Tell me"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}

each_upstream = pytest.mark.parametrize("name", UPSTREAM_WIRES)
#: `/api/generate` is asked of Ollama's own servers at its own path: their answer is another
each_other = pytest.mark.parametrize("name", [name for name in UPSTREAM_WIRES if name != "ollama"])


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstreams = {name: {"url": scripted.url(wire.mount), "dialect": name} for name, wire in UPSTREAM_WIRES.items()}
    config = {
        "upstreams": upstreams,
        "models": {f"from-{name}": f"{name}:real-1" for name in upstreams},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("ollama")) as running:
        yield running


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    assert scripted.errors == []


@pytest.fixture
def client(gateway: Gateway) -> Iterator[ollama.Client]:
    sdk = ollama.Client(host=gateway.url, timeout=10)
    yield sdk
    sdk._client.close()  # it has no way of its own


# --- chat -------------------------------------------------------------------------------------------------------------


@each_upstream
def test_a_chat_that_does_not_stream(name: str, upstream: Upstream, client: ollama.Client) -> None:
    upstream.answers(UPSTREAM_WIRES[name].text)
    reply = client.chat(f"from-{name}", ASKED)
    assert (reply.message.role, reply.message.content, reply.done, reply.done_reason) == (
        "assistant",
        TEXT,
        True,
        "stop",
    )
    assert (reply.prompt_eval_count, reply.eval_count) == USAGE
    assert reply.model == f"from-{name}"


@each_upstream
def test_a_chats_thought(name: str, upstream: Upstream, client: ollama.Client) -> None:
    upstream.answers(UPSTREAM_WIRES[name].thought)
    reply = client.chat(f"from-{name}", ASKED, think=True)
    assert (reply.message.thinking, reply.message.content) == ("Let me see.", TEXT)


@each_upstream
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_a_conversation_with_a_tool(name: str, stream: bool, upstream: Upstream, client: ollama.Client) -> None:
    """As the SDK's own examples go on: what it heard goes back, and the result by its tool's name."""
    upstream.answers(UPSTREAM_WIRES[name].tool)
    messages: list[Any] = list(ASKED)
    if stream:
        lines = list(client.chat(f"from-{name}", ASKED, tools=[TOOL], stream=True))
        messages += [line.message for line in lines if line.message.tool_calls]
    else:
        messages.append(client.chat(f"from-{name}", messages, tools=[TOOL]).message)
    (call,) = messages[-1].tool_calls
    assert (call.function.name, call.function.arguments) == ("look", ARGUMENTS)
    messages.append({"role": "tool", "tool_name": call.function.name, "content": "a horse"})
    upstream.answers(UPSTREAM_WIRES[name].text)
    assert client.chat(f"from-{name}", messages, tools=[TOOL]).message.content == TEXT
    body = json.loads(upstream.exchanges[-1].body)
    called, answered = CALL_AND_RESULT[name](body)
    assert called == answered


def _of_chat(body: Any) -> tuple[Any, Any]:
    return body["messages"][1]["tool_calls"][0]["id"], body["messages"][2]["tool_call_id"]


def _of_messages(body: Any) -> tuple[Any, Any]:
    return body["messages"][1]["content"][-1]["id"], body["messages"][2]["content"][0]["tool_use_id"]


def _of_responses(body: Any) -> tuple[Any, Any]:
    call, result = [item for item in body["input"] if item.get("type", "").startswith("function_call")]
    return call["call_id"], result["call_id"]


def _of_gemini(body: Any) -> tuple[Any, Any]:
    _, model, user = body["contents"]
    return model["parts"][-1]["functionCall"]["name"], user["parts"][0]["functionResponse"]["name"]


def _of_ollama(body: Any) -> tuple[Any, Any]:
    return body["messages"][1]["tool_calls"][0]["function"]["name"], body["messages"][2]["tool_name"]


#: dialect → what says, in its request, which call was made, and which was answered
CALL_AND_RESULT = {
    "openai-chat": _of_chat,
    "anthropic-messages": _of_messages,
    "openai-responses": _of_responses,
    "gemini": _of_gemini,
    "ollama": _of_ollama,
}


@each_upstream
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_a_refusal_is_its_error_with_the_status(
    name: str, stream: bool, upstream: Upstream, client: ollama.Client
) -> None:
    upstream.answers(UPSTREAM_WIRES[name].refusal)
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.chat(f"from-{name}", ASKED, stream=stream))  # type: ignore[call-overload]
    assert (caught.value.status_code, caught.value.error) == (429, "Too fast.")


@each_upstream
def test_a_failure_half_way_is_its_error(name: str, upstream: Upstream, client: ollama.Client) -> None:
    upstream.answers(UPSTREAM_WIRES[name].failure)
    heard: list[str] = []
    with pytest.raises(ollama.ResponseError) as caught:
        heard.extend(line.message.content or "" for line in client.chat(f"from-{name}", ASKED, stream=True))
    assert ("".join(heard), "It broke." in caught.value.error) == (TEXT, True)


@each_upstream
def test_its_other_client_waits_in_a_loop(name: str, gateway: Gateway, upstream: Upstream) -> None:
    async def heard() -> tuple[list[str], ollama.ChatResponse, list[str]]:
        sdk = ollama.AsyncClient(host=gateway.url, timeout=10)
        upstream.answers(UPSTREAM_WIRES[name].text)
        pieces = [line.message.content or "" async for line in await sdk.chat(f"from-{name}", ASKED, stream=True)]
        whole = await sdk.chat(f"from-{name}", ASKED)
        names = [model.model or "" for model in (await sdk.list()).models]
        await sdk._client.aclose()
        return pieces, whole, names

    pieces, whole, names = asyncio.run(heard())
    assert ("".join(pieces), whole.message.content) == (TEXT, TEXT)
    assert len([piece for piece in pieces if piece]) == len(PIECES)
    assert sorted(names) == sorted(f"from-{each}" for each in UPSTREAM_WIRES)


# --- generate ---------------------------------------------------------------------------------------------------------


@each_other
def test_a_prompt_is_streamed(name: str, upstream: Upstream, client: ollama.Client) -> None:
    upstream.answers(UPSTREAM_WIRES[name].thought)
    lines = list(client.generate(f"from-{name}", "Tell me", system="Be brief.", stream=True))
    assert [line.response for line in lines if line.response] == PIECES
    assert "".join(line.thinking or "" for line in lines) == "Let me see."
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert b"Be brief." in upstream.exchanges[-1].body


@each_other
def test_a_prompt_has_a_document(name: str, upstream: Upstream, client: ollama.Client) -> None:
    upstream.answers(UPSTREAM_WIRES[name].text)
    reply = client.generate(f"from-{name}", "Tell me")
    assert (reply.response, reply.done, reply.done_reason) == (TEXT, True, "stop")
    assert (reply.prompt_eval_count, reply.eval_count) == USAGE


def test_a_prompt_for_ollama_passes_as_it_is(upstream: Upstream, client: ollama.Client) -> None:
    told = b'{"model":"real-1","created_at":"2026-11-20T10:00:00Z","response":"Hi","done":true,"context":[1,2]}'
    upstream.answers(document(told))
    reply = client.generate("from-ollama", "Tell me", raw=True, context=[7])
    assert (reply.response, reply.context, reply.model) == ("Hi", [1, 2], "from-ollama")
    (exchange,) = upstream.exchanges
    asked = json.loads(exchange.body)
    assert (exchange.path, asked["model"]) == (UPSTREAM_WIRES["ollama"].mount + "/api/generate", "real-1")
    assert (asked["raw"], asked["context"]) == (True, [7])


def test_what_only_ollama_can_do_is_refused_elsewhere(upstream: Upstream, client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="`suffix`") as caught:
        client.generate("from-openai-chat", "def f(", suffix="return 1")
    assert (caught.value.status_code, upstream.exchanges) == (400, [])
