"""What is true of the events of every stream, whoever sent it (see `penstock.canon.events`), and how to get them.

`drive` runs framing and decoder over reads as `penstock.streams.stream.Reply` does, without a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


class Driven:
    """What came of one reply: its events, the marks that frames got, and the error that ended it, if one did."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.marks: list[Mark] = []
        self.error: PenstockError | None = None

    @property
    def response(self) -> Response:
        return fold(self.events)


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
