"""Gemini → events: the chunks of a stream, SSE or a JSON array, or the document of a reply that does not stream.

What proves the end is a `finishReason` on every candidate that was seen, or a blocked prompt; usage may come after it,
so a stream ends with its bytes (or with the array's `]`), never with the reason. Candidates other than the first are
watched for their end only. A reason that says that the model failed is an error. Pure; never raises on a field of an
unexpected type. Raises `StreamedError`, `MalformedFrame`, `NotAStream` (a document that is no reply), `Truncated`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import MalformedFrame, NotAStream, StreamedError, Truncated
from penstock.canon.events import (
    Annotation,
    BlockKind,
    Custom,
    Delta,
    Event,
    Finish,
    KeepAlive,
    Reasoning,
    Start,
    UsageUpdate,
)
from penstock.canon.usage import Usage, merge_reported
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json, repaired
from penstock.dialects.blocks import Blocks
from penstock.dialects.gemini.errors import streamed_error
from penstock.dialects.gemini.partial_args import PartialArgs
from penstock.dialects.gemini.wire import (
    ANNOTATIONS,
    FAILURES,
    OWN,
    PROMPT_BLOCKED,
    UNBLOCKED,
    UNFINISHED,
    Candidate,
    Chunk,
    Content,
    Part,
    decode_chunk,
    finish_reason,
    read_usage,
)
from penstock.framing.base import Frame

if TYPE_CHECKING:
    from penstock.dialects.base import Decoder

_COMMENT, _PING, _EMPTY = KeepAlive("comment"), KeepAlive("ping"), KeepAlive("empty")

#: part → what it is to us, and under which name it is kept
_CUSTOM: dict[str, tuple[BlockKind, str]] = {
    "inlineData": ("file", "inline_data"),
    "fileData": ("file", "file_data"),
    "executableCode": ("custom", "executable_code"),
    "codeExecutionResult": ("tool_result", "code_execution_result"),
}

#: what stands beside a part, and is none
_FLAGS = frozenset({"text", "thought", "thoughtSignature", "functionCall", "videoMetadata", "partMetadata"})

#: what a reply that is a document has one of
_REPLY = ("candidates", "promptFeedback", "usageMetadata")


def decoder(*, document: bool, provider: str | None = None, profile: str | None = None) -> Decoder:
    return DocumentDecoder(provider) if document else StreamDecoder(provider)


class StreamDecoder:
    """Frames of one stream. A piece of text costs a struct, an event and two list appends, and its usage as much."""

    def __init__(self, provider: str | None) -> None:
        self.proved = False
        self.done = False
        self._provider = provider
        self._started = False
        self._closed = False
        self._blocks = Blocks(OWN)
        self._unfinished: set[int] = set()  # candidates seen and not yet finished
        self._reason: str | None = None
        self._reported: dict[str, Any] | None = None
        self._usage: Usage | None = None
        self._about: dict[str, Any] = {}  # model, id, and what is said at the end
        self._calls = 0
        self._partial: PartialArgs | None = None  # a call whose arguments come in pieces (Vertex)

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        data = frame.data
        if data is None:
            return self._no_data(frame, events)
        try:
            chunk = decode_chunk(data)
        except JSON_ERRORS:
            return self._odd(frame, data, events)
        if frame.event == "error":
            raise streamed_error(load_json(data))
        return self._chunk(chunk, data, events)

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.proved:
            raise Truncated("The reply ended before the provider gave a finishReason.")
        self._end_partial(events)
        self._blocks.close(events)
        raw = self._reason or ""
        reason = finish_reason(raw)
        if reason == "stop" and self._blocks.has_calls:
            reason = "tool_calls"
        events.append(Finish(reason, raw, self._usage, self._about))

    def _chunk(self, chunk: Chunk, data: bytes, events: list[Event]) -> Mark | None:
        if chunk.error:
            raise streamed_error({"error": chunk.error})
        if len(self._about) < 2:
            self._learn(chunk)
        candidates = chunk.candidates
        if not self._started:
            if not (candidates or self._about or chunk.prompt_feedback or chunk.usage_metadata):
                return None  # JSON, but nothing of ours
            self._started = True
            events.append(Start(self._about.get("model"), self._provider, self._about.get("response_id")))
        failed: StreamedError | None = None
        if candidates:
            unnumbered = 0
            for k, candidate in enumerate(candidates):
                index = candidate.index
                if type(index) is not int:  # Vertex leaves a zero out
                    index, unnumbered = unnumbered, unnumbered + 1
                if index == 0:
                    content = candidate.content
                    if content is not None and content.parts:
                        self._parts(content.parts, data, k, events)
                    self._said_of(candidate, events)
                    if type(candidate.finish_reason) is str and candidate.finish_reason in FAILURES:
                        failed = _failure(candidate)
                if not self.proved or candidate.finish_reason is not None:
                    self._watch(index, candidate.finish_reason)
        if chunk.prompt_feedback:
            self._feedback(chunk.prompt_feedback)
        usage = chunk.usage_metadata
        if type(usage) is dict and usage:
            self._reported = merge_reported(self._reported, usage)
            self._usage = read_usage(self._reported)
            events.append(UsageUpdate(self._usage))
        if failed is not None:
            raise failed
        return Mark.USAGE if usage and not candidates else None

    # --- content ----------------------------------------------------------------------------------------------------

    def _parts(self, parts: list[Part], data: bytes, position: int, events: list[Event]) -> None:
        blocks = self._blocks
        raw_parts: list[dict[str, Any]] | None = None
        for k, part in enumerate(parts):
            text = part.text
            if type(text) is str and part.function_call is None:
                kind = "reasoning" if part.thought is True else "text"
                if text:
                    if blocks.kind == kind:  # nearly every part of nearly every stream
                        blocks.pieces.append(text)
                        events.append(Delta(blocks.i, text))
                    else:
                        self._end_partial(events)
                        blocks.say(kind, text, events)  # type: ignore[arg-type]
                if part.thought_signature is not None:
                    self._sign(part.thought_signature, kind == "reasoning", events)
            elif type(part.function_call) is dict:
                self._call(part.function_call, part.thought_signature, data, events)
            else:
                if raw_parts is None:
                    raw_parts = _raw_parts(data, position)
                self._other(part, raw_parts[k] if k < len(raw_parts) else {}, events)

    def _sign(self, signature: Any, of_thought: bool, events: list[Event]) -> None:
        """A thought's proof is its own. That of text, or of nothing at all, is kept as a thought without words."""
        if not signature or not isinstance(signature, str):
            return
        if of_thought and self._blocks.kind == "reasoning":
            self._blocks.sign(signature=signature)
            self._blocks.shut(events)
        else:
            self._blocks.whole("reasoning", Reasoning("", signature, signed_by=OWN), events)

    def _call(self, call: dict[str, Any], signature: Any, data: bytes, events: list[Event]) -> None:
        """A call is whole in its part; or `willContinue` begins it, and the next parts' `partialArgs` fill it."""
        name, id_ = _word(call.get("name")), _word(call.get("id"))
        if self._partial is not None and not name:
            self._partial.add(call.get("partialArgs"))
            if not call.get("willContinue"):
                self._end_partial(events)
            return
        self._end_partial(events)
        signature = signature if isinstance(signature, str) and signature else None
        i = self._blocks.begin_call(id_ or self._new_id(data), name or "", events, signature=signature)
        self._calls += 1
        args = call.get("args")
        if call.get("willContinue") or call.get("partialArgs"):
            self._partial = PartialArgs(i, args if isinstance(args, dict) else {})
            self._partial.add(call.get("partialArgs"))
            if not call.get("willContinue"):
                self._end_partial(events)
            return
        text = args if isinstance(args, str) else _json({} if args is None else args)
        self._blocks.more(i, text, events)
        self._blocks.end_call(i, events)

    def _end_partial(self, events: list[Event]) -> None:
        partial, self._partial = self._partial, None
        if partial is not None:
            self._blocks.more(partial.i, _json(partial.args), events)
            self._blocks.end_call(partial.i, events)

    def _new_id(self, data: bytes) -> str:
        """For calls without an id: one that no other reply of a conversation gives. Some servers name no reply."""
        reply = self._about.get("response_id") or hashlib.blake2b(data, digest_size=9).hexdigest()
        return f"call_{reply}_{self._calls}"

    def _other(self, part: Part, raw: dict[str, Any], events: list[Event]) -> None:
        """A part that is neither text nor a call: kept as it came. One with nothing in it may still be signed."""
        name = next((key for key in raw if key not in _FLAGS), None)
        if name is None or not raw[name]:
            self._sign(part.thought_signature, part.thought is True, events)
            return
        kind, ours = _CUSTOM.get(name, ("custom", name))
        self._end_partial(events)
        self._blocks.whole(kind, Custom(ours, raw), events)

    def _said_of(self, candidate: Candidate, events: list[Event]) -> None:
        """Citations and the like belong to the open text; without one they are told with the end."""
        for field, name in ANNOTATIONS.items():
            said = getattr(candidate, field)
            if not said:
                continue
            if self._blocks.kind == "text":
                self._blocks.annotate({name: said})
                events.append(Annotation(self._blocks.i, {name: said}))
            else:
                self._about[name] = said
        for field, value in (
            ("finish_message", candidate.finish_message),
            ("continuation_token", candidate.continuation_token),
        ):
            if value and isinstance(value, str):
                self._about[field] = value

    # --- the end ----------------------------------------------------------------------------------------------------

    def _watch(self, index: int, reason: Any) -> None:
        if isinstance(reason, str) and reason not in UNFINISHED:
            self._unfinished.discard(index)
            if index == 0 and self._reason is None:
                self._reason = reason
            self.proved = not self._unfinished and self._reason is not None
        elif not self.proved:
            self._unfinished.add(index)

    def _feedback(self, feedback: Any) -> None:
        reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
        if isinstance(reason, str) and reason not in UNBLOCKED:
            self._reason = self._reason or PROMPT_BLOCKED + reason
            self.proved = True
            if message := _word(feedback.get("blockReasonMessage")):
                self._about["finish_message"] = message

    # --- the rare frames --------------------------------------------------------------------------------------------

    def _learn(self, chunk: Chunk) -> None:
        """The first name that is one."""
        if name := _word(chunk.model_version):
            self._about.setdefault("model", name)
        if id_ := _word(chunk.response_id):
            self._about.setdefault("response_id", id_)

    def _no_data(self, frame: Frame, events: list[Event]) -> Mark | None:
        if frame.raw.startswith(b":"):
            self._is_alive(_COMMENT, events)
        elif frame.raw.lstrip(b" \t\r\n,[").startswith(b"]"):
            self.done = True
            return Mark.TERMINATOR
        elif frame.raw.lstrip().startswith(b"{"):
            # Google's servers write an error of theirs into the stream without `data:`, on lines of its own.
            found = load_json(frame.raw)
            if isinstance(found, dict) and found.get("error"):
                raise streamed_error(found)
        return None

    def _is_alive(self, event: KeepAlive, events: list[Event]) -> None:
        if self._started:
            events.append(event)

    def _odd(self, frame: Frame, data: bytes, events: list[Event]) -> Mark | None:
        """Data that is no chunk of ours: liveness, a list of chunks, a shape that is off, or a fault."""
        said = data.strip()
        if not said or said.startswith(b":") or said == b"ping":
            self._is_alive(_PING if said == b"ping" else _COMMENT if said else _EMPTY, events)
            return None
        if said.startswith(b"[DONE]"):
            return Mark.AFTER  # a proxy's; proves nothing, and no client of this wire knows it
        found = load_json(said)
        if found is None and (fixed := repaired(said)) is not None:
            found = load_json(fixed)
        chunks = found if isinstance(found, list) else [found]
        if not chunks or not all(isinstance(chunk, dict) for chunk in chunks):
            if frame.event == "error":
                raise streamed_error(said.decode(errors="replace"))
            raise MalformedFrame("A frame of the stream is not a JSON object.")
        for chunk in chunks:
            self._chunk(_mended(chunk), msgspec.json.encode(chunk), events)
        return None


class DocumentDecoder(StreamDecoder):
    """One frame that is the whole body of a reply: a response, or a list of its chunks."""

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        data = frame.data
        if data is None:
            return None
        try:
            found = msgspec.json.decode(data)
        except JSON_ERRORS as error:
            if data[:1] in (b"{", b"[") and is_cut(data, error):
                return None  # cut: `close` says so
            found = load_json(fixed) if (fixed := repaired(data)) is not None else None
            if found is None:
                if data[:1] in (b"{", b"["):
                    raise MalformedFrame(f"The reply is not valid JSON: {error}.") from error
                raise NotAStream(
                    "The reply is neither a stream nor a response.", fix="Check the upstream's url."
                ) from error
        chunks = found if isinstance(found, list) else [found]
        for chunk in chunks:
            if isinstance(chunk, dict) and chunk.get("error"):
                raise streamed_error(chunk)
            if not isinstance(chunk, dict) or not any(key in chunk for key in _REPLY):
                raise NotAStream("The reply is JSON, but no response of Gemini's.", fix="Check the upstream's url.")
            self._chunk(_mended(chunk), msgspec.json.encode(chunk), events)
        self.done = True
        return None


def _mended(found: dict[str, Any]) -> Chunk:
    """What can be read of a chunk whose shape is off (`parts: {}`, a content that is null)."""
    candidates = []
    for given in _dicts(found.get("candidates")):
        content = given.get("content")
        parts = _dicts(content.get("parts")) if isinstance(content, dict) else []
        candidate = msgspec.convert({**given, "content": None}, Candidate)
        candidate.content = Content([msgspec.convert(part, Part) for part in parts])
        candidates.append(candidate)
    chunk = msgspec.convert({**found, "candidates": None}, Chunk)
    chunk.candidates = candidates
    return chunk


def _dicts(found: Any) -> list[dict[str, Any]]:
    listed = found if isinstance(found, list) else [found]
    return [each for each in listed if isinstance(each, dict)]


def _raw_parts(data: bytes, position: int) -> list[dict[str, Any]]:
    """A candidate's parts as they came, with the members that we do not know."""
    try:
        return _dicts(_dicts(load_json(data)["candidates"])[position]["content"]["parts"])
    except (TypeError, LookupError):  # no Unicode in a member that is not ours
        return []


def _failure(candidate: Candidate) -> StreamedError:
    reason: str = candidate.finish_reason
    said = _word(candidate.finish_message)
    return StreamedError(
        f"The model failed ({reason}){': ' + said if said else ''}.",
        type=reason,
        raw={"finishReason": reason, "finishMessage": said},
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
