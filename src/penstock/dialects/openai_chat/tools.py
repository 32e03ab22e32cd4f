"""The tool calls of one chat reply, put together from fragments.

The key is `index`, with the exceptions that servers need: no index and an id is a new call,
no index and no id is the last one; a new id with a name on a used index is a new call; an id or a name that comes again
is the same call; arguments that come before a name wait for it; arguments may be an object; arguments repeated whole
after they were complete are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.events import BlockEnd, BlockStart, Delta, Event
from penstock.dialects.base import finished_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.dialects.openai_chat.wire import ToolCallDelta


class _Call:
    __slots__ = ("i", "id", "name", "pieces", "signature")

    def __init__(self) -> None:
        self.i: int | None = None  # None until the block is open, which takes a name
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.signature: str | None = None


class ToolCalls:
    """`reply` is the reply's id, so that the ids that are made are no other reply's."""

    def __init__(self, claim_i: Callable[[], int], reply: str) -> None:
        self._claim_i = claim_i
        self._reply = reply
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def feed(self, delta: ToolCallDelta, events: list[Event]) -> None:
        function = delta.function
        id_ = delta.id if isinstance(delta.id, str) else ""
        name = function.name if function and isinstance(function.name, str) else ""
        call = self._find(delta.index, id_, name)
        call.id = call.id or id_
        call.name = call.name or name
        call.signature = call.signature or call_signature(delta.extra_content)
        if call.i is None and call.name:
            self._open(call, events)
        arguments = function.arguments if function else None
        if arguments is None or arguments == "":
            return
        piece = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        if call.pieces and _is_repeated(piece, call.pieces):
            return
        call.pieces.append(piece)
        if call.i is not None:
            events.append(Delta(call.i, piece))

    def close(self, events: list[Event]) -> None:
        for call in self._calls:
            if call.i is None:  # never named: kept, so that nothing is lost in silence
                self._open(call, events)
            assert call.i is not None
            part = finished_call(call.id, call.name, "".join(call.pieces), signature=call.signature)
            events.append(BlockEnd(call.i, part))

    def _open(self, call: _Call, events: list[Event]) -> None:
        call.i = self._claim_i()
        call.id = call.id or f"call_{self._reply}_{call.i}"
        events.append(BlockStart(call.i, "tool_call", call.id, call.name, False, call.signature))
        events.extend(Delta(call.i, piece) for piece in call.pieces)

    def _find(self, index: Any, id_: str, name: str) -> _Call:
        if type(index) is not int:
            known = next((call for call in self._calls if id_ and call.id == id_), None)
            if known is not None:
                return known
            return self._calls[-1] if self._calls and not id_ and not name else self._new()
        call = self._by_index.get(index)
        if call is None and id_:  # its first piece may have come without the index
            call = next((known for known in self._calls if known.id == id_), None)
            if call is not None:
                self._by_index[index] = call
        if call is None or (id_ and name and call.id and id_ != call.id):
            call = self._by_index[index] = self._new()
        return call

    def _new(self) -> _Call:
        call = _Call()
        self._calls.append(call)
        return call


def _is_repeated(piece: str, pieces: list[str]) -> bool:
    """The whole argument object over again, as some servers send it with their last chunk."""
    if not (piece.startswith("{") and piece.endswith("}") and len(piece) > 2):
        return False
    return piece == "".join(pieces)


def call_signature(extra: Any) -> str | None:
    """Where Gemini's endpoint for this wire puts what must come back with a call."""
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None
