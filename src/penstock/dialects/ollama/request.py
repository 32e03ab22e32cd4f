"""Ollama requests from a client, `/api/chat` and `/api/generate`: read at the top level, forwarded, parsed whole.

`stream` is true unless it is said. A caller's mistake raises `InvalidRequest` with the field's path; what no other
dialect can say raises `Unsupported`; server options (`keep_alive`, `num_ctx`) are extras.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Text
from penstock.canon.request import ChatRequest, Message, OutputFormat, Tool
from penstock.dialects.base import RequestHead, decode_body, load_extras
from penstock.dialects.ollama.messages import GivenMessage, image, read_messages
from penstock.dialects.ollama.wire import OWN


class _Shape(msgspec.Struct):
    """The top level of a request, for its types alone: what is below is the upstream's to judge."""

    model: str
    messages: list[msgspec.Raw] | None = None
    prompt: str | None = None
    stream: bool | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    function: _Function
    type: str = "function"


class _Options(msgspec.Struct):
    """Whole numbers may be written with a point, as Ollama's own server takes them."""

    num_predict: int | float | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | float | None = None
    seed: int | float | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[GivenMessage] | None = None
    prompt: str | None = None
    system: str | None = None
    images: list[str] | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: _Options | None = None
    tools: list[_Tool] | None = None
    think: bool | str | None = None


_shape = msgspec.json.Decoder(_Shape)
_request = msgspec.json.Decoder(_Request)
_KNOWN = frozenset(_Request.__struct_fields__)
_KNOWN_OPTIONS = frozenset(_Options.__struct_fields__)
#: what only a server with the model's template at hand can do
_OWN_FORMS = ("suffix", "template", "context", "raw")


def read_head(body: bytes, path: str = "") -> RequestHead:
    shape = decode_body(_shape, body)
    return RequestHead(shape.model, shape.stream is not False, True, body)


def parse_request(body: bytes, path: str = "", *, generate: bool = False) -> ChatRequest:
    given = decode_body(_request, body)
    for name in _OWN_FORMS:
        if getattr(given, name):
            raise Unsupported(
                f"`{name}` cannot be translated to this model's dialect.", param=name, fix="Leave it out."
            )
    options = given.options or _Options()
    said = load_extras(body)
    extras = {key: value for key, value in said.items() if key not in _KNOWN and value is not None}
    own_options = {key: value for key, value in (said.get("options") or {}).items() if key not in _KNOWN_OPTIONS}
    if own_options:
        extras["options"] = own_options
    limit = _whole(options.num_predict)
    return ChatRequest(
        model=given.model,
        messages=_prompt(given) if generate else _messages(given),
        stream=given.stream is not False,
        include_usage=True,
        max_tokens=limit if limit is not None and limit > 0 else None,  # 0, -1 and -2 are no limit
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=_whole(options.top_k),
        stop=(options.stop,) if isinstance(options.stop, str) else tuple(options.stop or ()),
        seed=_whole(options.seed),
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        tools=() if generate else tuple(_tool(tool, f"tools[{k}]") for k, tool in enumerate(given.tools or ())),
        reasoning_effort=_effort(given.think),
        output=_output(given.format),
        extras={OWN: extras} if extras else {},
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _prompt(given: _Request) -> tuple[Message, ...]:
    if not given.prompt:
        raise InvalidRequest("`prompt` is empty.", param="prompt", fix="Say something.")
    system = [Message.of("system", given.system)] if given.system else []
    return (*system, Message("user", (Text(given.prompt), *map(image, given.images or ()))))


def _messages(given: _Request) -> tuple[Message, ...]:
    if not given.messages:
        raise InvalidRequest("`messages` is empty.", param="messages", fix="Send at least one message.")
    return read_messages(given.messages)


def _tool(given: _Tool, path: str) -> Tool:
    if given.type != "function":
        raise Unsupported(f"A `{given.type}` tool is not known.", param=f"{path}.type", fix="Use a function tool.")
    return Tool(given.function.name, given.function.description, given.function.parameters)


def _effort(think: bool | str | None) -> str | None:
    if isinstance(think, bool):
        return "medium" if think else "none"
    return think or None


def _output(format_: str | dict[str, Any] | None) -> OutputFormat | None:
    if not format_:
        return None
    if isinstance(format_, dict):
        return OutputFormat("schema", format_)
    if format_ == "json":
        return OutputFormat("json")
    raise InvalidRequest(f"Unknown format `{format_}`.", param="format", fix='Use "json" or a JSON schema.')
