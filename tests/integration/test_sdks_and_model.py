"""The official SDKs get the same from a real model through the gateway as from the worker itself.

Four pairs: each client dialect, through a gateway that asks its upstream in each dialect. At temperature 0 and with a
seed the model's words are the same every time; ids are not compared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

if TYPE_CHECKING:
    from tests.processes import Running

pytestmark = pytest.mark.process

PROMPT = "Tell me a story"
TOOL_PROMPT = "What is the weather in Paris?"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": SCHEMA}}]
MESSAGES_TOOLS: Any = [{"name": "get_weather", "description": "d", "input_schema": SCHEMA}]


@pytest.fixture(params=["openai-chat", "anthropic-messages"])
def gateway(request: pytest.FixtureRequest, gateways: dict[str, Running]) -> Running:
    return gateways[request.param]


def chat_document(at: Running, prompt: str, **options: Any) -> tuple[Any, ...]:
    with openai.OpenAI(base_url=f"{at.url}/v1", api_key="any", max_retries=0) as client:
        reply = client.chat.completions.create(
            model="tiny",
            temperature=0,
            seed=1,
            max_tokens=200,
            messages=[{"role": "user", "content": prompt}],
            **options,
        )
    choice = reply.choices[0]
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
    assert reply.usage is not None
    return (
        choice.message.content or "",
        calls,
        choice.finish_reason,
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
    )


def chat_stream(at: Running, prompt: str, **options: Any) -> tuple[Any, ...]:
    text, finish, usage = "", None, None
    calls: dict[int, tuple[str, str]] = {}
    with openai.OpenAI(base_url=f"{at.url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tiny",
            temperature=0,
            seed=1,
            max_tokens=200,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    name, arguments = calls.get(call.index, ("", ""))
                    assert call.function is not None
                    calls[call.index] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
    assert usage is not None
    whole = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    return text, whole, finish, usage.prompt_tokens, usage.completion_tokens


def messages_reply(message: anthropic.types.Message) -> tuple[Any, ...]:
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    usage = message.usage
    prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return text, calls, message.stop_reason, prompt, usage.output_tokens


def messages_document(at: Running, prompt: str, **options: Any) -> tuple[Any, ...]:
    with anthropic.Anthropic(base_url=at.url, api_key="any", max_retries=0) as client:
        return messages_reply(
            client.messages.create(
                model="tiny",
                max_tokens=200,
                extra_body={"temperature": 0},
                extra_headers={"anthropic-version": "2023-06-01"},  # later ones have no temperature
                messages=[{"role": "user", "content": prompt}],
                **options,
            )
        )


def messages_stream(at: Running, prompt: str, **options: Any) -> tuple[Any, ...]:
    with (
        anthropic.Anthropic(base_url=at.url, api_key="any", max_retries=0) as client,
        client.messages.stream(
            model="tiny",
            max_tokens=200,
            extra_body={"temperature": 0},
            extra_headers={"anthropic-version": "2023-06-01"},  # later ones have no temperature
            messages=[{"role": "user", "content": prompt}],
            **options,
        ) as stream,
    ):
        return messages_reply(stream.get_final_message())


@pytest.mark.parametrize("ask", [chat_document, chat_stream])
def test_openai_sdk_text(ask: Any, worker: Running, gateway: Running) -> None:
    direct, through = ask(worker, PROMPT), ask(gateway, PROMPT)
    assert through == direct
    assert direct[0].startswith("Once upon a time")
    assert direct[2] == "stop"


@pytest.mark.parametrize("ask", [chat_document, chat_stream])
def test_openai_sdk_tools(ask: Any, worker: Running, gateway: Running) -> None:
    direct, through = ask(worker, TOOL_PROMPT, tools=CHAT_TOOLS), ask(gateway, TOOL_PROMPT, tools=CHAT_TOOLS)
    assert through == direct
    assert direct[1:3] == ([("get_weather", {"city": "Paris"})], "tool_calls")


@pytest.mark.parametrize("ask", [messages_document, messages_stream])
def test_anthropic_sdk_text(ask: Any, worker: Running, gateway: Running) -> None:
    direct, through = ask(worker, PROMPT), ask(gateway, PROMPT)
    assert through == direct
    assert direct[0].startswith("Once upon a time")
    assert direct[2] == "end_turn"


@pytest.mark.parametrize("ask", [messages_document, messages_stream])
def test_anthropic_sdk_tools(ask: Any, worker: Running, gateway: Running) -> None:
    direct, through = ask(worker, TOOL_PROMPT, tools=MESSAGES_TOOLS), ask(gateway, TOOL_PROMPT, tools=MESSAGES_TOOLS)
    assert through == direct
    assert direct[1:3] == ([("get_weather", {"city": "Paris"})], "tool_use")


def test_a_conversation_with_a_tool_result(worker: Running, gateway: Running) -> None:
    """Two turns: the call that the model made goes back with its result."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    history: Any = [
        {"role": "user", "content": TOOL_PROMPT},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18°C, light rain"},
    ]
    said = []
    for at in (worker, gateway):
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key="any", max_retries=0) as client:
            reply = client.chat.completions.create(
                model="tiny", temperature=0, max_tokens=100, messages=history, tools=CHAT_TOOLS
            )
            said.append((reply.choices[0].message.content, reply.choices[0].finish_reason))
    assert said[0] == said[1]
    assert "18°C, light rain" in (said[0][0] or "")


def test_sdk_error_class_for_a_prompt_over_the_context(gateways: dict[str, Running]) -> None:
    with (
        openai.OpenAI(base_url=f"{gateways['openai-chat'].url}/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 20_000}])
    assert caught.value.status_code == 400
    assert "context" in str(caught.value)


def test_the_record_has_the_servers_own_clock(gateways: dict[str, Running]) -> None:
    gateway = gateways["openai-chat"]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="tiny", max_tokens=200, messages=[{"role": "user", "content": PROMPT}]
        )
    usage = answer.parse().usage
    assert usage is not None
    prompt_tokens, completion_tokens = usage.prompt_tokens, usage.completion_tokens
    record = json.loads(gateway.wait_for_line(f'"{answer.headers["x-request-id"]}"'))
    assert record["outcome"] == "complete"
    assert record["finish_reason"] == "stop"
    assert (record["prompt_tokens"], record["completion_tokens"]) == (prompt_tokens, completion_tokens)
    assert record["timings_source"] == "server"
    assert record["generation_tps"] > 0
    assert record["context_total"] == 8192
    assert record["context_percent"] == pytest.approx(100 * (prompt_tokens + completion_tokens) / 8192)
