"""OpenAI Responses → events: the events of a stream, or one response document.

`response.completed` and `response.incomplete` prove the end; `[DONE]` and EOF prove nothing. Indexes and sequence
numbers are not needed: an item is known by its id, or is the last one. A text that came in no delta is taken from its
`done`. A provider's own tools (web search, MCP, code) are custom blocks. Pure; never raises on a field of an
unexpected type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, Truncated
from penstock.canon.events import Annotation, Custom, Delta, Event, Finish, KeepAlive, Start, UsageUpdate
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json, repaired
from penstock.dialects.blocks import Blocks
from penstock.dialects.openai_responses.errors import stream_error
from penstock.dialects.openai_responses.wire import (
    INCOMPLETE_REASONS,
    OWN,
    StreamEvent,
    decode_event,
    read_usage,
    thought_signature,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.events import FinishReason
    from penstock.canon.usage import Usage
    from penstock.framing.base import Frame

_COMMENT, _PING, _EMPTY = KeepAlive("comment"), KeepAlive("ping"), KeepAlive("empty")


class _Item:
    """One output item under way. `i` is its call's block; `said` the parts whose text has come."""

    __slots__ = ("i", "kind", "parts", "said")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.i: int | None = None
        self.said = False  # any delta has come
        self.parts = 0  # summary parts begun


class ResponsesDecoder:
    def __init__(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> None:
        self.proved = False
        self.done = False
        self._document = document
        self._provider = provider
        self._started = False
        self._closed = False
        self._blocks = Blocks(OWN)
        self._items: dict[str, _Item] = {}
        self._last: str = ""  # the item that something without an id belongs to
        self._speaking: Any = None  # the id of the item whose text is open
        self._reason: FinishReason = "stop"
        self._raw_reason: str | None = None
        self._usage: Usage | None = None
        self._about: dict[str, Any] = {}

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        data = frame.data
        if self.done:
            return Mark.AFTER
        if data is None:
            if self._started and frame.raw.startswith(b":"):
                events.append(_COMMENT)
            return None
        try:
            said = decode_event(data)
        except JSON_ERRORS as error:
            return self._odd(frame, data, error, events)
        kind = said.type
        if kind == "response.output_text.delta":
            text = said.delta
            if (
                type(text) is str
                and text
                and self._blocks.kind == "text"
                and said.item_id == self._speaking
                and not said.logprobs
            ):  # nearly every event of nearly every stream
                self._blocks.pieces.append(text)
                events.append(Delta(self._blocks.i, text))
                return None
        if self._document:
            self._whole(data, events)
            return None
        if kind == "error" or frame.event == "error" or (said.error and not isinstance(kind, str)):
            raise stream_error(load_json(data) or {})
        read = _EVENTS.get(kind if isinstance(kind, str) else frame.event or "")
        if read is not None:
            if not self._started:
                self._start(said.response, events)
            read(self, said, events)
        return None

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.proved:
            raise Truncated("The stream ended without response.completed, incomplete or failed.")
        self._blocks.close(events)
        reason = self._reason
        if reason == "stop" and self._blocks.has_calls:
            reason = "tool_calls"
        events.append(Finish(reason, self._raw_reason, self._usage, self._about))

    # --- the rare frames --------------------------------------------------------------------------------------------

    def _odd(self, frame: Frame, data: bytes, error: Exception, events: list[Event]) -> Mark | None:
        text = data.strip()
        if text.startswith(b"[DONE]"):
            return Mark.AFTER  # proves nothing here
        if not text or text.startswith(b":") or text == b"ping":
            if self._started:
                events.append(_PING if text == b"ping" else _COMMENT if text else _EMPTY)
            return None
        if self._document and is_cut(data, error):
            return None  # cut: `close` says so
        if frame.event == "error":
            raise stream_error({"message": text.decode(errors="replace")})
        found = load_json(data)
        if found is None and (fixed := repaired(data)) is not None:
            found = load_json(fixed)
            if isinstance(found, dict):
                data = fixed
        if not isinstance(found, dict):
            if self._document:
                raise NotAStream("The upstream's reply is not a JSON object.")
            raise MalformedFrame("A frame of the stream is not a JSON object.")
        try:
            msgspec.convert(found, StreamEvent)
        except msgspec.ValidationError as problem:
            raise MalformedFrame(f"A frame of the stream is not one of Responses: {problem}.") from None
        return self.decode(type(frame)(frame.raw, msgspec.json.encode(found), frame.event), events)

    def _start(self, response: Any, events: list[Event]) -> None:
        self._started = True
        self._learn(response)
        events.append(Start(self._about.get("model"), self._provider, self._about.get("response_id")))

    def _learn(self, response: Any) -> None:
        """The first non-empty name counts."""
        if isinstance(response, dict):
            for key, name in (("model", "model"), ("id", "response_id")):
                if isinstance(value := response.get(key), str) and value:
                    self._about.setdefault(name, value)
            if isinstance(tier := response.get("service_tier"), str):
                self._about["service_tier"] = tier

    def _whole(self, data: bytes, events: list[Event]) -> None:
        response = load_json(data)
        if isinstance(response, dict) and response.get("error") and not isinstance(response.get("output"), list):
            raise stream_error(response)
        if not isinstance(response, dict) or not isinstance(response.get("output"), list):
            raise NotAStream("The upstream's reply is JSON, but no response of this dialect.")
        self._start(response, events)
        self.done = True
        status = response.get("status")
        self._output(response["output"], events)
        if status in ("failed", "cancelled"):
            self._failed(response)
        if status not in ("in_progress", "queued"):
            self._end(response, events)

    def _output(self, output: Any, events: list[Event]) -> None:
        for item in output if isinstance(output, list) else ():
            if isinstance(item, dict):
                self._open(item)
                self._item_done(StreamEvent(item=item), events)

    def _end(self, response: dict[str, Any], events: list[Event]) -> None:
        if isinstance(raw := response.get("usage"), dict):
            self._usage = read_usage(raw)
            events.append(UsageUpdate(self._usage))
        details = response.get("incomplete_details")
        why = details.get("reason") if isinstance(details, dict) else None
        if response.get("status") == "incomplete":
            self._reason = INCOMPLETE_REASONS.get(why, "other") if isinstance(why, str) else "other"
            self._raw_reason = f"incomplete:{why}" if isinstance(why, str) else "incomplete"
        else:
            self._raw_reason = "completed"
        self.proved = self.done = True

    def _failed(self, response: dict[str, Any]) -> None:
        error = response.get("error")
        raise stream_error(error if isinstance(error, dict) else {"message": "The upstream's response failed."})

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_begin(self, said: StreamEvent, events: list[Event]) -> None:
        self._learn(said.response)

    def _on_end(self, said: StreamEvent, events: list[Event]) -> None:
        response = said.response if isinstance(said.response, dict) else {}
        self._learn(response)
        if said.type == "response.incomplete":
            response = {**response, "status": "incomplete"}
        if not self._items:  # a server that streams nothing but the end
            self._output(response.get("output"), events)
        self._end(response, events)

    def _on_failed(self, said: StreamEvent, events: list[Event]) -> None:
        self._failed(said.response if isinstance(said.response, dict) else {})

    def _on_item(self, said: StreamEvent, events: list[Event]) -> None:
        item = said.item if isinstance(said.item, dict) else {}
        held = self._open(item)
        if held.kind in ("function_call", "custom_tool_call"):
            self._begin_call(held, item, events)

    def _open(self, item: dict[str, Any]) -> _Item:
        id_, kind = item.get("id") or item.get("call_id"), item.get("type")
        self._last = id_ if isinstance(id_, str) and id_ else f"item {len(self._items)}"
        held = self._items[self._last] = _Item(kind if isinstance(kind, str) else "message")
        return held

    def _begin_call(self, held: _Item, item: dict[str, Any], events: list[Event]) -> None:
        id_, name = item.get("call_id") or item.get("id"), item.get("name")
        if not isinstance(id_, str):
            id_ = f"call_{self._about.get('response_id', '')}_{len(self._items)}"
        held.i = self._blocks.begin_call(id_, name if isinstance(name, str) else "", events)

    def _find(self, said: StreamEvent, kind: str) -> _Item:
        """The item that an event is about. One that was never announced is opened."""
        id_ = said.item_id if isinstance(said.item_id, str) and said.item_id else self._last
        held = self._items.get(id_)
        if held is None:
            held = self._items[id_ or "item 0"] = _Item(kind)
            self._last = id_ or "item 0"
        return held

    def _on_text(self, said: StreamEvent, events: list[Event]) -> None:
        held = self._find(said, "message")
        if isinstance(said.delta, str) and said.delta:
            if self._speaking != said.item_id:
                self._blocks.shut(events)
            self._blocks.say("text", said.delta, events)
            held.said = True
            self._speaking = said.item_id
        if said.logprobs and self._blocks.kind == "text":
            self._note({"logprobs": said.logprobs}, events)

    def _on_text_done(self, said: StreamEvent, events: list[Event]) -> None:
        held = self._find(said, "message")
        if not held.said and isinstance(said.text, str) and said.text:
            self._on_text(StreamEvent(delta=said.text, item_id=said.item_id), events)

    def _on_refusal(self, said: StreamEvent, events: list[Event]) -> None:
        held = self._find(said, "message")
        if isinstance(said.delta, str) and said.delta:
            self._blocks.say("refusal", said.delta, events)
            held.said = True

    def _on_annotation(self, said: StreamEvent, events: list[Event]) -> None:
        if said.annotation and self._blocks.kind == "text":
            self._note(said.annotation, events)

    def _note(self, data: Any, events: list[Event]) -> None:
        events.append(Annotation(self._blocks.i, data))
        self._blocks.annotate(data)

    def _on_thought_part(self, said: StreamEvent, events: list[Event]) -> None:
        held = self._find(said, "reasoning")
        held.parts += 1
        if held.parts > 1 and self._blocks.kind == "reasoning":
            self._blocks.say("reasoning", "\n\n", events)

    def _on_thought(self, said: StreamEvent, events: list[Event]) -> None:
        held = self._find(said, "reasoning")
        if isinstance(said.delta, str) and said.delta:
            self._blocks.say("reasoning", said.delta, events)
            held.said = True

    def _on_arguments(self, said: StreamEvent, events: list[Event]) -> None:
        held = self._find(said, "function_call")
        if held.i is not None and isinstance(said.delta, str) and said.delta:
            self._blocks.more(held.i, said.delta, events)
            held.said = True

    def _on_input(self, said: StreamEvent, events: list[Event]) -> None:
        """Free text becomes the one argument `input`, piece by piece."""
        held = self._find(said, "custom_tool_call")
        if held.i is not None and isinstance(said.delta, str) and said.delta:
            opening = "" if held.said else '{"input":"'
            piece = msgspec.json.encode(said.delta).decode()[1:-1]
            self._blocks.more(held.i, opening + piece, events)
            held.said = True

    def _item_done(self, said: StreamEvent, events: list[Event]) -> None:
        item = said.item if isinstance(said.item, dict) else {}
        id_ = item.get("id") or item.get("call_id")
        key = id_ if isinstance(id_, str) and id_ in self._items else self._last
        held = self._items.get(key)
        if held is None:
            held = self._open(item)
        match held.kind:
            case "message":
                self._message_done(held, item, events)
            case "reasoning":
                self._thought_done(held, item, events)
            case "function_call" | "custom_tool_call":
                self._call_done(held, item, events)
            case kind:
                self._blocks.whole("custom", Custom(kind, item), events, id_=id_ if isinstance(id_, str) else None)

    def _message_done(self, held: _Item, item: dict[str, Any], events: list[Event]) -> None:
        content = item.get("content")
        for part in content if isinstance(content, list) and not held.said else ():
            if not isinstance(part, dict):
                continue
            if isinstance(text := part.get("text"), str) and text:
                self._blocks.say("text", text, events)
                annotations = part.get("annotations")
                for annotation in annotations if isinstance(annotations, list) else ():
                    self._note(annotation, events)
            elif isinstance(text := part.get("refusal"), str) and text:
                self._blocks.say("refusal", text, events)
        self._blocks.shut(events)
        self._speaking = None

    def _thought_done(self, held: _Item, item: dict[str, Any], events: list[Event]) -> None:
        if not held.said:
            texts = [
                part["text"]
                for name in ("summary", "content")
                for part in (item.get(name) if isinstance(item.get(name), list) else ()) or ()
                if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
            if text := "\n\n".join(texts):
                self._blocks.say("reasoning", text, events)
        signature = thought_signature(item)
        if signature is not None:
            if self._blocks.kind != "reasoning":
                self._blocks.open("reasoning", events)
            self._blocks.sign(signature=signature)
        if self._blocks.kind == "reasoning":
            self._blocks.shut(events)

    def _call_done(self, held: _Item, item: dict[str, Any], events: list[Event]) -> None:
        if held.i is None:
            self._begin_call(held, item, events)
        assert held.i is not None
        if held.kind == "custom_tool_call":
            if held.said:
                self._blocks.more(held.i, '"}', events)
            elif isinstance(text := item.get("input"), str):
                self._blocks.more(held.i, msgspec.json.encode({"input": text}).decode(), events)
        elif not held.said and isinstance(raw := item.get("arguments"), str):
            self._blocks.more(held.i, raw, events)
        self._blocks.end_call(held.i, events)


_EVENTS: dict[str, Callable[[ResponsesDecoder, StreamEvent, list[Event]], None]] = {
    "response.queued": ResponsesDecoder._on_begin,
    "response.created": ResponsesDecoder._on_begin,
    "response.in_progress": ResponsesDecoder._on_begin,
    "response.completed": ResponsesDecoder._on_end,
    "response.incomplete": ResponsesDecoder._on_end,
    "response.failed": ResponsesDecoder._on_failed,
    "response.output_item.added": ResponsesDecoder._on_item,
    "response.output_item.done": ResponsesDecoder._item_done,
    "response.output_text.delta": ResponsesDecoder._on_text,
    "response.output_text.done": ResponsesDecoder._on_text_done,
    "response.output_text.annotation.added": ResponsesDecoder._on_annotation,
    "response.refusal.delta": ResponsesDecoder._on_refusal,
    "response.reasoning_summary_part.added": ResponsesDecoder._on_thought_part,
    "response.reasoning_summary_text.delta": ResponsesDecoder._on_thought,
    "response.reasoning_text.delta": ResponsesDecoder._on_thought,
    "response.function_call_arguments.delta": ResponsesDecoder._on_arguments,
    "response.custom_tool_call_input.delta": ResponsesDecoder._on_input,
}
