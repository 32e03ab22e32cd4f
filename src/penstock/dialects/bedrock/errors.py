"""Errors of Bedrock's wire: `{"message"}` with `x-amzn-errortype` as a body, exceptions inside a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canon.errors import StatusError, StreamedError, status_error_class
from penstock.dialects.base import load_json, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

#: what an exception inside a stream would have been as a status
_STATUSES = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "modelTimeoutException": 408,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}


def read_error(status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
    found = load_json(body)
    found = found if isinstance(found, dict) else {}
    message = found.get("message") or found.get("Message")
    type_ = headers.get("x-amzn-errortype") or found.get("__type")
    # `ThrottlingException:http://internal.amazon.com/…`, or with a namespace before `#`
    word = str(type_).partition(":")[0].rpartition("#")[2] if type_ else None
    return status_error_class(status, None, word)(
        message if isinstance(message, str) and message else f"The upstream answered {status}.",
        status=status,
        type=word,
        body=body,
        content_type=headers.get("content-type"),
        retry_after_s=retry_after_s(headers),
        target=target,
    )


def streamed_error(kind: str, payload: Any) -> StreamedError:
    """An exception or an error message found inside a stream."""
    found = payload if isinstance(payload, dict) else {}
    message = found.get("originalMessage") or found.get("message")
    said = found.get("originalStatusCode")
    status = said if isinstance(said, int) and 400 <= said <= 599 else _STATUSES.get(kind, 502)
    return StreamedError(
        message if isinstance(message, str) and message else f"The upstream reported {kind} in its stream.",
        type=kind,
        status=status,
        raw=payload,
    )
