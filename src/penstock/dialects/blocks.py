"""The blocks of one reply under way, for decoders whose wire has at most one open block besides tool calls.

In go pieces, out come `BlockStart`, `Delta` and `BlockEnd` in the order that `canon.events` promises. Text, reasoning
and refusals share one place: a piece of another kind closes what is open. Calls are open side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canon.events import (
    BlockEnd,
    BlockKind,
    BlockStart,
    Custom,
    Delta,
    Event,
    Part,
    Reasoning,
    Refusal,
    Text,
)
from penstock.dialects.base import finished_call

if TYPE_CHECKING:
    from typing import Literal

    SpeechKind = Literal["text", "reasoning", "refusal"]


class _Call:
    __slots__ = ("id", "name", "pieces", "server", "signature")

    def __init__(self, id_: str, name: str, server: bool, signature: str | None) -> None:
        self.id = id_
        self.name = name
        self.server = server
        self.signature = signature
        self.pieces: list[str] = []


class Blocks:
    """`signed_by` is the dialect that signatures belong to. `kind` is the open block's, None where there is none."""

    def __init__(self, signed_by: str) -> None:
        self.kind: SpeechKind | None = None
        #: the open block's number
        self.i = 0
        #: the pieces of the open block: a hot path may append to it, with the `Delta` that goes with it
        self.pieces: list[str] = []
        self.has_calls = False
        self._signed_by = signed_by
        self._next_i = 0
        self._signature: str | None = None
        self._redacted: str | None = None
        self._details: list[Any] = []
        self._annotations: list[Any] = []
        self._calls: dict[int, _Call] = {}

    def say(self, kind: SpeechKind, text: str, events: list[Event]) -> None:
        """A piece of text. The first opens its block, and closes another that is open."""
        if self.kind != kind:
            self.open(kind, events)
        if text:
            self.pieces.append(text)
            events.append(Delta(self.i, text))

    def open(self, kind: SpeechKind, events: list[Event]) -> None:
        self.shut(events)
        self.i = self._claim()
        self.kind = kind
        events.append(BlockStart(self.i, kind))

    def sign(self, *, signature: str | None = None, redacted: str | None = None, detail: Any = None) -> None:
        """What proves the open thought; kept for its `BlockEnd`."""
        self._signature = signature or self._signature
        self._redacted = redacted or self._redacted
        if detail is not None:
            self._details.append(detail)

    def annotate(self, data: Any) -> None:
        """Something about the open text, for its part. The `Annotation` event is the caller's."""
        self._annotations.append(data)

    def shut(self, events: list[Event]) -> None:
        """Close the open text, reasoning or refusal."""
        if self.kind is None:
            return
        text = "".join(self.pieces)
        part: Part
        match self.kind:
            case "text":
                part = Text(text, tuple(self._annotations))
            case "refusal":
                part = Refusal(text)
            case "reasoning":
                owner = self._signed_by if self._signature or self._redacted else None
                part = Reasoning(text, self._signature, self._redacted, tuple(self._details), owner)
        events.append(BlockEnd(self.i, part))
        self.kind, self.pieces = None, []
        self._signature = self._redacted = None
        self._details, self._annotations = [], []

    def begin_call(
        self, id_: str, name: str, events: list[Event], *, server: bool = False, signature: str | None = None
    ) -> int:
        """Open a call; its number goes with `more` and `end_call`. An empty id is made from the block's number."""
        self.shut(events)
        i = self._claim()
        call = self._calls[i] = _Call(id_ or f"call_{i}", name, server, signature)
        self.has_calls = self.has_calls or not server
        events.append(BlockStart(i, "tool_call", call.id, name, server, signature))
        return i

    def more(self, i: int, text: str, events: list[Event]) -> None:
        """A piece of a call's argument text. A call that is not open is left alone."""
        call = self._calls.get(i)
        if call is not None and text:
            call.pieces.append(text)
            events.append(Delta(i, text))

    def end_call(self, i: int, events: list[Event]) -> None:
        call = self._calls.pop(i, None)
        if call is not None:
            raw = "".join(call.pieces)
            part = finished_call(call.id, call.name, raw, server=call.server, signature=call.signature)
            events.append(BlockEnd(i, part))

    def whole(self, kind: BlockKind, part: Part, events: list[Event], *, id_: str | None = None) -> None:
        """A block that came all at once."""
        self.shut(events)
        i = self._claim()
        events += (BlockStart(i, kind, id_, part.kind if isinstance(part, Custom) else None), BlockEnd(i, part))

    def close(self, events: list[Event]) -> None:
        """Close whatever is open."""
        self.shut(events)
        for i in list(self._calls):
            self.end_call(i, events)

    @property
    def next_i(self) -> int:
        """The number that the next block will have."""
        return self._next_i

    def _claim(self) -> int:
        i = self._next_i
        self._next_i += 1
        return i
