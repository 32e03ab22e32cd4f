"""Errors of Ollama's wire: `{"error": "text"}`, as a body or as a line. The class comes from the status alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import PenstockError, StatusError, StreamedError, status_error_class
from penstock.dialects.base import load_json, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_error(status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
    found = load_json(body)
    error: Any = found.get("error") if isinstance(found, dict) else None
    message, code = _said(error)
    return status_error_class(status, code, None)(
        message or f"The upstream answered {status}.",
        status=status,
        code=code,
        body=body,
        content_type=headers.get("content-type"),
        retry_after_s=retry_after_s(headers),
        target=target,
    )


def streamed_error(error: Any) -> StreamedError:
    """An error inside a stream. This wire says nothing of its kind."""
    message, code = _said(error)
    return StreamedError(message or "The upstream reported an error in its stream.", code=code, status=502, raw=error)


def write_error(error: PenstockError, request_id: str | None) -> bytes:
    return msgspec.json.encode({"error": str(error)})


def _said(error: Any) -> tuple[str | None, str | None]:
    """Message and code; a proxy in front may have put an object there."""
    if isinstance(error, dict):
        message, code = error.get("message"), error.get("code")
        return (message if isinstance(message, str) else None), (code if isinstance(code, str) else None)
    return (error if isinstance(error, str) and error else None), None
