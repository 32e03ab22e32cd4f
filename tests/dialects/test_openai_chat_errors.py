"""Errors on OpenAI chat's wire: with a status, inside a stream, in a document; and as we write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import (
    ContentRefused,
    ContextTooLong,
    InvalidRequest,
    KeyRejected,
    NotAStream,
    Overloaded,
    PenstockError,
    RateLimited,
    ServerFault,
    StatusError,
    StreamedError,
    TimedOut,
    Truncated,
    UnknownModel,
)
from penstock.canon.events import Delta, Reasoning, Text, ToolCall
from penstock.dialects.base import Mark
from penstock.dialects.openai_chat import DIALECT
from tests.dialects.chat_wire import DONE, STOP, USAGE, call, chunk, decoded, document, finish_of, said, sse

# --- an answer that is not 2xx ---------------------------------------------------------------------------------------


def read(status: int, body: Any, **headers: str) -> StatusError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return DIALECT.read_error(status, named, data, "a:b")


@pytest.mark.parametrize(
    ("status", "error", "cls"),
    [
        (400, {"code": "context_length_exceeded"}, ContextTooLong),
        (400, {"type": "exceed_context_size_error"}, ContextTooLong),
        (400, {"code": "content_filter"}, ContentRefused),
        (400, {}, StatusError),
        (401, {"code": "invalid_api_key"}, KeyRejected),
        (402, {}, KeyRejected),
        (403, {}, KeyRejected),
        (404, {"code": "model_not_found"}, StatusError),
        (429, {"code": "rate_limit_exceeded"}, RateLimited),
        (429, {}, RateLimited),
        (429, {"code": "insufficient_quota"}, KeyRejected),
        (500, {}, ServerFault),
        (502, {}, ServerFault),
        (503, {}, Overloaded),
        (529, {}, Overloaded),
    ],
)
def test_the_class_comes_from_code_and_status(status: int, error: dict[str, Any], cls: type[StatusError]):
    found = read(status, {"error": {"message": "Too bad", **error}})
    assert type(found) is cls
    assert (found.message, found.status, found.target) == ("Too bad", status, "a:b")


def test_the_words_of_a_message_decide_nothing():
    assert type(read(400, {"error": {"message": "context_length_exceeded rate limit 429"}})) is StatusError


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Too bad"}},
        {"error": "Too bad"},
        {"message": "Too bad"},
        {"object": "error", "message": "Too bad", "type": "x", "code": 400},
        {"detail": "Too bad"},
        [{"error": {"code": 400, "message": "Too bad", "status": "INVALID_ARGUMENT"}}],
        "Too bad",
    ],
    ids=["openai", "string", "bare", "vllm", "fastapi", "gemini's list", "a JSON string"],
)
def test_a_message_in_any_shape_is_carried(body: Any):
    assert read(400, body).message == "Too bad"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[]", b"null", b"{", b"[1]", b'{"error":null}', b"[" * 100_000]
)
def test_a_body_that_says_nothing_leaves_the_status(body: bytes):
    found = read(502, body, content_type="text/html")
    assert type(found) is ServerFault
    assert found.message == "The upstream answered 502."
    assert (found.body, found.content_type) == (body, "text/html")


def test_what_else_an_error_says():
    found = read(404, {"error": {"message": "m", "type": "t", "param": "model", "code": 7}})
    assert (found.type, found.code, found.param) == ("t", "7", "model")


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "9", "retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "9", "retry_after_ms": "soon"}, 9.0),
        ({"retry_after": "-1"}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], retry_after_s: float | None):
    assert read(429, {}, **headers).retry_after_s == retry_after_s


# --- an error inside a stream ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b'data: {"error":{"message":"Too bad","type":"server_error","code":null}}\n\n', 500),
        (b'data: {"error":{"message":"Too bad","code":429,"metadata":{}},"choices":[]}\n\n', 429),
        (b'data: {"error":{"message":"Too bad","code":"rate_limit_exceeded"}}\n\n', 429),
        (b'data: {"error":{"message":"Too bad","type":"invalid_request_error"}}\n\n', 400),
        (b'data: {"error":{"message":"Too bad","code":7}}\n\n', 502),
        (b'data: {"error":{"message":"Too bad"}}\n\n', 502),
        (b'data: {"error":"Too bad"}\n\n', 502),
        (b'data: {"error":"Too bad","choices":{}}\n\n', 502),
        (b'data: {"object":"error","message":"Too bad","type":"BadRequestError","code":400}\n\n', 400),
        (b'event: error\ndata: {"message":"Too bad"}\n\n', 502),
        (b'event: error\ndata: {"error":{"message":"Too bad","code":503}}\n\n', 503),
        (b"event: error\ndata: Too bad\n\n", 502),
        (b'error: {"code":500,"message":"Too bad"}\n\n', 500),
        (b'error: {"error":{"code":500,"message":"Too bad"}}\n\n', 500),
        (b'data: {"choices":[{"index":0,"delta":{},"error":{"code":502,"message":"Too bad"}}]}\n\n', 502),
        (b'data: {"choices":[],"x_groq":{"error":{"message":"Too bad","code":"overloaded_error"}}}\n\n', 503),
        (
            b'data: {"error":{"code":429,"message":"Too bad"},'
            b'"choices":[{"delta":{"content":""},"finish_reason":"error"}]}\n\n',
            429,
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", sse(said("Hel"))], ids=["first", "after content"])
def test_c4_an_error_in_any_shape(wire: bytes, status: int, before: bytes):
    driven = decoded(before + wire + sse(STOP) + DONE)
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.message, driven.error.status) == ("Too bad", status)
    assert driven.response.text == ("Hel" if before else "")
    assert Mark.TERMINATOR not in driven.marks


def test_c4_a_finish_reason_that_is_an_error():
    driven = decoded(sse(said("a"), chunk(finish="error")) + DONE)
    assert isinstance(driven.error, StreamedError)


def test_c4_an_error_after_the_finish_reason_is_an_error():
    driven = decoded(sse(said("a"), STOP, {"error": {"message": "Too bad"}}) + DONE)
    assert isinstance(driven.error, StreamedError)


@pytest.mark.parametrize("error", [None, {}, "", False, 0])
def test_an_error_that_is_none(error: Any):
    assert decoded(sse(said("a", error=error), STOP)).error is None


def test_an_error_keeps_what_the_provider_said():
    raw = {"message": "Too bad", "type": "t", "param": "p", "code": "c", "metadata": {"a": 1}}
    error = decoded(sse({"error": raw})).error
    assert isinstance(error, StreamedError)
    assert (error.type, error.param, error.code, error.raw) == ("t", "p", "c", raw)


# --- documents -------------------------------------------------------------------------------------------------------


def message(**fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE}


def test_a_document_is_the_same_events():
    driven = document(message(content="Hi", reasoning_content="Hm", tool_calls=[call(None, "call_a", "f", '{"a":1}')]))
    assert driven.error is None
    assert driven.response.parts == (Reasoning("Hm"), Text("Hi"), ToolCall("call_a", "f", '{"a":1}', {"a": 1}))
    assert [event.text for event in driven.events if isinstance(event, Delta)] == ["Hm", "Hi", '{"a":1}']
    assert finish_of(driven).reason == "tool_calls"
    assert driven.response.usage is not None
    assert driven.response.usage.raw == USAGE


def test_a_document_is_its_own_proof():
    body = message(content="Hi")
    body["choices"][0]["finish_reason"] = None
    assert document(body).error is None


def test_a_document_may_say_nothing():
    driven = document(message(content=None))
    assert driven.error is None
    assert driven.response.parts == ()


@pytest.mark.parametrize("cut", [1, 2, 20, 100])
def test_c4_a_cut_document_is_truncated(cut: int):
    body = json.dumps(message(content="Hello, this is long enough")).encode()
    assert isinstance(document(body[:-cut]).error, Truncated)


def test_an_empty_document_is_truncated():
    assert isinstance(document(b" \n").error, Truncated)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Too bad", "code": 429}},
        {"error": "Too bad"},
        {"object": "error", "message": "Too bad"},
    ],
)
def test_a_document_that_is_an_error_with_status_200(body: Any):
    error = document(body).error
    assert isinstance(error, StreamedError)
    assert error.message == "Too bad"


@pytest.mark.parametrize("body", [b"[]", b'"hi"', b"It works!", b"{}", b'{"type":"message"}', b'{"choices":[]}', b"12"])
def test_a_document_that_is_no_completion(body: bytes):
    driven = document(body)
    assert isinstance(driven.error, NotAStream)
    assert driven.events == []


# --- as we write them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "type_", "code", "param"),
    [
        (InvalidRequest("m", param="messages[0]"), "invalid_request_error", "invalid_request", "messages[0]"),
        (UnknownModel("m", param="model"), "not_found_error", "model_not_found", "model"),
        (
            RateLimited("m", status=429, type="tokens", code="rate_limit_exceeded"),
            "tokens",
            "rate_limit_exceeded",
            None,
        ),
        (RateLimited("m", status=429), "rate_limited", None, None),
        (StreamedError("m", type="server_error", code="x", param="p"), "server_error", "x", "p"),
        (Truncated("m"), "truncated", "truncated", None),
    ],
)
def test_an_error_on_the_wire(error: PenstockError, type_: str, code: str | None, param: str | None):
    assert json.loads(DIALECT.write_error(error, "req_1")) == {
        "error": {"message": "m", "type": type_, "param": param, "code": code, "request_id": "req_1"}
    }


def test_an_error_says_its_fix():
    said_ = json.loads(DIALECT.write_error(TimedOut("idle", 60), None))["error"]
    assert "timeouts.idle" in said_["message"]
    assert "request_id" not in said_


@pytest.mark.parametrize("error", [Truncated("It was cut."), StreamedError("Busy", type="t", code="c", status=429)])
def test_what_we_write_in_a_stream_is_read_as_an_error(error: PenstockError):
    encoder = DIALECT.encoder(model="m", include_usage=True, request_id="r", created=0)
    read_back = decoded(sse(said("a")) + encoder.error(error)).error
    assert isinstance(read_back, StreamedError)
    assert read_back.message == error.message
    if isinstance(error, StreamedError):
        assert (read_back.type, read_back.code) == (error.type, error.code)
