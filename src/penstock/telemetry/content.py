"""What was asked and answered, for who opts in to have it on his spans, in the form of the GenAI semantic conventions.

Pure. Bounded: a text is cut at `MAX_TEXT_CHARS`, which is marked; of a long conversation the last messages are kept.
The bytes of pictures, sounds and files are never in it, nor are signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import PenstockError
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, File, Image, ToolResult
from penstock.canon.response import Fold
from penstock.telemetry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock.canon.request import ChatRequest, Message
    from penstock.canon.response import Response
    from penstock.streams.batch import Batch
    from penstock.streams.handler import Call

MAX_TEXT_CHARS = 32 * 1024
#: of the messages of a request, and of a reply
MAX_CHARS = 256 * 1024


class ContentTally(Tally):
    """A tally that keeps the reply as well."""

    __slots__ = ("_fold",)

    def __init__(self, call: Call, *, concurrent: int) -> None:
        super().__init__(call, concurrent=concurrent)
        self._fold = Fold()

    def see(self, batch: Batch) -> None:
        super().see(batch)
        self._fold.feed(batch.events)

    def content(self) -> dict[str, str]:
        """Attributes of the call's span. What a call has no chat request for (embeddings) has none."""
        try:
            request = self.call.request if self.call.has_request else None
        except PenstockError:
            request = None
        return content(request, self._fold.response())


def content(request: ChatRequest | None, response: Response) -> dict[str, str]:
    found: dict[str, str] = {}
    if request is not None:
        asked = [_message(message) for message in request.messages if message.role != "system"]
        system = [part for it in request.messages if it.role == "system" for part in _parts(it.parts)]
        tools = [{"type": "function", "name": tool.name, "description": tool.description} for tool in request.tools]
        for name, value in (
            ("gen_ai.system_instructions", system),
            ("gen_ai.input.messages", asked),
            ("gen_ai.tool.definitions", tools),
        ):
            if value:
                found[name] = _bounded(value)
    parts = list(_parts(response.parts))
    if parts:
        reason = response.finish.reason if response.finish is not None else None
        found["gen_ai.output.messages"] = _bounded([{"role": "assistant", "parts": parts, "finish_reason": reason}])
    return found


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": list(_parts(message.parts))}


def _parts(parts: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    for part in parts:
        match part:
            case Text() | Refusal():
                yield {"type": "text", "content": _cut(part.text)}
            case Reasoning() if part.text:
                yield {"type": "reasoning", "content": _cut(part.text)}
            case ToolCall():
                arguments = part.arguments if len(part.raw) <= MAX_TEXT_CHARS else None
                given = _cut(part.raw) if arguments is None else arguments
                yield {"type": "tool_call", "id": part.id, "name": part.name, "arguments": given}
            case ToolResult():
                yield {"type": "tool_call_response", "id": part.id, "response": list(_parts(part.parts))}
            case Image(url=str(url)) if not url.startswith("data:"):
                yield {"type": "uri", "modality": "image", "uri": _cut(url)}
            case Image():
                yield {"type": "blob", "modality": "image", "mime_type": part.media_type}
            case Audio():
                yield {"type": "blob", "modality": "audio", "mime_type": f"audio/{part.format}"}
            case File():
                yield {"type": "file", "file_id": part.file_id, "mime_type": part.media_type}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"


def _bounded(values: list[Any]) -> str:
    """As JSON; without the first of them where it would be too much."""
    written: list[str] = []
    size = 0
    for value in reversed(values):
        text = msgspec.json.encode(value).decode()
        size += len(text)
        if size > MAX_CHARS and written:
            break
        written.append(text)
    return f"[{','.join(reversed(written))}]"
