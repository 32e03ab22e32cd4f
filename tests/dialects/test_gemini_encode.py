"""Events → Gemini, as SSE, as an array and as a document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
    Progress,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.response import fold
from penstock.canon.usage import Usage
from penstock.dialects.gemini import ARRAY, DIALECT
from penstock.dialects.gemini.wire import read_signature
from tests.dialects import streams
from tests.dialects.gemini_wire import decoded, decoded_array, document
from tests.invariants import Driven

if TYPE_CHECKING:
    from penstock.dialects.gemini import Gemini

START = Start("up", "someone", "resp_1")
ABOUT = {"modelVersion": "gem-x", "responseId": "resp_1"}
USAGE = Usage(input=12, input_cached=2, output=7, output_reasoning=3)


def wire(*events: Event, dialect: Gemini = DIALECT) -> bytes:
    encoder = dialect.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    return b"".join(encoder.encode([event]) for event in events)


def chunks(*events: Event) -> list[dict[str, Any]]:
    found = wire(START, *events)
    assert all(line.startswith(b"data: ") for line in found.split(b"\n") if line)
    return [json.loads(line[6:]) for line in found.split(b"\n") if line]


def parts(*events: Event) -> list[dict[str, Any]]:
    return [part for each in chunks(*events) for part in each["candidates"][0]["content"]["parts"]]


def part_of(part: Any, i: int = 0) -> list[dict[str, Any]]:
    return parts(*streams.of(i, part))


# --- chunks ---------------------------------------------------------------------------------------------------------


def test_a_stream_byte_by_byte():
    events: list[Event] = [
        START, BlockStart(0, "text"), Delta(0, "Hi"), BlockEnd(0, Text("Hi")), Finish("stop", "stop", USAGE),
    ]  # fmt: skip
    about = b',"modelVersion":"gem-x","responseId":"resp_1"}'
    first = b'{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"index":0}]' + about
    last = (
        b'{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],'
        b'"usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":4,"totalTokenCount":19,'
        b'"cachedContentTokenCount":2,"thoughtsTokenCount":3}' + about
    )
    assert wire(*events) == b"data: " + first + b"\n\ndata: " + last + b"\n\n"
    assert wire(*events, dialect=ARRAY) == b"[" + first + b",\n" + last + b"\n]"


def test_names_that_nobody_gave():
    encoder = DIALECT.encoder(model=None, include_usage=True, request_id="req_1", created=0)
    said = json.loads(encoder.encode([Start(), Finish("stop")])[6:])
    assert (said["modelVersion"], said["responseId"]) == ("", "req_1")
    assert "usageMetadata" not in said


def test_pathology_8_what_is_written_has_no_line_end_inside():
    said = wire(START, BlockStart(0, "text"), Delta(0, "a\u2028\n\x85é"))
    assert said.count(b"\n") == 2
    assert json.loads(said[6:])["candidates"][0]["content"]["parts"] == [{"text": "a\u2028\n\x85é"}]


def test_a_heartbeat_is_a_line_end():
    """Google's SDK takes a comment for JSON."""
    assert wire(KeepAlive("comment")) == DIALECT.heartbeat == b"\n"
    assert json.loads(wire(START, KeepAlive("ping"), Finish("stop"), dialect=ARRAY))


def test_a_call_is_written_when_it_is_whole_and_in_order():
    assert parts(BlockStart(0, "tool_call", "a", "f"), Delta(0, '{"x":')) == []
    first, second = ToolCall("a", "f", '{"x":1}', {"x": 1}, signature="s"), ToolCall("b", "g", "", {})
    assert parts(
        BlockStart(0, "tool_call", "a", "f"), BlockStart(1, "tool_call", "b", "g"),
        BlockEnd(1, second), Delta(0, '{"x":1}'), BlockEnd(0, first),
    ) == [
        {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}, "thoughtSignature": "s"},
        {"functionCall": {"name": "g", "args": {}, "id": "b"}},
    ]  # fmt: skip


def test_arguments_that_are_no_object_are_not_lost():
    assert part_of(ToolCall("a", "f", "{oops", None, "no"))[0]["functionCall"]["args"] == {"_raw": "{oops"}


def test_what_has_no_word_here_is_left_out():
    assert part_of(ToolCall("a", "f", "{}", {}, server=True)) == []
    assert part_of(Custom("compaction", {"type": "compaction"})) == []
    assert wire(Progress("queued"), Annotation(0, {"logprobs": 1}), UsageUpdate(USAGE)) == b""


def test_refusals_are_text_and_their_end_a_filter():
    found = chunks(*streams.of(0, Refusal("No."), "No."), Finish("stop", "stop"))
    assert found[0]["candidates"][0]["content"]["parts"] == [{"text": "No."}]
    assert found[1]["candidates"][0]["finishReason"] == "SAFETY"


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", "stop", "STOP"), ("stop_sequence", "stop_sequence", "STOP"), ("tool_calls", "tool_use", "STOP"),
        ("length", "max_tokens", "MAX_TOKENS"), ("context_full", None, "MAX_TOKENS"), ("pause", None, "CONTINUATION"),
        ("content_filter", "content_filter", "SAFETY"), ("refusal", "refusal", "SAFETY"), ("other", "ERROR", "STOP"),
        ("content_filter", "RECITATION", "RECITATION"), ("other", "ESCALATION", "ESCALATION"),
        ("other", "MALFORMED_FUNCTION_CALL", "STOP"),
    ],
)  # fmt: skip
def test_reasons(reason: Any, raw: str | None, word: str):
    assert chunks(Finish(reason, raw))[0]["candidates"][0]["finishReason"] == word


def test_a_blocked_prompt_is_said_as_one():
    found = chunks(Finish("content_filter", "PROMPT_BLOCKED:SAFETY", None, {"finish_message": "No."}))
    assert found == [{"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "No."}, **ABOUT}]
    whole = fold([START, Finish("content_filter", "PROMPT_BLOCKED:SAFETY")])
    body = json.loads(DIALECT.write_document(whole, model="gem-x", request_id="r", created=0))
    assert body == {"promptFeedback": {"blockReason": "SAFETY"}, **ABOUT}


# --- signatures -----------------------------------------------------------------------------------------------------


def test_a_thoughts_proof_is_a_part_of_its_own():
    assert parts(*streams.of(0, Reasoning("Hm", "c2ln", signed_by="gemini"), "Hm")) == [
        {"thought": True, "text": "Hm"},
        {"thought": True, "text": "", "thoughtSignature": "c2ln"},
    ]
    assert part_of(Reasoning("", "c2ln", signed_by="gemini")) == [{"text": "", "thoughtSignature": "c2ln"}]
    assert part_of(Reasoning("")) == []


@pytest.mark.parametrize(
    "thought",
    [
        Reasoning("", "EqQB+/=", signed_by="anthropic-messages"),
        Reasoning("", "gAAA", signed_by="openai-responses"),
        Reasoning("", redacted="EmwK", signed_by="anthropic-messages"),
        Reasoning("", "c2ln", signed_by="gemini"),
        Reasoning("", "-_9zaWduZWQ=", signed_by="gemini"),
        Reasoning("", "no base64!", signed_by="gemini"),
    ],
)
@pytest.mark.parametrize("alphabet", ["standard", "for urls"])
def test_another_dialects_proof_comes_home_through_a_client_that_reads_bytes(thought: Reasoning, alphabet: str):
    (part,) = part_of(thought)
    written = part["thoughtSignature"]
    if thought.signed_by != "gemini" and alphabet == "for urls":
        written = written.replace("+", "-").replace("/", "_")
    assert read_signature(written, "") == thought


# --- arrays ---------------------------------------------------------------------------------------------------------


def test_an_arrays_elements_are_out_at_once():
    encoder = ARRAY.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    assert encoder.encode([START, BlockStart(0, "text")]) == b""
    assert json.loads(encoder.encode([Delta(0, "A")]) + b"]")[0]["candidates"][0]["content"]["parts"][0]["text"] == "A"
    assert encoder.encode([Delta(0, "B")]).startswith(b",\n{")
    assert encoder.encode([BlockEnd(0, Text("AB")), Finish("stop")]).endswith(ARRAY.terminator)


def test_c4_an_array_that_broke_is_never_closed():
    encoder = ARRAY.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    said = encoder.encode([START, BlockStart(0, "text"), Delta(0, "A")]) + encoder.error(Truncated("Cut."))
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(said)
    assert json.loads(said + b"]")[1]["error"]["message"] == "Cut."
    driven = decoded_array(said)
    assert isinstance(driven.error, StreamedError)
    assert driven.response.text == "A"


def test_an_array_that_broke_before_it_began_and_after_somebody_else_began_it():
    alone = ARRAY.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    assert json.loads(alone.error(Truncated("Cut.")) + b"]")[0]["error"]["code"] == 502
    resumed = ARRAY.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    resumed.resume(b"{}")
    assert json.loads(b'[{"a":1}' + resumed.error(Truncated("Cut.")) + b"]")[1]["error"]["code"] == 502


def test_c4_nothing_is_complete_after_an_error():
    encoder = DIALECT.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    driven = decoded(encoder.encode([START, BlockStart(0, "text"), Delta(0, "A")]) + encoder.error(Truncated("Cut.")))
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.message, driven.error.status) == ("Cut.", 502)


# --- documents ------------------------------------------------------------------------------------------------------


def test_a_document():
    call = ToolCall("a", "f", '{"x":1}', {"x": 1}, signature="s2")
    said = fold(
        [
            START,
            *streams.of(0, Reasoning("Hm", "s1", signed_by="gemini"), "Hm"),
            *streams.of(1, Text("Hi"), "Hi"),
            *streams.of(2, call, '{"x":1}'),
            Finish("tool_calls", "tool_use", USAGE),
        ]
    )
    assert json.loads(DIALECT.write_document(said, model="gem-x", request_id="r", created=0)) == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"thought": True, "text": "Hm", "thoughtSignature": "s1"},
                        {"text": "Hi"},
                        {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}, "thoughtSignature": "s2"},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 12, "candidatesTokenCount": 4, "totalTokenCount": 19,
            "cachedContentTokenCount": 2, "thoughtsTokenCount": 3,
        },
        **ABOUT,
    }  # fmt: skip


# --- any stream at all ----------------------------------------------------------------------------------------------

_arguments = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.none(), max_size=3)


@st.composite
def _part(draw: Any) -> tuple[Any, list[str]]:
    kind = draw(st.sampled_from(["text", "reasoning", "signed", "call"]))
    if kind == "call":
        arguments = draw(_arguments)
        raw = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)
        return ToolCall("", draw(st.sampled_from(["f", "g"])), raw, arguments), [raw]
    pieces = draw(streams.pieces_of_text)
    if kind == "text":
        return Text("".join(pieces)), pieces
    thought = Reasoning("".join(pieces))
    return replace(thought, signature="c2ln", signed_by="gemini") if kind == "signed" else thought, pieces


def _kept(driven: Driven) -> dict[str, Any]:
    response = driven.response
    return {
        "calls": [(call.id, call.name, call.arguments) for call in response.tool_calls],
        "finish": response.finish.reason if response.finish else None,
        "usage": response.usage and (response.usage.input, response.usage.output, response.usage.output_reasoning),
        "names": (response.model, response.response_id),
        "signed": sum(bool(getattr(part, "signature", None)) for part in response.parts),
    }


@given(events=streams.interleaved(START, _part()), size=st.integers(1, 5))
def test_what_is_encoded_is_decoded_again(events: list[Event], size: int):
    calls = any(isinstance(event, BlockStart) and event.kind == "tool_call" for event in events)
    events = [*events, Finish("tool_calls" if calls else "stop", None, USAGE)]
    ours = Driven()
    ours.events = events
    for dialect, decode in ((DIALECT, decoded), (ARRAY, decoded_array)):
        encoder = dialect.encoder(model="up", include_usage=True, request_id="req_1", created=0)
        data = b"".join(encoder.encode(events[k : k + size]) for k in range(0, len(events), size))
        again = decode(data)
        assert again.error is None
        assert _kept(again) == _kept(ours)
        for kind in ("text", "reasoning"):  # blocks side by side are one text here: no piece is lost or doubled
            assert sorted(getattr(again.response, kind)) == sorted(getattr(ours.response, kind))
    again = document(DIALECT.write_document(ours.response, model="up", request_id="req_1", created=0))
    assert again.error is None
    assert _kept(again) == _kept(ours)
    assert (again.response.text, again.response.reasoning) == (ours.response.text, ours.response.reasoning)
