"""Errors of the Anthropic wire: read from an upstream's answer or stream, written for a client.

The class comes from `error.type`, `details.error_code` and the status; the message is carried, never looked into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import (
    Cancelled,
    ContextTooLong,
    KeyRejected,
    Overloaded,
    PenstockError,
    StatusError,
    StreamedError,
    status_error_class,
)
from penstock.dialects.base import load_json, retry_after_s
from penstock.framing.sse import write_event

if TYPE_CHECKING:
    from collections.abc import Mapping

#: the provider's own words, and what each is (or would have been) as a status
STATUSES: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_TYPES = {status: type_ for type_, status in STATUSES.items()} | {408: "timeout_error", 503: "overloaded_error"}

#: Anthropic has no code for it: these words are what its clients know it by (Claude Code, seen 2026-11).
TOO_LONG = "prompt is too long"

_MAX_BODY_BYTES = 64 * 1024


def read_error(status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
    """A non-2xx answer → its class, with the provider's own words where there are any."""
    error = error_object(load_json(body))
    type_, code, message = (_word(error.get(key)) for key in ("type", "code", "message"))
    retry_after = retry_after_s(headers)
    cls = status_error_class(status, type_, code)
    if code == "enforced_spend_limit_reached" and retry_after is None:
        cls = KeyRejected  # a 429 that no waiting cures
    return cls(
        message or _sentence(status, headers.get("content-type", ""), body),
        status=status,
        type=type_,
        code=code,
        body=body[:_MAX_BODY_BYTES],
        content_type=headers.get("content-type"),
        retry_after_s=retry_after,
        target=target,
    )


def streamed_error(found: Any) -> StreamedError:
    """The error object of an `event: error` frame, or of a document that answered 200."""
    error = error_object(found)
    type_, code, message = (_word(error.get(key)) for key in ("type", "code", "message"))
    return StreamedError(
        message or "The upstream reported an error in its stream.",
        type=type_,
        code=code,
        status=STATUSES.get(type_ or "", 502),
        raw=found,
    )


def error_object(found: Any) -> dict[str, Any]:
    """`type`, `code` and `message` of an error in any of the shapes that servers of this wire use."""
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {}
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    said = {"type": error.get("type"), "code": code or error.get("code"), "message": error.get("message")}
    if said["message"] is None:
        said["message"] = error.get("detail")  # FastAPI servers
    return said


def error_type(error: PenstockError) -> str:
    """The provider's own word where it is one of this wire's, else the word for the status."""
    if isinstance(error, StatusError | StreamedError) and error.type in STATUSES:
        return error.type
    if isinstance(error, Overloaded):
        return "overloaded_error"
    if isinstance(error, Cancelled) or error.status >= 500:
        return _TYPES.get(error.status, "api_error")
    return _TYPES.get(error.status, "invalid_request_error")


def write_error(error: PenstockError, request_id: str | None) -> bytes:
    """The body of an error answer; its in-stream form carries the same object."""
    foreign = isinstance(error, StatusError | StreamedError)
    message = error.message if foreign else str(error)
    if isinstance(error, ContextTooLong) and not message.lower().startswith(TOO_LONG):
        message = f"{TOO_LONG}: {message}"
    said: dict[str, Any] = {"type": error_type(error), "message": message}
    if isinstance(error, StatusError | StreamedError) and isinstance(error.code, str):
        said["details"] = {"error_code": error.code}
    return msgspec.json.encode({"type": "error", "error": said, "request_id": request_id})


def write_streamed(error: PenstockError, request_id: str | None) -> bytes:
    return write_event(write_error(error, request_id), "error")


def _word(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _sentence(status: int, content_type: str, body: bytes) -> str:
    if "html" in content_type or body.lstrip()[:1] == b"<":
        return f"The upstream answered {status} with a page of HTML, not with an error of its API."
    return f"The upstream answered {status}{'' if body.strip() else ' with an empty body'}."
