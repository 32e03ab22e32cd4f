"""An event loop on which time passes only when nothing else can happen, and then at once.

`@on_virtual_time` runs an async test on it: an hour of `asyncio.sleep` takes microseconds, and two timers that are a
millisecond apart fire in their order. `now()` is the loop's own time, which is what our clocks are given. A test in
which every task waits for something that will never come fails instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

START = 1000.0


class Stuck(AssertionError):
    """Nothing is ready, no timer is set: the test waits for what will never come."""


class _Selector(selectors.DefaultSelector):
    """Where a real loop would wait, the clock is put forward."""

    clock: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise Stuck("every task waits, and nothing is to come")
        self.clock.advance(timeout)
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual_now = START
        selector = _Selector()
        super().__init__(selector)
        selector.clock = self

    def time(self) -> float:
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        self._virtual_now += max(seconds, 0.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
