"""Errors of the Responses wire: bodies are OpenAI's own; in a stream they are `response.failed` or a flat `error`."""

from __future__ import annotations

from typing import Any

from penstock.canon.errors import PenstockError, StreamedError
from penstock.dialects.openai_chat.errors import error_object, read_error, streamed_error, write_error

__all__ = ["failure", "flat_error", "read_error", "stream_error", "write_error"]


def stream_error(event: dict[str, Any]) -> StreamedError:
    """An `error` event, flat or nested, or the `error` of a failed response."""
    nested = event.get("error")
    return streamed_error(nested if isinstance(nested, dict) else event)


def failure(error: PenstockError) -> dict[str, str]:
    """The `error` of a failed response. Clients of this wire know a few codes, and take any."""
    said = error_object(error)
    status = getattr(error, "status", 500)
    code = "rate_limit_exceeded" if status == 429 else said["code"] or "server_error"
    return {"code": str(code), "message": str(error)}


def flat_error(error: PenstockError) -> dict[str, Any]:
    """The members of an `error` event, for a stream that has no response yet."""
    said = error_object(error)
    return {"code": said["code"], "message": said["message"], "param": said["param"]}
