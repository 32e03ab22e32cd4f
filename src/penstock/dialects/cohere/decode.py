"""Cohere v2 → events: the events of a stream, or one document.

`message-end` proves the end; a `[DONE]` behind it and EOF prove nothing. A tool plan is what the model thinks before it
calls: reasoning. Pure; never raises on a field of an unexpected type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, Truncated
from penstock.canon.events import Annotation, Delta, Event, Finish, KeepAlive, Start, UsageUpdate
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json, repaired
from penstock.dialects.blocks import Blocks
from penstock.dialects.cohere.errors import streamed_error
from penstock.dialects.cohere.wire import (
    FAILURES,
    FINISH_REASONS,
    OWN,
    Content,
    Message,
    StreamEvent,
    decode_event,
    read_usage,
)
from penstock.framing.base import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.usage import Usage
    from penstock.dialects.base import Decoder

_COMMENT, _EMPTY = KeepAlive("comment"), KeepAlive("empty")


def decoder(*, document: bool, provider: str | None = None, profile: str | None = None) -> Decoder:
    return DocumentDecoder(provider) if document else StreamDecoder(provider)


class _Reply:
    """What a stream and a document have in common."""

    def __init__(self, provider: str | None) -> None:
        self.proved = False
        self.done = False
        self._provider = provider
        self._started = False
        self._closed = False
        self._blocks = Blocks(OWN)
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._about: dict[str, Any] = {}

    def _start(self, id_: Any, events: list[Event]) -> None:
        self._started = True
        if isinstance(id_, str) and id_:
            self._about["response_id"] = id_
        events.append(Start(None, self._provider, self._about.get("response_id")))

    def _end(self, reason: Any, usage: Any, error: Any, events: list[Event]) -> None:
        if isinstance(usage, dict):
            self._usage = read_usage(usage)
            events.append(UsageUpdate(self._usage))
        if isinstance(reason, str) and reason in FAILURES:
            raise streamed_error(reason, error)
        self._reason = reason if isinstance(reason, str) and reason else None
        self.proved = self.done = True

    def _call(self, call: Any, events: list[Event]) -> int | None:
        """Open a call; its first argument text may come with it."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            return None
        id_, name, raw = call.get("id"), function.get("name"), function.get("arguments")
        if not isinstance(id_, str) or not id_:
            id_ = f"call_{self._about.get('response_id', '')}_{self._blocks.next_i}"
        i = self._blocks.begin_call(id_, name if isinstance(name, str) else "", events)
        if isinstance(raw, str):
            self._blocks.more(i, raw, events)
        return i

    def _cite(self, citations: Any, events: list[Event]) -> None:
        if self._blocks.kind == "text":
            for citation in citations if isinstance(citations, list) else [citations]:
                if citation:
                    events.append(Annotation(self._blocks.i, citation))
                    self._blocks.annotate(citation)

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.proved:
            raise Truncated("The reply ended before the provider said that it was whole.")
        self._blocks.close(events)
        reason = FINISH_REASONS.get(self._reason or "", "other" if self._reason else "stop")
        if reason == "stop" and self._blocks.has_calls:
            reason = "tool_calls"
        events.append(Finish(reason, self._reason, self._usage, self._about))


class StreamDecoder(_Reply):
    def __init__(self, provider: str | None) -> None:
        super().__init__(provider)
        self._calls: dict[Any, int] = {}  # their index → block

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        data = frame.data
        if data is None:
            if self._started and frame.raw.startswith(b":"):
                events.append(_COMMENT)
            return None
        try:
            said = decode_event(data)
        except JSON_ERRORS as error:
            return self._odd(frame, data, error, events)
        message = said.delta.message if said.delta is not None else None
        if said.type == "content-delta" and message is not None and type(message.content) is Content:
            text = message.content.text
            if type(text) is str and text and self._blocks.kind == "text":  # nearly every event of every stream
                self._blocks.pieces.append(text)
                events.append(Delta(self._blocks.i, text))
                return None
        read = _EVENTS.get(said.type if isinstance(said.type, str) else frame.event or "")
        if read is not None:
            if not self._started:
                self._start(said.id, events)
            read(self, said, message or Message(), events)
        return None

    def _odd(self, frame: Frame, data: bytes, error: Exception, events: list[Event]) -> Mark | None:
        text = data.strip()
        if text.startswith(b"[DONE]"):
            return Mark.AFTER  # proves nothing here
        if not text or text.startswith(b":"):
            if self._started:
                events.append(_EMPTY)
            return None
        found = load_json(data)
        if found is None and (fixed := repaired(data)) is not None and load_json(fixed) is not None:
            return self.decode(Frame(frame.raw, fixed, frame.event), events)
        if isinstance(found, dict) and (not isinstance(kind := found.get("type"), str) or kind not in _EVENTS):
            return None
        raise MalformedFrame(f"A frame of the stream is not one of Cohere's: {error}.") from error

    def _on_start(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        pass  # `Start` has been said

    def _on_content(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        content = message.content
        if not isinstance(content, Content):
            return
        if said.type == "content-start":
            self._blocks.shut(events)
        if isinstance(content.thinking, str) and (content.thinking or content.type == "thinking"):
            self._blocks.say("reasoning", content.thinking, events)
        elif isinstance(content.text, str) and (content.text or content.type == "text"):
            self._blocks.say("text", content.text, events)

    def _on_content_end(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        self._blocks.shut(events)

    def _on_plan(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        if isinstance(message.tool_plan, str) and message.tool_plan:
            self._blocks.say("reasoning", message.tool_plan, events)

    def _on_call(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        i = self._call(message.tool_calls, events)
        if i is not None:
            self._calls[_key(said.index)] = i

    def _on_arguments(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        call = message.tool_calls
        function = call.get("function") if isinstance(call, dict) else None
        text = function.get("arguments") if isinstance(function, dict) else None
        i = self._calls.get(_key(said.index))
        if i is not None and isinstance(text, str):
            self._blocks.more(i, text, events)

    def _on_call_end(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        i = self._calls.pop(_key(said.index), None)
        if i is not None:
            self._blocks.end_call(i, events)

    def _on_citation(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        self._cite(message.citations, events)

    def _on_end(self, said: StreamEvent, message: Message, events: list[Event]) -> None:
        delta = said.delta
        if delta is None:
            raise MalformedFrame("The last event of the stream does not say how it ended.")
        self._end(delta.finish_reason, delta.usage, delta.error, events)


_EVENTS: dict[str, Callable[[StreamDecoder, StreamEvent, Message, list[Event]], None]] = {
    "message-start": StreamDecoder._on_start,
    "content-start": StreamDecoder._on_content,
    "content-delta": StreamDecoder._on_content,
    "content-end": StreamDecoder._on_content_end,
    "tool-plan-delta": StreamDecoder._on_plan,
    "tool-call-start": StreamDecoder._on_call,
    "tool-call-delta": StreamDecoder._on_arguments,
    "tool-call-end": StreamDecoder._on_call_end,
    "citation-start": StreamDecoder._on_citation,
    "message-end": StreamDecoder._on_end,
}


class DocumentDecoder(_Reply):
    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        data = frame.data
        if self.done or data is None:
            return Mark.AFTER if self.done else None
        try:
            found = msgspec.json.decode(data)
        except JSON_ERRORS as error:
            if data[:1] == b"{" and is_cut(data, error):
                return None  # cut: `close` says so
            raise NotAStream("The upstream's reply is not a JSON object.") from error
        message = found.get("message") if isinstance(found, dict) else None
        if not isinstance(message, dict):
            raise NotAStream("The upstream's reply is JSON, but no chat reply of Cohere's.")
        self._start(found.get("id"), events)
        if isinstance(plan := message.get("tool_plan"), str) and plan:
            self._blocks.say("reasoning", plan, events)
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            if isinstance(thought := part.get("thinking"), str):
                self._blocks.say("reasoning", thought, events)
            elif isinstance(text := part.get("text"), str):
                self._blocks.say("text", text, events)
        self._cite(message.get("citations"), events)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            i = self._call(call, events)
            if i is not None:
                self._blocks.end_call(i, events)
        self.done = True
        if isinstance(reason := found.get("finish_reason"), str) and reason:
            self._end(reason, found.get("usage"), found.get("error"), events)
        return None


def _key(index: Any) -> Any:
    return index if isinstance(index, int | str) else None
