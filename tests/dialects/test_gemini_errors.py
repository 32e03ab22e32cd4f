"""Errors of the Gemini wire: read by their structured words, written in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import (
    Cancelled,
    ConnectError,
    InvalidRequest,
    KeyRejected,
    NoTargetLeft,
    Overloaded,
    PenstockError,
    RateLimited,
    Saturated,
    ServerFault,
    StatusError,
    StreamedError,
    TimedOut,
    TooLarge,
    Truncated,
    Unauthenticated,
    UnknownModel,
)
from penstock.dialects.gemini import ARRAY, DIALECT
from penstock.dialects.gemini.errors import streamed_error

RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
BAD_FIELD = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "fieldViolations": [{"field": "contents[0].role", "description": "?"}],
}


def said(code: int, status: str, *details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "Too bad", "status": status, "details": list(details)}}


def read(status: int, body: Any, **headers: str) -> StatusError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return DIALECT.read_error(status, given, data, "google:gem-x")


@pytest.mark.parametrize(
    ("status", "word", "cls"),
    [
        (400, "INVALID_ARGUMENT", StatusError),
        (400, "FAILED_PRECONDITION", StatusError),
        (401, "UNAUTHENTICATED", KeyRejected),
        (403, "PERMISSION_DENIED", KeyRejected),
        (404, "NOT_FOUND", StatusError),
        (429, "RESOURCE_EXHAUSTED", RateLimited),
        (500, "INTERNAL", ServerFault),
        (503, "UNAVAILABLE", Overloaded),
        (504, "DEADLINE_EXCEEDED", ServerFault),
        (418, "RESOURCE_EXHAUSTED", RateLimited),
        (503, "SOMETHING_NEW", Overloaded),
        (418, "SOMETHING_NEW", StatusError),
    ],
)
def test_an_answer_is_classified_by_its_word_and_status(status: int, word: str, cls: type):
    error = read(status, said(status, word), content_type="application/json")
    assert type(error) is cls
    assert (error.status, error.type, error.message, error.target) == (status, word, "Too bad", "google:gem-x")
    assert error.content_type == "application/json"


def test_a_bad_key_is_a_bad_key_whatever_the_status():
    error = read(400, said(400, "INVALID_ARGUMENT", BAD_KEY))
    assert type(error) is KeyRejected
    assert (error.type, error.code) == ("INVALID_ARGUMENT", "API_KEY_INVALID")


def test_how_long_to_wait_is_said_in_the_details():
    assert read(429, said(429, "RESOURCE_EXHAUSTED", {"a": 1}, RETRY)).retry_after_s == 13.0
    assert read(429, said(429, "RESOURCE_EXHAUSTED", RETRY), retry_after="7").retry_after_s == 13.0
    assert read(429, said(429, "RESOURCE_EXHAUSTED"), retry_after="7").retry_after_s == 7.0
    for delay in ("s", "soon", "1e999s", 13, None, "-3s"):
        error = read(429, said(429, "RESOURCE_EXHAUSTED", {**RETRY, "retryDelay": delay}))
        assert error.retry_after_s in (None, 0.0), delay
    assert read(429, said(429, "RESOURCE_EXHAUSTED", {**RETRY, "retryDelay": "0.5s"})).retry_after_s == 0.5


def test_the_field_at_fault():
    assert read(400, said(400, "INVALID_ARGUMENT", BAD_FIELD)).param == "contents[0].role"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([said(502, "UNAVAILABLE")], "Too bad"),
        ({"error": "Too bad"}, "Too bad"),
        ({"message": "Too bad"}, "Too bad"),
        (b"<html>Cloudflare</html>", "The upstream answered 502 with a page of HTML, not with an error of its API."),
        (b"", "The upstream answered 502 with an empty body."),
        (b"Bad Gateway", "The upstream answered 502."),
        ([1], "The upstream answered 502."),
        ([], "The upstream answered 502."),
        ({"error": {"message": None, "status": [], "details": {"a": 1}}}, "The upstream answered 502."),
        ({"error": {"details": [3, {"@type": 3}, {**BAD_FIELD, "fieldViolations": 3}]}}, "The upstream answered 502."),
    ],
)
def test_answers_in_other_shapes(body: Any, message: str):
    error = read(502, body)
    assert isinstance(error, ServerFault | Overloaded)
    assert error.message == message


def test_c11_a_giant_error_body_is_cut():
    assert len(read(500, b"x" * 100_000).body) == 65536


@pytest.mark.parametrize(
    ("found", "status", "word", "code"),
    [
        (said(429, "RESOURCE_EXHAUSTED"), 429, "RESOURCE_EXHAUSTED", 429),
        ({"error": {"code": 418}}, 418, None, 418),
        ({"error": {"code": 3}}, 502, None, 3),
        ({"error": "Busy"}, 502, None, None),
        ("Busy", 502, None, None),
        (said(400, "INVALID_ARGUMENT", BAD_KEY), 400, "INVALID_ARGUMENT", "API_KEY_INVALID"),
    ],
)
def test_errors_inside_a_stream(found: Any, status: int, word: str | None, code: Any):
    error = streamed_error(found)
    assert (error.status, error.type, error.code, error.raw) == (status, word, code, found)


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (InvalidRequest("Too bad"), 400, "INVALID_ARGUMENT"),
        (Unauthenticated("Too bad"), 401, "UNAUTHENTICATED"),
        (UnknownModel("Too bad"), 404, "NOT_FOUND"),
        (TooLarge("Too bad"), 413, "INVALID_ARGUMENT"),
        (Saturated("Too bad"), 429, "RESOURCE_EXHAUSTED"),
        (ConnectError("Too bad"), 502, "UNAVAILABLE"),
        (Truncated("Too bad"), 502, "UNAVAILABLE"),
        (NoTargetLeft("Too bad", attempts=("a",), status=529), 529, "UNAVAILABLE"),
        (Cancelled("Too bad"), 499, "CANCELLED"),
        (StatusError("Too bad", status=418), 418, "INVALID_ARGUMENT"),
        (ServerFault("Too bad", status=599), 599, "INTERNAL"),
        (KeyRejected("Too bad", status=402), 402, "PERMISSION_DENIED"),
        (StreamedError("Too bad", status=429, type="rate_limit_error"), 429, "RESOURCE_EXHAUSTED"),
        (StatusError("Too bad", status=400, type="FAILED_PRECONDITION"), 400, "FAILED_PRECONDITION"),
    ],
)
def test_errors_are_written_in_this_wires_words(error: PenstockError, code: int, word: str):
    assert json.loads(DIALECT.write_error(error, None)) == {
        "error": {"code": code, "message": "Too bad", "status": word}
    }


def test_an_error_says_its_fix_its_field_how_long_to_wait_and_the_requests_id():
    assert "Raise timeouts.idle" in json.loads(DIALECT.write_error(TimedOut("idle", 60), None))["error"]["message"]
    field = json.loads(DIALECT.write_error(InvalidRequest("No.", param="contents"), "req_1"))["error"]["details"]
    assert field[0]["fieldViolations"] == [{"field": "contents", "description": "No."}]
    assert field[1] == {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "req_1"}
    wait = DIALECT.write_error(RateLimited("Slow", status=429, retry_after_s=2.5, code="x"), None)
    assert [each.get("retryDelay") or each.get("reason") for each in json.loads(wait)["error"]["details"]] == [
        "2.5s",
        "x",
    ]


def test_an_error_survives_being_written_and_read():
    given = RateLimited("Slow", status=429, type="RESOURCE_EXHAUSTED", code="QUOTA", param="x", retry_after_s=9)
    error = read(429, DIALECT.write_error(given, "req_1"))
    assert type(error) is RateLimited
    assert (error.message, error.type, error.code, error.param, error.retry_after_s) == (
        "Slow", "RESOURCE_EXHAUSTED", "QUOTA", "x", 9.0,
    )  # fmt: skip
    assert type(read(529, ARRAY.write_error(Overloaded("Busy", status=529), None))) is Overloaded
