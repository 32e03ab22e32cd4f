"""The clocks of one attempt (C8): `first_content`, `idle`, `silence` and `total`. (`connect` is the transport's.)

Bytes of any kind satisfy `silence`; only content satisfies `first_content` and `idle`. The time during which the
consumer held the stream, and so nobody was reading, counts for none of these three. One timer per stream, re-armed
only when it fires: a read costs a few assignments.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.errors import ClockName


class Timeouts(Struct, frozen=True):
    """Seconds; None: no limit."""

    connect: float | None = 5.0
    first_content: float | None = 120.0
    idle: float | None = 60.0
    silence: float | None = 60.0
    total: float | None = None


#: A reply whose ending is proved is complete; its usage and its last word are given this long to come as well.
AFTER_FINISH_S = 5.0


class Clocks:
    """Call `start` when the attempt begins, `resume` before each read, `has_read` after it, `stop` at the end.

    `expired(clock, limit_s)` is called once, from the loop, when one has run out; `clock` is None when it is only the
    time after a proved finish that has.
    """

    __slots__ = (
        "_attempt_at",
        "_began",
        "_content_at",
        "_expired",
        "_held_since",
        "_limits",
        "_now",
        "_proved",
        "_read_at",
        "_timer",
    )

    def __init__(
        self,
        limits: Timeouts,
        expired: Callable[[ClockName | None, float], None],
        *,
        now: Callable[[], float],
        began: float,
        attempt_at: float,
    ) -> None:
        """`began` is when the call began (for `total`), `attempt_at` when this attempt did (for `first_content`)."""
        self._limits = limits
        self._expired = expired
        self._now = now
        self._began = began
        self._attempt_at = attempt_at
        self._read_at = now()
        self._content_at: float | None = None
        self._held_since: float | None = None
        self._proved = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._check()

    def resume(self) -> None:
        """The consumer wants more: the time that it held the stream is added to every deadline but `total`."""
        if self._held_since is not None:
            held = self._now() - self._held_since
            self._held_since = None
            self._read_at += held
            if self._content_at is not None:
                self._content_at += held

    def has_read(self, at: float, *, content: bool, proved: bool) -> None:
        self._read_at = self._held_since = at
        if content:
            self._content_at = at
        if proved and not self._proved:
            self._proved = True
            self.stop()
            self._check()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deadlines(self) -> list[tuple[float, ClockName | None, float]]:
        if self._proved:
            return [(self._read_at + AFTER_FINISH_S, None, AFTER_FINISH_S)]
        limits = self._limits
        deadlines: list[tuple[float, ClockName | None, float]] = []
        if self._content_at is None:
            if limits.first_content is not None:
                deadlines.append((self._attempt_at + limits.first_content, "first_content", limits.first_content))
        elif limits.idle is not None:
            deadlines.append((self._content_at + limits.idle, "idle", limits.idle))
        if limits.silence is not None:
            deadlines.append((self._read_at + limits.silence, "silence", limits.silence))
        return deadlines

    def _check(self) -> None:
        self._timer = None
        now = self._now()
        seen = now if self._held_since is None else self._held_since
        remaining = [(deadline - seen, clock, limit) for deadline, clock, limit in self._deadlines()]
        if self._limits.total is not None and not self._proved:
            remaining.append((self._began + self._limits.total - now, "total", self._limits.total))
        if not remaining:
            return
        left, clock, limit = min(remaining, key=_left)
        if left <= 0:
            self._expired(clock, limit)
            return
        # A millisecond is the loop's own grain: asking for less would only fire early and ask again.
        self._timer = asyncio.get_running_loop().call_later(max(left, 0.001), self._check)


def _left(row: tuple[float, ClockName | None, float]) -> float:
    return row[0]
