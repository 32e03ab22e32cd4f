"""Streams of events, made up: blocks as events, and blocks interleaved in any way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Event,
    KeepAlive,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)

if TYPE_CHECKING:
    from penstock.canon.events import BlockKind, Start

_KINDS: dict[type, BlockKind] = {Text: "text", Reasoning: "reasoning", Refusal: "refusal"}

#: what a text is cut into
pieces_of_text = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=4
)


def of(i: int, part: Part, *pieces: str) -> list[Event]:
    """The events of one block."""
    if isinstance(part, ToolCall):
        start = BlockStart(i, "tool_call", part.id, part.name, part.server)
    else:
        start = BlockStart(i, _KINDS.get(type(part), "custom"))
    return [start, *(Delta(i, piece) for piece in pieces), BlockEnd(i, part)]


@st.composite
def interleaved(draw: Any, start: Start, part: st.SearchStrategy[tuple[Part, list[str]]]) -> list[Event]:
    """Any stream that holds together, its blocks interleaved in any way, up to its `Finish`. Calls get ids."""
    waiting = []
    for i, (each, pieces) in enumerate(draw(st.lists(part, max_size=5))):
        waiting.append(of(i, replace(each, id=f"call_{i}") if isinstance(each, ToolCall) else each, *pieces))
    events: list[Event] = [start]
    opened = 0
    while any(waiting):
        i = draw(st.sampled_from([i for i, rest in enumerate(waiting) if rest and i <= opened]))
        opened = max(opened, i + 1) if isinstance(waiting[i][0], BlockStart) else opened
        events.append(waiting[i].pop(0))
        if draw(st.booleans()):
            events.append(KeepAlive("ping"))
    return events
