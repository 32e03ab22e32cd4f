"""The private loop of the sync API: one daemon thread, begun when first used, ended with the interpreter or its client.

No thread exists before the sync API is used, and none is left afterwards.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class LoopThread:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop and wait; what it raises is raised here. A Ctrl-C cancels it."""
        visit = _Visit(coroutine, self._started())
        visit.loop.call_soon_threadsafe(visit.begin)
        try:
            visit.is_over.acquire()
        except BaseException:
            visit.loop.call_soon_threadsafe(visit.give_up)
            raise
        if visit.error is not None:
            raise visit.error
        return visit.value  # type: ignore[no-any-return]

    def call(self, function: Callable[[], None]) -> None:
        self._started().call_soon_threadsafe(function)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = _new_loop()
                self._thread = threading.Thread(target=self._run, name="penstock", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            return self._loop

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def close(self) -> None:
        """End the loop and its thread. May be called again; using the thread afterwards begins a new one."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        atexit.unregister(self.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5.0)
        if not thread.is_alive():
            loop.close()


class _Visit:
    """One coroutine on the loop, and the thread that waits for it.

    A lock and a task, because a stream pays for this with each batch: `asyncio.run_coroutine_threadsafe` makes two
    futures beside them and chains them. Besides, a StopAsyncIteration cannot pass through a future.
    """

    __slots__ = ("_coroutine", "_task", "error", "is_over", "loop", "value")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[None] | None = None
        self.loop = loop
        self.is_over = threading.Lock()
        self.is_over.acquire()
        self.value: Any = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        self._task = self.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            self.value = await self._coroutine
        except BaseException as error:
            self.error = error
        finally:
            self.is_over.release()

    def give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


#: the one that all clients share
private_loop = LoopThread()
