"""Events → OpenAI chat: the chunks of a stream, or one completion document.

Every chunk has the same id, `created` and model. The role is said once. Parallel tool calls keep their own running
index, so blocks may interleave. `[DONE]` is written after `Finish` and never after an error. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.events import BlockEnd, BlockStart, Delta, Finish, KeepAlive, Reasoning, Start, UsageUpdate
from penstock.dialects.openai_chat.errors import write_error
from penstock.dialects.openai_chat.thoughts import written_details
from penstock.dialects.openai_chat.wire import FINISH_WORDS, write_usage
from penstock.framing.sse import write_event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.errors import PenstockError
    from penstock.canon.events import Event, FinishReason
    from penstock.canon.response import Response
    from penstock.canon.usage import Usage

TERMINATOR = b"data: [DONE]\n\n"
HEARTBEAT = b": keep-alive\n\n"

_json = msgspec.json.Encoder().encode
_TEXT_FIELDS = {"text": b'"content":', "reasoning": b'"reasoning_content":', "refusal": b'"refusal":'}


def finish_word(reason: FinishReason, *, has_calls: bool) -> str:
    word = FINISH_WORDS.get(reason, "stop")
    return "tool_calls" if has_calls and word == "stop" else word


class ChatEncoder:
    """`model` is the name that the client knows; None takes the upstream's."""

    def __init__(self, *, model: str | None, include_usage: bool, request_id: str, created: int) -> None:
        self._model = model
        self._include_usage = include_usage
        self._request_id = request_id
        self._created = created
        self._envelope(None, None)
        self._fields: dict[int, bytes] = {}  # block → what a piece of it is called
        self._calls: dict[int, int] = {}  # block → index among the tool calls
        self._usage: Usage | None = None

    def _envelope(self, id_: str | None, model: str | None) -> None:
        head = {
            "id": id_ or f"chatcmpl-{self._request_id}",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model or model or "",
        }
        self._base = b"data: " + _json(head)[:-1]
        self._open = self._base + b',"choices":[{"index":0,"delta":{'

    _close = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def encode(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:
                field = self._fields.get(event.i)
                if field is not None:
                    out += (self._open, field, _json(event.text), self._close)
                elif event.i in self._calls:
                    start = b'"tool_calls":[{"index":%d,"function":{"arguments":' % self._calls[event.i]
                    out += (self._open, start, _json(event.text), b"}}]", self._close)
            else:
                self._rare(event, out)
        return b"".join(out)

    def _rare(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Start():
                self._envelope(event.response_id, event.model)
                out += (self._open, b'"role":"assistant","content":""', self._close)
            case BlockStart() if event.kind in _TEXT_FIELDS:
                self._fields[event.i] = _TEXT_FIELDS[event.kind]
            case BlockStart() if event.kind == "tool_call" and not event.server:
                number = self._calls[event.i] = len(self._calls)
                function = {"name": event.name, "arguments": ""}
                call = {"index": number, **written_call(event.id, function, event.signature)}
                out += (self._open, b'"tool_calls":[', _json(call), b"]", self._close)
            case BlockEnd(part=Reasoning() as part):
                # Their words have been streamed: what is left to say is what proves them.
                details = [_wordless(detail) for detail in written_details(part) if _proves(detail)]
                if details:
                    out += (self._open, b'"reasoning_details":', _json(details), self._close)
            case UsageUpdate():
                self._usage = event.usage
            case KeepAlive():
                out.append(HEARTBEAT)
            case Finish():
                self._finish(event, out)

    def _finish(self, event: Finish, out: list[bytes]) -> None:
        word = finish_word(event.reason, has_calls=bool(self._calls))
        choice = b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":%s}]}\n\n' % _json(word)
        out += (self._base, choice)
        usage = event.usage or self._usage
        if self._include_usage and usage is not None:
            out += (self._base, b',"choices":[],"usage":', _json(write_usage(usage)), b"}\n\n")
        out.append(TERMINATOR)

    def error(self, error: PenstockError) -> bytes:
        return write_event(write_error(error, self._request_id))


def _proves(detail: Any) -> bool:
    return isinstance(detail, dict) and bool(detail.get("signature") or detail.get("data"))


def _wordless(detail: dict[str, Any]) -> dict[str, Any]:
    return {key: "" if key in ("text", "summary") else value for key, value in detail.items()}


def written_call(id_: str | None, function: dict[str, Any], signature: str | None) -> dict[str, Any]:
    """A call; what Gemini must have back with it stands where Gemini's own endpoint for this wire puts it."""
    call: dict[str, Any] = {"id": id_, "type": "function", "function": function}
    if signature:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def write_document(response: Response, *, model: str | None, request_id: str, created: int) -> bytes:
    calls = response.tool_calls
    message: dict[str, Any] = {
        "role": "assistant",
        "content": response.text or (None if calls else ""),
        "refusal": response.refusal,
    }
    if response.reasoning:
        message["reasoning_content"] = response.reasoning
    details = [detail for part in response.parts if isinstance(part, Reasoning) for detail in written_details(part)]
    if details:
        message["reasoning_details"] = details
    if calls:
        message["tool_calls"] = [
            written_call(call.id, {"name": call.name, "arguments": call.raw or "{}"}, call.signature) for call in calls
        ]
    reason = finish_word(response.finish.reason, has_calls=bool(calls)) if response.finish else None
    document: dict[str, Any] = {
        "id": response.response_id or f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": created,
        "model": model or response.model or "",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
    }
    if response.usage is not None:
        document["usage"] = write_usage(response.usage)
    return _json(document)
