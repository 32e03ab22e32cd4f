"""Ollama → events: the lines of a stream, or the one document of a reply that does not stream, which look the same.

`done: true` proves the end; the connection's end proves nothing. Calls come whole; an id that a server does not give is
made from `created_at`, so that it is no other reply's, or, where there is none either, from the call itself. Pure;
never raises on a field of an unexpected type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, Truncated
from penstock.canon.events import Delta, Event, Finish, KeepAlive, Start, UsageUpdate
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json, repaired
from penstock.dialects.blocks import Blocks
from penstock.dialects.ollama.errors import streamed_error
from penstock.dialects.ollama.wire import FINISH_REASONS, OWN, Line, decode_line, read_timings, read_usage

if TYPE_CHECKING:
    from penstock.canon.usage import Usage
    from penstock.framing.base import Frame

_EMPTY = KeepAlive("empty")
_DIGITS = frozenset("0123456789")


class OllamaDecoder:
    def __init__(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> None:
        self.proved = False
        self.done = False
        self._document = document
        self._provider = provider
        self._started = False
        self._closed = False
        self._blocks = Blocks(OWN)
        self._made_ids = 0
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._about: dict[str, Any] = {}

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        data = frame.data
        if self.done:
            return Mark.AFTER
        if data is None:
            if self._started:
                events.append(_EMPTY)
            return None
        try:
            line = decode_line(data)
        except JSON_ERRORS as error:
            if self._document and is_cut(data, error):
                return None  # cut: `close` says so
            line = self._tolerated(data)
        if line.error:
            raise streamed_error(line.error)
        message = line.message
        if (
            message is not None
            and type(text := message.content) is str
            and text
            and self._blocks.kind == "text"
            and message.thinking is message.tool_calls is None
            and not line.done
        ):  # nearly every line of nearly every stream
            self._blocks.pieces.append(text)
            events.append(Delta(self._blocks.i, text))
            return None
        self._line(line, events)
        return None

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.proved:
            raise Truncated("The stream ended without a line that says `done`.")
        self._blocks.close(events)
        raw = self._reason
        reason = FINISH_REASONS.get(raw or "", "other" if raw else "stop")
        if reason == "stop" and self._blocks.has_calls:
            reason = "tool_calls"
        events.append(Finish(reason, raw, self._usage, self._about))

    def _tolerated(self, data: bytes) -> Line:
        """JSON whose shape is off, or whose text is no Unicode: what can be read of it."""
        found = load_json(data)
        if found is None and (fixed := repaired(data)) is not None:
            found = load_json(fixed)
        if not isinstance(found, dict):
            if self._document:
                raise NotAStream("The upstream's reply is not a JSON object.")
            raise MalformedFrame("A line of the stream is not a JSON object.")
        if not isinstance(found.get("message"), dict):
            found.pop("message", None)
        try:
            return msgspec.convert(found, Line)
        except msgspec.ValidationError as error:
            raise MalformedFrame(f"A line of the stream does not have the shape of Ollama's: {error}.") from None

    def _line(self, line: Line, events: list[Event]) -> None:
        message = line.message
        said = message is not None or line.response is not None or line.done is True
        if not said:
            if self._document:
                raise NotAStream("The upstream's reply is JSON, but not one of Ollama's.")
            return  # a field that we do not know
        if not self._started:
            self._start(line, events)
        thought = message.thinking if message is not None else line.thinking
        text = message.content if message is not None else line.response
        if isinstance(thought, str) and thought:
            self._blocks.say("reasoning", thought, events)
        if isinstance(text, str) and text:
            self._blocks.say("text", text, events)
        if message is not None and isinstance(message.tool_calls, list):
            for call in message.tool_calls:
                self._call(call, line, events)
        if line.done is True:
            self._end(line, events)

    def _start(self, line: Line, events: list[Event]) -> None:
        self._started = True
        model = line.model if isinstance(line.model, str) and line.model else None
        if model:
            self._about["model"] = model
        for name in ("remote_model", "remote_host"):
            if isinstance(value := getattr(line, name), str):
                self._about[name] = value
        events.append(Start(model, self._provider))

    def _call(self, call: Any, line: Line, events: list[Event]) -> None:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            return
        id_, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
        if not isinstance(id_, str) or not id_:
            stamp = "".join(sign for sign in str(line.created_at or "") if sign in _DIGITS)
            id_ = f"call_{stamp or crc32(msgspec.json.encode(function))}_{self._made_ids}"
            self._made_ids += 1
        raw = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
        i = self._blocks.begin_call(id_, name if isinstance(name, str) else "", events)
        self._blocks.more(i, raw, events)
        self._blocks.end_call(i, events)

    def _end(self, line: Line, events: list[Event]) -> None:
        self.proved = self.done = True
        self._reason = line.done_reason if isinstance(line.done_reason, str) else None
        timings = read_timings(line)
        if timings is not None:
            events.append(timings)
        self._usage = read_usage(line)
        if self._usage is not None:
            events.append(UsageUpdate(self._usage))
