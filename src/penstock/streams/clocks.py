"""The clocks of one attempt (C8): `first_content`, `idle`, `silence` and `total`. (`connect` is the transport's.)

Bytes of any kind satisfy `silence`; only content satisfies `first_content` and `idle`. The time during which the
consumer held the stream, and so nobody was reading, counts for none of these three. One timer per stream, re-armed
only when it fires, or when a wait begins that it would come too late for: a read costs a few assignments.

A loop that was held up for longer than a clock allows has not read what came meanwhile, and its timers come first. So a
clock that is found to have run out late is looked at once more, when that has been read.

A reply that was not asked to stream comes when all of it has been thought: there `document` stands for `first_content`
and `idle`, and `silence` begins with the first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from penstock.canon.errors import TimedOut

if TYPE_CHECKING:
    from penstock.canon.errors import ClockName

T = TypeVar("T")


class Timeouts(Struct, frozen=True):
    """Seconds; None: no limit."""

    connect: float | None = 5.0
    first_content: float | None = 120.0
    idle: float | None = 60.0
    silence: float | None = 60.0
    total: float | None = None
    #: all of a reply that was not asked to stream; as long as the providers' own SDKs wait
    document: float | None = 600.0


#: A reply whose ending is proved is complete; its usage and its last word are given this long to come as well.
AFTER_FINISH_S = 5.0


#: A timer that comes so much later than it was due says that the loop was held up …
LATE_S = 0.1
#: … and what has arrived is read within this, or the timer is late again.
CATCH_UP_S = 0.02


Expired = Callable[["ClockName | None", float], None]


class Clocks:
    """They run from the moment they are made: `guard` opens the attempt, `watch` hands them to its reader.

    The reader calls `resume` before it waits, `has_read` after each read, `stop` at the end. Whoever is watched is told
    once, from the loop, when a clock has run out: its name and its limit; the name is None when only the time after a
    proved finish has.
    """

    __slots__ = (
        "_attempt_at", "_began", "_content_at", "_due", "_expired", "_held_since", "_is_document", "_is_late",
        "_is_thinking", "_limits", "_now", "_proved", "_read_at", "_timer",
    )  # fmt: skip

    def __init__(self, limits: Timeouts, *, now: Callable[[], float], began: float, is_document: bool = False) -> None:
        """`began` is when the call began, which is what `total` counts from; the attempt begins now.

        `is_document`: what is asked for is not to stream.
        """
        self._limits = limits
        #: … and nothing of it has come yet
        self._is_document = self._is_thinking = is_document
        self._now = now
        self._began = began
        self._attempt_at = self._read_at = now()
        self._content_at: float | None = None
        self._held_since: float | None = None
        self._proved = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = _NEVER  # what the timer stands at
        self._expired: Expired | None = None
        #: the timer stands at something later than what is waited for now
        self._is_late = False

    async def guard(self, opening: Awaitable[T]) -> T:
        """Wait for `opening`; raises `TimedOut`, having cancelled it, when a clock runs out first."""
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        fired: TimedOut | None = None

        def expired(clock: ClockName | None, limit_s: float) -> None:
            nonlocal fired
            assert clock is not None
            fired = TimedOut(clock, limit_s)
            task.cancel()

        self.watch(expired)
        try:
            return await opening
        except asyncio.CancelledError:
            # As asyncio.timeout does it: a cancellation that somebody else asked for at the same time goes on.
            if fired is not None and task.uncancel() <= cancelling:
                raise fired from None
            raise
        finally:
            self._expired = None

    def watch(self, expired: Expired) -> None:
        self._expired = expired
        if self._timer is None:
            self._check()

    def resume(self) -> None:
        """The reader waits: the time that its consumer held the stream is added to every deadline but `total`."""
        if self._held_since is not None:
            self._shift(self._now() - self._held_since)
            self._held_since = None
        if self._is_late:
            if self._timer is not None:
                self._timer.cancel()
            if self._expired is not None:
                self._check()

    def has_read(self, at: float, has_content: bool, proved: bool) -> None:
        if self._held_since is not None:  # what is read had come while the consumer held the stream
            self._shift(at - self._held_since)
        self._read_at = self._held_since = at
        if has_content:
            if self._content_at is None and self._limits.idle is not None and at + self._limits.idle < self._due:
                self._is_late = True
            self._content_at = at
        if self._is_thinking or (proved and not self._proved):
            self._is_thinking = False
            self._proved = proved
            self._is_late = True

    def _shift(self, held_s: float) -> None:
        self._read_at += held_s
        if self._content_at is not None:
            self._content_at += held_s

    def stop(self) -> None:
        self._expired = None  # whoever is watched holds us as well: no cycle may be left behind
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Tell of the clock that has run out, or come back when the next one can have."""
        self._timer = None
        self._is_late = False
        now = self._now()
        seen = now if self._held_since is None else self._held_since
        limits = self._limits
        clock: ClockName | None = None
        if self._proved:
            limit, left = AFTER_FINISH_S, self._read_at + AFTER_FINISH_S - seen
        else:
            limit, left = 0.0, _NEVER
            if self._is_document:
                if limits.document is not None:
                    clock, limit, left = "document", limits.document, limits.document + self._attempt_at - seen
            elif self._content_at is None:
                if limits.first_content is not None:
                    clock, limit, left = (
                        "first_content",
                        limits.first_content,
                        limits.first_content + self._attempt_at - seen,
                    )
            elif limits.idle is not None:
                clock, limit, left = "idle", limits.idle, limits.idle + self._content_at - seen
            if limits.silence is not None and not self._is_thinking and limits.silence + self._read_at - seen < left:
                clock, limit, left = "silence", limits.silence, limits.silence + self._read_at - seen
            if limits.total is not None and limits.total + self._began - now < left:
                clock, limit, left = "total", limits.total, limits.total + self._began - now
        due, self._due = self._due, now + left
        if left == _NEVER:
            return
        if left <= 0:
            if now - due < LATE_S:
                if self._expired is not None:
                    self._expired(clock, limit)
                return
            left = CATCH_UP_S
            self._due = now + left
        # A millisecond is the loop's own grain: asking for less would only fire early and ask again.
        self._timer = asyncio.get_running_loop().call_later(max(left, 0.001), self._check)


_NEVER = float("inf")
