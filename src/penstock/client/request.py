"""What a program passes → a `ChatRequest`: a string, messages of ours, or dicts as OpenAI's API takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.canon.errors import InvalidRequest
from penstock.canon.request import ChatRequest, Message, Tool
from penstock.dialects import client_dialect

Messages = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]


def build_request(
    model: str,
    messages: Messages,
    *,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    stop: str | Sequence[str],
    seed: int | None,
    tools: Sequence[Tool | Mapping[str, Any]],
    extra: Mapping[str, Mapping[str, Any]],
) -> ChatRequest:
    told = _messages(messages)
    if system is not None:
        told = (Message.of("system", system), *told)
    return ChatRequest(
        model=model,
        messages=told,
        stream=True,
        include_usage=True,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=seed,
        tools=tuple(_tools(tools)),
        extras={dialect: dict(fields) for dialect, fields in extra.items()},
    )


def _messages(given: Messages) -> tuple[Message, ...]:
    if isinstance(given, str):
        return (Message.of("user", given),)
    if isinstance(given, Message | Mapping):
        given = [given]
    told: list[Message] = []
    for message in given:
        told += [message] if isinstance(message, Message) else _parsed({"messages": [message]}).messages
    if not told:
        raise InvalidRequest("There are no messages.", param="messages", fix="Pass a string, or a list of messages.")
    return tuple(told)


def _tools(given: Sequence[Tool | Mapping[str, Any]]) -> list[Tool]:
    tools: list[Tool] = []
    for tool in given:
        if isinstance(tool, Tool):
            tools.append(tool)
        else:
            tools += _parsed({"messages": [{"role": "user", "content": ""}], "tools": [tool]}).tools
    return tools


def _parsed(fields: dict[str, Any]) -> ChatRequest:
    """OpenAI's dicts, read by its own dialect, so that they mean what they mean on the wire."""
    return client_dialect("openai-chat").parse_request(msgspec.json.encode({"model": "", **fields}))
