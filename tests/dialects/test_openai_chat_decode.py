"""OpenAI chat in, events out: content, liveness, usage and the end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canon.errors import MalformedFrame, Truncated
from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Delta,
    Finish,
    KeepAlive,
    Progress,
    Reasoning,
    Refusal,
    Start,
    Text,
    Timings,
    UsageUpdate,
)
from penstock.canon.usage import Usage
from penstock.dialects.base import Mark
from penstock.dialects.openai_chat import DIALECT
from penstock.framing.sse import SSEFraming
from tests.dialects.chat_wire import DONE, STOP, USAGE, call, calls, chunk, decoded, finish_of, said, sse, told

# --- a stream from its start to its end ------------------------------------------------------------------------------


def test_a_whole_stream():
    driven = decoded(
        sse(
            chunk({"role": "assistant", "content": ""}, usage=None, obfuscation="aZ3"),
            said("Hel"),
            said("lo"),
            STOP,
            chunk(choices=[], usage=USAGE),
        )
        + DONE
    )
    usage = Usage(input=9, output=2, total=11, raw=USAGE)
    assert driven.events == [
        Start("m", "someone", "chatcmpl-1"),
        BlockStart(0, "text"),
        Delta(0, "Hel"),
        Delta(0, "lo"),
        UsageUpdate(usage),
        BlockEnd(0, Text("Hello")),
        Finish("stop", "stop", usage, {"model": "m", "response_id": "chatcmpl-1"}),
    ]
    assert driven.marks == [Mark.USAGE, Mark.TERMINATOR]


def test_content_may_come_with_the_first_and_with_the_last_chunk():
    driven = decoded(sse(said("Hel"), chunk({"content": "lo"}, "stop", usage=USAGE)) + DONE)
    assert driven.response.text == "Hello"
    assert finish_of(driven).usage == Usage(input=9, output=2, total=11, raw=USAGE)


def test_content_after_a_finish_reason_is_not_lost():
    assert decoded(sse(said("Hel"), STOP, said("lo")) + DONE).response.text == "Hello"


def test_several_finish_reasons_the_first_counts():
    driven = decoded(sse(said("a"), chunk(finish="length"), chunk(finish="stop")) + DONE)
    assert (finish_of(driven).reason, finish_of(driven).raw_reason) == ("length", "length")


def test_c4_a_finish_reason_proves_the_end_without_done():
    assert decoded(sse(said("a"), STOP)).error is None


@pytest.mark.parametrize("rest", [b"", DONE], ids=["EOF", "DONE"])
def test_c4_without_a_finish_reason_nothing_is_proved(rest: bytes):
    driven = decoded(sse(said("a")) + rest)
    assert isinstance(driven.error, Truncated)
    assert driven.response.text == "a"


@pytest.mark.parametrize("reason", [None, "", "null", 0, False, [], {}])
def test_c4_what_is_no_finish_reason(reason: Any):
    assert isinstance(decoded(sse(said("a"), chunk(finish=reason)) + DONE).error, Truncated)
    assert decoded(sse(said("a"), chunk(finish=reason), STOP)).error is None


@pytest.mark.parametrize("wire", [b"", DONE, b": hi\n\n", b"\n\n"])
def test_c4_nothing_at_all_is_truncated(wire: bytes):
    driven = decoded(wire)
    assert isinstance(driven.error, Truncated)
    assert driven.events == []


def test_c4_every_choice_that_was_seen_must_finish():
    both = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    first = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    second = {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}
    assert isinstance(decoded(sse(both, first)).error, Truncated)
    assert isinstance(decoded(sse(both, second)).error, Truncated)
    for wire in (sse(both, first, second), sse(both, second, first)):
        driven = decoded(wire)
        assert driven.error is None
        assert driven.response.text == "a"
        assert finish_of(driven).raw_reason == "stop"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("max_tokens", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("something_new", "other"),
    ],
)
def test_finish_reasons(raw: str, reason: str):
    finish = finish_of(told(said("a"), finish=raw))
    assert (finish.reason, finish.raw_reason) == (reason, raw)


def test_a_stop_after_tool_calls_is_a_tool_call_and_keeps_the_raw_word():
    finish = finish_of(told(calls(call(0, "a", "f", "{}")), finish="stop"))
    assert (finish.reason, finish.raw_reason) == ("tool_calls", "stop")


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data:[DONE]", b"data: [DONE] ", b"data:  [DONE]", b"data: [DONE]x"])
def test_done_in_its_forms(end: bytes):
    driven = decoded(sse(said("a"), STOP) + end + b"\n\n")
    assert driven.marks == [Mark.TERMINATOR]
    assert driven.error is None


def test_a_done_without_its_blank_line():
    assert decoded(sse(said("a"), STOP) + b"data: [DONE]").marks == [Mark.TERMINATOR]


def test_done_inside_text_is_text():
    assert decoded(sse(said("data: [DONE]\n\n"), said("[DONE]"), STOP)).response.text == "data: [DONE]\n\n[DONE]"


def test_frames_after_done_say_nothing():
    driven = decoded(sse(said("a"), STOP) + DONE + sse(said("b")) + DONE + b": bye\n\ndata: {broken\n\n")
    assert driven.marks == [Mark.TERMINATOR, *[Mark.AFTER] * 4]
    assert (driven.error, driven.response.text) == (None, "a")


def test_close_gives_finish_once():
    driven = decoded(sse(STOP))
    decoder = DIALECT.decoder(document=False)
    for frame in SSEFraming().feed(sse(STOP)):
        decoder.decode(frame, [])
    decoder.close(driven.events)
    decoder.close(driven.events)
    assert sum(isinstance(event, Finish) for event in driven.events) == 2  # its own, and this decoder's one


# --- names -----------------------------------------------------------------------------------------------------------


def test_azure_filter_chunks():
    filtered = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [{}]}
    offsets = {"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}], "id": "", "model": ""}
    driven = decoded(sse(filtered, said("a"), offsets, STOP) + DONE)
    assert driven.events[0] == Start("m", "someone", "chatcmpl-1")
    assert driven.response.text == "a"
    assert driven.marks == [Mark.TERMINATOR]


def test_the_first_name_that_is_one_counts():
    wire = sse(said("a", id="", model=""), said("b", id="x", model="n"), said("c", id="y", model="o"), STOP)
    driven = decoded(wire)
    assert (driven.response.model, driven.response.response_id) == ("n", "x")
    assert finish_of(driven).metadata == {"model": "n", "response_id": "x"}


@pytest.mark.parametrize("odd", [None, 5, [], {}])
def test_names_of_odd_types_are_none(odd: Any):
    response = told(said("a", id=odd, model=odd)).response
    assert (response.model, response.response_id) == ("m", "chatcmpl-1")


def test_openrouter_says_who_answered():
    assert told(said("a", provider="Groq")).response.provider == "Groq"


# --- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [{}, None, {"content": None}, {"content": ""}, {"content": []}, {"content": 5}])
def test_deltas_without_content(delta: Any):
    driven = told(chunk(delta), said("a"))
    assert [event for event in driven.events if isinstance(event, Delta)] == [Delta(0, "a")]


@pytest.mark.parametrize("choice", [{}, {"delta": None}, {"index": None, "delta": None}, {"index": 0}])
def test_choices_that_lack_their_members(choice: dict[str, Any]):
    assert told({"choices": [choice]}, said("a")).response.text == "a"


def test_a_message_in_place_of_a_delta():
    wire = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
    assert decoded(sse(wire)).response.text == "Hi"


@pytest.mark.parametrize("index", [None, "0", 0.0])
def test_an_index_that_is_no_number_is_the_first_choice(index: Any):
    wire = {"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    assert decoded(sse(wire)).response.text == "a"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_and_text_are_blocks_of_their_own(field: str):
    driven = told(
        chunk({field: "Let me"}), chunk({field: " see", "content": None}), chunk({field: "", "content": "Hi"})
    )
    assert driven.response.parts == (Reasoning("Let me see"), Text("Hi"))


def test_reasoning_that_comes_under_both_names_counts_once():
    assert told(chunk({"reasoning": "Hm", "reasoning_content": "Hm"})).response.reasoning == "Hm"


def test_reasoning_and_content_in_one_delta():
    assert told(chunk({"reasoning": "Hm", "content": "Hi"})).response.parts == (Reasoning("Hm"), Text("Hi"))


def test_reasoning_details_count_once_and_are_kept():
    first = {"type": "reasoning.text", "text": "Let me", "format": "x", "index": 0}
    last = {"type": "reasoning.text", "signature": "EqQB", "index": 0}
    driven = told(
        chunk({"reasoning": "Let me", "reasoning_details": [first]}), chunk({"reasoning_details": [last]}), said("Hi")
    )
    assert driven.response.parts == (Reasoning("Let me", "EqQB", None, (first, last), "openai-chat"), Text("Hi"))


def test_reasoning_details_alone():
    details = [{"type": "reasoning.summary", "summary": "Sum"}, {"type": "reasoning.text", "text": "med"}, "odd"]
    assert told(chunk({"reasoning_details": details})).response.reasoning == "Summed"


def test_encrypted_reasoning_has_a_block_without_words():
    detail = {"type": "reasoning.encrypted", "data": "opaque"}
    driven = told(chunk({"reasoning": None, "reasoning_details": [detail]}), said("Hi"))
    assert driven.response.parts == (Reasoning("", None, None, (detail,), "openai-chat"), Text("Hi"))


def test_mistral_content_is_a_list_of_parts():
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "!"}]}]
    text = [{"type": "text", "text": "Hi"}, {"type": "image_url"}, "odd", {"type": "text", "text": None}]
    driven = told(chunk({"content": thinking}), chunk({"content": text}), chunk({"content": [{"type": "thinking"}]}))
    assert driven.response.parts == (Reasoning("Hm!"), Text("Hi"))


def test_a_refusal():
    driven = told(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"refusal": "I "}),
        chunk({"refusal": "can't"}),
    )
    assert driven.response.parts == (Refusal("I can't"),)
    assert driven.response.refusal == "I can't"


def test_log_probabilities_and_annotations_stand_beside_their_text():
    logprobs = {"content": [{"token": "a"}]}
    wire = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": logprobs}]}
    cited = [{"type": "url_citation"}]
    driven = told(wire, chunk({"content": "b", "annotations": cited}))
    assert Annotation(0, {"logprobs": logprobs}) in driven.events
    assert Annotation(0, {"annotations": cited}) in driven.events
    assert driven.response.text == "ab"


@pytest.mark.parametrize(
    "content", ["\\ud83d", "\\ude00\\ud83d", "a\\ud83db"], ids=["high half", "halves swapped", "within"]
)
def test_half_a_surrogate_pair_is_one_sign_lost_and_not_the_stream(content: str):
    frame = b'data: {"choices":[{"delta":{"content":"' + content.encode() + b'"}}]}\n\n'
    driven = decoded(sse(said("<")) + frame + sse(said(">"), STOP))
    assert driven.error is None
    assert "\ufffd" in driven.response.text
    assert driven.response.text[0] + driven.response.text[-1] == "<>"


def test_bytes_that_are_no_utf8_are_one_sign_lost_and_not_the_stream():
    driven = decoded(b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n' + sse(said("c"), STOP))
    assert driven.response.text == "a\ufffdbc"


# --- liveness and narration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "source"),
    [
        (b": OPENROUTER PROCESSING\n\n", "comment"),
        (b":\n\n", "comment"),
        (b"data: ping\n\n", "ping"),
        (b"data: : OPENROUTER PROCESSING\n\n", "ping"),
        (b"data:\n\n", "empty"),
    ],
)
def test_liveness_is_told_once_the_stream_has_begun(wire: bytes, source: str):
    driven = decoded(wire + sse(said("a")) + wire + sse(STOP))
    assert isinstance(driven.events[0], Start)
    assert [event for event in driven.events if isinstance(event, KeepAlive)] == [KeepAlive(source)]


@pytest.mark.parametrize("payload", [{"type": "ping"}, {}, {"choices": []}, {"choices": None}, {"new": [1, {"a": 2}]}])
def test_chunks_that_say_nothing(payload: dict[str, Any]):
    assert decoded(sse(payload)).events == []
    assert told(said("a"), payload, said("b")).response.text == "ab"


def test_llama_cpp_timings():
    timings = {
        "prompt_n": 5, "cache_n": 3, "prompt_ms": 10.5, "prompt_per_second": 476.2,
        "predicted_n": 7, "predicted_ms": 70, "predicted_per_second": 100.0, "draft_n": 1,
    }  # fmt: skip
    driven = decoded(sse(said("a"), STOP, chunk(choices=[], usage=USAGE, timings=timings)) + DONE)
    assert driven.response.timings == Timings(5, 3, 10.5, 476.2, 7, 70.0, 100.0)
    assert driven.marks == [Mark.USAGE, Mark.TERMINATOR]


def test_llama_cpp_progress_comes_before_content():
    progress = {"total": 300, "cache": 0, "processed": 100, "time_ms": 5}
    driven = told(chunk({"role": "assistant", "content": None}, prompt_progress=progress), said("a"))
    assert driven.events[1] == Progress("prompt", 100, 300)


def test_llama_cpp_says_which_stop_sequence_it_met():
    driven = decoded(sse(said("a"), chunk(finish="stop", __verbose={"stop_type": "word", "stopping_word": "###"})))
    assert finish_of(driven).metadata["stop_sequence"] == "###"


# --- what is none of ours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"{broken",
        b"Bad Gateway",
        b"[1]",
        b'"text"',
        b'{"choices":{}}',
        b'{"choices":[{"delta":"x"}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":"f"}]}}]}',
        b'{"choices":[]}{"choices":[]}',
        b'{"usage":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda data: data[:30].decode(),
)
def test_a_frame_that_is_none_of_ours_is_malformed(data: bytes):
    driven = decoded(sse(said("a")) + b"data: " + data + b"\n\n" + sse(STOP))
    assert isinstance(driven.error, MalformedFrame)
    assert driven.response.text == "a"


def test_c13_a_malformed_frame_is_not_quoted():
    for data in (b'{"choices":[{"delta":"my secret"}]}', b"{my secret", b"my secret"):
        assert "secret" not in str(decoded(b"data: " + data + b"\n\n").error)


_keys = st.sampled_from(
    ["id", "model", "choices", "usage", "timings", "metrics", "time_info", "x_groq", "prompt_progress", "index",
     "delta", "message", "content", "reasoning", "reasoning_details", "refusal", "tool_calls", "function", "name",
     "arguments", "text", "type"]
)  # fmt: skip
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["text", "thinking", "x", "", "null", "{}"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=6,
)
_calls = st.lists(st.fixed_dictionaries({}, optional={"index": _values, "id": _values, "function": st.none() | st.fixed_dictionaries({}, optional={"name": _values, "arguments": _values})}), max_size=3)  # fmt: skip # noqa: E501
_deltas = st.dictionaries(_keys, _values, max_size=4) | st.fixed_dictionaries({"tool_calls": _calls})
_chunks = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"delta": st.none() | _deltas}), max_size=2)},
    optional=dict.fromkeys(("usage", "timings", "metrics", "time_info", "id", "model", "x_groq"), _values),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_chunks, max_size=6))
def test_any_chunks_give_events_that_hold_together(chunks: list[dict[str, Any]]):
    """Whatever comes, a decoder gives events that are true of every stream, or one of our errors."""
    decoded(b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + sse(STOP))
