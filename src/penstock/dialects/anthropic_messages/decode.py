"""Anthropic Messages → events: the frames of a stream, or one message document.

Sans-IO. `message_stop` alone proves a stream complete; a document is proved by its `stop_reason`. Upstream indexes are
mapped to our own, so they need not be dense or in order. Unknown events are skipped, unknown blocks and deltas kept.
Raises `StreamedError`, `MalformedFrame`, `NotAStream` (a document that is no message), `Truncated` (from `close`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, Truncated
from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Finish,
    KeepAlive,
    Part,
    Reasoning,
    Start,
    Text,
    UsageUpdate,
)
from penstock.canon.usage import Usage, merge_reported
from penstock.dialects.anthropic_messages.errors import streamed_error
from penstock.dialects.anthropic_messages.wire import (
    OWN,
    SERVER_CALLS,
    DeltaBody,
    StreamFrame,
    block_kind,
    decode_frame,
    finish_reason,
    read_usage,
)
from penstock.dialects.base import JSON_ERRORS, Mark, finished_call, is_cut, load_json, repaired
from penstock.framing.base import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.events import BlockKind, Event
    from penstock.dialects.base import Decoder

#: which delta carries the text of which block
_SPEECH: dict[BlockKind, str] = {
    "text": "text_delta",
    "reasoning": "thinking_delta",
    "tool_call": "input_json_delta",
}

#: a delta for a block that was never opened opens one
_UNANNOUNCED = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}


def decoder(*, document: bool, provider: str | None = None, profile: str | None = None) -> Decoder:
    return DocumentDecoder(provider) if document else StreamDecoder(provider)


class _Block:
    """One open block. `raw` is what `content_block_start` said."""

    __slots__ = ("annotations", "i", "kind", "pieces", "raw", "signature", "speech", "wire_kind")

    def __init__(self, i: int, raw: dict[str, Any]) -> None:
        self.i = i
        self.raw = raw
        self.wire_kind = word(raw.get("type")) or ""
        self.kind = block_kind(self.wire_kind)
        self.speech = _SPEECH.get(self.kind)
        self.pieces: list[str] = []
        self.annotations: list[Any] = []
        self.signature = word(raw.get("signature"))

    @property
    def is_server(self) -> bool:
        return self.wire_kind in SERVER_CALLS

    @property
    def id(self) -> str | None:
        return word(self.raw.get("id")) or word(self.raw.get("tool_use_id"))

    @property
    def name(self) -> str | None:
        name = word(self.raw.get("name"))
        return name if name or self.kind not in ("tool_result", "custom") else self.wire_kind

    def opening(self) -> str:
        """The text that came already with the opening."""
        field = {"text": "text", "reasoning": "thinking"}.get(self.kind)
        return word(self.raw.get(field)) or "" if field else ""

    def whole_input(self) -> str:
        """The argument text of a call whose `input` came whole and was not streamed."""
        given = self.raw.get("input")
        if not given:
            return ""
        return given if isinstance(given, str) else msgspec.json.encode(given).decode()

    def absorb(self, delta: dict[str, Any]) -> None:
        """Put a delta of a block that we have no word for where the finished block would have it."""
        self.raw = dict(self.raw)
        for key, value in delta.items():
            held = self.raw.get(key)
            if key != "type" and value is not None:
                self.raw[key] = held + value if isinstance(held, str) and isinstance(value, str) else value

    def part(self) -> Part:
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                return Text(text, tuple(self.annotations))
            case "reasoning":
                redacted = word(self.raw.get("data"))
                if not self.signature and redacted is None:
                    return Reasoning(text)
                return Reasoning(text, self.signature or None, redacted, signed_by=OWN)
            case "tool_call":
                return finished_call(self.id or "", self.name or "", text, server=self.is_server)
        return Custom(self.wire_kind, self.raw)


class _Message:
    """One message on its way: what a stream and a document have in common."""

    def __init__(self, provider: str | None) -> None:
        self.proved = False
        self.done = False
        self._provider = provider
        self._is_started = False
        self._is_closed = False
        self._open: dict[int | str | None, _Block] = {}
        self._next_i = 0
        self._usage: dict[str, Any] | None = None
        self._stop_reason: Any = None
        self._metadata: dict[str, Any] = {}
        self._has_calls = False

    def _start(self, message: Any, events: list[Event]) -> None:
        """`Start`, once, and the first usage. A stream that never announced its message has a `Start` all the same."""
        message = message if isinstance(message, dict) else {}
        model, response_id = word(message.get("model")), word(message.get("id"))
        # The first name that is one: some servers send "" first.
        for key, value in (("model", model), ("response_id", response_id)):
            if value:
                self._metadata.setdefault(key, value)
        if not self._is_started:
            self._is_started = True
            events.append(Start(model or None, self._provider, response_id or None))
        self._report(message.get("usage"), events)

    def _report(self, usage: Any, events: list[Event]) -> None:
        if isinstance(usage, dict) and usage:
            self._usage = merge_reported(self._usage, usage)
            events.append(UsageUpdate(read_usage(self._usage)))

    def _open_block(self, index: int | str | None, raw: dict[str, Any], events: list[Event]) -> _Block:
        if index in self._open:
            self._end_block(index, events)
        block = self._open[index] = _Block(self._next_i, raw)
        self._next_i += 1
        self._has_calls = self._has_calls or (block.kind == "tool_call" and not block.is_server)
        events.append(BlockStart(block.i, block.kind, block.id, block.name, block.is_server))
        if text := block.opening():
            _say(block, text, events)
        citations = raw.get("citations") if block.kind == "text" else None
        for citation in citations if isinstance(citations, list) else ():
            _annotate(block, citation, events)
        return block

    def _end_block(self, index: int | str | None, events: list[Event]) -> None:
        block = self._open.pop(index, None)
        if block is None:
            return
        if block.kind == "tool_call" and not block.pieces and (text := block.whole_input()):
            _say(block, text, events)
        events.append(BlockEnd(block.i, block.part()))

    def _stop(self, reason: Any, facts: dict[str, Any]) -> None:
        """What a message says about its end. The last word wins; null says nothing."""
        self._stop_reason = reason if reason is not None else self._stop_reason
        self._metadata.update({key: value for key, value in facts.items() if value is not None})

    def close(self, events: list[Event]) -> None:
        if self._is_closed:
            return
        if not self.proved:
            raise Truncated("The reply ended before the provider said that it was whole.")
        self._is_closed = True
        if not self._is_started:
            self._start(None, events)
        for index in list(self._open):
            self._end_block(index, events)
        reason, raw = finish_reason(self._stop_reason)
        if reason == "stop" and self._has_calls:
            reason = "tool_calls"  #
        usage: Usage | None = None
        if self._usage is not None:
            usage = read_usage(self._usage)
            if isinstance(tier := self._usage.get("service_tier"), str):
                self._metadata["service_tier"] = tier
        events.append(Finish(reason, raw, usage, self._metadata))


class StreamDecoder(_Message):
    """Frames of one SSE stream. A text delta costs one struct, one event and two list appends."""

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        data = frame.data
        if data is None:
            if frame.raw.strip(b"\r\n"):  # a stray line end is nothing, and depends on how the bytes were cut
                self._is_alive("comment", events)
            return None
        try:
            said = decode_frame(data)
        except JSON_ERRORS as error:
            return self._odd(frame, data, error, events)
        delta = said.delta
        if delta is not None and said.type == "content_block_delta":
            block = self._open.get(said.index)
            if block is None or delta.type != block.speech:
                self._other_delta(said, delta, data, events)
                return _lacking(frame)
            text = delta.text
            if text is None:
                text = delta.thinking
                if text is None:
                    text = delta.partial_json
            if text and type(text) is str:
                block.pieces.append(text)
                events.append(Delta(block.i, text))
            return None if frame.event is not None else Mark.NAMELESS
        kind = said.type or frame.event or ""
        if kind == "error" or frame.event == "error" or (said.error is not None and kind not in _EVENTS):
            raise streamed_error(load_json(data))
        read = _EVENTS.get(kind)
        return (read(self, said, events) if read is not None else None) or _lacking(frame)

    def _is_alive(self, source: str, events: list[Event]) -> None:
        if self._is_started:
            events.append(KeepAlive(source))

    def _odd(self, frame: Frame, data: bytes, error: Exception, events: list[Event]) -> Mark | None:
        """Data that is no frame of ours: liveness, another dialect's last word, an unknown event, or a fault."""
        text = data.strip()
        if not text or text.startswith(b":") or text == b"ping":
            is_ping = text == b"ping" or frame.event == "ping"
            self._is_alive("ping" if is_ping else "comment" if text else "empty", events)
            return None
        if text.startswith(b"[DONE]"):
            return Mark.AFTER  # proves nothing here, and no client of this wire knows it
        found = load_json(data)
        if frame.event == "error" or (isinstance(found, dict) and found.get("type") == "error"):
            raise streamed_error(found if found is not None else data.decode(errors="replace"))
        if isinstance(found, dict) and word(found.get("type")) not in _EVENTS:
            return None
        if found is None and (fixed := repaired(data)) is not None and load_json(fixed) is not None:
            return self.decode(Frame(frame.raw, fixed, frame.event), events)
        raise MalformedFrame(f"A frame of the stream is not one of Anthropic Messages: {error}.") from error

    def _on_message_start(self, said: StreamFrame, events: list[Event]) -> None:
        self._start(said.message, events)

    def _on_block_start(self, said: StreamFrame, events: list[Event]) -> None:
        if not self._is_started:
            self._start(None, events)
        if said.content_block is not None:
            self._open_block(said.index, said.content_block, events)

    def _on_block_stop(self, said: StreamFrame, events: list[Event]) -> None:
        self._end_block(said.index if said.index is not None else next(reversed(self._open), None), events)

    def _on_message_delta(self, said: StreamFrame, events: list[Event]) -> None:
        if not self._is_started:
            self._start(None, events)
        delta = said.delta or DeltaBody()
        facts = {
            "stop_sequence": delta.stop_sequence,
            "stop_details": delta.stop_details,
            "container": delta.container,
        }
        self._stop(delta.stop_reason, facts)
        self._report(said.usage, events)

    def _on_message_stop(self, said: StreamFrame, events: list[Event]) -> Mark:
        self.proved = self.done = True
        return Mark.TERMINATOR

    def _on_ping(self, said: StreamFrame, events: list[Event]) -> None:
        self._is_alive("ping", events)

    def _other_delta(self, said: StreamFrame, delta: DeltaBody, data: bytes, events: list[Event]) -> None:
        """Any delta but the text of an open block."""
        index = said.index
        if index is None and self._open:
            index = next(reversed(self._open))
        block = self._open.get(index)
        if block is None:
            if not self._is_started:
                self._start(None, events)
            block = self._open_block(index, {"type": _UNANNOUNCED.get(delta.type, delta.type)}, events)
        if delta.type == block.speech:
            text = word(delta.text) or word(delta.thinking) or word(delta.partial_json)
            if text:
                _say(block, text, events)
        elif delta.type == "signature_delta" and block.kind == "reasoning":
            block.signature = word(delta.signature) or block.signature
        elif delta.type == "citations_delta" and block.kind == "text":
            _annotate(block, delta.citation, events)
        else:
            found = load_json(data)
            if found is None:  # what is no Unicode in members that we do not know was passed over until now
                found = load_json(repaired(data) or b"{}")
            whole: dict[str, Any] = found.get("delta", {})
            if block.kind in ("custom", "tool_result"):
                block.absorb(whole)
            else:
                _annotate(block, whole, events)


_EVENTS: dict[str | None, Callable[[StreamDecoder, StreamFrame, list[Event]], Mark | None]] = {
    "message_start": StreamDecoder._on_message_start,
    "content_block_start": StreamDecoder._on_block_start,
    "content_block_delta": lambda decoder, said, events: None,  # without a `delta` it says nothing
    "content_block_stop": StreamDecoder._on_block_stop,
    "message_delta": StreamDecoder._on_message_delta,
    "message_stop": StreamDecoder._on_message_stop,
    "ping": StreamDecoder._on_ping,
}


class DocumentDecoder(_Message):
    """One frame that is the whole body of a reply which did not stream."""

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        data = frame.data
        if data is None:
            return None
        try:
            message = msgspec.json.decode(data)
        except JSON_ERRORS as error:
            if data[:1] == b"{" and is_cut(data, error):
                return None  # cut: `close` says so
            if data[:1] in (b"{", b"["):
                raise MalformedFrame(f"The reply is not valid JSON: {error}.") from error
            raise NotAStream("The reply is neither a stream nor a message.", fix="Check the upstream's URL.") from error
        if isinstance(message, dict) and (message.get("type") == "error" or message.get("error")):
            raise streamed_error(message)
        if not isinstance(message, dict) or not isinstance(message.get("content"), list):
            raise NotAStream("The reply is JSON, but not an Anthropic message.", fix="Check the upstream's URL.")
        self._read(message, events)
        return None

    def _read(self, message: dict[str, Any], events: list[Event]) -> None:
        self._start(message, events)
        for raw in message["content"]:
            if isinstance(raw, dict):
                self._open_block(None, raw, events)
                self._end_block(None, events)
        self._stop(
            message.get("stop_reason"),
            {key: message.get(key) for key in ("stop_sequence", "stop_details", "container")},
        )
        self.proved = message.get("type") == "message" and self._stop_reason is not None
        self.done = True


def _lacking(frame: Frame) -> Mark | None:
    """Event lines that somebody on the way took away: our own reading needs none, Anthropic's SDKs do."""
    return None if frame.event is not None else Mark.NAMELESS


def word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _say(block: _Block, text: str, events: list[Event]) -> None:
    block.pieces.append(text)
    events.append(Delta(block.i, text))


def _annotate(block: _Block, data: Any, events: list[Event]) -> None:
    block.annotations.append(data)
    events.append(Annotation(block.i, data))
