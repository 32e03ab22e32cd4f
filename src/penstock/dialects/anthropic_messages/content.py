"""The content of a client's messages → our parts: blocks of every kind that another dialect can say, too.

What no other dialect can say raises `Unsupported`, a mistake `InvalidRequest` with the field's path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import ContentPart, File, Image, Message, ToolResult
from penstock.dialects.anthropic_messages.wire import OWN
from penstock.dialects.signatures import split_id, unmarked, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable


class Source(msgspec.Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: str | list[Block] | None = None


class Block(msgspec.Struct):
    """Any content block: the members that we translate, whichever the block is."""

    type: str
    text: str | None = None
    citations: Any = None
    source: Source | str | None = None
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: str | list[Block] | dict[str, Any] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class GivenMessage(msgspec.Struct):
    role: str
    content: str | list[Block]


def read_system(given: str | list[Block], path: str) -> list[Text]:
    if isinstance(given, str):
        return [Text(given)]
    return [Text(need(block.text, f"{path}[{k}].text")) for k, block in enumerate(given)]


def read_messages(given: GivenMessage, path: str, names: dict[str, str]) -> list[Message]:
    """One of theirs may be two of ours: the tool results of a user turn come before what the user says."""
    content = [Block("text", text=given.content)] if isinstance(given.content, str) else given.content
    path_of = [path + ".content" + ("" if isinstance(given.content, str) else f"[{k}]") for k in range(len(content))]
    if given.role == "system":
        return [Message("system", tuple(read_system(given.content, f"{path}.content")))]
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


def _part(block: Block, path: str) -> ContentPart:
    read = _PARTS.get(block.type)
    if read is None:
        raise Unsupported(
            f"A `{block.type}` block cannot be translated to this model's dialect.",
            param=f"{path}.type",
            fix="Leave it out, or ask a model of Anthropic's.",
        )
    return read(block, path)


def need(value: str | None, path: str) -> str:
    if value is None:
        raise InvalidRequest(f"`{path}` is missing.", param=path)
    return value


def _text(block: Block, path: str) -> Text:
    citations = block.citations if isinstance(block.citations, list) else ()
    return Text(need(block.text, f"{path}.text"), tuple(citations))


def _source(block: Block, path: str) -> Source:
    if not isinstance(block.source, Source):
        raise InvalidRequest(f"`{path}.source` must be an object.", param=f"{path}.source")
    return block.source


def _image(block: Block, path: str) -> Image:
    source = _source(block, path)
    match source.type:
        case "base64":
            data = need(source.data, f"{path}.source.data")
            return Image(data=data, media_type=need(source.media_type, f"{path}.source.media_type"))
        case "url":
            return Image(url=need(source.url, f"{path}.source.url"))
    raise Unsupported(
        f"An image from a `{source.type}` source cannot be translated to this model's dialect.",
        param=f"{path}.source.type",
        fix="Send its bytes.",
    )


def _document(block: Block, path: str) -> File:
    source, name = _source(block, path), block.title
    match source.type:
        case "base64":
            data = need(source.data, f"{path}.source.data")
            return File(data=data, media_type=source.media_type or "application/pdf", name=name)
        case "text":
            return File(text=need(source.data, f"{path}.source.data"), media_type="text/plain", name=name)
        case "url":
            return File(url=need(source.url, f"{path}.source.url"), name=name)
        case "file":
            return File(file_id=need(source.file_id, f"{path}.source.file_id"), name=name)
        case "content":
            return File(text=_joined(source.content, f"{path}.source.content"), media_type="text/plain", name=name)
    raise InvalidRequest(f"Unknown source `{source.type}`.", param=f"{path}.source.type")


def _search_result(block: Block, path: str) -> File:
    name = block.title or (block.source if isinstance(block.source, str) else None)
    return File(text=_joined(block.content, f"{path}.content"), media_type="text/plain", name=name)


def _joined(content: str | list[Block] | dict[str, Any] | None, path: str) -> str:
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
        texts.append(need(block.text, f"{path}[{k}].text"))
    return "\n".join(texts)


def _tool_use(block: Block, path: str) -> ToolCall:
    given = {} if block.input is None else block.input
    if not isinstance(given, dict):
        raise InvalidRequest(f"`{path}.input` must be an object.", param=f"{path}.input")
    id_, name = need(block.id, f"{path}.id"), need(block.name, f"{path}.name")
    id_, signature = split_id(id_)
    return ToolCall(id_, name, msgspec.json.encode(given).decode(), given, signature=signature)


def _tool_result(block: Block, path: str) -> ToolResult:
    id_, content = split_id(need(block.tool_use_id, f"{path}.tool_use_id"))[0], block.content
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


def _thinking(block: Block, path: str) -> Reasoning:
    text = need(block.thinking, f"{path}.thinking")
    if not block.signature:
        return Reasoning(text)
    signature, owner = unmarked(block.signature, OWN)
    if owner != OWN and (details := unpacked(signature)) is not None:
        return Reasoning(text, details=details, signed_by=owner)
    return Reasoning(text, signature, signed_by=owner)


def _redacted(block: Block, path: str) -> Reasoning:
    data, owner = unmarked(need(block.data, f"{path}.data"), OWN)
    return Reasoning("", redacted=data, signed_by=owner)


_PARTS: dict[str, Callable[[Block, str], ContentPart]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}
