"""Errors of the OpenAI wire: read from an upstream's answer or stream, written for a client.

The class comes from the status and the structured `code` and `type`; the message is carried, never looked into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import PenstockError, RequestError, Saturated, StatusError, StreamedError, status_error_class
from penstock.dialects.base import load_json, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

#: what an error inside a 200 stream would have been as a status
_STREAMED_STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "invalid_request_error": 400,
    "server_error": 500,
    "unavailable_error": 503,
    "overloaded_error": 503,
}

_TYPES_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


def read_error(status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
    """A non-2xx answer → its class, with the provider's own words where there are any."""
    found = load_json(body)
    if isinstance(found, list) and found:
        found = found[0]  # Gemini's OpenAI endpoint puts its error in a list
    error: Any = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {}
    type_, code, param = (_word(error.get(key)) for key in ("type", "code", "param"))
    message = error.get("message") if isinstance(error.get("message"), str) else None
    detail = _detail(error)
    if not message and detail:
        message = str(detail)
    if param is None and isinstance(detail, list):
        code, param = _refused(detail)
    cls = status_error_class(status, code, type_)
    return cls(
        message or f"The upstream answered {status}.",
        status=status,
        type=type_,
        code=code,
        param=param,
        body=body,
        content_type=headers.get("content-type"),
        retry_after_s=retry_after_s(headers),
        target=target,
    )


def streamed_error(error: Any) -> StreamedError:
    """An error object found inside a stream, in any of the shapes that servers use."""
    if not isinstance(error, dict):
        return StreamedError(str(error), raw=error)
    type_, code, param = (_word(error.get(key)) for key in ("type", "code", "param"))
    message = error.get("message")
    status = _STREAMED_STATUS.get(code or "") or _STREAMED_STATUS.get(type_ or "") or 502
    if code is not None and code.isdigit() and 400 <= int(code) <= 599:
        status = int(code)
    return StreamedError(
        message if isinstance(message, str) and message else "The upstream reported an error in its stream.",
        type=type_,
        code=code,
        param=param,
        status=status,
        raw=error,
    )


def error_object(error: PenstockError, request_id: str | None = None) -> dict[str, Any]:
    """The `error` member of a body or of a last frame. A provider's own type, code and message stay what they were."""
    if isinstance(error, StatusError | StreamedError):
        type_, code, param = error.type or error.kind, error.code, error.param
    elif isinstance(error, Saturated):
        type_, code, param = "rate_limit_error", "rate_limit_exceeded", None
    else:
        type_ = (
            _TYPES_BY_STATUS.get(error.status, "invalid_request_error")
            if isinstance(error, RequestError)
            else error.kind
        )
        code = (error.code if isinstance(error, RequestError) else None) or error.kind
        param = error.param if isinstance(error, RequestError) else None
    written: dict[str, Any] = {"message": str(error), "type": type_, "param": param, "code": code}
    if request_id:
        written["request_id"] = request_id
    return written


def write_error(error: PenstockError, request_id: str | None) -> bytes:
    return msgspec.json.encode({"error": error_object(error, request_id)})


def _detail(error: dict[str, Any]) -> Any:
    """What FastAPI servers say instead of an error; Mistral puts it where the message is (2026-11)."""
    said = error.get("message")
    return said.get("detail") if isinstance(said, dict) else error.get("detail")


def _refused(detail: list[Any]) -> tuple[str | None, str | None]:
    """Why and where: pydantic's word for the fault, and the field's path as OpenAI writes one."""
    first = detail[0] if detail and isinstance(detail[0], dict) else {}
    steps = first.get("loc")
    if not isinstance(steps, list) or len(steps) < 2 or steps[0] != "body":
        return None, None
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps[1:])
    return _word(first.get("type")), path.removeprefix(".")


def _word(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
