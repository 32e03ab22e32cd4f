"""Our request → an OpenAI chat body. Unset fields are not sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolChoice, ToolResult
from penstock.dialects.base import foreign_extras

if TYPE_CHECKING:
    from penstock.canon.target import Target


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        messages += _messages(message)
    body: dict[str, Any] = {"model": target.model or request.model, "messages": messages}
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    # Most servers of this dialect know `max_tokens` alone; OpenAI's own reasoning models refuse it.
    limit = "max_completion_tokens" if target.profile == "openai" else "max_tokens"
    simple = {
        limit: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k if target.profile != "openai" else None,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "reasoning_effort": request.reasoning_effort or _effort(request.reasoning_budget),
        "user": request.user,
    }
    body.update({key: value for key, value in simple.items() if value is not None})
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": _without_none(
                    name=tool.name,
                    description=tool.description,
                    parameters=tool.parameters or {"type": "object", "properties": {}},
                    strict=tool.strict,
                ),
            }
            for tool in request.tools
        ]
    if request.tool_choice is not None and request.tools:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.output is not None:
        output = request.output
        body["response_format"] = (
            {"type": "json_object"}
            if output.kind == "json"
            else {
                "type": "json_schema",
                "json_schema": _without_none(name=output.name or "reply", schema=output.schema, strict=output.strict),
            }
        )
    body.update(request.extras.get("openai-chat", {}))
    dropped = foreign_extras(request, "openai-chat")
    if target.profile == "openai" and request.top_k is not None:
        dropped.append("top_k")
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _messages(message: Message) -> list[dict[str, Any]]:
    """One of ours may be several of theirs: every tool result is a message of its own, before the rest of its turn."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    rest: list[ContentPart] = [part for part in message.parts if not isinstance(part, ToolResult)]
    written: list[dict[str, Any]] = []
    shown: list[ContentPart] = []
    for result in results:
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        written.append(
            {
                "role": "tool",
                "tool_call_id": result.id,
                # This wire has no field for a tool's failure.
                "content": f"Error: {text}" if result.is_error else text,
            }
        )
        shown += [part for part in result.parts if not isinstance(part, Text)]
    if shown:  # a tool message holds text alone: what it showed comes as the user's
        rest = [*shown, *rest]
    if not rest and results:
        return written
    role = "user" if message.role == "tool" else message.role
    written.append(_assistant(rest) if role == "assistant" else _plain(role, rest, message.name))
    return written


def _plain(role: str, parts: list[ContentPart], name: str | None) -> dict[str, Any]:
    content = [written for part in parts if (written := _part(part)) is not None]
    only_text = all(part["type"] == "text" for part in content)
    message: dict[str, Any] = {"role": role}
    if only_text and (len(content) <= 1 or role == "system"):
        message["content"] = "\n\n".join(part["text"] for part in content)
    else:
        message["content"] = content
    if name:
        message["name"] = name
    return message


def _assistant(parts: list[ContentPart]) -> dict[str, Any]:
    text = "".join(part.text for part in parts if isinstance(part, Text))
    calls = [part for part in parts if isinstance(part, ToolCall)]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    refusals = [part.text for part in parts if isinstance(part, Refusal)]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.raw or "{}"}}
            for call in calls
        ]
    if refusals:
        message["refusal"] = "".join(refusals)
    details = [detail for part in thoughts for detail in part.details]
    if details:  # OpenRouter wants them back as they were; a thought without them has nothing to prove and stays here
        message["reasoning_details"] = details
    return message


def _part(part: ContentPart) -> dict[str, Any] | None:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            url = part.url or f"data:{part.media_type or 'image/png'};base64,{part.data}"
            return {"type": "image_url", "image_url": _without_none(url=url, detail=part.detail)}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case File(text=str() as text):
            return {"type": "text", "text": text}
        case File(url=str()):
            raise Unsupported("This dialect takes no document by URL.", fix="Send the document's bytes.")
        case File(data=None, file_id=str() as id_) if id_.startswith("file_"):  # Anthropic's form; OpenAI's is file-…
            raise Unsupported(
                "A file is known only to the provider that it was given to.", fix="Send the file's bytes."
            )
        case File():
            data = f"data:{part.media_type or 'application/pdf'};base64,{part.data}" if part.data else None
            return {"type": "file", "file": _without_none(file_data=data, file_id=part.file_id, filename=part.name)}
    return None


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.mode == "any" else choice.mode


def _effort(budget: int | None) -> str | None:
    """A token budget → the nearest word (no standard says it)."""
    if budget is None:
        return None
    for limit, word in ((0, "none"), (1024, "minimal"), (4096, "low"), (8192, "medium")):
        if budget <= limit:
            return word
    return "high"


def _without_none(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
