"""Our request → a Cohere v2 chat body. Unset fields are not sent.

A named tool is asked for by offering it alone and demanding a call; audio and documents that are no text are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolResult
from penstock.dialects.base import foreign_extras
from penstock.dialects.cohere.wire import OWN
from penstock.dialects.mapping import budget_of, image_url, without_none

if TYPE_CHECKING:
    from penstock.canon.target import Target


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    dropped = foreign_extras(request, OWN)
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        messages += _messages(message, dropped)
    body: dict[str, Any] = {
        "model": target.model or request.model,
        "messages": messages,
        "stream": request.stream,
        **without_none(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            p=request.top_p,
            k=request.top_k,
            stop_sequences=list(request.stop) or None,
            seed=request.seed,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
        ),
    }
    _add_tools(request, body)
    if request.output is not None:
        schema = {"json_schema": request.output.schema} if request.output.schema else {}
        body["response_format"] = {"type": "json_object", **schema}
    budget = budget_of(request)
    if budget is not None:
        body["thinking"] = {"type": "enabled", "token_budget": budget} if budget > 0 else {"type": "disabled"}
    for name in ("user", "parallel_tool_calls"):
        if getattr(request, name) is not None:
            dropped.append(name)
    body.update(request.extras.get(OWN, {}))
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _add_tools(request: ChatRequest, body: dict[str, Any]) -> None:
    if not request.tools:
        return
    choice = request.tool_choice
    named = choice.name if choice is not None and choice.mode == "tool" else None
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
        if named is None or tool.name == named
    ]
    if choice is not None and choice.mode != "auto":
        body["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"
    if any(tool.strict for tool in request.tools):
        body["strict_tools"] = True


def _messages(message: Message, dropped: list[str]) -> list[dict[str, Any]]:
    """One of ours may be several of theirs: every tool result is a message of its own, before the rest of its turn."""
    written: list[dict[str, Any]] = []
    rest: list[ContentPart] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            text = "".join(shown.text for shown in part.parts if isinstance(shown, Text))
            # This wire has no field for a tool's failure.
            said = f"Error: {text}" if part.is_error else text
            written.append({"role": "tool", "tool_call_id": part.id, "content": said})
            rest += [shown for shown in part.parts if not isinstance(shown, Text)]
        else:
            rest.append(part)
    if rest or not written:
        role = "user" if message.role == "tool" else message.role
        written.append(_assistant(rest, dropped) if role == "assistant" else _plain(role, rest, message.name))
    return written


def _assistant(parts: list[ContentPart], dropped: list[str]) -> dict[str, Any]:
    text = "".join(part.text for part in parts if isinstance(part, Text | Refusal))
    calls = [part for part in parts if isinstance(part, ToolCall) and not part.server]
    thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
    message: dict[str, Any] = {"role": "assistant"}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.raw or "{}"}}
            for call in calls
        ]
        if thought or text:
            message["tool_plan"] = thought or text
    elif thought:
        dropped.append("reasoning")
    if text or not calls:
        message["content"] = text
    return message


def _plain(role: str, parts: list[ContentPart], name: str | None) -> dict[str, Any]:
    content = [_part(part) for part in parts]
    if name and role == "user":
        content.insert(0, {"type": "text", "text": f"{name}:"})
    if all(part["type"] == "text" for part in content):
        return {"role": role, "content": "\n\n".join(part["text"] for part in content)}
    return {"role": role, "content": content}


def _part(part: ContentPart) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case File(text=str() as text):
            return {"type": "text", "text": text}
        case Image():
            return {"type": "image_url", "image_url": {"url": image_url(part)}}
        case Audio() | File():
            kind = "audio" if isinstance(part, Audio) else "document of this kind"
            raise Unsupported(f"Cohere takes no {kind}.", fix="Send its text.")
    raise Unsupported(f"Cohere takes no {type(part).__name__.lower()} in a user's message.")
