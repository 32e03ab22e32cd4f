"""The layer that asks the same target again, while nothing of a reply has been handed on (C9).

What may do better a moment later is repeated: no connection, a clock before the first content, 408, 409, 429 and 5xx,
an error or an end inside the stream before its first content, and a reply that says nothing. What a second time cannot
mend is raised at once. Every attempt is on the call (C1), by the leaf. `total` spans them all, pauses included, and a
client that leaves ends a pause at once. Why: docs/decisions/0015.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from penstock.canon.errors import EmptyReply, PenstockError, TimedOut
from penstock.canon.events import Delta, Finish, UsageUpdate, is_content

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from penstock.canon.events import Event
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream


class Retry(Struct, frozen=True):
    """How often, and after what pause, in seconds. The pause doubles each time, from `backoff` to `max_backoff`, and
    loses up to half of itself by chance, so that those who failed together do not come back together.

    An upstream that says when to come back (Retry-After) is given its time, up to `max_retry_after`; one that asks for
    more is not asked again.
    """

    attempts: int = 3
    backoff: float = 0.5
    max_backoff: float = 8.0
    max_retry_after: float = 30.0

    def pause(self, attempt: int, error: PenstockError, chance: float, *, elsewhere: bool = False) -> float | None:
        """Seconds to wait after that attempt has failed; None: do not repeat it here. `chance` is from 0 to 1.

        `elsewhere`: somebody else can be asked, and may answer sooner than one that has taken its time, or that wants
        us to come back later.
        """
        if attempt >= self.attempts or not error.retryable or (elsewhere and isinstance(error, TimedOut)):
            return None
        own = min(self.backoff * 2.0 ** (attempt - 1), self.max_backoff) * (1.0 - chance / 2)
        asked: float | None = getattr(error, "retry_after_s", None)
        if asked is None or asked <= own:
            return own
        return None if elsewhere or asked > self.max_retry_after else asked + self.backoff * chance


def retried(
    policy: Retry,
    *,
    total_s: float | None = None,
    empties: bool = True,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> Layer:
    """`total_s` is the clock of the whole call; `empties`: a reply that says nothing is asked for again."""

    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            if policy.attempts <= 1 and not call.may_be_asked_again:
                return inner(call)
            return _Retrying(call, inner, policy, total_s, empties, sleep, chance)

        return handle

    return layer


class _Retrying:
    """A call at one target. A class, because a generator costs each call more."""

    __slots__ = ("_call", "_chance", "_empties", "_inner", "_opened", "_policy", "_sleep", "_total_s")

    def __init__(
        self,
        call: Call,
        inner: Handler,
        policy: Retry,
        total_s: float | None,
        empties: bool,
        sleep: Callable[[float], Awaitable[None]],
        chance: Callable[[], float],
    ) -> None:
        self._call = call
        self._inner = inner
        self._policy = policy
        self._total_s = total_s
        self._empties = empties
        self._sleep = sleep
        self._chance = chance

    async def __aenter__(self) -> EventStream:
        call = self._call
        elsewhere = call.may_be_asked_again
        attempt = 0
        try:
            while True:
                attempt += 1
                call.may_be_asked_again = elsewhere or attempt < self._policy.attempts
                opened = self._opened = self._inner(call)
                try:
                    stream = await opened.__aenter__()
                except PenstockError as error:
                    pause = self._pause(attempt, error, elsewhere=elsewhere)
                    if pause is None:
                        raise
                else:
                    if not (self._empties and call.may_be_asked_again and is_empty(stream.in_hand)):
                        return stream
                    pause = self._pause(attempt, _empty(stream), elsewhere=elsewhere)
                    if pause is None and not elsewhere:
                        return stream  # there is no time to ask again, and it may be true
                    await _throw_away(call, stream, opened)
                    if pause is None:
                        raise _empty(stream)
                await self._sleep(pause)
        finally:
            call.may_be_asked_again = elsewhere

    def _pause(self, attempt: int, failure: PenstockError, *, elsewhere: bool) -> float | None:
        pause = self._policy.pause(attempt, failure, self._chance(), elsewhere=elsewhere)
        if pause is None or self._total_s is None:
            return pause
        # What went wrong says more than the clock that would end the next attempt.
        return pause if self._call.now() + pause < self._call.began + self._total_s else None

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, bool | None]:
        return self._opened.__aexit__(kind, error, trace)


def _empty(stream: EventStream) -> EmptyReply:
    error = EmptyReply("The upstream's reply is complete, and empty.", target=str(stream.target))
    error.attempt = stream.attempt
    return error


async def _throw_away(call: Call, stream: EventStream, opened: AbstractAsyncContextManager[EventStream]) -> None:
    """The upstream has worked, and may want to be paid: what it says of that is kept."""
    attempt = call.attempts[-1]
    attempt.tokens = _output_tokens(stream.in_hand)
    await opened.__aexit__(None, None, None)
    attempt.error = EmptyReply.kind


# --- what says nothing ----------------------------------------------------------------------------------------------

#: endings that promise an answer; any other says itself why there is none
_PROMISING = frozenset({"stop", "tool_calls", "other"})


def is_empty(events: Iterable[Event]) -> bool:
    """Whether these are a whole reply without a word, a thought or a call, and without a reason for that."""
    finish: Finish | None = None
    for event in events:
        if type(event) is Delta:  # most replies begin with a word
            if event.text:
                return False
        elif type(event) is Finish:
            finish = event
        elif is_content(event):
            return False
    return finish is not None and finish.reason in _PROMISING


def _output_tokens(events: Iterable[Event]) -> int | None:
    found = None
    for event in events:
        if isinstance(event, UsageUpdate | Finish) and event.usage is not None:
            found = event.usage.output
    return found
