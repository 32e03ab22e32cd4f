"""OpenAI chat → events: the chunks of a stream, or the one document of a reply that does not stream.

What proves the end is `finish_reason`, on every choice that was seen; `[DONE]` and EOF are hints of the transport, and
prove nothing. `Finish` is held back until one of them, because usage may come after the reason. Choices other than the
first are watched for their end only. Pure; never raises on a field of an unexpected type.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, Truncated
from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockKind,
    BlockStart,
    Delta,
    Event,
    Finish,
    KeepAlive,
    Progress,
    Reasoning,
    Refusal,
    Start,
    Text,
    Timings,
    UsageUpdate,
)
from penstock.canon.usage import Usage, merge_reported, whole
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json, repaired
from penstock.dialects.openai_chat.errors import streamed_error
from penstock.dialects.openai_chat.profiles import profile_of
from penstock.dialects.openai_chat.think import ThinkScanner
from penstock.dialects.openai_chat.timings import read_durations, read_metrics, read_timings
from penstock.dialects.openai_chat.tools import ToolCalls
from penstock.dialects.openai_chat.wire import (
    FINISH_REASONS,
    Chunk,
    MessageDelta,
    ToolCallDelta,
    decode_chunk,
    read_usage,
)
from penstock.framing.base import Frame

_COMMENT, _PING, _EMPTY = KeepAlive("comment"), KeepAlive("ping"), KeepAlive("empty")


class ChatDecoder:
    """Frames of one reply → events. `document`: the frame is a whole completion."""

    def __init__(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> None:
        self.proved = False
        self.done = False
        self._document = document
        self._provider = provider
        self._started = False
        self._closed = False
        self._next_i = 0
        self._kind: BlockKind | None = None  # of the open text, reasoning or refusal block
        self._i = 0
        self._pieces: list[str] = []
        self._details: list[Any] = []
        self._tools: ToolCalls | None = None
        think = profile_of(profile).think
        self._scanner = ThinkScanner(begun=think == "begun") if think else None
        self._unfinished: set[int] = set()  # choices seen and not yet finished
        self._reason: str | None = None
        self._reported: dict[str, Any] | None = None
        self._usage: Usage | None = None
        self._about: dict[str, Any] = {}  # model and id, first non-empty

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        data = frame.data
        if self.done:
            return Mark.AFTER
        if data is None:
            if self._started and frame.raw.startswith(b":"):
                events.append(_COMMENT)
            return None
        if not data.startswith(b"{"):
            return self._no_object(frame, data, events)
        try:
            chunk = decode_chunk(data)
        except JSON_ERRORS as error:
            if self._document and is_cut(data, error):
                return None  # cut: `close` says so
            chunk = self._tolerate(data)
        if chunk.error or chunk.object == "error" or frame.event == "error":
            raise streamed_error(chunk.error or load_json(data))
        choices = chunk.choices
        if not self._started and choices:
            self._start(chunk, events)
        elif len(self._about) < 2:
            self._learn(chunk)
        if choices:
            for choice in choices:
                delta = choice.delta
                if (
                    delta is not None
                    and type(text := delta.content) is str
                    and text
                    and self._kind == "text"
                    and delta.tool_calls is delta.reasoning is delta.reasoning_content is delta.refusal is None
                    and choice.finish_reason is choice.logprobs is choice.usage is choice.error is None
                    and delta.reasoning_details is delta.annotations is delta.function_call is None
                    and not choice.index
                ):  # nearly every chunk of nearly every stream
                    self._pieces.append(text)
                    events.append(Delta(self._i, text))
                    continue
                if choice.index and type(choice.index) is int:
                    self._watch(choice.index, choice.finish_reason)
                    continue
                if choice.error:
                    raise streamed_error(choice.error)
                delta = choice.delta or choice.message
                if delta is not None:
                    self._delta(delta, events)
                elif choice.text:  # a completion's; some servers send both, which is one text
                    self._delta(MessageDelta(content=choice.text), events)
                if choice.logprobs and self._kind is not None:
                    events.append(Annotation(self._i, {"logprobs": choice.logprobs}))
                self._watch(0, choice.finish_reason)
                if choice.usage:
                    self._report(choice.usage, events)
        if chunk.usage:
            self._report(chunk.usage, events)
            if isinstance(chunk.metrics, dict):
                self._timed(read_metrics(chunk.metrics), events)
            if isinstance(chunk.time_info, dict):
                self._timed(read_durations(chunk.time_info, self._usage), events)
        if chunk.timings or chunk.prompt_progress or chunk.x_groq or chunk.verbose:
            self._extras(chunk, events)
        if self._document:
            self._end_document(bool(choices))
        return Mark.USAGE if chunk.usage and not choices else None

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.proved:
            said = "[DONE]" if self.done else "the connection's end"
            raise Truncated(f"The stream ended with {said} but without a finish_reason.")
        self._end_scan(events)
        self._close_block(events)
        if self._tools is not None:
            self._tools.close(events)
        raw = self._reason
        reason = FINISH_REASONS.get(raw or "", "other" if raw else "stop")
        if reason == "stop" and self._tools is not None:
            reason = "tool_calls"
        events.append(Finish(reason, raw, self._usage, self._about))

    # --- the rare frames --------------------------------------------------------------------------------------------

    def _no_object(self, frame: Frame, data: bytes, events: list[Event]) -> Mark | None:
        said = data.strip()
        if said.startswith(b"[DONE]"):
            self.done = True
            return Mark.TERMINATOR
        if said.startswith(b"{"):  # white space before the JSON
            return self.decode(Frame(frame.raw, said, frame.event), events)
        if self._document:
            raise NotAStream("The upstream's reply is not a JSON object.")
        if frame.event == "error":
            raise streamed_error(said.decode(errors="replace"))
        if not said or said.startswith(b":") or said == b"ping":
            if self._started:
                events.append(_PING if said else _EMPTY)
            return None
        raise MalformedFrame("A frame of the stream is not a JSON object.")

    def _tolerate(self, data: bytes) -> Chunk:
        """JSON whose shape is off (`choices: {}`, a delta that is a string): what can be read of it, or an error."""
        found = load_json(data)
        if found is None and (fixed := repaired(data)) is not None:
            found = load_json(fixed)
        if not isinstance(found, dict):
            raise MalformedFrame("A frame of the stream is not valid JSON.")
        if found.get("error"):
            return Chunk(error=found["error"])
        try:
            return msgspec.convert(found, Chunk, strict=False)
        except msgspec.ValidationError as error:
            raise MalformedFrame(f"A frame of the stream does not have the shape of a chat chunk: {error}.") from None

    def _start(self, chunk: Chunk, events: list[Event]) -> None:
        self._learn(chunk)
        self._started = True
        provider = chunk.provider if isinstance(chunk.provider, str) else self._provider
        events.append(Start(self._about.get("model"), provider, self._about.get("response_id")))

    def _learn(self, chunk: Chunk) -> None:
        """The first non-empty name counts: Azure's first chunk has none, and some change it."""
        if chunk.model and isinstance(chunk.model, str):
            self._about.setdefault("model", chunk.model)
        if chunk.id and isinstance(chunk.id, str):
            self._about.setdefault("response_id", chunk.id)

    def _watch(self, index: int, reason: Any) -> None:
        if reason and reason != "null" and isinstance(reason, str):
            if reason == "error":
                raise streamed_error({"message": "The upstream ended its reply with an error.", "type": "error"})
            self._unfinished.discard(index)
            if index == 0 and self._reason is None:
                self._reason = reason
            self.proved = not self._unfinished and self._reason is not None
        elif not self.proved:
            self._unfinished.add(index)

    def _report(self, raw: Any, events: list[Event]) -> None:
        if isinstance(raw, dict):
            self._reported = merge_reported(self._reported, raw)
            self._usage = read_usage(self._reported)
            if self._started:
                events.append(UsageUpdate(self._usage))
                self._timed(read_durations(raw, self._usage), events)  # Groq's

    def _timed(self, timings: Timings | None, events: list[Event]) -> None:
        if timings is not None and self._started:
            events.append(timings)

    def _extras(self, chunk: Chunk, events: list[Event]) -> None:
        if not self._started:
            self._start(chunk, events)
        timings, progress, groq = chunk.timings, chunk.prompt_progress, chunk.x_groq
        if isinstance(timings, dict):
            events.append(read_timings(timings))
        if isinstance(progress, dict):
            events.append(Progress("prompt", whole(progress.get("processed")), whole(progress.get("total"))))
        if isinstance(chunk.verbose, dict) and chunk.verbose.get("stop_type"):
            self._about["stop_type"] = chunk.verbose["stop_type"]
            self._about["stop_sequence"] = chunk.verbose.get("stopping_word") or None
        if isinstance(groq, dict):
            if groq.get("error"):
                raise streamed_error(groq["error"])
            if groq.get("usage") and not chunk.usage:
                self._report(groq["usage"], events)

    def _end_document(self, is_completion: bool) -> None:
        if not is_completion:
            raise NotAStream("The upstream's reply is JSON, but no chat completion.")
        # A whole document is its own proof, whatever its finish_reason.
        self.proved = self.done = True

    # --- content ----------------------------------------------------------------------------------------------------

    def _delta(self, delta: MessageDelta, events: list[Event]) -> None:
        thought = delta.reasoning_content or delta.reasoning
        if thought or delta.reasoning_details:
            self._reasoning(thought, delta.reasoning_details, events)
        content = delta.content
        if content:
            if type(content) is not str:
                self._parts(content, events)
            elif self._scanner is not None:
                self._scan(self._scanner, content, events)
            else:
                self._piece("text", content, events)
        if delta.refusal and isinstance(delta.refusal, str):
            self._piece("refusal", delta.refusal, events)
        if delta.annotations and self._kind == "text":
            events.append(Annotation(self._i, {"annotations": delta.annotations}))
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._calls(events).feed(call, events)
        if delta.function_call is not None:  # the one call of before there were tools
            self._calls(events).feed(ToolCallDelta(index=-1, function=delta.function_call), events)

    def _calls(self, events: list[Event]) -> ToolCalls:
        self._end_scan(events)
        self._close_block(events)
        if self._tools is None:
            self._tools = ToolCalls(self._claim_i, self._about.get("response_id", "reply"))
        return self._tools

    def _scan(self, scanner: ThinkScanner, text: str, events: list[Event]) -> None:
        for kind, piece in scanner.feed(text):
            self._piece(kind, piece, events)
        if scanner.is_over:
            self._scanner = None

    def _end_scan(self, events: list[Event]) -> None:
        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            for kind, piece in scanner.close():
                self._piece(kind, piece, events)

    def _reasoning(self, thought: Any, details: Any, events: list[Event]) -> None:
        """OpenRouter sends the same words twice, as text and as details: they count once, the details are kept."""
        listed = [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []
        if not isinstance(thought, str) or not thought:
            thought = "".join(str(item.get("text") or item.get("summary") or "") for item in listed)
        if thought:
            self._piece("reasoning", thought, events)
        elif listed and self._kind != "reasoning":
            self._open("reasoning", events)  # signatures and encrypted thoughts may come without a word
        self._details += listed

    def _parts(self, content: Any, events: list[Event]) -> None:
        """Mistral's content is a list of typed parts."""
        if not isinstance(content, list):
            return
        for part in content:
            if not isinstance(part, dict):
                continue
            if part.get("type") == "text" and part.get("text"):
                self._piece("text", str(part["text"]), events)
            elif part.get("type") == "thinking":
                inner = part.get("thinking")
                said = (
                    [str(p.get("text") or "") for p in inner if isinstance(p, dict)]
                    if isinstance(inner, list)
                    else [str(inner or "")]
                )
                if text := "".join(said):
                    self._piece("reasoning", text, events)

    def _piece(self, kind: BlockKind, text: str, events: list[Event]) -> None:
        if self._kind != kind:
            self._open(kind, events)
        self._pieces.append(text)
        events.append(Delta(self._i, text))

    def _claim_i(self) -> int:
        i = self._next_i
        self._next_i += 1
        return i

    def _open(self, kind: BlockKind, events: list[Event]) -> None:
        self._close_block(events)
        self._i = self._claim_i()
        self._kind = kind
        events.append(BlockStart(self._i, kind))

    def _close_block(self, events: list[Event]) -> None:
        if self._kind is None:
            return
        text = "".join(self._pieces)
        if self._kind == "text":
            part: Text | Reasoning | Refusal = Text(text)
        elif self._kind == "refusal":
            part = Refusal(text)
        else:
            signatures = [d["signature"] for d in self._details if isinstance(d.get("signature"), str)]
            signature = signatures[-1] if signatures else None
            owner = "openai-chat" if self._details else None
            part = Reasoning(text, signature, details=tuple(self._details), signed_by=owner)
            self._details = []
        events.append(BlockEnd(self._i, part))
        self._kind = None
        self._pieces = []
