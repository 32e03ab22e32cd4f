"""Content type and first bytes in, framing out."""

from __future__ import annotations

import pytest

from penstock.canon.errors import NotAStream
from penstock.framing.choose import choose_framing
from penstock.framing.sse import SSEFraming

SSE = "text/event-stream"


def chosen(content_type: str | None, first: bytes, *, is_all: bool = False) -> str | None:
    framing = choose_framing(content_type, first, is_all=is_all)
    return None if framing is None else framing.name


@pytest.mark.parametrize("content_type", [SSE, "text/event-stream; charset=utf-8", "TEXT/Event-Stream;x=1"])
@pytest.mark.parametrize("first", [b"data: {}\n\n", b": hi\n\n", b"event: x\n", b"anything", b"\n\ndata: x", b"d"])
def test_an_event_stream(content_type: str, first: bytes):
    assert chosen(content_type, first) == "sse"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream", "application/x-ndjson", ""])
@pytest.mark.parametrize(
    "first",
    [b"data: {}", b"data:{}", b"event: x", b": ping", b"id: 1", b"retry: 3", b"error: {}", b"\xef\xbb\xbfdata: x"],
)
def test_an_event_stream_under_another_name(content_type: str | None, first: bytes):
    assert chosen(content_type, first) == "sse"


@pytest.mark.parametrize("content_type", [None, SSE, "application/json", "text/plain"])
@pytest.mark.parametrize("first", [b'{"id":', b"[", b'\n\n {"id":', b'\xef\xbb\xbf{"id"'])
def test_json_is_a_document_whatever_it_is_called(content_type: str | None, first: bytes):
    assert chosen(content_type, first) == "document"


@pytest.mark.parametrize("content_type", [None, SSE, "text/html; charset=utf-8"])
@pytest.mark.parametrize("first", [b"<!doctype html>", b"\n<html>", b"<"])
def test_a_page_is_no_stream(content_type: str | None, first: bytes):
    with pytest.raises(NotAStream, match="page") as raised:
        choose_framing(content_type, first)
    assert raised.value.fix is not None
    assert "/v1" in raised.value.fix


def test_c13_a_page_is_not_quoted():
    with pytest.raises(NotAStream) as raised:
        choose_framing("text/html", b"<p>secret</p>")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("content_type", [None, SSE, "application/json"])
@pytest.mark.parametrize("first", [b"", b"\n", b"  \r\n", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf"])
def test_too_little_to_tell(content_type: str | None, first: bytes):
    assert chosen(content_type, first) is None
    assert chosen(content_type, first, is_all=True) == ("sse" if content_type == SSE else "document")


@pytest.mark.parametrize("first", [b"d", b"dat", b"e", b"ev", b"er", b"r", b"i"])
def test_the_beginning_of_a_field_is_too_little_where_no_type_says_more(first: bytes):
    assert chosen("text/plain", first) is None
    assert chosen("text/plain", first, is_all=True) == "document"
    assert chosen(SSE, first) == "sse"


@pytest.mark.parametrize("first", [b"It works!", b"Bad Gateway", b"dog", b"null", b"12"])
def test_anything_else_is_a_document(first: bytes):
    assert chosen(None, first) == "document"


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(
    "body", [b"data: {}\n\n", b'\xef\xbb\xbf  {"a":1}', b"\xef\xbb\xbfdata: x\n\n", b"\n\nevent: a\n\n"]
)
@pytest.mark.parametrize("content_type", [None, SSE])
def test_c3_the_choice_does_not_depend_on_how_the_bytes_are_cut(content_type: str | None, body: bytes, size: int):
    ends = range(size, len(body) + size, size)
    first_answer = next(name for end in ends if (name := chosen(content_type, body[:end], is_all=end >= len(body))))
    assert first_answer == chosen(content_type, body)


def test_c11_the_bound_goes_to_the_framing():
    framing = choose_framing(SSE, b"data", max_frame_bytes=5)
    assert isinstance(framing, SSEFraming)
    assert framing._max == 5


NDJSON = "application/x-ndjson"
EVENTSTREAM = "application/vnd.amazon.eventstream"


@pytest.mark.parametrize(
    ("content_type", "first", "streams_as", "expected"),
    [
        (NDJSON, b'{"a":1}\n', "sse", "ndjson"),
        ("application/jsonl; charset=utf-8", b'{"a', "sse", "ndjson"),
        ("application/json", b'{"a":1}\n{"a"', "ndjson", "ndjson"),
        ("text/plain", b'{"a":1}\r\n', "ndjson", "ndjson"),
        ("application/json", b'{"a":1}', "ndjson", None),
        ("application/json", b'{\n  "a": 1', "ndjson", "document"),
        ("application/json", b'{"a":1}\n', "sse", "document"),
        ("application/json", b'[{"a":1}', "json-array", "json-array"),
        ("text/event-stream", b"\r\n[", "json-array", "json-array"),
        ("application/json", b'{"error":1}', "json-array", "document"),
        ("application/json", b"[", "sse", "document"),
        ("application/json", b"data: {}", "json-array", "sse"),
        (NDJSON, b"data: {}", "ndjson", "sse"),
        (EVENTSTREAM, b"\0\0", "sse", "eventstream"),
        ("application/octet-stream", b"\0\0", "eventstream", "eventstream"),
        ("application/json", b'{"a":1}', "eventstream", "document"),
    ],
)
def test_json_of_several_kinds_and_binary(content_type: str, first: bytes, streams_as: str, expected: str | None):
    """Pathologies 17, 18 and 19: neither the type nor the dialect alone decides."""
    framing = choose_framing(content_type, first, streams_as=streams_as)
    assert (None if framing is None else framing.name) == expected


def test_a_whole_object_without_a_line_end_is_a_document():
    framing = choose_framing("application/json", b'{"done":true}', is_all=True, streams_as="ndjson")
    assert framing is not None
    assert framing.name == "document"
