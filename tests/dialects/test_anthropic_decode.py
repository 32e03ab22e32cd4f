"""Anthropic Messages in, events out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canon.errors import MalformedFrame, NotAStream, StreamedError, Truncated
from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Finish,
    KeepAlive,
    Reasoning,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.usage import Usage
from penstock.dialects.anthropic_messages import DIALECT
from penstock.dialects.base import Mark
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming
from tests.invariants import Driven, check_events, drive

USAGE = {"input_tokens": 10, "output_tokens": 1}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [], "usage": USAGE}
START = {"type": "message_start", "message": MESSAGE}
STOP = {"type": "message_stop"}


def begin(index: int, type_: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": type_, **fields}}


def delta(index: int, type_: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": type_, **fields}}


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: str | None = "end_turn", usage: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, **fields},
        "usage": usage or {"output_tokens": 5},
    }


def sse(*payloads: dict[str, Any]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in payloads)


def decoded(*wire: bytes) -> Driven:
    driven = drive(SSEFraming(), DIALECT.decoder(document=False, provider="anthropic"), wire)
    check_events(driven.events, complete=driven.error is None)
    return driven


def told(*payloads: dict[str, Any]) -> Driven:
    """What a whole stream with these blocks says."""
    driven = decoded(sse(START, *payloads, ending(), STOP))
    assert driven.error is None
    return driven


def document(body: Any) -> Driven:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    driven = drive(DocumentFraming(), DIALECT.decoder(document=True, provider="anthropic"), [data])
    check_events(driven.events, complete=driven.error is None)
    return driven


# --- a stream from its start to its end ------------------------------------------------------------------------------


def test_a_whole_stream():
    driven = decoded(
        sse(
            START,
            begin(0, "text", text=""),
            delta(0, "text_delta", text="Hel"),
            delta(0, "text_delta", text="lo"),
            end(0),
            ending(usage={"output_tokens": 2}),
            STOP,
        )
    )
    usage = Usage(input=10, output=2, total=12, raw={"input_tokens": 10, "output_tokens": 2})
    assert driven.events == [
        Start("claude-x", "anthropic", "msg_1"),
        UsageUpdate(Usage(input=10, output=1, total=11, raw=USAGE)),
        BlockStart(0, "text"),
        Delta(0, "Hel"),
        Delta(0, "lo"),
        BlockEnd(0, Text("Hello")),
        UsageUpdate(usage),
        Finish("stop", "end_turn", usage, {"model": "claude-x", "response_id": "msg_1"}),
    ]
    assert driven.marks == [Mark.TERMINATOR]


def test_event_names_may_be_missing():
    named = sse(START, begin(0, "text", text="a"), end(0), ending(), STOP)
    bare = b"\n".join(line for line in named.split(b"\n") if not line.startswith(b"event:"))
    assert decoded(bare).events == decoded(named).events


def test_data_may_have_no_type_where_the_event_has_a_name():
    wire = sse(START, ending()) + b"event: message_stop\ndata: {}\n\n"
    assert decoded(wire).error is None


def test_c4_an_end_without_message_stop_is_truncated():
    driven = decoded(sse(START, begin(0, "text", text=""), delta(0, "text_delta", text="Hel"), ending()))
    assert isinstance(driven.error, Truncated)
    assert driven.response.text == "Hel"


def test_an_empty_body_is_truncated():
    driven = decoded(b"")
    assert isinstance(driven.error, Truncated)
    assert driven.events == []


def test_a_message_stop_without_its_blank_line_ends_the_stream():
    assert decoded(sse(START, ending(), STOP).rstrip()).error is None


def test_a_cut_message_stop_ends_nothing():
    assert isinstance(decoded(sse(START, ending(), STOP).rstrip()[:-1]).error, Truncated)


def test_a_block_that_was_never_closed_is_closed_by_the_end():
    driven = told(begin(0, "text", text=""), delta(0, "text_delta", text="Hi"))
    assert driven.response.parts == (Text("Hi"),)


def test_a_stream_that_never_said_why_it_stopped_has_stopped():
    driven = decoded(sse(START, begin(0, "text", text="a"), end(0), STOP))
    assert driven.response.finish is not None
    assert (driven.response.finish.reason, driven.response.finish.raw) == ("stop", None)


def test_a_stream_without_message_start_has_a_start_all_the_same():
    driven = decoded(sse(begin(0, "text", text="a"), end(0), ending(), STOP))
    assert driven.events[0] == Start(None, "anthropic", None)
    assert decoded(sse(STOP)).events == [Start(None, "anthropic"), Finish("stop", None, None, {})]


def test_frames_after_the_end_say_nothing():
    driven = decoded(sse(START, ending(), STOP) + b"data: [DONE]\n\n" + sse(STOP) + b"data: {broken\n\n: bye\n\n")
    assert driven.marks == [Mark.TERMINATOR, *[Mark.AFTER] * 4]
    assert driven.error is None


def test_done_of_another_dialect_proves_nothing():
    driven = decoded(sse(START, ending()) + b"data: [DONE]\n\n")
    assert driven.marks == [Mark.AFTER]
    assert isinstance(driven.error, Truncated)


def test_close_gives_finish_once():
    decoder = DIALECT.decoder(document=False)
    driven = drive(SSEFraming(), decoder, [sse(START, ending(), STOP)])
    decoder.close(driven.events)
    check_events(driven.events, complete=True)


# --- liveness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "source"),
    [
        (b": OPENROUTER PROCESSING\n\n", "comment"),
        (b'event: ping\ndata: {"type": "ping"}\n\n', "ping"),
        (b'data: {"type": "ping"}\n\n', "ping"),
        (b"event: ping\ndata: {}\n\n", "ping"),
        (b"data: ping\n\n", "ping"),
        (b"data: : OPENROUTER PROCESSING\n\n", "comment"),
        (b"data:\n\n", "empty"),
    ],
)
def test_liveness_is_told_and_is_no_content(wire: bytes, source: str):
    driven = decoded(wire + sse(START) + wire + sse(ending(), STOP))
    assert [event for event in driven.events if isinstance(event, KeepAlive)] == [KeepAlive(source)]


def test_stray_line_ends_are_nothing():
    driven = decoded(b"\n\n" + sse(START) + b"\n\r\n" + sse(ending(), STOP))
    assert not [event for event in driven.events if isinstance(event, KeepAlive)]


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_text_that_comes_with_its_opening_is_not_lost():
    assert told(begin(0, "text", text="Hel"), delta(0, "text_delta", text="lo"), end(0)).response.text == "Hello"


def test_thinking_keeps_its_signature():
    driven = told(
        begin(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Let me", estimated_tokens=2),
        delta(0, "signature_delta", signature="EqQB"),
        end(0),
    )
    assert driven.response.parts == (Reasoning("Let me", "EqQB", signed_by="anthropic-messages"),)


def test_thinking_that_is_not_shown_is_its_signature_alone():
    driven = told(begin(0, "thinking", thinking=""), delta(0, "signature_delta", signature="EqQB"), end(0))
    assert driven.response.parts == (Reasoning("", "EqQB", signed_by="anthropic-messages"),)


def test_redacted_thinking_is_kept():
    driven = told(begin(0, "redacted_thinking", data="opaque"), end(0))
    assert driven.response.parts == (Reasoning("", None, "opaque", signed_by="anthropic-messages"),)
    assert not [event for event in driven.events if isinstance(event, Delta)]


def test_tool_arguments_are_parsed_once_at_the_end():
    driven = told(
        begin(0, "tool_use", id="toolu_1", name="weather", input={}),
        delta(0, "input_json_delta", partial_json=""),
        delta(0, "input_json_delta", partial_json='{"city":'),
        delta(0, "input_json_delta", partial_json='"Oslo"}'),
        end(0),
    )
    assert BlockStart(0, "tool_call", "toolu_1", "weather") in driven.events
    assert driven.response.tool_calls == (ToolCall("toolu_1", "weather", '{"city":"Oslo"}', {"city": "Oslo"}),)


def test_no_arguments_are_an_empty_object():
    driven = told(begin(0, "tool_use", id="toolu_1", name="now", input={}), end(0))
    assert driven.response.tool_calls == (ToolCall("toolu_1", "now", "", {}),)


@pytest.mark.parametrize("raw", ['{"city": "Os', "[1]", "null"])
def test_arguments_that_are_no_object_are_kept_raw_and_say_why(raw: str):
    driven = told(
        begin(0, "tool_use", id="toolu_1", name="f", input={}),
        delta(0, "input_json_delta", partial_json=raw),
        end(0),
    )
    (call,) = driven.response.tool_calls
    assert (call.raw, call.arguments) == (raw, None)
    assert call.error


def test_arguments_that_come_whole_with_the_opening():
    driven = told(begin(0, "tool_use", id="toolu_1", name="f", input={"a": 1}), end(0))
    assert driven.response.tool_calls == (ToolCall("toolu_1", "f", '{"a":1}', {"a": 1}),)


def test_streamed_arguments_win_over_those_of_the_opening():
    driven = told(
        begin(0, "tool_use", id="toolu_1", name="f", input={"a": 1}),
        delta(0, "input_json_delta", partial_json='{"a":2}'),
        end(0),
    )
    assert driven.response.tool_calls[0].arguments == {"a": 2}


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
def test_calls_that_the_provider_executes_are_not_the_callers(kind: str):
    driven = told(begin(0, kind, id="srvtoolu_1", name="web_search", input={"query": "x"}), end(0))
    assert driven.response.tool_calls == ()
    assert driven.response.parts == (ToolCall("srvtoolu_1", "web_search", '{"query":"x"}', {"query": "x"}, None, True),)


def test_results_of_server_tools_are_kept_whole():
    raw = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]}
    driven = told({"type": "content_block_start", "index": 0, "content_block": raw}, end(0))
    assert BlockStart(0, "tool_result", "srvtoolu_1", "web_search_tool_result") in driven.events
    assert driven.response.parts == (Custom("web_search_tool_result", raw),)


def test_unknown_blocks_are_kept_whole():
    driven = told(begin(0, "hologram", shape="cube"), end(0))
    assert BlockStart(0, "custom", None, "hologram") in driven.events
    assert driven.response.parts == (Custom("hologram", {"type": "hologram", "shape": "cube"}),)


def test_compaction_is_put_together_from_its_deltas():
    driven = told(
        begin(0, "compaction", content=None),
        delta(0, "compaction_delta", content="Sum", encrypted_content="xy"),
        end(0),
    )
    raw = {"type": "compaction", "content": "Sum", "encrypted_content": "xy"}
    assert driven.response.parts == (Custom("compaction", raw),)


def test_citations_are_annotations_of_their_text():
    cited = {"type": "char_location", "cited_text": "grass", "document_index": 0}
    driven = told(
        begin(0, "text", text="", citations=[]),
        delta(0, "text_delta", text="green"),
        delta(0, "citations_delta", citation=cited),
        end(0),
    )
    assert Annotation(0, cited) in driven.events
    assert driven.response.parts == (Text("green", (cited,)),)


def test_unknown_deltas_are_kept_beside_their_block():
    driven = told(begin(0, "text", text="a"), delta(0, "mood_delta", mood="glad"), end(0))
    assert Annotation(0, {"type": "mood_delta", "mood": "glad"}) in driven.events
    assert driven.response.text == "a"


def test_upstream_indexes_need_not_be_dense_or_in_order():
    driven = told(begin(7, "text", text="a"), end(7), begin(2, "text", text="b"), end(2), begin(7, "text", text="c"))
    assert [event.i for event in driven.events if isinstance(event, BlockStart)] == [0, 1, 2]
    assert driven.response.text == "abc"


def test_blocks_may_interleave():
    driven = told(
        begin(0, "tool_use", id="a", name="f", input={}),
        begin(1, "tool_use", id="b", name="g", input={}),
        delta(0, "input_json_delta", partial_json='{"x":'),
        delta(1, "input_json_delta", partial_json="{}"),
        delta(0, "input_json_delta", partial_json="1}"),
        end(1),
        end(0),
    )
    assert [call.arguments for call in driven.response.tool_calls] == [{"x": 1}, {}]


def test_an_index_that_opens_again_closes_what_was_open():
    driven = told(begin(0, "text", text="a"), begin(0, "text", text="b"), end(0))
    assert driven.response.parts == (Text("a"), Text("b"))


def test_a_delta_for_a_block_that_never_opened_opens_one():
    driven = decoded(sse(START, delta(3, "text_delta", text="a"), delta(3, "text_delta", text="b"), ending(), STOP))
    assert driven.response.parts == (Text("ab"),)


def test_a_delta_without_an_index_belongs_to_the_last_block():
    said = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "b"}}
    driven = told(begin(0, "text", text="a"), said, {"type": "content_block_stop"})
    assert driven.response.parts == (Text("ab"),)


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 3}},
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_stop", "index": 9},
        {"type": "content_block_start", "index": 1},
        {"type": "message_delta", "delta": None, "usage": None},
        {"type": "message_delta", "delta": {}, "usage": "none"},
        {"type": "message_start", "message": None},
        {"type": "telemetry", "index": {"a": 1}, "delta": "x"},
        {"type": "telemetry", "usage": 3},
        {"type": ["telemetry"], "delta": 3},
    ],
)
def test_odd_frames_do_no_harm(odd: dict[str, Any]):
    wire = f"data: {json.dumps(odd)}\n\n".encode()
    driven = decoded(
        sse(START, begin(0, "text", text="a")) + wire + sse(delta(0, "text_delta", text="b"), ending(), STOP)
    )
    assert driven.error is None
    assert driven.response.text == "ab"


# --- the end, and what was used --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop_sequence"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("model_context_window_exceeded", "context_full"),
        ("compaction", "other"),
    ],
)
def test_stop_reasons(raw: str, reason: str):
    finish = decoded(sse(START, ending(raw), STOP)).events[-1]
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.raw_reason) == (reason, raw)


def test_a_stop_after_tool_calls_is_a_tool_call_and_keeps_the_raw_word():
    driven = told(begin(0, "tool_use", id="a", name="f", input={}), end(0))
    assert driven.response.finish is not None
    assert (driven.response.finish.reason, driven.response.finish.raw) == ("tool_calls", "end_turn")


def test_usage_is_inclusive_and_the_last_report_wins_field_by_field():
    first = {
        "input_tokens": 2,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 0,
        "output_tokens": 69,
        "service_tier": "standard",
    }
    last = {
        "input_tokens": 6,
        "cache_creation_input_tokens": None,
        "cache_read_input_tokens": 40,
        "output_tokens": 198,
        "output_tokens_details": {"thinking_tokens": 11},
    }
    driven = decoded(sse({**START, "message": {**MESSAGE, "usage": first}}, ending(usage=last), STOP))
    finish = driven.events[-1]
    assert isinstance(finish, Finish)
    assert finish.usage == Usage(
        input=346,
        input_cached=40,
        input_cache_write=300,
        output=198,
        output_reasoning=11,
        total=544,
        raw={**last, "cache_creation_input_tokens": 300, "service_tier": "standard"},
    )
    assert finish.metadata["service_tier"] == "standard"


def test_usage_that_nobody_reported_is_none():
    driven = decoded(sse({"type": "message_start", "message": {"id": "m"}}, {"type": "message_delta"}, STOP))
    assert driven.events[-1] == Finish("stop", None, None, {"response_id": "m"})


def test_more_than_one_message_delta_the_last_word_wins():
    driven = decoded(sse(START, ending(None), ending("max_tokens"), ending(None, {"output_tokens": 9}), STOP))
    finish = driven.events[-1]
    assert isinstance(finish, Finish)
    assert finish.raw_reason == "max_tokens"
    assert finish.usage is not None
    assert finish.usage.output == 9


def test_what_the_end_says_beside_its_reason():
    details = {"type": "refusal", "category": "cyber"}
    driven = decoded(sse(START, ending("refusal", stop_sequence="###", stop_details=details), STOP))
    finish = driven.events[-1]
    assert isinstance(finish, Finish)
    assert finish.metadata == {
        "model": "claude-x",
        "response_id": "msg_1",
        "stop_sequence": "###",
        "stop_details": details,
    }


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("timeout_error", 504),
        ("authentication_error", 401),
        ("something_new", 502),
    ],
)
def test_c4_an_error_inside_the_stream(type_: str, status: int):
    error = {"type": type_, "message": "Too bad", "details": {"error_code": "x_1"}}
    said = {"type": "error", "error": error, "request_id": "req_1"}
    driven = decoded(sse(START, begin(0, "text", text="Hel"), said, STOP))
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.type, driven.error.status, driven.error.code) == (type_, status, "x_1")
    assert driven.error.message == "Too bad"
    assert driven.error.raw == said
    assert driven.response.text == "Hel"


@pytest.mark.parametrize(
    "wire",
    [
        b'event: error\ndata: {"message": "Too bad"}\n\n',
        b'event: error\ndata: {"type": "overloaded_error", "message": "Too bad"}\n\n',
        b'data: {"error": {"message": "Too bad", "code": 429}}\n\n',
        b'data: {"error": "Too bad"}\n\n',
        b"event: error\ndata: Too bad\n\n",
        b'error: {"message": "Too bad"}\n\n',
    ],
)
def test_errors_in_other_shapes(wire: bytes):
    driven = decoded(sse(START) + wire)
    assert isinstance(driven.error, StreamedError)
    assert driven.error.message == "Too bad"


@pytest.mark.parametrize(
    "data",
    [
        b"{broken",
        b"Bad Gateway",
        b"[1]",
        b'"text"',
        b'{"type":"content_block_delta","index":0,"delta":"x"}',
        b'{"type":"content_block_start","index":[0],"content_block":{}}',
        b'{"type":"message_stop"}\ndata: {}',
    ],
)
def test_a_frame_that_is_none_of_ours_is_malformed(data: bytes):
    driven = decoded(sse(START) + b"data: " + data + b"\n\n" + sse(ending(), STOP))
    assert isinstance(driven.error, MalformedFrame)
    assert driven.events[0] == Start("claude-x", "anthropic", "msg_1")


@pytest.mark.parametrize("text", [b"\\ud83d", b"\xff"], ids=["half a surrogate pair", "no UTF-8"])
def test_text_that_is_no_unicode_is_one_sign_lost_and_not_the_stream(text: bytes):
    wire = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"' + text + b'"}}'
    driven = decoded(sse(START, begin(0, "text", text="<")) + b"data: " + wire + b"\n\n" + sse(ending(), STOP))
    assert driven.error is None
    assert driven.response.text == "<\ufffd"


def test_c11_nesting_without_end_is_malformed():
    driven = decoded(sse(START) + b'data: {"type":"x","usage":' + b"[" * 100_000 + b"\n\n")
    assert isinstance(driven.error, MalformedFrame)


def test_c13_a_malformed_frame_is_not_quoted():
    driven = decoded(sse(START) + b'data: {"type":"content_block_delta","delta":"my secret"}\n\n')
    assert "secret" not in str(driven.error)


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document_is_the_same_events():
    body = {
        **MESSAGE,
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
            {"type": "text", "text": "Hi", "citations": [{"type": "char_location"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5, "service_tier": "priority"},
    }
    driven = document(body)
    assert driven.error is None
    assert [event for event in driven.events if isinstance(event, Delta)] == [
        Delta(0, "Hm"),
        Delta(1, "Hi"),
        Delta(2, '{"a":1}'),
    ]
    assert driven.response.parts == (
        Reasoning("Hm", "EqQB", signed_by="anthropic-messages"),
        Text("Hi", ({"type": "char_location"},)),
        ToolCall("toolu_1", "f", '{"a":1}', {"a": 1}),
    )
    finish = driven.events[-1]
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.metadata["service_tier"]) == ("tool_calls", "priority")


def test_c4_a_document_without_a_stop_reason_is_truncated():
    assert isinstance(document({**MESSAGE, "stop_reason": None}).error, Truncated)


def test_c4_a_cut_document_is_truncated():
    body = json.dumps({**MESSAGE, "stop_reason": "end_turn"}).encode()
    for cut in (1, 2, 20):
        assert isinstance(document(body[:-cut]).error, Truncated)


def test_a_document_that_is_an_error():
    driven = document({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.status, driven.error.message) == (529, "Overloaded")
    assert isinstance(document({"error": "nope"}).error, StreamedError)


@pytest.mark.parametrize("body", [b"[]", b'"hi"', b'{"choices":[]}', b"<html>login</html>", b"It works!"])
def test_a_document_that_is_no_message(body: bytes):
    assert isinstance(document(body).error, NotAStream)


def test_a_document_that_is_broken():
    assert isinstance(document(b'{"type": "message", oops}').error, MalformedFrame)


# --- anything at all -------------------------------------------------------------------------------------------------

_keys = st.sampled_from(
    ["type", "index", "delta", "content_block", "message", "usage", "text", "thinking", "partial_json", "input", "id"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["text", "thinking", "tool_use", "x", "", "ping"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=6,
)
_frames = st.dictionaries(_keys, _values, max_size=5).flatmap(
    lambda frame: st.sampled_from([START["type"], "content_block_start", "content_block_delta", "message_delta"]).map(
        lambda type_: {**frame, "type": type_}
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_frames, max_size=6))
def test_any_frames_give_events_that_hold_together(frames: list[dict[str, Any]]):
    """Whatever comes, a decoder gives events that are true of every stream, or one of our errors."""
    decoded(sse(*frames, STOP))


def test_bytes_that_are_no_unicode_in_an_unknown_delta():
    opened = sse(begin(0, "text", text=""))
    odd = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"new","x":"\xff"}}\n\n'
    driven = drive(SSEFraming(), DIALECT.decoder(document=False), [opened, odd])
    assert [event.data for event in driven.events if isinstance(event, Annotation)] == [{"type": "new", "x": "\ufffd"}]
