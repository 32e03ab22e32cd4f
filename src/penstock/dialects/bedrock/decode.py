"""Bedrock Converse → events: the messages of a stream, lines of the same, or one document.

`messageStop` proves the end; usage comes after it, so the bytes are read on. A text block has no start of its own.
Streams of `invoke-with-response-stream` wrap another dialect's events: Anthropic's and OpenAI's are decoded by their
own decoders, Nova's are Converse's. Pure; never raises on a field of an unexpected type.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, Truncated
from penstock.canon.events import Annotation, Custom, Delta, Event, Finish, Start, UsageUpdate
from penstock.dialects.anthropic_messages.decode import decoder as anthropic_decoder
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json, repaired
from penstock.dialects.bedrock.errors import streamed_error
from penstock.dialects.bedrock.wire import FAILURES, OWN, STOP_REASONS, read_usage
from penstock.dialects.blocks import Blocks
from penstock.dialects.openai_chat.decode import ChatDecoder
from penstock.framing.base import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.usage import Usage
    from penstock.dialects.base import Decoder

_decode = msgspec.json.Decoder().decode


class ConverseDecoder:
    def __init__(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> None:
        self.proved = False
        self.done = False
        self._document = document
        self._provider = provider
        self._started = False
        self._closed = False
        self._blocks = Blocks(OWN)
        self._open_at: Any = None  # the index of the block whose text is open
        self._calls: dict[Any, int] = {}  # their index → block
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._about: dict[str, Any] = {}
        self._inner: Decoder | None = None  # of a stream that wraps another dialect's

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        data = frame.data
        if self.done:
            return Mark.AFTER
        if data is None:
            return None
        try:
            payload = _decode(data)
        except JSON_ERRORS as error:
            if self._document and is_cut(data, error):
                return None  # cut: `close` says so
            payload = load_json(repaired(data) or b"")
        if not isinstance(payload, dict):
            if self._document:
                raise NotAStream("The upstream's reply is not a JSON object.")
            raise MalformedFrame("A message of the stream is not a JSON object.")
        headers = frame.headers
        if headers is not None and headers.get(":message-type", "event") != "event":
            said = {"message": headers.get(":error-message"), **payload}
            raise streamed_error(frame.event or "error", said)
        if self._document:
            self._whole(payload, events)
        elif frame.event is not None and headers is not None:
            self._event(frame.event, payload, frame, events)
        else:  # a line, which names its event itself
            for name, inner in payload.items():
                if name.endswith("Exception"):
                    raise streamed_error(name, inner)
                self._event(name, inner if isinstance(inner, dict) else {}, frame, events)
        return None

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if self._inner is not None:
            self._inner.close(events)
            return
        if not self.proved:
            raise Truncated("The stream ended before messageStop.")
        if not self._started:
            self._start(events)
        self._blocks.close(events)
        raw = self._reason
        reason = STOP_REASONS.get(raw or "", "other" if raw else "stop")
        if reason == "stop" and self._blocks.has_calls:
            reason = "tool_calls"
        events.append(Finish(reason, raw, self._usage, self._about))

    def _start(self, events: list[Event]) -> None:
        self._started = True
        events.append(Start(None, self._provider))

    def _event(self, name: str, payload: dict[str, Any], frame: Frame, events: list[Event]) -> None:
        if name == "chunk":
            self._wrapped(payload, frame, events)
            return
        read = _EVENTS.get(name)
        if read is not None:
            if not self._started:
                self._start(events)
            read(self, payload, events)

    def _wrapped(self, payload: dict[str, Any], frame: Frame, events: list[Event]) -> None:
        """One event of another dialect, in base64."""
        try:
            inner = base64.b64decode(payload.get("bytes") or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise MalformedFrame("A message of the stream holds no base64.") from None
        found = load_json(inner)
        if not isinstance(found, dict):
            raise MalformedFrame("What a message of the stream holds is not a JSON object.")
        if self._inner is None and not self._started:
            if isinstance(found.get("type"), str):
                self._inner = anthropic_decoder(document=False, provider=self._provider)
            elif "choices" in found:
                self._inner = ChatDecoder(document=False, provider=self._provider)
        if self._inner is not None:
            self._inner.decode(Frame(frame.raw, inner), events)
            self.proved, self.done = self._inner.proved, self._inner.done
            return
        for name, event in found.items():
            if isinstance(event, dict) and name != "chunk":
                self._event(name, event, frame, events)

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_start(self, payload: dict[str, Any], events: list[Event]) -> None:
        pass  # `Start` has been said

    def _on_block(self, payload: dict[str, Any], events: list[Event]) -> None:
        start = payload.get("start")
        tool = start.get("toolUse") if isinstance(start, dict) else None
        index = _key(payload.get("contentBlockIndex"))
        if isinstance(tool, dict):
            self._begin_call(index, tool, events)
        elif isinstance(start, dict):
            for kind, raw in start.items():
                self._blocks.whole("custom", Custom(kind, raw), events)

    def _begin_call(self, index: Any, tool: dict[str, Any], events: list[Event]) -> int:
        id_, name = tool.get("toolUseId"), tool.get("name")
        i = self._blocks.begin_call(id_ if isinstance(id_, str) else "", name if isinstance(name, str) else "", events)
        self._calls[index] = i
        return i

    def _on_delta(self, payload: dict[str, Any], events: list[Event]) -> None:
        delta = payload.get("delta")
        if not isinstance(delta, dict):
            return
        index = _key(payload.get("contentBlockIndex"))
        text = delta.get("text")
        if type(text) is str:
            if self._blocks.kind != "text" or self._open_at != index:
                self._blocks.open("text", events)
                self._open_at = index
            if text:
                self._blocks.pieces.append(text)
                events.append(Delta(self._blocks.i, text))
            return
        tool, thought = delta.get("toolUse"), delta.get("reasoningContent")
        if isinstance(tool, dict):
            i = self._calls.get(index)
            if i is not None and isinstance(raw := tool.get("input"), str):
                self._blocks.more(i, raw, events)
        elif isinstance(thought, dict):
            self._thought(index, thought, events)
        elif self._blocks.kind == "text" and (citation := delta.get("citation")):
            events.append(Annotation(self._blocks.i, citation))
            self._blocks.annotate(citation)

    def _thought(self, index: Any, thought: dict[str, Any], events: list[Event]) -> None:
        if self._blocks.kind != "reasoning" or self._open_at != index:
            self._blocks.open("reasoning", events)
            self._open_at = index
        if isinstance(text := thought.get("text"), str):
            self._blocks.say("reasoning", text, events)
        signature, redacted = thought.get("signature"), thought.get("redactedContent")
        self._blocks.sign(
            signature=signature if isinstance(signature, str) else None,
            redacted=redacted if isinstance(redacted, str) else None,
        )

    def _on_block_end(self, payload: dict[str, Any], events: list[Event]) -> None:
        index = _key(payload.get("contentBlockIndex"))
        i = self._calls.pop(index, None)
        if i is not None:
            self._blocks.end_call(i, events)
        elif self._open_at == index:
            self._blocks.shut(events)

    def _on_stop(self, payload: dict[str, Any], events: list[Event]) -> None:
        self._stop(payload.get("stopReason"))
        fields = payload.get("additionalModelResponseFields")
        if isinstance(fields, dict) and isinstance(fields.get("stop_sequence"), str):
            self._about["stop_sequence"] = fields["stop_sequence"]

    def _stop(self, reason: Any) -> None:
        if isinstance(reason, str) and reason in FAILURES:
            raise streamed_error(reason, {"message": "The model's own output could not be read."})
        self._reason = reason if isinstance(reason, str) and reason else None
        self.proved = True

    def _on_metadata(self, payload: dict[str, Any], events: list[Event]) -> None:
        if isinstance(raw := payload.get("usage"), dict):
            self._usage = read_usage(raw)
            events.append(UsageUpdate(self._usage))
        if isinstance(metrics := payload.get("metrics"), dict):
            self._about["metrics"] = metrics
        if self.proved:
            self.done = True

    def _whole(self, payload: dict[str, Any], events: list[Event]) -> None:
        output = payload.get("output")
        message = output.get("message") if isinstance(output, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            raise NotAStream("The upstream's reply is JSON, but no Converse reply.")
        self._start(events)
        for index, block in enumerate(content):
            if isinstance(block, dict):
                self._block(index, block, events)
        if payload.get("stopReason"):
            self._stop(payload["stopReason"])
        self._on_metadata(payload, events)
        self.done = True

    def _block(self, index: int, block: dict[str, Any], events: list[Event]) -> None:
        tool, thought = block.get("toolUse"), block.get("reasoningContent")
        if isinstance(text := block.get("text"), str):
            self._blocks.open("text", events)
            self._blocks.say("text", text, events)
            self._blocks.shut(events)
        elif isinstance(tool, dict):
            i = self._begin_call(index, tool, events)
            self._blocks.more(i, msgspec.json.encode(tool.get("input") or {}).decode(), events)
            self._blocks.end_call(i, events)
        elif isinstance(thought, dict):
            said = thought.get("reasoningText")
            self._thought(index, said if isinstance(said, dict) else thought, events)
            self._blocks.shut(events)
        else:
            for kind, raw in block.items():
                self._blocks.whole("custom", Custom(kind, raw), events)


_EVENTS: dict[str, Callable[[ConverseDecoder, dict[str, Any], list[Event]], None]] = {
    "messageStart": ConverseDecoder._on_start,
    "contentBlockStart": ConverseDecoder._on_block,
    "contentBlockDelta": ConverseDecoder._on_delta,
    "contentBlockStop": ConverseDecoder._on_block_end,
    "messageStop": ConverseDecoder._on_stop,
    "metadata": ConverseDecoder._on_metadata,
}


def _key(index: Any) -> Any:
    return index if isinstance(index, int | str) else None
