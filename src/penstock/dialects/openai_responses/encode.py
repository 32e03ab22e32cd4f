"""Events → OpenAI Responses: every event of a stream in its order, or one response document.

`sequence_number` begins at 0 and rises by one. Each block is an output item of its own, with an id that stays; every
`added` has its `done`, a `done` repeats the whole text, and the last event's `output` is all items that were done. A
stream ends in `response.completed`, `incomplete` or `failed`, and there is no `[DONE]`. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

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
    Refusal,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.dialects.base import load_json
from penstock.dialects.openai_responses.errors import failure, flat_error
from penstock.dialects.openai_responses.wire import (
    INCOMPLETE_WORDS,
    OWN,
    split_thought_signature,
    write_usage,
)
from penstock.dialects.signatures import marked, signed_id
from penstock.framing.sse import write_event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.errors import PenstockError
    from penstock.canon.events import Event, FinishReason
    from penstock.canon.response import Response
    from penstock.canon.usage import Usage

HEARTBEAT = b": keep-alive\n\n"

_json = msgspec.json.Encoder().encode

#: block kind → what its item's id begins with
_PREFIXES = {"text": "msg", "refusal": "msg", "reasoning": "rs", "tool_call": "fc"}

#: block kind → the event that carries a piece of it, and the index that goes with it
_DELTAS = {
    "text": ("response.output_text.delta", '"content_index":0,"logprobs":[],'),
    "refusal": ("response.refusal.delta", '"content_index":0,'),
    "reasoning": ("response.reasoning_summary_text.delta", '"summary_index":0,'),
    "tool_call": ("response.function_call_arguments.delta", ""),
}


class _Item:
    """One block on its way. `opening` is what comes before a piece of it."""

    __slots__ = ("call", "id", "index", "kind", "notes", "opening", "wire")

    def __init__(self, kind: str, id_: str, index: int, call: dict[str, Any] | None) -> None:
        self.kind = kind
        self.id = id_
        self.index = index
        self.call = call or {}
        self.notes = 0
        name, indexes = _DELTAS[kind]
        self.opening = (
            f'event: {name}\ndata: {{"type":"{name}","item_id":"{id_}","output_index":{index},{indexes}"delta":'
        ).encode()


class ResponsesEncoder:
    """`model` is the name that the client knows; None takes the upstream's."""

    def __init__(self, *, model: str | None, include_usage: bool = True, request_id: str, created: int) -> None:
        self._model = model
        self._plain_id = _plain(request_id)
        self._created = created
        self._number = 0
        self._items: dict[int, _Item] = {}  # block → its item, while it is open
        self._next_index = 0
        self._output: dict[int, dict[str, Any]] = {}  # index → the finished item
        self._usage: Usage | None = None
        self._head: dict[str, Any] | None = None  # of the response; None before `Start`

    def encode(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:
                item = self._items.get(event.i)
                if item is not None:
                    out += (item.opening, _json(event.text), b',"sequence_number":%d}\n\n' % self._number)
                    self._number += 1
            else:
                self._rare(event, out)
        return b"".join(out)

    def _rare(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Start():
                self._begin(event, out)
            case BlockStart() if event.kind in _PREFIXES and not event.server:
                self._open(event, out)
            case BlockEnd():
                self._end(event, out)
            case Annotation():
                self._annotate(event, out)
            case UsageUpdate():
                self._usage = event.usage
            case KeepAlive():
                out.append(HEARTBEAT)
            case Finish():
                self._finish(event, out)

    def error(self, error: PenstockError) -> bytes:
        out: list[bytes] = []
        if self._head is None:
            self._say(out, "error", **flat_error(error))
        else:
            failed = {"status": "failed", "error": failure(error), "output": self._done(), "usage": None}
            self._say(out, "response.failed", response={**self._head, **failed})
        return b"".join(out)

    def resume(self, last: bytes) -> None:
        """The upstream has counted so far: clients that come back for more go by these numbers."""
        found = load_json(last)
        number = found.get("sequence_number") if isinstance(found, dict) else None
        if isinstance(number, int):
            self._number = number + 1

    def _say(self, out: list[bytes], kind: str, **fields: Any) -> None:
        out.append(write_event(_json({"type": kind, **fields, "sequence_number": self._number}), kind))
        self._number += 1

    def _begin(self, start: Start, out: list[bytes]) -> None:
        id_ = start.response_id or ""
        if not id_.startswith("resp_"):
            id_ = f"resp_{_plain(id_) or self._plain_id}"
        self._head = response_head(id_, self._model or start.model or "", self._created)
        for kind in ("response.created", "response.in_progress"):
            self._say(out, kind, response={**self._head, "status": "in_progress", "output": [], "usage": None})

    # --- items ------------------------------------------------------------------------------------------------------

    def _open(self, start: BlockStart, out: list[bytes]) -> None:
        index = self._next_index
        self._next_index += 1
        id_ = f"{_PREFIXES[start.kind]}_{self._plain_id}_{index}"
        call = None
        if start.kind == "tool_call":
            call = {"call_id": signed_id(start.id or id_, start.signature), "name": start.name or ""}
        item = self._items[start.i] = _Item(start.kind, id_, index, call)
        self._say(out, "response.output_item.added", output_index=index, item=self._begun(item))
        if start.kind == "reasoning":
            part = {"type": "summary_text", "text": ""}
            self._say(out, "response.reasoning_summary_part.added", **self._where(item), summary_index=0, part=part)
        elif start.kind != "tool_call":
            part = _content_part(start.kind, "", ())
            self._say(out, "response.content_part.added", **self._where(item), content_index=0, part=part)

    @staticmethod
    def _where(item: _Item) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": item.index}

    @staticmethod
    def _begun(item: _Item) -> dict[str, Any]:
        match item.kind:
            case "reasoning":
                return {"id": item.id, "type": "reasoning", "summary": []}
            case "tool_call":
                return {
                    "id": item.id,
                    "type": "function_call",
                    "status": "in_progress",
                    **item.call,
                    "arguments": "",
                }
        return {"id": item.id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}

    def _end(self, end: BlockEnd, out: list[bytes]) -> None:
        item = self._items.pop(end.i, None)
        part = end.part
        if item is None:
            own = own_item(part)
            if own is not None:
                index = self._next_index
                self._next_index += 1
                self._say(out, "response.output_item.added", output_index=index, item=own)
                self._close(index, own, out)
            return
        where = self._where(item)
        match part:
            case ToolCall():
                self._say(out, "response.function_call_arguments.done", **where, arguments=part.raw)
            case Reasoning():
                summary = {"type": "summary_text", "text": part.text}
                self._say(out, "response.reasoning_summary_text.done", **where, summary_index=0, text=part.text)
                self._say(out, "response.reasoning_summary_part.done", **where, summary_index=0, part=summary)
            case Text():
                said = _content_part("text", part.text, part.annotations)
                self._say(out, "response.output_text.done", **where, content_index=0, text=part.text, logprobs=[])
                self._say(out, "response.content_part.done", **where, content_index=0, part=said)
            case Refusal():
                said = _content_part("refusal", part.text, ())
                self._say(out, "response.refusal.done", **where, content_index=0, refusal=part.text)
                self._say(out, "response.content_part.done", **where, content_index=0, part=said)
        self._close(item.index, finished_item(part, item.id, item.call), out)

    def _close(self, index: int, item: dict[str, Any], out: list[bytes]) -> None:
        self._output[index] = item
        self._say(out, "response.output_item.done", output_index=index, item=item)

    def _annotate(self, event: Annotation, out: list[bytes]) -> None:
        item = self._items.get(event.i)
        if item is None or item.kind != "text" or not is_annotation(event.data):
            return
        self._say(
            out,
            "response.output_text.annotation.added",
            **self._where(item),
            content_index=0,
            annotation_index=item.notes,
            annotation=event.data,
        )
        item.notes += 1

    def _done(self) -> list[dict[str, Any]]:
        return [self._output[index] for index in sorted(self._output)]

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        assert self._head is not None
        ending = ending_of(finish.reason)
        usage = write_usage(finish.usage or self._usage)
        response = {**self._head, **ending, "output": self._done(), "usage": usage}
        self._say(out, f"response.{ending['status']}", response=response)


def response_head(id_: str, model: str, created: int) -> dict[str, Any]:
    """The members of a response that clients' types demand, with the values that say nothing."""
    return {
        "id": id_,
        "object": "response",
        "created_at": created,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }


def ending_of(reason: FinishReason) -> dict[str, Any]:
    word = INCOMPLETE_WORDS.get(reason)
    if word is None:
        return {"status": "completed"}
    return {"status": "incomplete", "incomplete_details": {"reason": word}}


def finished_item(part: Part, id_: str, call: dict[str, Any]) -> dict[str, Any]:
    match part:
        case Reasoning():
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            item: dict[str, Any] = {"id": id_, "type": "reasoning", "summary": summary}
            secret = part.signature or part.redacted
            if secret is not None and part.signed_by == OWN:
                own_id, encrypted = split_thought_signature(secret)
                item |= {"id": own_id or id_, "encrypted_content": encrypted}
            elif secret is not None:
                item["encrypted_content"] = marked(secret, part.signed_by, OWN)
            return item
        case ToolCall():
            return {"id": id_, "type": "function_call", "status": "completed", **call, "arguments": part.raw or "{}"}
        case Refusal():
            content = [_content_part("refusal", part.text, ())]
        case Text():
            content = [_content_part("text", part.text, part.annotations)]
        case _:
            content = []
    return {"id": id_, "type": "message", "status": "completed", "role": "assistant", "content": content}


def own_item(part: Part) -> dict[str, Any] | None:
    """An item of this wire's own (a provider's tool at work), as it came."""
    if not isinstance(part, Custom) or not isinstance(part.raw, dict) or part.raw.get("type") != part.kind:
        return None
    is_own = part.kind.endswith(("_call", "_call_output")) or part.kind in ("mcp_list_tools", "compaction")
    return part.raw if is_own else None


def is_annotation(data: Any) -> bool:
    return isinstance(data, dict) and data.get("type") in (
        "url_citation",
        "file_citation",
        "container_file_citation",
        "file_path",
    )


def _content_part(kind: str, text: str, annotations: Iterable[Any]) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    said = [data for data in annotations if is_annotation(data)]
    return {"type": "output_text", "text": text, "annotations": said, "logprobs": []}


def write_document(response: Response, *, model: str | None, request_id: str, created: int) -> bytes:
    plain = _plain(request_id)
    id_ = response.response_id or ""
    head = response_head(
        id_ if id_.startswith("resp_") else f"resp_{_plain(id_) or plain}", model or response.model or "", created
    )
    output: list[dict[str, Any]] = []
    for part in response.parts:
        index = len(output)
        match part:
            case ToolCall(server=False):
                call = {"call_id": signed_id(part.id or f"call_{plain}_{index}", part.signature), "name": part.name}
                output.append(finished_item(part, f"fc_{plain}_{index}", call))
            case Reasoning():
                output.append(finished_item(part, f"rs_{plain}_{index}", {}))
            case Text() | Refusal():
                output.append(finished_item(part, f"msg_{plain}_{index}", {}))
            case _ if (own := own_item(part)) is not None:
                output.append(own)
    ending = ending_of(response.finish.reason) if response.finish else {"status": "incomplete"}
    return _json({**head, **ending, "output": output, "usage": write_usage(response.usage)})


def _plain(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text)
