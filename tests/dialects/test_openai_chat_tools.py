"""OpenAI chat in, tool calls out: put together from the fragments that servers really send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import Truncated
from penstock.canon.events import BlockEnd, BlockStart, Delta, Text, ToolCall
from tests.dialects.chat_wire import DONE, call, calls, chunk, decoded, said, sse, told

WEATHER = ToolCall("call_a", "weather", '{"city":"Oslo"}', {"city": "Oslo"})
CLOCK = ToolCall("call_b", "clock", '{"zone":1}', {"zone": 1})


def called(*deltas: dict[str, Any]) -> tuple[ToolCall, ...]:
    """The calls that a stream makes, one delta per chunk; and all in one chunk makes the same."""
    one_by_one = told(*(calls(delta) for delta in deltas), finish="tool_calls").response.tool_calls
    at_once = told(calls(*deltas), finish="tool_calls").response.tool_calls
    assert at_once == one_by_one
    return one_by_one


def test_one_call():
    driven = decoded(
        sse(
            chunk({"role": "assistant", "content": None}),
            calls(call(0, "call_a", "weather", "")),
            calls(call(0, arguments='{"city":')),
            calls(call(0, arguments='"Oslo"}')),
            chunk(finish="tool_calls"),
        )
        + DONE
    )
    assert driven.events[1:-1] == [
        BlockStart(0, "tool_call", "call_a", "weather"),
        Delta(0, '{"city":'),
        Delta(0, '"Oslo"}'),
        BlockEnd(0, WEATHER),
    ]


def test_parallel_calls_that_interleave():
    assert called(
        call(0, "call_a", "weather", '{"city":'),
        call(1, "call_b", "clock", ""),
        call(1, arguments='{"zone":'),
        call(0, arguments='"Oslo"}'),
        call(1, arguments="1}"),
    ) == (WEATHER, CLOCK)


@pytest.mark.parametrize("index", [None, "0", 1.5])
def test_no_index_a_new_id_is_a_new_call_and_none_is_the_last(index: Any):
    assert called(
        call(index, "call_a", "weather", '{"city":'),
        call(index, arguments='"Oslo"}'),
        call(index, "call_b", "clock", '{"zone":1}'),
    ) == (WEATHER, CLOCK)


def test_no_index_and_an_id_that_is_known():
    assert called(
        call(None, "call_a", "weather", '{"city":'),
        call(None, "call_b", "clock", '{"zone":1}'),
        call(None, "call_a", None, '"Oslo"}'),
    ) == (WEATHER, CLOCK)


def test_no_index_and_no_id_a_name_is_a_new_call():
    made = called(call(None, None, "weather", '{"city":"Oslo"}'), call(None, None, "clock", '{"zone":1}'))
    assert [(made.name, made.raw) for made in made] == [(WEATHER.name, WEATHER.raw), (CLOCK.name, CLOCK.raw)]
    assert len({call.id for call in made} - {""}) == 2


def test_every_call_at_index_0_with_an_id_of_its_own():
    assert called(
        call(0, "call_a", "weather", '{"city":'),
        call(0, arguments='"Oslo"}'),
        call(0, "call_b", "clock", ""),
        call(0, arguments='{"zone":1}'),
    ) == (WEATHER, CLOCK)


def test_indexes_need_not_begin_at_0():
    assert called(call(3, "call_a", "weather", '{"city":"Oslo"}'), call(1, "call_b", "clock", '{"zone":1}')) == (
        WEATHER,
        CLOCK,
    )


def test_an_id_and_a_name_that_come_again_are_the_same_call():
    assert called(
        call(0, "call_a", "weather", '{"city":'), call(0, "call_a", "weather", '"Oslo"}'), call(0, "", "", "")
    ) == (WEATHER,)


def test_arguments_that_come_again_whole_count_once():
    assert called(
        call(0, "call_a", "weather", '{"city":'), call(0, arguments='"Oslo"}'), call(0, arguments='{"city":"Oslo"}')
    ) == (WEATHER,)


def test_arguments_that_are_an_object():
    assert called(call(0, "call_a", "weather", {"city": "Oslo"})) == (WEATHER,)


@pytest.mark.parametrize("arguments", [None, "", " "])
def test_no_arguments_are_an_empty_object(arguments: Any):
    (made,) = called(call(0, "call_a", "now", arguments))
    assert made.arguments == {}
    assert made.error is None


def test_an_empty_argument_object():
    (made,) = called(call(0, "call_a", "now", {}))
    assert (made.raw, made.arguments) == ("{}", {})


def test_null_arguments():
    wire = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "now", "arguments": None}}
    assert called(wire, {"index": 0, "id": None, "function": None}) == (ToolCall("call_a", "now", "", {}),)


def test_a_name_that_comes_after_its_arguments():
    driven = told(
        calls(call(0, "call_a", None, '{"city":')),
        calls(call(0, None, "weather", '"Oslo"')),
        calls(call(0, None, None, "}")),
    )
    assert driven.response.tool_calls == (WEATHER,)
    assert [event for event in driven.events if isinstance(event, BlockStart)] == [
        BlockStart(0, "tool_call", "call_a", "weather")
    ]


def test_a_call_without_a_name_is_not_lost():
    (made,) = called(call(0, "call_a", None, "{}"))
    assert (made.id, made.name, made.raw) == ("call_a", "", "{}")


def test_an_id_that_never_comes_is_made():
    made = called(call(0, None, "weather", "{}"), call(1, None, "clock", "{}"))
    assert [call.id for call in made] == ["call_chatcmpl-1_0", "call_chatcmpl-1_1"], "other replies have other ids"


@pytest.mark.parametrize("raw", ['{"city": "Os', "[1]", "null", '"x"', "{'a': 1}", '{"a":' + "[" * 50_000])
def test_arguments_that_are_no_object_are_kept_raw_and_say_why(raw: str):
    (made,) = called(call(0, "call_a", "f", raw))
    assert (made.raw, made.arguments) == (raw, None)
    assert made.error


def test_text_before_and_after_calls():
    driven = told(said("Let me see."), calls(call(0, "call_a", "weather", '{"city":"Oslo"}')), said("Done."))
    assert driven.response.parts == (Text("Let me see."), WEATHER, Text("Done."))


def test_calls_in_the_chunk_that_finishes():
    last = calls(call(0, "call_a", "weather", '{"city":"Oslo"}'))
    last["choices"][0]["finish_reason"] = "tool_calls"
    driven = decoded(sse(said("a"), last))
    assert driven.error is None
    assert driven.response.tool_calls == (WEATHER,)


def test_an_empty_list_of_calls_is_no_call():
    driven = told(chunk({"content": "a", "tool_calls": []}))
    assert driven.response.finish is not None
    assert driven.response.finish.reason == "stop"


def test_c4_a_cut_call_is_not_parsed():
    driven = decoded(sse(calls(call(0, "call_a", "weather", '{"city":"Oslo"}'))))
    assert isinstance(driven.error, Truncated)
    (made,) = driven.response.tool_calls
    assert (made.raw, made.arguments) == ('{"city":"Oslo"}', None)
    assert made.error


@given(st.data())
def test_c3_calls_cut_and_mixed_in_any_way_are_the_same(data: st.DataObject):
    whole = [
        ("call_a", "f", '{"a": [1, 2, {"b": "c"}]}'),
        ("call_b", "g", '{"x": "\\u00e9 {}"}'),
        ("call_c", "h", "{}"),
    ]
    queues = []
    for index, (id_, name, raw) in enumerate(whole):
        size = data.draw(st.integers(1, len(raw)))
        pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
        queues.append([call(index, id_, name, ""), *(call(index, arguments=piece) for piece in pieces)])
    mixed = []
    while any(queues):
        queue = data.draw(st.sampled_from([queue for queue in queues if queue]))
        mixed.append(calls(queue.pop(0)))
    made = {call.id: (call.id, call.name, call.raw) for call in told(*mixed).response.tool_calls}
    assert made == {id_: (id_, name, raw) for id_, name, raw in whole}
