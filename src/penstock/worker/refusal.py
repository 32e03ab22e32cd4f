"""How the worker says no in its own words: a stable code for every error, and a status with a body.

The same three facts, whether as an `error` event or as an answer: `code`, one sentence, `retriable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from penstock.canon.errors import (
    Cancelled,
    ConnectError,
    ContextTooLong,
    EngineCrashed,
    EngineOutOfMemory,
    Overloaded,
    PenstockError,
    RequestError,
    Saturated,
    ShuttingDown,
    StatusError,
    TimedOut,
    TooLarge,
    UnknownJob,
    UnknownRoute,
)
from penstock.serving.asgi import respond, retry_after
from penstock.worker.events import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.serving.asgi import Header, Send

#: the first class that fits
CODES: tuple[tuple[type[PenstockError], str], ...] = (
    (Cancelled, "CANCELLED"),
    (ShuttingDown, "SHUTTING_DOWN"),
    (Saturated, "SATURATED"),
    (TimedOut, "TIMEOUT"),
    (ContextTooLong, "CONTEXT_TOO_LONG"),
    (UnknownJob, "UNKNOWN_JOB"),
    (UnknownRoute, "UNKNOWN_ROUTE"),
    (TooLarge, "TOO_LARGE"),
    (RequestError, "INVALID_REQUEST"),
    (EngineOutOfMemory, "OUT_OF_MEMORY"),
    (EngineCrashed, "ENGINE_CRASHED"),
    (Overloaded, "ENGINE_UNAVAILABLE"),
    (ConnectError, "ENGINE_UNAVAILABLE"),
)
OTHERWISE = "INFERENCE_FAILED"


class FieldError(Struct, frozen=True):
    """One thing that is wrong with a request: where, what it must be, and a sentence. Nothing of it repeats a text."""

    field: str
    constraint: str
    message: str


class _Refusal(Struct, omit_defaults=True):
    code: str
    message: str
    retriable: bool
    param: str | None = None
    errors: Sequence[FieldError] = ()


def error_code(error: PenstockError) -> str:
    if isinstance(error, StatusError) and error.status == 400 and not isinstance(error, ContextTooLong):
        return "INVALID_REQUEST"
    return next((code for known, code in CODES if isinstance(error, known)), OTHERWISE)


def failure(error: PenstockError) -> Failure:
    return Failure(error_code(error), str(error), is_retriable(error))


def is_retriable(error: PenstockError) -> bool:
    return error.retryable or isinstance(error, Saturated | ShuttingDown)


async def refuse_job(send: Send, error: PenstockError, request_id: str) -> None:
    """The error as a status."""
    headers: list[Header] = [(b"x-request-id", request_id.encode())]
    if isinstance(error, TooLarge):  # the body was not read: the connection cannot be used again
        headers.append((b"connection", b"close"))
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers.append(retry_after(retry_after_s))
    said = _Refusal(error_code(error), str(error), is_retriable(error), getattr(error, "param", None))
    await respond(send, error.status, msgspec.json.encode({"error": said}), headers)


async def refuse_fields(send: Send, errors: Sequence[FieldError], request_id: str) -> None:
    """All that is wrong with a request, at once. `param` is the first field, for clients that know only one."""
    message = errors[0].message if len(errors) == 1 else f"{len(errors)} fields are wrong: {_joined(errors)}"
    said = _Refusal("INVALID_REQUEST", message, retriable=False, param=errors[0].field, errors=errors)
    await respond(send, 400, msgspec.json.encode({"error": said}), [(b"x-request-id", request_id.encode())])


def _joined(errors: Sequence[FieldError]) -> str:
    return "; ".join(error.message.rstrip(".") for error in errors) + "."
