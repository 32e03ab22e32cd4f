"""Events → Ollama's lines, for `/api/chat` and `/api/generate`, or one document.

Calls are written whole, at their end, for this wire has no fragments. The last line says `done`; after an error there
is none. Durations are written where the upstream gave them. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.events import BlockEnd, BlockStart, Delta, Finish, Start, Timings, ToolCall, UsageUpdate
from penstock.dialects.ollama.errors import write_error
from penstock.dialects.ollama.wire import finish_word, write_ending
from penstock.dialects.signatures import signed_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.errors import PenstockError
    from penstock.canon.events import Event
    from penstock.canon.response import Response
    from penstock.canon.usage import Usage

_json = msgspec.json.Encoder().encode

_FIELDS = {"text": "content", "refusal": "content", "reasoning": "thinking"}


class OllamaEncoder:
    """`model` is the name that the client knows; None takes the upstream's. `generate`: lines of `/api/generate`."""

    def __init__(
        self, *, model: str | None, include_usage: bool = True, request_id: str, created: int, generate: bool = False
    ) -> None:
        self._model = model
        self._created = created
        self._generate = generate
        self._openings: dict[str, bytes] = {}
        self._closing = b',"done":false}\n' if generate else b'},"done":false}\n'
        self._fields: dict[int, bytes] = {}  # block → what comes before a piece of it
        self._calls = 0
        self._waiting: dict[int, ToolCall | None] = {}  # calls not yet written, None while they are open
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._head: dict[str, Any] = {}
        self._begin(None)

    def _begin(self, model: str | None) -> None:
        self._head = {"model": self._model or model or "", "created_at": moment(self._created)}
        head = _json(self._head)[:-1]
        if self._generate:
            said, thought = b',"response":', b',"response":"","thinking":'
        else:
            start = b',"message":{"role":"assistant","content":'
            said, thought = start, start + b'"","thinking":'
        self._openings = {"content": head + said, "thinking": head + thought}

    def encode(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:
                opening = self._fields.get(event.i)
                if opening is not None:
                    out += (opening, _json(event.text), self._closing)
            else:
                self._rare(event, out)
        return b"".join(out)

    def _rare(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Start():
                self._begin(event.model)
            case BlockStart() if event.kind in _FIELDS:
                self._fields[event.i] = self._openings[_FIELDS[event.kind]]
            case BlockStart() if event.kind == "tool_call" and not event.server and not self._generate:
                self._waiting[event.i] = None
            case BlockEnd(part=ToolCall() as call) if event.i in self._waiting:
                self._waiting[event.i] = call
                self._write_calls(out)
            case UsageUpdate():
                self._usage = event.usage
            case Timings():
                self._timings = event
            case Finish():
                said: dict[str, Any] = (
                    {"response": ""} if self._generate else {"message": {"role": "assistant", "content": ""}}
                )
                ending = write_ending(event.usage or self._usage, self._timings)
                end = {**self._head, **said, "done": True, "done_reason": finish_word(event.reason), **ending}
                out += (_json(end), b"\n")

    def _write_calls(self, out: list[bytes]) -> None:
        """Those that have ended, in the order in which they began."""
        while self._waiting:
            first = next(iter(self._waiting))
            call = self._waiting[first]
            if call is None:
                return
            del self._waiting[first]
            message = {"role": "assistant", "content": "", "tool_calls": [written_call(call, self._calls)]}
            self._calls += 1
            out += (_json({**self._head, "message": message, "done": False}), b"\n")

    def error(self, error: PenstockError) -> bytes:
        return write_error(error, None) + b"\n"


def write_document(
    response: Response, *, model: str | None, request_id: str, created: int, generate: bool = False
) -> bytes:
    head = {"model": model or response.model or "", "created_at": moment(created)}
    text = response.text + (response.refusal or "")
    thought = {"thinking": response.reasoning} if response.reasoning else {}
    if generate:
        said: dict[str, Any] = {"response": text, **thought}
    else:
        message: dict[str, Any] = {"role": "assistant", "content": text, **thought}
        if response.tool_calls:
            message["tool_calls"] = [written_call(call, k) for k, call in enumerate(response.tool_calls)]
        said = {"message": message}
    word = finish_word(response.finish.reason) if response.finish else "stop"
    ending = write_ending(response.usage, response.timings)
    return _json({**head, **said, "done": True, "done_reason": word, **ending})


def written_call(call: ToolCall, index: int) -> dict[str, Any]:
    """Arguments are an object here; text that is none is kept under `_raw` rather than lost."""
    arguments = {"_raw": call.raw} if call.arguments is None else call.arguments
    function = {"index": index, "name": call.name, "arguments": arguments}
    return {"id": signed_id(call.id, call.signature), "function": function}


def moment(created: int) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
