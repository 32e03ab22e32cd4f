"""What a job tells before its first token: where it stands in line, how far its prompt is.

Each job has one of its own. Whoever narrates calls `say` from the loop, as often as he likes; it returns at once and
never raises. What is passed on is bounded: a few in a burst, then one every `EVERY_S`, the newest in place of those
before it. `stop` ends it: at the first token, and with the job.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from penstock.canon.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream

#: narrations that may come at once, and the time after which one more may
BURST = 8
EVERY_S = 0.1

SLOT = Progress("slot", message="slot acquired")

_log = logging.getLogger(__name__)


class Narration:
    """`tell` is given each narration to pass on. It must not wait; what it raises is logged, and the narration lost."""

    __slots__ = ("_allowance", "_at", "_is_over", "_last", "_tell", "_timer")

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell: Callable[[Progress], None] | None = tell
        self._last: Progress | None = None
        self._allowance = float(BURST)
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def say(self, progress: Progress) -> None:
        if self._is_over or progress == self._last:
            return
        self._last = progress
        if self._timer is None:
            wait_s = self._wait_s()
            if wait_s <= 0:
                self._pass_on()
            else:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._due)

    def stop(self) -> None:
        self._is_over = True
        self._tell = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_s(self) -> float:
        now = asyncio.get_running_loop().time()
        self._allowance = min(float(BURST), self._allowance + (now - self._at) / EVERY_S)
        self._at = now
        return (1.0 - self._allowance) * EVERY_S

    def _due(self) -> None:
        self._timer = None
        self._wait_s()
        self._pass_on()

    def _pass_on(self) -> None:
        self._allowance -= 1.0
        if self._tell is None or self._last is None:
            return
        try:
            self._tell(self._last)
        except Exception as error:
            # Not its words: they may be a prompt's.
            _log.warning("A narration was lost: %s.", type(error).__name__)


def acquired(inner: Handler) -> Handler:
    """The layer behind the line: a call that gets here has its slot, and says so."""

    def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
        if call.narrate is not None:
            call.narrate(SLOT)
        return inner(call)

    return handle
