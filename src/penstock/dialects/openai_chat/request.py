"""OpenAI chat requests: read at the top level, parsed whole, forwarded, and built.

A caller's mistake raises a `RequestError` with the field's path; nothing that changes meaning is dropped in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
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
from penstock.dialects.openai_chat.thoughts import read_thoughts
from penstock.dialects.openai_chat.tools import call_signature

if TYPE_CHECKING:
    from collections.abc import Callable

_Raw = msgspec.Raw


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Shape(msgspec.Struct):
    """The top level of a request, for its types alone: what is below is the upstream's to judge."""

    model: str
    messages: list[_Raw]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    tools: list[_Raw] | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    arguments: Any = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function | None = None
    custom: Any = None


class _Custom(msgspec.Struct):
    name: str
    description: str | None = None
    input: str = ""


class _Call(msgspec.Struct):
    function: _Function | None = None
    custom: _Custom | None = None
    id: str = ""
    extra_content: Any = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Any] | None = None


class _Schema(msgspec.Struct):
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    response_format: _Format | None = None
    user: str | None = None
    safety_identifier: str | None = None
    audio: Any = None
    modalities: list[str] | None = None
    functions: list[_Function] | None = None
    function_call: str | dict[str, Any] | None = None


_shape = msgspec.json.Decoder(_Shape)
_request = msgspec.json.Decoder(_Request)
_KNOWN = frozenset(_Request.__struct_fields__)


def read_head(body: bytes, path: str = "") -> RequestHead:
    shape = decode_body(_shape, body)
    if not shape.messages:
        raise InvalidRequest("`messages` is empty.", param="messages", fix="Send at least one message.")
    options = shape.stream_options
    return RequestHead(shape.model, bool(shape.stream), bool(options and options.include_usage), body)


def forwarded_body(head: RequestHead, model: str | None, *, ask_usage: bool = True) -> bytes:
    """The caller's own bytes; only `model` (where it is mapped) and the usage option are ours to change."""
    renamed = model is not None and model != head.model
    ask_usage = ask_usage and head.stream and not head.include_usage
    if not renamed and not ask_usage:
        return head.body
    fields = head.fields
    if renamed:
        fields["model"] = _Raw(msgspec.json.encode(model))
    if ask_usage:
        given = fields.get("stream_options")
        options = msgspec.json.decode(given) if given is not None else None
        fields["stream_options"] = _Raw(msgspec.json.encode({**(options or {}), "include_usage": True}))
    return msgspec.json.encode(fields)


# --- a client's request → ours ---------------------------------------------------------------------------------------


def parse_request(body: bytes, path: str = "") -> ChatRequest:
    given = decode_body(_request, body)
    if (given.n or 1) > 1:
        raise Unsupported("`n` above 1 cannot be translated to this model's dialect.", param="n", fix="Ask n times.")
    if given.audio is not None:
        raise Unsupported("Audio output cannot be translated to this model's dialect.", param="audio")
    if "audio" in (given.modalities or ()):
        raise Unsupported("Audio output cannot be translated to this model's dialect.", param="modalities")
    extras = {key: value for key, value in load_extras(body).items() if key not in _KNOWN and value is not None}
    if "web_search_options" in extras:
        raise Unsupported(
            "A search by the provider cannot be translated to this model's dialect.", param="web_search_options"
        )
    messages = [_message(message, f"messages[{k}]") for k, message in enumerate(given.messages)]
    tools = [_tool(tool, f"tools[{k}]") for k, tool in enumerate(given.tools or ())]
    tools += [Tool(old.name, old.description, old.parameters) for old in given.functions or ()]
    allowed, choice = _choice(given)
    stop = (given.stop,) if isinstance(given.stop, str) else tuple(given.stop or ())
    max_tokens = given.max_completion_tokens if given.max_completion_tokens is not None else given.max_tokens
    return ChatRequest(
        model=given.model,
        messages=tuple(messages),
        stream=bool(given.stream),
        include_usage=bool(given.stream_options and given.stream_options.include_usage),
        max_tokens=max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        stop=stop,
        seed=given.seed,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        tools=tuple(tool for tool in tools if allowed is None or tool.name in allowed),
        tool_choice=choice,
        parallel_tool_calls=given.parallel_tool_calls,
        reasoning_effort=given.reasoning_effort,
        output=_output(given.response_format),
        user=given.user or given.safety_identifier,
        extras={"openai-chat": extras} if extras else {},
    )


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def _message(given: _Message, path: str) -> Message:
    role = _ROLES.get(given.role)
    if role is None:
        raise InvalidRequest(
            f"Unknown role `{given.role}`.", param=f"{path}.role", fix=f"Use one of {', '.join(_ROLES)}."
        )
    parts: list[ContentPart] = []
    parts += read_thoughts(given.reasoning_content or given.reasoning or "", given.reasoning_details or [])
    parts += _parts(given.content, f"{path}.content")
    if given.refusal:
        parts.append(Refusal(given.refusal))
    parts += (_call(call, f"{path}.tool_calls[{k}]") for k, call in enumerate(given.tool_calls or ()))
    if given.function_call is not None:  # the one call of before there were tools, known by its name
        parts.append(_call(_Call(given.function_call, id=given.function_call.name), f"{path}.function_call"))
    if role == "tool":
        id_ = given.tool_call_id or (given.name if given.role == "function" else None)
        if not id_:
            raise InvalidRequest("A tool message needs `tool_call_id`.", param=f"{path}.tool_call_id")
        shown = tuple(part for part in parts if isinstance(part, Text | Image | Audio | File))
        return Message("tool", (ToolResult(id_, shown, name=given.name),))
    return Message(role, tuple(parts), given.name)


def _parts(content: str | list[dict[str, Any]] | None, path: str) -> list[ContentPart]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    parts: list[ContentPart] = []
    for k, given in enumerate(content):
        read = _PARTS.get(str(given.get("type")))
        if read is None:
            raise InvalidRequest(
                f"Unknown content part `{given.get('type')}`.",
                param=f"{path}[{k}].type",
                fix=f"Use one of {', '.join(_PARTS)}.",
            )
        try:
            parts.append(read(given))
        except (KeyError, TypeError, AttributeError):
            raise InvalidRequest(f"A `{given['type']}` part lacks its content.", param=f"{path}[{k}]") from None
    return parts


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _thought(value: Any) -> str:
    """Mistral's thoughts are a list of text parts, others' a string."""
    return "".join(_string(part["text"]) for part in value) if isinstance(value, list) else _string(value)


def _image(given: dict[str, Any]) -> Image:
    image = given["image_url"]
    url = _string(image if isinstance(image, str) else image["url"])
    detail = None if isinstance(image, str) else image.get("detail")
    if (found := split_data_url(url)) is not None:
        return Image(data=found[1], media_type=found[0], detail=detail)
    return Image(url=url, detail=detail)


def _file(given: dict[str, Any]) -> File:
    file = given["file"]
    data, media_type = file.get("file_data"), None
    if (found := split_data_url(_string(data or file["file_id"]))) is not None:
        media_type, data = found
    return File(data=data, file_id=file.get("file_id"), media_type=media_type, name=file.get("filename"))


_PARTS: dict[str, Callable[[dict[str, Any]], ContentPart]] = {
    "text": lambda given: Text(_string(given["text"])),
    "image_url": _image,
    "input_audio": lambda given: Audio(_string(given["input_audio"]["data"]), _string(given["input_audio"]["format"])),
    "file": _file,
    "refusal": lambda given: Refusal(_string(given["refusal"])),
    # what Mistral and vLLM take back as an assistant's thoughts
    "thinking": lambda given: Reasoning(_thought(given["thinking"])),
}


def _call(given: _Call, path: str) -> ToolCall:
    if given.custom is not None:  # free text is its one argument
        raw = msgspec.json.encode({"input": given.custom.input}).decode()
        return finished_call(given.id, given.custom.name, raw)
    if given.function is None:
        raise InvalidRequest("A call needs its `function`.", param=f"{path}.function")
    arguments = given.function.arguments
    raw = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return finished_call(given.id, given.function.name, raw, signature=call_signature(given.extra_content))


def _tool(given: _Tool, path: str) -> Tool:
    if given.type != "function" or given.function is None:
        raise Unsupported(
            f"A `{given.type}` tool cannot be translated to this model's dialect.",
            param=f"{path}.type",
            fix="Use a function tool.",
        )
    function = given.function
    return Tool(function.name, function.description, function.parameters, function.strict)


def _choice(given: _Request) -> tuple[set[str] | None, ToolChoice | None]:
    """The names of the tools that may be called, None for all, and how they must be."""
    choice = given.tool_choice
    if choice is None and given.function_call is not None:
        old = given.function_call
        choice = old if isinstance(old, str) else {"type": "function", "function": old}
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return None, _tool_choice(choice)
    allowed = choice.get("allowed_tools")
    listed = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(allowed, dict) or not isinstance(listed, list):
        raise InvalidRequest("`allowed_tools` needs its list of tools.", param="tool_choice.allowed_tools.tools")
    functions = [tool.get("function") for tool in listed if isinstance(tool, dict)]
    names = {str(function.get("name")) for function in functions if isinstance(function, dict)}
    return names, _tool_choice(allowed.get("mode", "auto"))


def _tool_choice(given: str | dict[str, Any] | None) -> ToolChoice | None:
    if given is None:
        return None
    if isinstance(given, str):
        modes: dict[str, ToolChoice] = {
            "auto": ToolChoice("auto"),
            "required": ToolChoice("any"),
            "any": ToolChoice("any"),
            "none": ToolChoice("none"),
        }
        if given in modes:
            return modes[given]
    elif given.get("type") == "function" and isinstance(given.get("function"), dict) and given["function"].get("name"):
        return ToolChoice("tool", str(given["function"]["name"]))
    raise Unsupported(
        "This `tool_choice` cannot be translated to this model's dialect.",
        param="tool_choice",
        fix='Use "auto", "required", "none" or a named function.',
    )


def _output(given: _Format | None) -> OutputFormat | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return OutputFormat("json")
    if given.type == "json_schema" and given.json_schema is not None:
        schema = given.json_schema
        return OutputFormat("schema", schema.schema, schema.name, schema.strict)
    raise InvalidRequest(f"Unknown response format `{given.type}`.", param="response_format.type")
