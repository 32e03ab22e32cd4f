"""Our request → an OpenAI chat body. Unset fields are not sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolChoice, ToolResult
from penstock.dialects.base import foreign_extras
from penstock.dialects.mapping import effort_of, image_url, without_none
from penstock.dialects.openai_chat.encode import written_call
from penstock.dialects.openai_chat.profiles import Profile, profile_of

if TYPE_CHECKING:
    from penstock.canon.target import Target


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out. What the server takes is its profile's to say."""
    profile = profile_of(target.profile)
    dropped = foreign_extras(request, "openai-chat")
    writer = _Writer(profile, dropped)
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        messages += writer.messages(message)
    body: dict[str, Any] = {"model": target.model or request.model, "messages": messages}
    if request.stream:
        body["stream"] = True
        if profile.stream_options:
            body["stream_options"] = {"include_usage": True}
    _add_knobs(request, profile, body, dropped)
    _add_reasoning(request, profile, body, dropped)
    _add_tools(request, profile, body, dropped)
    _add_output(request, profile, body)
    body.update(request.extras.get("openai-chat", {}))
    body.update(profile.fields)
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _add_knobs(request: ChatRequest, profile: Profile, body: dict[str, Any], dropped: list[str]) -> None:
    temperature = request.temperature
    if temperature is not None and profile.max_temperature is not None:
        temperature = min(temperature, profile.max_temperature)
    knobs: list[tuple[str, str | None, Any]] = [  # ours, theirs, the value
        ("max_tokens", profile.limit, request.max_tokens),
        ("temperature", "temperature", temperature),
        ("top_p", "top_p", request.top_p),
        ("top_k", "top_k" if profile.top_k else None, request.top_k),
        ("stop", "stop", list(request.stop) or None),
        ("seed", profile.seed, request.seed),
        ("presence_penalty", "presence_penalty" if profile.penalties else None, request.presence_penalty),
        ("frequency_penalty", "frequency_penalty" if profile.penalties else None, request.frequency_penalty),
        ("user", "user" if profile.user else None, request.user),
    ]
    for ours, theirs, value in knobs:
        if value is None:
            continue
        if theirs is None:
            dropped.append(ours)
        else:
            body[theirs] = value


def _add_reasoning(request: ChatRequest, profile: Profile, body: dict[str, Any], dropped: list[str]) -> None:
    budget = request.reasoning_budget
    effort = effort_of(request)
    if effort is None:
        return
    is_on = effort != "none"
    match profile.reasoning:
        case "effort":
            body["reasoning_effort"] = effort
        case "reasoning":
            limit = {"max_tokens": budget} if budget else {"effort": effort}
            body["reasoning"] = limit if is_on else {"enabled": False}
        case "thinking":
            body["thinking"] = {"type": "enabled" if is_on else "disabled"}
        case "enable_thinking":
            body["enable_thinking"] = is_on
            if budget:
                body["thinking_budget"] = budget
        case "template":
            body["chat_template_kwargs"] = {"enable_thinking": is_on}
        case None:
            dropped.append("reasoning_effort")


def _add_tools(request: ChatRequest, profile: Profile, body: dict[str, Any], dropped: list[str]) -> None:
    if not request.tools:
        return
    choice = request.tool_choice
    if choice is not None and choice.mode == "none" and not (profile.tool_choice and profile.hides_tools):
        return  # tools that may not be called need not be told
    if not profile.tool_choice and choice is not None and choice.mode != "auto":
        raise Unsupported(
            "This server cannot be made to call a tool.",
            param="tool_choice",
            fix='Use "auto", and ask for it in the prompt.',
        )
    body["tools"] = [
        {
            "type": "function",
            "function": without_none(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters or {"type": "object", "properties": {}},
                strict=tool.strict,
            ),
        }
        for tool in request.tools
    ]
    if choice is not None and profile.tool_choice:
        body["tool_choice"] = _tool_choice(choice, profile)
    if request.parallel_tool_calls is not None:
        if profile.parallel_tool_calls:
            body["parallel_tool_calls"] = request.parallel_tool_calls
        else:
            dropped.append("parallel_tool_calls")


def _add_output(request: ChatRequest, profile: Profile, body: dict[str, Any]) -> None:
    output = request.output
    if output is None:
        return
    if output.kind == "schema" and profile.schema:
        schema = without_none(name=output.name or "reply", schema=output.schema, strict=output.strict)
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return
    body["response_format"] = {"type": "json_object"}
    if output.kind == "schema":  # this server takes no schema: the model is told
        told = f"Answer with one JSON object that fits this JSON schema: {msgspec.json.encode(output.schema).decode()}"
        body["messages"].insert(0, {"role": "system", "content": told})


class _Writer:
    """Messages as a server of this profile takes them."""

    def __init__(self, profile: Profile, dropped: list[str]) -> None:
        self._profile = profile
        self._dropped = dropped
        self._short: dict[str, str] = {}

    def messages(self, message: Message) -> list[dict[str, Any]]:
        """One of ours may be several of theirs: every tool result is a message of its own, before the rest."""
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        rest: list[ContentPart] = [part for part in message.parts if not isinstance(part, ToolResult)]
        written: list[dict[str, Any]] = []
        shown: list[ContentPart] = []
        for result in results:
            text = "".join(part.text for part in result.parts if isinstance(part, Text))
            # This wire has no field for a tool's failure.
            said = f"Error: {text}" if result.is_error else text
            written.append({"role": "tool", "tool_call_id": self._id(result.id), "content": said})
            shown += [part for part in result.parts if not isinstance(part, Text)]
        if shown:  # a tool message holds text alone: what it showed comes as the user's
            rest = [*shown, *rest]
        if not rest and results:
            return written
        role = "user" if message.role == "tool" else message.role
        written.append(self._assistant(rest) if role == "assistant" else self._plain(role, rest, message.name))
        return written

    def _plain(self, role: str, parts: list[ContentPart], name: str | None) -> dict[str, Any]:
        content = [written for part in parts if (written := _part(part)) is not None]
        only_text = all(part["type"] == "text" for part in content)
        message: dict[str, Any] = {"role": role}
        if only_text and (len(content) <= 1 or role == "system" or self._profile.flat_content):
            message["content"] = "\n\n".join(part["text"] for part in content)
        else:
            message["content"] = content
        if name:
            message["name"] = name
        return message

    def _assistant(self, parts: list[ContentPart]) -> dict[str, Any]:
        text = "".join(part.text for part in parts if isinstance(part, Text))
        calls = [part for part in parts if isinstance(part, ToolCall)]
        thoughts = [part for part in parts if isinstance(part, Reasoning)]
        refusals = [part.text for part in parts if isinstance(part, Refusal)]
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
        if calls:
            message["tool_calls"] = [
                written_call(self._id(call.id), {"name": call.name, "arguments": call.raw or "{}"}, call.signature)
                for call in calls
            ]
        if refusals:
            message["refusal"] = "".join(refusals)
        self._add_thoughts(thoughts, text, message)
        return message

    def _add_thoughts(self, thoughts: list[Reasoning], text: str, message: dict[str, Any]) -> None:
        details = [detail for part in thoughts for detail in part.details]
        if details:  # OpenRouter wants them back as they were
            message["reasoning_details"] = details
        is_told = self._profile.thoughts is not None
        if any(part.signed_by not in (None, "openai-chat") and not (is_told and part.text) for part in thoughts):
            self._dropped.append("reasoning")
        said = "".join(part.text for part in thoughts)
        match self._profile.thoughts:
            case "parts" if said:
                thinking = {"type": "thinking", "thinking": [{"type": "text", "text": said}]}
                message["content"] = [thinking, *([{"type": "text", "text": text}] if text else [])]
            case str() as field if said:
                message[field] = said

    def _id(self, id_: str) -> str:
        """Nine letters or digits where a server takes no others: the same for a call and its result."""
        if not self._profile.short_ids or (len(id_) == 9 and id_.isascii() and id_.isalnum()):
            return id_
        if id_ not in self._short:
            number = len(self._short)
            short = f"c{number:08d}"
            while short in self._short.values():
                number += 1
                short = f"c{number:08d}"
            self._short[id_] = short
        return self._short[id_]


def _part(part: ContentPart) -> dict[str, Any] | None:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            return {"type": "image_url", "image_url": without_none(url=image_url(part), detail=part.detail)}
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
            return {"type": "file", "file": without_none(file_data=data, file_id=part.file_id, filename=part.name)}
    return None


def _tool_choice(choice: ToolChoice, profile: Profile) -> Any:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return profile.required if choice.mode == "any" else choice.mode
