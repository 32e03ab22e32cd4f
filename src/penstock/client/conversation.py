"""What a program calls a conversation → our messages, and what is wrong with it said before anything is sent.

A conversation is a string, or a list of messages: ours, a `Response` (its message), a `ToolResult`, a string (the
user's), or a dict as OpenAI's or Anthropic's API takes it, each read by its own dialect, so that it means what it means
on the wire. The two may stand in one list, not in one message. Raises `InvalidRequest` with the message's path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.canon.errors import InvalidRequest, RequestError
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, File, Image, Message, Role, Tool, ToolResult
from penstock.canon.response import Response
from penstock.dialects import client_dialect

OneMessage = str | Message | Response | ToolResult | Mapping[str, Any]
Messages = OneMessage | Sequence[OneMessage]

#: extras by dialect, as `ChatRequest` has them
Extras = dict[str, Any]

_PARTS = (Text, Image, Audio, File, ToolCall, ToolResult, Reasoning, Refusal)
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

#: what only one of the two dialects says
_OPENAI_ROLES = frozenset({"developer", "tool", "function"})
_OPENAI_FIELDS = frozenset(
    {"tool_calls", "tool_call_id", "function_call", "refusal", "reasoning", "reasoning_content", "reasoning_details"}
)
_OPENAI_PARTS = frozenset({"image_url", "input_audio", "file", "refusal"})
_ANYBODYS_PARTS = frozenset({"text", "thinking"})


def read_conversation(given: Messages) -> tuple[tuple[Message, ...], Extras]:
    """The messages, and by dialect what they say that has no name in ours."""
    listed = [given] if isinstance(given, (str, Message, Response, ToolResult, Mapping)) else given
    messages: list[Message] = []
    extras: Extras = {}
    for k, each in enumerate(listed):
        messages += _messages(each, k, extras)
    if not messages:
        raise InvalidRequest("There are no messages.", param="messages", fix="Pass a string, or a list of messages.")
    _refuse_orphans(messages)
    return tuple(messages), extras


def _messages(given: OneMessage, k: int, extras: Extras) -> Sequence[Message]:
    match given:
        case str():
            return (Message.of("user", given),)
        case Message():
            return (given,)
        case Response():
            return (given.message,)
        case ToolResult():
            return (Message("tool", (given,)),)
        case Mapping():
            return _read(given, k, extras)
    raise InvalidRequest(
        f"A `{type(given).__name__}` is no message.",
        param=f"messages[{k}]",
        fix="Pass a string, a penstock.Message, or a dict with role and content.",
    )


def _read(given: Mapping[str, Any], k: int, extras: Extras) -> Sequence[Message]:
    content = given.get("content")
    if isinstance(content, Sequence) and any(isinstance(part, (str, *_PARTS)) for part in content) and content:
        if not isinstance(content, str):
            return (_of_parts(given, content, k),)
    elif isinstance(content, _PARTS):
        return (_of_parts(given, [content], k),)
    request = _parsed(given, k)
    for dialect, fields in request.extras.items():
        extras[dialect] = {**extras.get(dialect, {}), **fields}
    return request.messages


def _of_parts(given: Mapping[str, Any], content: Sequence[Any], k: int) -> Message:
    """A dict whose content is made of our own parts."""
    role = _ROLES.get(str(given.get("role")))
    if role is None:
        raise InvalidRequest(
            f"Unknown role `{given.get('role')}`.", param=f"messages[{k}].role", fix=f"Use one of {', '.join(_ROLES)}."
        )
    for n, part in enumerate(content):
        if not isinstance(part, (str, *_PARTS)):
            raise InvalidRequest(
                f"A `{type(part).__name__}` stands beside parts of Penstock's own.",
                param=f"messages[{k}].content[{n}]",
                fix="Write a message's parts in one way.",
            )
    return Message.of(role, *content)


def _parsed(given: Mapping[str, Any], k: int) -> ChatRequest:
    name = _dialect(given, k)
    needed = {"max_tokens": 1} if name == "anthropic-messages" else {}
    try:
        body = msgspec.json.encode({"model": "", **needed, "messages": [given]})
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"A message is no JSON: {error}.", param=f"messages[{k}]") from error
    try:
        return client_dialect(name).parse_request(body)
    except RequestError as error:  # it was read alone, so its reader took it for the first
        error.message = error.message.replace("messages[0]", f"messages[{k}]")
        error.param = error.param and error.param.replace("messages[0]", f"messages[{k}]")
        raise


def _dialect(given: Mapping[str, Any], k: int) -> str:
    """Whose form a message has. What is the same in both is read as OpenAI's."""
    openai = [field for field in given if field in _OPENAI_FIELDS]
    if given.get("role") in _OPENAI_ROLES:
        openai.append(str(given["role"]))
    anthropic: list[str] = []
    content = given.get("content")
    for part in content if isinstance(content, Sequence) and not isinstance(content, str) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _OPENAI_PARTS:
            openai.append(kind)
        elif (kind == "thinking" and "signature" in part) or (kind is not None and kind not in _ANYBODYS_PARTS):
            anthropic.append(str(kind))
    if openai and anthropic:
        raise InvalidRequest(
            f"A message says `{openai[0]}` as OpenAI's API does, and `{anthropic[0]}` as Anthropic's.",
            param=f"messages[{k}]",
            fix="Write it in one of the two.",
        )
    return "anthropic-messages" if anthropic else "openai-chat"


def _refuse_orphans(messages: Sequence[Message]) -> None:
    """No provider takes a result of what nobody called."""
    called: set[str] = set()
    for k, message in enumerate(messages):
        for part in message.parts:
            if isinstance(part, ToolCall):
                called.add(part.id)
            elif isinstance(part, ToolResult) and part.id not in called:
                raise InvalidRequest(
                    f"There is a tool result for the call `{part.id}`, which no message before it made.",
                    param=f"messages[{k}]",
                    fix="Put the assistant's message that called it (response.message) before its result.",
                )


# --- tools in the forms of the two APIs ------------------------------------------------------------------------------


def read_tool(given: Mapping[str, Any], k: int) -> Tool:
    """A dict as OpenAI's chat or Responses API takes it (`function`, `parameters`), or Anthropic's (`input_schema`)."""
    if "input_schema" in given:
        fields: dict[str, Any] = {"max_tokens": 1, "tools": [given]}
        name = "anthropic-messages"
    else:
        name = "openai-chat"
        is_flat = given.get("type") in (None, "function") and "function" not in given and "name" in given
        function = {key: value for key, value in given.items() if key != "type"}
        fields = {"tools": [{"type": "function", "function": function} if is_flat else given]}
    try:
        body = msgspec.json.encode({"model": "", "messages": [{"role": "user", "content": ""}], **fields})
        return client_dialect(name).parse_request(body).tools[0]
    except RequestError as error:
        error.message = error.message.replace("tools[0]", f"tools[{k}]")
        error.param = error.param and error.param.replace("tools[0]", f"tools[{k}]")
        raise
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"A tool is no JSON: {error}.", param=f"tools[{k}]") from error
