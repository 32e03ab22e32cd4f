"""Our request → a Responses body. Unset fields are not sent; nothing is stored at the provider.

Stop sequences have no place on this wire and change the meaning, so they are refused; sampling knobs that it does not
have are left out and named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolResult
from penstock.dialects.base import foreign_extras
from penstock.dialects.mapping import effort_of, image_url, without_none
from penstock.dialects.openai_responses.wire import OWN, split_thought_signature

if TYPE_CHECKING:
    from penstock.canon.target import Target


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    if request.stop:
        raise Unsupported(
            "The model's dialect (openai-responses) has no stop sequences.",
            param="stop",
            fix="Leave it out, or ask the model by openai-chat.",
        )
    unknown = ("top_k", "seed", "presence_penalty", "frequency_penalty")
    dropped = [name for name in unknown if getattr(request, name) is not None]
    system: list[str] = []
    items: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "system" and not items:
            system += [part.text for part in message.parts if isinstance(part, Text)]
        else:
            items += _items(message, dropped)
    effort = effort_of(request)
    body: dict[str, Any] = {
        "model": target.model or request.model,
        "input": items,
        "store": False,
        **without_none(
            instructions="\n\n".join(system) or None,
            stream=request.stream or None,
            max_output_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            parallel_tool_calls=request.parallel_tool_calls if request.tools else None,
            user=request.user,
        ),
    }
    if effort is not None:
        body["reasoning"] = {"effort": effort} if effort == "none" else {"effort": effort, "summary": "auto"}
    if (effort is not None and effort != "none") or any(item["type"] == "reasoning" for item in items):
        body["include"] = ["reasoning.encrypted_content"]
    _add_tools(request, body)
    if request.output is not None:
        output = request.output
        named = without_none(
            type="json_schema", name=output.name or "reply", schema=output.schema, strict=output.strict
        )
        body["text"] = {"format": {"type": "json_object"} if output.kind == "json" else named}
    dropped += foreign_extras(request, OWN)
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _add_tools(request: ChatRequest, body: dict[str, Any]) -> None:
    if not request.tools:
        return
    body["tools"] = [
        {
            "type": "function",
            "name": tool.name,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
            "strict": bool(tool.strict),
            **without_none(description=tool.description),
        }
        for tool in request.tools
    ]
    choice = request.tool_choice
    if choice is not None:
        named = {"type": "function", "name": choice.name}
        body["tool_choice"] = named if choice.mode == "tool" else "required" if choice.mode == "any" else choice.mode


def _items(message: Message, dropped: list[str]) -> list[dict[str, Any]]:
    """One of ours may be several of theirs: calls, results and thoughts are items of their own."""
    items: list[dict[str, Any]] = []
    role = "user" if message.role == "tool" else message.role
    content: list[dict[str, Any]] = []

    def said() -> None:
        if content:
            items.append({"type": "message", "role": role, "content": list(content)})
            content.clear()

    for part in message.parts:
        match part:
            case ToolResult():
                said()
                items.append({"type": "function_call_output", "call_id": part.id, "output": _shown(part)})
            case ToolCall():
                said()
                if not part.server:  # what another provider executed means nothing here
                    call = {"call_id": part.id, "name": part.name, "arguments": part.raw or "{}"}
                    items.append({"type": "function_call", **call})
            case Reasoning():
                said()
                thought = _thought(part)
                if thought is None:
                    dropped.append("reasoning")
                else:
                    items.append(thought)
            case _:
                content.append(_part(part, role))
    said()
    return items


def _thought(part: Reasoning) -> dict[str, Any] | None:
    """Only this provider's own thoughts may come back."""
    if part.signed_by != OWN or not part.signature:
        return None
    id_, encrypted = split_thought_signature(part.signature)
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    return {"type": "reasoning", "summary": summary, "encrypted_content": encrypted, **without_none(id=id_)}


def _shown(result: ToolResult) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in result.parts):
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        # This wire has no field for a tool's failure.
        return f"Error: {text}" if result.is_error else text
    shown = [_part(part, "user") for part in result.parts]
    return [{"type": "input_text", "text": "Error:"}, *shown] if result.is_error else shown


def _part(part: ContentPart, role: str) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Image() if role != "assistant":
            return {"type": "input_image", "image_url": image_url(part), "detail": part.detail or "auto"}
        case Audio() if role != "assistant":
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case File(text=str() as text):
            return {"type": "input_text", "text": text}
        case File(data=None, url=None, file_id=str() as id_) if id_.startswith("file_"):  # OpenAI's own is file-…
            raise Unsupported(
                "A file is known only to the provider that it was given to.", fix="Send the file's bytes."
            )
        case File() if role != "assistant":
            data = f"data:{part.media_type or 'application/pdf'};base64,{part.data}" if part.data else None
            return {
                "type": "input_file",
                **without_none(file_data=data, file_url=part.url, file_id=part.file_id, filename=part.name),
            }
    raise Unsupported(f"This dialect takes no {type(part).__name__.lower()} in an assistant's message.")
