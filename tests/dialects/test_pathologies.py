"""The ways in which streams of this field go wrong, one test per row of the catalogue, on the chat wire.

Rows of other wires, of sockets, of clocks and of clients are tests elsewhere that name their number; the last test here
finds one for every row.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from penstock.canon.errors import NotAStream, StreamedError, Truncated
from penstock.canon.events import BlockEnd, KeepAlive, Refusal, Text, ToolCall
from penstock.dialects.base import Mark
from penstock.framing.choose import choose_framing
from penstock.testing.replay import Driven, Recording, check_events, replayed
from tests.dialects.chat_wire import DONE, STOP, USAGE, call, calls, chunk, document, said, sse, told

HELLO = sse(said("Hel"), said("lo"))


def got(data: bytes, *, size: int | None = None, content_type: str | None = "text/event-stream") -> Driven:
    recording = Recording("a stream", data, content_type)
    driven = replayed("openai-chat", recording, None if size is None else recording.cut(size))
    check_events(driven.events, complete=driven.error is None)
    return driven


def text(data: bytes, **options: Any) -> str:
    driven = got(data, **options)
    assert driven.error is None, driven.error
    return driven.response.text


def test_pathology_1_no_done():
    assert text(HELLO + sse(STOP)) == "Hello"
    assert isinstance(got(HELLO).error, Truncated), "nothing proved it"


@pytest.mark.parametrize("after", [DONE, sse(said("more")), sse(STOP) + DONE])
def test_pathology_3_and_4_what_comes_after_done_is_nothing(after: bytes):
    assert text(HELLO + sse(STOP) + DONE + after) == "Hello"


@pytest.mark.parametrize("done", ["data: [DONE] ", "data:[DONE]", "data: [DONE]trailing", "data:  [DONE]"])
def test_pathology_4_done_in_any_spelling(done: str):
    driven = got(HELLO + sse(STOP) + done.encode() + b"\n\n")
    assert (driven.response.text, Mark.TERMINATOR in driven.marks) == ("Hello", True)


def test_pathology_5_no_space_after_data():
    data = (HELLO + sse(STOP)).replace(b"data: ", b"data:") + b"data:\n\n" + b"data:[DONE]\n\n"
    assert text(data) == "Hello"


def test_pathology_6_only_the_first_colon_splits():
    assert text(sse(said("a: b: {c: d}"), STOP)) == "a: b: {c: d}"


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 999])
def test_pathology_7_line_ends(end: bytes, size: int):
    assert text((HELLO + sse(STOP) + DONE).replace(b"\n", end), size=size) == "Hello"


def test_pathology_8_line_ends_of_other_alphabets_are_text():
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf"
    data = f"data: {json.dumps(said(odd), ensure_ascii=False)}\n\n".encode() + sse(STOP)
    assert text(data, size=1) == odd


def test_pathology_9_characters_cut_between_reads():
    data = "data: {}\n\n".format(json.dumps(said("日本😀é"), ensure_ascii=False)).encode() + sse(STOP)
    for size in (1, 2, 3, 5):
        assert text(data, size=size) == "日本😀é"


@pytest.mark.parametrize("size", [1, 10, 99, 10_000])
def test_pathology_10_events_are_not_reads(size: int):
    assert text(HELLO + sse(STOP) + DONE, size=size) == "Hello"


def test_pathology_11_a_frame_of_a_megabyte():
    assert len(text(sse(said("x" * 1_200_000), STOP), size=65_536)) == 1_200_000


def test_pathology_12_no_choices():
    filters = {**chunk(), "choices": [], "id": "", "model": "", "prompt_filter_results": [{}]}
    assert text(sse(filters, said("Hi"), {**chunk(), "choices": [], "usage": USAGE}, STOP)) == "Hi"


@pytest.mark.parametrize(
    "odd",
    [
        {**chunk(), "choices": None},
        {"id": "chatcmpl-1", "model": "m"},
        {**chunk(), "choices": [{"index": 0}]},
        {**chunk(), "choices": [{"index": 0, "delta": None}]},
    ],
)
def test_pathology_13_choices_or_delta_missing_or_null(odd: dict[str, Any]):
    assert text(sse(odd, said("Hi"), odd, STOP)) == "Hi"


def test_pathology_13_a_message_instead_of_a_delta():
    message = {"role": "assistant", "content": "Hi"}
    assert text(sse({**chunk(), "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})) == "Hi"


@pytest.mark.parametrize("content", [None, 7, {}, [], [None], {"text": "x"}, True])
def test_pathology_14_content_that_is_no_text(content: Any):
    assert text(sse(said("Hi"), chunk({"content": content}), STOP)) == "Hi"


def test_pathology_14_content_that_is_a_list():
    assert text(sse(chunk({"content": [{"type": "text", "text": "Hi"}, {"type": "new"}]}), STOP)) == "Hi"


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "It broke.", "type": "server_error"}},
        {"object": "error", "message": "It broke.", "code": 500},
        {**chunk(finish="error"), "error": {"message": "It broke.", "code": 502}},
        {**chunk(), "choices": [], "error": {"message": "It broke."}},
        {**chunk(), "choices": [{"index": 0, "error": {"message": "It broke."}, "delta": {}}]},
    ],
)
def test_pathology_15_an_error_in_the_stream(error: dict[str, Any]):
    driven = got(sse(said("Hi"), error) + DONE)
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.message, driven.response.text) == ("It broke.", "Hi")


def test_pathology_15_an_error_as_a_document_or_an_event():
    assert isinstance(document({"error": {"message": "It broke."}}).error, StreamedError)
    assert isinstance(got(HELLO + b'event: error\ndata: {"message":"It broke."}\n\n').error, StreamedError)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in</title>", b"\n <html>"])
def test_pathology_17_a_page_with_200(page: bytes):
    with pytest.raises(NotAStream) as raised:
        choose_framing("text/event-stream", page)
    assert "/v1" in (raised.value.fix or "")


def test_pathology_18_a_document_though_a_stream_was_asked_for():
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call(None, "c1", "f", "{}")]}
    body = {**chunk(), "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    driven = got(json.dumps(body).encode(), content_type="application/json")
    assert (driven.response.text, len(driven.response.tool_calls)) == ("Hi", 1)
    assert driven.response.usage is not None


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream", "application/x-ndjson"])
def test_pathology_19_a_stream_under_another_name(content_type: str | None):
    assert text(HELLO + sse(STOP), content_type=content_type) == "Hello"
    assert text(b": hi\n\n" + HELLO + sse(STOP), content_type=content_type) == "Hello"


def test_pathology_24_the_end_without_a_finish_reason_is_a_cut():
    driven = got(HELLO + DONE)
    assert isinstance(driven.error, Truncated)
    assert driven.response.text == "Hello", "what had come is kept"


def test_pathology_25_a_responses_stream_without_its_last_event():
    begun = b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","model":"m"}}\n\n'
    said_ = b'data: {"type":"response.output_text.delta","item_id":"i","delta":"Hi"}\n\n'
    driven = replayed("openai-responses", Recording("cut", begun + said_, "text/event-stream"))
    assert isinstance(driven.error, Truncated)
    assert driven.response.text == "Hi"


@pytest.mark.parametrize("reason", ["", "null", None])
def test_pathology_26_a_finish_reason_that_is_none(reason: str | None):
    assert isinstance(got(sse(said("Hi"), chunk(finish=reason)) + DONE).error, Truncated)
    assert text(sse(said("Hi"), chunk(finish=reason), said("!"), STOP)) == "Hi!"


def test_pathology_27_content_beside_or_after_the_finish_reason():
    assert text(sse(said("Hel"), chunk({"content": "lo"}, "stop"))) == "Hello"
    assert text(sse(said("Hel"), STOP, said("lo")) + DONE) == "Hello"


@pytest.mark.parametrize("position", ["first", "every", "last", "twice"])
def test_pathology_28_usage_anywhere_counts_once(position: str):
    grown = [{"prompt_tokens": 9, "completion_tokens": n} for n in (1, 2)]
    places: dict[str, list[Any]] = {
        "first": [USAGE, None],
        "every": [*grown],
        "last": [None, None],
        "twice": [USAGE, USAGE],
    }
    usage = places[position]
    chunks = [said("Hel", usage=usage[0]), said("lo", usage=usage[1]), STOP]
    if position in ("last", "twice"):
        chunks.append({**chunk(), "choices": [], "usage": USAGE})
    found = got(sse(*chunks) + DONE).response.usage
    assert found is not None
    assert (found.input, found.output) == (9, 2)


def test_pathology_29_usage_beside_the_last_content():
    driven = got(sse(said("Hel"), {**chunk({"content": "lo"}, "stop"), "usage": USAGE}))
    assert driven.response.text == "Hello"
    assert driven.response.usage is not None


def test_pathology_30_usage_that_nobody_reports_is_unknown():
    assert got(HELLO + sse(STOP) + DONE).response.usage is None


def test_pathology_31_names_that_are_empty_or_change():
    chunks = [said("a", id="", model=""), said("b"), said("c", id="chatcmpl-2", model="n", object="", created=0), STOP]
    response = got(sse(*chunks)).response
    assert (response.response_id, response.model, response.text) == ("chatcmpl-1", "m", "abc")


@pytest.mark.parametrize("role", [{"role": "assistant"}, {"role": ""}, {"role": None}, {}])
def test_pathology_32_the_role_in_every_delta_or_never(role: dict[str, Any]):
    assert text(sse(chunk({**role, "content": "Hel"}), chunk({**role, "content": "lo"}), STOP)) == "Hello"


def called(*pieces: dict[str, Any]) -> list[tuple[str, str, str]]:
    driven = told(*(calls(piece) for piece in pieces), finish="tool_calls")
    return [(made.id, made.name, made.raw) for made in driven.response.tool_calls]


def test_pathology_33_calls_without_an_index():
    assert called(call(None, "a", "f", ""), call(None, None, None, "{}")) == [("a", "f", "{}")]
    assert called(call(None, "a", "f", "{}"), call(None, "b", "g", "{}")) == [("a", "f", "{}"), ("b", "g", "{}")]


def test_pathology_34_every_call_with_index_0():
    assert called(call(0, "a", "f", "{}"), call(0, "b", "g", "{}")) == [("a", "f", "{}"), ("b", "g", "{}")]


@pytest.mark.parametrize(
    "pieces",
    [
        [call(0, "a", "f", '{"x":'), call(0, "a", "f", "1}")],
        [call(0, "a", "f", '{"x":'), call(0, "", None, "1}")],
        [call(0, "a", "f", {"x": 1})],
        [call(0, "a", None, '{"x":'), call(0, None, "f", "1}")],
        [call(0, "a", "f", '{"x":1}'), call(0, "a", "f", '{"x":1}')],
    ],
    ids=["id and name again", "an empty id", "an object", "the name late", "the whole again"],
)
def test_pathology_35_calls_that_say_too_much_or_too_late(pieces: list[dict[str, Any]]):
    assert called(*pieces) == [("a", "f", '{"x":1}')]


def test_pathology_36_arguments_that_are_no_json():
    (made,) = told(calls(call(0, "a", "f", '{"x": tru')), finish="tool_calls").response.tool_calls
    assert (made.raw, made.arguments) == ('{"x": tru', None)
    assert made.error is not None


@pytest.mark.parametrize(
    "ping", [b"data: : OPENROUTER PROCESSING\n\n", b"data: ping\n\n", b": ping\n\n", b"data: \n\n"]
)
def test_pathology_37_pings_that_look_like_data(ping: bytes):
    driven = got(sse(said("Hi")) + ping + sse(STOP))
    assert driven.response.text == "Hi"
    assert any(isinstance(event, KeepAlive) for event in driven.events)


def test_pathology_38_event_lines_that_somebody_took_away():
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "c", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    driven = replayed("anthropic-messages", Recording("no names", sse(*events), "text/event-stream"))
    assert (driven.error, driven.response.text) == (None, "Hi")


@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_pathology_40_a_byte_order_mark(size: int):
    assert text(b"\xef\xbb\xbf" + HELLO + sse(STOP), size=size) == "Hello"


def test_pathology_41_the_last_event_without_its_blank_line():
    assert text((HELLO + sse(STOP)).rstrip(b"\n")) == "Hello"
    assert isinstance(got((HELLO + sse(STOP)).rstrip(b"\n")[:-3]).error, Truncated)


def test_pathology_46_white_space_before_a_document():
    body = {**chunk(), "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert text(b"\n\n  \n" + json.dumps(body).encode(), content_type="application/json") == "Hi"


def test_a_refusal_is_kept_apart_from_text():
    driven = told(chunk({"refusal": "No."}))
    assert [event.part for event in driven.events if isinstance(event, BlockEnd)] == [Refusal("No.")]
    assert not [part for part in driven.response.parts if isinstance(part, Text | ToolCall)]


def test_every_row_of_the_catalogue_has_a_test():
    """By its number, in a test's name or docstring, anywhere among the tests."""
    found: set[int] = set()
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        for numbers in re.findall(
            r"[Pp]atholog(?:y|ies)[ _](\d+(?:(?:, | and |_and_|_)\d+)*)", path.read_text(encoding="utf-8")
        ):
            found |= {int(number) for number in re.findall(r"\d+", numbers)}
    assert found >= set(range(1, 49)), sorted(set(range(1, 49)) - found)
