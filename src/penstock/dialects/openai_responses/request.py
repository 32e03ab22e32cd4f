"""OpenAI Responses requests from a client: read at the top level, forwarded, parsed whole.

A caller's mistake raises `InvalidRequest` with the field's path. What only a server that keeps state or runs tools
itself can do (`previous_response_id`, hosted tools) raises `Unsupported` when the request must be translated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Refusal, Text
from penstock.canon.request import (
    Audio,
    ChatRequest,
    ContentPart,
    File,
    Image,
    Message,
    OutputFormat,
    Role,
    Tool,
    ToolChoice,
    ToolResult,
)
from penstock.dialects.base import RequestHead, decode_body, finished_call, load_extras
from penstock.dialects.mapping import split_data_url
from penstock.dialects.openai_responses.wire import OWN
from penstock.dialects.signatures import split_id, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable

_Raw = msgspec.Raw


class _Shape(msgspec.Struct):
    """The top level of a request, for its types alone: what is below is the upstream's to judge."""

    model: str
    input: str | list[_Raw] | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Raw] | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None


class _Item(msgspec.Struct):
    """Any input item: the members that we translate, whichever it is."""

    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Format(msgspec.Struct):
    type: str
    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None


class _TextOptions(msgspec.Struct):
    format: _Format | None = None


class _Request(msgspec.Struct):
    model: str
    input: str | list[_Item] | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: _Reasoning | None = None
    text: _TextOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None


_shape = msgspec.json.Decoder(_Shape)
_request = msgspec.json.Decoder(_Request)
_KNOWN = frozenset(_Request.__struct_fields__)
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

#: what needs a server that remembers
_STATEFUL = {
    "previous_response_id": "Send the whole conversation as `input`.",
    "conversation": "Send the whole conversation as `input`.",
    "prompt": "Send the prompt's text as `instructions`.",
    "background": "Leave it out, and read the stream.",
}


def read_head(body: bytes, path: str = "") -> RequestHead:
    shape = decode_body(_shape, body)
    return RequestHead(shape.model, bool(shape.stream), True, body)


def parse_request(body: bytes, path: str = "") -> ChatRequest:
    given = decode_body(_request, body)
    said = load_extras(body)
    for name, fix in _STATEFUL.items():
        if said.get(name):
            raise Unsupported(f"`{name}` needs a server that keeps it, and this model's has none.", param=name, fix=fix)
    tools, choice = _tools(given)
    extras = {key: value for key, value in said.items() if key not in _KNOWN and value is not None}
    verbosity = (said.get("text") or {}).get("verbosity") if isinstance(said.get("text"), dict) else None
    if verbosity is not None:
        extras["text.verbosity"] = verbosity
    return ChatRequest(
        model=given.model,
        messages=_messages(given),
        stream=bool(given.stream),
        include_usage=True,
        max_tokens=given.max_output_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=given.parallel_tool_calls,
        reasoning_effort=given.reasoning.effort if given.reasoning else None,
        output=_output(given.text),
        user=given.user or given.safety_identifier,
        extras={OWN: extras} if extras else {},
    )


def _messages(given: _Request) -> tuple[Message, ...]:
    messages = [Message.of("system", given.instructions)] if given.instructions else []
    if isinstance(given.input, str):
        return (*messages, Message.of("user", given.input))
    if not given.input:
        raise InvalidRequest("`input` is empty.", param="input", fix="Send text, or at least one item.")
    names: dict[str, str] = {}  # call → tool, which a result of it does not say
    for k, item in enumerate(given.input):
        message = _item(item, f"input[{k}]", names)
        before = messages[-1] if messages else None
        if before is not None and before.role == message.role == "assistant":  # one turn, several items
            messages[-1] = Message("assistant", before.parts + message.parts)
        elif before is not None and before.role == message.role == "tool":
            messages[-1] = Message("tool", before.parts + message.parts)
        else:
            messages.append(message)
    return tuple(messages)


def _item(item: _Item, path: str, names: dict[str, str]) -> Message:
    match item.type or "message":
        case "message":
            role = _ROLES.get(item.role or "")
            if role is None:
                raise InvalidRequest(
                    f"Unknown role `{item.role}`.", param=f"{path}.role", fix=f"Use one of {', '.join(_ROLES)}."
                )
            return Message(role, tuple(_parts(item.content, f"{path}.content")))
        case "function_call":
            id_, signature = split_id(_need(item.call_id, f"{path}.call_id"))
            name = names[id_] = _need(item.name, f"{path}.name")
            return Message("assistant", (finished_call(id_, name, item.arguments or "", signature=signature),))
        case "function_call_output":
            id_ = split_id(_need(item.call_id, f"{path}.call_id"))[0]
            shown = [part for part in _parts(item.output, f"{path}.output") if not isinstance(part, Refusal)]
            result = ToolResult(id_, tuple(shown), name=names.get(id_))  # type: ignore[arg-type]
            return Message("tool", (result,))
        case "reasoning":
            return Message("assistant", (_thought(item),))
    raise Unsupported(
        f"A `{item.type}` item cannot be translated to this model's dialect.",
        param=f"{path}.type",
        fix="Leave it out, or ask a model that speaks Responses.",
    )


def _thought(item: _Item) -> Reasoning:
    text = "\n\n".join(part.text or "" for part in item.summary or ())
    if not item.encrypted_content:
        return Reasoning(text)
    secret, owner = unmarked(item.encrypted_content, OWN)
    if owner == OWN:
        secret = f"{item.id or ''}:{secret}"
    return Reasoning(text, secret, signed_by=owner)


def _parts(content: str | list[_Part] | None, path: str) -> list[ContentPart]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    parts: list[ContentPart] = []
    for k, part in enumerate(content):
        read = _PARTS.get(part.type)
        if read is None:
            raise Unsupported(
                f"A `{part.type}` part cannot be translated to this model's dialect.", param=f"{path}[{k}].type"
            )
        parts.append(read(part, f"{path}[{k}]"))
    return parts


def _need(value: str | None, path: str) -> str:
    if value is None:
        raise InvalidRequest(f"`{path}` is missing.", param=path)
    return value


def _image(part: _Part, path: str) -> Image:
    url = part.image_url
    if url is None:
        raise Unsupported("A file is known only to its own provider.", param=path, fix="Send the image's bytes.")
    if (found := split_data_url(url)) is not None:
        return Image(data=found[1], media_type=found[0], detail=part.detail)
    return Image(url=url, detail=part.detail)


def _file(part: _Part, path: str) -> File:
    data, media_type = part.file_data, None
    if (found := split_data_url(data or "")) is not None:
        media_type, data = found
    if data is None and part.file_url is None and part.file_id is None:
        raise InvalidRequest(f"`{path}` holds no file.", param=path, fix="Send file_data.")
    return File(data=data, url=part.file_url, file_id=part.file_id, media_type=media_type, name=part.filename)


def _audio(part: _Part, path: str) -> Audio:
    given = part.input_audio or {}
    data, format_ = given.get("data"), given.get("format")
    if not isinstance(data, str) or not isinstance(format_, str):
        raise InvalidRequest(f"`{path}.input_audio` needs data and format.", param=f"{path}.input_audio")
    return Audio(data, format_)


_PARTS: dict[str, Callable[[_Part, str], ContentPart]] = {
    "input_text": lambda part, path: Text(_need(part.text, f"{path}.text")),
    "output_text": lambda part, path: Text(_need(part.text, f"{path}.text")),
    "text": lambda part, path: Text(_need(part.text, f"{path}.text")),
    "refusal": lambda part, path: Refusal(_need(part.refusal, f"{path}.refusal")),
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


def _tools(given: _Request) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """The tools that may be called, and how they must be."""
    tools: list[Tool] = []
    for k, tool in enumerate(given.tools or ()):
        if tool.type != "function":
            raise Unsupported(
                f"A `{tool.type}` tool cannot be translated to this model's dialect.",
                param=f"tools[{k}].type",
                fix="Use a function tool, or ask a model that speaks Responses.",
            )
        tools.append(Tool(_need(tool.name, f"tools[{k}].name"), tool.description, tool.parameters, tool.strict))
    choice = given.tool_choice
    if choice is None:
        return tuple(tools), None
    modes = {"auto": ToolChoice("auto"), "none": ToolChoice("none"), "required": ToolChoice("any")}
    if isinstance(choice, str) and choice in modes:
        return tuple(tools), modes[choice]
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return tuple(tools), ToolChoice("tool", choice["name"])
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        allowed = {named.get("name") for named in choice["tools"] if isinstance(named, dict)}
        mode = modes.get(str(choice.get("mode")), ToolChoice("auto"))
        return tuple(tool for tool in tools if tool.name in allowed), mode
    raise Unsupported(
        "This `tool_choice` cannot be translated to this model's dialect.",
        param="tool_choice",
        fix='Use "auto", "required", "none" or a named function.',
    )


def _output(given: _TextOptions | None) -> OutputFormat | None:
    format_ = given.format if given else None
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return OutputFormat("json")
    if format_.type == "json_schema" and format_.schema is not None:
        return OutputFormat("schema", format_.schema, format_.name, format_.strict)
    raise InvalidRequest(f"Unknown format `{format_.type}`.", param="text.format.type")
