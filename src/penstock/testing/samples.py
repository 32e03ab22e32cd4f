"""Streams of events, made up, that every client dialect must be able to say: text, thoughts, calls, endings, usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Event,
    Finish,
    Part,
    Reasoning,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.usage import Usage

if TYPE_CHECKING:
    from penstock.canon.events import BlockKind, FinishReason

#: What text may hold that has broken streams: line ends of other alphabets, quotes, half of a pair's neighbours.
AWKWARD = 'né 日本 \u2028\u2029\x85 "quoted" \\ back\\slash \r\n two\n\nlines data: [DONE] 😀 </think> \ufeff'

USAGE = Usage(input=120, input_cached=20, output=42, output_reasoning=12)

_START = Start(model="upstream-model", provider="somebody", response_id="resp-0001")
_KINDS: dict[type, BlockKind] = {Text: "text", Reasoning: "reasoning"}
_WEATHER = ToolCall("call_a1", "get_weather", '{"city":"Zürich","days":3}', {"city": "Zürich", "days": 3})
_CLOCK = ToolCall("call_b2", "get_time", "", {})


def block(i: int, part: Part, *pieces: str) -> list[Event]:
    """The events of one block, its text in these pieces."""
    if isinstance(part, ToolCall):
        start = BlockStart(i, "tool_call", part.id, part.name, part.server, part.signature)
    else:
        start = BlockStart(i, _KINDS[type(part)])
    return [start, *(Delta(i, piece) for piece in pieces), BlockEnd(i, part)]


def _stream(*blocks: list[Event], reason: FinishReason = "stop", usage: Usage | None = USAGE) -> list[Event]:
    told = [UsageUpdate(usage)] if usage is not None else []
    return [_START, *(event for events in blocks for event in events), *told, Finish(reason, None, usage)]


def _interleaved() -> list[Event]:
    """Two calls whose arguments come in turns."""
    first, second = block(0, _WEATHER, '{"city":"Zü', 'rich","days":3}'), block(1, _CLOCK)
    return [first[0], second[0], first[1], *second[1:], *first[2:]]


#: name → events
SAMPLES: dict[str, list[Event]] = {
    "text": _stream(block(0, Text("Hello, world."), "Hello", ", wor", "ld.")),
    "awkward text": _stream(block(0, Text(AWKWARD), *AWKWARD)),
    "a thought first": _stream(
        block(0, Reasoning("Let me see."), "Let me", " see."), block(1, Text("It is 4."), "It ", "is 4.")
    ),
    "a call": _stream(block(0, _WEATHER, '{"city":', '"Zürich","days":3}'), reason="tool_calls"),
    "thought, text and two calls": _stream(
        block(0, Reasoning("Hm."), "Hm."),
        block(1, Text("I look."), "I look."),
        block(2, _WEATHER, _WEATHER.raw),
        block(3, _CLOCK),
        reason="tool_calls",
    ),
    "two calls in turns": _stream(_interleaved(), reason="tool_calls"),
    "cut by the limit": _stream(block(0, Text("And th"), "And th"), reason="length"),
    "filtered": _stream(block(0, Text("I"), "I"), reason="content_filter"),
    "nothing said": _stream(),
    "usage unknown": _stream(block(0, Text("Hi"), "Hi"), usage=None),
}
