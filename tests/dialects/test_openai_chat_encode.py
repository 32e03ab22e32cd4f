"""Events in, OpenAI chat out, and back again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canon.errors import StreamedError, Truncated
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
from penstock.dialects.openai_chat import DIALECT
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming
from tests.dialects.streams import interleaved, of, pieces_of_text
from tests.invariants import check_events, drive

if TYPE_CHECKING:
    from penstock.dialects.base import Dialect, Encoder

START = Start("upstream-model", "anthropic", "msg_1")
FINISH = Finish("stop", "end_turn")


def encoder(*, include_usage: bool = True, model: str | None = "m") -> Encoder:
    dialect: Dialect = DIALECT  # the whole protocol, for the type checker
    return dialect.encoder(model=model, include_usage=include_usage, request_id="req_1", created=7)


def payloads(data: bytes) -> list[Any]:
    return [json.loads(frame.data) for frame in SSEFraming().feed(data) if frame.data and frame.data != b"[DONE]"]


def deltas(*events: Event) -> list[dict[str, Any]]:
    """What the client reads of each choice, the role chunk and the finish left out."""
    chunks = payloads(encoder().encode([START, *events]))
    return [chunk["choices"][0]["delta"] for chunk in chunks[1:] if chunk["choices"][0]["finish_reason"] is None]


# --- a stream --------------------------------------------------------------------------------------------------------


def test_a_whole_stream():
    events = [
        START,
        *of(0, Text("Hello"), "Hel", "lo"),
        Finish("stop", "end_turn", Usage(input=12, output=2, total=14)),
    ]
    head = b'data: {"id":"msg_1","object":"chat.completion.chunk","created":7,"model":"m","choices":['
    assert encoder().encode(events) == (
        head + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + b'{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + b'{"index":0,"delta":{"content":"lo"},"logprobs":null,"finish_reason":null}]}\n\n'
        + head + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
        + head + b'],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14}}\n\n'
        + b"data: [DONE]\n\n"
    )  # fmt: skip


def test_c2_every_batch_is_written_at_once():
    writer = encoder()
    assert b'"assistant"' in writer.encode([START])
    assert b'"Hel"' in writer.encode([BlockStart(0, "text"), Delta(0, "Hel")])
    assert b'"lo"' in writer.encode([Delta(0, "lo")])
    assert writer.encode([]) == b""


def test_usage_only_where_it_was_asked_for():
    finish = Finish("stop", None, Usage(input=1, output=2))
    assert payloads(encoder().encode([START, finish]))[-1]["choices"] == []
    assert b"usage" not in encoder(include_usage=False).encode([START, finish])
    assert b"usage" not in encoder().encode([START, FINISH])


def test_usage_that_came_before_the_end_is_told_at_the_end():
    usage = UsageUpdate(Usage(input=9, input_cached=4, input_cache_write=1, output=3, output_reasoning=2))
    assert payloads(encoder().encode([START, usage, FINISH]))[-1]["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_counts_that_nobody_gave_are_zero_on_this_wire_alone():
    usage = payloads(encoder().encode([START, Finish("stop", None, Usage(output=3))]))[-1]["usage"]
    assert usage == {"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}


def test_names_that_nobody_gave_are_made():
    (chunk,) = payloads(encoder(model=None).encode([Start()]))
    assert (chunk["id"], chunk["model"]) == ("chatcmpl-req_1", "")


def test_the_upstreams_model_where_the_client_named_none():
    assert b'"upstream-model"' in encoder(model=None).encode([START])


def test_liveness_is_a_comment_and_narration_is_nothing():
    data = encoder().encode([KeepAlive("ping"), Progress("prompt"), Timings()])
    assert data == DIALECT.heartbeat == b": keep-alive\n\n"


def test_c4_an_error_is_the_last_word():
    data = encoder().encode([START, BlockStart(0, "text"), Delta(0, "a")]) + encoder().error(Truncated("It was cut."))
    assert payloads(data)[-1]["error"]["message"] == "It was cut."
    assert b"[DONE]" not in data
    driven = drive(SSEFraming(), DIALECT.decoder(document=False), [data])
    assert isinstance(driven.error, StreamedError)
    assert driven.response.text == "a"


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_each_kind_of_text_has_its_field():
    assert deltas(*of(0, Reasoning("Hm"), "Hm"), *of(1, Text("Hi"), "Hi"), *of(2, Refusal("No"), "No")) == [
        {"reasoning_content": "Hm"},
        {"content": "Hi"},
        {"refusal": "No"},
    ]


@pytest.mark.parametrize(
    ("part", "details"),
    [
        (Reasoning("Hm", "EqQB"), [{"type": "reasoning.text", "text": "", "signature": "EqQB"}]),
        (Reasoning("", None, "opaque"), [{"type": "reasoning.encrypted", "data": "opaque"}]),
        (
            Reasoning("Hm", "EqQB", None, ({"type": "reasoning.text", "text": "Hm", "signature": "EqQB", "index": 0},)),
            [{"type": "reasoning.text", "text": "", "signature": "EqQB", "index": 0}],
        ),
    ],
)
def test_what_proves_a_thought_goes_out_in_openrouters_form(part: Reasoning, details: list[Any]):
    assert deltas(BlockStart(0, "reasoning"), BlockEnd(0, part)) == [{"reasoning_details": details}]


def test_words_that_were_streamed_are_not_said_again():
    spoken = Reasoning("Hm", None, None, ({"type": "reasoning.text", "text": "Hm"},))
    assert deltas(*of(0, spoken, "Hm")) == [{"reasoning_content": "Hm"}]


def test_parallel_calls_have_indexes_of_their_own():
    a, b = ToolCall("call_a", "f", '{"a":1}', {"a": 1}), ToolCall("call_b", "g", "{}", {})
    written = deltas(
        *of(0, Text("x"), "x"),
        BlockStart(1, "tool_call", "call_a", "f"),
        BlockStart(2, "tool_call", "call_b", "g"),
        Delta(2, "{}"),
        Delta(1, '{"a":'),
        BlockEnd(2, b),
        Delta(1, "1}"),
        BlockEnd(1, a),
    )
    assert [delta["tool_calls"][0] for delta in written[1:]] == [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "g", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]


def test_what_has_no_word_here_is_nothing():
    server = ToolCall("s", "web_search", '{"q":1}', {"q": 1}, None, True)
    assert deltas(*of(0, server, '{"q":1}'), *of(1, Custom("x", {})), BlockStart(2, "text"), Annotation(2, {})) == []


def test_arguments_that_are_no_json_pass_as_they_are():
    written = deltas(*of(0, ToolCall("c", "f", '{"a', None, "cut"), '{"a'))
    assert written[1]["tool_calls"][0]["function"]["arguments"] == '{"a'


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "stop"),
        ("stop_sequence", "stop"),
        ("length", "length"),
        ("context_full", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
        ("refusal", "content_filter"),
        ("pause", "stop"),
        ("other", "stop"),
    ],
)
def test_finish_reasons(reason: Any, word: str):
    chunk = payloads(encoder().encode([START, Finish(reason, "raw")]))[-1]
    assert chunk["choices"][0]["finish_reason"] == word


def test_a_stop_after_calls_is_a_tool_call_but_a_server_call_is_none():
    for server, word in ((False, "tool_calls"), (True, "stop")):
        events = [START, *of(0, ToolCall("c", "f", "{}", {}, None, server), "{}"), FINISH]
        assert payloads(encoder().encode(events))[-1]["choices"][0]["finish_reason"] == word


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document():
    response = Response(
        parts=(
            Reasoning("Hm", "EqQB"),
            Text("Hi"),
            ToolCall("call_1", "f", '{"a":1}', {"a": 1}),
            ToolCall("s", "web_search", "{}", {}, None, True),
            ToolCall("call_2", "g", "", {}),
        ),
        finish=Ending("stop", "end_turn"),
        usage=Usage(input=10, output=3),
        response_id="msg_1",
    )
    assert json.loads(DIALECT.write_document(response, model="m", request_id="r", created=7)) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "refusal": None,
                    "reasoning_content": "Hm",
                    "reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "EqQB"}],
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }


def test_a_document_of_nothing_known():
    document = json.loads(DIALECT.write_document(Response(), model=None, request_id="r", created=0))
    assert document["id"] == "chatcmpl-r"
    assert document["choices"][0]["message"]["content"] == ""
    assert document["choices"][0]["finish_reason"] is None
    assert "usage" not in document


# --- there and back --------------------------------------------------------------------------------------------------


@st.composite
def _part(draw: Any) -> tuple[Part, list[str]]:
    kind = draw(st.sampled_from(["text", "reasoning", "refusal", "call", "broken", "empty"]))
    pieces = draw(pieces_of_text)
    joined = "".join(pieces)
    match kind:
        case "text":
            return Text(joined), pieces
        case "reasoning":
            return Reasoning(joined), pieces
        case "refusal":
            return Refusal(joined), pieces
        case "empty":
            return ToolCall("", "now", "", {}), []
        case "broken":
            raw = "{" + joined.replace("}", "")
            return ToolCall("", "f", raw, None, "x"), [raw]
    raw = json.dumps({"text": joined})
    cut = draw(st.integers(1, len(raw) - 1))
    return ToolCall("", "f", raw, json.loads(raw)), [raw[:cut], raw[cut:]]


def _comparable(response: Response) -> Any:
    """This wire has one text, so that of blocks that interleave only the signs are the same; and calls in any order."""
    assert response.finish is not None
    assert response.usage is not None
    calls = [(call.id, call.name, call.raw, call.arguments, bool(call.error)) for call in response.tool_calls]
    reason = "tool_calls" if response.finish.reason == "stop" and response.tool_calls else response.finish.reason
    usage = response.usage
    said = tuple(sorted(text or "") for text in (response.text, response.reasoning, response.refusal))
    return said, sorted(calls), reason, (usage.input, usage.output)


@settings(max_examples=150, deadline=None)
@given(interleaved(START, _part()), st.sampled_from(["stop", "length", "content_filter"]), st.integers(1, 40))
def test_events_that_are_written_and_read_again_say_the_same(events: list[Event], reason: Any, size: int):
    events = [*events, Finish(reason, None, Usage(input=9, output=3))]
    check_events(events, complete=True)
    writer = encoder()
    data = b"".join(writer.encode(events[k : k + 3]) for k in range(0, len(events), 3))
    reads = [data[k : k + size] for k in range(0, len(data), size)]
    driven = drive(SSEFraming(), DIALECT.decoder(document=False), reads)
    assert driven.error is None
    check_events(driven.events, complete=True)
    assert _comparable(driven.response) == _comparable(fold(events))


@settings(max_examples=50, deadline=None)
@given(interleaved(START, _part()))
def test_a_response_that_is_written_and_read_again_says_the_same(events: list[Event]):
    sent = fold([*events, Finish("stop", None, Usage(input=9, output=3))])
    data = DIALECT.write_document(sent, model=None, request_id="r", created=0)
    driven = drive(DocumentFraming(), DIALECT.decoder(document=True), [data])
    assert driven.error is None
    check_events(driven.events, complete=True)
    got, given_ = _comparable(driven.response), _comparable(sent)
    assert (got[0], got[2], got[3]) == (given_[0], given_[2], given_[3])
    assert [call.arguments for call in driven.response.tool_calls] == [call.arguments for call in sent.tool_calls]
