"""Events → Anthropic Messages: the events of a stream, or one message document.

Pure. Blocks on this wire are strictly sequential with dense indexes, so the first open block streams live and the
others wait for its end. `message_stop` is written after `Finish` and never after an error. What this wire has no word
for (foreign custom blocks, sources, files, progress, timings) is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Event,
    Finish,
    KeepAlive,
    Part,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.dialects.anthropic_messages.errors import write_streamed
from penstock.dialects.anthropic_messages.wire import CITATIONS, OWN, OWN_BLOCKS, call_input, stop_word, write_usage
from penstock.dialects.signatures import marked, packed, signed_id
from penstock.framing.sse import write_event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.errors import PenstockError
    from penstock.canon.response import Response
    from penstock.canon.usage import Usage

HEARTBEAT = b'event: ping\ndata: {"type": "ping"}\n\n'
TERMINATOR = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_BlockEvent = BlockStart | Delta | Annotation | BlockEnd

_json = msgspec.json.Encoder().encode

#: block kind → the delta that carries its text, up to the text itself
_SPEECH = {
    "text": b'"text_delta","text":',
    "refusal": b'"text_delta","text":',
    "reasoning": b'"thinking_delta","thinking":',
    "tool_call": b'"input_json_delta","partial_json":',
}
_CLOSE = b"}}\n\n"


class _Live:
    """The block that streams now. `is_open`: its `content_block_start` is written, which some kinds put off."""

    __slots__ = ("i", "is_open", "kind", "open")

    def __init__(self, start: BlockStart) -> None:
        self.i = start.i
        self.kind = start.kind
        self.is_open = False
        self.open = b""  # what precedes the text of each delta


class MessagesEncoder:
    """`model` is the name that the client knows; None takes the upstream's."""

    def __init__(self, *, model: str | None, include_usage: bool = True, request_id: str, created: int = 0) -> None:
        self._model = model
        self._request_id = request_id
        self._start: Start | None = None  # not yet written: usage that comes with it belongs into it
        self._usage: Usage | None = None
        self._live: _Live | None = None
        self._waiting: dict[int, list[_BlockEvent]] = {}
        self._index = 0
        self._has_calls = False
        self._has_refusal = False

    def encode(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:
                live = self._live
                if live is not None and event.i == live.i and live.is_open:
                    out += (live.open, _json(event.text), _CLOSE)
                else:
                    self._block(event, out)
            else:
                self._rare(event, out)
        self._flush_start(out)
        return b"".join(out)

    def error(self, error: PenstockError) -> bytes:
        return write_streamed(error, self._request_id)

    def _rare(self, event: Event, out: list[bytes]) -> None:
        match event:
            case UsageUpdate():
                self._usage = event.usage
                return
            case Start():
                self._start = event
                return
        self._flush_start(out)
        match event:
            case BlockStart() | Annotation() | BlockEnd():
                self._block(event, out)
            case KeepAlive():
                out.append(HEARTBEAT)
            case Finish():
                self._finish(event, out)

    def _flush_start(self, out: list[bytes]) -> None:
        start, self._start = self._start, None
        if start is None:
            return
        message: dict[str, Any] = {
            "id": start.response_id or message_id(self._request_id),
            "type": "message",
            "role": "assistant",
            "model": self._model or start.model or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # Clients of this wire need both counts; the true ones come with the end.
            "usage": {"input_tokens": 0, **write_usage(self._usage), "output_tokens": 0},
        }
        out.append(_event("message_start", message=message))

    # --- blocks: one live, the others wait ---------------------------------------------------------------------------

    def _block(self, event: _BlockEvent, out: list[bytes]) -> None:
        live = self._live
        if live is not None and event.i == live.i:
            self._write(event, live, out)
            if self._live is None:
                self._next(out)
        elif type(event) is not BlockStart:
            if event.i in self._waiting:
                self._waiting[event.i].append(event)
        elif live is None:
            self._begin(event, out)
        else:
            self._waiting[event.i] = [event]

    def _next(self, out: list[bytes]) -> None:
        """The longest waiting block becomes the live one, with what it has said so far."""
        while self._live is None and self._waiting:
            start, *said = self._waiting.pop(next(iter(self._waiting)))
            live = self._begin(start, out)  # type: ignore[arg-type]
            for event in said:
                self._write(event, live, out)

    def _begin(self, start: BlockStart, out: list[bytes]) -> _Live:
        live = self._live = _Live(start)
        if start.kind == "tool_call":
            self._has_calls = self._has_calls or not start.server
            kind = "server_tool_use" if start.server else "tool_use"
            id_ = signed_id(start.id or f"toolu_{_plain(self._request_id)}_{start.i}", start.signature)
            self._open(live, {"type": kind, "id": id_, "name": start.name or "", "input": {}}, out)
        elif start.kind in ("text", "refusal"):
            self._has_refusal = self._has_refusal or start.kind == "refusal"
            self._open(live, {"type": "text", "text": ""}, out)
        # Reasoning may turn out to be redacted, and a custom block is known at its end.
        return live

    def _open(self, live: _Live, content: dict[str, Any], out: list[bytes]) -> None:
        out.append(_event("content_block_start", index=self._index, content_block=content))
        live.is_open = True
        live.open = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%s' % (
            self._index,
            _SPEECH.get(live.kind, b""),
        )

    def _shut(self, live: _Live, out: list[bytes]) -> None:
        out.append(_event("content_block_stop", index=self._index))
        self._index += 1
        live.is_open = False

    def _write(self, event: _BlockEvent, live: _Live, out: list[bytes]) -> None:
        match event:
            case Delta() if live.kind in _SPEECH:
                if not live.is_open:
                    self._open(live, _THINKING, out)
                out += (live.open, _json(event.text), _CLOSE)
            case Annotation() if live.kind == "text" and is_citation(event.data):
                self._delta({"type": "citations_delta", "citation": event.data}, out)
            case BlockEnd():
                self._end(event.part, live, out)
                self._live = None

    def _delta(self, delta: dict[str, Any], out: list[bytes]) -> None:
        out.append(_event("content_block_delta", index=self._index, delta=delta))

    def _end(self, part: Part, live: _Live, out: list[bytes]) -> None:
        if isinstance(part, Reasoning):
            if signature := signature_of(part):
                if not live.is_open:  # a thought that is not shown, only proved
                    self._open(live, _THINKING, out)
                self._delta({"type": "signature_delta", "signature": signature}, out)
            if live.is_open:
                self._shut(live, out)
            if part.redacted is not None:
                self._open(live, {"type": "redacted_thinking", "data": marked(part.redacted, part.signed_by, OWN)}, out)
        elif (own := own_block(part)) is not None:
            self._open(live, own, out)
        if live.is_open:
            self._shut(live, out)

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        word = stop_word(finish.reason, finish.raw_reason, has_calls=self._has_calls, has_refusal=self._has_refusal)
        delta = stop_fields(word, finish.metadata)
        usage = {"output_tokens": 0, **write_usage(finish.usage or self._usage)}
        out += (_event("message_delta", delta=delta, usage=usage), TERMINATOR)


_THINKING = {"type": "thinking", "thinking": "", "signature": ""}


def write_document(response: Response, *, model: str | None, request_id: str, created: int = 0) -> bytes:
    finish = response.finish
    word = None
    if finish is not None:
        has_refusal = any(isinstance(part, Refusal) for part in response.parts)
        word = stop_word(finish.reason, finish.raw, has_calls=bool(response.tool_calls), has_refusal=has_refusal)
    document = {
        "id": response.response_id or message_id(request_id),
        "type": "message",
        "role": "assistant",
        "model": model or response.model or "",
        "content": [
            block for k, part in enumerate(response.parts) for block in _content(part, f"{_plain(request_id)}_{k}")
        ],
        **stop_fields(word, response.metadata),
        # Clients of this wire need both counts.
        "usage": {"input_tokens": 0, "output_tokens": 0, **write_usage(response.usage)},
    }
    return _json(document)


def _content(part: Part, fallback_id: str) -> list[dict[str, Any]]:
    match part:
        case Text():
            citations = [data for data in part.annotations if is_citation(data)]
            return [{"type": "text", "text": part.text} | ({"citations": citations} if citations else {})]
        case Refusal():
            return [{"type": "text", "text": part.text}]
        case Reasoning():
            blocks: list[dict[str, Any]] = []
            signature = signature_of(part)
            if part.text or signature:
                blocks.append({"type": "thinking", "thinking": part.text, "signature": signature})
            if part.redacted is not None:
                blocks.append({"type": "redacted_thinking", "data": marked(part.redacted, part.signed_by, OWN)})
            return blocks
        case ToolCall():
            kind = "server_tool_use" if part.server else "tool_use"
            id_ = signed_id(part.id or f"toolu_{fallback_id}", part.signature)
            return [{"type": kind, "id": id_, "name": part.name, "input": call_input(part)}]
    own = own_block(part)
    return [] if own is None else [own]


def signature_of(part: Reasoning) -> str:
    """What proves a thought to whoever thought it, in the one word that this wire has for that."""
    if part.details:
        return marked(packed(part.details), part.signed_by or "openai-chat", OWN)
    return marked(part.signature, part.signed_by, OWN) if part.signature else ""


def own_block(part: Part) -> dict[str, Any] | None:
    """The block itself when it is one of this wire's, as it came."""
    if not isinstance(part, Custom) or not isinstance(part.raw, dict) or part.raw.get("type") != part.kind:
        return None
    return part.raw if part.kind.endswith("_tool_result") or part.kind in OWN_BLOCKS else None


def is_citation(data: Any) -> bool:
    return isinstance(data, dict) and data.get("type") in CITATIONS


def stop_fields(word: str | None, metadata: dict[str, Any]) -> dict[str, Any]:
    sequence, details = metadata.get("stop_sequence"), metadata.get("stop_details")
    fields: dict[str, Any] = {"stop_reason": word, "stop_sequence": sequence if isinstance(sequence, str) else None}
    if isinstance(details, dict):
        fields["stop_details"] = details
    return fields


def message_id(request_id: str) -> str:
    return f"msg_{_plain(request_id)}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text)


def _event(name: str, **fields: Any) -> bytes:
    return write_event(_json({"type": name, **fields}), name)
