"""The official SDK of each client dialect, asked for one turn: what it makes of the stream that it gets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import openai
from google import genai
from google.genai import types as gemini

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
TIMEOUT_S = 15


@dataclass
class Heard:
    """`usage` is prompt and completion tokens. `failed` is what the SDK raised, or said, instead of an end."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    stop: str | None = None
    usage: tuple[int | None, int | None] | None = None
    failed: Exception | str | None = None


def chat(url: str, model: str, tools: bool) -> Heard:
    heard = Heard()
    given: Any = {"tools": [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]} if tools else {}
    calls: dict[int, list[str]] = {}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=TIMEOUT_S) as client:
        try:
            for chunk in client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Tell me"}],
                stream=True,
                stream_options={"include_usage": True},
                **given,
            ):
                if chunk.usage is not None:
                    heard.usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                for choice in chunk.choices:
                    heard.text += choice.delta.content or ""
                    heard.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                    heard.stop = choice.finish_reason or heard.stop
                    for call in choice.delta.tool_calls or ():
                        assert call.function is not None
                        held = calls.setdefault(call.index, ["", ""])
                        held[0] += call.function.name or ""
                        held[1] += call.function.arguments or ""
        except openai.OpenAIError as error:
            heard.failed = error
    heard.calls = [(name, json.loads(raw)) for name, raw in calls.values()] if heard.failed is None else []
    return heard


def responses(url: str, model: str, tools: bool) -> Heard:
    heard = Heard()
    given: Any = {"tools": [{"type": "function", "name": "look", "parameters": SCHEMA}]} if tools else {}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=TIMEOUT_S) as client:
        try:
            numbers = []
            with client.responses.stream(model=model, input="Tell me", **given) as stream:
                for event in stream:
                    numbers.append(event.sequence_number)
                    if event.type == "response.output_text.delta":
                        heard.text += event.delta
                    elif event.type in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
                        heard.reasoning += event.delta
                    elif event.type in ("response.failed", "error"):
                        heard.failed = event.type
                if heard.failed is None:
                    done = stream.get_final_response()
                    heard.stop = done.status
                    heard.calls = [
                        (item.name, json.loads(item.arguments)) for item in done.output if item.type == "function_call"
                    ]
                    if done.usage is not None:
                        heard.usage = (done.usage.input_tokens, done.usage.output_tokens)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        except (openai.OpenAIError, RuntimeError) as error:
            heard.failed = error
    return heard


def messages(url: str, model: str, tools: bool) -> Heard:
    heard = Heard()
    given: Any = {"tools": [{"name": "look", "input_schema": SCHEMA}]} if tools else {}
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, timeout=TIMEOUT_S) as client:
        try:
            with client.messages.stream(
                model=model, max_tokens=100, messages=[{"role": "user", "content": "Tell me"}], **given
            ) as stream:
                for event in stream:
                    if event.type == "content_block_delta" and event.delta.type == "text_delta":
                        heard.text += event.delta.text
                done = stream.get_final_message()
            heard.stop = done.stop_reason
            heard.calls = [(block.name, block.input) for block in done.content if block.type == "tool_use"]
            heard.reasoning = "".join(block.thinking for block in done.content if block.type == "thinking")
            heard.usage = (done.usage.input_tokens, done.usage.output_tokens)
        except (anthropic.AnthropicError, AssertionError) as error:
            heard.failed = error
    return heard


def close_google(client: genai.Client) -> None:
    """Both of its halves: the one that nobody used would end by a task in whatever loop runs when it is collected."""
    client.close()
    asyncio.run(client.aio.aclose())


def generate_content(url: str, model: str, tools: bool) -> Heard:
    heard = Heard()
    client = genai.Client(
        api_key="any", http_options=gemini.HttpOptions(base_url=url, timeout=TIMEOUT_S * 1000, retry_options=None)
    )
    declared = gemini.FunctionDeclaration(name="look", parameters_json_schema=SCHEMA)
    config = gemini.GenerateContentConfig(
        tools=[gemini.Tool(function_declarations=[declared])] if tools else None,
        automatic_function_calling=gemini.AutomaticFunctionCallingConfig(disable=True),
    )
    try:
        for chunk in client.models.generate_content_stream(model=model, contents="Tell me", config=config):
            for candidate in chunk.candidates or ():
                for part in (candidate.content.parts if candidate.content else None) or ():
                    if part.function_call is not None:
                        heard.calls.append((part.function_call.name or "", part.function_call.args))
                    elif part.thought:
                        heard.reasoning += part.text or ""
                    else:
                        heard.text += part.text or ""
                heard.stop = candidate.finish_reason or heard.stop
            if chunk.usage_metadata is not None:
                said = chunk.usage_metadata
                heard.usage = (said.prompt_token_count, said.candidates_token_count)
    except Exception as error:  # the SDK has errors of its own, of its transport and of JSON
        heard.failed = error
    finally:
        close_google(client)
    return heard


def ollama_chat(url: str, model: str, tools: bool) -> Heard:
    heard = Heard()
    given: Any = (
        {"tools": [{"type": "function", "function": {"name": "look", "description": "d", "parameters": SCHEMA}}]}
        if tools
        else {}
    )
    client = ollama.Client(host=url, timeout=TIMEOUT_S)
    try:
        for line in client.chat(model=model, messages=[{"role": "user", "content": "Tell me"}], stream=True, **given):
            heard.text += line.message.content or ""
            heard.reasoning += line.message.thinking or ""
            heard.calls += [
                (call.function.name, dict(call.function.arguments)) for call in line.message.tool_calls or ()
            ]
            if line.done:
                heard.stop = line.done_reason
                heard.usage = (line.prompt_eval_count, line.eval_count)
    except ollama.ResponseError as error:
        heard.failed = error
    finally:
        client._client.close()  # it has no way of its own
    return heard


#: client dialect → how its SDK asks
CLIENTS: dict[str, Callable[[str, str, bool], Heard]] = {
    "openai-chat": chat,
    "openai-responses": responses,
    "anthropic-messages": messages,
    "gemini": generate_content,
    "ollama": ollama_chat,
}

#: what each calls a reply that ended by itself, and one that ended in a call
STOPS = {
    "openai-chat": ("stop", "tool_calls"),
    "openai-responses": ("completed", "completed"),
    "anthropic-messages": ("end_turn", "tool_use"),
    "gemini": ("STOP", "STOP"),
    "ollama": ("stop", "stop"),
}
