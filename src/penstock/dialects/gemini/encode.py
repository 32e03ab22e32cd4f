"""Events → Gemini: the chunks of a stream, as SSE or as a JSON array, or one response document.

Every chunk is a whole `GenerateContentResponse`. A call is written when it is whole, because this wire has no pieces of
one, and calls in the order in which they began; reasoning is a part with `thought`, and a signature a part of its own,
as Gemini sends it. The reason and the usage come in the last chunk. What this wire has no word for (server calls,
foreign custom blocks, progress, timings) is left out. Pure.
"""

from __future__ import annotations

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
from penstock.dialects.gemini.errors import write_error
from penstock.dialects.gemini.wire import (
    ANNOTATIONS,
    PROMPT_BLOCKED,
    call_args,
    finish_word,
    write_signature,
    write_usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.errors import PenstockError
    from penstock.canon.response import Response
    from penstock.canon.usage import Usage

#: A line end: what any more there is, a comment even, Google's own SDK takes for JSON.
HEARTBEAT = b"\n"
TERMINATOR = b""
ARRAY_TERMINATOR = b"\n]"

_json = msgspec.json.Encoder().encode

_TEXT = b'{"text":'
_THOUGHT = b'{"thought":true,"text":'
_SPEECH = {"text": _TEXT, "refusal": _TEXT, "reasoning": _THOUGHT}

#: custom blocks of this wire, kept whole
_OWN_PARTS = frozenset({"inline_data", "file_data", "executable_code", "code_execution_result"})
_ANNOTATED = frozenset(ANNOTATIONS.values())


class StreamEncoder:
    """`model` is the name that the client knows; None takes the upstream's. This form of it writes SSE."""

    _open = b"data: "
    _close = b"\n\n"

    def __init__(self, *, model: str | None, include_usage: bool = True, request_id: str, created: int = 0) -> None:
        self._model = model
        self._request_id = request_id
        self._speech: dict[int, bytes] = {}  # block → what precedes a piece of its text
        self._calls: dict[int, ToolCall | None] = {}  # begun and not written; None: not yet whole
        self._has_refusal = False
        self._has_content = False
        self._usage: Usage | None = None
        self._envelope(None, None)

    def _envelope(self, id_: str | None, model: str | None) -> None:
        said = _json({"modelVersion": self._model or model or "", "responseId": id_ or self._request_id})
        self._about = said[1:]  # … "}"
        self._head = b'{"candidates":[{"content":{"parts":['
        self._tail = b'],"role":"model"},"index":0}],' + self._about

    def encode(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:
                speech = self._speech.get(event.i)
                if speech is not None:
                    out += (self._opened(), self._head, speech, _json(event.text), b"}", self._tail, self._close)
                    self._has_content = True
            else:
                self._rare(event, out)
        return b"".join(out)

    def error(self, error: PenstockError) -> bytes:
        return self._opened() + write_error(error, self._request_id) + self._close

    def _opened(self) -> bytes:
        """What precedes a chunk."""
        return self._open

    def _rare(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Start():
                self._envelope(event.response_id, event.model)
            case BlockStart(kind=kind) if kind in _SPEECH:
                self._speech[event.i] = _SPEECH[kind]
                self._has_refusal = self._has_refusal or kind == "refusal"
            case BlockStart(kind="tool_call"):
                self._calls[event.i] = None
            case BlockEnd(part=ToolCall() as call):
                self._calls[event.i] = call
                self._write_calls(out)
            case BlockEnd():
                self._speech.pop(event.i, None)
                for part in end_parts(event.part):
                    self._part(part, out)
            case Annotation(data=dict() as data) if _ANNOTATED.issuperset(data):
                self._write({"candidates": [{"content": _content(()), "index": 0, **data}]}, out)
            case UsageUpdate():
                self._usage = event.usage
            case KeepAlive():
                out.append(HEARTBEAT)
            case Finish():
                self._finish(event, out)

    def _write_calls(self, out: list[bytes]) -> None:
        for i, call in list(self._calls.items()):
            if call is None:
                return
            del self._calls[i]
            for part in end_parts(call):
                self._part(part, out)

    def _part(self, part: dict[str, Any], out: list[bytes]) -> None:
        out += (self._opened(), self._head, _json(part), self._tail, self._close)
        self._has_content = True

    def _write(self, members: dict[str, Any], out: list[bytes]) -> None:
        out += (self._opened(), _json(members)[:-1], b",", self._about, self._close)

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        word = finish_word(finish.reason, finish.raw_reason, has_refusal=self._has_refusal)
        members = ending(word, finish.raw_reason, finish.metadata, (), has_content=self._has_content)
        if usage := write_usage(finish.usage or self._usage):
            members["usageMetadata"] = usage
        self._write(members, out)


class ArrayEncoder(StreamEncoder):
    """The same as the elements of one JSON array, for clients that do not ask for `alt=sse`.

    Line ends between the elements keep it alive. The array is closed by a complete reply alone: after an error, which
    is an element `{"error": …}`, it stays open. A client that reads it piece by piece finds the error as it comes, and
    one that reads it whole cannot take it for an answer.
    """

    _close = b""

    def __init__(self, *, model: str | None, include_usage: bool = True, request_id: str, created: int = 0) -> None:
        super().__init__(model=model, include_usage=include_usage, request_id=request_id, created=created)
        self._is_open = False

    def resume(self, last: bytes) -> None:
        self._is_open = True

    def _opened(self) -> bytes:
        if self._is_open:
            return b",\n"
        self._is_open = True
        return b"["

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        super()._finish(finish, out)
        out.append(ARRAY_TERMINATOR)


def write_document(response: Response, *, model: str | None, request_id: str, created: int = 0) -> bytes:
    parts: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    for part in response.parts:
        if isinstance(part, Text | Refusal | Reasoning) and part.text:
            thought = {"thought": True} if isinstance(part, Reasoning) else {}
            parts.append({**thought, "text": part.text})
            signature = write_signature(part) if isinstance(part, Reasoning) else None
            if signature:
                parts[-1]["thoughtSignature"] = signature
        else:
            parts += end_parts(part)
        for data in part.annotations if isinstance(part, Text) else ():
            if isinstance(data, dict) and _ANNOTATED.issuperset(data):
                about.update(data)
    finish = response.finish
    members: dict[str, Any] = {"candidates": [{"content": _content(parts), "index": 0}]}
    if finish is not None:
        has_refusal = any(isinstance(part, Refusal) for part in response.parts)
        word = finish_word(finish.reason, finish.raw, has_refusal=has_refusal)
        members = ending(word, finish.raw, {**response.metadata, **about}, parts, has_content=bool(parts))
    members["usageMetadata"] = write_usage(response.usage)
    members["modelVersion"] = model or response.model or ""
    members["responseId"] = response.response_id or request_id
    return _json({key: value for key, value in members.items() if value is not None})


def end_parts(part: Part) -> list[dict[str, Any]]:
    """What a block still has to say at its end, its text having been said."""
    match part:
        case ToolCall(server=False):
            call = {"name": part.name, "args": call_args(part)}
            if part.id:
                call["id"] = part.id
            signed = {"thoughtSignature": part.signature} if part.signature else {}
            return [{"functionCall": call, **signed}]
        case Reasoning():
            signature = write_signature(part)
            # A proof without words may be that of an answer's text, and is no thought.
            thought = {"thought": True} if part.text else {}
            return [{**thought, "text": "", "thoughtSignature": signature}] if signature else []
        case Custom(kind=kind, raw=dict() as raw) if kind in _OWN_PARTS:
            return [raw]
    return []


def ending(
    word: str, raw: str | None, about: dict[str, Any], parts: Iterable[dict[str, Any]], *, has_content: bool
) -> dict[str, Any]:
    """The members of a last chunk, or of a document, up to its usage."""
    message = about.get("finish_message")
    if raw is not None and raw.startswith(PROMPT_BLOCKED) and not has_content:
        feedback = {"blockReason": raw.removeprefix(PROMPT_BLOCKED)}
        return {"promptFeedback": feedback | ({"blockReasonMessage": message} if message else {})}
    candidate = {"content": _content(parts), "finishReason": word, "index": 0}
    if message:
        candidate["finishMessage"] = message
    if token := about.get("continuation_token"):
        candidate["continuationToken"] = token
    candidate.update({name: about[name] for name in ANNOTATIONS.values() if name in about})
    return {"candidates": [candidate]}


def _content(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Clients look into the first part without asking whether there is one."""
    return {"parts": list(parts) or [{"text": ""}], "role": "model"}
