"""Recorded bytes → events, without a network, and what must be true of the events of every stream.

`drive` runs framing and decoder over reads as a live reply does. `check_events` states the invariants of
`penstock.canon.events` and raises AssertionError with the event at fault. `Recording` is one reply as it was sent.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.canon.errors import MalformedFrame, PenstockError
from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Event,
    Finish,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
)
from penstock.canon.response import Response, fold
from penstock.dialects import dialect
from penstock.framing.base import MAX_FRAME_BYTES
from penstock.framing.choose import choose_framing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.dialects.base import Decoder, Mark
    from penstock.framing.base import Framing

_PARTS: dict[str, tuple[type, ...]] = {
    "text": (Text,),
    "reasoning": (Reasoning,),
    "refusal": (Refusal,),
    "tool_call": (ToolCall,),
}


class Recording(Struct, frozen=True):
    """One reply: its bytes, what the server called them, and where the network's reads ended if that is known."""

    name: str
    data: bytes
    content_type: str | None = None
    chunk_boundaries: tuple[int, ...] = ()
    provider: str | None = None
    profile: str | None = None

    def cut(self, size: int) -> list[bytes]:
        """The same bytes in reads of `size`."""
        return [self.data[at : at + size] for at in range(0, len(self.data), size)]

    def as_recorded(self) -> list[bytes]:
        edges = [0, *self.chunk_boundaries, len(self.data)]
        return [self.data[begin:end] for begin, end in pairwise(edges) if end > begin]


class Driven:
    """What came of one reply: its events, the marks that frames got, and the error that ended it, if one did."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.marks: list[Mark] = []
        self.error: PenstockError | None = None

    @property
    def response(self) -> Response:
        return fold(self.events)


def open_reply(
    name: str, recording: Recording, *, max_frame_bytes: int = MAX_FRAME_BYTES, first: bytes | None = None
) -> tuple[Framing, Decoder]:
    """The framing and the decoder for a reply in dialect `name`. `first`: choose by these bytes alone."""
    language = dialect(name)
    framing = choose_framing(
        recording.content_type,
        recording.data if first is None else first,
        is_all=True,
        streams_as=language.streams_as,
        max_frame_bytes=max_frame_bytes,
    )
    assert framing is not None, "with all bytes at hand it can be told"
    is_document = framing.name == "document"
    decoder = language.decoder(document=is_document, provider=recording.provider, profile=recording.profile)
    return framing, decoder


def replayed(name: str, recording: Recording, reads: Iterable[bytes] | None = None) -> Driven:
    """The recording in dialect `name`, in these reads (none: all at once)."""
    framing, decoder = open_reply(name, recording)
    return drive(framing, decoder, [recording.data] if reads is None else reads)


def drive(framing: Framing, decoder: Decoder, reads: Iterable[bytes]) -> Driven:
    driven = Driven()
    try:
        for data in reads:
            for frame in framing.feed(data):
                _note(driven, decoder.decode(frame, driven.events))
            if decoder.done:
                decoder.close(driven.events)
                return driven
        for frame in framing.close():
            try:
                _note(driven, decoder.decode(frame, driven.events))
            except MalformedFrame:
                if not frame.unterminated:
                    raise
        decoder.close(driven.events)
    except PenstockError as error:
        driven.error = error
    return driven


def _note(driven: Driven, mark: Mark | None) -> None:
    if mark is not None:
        driven.marks.append(mark)


def check_events(events: Sequence[Event], *, complete: bool) -> None:
    """Raise AssertionError, naming the event at fault. An incomplete stream may leave blocks open and has no Finish."""
    open_blocks: dict[int, tuple[BlockStart, list[str]]] = {}
    last_i = -1
    for k, event in enumerate(events):
        where = f"event {k}: {event}"
        assert isinstance(event, Start) == (k == 0), f"Start is first and once; {where}"
        match event:
            case BlockStart():
                assert event.i > last_i, f"block numbers are unique and increasing; {where}"
                last_i = event.i
                open_blocks[event.i] = (event, [])
            case Delta():
                assert event.i in open_blocks, f"a delta lies within its block; {where}"
                open_blocks[event.i][1].append(event.text)
            case Annotation():
                assert event.i in open_blocks, f"an annotation lies within its block; {where}"
            case BlockEnd():
                assert event.i in open_blocks, f"an end follows its start; {where}"
                start, pieces = open_blocks.pop(event.i)
                assert isinstance(event.part, _PARTS.get(start.kind, (Custom,))), f"the part fits the block; {where}"
                _check_part(start, "".join(pieces), event, where)
            case Finish():
                assert k == len(events) - 1, f"Finish is last; {where}"
                assert not open_blocks, f"blocks are closed before Finish; {where}"
    if complete:
        assert events, "a complete stream has a Start and a Finish"
        assert isinstance(events[-1], Finish), "a complete stream has a Finish"
    else:
        assert not any(isinstance(event, Finish) for event in events), "only a complete stream has a Finish"


def _check_part(start: BlockStart, joined: str, end: BlockEnd, where: str) -> None:
    part = end.part
    if isinstance(part, ToolCall):
        assert part.raw == joined, f"joined deltas equal the part; {where}"
        assert (part.arguments is None) == (part.error is not None), f"no arguments, and why; {where}"
        assert part.server == start.server, f"the start and the part agree on who executes; {where}"
    elif isinstance(part, Text | Reasoning | Refusal):
        assert part.text == joined, f"joined deltas equal the part; {where}"
