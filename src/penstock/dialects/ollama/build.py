"""Our request → a body for `/api/chat`. Unset fields are not sent.

What this wire cannot express and what would change the meaning raises `Unsupported`: a tool that must be called, an
image by its URL, audio, documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolResult
from penstock.dialects.base import call_names, foreign_extras
from penstock.dialects.mapping import effort_of, image_bytes, without_none
from penstock.dialects.ollama.wire import OWN

if TYPE_CHECKING:
    from penstock.canon.target import Target

#: our words for effort → Ollama's
_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    dropped = foreign_extras(request, OWN)
    names = call_names(request)
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        messages += _messages(message, names, dropped)
    body: dict[str, Any] = {
        "model": target.model or request.model,
        "messages": messages,
        "stream": request.stream,
    }
    own = dict(request.extras.get(OWN, {}))
    options = {
        **own.pop("options", {}),
        **without_none(
            num_predict=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
            stop=list(request.stop) or None,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
        ),
    }
    if options:
        body["options"] = options
    if request.output is not None:
        body["format"] = "json" if request.output.kind == "json" else request.output.schema or {"type": "object"}
    if (think := _think(request)) is not None:
        body["think"] = think
    _add_tools(request, body, dropped)
    if request.user is not None:
        dropped.append("user")
    return msgspec.json.encode({**body, **own}), tuple(dict.fromkeys(dropped))


def _think(request: ChatRequest) -> bool | str | None:
    effort = effort_of(request)
    return None if effort is None else _THINK.get(effort, True)


def _add_tools(request: ChatRequest, body: dict[str, Any], dropped: list[str]) -> None:
    choice = request.tool_choice
    if choice is not None and choice.mode in ("any", "tool") and request.tools:
        raise Unsupported(
            "Ollama cannot be made to call a tool.",
            param="tool_choice",
            fix='Use "auto", and ask for it in the prompt.',
        )
    if not request.tools or (choice is not None and choice.mode == "none"):
        return
    body["tools"] = [
        {
            "type": "function",
            "function": without_none(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters or {"type": "object", "properties": {}},
            ),
        }
        for tool in request.tools
    ]
    if request.parallel_tool_calls is not None:
        dropped.append("parallel_tool_calls")
    if any(tool.strict for tool in request.tools):
        dropped.append("strict")


def _messages(message: Message, names: dict[str, str], dropped: list[str]) -> list[dict[str, Any]]:
    """One of ours may be several of theirs: every tool result is a message of its own, before the rest of its turn."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    rest: list[ContentPart] = [part for part in message.parts if not isinstance(part, ToolResult)]
    written = [_result(result, names) for result in results]
    if rest or not results:
        written.append(_plain("user" if message.role == "tool" else message.role, rest, message.name, dropped))
    return written


def _result(result: ToolResult, names: dict[str, str]) -> dict[str, Any]:
    shown = _plain("tool", list(result.parts), None, [])
    if result.is_error:  # this wire has no field for a tool's failure
        shown["content"] = f"Error: {shown['content']}"
    name = result.name or names.get(result.id)
    return {**shown, **without_none(tool_name=name, tool_call_id=result.id or None)}


def _plain(role: str, parts: list[ContentPart], name: str | None, dropped: list[str]) -> dict[str, Any]:
    texts: list[str] = [f"{name}:"] if name and role == "user" else []
    images: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in parts:
        match part:
            case Text() | Refusal():
                texts.append(part.text)
            case File(text=str() as text):
                texts.append(text)
            case Image():
                images.append(_image(part))
            case Reasoning(signed_by=str() as owner) if owner != OWN:
                dropped.append("reasoning")
            case Reasoning():
                thoughts.append(part.text)
            case ToolCall():
                calls.append(_call(part))
            case Audio() | File():
                kind = "audio" if isinstance(part, Audio) else "document"
                raise Unsupported(f"Ollama takes no {kind}.", fix="Send its text.")
    message: dict[str, Any] = {"role": role, "content": ("" if role == "assistant" else "\n\n").join(texts)}
    if images:
        message["images"] = images
    if thought := "".join(thoughts):
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = {"_raw": call.raw} if call.arguments is None else call.arguments
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _image(image: Image) -> str:
    found = image_bytes(image)
    if found is not None:
        return found[1]
    raise Unsupported("Ollama fetches no images.", fix="Send the image's bytes.")
