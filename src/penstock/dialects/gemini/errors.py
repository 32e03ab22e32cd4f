"""Errors of the Gemini wire: read from an upstream's answer or stream, written for a client.

The class comes from the structured `status` word, the reason in `details`, and the HTTP status; the message is carried,
never looked into. How long to wait is said in `details`, seldom in a header.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import (
    KeyRejected,
    Overloaded,
    PenstockError,
    RateLimited,
    RequestError,
    ServerFault,
    StatusError,
    StreamedError,
    status_error_class,
)
from penstock.dialects.base import load_json, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

#: the provider's own words (google.rpc.Code), and what each is as a status
STATUSES: dict[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

#: the words that say more than their status, and the reasons (google.rpc.ErrorInfo) that say more than their word
_CLASSES: dict[str, type[StatusError]] = {
    "API_KEY_INVALID": KeyRejected,
    "API_KEY_EXPIRED": KeyRejected,
    "UNAUTHENTICATED": KeyRejected,
    "PERMISSION_DENIED": KeyRejected,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNAVAILABLE": Overloaded,
    "INTERNAL": ServerFault,
    "UNKNOWN": ServerFault,
    "DATA_LOSS": ServerFault,
    "DEADLINE_EXCEEDED": ServerFault,
}

_WORDS = {
    **{status: word for word, status in STATUSES.items()},
    400: "INVALID_ARGUMENT",
    402: "PERMISSION_DENIED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    529: "UNAVAILABLE",
}

_RPC = "type.googleapis.com/google.rpc."
_MAX_BODY_BYTES = 64 * 1024


def read_error(status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
    """A non-2xx answer → its class, with the provider's own words where there are any."""
    error = error_object(load_json(body))
    word, reason, wait_s = _word(error.get("status")), _reason(error), _retry_delay_s(error)
    cls = _CLASSES.get(reason or "") or _CLASSES.get(word or "") or status_error_class(status, word, reason)
    return cls(
        _word(error.get("message")) or _sentence(status, headers.get("content-type", ""), body),
        status=status,
        type=word,
        code=reason,
        param=_field(error),
        body=body[:_MAX_BODY_BYTES],
        content_type=headers.get("content-type"),
        retry_after_s=retry_after_s(headers) if wait_s is None else wait_s,
        target=target,
    )


def streamed_error(found: Any) -> StreamedError:
    """The error object of a chunk, or of a document that answered 200."""
    error = error_object(found)
    word, code = _word(error.get("status")), error.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else STATUSES.get(word or "", 502)
    return StreamedError(
        _word(error.get("message")) or "The upstream reported an error in its stream.",
        type=word,
        code=_reason(error) or (code if isinstance(code, int | str) else None),
        param=_field(error),
        status=status,
        raw=found,
    )


def error_object(found: Any) -> dict[str, Any]:
    """`code`, `message`, `status` and `details`, from the body itself or from the list that holds it."""
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    details = error.get("details")
    listed = details if isinstance(details, list) else []
    return [each for each in listed if isinstance(each, dict) and str(each.get("@type")).endswith(kind)]


def _reason(error: dict[str, Any]) -> str | None:
    return next((_word(each.get("reason")) for each in _details(error, "ErrorInfo")), None)


def _field(error: dict[str, Any]) -> str | None:
    for each in _details(error, "BadRequest"):
        violations = each.get("fieldViolations")
        for violation in violations if isinstance(violations, list) else ():
            if isinstance(violation, dict) and (field := _word(violation.get("field"))):
                return field
    return None


def _retry_delay_s(error: dict[str, Any]) -> float | None:
    """`13s`, `0.5s`, as a protobuf `Duration` is written in JSON."""
    for each in _details(error, "RetryInfo"):
        delay = each.get("retryDelay")
        try:
            seconds = float(delay[:-1]) if isinstance(delay, str) and delay.endswith("s") else math.nan
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


# --- for a client ---------------------------------------------------------------------------------------------------


def error_body(error: PenstockError, request_id: str | None) -> dict[str, Any]:
    """The `error` member of a body or of a stream's last chunk. `code` is a number: clients raise by it."""
    foreign = isinstance(error, StatusError | StreamedError)
    word = error.type if isinstance(error, StatusError | StreamedError) and error.type in STATUSES else None
    if word is None:
        fallback = "INVALID_ARGUMENT" if 400 <= error.status < 500 else "INTERNAL"
        word = _WORDS.get(error.status, fallback)
    message = error.message if foreign else str(error)
    details: list[dict[str, Any]] = []
    if isinstance(error, StatusError) and error.retry_after_s is not None:
        details.append({"@type": _RPC + "RetryInfo", "retryDelay": f"{error.retry_after_s:g}s"})
    if isinstance(error, RequestError | StatusError | StreamedError) and error.param:
        violation = {"field": error.param, "description": message}
        details.append({"@type": _RPC + "BadRequest", "fieldViolations": [violation]})
    if isinstance(error, StatusError | StreamedError) and isinstance(error.code, str):
        details.append({"@type": _RPC + "ErrorInfo", "reason": error.code})
    if request_id:
        details.append({"@type": _RPC + "RequestInfo", "requestId": request_id})
    said: dict[str, Any] = {"code": error.status, "message": message, "status": word}
    return said | ({"details": details} if details else {})


def write_error(error: PenstockError, request_id: str | None) -> bytes:
    return msgspec.json.encode({"error": error_body(error, request_id)})


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _sentence(status: int, content_type: str, body: bytes) -> str:
    if "html" in content_type or body.lstrip()[:1] == b"<":
        return f"The upstream answered {status} with a page of HTML, not with an error of its API."
    return f"The upstream answered {status}{'' if body.strip() else ' with an empty body'}."
