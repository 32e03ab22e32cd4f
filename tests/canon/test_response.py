"""Events in, a whole response out, at any moment of the stream; and what was used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Event,
    Finish,
    KeepAlive,
    Progress,
    Reasoning,
    Refusal,
    Start,
    Text,
    Timings,
    ToolCall,
    UsageUpdate,
    is_content,
)
from penstock.canon.response import Ending, Fold, Response, Timing, fold
from penstock.canon.usage import Usage, merge_reported, whole

if TYPE_CHECKING:
    from penstock.canon.events import BlockKind

CALL = ToolCall("call_a", "f", '{"a":1}', {"a": 1})
SERVER = ToolCall("s", "web_search", "{}", {}, None, True)

EVENTS: list[Event] = [
    Start("m", "up", "id_1"),
    KeepAlive("ping"),
    UsageUpdate(Usage(input=9, output=1)),
    BlockStart(0, "reasoning"),
    Delta(0, "Hm"),
    BlockEnd(0, Reasoning("Hm", "EqQB")),
    BlockStart(1, "text"),
    Delta(1, "Hel"),
    BlockStart(2, "tool_call", "call_a", "f"),
    Delta(2, '{"a":'),
    Annotation(1, {"cite": 1}),
    Delta(1, "lo"),
    Delta(2, "1}"),
    Progress("prompt"),
    BlockEnd(2, CALL),
    BlockEnd(1, Text("Hello", ({"cite": 1},))),
    BlockStart(3, "tool_call", "s", "web_search", True),
    BlockEnd(3, SERVER),
    BlockStart(4, "refusal"),
    Delta(4, "No"),
    BlockEnd(4, Refusal("No")),
    BlockStart(5, "custom"),
    BlockEnd(5, Custom("x", {"y": 1})),
    Timings(5),
    Finish("tool_calls", "stop", Usage(input=9, output=7), {"service_tier": "auto"}),
]


def test_a_whole_response():
    response = fold(EVENTS)
    assert response == Response(
        parts=(
            Reasoning("Hm", "EqQB"),
            Text("Hello", ({"cite": 1},)),
            CALL,
            SERVER,
            Refusal("No"),
            Custom("x", {"y": 1}),
        ),
        finish=Ending("tool_calls", "stop"),
        usage=Usage(input=9, output=7),
        timings=Timings(5),
        model="m",
        provider="up",
        response_id="id_1",
        metadata={"service_tier": "auto"},
    )
    assert (response.text, response.reasoning, response.refusal) == ("Hello", "Hm", "No")
    assert response.tool_calls == (CALL,), "a provider's own calls are not the caller's to make"


def test_events_may_come_in_any_portions():
    folding = Fold()
    for event in EVENTS:
        folding.feed([event])
        folding.response()
    assert folding.response() == fold(EVENTS)


def test_what_is_known_of_the_call_is_said():
    response = Fold().response(outcome="timeout", timing=Timing(1.0), attempts=2, request_id="r")
    assert (response.outcome, response.timing, response.attempts, response.request_id) == (
        "timeout",
        Timing(1.0),
        2,
        "r",
    )


def test_nothing_is_nothing():
    assert fold([]) == Response()
    assert (fold([]).text, fold([]).reasoning, fold([]).refusal, fold([]).tool_calls) == ("", "", None, ())


@pytest.mark.parametrize("upto", range(len(EVENTS) + 1))
def test_a_cut_stream_has_what_had_arrived(upto: int):
    response = fold(EVENTS[:upto])
    said = "".join(event.text for event in EVENTS[:upto] if isinstance(event, Delta) and event.i == 1)
    assert response.text == said
    assert (response.finish is None) == (upto < len(EVENTS))


def test_c4_a_cut_call_is_kept_raw_and_never_parsed():
    (call,) = fold([Start(), BlockStart(0, "tool_call", "call_a", "f"), Delta(0, '{"rm": "/"}')]).tool_calls
    assert (call.id, call.name, call.raw, call.arguments) == ("call_a", "f", '{"rm": "/"}', None)
    assert call.error is not None


def test_a_cut_block_of_each_kind():
    kinds: list[BlockKind] = ["text", "reasoning", "refusal", "tool_call", "custom", "tool_result"]
    starts = [BlockStart(i, kind, "s", "n", i == 3) for i, kind in enumerate(kinds)]
    deltas = [Delta(i, "x") for i in range(4)]
    parts = fold([Start(), *starts, Annotation(0, "a"), *deltas]).parts
    cut = "the stream ended inside the arguments"
    assert parts == (Text("x", ("a",)), Reasoning("x"), Refusal("x"), ToolCall("s", "n", "x", None, cut, True))


def test_names_that_came_later_are_used():
    response = fold([Start(), Finish("stop", None, None, {"model": "late", "response_id": "id_2"})])
    assert (response.model, response.response_id) == ("late", "id_2")


def test_a_finish_without_usage_leaves_what_was_reported():
    assert fold([Start(), UsageUpdate(Usage(output=3)), Finish("stop")]).usage == Usage(output=3)


@pytest.mark.parametrize(
    ("event", "commits"),
    [
        (Start(), False),
        (KeepAlive("ping"), False),
        (Progress("prompt"), False),
        (UsageUpdate(Usage()), False),
        (Timings(), False),
        (BlockStart(0, "text"), False),
        (BlockStart(0, "reasoning"), False),
        (BlockStart(0, "refusal"), False),
        (BlockStart(0, "tool_call", "a", "f"), True),
        (BlockStart(0, "custom"), True),
        (Delta(0, ""), False),
        (Delta(0, "x"), True),
        (BlockEnd(0, Text("")), False),
        (BlockEnd(0, Text("a")), True),
        (BlockEnd(0, Reasoning("")), False),
        (BlockEnd(0, Reasoning("", signature="s")), True),
        (BlockEnd(0, ToolCall("i", "f", "")), True),
        (Finish("stop"), True),
    ],
)
def test_c9_what_commits_a_stream(event: Event, commits: bool):
    assert is_content(event) is commits


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        (None, {"a": 1}, {"a": 1}),
        ({}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 5}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": None, "b": None}, {"a": 1, "b": None}),
        ({"a": 1}, {"a": 0}, {"a": 0}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3, "y": None}}, {"a": {"x": 3, "y": 2}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ],
)
def test_the_last_report_wins_field_by_field(earlier: Any, later: Any, merged: Any):
    before = repr((earlier, later))
    assert merge_reported(earlier, later) == merged
    assert repr((earlier, later)) == before, "neither is changed"


ODD: list[Any] = [-1, True, "7", None, [], math.nan, math.inf]


@pytest.mark.parametrize(("value", "count"), [(0, 0), (7, 7), (7.0, 7), (7.9, 7), *((value, None) for value in ODD)])
def test_a_count_is_whole_or_unknown(value: Any, count: int | None):
    assert whole(value) == count
