"""Errors of the Anthropic wire, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import (
    Cancelled,
    ConnectError,
    ContextTooLong,
    Forbidden,
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
    Unauthenticated,
    UnknownModel,
)
from penstock.dialects.anthropic_messages import DIALECT


def read(status: int, body: Any, **headers: str) -> StatusError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return DIALECT.read_error(status, named, data, "claude:x")


def said(type_: str, **details: Any) -> dict[str, Any]:
    error: dict[str, Any] = {"type": type_, "message": "Too bad"}
    if details:
        error["details"] = details
    return {"type": "error", "error": error, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "type_", "cls"),
    [
        (400, "invalid_request_error", StatusError),
        (401, "authentication_error", KeyRejected),
        (402, "billing_error", KeyRejected),
        (403, "permission_error", KeyRejected),
        (404, "not_found_error", StatusError),
        (413, "request_too_large", StatusError),
        (429, "rate_limit_error", RateLimited),
        (500, "api_error", ServerFault),
        (500, "overloaded_error", Overloaded),
        (504, "timeout_error", ServerFault),
        (529, "overloaded_error", Overloaded),
    ],
)
def test_an_answer_is_classified_by_its_type_and_status(status: int, type_: str, cls: type):
    error = read(status, said(type_), content_type="application/json", retry_after="7")
    assert type(error) is cls
    assert (error.status, error.type, error.message, error.target) == (status, type_, "Too bad", "claude:x")
    assert (error.retry_after_s, error.content_type) == (7.0, "application/json")
    assert json.loads(error.body) == said(type_)


def test_a_spend_limit_is_not_cured_by_waiting():
    error = read(429, said("rate_limit_error", error_code="enforced_spend_limit_reached"))
    assert type(error) is KeyRejected
    assert (error.code, error.retryable) == ("enforced_spend_limit_reached", False)
    assert type(read(429, said("rate_limit_error", error_code="enforced_spend_limit_reached"), retry_after="9")) is (
        RateLimited
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Too bad"}, "Too bad"),
        ({"message": "Too bad"}, "Too bad"),
        ({"detail": "Too bad"}, "Too bad"),
        ({"error": {"message": "Too bad", "code": 1}}, "Too bad"),
        (b"<html>Cloudflare</html>", "The upstream answered 502 with a page of HTML, not with an error of its API."),
        (b"", "The upstream answered 502 with an empty body."),
        (b"Bad Gateway", "The upstream answered 502."),
        ([1], "The upstream answered 502."),
        ({"error": {"message": None, "details": []}}, "The upstream answered 502."),
    ],
)
def test_answers_in_other_shapes(body: Any, message: str):
    error = read(502, body)
    assert type(error) is ServerFault
    assert error.message == message


def test_c11_a_giant_error_body_is_cut():
    assert len(read(500, b"x" * 100_000).body) == 65536


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (InvalidRequest("Too bad"), "invalid_request_error"),
        (Unauthenticated("Too bad"), "authentication_error"),
        (Forbidden("Too bad"), "permission_error"),
        (UnknownModel("Too bad"), "not_found_error"),
        (TooLarge("Too bad"), "request_too_large"),
        (Saturated("Too bad"), "rate_limit_error"),
        (ConnectError("Too bad"), "api_error"),
        (NoTargetLeft("Too bad", attempts=("a",), status=529), "overloaded_error"),
        (NoTargetLeft("Too bad", attempts=("a",), status=503), "overloaded_error"),
        (Cancelled("Too bad"), "api_error"),
        (StatusError("Too bad", status=409), "conflict_error"),
        (StatusError("Too bad", status=418), "invalid_request_error"),
        (ServerFault("Too bad", status=500, type="overloaded_error"), "overloaded_error"),
        (KeyRejected("Too bad", status=402, type="insufficient_quota"), "billing_error"),
        (StreamedError("Too bad", status=429), "rate_limit_error"),
    ],
)
def test_errors_are_written_in_this_wires_words(error: PenstockError, type_: str):
    assert json.loads(DIALECT.write_error(error, "req_1")) == {
        "type": "error",
        "error": {"type": type_, "message": "Too bad"},
        "request_id": "req_1",
    }


def test_an_error_of_ours_says_its_fix_and_a_providers_keeps_its_words():
    ours = json.loads(DIALECT.write_error(TimedOut("idle", 60), None))
    assert ours["error"]["message"].endswith("Raise timeouts.idle if it is only slow.")
    theirs = json.loads(DIALECT.write_error(read(429, said("rate_limit_error", error_code="x_1")), None))
    assert theirs["error"] == {"type": "rate_limit_error", "message": "Too bad", "details": {"error_code": "x_1"}}


def test_an_error_survives_being_written_and_read():
    error = read(529, DIALECT.write_error(Overloaded("Busy", status=529), "req_1"))
    assert (type(error), error.message) == (Overloaded, "Busy")


@pytest.mark.parametrize("message", ["The context is 4096.", "Prompt is too long: 5000 tokens > 4096 maximum"])
def test_a_prompt_that_is_too_long_is_said_in_the_words_that_clients_know(message: str):
    """Anthropic has no code for it: Claude Code goes by these words (seen 2026-11)."""
    error = ContextTooLong(message, status=400, type="invalid_request_error", code="context_length_exceeded")
    said = json.loads(DIALECT.write_error(error, "req_1"))["error"]
    assert said["type"] == "invalid_request_error"
    assert said["message"].lower().startswith("prompt is too long")
    assert said["message"].count("too long") == 1
    assert message in said["message"]
