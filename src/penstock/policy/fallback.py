"""The layer that walks a call's targets in their order, until one answers (C9: the client has seen nothing yet).

It goes on to the next target whenever that one could do better: the target does not work, is overloaded, refuses our
key, does not know the model, cannot express the request, or finds it too long. What is wrong with the request itself is
raised at once. When none is left: one `NoTargetLeft` that names every attempt, with the status that tells most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canon.errors import (
    ContentRefused,
    ContextTooLong,
    FrameTooLarge,
    NoTargetLeft,
    PenstockError,
    ReplyTooLarge,
    RequestError,
    Saturated,
    StatusError,
    StreamedError,
    TimedOut,
    Unsupported,
    UpstreamError,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from penstock.canon.target import Target
    from penstock.policy.breaker import Breakers, TargetHealth
    from penstock.streams.handler import Attempt, Call, Handler, Layer
    from penstock.streams.stream import EventStream


def fallback(breakers: Breakers) -> Layer:
    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            assert call.targets, "routing comes before fallback"
            if len(call.targets) == 1:
                call.target = call.targets[0]
                return _AtOne(call, inner, breakers.of(call.target))
            return _FallingBack(call, inner, breakers)

        return handle

    return layer


class _AtOne:
    """A call at one target, and what it shows of that one. A class, because a generator costs each call more."""

    __slots__ = ("_call", "_health", "_inner", "_opened", "_stream")

    def __init__(self, call: Call, inner: Handler, health: TargetHealth) -> None:
        self._call = call
        self._inner = inner
        self._health = health

    async def __aenter__(self) -> EventStream:
        health = self._health
        health.begin(self)
        try:
            self._opened = self._inner(self._call)
            stream = self._stream = await self._opened.__aenter__()
        except BaseException as error:
            health.failed(self, error)
            health.end(self)
            raise
        health.answered()
        return stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._opened.__aexit__(kind, error, trace)
        finally:
            health, stream = self._health, self._stream
            failure = stream.error or error
            if failure is not None and not stream.is_complete:
                health.failed(self, failure)
            elif health.failures and stream.is_complete:
                health.completed()
            health.end(self)


class _FallingBack:
    """A call at its targets, one after the other."""

    __slots__ = ("_breakers", "_call", "_inner", "_opened")

    def __init__(self, call: Call, inner: Handler, breakers: Breakers) -> None:
        self._call = call
        self._inner = inner
        self._breakers = breakers

    async def __aenter__(self) -> EventStream:
        call = self._call
        could_already = call.may_be_asked_again
        failures: list[PenstockError] = []
        told: PenstockError | None = None
        queue = _to_ask(call.targets, self._breakers)
        try:
            while True:
                call.target, health = queue.pop(0)
                call.may_be_asked_again = could_already or bool(queue)
                opened = self._opened = _AtOne(call, self._inner, health)
                try:
                    return await opened.__aenter__()
                except PenstockError as error:
                    failures.append(error)
                    if not queue or not may_do_better_elsewhere(error):
                        told = _all_told(failures, call.attempts)
                        if told is error:
                            raise
                        raise told from error
                # Another call may have opened a breaker meanwhile; the last hope is asked whatever it is.
                while len(queue) > 1 and not queue[0][1].is_welcome:
                    queue.pop(0)
        finally:
            failures.clear()  # an error holds this frame, which must not hold the error
            told = None
            call.may_be_asked_again = could_already

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, bool | None]:
        return self._opened.__aexit__(kind, error, trace)


def _to_ask(targets: tuple[Target, ...], breakers: Breakers) -> list[tuple[Target, TargetHealth]]:
    """Those that work, in order; all of them when none does."""
    known = [(target, breakers.of(target)) for target in targets]
    return [each for each in known if each[1].is_welcome] or known


# --- what went wrong ------------------------------------------------------------------------------------------------

#: what is wrong with the request, whoever is asked
_OF_THE_REQUEST = frozenset({400, 413, 422})


def may_do_better_elsewhere(error: PenstockError) -> bool:
    if isinstance(error, Unsupported | Saturated):
        return True
    if not isinstance(error, UpstreamError) or isinstance(error, ContentRefused | FrameTooLarge | ReplyTooLarge):
        return False
    if isinstance(error, TimedOut):
        return error.clock != "total"
    if isinstance(error, StatusError | StreamedError):
        return error.retryable or isinstance(error, ContextTooLong) or error.status not in _OF_THE_REQUEST
    return True


def _all_told(failures: list[PenstockError], attempts: list[Attempt]) -> PenstockError:
    """What the caller is told after these. One alone, and what only the caller can mend, speak for themselves."""
    last = failures[-1]
    if len(failures) == 1 or not may_do_better_elsewhere(last):
        return last
    telling = min(failures, key=_rank)
    if isinstance(telling, ContextTooLong | RequestError) or not attempts:
        return telling
    waits = [wait for error in failures if (wait := getattr(error, "retry_after_s", None)) is not None]
    lines = tuple(f"{attempt.target} {_said(attempt)}" for attempt in attempts)
    error = NoTargetLeft(
        f"No target is left. The {len(lines)} attempts: {', '.join(lines)}. The most telling: {telling.message}",
        attempts=lines,
        status=telling.status,
        retry_after_s=min(waits) if waits else None,
    )
    error.target, error.attempt = telling.target, telling.attempt
    return error


def _said(attempt: Attempt) -> str:
    return f"{attempt.error} ({attempt.status})" if attempt.status not in (None, 200) else str(attempt.error)


#: from what tells a caller most to what tells least: come back later, slower, or not like this
_TELLING = (429, 529, 503, 504)


def _rank(error: PenstockError) -> int:
    if error.status in _TELLING:
        return _TELLING.index(error.status)
    if error.retryable or error.status >= 500:
        return len(_TELLING)
    return len(_TELLING) + (1 if isinstance(error, ContextTooLong | RequestError) else 2)
