"""Our request → a Converse body. The model is in the URL. Unset fields are not sent.

Turns alternate and begin with the user's; a turn's tool results come first. Images and documents go as bytes. What this
wire cannot express and what would change the meaning raises `Unsupported`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolResult
from penstock.dialects.base import foreign_extras
from penstock.dialects.bedrock.wire import OWN
from penstock.dialects.mapping import budget_of, image_bytes, without_none

if TYPE_CHECKING:
    from penstock.canon.target import Target

DEFAULT_MAX_TOKENS = 4096

_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    unknown = ("seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "user")
    dropped = [name for name in unknown if getattr(request, name) is not None]
    turns = _Turns(dropped)
    for message in request.messages:
        turns.add(message)
    body: dict[str, Any] = {"messages": turns.finished()}
    system = turns.system
    if request.output is not None:
        system = [*system, {"text": _asked_for_json(request.output.schema)}]
    if system:
        body["system"] = system
    inference = without_none(
        maxTokens=request.max_tokens,
        temperature=request.temperature,
        topP=request.top_p,
        stopSequences=list(request.stop) or None,
    )
    more: dict[str, Any] = {}
    is_anthropic = "anthropic" in (target.model or request.model)
    if request.top_k is not None:
        if is_anthropic:
            more["top_k"] = request.top_k
        else:
            dropped.append("top_k")
    _add_thinking(request, is_anthropic, inference, more, dropped)
    if inference:
        body["inferenceConfig"] = inference
    if more:
        body["additionalModelRequestFields"] = more
    _add_tools(request, body, has_calls=turns.has_calls)
    dropped += foreign_extras(request, OWN)
    body.update(request.extras.get(OWN, {}))
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _asked_for_json(schema: dict[str, Any] | None) -> str:
    """This wire has no field for it that all models know."""
    asked = "Answer with one JSON object and nothing else."
    return f"{asked} It must fit this JSON schema: {msgspec.json.encode(schema).decode()}" if schema else asked


def _add_thinking(
    request: ChatRequest, is_anthropic: bool, inference: dict[str, Any], more: dict[str, Any], dropped: list[str]
) -> None:
    budget = budget_of(request)
    if budget is None:
        return
    if not is_anthropic:
        dropped.append("reasoning_effort")
        return
    if budget <= 0:
        return
    limit = inference.setdefault("maxTokens", budget + DEFAULT_MAX_TOKENS)
    budget = min(max(budget, 1024), limit - 1)
    if budget >= 1024:
        more["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _add_tools(request: ChatRequest, body: dict[str, Any], *, has_calls: bool) -> None:
    """Tools must be told when the conversation has calls, even where none may be called any more."""
    choice = request.tool_choice
    if not request.tools or (choice is not None and choice.mode == "none" and not has_calls):
        return
    if choice is not None and choice.mode == "none":
        raise Unsupported(
            "Bedrock cannot forbid tools in a conversation that has called some.",
            param="tool_choice",
            fix='Use "auto", and say in the prompt that no tool may be called.',
        )
    config: dict[str, Any] = {
        "tools": [
            {
                "toolSpec": {
                    "name": tool.name,
                    "inputSchema": {"json": {"type": "object", **(tool.parameters or {})}},
                    **without_none(description=tool.description or None),
                }
            }
            for tool in request.tools
        ]
    }
    if choice is not None:
        config["toolChoice"] = {"tool": {"name": choice.name}} if choice.mode == "tool" else {choice.mode: {}}
    body["toolConfig"] = config


class _Turns:
    """Messages → `system` and alternating turns, each turn's tool results first."""

    def __init__(self, dropped: list[str]) -> None:
        self._dropped = dropped
        self.system: list[dict[str, Any]] = []
        self.has_calls = False
        self._turns: list[tuple[str, list[dict[str, Any]]]] = []
        self._documents = 0

    def add(self, message: Message) -> None:
        if message.role == "system":
            texts = [part.text for part in message.parts if isinstance(part, Text) and part.text]
            if not self._turns:
                self.system += [{"text": text} for text in texts]
            else:
                self._say("user", [{"text": f"<system>\n{text}\n</system>"} for text in texts])
            return
        blocks = [block for part in message.parts if (block := self._block(part)) is not None]
        if message.name and message.role == "user":
            blocks.insert(0, {"text": f"{message.name}:"})
        self._say("assistant" if message.role == "assistant" else "user", blocks)

    def finished(self) -> list[dict[str, Any]]:
        messages = []
        for role, blocks in self._turns:
            results = [block for block in blocks if "toolResult" in block]
            messages.append({"role": role, "content": results + [block for block in blocks if block not in results]})
        return messages

    def _say(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if not blocks:
            return  # this wire takes no empty message
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, blocks))

    def _block(self, part: ContentPart) -> dict[str, Any] | None:
        match part:
            case Text() | Refusal():
                return {"text": part.text} if part.text else None
            case ToolCall():
                if part.server:  # what another provider executed means nothing here
                    return None
                self.has_calls = True
                given = {"_raw": part.raw} if part.arguments is None else part.arguments
                return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": given}}
            case ToolResult():
                return self._result(part)
            case Reasoning():
                return self._thought(part)
            case Image():
                return _image(part)
            case File():
                return self._document(part)
            case Audio():
                raise Unsupported("Converse takes no audio from here.", fix="Send its transcript.")

    def _result(self, result: ToolResult) -> dict[str, Any]:
        self.has_calls = True
        content = [block for part in result.parts if (block := self._block(part)) is not None]
        status = {"status": "error"} if result.is_error else {}
        return {"toolResult": {"toolUseId": result.id, "content": content or [{"text": ""}], **status}}

    def _thought(self, part: Reasoning) -> dict[str, Any] | None:
        """Only this provider's own thoughts may come back."""
        if part.signed_by == OWN and part.redacted is not None:
            return {"reasoningContent": {"redactedContent": part.redacted}}
        if part.signed_by == OWN and part.signature:
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
        self._dropped.append("reasoning")
        return None

    def _document(self, file: File) -> dict[str, Any]:
        if file.text is not None:
            data, kind = base64.b64encode(file.text.encode()).decode(), "txt"
        elif file.data is not None:
            data, kind = file.data, _DOCUMENTS.get(file.media_type or "application/pdf", "")
        else:
            raise Unsupported("Bedrock fetches no documents.", fix="Send the document's bytes.")
        if not kind:
            raise Unsupported(f"Bedrock takes no document of type {file.media_type}.", fix="Send its text.")
        self._documents += 1
        # Names may hold letters, digits, spaces, hyphens, parentheses and brackets, and must differ.
        name = "".join(sign for sign in file.name or "" if sign.isalnum() or sign in " -()[]") or "document"
        return {"document": {"format": kind, "name": f"{name} {self._documents}", "source": {"bytes": data}}}


def _image(image: Image) -> dict[str, Any]:
    found = image_bytes(image)
    if found is None:
        raise Unsupported("Bedrock fetches no images.", fix="Send the image's bytes.")
    kind, data = found[0].rpartition("/")[2], found[1]
    return {"image": {"format": "jpeg" if kind == "jpg" else kind, "source": {"bytes": data}}}
