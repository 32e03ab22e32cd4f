"""Events in, Anthropic Messages out, and back again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canon.errors import Overloaded, StreamedError, TimedOut, Truncated
from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Event,
    Finish,
    KeepAlive,
    Part,
    Progress,
    Reasoning,
    Refusal,
    Start,
    Text,
    Timings,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.response import Ending, Response, fold
from penstock.canon.usage import Usage
from penstock.dialects.anthropic_messages import DIALECT
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming
from tests.invariants import check_events, drive

if TYPE_CHECKING:
    from penstock.canon.events import BlockKind
    from penstock.dialects.base import Dialect, Encoder

START = Start("upstream-model", "openai", "chatcmpl-1")
FINISH = Finish("stop", "stop")


def encoder() -> Encoder:
    dialect: Dialect = DIALECT  # the whole protocol, for the type checker
    return dialect.encoder(model="claude-x", include_usage=True, request_id="req_1", created=0)


def wire(*events: Event) -> list[dict[str, Any]]:
    """What a client reads: the payloads, each under its own event name."""
    payloads = []
    for frame in SSEFraming().feed(encoder().encode(events)):
        payload = json.loads(frame.data or b"")
        assert frame.event == payload["type"]
        payloads.append(payload)
    return payloads


def blocks(*events: Event) -> list[dict[str, Any]]:
    return [payload for payload in wire(START, *events) if payload["type"].startswith("content_block")]


_KINDS: dict[type, BlockKind] = {Text: "text", Reasoning: "reasoning", Refusal: "refusal"}


def of(i: int, part: Part, *pieces: str) -> list[Event]:
    """The events of one block."""
    if isinstance(part, ToolCall):
        start = BlockStart(i, "tool_call", part.id, part.name, part.server)
    else:
        start = BlockStart(i, _KINDS.get(type(part), "custom"))
    return [start, *(Delta(i, piece) for piece in pieces), BlockEnd(i, part)]


# --- a stream --------------------------------------------------------------------------------------------------------


def test_a_whole_stream():
    events = [START, *of(0, Text("Hello"), "Hel", "lo"), Finish("stop", "stop", Usage(input=12, output=2, total=14))]
    assert encoder().encode(events) == (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"chatcmpl-1","type":"message","role":"assistant",'
        b'"model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":0,"output_tokens":0}}}\n\n'
        b"event: content_block_start\n"
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}\n\n'
        b"event: content_block_stop\n"
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b"event: message_delta\n"
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"output_tokens":2,"input_tokens":12}}\n\n'
        b"event: message_stop\n"
        b'data: {"type":"message_stop"}\n\n'
    )


def test_c2_every_batch_is_written_at_once():
    writer = encoder()
    assert b"message_start" in writer.encode([START])
    assert b'"Hel"' in writer.encode([BlockStart(0, "text"), Delta(0, "Hel")])
    assert b'"lo"' in writer.encode([Delta(0, "lo")])
    assert writer.encode([]) == b""


def test_usage_that_comes_with_the_start_is_in_message_start():
    usage = UsageUpdate(Usage(input=50, input_cached=30, input_cache_write=5, output=1))
    (message_start,) = wire(START, usage)
    assert message_start["message"]["usage"] == {
        "input_tokens": 15,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 5,
        "output_tokens": 0,
    }


def test_usage_that_came_before_the_end_is_in_message_delta():
    usage = UsageUpdate(Usage(input=9, output=3, output_reasoning=2))
    delta = wire(START, usage, FINISH)[-2]
    assert delta["usage"] == {"input_tokens": 9, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 2}}


def test_input_tokens_are_never_negative():
    delta = wire(START, Finish("stop", None, Usage(input=5, input_cached=9)))[-2]
    assert delta["usage"]["input_tokens"] == 0


def test_unknown_usage_is_zero_on_this_wire_alone():
    assert wire(START, FINISH)[-2]["usage"] == {"output_tokens": 0}


def test_names_that_nobody_gave_are_made():
    (message_start,) = wire(Start())
    assert message_start["message"]["id"] == "msg_req_1"
    assert blocks(BlockStart(4, "tool_call", None, "f"))[0]["content_block"]["id"] == "toolu_req_1_4"


def test_the_upstreams_model_where_the_client_named_none():
    data = DIALECT.encoder(model=None, request_id="r").encode([START])
    assert b'"model":"upstream-model"' in data


def test_liveness_is_a_ping_and_narration_is_nothing():
    assert wire(START, KeepAlive("comment"), Progress("prompt"), Timings())[1:] == [{"type": "ping"}]
    assert DIALECT.heartbeat == encoder().encode([KeepAlive("ping")])


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_reasoning_has_its_signature_before_its_end():
    written = blocks(*of(0, Reasoning("Hm", "EqQB", signed_by="anthropic-messages"), "Hm"))
    assert [payload["type"] for payload in written] == [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
    ]
    assert written[0]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert written[2]["delta"] == {"type": "signature_delta", "signature": "EqQB"}


def test_reasoning_that_is_its_signature_alone():
    written = blocks(*of(0, Reasoning("", "EqQB", signed_by="anthropic-messages")))
    assert [payload.get("delta") for payload in written] == [
        None,
        {"type": "signature_delta", "signature": "EqQB"},
        None,
    ]


def test_redacted_reasoning():
    written = blocks(*of(0, Reasoning("", None, "opaque", signed_by="anthropic-messages")))
    assert written[0]["content_block"] == {"type": "redacted_thinking", "data": "opaque"}
    assert written[1] == {"type": "content_block_stop", "index": 0}


def test_reasoning_that_said_nothing_is_no_block():
    written = blocks(*of(0, Reasoning("")), *of(1, Text("a"), "a"))
    assert [payload["index"] for payload in written] == [0, 0, 0]
    assert written[0]["content_block"]["type"] == "text"


def test_a_tool_call():
    written = blocks(*of(0, ToolCall("call_1", "f", '{"a":1}', {"a": 1}), "", '{"a":', "1}"))
    assert written[0]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    assert [payload["delta"]["partial_json"] for payload in written[1:-1]] == ["", '{"a":', "1}"]


def test_arguments_that_are_no_json_pass_as_they_are():
    written = blocks(*of(0, ToolCall("call_1", "f", '{"a', None, "cut"), '{"a'))
    assert written[1]["delta"]["partial_json"] == '{"a'


def test_a_server_call_is_not_the_clients():
    written = wire(START, *of(0, ToolCall("srv_1", "web_search", "", {}, None, True)), FINISH)
    assert written[1]["content_block"]["type"] == "server_tool_use"
    assert written[-2]["delta"]["stop_reason"] == "end_turn"


def test_interleaved_calls_are_written_one_after_the_other():
    """The first streams live, the others wait for its end."""
    writer = encoder()
    live = writer.encode(
        [
            START,
            BlockStart(0, "tool_call", "a", "f"),
            BlockStart(1, "tool_call", "b", "g"),
            BlockStart(2, "text"),
            Delta(1, "{}"),
            Delta(0, '{"x":'),
            Delta(2, "Hi"),
        ]
    )
    assert b'"{\\"x\\":"' in live
    assert b'"id":"b"' not in live
    after = writer.encode([BlockEnd(1, ToolCall("b", "g", "{}", {})), Delta(0, "1}")])
    assert b'"id":"b"' not in after
    rest = writer.encode([BlockEnd(0, ToolCall("a", "f", '{"x":1}', {"x": 1})), Delta(2, "!")])
    assert b'"id":"b"' in rest
    assert b'"Hi"' in rest
    assert rest.endswith(b'"text":"!"}}\n\n')
    rest += writer.encode([BlockEnd(2, Text("Hi!")), FINISH])
    driven = drive(SSEFraming(), DIALECT.decoder(document=False), [live + after + rest])
    check_events(driven.events, complete=True)
    assert [type(part) for part in driven.response.parts] == [ToolCall, ToolCall, Text]


def test_many_waiting_calls_do_not_nest():
    starts = [BlockStart(i, "tool_call", f"id{i}", "f") for i in range(2000)]
    ends = [BlockEnd(i, ToolCall(f"id{i}", "f", "", {})) for i in reversed(range(2000))]
    written = blocks(*starts, *ends)
    assert [payload["index"] for payload in written] == [k // 2 for k in range(4000)]


def test_a_refusal_is_text_and_a_stop_reason():
    written = wire(START, *of(0, Refusal("I won't."), "I won't."), FINISH)
    assert written[1]["content_block"] == {"type": "text", "text": ""}
    assert written[-2]["delta"]["stop_reason"] == "refusal"


def test_custom_blocks_of_this_wire_pass_and_others_are_left_out():
    own = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    written = blocks(
        *of(0, Custom("web_search_call", {"type": "web_search_call"})),
        *of(1, Custom("web_search_tool_result", own)),
        *of(2, Custom("x", None)),
    )
    assert written == [
        {"type": "content_block_start", "index": 0, "content_block": own},
        {"type": "content_block_stop", "index": 0},
    ]


def test_citations_of_this_wire_pass_and_others_are_left_out():
    cited = {"type": "char_location", "cited_text": "grass"}
    text = of(0, Text("green", (cited,)), "green")
    written = blocks(*text[:-1], Annotation(0, cited), Annotation(0, {"type": "url_citation"}), text[-1])
    assert [payload["delta"]["type"] for payload in written[1:-1]] == ["text_delta", "citations_delta"]
    assert written[2]["delta"]["citation"] == cited


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", "stop", "end_turn"),
        ("stop_sequence", None, "stop_sequence"),
        ("length", "MAX_TOKENS", "max_tokens"),
        ("context_full", None, "model_context_window_exceeded"),
        ("tool_calls", "tool_calls", "tool_use"),
        ("content_filter", "SAFETY", "refusal"),
        ("refusal", None, "refusal"),
        ("pause", None, "pause_turn"),
        ("other", "LANGUAGE", "end_turn"),
        ("other", "compaction", "compaction"),
    ],
)
def test_stop_reasons(reason: Any, raw: str | None, word: str):
    assert wire(START, Finish(reason, raw))[-2]["delta"] == {"stop_reason": word, "stop_sequence": None}


def test_a_stop_after_tool_calls_is_tool_use():
    assert wire(START, *of(0, ToolCall("a", "f", "", {})), FINISH)[-2]["delta"]["stop_reason"] == "tool_use"
    length = wire(START, *of(0, ToolCall("a", "f", "", {})), Finish("length"))
    assert length[-2]["delta"]["stop_reason"] == "max_tokens"


def test_which_sequence_stopped_it_where_that_is_known():
    delta = wire(START, Finish("stop_sequence", None, None, {"stop_sequence": "###", "stop_details": {"a": 1}}))[-2]
    assert delta["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "###", "stop_details": {"a": 1}}


def test_c4_an_error_ends_the_stream_and_nothing_follows_it():
    writer = encoder()
    data = writer.encode([START, BlockStart(0, "text"), Delta(0, "Hel")]) + writer.error(Truncated("It was cut."))
    assert data.endswith(
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"It was cut."},'
        b'"request_id":"req_1"}\n\n'
    )
    driven = drive(SSEFraming(), DIALECT.decoder(document=False), [data])
    assert isinstance(driven.error, StreamedError)
    assert driven.response.text == "Hel"


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (TimedOut("idle", 60), "timeout_error"),
        (Overloaded("Busy", status=503), "overloaded_error"),
        (StreamedError("Busy", type="overloaded_error", status=529), "overloaded_error"),
        (StreamedError("Limit", type="rate_limit_error", status=502), "rate_limit_error"),
        (StreamedError("Oops", type="server_error", status=500), "api_error"),
    ],
)
def test_errors_have_this_wires_words(error: Any, type_: str):
    (frame,) = SSEFraming().feed(encoder().error(error))
    said = json.loads(frame.data or b"")
    assert said["error"] == {"type": type_, "message": str(error)}


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document():
    response = Response(
        parts=(
            Reasoning("Hm", "EqQB", signed_by="anthropic-messages"),
            Reasoning("", None, "opaque", signed_by="anthropic-messages"),
            Text("Hi"),
            ToolCall("call_1", "f", '{"a":1}', {"a": 1}),
            ToolCall("call_2", "g", "{broken", None, "broken"),
            Custom("foreign", {}),
        ),
        finish=Ending("stop", "stop"),
        usage=Usage(input=10, input_cached=4, output=3, total=13),
        model="upstream-model",
        response_id="chatcmpl-1",
    )
    assert json.loads(DIALECT.write_document(response, model="claude-x", request_id="r", created=0)) == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "opaque"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "call_2", "name": "g", "input": {"_raw": "{broken"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 3},
    }


def test_a_document_of_nothing_known():
    document = json.loads(DIALECT.write_document(Response(), model=None, request_id="r", created=0))
    assert document["id"] == "msg_r"
    assert document["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert document["stop_reason"] is None


# --- there and back --------------------------------------------------------------------------------------------------

_texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=4)


@st.composite
def _parts(draw: Any) -> tuple[Part, list[str]]:
    kind = draw(st.sampled_from(["text", "reasoning", "redacted", "call", "broken", "empty", "server", "custom"]))
    pieces = draw(_texts)
    joined = "".join(pieces)
    match kind:
        case "text":
            return Text(joined), pieces
        case "reasoning":
            signature = draw(st.none() | st.just("EqQB"))
            return Reasoning(joined, signature, signed_by=signature and "anthropic-messages"), pieces
        case "redacted":
            return Reasoning("", None, joined, signed_by="anthropic-messages"), []
        case "empty":
            return ToolCall("call_1", "now", "", {}), []
        case "custom":
            return Custom("compaction", {"type": "compaction", "content": joined}), []
        case "broken":
            raw = "{" + joined.replace("}", "")
            return ToolCall("call_1", "f", raw, None, "x"), [raw]
    raw = json.dumps({"text": joined})
    cut = draw(st.integers(1, len(raw) - 1))
    return ToolCall("call_1", "f", raw, json.loads(raw), None, kind == "server"), [raw[:cut], raw[cut:]]


@st.composite
def _streams(draw: Any) -> list[Event]:
    """Any stream that holds together, its blocks interleaved in any way."""
    given_parts = draw(st.lists(_parts(), max_size=5))
    waiting = [of(i, part, *pieces) for i, (part, pieces) in enumerate(given_parts)]
    events: list[Event] = [START]
    opened = 0
    while any(waiting):
        ready = [i for i, rest in enumerate(waiting) if rest and i <= opened]
        i = draw(st.sampled_from(ready))
        opened = max(opened, i + 1) if isinstance(waiting[i][0], BlockStart) else opened
        events.append(waiting[i].pop(0))
        if draw(st.booleans()):
            events.append(KeepAlive("ping"))
    usage = Usage(input=draw(st.integers(5, 99)), input_cached=5, input_cache_write=0, output=draw(st.integers(0, 9)))
    return [*events, Finish(draw(st.sampled_from(["stop", "length", "refusal", "pause"])), None, usage)]


def _comparable(response: Response) -> Any:
    parts = [
        ToolCall(part.id, part.name, part.raw, part.arguments, "why" if part.error else None, part.server)
        if isinstance(part, ToolCall)
        else part
        for part in response.parts
    ]
    assert response.finish is not None
    assert response.usage is not None
    reason = "tool_calls" if response.finish.reason == "stop" and response.tool_calls else response.finish.reason
    usage = response.usage
    return parts, reason, (usage.input, usage.input_cached, usage.input_cache_write, usage.output)


@settings(max_examples=150, deadline=None)
@given(_streams(), st.integers(1, 40))
def test_events_that_are_written_and_read_again_say_the_same(events: list[Event], size: int):
    check_events(events, complete=True)
    writer = encoder()
    data = b"".join(writer.encode(events[k : k + 3]) for k in range(0, len(events), 3))
    reads = [data[k : k + size] for k in range(0, len(data), size)]
    driven = drive(SSEFraming(), DIALECT.decoder(document=False), reads)
    assert driven.error is None
    check_events(driven.events, complete=True)
    assert _comparable(driven.response) == _comparable(fold(events))


@settings(max_examples=50, deadline=None)
@given(_streams())
def test_a_response_that_is_written_and_read_again_says_the_same(events: list[Event]):
    sent = fold(events)
    data = DIALECT.write_document(sent, model=None, request_id="r", created=0)
    driven = drive(DocumentFraming(), DIALECT.decoder(document=True), [data])
    assert driven.error is None
    check_events(driven.events, complete=True)
    for got, part in zip(driven.response.parts, sent.parts, strict=True):
        if isinstance(part, ToolCall):
            assert isinstance(got, ToolCall)
            assert got.arguments == ({"_raw": part.raw} if part.error else part.arguments)
        else:
            assert got == part
