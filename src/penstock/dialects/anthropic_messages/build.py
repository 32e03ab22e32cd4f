"""Our request → an Anthropic Messages body. Unset fields are not sent.

What this wire cannot express and what would change the meaning raises `Unsupported`; sampling knobs that it does not
have (seed, penalties) are left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolResult
from penstock.dialects.anthropic_messages.output import output_schema
from penstock.dialects.anthropic_messages.wire import OWN, SAMPLING, call_input
from penstock.dialects.base import foreign_extras
from penstock.dialects.mapping import budget_of, image_bytes, without_none

if TYPE_CHECKING:
    from penstock.canon.target import Target

DEFAULT_MAX_TOKENS = 4096
MIN_BUDGET = 1024

#: what no version of this wire has
UNKNOWN = ("seed", "presence_penalty", "frequency_penalty")


def build_body(request: ChatRequest, target: Target, *, samples: bool = True) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out. `samples`: the version asked for takes sampling parameters."""
    left_out = UNKNOWN if samples else (*SAMPLING, *UNKNOWN)
    dropped = [name for name in left_out if getattr(request, name) is not None]
    turns = _Turns(dropped)
    for message in request.messages:
        turns.add(message)
    system = turns.system
    if request.output is not None and request.output.kind == "json":
        system = [*system, {"type": "text", "text": "Answer with one JSON object and nothing else."}]
    body: dict[str, Any] = {
        "model": target.model or request.model,
        "max_tokens": DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        "messages": turns.finished(),
    }
    if system:
        body["system"] = system[0]["text"] if len(system) == 1 else system
    if samples:
        sampling = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
        body.update({key: value for key, value in sampling.items() if value is not None})
        if request.temperature is not None:
            body["temperature"] = min(request.temperature, 1.0)
    simple = {
        "stream": request.stream or None,
        "stop_sequences": [stop for stop in request.stop if stop.strip()] or None,
        "metadata": {"user_id": request.user} if request.user else None,
    }
    body.update({key: value for key, value in simple.items() if value is not None})
    _add_tools(request, body)
    _add_thinking(request, body)
    if request.output is not None and request.output.kind == "schema":
        body["output_config"] = {
            "format": {"type": "json_schema", "schema": output_schema(request.output.schema or {})}
        }
    extras = request.extras.get(OWN, {})
    dropped += foreign_extras(request, OWN)
    return msgspec.json.encode({**body, **extras}), tuple(dict.fromkeys(dropped))


def _add_tools(request: ChatRequest, body: dict[str, Any]) -> None:
    if not request.tools:
        return
    body["tools"] = [
        without_none(
            name=tool.name,
            description=tool.description,
            input_schema={"type": "object", "properties": {}, **(tool.parameters or {})},
            strict=tool.strict,
        )
        for tool in request.tools
    ]
    choice = request.tool_choice
    written = without_none(type=choice.mode, name=choice.name) if choice is not None else {}
    if request.parallel_tool_calls is False and written.get("type") != "none":
        written = {"type": "auto", **written, "disable_parallel_tool_use": True}
    if written:
        body["tool_choice"] = written


def _add_thinking(request: ChatRequest, body: dict[str, Any]) -> None:
    """A budget must be at least 1024 and less than `max_tokens`; where there is no room, nothing is thought."""
    budget = budget_of(request)
    if budget is None:
        return
    if budget <= 0:
        body["thinking"] = {"type": "disabled"}
        return
    budget = max(budget, MIN_BUDGET)
    if request.max_tokens is None:
        body["max_tokens"] = budget + DEFAULT_MAX_TOKENS
    budget = min(budget, body["max_tokens"] - 1)
    if budget >= MIN_BUDGET:
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}


class _Turns:
    """Messages → `system` and alternating turns, each turn's tool results first."""

    def __init__(self, dropped: list[str]) -> None:
        self._dropped = dropped
        self.system: list[dict[str, Any]] = []
        self._turns: list[tuple[str, list[dict[str, Any]]]] = []
        self._ids: dict[str, str] = {}
        self._taken: set[str] = set()

    def add(self, message: Message) -> None:
        if message.role == "system":
            texts = [part.text for part in message.parts if isinstance(part, Text) and part.text]
            if not self._turns:
                self.system += [{"type": "text", "text": text} for text in texts]
            else:
                # Only recent models take a system message here; every model reads a marked one.
                self._say("user", [{"type": "text", "text": f"<system>\n{text}\n</system>"} for text in texts])
            return
        blocks = [block for part in message.parts if (block := self._block(part, message.role)) is not None]
        if message.name and message.role == "user":
            blocks.insert(0, {"type": "text", "text": f"{message.name}:"})
        self._say("assistant" if message.role == "assistant" else "user", blocks)

    def finished(self) -> list[dict[str, Any]]:
        self._trim_prefill()
        messages = []
        for role, blocks in self._turns:
            results = [block for block in blocks if block["type"] == "tool_result"]
            rest = [block for block in blocks if block["type"] != "tool_result"]
            is_text = not results and len(rest) == 1 and rest[0]["type"] == "text"
            messages.append({"role": role, "content": rest[0]["text"] if is_text else results + rest})
        return messages

    def _trim_prefill(self) -> None:
        """A last turn of the assistant's is what the model goes on from: this wire refuses one that ends in a space."""
        role, blocks = self._turns[-1] if self._turns else ("", [])
        if role != "assistant" or blocks[-1]["type"] != "text":
            return
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()
        if not blocks[-1]["text"]:
            blocks.pop()
        if not blocks:
            self._turns.pop()

    def _say(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if not blocks:
            return  # this wire takes no empty message
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, blocks))

    def _id(self, id_: str) -> str:
        """An id that this wire takes: the same for a call and its result, different for different calls."""
        if id_ not in self._ids:
            clean = re.sub(r"[^a-zA-Z0-9_-]", "_", id_) or "call"
            while clean in self._taken:
                clean += "_"
            self._ids[id_] = clean
            self._taken.add(clean)
        return self._ids[id_]

    def _block(self, part: ContentPart, role: str) -> dict[str, Any] | None:
        match part:
            case Text() | Refusal():
                return {"type": "text", "text": part.text} if part.text else None
            case ToolCall():
                # A call that another provider executed has no result here, and means nothing without it.
                if part.server:
                    return None
                return {"type": "tool_use", "id": self._id(part.id), "name": part.name, "input": call_input(part)}
            case ToolResult():
                return self._result(part)
            case Reasoning():
                # A thought without its signature is refused, and so is one with somebody else's.
                if part.signed_by not in (None, OWN) or not (part.redacted or part.signature):
                    self._dropped.append("reasoning")
                    return None
                if part.redacted is not None:
                    return {"type": "redacted_thinking", "data": part.redacted}
                return {"type": "thinking", "thinking": part.text, "signature": part.signature}
            case Image() if role != "assistant":
                return _image(part)
            case File() if role != "assistant":
                return _document(part)
            case Audio():
                raise Unsupported("Anthropic's models take no audio.", fix="Send its transcript.")
        raise Unsupported(f"Anthropic takes no {type(part).__name__.lower()} in an assistant's message.")

    def _result(self, result: ToolResult) -> dict[str, Any]:
        content = [block for part in result.parts if (block := self._block(part, "tool")) is not None]
        is_text = len(content) == 1 and content[0]["type"] == "text"
        return without_none(
            type="tool_result",
            tool_use_id=self._id(result.id),
            content=(content[0]["text"] if is_text else content) if content else None,
            is_error=result.is_error or None,
        )


def _image(image: Image) -> dict[str, Any]:
    found = image_bytes(image)
    if found is None:
        return {"type": "image", "source": {"type": "url", "url": image.url or ""}}
    return {"type": "image", "source": {"type": "base64", "media_type": found[0], "data": found[1]}}


def _document(file: File) -> dict[str, Any]:
    return without_none(type="document", source=_document_source(file), title=file.name)


def _document_source(file: File) -> dict[str, Any]:
    if file.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": file.text}
    if file.data is not None:
        media_type = file.media_type or "application/pdf"
        if media_type.startswith("text/"):
            return {"type": "text", "media_type": "text/plain", "data": _plain_text(file.data)}
        return {"type": "base64", "media_type": media_type, "data": file.data}
    if file.url is not None:
        return {"type": "url", "url": file.url}
    if file.file_id is not None and file.file_id.startswith("file_"):
        return {"type": "file", "file_id": file.file_id}
    raise Unsupported("A file is known only to the provider that it was given to.", fix="Send the file's bytes.")


def _plain_text(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unsupported("A text document must be UTF-8 in base64.", fix="Send it as text.") from error
