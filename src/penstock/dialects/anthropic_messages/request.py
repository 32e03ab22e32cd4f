"""Anthropic Messages requests from a client: read at the top level, forwarded, parsed whole.

A caller's mistake raises `InvalidRequest` with the field's path; what no other dialect can say raises `Unsupported`.
Nothing that changes meaning is dropped in silence.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.request import ChatRequest, Message, OutputFormat, Tool, ToolChoice
from penstock.dialects.anthropic_messages.content import Block, GivenMessage, need, read_messages, read_system
from penstock.dialects.anthropic_messages.wire import OWN, SAMPLING
from penstock.dialects.base import RequestHead, decode_body

_Raw = msgspec.Raw


class _Shape(msgspec.Struct):
    """The top level of a request, for its types alone: what is below is the upstream's to judge."""

    model: str
    messages: list[_Raw]
    max_tokens: int
    stream: bool | None = None
    system: str | list[_Raw] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[_Raw] | None = None
    tool_choice: dict[str, _Raw] | None = None
    thinking: dict[str, _Raw] | None = None
    output_config: dict[str, _Raw] | None = None
    metadata: dict[str, _Raw] | None = None


class _Tool(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class _Format(msgspec.Struct):
    type: str
    schema: dict[str, Any] | None = None


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[GivenMessage]
    max_tokens: int
    stream: bool | None = None
    system: str | list[Block] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    metadata: _Metadata | None = None


class _CountShape(_Shape):
    max_tokens: int = 0


class _CountRequest(_Request):
    max_tokens: int = 0


_shape = msgspec.json.Decoder(_Shape)
_request = msgspec.json.Decoder(_Request)
_count_shape = msgspec.json.Decoder(_CountShape)
_count_request = msgspec.json.Decoder(_CountRequest)
_members = msgspec.json.Decoder(dict[str, Any])
_KNOWN = frozenset(_Request.__struct_fields__)

#: the name under which `ChatRequest.extras` holds what blocks and tools say that no other dialect has: `cache_control`
INSIDE = f"{OWN} (inside)"

#: the top-level members that only Anthropic's own servers can honour, and that a reply without them would not be
_OURS_TO_REFUSE = ("mcp_servers", "container")


def read_head(body: bytes, path: str = "") -> RequestHead:
    shape = decode_body(_shape, body)
    _check(shape.messages, shape.max_tokens)
    return RequestHead(shape.model, bool(shape.stream), True, body)


def read_count_head(body: bytes, path: str = "") -> RequestHead:
    """Of a request to count tokens, which needs no limit and is never a stream."""
    shape = decode_body(_count_shape, body)
    _check(shape.messages, 0)
    return RequestHead(shape.model, False, True, body)


def _check(messages: list[Any], max_tokens: int) -> None:
    if not messages:
        raise InvalidRequest("`messages` is empty.", param="messages", fix="Send at least one message.")
    if max_tokens < 0:
        raise InvalidRequest("`max_tokens` is negative.", param="max_tokens", fix="Send 0 or more.")


# --- a client's request → ours ---------------------------------------------------------------------------------------


def parse_request(body: bytes, path: str = "") -> ChatRequest:
    return _parsed(decode_body(_request, body), body)


def parse_2026_10_21(body: bytes, path: str = "") -> ChatRequest:
    """As a client of that version means it: what Anthropic refuses from one is refused here, in its words."""
    given = decode_body(_request, body)
    for name in SAMPLING:
        if getattr(given, name) is not None:
            raise _not_permitted(name)
    for k, message in enumerate(given.messages):
        for n, block in enumerate(message.content if isinstance(message.content, list) else ()):
            if message.role == "assistant" and block.type == "document":
                raise _not_permitted(f"messages.{k}.content.{n}.document")
            if message.role == "user" and block.type == "text" and block.citations:
                raise _not_permitted(f"messages.{k}.content.{n}.text.citations")
    return _parsed(given, body)


def parse_count(body: bytes, path: str = "") -> ChatRequest:
    given = decode_body(_count_request, body)
    return msgspec.structs.replace(_parsed(given, body), max_tokens=None, stream=False)


def _not_permitted(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: Extra inputs are not permitted",
        param=path,
        fix="(anthropic-version 2026-10-21; 2023-06-01 permits them.)",
    )


def _parsed(given: _Request, body: bytes) -> ChatRequest:
    _check(given.messages, given.max_tokens)
    messages = [Message("system", tuple(read_system(given.system, "system")))] if given.system else []
    names: dict[str, str] = {}  # tool call → tool, which a result of it does not say
    for k, message in enumerate(given.messages):
        messages += read_messages(message, f"messages[{k}]", names)
    said = decode_body(_members, body)
    extras = {key: value for key, value in said.items() if key not in _KNOWN and value is not None}
    for key in _OURS_TO_REFUSE:
        if extras.get(key):
            raise Unsupported(
                f"`{key}` cannot be translated to this model's dialect.",
                param=key,
                fix="Leave it out, or ask a model of Anthropic's.",
            )
    budget, effort, thinking = _reasoning(given)
    if thinking is not None:
        extras["thinking"] = thinking
    choice = given.tool_choice
    return ChatRequest(
        model=given.model,
        messages=tuple(messages),
        stream=bool(given.stream),
        include_usage=True,
        max_tokens=given.max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        stop=tuple(given.stop_sequences or ()),
        tools=tuple(_tool(tool, f"tools[{k}]") for k, tool in enumerate(given.tools or ())),
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
        reasoning_effort=effort,
        reasoning_budget=budget,
        output=_output(given.output_config),
        user=given.metadata.user_id if given.metadata else None,
        extras={key: names for key, names in ((OWN, extras), (INSIDE, _inside(said))) if names},
    )


def _inside(said: dict[str, Any]) -> dict[str, bool]:
    """The names of what blocks, tools and settings say, below the top level, that we have no word for."""
    found: dict[str, bool] = {}
    system, messages = said.get("system"), [message["content"] for message in said["messages"]]
    for blocks in (system, *messages):
        _inside_blocks(blocks, found)
    for tool in said.get("tools") or ():
        _note(tool, _Tool.__struct_fields__, found)
    for key, known in _SETTINGS.items():
        _note(said.get(key), known, found, f"{key}.")
    return found


def _inside_blocks(blocks: Any, found: dict[str, bool]) -> None:
    for block in blocks if isinstance(blocks, list) else ():
        _note(block, Block.__struct_fields__, found)
        citations = block.get("citations")
        if citations and citations != {"enabled": False}:
            found["citations"] = True
        if block["type"] == "tool_result":
            _inside_blocks(block.get("content"), found)


def _note(given: Any, known: tuple[str, ...], found: dict[str, bool], prefix: str = "") -> None:
    for name, value in given.items() if isinstance(given, dict) else ():
        if name not in known and value is not None:
            found[prefix + name] = True


_SETTINGS = {
    "tool_choice": _ToolChoice.__struct_fields__,
    "thinking": _Thinking.__struct_fields__,
    "output_config": _OutputConfig.__struct_fields__,
    "metadata": _Metadata.__struct_fields__,
}


def _tool(given: _Tool, path: str) -> Tool:
    if given.type not in (None, "custom"):
        raise Unsupported(
            f"The tool `{given.name or given.type}` (`{given.type}`) is Anthropic's own and cannot be translated.",
            param=f"{path}.type",
            fix="Leave it out, or ask a model of Anthropic's.",
        )
    return Tool(need(given.name, f"{path}.name"), given.description, given.input_schema, given.strict)


def _tool_choice(given: _ToolChoice | None) -> ToolChoice | None:
    if given is None:
        return None
    match given.type:
        case "auto" | "any" | "none":
            return ToolChoice(given.type)
        case "tool":
            return ToolChoice("tool", need(given.name, "tool_choice.name"))
    raise InvalidRequest(
        f"Unknown tool choice `{given.type}`.", param="tool_choice.type", fix="Use auto, any, tool or none."
    )


def _reasoning(given: _Request) -> tuple[int | None, str | None, dict[str, Any] | None]:
    """Budget, effort, and a `thinking` that only this dialect has; an adaptive one with an effort is that effort."""
    effort = given.output_config.effort if given.output_config else None
    thinking = given.thinking
    if thinking is None:
        return None, effort, None
    match thinking.type:
        case "enabled":
            return thinking.budget_tokens, effort, None
        case "disabled":
            return None, "none", None
    if thinking.type == "adaptive" and effort is not None:
        return None, effort, None
    return None, effort, {"type": thinking.type}


def _output(given: _OutputConfig | None) -> OutputFormat | None:
    if given is None or given.format is None:
        return None
    if given.format.type != "json_schema" or given.format.schema is None:
        raise InvalidRequest(
            f"Unknown output format `{given.format.type}`.",
            param="output_config.format",
            fix="Use json_schema with a schema.",
        )
    return OutputFormat("schema", given.format.schema)
