"""Events → text completions: the chunks of a stream, or one document. Only what is said has a place here. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.events import BlockStart, Delta, Finish, KeepAlive, Start, UsageUpdate
from penstock.dialects.openai_chat.encode import HEARTBEAT, TERMINATOR
from penstock.dialects.openai_chat.errors import write_error
from penstock.dialects.openai_chat.wire import FINISH_WORDS, write_usage
from penstock.framing.sse import write_event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.errors import PenstockError
    from penstock.canon.events import Event, FinishReason
    from penstock.canon.response import Response
    from penstock.canon.usage import Usage

_json = msgspec.json.Encoder().encode


class CompletionsEncoder:
    """`model` is the name that the client knows; None takes the upstream's."""

    def __init__(self, *, model: str | None, include_usage: bool, request_id: str, created: int) -> None:
        self._model = model
        self._include_usage = include_usage
        self._request_id = request_id
        self._created = created
        self._spoken: set[int] = set()  # blocks whose text is said
        self._usage: Usage | None = None
        self._envelope(None, None)

    def _envelope(self, id_: str | None, model: str | None) -> None:
        head = head_of(id_, self._request_id, self._created, self._model or model)
        self._base = b"data: " + _json(head)[:-1]
        self._open = self._base + b',"choices":[{"index":0,"text":'

    _close = b',"logprobs":null,"finish_reason":null}]}\n\n'

    def encode(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:
                if event.i in self._spoken:
                    out += (self._open, _json(event.text), self._close)
            else:
                self._rare(event, out)
        return b"".join(out)

    def _rare(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Start():
                self._envelope(event.response_id, event.model)
            case BlockStart() if event.kind in ("text", "refusal"):
                self._spoken.add(event.i)
            case UsageUpdate():
                self._usage = event.usage
            case KeepAlive():
                out.append(HEARTBEAT)
            case Finish():
                word = _json(finish_word(event.reason))
                out += (self._open, b'""', b',"logprobs":null,"finish_reason":', word, b"}]}\n\n")
                usage = event.usage or self._usage
                if self._include_usage and usage is not None:
                    out += (self._base, b',"choices":[],"usage":', _json(write_usage(usage)), b"}\n\n")
                out.append(TERMINATOR)

    def error(self, error: PenstockError) -> bytes:
        return write_event(write_error(error, self._request_id))


def head_of(id_: str | None, request_id: str, created: int, model: str | None) -> dict[str, Any]:
    return {"id": id_ or f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": model or ""}


def finish_word(reason: FinishReason) -> str:
    """A call has no place here: it is a stop."""
    word = FINISH_WORDS.get(reason, "stop")
    return "stop" if word == "tool_calls" else word


def write_document(response: Response, *, model: str | None, request_id: str, created: int) -> bytes:
    reason = finish_word(response.finish.reason) if response.finish else None
    text = response.text + (response.refusal or "")
    document: dict[str, Any] = {
        **head_of(response.response_id, request_id, created, model or response.model),
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}],
    }
    if response.usage is not None:
        document["usage"] = write_usage(response.usage)
    return _json(document)
