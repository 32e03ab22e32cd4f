"""Anthropic Messages requests from a client: read at the top level, forwarded, parsed whole.

A caller's mistake raises `InvalidRequest` with the field's path; what no other dialect can say raises `Unsupported`.
Nothing that changes meaning is dropped in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import (
    ChatRequest,
    ContentPart,
    File,
    Image,
    Message,
    OutputFormat,
    Tool,
    ToolChoice,
    ToolResult,
)
from penstock.dialects.base import RequestHead, decode_body
from penstock.dialects.signatures import split_id, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable

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


class _Source(msgspec.Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: str | list[_Block] | None = None


class _Block(msgspec.Struct):
    """Any content block: the members that we translate, whichever the block is."""

    type: str
    text: str | None = None
    citations: Any = None
    source: _Source | str | None = None
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: str | list[_Block] | dict[str, Any] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: str
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
    messages: list[_Message]
    max_tokens: int
    stream: bool | None = None
    system: str | list[_Block] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    metadata: _Metadata | None = None


_shape = msgspec.json.Decoder(_Shape)
_request = msgspec.json.Decoder(_Request)
_fields = msgspec.json.Decoder(dict[str, _Raw])
_KNOWN = frozenset(_Request.__struct_fields__)

#: the name under which `ChatRequest.extras` holds what only this dialect says
EXTRAS = "anthropic-messages"


def read_head(body: bytes, path: str = "") -> RequestHead:
    shape = decode_body(_shape, body)
    _check(shape.messages, shape.max_tokens)
    return RequestHead(shape.model, bool(shape.stream), True, body)


def forwarded_body(head: RequestHead, model: str | None) -> bytes:
    """The caller's own bytes; only `model` is ours to change, where it is mapped."""
    if model is None or model == head.model:
        return head.body
    return msgspec.json.encode({**head.fields, "model": _Raw(msgspec.json.encode(model))})


def _check(messages: list[Any], max_tokens: int) -> None:
    if not messages:
        raise InvalidRequest("`messages` is empty.", param="messages", fix="Send at least one message.")
    if max_tokens < 0:
        raise InvalidRequest("`max_tokens` is negative.", param="max_tokens", fix="Send 0 or more.")


# --- a client's request → ours ---------------------------------------------------------------------------------------


def parse_request(body: bytes, path: str = "") -> ChatRequest:
    given = decode_body(_request, body)
    _check(given.messages, given.max_tokens)
    messages = [Message("system", tuple(_system(given.system, "system")))] if given.system else []
    names: dict[str, str] = {}  # tool call → tool, which a result of it does not say
    for k, message in enumerate(given.messages):
        messages += _messages(message, f"messages[{k}]", names)
    extras = {key: msgspec.json.decode(value) for key, value in _fields.decode(body).items() if key not in _KNOWN}
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
        extras={EXTRAS: extras} if extras else {},
    )


def _system(given: str | list[_Block], path: str) -> list[Text]:
    if isinstance(given, str):
        return [Text(given)]
    return [Text(_need(block.text, f"{path}[{k}].text")) for k, block in enumerate(given)]


def _messages(given: _Message, path: str, names: dict[str, str]) -> list[Message]:
    """One of theirs may be two of ours: the tool results of a user turn come before what the user says."""
    content = [_Block("text", text=given.content)] if isinstance(given.content, str) else given.content
    path_of = [path + ".content" + ("" if isinstance(given.content, str) else f"[{k}]") for k in range(len(content))]
    if given.role == "system":
        return [Message("system", tuple(_system(given.content, f"{path}.content")))]
    if given.role not in ("user", "assistant"):
        raise InvalidRequest(
            f"Unknown role `{given.role}`.", param=f"{path}.role", fix="Use user, assistant or system."
        )
    results: list[ContentPart] = []
    parts: list[ContentPart] = []
    for block, where in zip(content, path_of, strict=True):
        part = _part(block, where)
        if isinstance(part, ToolCall):
            names[part.id] = part.name
        if isinstance(part, ToolResult):
            results.append(ToolResult(part.id, part.parts, part.is_error, names.get(part.id)))
        else:
            parts.append(part)
    messages = [Message("tool", tuple(results))] if results else []
    if parts or not results:
        messages.append(Message("user" if given.role == "user" else "assistant", tuple(parts)))
    return messages


def _part(block: _Block, path: str) -> ContentPart:
    read = _PARTS.get(block.type)
    if read is None:
        raise Unsupported(
            f"A `{block.type}` block cannot be translated to this model's dialect.",
            param=f"{path}.type",
            fix="Leave it out, or ask a model of Anthropic's.",
        )
    return read(block, path)


def _need(value: str | None, path: str) -> str:
    if value is None:
        raise InvalidRequest(f"`{path}` is missing.", param=path)
    return value


def _text(block: _Block, path: str) -> Text:
    citations = block.citations if isinstance(block.citations, list) else ()
    return Text(_need(block.text, f"{path}.text"), tuple(citations))


def _source(block: _Block, path: str) -> _Source:
    if not isinstance(block.source, _Source):
        raise InvalidRequest(f"`{path}.source` must be an object.", param=f"{path}.source")
    return block.source


def _image(block: _Block, path: str) -> Image:
    source = _source(block, path)
    match source.type:
        case "base64":
            data = _need(source.data, f"{path}.source.data")
            return Image(data=data, media_type=_need(source.media_type, f"{path}.source.media_type"))
        case "url":
            return Image(url=_need(source.url, f"{path}.source.url"))
    raise Unsupported(
        f"An image from a `{source.type}` source cannot be translated to this model's dialect.",
        param=f"{path}.source.type",
        fix="Send its bytes.",
    )


def _document(block: _Block, path: str) -> File:
    source, name = _source(block, path), block.title
    match source.type:
        case "base64":
            data = _need(source.data, f"{path}.source.data")
            return File(data=data, media_type=source.media_type or "application/pdf", name=name)
        case "text":
            return File(text=_need(source.data, f"{path}.source.data"), media_type="text/plain", name=name)
        case "url":
            return File(url=_need(source.url, f"{path}.source.url"), name=name)
        case "file":
            return File(file_id=_need(source.file_id, f"{path}.source.file_id"), name=name)
        case "content":
            return File(text=_joined(source.content, f"{path}.source.content"), media_type="text/plain", name=name)
    raise InvalidRequest(f"Unknown source `{source.type}`.", param=f"{path}.source.type")


def _search_result(block: _Block, path: str) -> File:
    name = block.title or (block.source if isinstance(block.source, str) else None)
    return File(text=_joined(block.content, f"{path}.content"), media_type="text/plain", name=name)


def _joined(content: str | list[_Block] | dict[str, Any] | None, path: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"`{path}` must be text or a list of blocks.", param=path)
    texts = []
    for k, block in enumerate(content):
        if block.type != "text":
            raise Unsupported(
                f"A `{block.type}` block inside a document cannot be translated to this model's dialect.",
                param=f"{path}[{k}].type",
            )
        texts.append(_need(block.text, f"{path}[{k}].text"))
    return "\n".join(texts)


def _tool_use(block: _Block, path: str) -> ToolCall:
    given = {} if block.input is None else block.input
    if not isinstance(given, dict):
        raise InvalidRequest(f"`{path}.input` must be an object.", param=f"{path}.input")
    id_, name = _need(block.id, f"{path}.id"), _need(block.name, f"{path}.name")
    id_, signature = split_id(id_)
    return ToolCall(id_, name, msgspec.json.encode(given).decode(), given, signature=signature)


def _tool_result(block: _Block, path: str) -> ToolResult:
    id_, content = split_id(_need(block.tool_use_id, f"{path}.tool_use_id"))[0], block.content
    parts: list[Text | Image | File] = []
    if isinstance(content, str):
        parts.append(Text(content))
    elif isinstance(content, dict):
        raise InvalidRequest(f"`{path}.content` must be text or a list of blocks.", param=f"{path}.content")
    else:
        for k, inner in enumerate(content or ()):
            part = _part(inner, f"{path}.content[{k}]")
            if not isinstance(part, Text | Image | File):
                raise InvalidRequest(
                    f"A tool result cannot hold a `{inner.type}` block.", param=f"{path}.content[{k}].type"
                )
            parts.append(part)
    return ToolResult(id_, tuple(parts), bool(block.is_error))


def _thinking(block: _Block, path: str) -> Reasoning:
    text = _need(block.thinking, f"{path}.thinking")
    if not block.signature:
        return Reasoning(text)
    signature, owner = unmarked(block.signature, EXTRAS)
    return Reasoning(text, signature, signed_by=owner)


def _redacted(block: _Block, path: str) -> Reasoning:
    data, owner = unmarked(_need(block.data, f"{path}.data"), EXTRAS)
    return Reasoning("", redacted=data, signed_by=owner)


_PARTS: dict[str, Callable[[_Block, str], ContentPart]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}


def _tool(given: _Tool, path: str) -> Tool:
    if given.type not in (None, "custom"):
        raise Unsupported(
            f"The tool `{given.name}` (`{given.type}`) is Anthropic's own and cannot be translated.",
            param=f"{path}.type",
            fix="Leave it out, or ask a model of Anthropic's.",
        )
    return Tool(given.name, given.description, given.input_schema, given.strict)


def _tool_choice(given: _ToolChoice | None) -> ToolChoice | None:
    if given is None:
        return None
    match given.type:
        case "auto" | "any" | "none":
            return ToolChoice(given.type)
        case "tool":
            return ToolChoice("tool", _need(given.name, "tool_choice.name"))
    raise InvalidRequest(
        f"Unknown tool choice `{given.type}`.", param="tool_choice.type", fix="Use auto, any, tool or none."
    )


def _reasoning(given: _Request) -> tuple[int | None, str | None, dict[str, Any] | None]:
    """Budget, effort, and a `thinking` that only this dialect has."""
    effort = given.output_config.effort if given.output_config else None
    thinking = given.thinking
    if thinking is None:
        return None, effort, None
    match thinking.type:
        case "enabled":
            return thinking.budget_tokens, effort, None
        case "disabled":
            return None, "none", None
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
