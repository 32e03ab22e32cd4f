"""Gemini requests from a client: read at the top level, parsed whole.

The model and the verb are in the path. A caller's mistake raises `InvalidRequest` with the field's path; what no other
dialect can say raises `Unsupported`. Nothing that changes meaning is dropped in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Text
from penstock.canon.request import ChatRequest, Message, OutputFormat, Tool, ToolChoice
from penstock.dialects.base import RequestHead, decode_body
from penstock.dialects.gemini.contents import Contents, GivenContent, system_texts
from penstock.dialects.gemini.path import canonical_path, read_path
from penstock.dialects.gemini.schema import json_schema
from penstock.dialects.gemini.spelling import in_camel_case
from penstock.dialects.gemini.wire import OWN

if TYPE_CHECKING:
    from collections.abc import Mapping

#: the name under which `ChatRequest.extras` holds what only this dialect says
EXTRAS = OWN

_Raw = msgspec.Raw


class _Shape(msgspec.Struct):
    """The top level of a request, for its types alone: what is below is the upstream's to judge."""

    contents: list[_Raw]
    tools: list[_Raw] | None = None


class _Declaration(msgspec.Struct, rename="camel"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class _CallingConfig(msgspec.Struct, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfig(msgspec.Struct, rename="camel"):
    function_calling_config: _CallingConfig | None = None


class _Thinking(msgspec.Struct, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class _Generation(msgspec.Struct, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_modalities: list[str] | None = None
    thinking_config: _Thinking | None = None


class _Request(msgspec.Struct, rename="camel"):
    contents: list[GivenContent]
    system_instruction: GivenContent | str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _Generation | None = None
    cached_content: str | None = None
    continuation_token: str | None = None


class _Whole:
    """A body in either spelling → its struct and all of its members; fails as msgspec's own decoder does."""

    @staticmethod
    def decode(body: bytes) -> tuple[_Request, dict[str, Any]]:
        members = in_camel_case(msgspec.json.decode(body))
        return msgspec.convert(members, _Request), members


_shape = msgspec.json.Decoder(_Shape)
_whole = cast("msgspec.json.Decoder[tuple[_Request, dict[str, Any]]]", _Whole())
_KNOWN = frozenset(_Request.__struct_encode_fields__)
_KNOWN_GENERATION = frozenset(_Generation.__struct_encode_fields__)


def read_head(body: bytes, path: str = "") -> RequestHead:
    model, stream, sse = read_path(path)
    _check(decode_body(_shape, body).contents)
    return RequestHead(model, stream, True, body, canonical_path(model, stream, sse))


def _check(contents: list[Any]) -> None:
    if not contents:
        raise InvalidRequest("`contents` is empty.", param="contents", fix="Send at least one content.")


def parse_request(body: bytes, path: str = "") -> ChatRequest:
    model, stream, _ = read_path(path)
    given, members = decode_body(_whole, body)
    _check(given.contents)
    for name, held in (("cachedContent", given.cached_content), ("continuationToken", given.continuation_token)):
        if held:
            raise Unsupported(
                f"What `{name}` stands for is known only to the provider that holds it.",
                param=name,
                fix="Send the contents themselves.",
            )
    contents = Contents()
    for k, content in enumerate(given.contents):
        contents.add(content, f"contents[{k}]")
    system = system_texts(given.system_instruction)
    generation = given.generation_config or _Generation()
    _refuse_what_is_not_text(generation)
    tools, choice = _tools(given)
    effort, budget = _reasoning(generation.thinking_config)
    return ChatRequest(
        model=model,
        messages=(*((Message("system", tuple(Text(text) for text in system)),) if system else ()), *contents.messages),
        stream=stream,
        include_usage=True,
        max_tokens=generation.max_output_tokens,
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=None if generation.top_k is None else int(generation.top_k),
        stop=tuple(generation.stop_sequences or ()),
        seed=generation.seed,
        presence_penalty=generation.presence_penalty,
        frequency_penalty=generation.frequency_penalty,
        tools=tools,
        tool_choice=choice,
        reasoning_effort=effort,
        reasoning_budget=budget,
        output=_output(generation),
        extras={EXTRAS: extras} if (extras := _extras(members)) else {},
    )


def _extras(members: Mapping[str, Any]) -> dict[str, Any]:
    """What has no name of ours, by its path: `safetySettings`, `generationConfig.logprobs`."""
    extras = {name: value for name, value in members.items() if name not in _KNOWN}
    generation = members.get("generationConfig") or {}
    for name, value in generation.items():
        if name not in _KNOWN_GENERATION:
            extras[f"generationConfig.{name}"] = value
    return {name: value for name, value in extras.items() if value is not None}


def _refuse_what_is_not_text(given: _Generation) -> None:
    if (given.candidate_count or 1) > 1:
        raise Unsupported(
            "More than one candidate cannot be asked of this model's dialect.",
            param="generationConfig.candidateCount",
            fix="Ask once for each.",
        )
    for k, modality in enumerate(given.response_modalities or ()):
        if modality.upper() not in ("TEXT", "MODALITY_UNSPECIFIED"):
            raise Unsupported(
                f"This model's dialect answers in text, not in `{modality}`.",
                param=f"generationConfig.responseModalities[{k}]",
                fix="Ask a model of Google's.",
            )


def _tools(given: _Request) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """The functions that may be called. A list of allowed ones leaves only those."""
    tools: list[Tool] = []
    for k, tool in enumerate(given.tools or ()):
        for name, value in tool.items():
            if name != "functionDeclarations" and value is not None:
                raise Unsupported(
                    f"The tool `{name}` is Google's own and cannot be translated.",
                    param=f"tools[{k}].{name}",
                    fix="Leave it out, or ask a model of Google's.",
                )
        declarations = tool.get("functionDeclarations")
        tools += _declared([] if declarations is None else declarations, f"tools[{k}].functionDeclarations")
    config = given.tool_config.function_calling_config if given.tool_config else None
    if config is None:
        return tuple(tools), None
    choice = _choice(config)
    allowed = config.allowed_function_names
    if not allowed:
        return tuple(tools), choice
    if choice is not None and choice.mode == "any" and len(allowed) == 1:
        return tuple(tools), ToolChoice("tool", allowed[0])
    return tuple(tool for tool in tools if tool.name in allowed), choice


def _declared(given: Any, path: str) -> list[Tool]:
    try:
        declarations = msgspec.convert(given, list[_Declaration])
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        where = path + at.rstrip("`")
        raise InvalidRequest(f"{message.rstrip('.')} at `{where}`.", param=where) from error
    return [
        Tool(
            each.name,
            each.description,
            json_schema(each.parameters) if each.parameters_json_schema is None else each.parameters_json_schema,
        )
        for each in declarations
    ]


def _choice(given: _CallingConfig) -> ToolChoice | None:
    match (given.mode or "MODE_UNSPECIFIED").upper():
        case "MODE_UNSPECIFIED":
            return None
        case "AUTO" | "VALIDATED":
            return ToolChoice("auto")
        case "ANY":
            return ToolChoice("any")
        case "NONE":
            return ToolChoice("none")
    raise InvalidRequest(
        f"Unknown mode `{given.mode}`.",
        param="toolConfig.functionCallingConfig.mode",
        fix="Use AUTO, ANY, NONE or VALIDATED.",
    )


def _reasoning(given: _Thinking | None) -> tuple[str | None, int | None]:
    """Effort and budget. A budget of -1 leaves it to the model, as none does."""
    if given is None:
        return None, None
    level = (given.thinking_level or "").lower()
    effort = level if level not in ("", "thinking_level_unspecified") else None
    if given.thinking_budget == 0:
        return "none", None
    return effort, given.thinking_budget if (given.thinking_budget or -1) > 0 else None


def _output(given: _Generation) -> OutputFormat | None:
    schema = given.response_json_schema
    if schema is None and given.response_schema is not None:
        schema = json_schema(given.response_schema)
    match given.response_mime_type or "text/plain":
        case "text/plain" if schema is None:
            return None
        case "text/plain" | "application/json":
            return OutputFormat("json") if schema is None else OutputFormat("schema", schema)
    raise Unsupported(
        f"This model's dialect does not answer as `{given.response_mime_type}`.",
        param="generationConfig.responseMimeType",
        fix="Ask for text/plain or application/json.",
    )
