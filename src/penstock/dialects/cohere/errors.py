"""Errors of Cohere's wire: `{"id", "message"}` as a body. The class comes from the status alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canon.errors import StatusError, StreamedError, status_error_class
from penstock.dialects.base import load_json, retry_after_s
from penstock.dialects.cohere.wire import FAILURES

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_error(status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
    found = load_json(body)
    message = found.get("message") if isinstance(found, dict) else None
    return status_error_class(status, None, None)(
        message if isinstance(message, str) and message else f"The upstream answered {status}.",
        status=status,
        body=body,
        content_type=headers.get("content-type"),
        retry_after_s=retry_after_s(headers),
        target=target,
    )


def streamed_error(reason: str, error: Any) -> StreamedError:
    """A reply whose finish reason is a failure."""
    message = error.get("message") if isinstance(error, dict) else error
    return StreamedError(
        message if isinstance(message, str) and message else f"The upstream ended its reply with {reason}.",
        type=reason,
        status=FAILURES.get(reason, 502),
        raw=error,
    )
