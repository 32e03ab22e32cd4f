"""Gemini → events: what proves an end, parts of every kind, calls, usage, and whatever servers get wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import MalformedFrame, NotAStream, PenstockError, StreamedError, Truncated
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
from penstock.dialects.base import Mark
from penstock.dialects.gemini import ARRAY, DIALECT
from penstock.framing.json_array import JSONArrayFraming
from penstock.framing.sse import SSEFraming
from tests.corpus import recordings
from tests.dialects.gemini_wire import (
    STOP,
    USAGE,
    array,
    call,
    chunk,
    decoded,
    decoded_array,
    document,
    finish_of,
    sse,
    text,
    thought,
    told,
)
from tests.invariants import drive

COUNTED = Usage(9, None, None, 5, 3, 14, None, USAGE)


def test_a_stream_event_by_event():
    driven = told(
        chunk(thought("Hm")), chunk(text("Hel")), chunk(text("lo"), call("f", {"a": 1}, thoughtSignature="s"))
    )
    assert driven.events == [
        Start("gem-x", "google", "resp_1"),
        BlockStart(0, "reasoning"),
        Delta(0, "Hm"),
        BlockEnd(0, Reasoning("Hm")),
        BlockStart(1, "text"),
        Delta(1, "Hel"),
        Delta(1, "lo"),
        BlockEnd(1, Text("Hello")),
        BlockStart(2, "tool_call", "call_resp_1_0", "f", signature="s"),
        Delta(2, '{"a":1}'),
        BlockEnd(2, ToolCall("call_resp_1_0", "f", '{"a":1}', {"a": 1}, signature="s")),
        UsageUpdate(COUNTED),
        Finish("tool_calls", "STOP", COUNTED, {"model": "gem-x", "response_id": "resp_1"}),
    ]


def test_an_array_says_the_same_as_sse():
    chunks = [chunk(thought("Hm")), chunk(text("Hello")), STOP]
    driven = decoded_array(array(*chunks))
    assert driven.events == decoded(sse(*chunks)).events
    assert driven.marks == [Mark.TERMINATOR]


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"), ("PROHIBITED_CONTENT", "content_filter"), ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"), ("MODEL_ARMOR", "content_filter"), ("CONTINUATION", "pause"),
        ("NO_IMAGE", "other"), ("SOMETHING_NEW", "other"),
    ],
)  # fmt: skip
def test_reasons(raw: str, reason: str):
    finish = finish_of(decoded(sse(chunk(text("Hi"), finish=raw))))
    assert (finish.reason, finish.raw_reason) == (reason, raw)


@pytest.mark.parametrize(
    "raw",
    [
        "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE", "LANGUAGE", "OTHER",
    ],
)  # fmt: skip
def test_a_reason_that_is_a_failure_is_an_error(raw: str):
    driven = decoded(sse(chunk(text("Hi"), finish=raw, finishMessage="Bad call: f(", usage=USAGE)))
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.type, driven.error.retryable) == (raw, True)
    assert "Bad call: f(" in str(driven.error)
    assert driven.response.text == "Hi"
    assert driven.response.usage == COUNTED


def test_a_blocked_prompt_is_a_whole_reply():
    blocked = {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "No."}, "usageMetadata": USAGE}
    for driven in (decoded(sse(blocked)), document(blocked), decoded_array(array(blocked))):
        finish = finish_of(driven)
        assert (finish.reason, finish.raw_reason) == ("content_filter", "PROMPT_BLOCKED:SAFETY")
        assert finish.metadata["finish_message"] == "No."
        assert finish.usage == COUNTED


def test_c4_feedback_that_blocks_nothing_proves_nothing():
    feedbacks: list[Any] = [
        {"safetyRatings": []},
        {"blockReason": "BLOCKED_REASON_UNSPECIFIED"},
        {"blockReason": 3},
        [1],
    ]
    for feedback in feedbacks:
        driven = decoded(sse({**chunk(text("Hi")), "promptFeedback": feedback}))
        assert isinstance(driven.error, Truncated)


def test_pathology_1_and_24_the_connections_end_proves_nothing():
    driven = decoded(sse(chunk(text("Hello"))))
    assert isinstance(driven.error, Truncated)
    assert driven.response.text == "Hello"


@pytest.mark.parametrize("raw", ["", "null", None, "FINISH_REASON_UNSPECIFIED", 0, ["STOP"]])
def test_pathology_26_a_reason_that_says_nothing(raw: Any):
    assert isinstance(decoded(sse(chunk(text("Hi"), finishReason=raw))).error, Truncated)


def test_pathology_27_content_may_come_with_the_reason_and_after_it():
    driven = decoded(sse(chunk(text("A"), finish="STOP"), chunk(text("B")), {"usageMetadata": USAGE}))
    assert driven.error is None
    assert driven.response.text == "AB"
    assert driven.response.usage == COUNTED
    assert driven.marks == [Mark.USAGE]


def test_pathology_3_a_second_reason_changes_nothing():
    finish = finish_of(decoded(sse(chunk(text("A"), finish="MAX_TOKENS"), STOP)))
    assert finish.raw_reason == "MAX_TOKENS"


def test_pathology_4_done_is_another_dialects_word():
    driven = decoded(sse(chunk(text("A"))) + b"data: [DONE]\n\n" + sse(STOP))
    assert driven.error is None
    assert driven.marks == [Mark.AFTER]
    assert isinstance(decoded(sse(chunk(text("A"))) + b"data: [DONE]\n\n").error, Truncated)


def test_pathology_41_a_last_event_without_its_blank_line():
    assert decoded(sse(chunk(text("A")), STOP).rstrip()).error is None
    cut = sse(chunk(text("A"))) + sse(STOP)[:-12]
    assert isinstance(decoded(cut).error, Truncated)


def test_quirk_a_last_chunk_with_nothing_but_reason_and_usage():
    last = {"candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata": USAGE}
    driven = decoded(sse(chunk(text("A")), last))
    assert (driven.error, driven.response.text, driven.response.usage) == (None, "A", COUNTED)


def test_an_array_without_its_bracket_is_whole_when_its_reply_is():
    assert decoded_array(array(STOP).rstrip().rstrip(b"]")).error is None
    assert isinstance(decoded_array(array(chunk(text("A")))).error, Truncated)


def test_what_comes_after_the_bracket_is_marked():
    framing, decoder = JSONArrayFraming(), ARRAY.decoder(document=False)
    marks = [decoder.decode(frame, []) for frame in framing.feed(array(STOP)) + framing.feed(b"\n{}")]
    assert marks == [None, Mark.TERMINATOR, Mark.AFTER]


def test_more_than_one_candidate_the_first_is_told_and_all_are_waited_for():
    def of(index: int | None, said: str, finish: str | None = None) -> dict[str, Any]:
        found = chunk(text(said), finish=finish)["candidates"][0]
        return {key: value for key, value in {**found, "index": index}.items() if value is not None}

    both = sse({"candidates": [of(1, "X"), of(0, "A")]}, {"candidates": [of(0, "B", "STOP")]})
    assert isinstance(decoded(both).error, Truncated)
    driven = decoded(both + sse({"candidates": [of(1, "Y", "MAX_TOKENS")]}))
    assert (driven.error, driven.response.text) == (None, "AB")
    assert finish_of(driven).raw_reason == "STOP"
    unnumbered = decoded(sse({"candidates": [of(1, "X", "STOP"), of(None, "A", "STOP")]}))  # Vertex leaves a zero out
    assert (unnumbered.error, unnumbered.response.text) == (None, "A")


# --- parts ----------------------------------------------------------------------------------------------------------


def test_quirk_empty_texts_and_candidates_without_parts_are_nothing():
    empty: list[dict[str, Any]] = [{"candidates": [{"content": {"role": "model"}, "index": 0}]}, {"candidates": []}]
    driven = told(chunk(text("")), *empty, chunk(thought("")), chunk({}), chunk(text("A")))
    assert [event for event in driven.events if isinstance(event, BlockStart)] == [BlockStart(0, "text")]


def test_quirk_signatures_of_thoughts_texts_and_empty_parts():
    driven = told(
        chunk(thought("Hm", thoughtSignature="s1")),
        chunk(thought("And")),
        chunk(text("Hi", thoughtSignature="s2")),
        chunk(text("", thoughtSignature="s3")),
        chunk({"thoughtSignature": "s4"}),
        chunk(text("!")),
    )
    assert list(driven.response.parts) == [
        Reasoning("Hm", "s1", signed_by="gemini"),
        Reasoning("And"),
        Text("Hi"),
        Reasoning("", "s2", signed_by="gemini"),
        Reasoning("", "s3", signed_by="gemini"),
        Reasoning("", "s4", signed_by="gemini"),
        Text("!"),
    ]


def test_googles_own_parts_are_kept_whole():
    parts: list[dict[str, Any]] = [
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "thoughtSignature": "s"},
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"fileData": {"fileUri": "gs://a/b"}},
        {"somethingNew": {"a": [1]}},
    ]
    driven = told(chunk(text("A"), *parts))
    assert list(driven.response.parts[1:]) == [
        Custom("inline_data", parts[0]),
        Custom("executable_code", parts[1]),
        Custom("code_execution_result", parts[2]),
        Custom("file_data", parts[3]),
        Custom("somethingNew", parts[4]),
    ]
    kinds = [event.kind for event in driven.events if isinstance(event, BlockStart)]
    assert kinds == ["text", "file", "custom", "tool_result", "file", "custom"]


def test_citations_belong_to_the_open_text_or_to_the_end():
    cited = {"citationSources": [{"uri": "https://a"}]}
    driven = told(chunk(text("A"), citationMetadata=cited, groundingMetadata={}))
    assert Annotation(0, {"citationMetadata": cited}) in driven.events
    assert driven.response.parts == (Text("A", ({"citationMetadata": cited},)),)
    late = told(chunk(call("f"), groundingMetadata={"a": 1}))
    assert finish_of(late).metadata["groundingMetadata"] == {"a": 1}


# --- calls ----------------------------------------------------------------------------------------------------------


def test_ids_are_the_providers_or_unique_among_replies():
    driven = told(chunk({"functionCall": {"name": "f", "id": "theirs"}}, call("f"), call("f")))
    assert [c.id for c in driven.response.tool_calls] == ["theirs", "call_resp_1_1", "call_resp_1_2"]
    assert driven.response.tool_calls[0].raw == "{}"


def test_ids_of_replies_without_a_name_differ_as_the_replies_do():
    def ids(usage: dict[str, int]) -> list[str]:
        said = {"candidates": [{"content": {"parts": [call("f"), call("f")]}, "finishReason": "STOP"}]}
        return [c.id for c in decoded(sse({**said, "usageMetadata": usage})).response.tool_calls]

    first, second = ids({"promptTokenCount": 1}), ids({"promptTokenCount": 2})
    assert len({*first, *second}) == 4
    assert ids({"promptTokenCount": 1}) == first


def test_parallel_calls_in_one_chunk_and_in_several():
    driven = told(chunk(call("f", {"a": 1}), call("g", {"b": [2]})), chunk(call("f", {"a": 3})))
    assert [(c.name, c.arguments) for c in driven.response.tool_calls] == [
        ("f", {"a": 1}), ("g", {"b": [2]}), ("f", {"a": 3}),
    ]  # fmt: skip
    assert finish_of(driven).reason == "tool_calls"


@pytest.mark.parametrize(("args", "raw"), [([1], "[1]"), ("{oops", "{oops"), (3, "3")])
def test_pathology_36_arguments_that_are_no_object_are_kept_and_flagged(args: Any, raw: str):
    (found,) = told(chunk(call("f", args))).response.tool_calls
    assert (found.raw, found.arguments) == (raw, None)
    assert found.error


def test_arguments_in_pieces():
    def more(*pieces: dict[str, Any], go_on: bool = True) -> dict[str, Any]:
        return chunk({"functionCall": {"partialArgs": list(pieces), "willContinue": go_on}})

    driven = told(
        chunk({"functionCall": {"name": "f", "willContinue": True}, "thoughtSignature": "s"}),
        more({"jsonPath": "$.place.city", "stringValue": "Os", "willContinue": True}),
        more({"jsonPath": "$.place.city", "stringValue": "lo"}, {"jsonPath": "$.days[0]", "numberValue": 3}),
        more({"jsonPath": "$.days[1]", "boolValue": True}, {"jsonPath": "$['a b']", "nullValue": "NULL_VALUE"}),
        more({"jsonPath": "$..x", "stringValue": "?"}, {"jsonPath": "$.days[99]", "numberValue": 1}, {"jsonPath": 3}),
        chunk({"functionCall": {}}),
        chunk(call("g")),
    )
    first, second = driven.response.tool_calls
    assert first.arguments == {"place": {"city": "Oslo"}, "days": [3, True], "a b": None}
    assert (first.signature, second.name) == ("s", "g")


def test_c11_arguments_in_pieces_have_a_bottom():
    deep = {"jsonPath": "$" + ".a" * 100_000, "numberValue": 1}
    driven = told(chunk({"functionCall": {"name": "f", "partialArgs": [deep], "willContinue": False}}))
    assert driven.response.tool_calls[0].arguments == {}


def test_arguments_in_pieces_that_nothing_ends():
    begun = chunk(
        {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a", "numberValue": 1}], "willContinue": True}}
    )
    assert told(begun, chunk(text("A"))).response.tool_calls[0].arguments == {"a": 1}
    cut = decoded(sse(begun))
    assert isinstance(cut.error, Truncated)
    assert cut.response.tool_calls[0].arguments is None


# --- usage ----------------------------------------------------------------------------------------------------------


def test_usage_is_inclusive_of_thoughts_and_of_what_tools_fetched():
    raw = {
        "promptTokenCount": 32, "toolUsePromptTokenCount": 4610, "candidatesTokenCount": 20, "thoughtsTokenCount": 37,
        "cachedContentTokenCount": 8, "totalTokenCount": 4699, "trafficType": "ON_DEMAND",
    }  # fmt: skip
    assert decoded(sse(chunk(finish="STOP", usage=raw))).response.usage == Usage(4642, 8, None, 57, 37, 4699, None, raw)


def test_pathology_28_usage_is_cumulative_and_the_last_one_wins_field_by_field():
    driven = decoded(
        sse(
            chunk(text("A"), usage={"promptTokenCount": 9, "thoughtsTokenCount": 3}),
            chunk(text("B"), usage={"promptTokenCount": 9, "candidatesTokenCount": 1, "thoughtsTokenCount": None}),
            chunk(finish="STOP", usage={"candidatesTokenCount": 2}),
        )
    )
    usage = driven.response.usage
    assert usage is not None
    assert (usage.input, usage.output, usage.output_reasoning, usage.total) == (9, 5, 3, 14)
    assert len([event for event in driven.events if isinstance(event, UsageUpdate)]) == 3


def test_pathology_30_usage_that_nobody_said_is_none():
    assert decoded(sse(chunk(finish="STOP"))).response.usage is None
    odd = decoded(sse(chunk(finish="STOP", usage={"promptTokenCount": "9", "candidatesTokenCount": -1}))).response.usage
    assert odd is not None
    assert (odd.input, odd.output, odd.total) == (None, None, None)


# --- errors in the stream -------------------------------------------------------------------------------------------

BUSY = {"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "wire",
    [
        sse(BUSY),
        sse([BUSY]),
        b"event: error\n" + sse(BUSY["error"]),
        json.dumps(BUSY, indent=2).encode(),  # without `data:`, as Google's servers do it
        json.dumps(BUSY, indent=2).encode() + b"\n\n",
    ],
)
def test_pathology_15_an_error_inside_a_stream(wire: bytes):
    driven = decoded(sse(chunk(text("Hel"))), wire)
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.status, driven.error.type, driven.error.message) == (503, "UNAVAILABLE", "Busy")
    assert driven.response.text == "Hel"


def test_pathology_15_an_error_inside_an_array():
    driven = decoded_array(array(chunk(text("Hel")), BUSY))
    assert isinstance(driven.error, StreamedError)
    assert driven.response.text == "Hel"
    assert isinstance(decoded_array(array(chunk(text("Hel")), BUSY)[:-2]).error, StreamedError)


# --- documents ------------------------------------------------------------------------------------------------------


def test_a_document():
    driven = document(chunk(thought("Hm"), text("Hello"), call("f", {"a": 1}), finish="STOP", usage=USAGE))
    assert driven.error is None
    response = driven.response
    assert (response.reasoning, response.text, response.usage) == ("Hm", "Hello", COUNTED)
    assert (response.model, response.response_id) == ("gem-x", "resp_1")
    assert response.tool_calls[0].arguments == {"a": 1}


def test_pathology_18_a_document_that_is_a_list_of_chunks():
    driven = document([chunk(text("Hel")), chunk(text("lo")), STOP])
    assert (driven.error, driven.response.text) == (None, "Hello")
    assert isinstance(document([chunk(text("Hel"))]).error, Truncated)
    assert isinstance(document(b"[]").error, Truncated)


def test_pathology_46_white_space_before_a_document():
    assert document(b"\n \r\n" + json.dumps(STOP).encode()).error is None


def test_c4_a_cut_document_is_truncated():
    data = json.dumps(chunk(text("Hello 日本"), finish="STOP", usage=USAGE)).encode()
    for end in range(1, len(data)):
        assert isinstance(document(data[:end]).error, Truncated), data[:end]


@pytest.mark.parametrize(
    ("body", "cls"),
    [
        ({"a": 1}, NotAStream),
        ([1], NotAStream),
        (b"Hello", NotAStream),
        (b'{"candidates": nope}', MalformedFrame),
        (BUSY, StreamedError),
        ([BUSY], StreamedError),
        ({"error": "Busy"}, StreamedError),
        (chunk(text("Hi")), Truncated),
        ({"usageMetadata": USAGE}, Truncated),
    ],
)
def test_documents_that_are_no_reply(body: Any, cls: type):
    assert type(document(body).error) is cls


# --- what servers get wrong -----------------------------------------------------------------------------------------


def test_pathology_37_liveness_is_no_content():
    driven = decoded(b": hi\n\n", sse(chunk(text("A"))), b": hi\n\ndata: \n\ndata: ping\n\ndata: : hi\n\n", sse(STOP))
    assert driven.error is None
    assert [event.source for event in driven.events if isinstance(event, KeepAlive)] == [
        "comment", "empty", "ping", "comment",
    ]  # fmt: skip
    assert isinstance(driven.events[0], Start)


def test_pathologies_5_7_and_40_spaces_line_ends_and_a_mark_at_the_start():
    wire = b"\xef\xbb\xbf" + sse(chunk(text("A")), STOP).replace(b"data: ", b"data:")
    assert decoded(wire).response.text == "A"
    assert decoded(*[wire.replace(b"\r\n", b"\r")[k : k + 1] for k in range(len(wire))]).response.text == "A"


def test_pathology_31_the_first_names_that_are_names():
    driven = decoded(
        sse(
            {**chunk(text("A")), "modelVersion": "", "responseId": None},
            {**chunk(text("B")), "modelVersion": "m1", "responseId": "r1"},
            {**STOP, "modelVersion": "m2", "responseId": "r2"},
        )
    )
    assert (driven.response.model, driven.response.response_id) == ("m1", "r1")


def test_json_that_is_nothing_of_ours_is_skipped():
    driven = decoded(sse({"type": "ping"}, {"a": 1}), sse(chunk(text("A")), {"sdkHttpResponse": {}}, STOP))
    assert (driven.error, driven.response.text) == (None, "A")
    assert driven.events[0] == Start("gem-x", "google", "resp_1")


@pytest.mark.parametrize("data", [b"nope", b"3", b'"x"', b"[1]", b"[]", b'{"candidates": nope}'])
def test_data_that_is_no_object_is_a_fault(data: bytes):
    driven = decoded(sse(chunk(text("A"))), b"data: " + data + b"\n\n", sse(STOP))
    assert isinstance(driven.error, MalformedFrame)


@pytest.mark.parametrize(
    "odd",
    [
        {"candidates": {"content": {"parts": [{"text": "A"}]}}},
        {"candidates": [None, {"content": {"parts": {"text": "A"}}}]},
        {"candidates": [{"content": {"parts": [None, 3, {"text": "A"}]}}]},
        {"candidates": [{"content": [], "index": "0"}, 3]},
        {"candidates": [{"content": {"parts": [{"text": ["A"]}, {"text": None}, {"functionCall": "f"}]}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": 3, "args": None, "id": []}}]}}]},
        {"candidates": "A", "usageMetadata": [], "promptFeedback": 3, "modelVersion": {}, "responseId": 3},
        {"candidates": [{"finishReason": {}, "citationMetadata": 3, "finishMessage": [], "content": None}]},
        {"candidates": [{"content": {"parts": [{"inlineData": None}, {"executableCode": {}}, {"x": 0}]}}]},
    ],
)
def test_a_field_of_another_type_is_never_fatal(odd: dict[str, Any]):
    driven = told(odd, chunk(text("B")))
    assert driven.response.text in ("AB", "B")
    expected = "AB" if '"A"' in json.dumps(odd) and '["A"]' not in json.dumps(odd) else "B"
    if odd.get("candidates") != "A":
        assert driven.response.text == expected
    assert document({**odd, "promptFeedback": {"blockReason": "OTHER"}}).error is None


def test_pathology_9_text_that_is_no_unicode_is_mended():
    cut = sse(chunk(text("caf@")), STOP).replace(b"@", "é".encode()[:1])
    assert decoded(cut).response.text == "caf\ufffd"
    half = sse(chunk(text("@")), STOP).replace(b"@", b"\\ud83d")
    assert decoded(half).response.text == "\ufffd"


def test_pathology_11_a_giant_part():
    blob = {"inlineData": {"mimeType": "image/png", "data": "A" * 2_000_000}}
    driven = told(chunk(blob))
    assert driven.response.parts == (Custom("inline_data", blob),)


def test_c11_many_unknown_parts_are_read_once():
    parts = [{"x": k} for k in range(1, 20_001)]
    assert len(told(chunk(*parts)).response.parts) == 20_000


def test_pathology_8_line_ends_of_other_alphabets_are_text():
    said = "a\u2028b\u2029c\x85d"
    wire = b"data: " + json.dumps(chunk(text(said), finish="STOP"), ensure_ascii=False).encode() + b"\n\n"
    assert decoded(wire).response.text == said


# --- any bytes at all -----------------------------------------------------------------------------------------------

_SEEDS = [found.data for found in recordings("gemini") if len(found.data) < 8000] or [
    sse(chunk(thought("Hm"), call("f", {"a": 1})), STOP),
    array(chunk(text("Hm", thoughtSignature="s")), STOP),
]


@given(data=st.data())
def test_no_bytes_raise_anything_but_our_own_errors(data: st.DataObject):
    wire = bytearray(data.draw(st.sampled_from(_SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(wire) - 1))
        piece = data.draw(
            st.sampled_from([b"null", b"[", b"{}", b"]", b'"', b"3", b"\xff", b"data: ", b"\n\n", b"[1]", b'{"a":1}'])
            | st.binary(max_size=4)
        )
        wire[at : at + data.draw(st.integers(0, 12))] = piece
    for framing in (SSEFraming(), JSONArrayFraming()):
        driven = drive(framing, DIALECT.decoder(document=False), [bytes(wire)])
        assert driven.error is None or isinstance(driven.error, PenstockError)
    document(bytes(wire))


_plain: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just([]) | st.just({})
)
_FIELDS = [
    "candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "name", "args", "id",
    "finishReason", "index", "usageMetadata", "promptFeedback", "blockReason", "partialArgs", "jsonPath",
    "stringValue", "willContinue", "inlineData", "groundingMetadata", "error", "modelVersion", "responseId",
]  # fmt: skip
_shaped = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=3),
    max_leaves=8,
)
#: a chunk as it should be, with a member somewhere that is not
_off = st.one_of(
    st.builds(lambda part: chunk(part), _shaped),
    st.builds(lambda call: chunk({"functionCall": call}), _shaped),
    st.builds(lambda name, value: chunk(text("A"), **{name: value}), st.sampled_from(_FIELDS), _shaped),
    st.builds(lambda name, value: {**chunk(text("A")), name: value}, st.sampled_from(_FIELDS), _shaped),
)


@given(chunks=st.lists(_off, max_size=3))
def test_no_json_raises_anything_but_our_own_errors(chunks: list[dict[str, Any]]):
    decoded(sse(*chunks))
    decoded_array(array(*chunks))
    document(chunks)
