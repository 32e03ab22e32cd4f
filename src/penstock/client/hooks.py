"""What a program may hang on its calls: three moments, each with a value that says what happened.

    on_request    once per call, before anything is sent
    on_response   when the reply has begun; not at all for a call that fails before
    on_end        exactly once for every call that had its `on_request`, however it ended

Hooks are plain functions. They run on the loop that the call runs on (the private one, for the sync API), so one that
takes long holds its stream up. What a hook raises is logged and reaches no call.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from penstock.canon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.request import ChatRequest
    from penstock.canon.response import Response
    from penstock.telemetry.record import CallRecord

_log = logging.getLogger("penstock.hooks")

T = TypeVar("T")


class RequestSent(Struct, frozen=True):
    """`request_id` is the same in all three; `model` and `target` are whom the call names first.

    `request` is None for a stream of another library's; embeddings have one for each portion of texts.
    """

    request_id: str
    model: str
    target: str
    request: ChatRequest | EmbedRequest | None


class ResponseStarted(Struct, frozen=True):
    """`target` is who answers, at which `attempt`, with which HTTP `status`; `synthetic`: it does not stream."""

    request_id: str
    target: str
    status: int
    attempt: int
    synthetic: bool


class StreamEnd(Struct, frozen=True):
    """`response` is what had come, its `outcome` how it ended; `error` is what ended it, None when nothing failed.

    `record` is the call's row, None for a stream that was cancelled before anything was sent.
    """

    request_id: str
    response: Response
    error: BaseException | None
    record: CallRecord | None


class Hooks:
    """The hooks of a client. Raises `ConfigError` for a coroutine function: nothing would await it."""

    __slots__ = ("on_end", "on_request", "on_response")

    def __init__(
        self,
        *,
        on_request: Callable[[RequestSent], None] | None = None,
        on_response: Callable[[ResponseStarted], None] | None = None,
        on_end: Callable[[StreamEnd], None] | None = None,
    ) -> None:
        for name, hook in (("on_request", on_request), ("on_response", on_response), ("on_end", on_end)):
            check_plain(name, hook)
        self.on_request = on_request
        self.on_response = on_response
        self.on_end = on_end


def check_plain(name: str, function: object) -> None:
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{name} is a coroutine function.", fix="Give a plain one; it may start a task.")


def tell(hook: Callable[[T], None] | None, value: T) -> None:
    """Call it, whatever it does."""
    if hook is not None:
        try:
            hook(value)
        except Exception:
            _log.exception("A hook raised.")
